"""NumPy's ``.npz`` files as Keras has them: x_train, y_train, x_test, y_test."""
import zipfile

from common import cli, files, npy

NAMES = ("x_train", "y_train", "x_test", "y_test")  # the last two may be missing


def read(path):
    """Reads the arrays of an ``.npz`` file, compressed or not.

    Returns:
        Training images and labels, test images and labels, as they are there; None for the test's
        where there are none.

    Raises:
        ValueError: the file is damaged, too large, or holds other things.
        OSError: it cannot be read.
    """
    with files.reading(path, files.ARRAYS) as file:
        try:
            archive = zipfile.ZipFile(file)
            members = {member.filename: member for member in archive.infolist()}
        except Exception:  # zipfile raises whatever a damaged archive leads to
            raise ValueError(f"{path}: not a whole .npz file") from None
        held = [name[:-len(".npy")] for name in members if name.endswith(".npy")]
        wanted = NAMES if set(NAMES[2:]) & set(held) else NAMES[:2]
        missing = [name for name in wanted if name not in held]
        if missing:
            raise ValueError(f"{path}: expected arrays named {', '.join(NAMES)}, got "
                             f"{cli.some(held) or 'none'}: {missing[0]} is missing")
        members = [members[f"{name}.npy"] for name in wanted]
        size = sum(member.file_size for member in members)
        if size > files.ARRAYS:
            raise ValueError(f"{path}: its arrays take {size / 2**30:.0f} GiB of memory, more than "
                             f"the {files.ARRAYS >> 30} GiB that a set may: give fewer images, or "
                             "uint8")
        found = [_array(path, archive, member) for member in members]
    return (*found, *[None] * (len(NAMES) - len(found)))


def _array(path, archive, member):
    try:
        return npy.decode(archive.read(member))
    except Exception as error:  # whatever a damaged archive leads to
        raise ValueError(f"{path}: {member.filename} is no whole array of numbers "
                         f"({cli.one_line(error)})") from None
