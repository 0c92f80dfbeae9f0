"""The co-localisation's network: its loss, its encodings, and that it learns."""
import os

import mxnet as mx
import numpy as np
import pytest

from common.data import datasets
from common.models import trained
from experiments import colocalise, colocaliser
from experiments.colocalise import Run
from experiments.colocaliser import BATCH, DIGIT, PHASES, SHAPE
from tests.test_colocalise import FIRST, IMAGES, LABELS

PADDED = SHAPE[0] + 2 * colocaliser.BORDER


def test_the_loss_is_that_of_the_triplets():
    rng = np.random.RandomState(0)
    e, r = rng.normal(size=(2, 6, 4))
    triplets = [max(0, ((e[n] - e[m]) ** 2).sum() - ((e[n] - r[m]) ** 2).sum() + 1)
                for n in range(6) for m in range(6)]
    loss = colocaliser.triplet_loss(mx.sym.Variable("e"), mx.sym.Variable("r"))
    found = loss.bind(mx.cpu(), {"e": mx.nd.array(e), "r": mx.nd.array(r)}).forward()[0]
    assert 0 in triplets
    assert found.asscalar() == pytest.approx(np.mean(triplets), rel=1e-5)


def encode(images, theta, phase):
    """The encodings (N, size) of crops of pictures (N, 84, 84)."""
    cut_from = colocaliser.sources(images, phase)
    return colocaliser.CropEncoder(phase, cut_from.shape)(cut_from, theta).asnumpy()


def said_of(images, layer):
    """What a layer of the published network gives of images (N, 28, 28)."""
    network = trained.load(os.path.join(trained.PUBLISHED, colocaliser.ENCODER))
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
    logits = said_of(crops, "fc2") / colocaliser.TEMPERATURE
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = encode(shown, centred(true, PHASES[-1]), PHASES[-1])
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("phase", PHASES[:2], ids=lambda phase: str(phase.side))
def test_a_window_is_encoded_by_the_whitened_mean_of_its_parts(phase):
    rng = np.random.RandomState(0)
    shown = rng.randint(0, 256, (2, *SHAPE)).astype(np.uint8)
    wide = np.pad(shown, [(0, 0)] + [(colocaliser.BORDER,) * 2] * 2, mode="reflect")
    corners = range(0, PADDED - DIGIT + 1, colocaliser.CELL)
    parts = np.concatenate([wide[:, top:top + DIGIT, left:left + DIGIT]
                            for top in corners for left in corners])
    said = said_of(parts, "relu3").reshape(len(corners), len(corners), 2, -1)
    count = (phase.side - DIGIT) // colocaliser.CELL + 1
    starts = range(len(corners) - count + 1)
    means = np.array([[said[top:top + count, left:left + count].mean(axis=(0, 1))
                       for left in starts] for top in starts])
    white = colocaliser.whitened(means.transpose(2, 3, 0, 1))
    for left, top in ((0, 0), (12, 6), (starts[-1], 2)):
        corner = colocaliser.CELL * np.array([left, top]) - colocaliser.BORDER
        middle = corner + (phase.side - 1) / 2
        theta = np.column_stack([rng.uniform(0.2, 0.8, 2),  # the scale says nothing
                                 np.tile(middle / ((SHAPE[0] - 1) / 2) - 1, (2, 1))])
        wanted = white[:, :, top, left]
        wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
        np.testing.assert_allclose(encode(shown, theta, phase), wanted, atol=1e-3)


def test_whitened_maps_vary_more_alike_in_all_directions_but_those_of_noise():
    rng = np.random.RandomState(0)
    maps = rng.normal(size=(30, 3, 8, 8)) * np.array([5, 5, 0.01]).reshape(1, 3, 1, 1) + 7
    maps[:, 1] += maps[:, 0]
    white = np.moveaxis(colocaliser.whitened(maps), 1, -1).reshape(-1, 3)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-9)
    before = np.linalg.eigvalsh(np.cov(np.moveaxis(maps, 1, -1).reshape(-1, 3).T))
    after = np.linalg.eigvalsh(np.cov(white.T))
    np.testing.assert_allclose(after, before / (before + colocaliser.RIDGE * before.mean()),
                               rtol=1e-6)
    assert after[0] < 1e-4
    assert after[2] / after[1] < 0.5 * before[2] / before[1]


def test_what_moves_with_its_picture_is_cut_from_the_still_one():
    shown = np.arange(2 * 84 * 84).reshape(2, *SHAPE) % 251
    moved, shift = colocaliser._moved(shown.astype(np.uint8), np.array([[5, -3], [0, 0]]))
    moved = np.rint(moved.asnumpy()[:, 0] * 255)
    np.testing.assert_array_equal(moved[0, :-3, 5:], shown[0, 3:, :-5])
    assert not moved[0, -3:].any()
    assert not moved[0, :, :5].any()
    np.testing.assert_array_equal(moved[1], shown[1])
    np.testing.assert_allclose(shift.asnumpy(), [[0, 5 / 41.5, -3 / 41.5], [0, 0, 0]], rtol=1e-6)


def test_theta_is_that_of_the_still_picture():
    shown, _ = colocalise.pictures_of(FIRST, IMAGES, LABELS)
    phase = PHASES[0]
    cut_from = colocaliser.sources(shown[:BATCH], phase)
    module = colocaliser._module(phase, cut_from.shape[1:], True, 0, {})
    shift = np.random.RandomState(0).uniform(-0.5, 0.5, (BATCH, 3))
    batch = [mx.nd.array(shown[:BATCH, None]), mx.nd.array(shift), cut_from,
             mx.nd.zeros((BATCH, colocaliser.encoder().units))]
    module.forward(mx.io.DataBatch(batch), is_train=False)
    np.testing.assert_allclose(module.get_outputs()[1].asnumpy(), [phase.scale, 0, 0] - shift,
                               atol=1e-6)


def test_the_shifts_of_all_crops_are_searched():
    mnist, phase, count = datasets.load("mnist"), PHASES[2], 3
    shown, true = colocalise.pictures_of(Run("TC", 4, "stable", 100), mnist.train_images,
                                         mnist.train_labels)
    pixel = 2 / (SHAPE[0] - 1)
    off = np.array([0.1, 8 * pixel, -6 * pixel])
    offsets = colocaliser.best_offsets(shown, centred(true, phase) + off, count,
                                      np.random.RandomState(0))
    assert offsets.shape == (count, 3)
    assert not offsets[:, 0].any()
    np.testing.assert_allclose(offsets[0, 1:], -off[1:], atol=2.1 * pixel)
    apart = np.abs(offsets[:, None] - offsets).max(axis=2)[np.triu_indices(count, 1)]
    assert apart.min() > (colocaliser.APART - 0.1) * pixel


@pytest.mark.parametrize("phase", PHASES[1:3], ids=["maps", "pixels"])
@pytest.mark.parametrize("stable", colocalise.HEADS.values(), ids=colocalise.HEADS)
def test_the_localisation_network_learns_and_the_encoder_does_not(stable, phase):
    shown, _ = colocalise.pictures_of(FIRST, IMAGES, LABELS)
    phase, encoder = phase._replace(steps=100), colocaliser.encoder().params
    cut_from, rng = colocaliser.sources(shown[:BATCH], phase), np.random.RandomState(0)
    before, after = (colocaliser._module(phase, cut_from.shape[1:], stable, 0, {})
                     for _ in range(2))
    encode = colocaliser.CropEncoder(phase, cut_from.shape)
    for _ in range(3):  # the first step moves the last layer alone, which starts at 0
        moved = colocaliser._moved(shown[:BATCH], rng.randint(-4, 5, (BATCH, 2)))
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
    monkeypatch.setattr(colocaliser, "OFFSET", 8)


def test_the_window_starts_in_the_middle_and_its_scale_is_learnt_last(near):
    shown, _ = colocalise.pictures_of(FIRST, IMAGES, LABELS)
    thetas = []
    theta, loss = colocaliser.train(shown, 0, phases=SHORT,
                                    watch=lambda theta: thetas.append(theta.copy()))
    assert theta.shape == (100, 3)
    assert np.isfinite(loss)
    assert len(thetas) == sum(phase.tries * phase.steps for phase in SHORT)
    np.testing.assert_array_equal(thetas[0], [[PHASES[0].scale, 0, 0]] * 100)
    held = [phase.scale for phase in SHORT[:-1] for _ in range(phase.tries * phase.steps)]
    for at, scale in zip(thetas, held):
        np.testing.assert_allclose(at[:, 0], scale, rtol=1e-6)
    assert (np.abs(theta[:, 0] - PHASES[-1].scale) <= colocaliser.REACH).all()
    assert len(set(theta[:, 0])) > 50
    again, _ = colocaliser.train(shown, 0, phases=SHORT)
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
    monkeypatch.setattr(colocaliser, "_train", add_the_number_of_the_try)
    monkeypatch.setattr(colocaliser, "best_offsets",
                        lambda images, theta, count, rng: offsets[:count])
    _, loss = colocaliser.train(shown, 0, phases=SHORT)
    assert loss == losses[-1]
    # The second try goes on, with 2; then the only one, with 5.1; of three the fifth, with 10.3.
    np.testing.assert_allclose(begun, [0, 0, 2.1, 5.2, 5.3, 5.4, 10.3], atol=1e-5)


@pytest.mark.slow
def test_what_is_common_is_found():
    mnist = datasets.load("mnist")
    run = Run("T", 2, "stable", 100)
    shown, true = colocalise.pictures_of(run, mnist.test_images, mnist.test_labels)
    sooner = [phase._replace(steps=phase.steps // 2, tries=1) for phase in PHASES]
    theta, loss = colocaliser.train(shown, run.seed, phases=sooner)
    overlaps = colocalise.overlap(colocalise.boxes(theta), true)
    assert (overlaps > colocalise.ENOUGH).mean() > 0.9
    assert loss < 0.75
