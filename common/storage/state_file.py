"""The state of a training as ``np.savez`` writes it: arrays, and among them "meta", a JSON text.

The archive holds no pickles and is not compressed, so that no more is allocated than the file
holds, whatever it says of itself.
"""
import io
import json
import os
import zipfile

import numpy as np

from common import files, npy
from common.storage import fields


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
        return {_name(member): npy.decode(archive.read(member)) for member in members}


def _name(member):
    name, suffix = os.path.splitext(member.filename)
    if suffix != ".npy":
        raise ValueError
    return name
