"""Makes MXNet importable before any test module asks for it."""
import functools
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from common import find_mxnet  # noqa: E402, F401


def run_script(name, *flags, cwd=ROOT, timeout=300):
    """Runs a script as a user would, and returns the finished process."""
    return subprocess.run(
        [sys.executable, os.path.join(ROOT, name), *map(str, flags)],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        stdin=subprocess.DEVNULL, timeout=timeout)


@pytest.fixture
def train():
    """Runs train_mnist.py."""
    return functools.partial(run_script, "train_mnist.py")


@pytest.fixture
def refused():
    """Asserts that a finished process refused its input in one line that holds some words."""
    def check(process, *words):
        lines = process.stderr.splitlines()
        assert process.returncode == 2, process.stderr
        assert len(lines) == 1, process.stderr
        assert process.stdout == ""
        for word in words:
            assert word in lines[0]
    return check
