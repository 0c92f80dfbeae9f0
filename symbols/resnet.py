"""A small residual network with spatial transformers before it, between its stages, or both.

After He et al., "Deep Residual Learning for Image Recognition", 2015 (arXiv 1512.03385), section
4.2, for pictures from some 8 to 224 pixels, grey or in colour. Departures: convolutions of stride 2
bring the picture down to 24 pixels or less before the first stage, so that three stages do for any
size; there is one block in each by default; where a block has more filters than what it gets, its
shortcut is a convolution (their option B).

A transformer before a stage warps feature maps, as in section 4.2 of Jaderberg et al., 2015, whose
networks for street numbers and birds have several. It is ``stn`` where there is one, else ``stn0``,
``stn1``, ... from the input on. Its localisation network is made like the stem: normalised, its
features differ more from image to image, and so does theta.

Here the stable head is the default, as in ``stn.py``, and the layers of the localisation network
learn at the full rate: no figures were made with another one.

    python train_mnist.py --add-stn --network resnet
    python train_mnist.py --add-stn --network resnet --stn-at input,stage1
"""
import mxnet as mx

from .stn import localisation_head, spatial_transformer

PLACES = ("input", "stage1", "stage2", "stage3")  # where a transformer may be: before which
LARGEST = 24  # pixels that the first stage gets, the longer side
LARGEST_FEATURES = 8  # pixels that a localisation head gets, likewise


def get_loc(data, attr=None, transform="affine", bounded=False, stable=True, name="stn",
            halvings=2):
    """The localisation network.

    Args:
        data: symbol (N, C, H, W), pictures or feature maps.
        attr: ``{"lr_mult": m}`` for its fully connected layers; by default 1.
        transform, bounded, stable, name: as for ``stn.localisation_head``.
        halvings: number of its convolutions, of stride 2.

    Returns:
        theta, symbol (N, parameters of the transform).
    """
    net = data
    for index in range(1, halvings + 1):
        net = _conv(net, 16, f"{name}_loc_conv{index}", stride=2, kernel=5)
        net = _relu(net, f"{name}_loc_conv{index}")
    return localisation_head(net, transform, num_hidden=32, attr=attr, bounded=bounded, name=name,
                             stable=stable)


def get_symbol(num_classes=10, width=16, depth=1, add_stn=True, image_shape=(1, 28, 28),
               target_shape=None, stn_at="input", pool=1, transform="affine", bounded=False,
               stable=True, outside="zero"):
    """The classifier, with or without transformers.

    Args:
        num_classes: number of classes.
        width: filters of the first stage; the others have two and four times as many.
        depth: blocks in each stage.
        add_stn: whether there are transformers.
        image_shape: (channels, height, width) of the input.
        target_shape: (height, width) of the output of the transformer at the input; by default the
            input's. Those at the stages keep the size.
        stn_at: where there are transformers: one of ``PLACES`` or several, with commas between.
        pool: of the transformer at the input, as for ``stn.spatial_transformer``.
        transform, bounded, stable: of all transformers, as for ``stn.localisation_head``.
        outside: what is around the image, as for ``stn.spatial_transformer``.

    Returns:
        Symbol of the class probabilities (N, num_classes), with a SoftmaxOutput named "softmax".

    Raises:
        ValueError: an option is unknown, or a target of less than 2 x 2 pixels.
    """
    names = transformer_names(stn_at) if add_stn else {}
    if "input" not in names and (target_shape is not None or pool != 1):
        raise ValueError("target_shape and pool are of the transformer at the input: they need "
                         "add_stn=True, and input in stn_at")

    def transformed(net, place, shape, target_shape=None, pool=1):
        if place not in names:
            return net
        loc = get_loc(net, None, transform, bounded, stable, names[place],
                      max(1, _halvings(shape, LARGEST_FEATURES)))
        return spatial_transformer(net, loc, target_shape or shape, transform, names[place], pool,
                                   outside)

    shape = tuple(image_shape[1:])
    net = mx.sym.Variable("data")  # (N, C, H, W)
    net = transformed(net, "input", shape, target_shape, pool)
    shape = [size // pool for size in target_shape or shape]
    strides = [2] * _halvings(shape, LARGEST) or [1]
    for index, stride in enumerate(strides, start=1):
        net, shape = _conv(net, width, f"stem{index}", stride), _strided(shape, stride)
        net = _relu(net, f"stem{index}")
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        net = transformed(net, f"stage{stage}", shape)
        for block in range(1, depth + 1):
            net = _block(net, width * 2 ** (stage - 1), f"stage{stage}_block{block}",
                         stride if block == 1 else 1)
        shape = _strided(shape, stride)
    net = mx.sym.Pooling(net, pool_type="avg", global_pool=True, kernel=(1, 1), name="pool")
    net = mx.sym.Flatten(net, name="flatten")
    net = mx.sym.FullyConnected(net, num_hidden=num_classes, name="fc1")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def transformer_names(stn_at, places=PLACES):
    """The names of the transformers by their places, in the order of the network.

    Args:
        stn_at: one of the places or several, with commas between.
        places: where a network may have one.

    Raises:
        ValueError: another place, or one twice.
    """
    given = stn_at.split(",")
    if len(set(given)) < len(given) or not set(given) <= set(places):
        raise ValueError(f"stn_at must be of {', '.join(places)}, each at most once, with commas "
                         f"between, got {stn_at!r}")
    places = [place for place in places if place in given]
    if len(places) == 1:
        return {places[0]: "stn"}
    return {place: f"stn{index}" for index, place in enumerate(places)}


def _block(net, num_filter, name, stride):
    """Two convolutions, and the shortcut around them."""
    inner = _relu(_conv(net, num_filter, f"{name}_conv1", stride), f"{name}_conv1")
    inner = _conv(inner, num_filter, f"{name}_conv2")
    if stride != 1:
        net = _conv(net, num_filter, f"{name}_shortcut", stride, kernel=1)
    return _relu(mx.sym.elemwise_add(net, inner, name=f"{name}_sum"), name)


def _conv(net, num_filter, name, stride=1, kernel=3):
    """A convolution, normalised over the batch."""
    net = mx.sym.Convolution(net, num_filter=num_filter, kernel=(kernel, kernel),
                             stride=(stride, stride), pad=(kernel // 2, kernel // 2), no_bias=True,
                             name=name)
    return mx.sym.BatchNorm(net, fix_gamma=False, name=f"{name}_bn")


def _relu(net, name):
    return mx.sym.Activation(net, act_type="relu", name=f"{name}_relu")


def _halvings(shape, largest):
    """How often a picture is to be halved, rounded up, until neither side is longer."""
    if max(shape) <= largest:
        return 0
    return 1 + _halvings(_strided(shape, 2), largest)


def _strided(shape, stride):
    """(height, width) behind a convolution that keeps the size but for its stride."""
    return [-(-size // stride) for size in shape]
