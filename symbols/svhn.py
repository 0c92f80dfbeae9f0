r"""The paper's network for house numbers, with spatial transformers before it and in it.

CNN, ST-CNN Single and ST-CNN Multi of Jaderberg et al., 2015, section 4.2, for SVHN: eight
convolutions of 5 x 5 pixels and two fully connected layers, then a softmax for each digit of the
number, all at once, one class of which says that there is no digit. Single has a transformer before
the input, with a convolutional localisation network; Multi has one before each of the first four
convolutions, which warp feature maps too, with small fully connected ones. Choices of ours: the
localisation network of Single keeps the picture's size, and ``width`` makes all but the fully
connected layers of localisation networks smaller; ``dropout`` can be less than the paper's, which
is for 400,000 steps.

    python train_mnist.py --dataset numbers --network svhn
    python train_mnist.py --dataset numbers --network svhn --add-stn
    python train_mnist.py --dataset numbers --network svhn --add-stn \
        --stn-at input,conv2,conv3,conv4

Error: see docs/numbers.md; ``experiments/numbers.py`` has the flags.
"""
import mxnet as mx

from .resnet import transformer_names
from .stn import localisation_head, spatial_transformer

PLACES = ("input", "conv2", "conv3", "conv4")  # where a transformer may be: before which
FIRST = 48  # filters of the paper's first convolution
FILTERS = (FIRST, 64, 128, 160, 192, 192, 192, 192)
POOLED = (1, 3, 5, 7)  # convolutions that a max pooling follows
HIDDEN = 3072  # units of each fully connected layer
LOC_FILTERS = 32  # of both convolutions of a localisation network
SMALLEST = 16  # pixels that survive the poolings


def get_loc(data, attr=None, transform="affine", bounded=False, stable=False, name="stn",
            num_filter=LOC_FILTERS):
    """The localisation network.

    Args:
        data: symbol (N, C, H, W), pictures or feature maps.
        attr: ``{"lr_mult": m}`` for its fully connected layers; by default 0.1,
            1 with the stable head.
        transform, bounded, stable, name: as for ``stn.localisation_head``.
        num_filter: of its two convolutions, as in Single; 0 for a fully connected layer in their
            place, as in Multi.

    Returns:
        theta, symbol (N, parameters of the transform).
    """
    attr = {"lr_mult": 1 if stable else 0.1} if attr is None else attr
    if num_filter:
        net = _conv_relu(data, f"{name}_loc_", 1, num_filter)
        net = _max_pool(net, f"{name}_loc_pool1")
        net = _conv_relu(net, f"{name}_loc_", 2, num_filter)
    else:
        net = mx.sym.Flatten(data, name=f"{name}_loc_pixels")
        net = mx.sym.FullyConnected(net, num_hidden=32, name=f"{name}_loc_hidden",
                                    attr={key: str(value) for key, value in attr.items()})
        net = mx.sym.Activation(net, act_type="relu", name=f"{name}_loc_hidden_relu")
    return localisation_head(net, transform, num_hidden=32, attr=attr, bounded=bounded, name=name,
                             stable=stable)


def get_symbol(num_classes=11, digits=None, width=FIRST, dropout=0.5, add_stn=True,
               image_shape=(3, 64, 64), target_shape=None, stn_at="input", transform="affine",
               bounded=False, stable=False, outside="zero"):
    """The classifier, with or without transformers.

    Args:
        num_classes: number of classes of a digit; of those of SVHN's numbers the last means none.
        digits: how many labels an image has, each with a softmax of its own: 5 in the paper; None
            for one label, as other networks have it.
        width: filters of the first convolution; of the others, those of localisation networks too,
            and units of the fully connected layers there are in proportion.
        dropout: the part that is dropped behind all layers but the first convolution.
        add_stn: whether there are transformers.
        image_shape: (channels, height, width) of the input.
        target_shape: (height, width) of the output of the transformer at the input; by default the
            input's. Those at convolutions keep the size.
        stn_at: where there are transformers: one of ``PLACES`` or several, with commas between. One
            alone has a convolutional localisation network, several have fully connected ones.
        transform, bounded, stable: of all transformers, as for ``stn.localisation_head``.
        outside: what is around the image, as for ``stn.spatial_transformer``.

    Returns:
        Symbol of the class probabilities, with a SoftmaxOutput named "softmax": (N, num_classes),
        or (N, num_classes, digits), of labels (N, digits).

    Raises:
        ValueError: an option is unknown or the images are too small.
    """
    names = transformer_names(stn_at, PLACES) if add_stn else {}
    if "input" not in names and target_shape is not None:
        raise ValueError("target_shape is of the transformer at the input: it needs add_stn=True, "
                         "and input in stn_at")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be from 0 to less than 1, got {dropout!r}")
    num_filter = _scaled(LOC_FILTERS, width) if len(names) == 1 else 0

    def transformed(net, place, shape):
        if place not in names:
            return net
        loc = get_loc(net, None, transform, bounded, stable, names[place], num_filter)
        return spatial_transformer(net, loc, shape, transform, names[place], outside=outside)

    def dropped(net, name):
        return mx.sym.Dropout(net, p=dropout, name=f"{name}_dropout") if dropout else net

    shape = tuple(target_shape or image_shape[1:])
    if min(shape) < SMALLEST:
        raise ValueError(f"svhn needs at least {SMALLEST} x {SMALLEST} pixels, "
                         f"got {shape[0]} x {shape[1]}")
    net = transformed(mx.sym.Variable("data"), "input", shape)  # (N, C, H, W)
    for index, filters in enumerate(FILTERS, start=1):
        net = transformed(net, f"conv{index}", shape)
        net = _conv_relu(net, "", index, _scaled(filters, width))
        if index in POOLED:
            net, shape = _max_pool(net, f"pool{index}"), tuple(size // 2 for size in shape)
        if index > 1:
            net = dropped(net, f"conv{index}")
    net = mx.sym.Flatten(net, name="flatten")
    for index in (1, 2):
        net = mx.sym.FullyConnected(net, num_hidden=_scaled(HIDDEN, width), name=f"fc{index}")
        net = mx.sym.Activation(net, act_type="relu", name=f"fc{index}_relu")
        net = dropped(net, f"fc{index}")
    net = mx.sym.FullyConnected(net, num_hidden=num_classes * (digits or 1), name="fc3")
    if digits is None:
        return mx.sym.SoftmaxOutput(net, name="softmax")
    net = mx.sym.reshape(net, shape=(0, num_classes, digits), name="digits")
    # MXNet divides the gradient by the number of softmaxes: the scale makes it that of their sum.
    return mx.sym.SoftmaxOutput(net, multi_output=True, grad_scale=digits, name="softmax")


def _scaled(count, width):
    """So many filters or units as a network of another ``width`` has of the paper's ``count``."""
    return max(1, round(count * width / FIRST))


def _conv_relu(net, prefix, index, num_filter):
    net = mx.sym.Convolution(net, num_filter=num_filter, kernel=(5, 5), pad=(2, 2),
                             name=f"{prefix}conv{index}")
    return mx.sym.Activation(net, act_type="relu", name=f"{prefix}relu{index}")


def _max_pool(net, name):
    return mx.sym.Pooling(net, pool_type="max", kernel=(2, 2), stride=(2, 2), name=name)
