"""Trained networks, read back from an export or a checkpoint."""
import contextlib
import glob
import io
import math
import os
import re
from typing import Callable, NamedTuple

import mxnet as mx
import numpy as np

from common import cli, files, sandbox
from common.data import arrays
from common.graph import rewrite
from common.models import export_folder
from common.models.predict import Predictor
from common.storage import checkpoint, params_file, symbol_file

PUBLISHED = os.path.join(files.CHECKOUT, "published")
LARGEST = 2**28  # numbers that any node of a network may give for a batch
LARGEST_ANSWER = 2**24  # and its last: some batches of these wait to be fetched
_SURVIVED = set()  # the graphs, with shapes and options, that have been tried out


class Trained(NamedTuple):
    """A network for prediction.

    Attributes:
        path: of its params.
        training: as it was trained, with its label if it has one; its input "data" is images of
            0 to 1.
        arg_params, aux_params: name -> NDArray.
        foreign: whether they are from a file; then they are tried out before they are used.
        made_for: a function that says the shape of the images it was trained on, None if unknown.
    """

    path: str
    training: mx.sym.Symbol
    arg_params: dict
    aux_params: dict
    foreign: bool = False
    made_for: Callable = lambda: None

    @property
    def symbol(self):
        """That for prediction, without label; its output is the class probabilities."""
        return rewrite.label_free(self.training)

    def predictor(self, image_shape, output=None, batch_size=256, **options):
        """A ``Predictor`` of the class probabilities, or of an inner output.

        Args:
            image_shape: (C, H, W).
            output: such as "stn_theta_output".
            batch_size, **options: of ``Predictor``.

        Raises:
            ValueError: the network is not for such images or devices, or has no such output.
        """
        symbol = self.symbol
        if options.get("gpus") is not None and rewrite.is_in_int8(symbol):
            raise ValueError(f"{self.path}: in int8, which MXNet computes on CPUs alone: leave out "
                             "the GPUs, or take the network that it was made of")
        if output is not None:
            if output not in symbol.get_internals().list_outputs():
                raise ValueError(f"{self.path}: the network has no output {output}")
            symbol = symbol.get_internals()[output]
        params = self.checked_params(symbol, image_shape, batch_size, **options)
        return Predictor(symbol, *params, image_shape, batch_size, **options)

    def checked_params(self, symbol, image_shape, batch_size=1, **options):
        """Those parameters that the network or a part of it needs; ValueError if they do not fit.

        Args:
            symbol: of the part.
            image_shape: (C, H, W).
            batch_size, **options: of the ``Predictor`` that it is for.
        """
        outputs = symbol.list_outputs()
        if len(outputs) > 1:
            raise ValueError(f"{self.path}: expected a network with one output, got "
                             f"{', '.join(outputs)}")
        tried = (symbol.tojson(), image_shape, batch_size, str(options))
        if self.foreign and tried not in _SURVIVED:
            sandbox.run_in_child(self.path, lambda: self._try_out(symbol, image_shape, batch_size,
                                                           **options))
            _SURVIVED.add(tried)
        return self._fitting(symbol, image_shape)

    def _try_out(self, symbol, image_shape, batch_size, **options):
        """Predicts for an image, after a look at the memory that this will take."""
        params = self._fitting(symbol, image_shape)
        internals, answers = symbol.get_internals(), symbol.list_outputs()
        _, shapes, _ = internals.infer_shape(data=(batch_size, *image_shape))
        for name, size in zip(internals.list_outputs(), map(math.prod, shapes)):
            if size > (LARGEST_ANSWER if name in answers else LARGEST):
                raise ValueError(f"{self.path}: {name} has {size:,} numbers for a batch of "
                                 f"{batch_size}: too many, at least for such a batch")
        Predictor(symbol, *params, image_shape, batch_size,
                  **dict(options, gpus=None)).warm_up()  # CUDA does not survive a fork

    def _fitting(self, symbol, image_shape):
        try:
            return self._params_for(symbol, image_shape)
        except ValueError as error:
            wanted = self.made_for()
            if wanted is None or wanted == tuple(image_shape):
                raise
            raise ValueError(f"{error}; it was trained on images of {arrays.in_words(wanted)}"
                             ) from None

    def _params_for(self, symbol, image_shape):
        unfit = f"not for images of {arrays.in_words(image_shape)}"
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # MXNet prints what does not fit
                arg_shapes, _, aux_shapes = symbol.infer_shape(data=(1, *image_shape))
                # A training in float64 leaves such parameters; images are float32 here.
                arg_types, _, aux_types = symbol.infer_type(data="float32")
        except mx.MXNetError:
            arg_shapes = None
        if arg_shapes is None or arg_types is None:
            raise ValueError(f"{self.path}: the network is {unfit}")
        params = []
        for names, shapes, types, values in (
                (symbol.list_arguments(), arg_shapes, arg_types, self.arg_params),
                (symbol.list_auxiliary_states(), aux_shapes, aux_types, self.aux_params)):
            expected = {name: shape for name, shape in zip(names, shapes) if name != "data"}
            params.append({name: _as_type(values[name], kind) for name, kind in zip(names, types)
                           if name in expected and name in values})
            checkpoint.check_shapes(self.path, params[-1], expected,
                                    f"of another network, or {unfit}")
        return params


def _as_type(value, kind):
    return value.astype(kind, copy=False) if value.dtype in checkpoint.FLOATS else value


class Params(NamedTuple):
    """The parameters of a trained network.

    Attributes:
        model: the network, as it was asked for.
        path: of the params file.
        sha256: of that file, in hexadecimal.
        arg_params, aux_params: name -> NDArray.
    """

    model: str
    path: str
    sha256: str
    arg_params: dict
    aux_params: dict


def load_params(model):
    """Reads the parameters of a network, whose symbol need not be readable.

    Args:
        model: as ``path`` of ``load``; or the name of a model in ``published/``; or the path of a
            params file, with or without its suffix, where the newest is not the one.

    Returns:
        A ``Params``.

    Raises:
        OSError: there is none.
        ValueError: a file is damaged, or holds something else than finite parameters.
    """
    path = _params_path(model)
    arg_params, aux_params = _read_finite(path)
    for name, value in {**arg_params, **aux_params}.items():
        if value.dtype not in checkpoint.FLOATS:
            raise ValueError(f"{path}: {name} is {value.dtype.__name__}, not floating-point")
    return Params(model, path, files.sha256(path), arg_params, aux_params)


def _read_finite(path):
    """A params file's arg_params and aux_params; ValueError if one is NaN or infinite."""
    arg_params, aux_params = params_file.read(path)
    for name, value in {**arg_params, **aux_params}.items():
        if value.dtype in checkpoint.FLOATS and not np.isfinite(value.asnumpy()).all():
            raise ValueError(f"{path}: {name} is not finite")
    return arg_params, aux_params


def _params_path(model):
    """The path of the params file of a model, checked as far as sums tell."""
    numbered = re.fullmatch(r"(.+)-(\d{4})(\.params)?", model)
    if numbered and os.path.exists(f"{numbered[1]}-{numbered[2]}.params"):
        prefix, epoch = numbered[1], int(numbered[2])
    else:
        prefix, epoch = _find_or_published(model)
    path = checkpoint.locate(prefix, epoch)[1]
    if os.path.basename(path) == export_folder.PARAMS:
        export_folder.check(os.path.dirname(path))
    return path


def _find_or_published(model):
    try:
        return find(model)
    except FileNotFoundError as error:
        if os.path.isfile(model):
            raise ValueError(f"{model}: expected params named as <prefix>-0005.params, with the "
                             "network beside them in <prefix>-symbol.json") from None
        names = published()
        if model in names:
            return find(os.path.join(PUBLISHED, model))
        raise FileNotFoundError(f"{error}; nor one of those in published/: {', '.join(names)}"
                                f"{cli.did_you_mean(model, names)}") from None


def published():
    """The names of the networks in ``PUBLISHED``."""
    paths = glob.glob(os.path.join(glob.escape(PUBLISHED), "*", export_folder.SYMBOL))
    return sorted(os.path.basename(os.path.dirname(path)) for path in paths)


def load(path, epoch=None):
    """Reads a network.

    Args:
        path: folder of an export, or the prefix of checkpoints.
        epoch: of the checkpoint; by default the newest.

    Returns:
        A ``Trained``.

    Raises:
        OSError: there is none.
        ValueError: a file is damaged, a parameter is not finite, or the network has other inputs
            than images.
    """
    prefix, epoch = find(path, epoch)
    symbol_path, params_path, _ = checkpoint.locate(prefix, epoch)
    if os.path.isdir(path):
        export_folder.check(path)
    symbol = rewrite.without_raw_input(rewrite.classifier(symbol_file.read(symbol_path)))
    arg_params, aux_params = _read_finite(params_path)
    symbol = _with_data(symbol_path, symbol, arg_params)
    return Trained(params_path, symbol, arg_params, aux_params, foreign=True,
                   made_for=lambda: _image_shape(path, prefix, epoch))


def _with_data(path, symbol, params):
    """The same network with its input called "data": the one that is no parameter and no label."""
    arguments = rewrite.label_free(symbol).list_arguments()
    inputs = [name for name in arguments if name not in params]
    if "data" in arguments:
        return symbol
    if len(inputs) != 1:
        raise ValueError(f"{path}: expected one input besides the parameters, the images, got "
                         f"{cli.some(inputs, 3) or 'none'}")
    return symbol(**{inputs[0]: mx.sym.Variable("data")})


def _image_shape(path, prefix, epoch):
    """The (C, H, W) that a network was trained on; None if it is not said, or is not to be read."""
    with contextlib.suppress(OSError, ValueError):
        if os.path.isdir(path):
            return export_folder.image_shape(path)
        shape = (checkpoint.load_state(prefix, epoch)[1] or {}).get("image_shape")
        return shape and tuple(shape)  # which JSON has as a list
    return None


def as_folder(path):
    """The folder of an export, of its prefix such as ``published/a/model``; other paths stay.

    But files are named after a model: "." and ".." become absolute, and no "/" stays at the end.
    """
    path = path.rstrip(os.sep) or path
    folder, name = os.path.split(path)
    if name == "model" and os.path.isfile(os.path.join(folder, export_folder.SUMS)):
        path = folder or os.curdir
    unnamed = os.path.basename(path) in (os.curdir, os.pardir)
    return os.path.abspath(path) if unnamed else path


def is_file_of(model, path):
    """Whether a path is one that the files of a network have.

    Args:
        model: folder of an export; or prefix of checkpoints, which the export, the film and the
            lock of their training belong to.
    """
    own, path = map(os.path.realpath, (model, path))
    export, film = f"{own}-export", f"{own}-film"
    exported = path.startswith((export + os.sep, own + os.sep)) and (
        os.path.basename(path) in (*export_folder.FILES, export_folder.SUMS, export_folder.CARD))
    beside = path in (export, film, f"{film}.gif", f"{own}.lock") or path.startswith(film + os.sep)
    return exported or beside or checkpoint.is_file_of(own, path)


def check_not_file_of(model, path):
    """Raises ValueError if what is written to a path would replace a file of a network."""
    if is_file_of(model, path):
        raise ValueError(f"{path}: a file of {model} itself, which would be lost: write elsewhere")


def find(path, epoch=None):
    """The prefix and the epoch of what ``load`` would read, with the same arguments."""
    prefix = os.path.join(path, "model") if os.path.isdir(path) else path
    if epoch is None:
        epochs = checkpoint.epochs(prefix)
        if not epochs:
            raise FileNotFoundError(f"{path or repr(path)}: neither the folder of an export nor "
                                    "the prefix of checkpoints, such as models/mnist-lenet-stn")
        epoch = epochs[-1]
    return prefix, epoch
