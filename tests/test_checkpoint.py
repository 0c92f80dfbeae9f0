import contextlib
import functools
import itertools
import json
import os
import pathlib
import pickle
import resource
import subprocess
import sys
from random import Random

import mxnet as mx
import numpy as np
import pytest

import symbols
from common import files
from common.models import trained
from common.storage import checkpoint, file_set
from tests.conftest import ROOT

SHAPES = {"data": (2, 1, 28, 28), "softmax_label": (2,)}


def started(**options):
    """A symbol and params for it, the transformer's off the identity."""
    symbol = symbols.get_symbol("lenet", **options)
    module = mx.mod.Module(symbol)
    module.bind([("data", SHAPES["data"])], [("softmax_label", (2,))])
    module.init_params(mx.init.Xavier())
    arg_params, aux_params = module.get_params()
    if "stn_loc_fc2_bias" in arg_params:
        arg_params["stn_loc_fc2_bias"] += 0.05
    return symbol, arg_params, aux_params


@pytest.fixture
def network():
    return started()


def save(prefix, network, epoch=1, arrays=None, **meta):
    checkpoint.save(str(prefix), epoch, *network, arrays or {}, meta)


def test_params_and_state_come_back_exactly(tmp_path, network):
    arrays = {"fc1_weight.0": np.random.RandomState(0).rand(3, 4).astype(np.float32)}
    save(tmp_path / "a", network, arrays=arrays, updates=7)
    arg_params, aux_params = checkpoint.load_params(str(tmp_path / "a"), 1, network[0], **SHAPES)
    for name, value in network[1].items():
        np.testing.assert_array_equal(arg_params[name].asnumpy(), value.asnumpy())
    assert aux_params == {}
    loaded, meta = checkpoint.load_state(str(tmp_path / "a"), 1)
    np.testing.assert_array_equal(loaded["fc1_weight.0"], arrays["fc1_weight.0"])
    assert meta["updates"] == 7


def test_mxnets_own_loader_takes_it(tmp_path, network):
    save(tmp_path / "a", network)
    symbol, arg_params, _ = mx.model.load_checkpoint(str(tmp_path / "a"), 1)
    assert symbol.tojson() == network[0].tojson()
    assert set(arg_params) == set(network[1])
    for name, value in network[1].items():
        np.testing.assert_array_equal(arg_params[name].asnumpy(), value.asnumpy())


def test_the_state_is_read_without_pickle(tmp_path, network):
    save(tmp_path / "a", network)
    (tmp_path / "a-0001.json").unlink()

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    crafted = np.empty(1, object)
    crafted[0] = Harm()
    for content in (pickle.dumps(Harm()), None):
        with open(tmp_path / "a-0001.state", "wb") as file:
            if content is None:
                np.savez(file, meta=crafted)
            else:
                file.write(content)
        with pytest.raises(ValueError, match="not a whole state file"):
            checkpoint.load_state(str(tmp_path / "a"), 1)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("cut", [0, 10, 5000, -1])
def test_truncated_files_are_refused(tmp_path, network, cut):
    arrays = {"fc1_weight.0": np.zeros((50, 320), np.float32)}
    save(tmp_path / "a", network, arrays=arrays)
    (tmp_path / "a-0001.json").unlink()
    for suffix, load in ((".params", lambda p: checkpoint.load_params(p, 1, network[0], **SHAPES)),
                         (".state", lambda p: checkpoint.load_state(p, 1))):
        path = tmp_path / f"a-0001{suffix}"
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(ValueError, match=f"a-0001{suffix}: not a whole"):
            load(str(tmp_path / "a"))
        save(tmp_path / "a", network, arrays=arrays)
        (tmp_path / "a-0001.json").unlink()


def test_changed_params_are_noticed_without_a_manifest(tmp_path, network):
    save(tmp_path / "a", network)
    (tmp_path / "a-0001.json").unlink()
    path = tmp_path / "a-0001.params"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not the file that"):
        checkpoint.load_state(str(tmp_path / "a"), 1)


def test_params_of_another_network_are_refused(tmp_path, network):
    save(tmp_path / "a", network)
    for other, words in ((symbols.get_symbol("mlp"), "stn_loc_hidden1_weight is missing"),
                         (symbols.get_symbol("lenet", add_stn=False),
                          "stn_loc_conv1_weight is unexpected"),
                         (symbols.get_symbol("lenet", num_classes=5),
                          r"fc2_weight is \(10, 50\), not \(5, 50\)")):
        with pytest.raises(ValueError, match=words):
            checkpoint.load_params(str(tmp_path / "a"), 1, other, **SHAPES)


def test_a_symbol_of_others_is_as_before():
    parts = mx.sym.concat(mx.sym.Variable("a"), mx.sym.Variable("b"), name="stn_parts")
    assert checkpoint.as_before(parts) == parts.tojson().encode()


def test_params_that_fit_another_symbol_are_refused(tmp_path):
    save(tmp_path / "a", started(transform="projective"))
    other = symbols.get_symbol("lenet", transform="projective", bounded=True)
    with pytest.raises(ValueError, match="a-symbol.json: of another network"):
        checkpoint.load_params(str(tmp_path / "a"), 1, other, **SHAPES)
    for name in ("a-symbol.json", "a-0001.json"):
        (tmp_path / name).unlink()
    checkpoint.load_params(str(tmp_path / "a"), 1, other, **SHAPES)


def test_one_of_a_run_stopped_before_its_renames_is_there(tmp_path, network, monkeypatch):
    prefix = str(tmp_path / "a")
    assert not checkpoint.begun(prefix)

    def rename(_, targets, places):
        if places != targets:
            raise Killed
    monkeypatch.setattr(file_set, "_rename", rename)
    with pytest.raises(Killed):
        save(prefix, network, epoch=checkpoint.STOPPED, updates=7)
    assert checkpoint.check(prefix, checkpoint.STOPPED)["updates"] == 7
    assert checkpoint.begun(prefix)


def test_a_checkpoint_that_is_not_there(tmp_path, network):
    with pytest.raises(FileNotFoundError, match="a-0003.params: there is no such file"):
        checkpoint.load_params(str(tmp_path / "a"), 3, network[0], **SHAPES)
    save(tmp_path / "a", network)
    for name in ("a-0001.state", "a-0001.json"):
        (tmp_path / name).unlink()
    assert checkpoint.load_state(str(tmp_path / "a"), 1) == (None, None)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def loaded(prefix, network):
    """What a checkpoint holds, as bytes."""
    arg_params, _ = checkpoint.load_params(prefix, 1, network[0], **SHAPES)
    _, meta = checkpoint.load_state(prefix, 1)
    return {name: value.asnumpy().tobytes() for name, value in arg_params.items()}, meta["number"]


DAMAGES = {
    "flip": lambda content, random: _flipped(content, random.randrange(8 * len(content))),
    "cut": lambda content, random: content[:random.randrange(len(content))],
    "longer": lambda content, random: content + bytes([random.randrange(256)]),
    "garbage": lambda content, random: bytes(random.randrange(256) for _ in content),
    "zeros": lambda content, random: bytes(len(content)),
}


def _flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("name", ["a-symbol.json", "a-0001.params", "a-0001.state", "a-0001.json"])
def test_no_damaged_file_is_loaded(tmp_path, name):
    network = started(add_stn=False)
    save(tmp_path / "a", network, arrays={"fc1_weight.0": np.ones((5, 32), np.float32)})
    path, random = tmp_path / name, Random(name)
    whole = path.read_bytes()
    for kind in [*DAMAGES, *["flip"] * 60, *["cut"] * 20]:
        path.write_bytes(DAMAGES[kind](whole, random))
        for load in (loaded, lambda prefix, _: trained.load(prefix)):
            with pytest.raises(ValueError, match=name) as refusal:
                load(str(tmp_path / "a"), network)
            assert "\n" not in str(refusal.value)
    path.write_bytes(whole)
    checkpoint.load_state(str(tmp_path / "a"), 1)


@pytest.mark.slow
def test_every_bit_of_a_manifest_counts(tmp_path):
    path, targets = tmp_path / "a.json", {kind: str(tmp_path / kind) for kind in checkpoint.KINDS}
    with file_set.replacing(str(path), targets) as new:
        for name in new.values():
            pathlib.Path(name).write_text(name)
    assert file_set.locate(str(path), targets) == targets
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        path.write_bytes(_flipped(whole, bit))
        with pytest.raises(ValueError, match="a.json"):
            file_set.locate(str(path), targets)


@pytest.mark.parametrize("text", ["", "[" * 100000, "null", "{}", "[1]", '{"symbol": 1}', "\xff"])
def test_a_crafted_manifest_is_refused(tmp_path, network, text):
    save(tmp_path / "a", network)
    (tmp_path / "a-0001.json").write_text(text)
    with pytest.raises(ValueError, match="a-0001.json: not a whole manifest"):
        checkpoint.load_state(str(tmp_path / "a"), 1)


@pytest.mark.parametrize("name", ["a-symbol.json", "a-0001.params", "a-0001.state"])
def test_a_missing_file_is_named(tmp_path, network, name):
    save(tmp_path / "a", network)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"{name}: missing, the file that .*a-0001.json"):
        checkpoint.load_state(str(tmp_path / "a"), 1)


class Killed(BaseException):
    """In place of a SIGKILL: nothing is tidied up after it."""


@contextlib.contextmanager
def ending_at(step, error):
    """Raises an error instead of a step of what is done to the disk; after a kill, of all others.
    """
    countdown = itertools.count(-step)

    def call(real, *args):
        now = next(countdown)
        if now == 0 or now > 0 and error is Killed:
            raise error
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "fsync"):
            patch.setattr(os, name, functools.partial(call, getattr(os, name)))
        if error is Killed:
            patch.setattr(files, "remove", lambda path: None)
        with contextlib.suppress(error):
            yield


@pytest.mark.parametrize("error", [Killed, OSError])
@pytest.mark.parametrize("older", [True, False])
def test_ended_at_any_step_of_a_save_the_older_or_the_new_one_is_there(tmp_path, older, error):
    old, new = started(add_stn=False), started(add_stn=False)
    found, steps = [], itertools.count()
    while len(found) == next(steps):  # as long as the save is killed
        folder = tmp_path / str(len(found))
        folder.mkdir()
        prefix = str(folder / "a")
        if older:
            save(prefix, old, number=0)
        before = loaded(prefix, old) if older else None
        with ending_at(len(found), error):
            save(prefix, new, number=1)
            break
        newest = checkpoint.newest(prefix)
        found.append(newest and loaded(prefix, new))
        assert newest or not older
        if newest:
            checkpoint.finish_renames(prefix, 1)
            assert found[-1] == loaded(prefix, new)
            assert set(mx.model.load_checkpoint(prefix, 1)[1]) == set(new[1])
        save(prefix, new, number=1)
        assert set(content(folder)) == {"a-symbol.json", "a-0001.params", "a-0001.state",
                                        "a-0001.json"}
    after = loaded(prefix, new)
    assert len(found) > 8
    switch = found.index(after)
    assert found == [before] * switch + [after] * (len(found) - switch)


def test_killed_in_two_saves_one_after_another(tmp_path):
    network = started(add_stn=False)
    for steps in itertools.product(range(13), (1, 3, 5)):
        prefix = str(tmp_path / str(steps))
        save(prefix, network, number=0)
        for number, step in enumerate(steps, 1):
            with ending_at(step, Killed):
                save(prefix, network, number=number)
        assert checkpoint.newest(prefix) == 1
        loaded(prefix, network)


def test_killed_in_a_removal_no_damaged_checkpoint_is_left(tmp_path, network, monkeypatch):
    real, prefix = files.remove, str(tmp_path / "a")
    for count in range(8):
        save(prefix, network)
        left = [real] * count  # calls that are made before the kill
        with monkeypatch.context() as patch:
            patch.setattr(files, "remove", lambda path, left=left: left and left.pop()(path))
            checkpoint.remove(prefix, 1)
        checkpoint.locate(prefix, 1)
    assert not checkpoint.begun(prefix)


def test_a_damaged_checkpoint_is_replaced(tmp_path, network):
    save(tmp_path / "a", network, number=0)
    (tmp_path / "a-0001.json").write_bytes(b"{")
    save(tmp_path / "a", network, number=1)
    assert loaded(str(tmp_path / "a"), network)[1] == 1


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, network):
    arrays = {"fc1_weight.0": np.random.RandomState(0).rand(50, 320).astype(np.float32)}
    save(tmp_path / "a", network, arrays=arrays, number=0)
    before = content(tmp_path)
    sizes = sorted({len(file) for file in before.values()})
    save(tmp_path / "b", network, arrays=arrays)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (0, 100, *(size - less for size in sizes for less in (1, 1000, 4096))):
            resource.setrlimit(resource.RLIMIT_FSIZE, (max(limit, 0), hard))
            with pytest.raises(OSError):  # noqa: PT011  the words are the system's
                save(tmp_path / "a", network, arrays=arrays, number=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {name: file for name, file in content(tmp_path).items() if name[0] == "a"} == before


def test_the_newest_whole_checkpoint_is_found(tmp_path, network, caplog):
    prefix = str(tmp_path / "a")
    assert checkpoint.newest(prefix) is None
    for epoch in (1, 2, 3, 4, 5):
        save(prefix, network, epoch)
    (tmp_path / "a-0005.params").write_bytes(b"")
    (tmp_path / "a-0004.json").write_bytes(b"{}")
    (tmp_path / "a-0003.json").unlink()
    (tmp_path / "a-0003.state").unlink()
    assert checkpoint.newest(prefix) == 2
    for epoch, words in ((5, "a-0005.params: not the file"), (4, "a-0004.json: not a whole"),
                         (3, "a-0003.state: there is no such file")):
        assert f"The checkpoint after {epoch} epochs is passed over: {prefix[:-1]}{words}" \
            in caplog.text
    assert len(caplog.records) == 3
    (tmp_path / "a-0002.json").unlink()  # as older versions left them
    assert checkpoint.newest(prefix) == 2


def test_a_removed_checkpoint_leaves_the_others(tmp_path, network):
    for epoch in (1, 2):
        save(tmp_path / "a", network, epoch)
    before = content(tmp_path)
    checkpoint.remove(str(tmp_path / "a"), 1)
    assert content(tmp_path) == {name: file for name, file in before.items() if "0001" not in name}
    checkpoint.remove(str(tmp_path / "a"), 7)
    assert checkpoint.newest(str(tmp_path / "a")) == 2


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    files.write_json(str(path), {"a": 1})
    with pytest.raises(TypeError), files.replacing(str(path)) as temporary:
        files.write_bytes(temporary, "not bytes")
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_written_is_said_early(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")  # or a device, which would be one no longer
    for path in (tmp_path / "file" / "x", "/proc/x/y", "/proc/x", tmp_path, f"{tmp_path}/a/", "",
                 tmp_path / "pipe", tmp_path / "new" / ".." / "pipe"):
        with pytest.raises(OSError):  # noqa: PT011  the words are the system's
            files.prepare_output(str(path))
    with pytest.raises(ValueError, match="not a name in UTF-8"):
        files.prepare_output(os.fsdecode(bytes(tmp_path) + b"/\xff"))


def test_names_that_this_locale_spells_otherwise_are_refused(tmp_path):
    """MXNet would write them in UTF-8, and Python not find them."""
    with pytest.MonkeyPatch.context() as patch:  # where no locale of 8 bits is installed
        patch.setattr(os, "fsencode", lambda path: path.encode("latin-1"))
        with pytest.raises(ValueError, match="not by this locale: give another name, or set LC_A"):
            files.prepare_output(str(tmp_path / "\u00fc"))
    code = "import sys; from common import files; files.prepare_output(sys.argv[1])"
    for encoding, name in (("utf-8", "\u00fc"), ("ascii", "\u00fc"), ("ascii", "u")):
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / name], cwd=ROOT, stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C.UTF-8" if encoding == "utf-8" else "C",
                 "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
        refused = b"or not by this locale: give another name" in done.stderr
        assert refused == ((encoding, name) == ("ascii", "\u00fc")), done.stderr
