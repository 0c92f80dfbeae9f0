"""Drawings as MNIST has its digits.

MNIST's authors scaled each digit into 20 x 20 pixels, as it was proportioned, and put its centre of
mass into 28 x 28, in the middle of pixel 14, counted from 0, down and across. Here the lines are
scaled, and drawn by a pen as wide as MNIST's are on average, so that a small drawing is not a bold
one.
"""
import numpy as np
from PIL import Image, ImageDraw

SIDE, BOX = 28, 20  # pixels of the picture, and of the square that the digit fits into
MIDDLE = 14.5  # pixels from the picture's edges: there the digits of MNIST are centred
PEN = 2.4  # pixels across
LEAST = 0.1  # of the paper's side: what is drawn smaller, such as a dot, stays smaller
FINE = 8  # points across a pixel, while a line is drawn


def as_digit(strokes):
    """A picture of a drawing, white on black.

    Args:
        strokes: arrays (P, 2), one or more, of the points (x, y) that a pen went through, from 0 to
            1 from the paper's upper left.

    Returns:
        uint8 (28, 28).
    """
    points = np.concatenate(strokes)
    low, high = points.min(axis=0), points.max(axis=0)
    zoom = (BOX - PEN) / max((high - low).max(), LEAST)
    strokes = [(stroke - (low + high) / 2) * zoom + SIDE / 2 for stroke in strokes]
    off = _centre_of_mass(_draw(strokes)) - MIDDLE
    return _draw([stroke - off for stroke in strokes])


def _draw(strokes):
    """Strokes, in pixels, as a picture uint8 (28, 28)."""
    image = Image.new("L", (SIDE * FINE, SIDE * FINE))
    pen, radius = ImageDraw.Draw(image), PEN * FINE / 2
    for stroke in strokes:
        points = [tuple(point) for point in (stroke * FINE).tolist()]
        pen.line(points, fill=255, width=round(2 * radius))
        for x, y in points:  # round ends and corners
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(image.resize((SIDE, SIDE), Image.BOX))


def _centre_of_mass(image):
    """(x, y) in pixels from the upper left corner."""
    weights = image / image.sum()
    middles = np.arange(SIDE) + 0.5
    return np.array([weights.sum(axis=0) @ middles, weights.sum(axis=1) @ middles])
