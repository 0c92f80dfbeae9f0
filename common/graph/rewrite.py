"""Graphs made of a symbol: to run it faster on a CPU, and to predict with it."""
import ast
import json
import math
import os
import re

import mxnet as mx

from common.find_mxnet import UNFUSED_SUMS
from common.graph.padding import pad_convolutions

SCALED = "data_scaled"  # the node that divides raw pixels by 255
FUSED = ("Activation", "BatchNorm", "Dropout", "LeakyReLU", "_copy", "clip", "relu")  # by oneDNN
BIASED = ("Convolution", "Deconvolution", "FullyConnected")  # of data, weight and bias
SOFTMAXES = ("SoftmaxActivation", "SoftmaxOutput", "softmax")
PASSING = ("BlockGrad", "_copy")  # operators that change nothing
# What the losses compute, each of its first input; of SoftmaxOutput see ``label_free``.
LOSSES = {"LinearRegressionOutput": "_copy", "LogisticRegressionOutput": "sigmoid",
          "MAERegressionOutput": "_copy", "SoftmaxOutput": "softmax"}


def label_free(symbol):
    """The symbol for prediction: each loss is replaced by what it computes, without its label.

    Args:
        symbol: one that ends in a SoftmaxOutput then has one output, ``softmax_output``; one
            without losses stays as it is.
    """
    graph = json.loads(symbol.tojson())
    nodes, last = graph["nodes"], graph["heads"][0][0]
    for index, node in enumerate(nodes):
        if node["op"] in LOSSES:
            name = "softmax" if node["op"] == "SoftmaxOutput" and index == last else node["name"]
            nodes[index] = {"op": LOSSES[node["op"]], "name": name, "inputs": node["inputs"][:1],
                            "attrs": _softmax_axis(attributes(node))}
    return mx.sym.load_json(json.dumps(graph))


def _softmax_axis(attrs):
    """The attributes of the softmax of a SoftmaxOutput; those of other losses are none.

    Without any, MXNet itself takes all axes but the first, or of four and more the last one in
    predicting; which is the same for (N, classes): see ``is_ambiguous``.
    """
    if attrs.get("multi_output"):
        return {"axis": "1"}
    return {"axis": "-1"} if attrs.get("preserve_shape") else {}


def is_ambiguous(symbol, shape):
    """Whether a symbol ends in a SoftmaxOutput that does not say over which of its axes it is.

    Args:
        symbol: a training symbol.
        shape: of its first output.
    """
    graph = json.loads(symbol.tojson())
    last = graph["nodes"][graph["heads"][0][0]]
    return last["op"] == "SoftmaxOutput" and len(shape) > 2 and not _softmax_axis(attributes(last))


def classifier(symbol):
    """Of a symbol with several outputs that of the only softmax; itself if there is no such."""
    graph = json.loads(symbol.tojson())
    found = [number for number, (index, *_) in enumerate(graph["heads"])
             if _unwrapped(graph["nodes"], index)["op"] in SOFTMAXES]
    return symbol[found[0]] if len(found) == 1 < len(graph["heads"]) else symbol


def _unwrapped(nodes, index):
    """The node that computes what a node passes on."""
    while nodes[index]["op"] in PASSING and nodes[index]["inputs"]:
        index = nodes[index]["inputs"][0][0]
    return nodes[index]


def ending(symbol):
    """What a symbol ends in, in words: the operator and the name of each output."""
    graph = json.loads(symbol.tojson())
    return " and ".join("{op} {name}".format(**graph["nodes"][index])
                        for index, *_ in graph["heads"])


def ends_in_loss(symbol):
    """Whether a symbol is one for training: ends in one SoftmaxOutput, which has a label."""
    graph = json.loads(symbol.tojson())
    return [graph["nodes"][index]["op"] for index, *_ in graph["heads"]] == ["SoftmaxOutput"]


def attributes(node):
    """The attributes of the operator of a node in a symbol's JSON, as MXNet reads them.

    Returns name -> value; a shape is a tuple. What is noted on nodes, as ``__lr_mult__``, is none.
    """
    return {name: _value(text) for name, text in node.get("attrs", {}).items()
            if not name.startswith("__")}


def _value(text):
    if text.lower() in ("true", "false"):  # as languages other than Python write it
        return text.lower() == "true"
    try:
        value = ast.literal_eval(re.sub(r"(\d)L\b", r"\1", text.strip()))  # L: by Python 2
        return tuple(value) if isinstance(value, list) else value
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


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
    found = _shapes_of(graph, ends, shapes)
    for index, before, after in zip(reshapes, found[::2], found[1::2]):
        if math.prod(before) != math.prod(after):
            name = graph["nodes"][index]["name"]
            raise mx.MXNetError(f"{name} cannot reshape {before} to {after}")


def _shapes_of(graph, entries, shapes):
    """The shapes of some entries of a graph, and behind them those of its heads."""
    inner = mx.sym.load_json(json.dumps({**graph, "heads": entries + graph["heads"]}))
    return inner.infer_shape(**shapes)[1]


def uses_random_numbers(symbol):
    """Whether an operator of a symbol may draw from MXNet's random generator."""
    return any(map(draws_random_numbers, json.loads(symbol.tojson())["nodes"]))


def draws_random_numbers(node):
    """Whether the operator of a node in a symbol's JSON may do so."""
    return bool(re.search("dropout|random|sample_|shuffle|rnn|leakyrelu", node["op"].lower()))


def sums_convolutions(symbol):
    """Whether a symbol adds something to a convolution, also to a normalised or activated one.

    Then MXNet may predict wrongly on ``mx.cpu(0)``: see ``UNFUSED_SUMS`` of ``find_mxnet``.
    """
    convolved = set()
    for index, node in enumerate(json.loads(symbol.tojson())["nodes"]):
        inputs = {entry[0] for entry in node["inputs"]}
        if node["op"] == "elemwise_add" and inputs & convolved:
            return True
        if node["op"] == "Convolution" or (node["op"] in FUSED and inputs & convolved):
            convolved.add(index)
    return False


def is_in_int8(symbol):
    """Whether a network computes in int8, as ``models/quantize.py`` makes them."""
    nodes = json.loads(symbol.tojson())["nodes"]
    return any(node["op"] == "_contrib_quantize_v2" for node in nodes)


def with_raw_input(symbol, cast_to=None):
    """A network for pixels from 0 to 255 of one for pixels from 0 to 1; its input is "data".

    ``cast_to`` is the type of the network's numbers where the input is of another one.
    """
    pixels = mx.sym.Variable("data")
    if cast_to is not None:
        pixels = mx.sym.cast(pixels, dtype=cast_to, name="data_cast")
    scaled = mx.sym._internal._mul_scalar(pixels, scalar=1 / 255, name=SCALED)
    return symbol(data=scaled)


def without_raw_input(symbol):
    """Undoes ``with_raw_input`` without ``cast_to``; another network stays as it is."""
    graph = json.loads(symbol.tojson())
    nodes = graph["nodes"]
    sources = {index: node["inputs"][0] for index, node in enumerate(nodes)
               if (node["name"], node["op"]) == (SCALED, "_mul_scalar")
               and attributes(node).get("scalar") == 1 / 255
               and [nodes[entry[0]]["name"] for entry in node["inputs"]] == ["data"]}
    for node in nodes:
        node["inputs"] = [sources.get(entry[0], entry) for entry in node["inputs"]]
    return mx.sym.load_json(json.dumps(graph))


def for_cpu(symbol, contexts, dtype, for_training=True, **shapes):
    """A symbol to run in place of another.

    Args:
        symbol: what is to be computed.
        contexts: the devices.
        dtype: of all numbers.
        for_training: False for a symbol that is only run forward.
        shapes: of its inputs, such as ``data=(64, 1, 28, 28)``; the batch size stays free.

    Returns:
        A Symbol with the same arguments, auxiliary states and outputs, names included, but for the
        name of an output that is only predicted. It is the symbol itself where there is nothing to
        gain: on GPUs, and in other types than float32.
    """
    if dtype != "float32" or any(context.device_type != "cpu" for context in contexts):
        return symbol
    if for_training:
        return without_leaks(pad_convolutions(pool_before_relu(symbol), **shapes), **shapes)
    padded = pad_convolutions(without_copies(symbol), for_training=False, **shapes)
    # Of several outputs, one that another is computed from would be given with what is fused to it.
    if len(padded.list_outputs()) > 1 or os.environ.get(UNFUSED_SUMS) != "1":
        return padded
    # ReLU costs nothing inside a convolution: oneDNN's part of MXNet puts it there. By itself
    # MXNet asks for that on the first CPU device alone.
    return padded.get_backend_symbol("MKLDNN")


def with_fixed_statistics(symbol, names):
    """The same network, but where it is trained some BatchNorms do as in prediction.

    They neither use the statistics of the batch nor move their means and variances.

    Args:
        symbol: any symbol.
        names: of moving means and variances.
    """
    graph = json.loads(symbol.tojson())
    for node in graph["nodes"]:
        inputs = {graph["nodes"][entry[0]]["name"] for entry in node["inputs"]}
        if node["op"] == "BatchNorm" and inputs.intersection(names):
            node["attrs"] = {**node.get("attrs", {}), "use_global_stats": "True"}
    return mx.sym.load_json(json.dumps(graph))


def weights_of_biases(symbol, biases):
    """The parameters that weights are computed from, of layers whose biases are from some others.

    Args:
        symbol: any symbol.
        biases: names of parameters.

    Returns:
        A set of names.
    """
    nodes, found = json.loads(symbol.tojson())["nodes"], set()
    behind = []  # for each node, the variables that it is computed from
    for node in nodes:
        sources = [behind[entry[0]] for entry in node["inputs"]]
        behind.append(set().union(*sources) if sources else {node["name"]})
        if node["op"] in BIASED and len(sources) > 2 and sources[2] & set(biases):
            found |= sources[1]
    return found


def with_lr_mult(symbol, names, lr_mult):
    """The same network with another factor on the learning rate of some parameters."""
    graph = json.loads(symbol.tojson())
    for node in graph["nodes"]:
        if node["op"] == "null" and node["name"] in names:
            node["attrs"] = {**node.get("attrs", {}), "__lr_mult__": str(lr_mult)}
    return mx.sym.load_json(json.dumps(graph))


def without_copies(symbol):
    """The same prediction without the dropouts and identities, but for those that are outputs.

    oneDNN's part of MXNet leaves them out too, but loses an input that goes through two of them.
    """
    graph = json.loads(symbol.tojson())
    outputs, sources = {entry[0] for entry in graph["heads"]}, {}
    for index, node in enumerate(graph["nodes"]):
        node["inputs"] = [sources.get(entry[0], entry) for entry in node["inputs"]]
        if _is_copy(node) and index not in outputs:
            sources[index], = node["inputs"]
    return mx.sym.load_json(json.dumps(graph))


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


def without_leaks(symbol, **shapes):
    """The same function, whose parts are put together by MXNet and not by oneDNN.

    By oneDNN, MXNet 1.9.1 loses a kilobyte of memory for each part in each backward pass. It leaves
    axes alone that are counted from the last one.

    Args:
        symbol: any symbol.
        shapes: of its inputs, such as ``data=(64, 1, 28, 28)``.
    """
    graph = json.loads(symbol.tojson())
    concats = [index for index, node in enumerate(graph["nodes"]) if node["op"] == "Concat"]
    if not concats:
        return symbol
    entries = [[index, 0, 0] for index in concats]
    for index, shape in zip(concats, _shapes_of(graph, entries, shapes)):
        attrs = graph["nodes"][index]["attrs"]
        axis = int(attrs.get("dim", "1"))
        attrs["dim"] = str(axis - len(shape) if axis > 0 else axis)
    return mx.sym.load_json(json.dumps(graph))


def _is_copy(node):
    """Whether a node gives what it gets, where nothing is trained."""
    drops_always = node.get("attrs", {}).get("mode") == "always"
    return node["op"] == "_copy" or (node["op"] == "Dropout" and not drops_always)


def _is_relu(node):
    return node["op"] == "relu" or (node["op"] == "Activation"
                                    and node["attrs"]["act_type"] == "relu")


def _is_max_pooling(node):
    attrs = node.get("attrs", {})
    return (node["op"] == "Pooling" and attrs.get("pool_type", "max") == "max"
            and attrs.get("pooling_convention", "valid") == "valid")
