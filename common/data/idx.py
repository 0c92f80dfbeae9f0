"""The idx format of MNIST's files, raw or gzipped.

Big-endian: two zero bytes, the type of the numbers, how many dimensions, their sizes, the numbers
(http://yann.lecun.com/exdb/mnist).
"""
import gzip
import math
import struct
import zlib

import numpy as np

from common import files

TYPES = {0x08: np.dtype("u1"), 0x09: np.dtype("i1"), 0x0B: np.dtype(">i2"), 0x0C: np.dtype(">i4"),
         0x0D: np.dtype(">f4"), 0x0E: np.dtype(">f8")}
DIMENSIONS = {"images": (3, 4), "labels": (1, 2)}  # in colour; with more columns, as QMNIST's
LARGEST = files.ARRAYS  # a header that claims more is taken for a broken one


def encode(array):
    """The bytes of the idx file of an array of one of ``TYPES``."""
    codes = {kind.newbyteorder("="): code for code, kind in TYPES.items()}
    code = codes[array.dtype.newbyteorder("=")]
    return struct.pack(f">4B{array.ndim}I", 0, 0, code, array.ndim, *array.shape) + array.astype(
        TYPES[code]).tobytes()


def decode(path, content, kind):
    """Turns the bytes of an idx file into an array.

    Args:
        path: where they come from, for the messages.
        content: the uncompressed bytes.
        kind: "images" or "labels".

    Returns:
        Images (N, H, W), (N, H, W, C) or (N, C, H, W), or labels (N,), of the file's own type,
        read-only. Of labels with columns the first one is taken.

    Raises:
        ValueError: these are not the bytes of one whole idx file of that kind.
    """
    if len(content) < 8:
        raise ValueError(f"{path}: {len(content)} bytes are too few for an idx file: truncated?")
    if content[:2] != b"\0\0" or content[2] not in TYPES:
        raise ValueError(f"{path}: not an idx file: it begins with other bytes than those have")
    dtype, dims = TYPES[content[2]], content[3]
    if dims not in DIMENSIONS[kind]:
        other = "".join(f", as {k} have" for k, of_k in DIMENSIONS.items() if dims in of_k)
        few, many = DIMENSIONS[kind]
        raise ValueError(f"{path}: expected {kind}, which have {few} or {many} dimensions, got "
                         f"{dims}{other}")
    header = 4 + 4 * dims
    shape = struct.unpack(f">{dims}I", content[4:header].ljust(4 * dims, b"\0"))
    expected = header + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise ValueError(f"{path}: the header announces {' x '.join(map(str, shape))} {kind}, "
                         f"{expected} bytes in all, but there are {len(content)}")
    if 0 in shape:
        raise ValueError(f"{path}: has no {kind}: {' x '.join(map(str, shape))}")
    array = np.frombuffer(content, dtype, offset=header).reshape(shape)
    return array[:, 0] if dims == 2 else array


def is_idx(start):
    """Whether a file that starts with at least three bytes may be an idx file."""
    return start[:2] == b"\0\0" and start[2:3] != b"" and start[2] in TYPES


def read(path):
    """Returns the uncompressed bytes of an idx file, raw or ``.gz``.

    Of a file that has more than its header announces, that much and a byte are read: a gzip bomb
    is not unpacked.

    Raises ValueError for a damaged or oversized file, and OSError for none or a device.
    """
    with files.reading(path, LARGEST) as file:
        if not path.endswith(".gz"):
            return _read_announced(file)
        try:
            with gzip.open(file) as unpacked:
                return _read_announced(unpacked)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: not a whole gzip file ({error})") from None


def _read_announced(file):
    header = file.read(4)
    if not is_idx(header) or len(header) < 4 or header[3] > 4:
        return header + file.read(4)  # of no use: ``decode`` says why
    header += file.read(4 * header[3])
    sizes = struct.unpack(f">{len(header) // 4 - 1}I", header[4:len(header) // 4 * 4])
    announced = math.prod(sizes) * TYPES[header[2]].itemsize
    return header + file.read(min(announced, LARGEST) + 1)
