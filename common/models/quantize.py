"""Networks that predict in whole numbers of 8 bits: faster on a CPU, and a little less exact."""
import contextlib
import json
import os

import mxnet as mx
import numpy as np
from mxnet.contrib import quantization

from common.data import arrays
from common.data.batches import PIXEL, as_pixels
from common.graph import rewrite
from common.storage.allowed_operators import FUSED

IMAGES = 2560  # to take ranges from, and to compare with
CALIBRATING = 512  # of them, for the former
BATCH = 32  # of the former at a time
LEAST_ALIKE = 0.95  # of images that get the same class; below, MXNet computes something else
BACKEND = "MKLDNN_QUANTIZE"  # oneDNN's part of MXNet, which has the operators for it
SAMPLERS = ("SpatialTransformer", "BilinearSampler")  # of a picture, by theta or a grid
DEVICE = mx.cpu(1)  # on the first one MXNet fuses operators unasked, some of them wrongly
ONCE = "MXNET_ELIMINATE_COMMON_EXPR"  # what layers compute alike, but for "0"
CONNECTION = "_sg_mkldnn_fully_connected"  # as that backend calls it
WRONG = {"_sg_mkldnn_conv": "gelu", CONNECTION: "leaky"}  # with such a LeakyReLU behind it
NEVER = ("elemwise_mul", "Convolution", "FullyConnected")  # the latter two if they are not fused
PREFIX = "quantized_"  # of the names of nodes in int8


def in_int8(network, image_shape, images):
    """The symbol of a network in int8, which has been compared with it.

    Args:
        network: a ``trained.Trained``.
        image_shape: (C, H, W).
        images: uint8 (N, H, W) or (N, C, H, W), up to ``IMAGES`` such as it was trained on: some
            for ``quantized``, the others to compare the two.

    Returns:
        The symbol, and in words how alike the two are.

    Raises:
        ValueError: MXNet cannot do that; the images are not for the network, or too few, or to it
            they are all alike; or too many of them get another class.
    """
    params = network.checked_params(network.symbol, image_shape)
    images = as_pixels(images)
    if images.shape[1:] != tuple(image_shape):
        raise ValueError(f"{network.path}: it takes images of {arrays.in_words(image_shape)}, and "
                         f"those to measure on are of {arrays.in_words(images.shape[1:])}")
    count = min(CALIBRATING, len(images) // 2)
    before = network.predictor(image_shape)(images[count:])
    if not count or len(np.unique(before.argmax(axis=1), axis=0)) < 2:
        raise ValueError(f"{network.path}: {len(images)} images, of which those that are compared "
                         "get one class, tell nothing: give more, such as it was trained on")
    try:
        symbol = quantized(network.symbol, *params, images[:count] * PIXEL)
        after = network._replace(training=symbol).predictor(image_shape)(images[count:])
    except (mx.MXNetError, ValueError) as error:
        reason = str(error).splitlines()[-1].replace(f"{network.path}: ", "")
        raise ValueError(f"{network.path}: MXNet has no int8 for this network: {reason}") from None
    alike = before.argmax(axis=1) == after.argmax(axis=1)  # (N,), or (N, places)
    alike = alike.reshape(len(alike), -1).all(axis=1)
    words = f"{alike.sum():,} of {len(alike):,} images get the same class as in float32"
    if alike.mean() < LEAST_ALIKE:
        raise ValueError(f"{network.path}: int8 is not for this network: only {words}")
    return symbol, words


def quantized(symbol, arg_params, aux_params, images):
    """A symbol that predicts in int8 where MXNet can, with the same parameters.

    The last layer before a theta stays in float32: in int8 it would have 256 values for all maps,
    which is too few to put a picture in its place. So do layers that oneDNN computes wrongly, if
    only on some processors.

    Args:
        symbol: without label; its input is "data".
        arg_params, aux_params: name -> NDArray of float32.
        images: float32 (N, C, H, W), as the network takes them. What 8 bits are for in each layer
            is the range of what it gives for them.

    Raises:
        mx.MXNetError: MXNet cannot do that with this network.
        ValueError: it has not found all ranges, and would take those of each batch; or no layer is
            left.
    """
    fused = rewrite.without_copies(symbol).get_backend_symbol(BACKEND)
    nodes = json.loads(fused.tojson())["nodes"]
    excluded = _layers_of_theta(nodes) + [node["name"] for node in nodes if _is_wrong_in_int8(node)]
    while True:
        graph = _measured(fused, arg_params, aux_params, images, excluded)
        nodes, types = graph["nodes"], _types(graph)
        signed = [node["name"] for node in nodes if _takes_signed_numbers(node, types)]
        if not signed:
            break
        excluded += [name[len(PREFIX):] for name in signed]
    _spare_a_bit(nodes, types)
    small = mx.sym.load_json(json.dumps(graph))
    if not rewrite.is_in_int8(small):
        raise ValueError("all its layers stay in float32")
    return small


def _measured(fused, arg_params, aux_params, images, excluded):
    """The graph of a network in int8, but for the nodes whose names are given."""
    with _silence(), _each_layer():
        found, _, _ = quantization.quantize_model(
            fused, arg_params, aux_params, label_names=None, ctx=DEVICE, calib_mode="naive",
            calib_data=mx.io.NDArrayIter(images, batch_size=BATCH), quantized_dtype="auto",
            quantize_granularity="channel-wise",  # more exact, and the weights stay as they are
            excluded_sym_names=excluded)
    graph = json.loads(found.get_backend_symbol(BACKEND).tojson())
    without = [node["name"] for node in graph["nodes"] if _lacks_range(node)]
    if without:
        raise ValueError(f"no range has been measured for {', '.join(without)}")
    return graph


def _types(graph):
    """The type of what each node gives, the first of its outputs."""
    heads = [[index, 0, 0] for index in range(len(graph["nodes"]))]
    every = mx.sym.load_json(json.dumps(dict(graph, heads=heads)))
    return every.infer_type(data=np.float32)[1]


def _takes_signed_numbers(node, types):
    """Whether a full connection in int8 gets such as may be below 0.

    oneDNN adds 128 to them, which leaves no bit to spare.
    """
    return (node["op"] == CONNECTION and "quantized" in node.get("attrs", {})
            and types[node["inputs"][0][0]] == np.int8)


def _spare_a_bit(nodes, types):
    """Doubles the ranges of what is never below 0, so that it comes to 128 in place of 255.

    A processor without VNNI adds two products of 8 bits in 16, and cuts off what is more than they
    hold: 2 x 255 x 127, but not 2 x 128 x 127. Of numbers that may be below 0 oneDNN sees to that
    in convolutions.
    """
    for node, kind in zip(nodes, types):
        attrs = node.get("attrs", {})
        if kind == np.uint8 and "max_calib_range" in attrs:
            attrs["max_calib_range"] = str(2 * float(attrs["max_calib_range"]))


def _layers_of_theta(nodes):
    """The names of the last layer with weights before each theta, and of what is behind it."""
    found = set()
    waiting = [node["inputs"][1][0] for node in nodes if node["op"] in SAMPLERS]
    while waiting:
        index = waiting.pop()
        if index not in found and nodes[index]["op"] not in FUSED:
            waiting += [entry[0] for entry in nodes[index]["inputs"]]
        found.add(index)
    return sorted(nodes[index]["name"] for index in found if nodes[index]["op"] != "null")


def _is_wrong_in_int8(node):
    """Whether MXNet computes a node wrongly in int8, or some such nodes not at all."""
    return node["op"] in NEVER or any(
        _is_wrong_within(node["op"], part["op"], part.get("attrs", {}))
        for graph in node.get("subgraphs", ()) for part in graph["nodes"])


def _is_wrong_within(fused, operator, attrs):
    """Whether it does so for what is fused with such a part."""
    if operator == "LeakyReLU":
        return WRONG.get(fused) == attrs.get("act_type", "leaky")
    if operator == "Convolution":  # the scales of filters in groups get mixed up
        return attrs.get("num_group", "1") not in ("1", attrs["num_filter"])
    return operator == "clip" and fused != CONNECTION  # which clips at the end of its range


def _lacks_range(node):
    """Whether a node rounds numbers to 8 bits by the range that they have in a batch."""
    return (node["op"] in ("_contrib_quantize_v2", "_contrib_requantize")
            and "max_calib_range" not in node["attrs"])


@contextlib.contextmanager
def _each_layer():
    """Keeps MXNet from computing once, under one name, what two layers compute alike."""
    before = os.environ.get(ONCE)
    os.environ[ONCE] = "0"
    try:
        yield
    finally:
        os.environ.pop(ONCE)
        if before is not None:
            os.environ[ONCE] = before


@contextlib.contextmanager
def _silence():
    """Keeps MXNet from printing what it leaves in float32, on the system's standard error."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
