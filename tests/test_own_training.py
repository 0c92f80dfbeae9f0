"""Training on RecordIO, with augmentation, and on noise, as a user asks for it."""
import functools
import io
import os
import re
import struct

import numpy as np
import pytest

import score
import train_mnist
from common import files
from common.data import arrays, datasets, records, synthetic
from common.data.batches import ImageIter
from common.data.distort import augmentation
from common.storage import checkpoint
from tests.own_data import as_im2rec

NAMES = ("cat", "dog", "fox")
QUICK = ["--network", "mlp", "--width", 8, "--batch-size", 20, "--cpus", 1, "--num-epochs", 2]
AUGMENTED = ["--random-crop", 1, "--pad-size", 2, "--random-mirror", 1, "--brightness", 0.3]


@pytest.fixture
def run(run_main):
    return functools.partial(run_main, train_mnist)


@pytest.fixture
def packed(tmp_path):
    """The flags of a training and a test set in RecordIO; the latter lacks a class."""
    for part, count, names in (("train", 60, NAMES), ("val", 30, NAMES[1:])):
        images, _ = synthetic.noise(count, len(names), (3, 20, 20), 2)
        for number, image in enumerate(images):
            name = names[number % len(names)]
            image[NAMES.index(name)] = 255  # which tells it
            folder = tmp_path / part / name
            folder.mkdir(parents=True, exist_ok=True)
            arrays.to_pillow(image).save(str(folder / f"{number}.png"))
        records.write(str(tmp_path / part), str(tmp_path / f"{part}.rec"))
    return ["--data-train", tmp_path / "train.rec", "--data-val", tmp_path / "val.rec"]


def accuracy(done):
    assert done.returncode == 0, done.stderr
    return re.search(r"^Test accuracy: ([\d.]+)", done.stdout, flags=re.M).group(1)


@pytest.mark.parametrize("streamed", [False, True])
def test_packed_pictures_are_learnt_and_scored(packed, run, run_main, monkeypatch, tmp_path,
                                               streamed):
    monkeypatch.setattr(records, "IN_MEMORY", 0 if streamed else records.IN_MEMORY)
    dataset = datasets.load("mnist", data_train=str(packed[1]), data_val=str(packed[3]))
    assert isinstance(dataset.train_images, records.Stream) == streamed
    assert dataset.class_names == NAMES
    assert set(dataset.test_labels) == {1, 2}  # by name
    trained = run(*packed, *QUICK, "--lr", 0.01, "--num-epochs", 12)
    assert accuracy(trained) == "1.0000"
    model = tmp_path / "models" / "train-mlp"
    scored = run_main(score, model, "--data-val", packed[3])
    assert accuracy(scored) == "1.0000"
    assert "fox" in scored.stdout


@pytest.fixture
def numbered(tmp_path):
    """A folder whose classes 1, 2 and 10 have pictures as bright, and its two .rec files."""
    for part, count in (("train", 30), ("test", 9)):
        for number in range(count):
            name = ("1", "2", "10")[number % 3]
            folder = tmp_path / "own" / part / name
            folder.mkdir(parents=True, exist_ok=True)
            image = np.full((1, 20, 20), 20 * int(name), np.uint8)
            arrays.to_pillow(image).save(str(folder / f"{number}.png"))
        records.write(str(tmp_path / "own" / part), str(tmp_path / f"{part}.rec"))
    return str(tmp_path / "own"), str(tmp_path / "train.rec"), str(tmp_path / "test.rec")


def brightness(images, labels, names):
    """By class: of what is in its first picture."""
    return {names[label]: int(np.asarray(images[:])[labels == label].flat[0])
            for label in np.unique(labels)}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("wanted", [None, ("10", "2", "1"), ("2", "1", "10")])
def test_classes_whose_names_are_numbers_are_the_same_in_a_folder_and_packed(
        numbered, monkeypatch, streamed, wanted):
    monkeypatch.setattr(records, "IN_MEMORY", 0 if streamed else records.IN_MEMORY)
    folder, train, test = numbered
    for data in ({"data_dir": folder}, {"data_train": train, "data_val": test}):
        dataset = datasets.load("mnist", class_names=wanted, **data)
        assert dataset.class_names == (wanted or ("1", "2", "10"))
        for part in (dataset[:2], dataset[2:4]):
            assert brightness(*part, dataset.class_names) == {"1": 20, "2": 40, "10": 200}


def bright(label):
    file = io.BytesIO()
    arrays.to_pillow(np.full((1, 20, 20), 50 * label, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("folders", [("camera1/", "camera2/"), ("", ""), ("images/", "images/")])
def test_labels_stay_where_folders_are_not_the_classes(tmp_path, folders):
    for part, turn in (("train", 0), ("val", 1)):
        as_im2rec(tmp_path / part, [
            (label, f"{folders[(label + number + turn) % 2]}{number}.png", bright(label))
            for number in range(4) for label in (0, 1)])
    dataset = datasets.load("mnist", data_train=str(tmp_path / "train.rec"),
                            data_val=str(tmp_path / "val.rec"))
    assert dataset.class_names == ("0", "1")
    for part in (dataset[:2], dataset[2:4]):
        assert brightness(*part, dataset.class_names) == {"0": 0, "1": 50}


def test_test_pictures_may_lack_a_class_in_the_middle(tmp_path):
    for part, names in (("train", "abc"), ("val", "ac")):
        as_im2rec(tmp_path / part, [("abc".index(name), f"{name}/{number}.png",
                                     bright("abc".index(name)))
                                    for number in range(3) for name in names])
    dataset = datasets.load("mnist", data_train=str(tmp_path / "train.rec"),
                            data_val=str(tmp_path / "val.rec"))
    assert dataset.class_names == ("a", "b", "c")
    assert brightness(*dataset[2:4], dataset.class_names) == {"a": 0, "c": 100}


def test_a_class_that_the_training_lacks_is_refused_though_its_name_is_a_number(
        tmp_path, run, run_main, refused):
    for part, names in (("train", "123"), ("val", "234")):
        for number in range(9):
            folder = tmp_path / part / names[number % 3]
            folder.mkdir(parents=True, exist_ok=True)
            arrays.to_pillow(np.full((1, 20, 20), 9 * number, np.uint8)).save(
                str(folder / f"{number}.png"))
        records.write(str(tmp_path / part), str(tmp_path / f"{part}.rec"))
    words = "val.rec: the class 4 is none of 1, 2, 3"
    files_of = {part: tmp_path / f"{part}.rec" for part in ("train", "val")}
    refused(run("--data-train", files_of["train"], "--data-val", files_of["val"], *QUICK), words)
    accuracy(run("--data-train", files_of["train"], "--data-val", files_of["train"], *QUICK,
                 "--batch-size", 9))
    model = tmp_path / "models" / "train-mlp"
    refused(run_main(score, model, "--data-val", files_of["val"]), words)


def test_labels_that_name_no_classes_are_said_to_be_taken_for_the_network_s(
        packed, run, run_main, tmp_path, caplog):
    os.remove(tmp_path / "val.lst")
    accuracy(run(*packed, *QUICK, "--class-names", "fox,dog,cat"))
    scored = run_main(score, tmp_path / "models" / "train-mlp", "--data-val", packed[3])
    assert "val.rec: its classes 0, 1, 2 are taken for fox, dog, cat" \
        in caplog.text
    assert scored.returncode == 0


def test_a_label_beyond_those_of_the_training_is_named(packed, tmp_path):
    path = tmp_path / "more.rec"
    whole = (tmp_path / "val.rec").read_bytes()
    label = records.PART.size + 4  # of the first record, behind the flag
    path.write_bytes(whole[:label] + struct.pack("<f", 7) + whole[label + 4:])
    for names in (None, ("fox", "dog", "cat")):
        with pytest.raises(ValueError, match="more.rec: the label 7 is none of the training's"):
            datasets.load("mnist", data_train=str(packed[1]), data_val=str(path),
                          class_names=names)


def test_streams_of_greys_are_distorted(numbered, monkeypatch):
    _, train, test = numbered
    found = []
    for most in (records.IN_MEMORY, 0):
        monkeypatch.setattr(records, "IN_MEMORY", most)
        dataset = datasets.load("mnist", data_train=train, data_val=test)
        distort, _ = augmentation("R", 3)
        batches = ImageIter(*dataset[:2], 10, seed=0, augment=distort)
        found.append([batches.next().data[0].asnumpy(),
                      datasets.for_evaluation(*dataset[2:4], 0, distort)[0]])
    for one, other in zip(*found):
        np.testing.assert_array_equal(one, other)


def test_streams_are_told_apart(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "IN_MEMORY", 0)

    def sha256(count=None):
        return datasets.load("mnist", num_examples=count, data_train=str(packed[1]),
                             data_val=str(packed[3])).sha256

    before = sha256()
    assert before == sha256() != sha256(40)
    first = next((tmp_path / "train" / "cat").iterdir())
    image = np.full((3, 20, 20), 7, np.uint8)
    arrays.to_pillow(image).save(str(first))
    records.write(str(tmp_path / "train"), str(tmp_path / "train.rec"), overwrite=True)
    assert sha256() != before


def params(prefix, epoch=2):
    return checkpoint.paths(str(prefix), epoch)[1]


def test_augmentation_changes_a_run_and_is_resumed_exactly(packed, run, tmp_path):
    for name, flags in {"plain": [], "one": AUGMENTED, "two": AUGMENTED}.items():
        accuracy(run(*packed, *QUICK, *flags, "--model-prefix", tmp_path / name))
    contents = {name: files.read(params(tmp_path / name)) for name in ("plain", "one", "two")}
    assert contents["one"] == contents["two"] != contents["plain"]
    checkpoint.remove(str(tmp_path / "one"), 2)
    again = run(*packed, *QUICK, *AUGMENTED, "--model-prefix", tmp_path / "one", "--resume")
    accuracy(again)
    assert files.read(params(tmp_path / "one")) == contents["two"]
    other = run(*packed, *QUICK, *AUGMENTED[:-1], 0.4, "--model-prefix", tmp_path / "one",
                "--resume")
    assert other.returncode == 2
    assert "--brightness 0.3 there, --brightness 0.4 here" in other.stderr


@pytest.mark.parametrize(("flags", "words"), [
    (["--data-train", "TRAIN"], "go together"), (["--data-val", "VAL"], "go together"),
    (["--data-train", "TRAIN", "--data-val", "VAL", "--data-dir", "."], "--data-dir does not go"),
    (["--data-train", "TRAIN", "--data-val", "nothing.rec"], "nothing.rec"),
    (["--random-crop", 1], "--pad-size"), (["--pad-size", 2], "--random-crop"),
    (["--benchmark", 1, "--data-dir", "."], "--benchmark"),
    (["--data-train", "TRAIN", "--data-val", "VAL", "--distort", "R"], "grey")])
def test_what_does_not_fit_together(packed, run, refused, flags, words):
    paths = {"TRAIN": packed[1], "VAL": packed[3]}
    refused(run(*(paths.get(flag, flag) for flag in flags), *QUICK), words)


def test_noise_is_trained_on_to_measure_speed_and_nothing_is_written(run, tmp_path):
    done = run("--benchmark", 1, "--image-shape", "3,20,24", "--num-classes", 5,
               "--num-examples", 200, *QUICK)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\d+ images/s trained$", done.stdout, flags=re.M)
    assert not os.listdir(tmp_path)
