import ctypes
import inspect
import json
import shutil
import subprocess
import sys
import threading

import mxnet as mx
import pytest

from common import find_mxnet, lazy_operators
from tests.conftest import ROOT

DESCRIBE = """
import mxnet, inspect, json, sys
print(json.dumps({f"{module.__name__} {name}": [
    str(inspect.signature(found)), found.__doc__, found.__qualname__, found.__module__,
    inspect.unwrap(found).__globals__["__name__"],
    inspect.unwrap(found).__code__.co_names, inspect.unwrap(found).__code__.co_varnames]
    for module in map(sys.modules.get, sorted(sys.modules))
    if module.__name__.startswith(("mxnet.ndarray", "mxnet.symbol", "mxnet.contrib"))
    for name, found in sorted(vars(module).items()) if inspect.isfunction(found)}))
"""


@pytest.fixture
def fresh():
    """Makes a function of MXNet anew that has not been called yet, from its name."""
    def make(name):
        handle = mx.base.OpHandle()
        mx.base.check_call(mx.base._LIB.NNGetOpHandle(mx.base.c_str(name), ctypes.byref(handle)))
        return mx.ndarray.register._make_ndarray_function(handle, name, name)
    return make


def described(folder, module):
    """What there is to see of MXNet's functions, where it was imported by a module of a folder."""
    done = subprocess.run([sys.executable, "-c", f"import {module}" + DESCRIBE], cwd=str(folder),
                          stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def test_the_functions_are_those_of_mxnet(tmp_path):
    shutil.copy(find_mxnet.__file__, tmp_path)
    ours, mxnets = described(ROOT, "common.find_mxnet"), described(tmp_path, "find_mxnet")
    assert len(mxnets) > 2500
    assert ours.keys() == mxnets.keys()
    assert [name for name in ours if ours[name] != mxnets[name]] == []


def test_a_function_is_compiled_by_its_first_call(fresh):
    relu = fresh("relu")
    assert relu.__wrapped__._function is None
    assert relu(mx.nd.array([-1, 2])).asnumpy().tolist() == [0, 2]
    compiled = relu.__wrapped__._function
    assert compiled.__code__.co_name == "relu"
    assert relu(data=mx.nd.array([-1, 2])).asnumpy().tolist() == [0, 2]
    assert relu.__wrapped__.function is compiled


def test_it_works_under_another_name(fresh):
    relu = fresh("relu")
    relu.__name__ = "rectified"
    assert relu(mx.nd.array([-1, 2])).asnumpy().tolist() == [0, 2]


def test_what_looks_behind_it_finds_a_function(fresh):
    behind = inspect.unwrap(fresh("relu"))
    assert inspect.isfunction(behind)
    assert behind.__code__.co_varnames[:3] == ("data", "out", "name")
    assert behind(mx.nd.array([-1, 2])).asnumpy().tolist() == [0, 2]
    with pytest.raises(OSError, match="source code|out of bounds"):
        inspect.getsource(fresh("relu"))


def test_it_may_be_called_while_it_is_compiled(fresh, monkeypatch):
    """As by what a collection of garbage ends."""
    relu, data, results = fresh("relu"), mx.nd.array([-1, 2]), []

    def call_and_compile(source, scope, names):
        monkeypatch.undo()
        results.append(relu(data).asnumpy().tolist())
        exec(source, scope, names)

    monkeypatch.setattr(lazy_operators, "exec", call_and_compile, raising=False)
    results.append(relu(data=data).asnumpy().tolist())
    assert results == 2 * [[0, 2]]


def test_a_wrong_call_says_what_mxnet_says(fresh):
    activation, messages = fresh("Activation"), []
    for _ in range(2):
        with pytest.raises(mx.MXNetError) as error:
            activation(mx.nd.array([-1, 2]), act_type="none")
        messages.append(str(error.value).splitlines()[-1])
    assert messages[0] == messages[1]
    assert 'act_type="none"' in messages[0]


def test_its_signature_is_mxnet_s_before_the_first_call(fresh):
    assert str(inspect.signature(fresh("relu"))) == "(data=None, out=None, name=None, **kwargs)"


def test_many_threads_call_it_first(fresh):
    for _ in range(50):
        relu, start, results = fresh("relu"), threading.Barrier(8), []

        def call(relu=relu, start=start, results=results):
            start.wait()
            results.append(relu(mx.nd.array([-1, 2])).asnumpy().tolist())

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == 8 * [[0, 2]]
