"""Makes MXNet importable before any test module asks for it."""
import functools
import os
import re
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from common import cli, find_mxnet  # noqa: E402, F401

# isort: split
import mxnet as mx  # noqa: E402

# What the tests that import it run on: the device that TEST_DEVICE names, such as gpu0.
KIND, NUMBER = re.fullmatch("(cpu|gpu)([0-9]+)", os.environ.get("TEST_DEVICE", "cpu0")).groups()
DEVICE = mx.Context(KIND, int(NUMBER))
ON_DEVICE = ["--gpus", NUMBER] if KIND == "gpu" else ["--cpus", "1"]  # for the scripts
SMALL = {"svhn": {"width": 4}}  # options of networks that have millions of parameters


@pytest.fixture(autouse=True)
def arrays_on_the_device(request):
    """Tests that run on the device make their arrays there, too."""
    with DEVICE if hasattr(request.module, "DEVICE") else mx.current_context():
        yield


def run_script(name, *flags, cwd=ROOT, timeout=300):
    """Runs a script as a user would, and returns the finished process."""
    return subprocess.run(
        [sys.executable, os.path.join(ROOT, name), *map(str, flags)],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        stdin=subprocess.DEVNULL, timeout=timeout)


def resident():
    """MiB of memory that this process takes; on Linux."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def hear_interrupts():
    """For preexec_fn: SIGINT is not heard by what a shell runs in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture
def run_main(monkeypatch, capfd, tmp_path):
    """Runs a script's main within this process, which saves the time that a new one takes."""
    def run(script, *flags):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, flags)])
        with pytest.raises(SystemExit) as left:
            cli.run(script.main)
        stdout, stderr = capfd.readouterr()
        return SimpleNamespace(returncode=left.value.code or 0, stdout=stdout, stderr=stderr)
    return run
