"""The co-localisation: its pictures and boxes, what it measures, and that it goes on."""
import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from common.data import datasets, synthetic
from common.data.distort import warp
from experiments import colocalise, colocaliser
from experiments.colocalise import Run
from experiments.colocaliser import DIGIT, PHASES, SHAPE
from tests.conftest import ROOT

IMAGES, LABELS = synthetic.draw(2000, seed=0)
FIRST = Run("T", 3, "stable", 0)


@pytest.mark.parametrize("task", colocalise.TASKS)
def test_the_boxes_are_where_the_digits_are(task):
    shown, true = colocalise.pictures_of(Run(task, 3, "stable", 5), IMAGES, LABELS)
    assert shown.shape == (100, *SHAPE)
    digits = {digit.tobytes() for digit in IMAGES[LABELS == 3]}
    corners = (true + 0.5).astype(int)
    for picture, (left, top, right, bottom) in zip(shown, corners):
        assert (right - left, bottom - top) == (DIGIT, DIGIT)
        inside = picture[top:bottom, left:right]
        assert inside.shape == (DIGIT, DIGIT)
        if task == "T":
            assert inside.tobytes() in digits
            assert picture.sum() == inside.sum()
    assert corners.min() < 4
    assert corners.max() > SHAPE[0] - 4
    again, _ = colocalise.pictures_of(Run(task, 3, "plain", 5), IMAGES, LABELS)
    np.testing.assert_array_equal(again, shown)


def test_clutter_is_of_all_classes_and_covers_what_is_darker():
    plain, cluttered = (colocalise.pictures_of(Run(task, 3, "stable", 5), IMAGES, LABELS)[0]
                        for task in colocalise.TASKS)
    assert (cluttered >= plain).all()
    changed = (cluttered != plain).sum(axis=(1, 2))
    assert 6 * 36 < changed.max() <= 16 * 36


def test_a_box_is_what_its_crop_shows():
    shown, true = colocalise.pictures_of(FIRST, IMAGES, LABELS)
    size, half = SHAPE[0] - 1, (SHAPE[0] - 1) / 2
    theta = np.concatenate([np.full((100, 1), (DIGIT - 1) / size),
                            (true[:, :2] + DIGIT / 2) / half - 1], axis=1)
    np.testing.assert_allclose(colocalise.boxes(theta), true, atol=1e-9)
    crops = warp(shown, theta, (DIGIT, DIGIT), "attention")
    for crop, picture, (left, top) in zip(crops, shown, (true[:, :2] + 0.5).astype(int)):
        np.testing.assert_allclose(crop, picture[top:top + DIGIT, left:left + DIGIT], atol=1)


def test_overlap_is_counted_in_pixels():
    rng = np.random.RandomState(0)
    corners = rng.randint(0, 15, (200, 2, 2))
    found, true = (np.concatenate([corner, corner + rng.randint(5, 20, (200, 2))], axis=1)
                   for corner in corners.transpose(1, 0, 2))
    counted = []
    for pair in zip(found, true):
        masks = np.zeros((2, 40, 40), bool)
        for mask, (left, top, right, bottom) in zip(masks, pair):
            mask[top:bottom, left:right] = True
        counted.append(masks.all(axis=0).sum() / masks.any(axis=0).sum())
    np.testing.assert_allclose(colocalise.overlap(found, true), counted)
    assert 0 in counted
    assert max(counted) > 0.5


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="needs 100 images of the digit 3, got"):
        colocalise.pictures_of(FIRST, IMAGES[:300], LABELS[:300])


def test_the_page_has_the_tables_of_the_results():
    page, readme = (Path(ROOT, path).read_text(encoding="utf-8")
                    for path in (colocalise.PAGE, "README.md"))
    done = colocalise.load(os.path.join(ROOT, colocalise.RESULT))
    assert colocalise.tables(colocalise.all_runs(), done) in page
    cluttered = [done[run.name]["found"] for run in colocalise.all_runs()
                 if (run.task, run.head) == ("TC", "stable")]
    assert f"finds {100 * np.mean(cluttered):.1f}% of the digits" in " ".join(readme.split())


@pytest.fixture
def small(monkeypatch):
    """Runs of some steps, on drawn digits, with shifts searched in 25 places, not in 169."""
    drawn = datasets.load("synthetic", num_examples=2000)
    drawn = drawn._replace(test_images=drawn.train_images, test_labels=drawn.train_labels)
    monkeypatch.setattr(colocalise.datasets, "load", lambda _: drawn)
    monkeypatch.setattr(colocaliser, "OFFSET", 8)
    monkeypatch.setattr(colocaliser, "train", functools.partial(
        colocaliser.train, phases=[PHASES[1]._replace(steps=2)]))
    monkeypatch.setattr(colocalise, "all_runs", lambda: [FIRST, FIRST._replace(task="TC")])


def test_a_stopped_one_goes_on(small, run_main, tmp_path, monkeypatch):
    measure, asked = colocalise.measure, []

    def stopped(run, *rest):
        asked.append(run)
        if run.task == "TC" and asked.count(run) == 1:
            raise KeyboardInterrupt
        return measure(run, *rest)

    monkeypatch.setattr(colocalise, "measure", stopped)
    path = tmp_path / "a.json"
    assert run_main(colocalise, "--result", path).returncode == 130
    assert list(json.loads(path.read_text())["runs"]) == ["T/3/stable/0"]
    done = run_main(colocalise, "--result", path)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines() if " of " in line] == [
        "2 of 2  TC/3/stable/0"]
    assert asked.count(FIRST) == 1
    found = json.loads(path.read_text())
    assert list(found["runs"]) == ["T/3/stable/0", "TC/3/stable/0"]
    assert {"command", "versions", "settings"} <= set(found)
    assert not list(tmp_path.glob("*.lock"))


def test_bad_flags_and_files_are_refused(run_main, refused, tmp_path):
    refused(run_main(colocalise, "--print", "--result", tmp_path), "Is a directory")
    refused(run_main(colocalise, "--seed", "1"), "unrecognized arguments: --seed")
    refused(run_main(colocalise, "--print", "--draw"), "give it alone")
    refused(run_main(colocalise, "--print", "--result", "none.json"), "none.json: no figures yet")
    path = tmp_path / "a.json"
    for content, words in (("[]", "not a result"), ('{"runs": {}, "settings": {}}',
                                                    "of other settings")):
        path.write_text(content)
        refused(run_main(colocalise, "--print", "--result", path), words)


def test_figures_of_others_are_not_put_into_the_page(run_main, refused, tmp_path):
    path, page = tmp_path / "a.json", os.path.join(ROOT, colocalise.PAGE)
    with open(page, "rb") as file:
        before = file.read()
    for runs, words in (({"T/9/other/0": {"found": 1}}, "no figures yet"),
                        ({"T/0/stable/0": {}}, "not a result"), ({"T/0/stable/0": 3}, "not a")):
        path.write_text(json.dumps({"runs": runs, "settings": colocalise.SETTINGS}))
        refused(run_main(colocalise, "--print", "--result", path), words)
    with open(page, "rb") as file:
        assert file.read() == before


def test_nothing_is_left_out_and_other_seeds_choose():
    runs, choices = colocalise.all_runs(), colocalise.choices()
    assert len({run.name for run in runs}) == len(runs) == 3 * 20 + 20
    assert not {run.seed for run in runs} & {run.seed for run in choices}


def test_a_table_has_means_over_the_seeds():
    runs = colocalise.all_runs()
    done = {run.name: {"found": 0.9 + run.seed / 100} for run in runs
            if run.task == "T" and run.head == "stable" and run.digit == 3}
    lines = colocalise.tables(runs, done).splitlines()
    assert lines[2] == "| T |  |  |  | 91 |  |  |  |  |  |  | 91.00 ± 1.00 | 100 |"
    assert len(lines) == 4
