"""The paper's convolutional network for distorted MNIST, with a spatial transformer before it.

CNN and ST-CNN of Jaderberg et al., 2015, table 1: convolutions of 9 x 9 and 7 x 7 pixels, a max
pooling behind each, and a linear classifier; the localisation network sees the picture at half its
size. Choices of ours, where the text leaves them open: 32 filters, then ``width``; the max poolings
keep an odd last row and column, and the second leaves a single pixel alone, which is what remains
of 42 x 42 behind the transformer's own pooling; the localisation head learns at 0.1 of the rate.

    python train_mnist.py --add-stn --network cnn --distort R

Test error: see docs/paper.md; ``experiments/paper.py`` has its flags.
"""
from functools import partial

import mxnet as mx

from .steps import common_in, straighten
from .stn import COMMON, localisation_head

SMALLEST = {"classifier": 21, "localisation network": 28}  # pixels that survive the convolutions


def get_loc(data, attr=None, transform="affine", bounded=False, stable=False, common=COMMON):
    """The localisation network.

    Args:
        data: symbol (N, C, H, W), H and W at least 28.
        attr: ``{"lr_mult": m}`` for its fully connected layers; by default 0.1,
            1 with the stable head.
        transform, bounded, stable, common: as for ``stn.localisation_head``.

    Returns:
        theta, symbol (N, parameters of the transform).
    """
    net = mx.sym.Pooling(data, pool_type="avg", kernel=(2, 2), stride=(2, 2), name="stn_loc_half")
    net = _conv_relu(net, 20, 5, "stn_loc_", 1)
    net = mx.sym.Pooling(net, pool_type="max", kernel=(2, 2), stride=(2, 2), name="stn_loc_pool1")
    net = _conv_relu(net, 20, 5, "stn_loc_", 2)
    return localisation_head(net, transform, num_hidden=20, bounded=bounded, stable=stable,
                             common=common,
                             attr={"lr_mult": 1 if stable else 0.1} if attr is None else attr)


def get_symbol(num_classes=10, width=64, add_stn=True, image_shape=(1, 28, 28), target_shape=None,
               pool=1, transform="affine", bounded=False, stable=False, outside="zero",
               stn_steps=1):
    """The classifier, with or without the transformer.

    Args:
        num_classes: number of classes.
        width: filters of the second convolution.
        add_stn: whether a transformer straightens the image first.
        image_shape: (channels, height, width) of the input.
        target_shape: (height, width) of the transformer's output; by default the input's.
        pool: of the transformer, as for ``stn.spatial_transformer``; in the paper 2 for RTS and TC.
        transform, bounded, stable: of the transformer, as for ``stn.localisation_head``.
        outside: what is around the image, as for ``stn.spatial_transformer``.
        stn_steps: in which theta is found, as ``steps`` of ``steps.straighten``.

    Returns:
        Symbol of the class probabilities (N, num_classes), with a SoftmaxOutput named "softmax".

    Raises:
        ValueError: an option is unknown or the images are too small.
    """
    if not add_stn and (target_shape is not None or pool != 1):
        raise ValueError("target_shape and pool are of the transformer: they need add_stn=True")

    net = mx.sym.Variable("data")  # (N, C, H, W)
    shape = target_shape or image_shape[1:]
    if add_stn:
        _check_size("localisation network", image_shape[1:])
        localise = partial(get_loc, transform=transform, bounded=bounded, stable=stable,
                           common=common_in(stn_steps))
        net = straighten(net, localise, image_shape[1:], shape, transform, stn_steps, pool=pool,
                         outside=outside)
        shape = [size // pool for size in shape]
    _check_size("classifier", shape)
    for index, (num_filter, kernel) in enumerate(((32, 9), (width, 7)), start=1):
        net = _conv_relu(net, num_filter, kernel, "", index)
        shape = [size - kernel + 1 for size in shape]
        net = _max_pool_all(net, shape, f"pool{index}")
        shape = [(size + 1) // 2 for size in shape]
    net = mx.sym.Flatten(net, name="flatten")
    net = mx.sym.FullyConnected(net, num_hidden=num_classes, name="fc1")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def _conv_relu(net, num_filter, kernel, prefix, index):
    net = mx.sym.Convolution(net, num_filter=num_filter, kernel=(kernel, kernel),
                             name=f"{prefix}conv{index}")
    return mx.sym.Activation(net, act_type="relu", name=f"{prefix}relu{index}")


def _max_pool_all(net, shape, name):
    """Halves (height, width), rounded up; MXNet's kernel must not be larger than the picture."""
    return mx.sym.Pooling(net, pool_type="max", pooling_convention="full", name=name,
                          kernel=[min(size, 2) for size in shape], stride=(2, 2))


def _check_size(part, shape):
    if min(shape) < SMALLEST[part]:
        raise ValueError(f"cnn's {part} needs at least {SMALLEST[part]} x {SMALLEST[part]} "
                         f"pixels, got {shape[0]} x {shape[1]}")
