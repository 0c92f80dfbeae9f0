"""What a network consists of: a table of its layers, and a drawing of its graph."""
import os
import subprocess

import mxnet as mx

from common import files
from common.graph import layers

FORMATS = (".dot", ".pdf", ".png", ".svg")


def table(symbol, image_shape):
    """The layers of a network as lines of text.

    Args:
        symbol: a training symbol.
        image_shape: (C, H, W).
    """
    found = layers(symbol, **_shapes(image_shape))
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
    files.check_writable(path)
    try:
        import graphviz
    except ImportError:
        raise ValueError("--draw-graph needs a package: pip install graphviz") from None
    drawing = mx.viz.plot_network(symbol, shape=_shapes(image_shape),
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


def _shapes(image_shape):
    return {"data": (1, *image_shape), "softmax_label": (1,)}
