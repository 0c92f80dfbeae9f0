"""What ``benchmark.py`` measures of MXNet: the zoo's way, or with --plain the usual one.

The usual one is a Module on one context, with the graph as it is written.
"""
import argparse
import sys
import time

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import mxnet as mx

import symbols
from bench.protocol import rate, serve
from common import data, fit, graph, options
from common.module import Module
from common.predict import Predictor

PLAIN = "--plain" in sys.argv


def batch_of(batch_size):
    return mx.io.DataBatch([mx.nd.random.uniform(shape=(batch_size, 1, 28, 28))],
                           [mx.nd.array(range(batch_size)) % 10])


def ready(add_stn, batch_size):
    """A Module that is ready to be trained, and its symbol."""
    shape, symbol = (batch_size, 1, 28, 28), symbols.get_symbol("lenet", add_stn=add_stn)
    if PLAIN:
        module = mx.mod.Module(symbol)
    else:
        contexts = options.contexts(None, None, batch_size)
        module = Module(graph.faster(symbol, contexts, "float32", data=shape), context=contexts)
    module.bind([("data", shape)], [("softmax_label", (batch_size,))])
    module.init_params(mx.init.Xavier())
    module.init_optimizer(mx.kv.create("local"), "adam", {"learning_rate": 0.003})
    return symbol, module


def train(add_stn, batch_size, seconds):
    """Images/s of training steps on one batch."""
    _, module = ready(add_stn, batch_size)
    return _steps(module, batch_size, seconds)


def _steps(module, batch_size, seconds):
    batch = batch_of(batch_size)

    def step():
        module.forward_backward(batch)
        module.update()

    return rate(step, mx.nd.waitall, seconds, batch_size)


def predict(add_stn, batch_size, seconds):
    """Images/s of predictions of one batch."""
    symbol, trained = ready(add_stn, batch_size)
    batch = batch_of(batch_size)
    if PLAIN:
        module = mx.mod.Module(symbol)
        module.bind(trained.data_shapes, trained.label_shapes, for_training=False)
        module.set_params(*trained.get_params())
    else:
        module = Predictor(graph.label_free(symbol), *trained.get_params(), (1, 28, 28),
                           batch_size).module
        batch.label = None
    return rate(lambda: module.forward(batch), mx.nd.waitall, seconds, batch_size)


def epoch(count, seconds):
    """Images/s of an epoch of ``count`` real images, as it is trained, and of its bare steps."""
    args = argparse.ArgumentParser()
    options.add_training_flags(args)
    args = args.parse_args([])
    options.complete(args)
    images = data.load("mnist", num_examples=count)
    batches = data.ImageIter(images.train_images, images.train_labels, args.batch_size, seed=0)
    contexts = options.contexts(None, None, args.batch_size)
    module, _ = fit.start(args, {}, contexts, symbols.get_symbol("lenet"), batches)
    steps = _steps(module, args.batch_size, seconds)
    begin = time.monotonic()
    fit.train_epoch(args, module, batches, 0)
    mx.nd.waitall()
    passed = time.monotonic() - begin
    return {"epoch": batches.num_batches * args.batch_size / passed, "steps": steps}


def roofline(seconds):
    """GFLOP/s of matrix products, all cores together; and the operations of the networks."""
    size, contexts = 1024, options.contexts(None, None, 10**6)
    matrices = [mx.nd.random.uniform(shape=(size, size), ctx=context) for context in contexts]
    products = [mx.nd.empty((size, size), ctx=context) for context in contexts]

    def step():
        for matrix, product in zip(matrices, products):
            mx.nd.dot(matrix, matrix, out=product)

    peak = 2e-9 * size**3 * len(contexts) * rate(step, mx.nd.waitall, seconds, 256) / 256
    return dict({f"flops, {add_stn}": graph.flops(
        symbols.get_symbol("lenet", add_stn=add_stn), data=(1, 1, 28, 28))
        for add_stn in (True, False)}, peak=peak)


if __name__ == "__main__":
    serve(train=train, predict=predict, epoch=epoch, roofline=roofline)
