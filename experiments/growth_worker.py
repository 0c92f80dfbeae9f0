"""Measures one cell of ``experiments/growth.py``, which it gets as JSON; of none, MXNet's import.

    python -m experiments.growth_worker '{"network": "lenet", "batch": 64, ...}'
"""
import json
import platform
import resource
import statistics
import sys
import time

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

import symbols
from common import cli
from common.graph import rewrite
from common.models import devices
from common.models.predict import Predictor
from common.training.fused_update import Module
from experiments.growth import Cell
from symbols import stn

ROUNDS, SECONDS = 3, 0.25


def step_of(cell):
    """A function that computes one batch of a cell, perhaps without waiting for it."""
    contexts = devices.contexts(None, cell.devices, cell.batch)
    if cell.network in symbols.NETWORKS:
        symbol = symbols.get_symbol(cell.network, image_shape=cell.image_shape,
                                    transform=cell.transform)
        return _training(symbol, cell, contexts) if cell.backward else _predicting(symbol, cell)
    return _warping(cell, contexts)


def _training(symbol, cell, contexts):
    """A training step of a network, as ``train_mnist.py`` makes it."""
    shape = (cell.batch, *cell.image_shape)
    module = Module(rewrite.for_cpu(symbol, contexts, "float32", data=shape), context=contexts)
    module.bind([("data", shape)], [("softmax_label", (cell.batch,))])
    module.init_params(mx.init.Xavier())
    module.init_optimizer(mx.kv.create("local"), "adam", {"learning_rate": 0.003})
    batch = mx.io.DataBatch([mx.nd.random.uniform(shape=shape)], [mx.nd.arange(cell.batch) % 10])

    def step():
        module.forward_backward(batch)
        module.update()
    return step


def _predicting(symbol, cell):
    """The prediction of one batch by a network."""
    module = mx.mod.Module(symbol)
    module.bind([("data", (1, *cell.image_shape))], [("softmax_label", (1,))], for_training=False)
    module.init_params(mx.init.Xavier())
    predictor = Predictor(rewrite.label_free(symbol), *module.get_params(), cell.image_shape,
                          cell.batch, cpus=cell.devices)
    shape = (cell.batch, *cell.image_shape)
    images = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    return lambda: predictor(images)


def _warping(cell, contexts):
    """Transformers alone, whose thetas are inputs: near the identity, each image with its own."""
    identity = np.array(stn.get_transform(cell.transform).identity, np.float32)
    shapes = {"data": (cell.batch, *cell.image_shape),
              **{f"theta{index}": (cell.batch, len(identity)) for index in range(cell.count)}}
    module = mx.mod.Module(_transformers(cell), data_names=list(shapes), label_names=None,
                           context=contexts)
    module.bind(list(shapes.items()), for_training=cell.backward, inputs_need_grad=cell.backward)
    module.init_params()
    rng = np.random.RandomState(0)
    thetas = [identity + rng.uniform(-0.1, 0.1, shapes[f"theta{index}"])
              for index in range(cell.count)]
    batch = mx.io.DataBatch([mx.nd.random.uniform(shape=shapes["data"]), *map(mx.nd.array, thetas)])
    gradient = [mx.nd.ones(shape) for _, shape in module.output_shapes]

    def step():
        module.forward(batch, is_train=cell.backward)
        if cell.backward:
            module.backward(gradient)
    return step


def _transformers(cell):
    data, size = mx.sym.Variable("data"), cell.image_shape[1:]
    net, outputs = data, []
    for index in range(cell.count):
        source = data if cell.network == "side by side" else net
        net = stn.spatial_transformer(source, mx.sym.Variable(f"theta{index}"), size,
                                      cell.transform, f"stn{index}")
        outputs.append(net)
    return mx.sym.concat(*outputs, dim=1) if cell.network == "side by side" else net


def seconds_of(step, count):
    begin = time.monotonic()
    for _ in range(count):
        step()
    mx.nd.waitall()
    return time.monotonic() - begin


def measure(cell):
    """Images/s, the peak of memory, and of another family than affine what it has of its images/s.
    """
    step = step_of(cell)
    seconds_of(step, 2)
    count = max(1, int(SECONDS / seconds_of(step, 1)))
    seconds_of(step, count)
    peak, rounds, ratios = peak_mib(), [], []  # the peak before anything else is made
    other = step_of(cell._replace(transform="affine")) if cell.transform != "affine" else None
    if other:
        seconds_of(other, 2)
    for _ in range(ROUNDS):  # in turns
        rounds.append(seconds_of(step, count))
        if other:
            ratios.append(seconds_of(other, count) / rounds[-1])
    found = {"throughput": cell.batch * count / statistics.median(rounds), "peak_mib": peak}
    return dict(found, ratio=statistics.median(ratios)) if ratios else found


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    if len(sys.argv) > 1:
        found = measure(Cell.of(json.loads(sys.argv[1])))
    else:
        found = {"peak_mib": peak_mib(), "versions": {
            "python": platform.python_version(), "numpy": np.__version__, "mxnet": mx.__version__}}
    print(json.dumps(found))


if __name__ == "__main__":
    cli.run(main)
