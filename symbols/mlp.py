"""The paper's fully connected network for distorted MNIST, with a spatial transformer before it.

FCN and ST-FCN of Jaderberg et al., 2015, table 1: two hidden layers and a linear classifier; the
localisation network has three hidden layers. Choices of ours, where the text leaves them open: 32
units in each of those, which see the picture at half its size, as in the paper's ST-CNN.

    python train_mnist.py --add-stn --network mlp --distort R

Test accuracy: see docs/training.md; error: docs/paper.md. ``experiments/paper.py`` has the paper's
flags.
"""
from functools import partial

import mxnet as mx

from .steps import common_in, straighten
from .stn import COMMON, localisation_head


def get_loc(data, attr=None, transform="affine", bounded=False, name="stn",
            stable=False, common=COMMON):
    """The localisation network.

    Args:
        data: symbol (N, C, H, W), H and W at least 2.
        attr: ``{"lr_mult": m}`` for its layers; by default 1.
        transform, bounded, name, stable, common: as for ``stn.localisation_head``.

    Returns:
        theta, symbol (N, parameters of the transform).
    """
    attr = {"lr_mult": 1} if attr is None else attr
    net = mx.sym.Pooling(data, pool_type="avg", kernel=(2, 2), stride=(2, 2),
                         name=f"{name}_loc_half")
    net = mx.sym.Flatten(net, name=f"{name}_loc_pixels")
    for index in (1, 2):
        net = mx.sym.FullyConnected(net, num_hidden=32, name=f"{name}_loc_hidden{index}",
                                    attr={key: str(value) for key, value in attr.items()})
        net = mx.sym.Activation(net, act_type="relu", name=f"{name}_loc_hidden{index}_relu")
    return localisation_head(net, transform, num_hidden=32, bounded=bounded, attr=attr, name=name,
                             stable=stable, common=common)


def get_symbol(num_classes=10, width=256, add_stn=True, image_shape=(1, 28, 28), target_shape=None,
               pool=1, transform="affine", bounded=False, stable=False, outside="zero",
               stn_steps=1):
    """The classifier, with or without the transformer.

    Args:
        num_classes: number of classes.
        width: units of each hidden layer.
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
        ValueError: an option is unknown, or a target of less than 2 x 2 pixels.
    """
    if not add_stn and (target_shape is not None or pool != 1):
        raise ValueError("target_shape and pool are of the transformer: they need add_stn=True")

    net = mx.sym.Variable("data")  # (N, C, H, W)
    if add_stn:
        localise = partial(get_loc, transform=transform, bounded=bounded, stable=stable,
                           common=common_in(stn_steps))
        net = straighten(net, localise, image_shape[1:], target_shape or image_shape[1:],
                         transform, stn_steps, pool=pool, outside=outside)
    return classifier(net, num_classes, width)


def classifier(net, num_classes, width):
    """Two hidden layers and a softmax over any symbol (N, ...)."""
    net = mx.sym.Flatten(net, name="flatten")
    for index in (1, 2):
        net = mx.sym.FullyConnected(net, num_hidden=width, name=f"fc{index}")
        net = mx.sym.Activation(net, act_type="relu", name=f"relu{index}")
    net = mx.sym.FullyConnected(net, num_hidden=num_classes, name="fc3")
    return mx.sym.SoftmaxOutput(net, name="softmax")
