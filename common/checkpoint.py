"""Checkpoints that are whole or absent, and exact resume.

A checkpoint is ``prefix-symbol.json``, ``prefix-NNNN.params`` (both as MXNet's own, for
``mx.model.load_checkpoint``) and ``prefix-NNNN.state``: an ``.npz`` archive without pickles that
holds the optimizer's arrays and, as JSON, the number of updates, the recipe of the run and the
SHA-256 of the params it belongs to. The params are written last: where they are, the rest is.
"""
import glob
import hashlib
import io
import json
import os
import zipfile

import mxnet as mx
import numpy as np

from common import files


def paths(prefix, epoch):
    """The paths of the symbol, the params and the state of a checkpoint."""
    return (f"{prefix}-symbol.json", f"{prefix}-{epoch:04d}.params", f"{prefix}-{epoch:04d}.state")


def save(prefix, epoch, symbol, arg_params, aux_params, optimizer_arrays, meta):
    """Writes a checkpoint.

    Args:
        prefix: path and start of the file names.
        epoch: finished epochs.
        symbol: the training symbol.
        arg_params, aux_params: name -> NDArray.
        optimizer_arrays: name -> NumPy array, from ``Module.optimizer_state``.
        meta: whatever JSON holds; comes back from ``load_state``.

    Raises:
        OSError: it could not be written; an older checkpoint of that name stays as it was.
    """
    symbol_path, params_path, state_path = paths(prefix, epoch)
    files.write_bytes(symbol_path, symbol.tojson().encode())
    with files.replacing(params_path) as temporary:
        save_params(temporary, arg_params, aux_params)
        meta = dict(meta, params_sha256=sha256(temporary))
        state = io.BytesIO()
        np.savez(state, meta=np.array(json.dumps(meta)), **optimizer_arrays)
        files.write_bytes(state_path, state.getvalue())


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
    symbol_path, path, _ = paths(prefix, epoch)
    arg_params, aux_params = read_params(path)
    arg_shapes, _, aux_shapes = symbol.infer_shape(**data_shapes)
    check_shapes(path, arg_params, {
        name: shape for name, shape in zip(symbol.list_arguments(), arg_shapes)
        if name not in data_shapes})
    check_shapes(path, aux_params, dict(zip(symbol.list_auxiliary_states(), aux_shapes)))
    if os.path.exists(symbol_path) and _read(symbol_path) != symbol.tojson().encode():
        raise ValueError(f"{symbol_path}: of another network than the flags say")
    return arg_params, aux_params


def read_params(path):
    """Reads a params file.

    Returns:
        arg_params and aux_params, name -> NDArray.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    try:
        loaded = mx.nd.load(path)
    except mx.MXNetError:
        loaded = None
    if not isinstance(loaded, dict) or not all(key[:4] in ("arg:", "aux:") for key in loaded):
        raise ValueError(f"{path}: not a whole params file")
    return tuple({key[4:]: value for key, value in loaded.items() if key.startswith(kind)}
                 for kind in ("arg:", "aux:"))


def epochs(prefix):
    """The epochs that there are params of, rising."""
    found = glob.glob(f"{glob.escape(prefix)}-[0-9][0-9][0-9][0-9].params")
    return sorted(int(path[-len("0000.params"):-len(".params")]) for path in found)


def load_state(prefix, epoch):
    """Reads the state of a checkpoint.

    Returns:
        The optimizer's arrays (name -> NumPy array) and the meta; None and None without a state.

    Raises:
        ValueError: it is damaged, or belongs to other params.
    """
    _, params_path, state_path = paths(prefix, epoch)
    if not os.path.exists(state_path):
        return None, None
    try:
        with np.load(state_path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = dict(json.loads(str(arrays.pop("meta"))))
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
        raise ValueError(f"{state_path}: not a whole state file") from None
    if meta.get("params_sha256") != sha256(params_path):
        raise ValueError(f"{params_path}: not the file that {state_path} was written with")
    return arrays, meta


def save_params(path, arg_params, aux_params):
    """Writes a params file; what there is of it after an OSError is not whole."""
    arrays = {f"arg:{name}": value for name, value in arg_params.items()}
    arrays.update((f"aux:{name}", value) for name, value in aux_params.items())
    try:
        mx.nd.save(path, arrays)
    except mx.MXNetError as error:
        raise OSError(f"{path}: cannot be written ({str(error).splitlines()[-1]})") from None


def check_shapes(path, params, expected, complaint="of another network"):
    """Raises ValueError, with path and complaint, if the shapes of params are not the expected."""
    wrong = [f"{name} is missing" for name in expected if name not in params]
    wrong += [f"{name} is unexpected" for name in params if name not in expected]
    wrong += [f"{name} is {params[name].shape}, not {shape}" for name, shape in expected.items()
              if name in params and params[name].shape != shape]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{path}: {complaint}: {', '.join(wrong[:3])}{more}")


def sha256(path):
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path):
    with open(path, "rb") as file:
        return file.read()
