"""common/doctor.py as make doctor runs it: in whole and in broken environments."""
import os
import shutil
import subprocess
import sys
import venv

import pytest

from common.data import datasets, idx, mnist
from tests.conftest import ROOT


def consult(folder, python=sys.executable, **variables):
    """Runs it in a folder; returns its exit status and its rows: what -> (status, text)."""
    environment = {**os.environ, "PYTHONPATH": ROOT, **variables}
    done = subprocess.run(
        [python, "-m", "common.doctor"], cwd=str(folder), env=environment, timeout=120,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True)
    assert done.stderr == ""
    rows = [(line[:7].strip(), line[8:31].strip(), line[32:]) for line in done.stdout.splitlines()]
    assert {status for status, _, _ in rows} <= {"ok", "-", "BROKEN"}
    assert "Traceback" not in done.stdout
    return done.returncode, {what: (status, text) for status, what, text in rows}, done.stdout


def test_where_all_is_well(tmp_path):
    status, rows, said = consult(ROOT, HOME=str(tmp_path), MXNET_HOME=f"{tmp_path}/mx")
    assert status == 0, said
    assert rows["MXNet"][1].startswith("1.9.1, package mxnet")
    assert rows["SpatialTransformer"][0] == "ok"
    assert "MXNET_HOME=~/mx" in said
    assert rows["data/mnist"] == ("ok", "4 of 4 files as published")
    for folder in (ROOT, str(tmp_path), sys.prefix, sys.base_prefix):
        assert folder not in said


def test_missing_damaged_and_own_files(tmp_path):
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    published = os.path.join(ROOT, "data", "mnist")
    for name in mnist.NAMES[1:]:
        shutil.copy(os.path.join(published, name), folder)
    (folder / mnist.NAMES[3]).write_bytes((folder / mnist.NAMES[3]).read_bytes()[:-1])
    own = datasets.load("synthetic", num_examples=100).test_images
    (folder / mnist.NAMES[2]).write_bytes(idx.encode(own))
    status, rows, _ = consult(tmp_path)
    assert status == 2
    assert rows["data/mnist"][1].startswith("1 of 4 files as published, 1 missing: "
                                               f"not fetched beside {mnist.NAMES[2]}")
    assert rows["data/fashion-mnist"] == ("-", "0 of 4 files as published, 4 missing: python -m "
                                               "common.data.mnist fashion-mnist fetches them")
    assert rows[mnist.NAMES[2]] == ("ok", "not the published one: taken as your own")
    assert rows[mnist.NAMES[3]][0] == "BROKEN"
    assert "there are 10007" in rows[mnist.NAMES[3]][1]


def test_a_python_without_anything(tmp_path):
    venv.create(str(tmp_path / "bare"), symlinks=True)
    status, rows, _ = consult(ROOT, str(tmp_path / "bare" / "bin" / "python"))
    assert status == 2
    assert rows["Python"][0] == "ok"
    assert rows["numpy"] == ("BROKEN", "not installed")
    assert rows["onnx"] == ("-", "not installed")
    assert rows["MXNet"][0] == "BROKEN"
    assert "cannot import MXNet" in rows["MXNet"][1]
    assert rows["data"][0] == "BROKEN"


@pytest.mark.parametrize("fault", ["import os; os.abort()", "raise OSError('libcudart.so.11.0')",
                                   "1 / 0", "syntax error"])
def test_an_mxnet_that_cannot_be_imported(tmp_path, fault):
    (tmp_path / "mxnet.py").write_text(fault)
    status, rows, _ = consult(ROOT, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert status == 2
    assert rows["MXNet"][0] == "BROKEN"
    assert rows["data/mnist"][0] == "ok"
