"""The drawn numbers: the dataset, and a network on them from training to prediction."""
import itertools
import json

import numpy as np
import pytest
from PIL import Image

import export
import score
import train_mnist
import visualize_stn
from common.data import arrays, datasets, numbers
from experiments import numbers as experiment
from tests.experiment_rows import check_drawing, check_more_and_more_transformers, check_page

TINY = ["--dataset", "numbers", "--network", "svhn", "--width", 2, "--dropout", 0,
        "--num-examples", 200, "--image-shape", "3,32,32", "--batch-size", 20, "--num-epochs", 1,
        "--cpus", 1]


def test_drawing_is_a_function_of_the_seed():
    check_drawing(numbers.draw)


@pytest.mark.parametrize("image_shape", [(64, 64), (32, 32), (40, 60)])
def test_the_pictures(image_shape):
    images, labels = numbers.draw(100, seed=0, image_shape=image_shape)
    assert images.shape == (100, 3, *image_shape)
    assert labels.shape == (100, 5)
    assert images.dtype == labels.dtype == np.uint8
    assert images.flags.c_contiguous
    assert images.std(axis=(1, 2, 3)).min() > 5


def test_numbers_have_one_to_five_digits_from_the_left():
    _, labels = numbers.draw(1000, seed=0, image_shape=(4, 4))
    lengths = (labels != numbers.BLANK).sum(axis=1)
    assert np.bincount(lengths).tolist() == [0, 200, 200, 200, 200, 200]
    assert (np.diff(labels == numbers.BLANK, axis=1) == (
        np.arange(1, 5) == lengths[:, None])).all()  # no digit behind a blank
    assert np.bincount(labels.ravel()).min() > 200


def test_the_digits_can_be_told_apart():
    inked = numbers._sheets() < 0.15
    assert inked.shape[0] == 10
    assert not inked[:, :, [0, -1]].any()
    assert not inked[:, [0, -1]].any()
    for one, other in itertools.combinations(range(10), 2):
        differing = (inked[one] != inked[other]).sum()
        assert differing > 0.2 * max(inked[one].sum(), inked[other].sum()), (one, other)


class Middle:
    """In place of a random generator: the middle of what it may draw."""

    def uniform(self, low, high, size):
        return np.full(size, (low + high) / 2)


def test_each_digit_of_a_number_is_drawn_in_its_place(monkeypatch):
    """Upright, on white and a fifth of the picture wide, it is as it is by itself."""
    def upright(_, half_widths):
        maps = np.broadcast_to(np.eye(2) * 4, (len(half_widths), 2, 2))
        return maps, np.ones((len(half_widths), 2))
    monkeypatch.setattr(numbers, "_maps", upright)
    monkeypatch.setattr(numbers.scene, "background", lambda _, n, x, y: np.ones((n, 100, 100, 3)))
    monkeypatch.setattr(numbers.scene, "photographed", lambda _, picture, x, y: picture)
    labels = np.full((12, numbers.PLACES), numbers.BLANK)
    labels[:10, 0], labels[10:] = np.arange(10), [[3, 1, 4, 0, 5], [9, 2, 6, 8, 7]]
    pictures = numbers._draw(labels, Middle(), (100, 100))
    alone = pictures[:10, :, 40:60]
    assert pictures[:10].sum() - alone.sum() == 10 * 100 * 80 * 3  # nothing beside it
    assert (alone.min(axis=(1, 2, 3)) < 0.2).all()  # dark ink, as the background is bright
    for number in (0, 8):
        np.testing.assert_allclose(alone[number], alone[number, :, ::-1], atol=0.02)
    for number, picture in zip(labels[10:], pictures[10:]):
        for place, digit in enumerate(number):
            np.testing.assert_allclose(picture[:, 20 * place:20 * place + 20], alone[digit],
                                       atol=1e-5)


def test_distances_are_sampled_smoothly():
    u, v = np.array([0.0, 0.0, 0.3, 5.0]), np.array([0.0, -0.95, 0.0, 0.0])
    found = numbers._distances(np.zeros(4, int), u, v)
    np.testing.assert_allclose(found, [0.5, 0, 0.2, 0.4], atol=0.01)  # outside: as the edge


def test_a_number_is_inside_the_picture():
    half_widths = np.linspace(0.7, 4.5, 200)
    maps, corner = numbers._maps(np.random.RandomState(0), half_widths)
    assert corner.max() <= 1
    ends = np.stack([half_widths, np.zeros(200)], axis=1)
    reached = np.einsum("nij,nj->ni", np.linalg.inv(maps), ends)
    assert (np.abs(reached) <= corner + 1e-9).all()


def test_it_is_a_dataset_of_whole_numbers():
    dataset = datasets.load("numbers", num_examples=200)
    assert dataset.train_images.shape == (200, 3, 64, 64)
    assert dataset.train_labels.shape == (200, 5)
    assert dataset.test_labels.shape == (100, 5)
    assert dataset.class_names == (*"0123456789", "none")
    with pytest.raises(ValueError, match="--dataset numbers: it has no files"):
        datasets.load("numbers", data_dir=".")


@pytest.mark.parametrize(("flags", "words"), [
    ([], ["whole numbers of up to 5 digits", "--network svhn", "not lenet"]),
    (["--network", "svhn", "--distort", "addition", "--image-shape", "1,42,42"],
     ["--distort addition adds"]),
    (["--network", "svhn", "--add-stn", "--stn-at", "stage1"],
     ["input, conv2, conv3, conv4", "got 'stage1'"]),
])
def test_what_does_not_fit_is_refused(run_main, refused, flags, words):
    done = run_main(train_mnist, "--dataset", "numbers", "--num-examples", 200, *flags)
    refused(done, *words)


def test_from_training_to_prediction(run_main, tmp_path):
    places = ["--stn-at", "input,conv2"]
    done = run_main(train_mnist, *TINY, "--add-stn", "--stable", *places, "--validation", 50,
                    "--visualize-every", 1, "--result", "result.json")
    assert done.returncode == 0, done.stderr
    prefix = "models/numbers-svhn-stn-stable-input-conv2"
    figures = json.loads((tmp_path / "result.json").read_text())
    assert figures["test_loss"] > 5  # of five softmaxes together
    assert set(figures["transformers"]) == {"stn0", "stn1"}
    card = (tmp_path / f"{prefix}-export" / "README.md").read_text()
    assert "probabilities (N, 11, 5) of the classes in synset.txt, for each of 5 digits" in card
    assert (tmp_path / f"{prefix}-export" / "synset.txt").read_text().split() == [
        *"0123456789", "none"]

    done = run_main(score, f"{prefix}-export", "--mistakes", "a.png", "--confusion", "b.png",
                    "--result", "scored.json")
    assert "Test images: numbers, resized to 3 x 32 x 32, as in the training" in done.stdout
    scored = json.loads((tmp_path / "scored.json").read_text())
    assert scored["test_accuracy"] == figures["test_accuracy"]
    assert scored["test_loss"] == pytest.approx(figures["test_loss"], rel=1e-5)
    assert np.sum(scored["confusion"]) == 5 * scored["images"] == 500

    images, _ = numbers.draw(3, seed=9, image_shape=(32, 32))
    for index, image in enumerate(images):
        arrays.to_pillow(image).save(tmp_path / f"{index}.png")
    done = run_main(score, f"{prefix}-export", "--predict", "0.png", "1.png", "2.png",
                    "--result", "predicted.json", "--csv", "predicted.csv")
    assert done.returncode == 0, done.stderr
    for found in json.loads((tmp_path / "predicted.json").read_text())["predictions"]:
        digits = [digit for digit in found["class"] if digit != 10]
        assert len(found["class"]) == 5
        assert found["name"] == ("".join(map(str, digits)) or "none")
        assert 11**-5 < found["probability"] < 1

    done = run_main(visualize_stn, prefix, "--output", "seen.png", "--num-images", 2)
    assert "predicted" in done.stdout
    assert Image.open(tmp_path / "seen.png").size[0] > 100
    done = run_main(export, prefix, "--onnx", "model.onnx")
    assert done.returncode == 0, done.stderr
    assert "Largest difference from MXNet" in done.stdout


def test_a_network_for_classes_is_not_scored_on_numbers(run_main, refused):
    one_label = ["--dataset", "signs", "--network", "mlp", "--num-examples", 200, "--num-epochs",
                 1, "--image-shape", "3,32,32", "--cpus", 1, "--width", 4]
    assert run_main(train_mnist, *one_label).returncode == 0
    refused(run_main(score, "models/signs-mlp-export", "--dataset", "numbers", "--num-examples",
                     100), "one label an image, but there are 5 labels an image")


def test_the_runs_of_the_experiment():
    check_more_and_more_transformers(experiment.EXPERIMENT)


def test_the_table_of_the_experiment(tmp_path):
    for run, accuracy in zip(experiment.EXPERIMENT.all_runs(), (0.5, 0.75, 0.875, 0.625)):
        path = tmp_path / f"{run.name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({
            "test_accuracy": accuracy, "parameters": 1000,
            "command": f"python train_mnist.py {run.command_line} --result a.json"}))
    runs = experiment.EXPERIMENT.all_runs()
    lines = experiment.table(str(tmp_path), runs).splitlines()
    assert lines[2] == "| cnn | 2 | 43.75 ± 8.84 | 37.50 | 50.00 | 1,000 |  |"
    assert lines[3] == "| st-cnn-single | 1 | 25.00 | 25.00 | 25.00 | 1,000 |  |"
    (tmp_path / experiment.SPEED).write_text(json.dumps({"seconds": {
        "cnn": 2, "st-cnn-single": 2.5, "st-cnn-multi": 3}}))
    assert experiment.table(str(tmp_path), runs).splitlines()[3].endswith("| 1,000 | 1.25 |")


def test_the_tables_of_the_page_are_those_of_the_results():
    check_page(experiment.EXPERIMENT, experiment.table)


def test_the_time_of_a_step_is_measured(tmp_path, monkeypatch):
    recipe = [*experiment.EXPERIMENT.recipe, "--width", "1", "--image-shape", "3,16,16"]
    monkeypatch.setattr(experiment, "EXPERIMENT", experiment.EXPERIMENT._replace(recipe=recipe))
    monkeypatch.setattr(experiment, "IMAGES", 64)
    monkeypatch.setattr(experiment, "ROUNDS", 1)
    experiment.measure(str(tmp_path))
    seconds = json.loads((tmp_path / experiment.SPEED).read_text())["seconds"]
    assert set(seconds) == set(experiment.EXPERIMENT.rows)
    assert all(value > 0 for value in seconds.values())


@pytest.mark.slow
def test_the_picture_is_drawn(tmp_path):
    experiment.draw(str(tmp_path / "numbers.jpg"))
    assert min(Image.open(tmp_path / "numbers.jpg").size) > 100
