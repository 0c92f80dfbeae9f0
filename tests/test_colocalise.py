"""The co-localisation: its pictures, boxes and loss, that it learns, and that it goes on."""
import json
import os
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from common.data import datasets, synthetic
from common.data.distort import warp
from common.models import trained
from experiments import colocalise
from experiments.colocalise import BATCH, DIGIT, PHASES, SHAPE, Run
from tests.conftest import ROOT

IMAGES, LABELS = synthetic.draw(2000, seed=0)
FIRST = Run("T", 3, "stable", 0)
PADDED = SHAPE[0] + 2 * colocalise.BORDER


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


def encode(images, theta, phase):
    """The encodings (N, size) of crops of pictures (N, 84, 84)."""
    cut_from = colocalise.sources(images, phase)
    return colocalise.CropEncoder(phase, cut_from.shape)(cut_from, theta).asnumpy()


def said_of(images, layer):
    """What a layer of the published network gives of images (N, 28, 28)."""
    network = trained.load(os.path.join(trained.PUBLISHED, colocalise.ENCODER))
    symbol = network.symbol.get_internals()[f"{layer}_output"]
    params = {name: value for name, value in network.arg_params.items()
              if name in symbol.list_arguments()}
    found, = symbol.bind(mx.cpu(), {**params, "data": mx.nd.array(images[:, None] / 255)}).forward()
    return found.asnumpy()


@pytest.mark.parametrize(("phase", "most", "mean"),
                         [(PHASES[1], 0.85, 0.6), (PHASES[2], 0.5, 0.1)], ids=["maps", "pixels"])
def test_an_encoding_tells_digits(phase, most, mean):
    mnist = datasets.load("mnist")
    pairs = [colocalise.pictures_of(Run("T", digit, "stable", 0), mnist.test_images,
                                    mnist.test_labels) for digit in (2, 7)]
    shown, true = (np.concatenate([pair[which][:30] for pair in pairs]) for which in (0, 1))
    found = encode(shown, centred(true, phase), phase)
    distances = ((found[:, None] - found) ** 2).sum(axis=2)
    to_2, to_7 = distances[:, :30].mean(axis=1), distances[:, 30:].mean(axis=1)
    own_to_other = np.concatenate([to_2[:30] / to_7[:30], to_7[30:] / to_2[30:]])
    assert np.percentile(own_to_other, 95) < most
    assert own_to_other.mean() < mean


def centred(true, phase):
    """The thetas of the crops of a phase whose middles are those of boxes."""
    middle = (true[:, :2] + true[:, 2:]) / (SHAPE[0] - 1) - 1
    return np.column_stack([np.full(len(true), phase.scale), middle])


def test_pixels_are_encoded_by_their_softened_class():
    shown, true = colocalise.pictures_of(FIRST, IMAGES, LABELS)
    corners = (true[:, :2] + 0.5).astype(int)
    crops = np.stack([picture[top:top + DIGIT, left:left + DIGIT]
                      for picture, (left, top) in zip(shown, corners)])
    logits = said_of(crops, "fc2") / colocalise.TEMPERATURE
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = encode(shown, centred(true, PHASES[-1]), PHASES[-1])
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("phase", PHASES[:2], ids=lambda phase: str(phase.side))
def test_a_window_is_encoded_by_the_whitened_mean_of_its_parts(phase):
    rng = np.random.RandomState(0)
    shown = rng.randint(0, 256, (2, *SHAPE)).astype(np.uint8)
    wide = np.pad(shown, [(0, 0)] + [(colocalise.BORDER,) * 2] * 2, mode="reflect")
    corners = range(0, PADDED - DIGIT + 1, colocalise.CELL)
    parts = np.concatenate([wide[:, top:top + DIGIT, left:left + DIGIT]
                            for top in corners for left in corners])
    said = said_of(parts, "relu3").reshape(len(corners), len(corners), 2, -1)
    count = (phase.side - DIGIT) // colocalise.CELL + 1
    starts = range(len(corners) - count + 1)
    means = np.array([[said[top:top + count, left:left + count].mean(axis=(0, 1))
                       for left in starts] for top in starts])
    white = colocalise.whitened(means.transpose(2, 3, 0, 1))
    for left, top in ((0, 0), (12, 6), (starts[-1], 2)):
        middle = colocalise.CELL * np.array([left, top]) - colocalise.BORDER + (phase.side - 1) / 2
        theta = np.column_stack([rng.uniform(0.2, 0.8, 2),  # the scale says nothing
                                 np.tile(middle / ((SHAPE[0] - 1) / 2) - 1, (2, 1))])
        wanted = white[:, :, top, left]
        wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
        np.testing.assert_allclose(encode(shown, theta, phase), wanted, atol=1e-3)


def test_whitened_maps_vary_more_alike_in_all_directions_but_those_of_noise():
    rng = np.random.RandomState(0)
    maps = rng.normal(size=(30, 3, 8, 8)) * np.array([5, 5, 0.01]).reshape(1, 3, 1, 1) + 7
    maps[:, 1] += maps[:, 0]
    white = np.moveaxis(colocalise.whitened(maps), 1, -1).reshape(-1, 3)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-9)
    before = np.linalg.eigvalsh(np.cov(np.moveaxis(maps, 1, -1).reshape(-1, 3).T))
    after = np.linalg.eigvalsh(np.cov(white.T))
    np.testing.assert_allclose(after, before / (before + colocalise.RIDGE * before.mean()),
                               rtol=1e-6)
    assert after[0] < 1e-4
    assert after[2] / after[1] < 0.5 * before[2] / before[1]


def test_what_moves_with_its_picture_is_cut_from_the_still_one():
    shown = np.arange(2 * 84 * 84).reshape(2, *SHAPE) % 251
    moved, shift = colocalise._moved(shown.astype(np.uint8), np.array([[5, -3], [0, 0]]))
    moved = np.rint(moved.asnumpy()[:, 0] * 255)
    np.testing.assert_array_equal(moved[0, :-3, 5:], shown[0, 3:, :-5])
    assert not moved[0, -3:].any()
    assert not moved[0, :, :5].any()
    np.testing.assert_array_equal(moved[1], shown[1])
    np.testing.assert_allclose(shift.asnumpy(), [[0, 5 / 41.5, -3 / 41.5], [0, 0, 0]], rtol=1e-6)


def test_theta_is_that_of_the_still_picture():
    shown, _ = colocalise.pictures_of(FIRST, IMAGES, LABELS)
    phase = PHASES[0]
    cut_from = colocalise.sources(shown[:BATCH], phase)
    module = colocalise._module(phase, cut_from.shape[1:], True, 0, {})
    shift = np.random.RandomState(0).uniform(-0.5, 0.5, (BATCH, 3))
    batch = [mx.nd.array(shown[:BATCH, None]), mx.nd.array(shift), cut_from,
             mx.nd.zeros((BATCH, colocalise.encoder().units))]
    module.forward(mx.io.DataBatch(batch), is_train=False)
    np.testing.assert_allclose(module.get_outputs()[1].asnumpy(), [phase.scale, 0, 0] - shift,
                               atol=1e-6)


def test_the_shifts_of_all_crops_are_searched():
    mnist, phase, count = datasets.load("mnist"), PHASES[2], 3
    shown, true = colocalise.pictures_of(Run("TC", 4, "stable", 100), mnist.train_images,
                                         mnist.train_labels)
    pixel = 2 / (SHAPE[0] - 1)
    off = np.array([0.1, 8 * pixel, -6 * pixel])
    offsets = colocalise.best_offsets(shown, centred(true, phase) + off, count,
                                      np.random.RandomState(0))
    assert offsets.shape == (count, 3)
    assert not offsets[:, 0].any()
    np.testing.assert_allclose(offsets[0, 1:], -off[1:], atol=2.1 * pixel)
    apart = np.abs(offsets[:, None] - offsets).max(axis=2)[np.triu_indices(count, 1)]
    assert apart.min() > (colocalise.APART - 0.1) * pixel


@pytest.mark.parametrize("phase", PHASES[1:3], ids=["maps", "pixels"])
@pytest.mark.parametrize("stable", colocalise.HEADS.values(), ids=colocalise.HEADS)
def test_the_localisation_network_learns_and_the_encoder_does_not(stable, phase):
    shown, _ = colocalise.pictures_of(FIRST, IMAGES, LABELS)
    phase, encoder = phase._replace(steps=100), colocalise.encoder().params
    cut_from, rng = colocalise.sources(shown[:BATCH], phase), np.random.RandomState(0)
    before, after = (colocalise._module(phase, cut_from.shape[1:], stable, 0, {})
                     for _ in range(2))
    encode = colocalise.CropEncoder(phase, cut_from.shape)
    for _ in range(3):  # the first step moves the last layer alone, which starts at 0
        moved = colocalise._moved(shown[:BATCH], rng.randint(-4, 5, (BATCH, 2)))
        random = encode.random(cut_from, np.full(BATCH, phase.scale), rng)
        after.forward_backward(mx.io.DataBatch([*moved, cut_from, random]))
        after.update()
    before, after = before.get_params()[0], after.get_params()[0]
    still = {name for name in before if (before[name] == after[name]).asnumpy().all()}
    assert still == set(before) & set(encoder)


SHORT = [phase._replace(steps=2) for phase in PHASES]


@pytest.fixture
def near(monkeypatch):
    """The shift of all crops is searched in 25 places, not in 169."""
    monkeypatch.setattr(colocalise, "OFFSET", 8)


def test_the_window_starts_in_the_middle_and_its_scale_is_learnt_last(near):
    shown, _ = colocalise.pictures_of(FIRST, IMAGES, LABELS)
    thetas = []
    theta, loss = colocalise.train(shown, 0, phases=SHORT,
                                   watch=lambda theta: thetas.append(theta.copy()))
    assert theta.shape == (100, 3)
    assert np.isfinite(loss)
    assert len(thetas) == sum(phase.tries * phase.steps for phase in SHORT)
    np.testing.assert_array_equal(thetas[0], [[PHASES[0].scale, 0, 0]] * 100)
    held = [phase.scale for phase in SHORT[:-1] for _ in range(phase.tries * phase.steps)]
    for at, scale in zip(thetas, held):
        np.testing.assert_allclose(at[:, 0], scale, rtol=1e-6)
    assert (np.abs(theta[:, 0] - PHASES[-1].scale) <= colocalise.REACH).all()
    assert len(set(theta[:, 0])) > 50
    again, _ = colocalise.train(shown, 0, phases=SHORT)
    np.testing.assert_array_equal(again, theta)


def test_the_try_with_the_lowest_loss_goes_on(monkeypatch):
    shown, _ = colocalise.pictures_of(FIRST, IMAGES, LABELS)
    bias, begun, losses = "stn_loc_fc2_bias", [], [0.5, 0.4, 0.3, 0.4, 0.2, 0.3, 0.6]

    def add_the_number_of_the_try(module, *_):
        params = module.get_params()[0]
        begun.append(params[bias].asnumpy()[1])
        module.set_params({**params, bias: params[bias] + len(begun)}, {})
        return [losses[len(begun) - 1]]

    offsets = np.array([[0, 0.1, 0], [0, 0.2, 0], [0, 0.3, 0]])
    monkeypatch.setattr(colocalise, "_train", add_the_number_of_the_try)
    monkeypatch.setattr(colocalise, "best_offsets",
                        lambda images, theta, count, rng: offsets[:count])
    _, loss = colocalise.train(shown, 0, phases=SHORT)
    assert loss == losses[-1]
    # The second try goes on, with 2; then the only one, with 5.1; of three the fifth, with 10.3.
    np.testing.assert_allclose(begun, [0, 0, 2.1, 5.2, 5.3, 5.4, 10.3], atol=1e-5)


@pytest.mark.slow
def test_what_is_common_is_found():
    mnist = datasets.load("mnist")
    run = Run("T", 2, "stable", 100)
    shown, true = colocalise.pictures_of(run, mnist.test_images, mnist.test_labels)
    sooner = [phase._replace(steps=phase.steps // 2, tries=1) for phase in PHASES]
    theta, loss = colocalise.train(shown, run.seed, phases=sooner)
    overlaps = colocalise.overlap(colocalise.boxes(theta), true)
    assert (overlaps > colocalise.ENOUGH).mean() > 0.9
    assert loss < 0.75


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
    assert f"finds {100 * np.mean(cluttered):.1f}% of the digits" in readme


@pytest.fixture
def small(near, monkeypatch):
    """Runs of some steps, on drawn digits."""
    drawn = datasets.load("synthetic", num_examples=2000)
    drawn = drawn._replace(test_images=drawn.train_images, test_labels=drawn.train_labels)
    monkeypatch.setattr(colocalise.datasets, "load", lambda _: drawn)
    monkeypatch.setattr(colocalise, "train", lambda *flags, **options: train(
        *flags, **dict(options, phases=SHORT[1:2])))
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
