"""Groups of real processes under ``launch.py``, for the tests and the soak."""
import glob
import os
import subprocess
import sys
import time

from tests.conftest import ROOT

LIMIT = 90  # seconds after which a test gives up; launch.py's death ends all that it has started
TRAIN = ["python", os.path.join(ROOT, "train_mnist.py"), "--dataset", "synthetic",
         "--num-examples", "480", "--batch-size", "20", "--cpus", "1", "--network", "mlp",
         "--add-stn", "--num-epochs", "2", "--kv-store", "dist_sync"]

SSH = """#!{}
import os, subprocess, sys, threading
there = subprocess.Popen(["sh", "-c", *sys.argv[2:]], cwd="/", start_new_session=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def copy(source, target):
    while True:
        content = os.read(source, 4096)
        if not content:
            return
        os.write(target, content)
threading.Thread(target=copy, args=(0, there.stdin.fileno()), daemon=True).start()
copy(there.stdout.fileno(), 1)
os._exit(there.wait())
"""


def start(flags, command, **options):
    """Starts ``launch.py``."""
    return subprocess.Popen(
        [sys.executable, os.path.join(ROOT, "launch.py"), *map(str, flags), "--",
         *map(str, command)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True, **options)


def finish(launcher, limit=LIMIT):
    """Waits for ``launch.py``; returns its exit status, and what it printed and complained of."""
    try:
        stdout, stderr = launcher.communicate(timeout=limit)
    finally:
        launcher.kill()
    return launcher.returncode, stdout, stderr


def run(flags, command, **options):
    """Runs ``launch.py`` to its end; returns as ``finish``."""
    return finish(start(flags, command, **options))


def train(prefix, *more, launch=("-n", 2), **options):
    """Runs a short training under ``launch.py``; returns as ``finish``."""
    return run(launch, [*TRAIN, "--model-prefix", prefix, *more], **options)


def by_ssh(path):
    """Flags for a group that is started by a command in place of ssh, which is written to a path.

    It runs on this machine, in another folder, what it is to run on another.
    """
    path.write_text(SSH.format(sys.executable))
    path.chmod(0o755)
    return ["-H", "localhost", "--ssh", path]


def children(pid):
    """The processes that one has started."""
    return [int(child) for path in glob.glob(f"/proc/{pid}/task/*/children")
            for child in _read(path).split()]


def members(launcher):
    """The processes of a group and their agents, by name: "scheduler", "server 0", "worker 1"."""
    found = {}
    for agent in children(launcher.pid):
        for pid in children(agent):
            words = _read(f"/proc/{pid}/environ").split("\0")
            environment = dict(word.split("=", 1) for word in words if "=" in word)
            role = environment.get("DMLC_ROLE")
            number = environment.get("DMLC_WORKER_ID")
            name = role if number is None else f"{role} {number}"
            if role:
                found[name] = (pid, agent)
    return found


def wait_for_members(launcher, count, limit=60):
    """``members``, once there are as many; AssertionError if there never are."""
    end = time.monotonic() + limit
    while len(members(launcher)) < count:
        assert time.monotonic() < end
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.01)
    return members(launcher)


def alive(pids):
    """Those of some processes that run."""
    return [pid for pid in pids if (_read(f"/proc/{pid}/stat") or ") Z").rpartition(")")[2][1]
            not in "ZX"]


def wait_until_gone(pids, limit=10):
    """AssertionError if processes do not end in time."""
    end = time.monotonic() + limit
    while alive(pids):
        assert time.monotonic() < end, alive(pids)
        time.sleep(0.05)


def _read(path):
    """What a file of /proc says; "" once the process is gone."""
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""
