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
MODES = {1: "LA", 3: "RGBA"}  # by the number of channels, the last letter for what is transparent
GREYS = ("1", "L", "LA", "La")  # modes without colours

# For good, as pictures are decoded in threads: what catch_warnings changes is of the whole process.
warnings.filterwarnings("ignore", module=r"PIL\.")


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


def decode(path, content, channels=None):
    """The pixels of a picture, the right way up; what is transparent becomes black.

    Args:
        path: where the bytes come from, for the messages.
        content: the bytes of the picture's file.
        channels: 1 for greys, 3 for colours; by default what the picture has.

    Returns:
        uint8 (channels, H, W).

    Raises:
        ValueError: it is no whole picture, too large, or has more than 8 bits in a pixel.
    """
    colours, alpha, _ = _pixels(path, content, channels)
    if alpha is not None:
        colours = (colours * (alpha / 255)).round().astype(np.uint8)
    return colours.transpose(2, 0, 1)


def resize(image, size):
    """An image uint8 (channels, H, W), 1 or 3 channels, stretched to (height, width)."""
    if image.shape[1:] == tuple(size):
        return image
    pixels = np.asarray(to_pillow(image).resize(size[::-1], Image.BILINEAR))
    return pixels.reshape(*size, len(image)).transpose(2, 0, 1)


def to_pillow(image):
    """Pillow's picture of an image uint8 (channels, H, W), 1 or 3 channels."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels))


def _decode(path, content, invert):
    """The greys (H, W) of a picture, the right way up, and what is doubtful.

    What is transparent becomes the background, which is 0.
    """
    colours, alpha, more = _pixels(path, content, 1, "neither a whole picture nor an idx file")
    image = 255 - colours if invert else colours
    if alpha is not None:
        image = (image * (alpha / 255)).round().astype(np.uint8)
    doubts = ["only the first of its frames is taken"] if more else []
    if np.ptp(image) < LEAST_CONTRAST:
        hint = f"; is it ink on transparency? try it {'without' if invert else 'with'} --invert"
        doubts.append(f"blank, or nearly so: its greys are from {image.min()} to {image.max()}"
                      + hint * (alpha is not None and bool((alpha < 255).any())))
    return image[..., 0], doubts


def _pixels(path, content, channels, fault="not a whole picture"):
    """A picture's colours (H, W, channels), its alpha (H, W, 1) or None, whether it has frames."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            size = image.size
            if math.prod(size) <= MOST_PIXELS:
                image.load()  # raises for damage, which the EXIF data could hide
                mode, more = image.mode, getattr(image, "is_animated", False)
                channels = channels or (1 if mode in GREYS else 3)
                opaque = not image.has_transparency_data
                wanted = MODES[channels][:-1] if opaque else MODES[channels]
                pixels = np.asarray(_upright(image).convert(wanted))
    except Image.DecompressionBombError:
        size = (math.inf,)
    except Exception:  # Pillow's decoders raise whatever a damaged file leads to
        raise ValueError(f"{path}: {fault}") from None
    if math.prod(size) > MOST_PIXELS:
        raise ValueError(f"{path}: a picture of more than {MOST_PIXELS} pixels")
    if mode.startswith(("I", "F")):
        raise ValueError(f"{path}: has more than 8 bits in a pixel")
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return pixels[..., :channels], None if opaque else pixels[..., channels:], more


def _upright(image):
    """A picture turned as its EXIF data say; as it is, where these are damaged."""
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image
