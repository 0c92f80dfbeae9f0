"""Prediction with fused operators: oneDNN's part of MXNet is wrong about some networks."""
import itertools

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import symbols
from common.find_mxnet import UNFUSED_SUMS
from common.graph.rewrite import for_cpu, sums_convolutions
from common.models.predict import Predictor
from tests.test_predict import IMAGES

SHAPE = (2, 8, 6, 6)


def conv(net, num_filter=16, num_group=1, kernel=3, **options):
    return mx.sym.Convolution(net, num_filter=num_filter, num_group=num_group,
                              kernel=(kernel, kernel), pad=(kernel // 2, kernel // 2), **options)


def norm(net):
    return mx.sym.BatchNorm(net, fix_gamma=False)


def relu(net):
    return mx.sym.Activation(net, act_type="relu")


BRANCHES = {
    "itself": lambda net: net,
    "relu": relu,
    "tanh": mx.sym.tanh,
    "square": mx.sym.square,
    "pooling": lambda net: mx.sym.Pooling(net, kernel=(3, 3), pad=(1, 1), pool_type="max"),
    "dropout": mx.sym.Dropout,
    "identity": mx.sym.identity,
    "normalisation": norm,
    "normalisation and relu": lambda net: relu(norm(net)),
    "residual unit": lambda net: conv(relu(norm(net))),
    "bottleneck": lambda net: conv(relu(norm(conv(relu(norm(net)), kernel=1)))),
}
SUMS = {
    "branch second": mx.sym.elemwise_add,
    "branch first": lambda one, other: mx.sym.elemwise_add(other, one),
    "broadcast": mx.sym.broadcast_add,
    "n": mx.sym.add_n,
    "then relu": lambda one, other: relu(one + other),
}


def outputs(symbol, context):
    executor = symbol.simple_bind(context, grad_req="null", data=SHAPE)
    rng = np.random.RandomState(0)
    for _, array in sorted(executor.arg_dict.items()):
        array[:] = mx.nd.array(rng.uniform(-0.3, 0.3, array.shape))
    for _, array in sorted(executor.aux_dict.items()):
        array[:] = mx.nd.array(rng.uniform(0.3, 1, array.shape))  # variances among them
    return [output.asnumpy() for output in executor.forward(is_train=False)]


def check(symbol, contexts):
    """Compares with MXNet's own operators, which it fuses on the first CPU device alone."""
    expected = outputs(symbol, mx.cpu(1))
    fused = for_cpu(symbol, contexts, "float32", for_training=False, data=SHAPE)
    for context in contexts:
        for one, other in zip(expected, outputs(fused, context)):
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("num_group", [1, 4])
def test_a_sum_of_a_convolution_and_what_comes_of_it_is_right(branch, num_group):
    for add in SUMS.values():
        first = conv(mx.sym.Variable("data"), num_group=num_group)
        symbol = add(first, BRANCHES[branch](first))
        check(symbol, [mx.cpu(0), mx.cpu(2)])
        for one, other in zip(outputs(symbol, mx.cpu(1)), outputs(symbol, mx.cpu(0))):
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_preactivation_network_is_predicted_as_it_was_trained(cpus):
    net = conv(mx.sym.Variable("data"), stride=(2, 2), no_bias=True)
    for _ in range(2):
        net = conv(relu(norm(conv(relu(norm(net)))))) + net
    net = mx.sym.FullyConnected(net, num_hidden=10)
    module = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"), context=mx.cpu(1))
    module.bind([("data", (70, 1, 28, 28))], [("softmax_label", (70,))])
    mx.random.seed(0)
    module.init_params(mx.init.Xavier())
    module.forward(mx.io.DataBatch([mx.nd.array(IMAGES[:, None] / 255)]), is_train=False)
    predict = Predictor(mx.sym.softmax(net), *module.get_params(), (1, 28, 28), 70, cpus=cpus)
    np.testing.assert_allclose(predict(IMAGES), module.get_outputs()[0].asnumpy(), atol=1e-5)


@pytest.mark.parametrize(("first", "second"), itertools.product(
    [mx.sym.identity, mx.sym.Dropout], repeat=2))
def test_an_input_survives_two_copies_in_a_row(first, second):
    check(conv(second(first(mx.sym.Variable("data")))), [mx.cpu(0), mx.cpu(1)])


def test_a_dropout_that_always_drops_stays():
    net = mx.sym.Dropout(mx.sym.Variable("data"), mode="always", name="always")
    fused = for_cpu(net * 2, [mx.cpu()], "float32", for_training=False, data=SHAPE)
    assert "always_output" in fused.get_internals().list_outputs()


def test_an_output_that_another_is_computed_from_is_given_as_it_is():
    first = conv(mx.sym.Variable("data"))
    check(mx.sym.Group([relu(first), mx.sym.identity(first), first]), [mx.cpu(1)])


@st.composite
def networks(draw):
    """Some operators that oneDNN fuses or replaces, with sums and products across them."""
    nets = [(mx.sym.Variable("data"), SHAPE[1])]
    for _ in range(draw(st.integers(2, 8))):
        net, channels = draw(st.sampled_from(nets[-4:]))
        others = [other for other, count in nets if count == channels]
        kind = draw(st.sampled_from(["conv", "conv", "each", "each", "two", "two", "concat", "fc"]))
        if kind == "conv":
            channels = draw(st.sampled_from([8, 12, 16, 32]))
            net = conv(net, channels, draw(st.sampled_from([1, 4])), draw(st.sampled_from([1, 3])))
        elif kind == "each":
            net = draw(st.sampled_from(EACH))(net)
        elif kind == "two":
            net = draw(st.sampled_from(TWO))(net, draw(st.sampled_from(others)))
        elif kind == "concat":
            other, count = draw(st.sampled_from(nets[-2:]))
            net, channels = mx.sym.concat(net, other, dim=1), channels + count
        else:
            net = mx.sym.FullyConnected(net, num_hidden=8 * 6 * 6)
            net, channels = mx.sym.reshape(net, shape=(0, 8, 6, 6)), 8
        nets.append((net, channels))
    return nets[-1][0]


EACH = [*BRANCHES.values(), mx.sym.sigmoid, mx.sym.BlockGrad, lambda net: net * 0.5,
        lambda net: mx.sym.clip(net, 0, 1), lambda net: mx.sym.LeakyReLU(net, act_type="elu"),
        lambda net: mx.sym.LeakyReLU(net, act_type="leaky"),
        lambda net: mx.sym.Activation(net, act_type="softrelu")]
EACH = [each for each in EACH if each not in (BRANCHES["residual unit"], BRANCHES["bottleneck"])]
TWO = [mx.sym.elemwise_add, mx.sym.elemwise_mul, mx.sym.elemwise_sub, mx.sym.broadcast_add,
       lambda one, other: mx.sym.add_n(one, other, one)]


@settings(max_examples=150, deadline=None)
@given(networks())
def test_any_network_predicts_the_same_when_it_is_fused(symbol):
    check(symbol, [mx.cpu(0)])


def test_nothing_is_fused_where_the_cure_came_too_late(monkeypatch):
    monkeypatch.delenv(UNFUSED_SUMS)
    symbol = relu(conv(mx.sym.Variable("data")))
    fused = for_cpu(symbol, [mx.cpu()], "float32", for_training=False, data=SHAPE)
    assert fused.list_outputs() == symbol.list_outputs()
    assert "sg_mkldnn" not in fused.tojson()


def test_networks_that_mxnet_alone_may_be_wrong_about_are_told():
    data = mx.sym.Variable("data")
    assert sums_convolutions(relu(norm(conv(data)) + data) * 2)
    assert not sums_convolutions(conv(data + data) * 2)
    assert not sums_convolutions(symbols.get_symbol("lenet", transform="projective"))
