"""The paper's network that adds two digits, with a spatial transformer for each of them.

MNIST addition of Jaderberg et al., 2015, section 4.3 of the first version: a picture of two
channels, a distorted digit in each, goes through transformers side by side, each of which may pick
its own digit out; the fully connected classifier of ``mlp`` says the sum.

    python train_mnist.py --add-stn --network addition --distort addition --pool 2

The baselines are ``mlp`` and ``cnn``, with one transformer or none. Test error: see
docs/paper.md; ``experiments/paper.py`` has the flags.
"""
import mxnet as mx

from . import mlp
from .stn import spatial_transformer


def get_loc(data, attr=None, transform="affine", bounded=False, name="stn0",
            stable=False):
    """The localisation network of one of the transformers: see ``mlp.get_loc``.

    By default its rate is 0.3 of the others', as at the full one, one of the two may collapse; not
    with the stable head.
    """
    attr = {"lr_mult": 1 if stable else 0.3} if attr is None else attr
    return mlp.get_loc(data, attr, transform, bounded, name, stable)


def get_symbol(num_classes=19, width=256, add_stn=True, image_shape=(2, 42, 42), target_shape=None,
               pool=1, transform="affine", bounded=False, stable=False, outside="zero"):
    """The classifier, with two transformers or none.

    Args:
        num_classes: number of classes: 19 for the sums of two digits.
        width: units of each hidden layer.
        add_stn: whether two transformers look at the image first.
        image_shape: (channels, height, width) of the input.
        target_shape: (height, width) of the transformers' outputs; by default the input's.
        pool: of the transformers, as for ``stn.spatial_transformer``; in the paper 2.
        transform, bounded, stable: of the transformers, as for ``stn.localisation_head``.
        outside: what is around the image, as for ``stn.spatial_transformer``.

    Returns:
        Symbol of the class probabilities (N, num_classes), with a SoftmaxOutput named "softmax".

    Raises:
        ValueError: an option is unknown, or a target of less than 2 x 2 pixels.
    """
    if not add_stn:
        return mlp.get_symbol(num_classes, width, False, image_shape, target_shape, pool)

    data = mx.sym.Variable("data")  # (N, C, H, W)
    shape = target_shape or image_shape[1:]
    pictures = []
    for name in ("stn0", "stn1"):
        loc = get_loc(data, transform=transform, bounded=bounded, name=name,
                      stable=stable)
        pictures.append(spatial_transformer(data, loc, shape, transform, name, pool, outside))
    return mlp.classifier(mx.sym.concat(*pictures, dim=1, name="stn_pictures"), num_classes, width)
