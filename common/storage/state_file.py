"""The state of a training as ``np.savez`` writes it: arrays, and among them "meta", a JSON text.

The archive holds no pickles and is not compressed, so that no more is allocated than the file
holds, whatever it says of itself.
"""
import io
import json
import math
import os
import zipfile

import numpy as np
from numpy.lib import format

from common import files
from common.storage import fields

LONGEST_HEADER = 1000  # bytes; NumPy's are of some hundred
KINDS = "biufU"  # of data types: numbers and text, no objects


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
    """The array of an ``.npy`` file, which is to hold as many bytes as its header announces."""
    file = io.BytesIO(content)
    if format.read_magic(file) != (1, 0):
        raise ValueError
    shape, fortran, dtype = format.read_array_header_1_0(file, max_header_size=LONGEST_HEADER)
    start = file.tell()
    if dtype.kind not in KINDS or math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if fortran else "C")
