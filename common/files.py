"""Files that are whole or absent: written under a temporary name, then renamed."""
import contextlib
import errno
import json
import os


@contextlib.contextmanager
def naming(path):
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
        with naming(path):
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


def check_regular(path):
    """Raises OSError if there is a device or a pipe: it need not end."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(errno.EINVAL, "not a file", path)


def read_bytes(path):
    """The content of a file; None if there is no such file."""
    check_regular(path)
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write_bytes(path, content):
    """Writes ``content`` to ``path``, whole or not at all."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


def write_json(path, value):
    """Writes ``value`` to ``path`` as JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def check_writable(path):
    """Makes the folder of ``path``; raises OSError or ValueError if no file can be written there.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path!a}: not a name in UTF-8, which MXNet wants") from None
    special = os.path.exists(path) and not os.path.isfile(path)  # root could replace /dev/null
    if special or not os.path.basename(path):
        raise OSError(errno.EINVAL, "cannot be written: it names no file", path or "''")
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    probe = f"{path}.{os.getpid()}.part"
    try:
        with open(probe, "wb"):
            os.remove(probe)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", path) from None
