import json
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest

import symbols
from common.graph import rewrite
from common.graph.layers import flops, layers
from common.graph.rewrite import check_reshapes, for_cpu, pool_before_relu
from tests.conftest import ROOT, resident

DATA, SHAPE = mx.sym.Variable("data"), (2, 3, 9, 11)


def relu(net, **attrs):
    return mx.sym.Activation(net, act_type="relu", name="relu", **attrs)


def pool(net, pool_type="max", **options):
    options = {"kernel": (3, 2), "stride": (2, 2), "pad": (1, 0), **options}
    return mx.sym.Pooling(net, pool_type=pool_type, name="pool", **options)


def shared():
    net = relu(DATA)
    return pool(net * 2) + pool(net)


def between():
    net = relu(DATA)
    return mx.sym.Group([pool(net) * 2, net])


SWAPPED = {
    "relu": lambda: pool(relu(DATA)) * 2,
    "operator relu": lambda: pool(mx.sym.relu(DATA, name="relu")) * 2,
    "global": lambda: pool(relu(DATA), kernel=(1, 1), global_pool=True) * 2,
    "pooled twice": lambda: mx.sym.Pooling(pool(relu(DATA)), kernel=(2, 2), pool_type="max",
                                           name="second") * 2,
}
LEFT = {
    "average": lambda: pool(relu(DATA), "avg") * 2,
    "another activation": lambda: pool(mx.sym.tanh(DATA)) * 2,
    "full": lambda: pool(relu(DATA), pooling_convention="full") * 2,
    "two consumers": shared,
    "an output between": between,
    "an output behind": lambda: pool(relu(DATA)),
}


def order(symbol):
    return [node["op"] for node in json.loads(symbol.tojson())["nodes"]
            if node["op"] in ("Pooling", "Activation", "relu")]


def run(symbol):
    executor = symbol.simple_bind(mx.cpu(), data=SHAPE)
    rng = np.random.RandomState(0)
    executor.arg_dict["data"][:] = mx.nd.array(rng.uniform(-1, 1, SHAPE))
    outputs = executor.forward(is_train=True)
    executor.backward([mx.nd.array(rng.uniform(-1, 1, output.shape)) for output in outputs])
    return [array.asnumpy() for array in (*outputs, *executor.grad_arrays)]


@pytest.mark.parametrize("name", [*SWAPPED, *LEFT])
def test_pooling_first_changes_nothing_that_can_be_seen(name):
    symbol = {**SWAPPED, **LEFT}[name]()
    changed = pool_before_relu(symbol)
    assert changed.list_outputs() == symbol.list_outputs()
    for one, other in zip(run(symbol), run(changed)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", [*SWAPPED, *LEFT])
def test_pooling_comes_first_where_it_may(name):
    symbol = {**SWAPPED, **LEFT}[name]()
    before, after = order(symbol), order(pool_before_relu(symbol))
    assert (after != before) == (name in SWAPPED)
    if name in SWAPPED:
        assert after[0] == "Pooling"
        assert sorted(after) == sorted(before)


def test_a_lenet_pools_first():
    names = for_cpu(symbols.get_symbol("lenet"), [mx.cpu()], "float32",
                    data=(4, 1, 28, 28)).get_internals().list_outputs()
    assert names.index("pool1_padded_output") < names.index("relu1_padded_output")


@pytest.mark.parametrize(("context", "dtype"), [(mx.gpu(0), "float32"), (mx.cpu(), "float64")])
def test_elsewhere_the_symbol_stays(context, dtype):
    symbol = symbols.get_symbol("lenet")
    assert for_cpu(symbol, [context], dtype, data=(4, 1, 28, 28)) is symbol


def test_operations_are_counted():
    # multiplications; each goes with an addition
    counted = {"conv1": 24 * 24 * 10 * 25, "conv2": 8 * 8 * 20 * 250, "fc1": 320 * 50, "fc2": 500}
    symbol = symbols.get_symbol("lenet", add_stn=False)
    assert flops(symbol, data=(3, 1, 28, 28)) == 3 * 2 * sum(counted.values())


def test_layers_say_where_the_parameters_and_operations_are():
    symbol = symbols.get_symbol("lenet")
    found = {layer.name: layer for layer in layers(symbol, data=(1, 1, 28, 28),
                                                   softmax_label=(1,))}
    assert found["conv2"] == ("conv2", "Convolution", (1, 20, 8, 8), 20 * 250 + 20,
                              2 * 8 * 8 * 20 * 250)
    assert found["stn"] == ("stn", "SpatialTransformer", (1, 1, 28, 28), 0, 0)
    assert sum(layer.parameters for layer in found.values()) == 27360
    assert next(reversed(found)) == "softmax"


def test_shared_parameters_count_once_and_moving_averages_not_at_all():
    weight = mx.sym.Variable("weight")
    net = mx.sym.split(mx.sym.BatchNorm(DATA, fix_gamma=False, name="norm"), num_outputs=2,
                       name="halves")
    net = [mx.sym.FullyConnected(half, weight, no_bias=True, num_hidden=4, name=f"fc{number}")
           for number, half in enumerate(net)]
    found = layers(mx.sym.Group(net), data=(2, 6))
    assert [(layer.name, layer.parameters, layer.flops) for layer in found] == [
        ("norm", 12, 0), ("halves", 0, 0), ("fc0", 12, 48), ("fc1", 0, 48)]
    assert found[1].shape == (2, 3)


def test_weights_that_are_computed_count_like_others():
    weight = mx.sym.Variable("weight") * 2
    net = mx.sym.FullyConnected(DATA, weight, no_bias=True, num_hidden=4, name="fc")
    found = layers(net, data=(2, 6))
    assert [(layer.parameters, layer.flops) for layer in found] == [(24, 0), (0, 96)]


@pytest.mark.parametrize("shape", [(0, -1), (-1, 11), (0, 0, -4, 3, -1, 0), (-3, 0, 0), (-2,)])
def test_a_reshape_that_keeps_all_elements_passes(shape):
    check_reshapes(mx.sym.reshape(DATA, shape=shape) * 2, data=SHAPE)


def test_reshapes_behind_layers_pass():
    weighed = mx.sym.FullyConnected(DATA, num_hidden=33, name="fc")
    check_reshapes(mx.sym.reshape(mx.sym.reshape(weighed, shape=(0, 3, 11)), shape=(0, 33)),
                   data=SHAPE)


@pytest.mark.parametrize("shape", [(4, 4), (594 * 2,), (5, -1), (0, 0, 0)])
def test_a_reshape_that_does_not_is_refused(shape):
    split = mx.sym.split(DATA, num_outputs=3, axis=1)
    inner = mx.sym.reshape(split[2], shape=shape, name="wrong")
    with pytest.raises(mx.MXNetError, match=r"wrong cannot reshape \(2, 1, 9, 11\) to"):
        check_reshapes(mx.sym.mean(inner), data=SHAPE)


@pytest.mark.parametrize("operator", ["LinearRegressionOutput", "LogisticRegressionOutput",
                                      "MAERegressionOutput"])
@pytest.mark.parametrize("grad_scale", [1, 3])
def test_a_loss_becomes_what_it_computes(operator, grad_scale):
    loss = getattr(mx.sym, operator)(DATA, name="loss", grad_scale=grad_scale)
    assert_same_without_label(loss, SHAPE, SHAPE)


@pytest.mark.parametrize(("attrs", "shape", "label_shape"), [
    ({}, (4, 5), (4,)), ({"smooth_alpha": 0.1, "normalization": "valid"}, (4, 5), (4,)),
    ({"multi_output": True}, (4, 5), (4,)), ({"multi_output": True}, (4, 5, 6), (4, 6)),
    ({"multi_output": 1}, (4, 5, 3, 2), (4, 6)), ({"preserve_shape": "true"}, (4, 5, 6), (4, 5)),
    ({"preserve_shape": True}, (4, 5, 3, 2), (4, 5, 3)),
    ({"preserve_shape": True, "multi_output": True}, (4, 5, 3, 2), (4, 3, 2)),
    ({"multi_output": "false"}, (4, 5), (4,))], ids=str)
def test_a_softmax_keeps_its_axis(attrs, shape, label_shape):
    assert_same_without_label(mx.sym.SoftmaxOutput(DATA, name="loss", **attrs), shape, label_shape)


def assert_same_without_label(loss, shape, label_shape):
    data = mx.nd.array(np.random.RandomState(0).normal(0, 2, shape))
    expected, = loss.bind(mx.cpu(), {"data": data, "loss_label": mx.nd.zeros(label_shape)},
                          grad_req="null").forward(is_train=False)
    symbol = rewrite.label_free(loss)
    assert symbol.list_arguments() == ["data"]
    np.testing.assert_allclose(symbol.eval(data=data)[0].asnumpy(), expected.asnumpy(), atol=1e-6)


def test_raw_input_is_undone_where_it_was_done():
    symbol = symbols.get_symbol("lenet")
    assert rewrite.without_raw_input(rewrite.with_raw_input(symbol)).tojson() == symbol.tojson()
    for node in (DATA * 2, mx.sym.Variable("other") / 255, mx.sym.tanh(DATA)):
        nodes = json.loads((node + 1).tojson())
        nodes["nodes"][1]["name"] = "data_scaled"
        own = mx.sym.load_json(json.dumps(nodes))
        assert rewrite.without_raw_input(own).tojson() == own.tojson()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pixels_are_scaled_as_numpy_scales_them(dtype):
    pixels = np.arange(256, dtype=np.uint8)
    scaled = rewrite.with_raw_input(mx.sym.identity(DATA), cast_to=dtype)
    found, = scaled.bind(mx.cpu(), {"data": mx.nd.array(pixels, dtype=np.uint8)}).forward()
    assert found.asnumpy().dtype == dtype
    np.testing.assert_array_equal(found.asnumpy(), pixels * np.dtype(dtype).type(1 / 255))


@pytest.mark.parametrize("operator", ["Activation", "BatchNorm", "Dropout", "LeakyReLU", "_copy",
                                      "clip", "relu"])
def test_sums_with_convolutions_are_seen_behind_what_is_fused(operator):
    data, attrs = mx.sym.Variable("data"), {"clip": {"a_min": 0, "a_max": 6},
                                            "Activation": {"act_type": "relu"}}
    convolved = mx.sym.Convolution(data, num_filter=1, kernel=(1, 1))
    passed = getattr(mx.sym, {"_copy": "identity"}.get(operator, operator))(
        convolved, **attrs.get(operator, {}))
    assert rewrite.sums_convolutions(passed + data)
    assert not rewrite.sums_convolutions(mx.sym.sin(passed) + data)


def test_a_leaky_relu_may_be_random():
    data = mx.sym.Variable("data")
    assert rewrite.uses_random_numbers(mx.sym.LeakyReLU(data, act_type="rrelu"))
    assert not rewrite.uses_random_numbers(mx.sym.Activation(data, act_type="relu"))


@pytest.mark.parametrize(("text", "value"), [
    ("True", True), ("false", False), ("1", 1), ("(2, 3)", (2, 3)), ("[2,3]", (2, 3)),
    ("(2L, 3L)", (2, 3)), ("None", None), ("1e-05", 1e-5), ("relu", "relu"), (" 3", 3),
    ("{[]: 1}", "{[]: 1}")])
def test_attributes_are_read_as_mxnet_reads_them(text, value):
    assert rewrite.attributes({"attrs": {"a": text, "__lr_mult__": "0.1"}}) == {"a": value}


def grown(symbol, passes, **shapes):
    """By how many MiB the process grows in forward and backward passes of a symbol."""
    executor = symbol.simple_bind(mx.cpu(), **shapes)
    gradients = [mx.nd.ones(output.shape) for output in executor.outputs]

    def taken():
        for _ in range(passes):
            executor.forward(is_train=True)
            executor.backward(gradients)
        mx.nd.waitall()
        return resident()

    return -taken() + taken()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no /proc tells of the memory")
@pytest.mark.skipif(not mx.runtime.Features().is_enabled("MKLDNN"), reason="MXNet without oneDNN")
def test_putting_parts_together_takes_no_memory_for_ever():
    code = ("from common import find_mxnet; from tests.test_rewrite import grown, mx, rewrite;"
            "parts = mx.sym.concat(*map(mx.sym.Variable, 'ab'), dim=1, name='parts');"
            "shapes = {'a': (2, 3), 'b': (2, 1)};"
            "mended = rewrite.without_leaks(parts, **shapes);"
            "print(grown(mended, 2000, **shapes), grown(parts, 2000, **shapes))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE,
                          check=True)
    mended, plain = map(float, done.stdout.split())
    assert mended < 1
    assert plain > 2  # if not, MXNet has been mended


@pytest.mark.parametrize("axis", [None, 0, 1, 3, -1, -4])
def test_parts_are_put_together_along_the_same_axis(axis):
    attrs = {} if axis is None else {"dim": axis}
    parts = mx.sym.concat(*map(mx.sym.Variable, "ab"), name="parts", **attrs)
    arrays = [mx.nd.random.uniform(shape=(2, 2, 2, 2)) for _ in "ab"]
    shapes = {name: array.shape for name, array in zip("ab", arrays)}
    changed = rewrite.without_leaks(parts, **shapes)
    node, = [node for node in json.loads(changed.tojson())["nodes"] if node["op"] == "Concat"]
    assert int(node["attrs"]["dim"]) == {None: -3, 1: -3, 3: -1}.get(axis, axis)
    gradient = mx.nd.concat(*arrays, dim=1 if axis is None else axis)
    for symbol in (parts, changed):
        executor = symbol.bind(mx.cpu(), dict(zip("ab", arrays)),
                               {name: mx.nd.zeros(shape) for name, shape in shapes.items()})
        answer, = executor.forward(is_train=True)
        np.testing.assert_array_equal(answer.asnumpy(), np.concatenate(
            [array.asnumpy() for array in arrays], axis=1 if axis is None else axis))
        executor.backward(gradient)
        for array, found in zip(arrays, executor.grad_arrays):
            np.testing.assert_array_equal(found.asnumpy(), array.asnumpy())
