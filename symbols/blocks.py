"""Gluon: spatial transformers, and whole networks of symbols, as blocks.

This file needs MXNet, NumPy and ``stn.py`` alone: lift both, into a folder of your program, such as
``warps``, from which it imports ``warps.blocks``.

    features = mx.gluon.nn.Conv2D(16, 5, strides=2, activation="relu")
    net = mx.gluon.nn.HybridSequential()
    net.add(SpatialTransformer(features, target_shape=(28, 28)), mx.gluon.nn.Dense(10))

No warp and no network is defined here: the blocks run the symbols that the Module API runs.
"""
import copy
import json

import mxnet as mx

from .stn import localisation_head, spatial_transformer

SOFTMAXES = ("SoftmaxOutput", "softmax")
# What a Module starts a parameter with by the end of its name; Gluon would ask the initialiser.
STARTS = {"bias": "zeros", "beta": "zeros", "mean": "zeros", "gamma": "ones", "var": "ones"}
DECAYED = ("_weight", "_gamma")  # in a Module; Gluon would pull theta's bias off the identity


class SpatialTransformer(mx.gluon.HybridBlock):
    """Warps each image by its own map, which it regresses from features of the image.

    It takes images (N, C, H, W), NDArray or Symbol, and gives (N, C, height, width), or of a
    ``pool``-th of that size. It starts at the identity, whatever ``initialize`` is told.

    Args:
        localisation: HybridBlock that makes features (N, ...) of images. The head behind it, which
            regresses theta, is made here.
        target_shape, transform, pool, outside: as for ``stn.spatial_transformer``.
        num_hidden, attr, bounded, stable: of the head, as for ``stn.localisation_head``.
        prefix: of the names of nodes and parameters; by default one that no other block has.

    Raises:
        ValueError: as for ``stn.spatial_transformer`` and ``stn.localisation_head``; or the
            localisation network is no HybridBlock.
    """

    def __init__(self, localisation, target_shape, transform="affine", num_hidden=32, attr=None,
                 bounded=False, stable=True, pool=1, outside="zero", prefix=None):
        super().__init__(prefix=prefix)
        if not isinstance(localisation, mx.gluon.HybridBlock):
            raise ValueError(f"localisation={localisation!r}: expected a HybridBlock, such as a "
                             "HybridSequential")
        data, features, theta = map(mx.sym.Variable, ("data", "features", "theta"))
        name = f"{self.prefix}stn"
        with mx.name.NameManager():  # a scope around this is in the prefix already
            head = localisation_head(features, transform, num_hidden, attr, bounded, name, stable)
            # Of its own: MXNet loses an input that goes through a Dropout before this and a copy.
            data = mx.sym.reshape(data, shape=(0, 0, 0, 0), name=f"{name}_data")
            warped = spatial_transformer(data, theta, target_shape, transform, name, pool, outside)
        self.localisation = localisation
        self.head = _block(head, "features")
        self.sampler = _block(warped, "data", "theta")

    def theta(self, images):
        """What images are warped by: (N, parameters of the transform)."""
        return self.head(self.localisation(images))

    def hybrid_forward(self, F, images):
        """Gluon's: ``F`` is ``mx.nd`` or ``mx.sym``."""
        return self.sampler(images, self.theta(images))


def as_block(symbol, params=None, ctx=None, logits=True, own_loss=False):
    """A network of the zoo, or an export, as a block.

    Its Parameters start and learn as in a Module: they carry the start, ``lr_mult`` and ``wd_mult``
    that are written in the symbol, and ``initialize`` is asked for weights alone.

    Args:
        symbol: ends in a SoftmaxOutput or a softmax; its input is "data".
        params: (arg_params, aux_params), name -> NDArray, as ``mx.model.load_checkpoint`` gives
            them; None for a block that is to be initialised.
        ctx: Context, or list of them, that ``params`` are put on; by default the CPU.
        logits: whether the block gives what goes into the softmax, as
            ``gluon.loss.SoftmaxCrossEntropyLoss`` takes it; else probabilities. Scores of several
            digits want that loss with axis=1, and times their number for a Module's gradient.
        own_loss: whether the block takes labels behind the images, and gives probabilities that
            ``autograd.backward`` takes as they are: their gradient is that of the symbol's
            SoftmaxOutput, as in a Module. That is the fastest way to train.

    Returns:
        A HybridBlock that takes images (N, C, H, W) and gives (N, classes), or (N, classes, digits)
        where the symbol does. What its ``export`` writes has the names of the symbol.

    Raises:
        ValueError: the symbol ends in something else, or a parameter is missing. For one of another
            shape MXNet raises its own error, when the block is called.
    """
    graph = json.loads(symbol.tojson())
    heads = [graph["nodes"][index] for index, *_ in graph["heads"]]
    ends = [head["op"] for head in heads]
    allowed = SOFTMAXES[:1] if own_loss else SOFTMAXES
    if len(ends) != 1 or ends[0] not in allowed:
        raise ValueError(f"the symbol ends in {' and '.join(ends)}: {'this' if own_loss else 'a'} "
                         f"block is made of one that ends in a {' or a '.join(allowed)}")
    output, inputs = symbol.get_children()[0], ["data"]
    if own_loss:
        output, inputs = symbol, ["data", symbol.get_children()[1].name]
    elif not logits and ends[0] == "softmax":
        output = symbol  # of its own axis and temperature
    elif not logits:
        output = mx.sym.softmax(output, name="softmax", axis=_axis(heads[0].get("attrs", {})))
    block = _block(output, *inputs)
    if params is not None:
        _set_params(block, params, ctx)
    return block


def _axis(attrs):
    """Over what a SoftmaxOutput with those attributes is."""
    return 1 if attrs.get("multi_output", "").lower() in ("true", "1") else -1


def get_params(block, symbol):
    """What a Module of a symbol needs of a block that computes the same.

    Args:
        block: such as ``as_block`` made of the symbol, or one whose output on a Symbol it is.
        symbol: with or without a loss.

    Returns:
        (arg_params, aux_params), name -> NDArray on the CPU. Moving means are those of all devices.
    """
    mx.nd.waitall()  # the engine does not know that BatchNorm's backward writes moving means
    parameters = block.collect_params()
    args, aux_states = ([parameters[name] for name in names if name in parameters] for names in (
        symbol.list_arguments(), symbol.list_auxiliary_states()))
    return ({each.name: each.list_data()[0].copyto(mx.cpu()) for each in args},
            {each.name: _mean(each.list_data()) for each in aux_states})


def _mean(arrays):
    """As a Module has it of its devices, which each have a moving mean of their own."""
    return sum(array.copyto(mx.cpu()) for array in arrays) / len(arrays)


class _SymbolBlock(mx.gluon.SymbolBlock):
    """A SymbolBlock that may be called on Symbols again and again.

    MXNet's own makes new variables of its parameters in each call. Those of two calls have the same
    names, and no Module takes a symbol with both.
    """

    def forward(self, *given):
        """Gluon's."""
        names = [each.name for each in self._cached_graph[0]]
        if len(given) != len(names):
            raise ValueError(f"{self.name}: expected {' and '.join(names)}, got {len(given)} "
                             "inputs")
        if not isinstance(given[0], mx.sym.Symbol):
            return super().forward(*given)
        output = copy.copy(self._cached_graph[1])
        output._compose(**{name: each.var() for name, each in self.collect_params().items()},
                        **dict(zip(names, given)))
        return output


def _block(symbol, *inputs):
    """A SymbolBlock whose Parameters carry what SymbolBlock itself leaves in the symbol."""
    inputs = [mx.sym.Variable(name, dtype="float32") for name in inputs]  # untyped, it warns
    block, noted = _SymbolBlock(symbol, inputs), symbol.attr_dict()
    for name, parameter in block.collect_params().items():
        attributes = noted.get(name, {})
        by_name = (start for end, start in STARTS.items() if name.endswith(f"_{end}"))
        parameter.init = attributes.get("__init__", next(by_name, None))
        parameter.lr_mult = float(attributes.get("__lr_mult__", 1))
        parameter.wd_mult = float(attributes.get("__wd_mult__", name.endswith(DECAYED)))
    return block


def _set_params(block, params, ctx):
    arrays = {name: array for part in params for name, array in part.items()}
    missing = [name for name in block.collect_params() if name not in arrays]
    if missing:
        raise ValueError(f"params lack {', '.join(missing)}")
    block.collect_params().load_dict(arrays, ctx, ignore_extra=True)
