"""Images from files: pictures of the usual formats, and idx files."""
import contextlib
import io
import math
import warnings

import numpy as np
from PIL import Image, ImageOps

from common import files
from common.data import idx

IDX_START = b"\0\0\x08"  # of unsigned bytes
# Not every format that Pillow has: for some, such as EPS, it runs other programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 2**22  # in a picture; a small file can claim any number
LARGEST = 2**26  # bytes of a picture, which are some for each pixel at most
LEAST_CONTRAST = 32  # between the greys of a picture that has something on it


def read_all(paths, invert=False):
    """Reads images of one size.

    Args:
        paths: of pictures and idx files of images, raw or ``.gz``.
        invert: whether to swap black and white.

    Returns:
        uint8 (N, H, W); for each image its path and its index in an idx file, or None; and lines of
        what may not be as it was meant.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is something else, or its images are of another size than the first's.
    """
    arrays, sources, doubts = [], [], []
    for path in paths:
        images, numbered, doubtful = _read(path, invert)
        if arrays and images.shape[1:] != arrays[0].shape[1:]:
            sizes = [" x ".join(map(str, array.shape[1:])) for array in (images, arrays[0])]
            raise ValueError(f"{path}: {sizes[0]} pixels, but {paths[0]} has {sizes[1]}")
        arrays.append(images)
        doubts += [f"{path}: {doubt}" for doubt in doubtful]
        sources += [(path, index if numbered else None) for index in range(len(images))]
    return np.concatenate(arrays), sources, doubts


def _read(path, invert):
    """The images (N, H, W) of a file, whether it is an idx file, and what is doubtful."""
    with files.reading(path, files.ARRAYS) as file:
        start = file.read(len(IDX_START))
    if path.endswith(".gz") or start == IDX_START:
        images = idx.decode(path, idx.read(path), "images")
        return 255 - images if invert else images, True, []
    image, doubts = _decode(path, files.read(path, LARGEST), invert)
    return image[None], False, doubts


def _decode(path, content, invert):
    """The greys (H, W) of a picture, the right way up, and what is doubtful.

    What is transparent becomes the background, which is 0.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                size = image.size
                if math.prod(size) <= MOST_PIXELS:
                    image.load()  # raises for damage, which the EXIF data could hide
                    mode, more = image.mode, getattr(image, "is_animated", False)
                    pixels = np.asarray(_upright(image).convert("LA"))
    except Image.DecompressionBombError:
        size = (math.inf,)
    except Exception:  # Pillow's decoders raise whatever a damaged file leads to
        raise ValueError(f"{path}: neither a whole picture nor an idx file") from None
    if math.prod(size) > MOST_PIXELS:
        raise ValueError(f"{path}: a picture of more than {MOST_PIXELS} pixels")
    if mode.startswith(("I", "F")):
        raise ValueError(f"{path}: has more than 8 bits in a pixel")
    grey, alpha = pixels[..., 0], pixels[..., 1]
    image = ((255 - grey if invert else grey) * (alpha / 255)).round().astype(np.uint8)
    doubts = ["only the first of its frames is taken"] if more else []
    if np.ptp(image) < LEAST_CONTRAST:
        hint = f"; is it ink on transparency? try it {'without' if invert else 'with'} --invert"
        doubts.append(f"blank, or nearly so: its greys are from {image.min()} to {image.max()}"
                      + hint * bool((alpha < 255).any()))
    return image, doubts


def _upright(image):
    """A picture turned as its EXIF data say; as it is, where these are damaged."""
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image
