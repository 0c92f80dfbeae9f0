"""A fully connected classifier with an optional spatial transformer.

Upstream's ``mlp`` example (128 and 64 hidden units) behind the fully connected localisation
network of the paper's ST-FCN, here with one hidden layer of 32 units.

    python train_mnist.py --add-stn --network mlp

Test accuracy and time: see the results in README.md.
"""
import mxnet as mx

from .stn import localisation_head, spatial_transformer


def get_loc(data, attr=None, transform="affine", bounded=False):
    """The localisation network.

    Args:
        data: symbol (N, C, H, W) of any size.
        attr: ``{"lr_mult": m}`` for its layers; by default 0.01.
        transform, bounded: as for ``stn.localisation_head``.

    Returns:
        theta, symbol (N, parameters of the transform).
    """
    return localisation_head(data, transform, num_hidden=32, bounded=bounded,
                             attr={"lr_mult": 0.01} if attr is None else attr)


def get_symbol(num_classes=10, add_stn=True, image_shape=(1, 28, 28), target_shape=None,
               transform="affine", bounded=False):
    """The classifier, with or without the transformer.

    Args:
        num_classes: number of classes.
        add_stn: whether a transformer straightens the image first.
        image_shape: (channels, height, width) of the input.
        target_shape: (height, width) of the transformer's output; by default the input's.
        transform, bounded: of the transformer, as for ``stn.localisation_head``.

    Returns:
        Symbol of the class probabilities (N, num_classes), with a SoftmaxOutput named "softmax".

    Raises:
        ValueError: a target without a transformer, or one of less than 2 x 2 pixels.
    """
    if target_shape is not None and not add_stn:
        raise ValueError("target_shape is an option of the transformer: it needs add_stn=True")

    net = mx.sym.Variable("data")  # (N, C, H, W)
    if add_stn:
        loc = get_loc(net, transform=transform, bounded=bounded)
        net = spatial_transformer(net, loc, target_shape or image_shape[1:], transform)
    net = mx.sym.Flatten(net, name="flatten")
    for index, num_hidden in enumerate((128, 64), start=1):
        net = mx.sym.FullyConnected(net, num_hidden=num_hidden, name=f"fc{index}")
        net = mx.sym.Activation(net, act_type="relu", name=f"relu{index}")
    net = mx.sym.FullyConnected(net, num_hidden=num_classes, name="fc3")
    return mx.sym.SoftmaxOutput(net, name="softmax")
