"""What earlier versions wrote, read by this one: see make_golden.py."""
import functools
import glob
import json
import logging
import os
import shutil

import mxnet as mx
import numpy as np
import pytest

import score
import symbols
import train_mnist
from common.models import export_folder, metrics, to_onnx, trained
from common.storage import checkpoint
from tests import make_golden
from tests.conftest import ROOT
from tests.test_export_folder import loaded

GOLDEN = os.path.join(ROOT, "tests", "golden")
EXPORTS = sorted(glob.glob(os.path.join(GOLDEN, "*", "exports", "*", "")))


def short(path):
    return os.path.relpath(path, GOLDEN)


@pytest.fixture(params=EXPORTS, ids=short)
def golden(request):
    """The folder of an export, images for it, and its outputs by name."""
    with np.load(f"{os.path.dirname(request.param)}.npz") as arrays:
        arrays = dict(arrays)
    return request.param, arrays.pop("images"), arrays


def golden_names(generation):
    """The names of a generation: see ``make_golden.all_names``."""
    with open(os.path.join(GOLDEN, generation, "names.json"), encoding="utf-8") as file:
        return json.load(file)


def test_there_is_a_golden_export_of_every_kind():
    """A network or transform that has been added since waits for the next generation."""
    newest = max(os.listdir(GOLDEN), key=int)
    there = set(os.listdir(os.path.join(GOLDEN, newest, "exports")))
    known = {(network, json.loads(options).get("transform")) for network, _, options
             in (key.partition(" ") for key in golden_names(newest))}
    missing = [name for name, options in make_golden.MODELS.items()
               if (options["network"], options.get("transform")) in known
               and not {name, f"{name}.npz"} <= there]
    assert not missing, f"python -m tests.make_golden tests/golden/{int(newest) + 1}"


def test_exports_answer_as_they_did(golden):
    folder, images, outputs = golden
    network = trained.load(folder)
    assert export_folder.image_shape(folder) == images.shape[1:]
    for name, expected in outputs.items():
        found = network.predictor(images.shape[1:], name, batch_size=4)(images)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        if name != "softmax_output":  # the thetas are off the identity
            assert expected.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(metrics.probabilities(network, images), outputs["softmax_output"],
                               atol=1e-6)


def test_mxnet_alone_answers_as_it_did(golden):
    folder, images, outputs = golden
    scale = 1 if "raw-input" in folder else 255
    batch = mx.io.DataBatch([mx.nd.array(images / scale)])
    np.testing.assert_allclose(loaded(folder, batch), outputs["softmax_output"], atol=1e-6)


def test_exports_become_onnx_models(golden, tmp_path):
    folder, images, _ = golden
    network = trained.load(folder)
    params = network.checked_params(network.symbol, images.shape[1:])
    path = str(tmp_path / "a.onnx")
    assert to_onnx.save(path, network.symbol, *params, images.shape[1:]) <= 1e-5


@pytest.mark.parametrize("generation", sorted(os.listdir(GOLDEN)))
def test_names_stay(generation):
    names = golden_names(generation)
    assert len(names) >= 40
    for key, expected in names.items():
        network, _, options = key.partition(" ")
        symbol = symbols.get_symbol(network, **json.loads(options))
        assert make_golden.names(symbol) == expected, key


@pytest.fixture(params=sorted(os.listdir(GOLDEN)))
def training(request, tmp_path):
    """A copy of a training that was stopped after one of two epochs, and its prefix in it."""
    shutil.copytree(os.path.join(GOLDEN, request.param, "training"), str(tmp_path),
                    dirs_exist_ok=True)
    return str(tmp_path / "a")


def test_a_training_goes_on_as_it_would_have(training, run_main, caplog):
    caplog.set_level(logging.INFO)
    done = run_main(train_mnist, *make_golden.TRAINING)
    assert done.returncode == 0, done.stderr
    assert checkpoint.epochs(training) == [1, 2]
    assert checkpoint.load_state(training, 2)[1]["updates"] == 20
    expected = mx.nd.load(os.path.join(os.path.dirname(training), "finished.params"))
    found = mx.nd.load(f"{training}-0002.params")
    before = mx.nd.load(f"{training}-0001.params")
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].asnumpy(), value.asnumpy(), atol=1e-4)
        assert (before[name] - value).abs().max().asscalar() > 1e-3
    assert "Resumes from the checkpoint after 1 epochs" in caplog.text
    assert "Goes on, but not as the run would have" not in caplog.text


def test_a_checkpoint_is_scored(training, run_main):
    run = functools.partial(run_main, score)
    done = run("a", "--data-dir", ".", "--distort", "R")
    assert done.returncode == 0, done.stderr
    with np.load(f"{training}-0001.state") as state:
        history = json.loads(str(state["meta"]))["history"]
    assert f"Test accuracy: {history[0]['test_accuracy']:.4f}" in done.stdout
