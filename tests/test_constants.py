import json

import mxnet as mx
import numpy as np
import pytest

import symbols
from common.graph import constants, rewrite
from symbols import stn

DEVICE, SHAPE = mx.cpu(1), (1, 28, 28)


def operators(symbol):
    return [node["op"] for node in json.loads(symbol.tojson())["nodes"] if node["op"] != "null"]


def params_of(symbol):
    shapes, _, _ = symbol.infer_shape(data=(1, *SHAPE))
    rng = np.random.RandomState(0)
    return {name: mx.nd.array(rng.normal(0, 0.3, shape))
            for name, shape in zip(symbol.list_arguments(), shapes) if name != "data"}


def outputs(symbol, params, count=5):
    data = np.random.RandomState(1).uniform(size=(count, *SHAPE))
    args = {name: params[name].as_in_context(DEVICE)
            for name in symbol.list_arguments() if name in params}
    executor = symbol.bind(DEVICE, {**args, "data": mx.nd.array(data, DEVICE)}, grad_req="null")
    return [output.asnumpy() for output in executor.forward(is_train=False)]


def check(symbol, params):
    """A symbol answers the same to the bit when it is folded; that, and its params."""
    folded, kept = constants.fold(symbol, params, DEVICE, [(1, *SHAPE), (5, *SHAPE)])
    assert folded.list_outputs() == symbol.list_outputs()
    for count in (1, 5):
        for one, other in zip(outputs(folded, kept, count), outputs(symbol, params, count)):
            np.testing.assert_array_equal(one, other)
            assert np.isfinite(one).all()
    return folded, kept


@pytest.mark.parametrize("transform", stn.TRANSFORMS)
@pytest.mark.parametrize("fused", [True, False])
def test_networks_answer_the_same_to_the_bit(transform, fused):
    symbol = rewrite.label_free(symbols.get_symbol("lenet", transform=transform))
    params = params_of(symbol)
    if fused:
        symbol = rewrite.for_cpu(symbol, [DEVICE], "float32", for_training=False,
                                 data=(1, *SHAPE))
    folded, _ = check(symbol, params)
    if fused:  # the zeros that fill up filters are put there once
        assert "Concat" in operators(symbol)
        assert "_zeros" not in operators(folded)
    if transform == "tps":
        assert "_linalg_inverse" in operators(symbol)
        assert {"_linalg_inverse", "log"}.isdisjoint(operators(folded))


def test_what_depends_on_the_number_of_images_stays():
    data, weight = mx.sym.Variable("data"), mx.sym.Variable("weight", shape=(28, 28))
    net = mx.sym.broadcast_add(mx.sym.ones_like(data), mx.sym.square(weight))
    folded, _ = check(net, {"weight": mx.nd.ones((28, 28))})
    assert operators(folded) == ["ones_like", "broadcast_add"]


def test_what_is_drawn_stays():
    weight = mx.sym.Variable("weight", shape=(28, 28))
    net = mx.sym.broadcast_mul(mx.sym.Variable("data"),
                               mx.sym.Dropout(weight * 2, mode="always"))
    params = {"weight": mx.nd.ones((28, 28))}
    folded, kept = constants.fold(net, params, DEVICE, [(1, *SHAPE)])
    assert operators(folded) == ["Dropout", "broadcast_mul"]
    one, other = outputs(folded, kept), outputs(folded, kept)
    assert (one[0] != other[0]).any()


def test_parts_of_a_weight_are_right():
    data, weights = mx.sym.Variable("data"), mx.sym.Variable("w", shape=(6, 4))
    parts = mx.sym.split(weights, num_outputs=2, axis=0)
    net = mx.sym.Group([mx.sym.FullyConnected(data, part, num_hidden=3, no_bias=True)
                        for part in parts])
    params = {"w": mx.nd.array(np.arange(24).reshape(6, 4))}
    folded, left = constants.fold(net, params, mx.cpu(), [(2, 4)])
    for one, other in zip(net.eval(data=mx.nd.ones((2, 4)), **params),
                          folded.eval(data=mx.nd.ones((2, 4)), **left)):
        np.testing.assert_array_equal(one.asnumpy(), other.asnumpy())


def test_operators_with_several_outputs_and_outputs_without_data_are_right():
    weight = mx.sym.Variable("weight", shape=(4, 28))
    first, second = mx.sym.split(weight + 1, num_outputs=2, axis=0)
    net = mx.sym.broadcast_mul(mx.sym.Variable("data"), mx.sym.dot(first, second, True))
    check(mx.sym.Group([net, weight * 3, mx.sym.zeros_like(weight, name="zeros")]),
          {"weight": mx.nd.ones((4, 28)), "of another network": mx.nd.ones(1)})
