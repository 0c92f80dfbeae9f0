"""The drawn traffic signs, and the experiment on them."""
import itertools
import json

import numpy as np
import pytest
from PIL import Image

from common.data import datasets, scene, signs
from common.reports import results
from experiments import signs as experiment
from tests.experiment_rows import check_drawing, check_more_and_more_transformers, check_page


def test_drawing_is_a_function_of_the_seed():
    check_drawing(signs.draw)


@pytest.mark.parametrize("image_shape", [(48, 48), (32, 32), (40, 60)])
def test_the_pictures(image_shape):
    images, labels = signs.draw(86, seed=0, image_shape=image_shape)
    assert images.shape == (86, 3, *image_shape)
    assert images.dtype == labels.dtype == np.uint8
    assert images.flags.c_contiguous
    assert np.bincount(labels).tolist() == [2] * 43
    assert images.std(axis=(1, 2, 3)).min() > 10


def test_the_faces_can_be_told_apart():
    assert len(set(signs.CLASS_NAMES)) == signs.CLASSES == 43
    faces = signs.faces(48)
    assert faces.shape == (43, 48, 48, 4)
    assert faces.min() >= 0
    assert faces.max() <= 1 + 1e-6
    for one, other in itertools.combinations(range(43), 2):
        unlike = np.abs(faces[one] - faces[other]).max(axis=-1) > 0.4
        assert unlike.mean() > 0.01, (signs.CLASS_NAMES[one], signs.CLASS_NAMES[other])


def test_edges_are_smooth():
    opacity = signs.faces(48)[..., 3]
    between = (opacity > 0.02) & (opacity < 0.98)
    assert (between.sum(axis=(1, 2)) > 48).all()


def test_a_sign_that_is_straight_is_its_face():
    x, y = (at.astype(np.float32) for at in scene.points((48, 48)))
    picture = np.zeros((43, 48, 48, 3), np.float32)
    labels, scale = np.arange(43, dtype=np.int32), np.ones(43)
    signs._put(picture, labels, np.tile(np.eye(2), (43, 1, 1)), np.zeros((43, 2)), scale, x, y)
    np.testing.assert_allclose(picture, signs.faces(48)[..., :3], atol=1e-5)


def test_signs_move_and_turn_as_they_are_told():
    x, y = (at.astype(np.float32) for at in scene.points((48, 48)))
    picture = np.zeros((1, 48, 48, 3), np.float32)
    label = np.array([signs.CLASS_NAMES.index("parking")], np.int32)
    quarter = np.array([[[0, 2], [-2, 0]]])  # half as large, a quarter turn
    signs._put(picture, label, quarter, np.array([[0.5, -0.5]]), np.array([0.5]), x, y)
    assert picture[:, :, :24].max() == picture[:, 24:].max() == 0
    expected = np.rot90(signs.faces(24)[label[0], ..., :3], -1)
    np.testing.assert_allclose(picture[0, :24, 24:], expected, atol=1e-5)


def test_it_is_a_dataset_with_names():
    dataset = datasets.load("signs", num_examples=200)
    assert dataset.train_images.shape == (200, 3, 48, 48)
    assert dataset.test_images.shape == (100, 3, 48, 48)
    assert len(dataset.class_names) == 43
    assert dataset.class_names[16] == "stop"
    with pytest.raises(ValueError, match="--dataset signs: it has no files"):
        datasets.load("signs", data_dir=".")


def test_the_runs_of_the_experiment():
    check_more_and_more_transformers(experiment.EXPERIMENT)


def test_the_choice_is_by_held_out_images(tmp_path):
    run = experiment.EXPERIMENT.choices()["resnet-stn", "0.01"]
    path = tmp_path / f"{run.name}.json"
    path.parent.mkdir()
    path.write_text(json.dumps({
        "test_accuracy": 0.5, "validation_accuracy": 0.75, "parameters": 1,
        "command": f"python train_mnist.py {run.command_line} --result a.json"}))
    table = experiment.EXPERIMENT.table_of_choices(str(tmp_path))
    assert "| resnet-stn |  |  | 75.00 |" in table.splitlines()
    assert "| resnet |  |  |  |" in table.splitlines()


def test_the_tables_of_the_page_are_those_of_the_results():
    check_page(experiment.EXPERIMENT, results.table)


@pytest.mark.slow
def test_the_picture_is_drawn(tmp_path):
    experiment.draw(str(tmp_path / "signs.jpg"))
    picture = np.asarray(Image.open(tmp_path / "signs.jpg"))
    red = (picture[..., 0] > 150) & (picture[..., 1:] < 80).all(axis=-1)
    assert red.mean() > 0.02
