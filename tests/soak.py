"""Kills a training again and again, and compares what it comes to with one that was left alone.

    python -m tests.soak --kills 200            # SIGKILL, at random times
    python -m tests.soak --kills 200 --term     # SIGTERM
"""
import argparse
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

from common import agent, cli
from tests.conftest import ROOT

FLAGS = ["--dataset", "synthetic", "--num-examples", "600", "--batch-size", "20", "--cpus", "1",
         "--add-stn", "--keep-last", "2"]
PATIENCE = 300  # seconds for a process to start and to get through an epoch


def start(prefix, epochs):
    """A training that goes on from the newest checkpoint, and says so in its log."""
    with open(log_of(prefix), "a", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, os.path.join(ROOT, "train_mnist.py"), *FLAGS,
             "--num-epochs", str(epochs), "--model-prefix", prefix, "--resume"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            preexec_fn=agent.die_with(os.getpid()))


def log_of(prefix):
    """Beside the training's folder. A pipe would be full some time, and the training wait."""
    return f"{os.path.dirname(prefix)}.log"


def said(prefix):
    """All that the trainings of a prefix have said."""
    with open(log_of(prefix), encoding="utf-8") as log:
        return log.read()


def finish(process, prefix, epochs):
    """Waits for a training to get through all of its epochs; AssertionError if it failed."""
    assert process.wait(PATIENCE + epochs) == 0, said(prefix)  # a second is enough for each


def kill(process, prefix, number, delay):
    """Sends a signal some seconds after a training begins to write a checkpoint.

    Returns:
        The process's exit status, and the seconds until it had ended.
    """
    folder = os.path.dirname(prefix)
    before, deadline = written(folder), time.monotonic() + PATIENCE
    while process.poll() is None and written(folder) == before:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay)
    sent = time.monotonic()
    process.send_signal(number)
    return process.wait(PATIENCE), time.monotonic() - sent


def written(folder):
    """The checkpoints' files that there are, with their times."""
    found = set()
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            if not entry.name.endswith((".lock", ".part")):
                found.add((entry.name, entry.stat().st_mtime_ns))
    return found


def soak(folder, kills, number=signal.SIGKILL, seed=0):
    """Trains twice in a folder, with and without being killed; AssertionError if they differ.

    Args:
        folder: an empty one.
        kills: how many signals to send.
        number: of the signal.
        seed: of the delays.

    Returns:
        The exit statuses of the processes that got a signal, and the longest time it took one to
        end, in seconds.
    """
    left, killed = (os.path.join(folder, name, "a") for name in ("left", "killed"))
    epochs, delays = 4 * kills + 2, random.Random(seed)  # some pass before a signal comes
    statuses, longest = [], 0
    for prefix in (left, killed):
        os.makedirs(os.path.dirname(prefix))
    undisturbed = start(left, epochs)
    while len(statuses) < kills:
        # Half of the delays are within the writing of a checkpoint, the others within an epoch.
        delay = delays.choice([delays.uniform(0, 0.02), delays.uniform(0, 0.2)])
        status, seconds = kill(start(killed, epochs), killed, number, delay)
        assert "Traceback" not in said(killed), said(killed)
        statuses.append(status)
        longest = max(longest, seconds)
        print(f"{len(statuses)} of {kills}, status {status}: {said(killed).splitlines()[-1]}",
              flush=True)
        if status == 0:  # it was done sooner
            break
    finish(start(killed, epochs), killed, epochs)
    finish(undisturbed, left, epochs)
    assert contents(killed) == contents(left)
    return statuses, longest


def contents(prefix):
    """The files that a training left, name -> bytes; None where they tell its time or command."""
    found = {}
    for folder, _, names in os.walk(os.path.dirname(prefix)):
        for name in names:
            if name.endswith(".part"):  # a file that was being written when its process was killed
                continue
            # The state has the time, the manifest the state's hash, the README the command.
            own = re.search(r"-\d{4}\.(state|json)$|^README.md$", name)
            with open(os.path.join(folder, name), "rb") as file:
                found[name] = None if own else file.read()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="how many signals to send")
    parser.add_argument("--term", action="store_true", help="SIGTERM in place of SIGKILL")
    parser.add_argument("--seed", type=int, default=0, help="of the delays")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        statuses, longest = soak(folder, args.kills,
                                 signal.SIGTERM if args.term else signal.SIGKILL, args.seed)
    print(f"{len(statuses)} signals, obeyed within {longest:.1f} s, the same files as if there had "
          "been none")


if __name__ == "__main__":
    cli.run(main)
