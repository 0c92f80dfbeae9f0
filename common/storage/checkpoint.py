"""Checkpoints that are whole or absent, and exact resume.

A checkpoint is ``prefix-symbol.json``, ``prefix-NNNN.params`` (both as MXNet's own, for
``mx.model.load_checkpoint``) and ``prefix-NNNN.state``: an ``.npz`` archive without pickles that
holds the optimizer's arrays and, as JSON, the number of updates, the recipe of the run and the
SHA-256 of the params it belongs to. A manifest, ``prefix-NNNN.json``, vouches for all three:
however a process ends, there is the new checkpoint or the one that was to be overwritten.
Checkpoints of other programs have no manifest: their files are checked as far as that goes.
"""
import json
import logging
import os
import re

import mxnet as mx
import numpy as np

from common import cli, files
from common.storage import file_set, params_file, state_file
from symbols.stn import COLUMNS

KINDS = ("symbol", "params", "state")
STOPPED = "stopped"  # in place of a number of epochs: of a run that was stopped within one
FLOATS = (np.float16, np.float32, np.float64)


def paths(prefix, epoch):
    """The paths of the symbol, the params and the state of a checkpoint."""
    stem = _stem(prefix, epoch)
    return f"{prefix}-symbol.json", f"{stem}.params", f"{stem}.state"


def _set(prefix, epoch):
    """The files of a checkpoint, as ``file_set`` takes them."""
    return f"{_stem(prefix, epoch)}.json", dict(zip(KINDS, paths(prefix, epoch)))


def _stem(prefix, epoch):
    return f"{prefix}-{epoch if epoch == STOPPED else format(epoch, '04d')}"


def locate(prefix, epoch):
    """As ``paths``, but where the files are now; checked, where there is a manifest.

    Raises ValueError if one is damaged.
    """
    return tuple(file_set.locate(*_set(prefix, epoch)).values())


def finish_renames(prefix, epoch):
    """Gives the files of a checkpoint their names, if a process was killed before it could.

    Raises ValueError if one is damaged.
    """
    file_set.finish_renames(*_set(prefix, epoch))


def remove(prefix, epoch):
    """Removes a checkpoint, but for the symbol, which others share."""
    file_set.remove(*_set(prefix, epoch), shared="symbol")


def save(prefix, epoch, symbol, arg_params, aux_params, optimizer_arrays, meta):
    """Writes a checkpoint.

    Args:
        prefix: path and start of the file names.
        epoch: finished epochs, or ``STOPPED``.
        symbol: the training symbol.
        arg_params, aux_params: name -> NDArray.
        optimizer_arrays: name -> NumPy array, from ``Module.optimizer_state``.
        meta: whatever JSON holds; comes back from ``load_state``.

    Raises:
        OSError: it could not be written; an older checkpoint of that name stays as it was.
    """
    there, before = files.read_if_there(paths(prefix, epoch)[0]), as_before(symbol)
    with file_set.replacing(*_set(prefix, epoch)) as new:
        with open(new["symbol"], "wb") as file:  # manifests of older checkpoints vouch for theirs
            file.write(before if there == before else symbol.tojson().encode())
        save_params(new["params"], arg_params, aux_params)
        meta = dict(meta, params_sha256=files.sha256(new["params"]))
        state_file.write(new["state"], optimizer_arrays, meta)


def load_params(prefix, epoch, symbol, **data_shapes):
    """Reads the params of a checkpoint and checks that they fit a symbol.

    Args:
        prefix, epoch: as for ``save``.
        symbol: the network they are for.
        **data_shapes: the shapes of its inputs.

    Returns:
        arg_params and aux_params, name -> NDArray.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged, or belongs to another network.
    """
    symbol_path, path, _ = locate(prefix, epoch)
    arg_params, aux_params = params_file.read(path)
    arg_shapes, _, aux_shapes = symbol.infer_shape(**data_shapes)
    check_shapes(path, arg_params, {
        name: shape for name, shape in zip(symbol.list_arguments(), arg_shapes)
        if name not in data_shapes})
    check_shapes(path, aux_params, dict(zip(symbol.list_auxiliary_states(), aux_shapes)))
    there = files.read_if_there(symbol_path)
    if there not in (None, symbol.tojson().encode(), as_before(symbol)):
        raise ValueError(f"{symbol_path}: of another network than the flags say")
    return arg_params, aux_params


def as_before(symbol):
    """The JSON of a symbol in older checkpoints and exports, where ``COLUMNS`` of ``stn.py`` was 1.

    That of one that was read from them is as it was.
    """
    graph = json.loads(symbol.tojson())
    for node in graph["nodes"]:
        if (node["op"] == "Concat" and node["name"].startswith("stn")
                and node["attrs"].get("dim") == str(COLUMNS)):
            node["attrs"]["dim"] = "1"
    return mx.sym.load_json(json.dumps(graph)).tojson().encode()


def epochs(prefix):
    """The epochs that there are params or a manifest of, rising.

    Raises OSError if the folder may not be looked into.
    """
    folder, start = os.path.split(f"{prefix}-")
    try:
        names = os.listdir(folder or ".")
    except (FileNotFoundError, NotADirectoryError):
        names = []
    numbered = re.compile(re.escape(start) + r"([0-9]{4})\.(params|json)")
    return sorted({int(found[1]) for found in map(numbered.fullmatch, names) if found})


def is_file_of(prefix, path):
    """Whether a path is one that checkpoints of a prefix have; both are taken as they are spelt."""
    return bool(re.match(rf"{re.escape(prefix)}-([0-9]{{4}}|{STOPPED}|symbol)\.", path))


def begun(prefix):
    """Whether there is any checkpoint."""
    return bool(epochs(prefix)) or has_stopped(prefix)


def has_stopped(prefix):
    """Whether there are params, or a manifest, of a run that was stopped within an epoch."""
    manifest, targets = _set(prefix, STOPPED)
    return os.path.exists(targets["params"]) or os.path.exists(manifest)


def newest(prefix):
    """The epoch of the newest whole checkpoint; None if there is none.

    One without a manifest is whole if its state belongs to its params. Those that are passed over
    are named by a warning.
    """
    for epoch in reversed(epochs(prefix)):
        try:
            if check(prefix, epoch) is None:
                raise FileNotFoundError(f"{paths(prefix, epoch)[2]}: there is no such file")
            return epoch
        except (ValueError, OSError) as error:
            logging.warning("The checkpoint after %d epochs is passed over: %s", epoch, error)
    return None


def check(prefix, epoch):
    """Reads all of a checkpoint; returns the meta, or None without a state.

    Raises as ``load_state`` and ``params_file.read``.
    """
    _, params_path, state_path = locate(prefix, epoch)
    _, meta = _read_state(params_path, state_path)
    if meta is not None:
        params_file.read(params_path)
    return meta


def load_state(prefix, epoch):
    """Reads the state of a checkpoint.

    Returns:
        The optimizer's arrays (name -> NumPy array) and the meta; None and None without a state.

    Raises:
        OSError: there are no params.
        ValueError: it is damaged, or belongs to other params.
    """
    return _read_state(*locate(prefix, epoch)[1:])


def _read_state(params_path, state_path):
    if not os.path.exists(state_path):
        return None, None
    arrays, meta = state_file.read(state_path)
    if meta.get("params_sha256") != files.sha256(params_path):
        raise ValueError(f"{params_path}: not the file that {state_path} was written with")
    return arrays, meta


def save_params(path, arg_params, aux_params):
    """Writes a params file; what there is of it after an OSError is not whole."""
    arrays = {f"arg:{name}": value for name, value in arg_params.items()}
    arrays.update((f"aux:{name}", value) for name, value in aux_params.items())
    try:
        mx.nd.save(path, arrays)
        params_file.read(path)  # nd.save does not notice when the disk is full for the last 4 KiB
    except (mx.MXNetError, ValueError) as error:
        raise OSError(f"{path}: cannot be written whole: is the disk full?") from error


def check_shapes(path, params, expected, complaint="of another network"):
    """Raises ValueError, with path and complaint, if params lack a name, a shape or fractions."""
    wrong = [f"{name} is missing" for name in expected if name not in params]
    wrong += [f"{name} is unexpected" for name in params if name not in expected]
    wrong += [f"{name} is {params[name].shape}, not {shape}" for name, shape in expected.items()
              if name in params and params[name].shape != shape]
    wrong += [f"{name} is {value.dtype.__name__}, not floating-point"
              for name, value in params.items() if value.dtype not in FLOATS]
    if wrong:
        raise ValueError(f"{path}: {complaint}: {cli.some(wrong, 3)}")
