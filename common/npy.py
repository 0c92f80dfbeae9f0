"""The ``.npy`` format, read without trust: no pickles, and no more memory than it has bytes."""
import io
import math

import numpy as np
from numpy.lib import format

LONGEST_HEADER = 1000  # bytes; NumPy's are of some hundred
KINDS = "biufU"  # of data types: numbers and text, no objects


def decode(content):
    """The array of an ``.npy`` file, which is to hold as many bytes as its header announces.

    Raises ValueError, or anything else, if it is none.
    """
    file = io.BytesIO(content)
    if format.read_magic(file) != (1, 0):
        raise ValueError("of another version")
    shape, fortran, dtype = format.read_array_header_1_0(file, max_header_size=LONGEST_HEADER)
    start = file.tell()
    if dtype.kind not in KINDS:
        raise ValueError("of objects, not of numbers")
    if math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError("of another length than it announces")
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if fortran else "C")
