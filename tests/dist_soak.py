"""Loses processes of a group at random times, and compares what it is resumed to.

    python -m tests.dist_soak --runs 60
    python -m tests.dist_soak --runs 60 --signals SIGKILL,SIGSTOP,SIGTERM

In each run one process of a training with several workers gets a signal, at any time from the
start of ``launch.py`` on. All processes must end within 10 s, and the same command with --resume
must come to the bits of a training that was left alone. A table says how often that was so.
"""
import argparse
import collections
import filecmp
import glob
import itertools
import os
import random
import signal
import tempfile
import time

from common import cli, markdown
from tests import groups

LIMIT = 10  # seconds for all to end


def command(prefix, epochs):
    """A short training that goes on from its newest checkpoint."""
    return [*groups.TRAIN, "--num-epochs", epochs, "--resume", "--model-prefix", prefix]


def lose(launch, prefix, epochs, number, delay, choose):
    """Starts a training, and sends a signal to one of its processes after some seconds.

    Args:
        launch: flags of ``launch.py``.
        prefix, epochs: of the training.
        number: of the signal.
        delay: in seconds.
        choose: a function that chooses one of the names of the processes.

    Returns:
        The name of the process, None if all were done before; whether a checkpoint was there; and
        the seconds until all had ended. Raises AssertionError if some have not in time.
    """
    launcher = groups.start(launch, command(prefix, epochs))
    time.sleep(delay)
    members = groups.members(launcher)
    while not members and launcher.poll() is None:
        members = groups.members(launcher)
    begun = bool(glob.glob(f"{prefix}-0*.json"))
    name, sent = choose(sorted(members) or [None]), time.monotonic()
    try:
        os.kill(members[name][0], number)
    except (KeyError, ProcessLookupError):
        groups.finish(launcher)
        return None, begun, 0
    _, _, stderr = groups.finish(launcher, LIMIT)
    groups.wait_until_gone([pid for pids in members.values() for pid in pids],
                           sent + LIMIT - time.monotonic())
    assert "Traceback" not in stderr, stderr
    return name, begun, time.monotonic() - sent


def lose_some(launch, folder, epochs, number, rng, duration):
    """As ``lose``, in a training that is not done before; its prefix, too."""
    name, attempts = None, itertools.count()
    while name is None:
        prefix = os.path.join(folder, str(next(attempts)), "a")
        name, *rest = lose(launch, prefix, epochs, number, rng.uniform(0.1, duration),
                           rng.choice)
    return (prefix, name, *rest)


def soak(folder, runs, workers=3, servers=1, epochs=6, signals=(signal.SIGKILL,), seed=0):
    """Loses a process in each of some trainings; prints a line for each, and a table.

    Args:
        folder: an empty one.
        runs: how many.
        workers, servers, epochs: of each.
        signals: to choose from.
        seed: of what is chosen.

    Returns:
        How many runs ended within 10 s and were resumed to the same bits.
    """
    launch, rng = ["-n", workers, "-s", servers], random.Random(seed)
    left, began = os.path.join(folder, "left"), time.monotonic()
    status, _, stderr = groups.run(launch, command(left, epochs))
    assert status == 0, stderr
    duration, table, done = time.monotonic() - began, collections.defaultdict(list), 0
    for run in range(runs):
        number, name, begun, seconds, good = rng.choice(signals), "?", False, LIMIT, False
        try:
            prefix, name, begun, seconds = lose_some(launch, os.path.join(folder, str(run)), epochs,
                                                     number, rng, duration)
            status, _, stderr = groups.run(launch, command(prefix, epochs))
            good = status == 0 and filecmp.cmp(f"{prefix}-{epochs:04d}.params",
                                               f"{left}-{epochs:04d}.params", shallow=False)
        except Exception as error:  # a failure is counted, and the others go on
            stderr = repr(error)
        kind = f"{signal.Signals(number).name} of a {name.split()[0]}"
        phase = "training" if begun else "starting"
        table[kind, phase].append((good, seconds))
        done += good
        print(f"{run + 1} of {runs}: {kind}, {phase}, ended in {seconds:.1f} s, "
              f"{'same bits' if good else f'FAILED: {stderr}'}", flush=True)
    print_table(table)
    return done


def print_table(table):
    """Prints counts and the longest time for each kind of loss, as Markdown."""
    head = ["lost", "while", "runs", "ended, and resumed to the same bits", "longest s to the end"]
    rows = [[*lost, len(runs), sum(good for good, _ in runs),
             f"{max(seconds for _, seconds in runs):.1f}"] for lost, runs in sorted(table.items())]
    print(f"\n{markdown.table(head, rows)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=60, help="how many trainings lose a process")
    parser.add_argument("--workers", type=int, default=3, help="of each")
    parser.add_argument("--servers", type=int, default=1, help="of each")
    parser.add_argument("--epochs", type=int, default=6, help="of each")
    parser.add_argument("--signals", default="SIGKILL", help="to choose from, with commas")
    parser.add_argument("--seed", type=int, default=0, help="of what is chosen")
    args = parser.parse_args()
    unknown = set(args.signals.split(",")).difference(signal.Signals.__members__)
    if unknown:
        parser.error(f"--signals: no signal {', '.join(sorted(unknown))}")
    signals = [signal.Signals[name] for name in args.signals.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        done = soak(folder, args.runs, args.workers, args.servers, args.epochs, signals,
                    args.seed)
    print(f"\n{done} of {args.runs}")
    return 0 if done == args.runs else 1


if __name__ == "__main__":
    cli.run(main)
