"""Arrays of images as files have them, turned into what is trained on: uint8 (N, [3,] H, W).

What a number means must be clear from the array itself; anything else is refused.
"""
import math

import numpy as np
from PIL import Image

from common import files

LARGEST = files.ARRAYS  # bytes of the images of one part, which are held in memory
BLOCK = 1000  # images that are converted at once


def check_size(path, count, image_shape):
    """Raises ValueError for more images of a shape, in uint8, than memory is to hold."""
    if count * math.prod(image_shape) > LARGEST:
        raise ValueError(f"{path}: {count} images of {in_words(image_shape)} take "
                         f"{count * math.prod(image_shape) / 2**30:.0f} GiB of memory, more than "
                         f"the {LARGEST >> 30} GiB that a set may: give fewer, or smaller ones by "
                         "--image-shape C,H,W")


def in_words(shape):
    return " x ".join(map(str, shape))


def as_images(path, *parts):
    """Images of one data set as uint8.

    Args:
        path: where they come from, for the messages.
        *parts: arrays (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels, such as the
            training and the test images; of uint8, of bool, of whole numbers from 0 to 255, or of
            fractions from 0 to 1.

    Returns:
        A list of them as uint8 (N, H, W) or (N, 3, H, W). Fractions are multiplied by 255, and so
        are booleans.

    Raises:
        ValueError: they are something else; the message says what to do.
    """
    parts = [_channels_first(path, part) for part in parts]
    shades = iter(_shades(path, [part for part in parts if part.dtype != bool]))
    return [part * np.uint8(255) if part.dtype == bool else next(shades) for part in parts]


def _shades(path, parts):
    """As ``as_images``, of parts of numbers."""
    if parts and all(part.dtype.kind != "f" for part in parts) and max(map(np.max, parts)) == 1:
        raise ValueError(f"{path}: the pixels are whole numbers up to 1, which is black in all of "
                         "0 to 255: give them as booleans, or multiply them by 255")
    if all(part.dtype == np.uint8 for part in parts):
        return parts
    lows, highs = zip(*((part.min(), part.max()) for part in parts))
    low, high = np.min(lows), np.max(highs)  # NaN stays
    fractions = any(part.dtype.kind == "f" and 0 < most <= 1 for part, most in zip(parts, highs))
    if not (low >= 0 and high <= 255):  # nor is NaN
        raise ValueError(f"{path}: the pixels are from {low:g} to {high:g}: expected 0 to 255, or "
                         "fractions from 0 to 1; convert them to uint8")
    if fractions and high > 1:
        raise ValueError(f"{path}: training and test images are of different scales: up to "
                         f"{highs[0]:g}, and up to {highs[1]:g}; convert them to uint8")
    for part in parts:
        check_size(path, len(part), part.shape[1:])
    return [_as_uint8(path, part, fractions) for part in parts]


def _channels_first(path, images):
    """Images (N, H, W) or (N, 3, H, W) of those in any order."""
    if images.ndim not in (3, 4) or 0 in images.shape or images.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected images (N, H, W), (N, H, W, C) or (N, C, H, W) of "
                         f"numbers, got {images.dtype} ({', '.join(map(str, images.shape))})")
    if images.ndim == 3:
        return images
    first, last = (images.shape[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        problem = "either may be" if first else "neither is"
        raise ValueError(f"{path}: images of {in_words(images.shape[1:])}: the channels, 1 or 3, "
                         f"are to be the first or the last of these, and {problem}")
    images = images if first else np.moveaxis(images, 3, 1)
    return images[:, 0] if images.shape[1] == 1 else images


def _as_uint8(path, images, fractions):
    converted = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), BLOCK):
        block = images[start:start + BLOCK]
        if fractions:
            converted[start:start + BLOCK] = np.rint(block * np.float64(255))
        else:
            converted[start:start + BLOCK] = block
            if (converted[start:start + BLOCK] != block).any():
                raise ValueError(f"{path}: some pixels are above 1 and some no whole numbers, so "
                                 "it is not clear what they mean; convert them to uint8")
    return converted


def resize(images, image_shape):
    """Images in another shape, smoothly resampled.

    Args:
        images: uint8 (N, H, W) or (N, 3, H, W).
        image_shape: (C, H, W) with 1 channel for grey, or 3.

    Returns:
        uint8 (N, H, W) or (N, 3, H, W).
    """
    channels, *size = image_shape
    shape = size if channels == 1 else image_shape
    if images.shape[1:] == tuple(shape):
        return images
    check_size("--image-shape", len(images), shape)
    resized = np.empty((len(images), *shape), np.uint8)
    for image, target in zip(images, resized):
        target[...] = resize_one(image, image_shape)
    return resized


def resize_one(image, image_shape):
    """As ``resize``, of one image (H, W) or (3, H, W)."""
    channels, height, width = image_shape
    picture = to_pillow(image)
    if channels == 1:
        picture = picture.convert("L")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)  # antialiased
    pixels = np.asarray(picture)
    return pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)  # grey fills three channels


def to_pillow(image):
    """Pillow's picture of an image uint8 (H, W), (1, H, W) or (3, H, W)."""
    if image.ndim == 3:
        image = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(image))
