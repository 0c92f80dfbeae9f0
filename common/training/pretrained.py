"""What a network starts from that is trained already, and which of its parameters stand still."""
import logging
import re

from common import cli
from common.data import arrays
from common.graph import layers, rewrite

LOCALISATION = re.compile(r"stn\d*_loc_")  # how the zoo's names of its parameters begin


def take(model, symbol, reset, **data_shapes):
    """Takes of a trained network what fits another one by name and shape, and says so in the log.

    Args:
        model: a ``trained.Params``.
        symbol: the network to be started.
        reset: pattern of parameters that are not taken, or None.
        **data_shapes: the shapes of the network's inputs.

    Returns:
        arg_params and aux_params, name -> NDArray, and what is to be remembered of it, as JSON can
        hold it: ``{"model", "sha256", "taken": names, "anew": names}``.

    Raises:
        ValueError: nothing fits, or the pattern matches nothing.
    """
    names, shapes = parameters(symbol, data_shapes), _shapes(symbol, data_shapes)
    stored = {name: params[name] for params, own in (
        (model.arg_params, symbol.list_arguments()),
        (model.aux_params, symbol.list_auxiliary_states()))
        for name in own if name in names and name in params}
    again = matching("--reset", reset, names)
    unlike = [name for name in stored if name not in again and stored[name].shape != shapes[name]]
    anew = {"no such name there": [name for name in names if name not in {*stored, *again}],
            "other shape": unlike, "--reset": again}
    all_anew = sum(anew.values(), [])
    taken = [name for name in names if name not in all_anew]
    if not taken:
        raise ValueError(_nothing(model, names, anew))
    sizes = [f"{name} {arrays.in_words(shapes[name])} instead of "
             f"{arrays.in_words(stored[name].shape)}" for name in unlike]
    logging.info("Taken from %s: %d of %d parameters (%s)", model.model, len(taken), len(names),
                 cli.some(layers.by_layer(taken, names)))
    for why, found in anew.items():
        if found:
            words = sizes if found is unlike else layers.by_layer(found, names)
            logging.info("Starts anew (%s): %s", why, cli.some(words))
    arg_params, aux_params = ({name: stored[name] for name in taken if name in own}
                              for own in (symbol.list_arguments(), symbol.list_auxiliary_states()))
    return (arg_params, aux_params,
            {"model": model.model, "sha256": model.sha256, "taken": taken, "anew": all_anew})


def fixed(pattern, symbol, inputs):
    """The parameters of a network that are not to be trained.

    Args:
        pattern: of their names, or None.
        symbol: the network.
        inputs: the names of its inputs.

    Returns:
        A list of names, moving means and variances among them.

    Raises:
        ValueError: none is to be fixed, or all are.
    """
    names = parameters(symbol, inputs)
    found = matching("--fix", pattern, names)
    if set(found).issuperset(set(names) - set(symbol.list_auxiliary_states())):
        raise ValueError(f"--fix {pattern!r} fixes every parameter: nothing is left to train")
    return found


def log_fixed(names, symbol, inputs):
    """Says which parameters are not trained: what ``fixed`` has found."""
    if names:
        logging.info("Stands still (--fix): %s",
                     cli.some(layers.by_layer(names, parameters(symbol, inputs))))


def parameters(symbol, inputs):
    """The names of the parameters of a network, those that are no arguments last."""
    return [*(name for name in symbol.list_arguments() if name not in inputs),
            *symbol.list_auxiliary_states()]


def matching(flag, pattern, names):
    """Those names whose beginnings a pattern matches, in their order; none where it is None.

    Raises ValueError if it matches none; the flag says where it is from.
    """
    found = [name for name in names if pattern is not None and re.match(pattern, name)]
    if pattern is not None and not found:
        raise ValueError(f"{flag} {pattern!r} matches the name of no parameter: there are "
                         f"{cli.some(names)}")
    return found


def with_localisation_rate(symbol, lr_mult):
    """The same network, with another lr_mult in place of each that its localisation layers have.

    Raises ValueError if none of them has any.
    """
    attributes = symbol.attr_dict()
    names = [name for name in symbol.list_arguments()
             if LOCALISATION.match(name) and "__lr_mult__" in attributes.get(name, {})]
    if not names:
        raise ValueError("--loc-lr-mult: no layer of the localisation network has an lr_mult")
    return rewrite.with_lr_mult(symbol, names, lr_mult)


def _shapes(symbol, data_shapes):
    """The shapes of all arguments and auxiliary states, by name."""
    arg_shapes, _, aux_shapes = symbol.infer_shape(**data_shapes)
    return dict(zip([*symbol.list_arguments(), *symbol.list_auxiliary_states()],
                    [*arg_shapes, *aux_shapes]))


def _nothing(model, names, anew):
    """Says that nothing of a model is taken, and why."""
    why = ", ".join(f"{reason}: {len(found)}" for reason, found in anew.items() if found)
    there = cli.some([*model.arg_params, *model.aux_params], 3)
    return (f"--pretrained {model.model}: nothing of it is taken: the {len(names)} parameters of "
            f"this network, such as {names[0]}, start anew ({why}); it has {there or 'none'}")
