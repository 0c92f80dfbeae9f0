"""A disk that is full: nothing half-written, nothing lost, one line.

Where a small file system can be mounted (by root, on Linux), it is a real one. Everywhere else
files are limited in size, which fails in the same places with another error.
"""
import os
import shutil
import subprocess
import sys

import pytest

from common.models import trained
from common.storage import checkpoint
from tests.conftest import ROOT, run_script

pytestmark = pytest.mark.slow

TRAIN = ["--dataset", "synthetic", "--num-examples", "100", "--batch-size", "20", "--cpus", "1",
         "--add-stn", "--lr-schedule", "constant"]
LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails as on a full disk
limit, sys.argv = int(sys.argv[1]), sys.argv[2:]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a file system of so many KiB and returns its folder."""
    folder = tmp_path / "disk"

    def mount(size):
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(folder)]
        try:
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no file system can be mounted here")
        return folder
    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The prefix of a checkpoint."""
    prefix = str(tmp_path_factory.mktemp("models") / "a")
    done = run_script("train_mnist.py", *TRAIN, "--num-epochs", 1, "--model-prefix", prefix)
    assert done.returncode == 0, done.stderr
    return prefix


def said_in_one_line(done, *words):
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert ".py: error: " in last
    assert all(word in last for word in words), last


def test_training_until_the_disk_is_full(small_disk):
    disk = small_disk(1000)  # of which a checkpoint takes 350
    done = run_script("train_mnist.py", *TRAIN, "--num-epochs", 4, "--model-prefix", disk / "a")
    said_in_one_line(done, "a-0003", "No space left on device", "--load-epoch 2 or --resume")
    assert checkpoint.newest(str(disk / "a")) == 2
    assert sorted(os.listdir(disk)) == ["a-0001.json", "a-0001.params", "a-0001.state",
                                        "a-0002.json", "a-0002.params", "a-0002.state",
                                        "a-symbol.json"]
    trained.load(str(disk / "a"), 1)
    checkpoint.remove(str(disk / "a"), 1)
    done = run_script("train_mnist.py", *TRAIN, "--num-epochs", 4, "--model-prefix", disk / "a",
                      "--resume", "--keep-last", 1)
    assert done.returncode == 0, done.stderr
    assert "Resumes from the checkpoint after 2 epochs" in done.stderr


@pytest.mark.parametrize(("script", "flags", "words"), [
    ("train_mnist.py", [*TRAIN, "--num-epochs", "1", "--resume", "--model-prefix", "MODEL",
                        "--result", "DISK/r.json"], "r.json"),
    ("train_mnist.py", [*TRAIN, "--num-epochs", "2", "--resume", "--model-prefix", "MODEL",
                        "--tensorboard", "DISK/board"], "board"),
    ("export.py", ["MODEL", "--output", "DISK/export"], "model-0000.params"),
    ("visualize_stn.py", ["MODEL", *TRAIN[:2], "--output", "DISK/a.png"], "a.png"),
])
def test_other_files_on_a_full_disk(small_disk, model, script, flags, words):
    disk = small_disk(12)
    (disk / "filling").write_bytes(bytes(11000))
    done = run_script(script, *[flag.replace("MODEL", model).replace("DISK", str(disk))
                                for flag in flags])
    said_in_one_line(done, words)
    left = [name for _, _, names in os.walk(disk) for name in names]
    assert [name for name in left if "tfevents" not in name] == ["filling"]
    trained.load(model)


@pytest.mark.parametrize("limit", [5000, 200000])  # less than the symbol has, and the state
def test_where_no_file_may_be_as_large(model, tmp_path, limit):
    prefix = tmp_path / "a"
    for name in ("a-symbol.json", "a-0001.params", "a-0001.state", "a-0001.json"):
        shutil.copy(os.path.join(os.path.dirname(model), name), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), os.path.join(ROOT, "train_mnist.py"), *TRAIN,
         "--num-epochs", "2", "--model-prefix", str(prefix), "--resume"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True, timeout=120)
    said_in_one_line(done, str(tmp_path), "--resume goes on from it")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("a*")} == before
    assert checkpoint.newest(str(prefix)) == 1
