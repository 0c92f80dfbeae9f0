"""How fast variants of prediction and of transformers are, side by side.

    python -m experiments.variants      # some minutes; nothing else should run meanwhile
    python -m experiments.variants --only forward      # a group alone anew

Pieces: a Predictor of the LeNet with its transformer, called with many images, by how many of them
a device computes at once. Transforms: a transformer alone, on one device. Number types: networks of
published/ on one device, in bfloat16 as MXNet's amp converts them and in int8 as export.py does;
their accuracy is of training images. Each figure is the median of rounds in which the variants take
turns. Calls: Predictors of these networks, with many images.
"""
import os
import statistics
from functools import partial
from unittest import mock

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np
from mxnet.contrib import amp

import symbols
from common import cli, files, markdown
from common.data import datasets
from common.data.batches import PIXEL
from common.graph import constants, padding, rewrite
from common.models import card, predict, quantize, trained
from common.processor import lanes
from common.provenance import provenance
from experiments import machine
from experiments.protocol import throughput
from symbols import stn

ROUNDS, SECONDS = 7, 1
IMAGES, PIECES = 8192, (128, 32, 64, 256, 512)
PICTURES = (32, 3, 224, 224)
NETWORKS, SHAPE = ("mnist-lenet", "mnist-lenet-stn", "mnist-R-cnn-stn"), (128, 1, 28, 28)
DEVICE = mx.cpu(1)


def piece(size):
    """A function that predicts ``IMAGES`` images in pieces of a size."""
    symbol = symbols.get_symbol("lenet")
    module = mx.mod.Module(symbol)
    module.bind([("data", SHAPE)], [("softmax_label", SHAPE[:1])])
    module.init_params(mx.init.Xavier())
    with mock.patch.object(predict, "largest_piece", return_value=size):
        predictor = predict.Predictor(rewrite.label_free(symbol), *module.get_params(), SHAPE[1:],
                                      batch_size=10**6)
    images = np.random.RandomState(0).randint(0, 256, (IMAGES, *SHAPE[1:])).astype(np.uint8)
    return partial(predictor, images), IMAGES


def transform(name, backward):
    """A function that warps ``PICTURES`` by maps near the identity."""
    rng, identity = np.random.RandomState(0), stn.get_transform(name).identity
    thetas = rng.normal(identity, 0.05, (PICTURES[0], len(identity)))
    net = stn.spatial_transformer(mx.sym.Variable("data"), mx.sym.Variable("theta"), PICTURES[2:],
                                  name)
    args = {"data": mx.nd.array(rng.uniform(size=PICTURES), DEVICE),
            "theta": mx.nd.array(thetas, DEVICE)}
    executor = net.bind(DEVICE, args, {key: value.copy() for key, value in args.items()},
                        grad_req="write" if backward else "null")
    gradient = mx.nd.ones(PICTURES, DEVICE)

    def step():
        executor.forward(is_train=backward)
        if backward:
            executor.backward(gradient)
        mx.nd.waitall()
    return step, PICTURES[0]


def number_type(network, dtype):
    """A function that predicts a batch in a type; and the accuracy of that."""
    images, labels = datasets.load("mnist")[:2]
    images, labels = images[-4096:, None] * PIXEL, labels[-4096:]
    found = trained.load(os.path.join(trained.PUBLISHED, network))
    symbol, params = CONVERTED[dtype](found, images)
    data = mx.nd.zeros(SHAPE, mx.cpu())
    executor = symbol.bind(mx.cpu(), {**params, "data": data}, grad_req="null")
    correct = 0
    for start in range(0, len(images), SHAPE[0]):
        data[:] = images[start:start + SHAPE[0]]
        answers = executor.forward(is_train=False)[0].asnumpy()
        correct += (answers.argmax(axis=1) == labels[start:start + SHAPE[0]]).sum()

    def step():
        executor.forward(is_train=False)
        mx.nd.waitall()
    return step, SHAPE[0], correct / len(images)


def called(network, in_int8):
    """A function that predicts ``IMAGES`` images by a Predictor of a published network."""
    path = os.path.join(trained.PUBLISHED, network)
    found, images = trained.load(path), card.training_images(path, None, IMAGES)
    shape = found.made_for()
    if in_int8:
        symbol, _ = quantize.in_int8(found, shape, images[:quantize.IMAGES])
        found = found._replace(training=symbol)
    return partial(found.predictor(shape), images), IMAGES


def _padded(network):
    """A network's symbol and params, with what they alone decide computed."""
    symbol = padding.pad_convolutions(rewrite.without_copies(network.symbol), for_training=False,
                                      data=SHAPE)
    return constants.fold(symbol, network.arg_params, mx.cpu(), [SHAPE])


def _float32(network, _):
    symbol, params = _padded(network)
    return symbol.get_backend_symbol("MKLDNN"), params


def _bfloat16(network, _):
    symbol, params, _ = amp.convert_model(*_padded(network), {}, target_dtype="bfloat16")
    return symbol.get_backend_symbol("MKLDNN"), params


def _int8(network, images):
    params = network.arg_params
    return quantize.quantized(network.symbol, params, {}, images[:quantize.CALIBRATING]), params


CONVERTED = {"float32": _float32, "bfloat16": _bfloat16, "int8": _int8}
if lanes() < 16:  # oneDNN has no bfloat16 without AVX-512
    del CONVERTED["bfloat16"]
GROUPS = {  # what is compared; the first of each is what the others are compared with
    "pieces": {f"pieces of {size}": partial(piece, size) for size in PIECES},
    "forward": {f"{name}, forward": partial(transform, name, False)
                for name in ("affine", "projective", "tps")},
    "backward": {f"{name}, with backward": partial(transform, name, True)
                 for name in ("affine", "projective", "tps")},
    **{network: {f"{network}, {dtype}": partial(number_type, network, dtype)
                 for dtype in CONVERTED} for network in NETWORKS},
    **{f"{network}, called": {f"{network}, called in {dtype}": partial(
        called, network, dtype == "int8") for dtype in ("float32", "int8")}
       for network in trained.published()},
}


def measure(variants):
    """Name -> images/s, a list of rounds; and, where it has any, the accuracy."""
    made = {name: make() for name, make in variants.items()}
    rounds = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, (step, count, *_) in made.items():
            rounds[name].append(throughput(step, SECONDS, count))
    return {name: {"images_per_second": rounds[name], "accuracy": accuracy[0] if accuracy else None}
            for name, (_, _, *accuracy) in made.items()}


def table(results):
    """The Markdown table of medians, and of the ratios within a round."""
    rows = []
    for variants in results.values():
        first = next(iter(variants.values()))["images_per_second"]
        for name, figures in variants.items():
            rounds, accuracy = figures["images_per_second"], figures["accuracy"]
            ratio = statistics.median(own / other for own, other in zip(rounds, first))
            rows.append([name, f"{statistics.median(rounds):,.0f}", f"{ratio:.2f}",
                         "" if accuracy is None else f"{accuracy:.2%}"])
    return markdown.table(["", "images/s", "of the first", "accuracy"], rows)


def load(path):
    """What is in a file, {} if there is none; ValueError for another file."""
    return files.figures(path, "experiments.variants", lambda found: found and (
        table(found["groups"]), machine.differences(found["about"], found["about"])))


def run(only, path):
    """Measures a group, or all if None, and writes it into the file; returns what that holds."""
    about, old = machine.about("experiments.variants", provenance()["versions"]), load(path)
    if old and only:
        machine.check_same(path, old["about"], about)
    new = {name: measure(variants) for name, variants in GROUPS.items() if only in (None, name)}
    groups = {**old.get("groups", {}), **new}
    groups = {name: groups[name] for name in GROUPS if name in groups}
    files.write_json(path, {"about": about, "groups": groups})
    return groups


def main():
    parser = cli.Parser(prog="experiments.variants", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("--only", choices=GROUPS, help="one group of variants; by default all")
    flag("--result", default="results/variants.json", help="file of the figures")
    args = parser.parse_args()
    files.prepare_output(args.result)
    with files.exclusive(f"{args.result}.lock"):
        groups = run(args.only, args.result)
    print(table(groups))


if __name__ == "__main__":
    cli.run(main)
