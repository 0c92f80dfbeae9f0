"""Has MXNet compile the functions of its operators when they are first called.

When it is imported, it writes the source of 2,500 functions, two or three for each operator, and
compiles them, which takes more than half of the time. A program calls some dozens of them.
"""
import contextlib
import functools
import importlib.abc
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


class _Finder(importlib.abc.MetaPathFinder):
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
    function = types.FunctionType(_first_call.__code__, scope, name)
    function.__qualname__ = name
    function.__wrapped__ = _Source(function, source)
    function.__kwdefaults__ = {"_source": function.__wrapped__}
    names[name] = function


def _first_call(*args, _source, **kwargs):
    return _source.compiled()(*args, **kwargs)


class _Source:
    """The source of a function, which inspect takes for what the function wraps."""

    def __init__(self, function, text):
        self._function, self._text = function, text

    def compiled(self):
        """The function, which from now on is what its source says.

        Another thread may call it meanwhile: it is whole after each line.
        """
        function, names = self._function, {}
        exec(self._text, function.__globals__, names)
        compiled = names[function.__name__]
        function.__defaults__ = compiled.__defaults__
        function.__code__ = compiled.__code__
        function.__kwdefaults__ = None
        vars(function).pop("__wrapped__", None)
        return function

    @property
    def __signature__(self):
        return inspect.signature(self.compiled())
