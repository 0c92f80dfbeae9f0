"""SVHN's files, as they are published: written here in small."""
import os
import sys

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

import train_mnist
from common.data import datasets, svhn

# The pictures of each part: height, width, and the digits: label, left, top, width, height.
NUMBERS = [
    (40, 60, [(1, 10, 8, 10, 20), (7, 22, 10, 12, 20), (10, 35, 9, 10, 22)]),
    (30, 50, [(10, 20, 5, 12, 20)]),
    (48, 90, [(digit, 10 * digit, 10, 9, 20) for digit in range(1, 7)]),  # one too many
    (36, 64, [(digit, 10 * digit - 5, 10, 9, 20) for digit in range(1, 6)]),
    (20, 20, [(3, -2, -1, 14, 22)]),  # some of SVHN's reach over the border
]
LABELS = {(1, 7, 0, 10, 10), (0, 10, 10, 10, 10), (1, 2, 3, 4, 5), (3, 10, 10, 10, 10)}


def write_boxes(path, names, numbers):
    """A digitStruct.mat as MATLAB writes it: a column of references to columns of numbers."""
    with h5py.File(path, "w") as file:
        kept = file.create_group("#refs#")

        def reference(values):
            return kept.create_dataset(str(len(kept)), data=np.array(values)[:, None]).ref

        def column(references):
            return np.array(references, h5py.ref_dtype)[:, None]

        boxes = []
        for _, _, digits in numbers:
            box = kept.create_group(str(len(kept)))
            for field, values in zip(("label", "left", "top", "width", "height"), zip(*digits)):
                values = [float(value) for value in values]
                if len(values) > 1:
                    box.create_dataset(field, data=column([reference([value]) for value in values]),
                                       dtype=h5py.ref_dtype)
                else:
                    box.create_dataset(field, data=[values])
            boxes.append(box.ref)
        names = [reference(np.array([*map(ord, name)], np.uint16)) for name in names]
        structure = file.create_group("digitStruct")
        structure.create_dataset("name", data=column(names), dtype=h5py.ref_dtype)
        structure.create_dataset("bbox", data=column(boxes), dtype=h5py.ref_dtype)


def picture(height, width, digits):
    """Dark blue, with a brighter rectangle for each digit."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 2] = 100
    for label, left, top, across, down in digits:
        pixels[max(top, 0):top + down, max(left, 0):left + across] = 100 + 10 * label
    return pixels


def write_part(folder, numbers=None):
    """A part of format 1, of ``NUMBERS`` or of others like them."""
    numbers = NUMBERS if numbers is None else numbers
    folder.mkdir(parents=True)
    names = [f"{number}.png" for number in range(1, len(numbers) + 1)]
    for name, number in zip(names, numbers):
        Image.fromarray(picture(*number)).save(folder / name)
    write_boxes(folder / "digitStruct.mat", names, numbers)


def write_digits(path, labels):
    """A file of format 2; returns its X."""
    pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3, len(labels)), np.uint8)
    scipy.io.savemat(path, {"X": pixels, "y": np.array(labels, np.uint8)[:, None]})
    return pixels


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "svhn"
    for part in ("train", "test"):
        write_part(folder / part)
    return folder


def test_whole_numbers(whole, caplog):
    dataset = datasets.load("mnist", str(whole))
    assert dataset.train_images.shape == dataset.test_images.shape == (4, 3, 64, 64)
    assert {tuple(label) for label in dataset.train_labels.tolist()} == LABELS
    assert dataset.train_labels.dtype == dataset.train_images.dtype == np.uint8
    assert dataset.class_names == (*"0123456789", "none")
    assert datasets.short_name("mnist", str(whole)) == "svhn"


def test_long_numbers_are_left_out_with_a_word(whole, caplog):
    with caplog.at_level("INFO"):
        svhn.read(str(whole), test_only=True)
    assert "1 numbers of more than 5 digits are left out" in caplog.text


def test_what_is_cut_out():
    boxes = np.array([(10, 20, 10, 20, 1), (20, 22, 30, 16, 2)], float)
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[17:43, 4:56] = 255  # the box of 40 x 20 around both, 1.3 times as large
    found = svhn._cut_pixels(pixels.transpose(2, 0, 1), boxes)
    assert found.shape == (3, 26, 52)
    assert found.min() == 255
    assert svhn._cut_pixels(pixels[:30, :50].transpose(2, 0, 1), boxes).shape == (3, 13, 46)


def test_other_sizes_and_grey(whole):
    for shape, kept in (((3, 128, 128), (3, 128, 128)), ((1, 20, 30), (20, 30))):
        (images, *_), _ = svhn.read(str(whole), shape)
        assert images.shape[1:] == kept
        assert images.min() < images.max()


def test_what_is_in_extra_is_trained_on_too(tmp_path):
    write_part(tmp_path / "train", NUMBERS[:1])
    write_part(tmp_path / "test", NUMBERS[1:2])
    write_part(tmp_path / "extra", NUMBERS[3:])
    (images, labels, _, test_labels), _ = svhn.read(str(tmp_path))
    assert len(images) == len(labels) == 3
    assert test_labels.tolist() == [[0, 10, 10, 10, 10]]
    (images, labels, *_), _ = svhn.read(str(tmp_path), test_only=True)
    assert images.shape == (0, 3, 64, 64)
    assert labels.shape == (0, 5)


def test_parts_are_mixed_and_the_test_is_none_of_them(tmp_path):
    for part, digit in (("train", 1), ("extra", 2), ("test", 3)):
        write_part(tmp_path / part, [(20, 20, [(digit, 5, 5, 8, 10)])] * 20)
    (_, labels, _, test_labels), _ = svhn.read(str(tmp_path))
    assert sorted(labels[:, 0]) == [1] * 20 + [2] * 20
    assert set(labels[:20, 0]) == set(labels[20:, 0]) == {1, 2}
    assert set(test_labels[:, 0]) == {3}


def test_of_both_formats_the_whole_numbers_are_read(tmp_path):
    for part in ("train", "test"):
        write_part(tmp_path / part)
        write_digits(tmp_path / f"{part}_32x32.mat", [1, 2])
    assert datasets.load("mnist", str(tmp_path)).train_labels.shape == (4, 5)


def test_single_digits(tmp_path):
    train = write_digits(tmp_path / "train_32x32.mat", [10, 1, 2, 9, 1])
    write_digits(tmp_path / "test_32x32.mat", [3, 10])
    dataset = datasets.load("mnist", str(tmp_path))
    np.testing.assert_array_equal(dataset.train_images[1], train[..., 1].transpose(2, 0, 1))
    assert dataset.train_labels.tolist() == [0, 1, 2, 9, 1]
    assert dataset.test_labels.tolist() == [3, 0]
    assert dataset.class_names == tuple("0123456789")
    write_digits(tmp_path / "extra_32x32.mat", [5])
    assert datasets.load("mnist", str(tmp_path)).train_labels.tolist() == [0, 1, 2, 9, 1, 5]


def with_name(name):
    return lambda folder: write_boxes(folder / "train/digitStruct.mat", [name], NUMBERS[:1])


def with_box(*box):
    return lambda folder: write_boxes(folder / "train/digitStruct.mat", ["1.png"], [(0, 0, [box])])


@pytest.mark.parametrize(("damage", "words"), [
    (lambda folder: (folder / "train/2.png").unlink(), ["2.png", "there is no such file"]),
    (lambda folder: (folder / "train/2.png").write_bytes(b"x"), ["2.png", "not a whole picture"]),
    (lambda folder: (folder / "train/digitStruct.mat").write_bytes(b"MATLAB 7.3"),
     ["train/digitStruct.mat", "not a whole digitStruct.mat"]),
    (lambda folder: os.truncate(folder / "train/digitStruct.mat", 3000), ["not a whole"]),
    (lambda folder: h5py.File(folder / "train/digitStruct.mat", "w").close(), ["not a whole"]),
    (lambda folder: (folder / "test/digitStruct.mat").unlink(), ["digitStruct.mat: missing"]),
    (with_name("../1.png"), ["not what SVHN has", "'../1.png'"]),
    (with_box(11, 1, 1, 9, 9), ["not what SVHN has"]),
    (with_box(2.5, 1, 1, 9, 9), ["not what SVHN has"]),
    (with_box(2, 1, np.nan, 9, 9), ["not what SVHN has"]),
    (with_box(2, 1, 1, 9, 0), ["not what SVHN has"]),
    (lambda folder: write_boxes(folder / "train/digitStruct.mat", ["1.png"], [(0, 0, [])]),
     ["train/digitStruct.mat", "not a whole digitStruct.mat"]),
    (with_box(2, 500, 1, 9, 9), ["1.png", "outside the picture of 40 x 60"]),
])
def test_damaged_files_are_refused(tmp_path, damage, words):
    for part in ("train", "test"):
        write_part(tmp_path / part)
    damage(tmp_path)
    with pytest.raises((ValueError, OSError)) as error:
        datasets.load("mnist", str(tmp_path))
    for word in words:
        assert word in str(error.value)


def test_broken_pictures_may_be_skipped(tmp_path, caplog):
    for part in ("train", "test"):
        write_part(tmp_path / part)
    (tmp_path / "train" / "1.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="1.png: not a whole picture in .* or WEBP: "
                                         "--broken skip leaves it out"):
        datasets.load("mnist", str(tmp_path))
    dataset = datasets.load("mnist", str(tmp_path), skip_broken=True)
    assert {tuple(label) for label in dataset.train_labels.tolist()} == LABELS - {(1, 7, 0, 10, 10)}
    assert "1.png: not a whole picture in BMP" in caplog.text
    assert "or WEBP: left out" in caplog.text
    assert f"1 of {len(LABELS)} pictures are broken and left out" in caplog.text


@pytest.mark.parametrize(("content", "words"), [
    ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "not a whole .mat file of SVHN"),
    ({"X": np.zeros((32, 32, 3, 2)), "y": [[1], [2]]}, "expected SVHN's X"),
    ({"X": np.zeros((16, 16, 3, 2), np.uint8), "y": [[1], [2]]}, "expected SVHN's X"),
    ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [["a"], ["b"]]}, "expected SVHN's X"),
    ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1], [0]]}, "expected SVHN's y, from 1 to"),
    ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1]]}, "expected SVHN's X"),
])
def test_other_mat_files_are_refused(tmp_path, content, words):
    for part in ("train", "test"):
        scipy.io.savemat(tmp_path / f"{part}_32x32.mat", content)
    with pytest.raises(ValueError, match=words):
        datasets.load("mnist", str(tmp_path))
    (tmp_path / "train_32x32.mat").write_bytes(b"no MATLAB")
    with pytest.raises(ValueError, match="train_32x32.mat: not a whole .mat file"):
        datasets.load("mnist", str(tmp_path))


@pytest.mark.parametrize(("file", "module", "package"), [
    ("train/digitStruct.mat", "h5py", "h5py"), ("train_32x32.mat", "scipy.io", "scipy")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, file, module, package):
    for part in ("train", "test"):
        path = tmp_path / file.replace("train", part)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=f"{file} needs a package .*: pip install {package}$"):
        datasets.load("mnist", str(tmp_path))


def test_it_is_trained_on_and_scored(whole, run_main):
    done = run_main(train_mnist, "--data-dir", whole, "--network", "svhn", "--width", 2,
                    "--batch-size", 2, "--num-epochs", 1, "--cpus", 1, "--add-stn", "--stable")
    assert done.returncode == 0, done.stderr
    assert "Exported: models/svhn-svhn-stn-stable-export" in done.stdout
