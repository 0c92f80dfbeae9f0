"""A lock on a name, so that two runs do not write the same files."""
import contextlib
import fcntl
import logging
import os

from common import files


@contextlib.contextmanager
def held(path):
    """Holds a lock file while a block runs, and removes it at the end.

    The lock is the system's and ends with the process, however that ends: a file that was left
    behind is in nobody's way. Where the file system has no locks, a warning says so.

    Raises:
        ValueError: another process holds it.
        OSError: the file cannot be written.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    handle = _open(path)
    try:
        yield
    finally:
        files.remove(path)  # before the lock ends, lest it be the next one's file
        os.close(handle)


def _open(path):
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise ValueError(f"{path}: held by another run, which writes the same files: wait for "
                             "it, or write elsewhere") from None
        except OSError as error:
            logging.warning("%s: no lock, so take care that this is the only run (%s)", path,
                            error.strerror)
        if _is_open(path, handle):
            return handle
        os.close(handle)  # it was removed by its holder before it was ours


def _is_open(path, handle):
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
