"""Runs of ``train_mnist.py``, each in a process of its own; stopped at any time, they go on."""
import collections
import contextlib
import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from typing import List, NamedTuple

from common import agent, cli, files
from common.storage import checkpoint, fields

SCRIPT = os.path.join(files.CHECKOUT, "train_mnist.py")
# Flags that change nothing of what a run is, and how many values follow each.
NOT_DECISIVE = {"--disp-batches": 1, "--keep-best": 0, "--keep-last": 1, "--model-prefix": 1,
                "--monitor": 1, "--overwrite": 0, "--patience": 1, "--result": 1, "--resume": 0,
                "--save-period": 1}


class Run(NamedTuple):
    """One training.

    Attributes:
        name: for people, and for its files in the folder of all runs.
        flags: of ``train_mnist.py``, that make the run what it is.
    """

    name: str
    flags: List[str]

    @property
    def command_line(self):
        """The flags as a shell takes them."""
        return shlex.join(self.flags)


def train(runs, results, scratch, jobs=1):
    """Trains what has no result yet.

    Args:
        runs: list of ``Run``.
        results: folder of the figures, ``<name>.json`` each.
        scratch: folder of logs, checkpoints and exports; checkpoints go when their run is done.
        jobs: how many at a time.

    Raises:
        ValueError: runs failed, and the others are done; or nothing was started, as there are
            results or checkpoints of other flags, or another process trains these runs.
        KeyboardInterrupt, cli.Terminated: after Ctrl-C or SIGTERM, once the processes have ended.
    """
    with _handled(signal.SIGTERM, _terminate), files.exclusive(os.path.join(scratch, "runs.lock")):
        missing = [run for run in runs if figures(run, results) is None]
        for run in runs:
            prefix = os.path.join(scratch, run.name)
            if run in missing:
                _check_unchanged(run, prefix)
            else:
                _tidy(prefix)  # it may have ended while this was being stopped
        print(f"{len(runs) - len(missing)} of {len(runs)} runs are done", flush=True)
        failed = _train(missing, results, scratch, jobs)
    if failed:
        raise ValueError(f"{len(failed)} of {len(missing)} runs failed: see {', '.join(failed)}")


def figures(run, results):
    """The figures of a run, None if it is not done; ValueError if they are of other flags."""
    path = result_path(results, run.name)
    if not os.path.exists(path):
        return None
    found = read(path)
    if _flags_of(found.get("command", "")) != _decisive(run.flags):
        raise ValueError(f"{path}: of other flags than {run.command_line}: remove it to train it "
                         "again, or write elsewhere")
    return found


def _flags_of(command):
    """What decides a recorded run; None if the command is of something else."""
    try:
        _, script, *words = shlex.split(command)
    except ValueError:  # too few words, or an open quotation
        return None
    return _decisive(words) if script == os.path.basename(SCRIPT) else None


def _decisive(words):
    """Those flags that make a run what it is."""
    flags, words = [], iter(words)
    for word in words:
        if word not in NOT_DECISIVE:
            flags.append(word)
        elif NOT_DECISIVE[word]:
            next(words, None)
    return flags


def _check_unchanged(run, prefix):
    """Raises ValueError if a run was begun with other flags than it has now."""
    before = files.read_if_there(f"{prefix}.flags")
    if before is None or not checkpoint.begun(prefix):
        return
    if _decisive(shlex.split(before.decode())) != _decisive(run.flags):
        raise ValueError(f"{prefix}.flags: the run was begun with other flags than "
                         f"{run.command_line}: remove {prefix}-* to begin it again")


def _train(missing, results, scratch, jobs):
    """Trains runs and returns the logs of those that failed."""
    todo, processes, failed = iter(missing), {}, []
    try:
        while True:
            for run in itertools.islice(todo, jobs - len(processes)):
                processes[run.name] = _start(run, results, os.path.join(scratch, run.name))
            if not processes:
                return failed
            time.sleep(0.2)
            for name in [name for name, process in processes.items() if process.poll() is not None]:
                prefix = os.path.join(scratch, name)
                if processes.pop(name).returncode:
                    failed.append(f"{prefix}.log")
                    print(f"{name}: failed, see {prefix}.log: {_last_line(failed[-1])}", flush=True)
                    continue
                _tidy(prefix)
                print(f"{name}: {read(result_path(results, name))['test_accuracy']:.2%}",
                      flush=True)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()


def _start(run, results, prefix):
    flags = [*run.flags, "--resume", "--keep-last", "2", "--model-prefix", prefix,
             "--result", result_path(results, run.name)]
    if os.path.isdir(f"{prefix}-export") and not checkpoint.begun(prefix):
        flags.append("--overwrite")  # it was done, but its figures were removed, to train it again
    os.makedirs(os.path.dirname(prefix), exist_ok=True)
    files.write_bytes(f"{prefix}.flags", run.command_line.encode())
    # What is started here does not hear Ctrl-C: it gets one SIGTERM, as a second signal kills.
    with open(f"{prefix}.log", "a", encoding="utf-8") as log, \
            _handled(signal.SIGINT, signal.SIG_IGN):
        return subprocess.Popen([sys.executable, SCRIPT, *flags], stdout=log, stderr=log,
                                stdin=subprocess.DEVNULL, preexec_fn=agent.die_with(os.getpid()))


def _last_line(path):
    """The last line of a log, which says why a run failed."""
    with open(path, encoding="utf-8", errors="replace") as log:
        return "".join(collections.deque(filter(str.strip, log), maxlen=1)).strip()


def _tidy(prefix):
    """Removes what a run needs no more when it is done."""
    for epoch in checkpoint.epochs(prefix):
        checkpoint.remove(prefix, epoch)
    files.remove(f"{prefix}.flags")


@contextlib.contextmanager
def _handled(number, handler):
    """Handles a signal, and afterwards as before."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _terminate(*_):
    raise cli.Terminated


def result_path(results, name):
    """The path of the figures of a run."""
    return os.path.join(results, f"{name}.json")


def read(path):
    """The figures of a run.

    Raises:
        OSError: they cannot be read.
        ValueError: the file is no result of ``train_mnist.py``.
    """
    content = files.read(path)
    try:
        figures = files.parse_json(content)
    except ValueError:
        figures = None
    fields.check(path, figures, "a result of train_mnist.py; remove it to train it again",
                 "test_accuracy", "parameters")
    return figures
