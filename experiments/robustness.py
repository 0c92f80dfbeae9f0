"""Does a transformer make a network worse? Many short trainings, with it and without.

    python -m experiments.robustness            # runs what is missing; then as --print
    python -m experiments.robustness --print    # prints the tables of what there is

Each network is trained by each optimizer, with each head of the localisation network and without
a transformer, from the same start on the same batches of MNIST digits: 3 passes over 3,000 images,
in batches of 32, by a constant rate. It starts from scratch, or goes on to the digits 5 to 9 from a
network that has learnt 0 to 4 by Adam, or from scratch with digits black on white, whose background
is not the 0 that is sampled outside. A cell fails when the network with its transformer ends more
than a point below the same one without, where that one learns at all.

Some cells fail by chance, and in the network that adds, two transformers give the classifier two
pictures in place of one. So one of the heads is held at the identity: where that one fails, it is
not for what transformers do. And where the stable head is surely worse than that one, which of so
many cells some are by chance alone, it is trained again by other seeds.

Runs are on one CPU device, one at a time, seed by seed; stopped at any time, it goes on.
"""
import functools
import itertools
import json
import statistics
from typing import NamedTuple

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

import symbols
from common import cli, files, markdown
from common.data import batches, datasets
from common.graph import rewrite
from common.models.metrics import score
from common.training.fused_update import Module
from common.training.recipe import SeededInit
from experiments import done_runs
from symbols import stn

RESULT = "results/robustness.json"
BATCH, EPOCHS, TRAIN, TEST = 32, 3, 3000, 2000
SEEDS, OTHER_SEEDS = range(8), range(8, 32)
SETTINGS = {"batch": BATCH, "epochs": EPOCHS, "train": TRAIN, "test": TEST,
            "head": [stn.PACE, stn.COMMON]}
LEARNS = 0.25  # of the network without a transformer: below, the rate does not train it at all
WORSE = 0.01  # by how much a cell fails

HEADS = {"held": {"lr_mult": 0}, "stable": {"stable": True},
         "plain, lr_mult 0.01": {"lr_mult": 0.01}, "plain, lr_mult 0.1": {"lr_mult": 0.1},
         "plain, lr_mult 1": {"lr_mult": 1},
         "stable, border": {"stable": True, "outside": "border"},
         "plain, lr_mult 1, border": {"lr_mult": 1, "outside": "border"}}
COMPARED = (None, "held", "stable")  # of all seeds
PLAIN = ("plain, lr_mult 0.01", "plain, lr_mult 0.1", "plain, lr_mult 1")
BORDER = ("plain, lr_mult 1", "stable, border", "plain, lr_mult 1, border")
NETWORKS = ("lenet", "cnn", "mlp", "addition", "residual")
TRANSFORMS = ("affine", "similarity", "projective", "tps")
OPTIMIZERS = {
    "SGD 0.01": ("sgd", {"learning_rate": 0.01}),
    "SGD 0.05": ("sgd", {"learning_rate": 0.05}),
    "SGD 0.1": ("sgd", {"learning_rate": 0.1}),
    "SGD 0.01, momentum": ("sgd", {"learning_rate": 0.01, "momentum": 0.9}),
    "SGD 0.05, momentum": ("sgd", {"learning_rate": 0.05, "momentum": 0.9}),
    "SGD 0.1, momentum": ("sgd", {"learning_rate": 0.1, "momentum": 0.9}),
    "NAG 0.05": ("nag", {"learning_rate": 0.05, "momentum": 0.9}),
    "RMSProp 0.001": ("rmsprop", {"learning_rate": 0.001}),
    "Adam 0.001": ("adam", {"learning_rate": 0.001}),
    "Adam 0.003": ("adam", {"learning_rate": 0.003}),
    "Adam 0.01": ("adam", {"learning_rate": 0.01}),
}
HARDEST = ("SGD 0.05, momentum", "SGD 0.1, momentum", "RMSProp 0.001", "Adam 0.01")


class Start(NamedTuple):
    """Where trainings start from, and what is run there with the affine transform."""

    title: str
    optimizers: tuple
    heads: tuple  # beside those of ``COMPARED``
    seeds: int  # of these heads


STARTS = {
    "tuned": Start("fine-tuned", ("SGD 0.01", "SGD 0.05, momentum", "Adam 0.003"), PLAIN, 1),
    "scratch": Start("from scratch", tuple(OPTIMIZERS), PLAIN, 1),
    "white": Start("black on white", ("SGD 0.05", "SGD 0.05, momentum", "Adam 0.003"), BORDER, 3),
}


class Run(NamedTuple):
    """A training; without a transformer, head and transform are None."""

    network: str
    transform: str
    optimizer: str
    start: str  # of STARTS
    head: str
    seed: int

    @property
    def name(self):
        return "/".join(str(part) for part in self if part is not None)

    @property
    def without(self):
        """The same without a transformer."""
        return self._replace(transform=None, head=None)

    @property
    def held(self):
        """The same with a transformer that is held at the identity, whichever that is."""
        return self._replace(transform="affine", head="held")


def all_runs():
    """What is to be run, seed by seed: of the other transforms the hardest optimizers alone."""
    cells_of = {name: [(network, "affine", optimizer, name) for optimizer in start.optimizers
                       for network in NETWORKS] for name, start in STARTS.items()}
    others = [(network, transform, optimizer, "scratch") for transform in TRANSFORMS[1:]
              for optimizer in HARDEST for network in NETWORKS]
    runs = []
    for seed in SEEDS:
        for name, start in STARTS.items():
            heads = COMPARED + (start.heads if seed < start.seeds else ())
            runs += [_run(cell, head, seed) for cell in cells_of[name] for head in heads]
        runs += [_run(cell, "stable", seed) for cell in others]
    return runs


def _run(cell, head, seed):
    network, transform, optimizer, start = cell
    return Run(network, transform if head else None, optimizer, start, head, seed)


def residual(num_classes=10, add_stn=True, image_shape=(1, 28, 28), transform="affine",
             stable=True, outside="zero"):
    """A small residual network with BatchNorm, and ``stn.py`` lifted into it, on feature maps."""
    net = _normalised(mx.sym.Variable("data"), 8, "conv0", stride=(2, 2))
    if add_stn:
        features = mx.sym.Convolution(net, num_filter=8, kernel=(3, 3), stride=(2, 2),
                                      name="stn_loc_conv1")
        features = mx.sym.Activation(features, act_type="relu", name="stn_loc_relu1")
        loc = stn.localisation_head(features, transform, stable=stable, attr={"lr_mult": 1})
        net = stn.spatial_transformer(net, loc, [size // 2 for size in image_shape[1:]], transform,
                                      outside=outside)
    for index, num_filter in enumerate((8, 16), start=1):
        name, stride = f"block{index}", (index, index)
        inner = _normalised(net, num_filter, f"{name}_conv1", stride)
        inner = _normalised(inner, num_filter, f"{name}_conv2", act=False)
        if index > 1:
            net = _normalised(net, num_filter, f"{name}_shortcut", stride, (1, 1), act=False)
        net = mx.sym.Activation(net + inner, act_type="relu", name=f"{name}_relu")
    net = mx.sym.Pooling(net, pool_type="avg", global_pool=True, kernel=(1, 1), name="pool")
    net = mx.sym.Flatten(net, name="flatten")
    net = mx.sym.FullyConnected(net, num_hidden=num_classes, name="fc")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def _normalised(net, num_filter, name, stride=(1, 1), kernel=(3, 3), act=True):
    net = mx.sym.Convolution(net, num_filter=num_filter, kernel=kernel, stride=stride,
                             pad=[size // 2 for size in kernel], no_bias=True, name=name)
    net = mx.sym.BatchNorm(net, fix_gamma=False, name=f"{name}_bn")
    return mx.sym.Activation(net, act_type="relu", name=f"{name}_relu") if act else net


def network_of(run, num_classes, image_shape):
    """The training symbol of a run."""
    build = residual if run.network == "residual" else functools.partial(
        symbols.get_symbol, run.network)
    if run.head is None:
        return build(num_classes=num_classes, add_stn=False, image_shape=image_shape)
    head = HEADS[run.head]
    symbol = build(num_classes=num_classes, image_shape=image_shape, transform=run.transform,
                   stable=head.get("stable", False), outside=head.get("outside", "zero"))
    if "lr_mult" not in head:
        return symbol
    slower = [name for name, attrs in symbol.attr_dict().items() if "__lr_mult__" in attrs]
    return rewrite.with_lr_mult(symbol, slower, head["lr_mult"])


@functools.lru_cache(maxsize=None)
def images_of(network, digits, white):
    """Training and test images with the labels that are to be learnt, and their number."""
    mnist = datasets.load("mnist")
    parts = []
    for images, labels, count, seed in ((mnist.train_images, mnist.train_labels, TRAIN, 0),
                                        (mnist.test_images, mnist.test_labels, TEST, 1)):
        chosen = np.flatnonzero(np.isin(labels, digits))[:count]
        images, labels = images[chosen], labels[chosen] - min(digits)
        images = 255 - images if white else images
        if network == "addition":
            partner = np.random.RandomState(seed).permutation(len(images))
            images = np.stack([images, images[partner]], axis=1)
            labels = labels + labels[partner]
        parts.append((images, labels))
    classes = len(digits) if network != "addition" else 2 * len(digits) - 1
    return parts, classes


def train(run, digits, params=None):
    """A Module trained on some of the digits, and its test accuracy.

    Args:
        run: a ``Run``.
        digits: to tell apart.
        params: to go on from, of which the last layer's are left out.
    """
    (train_part, test_part), classes = images_of(run.network, digits, run.start == "white")
    images = batches.ImageIter(*train_part, BATCH, seed=run.seed)
    symbol = network_of(run, classes, images.image_shape)
    fast = rewrite.for_cpu(symbol, [mx.cpu()], "float32", data=images.provide_data[0].shape)
    module = Module(fast, context=[mx.cpu()])
    module.bind(images.provide_data, images.provide_label)
    start = SeededInit(mx.init.Xavier(), run.seed)
    if params:  # the last layer is new
        last = json.loads(symbol.tojson())["nodes"][-3]["name"]
        params = [{name: value for name, value in part.items() if not name.startswith(f"{last}_")}
                  for part in params]
    module.init_params(start, *(params or (None, None)), allow_missing=True)
    kind, options = OPTIMIZERS[run.optimizer]
    module.init_optimizer(mx.kv.create("local"), kind, dict(options))
    for epoch in range(EPOCHS):
        images.seek(epoch)
        mx.random.seed(batches.derive_seed(run.seed, epoch))
        for batch in images:
            module.forward_backward(batch)
            module.update()
    return module, score(module, batches.ImageIter(*test_part, 250)).accuracy


@functools.lru_cache(maxsize=None)
def learnt(run):
    """The parameters of a network that has learnt 0 to 4."""
    module, _ = train(run, tuple(range(5)))
    return module.get_params()


def accuracy(run):
    """The test accuracy that a run ends with; NaN counts as none."""
    if run.start != "tuned":
        return train(run, tuple(range(10)))[1]
    base = learnt(run._replace(optimizer="Adam 0.003"))
    return train(run, tuple(range(5, 10)), base)[1]


def load(path):
    """The accuracies of the runs that are done, by name.

    Raises ValueError if the file is no result, or one of other settings.
    """
    return done_runs.load(path, "experiments.robustness", SETTINGS, "accuracies", tables)


class Cell(NamedTuple):
    """How a head does."""

    network: str
    transform: str
    optimizer: str
    start: str
    head: str
    runs: list  # accuracies in %: with it, without a transformer, with one held (None if not run)

    @property
    def without(self):
        return statistics.mean(without for _, without, _ in self.runs)

    @property
    def learns(self):
        return self.without >= 100 * LEARNS

    @property
    def differences(self):
        """To no transformer, in points, seed by seed."""
        return [accuracy - without for accuracy, without, _ in self.runs]

    @property
    def differences_to_held(self):
        return [accuracy - held for accuracy, _, held in self.runs
                if held is not None and self.head != "held"]


def _worse(differences, points=100 * WORSE):
    return statistics.mean(differences) < -points


def _surely_worse(differences):
    """Whether those of 3 seeds or more are worse, by more than twice their standard error."""
    return (len(differences) >= 3 and _worse(differences)
            and statistics.mean(differences) < -2 * _standard_error(differences))


def _standard_error(differences):
    return statistics.stdev(differences) / len(differences) ** 0.5


def cells(done, runs=None):
    """The ``Cell`` of every combination that has been run with and without a transformer.

    Args:
        done: accuracies by name.
        runs: those of the cells, in place of all of the tables.
    """
    percent, found = {name: 100 * accuracy for name, accuracy in done.items()}, {}
    for run in all_runs() if runs is None else runs:
        if run.head and run.name in percent and run.without.name in percent:
            found.setdefault(run[:-1], []).append(
                (percent[run.name], percent[run.without.name], percent.get(run.held.name)))
    return [Cell(*key, runs) for key, runs in found.items()]


def runs_again(done):
    """The runs by other seeds, where the stable head is surely worse than one that is held."""
    behind = [cell for cell in cells(done) if cell.head == "stable" and cell.learns
              and _surely_worse(cell.differences_to_held)]
    stable = [Run(*cell[:-1], seed) for cell in behind for seed in OTHER_SEEDS]
    return [again for run in stable for again in (run.without, run.held, run)]


def tables(done):
    """The tables: failed cells of each head, and each cell of the networks by optimizer."""
    every = cells(done)
    again = [cell for cell in cells(done, runs_again(done)) if cell.head == "stable"]
    parts = [_heads_table(every)]
    if again:
        parts.append(_again_table(again))
    for start, transform in dict.fromkeys((cell.start, cell.transform) for cell in every):
        some = [cell for cell in every if (cell.start, cell.transform) == (start, transform)]
        parts.append(_networks_table(some, start, transform))
    return "\n\n".join(parts)


def _heads_table(every):
    rows = []
    for head in HEADS:
        counted = [cell for cell in every if cell.head == head and cell.learns]
        if counted:
            found = [cell.differences for cell in counted]
            means = [statistics.mean(differences) for differences in found]
            rows.append([head, len(counted), *_counts(found),
                         sum(_worse(differences, points=20) for differences in found),
                         f"{min(means):+.1f}", f"{statistics.mean(means):+.1f}",
                         *_counts([cell.differences_to_held for cell in counted])])
    return markdown.table(
        ["head", "cells", "worse by 1 point", "surely", "by 20 points", "worst, points",
         "mean, points", "worse than held, by 1 point", "surely"], rows)


def _counts(found):
    """Of some cells' differences: how many are worse, and how many surely, of 3 seeds or more."""
    found = [differences for differences in found if differences]
    several = [differences for differences in found if len(differences) >= 3]
    return [f"{sum(map(_worse, found))} of {len(found)}" if found else "",
            f"{sum(map(_surely_worse, several))} of {len(several)}" if several else ""]


def _again_table(again):
    rows = [[f"{STARTS[cell.start].title}, {cell.network}, {cell.transform}, {cell.optimizer}",
             len(cell.runs), f"{cell.without:.1f}", _with_error(cell.differences),
             _with_error(cell.differences_to_held)] for cell in again]
    return markdown.table(["again, by other seeds", "seeds", "without, %", "stable, points",
                           "stable beside held, points"], rows)


def _with_error(differences):
    if len(differences) < 2:
        return ""
    return f"{statistics.mean(differences):+.1f} ± {_standard_error(differences):.1f}"


def _networks_table(some, start, transform):
    rows = []
    for optimizer, head in itertools.product(OPTIMIZERS, HEADS):
        row = {cell.network: cell for cell in some
               if (cell.optimizer, cell.head) == (optimizer, head)}
        if row:
            rows.append([optimizer, head, *(_entry(row.get(name)) for name in NETWORKS)])
    return markdown.table([f"{STARTS[start].title}, {transform}", "head", *NETWORKS], rows)


def _entry(cell):
    if cell is None:
        return ""
    differences = cell.differences
    spread = f" ± {statistics.stdev(differences):.1f}" if len(differences) > 1 else ""
    text = f"{cell.without:.1f} {statistics.mean(differences):+.1f}{spread}"
    if not cell.learns:
        return f"({text})"
    return f"**{text}**" if _worse(differences) else text


def main():
    parser = cli.Parser(prog="experiments.robustness",
                        description="Short trainings with and without transformers.")
    flag = parser.add_argument
    flag("--print", action="store_true", help="train nothing, print the tables of what there is")
    flag("--result", default=RESULT, help="file of the accuracies, as JSON")
    args = parser.parse_args()
    if not args.print:
        files.prepare_output(args.result)
        with files.exclusive(f"{args.result}.lock"):
            done = load(args.result)
            _run_missing(all_runs(), done, args.result)
            _run_missing(runs_again(done), done, args.result)
    done = load(args.result)
    if not done:
        raise ValueError(f"{args.result}: no figures yet: leave out --print")
    print(tables(done))


def _run_missing(runs, done, path):
    for number, run in enumerate(runs, start=1):
        if run.name in done:
            continue
        done[run.name] = round(accuracy(run), 4)
        done_runs.save(path, SETTINGS, "accuracies", done)
        print(f"{number} of {len(runs)}  {run.name}: {done[run.name]:.2%}", flush=True)


if __name__ == "__main__":
    cli.run(main)
