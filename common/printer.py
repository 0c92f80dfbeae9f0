"""Prints in a thread of its own: a reader that pauses, as a pager does, holds up nothing else."""
import os
import queue
import sys
import threading

from common import cli


class Printer:
    """Prints lines, one after the other, while its owner goes on.

    It writes past Python's streams, which would keep a process from ending while they wait for a
    reader.

    Attributes:
        error: the last OSError of the standard output, None if there was none. Errors of which
            nobody can be told harm nothing.
    """

    def __init__(self):
        self.error, self._lines = None, queue.SimpleQueue()
        self._thread = threading.Thread(target=self._print_all, daemon=True)
        self._thread.start()

    def out(self, line):
        """Prints a line to the standard output."""
        self._lines.put((sys.stdout, line))

    def err(self, line):
        """Prints a line to the standard error."""
        self._lines.put((sys.stderr, line))

    def close(self):
        """There is no more to print."""
        self._lines.put(None)

    def wait(self, seconds):
        """Waits until all before ``close`` is printed; returns whether it is."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _print_all(self):
        for stream, line in iter(self._lines.get, None):
            content = f"{line}\n".encode(stream.encoding, "backslashreplace")
            try:
                while content:
                    content = content[os.write(stream.fileno(), content):]
            except OSError as error:
                if stream is not sys.stderr:
                    self.error = OSError(error.errno, error.strerror, cli.STDOUT)
