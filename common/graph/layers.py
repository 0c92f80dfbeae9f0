"""What a network consists of: its layers, their parameters and operations, and drawings of it."""
import json
import math
import os
import re
import subprocess
from collections import Counter
from typing import NamedTuple, Tuple

import mxnet as mx

from common import files

FORMATS = (".dot", ".pdf", ".png", ".svg")  # of drawings


class Layer(NamedTuple):
    """An operator of a symbol.

    Attributes:
        name, operator: of the node.
        shape: of its first output.
        parameters: how many numbers it is the first to use.
        flops: floating-point operations in one forward pass, counted for convolutions and full
            connections alone; a multiplication and an addition are 2.
    """

    name: str
    operator: str
    shape: Tuple[int, ...]
    parameters: int
    flops: int


def layers(symbol, **shapes):
    """The operators of a symbol, in the order of its graph.

    Args:
        symbol: any symbol.
        shapes: of all its inputs that are not parameters, such as ``data=(1, 1, 28, 28)``.

    Returns:
        A list of ``Layer``.
    """
    internals = symbol.get_internals()
    _, out_shapes, _ = internals.infer_shape(**shapes)
    first_output = _first_outputs(internals)

    def shape_of(name, output=0):
        return out_shapes[first_output[name] + output]

    unused = set(symbol.list_arguments()) - set(shapes)
    nodes = json.loads(symbol.tojson())["nodes"]
    found = []
    for node in nodes:
        if node["op"] == "null":
            continue
        sources = [(nodes[index]["name"], output) for index, output, *_ in node["inputs"]]
        own = unused.intersection(name for name, _ in sources)
        unused -= own
        name, count = node["name"], 0
        shape = shape_of(name)
        if node["op"] in ("Convolution", "FullyConnected"):
            count = 2 * math.prod(shape) * math.prod(shape_of(*sources[1])[1:])
        found.append(Layer(name, node["op"], shape,
                           sum(math.prod(shape_of(one)) for one in own), count))
    return found


def _first_outputs(internals):
    """The number of each node's first output among all, by the node's name."""
    numbers = {}
    for number in range(len(internals.list_outputs())):
        numbers.setdefault(internals[number].name, number)
    return numbers


def flops(symbol, **shapes):
    """Floating-point operations of all ``layers``."""
    return sum(layer.flops for layer in layers(symbol, **shapes))


def by_layer(names, among):
    """Names of parameters in fewer words: that of a layer for all that it has.

    Args:
        names: some parameters.
        among: all parameters.

    Returns:
        A list: "conv1" for conv1_weight and conv1_bias, if the layer has no others among all.
    """
    counts, wanted = Counter(map(_layer, among)), Counter(map(_layer, names))
    return list(dict.fromkeys(_layer(name) if wanted[_layer(name)] == counts[_layer(name)] else name
                              for name in names))


def _layer(name):
    return re.sub("_(weight|bias|gamma|beta|moving_mean|moving_var)$", "", name)


def table(symbol, image_shape):
    """The layers of a network as lines of text.

    Args:
        symbol: a training symbol.
        image_shape: (C, H, W).
    """
    found = layers(symbol, **_shapes(symbol, image_shape))
    rows = [("layer", "operator", "output", "parameters", "FLOPs")]
    rows += [(layer.name, layer.operator, " x ".join(map(str, layer.shape)),
              f"{layer.parameters:,}", f"{layer.flops:,}") for layer in found]
    rows.append(("total", "", "", f"{sum(layer.parameters for layer in found):,}",
                 f"{sum(layer.flops for layer in found):,}"))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) if number < 3 else cell.rjust(width)
                       for number, (cell, width) in enumerate(zip(row, widths))) for row in rows]
    return "\n".join([*lines, "FLOPs of convolutions and full connections, forward, for one image"])


def draw(symbol, path, image_shape):
    """Draws the graph of a network, by MXNet's ``plot_network``.

    Args:
        symbol: a training symbol.
        path: of the file, which ends in one of ``FORMATS``.
        image_shape: (C, H, W).

    Raises:
        ValueError: another ending, or something to draw with is missing.
        OSError: the file cannot be written.
    """
    ending = os.path.splitext(path)[1]
    if ending not in FORMATS:
        raise ValueError(f"--draw-graph: expected a file that ends in {', '.join(FORMATS)}, "
                         f"got {path!r}")
    files.prepare_output(path)
    try:
        import graphviz
    except ImportError:
        raise ValueError("--draw-graph needs a package: pip install graphviz") from None
    drawing = mx.viz.plot_network(symbol, shape=_shapes(symbol, image_shape),
                                  node_attrs={"fixedsize": "false"})
    if ending == ".dot":
        files.write_bytes(path, drawing.source.encode())
        return
    try:
        files.write_bytes(path, drawing.pipe(format=ending[1:]))
    except graphviz.ExecutableNotFound:
        raise ValueError(f"--draw-graph needs the program dot for {ending} (Debian: apt install "
                         "graphviz); .dot files do without it") from None
    except (subprocess.CalledProcessError, BrokenPipeError) as error:  # it may stop reading, too
        raise ValueError(f"--draw-graph: the program dot failed: {error}") from None


def _shapes(symbol, image_shape):
    """The shapes of an image (C, H, W) and, where there is one, its label."""
    data, names = (1, *image_shape), symbol.list_arguments()
    shapes, _, _ = symbol.infer_shape_partial(data=data)
    labels = {name: shape or (1,) for name, shape in zip(names, shapes) if name.endswith("_label")}
    return {"data": data, **labels}
