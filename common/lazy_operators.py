"""Has MXNet compile the functions of its operators when they are first called.

When it is imported, it writes the source of 2,500 functions, two or three for each operator, and
compiles them, which takes more than half of the time. A program calls some dozens of them.
"""
import contextlib
import functools
import importlib.machinery
import inspect
import re
import sys
import types

MODULES = ("mxnet.ndarray.register", "mxnet.symbol.register")  # they call exec, for nothing else


@contextlib.contextmanager
def compiled_when_called():
    """A context in which MXNet is imported so."""
    sys.meta_path.insert(0, _Finder)
    try:
        yield
    finally:
        sys.meta_path.remove(_Finder)


class _Finder:
    """Finds those modules, to be loaded by ``_Loader``."""

    @staticmethod
    def find_spec(name, path, target=None):
        spec = name in MODULES and importlib.machinery.PathFinder.find_spec(name, path, target)
        if not spec or type(spec.loader) is not importlib.machinery.SourceFileLoader:
            return None
        spec.loader = _Loader(name, spec.origin)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a module in which ``exec`` is ``_put_off``."""

    def exec_module(self, module):
        module.exec = functools.partial(_put_off, vars(module))
        super().exec_module(module)


def _put_off(scope, source, _, names):
    """As ``exec`` of the source of one function, in a module's scope; into a dict."""
    name = re.search(r"^def (\w+)", source, re.MULTILINE).group(1)
    later = _Deferred(scope, source)

    def call(*args, **kwargs):
        return later.function(*args, **kwargs)

    names[name] = function = types.FunctionType(call.__code__, scope, name, None, call.__closure__)
    function.__qualname__ = name
    function.__wrapped__ = later


class _Deferred:
    """A function that is compiled when it is first needed, which inspect takes for a function."""

    __class__ = property(lambda self: types.FunctionType)

    def __init__(self, scope, source):
        self._scope, self._source, self._function = scope, source, None

    @property
    def function(self):
        """What the source defines. Two threads at once may compile it twice, which is no harm."""
        if self._function is None:
            names = {}
            exec(self._source, self._scope, names)
            self._function, = names.values()
        return self._function

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.function, name)

    @property
    def __signature__(self):
        return inspect.signature(self.function)
