"""Makes MXNet importable before any test module asks for it."""
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from common import find_mxnet  # noqa: E402, F401


@pytest.fixture
def train():
    """Runs train_mnist.py as a user would, and returns the finished process."""
    def run(*flags, cwd=ROOT, timeout=300):
        return subprocess.run(
            [sys.executable, os.path.join(ROOT, "train_mnist.py"), *map(str, flags)],
            cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
            stdin=subprocess.DEVNULL, timeout=timeout)
    return run


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
