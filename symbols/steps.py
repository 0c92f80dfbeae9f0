"""Iterated transformers: theta is found in steps, each of which sees what those before have made.

Lin, Lucey, "Inverse Compositional Spatial Transformer Networks", 2017 (arXiv 1612.03897): one
localisation network, with the same weights in each step, regresses what is left to undo; the maps
are composed, and each picture is sampled from the original, so that nothing blurs or is cut off.
Gradients go through the composed map to all steps, but not back from what a step sees to the maps
before it: those made four steps unstable.

    net = straighten(data, localise, (28, 28), (28, 28), "affine", steps=3)

This file needs MXNet, NumPy and ``stn.py`` alone: lift both, into a folder of your program, such as
``warps``, from which it imports ``warps.steps``.
"""
import json
from numbers import Integral

import mxnet as mx

from .stn import (
    COLUMNS,
    COMMON,
    SMALLEST_DENOMINATOR,
    Affine,
    Projective,
    check_head,
    full_name,
    get_transform,
    spatial_transformer,
)

COMMON_IN_STEPS = 0.1


def common_in(steps):
    """What the stable head of so many steps takes of the gradient that a batch has in common.

    With the hundredth of a single look, four steps were trained unstably where sizes differ.
    """
    return COMMON if steps == 1 else COMMON_IN_STEPS


def straighten(data, localise, source_shape, target_shape, transform="affine", steps=1, name="stn",
               pool=1, outside="zero"):
    """Warps each image by a map that is found in steps.

    Args:
        data: symbol (N, C, H, W).
        localise: function that makes theta (N, parameters of the transform) of a symbol of images,
            and of nothing else, as all of it is computed anew in each step; a stable head in it
            takes ``common=common_in(steps)``.
        source_shape: (H, W) in pixels; what the steps between see is of that size.
        target_shape, transform, pool, outside: as for ``stn.spatial_transformer``.
        steps: how often the localisation network looks; with 1 it is a usual transformer.
        name: of the last warp; those before are ``<name>_step1``, ``<name>_step2``, ...

    Returns:
        Symbol (N, C, height, width), or of a ``pool``-th of that size. With more than one step
        theta is that of the composed map: (N, 6) for all of the affine families, (N, 8) for the
        projective one.

    Raises:
        ValueError: steps is less than 1, or more for a family whose maps do not compose; localise
            makes nothing of what it is given; and as ``stn.spatial_transformer``.
    """
    family = get_transform(transform)
    if not isinstance(steps, Integral) or steps < 1:
        raise ValueError(f"steps must be a whole number from 1, got {steps!r}")
    if steps == 1:
        return spatial_transformer(data, localise(data), target_shape, family, name, pool, outside)
    if not isinstance(family, (Affine, Projective)):
        raise ValueError(f"two maps of {transform} do not make a third: more than one step needs "
                         "an affine or projective transform")
    composed = get_transform("affine") if isinstance(family, Affine) else family
    look, scope = localise(mx.sym.Variable("seen")), full_name(name)
    if not isinstance(look, mx.sym.Symbol) or "seen" not in look.list_arguments():
        raise ValueError("localise must make a symbol of the images that it is given")
    check_head(look, len(family.identity))
    shared = _variables(look)
    seen, matrix = data, None
    for step in range(1, steps + 1):
        last = step == steps
        shape = target_shape if last else source_shape
        found = _renamed(look, step)(**dict(shared, seen=seen))
        with mx.name.Prefix(f"{scope}_compose{step}_"):
            found = _matrix(family, found, shape)  # (N, 3, 3)
            matrix = found if matrix is None else mx.sym.batch_dot(matrix, found)
            # Of matrices, as oneDNN's copy of pictures fails where MXNet shares their memory.
            theta = _theta(composed, matrix if last else mx.sym.BlockGrad(matrix))
        seen = spatial_transformer(data, theta, shape, composed,
                                   name if last else f"{name}_step{step}",
                                   pool if last else 1, outside)
    return seen


def _matrix(family, theta, shape):
    """Maps of a family as matrices (N, 3, 3) on points (x, y, 1)."""
    if isinstance(family, Affine):
        theta = family.affine(theta, shape)
    one = mx.sym.ones_like(mx.sym.slice_axis(theta, axis=1, begin=0, end=1))
    rest = [one] if isinstance(family, Projective) else [mx.sym.zeros_like(one)] * 2 + [one]
    return mx.sym.reshape(mx.sym.concat(theta, *rest, dim=COLUMNS), shape=(0, 3, 3))


def _theta(family, matrix):
    """The parameters (N, 6) or (N, 8) of the maps that matrices (N, 3, 3) are."""
    entries = mx.sym.reshape(matrix, shape=(0, 9))
    if isinstance(family, Projective):
        scale = mx.sym.slice_axis(entries, axis=1, begin=8, end=9)
        too_small = mx.sym.abs(scale) < SMALLEST_DENOMINATOR
        entries = mx.sym.broadcast_div(entries, scale + too_small * (2 * SMALLEST_DENOMINATOR))
    return mx.sym.slice_axis(entries, axis=1, begin=0, end=len(family.identity))


def _renamed(symbol, step):
    """A symbol whose operators have names of their own from the second step on."""
    graph = json.loads(symbol.tojson())
    for node in graph["nodes"]:
        if node["op"] != "null" and step > 1:
            node["name"] += f"_step{step}"
    return mx.sym.load_json(json.dumps(graph))


def _variables(symbol):
    """The variables that a symbol is made of, by name: what the steps share."""
    inside = symbol.get_internals()
    return {name: inside[name] for name in symbol.list_inputs()}
