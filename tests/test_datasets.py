"""Data of one's own, in every format, and what is said of those that are not clear."""
import functools
import gzip
import re

import numpy as np
import pytest
from PIL import Image

import score
import train_mnist
import visualize_stn
from common.data import arrays, class_list, datasets, fetch, idx, synthetic
from tests.conftest import run_script

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHAPE = (18, 20)  # of small images; the LeNet takes them
# Of the images and labels, as the recipes of older checkpoints have it.
MNIST = "25c98f992c005963b7428e1f38418b233c9b286cc403519287eb8063f0bcfe07"
TRAIN = ["--num-epochs", 1, "--batch-size", 10, "--cpus", 1, "--network", "mlp", "--width", 8]


def drawn(count, seed=0, shape=SHAPE):
    return synthetic.draw(count, seed, shape)


def coloured(images):
    """Images (N, 3, H, W) of those (N, H, W)."""
    return np.stack([images, images // 2, 255 - images], axis=1)


def write_idx(folder, train, test, pack=bytes, suffix=""):
    """Writes four idx files of (images, labels)."""
    for name, array in zip(fetch.NAMES, (*train, *test)):
        (folder / (name + suffix)).write_bytes(pack(idx.encode(array)))


@pytest.fixture
def run(run_main):
    return functools.partial(run_main, train_mnist, *TRAIN)


def idx_folder(folder, labels, images=None, **options):
    images = drawn(len(labels))[0] if images is None else images
    write_idx(folder, (images, labels), (images, labels), **options)
    return str(folder)


@pytest.mark.parametrize(("labels", "names", "said"), [
    (np.arange(52) % 26 + 1, range(1, 27), True),
    (np.arange(94) % 47, range(47), False),
    (np.arange(20) % 2, range(2), False),
    (np.arange(20) % 3 + 2, range(5), False),
])
def test_the_labels_say_how_many_classes_there_are(tmp_path, caplog, labels, names, said):
    caplog.set_level("INFO")
    dataset = datasets.load("mnist", idx_folder(tmp_path, labels.astype(np.uint8)))
    assert dataset.class_names == tuple(map(str, names))
    np.testing.assert_array_equal(dataset.train_labels, labels - said)
    assert dataset.train_labels.dtype == np.uint8
    assert ("the labels are 1 to 26: classes 0 to 25, named 1 to 26" in caplog.text) == said


@pytest.mark.parametrize("kind", [">i2", ">i4", ">f4", ">f8"])
@pytest.mark.parametrize("columns", [False, True])
def test_labels_of_other_types_as_qmnist_s(tmp_path, kind, columns):
    labels = (np.arange(30) % 10).astype(kind)
    written = np.stack([labels, labels + 300], axis=1) if columns else labels
    dataset = datasets.load("mnist", idx_folder(tmp_path, written))
    np.testing.assert_array_equal(dataset.train_labels, labels)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_four_dimensions(tmp_path, channels, last):
    images, labels = drawn(20)
    expected = images if channels == 1 else coloured(images)
    written = images[:, None] if channels == 1 else expected
    written = np.moveaxis(written, 1, 3) if last else written
    dataset = datasets.load("mnist", idx_folder(tmp_path, labels, written, pack=gzip.compress,
                                                suffix=".gz"))
    np.testing.assert_array_equal(dataset.test_images, expected)


@pytest.fixture
def white():
    """Images with a black and a white pixel."""
    images = drawn(20)[0]
    images[0, 0, :2] = 0, 255
    return images


@pytest.mark.parametrize("make", [
    lambda images: images / 255, lambda images: images.astype(np.float32) / 255,
    lambda images: images.astype(np.float32), lambda images: images.astype(np.int64)])
def test_pixels_of_other_types(white, make):
    found, = arrays.as_images("a", make(white))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, white)


def test_black_and_white_images(white):
    np.testing.assert_array_equal(arrays.as_images("a", white > 99)[0], 255 * (white > 99))


@pytest.mark.parametrize(("make", "words"), [
    (lambda images: images - 1.0, "the pixels are from -1 to 254"),
    (lambda images: images.astype(int) * 2, "the pixels are from 0 to 510"),
    (lambda images: images / 2, "some pixels are above 1 and some no whole numbers"),
    (lambda images: np.where(images, np.nan, 0), "the pixels are from nan to nan"),
    (lambda images: np.stack([images] * 2, axis=1), "the channels, 1 or 3, .* neither is"),
    (lambda images: np.zeros((2, 3, 9, 3), np.uint8), "either may be"),
    (lambda images: images[0], "expected images"),
    (lambda images: images[:0], r"expected images .* got uint8 \(0, 18, 20\)"),
    (lambda images: images.astype(str), "of numbers"),
])
def test_pixels_whose_meaning_is_not_clear_are_refused(white, make, words):
    with pytest.raises(ValueError, match=f"^a: .*{words}"):
        arrays.as_images("a", make(white))


def test_one_rule_for_training_and_test():
    images = drawn(20)[0].astype(float)
    train, test = arrays.as_images("a", images, images // 255)
    np.testing.assert_array_equal(test, images // 255)  # ones are no whites beside other numbers
    np.testing.assert_array_equal(train, images)


@pytest.mark.parametrize(("labels", "words"), [
    (np.array([0, -1]), "the label -1 is not"),
    (np.array([0, 0.5]), "the label 0.5 is not"),
    (np.array([0, np.nan]), "the label nan is not"),
    (np.array([0, 2**40]), "is not a whole number from 0 to 65535"),
    (np.eye(3), r"one for each class\? give their argmax"),
    (np.array(["a", "b"]), "expected labels"),
])
def test_labels_that_are_no_classes_are_refused(labels, words):
    with pytest.raises(ValueError, match=f"^a: .*{words}"):
        class_list.as_labels("a", labels)


def test_labels_in_a_column():
    np.testing.assert_array_equal(class_list.as_labels("a", np.array([[3.0], [1]])), [3, 1])


@pytest.mark.parametrize(("options", "words"), [
    ({"num_classes": 25}, "the label 25 is not one of 0 to 24, so --num-classes 25 is too few"),
    ({"class_names": ("a", "b")}, "so --class-names of 2 names is too few"),
    ({"num_classes": 3, "class_names": ("a", "b")}, "--num-classes 3, but .* 2 names"),
    ({"image_shape": (2, 8, 8)}, "--image-shape 2,8,8: images have 1 channel"),
])
def test_options_that_do_not_fit_the_data(tmp_path, options, words):
    folder = idx_folder(tmp_path, (np.arange(52) % 26).astype(np.uint8))
    with pytest.raises(ValueError, match=words):
        datasets.load("mnist", folder, **options)


def test_one_class_is_none(tmp_path):
    folder = idx_folder(tmp_path, np.zeros(20, np.uint8))
    with pytest.raises(ValueError, match="all images are of one class"):
        datasets.load("mnist", folder)
    assert len(datasets.load("mnist", folder, num_classes=2).class_names) == 2


def test_names_and_more_classes(tmp_path):
    folder = idx_folder(tmp_path, (np.arange(20) % 2 + 1).astype(np.uint8))
    assert datasets.load("mnist", folder, num_classes=2).class_names == ("1", "2")
    dataset = datasets.load("mnist", folder, num_classes=4)
    assert dataset.class_names == ("0", "1", "2", "3")
    assert set(dataset.train_labels) == {1, 2}
    dataset = datasets.load("mnist", folder, class_names=("cat", "dog"))
    assert dataset.class_names == ("cat", "dog")
    assert set(dataset.train_labels) == {0, 1}


def test_more_than_256_classes(tmp_path):
    labels = np.arange(600, dtype=np.int32) % 300
    dataset = datasets.load("mnist", idx_folder(tmp_path, labels, np.zeros((600, 2, 2), np.uint8)))
    np.testing.assert_array_equal(dataset.train_labels, labels)
    assert len(dataset.class_names) == 300


@pytest.mark.parametrize(("text", "words"), [
    ("a", "neither a file"), ("a,b,a", "a is there twice"), ("a,,b", "two names or more"),
    ("names", "two names or more"), ("\x1b,a", "two names or more"), (".", "Is a directory")])
def test_bad_names_are_refused(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names").write_text("cat\n")
    with pytest.raises((ValueError, OSError), match=words):
        class_list.given_names(text)


def test_names_from_a_file_or_the_command_line(tmp_path):
    (tmp_path / "names").write_text("кот\nпёс\n", encoding="utf-8-sig")
    assert class_list.given_names(str(tmp_path / "names")) == ("кот", "пёс")
    assert class_list.given_names("a, b c,d") == ("a", "b c", "d")


def test_sizes_that_are_unequal_are_said(caplog):
    caplog.set_level("INFO")
    class_list.note_sizes(np.repeat([0, 1], [50, 10]), ["a", "b"])
    assert caplog.text == ""
    class_list.note_sizes(np.repeat([0, 1], [51, 10]), ["a", "b"])
    assert "b has 10 training images, a has 51" in caplog.text
    class_list.note_sizes(np.repeat([0, 1], [2, 1]), ["a", "b", "c"])
    assert "c has 0 training images" in caplog.text


def test_images_are_resized_smoothly():
    images, _ = drawn(4, shape=(40, 40))
    assert arrays.resize(images, (1, 40, 40)) is images
    half = arrays.resize(images, (1, 20, 20))
    means = images.reshape(4, 20, 2, 20, 2).mean(axis=(2, 4))
    assert np.abs(half - means).mean() < 8  # a pixel of every second would be off by 30 and more
    colour = arrays.resize(images, (3, 20, 30))
    assert colour.shape == (4, 3, 20, 30)
    assert (colour[:, 0] == colour[:, 2]).all()
    grey = np.stack([images] * 3, axis=1)
    np.testing.assert_array_equal(arrays.resize(grey, (1, 40, 40)), images)


def test_what_does_not_fit_into_memory_is_refused():
    with pytest.raises(ValueError, match="100000 images of 3 x 224 x 224 take 14 GiB"):
        arrays.check_size("a", 100000, (3, 224, 224))
    arrays.check_size("a", 28000, (3, 224, 224))


def test_a_fifth_of_each_class_is_split_off():
    labels = np.repeat([3, 0, 7], [50, 11, 1])
    train, test = class_list.split(labels)
    assert sorted([*train, *test]) == list(range(62))
    assert np.bincount(labels[test]).tolist() == [2, 0, 0, 10]
    again = class_list.split(np.repeat([0, 3], [11, 50]))[1]  # whatever other classes there are
    assert set(again[again >= 11] - 11) == set(test[test < 50])
    assert len(set(test[test < 50]) - set(range(40, 50))) > 2  # but in no order of the files


def test_published_images_have_their_digest_of_before():
    dataset = datasets.load("mnist")
    assert dataset.sha256 == MNIST
    assert dataset.class_names == tuple("0123456789")


def test_idx_files_of_26_classes_in_colour(run, tmp_path):
    images, labels = np.resize(drawn(30)[0], (52, *SHAPE)), np.arange(52, dtype=np.int32) % 26 + 1
    (tmp_path / "letters").mkdir()
    idx_folder(tmp_path / "letters", labels, coloured(images))
    done = run("--data-dir", "letters", "--add-stn", "--class-names", ",".join(LETTERS))
    assert done.returncode == 0, done.stderr
    export = tmp_path / "models" / "letters-mlp-stn-export"
    assert (export / "synset.txt").read_text().split() == list(LETTERS)
    assert '"shape": [1, 3, 18, 20]' in (export / "model-shapes.json").read_text()
    assert run("--data-dir", "letters", "--add-stn", "--class-names", ",".join(LETTERS),
               "--resume").returncode == 0
    done = run("--data-dir", "letters", "--add-stn", "--num-classes", 30, "--resume")
    assert "--num-classes 26 there, --num-classes 30 here" in done.stderr
    done = run("--data-dir", "letters", "--distort", "R")
    assert done.returncode == 2
    assert "in colour: --image-shape 1,H,W makes them grey" in done.stderr
    done = run("--data-dir", "letters", "--distort", "R", "--image-shape", "1,18,20")
    assert done.returncode == 0, done.stderr
    done = run("--data-dir", "letters", "--network", "cnn", "--image-shape", "3,12,12")
    assert "cnn's classifier needs at least 21 x 21" in done.stderr


def folder_of(root, images, labels, names, suffix=".png", **options):
    """Writes pictures into folders of classes, and returns their paths."""
    paths = []
    for number, (image, label) in enumerate(zip(images, labels)):
        path = root / names[label] / f"{number:03}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.ascontiguousarray(image if image.ndim == 2 else image.transpose(1, 2, 0))
        Image.fromarray(pixels).save(path, **options)
        paths.append(path)
    return paths


def load(path, **options):
    return datasets.load("mnist", str(path), **options)


def test_a_folder_with_training_and_test(tmp_path):
    images, labels = drawn(40)
    names = [f"{number}" for number in range(10)]
    folder_of(tmp_path / "train", images[:30], labels[:30], names)
    folder_of(tmp_path / "test", images[30:], labels[30:], names)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    dataset = load(tmp_path)
    assert dataset.class_names == tuple(names)
    order = np.lexsort([np.arange(30), labels[:30]])
    shuffled = order[np.random.RandomState(0).permutation(30)]
    np.testing.assert_array_equal(dataset.train_images, images[shuffled])
    np.testing.assert_array_equal(dataset.train_labels, labels[shuffled])
    order = np.lexsort([np.arange(30, 40), labels[30:]])
    np.testing.assert_array_equal(dataset.test_images, images[30:][order])
    np.testing.assert_array_equal(dataset.test_labels, labels[30:][order])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    only = load(tmp_path, test_only=True)
    assert len(only.train_images) == 0
    np.testing.assert_array_equal(only.test_images, dataset.test_images)


@pytest.mark.parametrize("where", [".", "training"])
def test_without_a_test_part_a_fifth_of_each_class_is_it(tmp_path, caplog, where):
    caplog.set_level("INFO")
    images, _ = drawn(60)
    folder_of(tmp_path / where, images, np.arange(60) % 3, ("b", "ä", "9"))
    dataset = load(tmp_path)
    assert "no folder is named test: a fifth of each class, 12 pictures in all" in caplog.text
    assert dataset.class_names == ("9", "b", "ä")
    assert np.bincount(dataset.train_labels).tolist() == [16] * 3
    assert np.bincount(dataset.test_labels).tolist() == [4] * 3
    together = np.concatenate([dataset.train_images, dataset.test_images])
    assert {image.tobytes() for image in together} == {image.tobytes() for image in images}
    assert len(set(dataset.train_labels[-8:])) > 1  # of which --validation would be


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".webp", ".tif", ".JPG"])
@pytest.mark.parametrize("colour", [False, True])
def test_pictures_of_the_usual_formats(tmp_path, suffix, colour):
    images = np.zeros((10, *SHAPE), np.uint8)
    images[:, 4:9, 5:15] = np.arange(100, 200, 10)[:, None, None]
    images = coloured(images) if colour else images
    folder_of(tmp_path, images, np.arange(10) % 2, "ab", suffix, quality=100, lossless=True,
              subsampling=0)
    found = load(tmp_path).train_images
    assert found.shape[1:] == images.shape[1:]
    difference = np.abs(found[:, None].astype(int) - images).reshape(8, 10, -1).max(axis=2)
    assert (difference.min(axis=1) <= (8 if suffix == ".JPG" else 0)).all()


def test_one_coloured_picture_makes_all_coloured(tmp_path):
    images = drawn(20)[0]
    folder_of(tmp_path, np.stack([images] * 3, axis=1), np.arange(20) % 2, "ab")
    assert load(tmp_path).train_images.shape == (16, *SHAPE)  # grey, however it is stored
    folder_of(tmp_path / "b", coloured(images)[:1], [0], ["more"])  # folders in that of a class
    dataset = load(tmp_path)
    assert dataset.train_images.shape == (17, 3, *SHAPE)
    found = dataset.train_images
    grey = found[(found[:, :1] == found).all(axis=(1, 2, 3))]
    assert len(grey) >= 16
    assert {image.tobytes() for image in grey[:, 0]} <= {image.tobytes() for image in images}


def test_transparent_and_turned_pictures(tmp_path):
    pixels = np.full((*SHAPE, 4), 200, np.uint8)
    pixels[..., 2], pixels[..., 3], pixels[:, :10, 3] = 100, 255, 0
    exif = Image.Exif()
    exif[0x0112] = 3
    (tmp_path / "a").mkdir()
    for number in range(4):
        Image.fromarray(pixels).save(tmp_path / "a" / f"{number}.png", exif=exif)
    folder_of(tmp_path, drawn(4)[0], np.zeros(4, int), "b")
    dataset = load(tmp_path)
    image = dataset.test_images[dataset.test_labels == 0][0]
    assert image[:, 0, 0].tolist() == [200, 200, 100]
    assert image[:, 0, -1].tolist() == [0, 0, 0]


def test_pictures_of_several_sizes_are_resized(tmp_path):
    large, labels = drawn(20, shape=(60, 90))
    folder_of(tmp_path, [*large[:10], *large[10:, ::2, ::2]], np.arange(20) % 2, "ab")
    with pytest.raises(ValueError, match="[0-9]+.png: 30 x 45 pixels, but .* has 60 x 90: --image-"
                                         "shape C,H,W resizes all"):
        load(tmp_path)
    for shape in ((1, 20, 30), (3, 20, 30)):
        dataset = load(tmp_path, image_shape=shape)
        assert dataset.train_images.shape == (16, *(shape if shape[0] == 3 else shape[1:]))
    wanted = arrays.resize(large[:10], (1, 20, 30))
    found = {image.tobytes() for image in load(tmp_path, image_shape=(1, 20, 30)).train_images}
    assert len(found & {image.tobytes() for image in wanted}) >= 6


def test_a_photograph_of_twelve_million_pixels(tmp_path):
    image = arrays.resize(drawn(1, shape=(30, 40))[0], (3, 3000, 4000))[0]
    folder_of(tmp_path, [image] * 4, np.arange(4) % 2, "ab", ".jpg")
    with pytest.raises(ValueError, match="more than 4194304 pixels; --image-shape takes larger"):
        load(tmp_path)
    found = load(tmp_path, image_shape=(3, 30, 40)).train_images
    assert np.abs(found[0].astype(int) - arrays.resize(image[None], (3, 30, 40))[0]).max() < 8


@pytest.fixture
def broken(tmp_path):
    """A folder of 20 pictures, three of which are broken."""
    paths = folder_of(tmp_path, drawn(20)[0], np.arange(20) % 2, "ab")
    paths[3].write_bytes(paths[3].read_bytes()[:-40])
    paths[4].unlink()
    paths[4].symlink_to("nowhere")
    paths[5].write_text("<html>")
    return tmp_path


def test_broken_pictures_are_named(broken, caplog):
    with pytest.raises(ValueError, match=r"00[345].png: .*--broken skip leaves it out"):
        load(broken)
    dataset = load(broken, skip_broken=True)
    assert len(dataset.train_images) + len(dataset.test_images) == 17
    left_out = [line for line in caplog.messages if line.endswith(": left out")]
    assert len(left_out) == 3
    for name, words in (("003", "not a whole picture"), ("004", "no such file"),
                        ("005", "not a whole picture")):
        assert any(f"{name}.png: " in line and words in line for line in left_out)
    assert caplog.messages[-1] == f"{broken}: 3 of 20 pictures are broken and left out"


def test_what_is_no_picture_is_passed_over(tmp_path, caplog):
    caplog.set_level("INFO")
    folder_of(tmp_path, drawn(20)[0], np.arange(20) % 2, ("кот", "犬"))
    before = load(tmp_path)
    for name in ("Thumbs.db", ".DS_Store", "._000.png", "notes.txt", "000.heic"):
        (tmp_path / "犬" / name).write_text("x")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "labels.csv").write_text("x")
    (tmp_path / "犬" / "loop").symlink_to(tmp_path / "犬")
    (tmp_path / "犬" / "up").symlink_to(tmp_path)
    after = load(tmp_path)
    assert after.class_names == ("кот", "犬")
    assert after.sha256 == before.sha256
    assert "2 files are no pictures by their names, such as 000.heic" in caplog.text


def test_classes_that_are_numbers_are_in_their_order(tmp_path):
    names = [str(number) for number in range(12)]
    folder_of(tmp_path, drawn(24)[0], np.arange(24) % 12, names)
    assert load(tmp_path).class_names == tuple(names)


def test_names_choose_the_order_of_the_classes(tmp_path):
    folder_of(tmp_path, drawn(20)[0], np.arange(20) % 2, "ab")
    before, after = load(tmp_path), load(tmp_path, class_names=("b", "c", "a"))
    assert after.class_names == ("b", "c", "a")
    np.testing.assert_array_equal(after.train_labels, 2 - 2 * before.train_labels)
    with pytest.raises(ValueError, match="the class b is none of a, bb; did you mean bb?"):
        load(tmp_path, class_names=("a", "bb"))
    with pytest.raises(ValueError, match="--num-classes 2"):
        load(tmp_path, num_classes=2, class_names=("a", "b", "c"))
    assert load(tmp_path, num_classes=3).class_names == ("a", "b", "2")


def make_loose(folder):
    folder_of(folder / "train", drawn(4)[0], np.arange(4) % 2, "ab")
    Image.fromarray(drawn(1)[0][0]).save(folder / "train" / "c.png")


def make_empty(folder):
    folder_of(folder, drawn(4)[0], np.arange(4) % 2, "ab")
    (folder / "c").mkdir()


def make_unknown(folder):
    folder_of(folder / "train", drawn(4)[0], np.arange(4) % 2, "ab")
    folder_of(folder / "test", drawn(4)[0], np.arange(4) % 2, "ac")


def make_test_alone(folder):
    folder_of(folder / "test", drawn(4)[0], np.arange(4) % 2, "ab")


def make_one_class(folder):
    folder_of(folder, drawn(4)[0], np.zeros(4, int), "a")


def make_singles(folder):
    folder_of(folder, drawn(2)[0], np.arange(2), "ab")


def make_control(folder):
    folder_of(folder, drawn(4)[0], np.arange(4) % 2, ("a", "b\n"))


def make_bytes(folder):
    folder_of(folder, drawn(4)[0], np.arange(4) % 2, ("a", "b\udc80"))


def make_flat(folder):
    Image.fromarray(drawn(1)[0][0]).save(folder / "c.png")


def make_something_else(folder):
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("a")


@pytest.mark.parametrize(("make", "words"), [
    (make_loose, "train/c.png: not in the folder of a class, such as .*train/cat"),
    (make_empty, "c: no pictures in it"),
    (make_unknown, "test: c is no class of the training pictures: a, b"),
    (make_test_alone, "there is test, but no train"),
    (make_one_class, "all images are of one class"),
    (make_singles, "no test images"),
    (make_control, r"the name of a class, 'b\\n', is no text"),
    (make_bytes, r"the name of a class, 'b\\udc80', is no text"),
    (make_flat, "holds none of what --data-dir takes"),
    (make_something_else, "holds none of what --data-dir takes"),
])
def test_folders_that_are_not_as_they_should_be(tmp_path, make, words):
    make(tmp_path)
    with pytest.raises(ValueError, match=words):
        load(tmp_path)


def test_a_folder_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    folder_of(tmp_path, drawn(20)[0], np.arange(20) % 2, "ab")
    monkeypatch.setattr(arrays, "LARGEST", 20 * SHAPE[0] * SHAPE[1])
    load(tmp_path)
    monkeypatch.setattr(arrays, "LARGEST", 20 * SHAPE[0] * SHAPE[1] - 1)
    with pytest.raises(ValueError, match="20 images of 18 x 20 take .*: give fewer"):
        load(tmp_path)


@pytest.fixture
def photos(tmp_path):
    """A folder of coloured pictures of some sizes, in three classes."""
    large = coloured(drawn(60, shape=(40, 40))[0])
    folder_of(tmp_path / "photos", [*large[:30], *large[30:, :, ::2]], np.arange(60) % 3,
              ("cat", "dog", "zebra"))
    return tmp_path


def test_a_model_of_pictures_is_scored_and_predicts_by_the_names_of_its_classes(photos, run_main):
    train = [*TRAIN, "--data-dir", "photos", "--add-stn", "--image-shape", "3,24,20"]
    done = run_main(train_mnist, *train, "--num-epochs", 3, "--class-names", "zebra,dog,cat")
    assert done.returncode == 0, done.stderr
    accuracy = done.stdout.splitlines()[0]
    for model in ("models/photos-mlp-stn", "models/photos-mlp-stn-export"):
        done = run_main(score, model, "--data-dir", "photos", "--mistakes", "m.png")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(accuracy)
        assert re.findall("Class (.*): .* of 4", done.stdout) == ["zebra", "dog", "cat"]
        assert "own files, resized to 3 x 24 x 20; the network was trained on own" in done.stdout
        done = run_main(score, model, "--predict", "photos/cat/000.png", "photos/dog/031.png")
        assert re.fullmatch(r"(?:photos/\w+/0\d+.png: (?:zebra|dog|cat) \(0.*\)\n){2}", done.stdout)
    done = run_main(visualize_stn, model, "--data-dir", "photos")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("0: 2")  # a cat
    (photos / "photos" / "cat").rename(photos / "photos" / "lion")
    done = run_main(score, model, "--data-dir", "photos")
    assert "the class lion is none of zebra, dog, cat" in done.stderr


def test_a_comparison_takes_the_same_flags(photos):
    done = run_script("compare_stn.py", *TRAIN, "--data-dir", "photos", "--image-shape", "1,18,18",
                      "--seeds", 1, cwd=str(photos))
    assert done.returncode == 0, done.stderr
    assert (photos / "results" / "compare" / "photos-mlp-stn" / "comparison.json").exists()
