import glob
import json
import os
import shutil
import subprocess
import sys
import types

import mxnet as mx
import numpy as np
import pytest

import symbols
from common import find_mxnet
from tests.conftest import ROOT, resident


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
    code = ("from common import find_mxnet; import mxnet; print(mxnet.nd.ones(2).shape); "
            "print(mxnet.nd.array([0, 1]).shape)")
    done = run(sys.executable, "-W", "error", "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(2,)\n(2,)\n", "")


def test_without_docstrings_it_says_what_to_do():
    done = run(sys.executable, "-OO", "score.py", "published/mnist-lenet-stn")
    assert (done.returncode, done.stdout, done.stderr) == (
        2, "", "MXNet 1.9.1 needs docstrings: leave out -OO and PYTHONOPTIMIZE=2\n")


def test_settings_that_are_empty_are_none():
    code = ("from common import find_mxnet; import mxnet, os; mxnet.nd.ones(2).wait_to_read(); "
            "print(sorted(name for name, value in os.environ.items() if not value))")
    done = run(sys.executable, "-c", code, MXNET_ENGINE_TYPE="", DMLC_ROLE="", OTHER="",
               MXNET_CPU_WORKER_NTHREADS="")
    assert (done.returncode, done.stderr) == (0, "")
    assert "'OTHER'" in done.stdout
    assert "MXNET" not in done.stdout


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


def test_scipy_s_statistics_are_loaded_when_they_are_used():
    code = ("from common import find_mxnet; import sys; print('scipy.stats' in sys.modules);"
            "from mxnet.contrib import quantization; print(quantization.stats.entropy([1.0]));"
            "import scipy.stats; print(scipy.stats.entropy is quantization.stats.entropy)")
    done = run(sys.executable, "-c", code)
    assert (done.stdout, done.stderr) == ("False\n0.0\nTrue\n", "")


def test_scipy_s_statistics_stay_where_they_are_loaded_before():
    code = ("import scipy.stats; from common import find_mxnet; import sys;"
            "from mxnet.contrib import quantization;"
            "print(sys.modules['scipy.stats'] is scipy.stats is quantization.stats)")
    assert run(sys.executable, "-c", code).stdout == "True\n"


def test_what_is_used_in_the_import_is_loaded_there():
    code = ("import sys; from common import find_mxnet; names = []\n"
            "def load(): import scipy.stats as ss, scipy.stats.mstats; names.append(ss.norm)\n"
            "find_mxnet.with_seldom_used(['scipy.stats'], load)\n"
            "print(sys.modules['scipy.stats'].norm is names[0])")
    done = run(sys.executable, "-c", code)
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize("name", find_mxnet.SELDOM_USED)
def test_what_mxnet_seldom_uses_is_there_for_others(name):
    code = ("from common import find_mxnet; import importlib, sys; name = sys.argv[1];"
            "print(name in sys.modules, importlib.import_module(name).__name__)")
    done = run(sys.executable, "-c", code, name)
    assert (done.stdout, done.stderr) == (f"False {name}\n", "")


def test_mxnet_reads_what_it_seldom_uses():
    code = ("from common import find_mxnet; import h5py, mxnet as mx, numpy as np;"
            "file = h5py.File('in memory', 'w', driver='core', backing_store=False);"
            "data = file.create_dataset('x', data=np.ones((4, 2), np.float32));"
            "print(next(mx.io.NDArrayIter(data, batch_size=4)).data[0].sum().asscalar())")
    done = run(sys.executable, "-c", code)
    assert (done.stdout, done.stderr) == ("8.0\n", "")


def test_mxnet_reads_arrays_where_h5py_is_broken(tmp_path):
    (tmp_path / "h5py.py").write_text("raise ImportError('libhdf5.so.310 is missing')")
    code = ("from common import find_mxnet; import mxnet as mx;"
            "print(mx.io.NDArrayIter(mx.nd.ones((3, 2))).provide_data[0].shape)")
    done = run(sys.executable, "-c", code, PYTHONPATH=str(tmp_path))
    assert (done.stdout, done.stderr) == ("(1, 2)\n", "")


def test_mxnet_does_without_what_is_not_installed(tmp_path):
    # A folder without h5py, onnx and scipy: what the interpreter has besides is given by links.
    site = os.path.dirname(os.path.dirname(mx.__file__))
    for entry in os.listdir(site):
        if entry.split("-")[0].split(".")[0] not in ("h5py", "onnx", "scipy"):
            os.symlink(os.path.join(site, entry), tmp_path / entry)
    code = ("import sys; sys.path.insert(0, sys.argv[1]); from common import find_mxnet;"
            "import mxnet as mx; from mxnet.contrib import quantization as q;"
            "print(q.stats, mx.io.utils.h5py,"
            "mx.io.NDArrayIter(mx.nd.ones((3, 2))).provide_data[0].shape)")
    done = run(sys.executable, "-S", "-c", code, str(tmp_path))
    assert (done.stdout, done.stderr) == ("None None (1, 2)\n", "")


def test_distutils_is_left_to_others():
    code = ("import sys; before = set(sys.modules); from common import find_mxnet;"
            "print(sorted(name for name in set(sys.modules) - before"
            "             if name.startswith(('distutils', 'setuptools', 'pkg_resources'))))")
    others = "import setuptools, distutils.version; print(distutils.version.__file__)"
    alone, after, before = (run(sys.executable, "-W", "ignore", "-c", text) for text in (
        others, f"{code};{others}", f"import distutils; from common import find_mxnet; {others}"))
    assert alone.stdout.endswith("version.py\n")
    assert after.stdout == "[]\n" + alone.stdout
    assert before.stdout == alone.stdout


def test_mxnet_works_without_scipy():
    code = ("import sys; sys.modules['scipy'] = None; from common import find_mxnet; import mxnet;"
            "from mxnet.contrib import quantization; print(quantization.stats)")
    done = run(sys.executable, "-c", code)
    assert (done.stdout, done.stderr) == ("None\n", "")


def test_mxnet_makes_arrays_where_scipy_has_dropped_what_it_looks_up():
    code = ("import scipy.sparse as sparse; del sparse.csr; from common import find_mxnet;"
            "import mxnet as mx; print(mx.nd.array([1, 2]).shape);"
            "print(mx.nd.array(sparse.csr_matrix([[0, 3]])).stype)")
    done = run(sys.executable, "-c", code)
    assert (done.stdout, done.stderr) == ("(2,)\ncsr\n", "")


def test_arrays_are_made_without_scipy_s_sparse_ones():
    code = ("from common import find_mxnet; import mxnet as mx, sys;"
            "made = mx.nd.array([[0, 3]]); print('scipy.sparse' in sys.modules);"
            "theirs = made.tostype('csr').asscipy(); print(type(theirs).__name__, theirs.sum());"
            "print(mx.nd.array(theirs).stype, mx.nd.sparse.array(theirs).stype)")
    done = run(sys.executable, "-W", "error", "-c", code)
    assert (done.stdout, done.stderr) == ("False\ncsr_matrix 3.0\ncsr csr\n", "")


def test_threads_of_the_user_stay():
    code = "from common import find_mxnet; import os; print(os.environ['OMP_NUM_THREADS'])"
    assert run(sys.executable, "-c", code, OMP_NUM_THREADS="2").stdout == "2\n"


@pytest.mark.parametrize(("value", "left"), [
    ("", None), (" ", None), ("2", "2"), (" 2 ", "2"), ("4,2", "4"), ("4, 2,1", "4")])
def test_numbers_of_threads_as_openmp_takes_them(value, left):
    environment = {"OMP_NUM_THREADS": value}
    assert find_mxnet.mend_threads(environment) is None
    assert environment.get("OMP_NUM_THREADS") == left


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", "1e3", ",2", "99999999999", "²", "٣",
                                   "1" * 5000])
def test_what_is_no_number_of_threads_is_named(value):
    complaint = find_mxnet.mend_threads({"OMP_NUM_THREADS": value})
    assert complaint.startswith(f"OMP_NUM_THREADS={value!r}: expected a number of threads")


def test_mxnet_computes_with_threads_as_openmp_takes_them():
    code = ("from common import find_mxnet; from common.models import devices; "
            "print(devices.contexts(None, None, 256)[0])")
    assert run(sys.executable, "-c", code, OMP_NUM_THREADS="4,2").stdout == "cpu(0)\n"


def test_a_bad_number_of_threads_ends_a_script_in_one_line():
    done = run(sys.executable, "score.py", "--help", OMP_NUM_THREADS="0")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "OMP_NUM_THREADS='0'" in done.stderr


@pytest.mark.parametrize("name", find_mxnet.COUNTS)
@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", "2 3", "²", "1025"])
def test_settings_that_mxnet_hangs_or_crashes_on_are_named(name, value):
    complaint = find_mxnet.wrong_setting({name: value})
    assert complaint.startswith(f"{name}={value!r}: expected a number from 1 to 1024")


@pytest.mark.parametrize("setting", [
    {}, {"MXNET_CPU_WORKER_NTHREADS": " 1 "}, {"MXNET_CPU_TEMP_COPY": "1024"},
    *({"MXNET_ENGINE_TYPE": engine} for engine in find_mxnet.ENGINES)])
def test_mxnet_computes_with_settings_that_are_good(setting):
    assert find_mxnet.wrong_setting(setting) is None
    code = "from common import find_mxnet; import mxnet; print(mxnet.nd.ones(2).sum().asscalar())"
    assert run(sys.executable, "-c", code, **setting).stdout == "2.0\n"


def test_a_bad_setting_ends_a_script_in_one_line():
    done = run(sys.executable, "score.py", "--help", MXNET_ENGINE_TYPE="NaiveEngin")
    assert (done.returncode, done.stdout, done.stderr) == (
        2, "", "MXNET_ENGINE_TYPE='NaiveEngin': expected NaiveEngine, ThreadedEngine or "
        "ThreadedEnginePerDevice\n")


GROUP = {"DMLC_ROLE": "scheduler", "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": "9091",
         "DMLC_NUM_WORKER": "2", "DMLC_NUM_SERVER": "1"}


@pytest.mark.parametrize(("changes", "words"), [
    ({"DMLC_ROLE": "Worker"}, "DMLC_ROLE='Worker': expected scheduler, server or worker"),
    ({"DMLC_PS_ROOT_PORT": "abc"}, "DMLC_PS_ROOT_PORT='abc': expected a number from 1 to 65535"),
    ({"DMLC_PS_ROOT_PORT": "99999", "DMLC_ROLE": "worker"}, "DMLC_PS_ROOT_PORT='99999'"),
    ({"DMLC_PS_ROOT_PORT": "²"}, "DMLC_PS_ROOT_PORT='²'"),
    ({"DMLC_NUM_SERVER": "0", "DMLC_ROLE": "server"}, "DMLC_NUM_SERVER='0'"),
    ({"DMLC_PS_ROOT_URI": "localhost"}, "DMLC_PS_ROOT_URI='localhost': expected the scheduler's"),
    ({"DMLC_PS_ROOT_URI": ""}, "DMLC_PS_ROOT_URI=''")])
def test_what_would_hang_a_group_is_named(changes, words):
    assert find_mxnet.wrong_group({**GROUP, **changes}).startswith(words)


@pytest.mark.parametrize("environment", [
    {}, GROUP, {**GROUP, "DMLC_ROLE": "server", "DMLC_PS_ROOT_URI": "alice"},
    {**GROUP, "DMLC_PS_ROOT_URI": "alice", "DMLC_USE_KUBERNETES": "1"}, {"DMLC_ROLE": "worker"},
    {"DMLC_NUM_SERVER": "0"}])
def test_what_is_set_for_a_group_as_it_should_be(environment):
    assert find_mxnet.wrong_group(environment) is None


def test_a_scheduler_without_the_rest_ends_in_one_line():
    done = run(sys.executable, "train_mnist.py", DMLC_ROLE="scheduler")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "DMLC_PS_ROOT_PORT=''" in done.stderr


@pytest.mark.parametrize(("folder", "line"), [
    (".", "import find_mxnet"), ("common", "from common import find_mxnet")])
def test_a_copy_elsewhere_leaves_the_speed_to_mxnet(folder, line, tmp_path):
    (tmp_path / folder).mkdir(exist_ok=True)
    shutil.copy(os.path.join(ROOT, "common", "find_mxnet.py"), tmp_path / folder)
    code = (f"import os; before = set(os.environ); {line}; import mxnet; "
            "print(sorted(set(os.environ) - before))")
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("MXNET", "OMP"))}
    done = subprocess.run([sys.executable, "-c", code], cwd=str(tmp_path), env=environment,
                          stdout=subprocess.PIPE, universal_newlines=True)
    assert done.stdout == (f"['{find_mxnet.UNFUSED_SUMS}', '{find_mxnet.SUMMED_APART}', "
                           "'MXNET_SUBGRAPH_VERBOSE']\n")


def test_many_gradients_of_one_variable_leave_others_right():
    """MXNet adds up eight and more in the memory of one of them, which may be another's too."""
    data = mx.sym.Variable("data")
    layer = mx.sym.Convolution(data, num_filter=5, kernel=(3, 3), pad=(1, 1), name="layer")
    net = mx.sym.Group([*(mx.sym.relu(data) for _ in range(7)), layer + data])
    executor = net.simple_bind(mx.cpu(), data=(3, 5, 12, 11))
    executor.arg_dict["layer_weight"][:] = 1
    gradients = [mx.nd.random.normal(shape=output.shape)
                 for output in executor.forward(is_train=True)]
    executor.backward(gradients)
    np.testing.assert_allclose(executor.grad_dict["layer_bias"].asnumpy(),
                               gradients[-1].asnumpy().sum(axis=(0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_scripts_find_their_modules_without_their_folder_on_the_path(tmp_path):
    scripts = ["compare_stn", "export", "score", "train_mnist", "visualize_stn"]
    code = ("import runpy, sys; path = list(sys.path)\n"
            "for script in sys.argv[1:]:\n"
            "    sys.path[:] = path\n"
            "    for name in list(sys.modules):\n"
            "        if name.split('.')[0] in ('common', 'symbols', 'train_mnist'):\n"
            "            del sys.modules[name]\n"
            "    runpy.run_path(script)")
    done = subprocess.run(
        [sys.executable, "-c", code, *(os.path.join(ROOT, f"{name}.py") for name in scripts)],
        cwd=str(tmp_path), stderr=subprocess.PIPE, universal_newlines=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "none", "pdf"])
def test_a_notebook_s_backend_does_not_matter(backend):
    code = ("from common.reports import pictures; import os, matplotlib; "
            "print(os.environ['MPLBACKEND'], matplotlib.rcParams['backend'] == 'pdf')")
    done = run(sys.executable, "-c", code, MPLBACKEND=backend)
    assert done.stdout == f"{backend} {backend == 'pdf'}\n"


def test_pictures_look_the_same_whatever_ones_settings(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\n")
    code = ("from common.reports import pictures; import matplotlib; "
            "print(matplotlib.rcParams['text.usetex'], matplotlib.rcParams['font.size'])")
    done = run(sys.executable, "-c", code, MATPLOTLIBRC=str(tmp_path / "matplotlibrc"))
    assert done.stdout == "False 10.0\n"


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


def test_of_a_page_of_advice_the_cause_is_told(tmp_path):
    """NumPy raises such a page where it is for another Python, say."""
    numpy = ("try:\n    import multiarray\n"
             "except ImportError as error:\n    raise ImportError('1\\n2') from error\n")
    (tmp_path / "numpy.py").write_text(numpy)
    done = run(sys.executable, "train_mnist.py", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "No module named 'multiarray'" in done.stderr


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


def test_it_is_imported_first_in_another_thread():
    code = ("import threading; import sys; thread = threading.Thread("
            "target=lambda: __import__('common.find_mxnet')); thread.start(); thread.join(); "
            "print('mxnet' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=True)
    assert (done.stdout, done.stderr) == (b"True\n", b"")


def test_numbers_of_numpy_are_options_of_operators():
    two = np.int64(2)
    array = mx.nd.arange(12).reshape((3, 4))
    assert array[np.int64(1):np.int64(3), two].asnumpy().tolist() == [6, 10]
    assert mx.nd.zeros((two, np.int32(3))).shape == (2, 3)
    symbol = mx.sym.Convolution(mx.sym.Variable("data"), kernel=[two, two], num_filter=two,
                                name="conv")
    assert symbol.infer_shape(data=(1, 1, 4, 4))[1] == [(1, 2, 3, 3)]
    weight = mx.nd.zeros((3, 4))
    mx.init.Orthogonal()(mx.init.InitDesc("weight"), weight)
    product = mx.nd.dot(weight, weight, transpose_b=True).asnumpy()
    np.testing.assert_allclose(product, product[0, 0] * np.eye(3), atol=1e-5)
    assert mx.nd.clip(array, np.float32(0.1), np.float64(0.3)).asnumpy()[0, :2] == pytest.approx(
        [0.1, 0.3])


class Sizes(tuple):
    __slots__ = ()


def test_numbers_of_numpy_are_shapes_of_variables_and_iterators(tmp_path):
    shape = (np.int64(3), 4)
    assert mx.sym.Variable("x", shape=shape).attr("__shape__") == "(3, 4)"
    assert mx.nd.ones(12).reshape(Sizes(shape)).shape == (3, 4)
    (tmp_path / "rows.csv").write_text("1,2\n3,4\n")
    rows = mx.io.CSVIter(data_csv=str(tmp_path / "rows.csv"), data_shape=(np.int64(2),),
                         batch_size=2)
    assert next(rows).data[0].asnumpy().tolist() == [[1, 2], [3, 4]]


def test_a_block_of_gluon_of_numpy_s_sizes_is_exported_whole(tmp_path):
    units, inputs = np.array([5, 4])
    net = mx.gluon.nn.Dense(units, in_units=inputs)
    net.initialize()
    net.hybridize()
    net(mx.nd.ones((2, 4)))
    net.export(str(tmp_path / "dense"))
    module = mx.mod.Module.load(str(tmp_path / "dense"), 0, label_names=None)
    module.bind([("data", (2, 4))], for_training=False)
    assert module.output_shapes[0][1] == (2, 5)


@pytest.mark.parametrize("taken_for_missing", [False, True])
def test_ctrl_c_in_the_import_lets_a_program_clean_up(tmp_path, taken_for_missing):
    """What C imports, as NumPy's does, may say after Ctrl-C that a module is missing."""
    shutil.copy(find_mxnet.__file__, tmp_path)
    stop = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)"
    (tmp_path / "stop.py").write_text(stop)
    taken = "try:\n    import stop\nexcept BaseException:\n    raise ImportError('datetime')\n"
    (tmp_path / "mxnet.py").write_text(taken if taken_for_missing else stop)
    code = ("import signal, sys; sys.path.insert(0, sys.argv[1])\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "try:\n    import find_mxnet\n"
            "finally:\n    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)")
    done = run(sys.executable, "-c", code, str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (130, "True\n", "")


@pytest.mark.parametrize("metric", ["ce", "nll_loss", "loss", "mae"])
def test_metrics_add_up_exactly(metric):
    """NumPy 2 would add up in float16: it comes to infinity, or stays where it is."""
    one, label = mx.nd.array([[0.5]], dtype="float16"), mx.nd.array([0])
    found = mx.metric.create(metric)
    found.update([label], [one])
    _, first = found.get()
    for _ in range(5000):
        found.update([label], [one])
    assert found.get()[1] == pytest.approx(first, rel=1e-9)
    assert found.get_global()[1] == pytest.approx(first, rel=1e-9)


def test_records_of_several_labels_are_packed():
    recordio = mx.recordio
    header, content = recordio.unpack(recordio.pack(recordio.IRHeader(0, [1, 2.5], 3, 0), b"ab"))
    assert (header.label.tolist(), header.id, content) == ([1, 2.5], 3, b"ab")


def test_records_of_pictures_are_packed(tmp_path):
    (tmp_path / "cv2.py").write_text(  # OpenCV is not among what the tests install
        "import numpy\nIMWRITE_JPEG_QUALITY = 1\ndef imencode(suffix, picture, params):\n"
        "    return True, numpy.array([suffix == '.jpg', *picture, *params], numpy.uint8)\n")
    code = ("from common import find_mxnet; import mxnet as mx, numpy; recordio = mx.recordio;"
            "packed = recordio.pack_img(recordio.IRHeader(0, 5, 2, 0), numpy.array([7, 8]), 60);"
            "print(recordio.unpack(packed)[0].label, list(recordio.unpack(packed)[1]))")
    done = run(sys.executable, "-c", code, PYTHONPATH=str(tmp_path))
    assert (done.stdout, done.stderr) == ("5.0 [1, 7, 8, 1, 60]\n", "")


def test_arrays_that_numpy_computes_are_mxnet_s():
    code = ("from common import find_mxnet; import mxnet as mx, numpy; mx.npx.set_np();"
            "q, r = numpy.linalg.qr(mx.np.array([[3., 0], [4, 5]])); print(type(q).__module__);"
            "print(abs(mx.np.dot(q, r)).round().astype(int).tolist());"
            "print(mx.np.pad(mx.np.ones((1, 1)), ((0, 0), (1, 1)), 'edge').shape)")
    done = run(sys.executable, "-c", code)
    assert (done.stdout, done.stderr) == ("mxnet.numpy\n[[3, 0], [4, 5]]\n(1, 3)\n", "")


def test_mxnet_quantizes_by_entropy():
    symbol = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc")
    values = np.random.RandomState(0)
    params = {"fc_weight": mx.nd.array(values.randn(3, 4)), "fc_bias": mx.nd.zeros(3)}
    data = mx.io.NDArrayIter(values.rand(8, 4).astype(np.float32), batch_size=2, label_name=None)
    quantized, *_ = mx.contrib.quantization.quantize_model(
        symbol, params, {}, calib_data=data, num_calib_examples=8, label_names=None)
    operators = {node["op"]: node.get("attrs") for node in json.loads(quantized.tojson())["nodes"]}
    assert "_contrib_quantized_fully_connected" in operators
    assert float(operators["_contrib_quantize_v2"]["max_calib_range"]) > 0


@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array"])
def test_sparse_arrays_of_scipy_are_taken(kind):
    sparse = pytest.importorskip("scipy.sparse")
    theirs = getattr(sparse, kind)(np.array([[0, 3], [4, 0]], np.float32))
    for ours in (mx.nd.sparse.array(theirs), mx.nd.sparse.csr_matrix(theirs)):
        assert ours.stype == "csr"
        assert ours.asnumpy().tolist() == [[0, 3], [4, 0]]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no /proc tells of the memory")
@pytest.mark.parametrize("write", [
    lambda net, _: net.tojson(), lambda net, path: net.save(path)])
def test_a_graph_that_is_written_takes_no_memory_for_ever(write, tmp_path):
    net = symbols.get_symbol("lenet")
    for _ in range(2):
        begin = resident()
        for _ in range(500):
            write(net, str(tmp_path / "net.json"))
    assert resident() - begin < 1  # MiB; it would be 10


def test_a_fork_while_an_array_of_numpy_is_computed_from_does_not_hang():
    code = ("import os; from common import find_mxnet; import mxnet as mx, numpy as np\n"
            "lent = mx.nd.from_numpy(np.ones((1000, 1000), np.float32))\n"
            "product = mx.nd.dot(lent, lent)\n"
            "del lent\n"
            "child = os.fork()\n"
            "if not child: os._exit(7)\n"
            "print(os.waitpid(child, 0)[1] >> 8)")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, timeout=60,
                          stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"7\n"


def test_a_graph_is_written_with_casts_or_without(tmp_path):
    net = mx.sym.relu(mx.sym.amp_cast(mx.sym.Variable("data"), dtype="float16"))
    path = str(tmp_path / "net.json")
    for options, casts in (((), 0), ((True,), 0), ((False,), 1)):
        net.save(path, *options)
        assert mx.sym.load(path).tojson(False) == net.tojson(*options)
        assert net.tojson(*options).count('"op": "amp_cast"') == casts
    assert net.tojson(remove_amp_cast=False) == net.tojson(False) != net.tojson()


def test_dictionaries_are_options_too():
    text = mx.symbol.symbol.str
    assert text({"a": np.int64(2), np.int32(1): (np.float32(0.1), [np.bool_(False)])}) == (
        "{'a': 2, 1: (0.1, [False])}")
    assert text(np.float32(0.1)) == "0.1"


def test_ctrl_c_ends_a_server_which_c_calls(tmp_path):
    shutil.copy(find_mxnet.__file__, tmp_path)
    (tmp_path / "mxnet.py").write_text(
        "import ctypes, os, signal, time\n"
        "def serve():\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(0.1)\n"
        "ctypes.CFUNCTYPE(None)(serve)()\nprint('it goes on')\n")
    code = ("import signal, sys; sys.path.insert(0, sys.argv[1])\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\nimport find_mxnet")
    done = run(sys.executable, "-c", code, str(tmp_path), **{**GROUP, "DMLC_ROLE": "server"})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
