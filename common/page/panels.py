"""What the page shows of each network: the picture, what the classifier sees, and what it says."""
import json
import os
from typing import NamedTuple

import numpy as np

from common.data import distort, strokes
from common.models import card, metrics, trained
from common.reports import visualise

ANGLES = np.arange(-90, 91, 5)  # degrees of the curve
MOST_POINTS = 4096  # of a drawing


class Drawing(NamedTuple):
    """What the page asks about.

    Attributes:
        strokes: arrays (P, 2): see ``strokes.as_digit``.
        turn: degrees, clockwise.
        scale: of the digit.
        shift: pixels to the right and down, (2,).
        panels: names of the networks.
    """

    strokes: list
    turn: float
    scale: float
    shift: np.ndarray
    panels: list


def read(text, names):
    """Reads what a browser sends.

    Args:
        text: JSON, bytes.
        names: of the networks there are.

    Returns:
        A ``Drawing``.

    Raises:
        ValueError: it is something else.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("what was sent is no JSON") from None
    if not isinstance(found, dict) or set(found) != set(Drawing._fields):
        raise ValueError(f"expected an object of {', '.join(Drawing._fields)}")
    if not isinstance(found["strokes"], list) or not isinstance(found["panels"], list):
        raise ValueError("strokes and panels: expected lists")
    if not 0 < len(found["panels"]) <= 2:
        raise ValueError("panels: expected one or two names of models")
    for name in found["panels"]:
        if not isinstance(name, str) or name not in names:  # of a page that is older than demo.py
            raise ValueError(f"there is no model {name!a} any more: load this page again")
    lines = [_numbers("strokes", stroke, (-1, 2), 0, 1) for stroke in found["strokes"]]
    if not 0 < sum(map(len, lines)) <= MOST_POINTS:
        raise ValueError(f"strokes: expected from 1 to {MOST_POINTS} points")
    return Drawing(lines, float(_numbers("turn", found["turn"], (), -180, 180)),
                   float(_numbers("scale", found["scale"], (), 0.25, 4)),
                   _numbers("shift", found["shift"], (2,), -50, 50), found["panels"])


def _numbers(name, value, shape, least, most):
    """An array of numbers from ``least`` to ``most``; -1 in front of its shape is any length."""
    try:
        array = np.array(value)
    except (ValueError, OverflowError):  # lists of different lengths
        array = np.array(None)
    if (array.dtype.kind not in "iuf" or array.ndim != len(shape) or array.shape[-1:] != shape[-1:]
            or not ((least <= array) & (array <= most)).all()):
        what = ("a number", "two numbers", "lists of points (x, y),")[len(shape)]
        raise ValueError(f"{name}: expected {what} from {least} to {most}")
    return array.astype(float)


class Panel:
    """A network, ready to be shown drawings.

    Args:
        path: folder of an export, or prefix of checkpoints.

    Attributes:
        name: that the page knows it by.

    Raises:
        OSError: there is none.
        ValueError: it is damaged, or made for something else than grey pictures of classes.
    """

    def __init__(self, path):
        self.path = path
        folder, name = os.path.split(os.path.abspath(path))
        self.name = f"{name} ({os.path.basename(folder)})"
        network = trained.load(path)
        channels, *self.shape = network.made_for() or (1, strokes.SIDE, strokes.SIDE)
        if channels != 1:
            raise ValueError(f"{path}: made for images of {channels} channels; a drawing has one")
        image_shape = (1, *self.shape)
        self._viewers = visualise.viewers(network, image_shape, batch_size=1, cpus=1)
        self._classify = metrics.classifier(network, image_shape, batch_size=2 + len(ANGLES),
                                            cpus=1)
        answers = self._classify(np.zeros((1, *image_shape), np.uint8))
        if answers.ndim > 2:
            raise ValueError(f"{path}: reads whole numbers; a drawing is one digit")
        self.classes = card.class_names(path, None, answers.shape[1])

    def about(self):
        """What the page says of it, as JSON can hold it."""
        known = card.trained_on(self.path)
        learnt = [known["origin"]] if known else []
        learnt += [f"distorted by {known['distort']}"] if known.get("distort") else []
        return {"name": self.name, "learnt": ", ".join(learnt), "classes": self.classes,
                "transformer": bool(self._viewers)}

    def look(self, drawing):
        """What the network makes of a ``Drawing``, as JSON can hold it."""
        digit = strokes.as_digit(drawing.strokes)
        # As the sliders have it, as it was drawn, and turned by each angle.
        angles = np.radians([drawing.turn, 0, *ANGLES])
        scales = np.full(len(angles), drawing.scale)
        shifts = np.tile(drawing.shift, (len(angles), 1))
        scales[1], shifts[1] = 1, 0
        theta = distort.placed(angles, scales, shifts, self.shape, digit.shape)
        images = distort.warp(np.tile(digit, (len(angles), 1, 1)), theta, self.shape)
        images = images[:, None]  # (N, 1, H, W)
        probabilities = self._classify(images).astype(float).round(4)
        views = [_as_json(see(images[:1])) for see in self._viewers]
        return {"picture": images[0, 0].tolist(), "views": views,
                "probabilities": probabilities[0].tolist(), "as_drawn": probabilities[1].tolist(),
                "curve": probabilities[2:].tolist()}


def _as_json(view):
    turn, scale, right, down = (round(float(number), digits) + 0.0  # which makes -0.0 of it 0.0
                                for number, digits in zip(view.poses[0], (0, 2, 1, 1)))
    words = f"turn {turn:+.0f}°, scale {scale:.2f}, shift {right:+.1f}, {down:+.1f} px"
    seen = np.clip(view.output[0].mean(axis=0) * 255, 0, 255).round()
    return {"name": view.name, "words": words, "outline": view.outlines[0].round(2).tolist(),
            "seen": seen.astype(int).tolist()}
