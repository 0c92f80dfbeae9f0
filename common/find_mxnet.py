"""Makes ``import mxnet`` work on this Python and NumPy; every script imports it first.

MXNet 1.9.1 is its last release and predates Python 3.12 and NumPy 1.24. Importing this module puts
back the few names that MXNet misses, changes none of NumPy's, and mends what MXNet does wrongly by
the libraries of today. In the zoo it also sets the number of threads, which MXNet reads when it is
imported; what the user has set in the environment stays. A copy of this file elsewhere leaves that
to MXNet: a single device wants other settings. Nor does a copy import MXNet faster, as the zoo does
by ``common/lazy_operators.py``.

Run as a program, it says whether this Python can work at all: ``python common/find_mxnet.py``.
(So that old Pythons can be told, this file keeps to syntax that they can read.)
"""
import contextlib
import ctypes
import functools
import glob
import importlib
import os
import platform
import signal
import socket
import sys
import sysconfig
import threading
import time
import types
import warnings

SUITABLE = "64-bit CPython 3.8 to 3.13 on Linux (x86-64 or aarch64) or macOS (x86-64)"
WHEELS = (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "x86_64"))
INSTALL = "run `make setup`, then use .venv/bin/python"
DRIVER = "libcuda.so.1"
# What MXNet imports for a few functions, where it is installed: 80 MiB, most of the time.
SELDOM_USED = ("h5py", "onnx", "requests", "scipy.sparse", "scipy.stats")
ROLES = ("scheduler", "server", "worker")
MOST_OF_A_GROUP = {"DMLC_PS_ROOT_PORT": 2**16 - 1, "DMLC_NUM_WORKER": 2**15 - 1,
                   "DMLC_NUM_SERVER": 2**15 - 1}
# With less than 1 of these, or what is no number, MXNet waits for ever or crashes.
COUNTS = ("MXNET_CPU_WORKER_NTHREADS", "MXNET_CPU_PRIORITY_NTHREADS", "MXNET_CPU_TEMP_COPY",
          "MXNET_CPU_PARALLEL_RAND_COPY")
MOST = 1024
ENGINES = ("NaiveEngine", "ThreadedEngine", "ThreadedEnginePerDevice")
UNFUSED_SUMS = "MXNET_DISABLE_MKLDNN_FUSE_CONV_SUM"  # read when MXNet is imported
SUMMED_APART = "MXNET_EXEC_INPLACE_GRAD_SUM_CAP"  # read with the first gradient


def unsuitable(version, bits, system, machine):
    """Says in one line why MXNet 1.9.1 does not run on such a Python; None if it does."""
    if (3, 8) <= tuple(version[:2]) <= (3, 13) and bits == 64 and (system, machine) in WHEELS:
        return None
    return "Python {}.{} ({}-bit, {} {}) does not run MXNet 1.9.1: use {}".format(
        version[0], version[1], bits, system, machine, SUITABLE)


def this_python():
    """Says in one line why this Python is unsuitable; None if it is not."""
    if sys.flags.optimize > 1:
        return "MXNet 1.9.1 needs docstrings: leave out -OO and PYTHONOPTIMIZE=2"
    bits = 64 if sys.maxsize > 2**32 else 32
    return unsuitable(sys.version_info, bits, platform.system(), platform.machine())


def no_venv():
    """Says in one line that this Python cannot make a virtual environment; None if it can."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return "{} has no venv module: install it (on Debian: python3-venv)".format(sys.executable)
    return None


def usable_cores():
    """The number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def mend_numpy(numpy):
    """Gives NumPy the names that MXNet 1.9.1 looks up and that NumPy has dropped since."""
    present = vars(numpy)  # not hasattr: NumPy warns when a dropped name is looked up
    renamed = {"alltrue": "all", "sometrue": "any", "product": "prod", "round_": "round",
               "in1d": "isin", "trapz": "trapezoid"}
    missing = {"bool": bool, "int": int, "float": float, "object": object, "str": str,
               "complex": complex, "PZERO": 0.0, "NZERO": -0.0, "PINF": numpy.inf,
               "NINF": -numpy.inf, "Inf": numpy.inf, "NAN": numpy.nan, "NaN": numpy.nan}
    missing.update((old, present[new]) for old, new in renamed.items() if new in present)
    missing["compat"] = types.SimpleNamespace(basestring=str)
    for name in ("mirr", "msort", "npv", "pmt", "ppmt", "pv", "rate"):
        missing[name] = _gone(name)
    for name, value in missing.items():
        if name not in present:
            setattr(numpy, name, value)


def _gone(name):
    def function(*_args, **_kwargs):
        raise NotImplementedError("NumPy has no {} any more".format(name))
    function.__name__ = name
    return function


def _import_mxnet():
    import importlib.util  # noqa: F401  which Python 2 does not have
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import numpy
        mend_numpy(numpy)
        ours = _distutils()
        sys.modules.update(ours)
        try:
            with_seldom_used(SELDOM_USED, lambda: _with_libraries(_load_mxnet, []))
        finally:
            for name in ours:
                del sys.modules[name]
        mend_kinds()
        mend_options()
        mend_results(numpy)
        mend_saves()
        mend_forks()


def _load_mxnet():
    if not _in_zoo():
        __import__("mxnet")
        return
    from common.lazy_operators import compiled_when_called
    with compiled_when_called():
        __import__("mxnet")


def _in_zoo():
    """Whether this is not a copy, which is a file alone, though maybe in a folder of that name."""
    beside = os.path.join(os.path.dirname(__file__), "lazy_operators.py")
    return __name__ == "common.find_mxnet" and os.path.exists(beside)


def _distutils():
    """The modules distutils and distutils.version, by name; none where distutils is loaded.

    MXNet needs no more. From Python 3.12 on setuptools has it; before, setuptools puts itself in
    the place of Python's. To import all of setuptools takes a third of the time of MXNet.
    """
    setuptools = importlib.util.find_spec("setuptools")
    folders = [os.path.join(sysconfig.get_path("stdlib"), "distutils")]
    folders += [os.path.join(folder, "_distutils")
                for folder in (setuptools.submodule_search_locations if setuptools else [])]
    files = [os.path.join(folder, "version.py") for folder in folders]
    found = next(filter(os.path.exists, files), None)
    if "distutils" in sys.modules or not found:
        return {}
    spec = importlib.util.spec_from_file_location("distutils.version", found)
    package, version = types.ModuleType("distutils"), importlib.util.module_from_spec(spec)
    spec.loader.exec_module(version)
    package.version = version
    return {"distutils": package, "distutils.version": version}


def _mend(path, mended):
    """Replaces something of MXNet by what a function makes of it, where it is there."""
    module, _, name = ("mxnet." + path).rpartition(".")
    there = getattr(sys.modules.get(module), name, None)
    if there:
        setattr(sys.modules[module], name, mended(there))


class _Besides:
    """A module, but for some of its names."""

    def __init__(self, module, **names):
        vars(self).update(names, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)


class _Kind(type):
    """Makes classes that stand for some in a module that may never be imported.

    What is not imported has made no instance.
    """

    def __instancecheck__(cls, thing):
        module = sys.modules.get(cls.__module__)
        return isinstance(thing, tuple(getattr(module, name, ()) for name in cls.names))


def mend_kinds():
    """Has MXNet ask whether an array is SciPy's or h5py's without importing them.

    It asks for SciPy's by a name that SciPy 2 drops, and of which it warns before; and newer ones
    are of another class. h5py may be installed but broken, as without the library it was made for.
    """
    sparse = _Later("scipy.sparse")
    sparse.csr = types.SimpleNamespace(csr_matrix=_Kind("CSR", (), {
        "__module__": "scipy.sparse", "names": ("csr_matrix", "csr_array")}))
    dataset = _Kind("Dataset", (), {"__module__": "h5py", "names": ("Dataset",)})
    _mend("ndarray.sparse.spsp", lambda _: sparse)
    _mend("ndarray.utils.spsp", lambda _: sparse)
    _mend("io.utils.h5py", lambda _: types.SimpleNamespace(Dataset=dataset))


class _Text(type):
    """Makes a stand-in for ``str``, which writes tuples of NumPy's numbers as it did by NumPy 1.

    NumPy 2 makes "(np.int64(3),)" of them.
    """

    def __call__(cls, option=""):
        return str(_plain(option))

    def __instancecheck__(cls, thing):
        return isinstance(thing, str)


def mend_options():
    """Has MXNet write options of operators, variables and iterators so that it can read them."""
    text = _Text("str", (), {})
    for name in ("mxnet._ctypes.ndarray", "mxnet._ctypes.symbol", "mxnet.io.io",
                 "mxnet.symbol.symbol"):
        if name in sys.modules:
            sys.modules[name].str = text


def _plain(option):
    """An option, with Python's numbers for NumPy's in tuples, lists and dictionaries."""
    numpy = sys.modules["numpy"]
    if isinstance(option, numpy.floating):
        return float(str(option))
    if isinstance(option, numpy.generic):
        return option.item()
    written_by = type(option).__repr__ if type(option).__str__ is object.__str__ else None
    if written_by is dict.__repr__:
        return {_plain(name): _plain(part) for name, part in option.items()}
    for kind in (tuple, list):
        if written_by is kind.__repr__:
            return kind(map(_plain, option))
    return option


def mend_results(numpy):
    """Has MXNet compute what it did by NumPy 1."""
    class Bytes(numpy.ndarray):
        tostring = numpy.ndarray.tobytes  # as it was called

    def with_bytes(array, *args):
        return numpy.asarray(array, *args).view(Bytes)

    def encoding(cv2):
        def imencode(*args):
            done, image = cv2.imencode(*args)
            return done, with_bytes(image)
        return _Besides(cv2, imencode=imencode)

    def with_sums(metric):
        metric.sum_metric = total("sum_metric")
        metric.global_sum_metric = total("global_sum_metric")
        return metric

    single = (float, numpy.float16, numpy.float32)  # NumPy 2 adds these up in their own type

    def total(name):
        def get(metric):
            if name not in vars(metric):
                raise AttributeError(name)
            return vars(metric)[name]

        def put(metric, value):
            vars(metric)[name] = numpy.float64(value) if isinstance(value, single) else value
        return property(get, put)

    def without_names(convert):  # numpy.linalg.qr and others return tuples whose parts have some
        @functools.wraps(convert)
        def converted(found, ctx=None):
            named = isinstance(found, tuple) and hasattr(found, "_fields")
            return convert(tuple(found) if named else found, ctx)
        return converted

    def in_numbers(thresholds):  # of arrays that have one
        @functools.wraps(thresholds)
        def found(*args, **options):
            return tuple(float(numpy.ravel(one)[0]) for one in thresholds(*args, **options))
        return found

    _mend("recordio.np", lambda _: _Besides(numpy, asarray=lambda array, dtype: with_bytes(
        array, dtype)))
    _mend("recordio.cv2", encoding)
    _mend("metric.EvalMetric", with_sums)
    _mend("numpy.multiarray._as_mx_np_array", without_names)
    _mend("contrib.quantization._get_optimal_threshold", in_numbers)


def mend_saves():
    """Has MXNet free the copy of a graph that it writes: it loses 22 KiB with each LeNet."""
    def freeing(kind):
        tojson, save, module = kind.tojson, kind.save, sys.modules[kind.__module__]

        def without_amp_cast(symbol):
            handle = module.SymbolHandle()
            module.check_call(module._LIB.MXSymbolRemoveAmpCast(symbol.handle,
                                                                ctypes.byref(handle)))
            return type(symbol)(handle)

        @functools.wraps(tojson)
        def saved_as_json(self, remove_amp_cast=True):
            return tojson(without_amp_cast(self) if remove_amp_cast else self, False)

        @functools.wraps(save)
        def saved(self, fname, remove_amp_cast=True):
            return save(without_amp_cast(self) if remove_amp_cast else self, fname, False)

        kind.tojson, kind.save = saved_as_json, saved
        return kind

    _mend("symbol.symbol.Symbol", freeing)


def mend_forks():
    """Has a fork wait for MXNet's threads while these can run Python.

    MXNet waits for them too late: for ever, where one of them is to free what NumPy has lent it.
    """
    waitall = getattr(sys.modules.get("mxnet.ndarray.ndarray"), "waitall", None)

    def settle():
        waitall()
        # For what they do after the last that is waited for, also on a busy machine.
        time.sleep(0.02)

    if waitall:
        os.register_at_fork(before=settle)


class _Later(types.ModuleType):
    """Stands for a module until something in it is looked up."""

    def __getattr__(self, name):
        self.step_aside()
        return getattr(importlib.import_module(self.__name__), name)

    def step_aside(self):
        """From now on the module itself is imported."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


def with_seldom_used(names, load):
    """Calls a function in which the import of some modules costs nothing until they are used."""
    modules = [_Later(name) for name in names
               if name not in sys.modules and importlib.util.find_spec(name.partition(".")[0])]
    sys.modules.update((module.__name__, module) for module in modules)
    try:
        load()
    finally:
        for module in modules:
            module.step_aside()


def _with_libraries(load, tried):
    """Calls a function that loads libraries; what the system lacks is taken from where pip puts it.

    A library that is loaded for all is found by its name from then on. Raises the
    OSError of one that is in none of NVIDIA's packages either.
    """
    while True:
        try:
            return load()
        except OSError as error:
            library = str(error).split(":")[0]
            paths = [path for folder in sys.path
                     for path in glob.glob(os.path.join(folder, "nvidia", "*", "lib", library))]
            if library in tried or not paths:
                raise
            tried.append(library)
            _with_libraries(functools.partial(ctypes.CDLL, paths[0], ctypes.RTLD_GLOBAL), tried)


def _complaint():
    """Imports MXNet; says in one line why it cannot be had, or None when all went well."""
    if this_python():
        return this_python()
    try:
        _import_mxnet()
    except ImportError as error:
        while error.__cause__:  # what NumPy raises is a page of advice; what is wrong is its cause
            error = error.__cause__
        return "{} cannot import MXNet ({}): {}".format(sys.executable, error, INSTALL)
    except OSError as error:  # a wheel for GPUs where NVIDIA's driver or libraries are not
        words = str(error).splitlines()[0]
        if words.startswith(DRIVER):
            words = "it is for GPUs, and NVIDIA's driver, {}, is not here".format(DRIVER)
        return "MXNet cannot be loaded ({}): install what it misses, or the CPU wheel with " \
               "`make setup MXNET=mxnet`".format(words)
    return None


def _leave(complaint):
    sys.stderr.write(complaint + "\n")
    raise SystemExit(2)


def mend_threads(environment):
    """Makes OMP_NUM_THREADS what MXNet reads: it crashes on lists, which OpenMP allows, and on "".

    Returns:
        In one line why it cannot be used; None if it can.
    """
    value = environment.get("OMP_NUM_THREADS", "").strip()
    if not value:
        environment.pop("OMP_NUM_THREADS", None)
        return None
    first = value.split(",")[0].strip()  # the others are for threads within threads
    if not _is_count(first, 2**31 - 1):
        return "OMP_NUM_THREADS={!r}: expected a number of threads such as 2, or a list such as " \
               "4,2; unset, it is chosen".format(value)
    environment["OMP_NUM_THREADS"] = first
    return None


def wrong_group(environment):
    """Says in one line why MXNet would fail, or wait for ever, as one of several processes.

    Of a worker, what is not set is not wrong yet: it may never meet the others.

    Returns:
        That line; None if the variables ``DMLC_*`` are good, or say of no group.
    """
    role = environment.get("DMLC_ROLE")
    if role is None:  # then nothing reads the rest
        return None
    if role not in ROLES:
        return "DMLC_ROLE={!r}: expected {}".format(role, _one_of(ROLES))
    for name, most in MOST_OF_A_GROUP.items():
        value = environment.get(name, "")
        if not _is_count(value, most) and (value or role != "worker"):
            return "{}={!r}: expected a number from 1 to {}".format(name, value, most)
    address = environment.get("DMLC_PS_ROOT_URI", "")
    if (role == "scheduler" and not _is_address(address)
            and environment.get("DMLC_USE_KUBERNETES", "0") == "0"):
        return "DMLC_PS_ROOT_URI={!r}: expected the scheduler's IP address such as 10.0.0.1; or " \
               "set DMLC_USE_KUBERNETES=1, to listen at all of its addresses".format(address)
    return None


def wrong_setting(environment):
    """Says in one line which setting MXNet would hang or crash on; None if there is none."""
    for name in COUNTS:
        if name in environment and not _is_count(environment[name].strip(), MOST):
            return "{}={!r}: expected a number from 1 to {}; unset, it is chosen".format(
                name, environment[name], MOST)
    engine = environment.get("MXNET_ENGINE_TYPE", ENGINES[-1])
    if engine not in ENGINES:
        return "MXNET_ENGINE_TYPE={!r}: expected {}".format(engine, _one_of(ENGINES))
    return None


def _one_of(names):
    return " or ".join([", ".join(names[:-1]), names[-1]])


def _is_count(text, most):
    return 0 < len(text) < 20 and not text.strip("0123456789") and 0 < int(text) <= most


def _is_address(text):
    try:
        return bool(socket.inet_pton(socket.AF_INET, text))
    except (OSError, UnicodeError):
        return False


def _set_for_many_devices():
    # Batches are split over as many CPU devices as there are cores, one thread each: on small
    # convolutions that is faster than many threads in one operator.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # CPU devices share their scratch memory and their random numbers. With 4 pieces of scratch they
    # wait for each other; and while one runs a piece of the graph that draws dropout, the others'
    # wait, so such pieces are to be short. Backward draws nothing: there long pieces are quicker.
    os.environ.setdefault("MXNET_CPU_TEMP_COPY", "64")
    os.environ.setdefault("MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_FWD", "8")
    os.environ.setdefault("MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_BWD", "100")
    # Sums of gradients are so short that more threads for them only get in each other's way.
    os.environ.setdefault("MXNET_CPU_PRIORITY_NTHREADS", "1")


def drop_empty(environment):
    """Drops settings of MXNet that are "": it crashes on most of them, where it wants numbers."""
    for name in [name for name, value in environment.items()
                 if not value and name.startswith(("MXNET_", "DMLC_"))]:
        del environment[name]


def _prepare():
    drop_empty(os.environ)
    complaint = (mend_threads(os.environ) or wrong_setting(os.environ)
                 or wrong_group(os.environ))
    if complaint:
        _leave(complaint)
    if _in_zoo():
        _set_for_many_devices()
    os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")
    # MXNet predicts wrongly where it fuses a convolution with a sum of what is computed from it, as
    # in residual blocks that begin with a normalisation. So this is no setting to choose.
    if "mxnet" not in sys.modules:
        os.environ[UNFUSED_SUMS] = "1"
    # Nor is this: where more gradients than that meet, 8 by default, MXNet adds them up in the
    # memory of one of them, though that may be another layer's, which gets a wrong gradient.
    os.environ[SUMMED_APART] = "1000000"
    if "DMLC_ROLE" in os.environ:  # a server or scheduler does its work in the import, and leaves
        os.environ.pop("PORT", None)  # which MXNet would take for that of each process
    with _quietly_interrupted():
        complaint = _complaint()
    if complaint:
        _leave(complaint)


@contextlib.contextmanager
def _quietly_interrupted():
    """A context in which Ctrl-C prints no traceback: the import in it takes half a second."""
    ours = (signal.getsignal(signal.SIGINT) is signal.default_int_handler
            and threading.current_thread() is threading.main_thread())
    # What a server does, it does in the import, called by C, which goes on after exceptions.
    leave = os._exit if os.environ.get("DMLC_ROLE") in ("scheduler", "server") else sys.exit
    heard = []

    def interrupted(*_):
        heard.append(True)
        leave(130)

    if ours:
        signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if heard:  # C, which imports too, took it for a module that is missing
        leave(130)


if __name__ == "__main__":
    if this_python() or no_venv():
        _leave(this_python() or no_venv())
else:
    _prepare()
