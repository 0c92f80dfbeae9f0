"""The networks as ONNX models, run by onnxruntime."""
import functools
import sys

import mxnet as mx
import numpy as np
import onnx
import onnxruntime
import pytest

import export as script
from common import checkpoint, export, graph, to_onnx, transformers
from symbols import stn
from tests.test_export import IMAGES, SCALED, network
from tests.test_networks import predict

SMALL = (1, 28, 28)
CASES = [("lenet", {"transform": transform, "bounded": bounded}, SMALL)
         for transform in (*stn.TRANSFORMS, "tps:3") for bounded in (False, True)]
CASES += [("lenet", {"add_stn": False}, (3, 30, 26)), ("lenet", {"target_shape": (20, 30)}, SMALL),
          ("cnn", {"transform": "similarity", "pool": 2}, (1, 43, 60)),
          ("cnn", {"transform": "projective"}, SMALL), ("mlp", {"transform": "tps"}, SMALL),
          ("addition", {"transform": "affine", "pool": 2}, (2, 42, 42))]


def answers_of(path, images):
    """The answers of onnxruntime to images (N, C, H, W)."""
    model = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answers, = model.run(["softmax_output"], {"data": np.float32(images)})
    return answers


def points_inside(symbol, module, batch):
    """The fractions of points inside the image, of all transformers and images."""
    found = transformers.transformers(symbol)
    internals = symbol.get_internals()
    outputs = mx.sym.Group([internals[each.where] for each in found])
    params = module.get_params()[0]
    grids = outputs.eval(data=batch.data[0], **{
        name: params[name] for name in outputs.list_arguments() if name != "data"})
    return np.stack([transformers.inside(transformers.source_grid(grid.asnumpy(), each))
                     for each, grid in zip(found, grids)])


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
    difference = to_onnx.save(str(path), graph.label_free(symbol), *module.get_params(),
                              image_shape)
    assert difference <= 1e-5
    expected = predict(module, batch)
    for part in (images, images[:1]):
        np.testing.assert_allclose(answers_of(path, part), expected[:len(part)], atol=1e-5)


@pytest.mark.parametrize("transform", [*stn.TRANSFORMS, "tps:10"])
def test_the_models_are_small_and_for_old_runtimes_too(tmp_path, transform):
    symbol, module = network(transform=transform)
    to_onnx.save(str(tmp_path / "a.onnx"), graph.label_free(symbol), *module.get_params(), SMALL)
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


@pytest.mark.parametrize(("symbol", "words"), [
    (lambda data: mx.sym.erf(data, name="a"), "a: the operator erf"),
    (lambda data: mx.sym.BatchNorm(data, name="a"), "a: the operator BatchNorm"),
    (lambda data: mx.sym.Dropout(data, mode="always", name="a"), "a: a dropout that drops in pred"),
    (lambda data: mx.sym.FullyConnected(data, num_hidden=2, flatten=False, name="a"), "flatten"),
    (lambda data: mx.sym.Pooling(data, kernel=(2, 2), global_pool=True, name="a"), "this pooling"),
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


@pytest.fixture
def saved(tmp_path):
    """The Module of a network of which there is the checkpoint "a" and the export "b"."""
    symbol, module = network(transform="affine")
    checkpoint.save(str(tmp_path / "a"), 3, symbol, *module.get_params(), {}, {})
    export.export(str(tmp_path / "b"), symbol, *module.get_params(), SMALL, raw_input=True)
    (tmp_path / "file").write_text("")
    return module


@pytest.mark.parametrize("model", ["a", "b"])
@pytest.mark.parametrize("flags", [[], ["--raw-input"]])
def test_the_script_writes_a_model(run, saved, tmp_path, model, flags):
    done = run(model, "--onnx", "new/a.onnx", *flags)
    assert done.returncode == 0, done.stderr
    written, difference = done.stdout.splitlines()
    assert written == "Exported: new/a.onnx"
    assert float(difference.split()[-1]) <= 1e-5
    images = IMAGES if flags else IMAGES / 255
    np.testing.assert_allclose(answers_of(tmp_path / "new" / "a.onnx", images),
                               predict(saved, SCALED), atol=1e-5)


@pytest.mark.parametrize(("flags", "words"), [
    (["a", "--onnx", "file/a.onnx"], ["file"]),
    (["a", "--onnx", "."], ["names no file"]),
    (["a", "--onnx", "a.onnx", "--output", "c"], ["--output", "no meaning with --onnx"]),
    (["a", "--onnx", "a.onnx", "--image-shape", "2,28,28"], ["not for images of 2 x 28 x 28"]),
    (["b"], ["b: an export already"]),
])
def test_bad_input_is_refused(run, refused, saved, tmp_path, flags, words):
    before = {str(path) for path in tmp_path.rglob("*")}
    refused(run(*flags), *words)
    assert {str(path) for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(run, refused, saved, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    refused(run("a", "--onnx", "a.onnx"), package, "pip install onnx onnxruntime")


def test_other_answers_than_mxnet_s_are_not_written(run, refused, saved, monkeypatch, tmp_path):
    monkeypatch.setitem(to_onnx.RENAMED, "_copy", "Neg")
    refused(run("a", "--onnx", "a.onnx"), "a.onnx: not written", "differ from MXNet's by")
    monkeypatch.setitem(to_onnx.RENAMED, "_copy", "Not")
    refused(run("a", "--onnx", "a.onnx"), "a.onnx: ONNX does not take this network")
    assert not (tmp_path / "a.onnx").exists()
