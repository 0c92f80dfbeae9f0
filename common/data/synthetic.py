"""Drawn digits: a dataset of any size that needs no network, for tests and first tries.

Each image is one of ten 5 x 7 glyphs, turned, scaled, moved, smoothly resampled and made noisy.
"""
import numpy as np

GLYPHS = """
.###. ..#.. .###. .###. ...#. ##### ..##. ##### .###. .###.
#...# .##.. #...# #...# ..##. #.... .#... ....# #...# #...#
#..## ..#.. ....# ....# .#.#. ####. #.... ...#. #...# #...#
#.#.# ..#.. ...#. ..##. #..#. ....# ####. ..#.. .###. .####
##..# ..#.. ..#.. ....# ##### ....# #...# ..#.. #...# ....#
#...# ..#.. .#... #...# ...#. #...# #...# ..#.. #...# ...#.
.###. .###. ##### .###. ...#. .###. .###. ..#.. .###. .##..
"""
CLASSES = 10


def draw(count, seed, image_shape=(28, 28)):
    """Draws labelled digits.

    Args:
        count: how many; the ten classes take turns, in random order.
        seed: the same seed draws the same digits.
        image_shape: (H, W) in pixels.

    Returns:
        Images (count, H, W) and labels (count,), both uint8.
    """
    rng = np.random.RandomState(seed)
    labels = rng.permutation(count).astype(np.int64) % CLASSES
    images = np.empty((count, *image_shape), np.uint8)
    for start in range(0, count, 1000):  # bounds the memory for the coordinates
        part = slice(start, start + 1000)
        images[part] = _draw(labels[part], rng, image_shape)
    return images, labels.astype(np.uint8)


def noise(count, seed, image_shape, num_classes):
    """Random pixels and labels: nothing to learn, but of any shape, to measure speed with.

    Args:
        count: how many.
        seed: the same seed gives the same ones.
        image_shape: (C, H, W).
        num_classes: labels are below.

    Returns:
        Images uint8 (count, C, H, W) and labels int64 (count,).
    """
    rng = np.random.RandomState(seed)
    images = rng.randint(0, 256, (count, *image_shape), np.uint8)
    return images, rng.randint(0, num_classes, count, np.int64)


def _draw(labels, rng, image_shape):
    n = len(labels)
    height, width = image_shape
    angle = rng.uniform(-0.2, 0.2, (n, 1, 1))  # radians
    zoom = rng.uniform(0.4, 0.58, (n, 1, 1)) * min(height, width) / 7  # pixels per glyph pixel
    x = np.arange(width) - (width - 1) / 2 - rng.uniform(-0.07, 0.07, (n, 1, 1)) * width
    y = np.arange(height)[:, None] - (height - 1) / 2 - rng.uniform(-0.07, 0.07, (n, 1, 1)) * height
    column = (np.cos(angle) * x + np.sin(angle) * y) / zoom + 2  # (n, H, W), in glyph pixels
    row = (np.cos(angle) * y - np.sin(angle) * x) / zoom + 3
    ink = bilinear(glyphs()[labels], row, column)
    noise = rng.normal(0, 8, ink.shape)
    return np.clip(ink * rng.uniform(160, 255, (n, 1, 1)) + noise * (ink > 0), 0, 255)


def glyphs(drawing=GLYPHS):
    """Glyphs as in ``GLYPHS``, side by side, as an array (glyphs, 7, 5) of 0 and 1."""
    lines = [line.split() for line in drawing.split("\n") if line]
    return np.array([[[c == "#" for c in glyph] for glyph in row] for row in zip(*lines)], float)


def bilinear(glyphs, row, column):
    """Samples glyphs (n, 7, 5) at rows and columns (n, H, W); 0 outside."""
    padded = np.pad(glyphs, ((0, 0), (1, 2), (1, 2)), mode="constant")
    row, column = np.clip(row, -1, 7) + 1, np.clip(column, -1, 5) + 1
    top, left = row.astype(int), column.astype(int)
    which = np.arange(len(glyphs))[:, None, None]
    down, right = row - top, column - left
    return ((1 - down) * (1 - right) * padded[which, top, left]
            + (1 - down) * right * padded[which, top, left + 1]
            + down * (1 - right) * padded[which, top + 1, left]
            + down * right * padded[which, top + 1, left + 1])
