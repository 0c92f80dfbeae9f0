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

from common import files
from common.storage import fields

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
    with files.reading(path, files.ARRAYS) as file:
        try:
            arrays = _arrays(file)
            meta = files.parse_json(str(arrays.pop("meta")).encode())
        except Exception:  # zipfile raises whatever a damaged archive leads to
            raise ValueError(f"{path}: not a whole state file") from None
    fields.check(path, meta, "the state of a training")
    return arrays, meta


def _arrays(file):
    """The arrays of an archive; it raises anything if that is damaged."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        names = {member.filename for member in members}
        size = sum(member.file_size for member in members)
        if not stored or len(names) < len(members) or size > os.fstat(file.fileno()).st_size:
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
