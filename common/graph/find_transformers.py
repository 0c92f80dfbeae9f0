"""Finds the spatial transformers in a symbol, of the zoo or from elsewhere, and where they sample.

A transformer is a node of MXNet's SpatialTransformer or BilinearSampler. Coordinates are those of
``symbols/stn.py``: x before y, from -1 to 1 between the centres of the corner pixels.
"""
import json
from typing import NamedTuple, Optional, Tuple

import numpy as np

from common.graph.rewrite import attributes

SAMPLERS = ("SpatialTransformer", "BilinearSampler")
ROUNDING = 1e-4  # of coordinates, in float32: the identity's border is inside


class Transformer(NamedTuple):
    """A transformer of a symbol; outputs are named as in ``symbol.get_internals()``.

    Attributes:
        name: of the node; the warped picture is ``<name>_output``.
        source: the output that is sampled, (N, C, H, W).
        where: the output that says at which points: affine thetas (N, 6) if there is a
            ``target_shape``, also those that a GridGenerator makes a grid of; else a grid
            (N, 2, height, width).
        theta: the output with the parameters of the warp, (N, parameters): that of the node
            ``<name>_theta``, as the zoo calls it; ``where`` if there is none.
        target_shape: (height, width) in pixels; None if the grid says it.
    """

    name: str
    source: str
    where: str
    theta: str
    target_shape: Optional[Tuple[int, int]]


def transformers(symbol):
    """The transformers of a symbol, in the order of its graph: a list of ``Transformer``."""
    internals = symbol.get_internals()
    outputs = set(internals.list_outputs())
    nodes, found = json.loads(symbol.tojson())["nodes"], []
    for node in nodes:
        if node["op"] not in SAMPLERS:
            continue
        name, attrs = node["name"], attributes(node)
        source, where = internals[f"{name}_output"].get_children().list_outputs()
        grid = nodes[node["inputs"][1][0]]
        if grid["op"] == "GridGenerator" and attributes(grid)["transform_type"] == "affine":
            attrs, (where,) = attributes(grid), internals[where].get_children().list_outputs()
        elif (node["op"], grid["op"]) == ("BilinearSampler", "clip"):  # its border goes on outside
            where, = internals[where].get_children().list_outputs()
        theta = f"{name}_theta_output"
        found.append(Transformer(name, source, where, theta if theta in outputs else where,
                                 attrs.get("target_shape")))
    return found


def has_plain_head(symbol):
    """Whether a transformer of a symbol lacks the stable head, which normalises its features."""
    nodes, normalised = json.loads(symbol.tojson())["nodes"], []
    for node in nodes:
        normalised.append(node["op"] == "L2Normalization"
                          or any(normalised[entry[0]] for entry in node["inputs"]))
    return any(not normalised[node["inputs"][1][0]] for node in nodes if node["op"] in SAMPLERS)


def source_grid(where, transformer):
    """The points that a transformer samples.

    Args:
        where: NumPy array, the value of ``transformer.where``.
        transformer: a ``Transformer``.

    Returns:
        NumPy array (N, height, width, 2) of points (x, y).
    """
    if transformer.target_shape is None:
        return where.transpose(0, 2, 3, 1)
    target = lattice(transformer.target_shape)
    target = np.concatenate([target, np.ones_like(target[..., :1])], axis=-1)  # (height, width, 3)
    return np.einsum("nij,hwj->nhwi", where.reshape(-1, 2, 3), target)


def lattice(shape):
    """The points of a regular lattice over the image: what the identity samples.

    Args:
        shape: (height, width).

    Returns:
        NumPy array (height, width, 2) of points (x, y).
    """
    y, x = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    return np.stack([x, y], axis=-1)


def inside(points):
    """The fraction of the points (N, height, width, 2) inside the image, (N,)."""
    return (np.abs(points) <= 1 + ROUNDING).all(axis=-1).mean(axis=(1, 2))
