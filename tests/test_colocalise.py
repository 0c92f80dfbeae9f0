"""The co-localisation: its pictures, boxes and loss, that it learns, and that it goes on."""
import json
import os

import mxnet as mx
import numpy as np
import pytest

from common.data import datasets, synthetic
from common.data.distort import warp
from experiments import colocalise
from experiments.colocalise import BATCH, DIGIT, PHASES, SHAPE, Run
from tests.conftest import ROOT

IMAGES, LABELS = synthetic.draw(2000, seed=0)
FIRST = Run("T", 3, "stable", 0)


@pytest.fixture(scope="module")
def encoder():
    return colocalise.encoder_of(hidden=False)


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


def test_the_loss_is_that_of_the_triplets():
    rng = np.random.RandomState(0)
    e, r = rng.normal(size=(2, 6, 4))
    triplets = [max(0, ((e[n] - e[m]) ** 2).sum() - ((e[n] - r[m]) ** 2).sum() + 1)
                for n in range(6) for m in range(6)]
    loss = colocalise.triplet_loss(mx.sym.Variable("e"), mx.sym.Variable("r"))
    found = loss.bind(mx.cpu(), {"e": mx.nd.array(e), "r": mx.nd.array(r)}).forward()[0]
    assert 0 in triplets
    assert found.asscalar() == pytest.approx(np.mean(triplets), rel=1e-5)


def encodings(encoder, images):
    side = images.shape[1]
    crops = encoder(mx.sym.Variable("crops"), side)
    found, = crops.bind(mx.cpu(), {**encoder.params, "crops": mx.nd.array(images[:, None] / 255)}
                        ).forward()
    return found.asnumpy()


@pytest.mark.parametrize("hidden", [False, True])
def test_an_encoding_has_a_length_and_tells_digits(hidden):
    encoder, mnist = colocalise.encoder_of(hidden), datasets.load("mnist")
    images, labels = mnist.test_images[:300], mnist.test_labels[:300]
    found = encodings(encoder, images)
    lengths = np.linalg.norm(found, axis=1)
    assert found.shape == (300, encoder.size)
    if hidden:  # a digit's h is about as long as c
        assert lengths.mean() == pytest.approx(2**-0.5, abs=0.05)
        assert np.linalg.norm(encodings(encoder, images // 8), axis=1).max() < lengths.mean()
    else:
        np.testing.assert_allclose(lengths, 1, rtol=1e-5)
    distances = ((found[:, None] - found) ** 2).sum(axis=2)
    same = labels[:, None] == labels
    assert distances[same].mean() < 0.7 * distances[~same].mean()


@pytest.mark.parametrize("hidden", [False, True])
def test_a_larger_crop_is_encoded_by_the_mean_of_its_parts(hidden):
    encoder, rng = colocalise.encoder_of(hidden), np.random.RandomState(0)
    large = rng.randint(0, 256, (2, 40, 40)).astype(np.uint8)
    starts = range(0, 40 - DIGIT + 1, colocalise.CELL)
    parts = [large[:, top:top + DIGIT, left:left + DIGIT] for top in starts for left in starts]
    raw = encoder._encode(mx.sym.Variable("crops"), DIGIT)
    mean = sum(raw.bind(mx.cpu(), {**encoder.params, "crops": mx.nd.array(part[:, None] / 255)}
                        ).forward()[0].asnumpy() for part in parts) / len(parts)
    found = encodings(encoder, large)
    cosines = (mean * found).sum(axis=1) / np.linalg.norm(mean, axis=1) / np.linalg.norm(found,
                                                                                        axis=1)
    np.testing.assert_allclose(cosines, 1, rtol=1e-5)


@pytest.mark.parametrize("stable", colocalise.HEADS.values(), ids=colocalise.HEADS)
def test_the_localisation_network_learns_and_the_encoder_does_not(encoder, stable):
    shown, _ = colocalise.pictures_of(FIRST, IMAGES, LABELS)
    before, after = (colocalise._module(encoder, phase, stable, 0, encoder.params)
                     for phase in [PHASES[0]] * 2)
    data = mx.nd.array(shown[:BATCH, None] / 255)
    random = colocalise.RandomCrops(encoder, np.random.RandomState(0), PHASES[0].side)
    for _ in range(3):  # the first step moves the last layer alone, which starts at 0
        after.forward_backward(mx.io.DataBatch([data, random(data, np.full(BATCH, 0.5))]))
        after.update()
    before, after = before.get_params()[0], after.get_params()[0]
    still = {name for name in before if (before[name] == after[name]).asnumpy().all()}
    assert still == set(encoder.params)


def test_the_window_starts_in_the_middle_and_stays_bounded():
    shown, _ = colocalise.pictures_of(FIRST, IMAGES, LABELS)
    phases = [PHASES[0]._replace(steps=2), PHASES[-1]._replace(steps=2)]
    thetas = []
    theta, loss = colocalise.train(shown, 0, phases=phases,
                                   watch=lambda theta: thetas.append(theta.copy()))
    assert theta.shape == (100, 3)
    assert np.isfinite(loss)
    np.testing.assert_array_equal(thetas[0], [[PHASES[0].scale, 0, 0]] * 100)
    for at, phase in ((thetas[1], phases[0]), (theta, phases[1])):
        assert (np.abs(at[:, 0] - phase.scale) <= colocalise.REACH).all()
    again, _ = colocalise.train(shown, 0, phases=phases)
    np.testing.assert_array_equal(again, theta)


@pytest.mark.slow
def test_what_is_common_is_found():
    mnist = datasets.load("mnist")
    run = Run("T", 2, "stable", 100)
    shown, true = colocalise.pictures_of(run, mnist.test_images, mnist.test_labels)
    sooner = [phase._replace(steps=phase.steps // 3) for phase in PHASES]
    theta, loss = colocalise.train(shown, run.seed, phases=sooner)
    overlaps = colocalise.overlap(colocalise.boxes(theta), true)
    assert (overlaps > colocalise.ENOUGH).mean() > 0.9
    assert loss < colocalise.LEARNT


def test_a_start_that_does_not_learn_is_made_again(monkeypatch):
    ends = iter([("first", 0.9), ("second", 0.8), ("third", 0.85)])
    monkeypatch.setattr(colocalise, "_train", lambda *_: next(ends))
    assert colocalise.train(None, 0) == ("second", 0.8)
    ends = iter([("first", 0.9), ("second", 0.7), ("third", 0.6)])
    assert colocalise.train(None, 0) == ("second", 0.7)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="needs 100 images of the digit 3, got"):
        colocalise.pictures_of(FIRST, IMAGES[:300], LABELS[:300])


def test_the_page_has_the_tables_of_the_results():
    with open(os.path.join(ROOT, colocalise.PAGE), encoding="utf-8") as file:
        page = file.read()
    done = colocalise.load(os.path.join(ROOT, colocalise.RESULT))
    assert colocalise.tables(colocalise.all_runs(), done) in page


@pytest.fixture
def small(monkeypatch):
    """Runs of some steps, on drawn digits."""
    drawn = datasets.load("synthetic", num_examples=2000)
    drawn = drawn._replace(test_images=drawn.train_images, test_labels=drawn.train_labels)
    monkeypatch.setattr(colocalise.datasets, "load", lambda _: drawn)
    monkeypatch.setattr(colocalise, "train", lambda *flags, **options: train(
        *flags, **dict(options, phases=[PHASES[0]._replace(steps=2)])))
    monkeypatch.setattr(colocalise, "all_runs", lambda: [FIRST, FIRST._replace(task="TC")])


train = colocalise.train


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
    path = tmp_path / "a.json"
    for content, words in (("[]", "not a result"), ('{"runs": {}, "settings": {}}',
                                                    "of other settings")):
        path.write_text(content)
        refused(run_main(colocalise, "--print", "--result", path), words)


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
