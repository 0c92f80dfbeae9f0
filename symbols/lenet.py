"""A small LeNet with a spatial transformer before it.

The network of Feywell's STN_gluon (symbolic version), layer for layer; its published run reached
98.52% on MNIST after 20 epochs. Departures: the transformer starts at the identity; sizes follow
from the image's; ``flag`` rules both dropouts.

    python train_mnist.py --add-stn --network lenet

Test accuracy: see docs/training.md.
"""
from functools import partial

import mxnet as mx

from .steps import common_in, straighten
from .stn import COMMON, localisation_head

SMALLEST = {"classifier": 16, "localisation network": 18}  # pixels that survive the convolutions


def get_loc(data, attr=None, transform="affine", bounded=False, stable=False, common=COMMON):
    """The localisation network.

    Args:
        data: symbol (N, C, H, W), H and W at least 18.
        attr: ``{"lr_mult": m}`` for its fully connected layers; by default 0.01,
            1 with the stable head.
        transform, bounded, stable, common: as for ``stn.localisation_head``.

    Returns:
        theta, symbol (N, parameters of the transform).
    """
    net = _conv_relu_pool(data, 8, 7, "stn_loc_", 1)
    net = _conv_relu_pool(net, 10, 5, "stn_loc_", 2)
    return localisation_head(net, transform, num_hidden=32, bounded=bounded, stable=stable,
                             common=common,
                             attr={"lr_mult": 1 if stable else 0.01} if attr is None else attr)


def get_symbol(num_classes=10, flag="training", add_stn=True, image_shape=(1, 28, 28),
               target_shape=None, transform="affine", bounded=False, stable=False,
               outside="zero", stn_steps=1):
    """The classifier, with or without the transformer.

    Args:
        num_classes: number of classes.
        flag: mode of the dropouts: "training" drops in training only, "always" in prediction
            too, so that repeated predictions sample the posterior (Monte Carlo dropout).
        add_stn: whether a transformer straightens the image first.
        image_shape: (channels, height, width) of the input.
        target_shape: (height, width) of the transformer's output; by default the input's.
        transform, bounded, stable: of the transformer, as for ``stn.localisation_head``.
        outside: what is around the image, as for ``stn.spatial_transformer``.
        stn_steps: in which theta is found, as ``steps`` of ``steps.straighten``.

    Returns:
        Symbol of the class probabilities (N, num_classes), with a SoftmaxOutput named "softmax".

    Raises:
        ValueError: an option is unknown or the images are too small.
    """
    if flag not in ("training", "always"):
        raise ValueError(f"flag must be 'training' or 'always', got {flag!r}")
    if target_shape is not None and not add_stn:
        raise ValueError("target_shape is of the transformer: it needs add_stn=True")
    _check_size("classifier", target_shape or image_shape[1:])

    net = mx.sym.Variable("data")  # (N, C, H, W)
    if add_stn:
        _check_size("localisation network", image_shape[1:])
        localise = partial(get_loc, transform=transform, bounded=bounded, stable=stable,
                           common=common_in(stn_steps))
        net = straighten(net, localise, image_shape[1:], target_shape or image_shape[1:],
                         transform, stn_steps, outside=outside)
    net = _conv_relu_pool(net, 10, 5, "", 1)
    net = _conv_relu_pool(net, 20, 5, "", 2)
    net = mx.sym.Dropout(net, p=0.5, mode=flag, name="dropout1")
    net = mx.sym.Flatten(net, name="flatten")
    net = mx.sym.FullyConnected(net, num_hidden=50, name="fc1")
    net = mx.sym.Activation(net, act_type="relu", name="relu3")
    net = mx.sym.Dropout(net, p=0.5, mode=flag, name="dropout2")
    net = mx.sym.FullyConnected(net, num_hidden=num_classes, name="fc2")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def _conv_relu_pool(net, num_filter, kernel, prefix, index):
    net = mx.sym.Convolution(net, num_filter=num_filter, kernel=(kernel, kernel),
                             name=f"{prefix}conv{index}")
    net = mx.sym.Activation(net, act_type="relu", name=f"{prefix}relu{index}")
    return mx.sym.Pooling(net, pool_type="max", kernel=(2, 2), stride=(2, 2),
                          name=f"{prefix}pool{index}")


def _check_size(part, shape):
    if min(shape) < SMALLEST[part]:
        raise ValueError(f"lenet's {part} needs at least {SMALLEST[part]} x {SMALLEST[part]} "
                         f"pixels, got {shape[0]} x {shape[1]}")
