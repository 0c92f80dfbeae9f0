import struct

import mxnet as mx
import numpy as np
import pytest

from common.storage import checkpoint, params_file
from tests.test_checkpoint import SHAPES, save, started


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The content of a small params file."""
    path = tmp_path_factory.mktemp("params") / "a.params"
    weight = mx.nd.arange(6).reshape((2, 3))
    mx.nd.save(str(path), {"arg:weight": weight, "aux:mean": mx.nd.ones(4)})
    return path.read_bytes()


def read(tmp_path, content):
    path = tmp_path / "a.params"
    path.write_bytes(content)
    return params_file.read(str(path))


@pytest.mark.parametrize("numpy_shapes", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int32", "int8",
                                   "int64"])
def test_what_mxnet_writes_comes_back(tmp_path, numpy_shapes, dtype):
    path = str(tmp_path / "a.params")
    values = np.random.RandomState(0).randint(0, 100, (3, 1, 5)).astype(dtype)
    with mx.util.np_shape(numpy_shapes):
        mx.nd.save(path, {"arg:Gewicht ä": mx.nd.array(values, dtype=dtype),
                          "aux:b": mx.nd.array([1.5])})
    (name, array), = params_file.read(path)[0].items()
    assert name == "Gewicht ä"
    assert array.dtype == values.dtype
    np.testing.assert_array_equal(array.asnumpy(), values)
    assert params_file.read(path)[1]["b"].asscalar() == 1.5


def as_before(arrays, magic):
    """What an old MXNet wrote: 0.11 with a magic number, 0.7 to 0.10 with none."""
    content = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for array in arrays.values():
        start = "I" if magic is None else "Ii"
        sizes = "I" if magic is None else "q"
        before = [array.ndim] if magic is None else [magic, array.ndim]
        content += struct.pack(f"<{start}{array.ndim}{sizes}iii", *before, *array.shape, 1, 0,
                               params_file.DTYPES.index(array.dtype.str))
        content += array.tobytes()
    content += struct.pack("<Q", len(arrays))
    for name in arrays:
        content += struct.pack("<Q", len(name)) + name.encode()
    return content


OLD = {"arg:weight": np.random.RandomState(0).randn(2, 3, 1, 5).astype(np.float32),
       "arg:half": np.arange(7, dtype=np.float16), "arg:double": np.array([[np.pi]]),
       "aux:mean": np.array([np.inf, -0.0, 1e-45], np.float32)}


@pytest.mark.parametrize("magic", [None, 0xF993FAC8])
def test_files_of_old_versions_are_read_as_mxnet_reads_them(tmp_path, magic):
    arg_params, aux_params = read(tmp_path, as_before(OLD, magic))
    theirs = mx.nd.load(str(tmp_path / "a.params"))
    assert list(theirs) == [*(f"arg:{name}" for name in arg_params), "aux:mean"]
    for name, array in OLD.items():
        ours = {"arg": arg_params, "aux": aux_params}[name[:3]][name[4:]]
        assert ours.dtype == theirs[name].dtype == array.dtype
        assert ours.asnumpy().tobytes() == theirs[name].asnumpy().tobytes() == array.tobytes()


@pytest.mark.parametrize("magic", [None, 0xF993FAC8])
def test_damaged_files_of_old_versions_are_refused(tmp_path, magic):
    content = as_before({"arg:weight": OLD["arg:weight"]}, magic)
    for length in range(len(content)):
        with pytest.raises(ValueError, match="a.params: not a whole params file"):
            read(tmp_path, content[:length])
    sizes, format = (28, "I") if magic is None else (32, "q")
    for place, new, words in (
            (sizes - 4, struct.pack("<I", 33), "of 33 dimensions"),
            (sizes - 4, struct.pack("<I", 0), "of 0 dimensions"),
            (sizes, struct.pack(f"<{format}", 0), r"of shape \(0, 3, 1, 5\)"),
            (sizes, struct.pack(f"<{format}", 2**31 - 1), "ends too soon"),
            (len(content), b"\0", "something follows its end")):
        with pytest.raises(ValueError, match=words):
            read(tmp_path, content[:place] + new + content[place + len(new):])


FIRST = 24  # where the first array begins
NAMES = -8 - len("arg:weight") - 8 - len("aux:mean") - 8  # where their number is


@pytest.mark.parametrize(("place", "format", "value", "words"), [
    (0, "Q", 0x113, "does not begin as one"),
    (16, "Q", 2**63, "ends too soon"), (16, "Q", 3, r"of shape \(0, 10\)"),
    (16, "Q", 1, "not a name for each"),
    (FIRST, "I", 0xF993FAC8, "of 0 dimensions"), (FIRST, "I", 2, r"of shape \(0, 2\)"),
    (FIRST, "I", 0xF993FAC7, "of 4187224775 dimensions"),
    (FIRST + 4, "i", 1, "not dense"), (FIRST + 4, "i", -1, "not dense"),
    (FIRST + 8, "i", 0, "of 0 dimensions"), (FIRST + 8, "i", -1, "of -1 dimensions"),
    (FIRST + 8, "i", 2**31 - 1, "dimensions"),
    (FIRST + 12, "q", 0, r"of shape \(0, 3\)"), (FIRST + 12, "q", -2, "of shape"),
    (FIRST + 12, "q", 10**12, "ends too soon"), (FIRST + 12, "q", 2**62, "ends too soon"),
    (FIRST + 36, "i", 12, "data type 12"), (FIRST + 36, "i", -1, "data type -1"),
    (FIRST + 36, "i", 1, "ends too soon|dimensions"),
    (NAMES, "Q", 1, "not a name for each"), (NAMES + 8, "Q", 2**63, "ends too soon"),
    (NAMES + 16, "I", 0, "not named arg: or aux:"), (NAMES + 20, "B", 0xff, "not named arg"),
    (NAMES + 20, "B", 10, "not named arg"),
])
def test_a_crafted_header_is_refused(tmp_path, whole, place, format, value, words):
    content = bytearray(whole)
    struct.pack_into(f"<{format}", content, place % len(whole), value)
    with pytest.raises(ValueError, match=f"a.params: not a whole params file: .*{words}"):
        read(tmp_path, content)


def test_it_must_end_where_it_ends(tmp_path, whole):
    with pytest.raises(ValueError, match="something follows its end"):
        read(tmp_path, whole + b"\0")
    for length in range(len(whole)):
        with pytest.raises(ValueError, match="not a whole params file"):
            read(tmp_path, whole[:length])


def test_a_file_that_becomes_shorter_while_it_is_read_is_refused(tmp_path, whole, monkeypatch):
    path = tmp_path / "a.params"
    path.write_bytes(whole)
    real = params_file._named_places

    def shortened(cursor):
        places = real(cursor)
        path.write_bytes(whole[:-100])
        return places
    monkeypatch.setattr(params_file, "_named_places", shortened)
    with pytest.raises(ValueError, match="became shorter meanwhile"):
        params_file.read(str(path))


def test_a_name_that_two_arrays_have_is_refused(tmp_path, whole):
    with pytest.raises(ValueError, match="two of its arrays have the same name"):
        read(tmp_path, whole[:-len("aux:mean") - 8] + struct.pack("<Q", 10) + b"arg:weight")


@pytest.mark.parametrize("arrays", [
    [mx.nd.ones(2)], {"weight": mx.nd.ones(2)},
    {"arg:a": mx.nd.ones((2, 2)).tostype("row_sparse")},
    {"arg:a": mx.nd.ones((2, 2)).tostype("csr")},
])
def test_what_is_no_set_of_dense_parameters_is_refused(tmp_path, arrays):
    mx.nd.save(str(tmp_path / "a.params"), arrays)
    with pytest.raises(ValueError, match="not a whole params file"):
        params_file.read(str(tmp_path / "a.params"))


def test_parameters_that_are_whole_numbers_are_refused(tmp_path):
    symbol, arg_params, aux_params = started(add_stn=False)
    arg_params["fc1_bias"] = arg_params["fc1_bias"].astype("int32")
    save(tmp_path / "a", (symbol, arg_params, aux_params))
    with pytest.raises(ValueError, match="fc1_bias is int32, not floating-point"):
        checkpoint.load_params(str(tmp_path / "a"), 1, symbol, **SHAPES)
