"""Training on RecordIO, with augmentation, and on noise, as a user asks for it."""
import functools
import os
import re

import numpy as np
import pytest

import score
import train_mnist
from common import files
from common.data import arrays, datasets, records, synthetic
from common.storage import checkpoint

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
