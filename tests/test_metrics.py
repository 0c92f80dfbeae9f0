import math

import mxnet as mx
import numpy as np
import pytest

from common.data import synthetic
from common.data.batches import ImageIter
from common.models import metrics


def test_tally_is_the_plain_count():
    rng = np.random.RandomState(0)
    probabilities = rng.dirichlet(np.ones(10), 100).astype(np.float32)
    labels = rng.randint(0, 10, 100).astype(np.float32)
    tally = metrics.Tally()
    for part in (slice(0, 64), slice(64, 100)):
        tally.add(probabilities[part], labels[part])
    chosen = probabilities[np.arange(100), labels.astype(int)]
    assert tally.count == 100
    assert tally.accuracy == (probabilities.argmax(1) == labels).mean()
    assert tally.loss == pytest.approx(-np.log(chosen).mean(), rel=1e-6)


def test_a_probability_of_zero_is_finite_and_nan_is_not():
    tally = metrics.Tally()
    tally.add(np.float32([[1, 0]]), np.float32([1]))
    assert 80 < tally.loss < 100
    tally.add(np.float32([[math.nan, 0]]), np.float32([0]))
    assert math.isnan(tally.loss)


@pytest.fixture
def module():
    """A linear classifier, bound for training."""
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=10, name="fc")
    module = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"))
    module.bind([("data", (64, 1, 28, 28))], [("softmax_label", (64,))])
    mx.random.seed(0)
    module.init_params(mx.init.Xavier())
    return module


def test_padding_is_not_counted(module):
    images, labels = synthetic.draw(100, seed=0)
    tally = metrics.score(module, ImageIter(images, labels, 64))
    weight, bias = (module.get_params()[0][name].asnumpy() for name in ("fc_weight", "fc_bias"))
    answers = (images.reshape(100, -1) / 255 @ weight.T + bias).argmax(axis=1)
    assert tally.count == 100
    assert tally.correct == (answers == labels).sum()


def test_ten_thousand_at_batch_64_are_ten_thousand(module):
    images, labels = synthetic.draw(10000, seed=0)
    assert metrics.score(module, ImageIter(images, labels, 64)).count == 10000


def test_new_parameters_are_not_ignored(module):
    """A Module bound for prediction only would go on with those of its first forward."""
    batches = ImageIter(*synthetic.draw(128, seed=0), batch_size=64)
    first = metrics.score(module, batches).loss
    arg_params, aux_params = module.get_params()
    module.set_params({name: value * 3 for name, value in arg_params.items()}, aux_params)
    assert metrics.score(module, batches).loss != first
