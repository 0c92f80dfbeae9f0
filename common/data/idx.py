"""The idx format of MNIST's files, raw or gzipped.

Big-endian: a magic number that holds the number of dimensions, the dimensions, then unsigned
bytes (http://yann.lecun.com/exdb/mnist).
"""
import gzip
import math
import struct
import zlib

import numpy as np

from common import files

MAGIC = {"images": 0x803, "labels": 0x801}
LARGEST = files.ARRAYS  # a header that claims more is taken for a broken one


def encode(array):
    """The bytes of the idx file of a uint8 array: images (N, H, W) or labels (N,)."""
    magic = MAGIC["images" if array.ndim == 3 else "labels"]
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def decode(path, content, kind):
    """Turns the bytes of an idx file into a uint8 array.

    Args:
        path: where they come from, for the messages.
        content: the uncompressed bytes.
        kind: "images" or "labels".

    Returns:
        Images (N, H, W) or labels (N,), uint8, read-only.

    Raises:
        ValueError: these are not the bytes of one whole idx file of that kind.
    """
    dims = 3 if kind == "images" else 1
    header = 4 + 4 * dims
    if len(content) < header:
        raise ValueError(f"{path}: {len(content)} bytes are too few for an idx file: truncated?")
    magic, *shape = struct.unpack(f">{1 + dims}I", content[:header])
    if magic != MAGIC[kind]:
        other = "".join(f" ({k})" for k, m in MAGIC.items() if m == magic)
        raise ValueError(f"{path}: expected the magic number 0x{MAGIC[kind]:08x} ({kind}), "
                         f"got 0x{magic:08x}{other}")
    expected = header + math.prod(shape)
    if len(content) != expected or 0 in shape:
        raise ValueError(f"{path}: the header announces {' x '.join(map(str, shape))} {kind}, "
                         f"{expected} bytes in all, but there are {len(content)}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


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
    header += file.read(4 * header[3] if len(header) == 4 and header[3] <= 3 else 0)
    sizes = struct.unpack(f">{len(header) // 4}I", header[:len(header) // 4 * 4])[1:]
    return header + file.read(min(math.prod(sizes), LARGEST) + 1)
