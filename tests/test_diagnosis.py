import logging
import re

import mxnet as mx
import numpy as np
import pytest

import symbols
from common.data import synthetic
from common.data.batches import ImageIter
from common.storage import params_file
from common.training import diagnosis
from common.training.diagnosis import Diagnoser, Diagnosis
from symbols import stn
from tests.test_fit import iterators, parsed, run, same

SHAPE = (1, 28, 28)


def module_of(symbol, test):
    module = mx.mod.Module(symbol)
    module.bind(test.provide_data, test.provide_label)
    module.init_params(mx.init.Xavier())
    return module


def diagnose(symbol, module, test):
    return Diagnoser(symbol, test).diagnose(module)


def evaluated(output, test, arg_params, aux_params=None):
    """An inner output for all test images, by a graph for training."""
    executor = output.simple_bind(mx.cpu(), data=(len(test.images), *SHAPE))
    executor.copy_params_from(arg_params, aux_params, allow_extra_params=True)
    images = mx.nd.array(test.images[:, None] / 255)
    return executor.forward(is_train=False, data=images)[0].asnumpy()


def some(theta, inside=1.0, distance=0.5, after=1.0):
    """A ``Diagnosis`` of as many images as there are thetas."""
    count = len(theta)
    return Diagnosis("stn", np.asarray(theta), np.full(count, inside), np.full(count, distance),
                     np.ones(count), np.full(count, after), None, None)


@pytest.mark.parametrize("transform", ["affine", "rotation", "projective", "tps"])
def test_the_start_is_the_identity_for_every_image(transform):
    test = ImageIter(*synthetic.draw(60, seed=1), 25)
    symbol = symbols.get_symbol("lenet", transform=transform)
    (found,) = diagnose(symbol, module_of(symbol, test), test)
    np.testing.assert_allclose(found.theta, np.tile(stn.get_transform(transform).identity, (60, 1)),
                               rtol=1e-6)
    assert found.figures()["theta_mean"] == pytest.approx(stn.get_transform(transform).identity)
    np.testing.assert_array_equal(found.inside, 1)
    np.testing.assert_allclose(found.distance, 0, atol=1e-4)
    np.testing.assert_allclose(found.pictures, found.sources, atol=1e-4)
    assert found.complaint(0) is None
    assert "not started to learn" in found.complaint(1)
    assert "try --stable, a larger --loc-lr-mult" in found.complaint(1)


def test_two_transformers_and_none():
    images, labels = synthetic.draw(40, seed=1)
    test = ImageIter(np.stack([images, images], axis=1), labels, 16)
    for add_stn, names in ((True, ["stn0", "stn1"]), (False, [])):
        symbol = symbols.get_symbol("addition", add_stn=add_stn, image_shape=(2, 28, 28), width=8)
        found = diagnose(symbol, module_of(symbol, test), test)
        assert [one.name for one in found] == names
        assert all(one.theta.shape == (40, 6) for one in found)


@pytest.mark.parametrize("operator", ["SpatialTransformer", "GridGenerator"])
def test_a_network_from_elsewhere(operator):
    images = mx.sym.Variable("data")
    theta = mx.sym.FullyConnected(mx.sym.BatchNorm(images, name="norm"), num_hidden=6, name="theta")
    if operator == "SpatialTransformer":
        net = mx.sym.SpatialTransformer(images, theta, target_shape=(9, 12), name="warp",
                                        transform_type="affine", sampler_type="bilinear")
    else:
        grid = mx.sym.GridGenerator(theta, transform_type="affine", target_shape=(9, 12))
        net = mx.sym.BilinearSampler(images, grid, name="warp")
    net = mx.sym.FullyConnected(net, num_hidden=10, name="fc")
    symbol = mx.sym.SoftmaxOutput(net, name="softmax")
    test = ImageIter(*synthetic.draw(30, seed=1), 20)
    module = module_of(symbol, test)
    (found,) = diagnose(symbol, module, test)
    assert found.name == "warp"
    assert found.pictures.shape[1:] == (1, 9, 12)
    expected = evaluated(symbol.get_internals()["theta_output"], test, *module.get_params())
    np.testing.assert_allclose(found.theta, expected, atol=1e-5)
    np.testing.assert_allclose(found.sources[:5, 0], test.images[:5] / 255, atol=1e-6)


def test_at_most_some_images_are_looked_at(monkeypatch):
    monkeypatch.setattr(diagnosis, "IMAGES", 30)
    for batch_size in (20, 64):
        test = ImageIter(*synthetic.draw(70, seed=1), batch_size)
        symbol = symbols.get_symbol("lenet")
        (found,) = diagnose(symbol, module_of(symbol, test), test)
        assert len(found.theta) == len(found.inside) == 30


def test_each_epoch_is_diagnosed_with_its_own_weights(tmp_path, monkeypatch):
    kept = []

    class Keeper(Diagnoser):
        def diagnose(self, module):
            kept.extend(super().diagnose(module))
            return kept[-1:]

        def _bind(self, *params):
            assert not kept  # as MXNet keeps scratch memory of each executor
            super()._bind(*params)

    monkeypatch.setattr(diagnosis, "Diagnoser", Keeper)
    args, symbol = parsed(tmp_path, "--lr", "0.01"), symbols.get_symbol("lenet")
    train, test = iterators(args)
    _, figures = run(args, symbol, (train, test))
    theta = symbol.get_internals()["stn_theta_output"]
    for epoch, found in enumerate(kept, start=1):
        params, _ = params_file.read(str(tmp_path / f"a-{epoch:04d}.params"))
        np.testing.assert_allclose(found.theta, evaluated(theta, test, params), atol=1e-6)
    assert np.abs(kept[1].theta - kept[0].theta).max() > 1e-4
    assert figures["transformers"] == {"stn": kept[1].figures()}


@pytest.mark.parametrize("flags", [[], ["--cpus", "2", "--save-period", "2"]], ids=" ".join)
def test_it_leaves_the_training_alone(tmp_path, monkeypatch, flags):
    symbol, figures = symbols.get_symbol("lenet"), []
    for name in "ab":
        args = parsed(tmp_path, *flags, "--model-prefix", str(tmp_path / name))
        figures.append(run(args, symbol)[1])
        monkeypatch.setattr(Diagnoser, "diagnose", lambda *_: [])
    assert same(tmp_path, "a", "b")
    assert ["transformers" in found for found in figures] == [True, False]
    for name in ("test_accuracy", "test_loss", "train_accuracy", "train_loss"):
        assert figures[0][name] == figures[1][name]


VARIED, ALIKE = np.random.RandomState(0).normal(size=(20, 6)), np.full((20, 6), 0.3)


@pytest.mark.parametrize(("found", "words"), [
    (some(VARIED), None),
    (some(ALIKE), ["collapsed", "the same for every image", "lower --lr", "--loc-lr-mult",
                   "--stable"]),
    (some(VARIED, inside=0.04), ["collapsed", "4.0% of its points"]),
    (some(VARIED, after=0.009), ["collapsed", "blank"]),
    (some(ALIKE, inside=0, after=0), ["0.0% of its points", "blank", "the same"]),
    (some(ALIKE, distance=0), ["not started", "higher --lr"]),
    (some(ALIKE, distance=0, after=0), ["collapsed", "blank"]),
])
def test_what_is_complained_of(found, words):
    complaint = found.complaint(1)
    assert (complaint is None) == (words is None)
    for word in words or ():
        assert word in complaint


def test_what_is_logged(caplog):
    caplog.set_level(logging.INFO)
    diagnosis.log_diagnoses(3, [some(VARIED[:, :2]), some(ALIKE), some(np.eye(9))])
    few, alike, warning, many = caplog.messages
    number = r"-?\d\.\d{3}±\d\.\d{3}"
    assert re.fullmatch(rf"Epoch\[3\] stn: theta {number}, {number}; 100\.0% of its points inside",
                        few)
    assert alike.count("0.300±0.000") == 6
    assert warning.startswith("Epoch[3] WARNING: stn has collapsed: theta is the same")
    assert "theta 9 parameters, means 0.111 to 0.111, spreads 0.314 to 0.314;" in many


def test_a_collapse_is_seen(train, tmp_path):
    done = train("--add-stn", "--dataset", "synthetic", "--num-examples", 1000, "--num-epochs", 1,
                 "--transform", "tps", "--lr", 1, "--model-prefix", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert "WARNING: stn has collapsed: 0.0% of its points are inside" in done.stderr
