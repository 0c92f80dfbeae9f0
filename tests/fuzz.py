"""Damages the files of a training again and again, and sees what becomes of loading them.

    python -m tests.fuzz --files 2000

A file is loaded as the scripts load it, in a process whose end is noticed; some go through the
scripts themselves. What has a manifest or a checksum is to be refused, in one short and printable
line. What has none may load as something else, as long as nothing crashes.
"""
import argparse
import collections
import contextlib
import hashlib
import io
import logging
import multiprocessing
import re
import resource
import signal
import sys
import tempfile
from random import Random

import numpy as np

from common import cli, find_mxnet, markdown  # noqa: F401  first, so that MXNet can be imported

# isort: split
from tests.conftest import run_script
from tests.fuzz_kinds import KINDS, make, write

PATIENCE = 300  # seconds for a file
LONGEST = 600  # letters of a line
OUTCOMES = ("refused", "as before", "other values", "silent", "traceback", "crash")
FAILURES = OUTCOMES[3:]


class Worker:
    """A process that loads files; it is started again when one of them has ended it.

    Args:
        folder: what ``make`` made, undamaged.
    """

    def __init__(self, folder):
        self.folder = folder
        self.start()

    def start(self):
        """Starts the process, and waits until it has loaded the undamaged files."""
        spawn = multiprocessing.get_context("spawn")
        self.connection, other = spawn.Pipe()
        self.process = spawn.Process(target=work, args=(other, self.folder))
        self.process.start()
        other.close()
        self.connection.recv()

    def __call__(self, name):
        """The outcome of loading what is there of a kind, and what was said."""
        self.connection.send(name)
        with contextlib.suppress(EOFError, ConnectionError):
            if self.connection.poll(PATIENCE):
                return self.connection.recv()
        self.close()
        return "crash", f"the process left with status {self.process.exitcode}"

    def close(self):
        """Ends the process, which leaves by itself unless it hangs."""
        self.connection.close()
        self.process.join(5)
        self.process.terminate()
        self.process.join()


def work(connection, folder):
    """Loads the kinds of files whose names come through a connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    logging.disable(logging.CRITICAL)
    sys.argv = ["fuzz.py"]
    before = {name: digest(kind.load(folder)) for name, kind in KINDS.items()}
    connection.send("ready")
    with contextlib.suppress(EOFError, ConnectionError):  # nobody asks any more
        while True:
            name = connection.recv()
            connection.send(load(KINDS[name], folder, before[name]))


@contextlib.contextmanager
def damaged(folder, seed, number):
    """Damages a file for a while, of each kind in turn; yields the kind's name."""
    name = list(KINDS)[number % len(KINDS)]
    path, whole = KINDS[name].damage(folder, Random(f"{seed} {number}"))
    yield name
    write(path, whole)


def load(kind, folder, before):
    """Loads files of a kind; returns the outcome and what was said.

    Args:
        kind: a ``Kind``.
        folder: where they are.
        before: the ``digest`` of what the undamaged files give.
    """
    found, said = [], io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            cli.run(lambda: found.append(kind.load(folder)))
    except SystemExit as left:
        status = left.code
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {error}"
    same = bool(found) and digest(found[0]) == before
    return judge(kind, status or 0, said.getvalue(), same)


def load_by_script(name, folder):
    """The outcome of the script that a kind is for, and what it said."""
    kind = KINDS[name]
    done = run_script(*[part.format(folder) for part in kind.script])
    return judge(kind, done.returncode, done.stderr, same=not kind.vouched)


def judge(kind, status, said, same):
    """The outcome that an exit status and what was said on stderr amount to."""
    *warnings, last = said.splitlines() or [""]
    short = all(line.isprintable() and len(line) < LONGEST for line in [*warnings, last])
    if status == 2 and short and re.match(r"\w+\.py: error: .", last) and not re.search(
            "Traceback|error", " ".join(warnings), re.I):
        return "refused", said
    if status:
        return ("traceback" if status in (1, 2) else "crash"), said
    return ("as before" if same else "silent" if kind.vouched else "other values"), said


def digest(value):
    """A hash of nested lists, tuples and dictionaries of arrays and plain values."""
    if isinstance(value, dict):
        value = sorted(value.items())
    if isinstance(value, (list, tuple)):
        value = [digest(part) for part in value]
    elif hasattr(value, "asnumpy"):
        value = value.asnumpy()
    content = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
    return hashlib.sha256(content).hexdigest()


def fuzz(folder, files, scripts, seed=0):
    """Damages files, and loads each.

    Args:
        folder: an empty one.
        files: how many; each kind has equally many.
        scripts: how many more go through the scripts.
        seed: of the damages.

    Returns:
        Kind -> a Counter of outcomes; failures are printed.
    """
    make(folder)
    counts = {name: collections.Counter() for name in KINDS}
    with contextlib.closing(Worker(folder)) as worker:
        for number in range(files + scripts):
            if not worker.process.is_alive():
                worker.start()
            with damaged(folder, seed, number) as name:
                by_script = number >= files and KINDS[name].script
                found, said = load_by_script(name, folder) if by_script else worker(name)
                if by_script and found == "silent":  # a script does not say what it has loaded
                    found, said = worker(name)
            counts[name][found] += 1
            if found in FAILURES:
                print(f"{name}, number {number}: {found}: {said}", flush=True)
    return counts


def table(counts):
    """The counts as Markdown."""
    total = sum(counts.values(), collections.Counter())
    return markdown.table(["", "files", *OUTCOMES], [
        [name, sum(found.values()), *(found[one] for one in OUTCOMES)]
        for name, found in [*counts.items(), ("all", total)]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000, help="how many files to damage")
    parser.add_argument("--scripts", type=int, default=50, help="and for the scripts themselves")
    parser.add_argument("--seed", type=int, default=0, help="of the damages")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = fuzz(folder, args.files, args.scripts, args.seed)
    print(table(counts))
    peak = max(resource.getrusage(who).ru_maxrss
               for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"Peak memory of a process: {peak / 2**10:.0f} MiB")  # in KiB on Linux
    return 1 if any(found[one] for found in counts.values() for one in FAILURES) else 0


if __name__ == "__main__":
    cli.run(main)
