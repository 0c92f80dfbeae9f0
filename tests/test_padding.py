import json

import mxnet as mx
import numpy as np
import pytest

import symbols
from common import processor
from common.graph import padding
from common.graph.padding import pad_convolutions
from common.graph.rewrite import for_cpu
from symbols import stn

pytestmark = pytest.mark.usefixtures("block")
DATA, SHAPE = mx.sym.Variable("data"), (4, 3, 28, 30)


@pytest.fixture(params=(8, 16))
def block(request, monkeypatch):
    """The channels in a block, as on processors without AVX-512 and with it."""
    monkeypatch.setattr(padding, "BLOCK", request.param)


def conv(net, num_filter, name, **options):
    return mx.sym.Convolution(net, num_filter=num_filter, kernel=(3, 3), name=name, **options)


def relu_pool(net, name):
    net = mx.sym.Activation(net, act_type="relu", name=f"{name}_relu")
    return mx.sym.Pooling(net, kernel=(2, 2), stride=(2, 2), pool_type="max", name=f"{name}_pool")


def shared():
    weight, bias = mx.sym.Variable("w"), mx.sym.Variable("b")
    return mx.sym.Group([
        conv(DATA, 10, "a", weight=weight, bias=bias),
        relu_pool(conv(mx.sym.tanh(DATA, name="tanh"), 10, "b", weight=weight, bias=bias), "b")])


def normalised():
    net = mx.sym.BatchNorm(conv(DATA, 12, "a", no_bias=True), name="bn")
    return conv(relu_pool(net, "a") + 1, 16, "b")


def branches():
    net = relu_pool(conv(DATA, 20, "a"), "a")
    halves = mx.sym.split(net, num_outputs=2, axis=1, name="halves")
    return mx.sym.Group([conv(net, 5, "b"), conv(halves[1], 32, "c"), net * 2])


def joined(*parts):
    net = mx.sym.concat(*[conv(DATA, filters, f"part{filters}") for filters in parts], dim=1)
    return conv(net, 5, "after")


def many_transformers():
    grey = mx.sym.slice_axis(DATA, axis=1, begin=0, end=1)
    loc = stn.localisation_head(grey)
    parts = [stn.spatial_transformer(grey, loc, (9, 9), name=f"stn{index}") for index in range(16)]
    return conv(mx.sym.concat(*parts, dim=1), 10, "after")


def skip():
    first = relu_pool(conv(DATA, 10, "a"), "a")
    second = conv(first, 6, "b", pad=(1, 1))
    return conv(mx.sym.Activation(mx.sym.concat(first, second, dim=1), act_type="relu"), 10, "c")


def computed_weight():
    return conv(DATA, 10, "a", weight=mx.sym.Variable("w", shape=(10, 3, 3, 3)) * 2)


GRAPHS = {
    "two": lambda: conv(relu_pool(conv(DATA, 10, "a"), "a"), 7, "b"),
    "whole blocks": lambda: conv(conv(DATA, 16, "a"), 32, "b"),
    "no bias": lambda: conv(conv(DATA, 10, "a", no_bias=True), 3, "b", no_bias=True),
    "strided": lambda: conv(DATA, 10, "a", stride=(2, 1), pad=(1, 2), dilate=(2, 2)),
    "groups": lambda: conv(conv(DATA, 10, "a"), 10, "b", num_group=5),
    "shared weight": shared, "batch norm": normalised, "branches": branches,
    "computed weight": computed_weight,
    "10 + 6": lambda: joined(10, 6), "20 + 12": lambda: joined(20, 12), "skip": skip,
    "8 + 12 + 4": lambda: joined(8, 12, 4), "10 + 9": lambda: joined(10, 9),
    "many transformers": many_transformers,
    "other layout": lambda: mx.sym.Pooling(conv(DATA, 10, "a"), kernel=(2, 2), pool_type="max",
                                           layout="NHWC", name="pool"),
    "in steps": lambda: symbols.get_symbol("cnn", width=10, stn_steps=2, image_shape=SHAPE[1:]),
    "mlp": lambda: symbols.get_symbol("mlp", add_stn=False, image_shape=SHAPE[1:]),
    "lenet": lambda: symbols.get_symbol("lenet", add_stn=False, image_shape=SHAPE[1:]),
    **{f"lenet, {transform}": lambda transform=transform: symbols.get_symbol(
        "lenet", transform=transform, image_shape=SHAPE[1:]) for transform in stn.TRANSFORMS},
}


def run(symbol):
    """Outputs and gradients in training, from the same parameters and the same dropout."""
    executor = symbol.simple_bind(mx.cpu(), grad_req="write", data=SHAPE)
    rng = np.random.RandomState(0)
    for array in executor.arg_arrays + executor.aux_arrays:
        array[:] = mx.nd.array(rng.uniform(-0.1, 0.12, array.shape))
    mx.random.seed(0)
    outputs = executor.forward(is_train=True)
    executor.backward([mx.nd.array(rng.uniform(-1, 1, output.shape)) for output in outputs])
    return outputs, {name: gradient for name, gradient in executor.grad_dict.items()
                     if name != "softmax_label"}


def predict(symbol):
    """Outputs without training, from some parameters."""
    executor = symbol.simple_bind(mx.cpu(), grad_req="null", data=SHAPE)
    rng = np.random.RandomState(0)
    for array in executor.arg_arrays:
        array[:] = mx.nd.array(rng.uniform(-0.1, 0.12, array.shape))
    for array in executor.aux_arrays:
        array[:] = mx.nd.array(rng.uniform(0.1, 1, array.shape))  # variances among them
    return executor.forward(is_train=False)


def whole_blocks(symbol):
    nodes = json.loads(symbol.tojson())["nodes"]
    return [int(node["attrs"]["num_filter"]) % padding.BLOCK == 0
            for node in nodes if node["op"] == "Convolution"]


def check_names(plain, padded):
    """Fails unless names, and what is noted on arguments, have stayed."""
    for names in ("list_arguments", "list_auxiliary_states", "list_outputs"):
        assert getattr(padded, names)() == getattr(plain, names)()
    attributes = padded.attr_dict()
    for name in plain.list_arguments():
        stated = {key: value for key, value in plain.attr_dict().get(name, {}).items()
                  if key.startswith("__")}
        assert stated.items() <= attributes.get(name, {}).items()


@pytest.mark.parametrize("graph", GRAPHS)
def test_padding_changes_neither_outputs_nor_gradients(graph):
    plain = GRAPHS[graph]()
    padded = pad_convolutions(plain, data=SHAPE)
    check_names(plain, padded)
    outputs, gradients = run(plain)
    padded_outputs, padded_gradients = run(padded)
    for one, other in zip(outputs, padded_outputs):
        np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), rtol=1e-4, atol=1e-5)
    assert gradients.keys() == padded_gradients.keys()
    for name, gradient in gradients.items():  # rounding may move a maximum to the next pixel
        difference = np.linalg.norm((gradient - padded_gradients[name]).asnumpy())
        assert difference <= 5e-2 * np.linalg.norm(gradient.asnumpy()), name


@pytest.mark.parametrize("graph", GRAPHS)
def test_padding_for_prediction_changes_no_output(graph):
    plain = GRAPHS[graph]()
    forward = pad_convolutions(plain, for_training=False, data=SHAPE)
    check_names(plain, forward)
    for padded in (forward,
                   for_cpu(plain, [mx.cpu()], "float32", for_training=False, data=SHAPE)):
        for one, other in zip(predict(plain), predict(padded)):
            np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("graph", sorted(
    set(GRAPHS) - {"groups", "computed weight", "mlp"}))
def test_every_ordinary_convolution_is_padded(graph):
    blocks = whole_blocks(pad_convolutions(GRAPHS[graph](), data=SHAPE))
    assert blocks
    assert all(blocks)


def test_only_ordinary_convolutions_are_padded():
    padded = pad_convolutions(GRAPHS["groups"](), data=SHAPE)
    assert whole_blocks(padded) == [True, False]


def test_weights_that_are_shared_are_filled_up_once():
    padded = {}
    for steps in (1, 3):
        symbol = symbols.get_symbol("cnn", stn_steps=steps, image_shape=SHAPE[1:])
        nodes = json.loads(pad_convolutions(symbol, data=SHAPE).tojson())["nodes"]
        padded[steps] = [node["name"] for node in nodes if node["op"] == "_zeros"]
    assert padded[1] == padded[3]


@pytest.mark.parametrize(("known", "wanted"), [
    ({"flags": "fma avx2 avx512f avx512bw"}, 16), ({"flags": "fma avx2"}, 8), ({}, 8)])
def test_a_block_is_what_the_processor_computes_at_a_time(monkeypatch, known, wanted):
    monkeypatch.setattr(processor, "_cpuinfo", lambda: known)
    assert processor.lanes() == wanted


def test_shapes_that_do_not_suffice_are_refused():
    with pytest.raises(ValueError, match="the shapes of softmax_label do not settle"):
        pad_convolutions(symbols.get_symbol("lenet"), softmax_label=(4,))
