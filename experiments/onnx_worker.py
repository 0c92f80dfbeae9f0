"""The same measurements of onnxruntime on the ONNX model that the zoo exports: prediction alone.

It uses all cores, or one with --one-thread, and optimises the graph as far as it can. With --int8
its own quantization makes a network in int8 of the model.
"""
import functools
import os
import sys
import tempfile

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

import symbols
from common.find_mxnet import usable_cores
from common.models import to_onnx
from experiments.protocol import serve, throughput

try:
    import onnxruntime
    from onnxruntime import quantization
except ImportError as error:
    sys.exit(f"{error}: the benchmark predicts by onnxruntime, too: pip install onnxruntime")

THREADS = 1 if "--one-thread" in sys.argv else usable_cores()
INT8 = "--int8" in sys.argv


class Images(quantization.CalibrationDataReader):
    """Pictures to take the ranges of numbers from."""

    def __init__(self):
        self._left = [np.random.RandomState(0).rand(64, 1, 28, 28).astype(np.float32)]

    def get_next(self):
        return {"data": self._left.pop()} if self._left else None


def in_int8(path):
    """The path of a model in int8 that is made of another: one scale for each channel."""
    prepared, small = (os.path.join(os.path.dirname(path), f"{what}.onnx")
                       for what in ("prepared", "int8"))
    quantization.quant_pre_process(path, prepared, skip_symbolic_shape=True)  # which wants SymPy
    quantization.quantize_static(prepared, small, Images(), per_channel=True)
    return small


@functools.lru_cache(maxsize=None)
def session(add_stn):
    """A session with the LeNet, untrained."""
    symbol = symbols.get_symbol("lenet", add_stn=add_stn)
    module = mx.mod.Module(symbol)
    module.bind([("data", (1, 1, 28, 28))], [("softmax_label", (1,))])
    module.init_params(mx.init.Xavier())
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3  # errors alone
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "lenet.onnx")
        to_onnx.save(path, symbol, *module.get_params(), (1, 28, 28))
        if INT8:
            path = in_int8(path)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def predict(add_stn, batch_size, seconds):
    """Images/s of predictions of one batch."""
    run = session(add_stn).run
    images = {"data": np.random.RandomState(0).rand(batch_size, 1, 28, 28).astype(np.float32)}
    return throughput(lambda: run(None, images), seconds, batch_size)


def about():
    return {"onnxruntime": onnxruntime.__version__}


if __name__ == "__main__":
    serve(predict=predict, about=about)
