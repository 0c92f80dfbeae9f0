"""Light augmentation of pictures: shifts, mirror images, brightness.

What an image gets follows from a seed and its own index, whatever batch it is in.
"""
from typing import NamedTuple

import numpy as np

from common import cli


class Jitter(NamedTuple):
    """Changes images a little, each by itself.

    Called with images, uint8 (n, C, H, W), their indices (n,) and a seed, it returns others of the
    same shape.

    Attributes:
        pad_size: pixels of 0 to put around an image, before one of its own size is cut out.
        mirror: whether to swap left and right, of half of the images, drawn by lot.
        brightness: to multiply by 1 - brightness to 1 + brightness; from 0 to 1.
    """

    pad_size: int = 0
    mirror: bool = False
    brightness: float = 0.0

    def __call__(self, images, which, seed):
        down, right, mirrored, brighter = _random(which, seed).T
        if self.pad_size:
            places = ((place * (2 * self.pad_size + 1)).astype(int) for place in (down, right))
            images = cut_padded(images, self.pad_size, *places)
        if self.mirror:
            images = np.where((mirrored < 0.5)[:, None, None, None], images[..., ::-1], images)
        if self.brightness:
            images = _brighter(images, 1 + self.brightness * (2 * brighter - 1))
        return images


def add_augmentation_flags(parser):
    """Adds the flags of light augmentation to a parser; upstream's names, all off by default."""
    flag = parser.add_argument_group("augmentation, of each training image anew").add_argument
    flag("--random-crop", type=int, choices=(0, 1), default=0,
         help="1 to cut the images out of what --pad-size makes of them, anywhere")
    flag("--pad-size", type=cli.number(int, least=0, most=1000), default=0,
         help="pixels to put around an image, for --random-crop; they are 0")
    flag("--random-mirror", type=int, choices=(0, 1), default=0,
         help="1 to swap left and right, of half of the images, drawn by lot")
    flag("--brightness", type=cli.number(float, least=0, most=1), default=0.0,
         help="multiply an image by 1 - BRIGHTNESS to 1 + BRIGHTNESS")


def from_flags(args):
    """The ``Jitter`` that the flags say, or None; ValueError for flags that do not fit together."""
    if bool(args.random_crop) != bool(args.pad_size):
        raise ValueError("--random-crop 1 and --pad-size go together: images are as large as the "
                         "network wants them, so only padded ones can be cropped")
    jitter = Jitter(args.pad_size, bool(args.random_mirror), args.brightness)
    return None if jitter == Jitter() else jitter


def _random(which, seed):
    """Four numbers from 0 to 1 for each index, (n, 4), of 16 random bits each.

    They are those that SplitMix64, begun by the seed, would draw at that index (Steele et al.,
    "Fast Splittable Pseudorandom Number Generators", 2014).
    """
    steps = which.astype(np.uint64) + np.uint64(1)
    bits = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15) * steps
    bits = (bits ^ bits >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ bits >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits.astype("<u8").view("<u2").reshape(-1, 4) / 2**16


def cut_padded(images, pad, tops, lefts):
    """Cuts each image out of its padded self.

    Args:
        images: array (n, channels, height, width).
        pad: how many rows and columns of 0 are put around, on each side.
        tops, lefts: the first row and column of what is cut, ints (n,) from 0 to 2 * pad.

    Returns:
        An array as ``images``.
    """
    height, width = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="constant")
    found = np.empty_like(images)
    for image, source, top, left in zip(found, padded, tops, lefts):
        image[:] = source[:, top:top + height, left:left + width]
    return found


def _brighter(images, factors):
    """Images times factors (n,), up to 255."""
    levels = np.arange(256) * factors[:, None]  # of each image, what becomes of each level
    levels = np.minimum(np.rint(levels), 255).astype(np.uint8)
    return np.stack([row[image] for row, image in zip(levels, images)])
