"""Params files as MXNet's ``nd.save`` writes them, read without MXNet.

MXNet trusts what such a file says of itself: how many arrays, of which sizes. Here nothing is
allocated before all of it is known to fit together, and to end where the file does.

Little-endian: a magic number, 8 unused bytes, the number of arrays, the arrays; the number of
names, the names with their lengths. An array is a magic number, its storage type, the number of
its dimensions, these, its device, its data type and its numbers. MXNet 0.11 had no storage type.
Versions before it had no magic number either, and dimensions of 32 bits instead of 64.
"""
import math
import struct
from typing import NamedTuple, Tuple

import mxnet as mx
import numpy as np

from common import files

MAGIC = 0x112
WITH_STORAGE = (0xF993FAC9, 0xF993FACA)  # the latter if shapes are to be as NumPy's
WITHOUT_STORAGE = 0xF993FAC8
DENSE = 0
DTYPES = ("<f4", "<f8", "<f2", "|u1", "<i4", "|i1", "<i8")
KINDS = ("arg:", "aux:")
MOST_DIMENSIONS = 32
LARGEST = 2**31  # bytes; the largest of the well-known networks have 2**29


def read(path):
    """Reads a params file.

    Returns:
        arg_params and aux_params, name -> NDArray on the CPU.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged, or holds something else than dense arrays of parameters.
    """
    params = {kind: {} for kind in KINDS}
    with files.reading(path, LARGEST) as file:
        try:
            for name, place in _named_places(_Cursor(file)).items():
                params[name[:4]][name[4:]] = place.read(file)
        except _Fault as fault:
            raise ValueError(f"{path}: not a whole params file: {fault}") from None
    return tuple(params.values())


class _Fault(Exception):
    """What is wrong with a file."""


class _Cursor:
    """Goes through a file from one part to the next."""

    def __init__(self, file):
        self.file = file
        self.size = file.seek(0, 2)
        file.seek(0)

    def numbers(self, format):
        """The numbers that follow, in a format of ``struct``."""
        return struct.unpack(f"<{format}", self.bytes(struct.calcsize(f"<{format}")))

    def bytes(self, count):
        """The bytes that follow."""
        self.file.seek(self.skip(count))
        return self.file.read(count)

    def skip(self, count):
        """Goes on without reading; returns the place where it was."""
        place = self.file.tell()
        if count > self.size - place:
            raise _Fault("it ends too soon")
        self.file.seek(count, 1)
        return place


class _Place(NamedTuple):
    """Where the numbers of an array are in a file."""

    start: int
    dtype: np.dtype
    shape: Tuple[int, ...]

    def read(self, file):
        """The array, as an NDArray."""
        array = np.empty(self.shape, self.dtype)
        file.seek(self.start)
        if file.readinto(array) < array.nbytes:
            raise _Fault("it became shorter meanwhile")
        return mx.nd.array(array, mx.cpu(), array.dtype)


def _named_places(cursor):
    """The arrays of a file by their names, which are unique."""
    magic, _, count = cursor.numbers("QQQ")
    if magic != MAGIC:
        raise _Fault("it does not begin as one")
    if count > cursor.size:  # of which each array takes many
        raise _Fault("it ends too soon")
    places = [_place(cursor) for _ in range(count)]
    if cursor.numbers("Q") != (count,):
        raise _Fault("it has not a name for each array")
    names = [_name(cursor) for _ in range(count)]
    if len(set(names)) < count:
        raise _Fault("two of its arrays have the same name")
    if cursor.file.tell() < cursor.size:
        raise _Fault("something follows its end")
    return dict(zip(names, places))


def _place(cursor):
    shape = _shape(cursor)
    if min(shape) < 1:
        raise _Fault(f"it has an array of shape {shape}")
    _, _, number = cursor.numbers("iii")  # after its device, which need not be here
    if not 0 <= number < len(DTYPES):
        raise _Fault(f"it has an array of data type {number}")
    dtype = np.dtype(DTYPES[number])
    return _Place(cursor.skip(math.prod(shape) * dtype.itemsize), dtype, shape)


def _shape(cursor):
    """The shape of an array, of whichever version of MXNet."""
    dimensions, = cursor.numbers("I")  # or a magic number
    size = "I"
    if dimensions in WITH_STORAGE and cursor.numbers("i") != (DENSE,):
        raise _Fault("it has an array that is not dense")
    if dimensions in (*WITH_STORAGE, WITHOUT_STORAGE):
        dimensions, = cursor.numbers("i")
        size = "q"
    if not 0 < dimensions <= MOST_DIMENSIONS:
        raise _Fault(f"it has an array of {dimensions} dimensions")
    return cursor.numbers(f"{dimensions}{size}")


def _name(cursor):
    length, = cursor.numbers("Q")
    try:
        name = cursor.bytes(length).decode()
    except UnicodeDecodeError:
        name = ""
    if name[:4] not in KINDS or not name.isprintable():
        raise _Fault("it has an array that is not named arg: or aux:")
    return name
