"""Drawn traffic signs: colour pictures of 43 classes that need no network.

Each picture shows one sign, turned by up to 30 degrees, slanted, stretched, from 0.4 of the picture
to all of it, and shifted; behind it are a gradient, patches and a part of another sign; then come
light and noise. A class is an outline, a rim, a fill and what is drawn on it.
"""
import functools
from typing import Callable, NamedTuple, Tuple

import numpy as np

from common.data import scene, synthetic
from common.data.scene import line, union

LETTERS = """
.#### ##### .###. ####.
#.... ..#.. #...# #...#
#.... ..#.. #...# #...#
.###. ..#.. #...# ####.
....# ..#.. #...# #....
....# ..#.. #...# #....
####. ..#.. .###. #....
"""
COLOURS = {"red": (200, 25, 35), "blue": (20, 75, 165), "white": (245, 245, 240),
           "yellow": (250, 195, 20), "black": (20, 20, 20), "grey": (120, 120, 125)}
SIZES = (24, 32, 48, 64)  # pixels of the faces that are sampled: the next one above what is wanted
DETAIL = 192  # pixels of the face that these are averaged from: a multiple of each
BLOCK = 250  # pictures drawn at once


# What is drawn: functions of points (x, y), x to the right, y down, which return how far outside a
# point is, negative inside. A sign reaches from -1 to 1.

def _regular(sides, inner, turn=0.0, lower=0.0):
    """A regular polygon, by the radius of the circle within and the angle of its first side."""
    angles = turn + 2 * np.pi * np.arange(sides) / sides
    return lambda x, y: functools.reduce(np.maximum, (
        np.cos(angle) * x + np.sin(angle) * (y - lower) for angle in angles)) - inner


def _disc(x0, y0, radius):
    return lambda x, y: np.hypot(x - x0, y - y0) - radius


def _polygon(*corners):
    """A convex one, corners clockwise."""
    corners = np.array(corners, float)
    along = np.roll(corners, -1, axis=0) - corners
    along /= np.hypot(*along.T)[:, None]
    return lambda x, y: functools.reduce(np.maximum, (
        dy * (x - x0) - dx * (y - y0) for (x0, y0), (dx, dy) in zip(corners, along)))


def _arrow(*corners, width=0.17, head=0.24):
    """A line through corners that ends in a head."""
    (x0, y0), (x1, y1) = np.array(corners[-2:], float)
    dx, dy = np.array([x1 - x0, y1 - y0]) / np.hypot(x1 - x0, y1 - y0) * head
    tip = _polygon((x1 + dx, y1 + dy), (x1 - dy, y1 + dx), (x1 + dy, y1 - dx))
    return union(line(*corners, width=width), tip)


def _text(word, width=1.25, height=0.8):
    """Letters and digits of 5 x 7 dots, smoothed, in a box of at most that size."""
    dot_width, dot_height = min(width / (6 * len(word) - 1), height / 7), height / 7

    def outside(x, y):
        row, column = y / dot_height + 3, x / dot_width + (6 * len(word) - 2) / 2
        ink = sum(synthetic.bilinear(_letters()[letter][None], row[None], column[None] - 6 * place)
                  for place, letter in enumerate(word))[0]
        return (0.35 - ink) * dot_height  # half would leave diagonals in pieces
    return outside


@functools.lru_cache(maxsize=None)
def _letters():
    digits, letters = synthetic.glyphs(), synthetic.glyphs(LETTERS)
    return {**dict(zip("0123456789STOP", (*digits, *letters))), "0": letters[2]}  # without a bar


CIRCLE = _disc(0, 0, 0.95)
UP = _regular(3, 0.55, np.pi / 2, lower=0.27)
DOWN = _regular(3, 0.55, -np.pi / 2, lower=-0.27)
DIAMOND = _regular(4, 0.67, np.pi / 4)
SQUARE = _regular(4, 0.83)
OCTAGON = _regular(8, 0.9)
SLASH = line((0.6, -0.6), (-0.6, 0.6), width=0.16)
WALKER = union(_disc(0.02, -0.4, 0.13), line((0, -0.2), (0, 0.12), width=0.24),
               line((0, 0.1), (-0.22, 0.5), width=0.15), line((0, 0.1), (0.22, 0.5), width=0.15),
               line((-0.27, 0.1), (0, -0.18), (0.27, 0.07), width=0.11))
TRUCK = union(_polygon((-0.6, -0.3), (0.15, -0.3), (0.15, 0.2), (-0.6, 0.2)),
              _polygon((0.22, -0.1), (0.45, -0.1), (0.6, 0.05), (0.6, 0.2), (0.22, 0.2)),
              _disc(-0.35, 0.27, 0.14), _disc(0.38, 0.27, 0.14))
SNOW = union(*(line((-0.32 * np.cos(a), 0.27 - 0.32 * np.sin(a)),
                    (0.32 * np.cos(a), 0.27 + 0.32 * np.sin(a)), width=0.09)
               for a in np.pi / 2 + np.pi / 3 * np.arange(3)))
RING = union(*(_arrow(*((0.42 * np.cos(a), 0.42 * np.sin(a)) for a in np.linspace(
    start, start + 1.3, 6)), width=0.14, head=0.21) for start in 2 * np.pi / 3 * np.arange(3)))


def _mirrored(part):
    return lambda x, y: part(-x, y)


LEFT = _arrow((0.25, 0.5), (0.25, -0.05), (-0.22, -0.05))
FORK = union(_arrow((0.05, 0.5), (0.05, -0.38)), _arrow((0.05, 0.3), (0.05, 0.05), (-0.3, 0.05),
                                                       head=0.22))
PASS = _arrow((0.35, -0.35), (-0.25, 0.25), width=0.2, head=0.32)
BEND = _arrow((0.17, 0.58), (0.17, 0.2), (-0.12, -0.05), width=0.14, head=0.2)


class Sign(NamedTuple):
    """A class: its name, and what is drawn, from the back to the front."""

    name: str
    outline: Callable
    rim: str
    rim_width: float
    fill: str
    marks: Tuple = ()  # of (colour, function of points)


def _forbidding(name, *marks):
    return Sign(name, CIRCLE, "red", 0.2, "white", marks)


def _warning(name, *parts):
    return Sign(name, UP, "red", 0.16, "white", (("black", union(*parts)),))


def _telling(name, outline, part):
    return Sign(name, outline, "white", 0.07, "blue", (("white", part),))


SIGNS = (
    *(_forbidding(f"limit {number}", ("black", _text(str(number))))
      for number in (20, 30, 50, 60, 70, 80, 100, 120)),
    Sign("end of limit 80", CIRCLE, "grey", 0.09, "white", (("grey", _text("80")),
                                                            ("black", SLASH))),
    Sign("end of all limits", CIRCLE, "grey", 0.09, "white", tuple(
        ("black", line((0.5 + at, -0.5 + at), (-0.5 + at, 0.5 + at), width=0.1))
        for at in (-0.16, 0, 0.16))),
    _forbidding("no vehicles"),
    Sign("no entry", CIRCLE, "white", 0.05, "red", (
        ("white", _polygon((-0.62, -0.17), (0.62, -0.17), (0.62, 0.17), (-0.62, 0.17))),)),
    _forbidding("no lorries", ("black", TRUCK)),
    _forbidding("no left turn", ("black", LEFT), ("red", SLASH)),
    _forbidding("no right turn", ("black", _mirrored(LEFT)), ("red", SLASH)),
    _forbidding("no pedestrians", ("black", WALKER), ("red", SLASH)),
    Sign("stop", OCTAGON, "white", 0.07, "red", (("white", _text("STOP", 1.4, 0.6)),)),
    Sign("give way", DOWN, "red", 0.17, "white"),
    Sign("priority road", DIAMOND, "white", 0.17, "yellow"),
    Sign("end of priority road", DIAMOND, "white", 0.17, "yellow", (
        ("black", line((0.35, -0.35), (-0.35, 0.35), width=0.16)),)),
    _warning("danger", line((0, -0.3), (0, 0.28), width=0.17), _disc(0, 0.53, 0.11)),
    _warning("bend to the left", BEND),
    _warning("bend to the right", _mirrored(BEND)),
    _warning("double bend", line((-0.16, 0.6), (-0.16, 0.42), (0.16, 0.2), (-0.16, 0.02),
                                  (-0.02, -0.2), width=0.14)),
    _warning("bumps", _disc(-0.25, 0.5, 0.19), _disc(0.25, 0.5, 0.19),
             line((-0.5, 0.56), (0.5, 0.56), width=0.13)),
    _warning("narrow road", line((-0.34, 0.6), (-0.34, 0.4), (-0.12, 0.1), (-0.12, -0.2),
                                  width=0.12),
             line((0.34, 0.6), (0.34, 0.4), (0.12, 0.1), (0.12, -0.2), width=0.12)),
    _warning("crossroads", line((-0.3, 0), (0.3, 0.55), width=0.16),
             line((0.3, 0), (-0.3, 0.55), width=0.16)),
    Sign("traffic lights", UP, "red", 0.16, "white", (
        ("black", line((0, -0.15), (0, 0.5), width=0.34)),
        ("red", _disc(0, -0.15, 0.11)), ("yellow", _disc(0, 0.17, 0.11)),
        ("white", _disc(0, 0.49, 0.11)))),
    _warning("pedestrians", lambda x, y: WALKER(x, y - 0.13)),
    _warning("snow", SNOW),
    _warning("two-way traffic", _arrow((-0.2, 0.6), (-0.2, 0.18), width=0.12, head=0.19),
             _arrow((0.2, 0.0), (0.2, 0.42), width=0.12, head=0.19)),
    _telling("ahead only", CIRCLE, _arrow((0, 0.55), (0, -0.25), width=0.22, head=0.34)),
    _telling("left only", CIRCLE, LEFT),
    _telling("right only", CIRCLE, _mirrored(LEFT)),
    _telling("ahead or left", CIRCLE, FORK),
    _telling("ahead or right", CIRCLE, _mirrored(FORK)),
    _telling("pass on the left", CIRCLE, PASS),
    _telling("pass on the right", CIRCLE, _mirrored(PASS)),
    _telling("roundabout", CIRCLE, RING),
    _telling("parking", SQUARE, _text("P", height=1.15)),
    _telling("crossing for pedestrians", SQUARE, lambda x, y: WALKER(x / 1.2, y / 1.2)),
    Sign("dead end", SQUARE, "white", 0.07, "blue", (
        ("white", line((0, 0.55), (0, -0.2), width=0.24)),
        ("red", line((-0.4, -0.35), (0.4, -0.35), width=0.26)))),
    _telling("one-way road", SQUARE, _arrow((0, 0.6), (0, -0.25), width=0.22, head=0.36)),
)
CLASS_NAMES, CLASSES = tuple(sign.name for sign in SIGNS), len(SIGNS)


def draw(count, seed, image_shape=(48, 48)):
    """Draws labelled signs.

    Args:
        count: how many; the classes take turns, in random order.
        seed: the same seed draws the same signs.
        image_shape: (H, W) in pixels.

    Returns:
        Images (count, 3, H, W) and labels (count,), both uint8.
    """
    rng = np.random.RandomState(seed)
    labels = rng.permutation(count).astype(np.int32) % CLASSES
    images = np.empty((count, 3, *image_shape), np.uint8)
    for start in range(0, count, BLOCK):
        part = slice(start, start + BLOCK)
        images[part] = _draw(labels[part], rng, image_shape).transpose(0, 3, 1, 2)
    return images, labels.astype(np.uint8)


def faces(size):
    """All classes as they are on paper: (classes, size, size, 4), colours times opacity, opacity.

    Args:
        size: in pixels, a divisor of ``DETAIL``. Values are from 0 to 1.
    """
    parts = size, DETAIL // size
    return _detailed_faces().reshape(-1, *parts, *parts, 4).mean(axis=(2, 4), dtype=np.float32)


@functools.lru_cache(maxsize=None)
def _detailed_faces():
    """``faces`` of ``DETAIL`` pixels."""
    at = (np.arange(DETAIL) + 0.5) * 2 / DETAIL - 1
    x, y = np.meshgrid(at, at)
    return np.stack([_face(sign, x, y) for sign in SIGNS]).astype(np.float32)


def _face(sign, x, y):
    outside = sign.outline(x, y)
    face = np.ones((*x.shape, 4))
    face[..., :3] = _colour(sign.rim)
    marks = (sign.fill, lambda *_: outside + sign.rim_width), *sign.marks
    for colour, part in marks:
        face[..., :3] += _covered(part(x, y))[..., None] * (_colour(colour) - face[..., :3])
    return face * _covered(outside)[..., None]


def _covered(outside):
    """How much of a pixel of a face is inside, by its middle's distance."""
    return np.clip(0.5 - outside * DETAIL / 2, 0, 1)


def _colour(name):
    return np.array(COLOURS[name]) / 255


def _draw(labels, rng, image_shape):
    """Pictures (n, H, W, 3), uint8, of signs of those labels."""
    n = len(labels)
    x, y = (at.astype(np.float32) for at in scene.points(image_shape))
    picture = scene.background(rng, n, x, y)
    # A part of another sign: its middle is at the picture's border.
    others = rng.randint(CLASSES, size=n)
    angle = rng.uniform(0, 2 * np.pi, n)
    middle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    middle *= rng.uniform(0.95, 1.25, (n, 1)) / np.abs(middle).max(axis=1, keepdims=True)
    scale = rng.uniform(0.4, 0.8, n)
    _put(picture, others, _maps(rng, scale), middle, scale, x, y)
    scale = rng.uniform(0.4, 1, n)
    middle = rng.uniform(-1, 1, (n, 2)) * (1.08 - scale[:, None])
    _put(picture, labels, _maps(rng, scale), middle, scale, x, y)
    return scene.photographed(rng, picture, x, y)


def _maps(rng, scale):
    """Random maps (n, 2, 2) from the picture to signs of those scales."""
    n = len(scale)
    turn, slant = rng.uniform(-np.pi / 6, np.pi / 6, n), rng.uniform(-0.3, 0.3, n)
    stretch = np.exp(rng.uniform(-0.18, 0.18, n))
    zero, one = np.zeros(n), np.ones(n)
    turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    slanted = np.array([[one / stretch, slant], [zero, stretch]]) / scale
    return np.einsum("ijn,jkn->nik", slanted, turned)


def _put(picture, labels, maps, middle, scale, x, y):
    """Draws a sign on each picture (n, H, W, 3)."""
    x, y = x - scene.column(middle[:, 0]), y - scene.column(middle[:, 1])
    u, v = (scene.column(maps[:, row, 0]) * x + scene.column(maps[:, row, 1]) * y for row in (0, 1))
    near = np.maximum(np.abs(u), np.abs(v)) < 1.1
    which = np.nonzero(near)[0]
    sizes = np.searchsorted(SIZES, scale * min(picture.shape[1:3]))
    drawn = _sampled(np.minimum(sizes, len(SIZES) - 1)[which], labels[which], u[near], v[near])
    picture[near] = drawn[:, :3] + (1 - drawn[:, 3:]) * picture[near]


def _sampled(sizes, labels, u, v):
    """Faces at points (P,), bilinearly: (P, 4); nothing outside.

    Args:
        sizes: of the faces, as places in ``SIZES``, (P,).
        labels, u, v: (P,).
    """
    dots, starts = _atlas()
    size = np.array(SIZES, np.int32)[sizes]
    row, column = (np.clip((at + 1) * (size / np.float32(2)) + np.float32(0.5), 0, size + 1)
                   for at in (v, u))
    top, left = row.astype(np.int32), column.astype(np.int32)
    down, right = (row - top)[:, None], (column - left)[:, None]
    side = size + 3
    at = starts[sizes] + (labels * side + top) * side + left
    return scene.bilinear(dots, at, side, down, right)


@functools.lru_cache(maxsize=None)
def _atlas():
    """All ``faces`` of all ``SIZES`` with nothing around each, (dots, 4); where a size starts."""
    parts = [np.pad(faces(size), ((0, 0), (1, 2), (1, 2), (0, 0)), mode="constant").reshape(-1, 4)
             for size in SIZES]
    return np.concatenate(parts), np.cumsum([0, *map(len, parts[:-1])], dtype=np.int32)
