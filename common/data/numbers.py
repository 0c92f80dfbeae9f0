"""Drawn numbers: colour pictures of one to five digits, as house numbers are, that need no network.

Each picture shows one number, turned by up to 25 degrees, slanted, stretched, and as small and as
far from the middle as it may be; behind it are a gradient and patches; then come light and noise.
A digit is drawn by a pen, some thicker than others.

Labels are (N, 5), a class for each digit from the left, and ``BLANK`` where there is none any more.
"""
import functools

import numpy as np

from common.data import scene
from common.data.class_list import DIGITS, NOTHING

PLACES = 5  # at most
BLANK = DIGITS.index(NOTHING)
CLASS_NAMES = DIGITS
BLOCK = 50  # pictures drawn at once: these stay in the cache
# The paper that a digit is drawn on: from -HALF_WIDTH to HALF_WIDTH and from -HALF_HEIGHT on, in
# units of half a digit's height.
HALF_WIDTH, HALF_HEIGHT = 0.9, 1.3
DOTS = 40  # to a unit, of the distances that are sampled
SMALLEST, LARGEST = 0.19, 0.8  # half a digit's height, of half the picture's
WIDEST = 0.95  # half a number's width, likewise


def _arc(x, y, across, down, start, stop):
    """Points of a part of an ellipse; degrees are clockwise from the right."""
    angles = np.radians(np.linspace(start, stop, 25))
    return tuple(zip(x + across * np.cos(angles), y + down * np.sin(angles)))


# What a pen does for each digit: lines through points, from -1 to 1 from its top to its bottom.
STROKES = (
    (_arc(0, 0, 0.5, 0.95, 0, 360),),
    (((-0.3, -0.6), (0.05, -0.95), (0.05, 0.95)),),
    ((*_arc(0, -0.43, 0.48, 0.52, -170, 40), (-0.5, 0.95), (0.52, 0.95)),),
    ((*_arc(-0.05, -0.48, 0.46, 0.47, -155, 90), *_arc(-0.05, 0.45, 0.53, 0.5, -90, 155)),),
    (((0.2, 0.95), (0.2, -0.95), (-0.52, 0.35), (0.52, 0.35)),),
    (((0.45, -0.95), (-0.35, -0.95), (-0.42, -0.1), *_arc(-0.02, 0.35, 0.5, 0.6, -140, 150)),),
    ((*_arc(0.45, 0.4, 0.93, 1.35, -92, -180), *_arc(0, 0.4, 0.48, 0.55, 180, 540)),),
    (((-0.5, -0.95), (0.5, -0.95), (-0.15, 0.95)),),
    (_arc(0, -0.49, 0.42, 0.46, 0, 360), _arc(0, 0.46, 0.5, 0.49, 0, 360)),
    ((*_arc(-0.45, -0.4, 0.93, 1.35, 88, 0), *_arc(0, -0.4, 0.48, 0.55, 0, 360)),),
)


def draw(count, seed, image_shape=(64, 64)):
    """Draws labelled numbers.

    Args:
        count: how many; numbers of one to five digits take turns, in random order.
        seed: the same seed draws the same numbers.
        image_shape: (H, W) in pixels.

    Returns:
        Images (count, 3, H, W) and labels (count, 5), both uint8.
    """
    rng = np.random.RandomState(seed)
    lengths = rng.permutation(count) % PLACES + 1
    labels = rng.randint(10, size=(count, PLACES))
    labels[np.arange(PLACES) >= lengths[:, None]] = BLANK
    images = np.empty((count, 3, *image_shape), np.uint8)
    for start in range(0, count, BLOCK):
        part = slice(start, start + BLOCK)
        images[part] = _draw(labels[part], rng, image_shape).transpose(0, 3, 1, 2)
    return images, labels.astype(np.uint8)


def _draw(labels, rng, image_shape):
    """Pictures (n, H, W, 3), uint8, of numbers."""
    n, lengths = len(labels), (labels != BLANK).sum(axis=1)
    x, y = (at.astype(np.float32) for at in scene.points(image_shape))
    picture = scene.background(rng, n, x, y)
    middle = picture.mean(axis=(1, 2), keepdims=True)
    picture = middle + (picture - middle) * scene.column(rng.uniform(0.3, 0.8, n))[..., None]
    step = rng.uniform(1.4, 1.8, n)  # from a digit to the next
    maps, corner = _maps(rng, lengths * step / 2)
    room = np.maximum(np.array(image_shape[::-1]) / min(image_shape) - corner, 0)
    place = rng.uniform(-1, 1, (n, 2)) * room
    right, down = x - scene.column(place[:, 0]), y - scene.column(place[:, 1])
    u, v = (scene.column(maps[:, row, 0]) * right + scene.column(maps[:, row, 1]) * down
            for row in (0, 1))
    u += scene.column(lengths * step / 2)  # from the number's left
    number = np.floor(u / scene.column(step)).astype(np.int32)
    near = (number >= 0) & (number < lengths[:, None, None]) & (np.abs(v) < HALF_HEIGHT)
    which = np.nonzero(near)[0]
    number = number[near]
    outside = _distances(labels[which, number], u[near] - (number + 0.5) * step[which], v[near])
    pen, pixel = rng.uniform(0.22, 0.42, n), 2 * np.sqrt(np.abs(np.linalg.det(maps)))
    pixel = (pixel / min(image_shape))[which]  # in units of half a digit's height
    opacity = np.clip(0.5 + (pen[which] / 2 - outside) / pixel, 0, 1)[:, None]
    picture[near] += opacity * (_inks(rng, middle)[which] - picture[near])
    return scene.photographed(rng, picture, x, y)


def _maps(rng, half_widths):
    """Random maps (n, 2, 2) from the picture to numbers of those widths, in digits' units.

    Also how far their corners are from their middles, (n, 2).
    """
    n = len(half_widths)
    largest = np.minimum(LARGEST, WIDEST / half_widths)
    scale = rng.uniform(np.minimum(SMALLEST, 0.8 * largest), largest)
    turn, slant = np.radians(rng.uniform(-25, 25, n)), rng.uniform(-0.3, 0.3, n)
    stretch = np.exp(rng.uniform(-0.15, 0.15, n))
    zero = np.zeros(n)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    slanted = np.array([[stretch, slant], [zero, 1 / stretch]]) * scale
    to_picture = np.einsum("ijn,jkn->nik", turned, slanted)
    corner = np.einsum("nij,nj->ni", np.abs(to_picture), np.stack([half_widths, zero + 1.2], 1))
    fit = np.maximum(corner.max(axis=1), 1)  # what would be cut off is made smaller
    return np.linalg.inv(to_picture / fit[:, None, None]), corner / fit[:, None]


def _inks(rng, middle):
    """Colours (n, 3) that are dark where those of the background are bright on average."""
    on_dark = middle.mean(axis=3)[:, 0] < 0.5  # (n, 1)
    colour = rng.uniform(0, 0.3, (len(middle), 3))
    return np.where(on_dark, 1 - colour, colour).astype(np.float32)


def _distances(digits, u, v):
    """How far points (P,) are from the lines of digits (P,), bilinearly, in their units."""
    dots = _sheets()
    _, height, width = dots.shape
    row = np.clip((v + HALF_HEIGHT) * DOTS, 0, height - 1.001)
    column = np.clip((u + HALF_WIDTH) * DOTS, 0, width - 1.001)
    top, left = row.astype(np.int32), column.astype(np.int32)
    down, right = row - top, column - left
    at = (digits * height + top) * width + left
    return scene.bilinear(dots.ravel(), at, width, down, right)


@functools.lru_cache(maxsize=None)
def _sheets():
    """The distances from the lines of each digit, (10, rows, columns), float32."""
    x, y = np.meshgrid(*(np.arange(-round(half * DOTS), round(half * DOTS) + 1) / DOTS
                         for half in (HALF_WIDTH, HALF_HEIGHT)))
    return np.stack([scene.union(*(scene.line(*points, width=0) for points in strokes))(x, y)
                     for strokes in STROKES]).astype(np.float32)
