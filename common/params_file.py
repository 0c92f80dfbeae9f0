"""Params files as MXNet's ``nd.save`` writes them, read without MXNet.

MXNet trusts what such a file says of itself: how many arrays, of which sizes. Here nothing is
allocated that the file does not hold.

Little-endian: a magic number, 8 unused bytes, the number of arrays, the arrays; the number of
names, the names with their lengths. An array is a magic number, its storage type, the number of
its dimensions, these, its device, its data type and its numbers.
"""
import math
import os
import struct

import mxnet as mx
import numpy as np

MAGIC = 0x112
ARRAY_MAGICS = (0xF993FAC9, 0xF993FACA)  # the latter if shapes are to be as NumPy's
DENSE = 0
DTYPES = ("<f4", "<f8", "<f2", "|u1", "<i4", "|i1", "<i8")
KINDS = ("arg:", "aux:")
MOST_DIMENSIONS = 32


def read(path):
    """Reads a params file.

    Returns:
        arg_params and aux_params, name -> NDArray on the CPU.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged, or holds something else than dense arrays of parameters.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    with open(path, "rb") as file:
        cursor = _Cursor(file.read())
    try:
        found = _named_arrays(cursor)
    except _Fault as fault:
        raise ValueError(f"{path}: not a whole params file: {fault}") from None
    return tuple({name[4:]: mx.nd.array(array, mx.cpu(), array.dtype)
                  for name, array in found.items() if name.startswith(kind)} for kind in KINDS)


class _Fault(Exception):
    """What is wrong with a file."""


class _Cursor:
    """Takes the bytes of a file one after the other."""

    def __init__(self, content):
        self.content, self.place = content, 0

    def numbers(self, format):
        """Numbers in a format of ``struct``."""
        return struct.unpack(f"<{format}", self.bytes(struct.calcsize(f"<{format}")))

    def bytes(self, count):
        """A view of some bytes."""
        if count > len(self.content) - self.place:
            raise _Fault("it ends too soon")
        self.place += count
        return memoryview(self.content)[self.place - count:self.place]


def _named_arrays(cursor):
    """The arrays of a file by their names, which are unique."""
    magic, _, count = cursor.numbers("QQQ")
    if magic != MAGIC:
        raise _Fault("it does not begin as one")
    if count > len(cursor.content):  # of which each array takes many
        raise _Fault("it ends too soon")
    arrays = [_array(cursor) for _ in range(count)]
    if cursor.numbers("Q") != (count,):
        raise _Fault("it has not a name for each array")
    names = [_name(cursor) for _ in range(count)]
    if len(set(names)) < count:
        raise _Fault("two of its arrays have the same name")
    if cursor.place < len(cursor.content):
        raise _Fault("something follows its end")
    return dict(zip(names, arrays))


def _array(cursor):
    magic, = cursor.numbers("I")
    if magic not in ARRAY_MAGICS:
        raise _Fault("it has an array in the format of another version of MXNet")
    storage, dimensions = cursor.numbers("ii")
    if storage != DENSE:
        raise _Fault("it has an array that is not dense")
    if not 0 < dimensions <= MOST_DIMENSIONS:
        raise _Fault(f"it has an array of {dimensions} dimensions")
    shape = cursor.numbers(f"{dimensions}q")
    if min(shape) < 1:
        raise _Fault(f"it has an array of shape {shape}")
    _, _, number = cursor.numbers("iii")  # after its device, which need not be here
    if not 0 <= number < len(DTYPES):
        raise _Fault(f"it has an array of data type {number}")
    dtype = np.dtype(DTYPES[number])
    return np.frombuffer(cursor.bytes(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)


def _name(cursor):
    length, = cursor.numbers("Q")
    try:
        name = bytes(cursor.bytes(length)).decode()
    except UnicodeDecodeError:
        name = ""
    if name[:4] not in KINDS or not name.isprintable():
        raise _Fault("it has an array that is not named arg: or aux:")
    return name
