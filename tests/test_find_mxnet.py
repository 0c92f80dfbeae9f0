import glob
import os
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest

from common import find_mxnet
from tests.conftest import ROOT


def run(*command, **environment):
    return subprocess.run(command, cwd=ROOT, env=dict(os.environ, **environment),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)


@pytest.mark.parametrize("version", [(3, 8), (3, 9), (3, 10), (3, 11), (3, 12), (3, 13)])
@pytest.mark.parametrize("machine", find_mxnet.WHEELS)
def test_suitable_pythons(version, machine):
    assert find_mxnet.unsuitable(version, 64, *machine) is None


@pytest.mark.parametrize(("version", "bits", "system", "machine"), [
    ((3, 7, 16), 64, "Linux", "x86_64"), ((3, 14, 0), 64, "Linux", "x86_64"),
    ((2, 7, 18), 64, "Linux", "x86_64"), ((3, 11, 0), 32, "Linux", "x86_64"),
    ((3, 11, 0), 64, "Windows", "AMD64"), ((3, 11, 0), 64, "Darwin", "arm64")])
def test_unsuitable_pythons_are_told_what_works(version, bits, system, machine):
    complaint = find_mxnet.unsuitable(version, bits, system, machine)
    assert "3.8 to 3.13" in complaint
    assert "\n" not in complaint


def test_import_is_silent_even_where_warnings_are_errors():
    code = "from common import find_mxnet; import mxnet; print(mxnet.nd.ones(2).shape)"
    done = run(sys.executable, "-W", "error", "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(2,)\n", "")


def test_numpy_names_that_exist_are_left_alone():
    code = ("import numpy; before = dict(vars(numpy)); from common import find_mxnet;"
            "print([n for n, v in before.items() if vars(numpy).get(n) is not v])")
    assert run(sys.executable, "-c", code).stdout == "[]\n"


def test_missing_numpy_names_are_filled_in():
    bare = types.SimpleNamespace(inf=np.inf, nan=np.nan, all=np.all, bool="mine")
    find_mxnet.mend_numpy(bare)
    assert bare.bool == "mine"
    assert bare.float is float
    assert bare.alltrue is np.all
    assert np.isposinf(bare.PINF)
    with pytest.raises(NotImplementedError):
        bare.pmt()


def test_threads_of_the_user_stay():
    code = "from common import find_mxnet; import os; print(os.environ['OMP_NUM_THREADS'])"
    assert run(sys.executable, "-c", code, OMP_NUM_THREADS="2").stdout == "2\n"


def test_sums_are_not_fused_unless_mxnet_has_read_that_already():
    code = ("from common import find_mxnet; import importlib, os; name = find_mxnet.UNFUSED_SUMS; "
            "print(os.environ[name]); os.environ[name] = '0'; importlib.reload(find_mxnet); "
            "print(os.environ[name])")
    assert run(sys.executable, "-c", code,
               MXNET_DISABLE_MKLDNN_FUSE_CONV_SUM="0").stdout == "1\n0\n"


def test_a_python_without_mxnet_is_told_what_to_do():
    done = run(sys.executable, "-S", "train_mnist.py")  # -S: without site-packages
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "make setup" in done.stderr


def interpreters(version):
    managed = os.path.join(os.environ.get("PYENV_ROOT", ""), "versions", version + ".*")
    return [path for path in [f"python{version}", *glob.glob(os.path.join(managed, "bin/python"))]
            if shutil.which(path) and run(path, "-c", "").returncode == 0]


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_old_pythons_can_read_the_complaint(version):
    found = interpreters(version)
    if not found:
        pytest.skip(f"no Python {version} on this machine")
    for command in ([found[0], "common/find_mxnet.py"], ["make", "setup", f"PYTHON={found[0]}"]):
        done = run(*command)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "3.8 to 3.13" in done.stderr


def test_make_refuses_what_is_no_python():
    done = run("make", "setup", "PYTHON=no-such-python")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no-such-python" in done.stderr
