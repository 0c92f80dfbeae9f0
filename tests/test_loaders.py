"""Exports in programs that know nothing of this zoo, on 1,000 test images of MNIST."""
import glob
import json
import os
import shutil
import subprocess
import sys

import mxnet as mx
import numpy as np
import onnxruntime
import pytest

from common.graph import rewrite
from common.models import export_folder, quantize, to_onnx, trained
from symbols import stn
from tests.conftest import ROOT
from tests.test_export_folder import network
from tests.test_networks import bound, predict
from tests.test_published import PUBLISHED, mnist, test_set

pytestmark = pytest.mark.slow

COUNT = 1000
NETWORKS = {"plain": {"add_stn": False},
            **{transform: {"transform": transform} for transform in stn.TRANSFORMS},
            "bounded": {"transform": "projective", "bounded": True}, "stable": {"stable": True}}
IN_INT8 = {"lenet in int8": {}, "resnet in int8": {"network": "resnet"}}


def expected(symbol, params, images):
    """The answers of a training symbol, as a Module gives them, and theta if there is any."""
    internals = symbol.get_internals()
    outputs = {"answers": symbol}
    if "stn_theta_output" in internals.list_outputs():
        outputs["theta"] = internals["stn_theta_output"]
    found = {}
    for name, output in outputs.items():
        module = mx.mod.Module(output, label_names=["softmax_label"] if name == "answers" else None)
        module.bind([("data", images.shape)], for_training=False)
        module.set_params(*params, allow_extra=True)
        found[name] = predict(module, mx.io.DataBatch([mx.nd.array(images)]))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an export of every kind, and beside each its images and answers."""
    folder = tmp_path_factory.mktemp("exports")
    images = mnist()[0][:COUNT, None]
    for name, options in NETWORKS.items():
        symbol, module = network(**options)
        params = module.get_params()
        export_folder.export(str(folder / name), symbol, *params, (1, 28, 28))
        np.savez(folder / f"{name}.npz", images=images / np.float32(255),
                 **expected(symbol, params, images / np.float32(255)))
    for name, options in IN_INT8.items():
        symbol, module = network(**options)
        scaled = images / np.float32(255)
        params = module.get_params()
        small = quantize.quantized(rewrite.label_free(symbol), *params, scaled)
        export_folder.export(str(folder / name), symbol, *params, (1, 28, 28), deployed=small)
        answers = trained.Trained(name, small, *params).predictor((1, 28, 28))(images)
        np.savez(folder / f"{name}.npz", images=scaled, answers=answers)
    for name in PUBLISHED:
        path = os.path.join(ROOT, "published", name)
        shutil.copytree(path, str(folder / name))
        images = test_set(name)[0][:COUNT] / np.float32(255)
        symbol = mx.sym.load(os.path.join(path, "model-train-symbol.json"))
        _, *params = mx.model.load_checkpoint(os.path.join(path, "model"), 0)
        np.savez(folder / f"{name}.npz", images=images, **expected(symbol, params, images))
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="the C predict API is in Linux's wheel")
def test_bare_programs_load_them(folder):
    differences = run_bare(folder, [*NETWORKS, *IN_INT8, *PUBLISHED])
    for name in (*NETWORKS, *IN_INT8, *PUBLISHED):
        with np.load(str(folder / f"{name}.npz")) as arrays:
            moving = "theta" in arrays
            assert not moving or arrays["theta"].std(axis=0).min() > 0.001
        assert len(differences[name]) == (9 if moving else 5), name
        assert max(differences[name].values()) < 1e-6, (name, differences[name])


@pytest.mark.skipif(sys.platform != "linux", reason="the C predict API is in Linux's wheel")
def test_in_int8_sums_of_convolutions_need_no_setting(tmp_path):
    """In float32 MXNet fuses them wrongly on the first CPU device without ``UNFUSED_SUMS``."""
    images, net = mnist()[0][:100, None], convolution(mx.sym.Variable("data"), "conv1")
    for name in ("conv2", "conv3"):
        net = net + convolution(mx.sym.Activation(net, act_type="relu"), name)
    net = mx.sym.FullyConnected(net, num_hidden=10, name="fc")
    symbol = mx.sym.SoftmaxOutput(net, name="softmax")
    params = bound(symbol, (1, 28, 28)).get_params()
    float32 = rewrite.label_free(symbol)
    int8 = quantize.quantized(float32, *params, images / np.float32(255))
    for name, deployed in (("float32", float32), ("int8", int8)):
        export_folder.export(str(tmp_path / name), symbol, *params, (1, 28, 28), deployed=deployed)
        answers = trained.Trained(name, deployed, *params).predictor((1, 28, 28))(images)
        np.savez(tmp_path / f"{name}.npz", images=images / np.float32(255), answers=answers)
    found = run_bare(tmp_path, ["float32", "int8"], fused_sums=True)
    assert max(found["float32"].values()) > 0.01
    assert max(found["int8"].values()) < 1e-6


def convolution(net, name):
    return mx.sym.Convolution(net, num_filter=8, kernel=(3, 3), pad=(1, 1), name=name)


def run_bare(folder, names, fused_sums=False):
    """What ``bare_loaders.py`` says of the exports of some names, with MXNet's own sums or not."""
    for path in (*glob.glob(os.path.join(ROOT, "examples", "*.py")),
                 os.path.join(ROOT, "common", "find_mxnet.py"),
                 os.path.join(ROOT, "tests", "bare_loaders.py")):
        shutil.copy(path, str(folder))
    if fused_sums:
        path = folder / "find_mxnet.py"
        path.write_text(path.read_text().replace('[UNFUSED_SUMS] = "1"', '[UNFUSED_SUMS] = "0"'))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "bare_loaders.py", *names], cwd=str(folder),
                          env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [*NETWORKS, *PUBLISHED])
def test_onnx_models_answer_alike(folder, tmp_path, name):
    with np.load(str(folder / f"{name}.npz")) as arrays:
        images, answers = arrays["images"], arrays["answers"]
    model, path = trained.load(str(folder / name)), str(tmp_path / "a.onnx")
    image_shape = images.shape[1:]
    to_onnx.save(path, model.symbol, *model.checked_params(model.symbol, image_shape), image_shape)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found, = session.run(None, {"data": images})
    np.testing.assert_allclose(found, answers, atol=1e-5)
