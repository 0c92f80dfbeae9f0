import io
import os
import struct
import zipfile

import numpy as np
import pytest

from common.storage import state_file

ARRAYS = {"a.0": np.arange(6, dtype=np.float32).reshape(2, 3), "b.1": np.array(2.5),
          "c.2": np.asfortranarray(np.arange(6).reshape(3, 2)), "d.3": np.zeros((0, 2), np.float64)}
META = {"updates": 3, "recipe": {"lr": 0.1}, "seconds": 1.5, "history": [{"test_accuracy": 0.5}]}
UNDER_WAY = {"epoch": 0, "batch": 1, "num_batches": 2,
             "tally": {"count": 1, "correct": 1, "total_loss": 0.5}}


def npy(array, header=None):
    """The content of an ``.npy`` file; with another header, if one is given."""
    file = io.BytesIO()
    np.save(file, array)
    if header is None:
        return file.getvalue()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + array.tobytes()


def archive(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members:
            file.writestr(name, content)


def test_what_is_written_comes_back(tmp_path):
    path = str(tmp_path / "a.state")
    state_file.write(path, ARRAYS, META)
    arrays, meta = state_file.read(path)
    assert meta == META
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.parametrize(("name", "value"), [
    ("recipe", {"threads": "x"}), ("recipe", {"num_workers": -1}), ("recipe", {"classes": 5}),
    ("recipe", {"classes": [5]}), ("seconds", "1"), ("updates", -1),
    ("under_way", dict(UNDER_WAY, others=UNDER_WAY["tally"])),
    ("under_way", dict(UNDER_WAY, batch=3))])
def test_what_it_says_is_of_the_right_kind(tmp_path, name, value):
    path = str(tmp_path / "a.state")
    state_file.write(path, ARRAYS, dict(META, **{name: value}))
    with pytest.raises(ValueError, match=f"its {name} is missing or of the wrong kind"):
        state_file.read(path)


def test_what_was_counted_by_several_workers_comes_back(tmp_path):
    path, meta = str(tmp_path / "a.state"), dict(META, under_way=dict(
        UNDER_WAY, others=[UNDER_WAY["tally"]] * 2))
    state_file.write(path, ARRAYS, meta)
    assert state_file.read(path)[1] == meta


def test_numpy_itself_reads_it(tmp_path):
    path = str(tmp_path / "a.state")
    state_file.write(path, ARRAYS, META)
    with np.load(path, allow_pickle=False) as whole:
        np.testing.assert_array_equal(whole["a.0"], ARRAYS["a.0"])


GOOD = npy(np.array("{}"))
CLAIM = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n"
HUGE = npy(np.zeros(3, np.float32), CLAIM % b"1000000000000, 1000")
CODE = npy(np.zeros(3), b"{'descr': __import__('os').mkdir('harm')}\n")
PICKLE = npy(np.array([{}], object))


@pytest.mark.parametrize("members", [
    [("a.npy", HUGE), ("meta.npy", GOOD)], [("a.npy", CODE), ("meta.npy", GOOD)],
    [("a.npy", PICKLE), ("meta.npy", GOOD)], [("a.npy", b""), ("meta.npy", GOOD)],
    [("a.npy", npy(np.zeros(3, np.float32), CLAIM % (b"9" * 90))), ("meta.npy", GOOD)],
    [("a.npy", npy(np.zeros(1, np.float32), CLAIM % (b"1, " * 65))), ("meta.npy", GOOD)],
    [("a.npy", npy(np.zeros(3, "V4"))), ("meta.npy", GOOD)],
    [("a.npy", npy(np.zeros(3, np.float32), CLAIM % b"-1, -3")), ("meta.npy", GOOD)],
    [("a.npy", npy(np.zeros(3, np.float32), CLAIM % (b"-" * 900 + b"3,"))), ("meta.npy", GOOD)],
    [("a.npy", npy(np.zeros(3, np.float32), CLAIM % (b"3," + b" " * 1000))), ("meta.npy", GOOD)],
    [("a.npy", npy(np.zeros(3, [("x", "<f4")]))), ("meta.npy", GOOD)],
    [("../../a.txt", b"x"), ("meta.npy", GOOD)], [("meta.npy", GOOD), ("meta.npy", GOOD)],
    [("a.npy", npy(np.zeros(3)))], [], [("meta.npy", npy(np.array("[" * 100000)))],
    [("meta.npy", npy(np.array(["{}", "{}"])))], [("meta.npy", npy(np.array("[]")))],
    [("meta.npy", npy(np.array('{"history": [{}]}')))],
    [("meta.npy", npy(np.array('{"updates": "3"}')))],
    [("meta.npy", npy(np.array('{"flags": 1}')))],
    [("meta.npy", npy(np.array('{"image_shape": [1, 28, 1e9]}')))],
    [("meta.npy", npy(np.array('{"updates": %s}' % ("9" * 400))))],
    [("meta.npy", npy(np.array('{"updates": 1000000000000}')))],
    [("meta.npy", npy(np.array('{"seconds": Infinity}')))],
    [("meta.npy", npy(np.array('{"seconds": true}')))],
    [("meta.npy", npy(np.array('{"flags": {"dataset": []}}')))],
    [("meta.npy", npy(np.array('{"history": [{"test_accuracy": 1e300}]}')))],
    [("meta.npy", npy(np.array('{"history": [{"validation_accuracy": 1, "test_accuracy": []}]}')))],
    [("meta.npy", npy(np.array('{"under_way": {"epoch": 0, "batch": 1000000000, "num_batches": 5,'
                               '"tally": {"count": 1, "correct": 1, "total_loss": 0}}}')))],
    [("meta.npy", npy(np.array('{"under_way": {"epoch": 0, "batch": 1, "num_batches": 5,'
                               '"tally": {"count": 1, "correct": 1, "total_loss": NaN}}}')))],
])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_crafted_state_is_refused(tmp_path, monkeypatch, members):
    monkeypatch.chdir(tmp_path)
    archive("a.state", members)
    with pytest.raises(ValueError, match="a.state: not (a whole|the) state"):
        state_file.read("a.state")
    assert os.listdir() == ["a.state"]


def test_a_compressed_state_is_refused(tmp_path):
    path = str(tmp_path / "a.state")
    archive(path, [("a.npy", npy(np.zeros(10**7))), ("meta.npy", GOOD)],
            compression=zipfile.ZIP_DEFLATED)
    assert os.path.getsize(path) < 10**6
    with pytest.raises(ValueError, match="not a whole state file"):
        state_file.read(path)


def test_a_missing_state_is_no_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        state_file.read(str(tmp_path / "a.state"))
