"""Tables of images as Kaggle gives them, and NumPy's .npz files as Keras does."""
import functools
import gzip
import io
import zipfile

import numpy as np
import pytest

import train_mnist
from common.data import class_list, npz_file, table_files
from tests.own_data import SHAPE, TRAIN, coloured, drawn, load


@pytest.fixture
def run(run_main):
    return functools.partial(run_main, train_mnist, *TRAIN)


def own_arrays(count=40, channels=1):
    """Training images and labels, test images and labels, of two classes."""
    images = drawn(count)[0]
    images, labels = images if channels == 1 else coloured(images), np.arange(count) % 2
    return images[10:], labels[10:], images[:10], labels[:10]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("channels", [1, 3])
def test_npz_files_as_keras_has_them(run, tmp_path, save, channels):
    found = own_arrays(channels=channels)
    images = [np.asfortranarray(np.moveaxis(part, 1, -1)) if channels == 3 else part
              for part in found[::2]]
    save(tmp_path / "own.npz", **dict(zip(npz_file.NAMES, (
        images[0], found[1][:, None], images[1], found[3]))))
    for one, other in zip(load(tmp_path / "own.npz"), found):
        np.testing.assert_array_equal(one, other)
    done = run("--data-dir", "own.npz")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / "own-mlp-export" / "synset.txt").read_text() == "0\n1\n"


def test_an_npz_file_without_a_test_part(tmp_path, caplog):
    caplog.set_level("INFO")
    images, labels, _, _ = own_arrays(60)
    np.savez(tmp_path / "a.npz", x_train=images / 255, y_train=labels)
    dataset = load(tmp_path / "a.npz")
    assert "a fifth of each class, 10 in all" in caplog.text
    for_train, for_test = class_list.split(labels)
    np.testing.assert_array_equal(dataset.train_images, images[for_train])
    np.testing.assert_array_equal(dataset.test_labels, labels[for_test])


def npz(**arrays):
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def claiming(shape):
    """An ``.npz`` file with an array that is said to be large."""
    content, member = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(
        member, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(content, "w") as archive:
        for name in npz_file.NAMES:
            archive.writestr(f"{name}.npy", member.getvalue())
    return content.getvalue()


def words_alone(value):
    """For the names of tests: not the contents of files, which have the time in them."""
    return value if isinstance(value, str) else "content"


ONE = np.zeros((2, 18, 20), np.uint8)


@pytest.mark.parametrize(("content", "words"), [
    (b"", "not a whole .npz file"),
    (b"PK\x03\x04" + bytes(100), "not a whole .npz file"),
    (npz(x_train=ONE, y_train=np.arange(2))[:-30], "not a whole .npz file"),
    (npz(a=ONE, b=ONE), "expected arrays named x_train, .*, got a, b: x_train is missing"),
    (npz(x_train=ONE, y_train=[0, 1], x_test=ONE), "y_test is missing"),
    (npz(x_train=ONE, y_train=np.array([0, "a"], object)), r"y_train.npy is no whole array .*obj"),
    (npz(x_train=ONE, y_train=np.arange(3)), "2 images but 3 labels"),
    (npz(x_train=ONE, y_train=np.eye(2)), "one for each class"),
    (npz(x_train=ONE, y_train=[0, 1], x_test=ONE[:, :9], y_test=[0, 1]), "training images have 18"),
    (npz(x_train=ONE, y_train=[0, 1], x_test=ONE[:0], y_test=np.zeros(0)), "expected images"),
    (claiming((2**40,)), "x_train.npy is no whole array of numbers .*of another length"),
], ids=words_alone)
def test_npz_files_that_are_not_as_they_should_be(tmp_path, content, words):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path}: .*{words}"):
        load(path)


def table(images, labels, header=True, place=0):
    """The bytes of a table; without labels if they are None."""
    rows = images.reshape(len(images), -1).astype(int)
    names = [f"pixel{number}" for number in range(rows.shape[1])]
    if labels is not None:
        rows, names = np.insert(rows, place, labels, axis=1), [*names[:place], "label",
                                                               *names[place:]]
    lines = [",".join(map(str, row)) for row in ([names] if header else []) + rows.tolist()]
    return ("\r\n".join(lines) + "\r\n").encode()


@pytest.fixture
def square():
    """Square training images and labels, test images and labels."""
    images, labels = drawn(60, shape=(12, 12))
    return images[:45], labels[:45], images[45:], labels[45:]


@pytest.mark.parametrize(("names", "options"), [
    (("train.csv", "test.csv"), {}),
    (("fashion-mnist_train.csv", "fashion-mnist_test.csv"), {"place": 144}),
    (("mnist_train.csv.gz", "mnist_test.csv"), {"header": False})])
def test_tables_of_training_and_test(tmp_path, square, monkeypatch, names, options):
    monkeypatch.setattr(table_files, "BLOCK", 20)
    for name, *part in zip(names, square[::2], square[1::2]):
        content = table(*part, **options)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    for one, other in zip(load(tmp_path), square):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("names", "found"), [
    (("train.csv", "test.csv", "dogs_train.csv.gz", "dogs_test.csv"), ("train.csv", "test.csv")),
    (("dogs_train.csv", "test.csv"), ("dogs_train.csv", "test.csv")),
    (("dogs_train.csv", "dogs_test.csv", "guessed_test.csv"), ("dogs_train.csv", "dogs_test.csv")),
    (("._train.csv", "Train.csv", "train.csv.gz"), ("Train.csv", None)),
    (("test.csv",), (None, None))])
def test_tables_of_one_set_are_found(tmp_path, names, found):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert table_files.find(str(tmp_path)) == tuple(name and str(tmp_path / name) for name in found)


@pytest.mark.parametrize("names", [("cats_train.csv", "dogs_train.csv", "dogs_test.csv"),
                                   ("cats_train.csv", "dogs_test.csv"),
                                   ("train.csv", "cats_test.csv", "dogs_test.csv")])
def test_tables_of_several_sets_are_not_put_together(tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"tables of several sets, {', '.join(sorted(names))}: "):
        table_files.find(str(tmp_path))


@pytest.mark.parametrize("name", [
    "pixel{}".format, str, "{0}x{0}".format, lambda number: "abcdefghijkl"[number // 12] * (
        number % 12 + 1)], ids=["named and numbered", "numbered", "two numbers", "none"])
def test_columns_in_another_order(tmp_path, square, name):
    """By their number, or, where they have none or two, as in the training table."""
    in_order = range(145)  # the label's, and those of the pixels
    for part, images, labels, columns in (("train", *square[:2], in_order),
                                          ("test", *square[2:], sorted(in_order, key=str))):
        rows = [line.split(",") for line in table(images, labels).decode().split()]
        rows[0][1:] = map(name, range(144))
        (tmp_path / f"{part}.csv").write_text("\n".join(
            ",".join(row[column] for column in columns) for row in rows))
    for one, other in zip(load(tmp_path), square):
        np.testing.assert_array_equal(one, other)


def test_a_header_of_numbers_as_pandas_makes_it(tmp_path, square):
    header = ",".join(map(str, range(145))).encode() + b"\n"
    for part, images, labels in (("train", *square[:2]), ("test", *square[2:])):
        (tmp_path / f"{part}.csv").write_bytes(header + table(images, labels, header=False))
    for one, other in zip(load(tmp_path), square):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("header", [True, False])
def test_a_table_without_labels_is_no_test_set(run, tmp_path, square, caplog, header):
    caplog.set_level("INFO")
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "train.csv").write_bytes(table(*square[:2], header=header))
    (tmp_path / "digits" / "test.csv").write_bytes(table(square[2], None, header=header))
    done = run("--data-dir", "digits/train.csv", "--image-shape", "1,18,18")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / "train-mlp-export" / "model-0000.params").exists()
    assert "test.csv" not in caplog.text
    dataset = load(tmp_path / "digits")
    assert "test.csv: has no column named label, so it is no test set: not read" in caplog.text
    assert len(dataset.test_images) == sum(
        max(round(count / 5), 1) for count in np.bincount(square[1]))


def test_tables_of_images_that_are_not_square(tmp_path):
    images, labels = drawn(30)
    (tmp_path / "a.csv").write_bytes(table(images, labels))
    with pytest.raises(ValueError, match="360 columns beside the label are no square image: "
                                         "--image-shape 1,H,W says its sides"):
        load(tmp_path / "a.csv")
    dataset = load(tmp_path / "a.csv", image_shape=(1, *SHAPE))
    np.testing.assert_array_equal(dataset.train_images, images[class_list.split(labels)[0]])
    (tmp_path / "a.csv").write_bytes(table(coloured(images), labels))
    with pytest.raises(ValueError, match="the order of the colours in a row is not known"):
        load(tmp_path / "a.csv", image_shape=(3, *SHAPE))


@pytest.mark.parametrize(("content", "words"), [
    (b"", "no table of a label and pixels"),
    (b"label,a\n", "has no rows of numbers"),
    (b"label\n1\n", "no table of a label and pixels"),
    (b"a,b\n1,2\n", "its first row is neither of numbers alone nor a header with a column named l"),
    (b"1,\n1,2\n", "its first row is neither of numbers alone nor a header with a column named l"),
    (b"label,a\r1,2\r0,3\r", "no table of numbers .*new-line"),
    (b"label,a\n1,2\n0," + b"x" * 200000, "no table of numbers .*field larger"),
    (b"label,a\n1,2\n0,256\n", "row 3: the pixel '256' is no whole number from 0 to 255"),
    (b"label,a\n1,2\n\n0,0.5\n", "row 3: the pixel '0.5' is no"),
    (b"label,a\n1,2\n0,-1\n", "row 3: the pixel '-1' is no"),
    (b"label,a\n1,2\n0,nan\n", "row 3: the pixel 'nan' is no"),
    (b"label,a\n1,2\n0,\n", "row 3: the pixel '' is no"),
    (b"label,a\n1,2\ncat,3\n", "row 3: the label 'cat' is no whole number from 0 to 65535"),
    (b"label,a\n1,2\n-1,3\n", "row 3: the label '-1' is no"),
    (b"label,a\n1,2\n0,1,2\n", "row 3 has 3 columns, the first row has 2"),
    (b"label,a\n1,2,3\n0,1,2\n", "row 2 has 3 columns, the first row has 2"),
    (b"id,label,pixel0,pixel1,pixel2\n7,1,2,3,4\n",
     "the column 'id' is not named as the pixels are: a table has a label and pixels, and nothing"),
    (b"label;a\n1;2\n", "no table of a label and pixels, with commas"),
    (b"label,a\n1,\xff\n", "line 2 is not text in UTF-8"),
    (b"label,pixel0,pixel0\n1,2,3\n", "two columns are named 'pixel0'"),
    (b"label,pixel0,Label\n1,2,3\n", "two columns are named 'label'"),
    (b"PAR1\0\0", "line 1 is no line of a table"),
    (b"0," * 2**23 + b"0\n", "line 1 is no line of a table"),
], ids=words_alone)
def test_tables_that_are_not_as_they_should_be(tmp_path, content, words):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path}: {words}"):
        load(path)


def test_quoted_numbers_a_mark_of_windows_and_whole_fractions(tmp_path):
    rows = "\n".join(f'"{number % 2}","{number}.0"' for number in range(10))
    (tmp_path / "a.csv").write_text(f'"label","pixel0"\n{rows}\n', encoding="utf-8-sig")
    dataset = load(tmp_path / "a.csv")
    assert sorted([*dataset.train_images.ravel(), *dataset.test_images.ravel()]) == [*range(10)]
    np.testing.assert_array_equal(dataset.train_labels, dataset.train_images.ravel() % 2)


def test_a_damaged_gzip_table_is_refused(tmp_path, square):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(table(*square[:2]))[:-9])
    with pytest.raises(ValueError, match="a.csv.gz: not a whole gzip file"):
        load(path)
