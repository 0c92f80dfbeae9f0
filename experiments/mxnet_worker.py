"""What the benchmark measures of MXNet: the zoo's way, or with --plain the usual one.

With --int8 the zoo predicts in that. The usual one is a Module on one context, with the graph as it
is written.
"""
import functools
import platform
import sys
import time

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

import symbols
from common.data import datasets
from common.data.batches import PIXEL, ImageIter
from common.graph import layers, rewrite
from common.models import devices, quantize
from common.models.predict import Predictor
from common.training import fit
from common.training.fused_update import Module
from common.training.recipe import Recipe
from experiments.protocol import MATRICES, serve, throughput

PLAIN, INT8 = "--plain" in sys.argv, "--int8" in sys.argv


def batch_of(batch_size):
    return mx.io.DataBatch([mx.nd.random.uniform(shape=(batch_size, 1, 28, 28))],
                           [mx.nd.array(range(batch_size)) % 10])


@functools.lru_cache(maxsize=1)  # the rounds of one case need not bind again
def ready(add_stn, batch_size):
    """A Module that is ready to be trained, and its symbol."""
    shape, symbol = (batch_size, 1, 28, 28), symbols.get_symbol("lenet", add_stn=add_stn)
    if PLAIN:
        module = mx.mod.Module(symbol)
    else:
        contexts = devices.contexts(None, None, batch_size)
        module = Module(rewrite.for_cpu(symbol, contexts, "float32", data=shape), context=contexts)
    module.bind([("data", shape)], [("softmax_label", (batch_size,))])
    module.init_params(mx.init.Xavier())
    module.init_optimizer(mx.kv.create("local"), "adam", {"learning_rate": 0.003})
    return symbol, module


def train(add_stn, batch_size, seconds):
    """Images/s of training steps on one batch."""
    _, module = ready(add_stn, batch_size)
    return _steps(module, batch_of(batch_size), seconds)


def _steps(module, batch, seconds):
    def step():
        module.forward_backward(batch)
        module.update()

    return throughput(step, seconds, batch.data[0].shape[0], mx.nd.waitall)


def predict(add_stn, batch_size, seconds):
    """Images/s of predictions of one batch; here of calls of a ``Predictor``, answers and all."""
    return throughput(predicting(add_stn, batch_size), seconds, batch_size, mx.nd.waitall)


@functools.lru_cache(maxsize=1)
def predicting(add_stn, batch_size):
    """A function that predicts one batch."""
    symbol, trained = ready(add_stn, batch_size)
    if PLAIN:
        batch, module = batch_of(batch_size), mx.mod.Module(symbol)
        module.bind(trained.data_shapes, trained.label_shapes, for_training=False)
        module.set_params(*trained.get_params())
        return lambda: module.forward(batch)
    images = np.random.RandomState(0).randint(0, 256, (batch_size, 1, 28, 28)).astype(np.uint8)
    symbol, params = rewrite.label_free(symbol), trained.get_params()
    if INT8:
        symbol = quantize.quantized(symbol, *params, images * PIXEL)
    predictor = Predictor(symbol, *params, (1, 28, 28), batch_size)
    return lambda: predictor(images)


def epoch(count, seconds):
    """Images/s of an epoch of ``count`` real images, as it is trained, and of its bare steps."""
    images, batch_size = datasets.load("mnist", num_examples=count), Recipe.batch_size
    recipe = Recipe(devices=tuple(devices.contexts(None, None, batch_size)))
    batches = ImageIter(images.train_images, images.train_labels, batch_size, seed=recipe.seed,
                        raw=True)
    module, _ = fit.start(symbols.get_symbol("lenet"), batches, recipe)
    steps = _steps(module, next(batches), seconds)
    begin = time.monotonic()
    fit.train_epoch(module, batches, recipe, 0)
    mx.nd.waitall()
    passed = time.monotonic() - begin
    return {"epoch": batches.num_batches * batch_size / passed, "steps": steps}


def roofline(seconds):
    """GFLOP/s of matrix products by what computes them, on all cores together."""
    contexts = devices.contexts(None, None, 10**6)

    def products(multiply, size):
        matrices = [mx.nd.random.uniform(shape=(size, size), ctx=context) for context in contexts]
        results = [mx.nd.empty((size, size), ctx=context) for context in contexts]

        def step():
            for matrix, result in zip(matrices, results):
                multiply(matrix, matrix, out=result)

        return 2e-9 * size**3 * len(contexts) * throughput(step, seconds, 1, mx.nd.waitall)

    def fully_connected(data, weight, out):
        mx.nd.FullyConnected(data, weight, no_bias=True, num_hidden=len(weight), out=out)

    return {name: max(products(multiply, size) for size in MATRICES)
            for name, multiply in (("MXNet's dot", mx.nd.dot),
                                   ("MXNet's FullyConnected (oneDNN)", fully_connected))}


def flops():
    """The operations of the networks on an image, with and without the transformer."""
    return {str(add_stn): layers.flops(symbols.get_symbol("lenet", add_stn=add_stn),
                                       data=(1, 1, 28, 28)) for add_stn in (True, False)}


def about():
    return {"python": platform.python_version(), "numpy": np.__version__, "mxnet": mx.__version__}


if __name__ == "__main__":
    serve(train=train, predict=predict, epoch=epoch, roofline=roofline, flops=flops, about=about)
