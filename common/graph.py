"""Graphs made of a symbol: to run it faster on a CPU, and to predict with it; and its layers."""
import json
import math
import re
from typing import NamedTuple, Tuple

import mxnet as mx

from common.padding import pad_convolutions

SCALED = "data_scaled"  # the node that divides raw pixels by 255


def label_free(symbol):
    """The symbol for prediction: one input less, and one output, ``softmax_output``.

    Args:
        symbol: a training symbol that ends in a SoftmaxOutput.
    """
    return mx.sym.softmax(symbol.get_children()[0], name="softmax")


def ends_in_loss(symbol):
    """Whether a symbol is one for training: ends in a SoftmaxOutput, which has a label."""
    graph = json.loads(symbol.tojson())
    return graph["nodes"][graph["heads"][0][0]]["op"] == "SoftmaxOutput"


def check_reshapes(symbol, **shapes):
    """Does what MXNet 1.9.1 does not: its Reshape takes any shape, and runs past arrays.

    Args:
        symbol: any symbol.
        shapes: of its inputs, such as ``data=(64, 1, 28, 28)``.

    Raises:
        mx.MXNetError: a Reshape changes the number of elements.
    """
    graph = json.loads(symbol.tojson())
    reshapes = [index for index, node in enumerate(graph["nodes"]) if node["op"] == "Reshape"]
    if not reshapes:
        return
    ends = [entry for index in reshapes
            for entry in (graph["nodes"][index]["inputs"][0], [index, 0, 0])]
    inner = mx.sym.load_json(json.dumps({**graph, "heads": ends + graph["heads"]}))
    found = inner.infer_shape(**shapes)[1]
    for index, before, after in zip(reshapes, found[::2], found[1::2]):
        if math.prod(before) != math.prod(after):
            name = graph["nodes"][index]["name"]
            raise mx.MXNetError(f"{name} cannot reshape {before} to {after}")


def may_draw(symbol):
    """Whether an operator of a symbol may draw from MXNet's random generator."""
    return any(re.search("dropout|random|sample_|shuffle|rnn|leakyrelu", node["op"].lower())
               for node in json.loads(symbol.tojson())["nodes"])


def with_raw_input(symbol):
    """A network for pixels from 0 to 255 of one for pixels from 0 to 1; its input is "data"."""
    scaled = mx.sym._internal._mul_scalar(mx.sym.Variable("data"), scalar=1 / 255, name=SCALED)
    return symbol(data=scaled)


def without_raw_input(symbol):
    """Undoes ``with_raw_input``; a network that it did not make stays as it is."""
    graph = json.loads(symbol.tojson())
    sources = {index: node["inputs"][0] for index, node in enumerate(graph["nodes"])
               if node["name"] == SCALED and node["op"] == "_mul_scalar"
               and float(node["attrs"]["scalar"]) == 1 / 255}
    for node in graph["nodes"]:
        node["inputs"] = [sources.get(entry[0], entry) for entry in node["inputs"]]
    return mx.sym.load_json(json.dumps(graph))


def faster(symbol, contexts, dtype, for_training=True, **shapes):
    """A symbol to run in place of another.

    Args:
        symbol: what is to be computed.
        contexts: the devices.
        dtype: of all numbers.
        for_training: False for a symbol that is only run forward.
        shapes: of its inputs, such as ``data=(64, 1, 28, 28)``; the batch size stays free.

    Returns:
        A Symbol with the same arguments, auxiliary states and outputs, names included. It is the
        symbol itself where there is nothing to gain: on GPUs, and in other types than float32.
    """
    if dtype != "float32" or any(context.device_type != "cpu" for context in contexts):
        return symbol
    if for_training:
        return pad_convolutions(pool_before_relu(symbol), **shapes)
    # ReLU costs nothing inside a convolution: oneDNN's part of MXNet puts it there. By itself
    # MXNet asks for that on the first CPU device alone.
    return pad_convolutions(symbol, for_training=False, **shapes).get_backend_symbol("MKLDNN")


def pool_before_relu(symbol):
    """The same function, with each ReLU that is followed by a max pooling behind it instead.

    The two commute, and behind a 2 x 2 pooling there is a quarter of the work for the ReLU.
    """
    graph = json.loads(symbol.tojson())
    nodes = graph["nodes"]
    used = [entry[0] for node in nodes for entry in node["inputs"]]
    used += [entry[0] for entry in graph["heads"]]
    outputs = {entry[0] for entry in graph["heads"]}  # whose names must stay
    for index, node in enumerate(nodes):
        before = node["inputs"][0][0] if _is_max_pooling(node) else None
        if (before is not None and _is_relu(nodes[before]) and used.count(before) == 1
                and index not in outputs):
            relu = nodes[before]
            nodes[before] = dict(node, inputs=relu["inputs"])
            nodes[index] = dict(relu, inputs=node["inputs"])
    return mx.sym.load_json(json.dumps(graph))


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
    by_name = dict(zip(internals.list_outputs(), out_shapes))
    unused = set(symbol.list_arguments()) - set(shapes)
    nodes = json.loads(symbol.tojson())["nodes"]
    found = []
    for node in nodes:
        if node["op"] == "null":
            continue
        sources = [nodes[entry[0]]["name"] for entry in node["inputs"]]
        own = unused.intersection(sources)
        unused -= own
        name, count = node["name"], 0
        shape = by_name.get(f"{name}_output") or next(  # the first of several
            shape for output, shape in by_name.items() if output.startswith(f"{name}_"))
        if node["op"] in ("Convolution", "FullyConnected"):
            count = 2 * math.prod(shape) * math.prod(by_name[sources[1]][1:])
        found.append(Layer(name, node["op"], shape,
                           sum(math.prod(by_name[one]) for one in own), count))
    return found


def flops(symbol, **shapes):
    """Floating-point operations of all ``layers``."""
    return sum(layer.flops for layer in layers(symbol, **shapes))


def _is_relu(node):
    return node["op"] == "relu" or (node["op"] == "Activation"
                                    and node["attrs"]["act_type"] == "relu")


def _is_max_pooling(node):
    attrs = node.get("attrs", {})
    return (node["op"] == "Pooling" and attrs.get("pool_type", "max") == "max"
            and attrs.get("pooling_convention", "valid") == "valid")
