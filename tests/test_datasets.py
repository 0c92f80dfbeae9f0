"""Data of one's own: idx files, what numbers mean, classes, and which format is which."""
import functools
import gzip
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest

import score
import train_mnist
import visualize_stn
from common.data import arrays, class_list, datasets, fetch, idx
from tests.conftest import ROOT
from tests.own_data import SHAPE, TRAIN, coloured, drawn

LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Of the images and labels, as the recipes of older checkpoints have it.
MNIST = "25c98f992c005963b7428e1f38418b233c9b286cc403519287eb8063f0bcfe07"


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


def test_parts_of_several_sizes_and_colours_are_made_alike(tmp_path):
    images, labels = drawn(20)
    path = str(tmp_path / "a.npz")
    np.savez(path, x_train=images, y_train=labels, y_test=labels,
             x_test=coloured(images)[:, :, 1:])
    with pytest.raises(ValueError, match="a.npz: training images have 18 x 20 pixels, test images "
                                         "3 x 17 x 20: --image-shape C,H,W resizes all"):
        datasets.load("mnist", path)
    found = datasets.load("mnist", path, image_shape=(3, 9, 10))
    assert found.train_images.shape == found.test_images.shape == (20, 3, 9, 10)


def test_black_and_white_images(white):
    np.testing.assert_array_equal(arrays.as_images("a", white > 99)[0], 255 * (white > 99))


@pytest.mark.parametrize(("make", "words"), [
    (lambda images: images - 1.0, "the pixels are from -1 to 254"),
    (lambda images: images.astype(int) * 2, "the pixels are from 0 to 510"),
    (lambda images: np.where(images, np.inf, 0), "the pixels are from 0 to inf"),
    (lambda images: images / 2, "some pixels are above 1 and some no whole numbers"),
    (lambda images: np.where(images, np.nan, 0), "the pixels are from nan to nan"),
    (lambda images: np.stack([images] * 2, axis=1), "the channels, 1 or 3, .* neither is"),
    (lambda images: np.zeros((2, 3, 9, 3), np.uint8), "either may be"),
    (lambda images: images[0], "expected images"),
    (lambda images: images[:0], r"expected images .* got uint8 \(0, 18, 20\)"),
    (lambda images: images.astype(str), "of numbers"),
    (lambda images: images // 255, "whole numbers up to 1, which is black"),
    (lambda images: (images > 99).astype(int), "whole numbers up to 1, which is black"),
])
def test_pixels_whose_meaning_is_not_clear_are_refused(white, make, words):
    with pytest.raises(ValueError, match=f"^a: .*{words}"):
        arrays.as_images("a", make(white))


def test_a_pixel_that_is_no_number_is_refused_in_any_part(white):
    for value, words in ((np.nan, "from nan to nan"), (np.inf, "from 0 to inf")):
        broken = white / 255
        broken[0, 0, 0] = value
        for parts in ((white / 255, broken), (broken, white / 255)):
            with pytest.raises(ValueError, match=f"the pixels are {words}"):
                arrays.as_images("a", *parts)


@pytest.mark.parametrize("make", [lambda images: images / 255, lambda images: images // 255 * 1.0])
def test_one_scale_for_training_and_test(white, make):
    with pytest.raises(ValueError, match="^a: .* of different scales: up to 255, and up to 1;"):
        arrays.as_images("a", white * 1.0, make(white))
    with pytest.raises(ValueError, match="^a: .* of different scales: up to 1, and up to 255;"):
        arrays.as_images("a", make(white), white)
    for blank in (white * 0.0, white * 0):
        np.testing.assert_array_equal(arrays.as_images("a", white, blank)[1], blank)


def test_black_and_white_images_beside_greys(white):
    train, test = arrays.as_images("a", white, white > 99)
    np.testing.assert_array_equal(train, white)
    np.testing.assert_array_equal(test, 255 * (white > 99))
    test, train = arrays.as_images("a", white > 99, white / 255)
    np.testing.assert_array_equal(train, white)
    np.testing.assert_array_equal(test, 255 * (white > 99))


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
    ("a", "neither a file"), ("a,b,a", "a is there twice"), ("a,,b", "'' is not the name"),
    ("names", "two names or more"), ("\x1b,a", "x1b' is not the name"), (".", "Is a directory")])
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


def test_fractions_of_255_are_their_pixels_in_float16_too():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for kind in (np.float16, np.float32, np.float64):
        found, = arrays.as_images("a", (pixels / 255).astype(kind))
        np.testing.assert_array_equal(found, pixels)


def test_what_is_shrunk_is_averaged():
    checkered = (np.indices((1, 32, 32)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(arrays.resize(checkered, (1, 8, 8))[:, 1:-1, 1:-1] - 127.5).max() <= 1.5


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


def test_what_is_not_trained_on_need_not_fit(tmp_path, monkeypatch):
    write_idx(tmp_path, drawn(200), drawn(20, seed=1))
    folder, shape = str(tmp_path), (3, 56, 56)
    monkeypatch.setattr(arrays, "LARGEST", 50 * 3 * 56 * 56)
    with pytest.raises(ValueError, match="200 images of 3 x 56 x 56 take"):
        datasets.load("mnist", folder, image_shape=shape)
    dataset = datasets.load("mnist", folder, num_examples=50, image_shape=shape)
    assert dataset.train_images.shape == (50, *shape)
    assert len(dataset.class_names) == 10


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


@pytest.mark.parametrize(("name", "hint"), [
    ("a.zip", "; unpack it first"), ("a.txt", "fetch mnist into"), ("a/b.npz", "path of b.npz in"),
    ("a/1.csv.gz", "give the path of 1.csv.gz in it"), ("a/b.JPG", "b.JPG is to be in the folder")])
def test_other_files_are_refused(run, refused, tmp_path, name, hint):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"a")
    path = name.partition("/")[0]
    refused(run("--data-dir", path), f"{path}: none of what --data-dir takes", ".npz file", hint)


@pytest.mark.parametrize(("flags", "words"), [
    (["--image-shape", "2,8,8"], "expected 1 channel for grey, or 3 for colour, got '2,8,8'"),
    (["--image-shape", "8,8"], "expected C,H,W such as 1,28,28"),
    (["--image-shape", "1,0,8"], "of at least 1"),
    (["--num-classes", 1], "of at least 2"),
    (["--class-names", "cat"], "neither a file that is there nor names"),
    (["--dataset", "synthetic", "--num-classes", 9], "label 9 is not one of 0 to 8, so --num-cla"),
    (["--broken", "mend"], "--broken"),
])
def test_bad_flags_are_refused(run, refused, flags, words):
    refused(run("--dataset", "synthetic", "--num-examples", 50, *flags), words)


@pytest.mark.parametrize(("path", "name"), [
    ("photos/", "photos"), ("a/b.npz", "b"), ("train.csv.gz", "train"), (".", "here"),
    ("/", "mnist"), ("empty", "mnist"), ("published", "mnist"), ("mixed", "mixed")])
def test_files_are_named_after_the_data(tmp_path, monkeypatch, path, name):
    for folder in ("here", "here/empty", "here/published", "here/mixed"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name_of_file in fetch.NAMES:
        os.symlink(os.path.join(ROOT, "data", "mnist", name_of_file), f"published/{name_of_file}")
        os.symlink(os.path.join(ROOT, "data", "mnist", name_of_file), f"mixed/{name_of_file}")
    (tmp_path / "here" / "mixed" / fetch.NAMES[3]).unlink()
    labels = np.zeros(10000, np.uint8)
    (tmp_path / "here" / "mixed" / fetch.NAMES[3]).write_bytes(idx.encode(labels))
    assert datasets.short_name("mnist", path) == name
    assert datasets.short_name("signs", path) == "signs"  # which has no files


def test_drawn_digits_are_resized_and_scored_as_in_the_training(run, run_main):
    flags = ["--dataset", "synthetic", "--num-examples", 100, "--image-shape", "3,20,20"]
    done = run(*flags, "--num-classes", 12, "--model-prefix", "a")
    assert done.returncode == 0, done.stderr
    accuracy = done.stdout.splitlines()[0]
    for model in ("a", "a-export"):
        done = run_main(score, model)
        assert done.stdout.startswith(accuracy)
        assert "synthetic, resized to 3 x 20 x 20, as in the training" in done.stdout
        assert "Class 11: 0 of 0" in done.stdout
    done = run(*flags, "--num-classes", 12, "--model-prefix", "a", "--resume", "--image-shape",
               "1,20,20")
    assert "--image-shape 3,20,20 there, --image-shape 1,20,20 here" in done.stderr


def test_two_classes_are_scored_without_a_top_3(run, run_main, tmp_path):
    idx_folder(tmp_path, np.arange(20, dtype=np.uint8) % 2)
    assert run("--data-dir", ".", "--model-prefix", "a").returncode == 0
    done = run_main(score, "a-export", "--data-dir", ".")
    assert "Top-2 accuracy: 1.0000" in done.stdout
    done = run_main(score, "a-export", "--data-dir", ".", "--top-k", 3)
    assert "--top-k 3: the network has 2 classes" in done.stderr


def test_classes_of_other_data_are_matched_by_name(run, run_main, tmp_path):
    (tmp_path / "all").mkdir()
    (tmp_path / "some").mkdir()
    images, labels = drawn(40)[0], np.arange(40, dtype=np.uint8) % 4
    idx_folder(tmp_path / "all", labels, images)
    idx_folder(tmp_path / "some", labels[labels > 0], images[labels > 0])  # would become 0 to 2
    assert run("--data-dir", "all", "--model-prefix", "a").returncode == 0
    done = run_main(score, "a-export", "--data-dir", "some")
    assert re.findall(r"Class \d: \d+ of (\d+)", done.stdout) == ["0", "10", "10", "10"]
    done = run_main(score, os.path.join(ROOT, "published", "mnist-lenet"), "--dataset", "mnist")
    assert "Test accuracy: 0.99" in done.stdout


@pytest.mark.parametrize(("trained_on", "names"), [
    ((1, 2, 3), "a,b,c"), ((1, 2, 3), "a,b,c,d"), ((0, 1, 2), "a,b,c"), ((0, 2, 3), "a,b,c,d")])
@pytest.mark.parametrize("kept", [slice(None), slice(1, None), slice(1, 2)])
def test_numbers_that_got_names_are_the_same_classes_when_they_are_scored(
        run, run_main, tmp_path, trained_on, names, kept):
    """Also where only some of the classes are there: which classes those are is counted."""
    images, labels = drawn(40)[0], np.resize(trained_on, 40).astype(np.uint8)
    some = np.isin(labels, trained_on[kept])
    np.savez(tmp_path / "all.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    np.savez(tmp_path / "some.npz", x_train=images[some], y_train=labels[some],
             x_test=images[some], y_test=labels[some])
    done = run("--data-dir", "all.npz", "--class-names", names, "--model-prefix", "a")
    assert done.returncode == 0, done.stderr
    first = int(trained_on[0] == 1 and names == "a,b,c")
    for model in ("a", "a-export"):
        done = run_main(score, model, "--data-dir", "some.npz")
        expected = {name: str((labels[some] == first + number).sum())
                    for number, name in enumerate(names.split(","))}
        assert dict(re.findall(r"Class (\w): \d+ of (\d+)", done.stdout)) == expected


def test_a_label_that_the_names_of_a_network_are_not_for_is_refused(run, run_main, refused,
                                                                     tmp_path):
    images, labels = drawn(40)[0], np.arange(40, dtype=np.uint8) % 3
    for first in (0, 1):
        np.savez(tmp_path / f"{first}.npz", x_train=images, y_train=labels + first)
    assert run("--data-dir", "1.npz", "--class-names", "a,b,c").returncode == 0
    refused(run_main(score, "models/1-mlp", "--data-dir", "0.npz"),
            "0.npz: the label 0 is none of 1 to 3, which the network knows")


def test_nothing_is_written_over_what_is_read(run, run_main, refused, tmp_path):
    images, labels = drawn(40)[0], np.arange(40, dtype=np.uint8) % 2
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels)
    (tmp_path / "names.txt").write_text("a\nb\n")
    for number in range(6):
        folder = tmp_path / "own" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        arrays.to_pillow(images[number][None]).save(str(folder / f"{number}.png"))
    train = ["--data-dir", "own.npz", "--class-names", "names.txt", "--model-prefix", "a"]
    assert run(*train, "--result", "own/a.json").returncode == 0
    model = ["--pretrained", "a-0001.params", "--model-prefix", "b"]
    picture, params = "own/0/0.png", "a-0001.params"
    before = {path: (tmp_path / path).read_bytes() for path in ("own.npz", "names.txt", picture,
                                                                params)}
    for path, done in (
            ("own.npz", run(*train, "--overwrite", "--result", "own.npz")),
            ("names.txt", run(*train, "--overwrite", "--result", "names.txt")),
            (params, run(*train, *model, "--result", params)),
            ("own.npz", run_main(score, "a", "--data-dir", "own.npz", "--result", "own.npz")),
            (picture, run_main(score, "a", "--data-dir", "own", "--mistakes", picture)),
            (picture, run_main(visualize_stn, "a", "--data-dir", "own", "--output", picture))):
        refused(done, path, "would be lost")
    assert before == {path: (tmp_path / path).read_bytes() for path in before}


def test_numbers_of_classes_that_a_byte_does_not_hold():
    wanted = [f"a{number}" for number in range(300)]
    labels = class_list.renumbered("a", np.array([0, 1], np.uint8), ("a299", "a3"), wanted)
    assert labels.tolist() == [299, 3]


@pytest.mark.parametrize("name", ["t10k-labels-idx1-ubyte", "train_32x32.mat", "train.csv"])
def test_files_of_every_format_are_not_written_over(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"data")
    args = SimpleNamespace(data_dir=str(tmp_path))
    with pytest.raises(ValueError, match=f"{name}: is read, by --data-dir, and would be lost"):
        datasets.check_not_read(str(path), args)
    datasets.check_not_read(str(tmp_path / "other"), args)
