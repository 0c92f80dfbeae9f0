"""Trained networks, read back from an export or a checkpoint."""
import contextlib
import io
import json
import os
from typing import NamedTuple

import mxnet as mx

from common import checkpoint, graph
from common.predict import Predictor


class Trained(NamedTuple):
    """A network for prediction.

    Attributes:
        path: of its params.
        symbol: without label; its one output is the class probabilities.
        arg_params, aux_params: name -> NDArray.
    """

    path: str
    symbol: mx.sym.Symbol
    arg_params: dict
    aux_params: dict

    def predictor(self, image_shape, output=None, **options):
        """A ``Predictor`` of the class probabilities, or of an inner output.

        Args:
            image_shape: (C, H, W).
            output: such as "stn_theta_output".
            **options: of ``Predictor``.

        Raises:
            ValueError: the network is not for such images, or has no such output.
        """
        symbol = self.symbol
        if output is not None:
            if output not in symbol.get_internals().list_outputs():
                raise ValueError(f"{self.path}: the network has no output {output}")
            symbol = symbol.get_internals()[output]
        arg_params, aux_params = self._checked_params(symbol, image_shape)
        return Predictor(symbol, arg_params, aux_params, image_shape, **options)

    def _checked_params(self, symbol, image_shape):
        """Those parameters that a part of the network needs."""
        unfit = f"not for images of {' x '.join(map(str, image_shape))}"
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # MXNet prints what does not fit
                arg_shapes, _, aux_shapes = symbol.infer_shape(data=(1, *image_shape))
        except mx.MXNetError:
            raise ValueError(f"{self.path}: the network is {unfit}") from None
        params = []
        for names, shapes, values in (
                (symbol.list_arguments(), arg_shapes, self.arg_params),
                (symbol.list_auxiliary_states(), aux_shapes, self.aux_params)):
            expected = {name: shape for name, shape in zip(names, shapes) if name != "data"}
            params.append({name: values[name] for name in expected if name in values})
            checkpoint.check_shapes(self.path, params[-1], expected,
                                    f"of another network, or {unfit}")
        return params


def load(path, epoch=None):
    """Reads a network.

    Args:
        path: folder of an export, or the prefix of checkpoints.
        epoch: of the checkpoint; by default the newest.

    Returns:
        A ``Trained``.

    Raises:
        OSError: there is none.
        ValueError: a file is damaged.
    """
    prefix = os.path.join(path, "model") if os.path.isdir(path) else path
    if epoch is None:
        epochs = checkpoint.epochs(prefix)
        if not epochs:
            raise FileNotFoundError(f"{path}: neither the folder of an export nor the prefix of "
                                    "checkpoints, such as models/mnist-lenet-stn")
        epoch = epochs[-1]
    symbol_path, params_path, _ = checkpoint.locate(prefix, epoch)
    return Trained(params_path, _label_free(symbol_path), *checkpoint.read_params(params_path))


def _label_free(path):
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        symbol = mx.sym.load(path)
    except (mx.MXNetError, UnicodeDecodeError):
        raise ValueError(f"{path}: not a symbol") from None
    nodes = json.loads(symbol.tojson())
    if nodes["nodes"][nodes["heads"][0][0]]["op"] == "SoftmaxOutput":
        return graph.label_free(symbol)
    return symbol
