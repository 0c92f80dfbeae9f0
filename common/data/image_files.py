"""Images from files: pictures of the usual formats, and idx files."""
import contextlib
import io
import logging
import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from common import cli, files
from common.data import arrays, idx

# Not every format that Pillow has: for some, such as EPS, it runs other programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
NOT_WHOLE = f"not a whole picture in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
PNG = b"\x89PNG"  # what its files begin with
MOST_PIXELS = 2**22  # in a picture; a small file can claim any number
MOST_TO_SHRINK = 2**26  # in one to be resized, such as a photograph
LARGEST = 2**26  # bytes of a picture, which are some for each pixel at most
GREYS = ("1", "L", "LA", "La")  # Pillow's modes without colours
AT_ONCE = 64  # pictures that are in memory before they have their place
THREADS = min(8, os.cpu_count() or 1)  # that decode
LEAST_CONTRAST = 32  # between the greys of a picture that has something on it

# For good, as pictures are decoded in threads: what catch_warnings changes is of the whole process.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Picture(NamedTuple):
    """A decoded picture: uint8 (H, W), or (3, H, W) in colour, and what else was in the file."""

    pixels: np.ndarray
    is_transparent: bool  # in places, which became 0
    is_animated: bool  # the first frame was taken


def read_all(paths, invert=False, channels=1, image_shape=None):
    """Reads images of one size.

    Args:
        paths: of pictures and idx files of images, raw or ``.gz``.
        invert: whether to swap black and white.
        channels: 1 to make them grey, or 3.
        image_shape: (C, H, W) to resize them to.

    Returns:
        uint8 (N, H, W) or (N, 3, H, W); for each image its path and its index in an idx file, or
        None; and lines of what may not be as it was meant.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is something else, or its images are of another size than the first's.
    """
    all_images, sources, doubts = [], [], []
    for path in paths:
        images, numbered, doubtful = _read(path, invert, channels, image_shape)
        if all_images and images.shape[1:] != all_images[0].shape[1:]:
            sizes = [arrays.in_words(array.shape[-2:]) for array in (images, all_images[0])]
            raise ValueError(f"{path}: {sizes[0]} pixels, but {paths[0]} has {sizes[1]}")
        all_images.append(images)
        doubts += [f"{path}: {doubt}" for doubt in doubtful]
        sources += [(path, index if numbered else None) for index in range(len(images))]
    return np.concatenate(all_images), sources, doubts


def read_whole(path, sources, read, skip_broken):
    """Reads many pictures in some threads, beside a bar, and yields those that are whole.

    Args:
        path: of the folder that they are in, for the messages.
        sources: what to read, in order.
        read: a function of one of them; it raises ValueError or OSError if that is broken.
        skip_broken: whether these are left out with a warning, where otherwise the first ends all.

    Yields:
        The number of each in ``sources``, and what ``read`` returns.

    Raises:
        ValueError: a picture is broken.
    """
    def tried(source):
        try:
            return read(source), None
        except (ValueError, OSError) as error:
            return None, cli.one_line(error)

    name, broken = cli.printable(os.path.basename(os.path.abspath(path))), 0
    Image.init()  # here, not in several threads at once
    with logging_redirect_tqdm(), ThreadPoolExecutor(THREADS) as pool, tqdm(
            total=len(sources), desc=f"Reading {name}", unit=" img", disable=None, leave=False,
            dynamic_ncols=True) as bar:
        for start in range(0, len(sources), AT_ONCE):
            block = sources[start:start + AT_ONCE]
            for number, (found, problem) in enumerate(pool.map(tried, block), start):
                if problem is None:
                    yield number, found
                elif skip_broken:
                    logging.warning("%s: left out", problem)
                    broken += 1
                else:
                    raise ValueError(f"{problem}: --broken skip leaves it out")
            bar.update(len(block))
    if broken:
        logging.warning("%s: %d of %d pictures are broken and left out", path, broken, len(sources))


def _read(path, invert, channels, image_shape):
    """The images (N, [3,] H, W) of a file, whether it is an idx file, and what is doubtful."""
    with files.reading(path, files.ARRAYS) as file:
        start = file.read(4)
    if path.endswith(".gz") or idx.is_idx(start):
        images, = arrays.as_images(path, idx.decode(path, idx.read(path), "images"))
        images = arrays.resize(images, image_shape or (channels, *images.shape[-2:]))
        return 255 - images if invert else images, True, []
    picture = decode(path, files.read(path, LARGEST), channels, image_shape, invert)
    doubts, pixels = [], picture.pixels
    if picture.is_animated:
        doubts.append("only the first of its frames is taken")
    if np.ptp(pixels) < LEAST_CONTRAST:
        hint = f"; is it ink on transparency? try it {'without' if invert else 'with'} --invert"
        doubts.append(f"blank, or nearly so: its {'greys' if pixels.ndim == 2 else 'colours'} are "
                      f"from {pixels.min()} to {pixels.max()}" + hint * picture.is_transparent)
    return pixels[None], False, doubts


def decode(path, content, channels=None, image_shape=None, invert=False):
    """Decodes a picture: the right way up, transparent places as the background, which is 0.

    Args:
        path: for the messages.
        content: the bytes of its file.
        channels: 1 to make it grey, 3 for colour, or None for colour only if there is any.
        image_shape: (C, H, W) to resize it to; C takes the place of ``channels``.
        invert: whether to swap black and white.

    Returns:
        A ``Picture``.

    Raises:
        ValueError: it is damaged, or no picture, or one that is not taken.
    """
    if image_shape is not None:
        channels = image_shape[0]
    pixels, opaque, animated = _opened(path, content, channels, image_shape)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    colours, alpha = (pixels, None) if opaque else (pixels[..., :-1], pixels[..., -1:])
    transparent = not opaque and bool((alpha < 255).any())
    colours = 255 - colours if invert else colours
    if transparent:
        colours = ((colours * alpha.astype(np.uint16) + 127) // 255).astype(np.uint8)
    if channels is None and (colours == colours[..., :1]).all():
        colours = colours[..., :1]
    colours = colours[..., 0] if colours.shape[2] == 1 else colours.transpose(2, 0, 1)
    if image_shape is not None:
        colours = arrays.resize_one(colours, image_shape)
    return Picture(colours, transparent, animated)


def _opened(path, content, channels, image_shape):
    """A file's pixels (H, W) or (H, W, C), whether they lack alpha, and if others follow them."""
    most = MOST_PIXELS if image_shape is None else MOST_TO_SHRINK
    try:
        if content.startswith(PNG):
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                image.verify()  # its sums, of which decoding leaves out the last
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if math.prod(image.size) > most:
                raise Image.DecompressionBombError
            mode, animated = image.mode, getattr(image, "is_animated", False)
            if image_shape is not None:
                image.draft(None, [4 * max(image_shape[1:])] * 2)  # a JPEG in some half's size
            image.load()  # raises for damage, which the EXIF data could hide
            opaque = not image.has_transparency_data
            wanted = "L" if channels == 1 else "RGB"
            pixels = np.asarray(_upright(image).convert(wanted + "A" * (not opaque)))
    except Image.DecompressionBombError:
        raise ValueError(f"{path}: a picture of more than {most} pixels"
                         + "; --image-shape takes larger ones" * (image_shape is None)) from None
    except Exception:  # Pillow's decoders raise whatever a damaged file leads to
        raise ValueError(f"{path}: {NOT_WHOLE}") from None
    if mode.startswith(("I", "F")):
        raise ValueError(f"{path}: has more than 8 bits in a pixel")
    return pixels, opaque, animated


def channels_of(path, content):
    """1 if the picture in a file can only be grey, else 3; ValueError if it is none."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return 1 if image.mode in GREYS else 3
    except Exception:
        raise ValueError(f"{path}: {NOT_WHOLE}") from None


def _upright(image):
    """A picture turned as its EXIF data say; as it is, where these are damaged."""
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image
