"""Each program of examples/ as a user runs it."""
import glob
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT, run_script

FOLDER = os.path.join(ROOT, "examples")
EXAMPLES = sorted(name[:-len(".py")] for name in os.listdir(FOLDER)
                  if name.endswith(".py") and name != "__init__.py")
A_ONE = r"It is a 1, with probability (0\.9\d\d|1\.000)\n"


def source(name):
    with open(os.path.join(FOLDER, f"{name}.py"), encoding="utf-8") as file:
        return file.read()


def run(name, *flags):
    """What an example prints."""
    done = subprocess.run([sys.executable, "-m", f"examples.{name}", *flags], cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300,
                          universal_newlines=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def accuracy(printed):
    return float(re.fullmatch(r"Test accuracy: (\d\.\d{3})\n", printed).group(1))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_says_how_it_is_run(name):
    assert f"\n    python -m examples.{name}" in source(name).split('"""')[1]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_pages_lead_to_an_example(name):
    pages = ""
    for page in glob.glob(os.path.join(ROOT, "docs", "*.md")):
        with open(page, encoding="utf-8") as file:
            pages += file.read()
    assert f"(../examples/{name}.py)" in pages


@pytest.mark.parametrize("name", ["load_in_module", "load_in_gluon", pytest.param(
    "load_in_c", marks=pytest.mark.skipif(sys.platform != "linux",
                                          reason="the C predict API is in Linux's wheel"))])
def test_a_loaded_model_sees_a_one(name):
    assert re.fullmatch(A_ONE, run(name))


def test_parts_are_cut_out():
    printed = run("cut_out_parts")
    assert re.match(r"theta: \[( *-?\d\.\d*){6}\]\n", printed)
    assert "picture of shape (1, 28, 28)\nfeatures of shape (50,)\n" in printed


def test_onnxruntime_sees_a_one(tmp_path):
    path = str(tmp_path / "stn.onnx")
    assert run_script("export.py", "published/mnist-lenet-stn", "--onnx", path).returncode == 0
    assert re.fullmatch(A_ONE, run("run_onnx", path))
    none = subprocess.run([sys.executable, "-m", "examples.run_onnx"], cwd=ROOT, check=False,
                          stderr=subprocess.PIPE, encoding="utf-8")
    assert none.returncode == 2
    assert none.stderr.startswith("usage: ")
    assert "mxnet" not in re.findall(r"^(?:import|from) (\w+)", source("run_onnx"), flags=re.M)


def test_a_model_learns_other_classes_as_its_transformer_lives():
    assert accuracy(run("fine_tune")) > 0.95


@pytest.mark.slow
def test_a_model_learns_nothing_by_full_steps(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    text, count = re.subn(r',\s*"clip_gradient": 1', "", source("fine_tune"))
    assert count == 1
    exec(text, {})
    assert accuracy(capsys.readouterr().out) < 0.7


def test_a_lifted_transformer_straightens_what_the_classifier_sees():
    assert accuracy(run("lift_stn")) > 0.95


def test_a_network_of_gluon_trains_and_is_exported(tmp_path):
    folder = str(tmp_path / "export")
    printed = run("gluon_mnist", "--num-epochs", "1", "--num-examples", "4000", "--folder", folder)
    said = float(re.match(r"Epoch 1: test accuracy (\d\.\d{4})\n", printed).group(1))
    assert said > 0.8
    assert os.path.getsize(f"{folder}.png")
    scored = run_script("score.py", folder).stdout
    assert f"Test accuracy: {said:.4f}" in scored
    assert run_script("export.py", folder, "--onnx", tmp_path / "stn.onnx").returncode == 0


@pytest.mark.slow
def test_the_classifier_is_worse_without_the_lifted_transformer(capsys):
    text = source("lift_stn")
    without = text.replace("FullyConnected(straightened", "FullyConnected(data")
    assert without != text
    exec(without, {})
    assert 0.5 < accuracy(capsys.readouterr().out) < 0.7
