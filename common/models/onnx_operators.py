"""How MXNet's operators are said in ONNX of opset 17.

``TRANSLATIONS`` has a function for each operator; it adds what computes the same to a model:
``model.add`` a node, ``model.constant`` a constant, each of which returns a name. It is told of
the operator by a ``to_onnx.Node``, whose ``refuse`` it calls for what ONNX has no words for. Its
further parameters are the operator's attributes, with MXNet's defaults: an attribute that is
neither there nor in ``WITHOUT_EFFECT`` or ``ONLY`` is refused.
"""
import inspect

import numpy as np

from common.graph.find_transformers import lattice

FLOAT = 1  # ONNX's number of the type


def translate(model, node, attrs):
    """Adds what computes the same as a node with some attributes (name -> value) to a model.

    Raises ValueError if there is an operator or a value of an attribute that ONNX has no words for.
    """
    if node.operator not in TRANSLATIONS:
        node.refuse(f"the operator {node.operator}")
    add = TRANSLATIONS[node.operator]
    honoured = set(inspect.signature(add).parameters)
    without_effect = WITHOUT_EFFECT.get(node.operator, "").split()
    only = ONLY.get(node.operator, {})
    for name, value in attrs.items():
        if not (name in honoured or name in without_effect or value in only.get(name, ())):
            node.refuse(f"{name}={value} of {node.operator}")
    add(model, node, **{name: value for name, value in attrs.items() if name in honoured})


def _renamed(operator):
    """The translation of an operator that ONNX has too, and that takes no attributes."""
    return lambda model, node: model.add(operator, node.inputs, node.outputs)


def _with_scalar(operator, scalar_first=False):
    def add(model, node, scalar=1):
        inputs = [*node.inputs, model.constant(scalar)]
        model.add(operator, inputs[::-1] if scalar_first else inputs, node.outputs)
    return add


def _compared_with_scalar(operator):
    def add(model, node, scalar=1):
        holds = model.add(operator, [*node.inputs, model.constant(scalar)])
        model.add("Cast", [holds], node.outputs, to=FLOAT)  # as MXNet's comparisons give
    return add


def _reduced(operator):
    def add(model, node, axis=None, keepdims=False, exclude=False):
        count = len(node.in_shapes[0])
        axes = {number % count for number in (axis if isinstance(axis, tuple) else (axis,))
                if number is not None}
        if exclude:
            axes = set(range(count)) - axes
        over_batch = None in [node.in_shapes[0][number] for number in axes]
        if not axes or (over_batch and not (axes == {0} and keepdims)):
            node.refuse(f"a {node.operator} over the batch")
        axes, keep = sorted(axes), int(keepdims)
        if operator == "ReduceSum":  # the only one whose axes are an input in opset 17
            model.add(operator, [*node.inputs, model.constant(axes, np.int64)], node.outputs,
                      keepdims=keep)
        else:
            model.add(operator, node.inputs, node.outputs, axes=axes, keepdims=keep)
    return add


def _activation(model, node, act_type):
    model.add(ACTIVATIONS[act_type], node.inputs, node.outputs)


def _batch_norm(model, node, axis=1, fix_gamma=True, eps=1e-3):
    data, gamma, *rest = node.inputs
    if axis % len(node.in_shapes[0]) != 1:
        node.refuse(f"axis={axis}")
    if fix_gamma:
        gamma = model.constant(np.ones(node.in_shapes[1]))
    model.add("BatchNormalization", [data, gamma, *rest], node.outputs, epsilon=float(eps))


def _broadcast_to(model, node):
    shape = model.constant([size or 1 for size in node.out_shape], np.int64)
    model.add("Expand", [*node.inputs, shape], node.outputs)


def _clip(model, node, a_min, a_max):
    limits = map(model.constant, (a_min, a_max))
    model.add("Clip", [*node.inputs, *limits], node.outputs)


def _concat(model, node, dim=1):
    model.add("Concat", node.inputs, node.outputs, axis=dim)


def _convolution(model, node, kernel, stride=(), pad=(), dilate=(), num_group=1):
    model.add("Conv", node.inputs, node.outputs, **_window(kernel, stride, pad),
              dilations=dilate or [1] * len(kernel), group=num_group)


def _deconvolution(model, node, kernel, stride=(), pad=(), dilate=(), num_group=1, adj=()):
    model.add("ConvTranspose", node.inputs, node.outputs, **_window(kernel, stride, pad),
              dilations=dilate or [1] * len(kernel), group=num_group,
              output_padding=adj or [0] * len(kernel))


def _dot(model, node):
    if len(node.in_shapes[1]) != 2:
        node.refuse("a dot of other than plain matrices")
    model.add("MatMul", node.inputs, node.outputs)


def _fully_connected(model, node):
    flat = model.add("Flatten", node.inputs[:1], axis=1)
    model.add("Gemm", [flat, *node.inputs[1:]], node.outputs, transB=1)


def _instance_norm(model, node, eps=1e-3):
    model.add("InstanceNormalization", node.inputs, node.outputs, epsilon=float(eps))


def _l2_normalization(model, node, eps=1e-10):
    axes = model.constant(range(1, len(node.in_shapes[0])), np.int64)
    squares = model.add("Mul", [*node.inputs, *node.inputs])
    total = model.add("ReduceSum", [squares, axes], keepdims=1)
    length = model.add("Sqrt", [model.add("Add", [total, model.constant(eps)])])
    model.add("Div", [*node.inputs, length], node.outputs)


def _leaky_relu(model, node, act_type="leaky", slope=0.25):
    data, *slopes = node.inputs
    if act_type == "prelu":  # the slopes are those of the second axis
        shape = model.constant([-1] + [1] * (len(node.out_shape) - 2), np.int64)
        model.add("PRelu", [data, model.add("Reshape", [*slopes, shape])], node.outputs)
    elif act_type == "gelu":
        scaled = model.add("Mul", [data, model.constant(0.5 ** 0.5)])
        weight = model.add("Add", [model.add("Erf", [scaled]), model.constant(1)])
        half = model.add("Mul", [data, model.constant(0.5)])
        model.add("Mul", [half, weight], node.outputs)
    elif act_type == "selu":
        model.add("Selu", [data], node.outputs)
    elif act_type in ("leaky", "elu"):
        model.add("Elu" if act_type == "elu" else "LeakyRelu", [data], node.outputs,
                  alpha=float(slope))
    else:
        node.refuse(f"act_type={act_type}")


def _like(model, node):
    value = np.float32(node.operator == "ones_like")
    shape = model.add("Shape", node.inputs)
    filled = model.add("ConstantOfShape", [shape])
    model.add("Add", [filled, model.constant(value)], node.outputs)


def _pad(model, node, mode, pad_width, constant_value=0):
    widths = [*pad_width[::2], *pad_width[1::2]]  # MXNet has both of an axis in turn
    inputs = [*node.inputs, model.constant(widths, np.int64)]
    if mode == "constant":
        inputs.append(model.constant(constant_value))
    model.add("Pad", inputs, node.outputs, mode=mode)


def _pooling(model, node, kernel=(), stride=(), pad=(), pool_type="max", global_pool=False,
             pooling_convention="valid", count_include_pad=True):
    if pool_type not in ("max", "avg"):
        node.refuse(f"pool_type={pool_type}")
    operator = "MaxPool" if pool_type == "max" else "AveragePool"
    if global_pool:
        model.add(f"Global{operator}", node.inputs, node.outputs)
        return
    if pooling_convention not in ("valid", "full"):
        node.refuse(f"pooling_convention={pooling_convention}")
    window = _window(kernel, stride, pad)
    # "full" takes windows that stick out of the picture; an average is then one of the pixels
    # within. ONNX's ceil_mode leaves some of them away, so they are padded for.
    start = window["pads"][:len(kernel)]
    end = [max(before, (count - 1) * step + width - size - before) for count, step, width, size,
           before in zip(node.out_shape[2:], window["strides"], kernel, node.in_shapes[0][2:],
                         start)]
    if any(start) and end != start:
        node.refuse("a padded pooling with windows that stick out")
    own = {} if pool_type == "max" else {
        "count_include_pad": int(any(start) and count_include_pad is not False)}
    model.add(operator, node.inputs, node.outputs, **dict(window, pads=[*start, *end]), **own)


def _window(kernel, stride, pad):
    """What ONNX's convolutions and poolings have in common."""
    return {"kernel_shape": kernel, "strides": stride or [1] * len(kernel),
            "pads": 2 * list(pad or [0] * len(kernel))}


def _reshape(model, node):
    """Any operator that keeps the numbers and their order."""
    if node.out_shape.count(None) > 1:
        node.refuse("a shape with the batch size in two places")
    shape = model.constant([size or -1 for size in node.out_shape], np.int64)
    model.add("Reshape", [*node.inputs, shape], node.outputs)


def _slice_axis(model, node, axis, begin, end):
    end = np.iinfo(np.int64).max if end is None else end
    ranges = [model.constant([number], np.int64) for number in (begin, end, axis)]
    model.add("Slice", [*node.inputs, *ranges], node.outputs)


def _softmax(model, node, axis=-1, temperature=None):
    operator = "LogSoftmax" if node.operator == "log_softmax" else "Softmax"
    inputs = node.inputs
    if temperature is not None:
        inputs = [model.add("Div", [*inputs, model.constant(temperature)])]
    model.add(operator, inputs, node.outputs, axis=axis)


def _split(model, node, axis=1):
    model.add("Split", node.inputs, node.outputs, axis=axis)


def _square(model, node):
    model.add("Mul", [*node.inputs, *node.inputs], node.outputs)


def _stack(model, node, axis=0):
    where = model.constant([axis], np.int64)
    parts = [model.add("Unsqueeze", [source, where]) for source in node.inputs]
    model.add("Concat", parts, node.outputs, axis=axis)


def _transpose(model, node, axes=()):
    axes = axes or range(len(node.in_shapes[0]))[::-1]
    model.add("Transpose", node.inputs, node.outputs, perm=list(axes))


def _grid_generator(model, node, target_shape=(0, 0)):
    """Makes affine thetas a grid (N, 2, height, width)."""
    height, width = target_shape
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


def _spatial_transformer(model, node, target_shape=(0, 0)):
    grid = _grid_generator(model, node._replace(outputs=None), target_shape)
    _sampler(model, node._replace(inputs=[node.inputs[0], grid]))


ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "softrelu": "Softplus", "softsign": "Softsign",
               "tanh": "Tanh"}
RENAMED = {
    "BlockGrad": "Identity", "Dropout": "Identity",
    "_contrib_AdaptiveAvgPooling2D": "GlobalAveragePool", "_copy": "Identity", "_maximum": "Max",
    "_minimum": "Min", "_power": "Pow", "abs": "Abs", "add_n": "Sum", "batch_dot": "MatMul",
    "broadcast_add": "Add", "broadcast_div": "Div", "broadcast_maximum": "Max",
    "broadcast_minimum": "Min",
    "broadcast_mul": "Mul", "broadcast_power": "Pow", "broadcast_sub": "Sub", "ceil": "Ceil",
    "cos": "Cos", "elemwise_add": "Add", "elemwise_div": "Div", "elemwise_mul": "Mul",
    "elemwise_sub": "Sub", "erf": "Erf", "exp": "Exp", "floor": "Floor", "log": "Log",
    "negative": "Neg", "reciprocal": "Reciprocal", "relu": "Relu", "sigmoid": "Sigmoid",
    "sign": "Sign", "sin": "Sin", "softsign": "Softsign", "sqrt": "Sqrt", "tanh": "Tanh"}
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
    "Flatten": _reshape, "FullyConnected": _fully_connected, "GridGenerator": _grid_generator,
    "InstanceNorm": _instance_norm, "L2Normalization": _l2_normalization, "LeakyReLU": _leaky_relu,
    "Pad": _pad, "Pooling": _pooling,
    "Reshape": _reshape, "SliceChannel": _split, "SpatialTransformer": _spatial_transformer,
    "broadcast_to": _broadcast_to, "clip": _clip, "dot": _dot, "expand_dims": _reshape,
    "log_softmax": _softmax, "ones_like": _like, "slice_axis": _slice_axis, "softmax": _softmax,
    "square": _square, "squeeze": _reshape, "stack": _stack, "transpose": _transpose,
    "zeros_like": _like,
    **{name: _renamed(operator) for name, operator in RENAMED.items()},
    **{name: _with_scalar(operator) for name, operator in SCALAR.items()},
    **{name: _with_scalar(operator, scalar_first=True) for name, operator in SCALAR_FIRST.items()},
    **{name: _compared_with_scalar(operator) for name, operator in COMPARED.items()},
    **{name: _reduced(operator) for name, operator in REDUCED.items()}}

# Attributes that are no parameter of a translation. Those that choose an algorithm of a GPU, that
# the inputs and the shapes tell already, that work in training alone, or for what is refused:
WITHOUT_EFFECT = {
    "BatchNorm": "cudnn_off momentum use_global_stats", "BilinearSampler": "cudnn_off",
    "Concat": "num_args", "Convolution": "cudnn_off cudnn_tune no_bias num_filter workspace",
    "Deconvolution": "cudnn_off cudnn_tune no_bias num_filter workspace",
    "Dropout": "axes cudnn_off p", "FullyConnected": "no_bias num_hidden",
    "LeakyReLU": "lower_bound upper_bound", "Pooling": "cudnn_off p_value",
    "Reshape": "keep_highest reverse shape target_shape", "SliceChannel": "num_outputs",
    "SpatialTransformer": "cudnn_off", "add_n": "num_args", "broadcast_to": "shape",
    "batch_dot": "forward_stype", "dot": "forward_stype", "expand_dims": "axis", "squeeze": "axis",
    "stack": "num_args",
    **dict.fromkeys((*SCALAR, *SCALAR_FIRST, *COMPARED), "is_int")}
# And those of which only these values, the default first, are translated:
CHANNELS_FIRST = {"layout": (None, "NCW", "NCHW", "NCDHW")}
ONLY = {
    "BatchNorm": {"output_mean_var": (False,)}, "Convolution": CHANNELS_FIRST,
    "Deconvolution": dict(CHANNELS_FIRST, target_shape=((),)),
    "Dropout": {"mode": ("training",)}, "FullyConnected": {"flatten": (True,)},
    "GridGenerator": {"transform_type": ("affine",)}, "L2Normalization": {"mode": ("instance",)},
    "Pooling": CHANNELS_FIRST,
    "SliceChannel": {"squeeze_axis": (False,)},
    "SpatialTransformer": {"sampler_type": ("bilinear",), "transform_type": ("affine",)},
    "_contrib_AdaptiveAvgPooling2D": {"output_size": ((), 1, (1,), (1, 1))},
    **dict.fromkeys(("batch_dot", "dot"), {"transpose_a": (False,), "transpose_b": (False,)}),
    **{name: {"dtype": (None, "float32"), "use_length": (False, None)}
       for name in ("log_softmax", "softmax")}}
