"""How MXNet's operators are said in ONNX of opset 17.

``TRANSLATIONS`` has a function for each operator; it adds what computes the same to a model:
``model.add`` a node, ``model.constant`` a constant, each of which returns a name. It is told of
the operator by a ``to_onnx.Node``, whose ``refuse`` it calls for what ONNX has no words for.
"""
import numpy as np

from common.transformers import lattice

FLOAT = 1  # ONNX's number of the type


def _renamed(operator):
    """The translation of an operator that ONNX has too, and that takes no attributes."""
    return lambda model, node: model.add(operator, node.inputs, node.outputs)


def _with_scalar(operator, scalar_first=False):
    def translate(model, node):
        inputs = [*node.inputs, model.constant(node.attrs["scalar"])]
        model.add(operator, inputs[::-1] if scalar_first else inputs, node.outputs)
    return translate


def _compared_with_scalar(operator):
    def translate(model, node):
        holds = model.add(operator, [*node.inputs, model.constant(node.attrs["scalar"])])
        model.add("Cast", [holds], node.outputs, to=FLOAT)  # as MXNet's comparisons give
    return translate


def _reduced(operator):
    def translate(model, node):
        count, axis = len(node.in_shapes[0]), node.attrs.get("axis")
        axes = {number % count for number in (axis if isinstance(axis, tuple) else (axis,))
                if number is not None}
        if node.attrs.get("exclude"):
            axes = set(range(count)) - axes
        if not axes or None in [node.in_shapes[0][number] for number in axes]:
            node.refuse(f"a {node.operator} over the batch")
        axes, keep = sorted(axes), int(node.attrs.get("keepdims", False))
        if operator == "ReduceSum":  # the only one whose axes are an input in opset 17
            model.add(operator, [*node.inputs, model.constant(axes, np.int64)], node.outputs,
                      keepdims=keep)
        else:
            model.add(operator, node.inputs, node.outputs, axes=axes, keepdims=keep)
    return translate


def _activation(model, node):
    model.add(ACTIVATIONS[node.attrs["act_type"]], node.inputs, node.outputs)


def _batch_norm(model, node):
    data, gamma, *rest = node.inputs
    if node.attrs.get("axis", 1) != 1 or node.attrs.get("output_mean_var"):
        node.refuse(f"this batch normalisation ({node.attrs})")
    if node.attrs.get("fix_gamma", True):
        gamma = model.constant(np.ones(node.in_shapes[1]))
    model.add("BatchNormalization", [data, gamma, *rest], node.outputs,
              epsilon=node.attrs.get("eps", 1e-3))


def _broadcast_to(model, node):
    shape = model.constant([size or 1 for size in node.out_shape], np.int64)
    model.add("Expand", [*node.inputs, shape], node.outputs)


def _clip(model, node):
    limits = [model.constant(node.attrs[name]) for name in ("a_min", "a_max")]
    model.add("Clip", [*node.inputs, *limits], node.outputs)


def _concat(model, node):
    model.add("Concat", node.inputs, node.outputs, axis=node.attrs.get("dim", 1))


def _convolution(model, node):
    model.add("Conv", node.inputs, node.outputs, **_convolving(node))


def _convolving(node):
    """The attributes of a convolution or a deconvolution."""
    kernel, stride, pad = _window(node)
    return {"kernel_shape": kernel, "strides": stride, "pads": [*pad, *pad],
            "dilations": node.attrs.get("dilate") or [1] * len(kernel),
            "group": node.attrs.get("num_group", 1)}


def _deconvolution(model, node):
    if node.attrs.get("target_shape"):
        node.refuse("a deconvolution with a target_shape")
    model.add("ConvTranspose", node.inputs, node.outputs, **_convolving(node),
              output_padding=node.attrs.get("adj") or [0] * len(node.attrs["kernel"]))


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


def _instance_norm(model, node):
    model.add("InstanceNormalization", node.inputs, node.outputs,
              epsilon=node.attrs.get("eps", 1e-3))


def _leaky_relu(model, node):
    attrs, kind = node.attrs, node.attrs.get("act_type", "leaky")
    data, *slopes = node.inputs
    if kind == "prelu":  # the slopes are those of the second axis
        shape = model.constant([-1] + [1] * (len(node.out_shape) - 2), np.int64)
        model.add("PRelu", [data, model.add("Reshape", [*slopes, shape])], node.outputs)
    elif kind == "gelu":
        scaled = model.add("Mul", [data, model.constant(0.5 ** 0.5)])
        weight = model.add("Add", [model.add("Erf", [scaled]), model.constant(1)])
        half = model.add("Mul", [data, model.constant(0.5)])
        model.add("Mul", [half, weight], node.outputs)
    elif kind == "selu":
        model.add("Selu", [data], node.outputs)
    elif kind in ("leaky", "elu"):
        model.add("Elu" if kind == "elu" else "LeakyRelu", [data], node.outputs,
                  alpha=attrs.get("slope", 0.25))
    else:
        node.refuse(f"the activation {kind}")


def _like(model, node):
    value = np.float32(node.operator == "ones_like")
    shape = model.add("Shape", node.inputs)
    filled = model.add("ConstantOfShape", [shape])
    model.add("Add", [filled, model.constant(value)], node.outputs)


def _pad(model, node):
    widths = node.attrs["pad_width"]  # before and after each axis in turn
    inputs = [*node.inputs, model.constant([*widths[::2], *widths[1::2]], np.int64)]
    if node.attrs["mode"] == "constant":
        inputs.append(model.constant(node.attrs.get("constant_value", 0)))
    model.add("Pad", inputs, node.outputs, mode=node.attrs["mode"])


def _pooling(model, node):
    attrs, kind = node.attrs, node.attrs.get("pool_type", "max")
    if (kind not in ("max", "avg")
            or attrs.get("pooling_convention", "valid") not in ("valid", "full")):
        node.refuse(f"this pooling ({attrs})")
    operator = "MaxPool" if kind == "max" else "AveragePool"
    if attrs.get("global_pool"):
        model.add(f"Global{operator}", node.inputs, node.outputs)
        return
    kernel, stride, pad = _window(node)
    # "full" takes windows that stick out of the picture; an average is then one of the pixels
    # within. ONNX's ceil_mode leaves some of them away, so they are padded for.
    end = [max(before, (count - 1) * step + width - size - before) for count, step, width, size,
           before in zip(node.out_shape[2:], stride, kernel, node.in_shapes[0][2:], pad)]
    if any(pad) and end != list(pad):
        node.refuse("a padded pooling with windows that stick out")
    own = {} if kind == "max" else {
        "count_include_pad": int(any(pad) and attrs.get("count_include_pad") is not False)}
    model.add(operator, node.inputs, node.outputs, kernel_shape=kernel, strides=stride,
              pads=[*pad, *end], **own)


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


def _slice_axis(model, node):
    axis, begin, end = (node.attrs[name] for name in ("axis", "begin", "end"))
    end = np.iinfo(np.int64).max if end is None else end
    ranges = [model.constant([number], np.int64) for number in (begin, end, axis)]
    model.add("Slice", [*node.inputs, *ranges], node.outputs)


def _softmax(model, node):
    operator = "LogSoftmax" if node.operator == "log_softmax" else "Softmax"
    if node.attrs.get("use_length"):
        node.refuse("a softmax of lengths")
    inputs, temperature = node.inputs, node.attrs.get("temperature")
    if temperature:
        inputs = [model.add("Div", [*inputs, model.constant(temperature)])]
    model.add(operator, inputs, node.outputs, axis=node.attrs.get("axis", -1))


def _split(model, node):
    if node.attrs.get("squeeze_axis"):
        node.refuse("squeeze_axis=True")
    model.add("Split", node.inputs, node.outputs, axis=node.attrs.get("axis", 1))


def _square(model, node):
    model.add("Mul", [*node.inputs, *node.inputs], node.outputs)


def _stack(model, node):
    axis = model.constant([node.attrs.get("axis", 0)], np.int64)
    parts = [model.add("Unsqueeze", [source, axis]) for source in node.inputs]
    model.add("Concat", parts, node.outputs, axis=node.attrs.get("axis", 0))


def _transpose(model, node):
    axes = node.attrs.get("axes") or range(len(node.in_shapes[0]))[::-1]
    model.add("Transpose", node.inputs, node.outputs, perm=list(axes))


def _grid_generator(model, node):
    """Makes affine thetas a grid (N, 2, height, width)."""
    if node.attrs["transform_type"] != "affine":
        node.refuse("a warp by flow")
    height, width = node.attrs["target_shape"]
    points = lattice((height, width)).reshape(-1, 2).T  # (2, target points)
    points = model.constant(np.concatenate([points, np.ones_like(points[:1])]))
    matrix = model.add("Reshape", [node.inputs[-1], model.constant([-1, 2, 3], np.int64)])
    grid = model.add("MatMul", [matrix, points])  # (N, 2, target points)
    shape = model.constant([0, 0, height, width], np.int64)
    return model.add("Reshape", [grid, shape], node.outputs)


def _sampler(model, node):
    data, grid = node.inputs
    points = model.add("Transpose", [grid], perm=(0, 2, 3, 1))
    model.add("GridSample", [data, points], node.outputs, mode="bilinear", padding_mode="zeros",
              align_corners=1)


def _spatial_transformer(model, node):
    grid = _grid_generator(model, node._replace(outputs=None))
    _sampler(model, node._replace(inputs=[node.inputs[0], grid]))


ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "softrelu": "Softplus", "softsign": "Softsign",
               "tanh": "Tanh"}
RENAMED = {
    "BlockGrad": "Identity", "_copy": "Identity", "_maximum": "Max", "_minimum": "Min",
    "_power": "Pow", "abs": "Abs", "add_n": "Sum", "broadcast_add": "Add", "broadcast_div": "Div",
    "broadcast_maximum": "Max", "broadcast_minimum": "Min", "broadcast_mul": "Mul",
    "broadcast_power": "Pow", "broadcast_sub": "Sub", "ceil": "Ceil", "cos": "Cos",
    "elemwise_add": "Add", "elemwise_div": "Div", "elemwise_mul": "Mul", "elemwise_sub": "Sub",
    "erf": "Erf", "exp": "Exp", "floor": "Floor", "log": "Log", "negative": "Neg",
    "reciprocal": "Reciprocal", "relu": "Relu", "sigmoid": "Sigmoid", "sign": "Sign", "sin": "Sin",
    "softsign": "Softsign", "sqrt": "Sqrt", "tanh": "Tanh"}
SCALAR = {"_div_scalar": "Div", "_maximum_scalar": "Max", "_minimum_scalar": "Min",
          "_minus_scalar": "Sub", "_mul_scalar": "Mul", "_plus_scalar": "Add",
          "_power_scalar": "Pow"}
SCALAR_FIRST = {"_rdiv_scalar": "Div", "_rminus_scalar": "Sub", "_rpower_scalar": "Pow"}
COMPARED = {"_equal_scalar": "Equal", "_greater_equal_scalar": "GreaterOrEqual",
            "_greater_scalar": "Greater", "_lesser_equal_scalar": "LessOrEqual",
            "_lesser_scalar": "Less"}
REDUCED = {"max": "ReduceMax", "mean": "ReduceMean", "min": "ReduceMin", "prod": "ReduceProd",
           "sum": "ReduceSum"}
TRANSLATIONS = {
    "Activation": _activation, "BatchNorm": _batch_norm, "BilinearSampler": _sampler,
    "Concat": _concat, "Convolution": _convolution, "Deconvolution": _deconvolution,
    "Dropout": _dropout, "Flatten": _reshape, "FullyConnected": _fully_connected,
    "GridGenerator": _grid_generator, "InstanceNorm": _instance_norm, "LeakyReLU": _leaky_relu,
    "Pad": _pad, "Pooling": _pooling, "Reshape": _reshape, "SliceChannel": _split,
    "SpatialTransformer": _spatial_transformer,
    "broadcast_to": _broadcast_to, "clip": _clip, "dot": _dot, "expand_dims": _reshape,
    "log_softmax": _softmax, "ones_like": _like, "slice_axis": _slice_axis, "softmax": _softmax,
    "square": _square, "squeeze": _reshape, "stack": _stack, "transpose": _transpose,
    "zeros_like": _like,
    **{name: _renamed(operator) for name, operator in RENAMED.items()},
    **{name: _with_scalar(operator) for name, operator in SCALAR.items()},
    **{name: _with_scalar(operator, scalar_first=True) for name, operator in SCALAR_FIRST.items()},
    **{name: _compared_with_scalar(operator) for name, operator in COMPARED.items()},
    **{name: _reduced(operator) for name, operator in REDUCED.items()}}
