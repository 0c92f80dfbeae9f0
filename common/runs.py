"""Runs of ``train_mnist.py``, each in a process of its own; stopped at any time, they go on."""
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from typing import List, NamedTuple

from common import checkpoint

SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "train_mnist.py")


class Run(NamedTuple):
    """One training.

    Attributes:
        name: for people, and for its files in the folder of all runs.
        flags: of ``train_mnist.py``, that make the run what it is.
    """

    name: str
    flags: List[str]


def train(runs, results, scratch, jobs=1):
    """Trains what has no result yet.

    Args:
        runs: list of ``Run``.
        results: folder of the figures, ``<name>.json`` each.
        scratch: folder of logs, checkpoints and exports; checkpoints go when their run is done.
        jobs: how many at a time.

    Raises:
        ValueError: runs failed; the others are done.
        KeyboardInterrupt: passed on, also at SIGTERM, once the processes have been ended.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    missing = [run for run in runs if not os.path.exists(result_path(results, run.name))]
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are done", flush=True)
    todo, processes, failed = iter(missing), {}, []
    try:
        while True:
            for run in itertools.islice(todo, jobs - len(processes)):
                processes[run.name] = _start(run, results, os.path.join(scratch, run.name))
            if not processes:
                break
            time.sleep(0.2)
            for name in [name for name, process in processes.items() if process.poll() is not None]:
                prefix = os.path.join(scratch, name)
                if processes.pop(name).returncode:
                    failed.append(f"{prefix}.log")
                    continue
                for epoch in checkpoint.epochs(prefix):
                    checkpoint.remove(prefix, epoch)
                print(f"{name}: {read(result_path(results, name))['test_accuracy']:.2%}",
                      flush=True)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()
    if failed:
        raise ValueError(f"{len(failed)} of {len(missing)} runs failed: see {', '.join(failed)}")


def _start(run, results, prefix):
    flags = [*run.flags, "--resume", "--model-prefix", prefix,
             "--result", result_path(results, run.name)]
    os.makedirs(os.path.dirname(prefix), exist_ok=True)
    with open(f"{prefix}.log", "a", encoding="utf-8") as log:
        return subprocess.Popen([sys.executable, SCRIPT, *flags], stdout=log, stderr=log,
                                stdin=subprocess.DEVNULL)


def result_path(results, name):
    """The path of the figures of a run."""
    return os.path.join(results, f"{name}.json")


def read(path):
    """The figures of a run.

    Raises:
        OSError: they cannot be read.
        ValueError: the file is no result of ``train_mnist.py``.
    """
    with open(path, encoding="utf-8") as file:
        try:
            figures = json.load(file)
        except ValueError:
            figures = None
    if not isinstance(figures, dict) or not {"test_accuracy", "parameters"} <= set(figures):
        raise ValueError(f"{path}: not a result of train_mnist.py; remove it to train it again")
    return figures
