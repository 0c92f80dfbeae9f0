"""The state of a training as ``np.savez`` writes it: arrays, and among them "meta", a JSON text.

The archive holds no pickles and is not compressed, so that no more is allocated than the file
holds, whatever it says of itself.
"""
import io
import json
import math
import os
import re
import zipfile

import numpy as np

LARGEST_SIZE = 2**14  # of an image, in pixels or channels
HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)"
    rb"\{'descr': '(?P<dtype>[<|][biufU]\d{1,9})', 'fortran_order': (?P<fortran>False|True), "
    rb"'shape': \((?P<shape>[\d, ]{0,99})\), \} *\n", re.S)


def write(path, arrays, meta):
    """Writes arrays, name -> NumPy array, and whatever JSON holds."""
    content = io.BytesIO()  # zipfile prints a traceback when the disk of its file is full
    np.savez(content, meta=np.array(json.dumps(meta)), **arrays)
    with open(path, "wb") as file:
        file.write(content.getbuffer())


def read(path):
    """Reads what ``write`` wrote.

    Returns:
        The arrays, name -> NumPy array, and the meta, a dictionary.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged.
    """
    try:
        arrays = _arrays(path)
        meta = json.loads(str(arrays.pop("meta")))
    except OSError:
        raise
    except Exception:  # zipfile raises whatever a damaged archive leads to
        raise ValueError(f"{path}: not a whole state file") from None
    if not isinstance(meta, dict) or not all(
            fits(meta[name]) for name, fits in FIELDS.items() if name in meta):
        raise ValueError(f"{path}: not the state of a training")
    return arrays, meta


def is_image_shape(value):
    """Whether a value from JSON is a (C, H, W)."""
    return (isinstance(value, list) and len(value) == 3
            and all(type(size) is int and 0 < size <= LARGEST_SIZE for size in value))


def _is_history(value):
    return isinstance(value, list) and all(
        isinstance(figures, dict) and isinstance(figures.get("test_accuracy"), (int, float))
        for figures in value)


def _is_under_way(value):
    return value is None or (
        isinstance(value, dict)
        and all(_is_count(value.get(name)) for name in ("epoch", "batch", "num_batches"))
        and isinstance(value.get("tally"), dict)
        and set(value["tally"]) == {"count", "correct", "total_loss"}
        and all(isinstance(number, (int, float)) for number in value["tally"].values()))


def _is_count(value):
    return type(value) is int and value >= 0


FIELDS = {  # what the meta may hold -> whether a value is fit for it
    "recipe": lambda value: isinstance(value, dict),
    "updates": _is_count,
    "seconds": lambda value: isinstance(value, (int, float)),
    "history": _is_history,
    "flags": lambda value: isinstance(value, dict),
    "command": lambda value: isinstance(value, str),
    "image_shape": is_image_shape,
    "under_way": _is_under_way,
}


def _arrays(path):
    """The arrays of an archive; it raises anything if that is damaged."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        names = {member.filename for member in members}
        size = sum(member.file_size for member in members)
        if not stored or len(names) < len(members) or size > os.path.getsize(path):
            raise ValueError
        return {_name(member): _array(archive.read(member)) for member in members}


def _name(member):
    name, suffix = os.path.splitext(member.filename)
    if suffix != ".npy":
        raise ValueError
    return name


def _array(content):
    """The array of an ``.npy`` file, whose header must be as NumPy writes it."""
    header = HEADER.match(content)
    if int.from_bytes(header["length"], "little") != header.end() - 10:
        raise ValueError
    shape = tuple(int(size) for size in header["shape"].replace(b",", b" ").split())
    dtype = np.dtype(header["dtype"].decode())
    if math.prod(shape) * dtype.itemsize != len(content) - header.end():
        raise ValueError
    order = "F" if header["fortran"] == b"True" else "C"
    return np.frombuffer(content, dtype, offset=header.end()).reshape(shape, order=order)
