"""What MXNet calls back from C++, where Python prints an exception and forgets it: kept here."""
import contextlib

import mxnet as mx
from mxnet.base import py_str


class Kept:
    """Keeps the exception of a callback, until it can be raised again."""

    error = None

    @contextlib.contextmanager
    def keep(self):
        """Keeps what a block raises."""
        try:
            yield
        except BaseException as error:
            self.error = error

    def raise_kept(self):
        """Raises what was kept."""
        error, self.error = self.error, None
        if error is not None:
            raise error


class Updater(Kept, mx.optimizer.Updater):
    """That of a kvstore, which calls the optimizer and the schedule of its rate.

    Args:
        optimizer: an ``mx.optimizer.Optimizer``.
        add_up: a function of a key and a gradient that gives the one to go by, or None.
    """

    def __init__(self, optimizer, add_up=None):
        super().__init__(optimizer)
        self.add_up = add_up or (lambda _, gradient: gradient)

    def __call__(self, index, grad, weight):
        with self.keep():
            super().__call__(index, self.add_up(py_str(index), grad), weight)


class Monitor(Kept, mx.mon.Monitor):
    """``mx.mon.Monitor``, whose function sees each output while it is computed."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        look = self.stat_helper

        def stat_helper(name, array):
            with self.keep():
                look(name, array)
        self.stat_helper = stat_helper

    def toc(self):
        """As upstream's; raises what the function has raised since ``tic``."""
        self.raise_kept()
        return super().toc()
