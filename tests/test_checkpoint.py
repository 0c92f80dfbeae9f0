import json
import os
import pickle

import mxnet as mx
import numpy as np
import pytest

import symbols
from common import checkpoint, files

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


def test_the_state_is_read_without_pickle(tmp_path, network):
    save(tmp_path / "a", network)

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
    for suffix, load in ((".params", lambda p: checkpoint.load_params(p, 1, network[0], **SHAPES)),
                         (".state", lambda p: checkpoint.load_state(p, 1))):
        path = tmp_path / f"a-0001{suffix}"
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(ValueError, match=f"a-0001{suffix}: not a whole"):
            load(str(tmp_path / "a"))
        save(tmp_path / "a", network, arrays=arrays)


def test_changed_params_are_noticed(tmp_path, network):
    save(tmp_path / "a", network)
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


def test_params_that_fit_another_symbol_are_refused(tmp_path):
    save(tmp_path / "a", started(transform="projective"))
    other = symbols.get_symbol("lenet", transform="projective", bounded=True)
    with pytest.raises(ValueError, match="a-symbol.json: of another network"):
        checkpoint.load_params(str(tmp_path / "a"), 1, other, **SHAPES)
    (tmp_path / "a-symbol.json").unlink()
    checkpoint.load_params(str(tmp_path / "a"), 1, other, **SHAPES)


def test_a_checkpoint_that_is_not_there(tmp_path, network):
    with pytest.raises(FileNotFoundError, match="a-0003.params: there is no such checkpoint"):
        checkpoint.load_params(str(tmp_path / "a"), 3, network[0], **SHAPES)
    save(tmp_path / "a", network)
    (tmp_path / "a-0001.state").unlink()
    assert checkpoint.load_state(str(tmp_path / "a"), 1) == (None, None)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    files.write_json(str(path), {"a": 1})
    with pytest.raises(TypeError), files.replacing(str(path)) as temporary:
        files.write_bytes(temporary, "not bytes")
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_written_is_said_early(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x", "/proc/x/y", "/proc/x", tmp_path, f"{tmp_path}/a/", ""):
        with pytest.raises(OSError):  # noqa: PT011  the words are the system's
            files.check_writable(str(path))
