"""Images from files: pictures of the usual formats, and idx files."""
import io
import math
import warnings

import numpy as np
from PIL import Image

from common import files, idx

IDX_START = b"\0\0\x08"  # of unsigned bytes
# Not every format that Pillow has: for some, such as EPS, it runs other programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 2**22  # in a picture; a small file can claim any number
LARGEST = 2**26  # bytes of a picture, which are some for each pixel at most


def read_all(paths, invert=False):
    """Reads images of one size.

    Args:
        paths: of pictures and idx files of images, raw or ``.gz``.
        invert: whether to swap black and white.

    Returns:
        uint8 (N, H, W), and for each image its path and its index in an idx file, or None.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is something else, or its images are of another size than the first's.
    """
    arrays, sources = [], []
    for path in paths:
        images, numbered = _read(path, invert)
        if arrays and images.shape[1:] != arrays[0].shape[1:]:
            sizes = [" x ".join(map(str, array.shape[1:])) for array in (images, arrays[0])]
            raise ValueError(f"{path}: {sizes[0]} pixels, but {paths[0]} has {sizes[1]}")
        arrays.append(images)
        sources += [(path, index if numbered else None) for index in range(len(images))]
    return np.concatenate(arrays), sources


def _read(path, invert):
    """The images (N, H, W) of a file, and whether it is an idx file."""
    with files.reading(path, files.ARRAYS) as file:
        start = file.read(len(IDX_START))
    if path.endswith(".gz") or start == IDX_START:
        images = idx.decode(path, idx.read(path), "images")
        return 255 - images if invert else images, True
    return _decode(path, files.read(path, LARGEST), invert)[None], False


def _decode(path, content, invert):
    """The greys (H, W) of a picture; what is transparent becomes the background, which is 0."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                size = image.size
                if math.prod(size) <= MOST_PIXELS:
                    mode, pixels = image.mode, np.asarray(image.convert("LA"))
    except Image.DecompressionBombError:
        size = (math.inf,)
    except Exception:  # Pillow's decoders raise whatever a damaged file leads to
        raise ValueError(f"{path}: neither a whole picture nor an idx file") from None
    if math.prod(size) > MOST_PIXELS:
        raise ValueError(f"{path}: a picture of more than {MOST_PIXELS} pixels")
    if mode.startswith(("I", "F")):
        raise ValueError(f"{path}: has more than 8 bits in a pixel")
    grey, alpha = pixels[..., 0], pixels[..., 1]
    return ((255 - grey if invert else grey) * (alpha / 255)).round().astype(np.uint8)
