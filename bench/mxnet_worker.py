"""What ``benchmark.py`` measures of MXNet: the zoo's way, or with --plain the usual one.

The usual one is a Module on one context, with the graph as it is written.
"""
import sys

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import mxnet as mx

import symbols
from bench.protocol import rate, serve
from common import options
from common.padding import pad_convolutions

PLAIN = "--plain" in sys.argv


def bound(add_stn, batch_size, training):
    """A Module that is ready to run."""
    symbol = symbols.get_symbol("lenet", add_stn=add_stn)
    shape = (batch_size, 1, 28, 28)
    contexts = [mx.cpu()] if PLAIN else options.contexts(None, None, batch_size)
    if not PLAIN:
        symbol = pad_convolutions(symbol, data=shape)
    module = mx.mod.Module(symbol, context=contexts)
    module.bind([("data", shape)], [("softmax_label", (batch_size,))], for_training=training)
    module.init_params(mx.init.Xavier())
    return module


def batch_of(batch_size):
    return mx.io.DataBatch([mx.nd.random.uniform(shape=(batch_size, 1, 28, 28))],
                           [mx.nd.array(range(batch_size)) % 10])


def train(add_stn, batch_size, seconds):
    """Images/s of training steps on one batch."""
    module, batch = bound(add_stn, batch_size, True), batch_of(batch_size)
    module.init_optimizer(mx.kv.create("local"), "adam", {"learning_rate": 0.003})

    def step():
        module.forward_backward(batch)
        module.update()

    return batch_size * rate(step, mx.nd.waitall, seconds)


def predict(add_stn, batch_size, seconds):
    """Images/s of predictions of one batch."""
    module, batch = bound(add_stn, batch_size, False), batch_of(batch_size)
    return batch_size * rate(lambda: module.forward(batch), mx.nd.waitall, seconds)


if __name__ == "__main__":
    serve(lambda what, **fields: {"train": train, "predict": predict}[what](**fields))
