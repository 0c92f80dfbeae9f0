"""What drawn pictures have in common: lines, a cluttered background, and how they are photographed.

Points are (x, y), x to the right, y down, the shorter side of a picture from -1 to 1. Colours are
red, green and blue, float32 from 0 to 1.
"""
import functools

import numpy as np

PATCHES = 5  # of a background


def line(*corners, width=0.17):
    """A line through corners, with round ends."""
    def outside(x, y):
        nearest = np.inf
        for (x0, y0), (x1, y1) in zip(corners, corners[1:]):
            dx, dy = x1 - x0, y1 - y0
            at = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
            nearest = np.minimum(nearest, np.hypot(x - x0 - at * dx, y - y0 - at * dy))
        return nearest - width / 2
    return outside


def union(*parts):
    return lambda x, y: functools.reduce(np.minimum, (part(x, y) for part in parts))


def bilinear(dots, at, width, down, right):
    """What lies between dots of sheets that are stored row by row.

    Args:
        dots: (dots,) or (dots, channels).
        at: the dots to the upper left, as places among them, (P,).
        width: dots in a row, a number or (P,).
        down, right: how far the points are from there, of the way to the next dot, (P,) or (P, 1).
    """
    below = at + width
    upper = dots[at] + right * (dots[at + 1] - dots[at])
    lower = dots[below] + right * (dots[below + 1] - dots[below])
    return upper + down * (lower - upper)


def points(image_shape):
    """x (W,) and y (H, 1) of pixels: the shorter side from -1 to 1."""
    height, width = image_shape
    half = min(image_shape) / 2
    return ((np.arange(width) + 0.5 - width / 2) / half,
            (np.arange(height)[:, None] + 0.5 - height / 2) / half)


def background(rng, n, x, y):
    """A gradient between two colours, and patches on it: (n, H, W, 3), float32 from 0 to 1."""
    share = (_slope(rng, n, x, y) + 1.5)[..., None] / 3
    one, other = rng.uniform(0.05, 0.95, (2, n, 1, 1, 3)).astype(np.float32)
    picture = one + np.clip(share, 0, 1) * (other - one)
    for _ in range(PATCHES):
        angle, across, along = rng.uniform(0, np.pi, n), *rng.uniform(0.08, 0.7, (2, n))
        u, v = turned(angle, rng.uniform(-1.1, 1.1, (n, 2)), x, y)
        u, v = np.abs(u) / column(across), np.abs(v) / column(along)
        outside = np.maximum(u, v) - 1
        disc = rng.uniform(size=n) < 0.3
        outside[disc] = np.hypot(u[disc], v[disc]) - 1
        opacity = np.clip(0.5 - 5 * outside, 0, 1)[..., None]
        colour = rng.uniform(0, 1, (n, 1, 1, 3)).astype(np.float32)
        picture += opacity * (colour - picture)
    return picture


def _slope(rng, n, x, y):
    """A plane through 0 that rises by 1 over half the picture, in a random direction."""
    angle = rng.uniform(0, 2 * np.pi, n)
    return turned(angle, np.zeros((n, 2)), x, y)[0]


def turned(angle, middle, x, y):
    """The points in frames that are turned around middles (n, 2): two arrays (n, H, W)."""
    x, y = x - column(middle[:, 0]), y - column(middle[:, 1])
    cos, sin = column(np.cos(angle)), column(np.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def column(values):
    return np.asarray(values, np.float32)[:, None, None]


def photographed(rng, picture, x, y):
    """Light that differs from side to side and has a colour, haze, and noise: uint8."""
    n = len(picture)
    light = rng.uniform(0.45, 1.05, n)
    shade = column(light) * (1 + column(rng.uniform(0, 0.25, n)) * _slope(rng, n, x, y))
    picture *= shade[..., None]
    picture *= rng.uniform(0.88, 1.12, (n, 1, 1, 3)).astype(np.float32)
    picture += column(rng.uniform(0, 0.15, n))[..., None]
    noise = rng.randint(-128, 128, picture.shape, np.int8)
    picture += noise * column(rng.uniform(0.02, 0.08, n) / 128)[..., None]
    return (255 * np.clip(picture, 0, 1)).astype(np.uint8)
