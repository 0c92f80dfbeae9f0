"""ONNX models of trained networks, their transformers included.

MXNet's own converter has no sampler and does not run beside today's onnx, so the nodes are
translated here. What does not depend on the images, such as a lattice or the system of equations
of a spline, is computed by MXNet, once, and becomes constants.
"""
import ast
import json
from typing import NamedTuple

import mxnet as mx
import numpy as np

from common import files
from common.transformers import lattice

OPSET = 17  # GridSample came with 16
IR_VERSION = 8  # what opset 17 came with, so that runtimes of that time read it
TOLERANCE = 1e-5  # of a probability
BATCH = 7  # images to compare the answers for
FROM_SHAPE = ("_contrib_arange_like", "ones_like", "zeros_like")  # take no numbers of their input


def save(path, symbol, arg_params, aux_params, image_shape, brightest=1):
    """Writes a network as an ONNX model, if onnxruntime computes the same with it as MXNet.

    Its input "data" is float32 (N, C, H, W) with any N, its output is named as the symbol's.

    Args:
        path: of the file.
        symbol: without label, with the input "data" and one output.
        arg_params, aux_params: name -> NDArray, those of the symbol.
        image_shape: (C, H, W).
        brightest: value of a white pixel, for the images that are compared.

    Returns:
        The largest difference between the answers.

    Raises:
        ValueError: a package is missing, there is an operator that cannot be translated, or the
            answers differ by more than ``TOLERANCE``.
        OSError: the file cannot be written.
    """
    onnx, onnxruntime = _packages()
    arg_params, aux_params = ({name: value.astype("float32") for name, value in params.items()}
                              for params in (arg_params, aux_params))
    model = _Model(onnx, symbol, {**arg_params, **aux_params}, image_shape).proto
    images = np.random.RandomState(0).rand(BATCH, *image_shape).astype(np.float32) * brightest
    try:
        onnx.checker.check_model(model, full_check=True)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                               providers=["CPUExecutionProvider"])
        answers, = session.run(None, {"data": images})
    except Exception as error:  # their types differ from version to version
        raise ValueError(f"{path}: ONNX does not take this network: {error}") from None
    executor = symbol.bind(mx.cpu(), dict(arg_params, data=mx.nd.array(images)), grad_req="null",
                           aux_states=aux_params)
    difference = float(np.abs(answers - executor.forward()[0].asnumpy()).max())
    if not difference <= TOLERANCE:
        raise ValueError(f"{path}: not written: onnxruntime's answers differ from MXNet's by "
                         f"{difference:.1e}, more than {TOLERANCE:.0e}")
    files.write_bytes(path, model.SerializeToString())
    return difference


def _packages():
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ValueError(f"--onnx needs two packages ({error}): "
                         "pip install onnx onnxruntime") from None
    return onnx, onnxruntime


class _Node(NamedTuple):
    """A node of the symbol. The batch size is None in a shape."""

    operator: str
    name: str
    attrs: dict
    inputs: list  # names
    in_shapes: list
    outputs: list  # names
    out_shape: tuple

    def refuse(self, what):
        raise ValueError(f"{self.name}: {what} cannot be translated to ONNX")


class _Model:
    """An ONNX model in the making; ``proto`` is it."""

    def __init__(self, onnx, symbol, params, image_shape):
        self._onnx, self._nodes, self._constants = onnx, [], {}
        graph, internals = json.loads(symbol.tojson()), symbol.get_internals()
        self._names = internals.list_outputs()
        two, three = (internals.infer_shape(data=(count, *image_shape))[1] for count in (2, 3))
        self._shapes = {
            name: tuple(size if size == other else None for size, other in zip(*shapes))
            for name, *shapes in zip(self._names, two, three)}
        nodes, constants = self._needed(graph)
        for index in sorted(nodes):
            self._translate(graph["nodes"], graph["nodes"][index])
        self._compute(internals, constants, params, image_shape)
        output, = symbol.list_outputs()
        self.proto = self._finished("data", output)

    def _needed(self, graph):
        """The numbers of the nodes to translate, and the names of the constants that they use."""
        constant = []
        for node in graph["nodes"]:
            sources = [constant[entry[0]] for entry in node["inputs"]]
            constant.append(node["name"] != "data" if node["op"] == "null" else
                            node["op"] in FROM_SHAPE or (sources != [] and all(sources)))
        nodes, constants, entries = set(), set(), list(graph["heads"])
        while entries:
            entry = entries.pop()
            name = self._name(graph["nodes"], entry)
            if constant[entry[0]] and None not in self._shapes[name]:
                constants.add(name)
            elif entry[0] not in nodes and name != "data":
                nodes.add(entry[0])
                entries += graph["nodes"][entry[0]]["inputs"]
        return nodes, constants

    def _name(self, nodes, entry):
        name = nodes[entry[0]]["name"]
        if nodes[entry[0]]["op"] == "null":
            return name
        only = f"{name}_output"
        return only if only in self._shapes else f"{only}{entry[1]}"

    def _compute(self, internals, names, params, image_shape):
        """Computes the constants of some names."""
        self._constants.update((name, params[name].asnumpy()) for name in names & set(params))
        names = sorted(names - set(params))
        if names:
            group = mx.sym.Group([internals[name] for name in names])
            values = dict(params, data=mx.nd.zeros((1, *image_shape)))
            values = {name: values[name] for name in group.list_arguments()}
            self._constants.update((name, value.asnumpy())
                                   for name, value in zip(names, group.eval(**values)))

    def _translate(self, nodes, node):
        name, operator = node["name"], node["op"]
        inputs = [self._name(nodes, entry) for entry in node["inputs"]]
        prefix = f"{name}_output"
        outputs = [prefix] if prefix in self._shapes else [
            output for output in self._names
            if output.startswith(prefix) and output[len(prefix):].isdecimal()]
        attrs = {key: _value(text) for key, text in node.get("attrs", {}).items()}
        node = _Node(operator, name, attrs, inputs, [self._shapes[source] for source in inputs],
                     outputs, self._shapes[outputs[0]])
        if operator in RENAMED:
            self.add(RENAMED[operator], inputs, outputs)
        elif operator in TRANSLATIONS:
            TRANSLATIONS[operator](self, node)
        else:
            node.refuse(f"the operator {operator}")

    def add(self, operator, inputs, outputs=None, **attrs):
        """Adds a node and returns the name of its first output, which is made up if need be."""
        outputs = outputs or [f"{operator}_{len(self._nodes)}"]
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, outputs, **attrs))
        return outputs[0]

    def constant(self, value, dtype=np.float32):
        """Adds a constant and returns its name."""
        name = f"constant_{len(self._constants)}"
        self._constants[name] = np.asarray(value, dtype)
        return name

    def _finished(self, source, output):
        helper = self._onnx.helper
        ends = [helper.make_tensor_value_info(
            name, self._onnx.TensorProto.FLOAT, [size or "N" for size in self._shapes[name]])
            for name in (source, output)]
        constants = [self._onnx.numpy_helper.from_array(value, name)
                     for name, value in self._constants.items()]
        graph = helper.make_graph(self._nodes, "network", ends[:1], ends[1:], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)],
                                 ir_version=IR_VERSION, producer_name="mxnet",
                                 producer_version=mx.__version__)


def _value(text):
    """The value of an attribute, as MXNet writes it."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _activation(model, node):
    model.add(ACTIVATIONS[node.attrs["act_type"]], node.inputs, node.outputs)


def _broadcast_to(model, node):
    # ONNX keeps what is to become 1: the batch size among it, which is never broadcast here.
    shape = model.constant([size or 1 for size in node.out_shape], np.int64)
    model.add("Expand", [*node.inputs, shape], node.outputs)


def _clip(model, node):
    limits = [model.constant(node.attrs[name]) for name in ("a_min", "a_max")]
    model.add("Clip", [*node.inputs, *limits], node.outputs)


def _concat(model, node):
    model.add("Concat", node.inputs, node.outputs, axis=node.attrs.get("dim", 1))


def _convolution(model, node):
    kernel, stride, pad = _window(node)
    model.add("Conv", node.inputs, node.outputs, kernel_shape=kernel, strides=stride,
              pads=[*pad, *pad], dilations=node.attrs.get("dilate") or [1] * len(kernel),
              group=node.attrs.get("num_group", 1))


def _dot(model, node):
    if (node.attrs.get("transpose_a") or node.attrs.get("transpose_b")
            or len(node.in_shapes[1]) != 2):
        node.refuse("a dot of other than plain matrices")
    model.add("MatMul", node.inputs, node.outputs)


def _dropout(model, node):
    if node.attrs.get("mode", "training") != "training":
        node.refuse("a dropout that drops in prediction too")
    model.add("Identity", node.inputs, node.outputs)


def _fully_connected(model, node):
    if not node.attrs.get("flatten", True):
        node.refuse("flatten=False")
    flat = model.add("Flatten", node.inputs[:1], axis=1)
    model.add("Gemm", [flat, *node.inputs[1:]], node.outputs, transB=1)


def _lesser_scalar(model, node):
    less = model.add("Less", [*node.inputs, model.constant(node.attrs["scalar"])])
    model.add("Cast", [less], node.outputs, to=1)  # float, as MXNet's comparisons give


def _like(model, node):
    value = np.float32(node.operator == "ones_like")
    shape = model.add("Shape", node.inputs)
    filled = model.add("ConstantOfShape", [shape])
    model.add("Add", [filled, model.constant(value)], node.outputs)


def _pooling(model, node):
    attrs, kind = node.attrs, node.attrs.get("pool_type", "max")
    if (kind not in ("max", "avg") or attrs.get("global_pool")
            or attrs.get("pooling_convention", "valid") not in ("valid", "full")):
        node.refuse(f"this pooling ({attrs})")
    kernel, stride, pad = _window(node)
    # "full" takes windows that stick out of the picture; an average is then one of the pixels
    # within. ONNX's ceil_mode leaves some of them away, so they are padded for.
    end = [max(before, (count - 1) * step + width - size - before) for count, step, width, size,
           before in zip(node.out_shape[2:], stride, kernel, node.in_shapes[0][2:], pad)]
    if any(pad) and end != list(pad):
        node.refuse("a padded pooling with windows that stick out")
    own = {} if kind == "max" else {
        "count_include_pad": int(any(pad) and attrs.get("count_include_pad") is not False)}
    model.add("MaxPool" if kind == "max" else "AveragePool", node.inputs, node.outputs,
              kernel_shape=kernel, strides=stride, pads=[*pad, *end], **own)


def _window(node):
    """The kernel, the stride and the padding of a convolution or a pooling."""
    if node.attrs.get("layout") not in (None, "NCHW"):
        node.refuse(f"layout={node.attrs['layout']}")
    kernel = node.attrs["kernel"]
    return (kernel, node.attrs.get("stride") or (1,) * len(kernel),
            node.attrs.get("pad") or (0,) * len(kernel))


def _reshape(model, node):
    """Any operator that keeps the numbers and their order."""
    if node.out_shape.count(None) > 1:
        node.refuse("a shape with the batch size in two places")
    shape = model.constant([size or -1 for size in node.out_shape], np.int64)
    model.add("Reshape", [*node.inputs, shape], node.outputs)


def _sample(model, node, grid):
    """Samples images at a grid (N, 2, height, width)."""
    points = model.add("Transpose", [grid], perm=(0, 2, 3, 1))
    model.add("GridSample", [node.inputs[0], points], node.outputs, mode="bilinear",
              padding_mode="zeros", align_corners=1)


def _sampler(model, node):
    _sample(model, node, node.inputs[1])


def _scalar(model, node):
    model.add(SCALAR[node.operator], [*node.inputs, model.constant(node.attrs["scalar"])],
              node.outputs)


def _slice_axis(model, node):
    axis, begin, end = (node.attrs[name] for name in ("axis", "begin", "end"))
    end = np.iinfo(np.int64).max if end is None else end
    ranges = [model.constant([number], np.int64) for number in (begin, end, axis)]
    model.add("Slice", [*node.inputs, *ranges], node.outputs)


def _softmax(model, node):
    model.add("Softmax", node.inputs, node.outputs, axis=node.attrs.get("axis", -1))


def _spatial_transformer(model, node):
    height, width = node.attrs["target_shape"]
    points = lattice((height, width)).reshape(-1, 2).T  # (2, target points)
    points = model.constant(np.concatenate([points, np.ones_like(points[:1])]))
    matrix = model.add("Reshape", [node.inputs[1], model.constant([-1, 2, 3], np.int64)])
    grid = model.add("MatMul", [matrix, points])  # (N, 2, target points)
    shape = model.constant([0, 0, height, width], np.int64)
    _sample(model, node, model.add("Reshape", [grid, shape]))


def _split(model, node):
    if node.attrs.get("squeeze_axis"):
        node.refuse("squeeze_axis=True")
    model.add("Split", node.inputs, node.outputs, axis=node.attrs.get("axis", 1))


def _stack(model, node):
    axis = model.constant([node.attrs.get("axis", 0)], np.int64)
    parts = [model.add("Unsqueeze", [source, axis]) for source in node.inputs]
    model.add("Concat", parts, node.outputs, axis=node.attrs.get("axis", 0))


ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "softrelu": "Softplus", "softsign": "Softsign",
               "tanh": "Tanh"}
SCALAR = {"_div_scalar": "Div", "_minus_scalar": "Sub", "_mul_scalar": "Mul",
          "_plus_scalar": "Add"}
RENAMED = {"BlockGrad": "Identity", "_copy": "Identity", "abs": "Abs", "broadcast_add": "Add",
           "broadcast_sub": "Sub", "cos": "Cos", "elemwise_add": "Add", "elemwise_div": "Div",
           "elemwise_mul": "Mul", "elemwise_sub": "Sub", "sin": "Sin", "tanh": "Tanh"}
TRANSLATIONS = {
    "Activation": _activation, "BilinearSampler": _sampler, "Concat": _concat,
    "Convolution": _convolution, "Dropout": _dropout, "Flatten": _reshape,
    "FullyConnected": _fully_connected, "Pooling": _pooling, "Reshape": _reshape,
    "SliceChannel": _split, "SpatialTransformer": _spatial_transformer,
    "_lesser_scalar": _lesser_scalar, "broadcast_to": _broadcast_to, "clip": _clip, "dot": _dot,
    "expand_dims": _reshape, "ones_like": _like, "slice_axis": _slice_axis, "softmax": _softmax,
    "stack": _stack, "zeros_like": _like, **dict.fromkeys(SCALAR, _scalar)}
