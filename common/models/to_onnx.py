"""ONNX models of trained networks, their transformers included.

MXNet's own converter has no sampler and does not run beside today's onnx, so the nodes are
translated here. What does not depend on the images, such as a lattice or the system of equations
of a spline, is computed by MXNet, once, and becomes constants.
"""
import json
from typing import NamedTuple

import mxnet as mx
import numpy as np

from common import files
from common.graph.rewrite import attributes, label_free, with_raw_input
from common.models.onnx_operators import translate
from common.storage.allowed_operators import FROM_SHAPE

OPSET = 17  # GridSample came with 16
IR_VERSION = 8  # what opset 17 came with, so that runtimes of that time read it
# Of the largest answer, and of the largest of the scores that they are a softmax of: several warps
# in a row multiply what is rounded.
TOLERANCES = (1e-4, 1e-3)
BATCH = 7  # images to compare the answers for


def save(path, symbol, arg_params, aux_params, image_shape, raw_input=False):
    """Writes a network as an ONNX model, if onnxruntime computes the same with it as MXNet.

    Its input "data" is float32 (N, C, H, W) with any N, its output is named as the symbol's.

    Args:
        path: of the file.
        symbol: for images of 0 to 1, with the input "data" and one output; as it was trained, or
            without label. MXNet's answers are those of this symbol as it stands.
        arg_params, aux_params: name -> NDArray, those of the symbol.
        image_shape: (C, H, W).
        raw_input: whether the model takes pixels from 0 to 255, not 0 to 1.

    Returns:
        The largest difference between the answers, or the scores that they are a softmax of,
        over the largest of them.

    Raises:
        ValueError: a package is missing, the network has more outputs or an operator that cannot
            be translated, or the answers differ by more than ``TOLERANCES``.
        OSError: the file cannot be written.
    """
    onnx, onnxruntime = _packages()
    if len(symbol.list_outputs()) != 1:
        raise ValueError(f"{path}: expected a network with one output, got "
                         f"{', '.join(symbol.list_outputs())}")
    arg_params, aux_params = ({name: value.astype("float32") for name, value in params.items()}
                              for params in (arg_params, aux_params))
    deployed = label_free(with_raw_input(symbol) if raw_input else symbol)
    model = _Model(onnx, deployed, {**arg_params, **aux_params}, image_shape).proto
    images = np.random.RandomState(0).rand(BATCH, *image_shape).astype(np.float32)
    scores = _scores(symbol, model)
    try:
        onnx.checker.check_model(model, full_check=True)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # it raises its errors, too
        session = onnxruntime.InferenceSession(_with_outputs(onnx, model, scores), options,
                                               providers=["CPUExecutionProvider"])
        answers = session.run(None, {"data": images * np.float32(255 if raw_input else 1)})
    except Exception as error:  # their types differ from version to version
        raise ValueError(f"{path}: ONNX does not take this network: {error}") from None
    expected = _answers(symbol, scores, arg_params, aux_params, images)
    differences = list(map(_difference, answers, expected))
    for difference, most in zip(differences, TOLERANCES):
        if not difference <= most:
            raise ValueError(f"{path}: not written: onnxruntime's answers differ from MXNet's by "
                             f"{difference:.1e} of the largest, more than {most:.0e}")
    files.write_bytes(path, model.SerializeToString())
    return max(differences)


def _scores(symbol, model):
    """The name of what the answers are a softmax of, in a list; none if they are no softmax.

    A network that is certain of its answers hides in them what differs before.
    """
    last = model.graph.node[-1]
    names = set(last.input) if last.op_type == "Softmax" else set()
    return sorted(names.intersection(symbol.get_internals().list_outputs()))


def _with_outputs(onnx, model, names):
    """A model with more outputs, serialized."""
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    extended.graph.output.extend(map(onnx.helper.make_empty_tensor_value_info, names))
    return extended.SerializeToString()


def _answers(symbol, names, arg_params, aux_params, images):
    """What MXNet itself answers, and some values inside.

    That is beside its first CPU device, where it would fuse operators.
    """
    internals = symbol.get_internals()
    symbol = mx.sym.Group([symbol, *(internals[name] for name in names)])
    executor = symbol.simple_bind(mx.cpu(1), grad_req="null", data=images.shape)
    executor.copy_params_from(arg_params, aux_params)
    outputs = executor.forward(is_train=False, data=mx.nd.array(images))
    return [output.asnumpy() for output in outputs]


def _difference(answers, expected):
    """How far some answers are from those expected, over the largest of these."""
    return float(np.abs(answers - expected).max() / (np.abs(expected).max() or 1))


def _packages():
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ValueError(f"--onnx needs two packages ({error}): "
                         "pip install onnx onnxruntime") from None
    return onnx, onnxruntime


def _constant(graph):
    """For each node, whether it depends on nothing but parameters and the shape of the images."""
    constant = []
    for node in graph["nodes"]:
        sources = [constant[entry[0]] for entry in node["inputs"]]
        if node["op"] == "null":
            constant.append(node["name"] != "data")
        else:
            constant.append(node["op"] in FROM_SHAPE or (sources != [] and all(sources)))
    return constant


class Node(NamedTuple):
    """A node of the symbol. The batch size is None in a shape."""

    operator: str
    name: str
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
        self.proto = self._finished(output)

    def _needed(self, graph):
        """The numbers of the nodes to translate, and the names of the constants that they use."""
        constant = _constant(graph)
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
            args, aux_states = ({name: values[name] for name in needed} for needed in (
                group.list_arguments(), group.list_auxiliary_states()))
            outputs = group.bind(mx.cpu(), args, aux_states=aux_states).forward()
            self._constants.update((name, value.asnumpy()) for name, value in zip(names, outputs))

    def _translate(self, nodes, node):
        inputs = [self._name(nodes, entry) for entry in node["inputs"]]
        outputs = self._outputs(node["name"])
        translate(self, Node(node["op"], node["name"], inputs,
                             [self._shapes[source] for source in inputs],
                             outputs, self._shapes[outputs[0]]), attributes(node))

    def _outputs(self, name):
        """The names of a node's outputs: numbered where there are several."""
        prefix = f"{name}_output"
        if prefix in self._shapes:
            return [prefix]
        return [output for output in self._names
                if output.startswith(prefix) and output[len(prefix):].isdecimal()]

    def add(self, operator, inputs, outputs=None, **attrs):
        """Adds a node and returns the name of its first output, which is made up if need be."""
        outputs = outputs or [f"{operator}_{len(self._nodes)}"]
        # Named, as onnxruntime names what it fuses after its parts, and refuses two of a name.
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, outputs, outputs[0],
                                                       **attrs))
        return outputs[0]

    def constant(self, value, dtype=np.float32):
        """Adds a constant and returns its name."""
        name = f"constant_{len(self._constants)}"
        self._constants[name] = np.asarray(value, dtype)
        return name

    def _finished(self, output):
        helper = self._onnx.helper
        ends = [helper.make_tensor_value_info(
            name, self._onnx.TensorProto.FLOAT, [size or "N" for size in self._shapes[name]])
            for name in ("data", output)]
        used = {source for node in self._nodes for source in node.input}
        constants = [self._onnx.numpy_helper.from_array(value, name)
                     for name, value in self._constants.items() if name in used]
        graph = helper.make_graph(self._nodes, "network", ends[:1], ends[1:], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)],
                                 ir_version=IR_VERSION, producer_name="mxnet",
                                 producer_version=mx.__version__)
