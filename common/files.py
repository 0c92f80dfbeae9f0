"""Files that are whole or absent: written under a temporary name, then renamed; and locks."""
import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import stat
import tempfile

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TEXT = 2**24  # bytes; more than any symbol, list or JSON has: a ResNet of 152 layers has 2**18
ARRAYS = 2**32  # more than any file of numbers has


@contextlib.contextmanager
def name_os_errors(path):
    """Gives ``path`` to an OSError that names no file: those of an open one do not."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            raise OSError(error.errno, error.strerror, path) from None
        raise


@contextlib.contextmanager
def replacing(path, temporary=None):
    """Yields a temporary path beside ``path``, which takes its place when the block ends well.

    Its name holds the number of the process, unless one is given.

    The contents are on the disk before the name changes, so that neither a kill nor a power cut
    leaves half a file under the final name. When the block raises, the temporary file is removed.
    """
    temporary = temporary or f"{path}.{os.getpid()}.part"
    try:
        with name_os_errors(path):
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    sync(os.path.dirname(path) or ".")


def sync(path):
    """Waits until a file, or the names in a folder, are on the disk."""
    if not os.path.isdir(path):
        with open(path, "r+b") as file:
            os.fsync(file.fileno())
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path):
    """Removes a file, if it is there and can be."""
    with contextlib.suppress(OSError):
        os.remove(path)


@contextlib.contextmanager
def reading(path, most):
    """Opens a file, to read its bytes.

    Raises:
        OSError: there is none, or something else: a device or a pipe need not end.
        ValueError: it has more than ``most`` bytes.
    """
    with _opened(path) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if found.st_size > most:
            raise ValueError(f"{path}: more than {most} bytes, so not what it should be")
        yield file


def _opened(path):
    try:  # without waiting, as for one who writes to a pipe
        return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file") from None


def read(path, most=TEXT):
    """The content of a file of up to ``most`` bytes; raises as ``reading``."""
    with reading(path, most) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def read_if_there(path):
    """As ``read``; None if there is no such file."""
    try:
        return read(path)
    except FileNotFoundError:
        return None


def sha256(path):
    """The SHA-256 of a file, in hexadecimal; raises as ``reading``."""
    digest = hashlib.sha256()
    with reading(path, ARRAYS) as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def parse_json(content):
    """What JSON holds; ValueError if it is none, too deep, or has numbers of over 18 digits."""
    try:
        return json.loads(content.decode(), parse_int=_small)
    except RecursionError:
        raise ValueError("too deep") from None


def _small(digits):
    if len(digits) > 18:  # of 64 bits; to parse millions of digits takes for ever
        raise ValueError("a number that is too long")
    return int(digits)


def figures(path, program, use):
    """What a program has written into a file of JSON; {} if there is no file.

    Args:
        path: of the file.
        program: that wrote it, such as "experiments.growth".
        use: function that takes of it what will be used; what it raises, makes the file unfit.

    Raises ValueError if the file is unfit.
    """
    content = read_if_there(path)
    if content is None:
        return {}
    try:
        found = dict(parse_json(content))
        use(found)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, StopIteration):
        raise ValueError(f"{path}: not a result of {program}; move it away") from None
    return found


def write_bytes(path, content):
    """Writes ``content`` to ``path``, whole or not at all."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


def write_json(path, value):
    """Writes ``value`` to ``path`` as JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def prepare_output(path):
    """Makes the folder of ``path``; raises OSError or ValueError if no file can be written there.
    """
    if not _is_utf8(path):
        raise ValueError(f"{path!a}: not a name in UTF-8, which MXNet wants, or not by this "
                         "locale: give another name, or set LC_ALL=C.UTF-8")
    _check_names_file(path)
    folder = os.path.dirname(path) or "."
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, "is no folder", folder) from None
    _check_names_file(path)  # again, as in what may have been made just now there may be ".."
    probe = f"{path}.{os.getpid()}.part"
    try:
        with open(probe, "wb"):
            os.remove(probe)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", path) from None


def _check_names_file(path):
    special = os.path.exists(path) and not os.path.isfile(path)  # root could replace /dev/null
    if special or not os.path.basename(path):
        raise OSError(errno.EINVAL, "cannot be written: it names no file", path or "''")


def check_folder(path):
    """Raises OSError if nothing can be written in a folder, or it cannot be made; makes nothing."""
    there = path
    while not os.path.exists(there):
        there = os.path.dirname(there) or "."
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", path) from None


def _is_utf8(path):
    """Whether the system has a path by the bytes that MXNet will write it in."""
    try:
        return os.fsencode(path) == path.encode()
    except UnicodeEncodeError:
        return False


@contextlib.contextmanager
def exclusive(path):
    """Holds a lock file while a block runs, and removes it at the end.

    The lock is the system's and ends with the process, however that ends: a file that was left
    behind is in nobody's way. Where the file system has no locks, a warning says so.

    Raises:
        ValueError: another process holds it.
        OSError: the file cannot be written.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    handle = _locked(path)
    try:
        yield
    finally:
        try:
            remove(path)  # before the lock ends, lest it be the next one's file
        finally:
            os.close(handle)


def _locked(path):
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
