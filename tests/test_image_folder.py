"""Folders of pictures as people have them, and models of them."""
import os
import re

import numpy as np
import pytest
from PIL import Image

import score
import train_mnist
import visualize_stn
from common.data import arrays, class_list
from tests.conftest import run_script
from tests.own_data import SHAPE, TRAIN, coloured, drawn, load


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
    assert "no folder named test has classes in it: a fifth of each class, 12" in caplog.text
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


@pytest.mark.slow
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


def test_a_class_may_be_named_train(tmp_path):
    folder_of(tmp_path, drawn(20)[0], np.arange(20) % 2, ("train", "car"))
    assert load(tmp_path).class_names == ("car", "train")


def test_classes_may_have_the_same_folders_in_them(tmp_path):
    for name in ("cat", "test bench"):
        folder_of(tmp_path / name, drawn(4)[0], np.arange(4) % 2, ("left", "right"))
    (tmp_path / "train.csv").write_text("file,label\n")
    os.symlink(tmp_path / "nowhere", tmp_path / "cat" / "LICENSE")
    os.symlink(tmp_path / "nowhere", tmp_path / "notes.txt")
    assert load(tmp_path).class_names == ("cat", "test bench")


def test_names_of_classes_in_scripts_that_join_letters(tmp_path):
    names = ("\u0645\u06cc\u200c\u0634", "b\u00a0:", "\u3000\u732b")
    folder_of(tmp_path, drawn(6)[0], np.arange(6) % 3, names)
    assert set(load(tmp_path).class_names) == set(names)
    (tmp_path / "names").write_text("\n".join(names), encoding="utf-8")
    assert class_list.read_names(str(tmp_path / "names")) == names


def test_a_run_does_not_write_among_its_classes(tmp_path, run_main, refused):
    folder_of(tmp_path, drawn(20)[0], np.arange(20) % 2, "ab")
    refused(run_main(train_mnist, *TRAIN, "--data-dir", "."),
            "models/", "would be among the classes in .: go to another folder")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    outside = ["--model-prefix", tmp_path.parent / f"{tmp_path.name}-model"]
    assert run_main(train_mnist, *TRAIN, "--data-dir", ".", *outside).returncode == 0
    (tmp_path / "train").mkdir()
    for name in "ab":
        os.rename(tmp_path / name, tmp_path / "train" / name)
    assert run_main(train_mnist, *TRAIN, "--data-dir", ".").returncode == 0
    refused(run_main(train_mnist, *TRAIN, "--data-dir", ".", "--model-prefix", "train/a"),
            "train/a: would be among the classes in ./train: go to another folder")


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


def make_unsorted(folder):
    folder_of(folder, drawn(4)[0], np.arange(4) % 2, ("train", "test1"))


def make_twice(folder):
    for name in ("train", "Train"):
        folder_of(folder / name, drawn(4)[0], np.arange(4) % 2, "ab")


def make_flat(folder):
    Image.fromarray(drawn(1)[0][0]).save(folder / "c.png")


def make_something_else(folder):
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("a")


def make_lost(folder):
    folder_of(folder, drawn(6)[0], np.arange(6) % 3, "abc")
    os.symlink(folder / "nowhere", folder / "d")


def make_blank(folder):
    folder_of(folder, drawn(4)[0], np.arange(4) % 2, ("a", " "))


def make_parts(folder):
    for name in ("training_set", "test_set"):
        folder_of(folder / name, drawn(4)[0], np.arange(4) % 2, "ab")


def make_both(folder):
    folder_of(folder, drawn(4)[0], np.arange(4) % 2, ("figures", "plots"))
    (folder / "train.csv").write_text(f"label{',pixel' * 16}\n")


@pytest.mark.parametrize(("make", "words"), [
    (make_lost, "/d: a link to what is not there: remove it"),
    (make_blank, "the name of a class, ' ', is no text in UTF-8, or blank"),
    (make_parts, "test_set, training_set hold the same folders, so they are no classes: name them "
                 "train and test"),
    (make_both, "a table to learn from, train.csv, beside folders of pictures: give the path"),
    (make_loose, "train/c.png: not in the folder of a class, such as .*train/cat"),
    (make_empty, "c: no pictures in it"),
    (make_unknown, "test: c is no class of the training pictures: a, b"),
    (make_test_alone, "there is test, but no train"),
    (make_one_class, "all images are of one class"),
    (make_singles, "no test images"),
    (make_control, r"the name of a class, 'b\\n', is no text"),
    (make_bytes, r"the name of a class, 'b\\udc80', is no text"),
    (make_unsorted, "its pictures are in test1, train, without a folder for each class"),
    (make_twice, "two folders are named train, in small letters"),
    (make_flat, "none of what --data-dir takes"),
    (make_something_else, "none of what --data-dir takes"),
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
    assert done.stdout.splitlines()[0].startswith("0: cat, predicted ")
    (photos / "photos" / "cat").rename(photos / "photos" / "lion")
    done = run_main(score, model, "--data-dir", "photos")
    assert "the class lion is none of zebra, dog, cat" in done.stderr


@pytest.mark.slow
def test_a_comparison_takes_the_same_flags(photos):
    done = run_script("compare_stn.py", *TRAIN, "--data-dir", "photos", "--image-shape", "1,18,18",
                      "--seeds", 1, cwd=str(photos))
    assert done.returncode == 0, done.stderr
    assert (photos / "results" / "compare" / "photos-mlp-stn" / "comparison.json").exists()
