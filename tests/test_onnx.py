"""The networks as ONNX models, run by onnxruntime."""
import functools
import inspect
import json
import re
import sys

import mxnet as mx
import numpy as np
import onnx
import onnxruntime
import pytest

import export as script
import symbols
from common.graph import find_transformers, rewrite
from common.models import export_folder, onnx_operators, to_onnx
from common.storage import checkpoint
from symbols import stn
from tests.test_export_folder import IMAGES, SCALED, network, values
from tests.test_networks import predict

SMALL = (1, 28, 28)
CASES = [("lenet", {"transform": transform, "bounded": bounded}, SMALL)
         for transform in (*stn.TRANSFORMS, "tps:3") for bounded in (False, True)]
CASES += [(name, {"stable": True}, SMALL) for name in ("lenet", "cnn", "mlp")]
CASES += [("lenet", {"transform": transform, "outside": "border"}, SMALL)
          for transform in ("affine", "projective", "tps")]
CASES += [("lenet", {"add_stn": False}, (3, 30, 26)), ("lenet", {"target_shape": (20, 30)}, SMALL),
          ("cnn", {"transform": "similarity", "pool": 2}, (1, 43, 60)),
          ("cnn", {"transform": "projective"}, SMALL), ("mlp", {"transform": "tps"}, SMALL),
          ("addition", {"transform": "affine", "pool": 2}, (2, 42, 42)),
          ("lenet", {"stn_steps": 2, "transform": "rotation"}, SMALL),
          ("cnn", {"stn_steps": 3, "stable": True}, SMALL),
          ("mlp", {"stn_steps": 2, "transform": "projective"}, SMALL),
          *(("resnet", {"stn_at": "input,stage1", **options}, (3, 48, 48))
            for options in ({"transform": "similarity"}, {"transform": "projective"},
                            {"transform": "tps:3"}, {"outside": "border"}))]


def answers_of(path, images):
    """The answers of onnxruntime to images (N, C, H, W)."""
    model = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answers, = model.run(["softmax_output"], {"data": np.float32(images)})
    return answers


def points_inside(symbol, module, batch):
    """The fractions of points inside the image, of all transformers and images."""
    found = find_transformers.transformers(symbol)
    internals = symbol.get_internals()
    outputs = mx.sym.Group([internals[each.where] for each in found])
    return np.stack([find_transformers.inside(find_transformers.source_grid(grid, each))
                     for each, grid in zip(found, values(outputs, module, batch))])


@pytest.fixture
def run(run_main):
    return functools.partial(run_main, script)


@pytest.mark.parametrize(("name", "options", "image_shape"), CASES, ids=str)
def test_onnxruntime_answers_as_mxnet(tmp_path, name, options, image_shape):
    symbol, module = network(image_shape, network=name, spread=0.3, **options)
    images = np.random.RandomState(1).rand(7, *image_shape).astype(np.float32)
    batch = mx.io.DataBatch([mx.nd.array(images)])
    if options.get("add_stn", True):  # off the identity, and different for each image
        inside = points_inside(symbol, module, batch)
        assert (inside.min(axis=1) < 0.97).all()
        assert (inside.std(axis=1) > 0).all()
    path = tmp_path / "a.onnx"
    difference = to_onnx.save(str(path), rewrite.label_free(symbol), *module.get_params(),
                              image_shape)
    # By parameters at random each of several steps looks elsewhere for what the last rounded off.
    assert difference <= (2e-4 if "stn_steps" in options else 1e-5)
    expected = predict(module, batch)
    for part in (images, images[:1]):
        np.testing.assert_allclose(answers_of(path, part), expected[:len(part)], atol=1e-5)


@pytest.mark.parametrize("transform", [*stn.TRANSFORMS, "tps:10"])
def test_the_models_are_small_and_for_old_runtimes_too(tmp_path, transform):
    symbol, module = network(transform=transform)
    to_onnx.save(str(tmp_path / "a.onnx"), rewrite.label_free(symbol), *module.get_params(), SMALL)
    model = onnx.load(str(tmp_path / "a.onnx"))
    assert model.ir_version == 8
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
    batch_size, *rest = model.graph.input[0].type.tensor_type.shape.dim
    assert batch_size.dim_param == "N"
    assert [size.dim_value for size in rest] == [1, 28, 28]
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("GridSample") == 1
    assert len(operators) < 60, operators  # what does not depend on the images is a constant
    assert {"Conv", "Gemm", "MaxPool"} < set(operators)


POOLINGS = [{"pool_type": kind, "kernel": kernel, "stride": stride, "pad": pad,
             "pooling_convention": convention, "count_include_pad": counted}
            for kind in ("max", "avg") for kernel, stride in (((2, 2), (2, 2)), ((3, 2), (2, 3)))
            for pad in ((0, 0), (1, 1)) for convention in ("valid", "full")
            for counted in (True, False)
            if pad == (0, 0) or convention == "valid"]


@pytest.mark.parametrize("options", POOLINGS, ids=lambda options: "-".join(map(str,
                                                                               options.values())))
def test_every_pooling(tmp_path, options):
    pooled = mx.sym.Flatten(mx.sym.Pooling(mx.sym.Variable("data"), **options), name="flat")
    assert to_onnx.save(str(tmp_path / "a.onnx"), pooled, {}, {}, (2, 12, 13)) < 1e-6


def halves(data):
    """The channels of the first input and those of the second one, each (N, 2, 12, 13)."""
    return (mx.sym.slice_axis(data, axis=1, begin=begin, end=begin + 2) for begin in (0, 2))


OPERATORS = {
    **{f"Activation {kind}": lambda data, kind=kind: mx.sym.Activation(data - 0.5, act_type=kind)
       for kind in ("relu", "sigmoid", "softrelu", "softsign", "tanh")},
    **{f"LeakyReLU {kind}": lambda data, kind=kind: mx.sym.LeakyReLU(data - 0.5, act_type=kind)
       for kind in ("leaky", "elu", "selu", "gelu", "prelu")},
    "LeakyReLU 0.1": lambda data: mx.sym.LeakyReLU(data - 0.5, slope=0.1),
    "elu 0.1": lambda data: mx.sym.LeakyReLU(data - 0.5, act_type="elu", slope=0.1),
    "prelu of units": lambda data: mx.sym.LeakyReLU(mx.sym.Flatten(data - 0.5), act_type="prelu"),
    **{f"BatchNorm {options}": lambda data, options=options: mx.sym.BatchNorm(data, **options)
       for options in ({}, {"fix_gamma": False, "eps": 1}, {"axis": -3, "use_global_stats": True},
                       {"momentum": 0.5, "cudnn_off": True})},
    "BatchNorm of units": lambda data: mx.sym.BatchNorm(mx.sym.Flatten(data), fix_gamma=False),
    "InstanceNorm": lambda data: mx.sym.InstanceNorm(data, eps=0.1),
    **{f"global {kind}": lambda data, kind=kind: mx.sym.Pooling(data, pool_type=kind,
                                                                global_pool=True, kernel=(2, 2))
       for kind in ("max", "avg")},
    **{f"global by size {options}": lambda data, options=options:
       mx.sym.contrib.AdaptiveAvgPooling2D(data, **options)
       for options in ({}, {"output_size": 1}, {"output_size": (1, 1)})},
    **{f"Pad {mode}": lambda data, mode=mode: mx.sym.Pad(
        data, mode=mode, pad_width=(0, 0, 0, 0, 1, 2, 3, 4), constant_value=0.3)
       for mode in ("constant", "edge", "reflect")},
    **{f"Deconvolution {options}": lambda data, options=options: mx.sym.Deconvolution(
        data, kernel=(3, 2), num_filter=2, **options) for options in (
            {}, {"no_bias": False, "stride": (2, 3), "pad": (1, 0), "adj": (1, 2)},
            {"num_group": 2, "dilate": (2, 1), "layout": "NCHW"},
            {"workspace": 9, "cudnn_tune": "off", "cudnn_off": True})},
    **{f"Convolution {options}": lambda data, options=options: mx.sym.Convolution(
        data, num_filter=4, **options) for options in (
            {"kernel": "(3L, 2L)", "no_bias": "true"}, {"kernel": "[3, 2]", "no_bias": "false"},
            {"kernel": (3, 2), "num_group": 2, "stride": (2, 1), "pad": (1, 2), "dilate": (1, 2)},
            {"kernel": (3, 2), "no_bias": True, "workspace": 9, "cudnn_tune": "off",
             "cudnn_off": True, "layout": "NCHW"})},
    "Convolution of rows": lambda data: mx.sym.Pooling(mx.sym.Convolution(
        mx.sym.Reshape(data, shape=(0, 0, -1)), num_filter=2, kernel=(5,), layout="NCW"),
        kernel=(3,), stride=(2,), layout="NCW"),
    "FullyConnected": lambda data: mx.sym.FullyConnected(data, num_hidden=3, no_bias=True),
    "Dropout 0.9": lambda data: mx.sym.Dropout(data, p=0.9, axes=(1,), cudnn_off=True),
    "Pooling": lambda data: mx.sym.Pooling(data, kernel=(2, 2), cudnn_off=True, layout="NCHW"),
    "mean over the batch": lambda data: mx.sym.broadcast_add(
        data, mx.sym.mean(data, axis=0, keepdims=True)),
    "L2Normalization": lambda data: mx.sym.L2Normalization(data),
    "L2Normalization 1": lambda data: mx.sym.L2Normalization(data, eps=1, mode="instance"),
    "InstanceNorm 1": lambda data: mx.sym.InstanceNorm(data, eps=1),
    "leaky 1": lambda data: mx.sym.LeakyReLU(data - 0.5, slope=1),
    "is_int": lambda data: mx.sym._internal._plus_scalar(data, scalar=0.5, is_int=False),
    "clip": lambda data: mx.sym.clip(data, 0.2, 0.7),
    "dot": lambda data: mx.sym.dot(mx.sym.Flatten(data), mx.sym.Variable("b", shape=(624, 3)),
                                   forward_stype="default"),
    "batch_dot": lambda data: mx.sym.batch_dot(
        *[mx.sym.slice_axis(mx.sym.reshape(data, shape=(0, -3, -2)), axis=1, begin=0, end=rows)
          for rows in (None, 13)], forward_stype="default"),
    "slice_axis": lambda data: mx.sym.slice_axis(data, axis=-1, begin=-4, end=None),
    "split": lambda data: mx.sym.split(data, num_outputs=3, axis=2)[1],
    **{f"{name} {options}": lambda data, name=name, options=options: getattr(mx.sym, name)(
        data, **options) for name in ("sum", "mean", "max", "min", "prod") for options in (
            {"axis": (1, 2)}, {"axis": 1, "keepdims": True}, {"axis": (0, 2), "exclude": True},
            {"axis": -1})},
    **{name: lambda data, name=name: getattr(mx.sym, name)(*halves(data + 0.1)) for name in (
        "elemwise_add", "elemwise_sub", "elemwise_mul", "elemwise_div", "broadcast_add",
        "broadcast_sub", "broadcast_mul", "broadcast_div", "broadcast_maximum",
        "broadcast_minimum", "broadcast_power", "maximum", "minimum", "pow", "add_n")},
    **{name: lambda data, name=name: getattr(mx.sym, name)(data + 0.1) for name in (
        "abs", "ceil", "cos", "erf", "exp", "floor", "log", "negative", "reciprocal", "relu",
        "sigmoid", "sin", "softsign", "sqrt", "square", "tanh", "transpose", "ones_like",
        "zeros_like", "softmax", "log_softmax", "BlockGrad", "identity", "Dropout")},
    "sign": lambda data: mx.sym.sign(data - 0.5),
    "scalars": lambda data: 3 - (2 / (data + 1) - 0.5) * 2 / 3 + 2 ** data + (data + 1) ** 1.5,
    "limits": lambda data: mx.sym.maximum(mx.sym.minimum(data, 0.7), 0.2),
    "comparisons": lambda data: sum([data > 0.5, data >= 0.4, data < 0.3, data <= 0.2,
                                     (data > 0.5) == 0]),
    **{f"{name} of channels": lambda data, name=name: getattr(mx.sym, name)(
        data * 9, axis=1, temperature=2) for name in ("softmax", "log_softmax")},
    "Concat": lambda data: mx.sym.Concat(*halves(data), dim=2),
    "stack": lambda data: mx.sym.stack(*halves(data), axis=1),
    "transpose of axes": lambda data: mx.sym.transpose(data, axes=(0, 2, 3, 1)),
    "shapes": lambda data: mx.sym.squeeze(mx.sym.expand_dims(mx.sym.Reshape(
        data, shape=(0, 2, -1)), axis=1), axis=1),
    "Reshape from behind": lambda data: mx.sym.Reshape(data, shape=(-1, 4, 0), reverse=True),
    "Reshape of old": lambda data: mx.sym.Reshape(data, target_shape=(0, 624), keep_highest=True),
    "broadcast_to": lambda data: mx.sym.broadcast_to(mx.sym.slice_axis(
        data, axis=1, begin=0, end=1), shape=(0, 3, 0, 0)),
    "GridGenerator": lambda data: mx.sym.BilinearSampler(data, mx.sym.GridGenerator(
        mx.sym.FullyConnected(data / 50, num_hidden=6), "affine", target_shape=(5, 9)),
        cudnn_off=True),
    "SpatialTransformer": lambda data: mx.sym.SpatialTransformer(
        data, mx.sym.FullyConnected(data / 50, num_hidden=6), transform_type="affine",
        sampler_type="bilinear", target_shape=(5, 9), cudnn_off=True),
}


@functools.lru_cache(maxsize=None)
def nodes_of_cases():
    built = [build(mx.sym.Variable("data")) for build in OPERATORS.values()]
    built += [mx.sym.Pooling(mx.sym.Variable("data"), **options) for options in POOLINGS]
    built += [symbols.get_symbol("lenet", transform=transform) for transform in stn.TRANSFORMS]
    return [node for symbol in built for node in json.loads(symbol.tojson())["nodes"]]


def test_each_translation_has_a_case():
    assert set(onnx_operators.TRANSLATIONS) <= {node["op"] for node in nodes_of_cases()}


def documented(operator):
    """The attributes that MXNet says an operator has: name -> default, "required" without one."""
    home, name = ((mx.sym.contrib, operator[len("_contrib_"):]) if operator.startswith("_contrib_")
                  else (mx.sym if hasattr(mx.sym, operator) else mx.sym._internal, operator))
    function = getattr(home, name)
    found = re.findall(r"^(\w+) : (?!Symbol|string)[^\n]*?(required|default=(.*))$",
                       function.__doc__.split("Parameters\n-")[1], re.MULTILINE)
    return {name: rewrite.attributes({"attrs": {name: default.strip("'") or said}})[name]
            for name, said, default in found}


UNTRIED = {"p_value", "lower_bound", "upper_bound",  # of kinds that are refused
           "is_int"}  # of many operators that are translated alike


@pytest.mark.parametrize("operator", onnx_operators.TRANSLATIONS)
def test_every_attribute_that_mxnet_documents_is_dealt_with(operator):
    defaults = documented(operator)
    honoured = dict(inspect.signature(onnx_operators.TRANSLATIONS[operator]).parameters)
    del honoured["model"], honoured["node"]
    only = onnx_operators.ONLY.get(operator, {})
    without_effect = set(onnx_operators.WITHOUT_EFFECT.get(operator, "").split())
    known = [*honoured, *only, *without_effect]
    assert sorted(set(known)) == sorted(known)
    assert set(defaults) - set(known) <= {"min_calib_range", "max_calib_range"}  # refused
    assert set(known) - set(defaults) <= {"num_args"}
    taken = {name: "required" if one.default is one.empty else one.default
             for name, one in honoured.items()}
    taken.update((name, values[0]) for name, values in only.items()
                 if defaults[name] != "required")
    for name, value in taken.items():
        if name != "count_include_pad":  # where None means True
            assert value == defaults[name] or value == pytest.approx(defaults[name]), name
    others = {name for node in nodes_of_cases() if node["op"] == operator
              for name, value in rewrite.attributes(node).items() if value != defaults.get(name)}
    assert {*honoured, *without_effect} - UNTRIED <= others


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator(tmp_path, name):
    symbol, random = OPERATORS[name](mx.sym.Variable("data")), np.random.RandomState(0)
    arg_shapes, (shape,), aux_shapes = symbol.infer_shape(data=(2, 4, 12, 13))
    params, aux_params = ({name: mx.nd.array(random.uniform(0.05, 0.1, shape))
                           for name, shape in zip(names, shapes) if name != "data"}
                          for names, shapes in ((symbol.list_arguments(), arg_shapes),
                                                (symbol.list_auxiliary_states(), aux_shapes)))
    path = str(tmp_path / "a.onnx")
    to_onnx.save(path, symbol, params, aux_params, (4, 12, 13))
    model = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers, = model.run(None, {"data": np.zeros((2, 4, 12, 13), np.float32)})
    assert answers.shape == shape


@pytest.mark.parametrize(("symbol", "words"), [
    (lambda data: mx.sym.arcsinh(data, name="a"), "a: the operator arcsinh"),
    (lambda data: mx.sym.LeakyReLU(data, act_type="rrelu", name="a")[0], "a: act_type=rrelu"),
    (lambda data: mx.sym.BatchNorm(data, axis=3, name="a"), "a: axis=3"),
    (lambda data: mx.sym.sum(data, axis=0, name="a"), "a: a sum over the batch"),
    (lambda data: mx.sym.mean(data, name="a"), "a: a mean over the batch"),
    (lambda data: mx.sym.Deconvolution(data, kernel=(2, 2), num_filter=2, target_shape=(5, 5),
                                       name="a"), r"a: target_shape=\(5, 5\) of Deconvolution"),
    (lambda data: mx.sym.Dropout(data, mode="always", name="a"), "a: mode=always of Dropout"),
    (lambda data: mx.sym.FullyConnected(data, num_hidden=2, flatten="false", name="a"),
     "a: flatten=False of FullyConnected"),
    (lambda data: mx.sym.Pooling(data, kernel=(2, 2), pool_type="sum", name="a"), "pool_type=sum"),
    (lambda data: mx.sym.Pooling(data, kernel=(1, 1), layout="NHWC", name="a"),
     "a: layout=NHWC of Pooling"),
    (lambda data: mx.sym.contrib.AdaptiveAvgPooling2D(data, output_size=2, name="a"),
     "a: output_size=2 of _contrib_AdaptiveAvgPooling2D"),
    (lambda data: mx.sym.softmax(data, dtype="float64", name="a"), "a: dtype=float64 of softmax"),
    (lambda data: mx.sym.split(data, num_outputs=4, squeeze_axis=True, axis=2, name="a")[0],
     "a: squeeze_axis=True"),
    (lambda data: mx.sym.dot(mx.sym.Flatten(data), mx.sym.Variable("b", shape=(3, 16)),
                             transpose_b=True, name="a"), "a: transpose_b=True"),
    (lambda data: mx.sym.BatchNorm(data, min_calib_range=0.5, name="a"), "a: min_calib_range=0.5"),
    (lambda data: mx.sym.GridGenerator(mx.sym.Concat(data, data), "warp", name="a"),
     "a: transform_type=warp"),
    (lambda data: mx.sym.Pooling(data, kernel=(2, 2), stride=(3, 3), pad=(1, 1), name="a",
                                 pooling_convention="full"), "a padded pooling"),
])
def test_what_cannot_be_translated_is_named(tmp_path, symbol, words):
    symbol = symbol(mx.sym.Variable("data"))
    shapes, _, _ = symbol.infer_shape(data=(1, 1, 4, 4))
    params = {name: mx.nd.ones(shape) for name, shape in zip(symbol.list_arguments(), shapes)
              if name != "data"}
    with pytest.raises(ValueError, match=words):
        to_onnx.save(str(tmp_path / "a.onnx"), symbol, params, {}, (1, 4, 4))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("loss", "attrs", "shape"), [
    ("SoftmaxOutput", {}, (8,)), ("SoftmaxOutput", {"multi_output": True}, (4, 6, 6)),
    ("SoftmaxOutput", {"preserve_shape": True}, (4, 6, 6)), ("SoftmaxOutput", {}, (4, 6, 6)),
    ("LogisticRegressionOutput", {"grad_scale": 2}, (8,)), ("LinearRegressionOutput", {}, (8,)),
    ("MAERegressionOutput", {}, (8,))], ids=str)
def test_the_answers_are_those_of_the_training_symbol(tmp_path, loss, attrs, shape):
    net = mx.sym.Convolution(mx.sym.Variable("data"), num_filter=4, kernel=(3, 3), name="conv")
    if len(shape) == 1:
        net = mx.sym.FullyConnected(net, num_hidden=8, name="fc")
    symbol = getattr(mx.sym, loss)(net, name="softmax", **attrs)
    module = mx.mod.Module(symbol, context=mx.cpu(1))
    label_shape = {"softmax_label": symbol.infer_shape(data=(5, 1, 8, 8))[0][-1]}
    module.bind([("data", (5, 1, 8, 8))], list(label_shape.items()), for_training=False)
    module.init_params(mx.init.Xavier(magnitude=20))
    to_onnx.save(str(tmp_path / "a.onnx"), symbol, *module.get_params(), (1, 8, 8))
    images = np.random.RandomState(1).rand(5, 1, 8, 8)
    expected = predict(module, mx.io.DataBatch([mx.nd.array(images)]))
    assert expected.shape == (5, *shape)
    np.testing.assert_allclose(answers_of(tmp_path / "a.onnx", images), expected, atol=1e-5)


def test_what_onnxruntime_refuses_is_one_line(tmp_path, capfd):
    pooled = mx.sym.Pooling(mx.sym.Variable("data"), pool_type="max", kernel=(2, 2), stride=(3, 3),
                            pooling_convention="full")
    with pytest.raises(ValueError, match="ONNX does not take this network"):
        to_onnx.save(str(tmp_path / "a.onnx"), pooled, {}, {}, (1, 12, 9))
    assert capfd.readouterr().err == ""


def test_a_softmax_over_several_axes_is_refused(tmp_path):
    data = mx.sym.Reshape(mx.sym.Variable("data"), shape=(0, 4, -1))
    with pytest.raises(ValueError, match="not written: onnxruntime's answers differ"):
        to_onnx.save(str(tmp_path / "a.onnx"), mx.sym.SoftmaxOutput(data), {}, {}, (1, 8, 8))


@pytest.mark.parametrize("size", [1e-4, 1, 1e4])
def test_the_tolerance_is_relative_to_the_answers(tmp_path, monkeypatch, size):
    symbol = mx.sym.identity(mx.sym.Variable("data") * size)
    for error, taken in ((3e-5, True), (3e-4, False)):
        monkeypatch.setitem(onnx_operators.TRANSLATIONS, "_copy", lambda model, node, error=error:
                            model.add("Mul", [*node.inputs, model.constant(1 + error)],
                                      node.outputs))
        path = tmp_path / f"{error}.onnx"
        if taken:
            difference = to_onnx.save(str(path), symbol, {}, {}, (1, 8, 8))
            assert difference == pytest.approx(error, rel=0.2)
        else:
            with pytest.raises(ValueError, match="not written: onnxruntime's answers differ"):
                to_onnx.save(str(path), symbol, {}, {}, (1, 8, 8))
        assert path.exists() == taken


def test_a_softmax_that_is_certain_hides_no_difference(tmp_path, monkeypatch):
    scores = mx.sym.broadcast_mul(mx.sym.Flatten(mx.sym.identity(mx.sym.Variable("data"))),
                                  mx.sym.Variable("sizes", shape=(1, 4)))
    symbol = mx.sym.SoftmaxOutput(scores, name="softmax")
    sizes = {"sizes": mx.nd.array([[0, -1000, -1000, 1e6]])}
    path = tmp_path / "a.onnx"
    assert to_onnx.save(str(path), symbol, sizes, {}, (1, 2, 2)) < 1e-6
    assert len(onnx.load(str(path)).graph.output) == 1
    path.unlink()
    monkeypatch.setitem(onnx_operators.TRANSLATIONS, "_copy", lambda model, node: model.add(
        "Sqrt", node.inputs, node.outputs))
    with pytest.raises(ValueError, match="not written: onnxruntime's answers differ"):
        to_onnx.save(str(path), symbol, sizes, {}, (1, 2, 2))
    assert not path.exists()


@pytest.fixture
def saved(tmp_path):
    """The Module of a network of which there is the checkpoint "a" and the export "b"."""
    symbol, module = network(transform="affine")
    checkpoint.save(str(tmp_path / "a"), 3, symbol, *module.get_params(), {}, {})
    export_folder.export(str(tmp_path / "b"), symbol, *module.get_params(), SMALL, raw_input=True)
    (tmp_path / "file").write_text("")
    return module


@pytest.mark.parametrize("model", ["a", "b"])
@pytest.mark.parametrize("flags", [[], ["--raw-input"]])
def test_the_script_writes_a_model(run, saved, tmp_path, model, flags):
    done = run(model, "--onnx", "new/a.onnx", *flags)
    assert done.returncode == 0, done.stderr
    written, difference = done.stdout.splitlines()
    assert written == "Exported: new/a.onnx"
    assert float(re.search("[0-9.]+e-[0-9]+", difference).group()) <= 1e-5
    images = IMAGES if flags else IMAGES / 255
    np.testing.assert_allclose(answers_of(tmp_path / "new" / "a.onnx", images),
                               predict(saved, SCALED), atol=1e-5)


@pytest.mark.parametrize(("flags", "words"), [
    (["a", "--onnx", "file/a.onnx"], ["file: is no folder"]),
    (["a", "--onnx", "."], ["expected a name that ends in .onnx"]),
    (["a", "--onnx", "folder.onnx"], ["names no file"]),
    (["a", "--onnx", "a.onnx", "--output", "c"], ["--output", "no meaning with --onnx"]),
    (["a", "--onnx", "a.onnx", "--image-shape", "2,28,28"], ["not for images of 2 x 28 x 28"]),
])
def test_bad_input_is_refused(run, refused, saved, tmp_path, flags, words):
    (tmp_path / "folder.onnx").mkdir()
    before = {str(path) for path in tmp_path.rglob("*")}
    refused(run(*flags), *words)
    assert {str(path) for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(run, refused, saved, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    refused(run("a", "--onnx", "a.onnx"), package, "pip install onnx onnxruntime")


def test_other_answers_than_mxnet_s_are_not_written(run, refused, saved, monkeypatch, tmp_path):
    monkeypatch.setitem(onnx_operators.TRANSLATIONS, "_copy", lambda model, node: model.add(
        "Neg", node.inputs, node.outputs))
    refused(run("a", "--onnx", "a.onnx"), "a.onnx: not written", "differ from MXNet's by")
    monkeypatch.setitem(onnx_operators.TRANSLATIONS, "_copy", lambda model, node: model.add(
        "Not", node.inputs, node.outputs))
    refused(run("a", "--onnx", "a.onnx"), "a.onnx: ONNX does not take this network")
    assert not (tmp_path / "a.onnx").exists()


def test_a_wrong_rewriting_is_noticed(run, refused, saved, monkeypatch, tmp_path):
    monkeypatch.setattr(rewrite, "_softmax_axis", lambda attrs: {"axis": "0"})
    refused(run("a", "--onnx", "a.onnx"), "a.onnx: not written", "differ from MXNet's by")
    assert not (tmp_path / "a.onnx").exists()
