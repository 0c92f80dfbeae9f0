"""Trains a network with and without its transformer, over seeds, and compares the two.

    python compare_stn.py                                             # the LeNet on MNIST
    python compare_stn.py --network cnn --distort R --num-epochs 10   # flags as of train_mnist.py

For each seed both arms see the same batches and start from the same classifier. What has been
trained is not trained again: the command can be stopped at any time and goes on.
"""
import argparse
import os
import re
import statistics
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import numpy as np

import symbols
import train_mnist
from common import cli, files, markdown
from common.reports import pictures, training_runs
from common.training import pretrained

ARMS = ("without", "with")
INPUTS = ("data", "softmax_label")  # of every network
UNFIT = ("add_stn", "benchmark", "draw_graph", "keep_best", "keep_last", "load_epoch",
         "model_prefix", "overwrite", "result", "resume", "seed", "summary", "tensorboard",
         "test_io", "visualize_every")  # flags of a single run
# 97.5% quantiles of Student's t for 1, 2, ... degrees of freedom.
T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
     2.12, 2.11, 2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04)


def parse_flags():
    """The flags, those among them that runs get (name -> value), and the name of the model."""
    parser = cli.Parser(prog="compare_stn.py", description=__doc__.splitlines()[0])
    train_mnist.add_flags(parser)
    flag = parser.add_argument_group("comparison").add_argument
    flag("--seeds", type=cli.number(int, least=1, most=len(T) + 1), default=5,
         help="runs of each arm")
    flag("--output", type=cli.path,
         help="folder to write to; by default results/compare/<name of the model>")
    args = parser.parse_args()
    given = {name: value for name, value in vars(args).items()
             if name not in ("seeds", "output") and value != parser.get_default(name)}
    for name in UNFIT:
        if name in given:
            raise ValueError(f"{cli.flag_of(name)} is for a single run, not for a comparison")
    with_it = argparse.Namespace(**{**vars(args), "add_stn": True})
    train_mnist.check(with_it)
    check_patterns(given)
    name = os.path.basename(train_mnist.model_prefix(with_it))
    return args, given, name


def as_flags(given):
    """Values by name, as ``argparse`` gave them, as flags again."""
    flags = []
    for name, value in sorted(given.items()):
        flag = cli.flag_of(name)
        if value is True:
            flags.append(flag)
            continue
        word = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        flags += [f"{flag}={word}"] if word.startswith("-") else [flag, word]
    return flags


def runs_of(given, seeds):
    """The runs of both arms, seed by seed."""
    flags = {"without": as_flags(of_classifier(given)), "with": [*as_flags(given), "--add-stn"]}
    return [training_runs.Run(f"{arm}/seed-{seed}", [*flags[arm], "--seed", str(seed)])
            for seed in range(seeds) for arm in ARMS]


def of_classifier(given):
    """Those flags that have a meaning without the transformer, of flags that a comparison gets.

    Patterns that match nothing but the transformer's parameters are none of them, nor is a model
    of which they leave nothing else.
    """
    names = pretrained.parameters(network_of(given, "without"), INPUTS)
    found = {flag: [name for name in names if re.match(given[flag], name)]
             for flag in ("fix", "reset") if flag in given}
    useless = {*train_mnist.OF_TRANSFORMER, *(flag for flag in found if not found[flag])}
    if found.get("reset") == names:
        useless |= {"pretrained", "reset"}
    return {name: value for name, value in given.items() if name not in useless}


def network_of(given, arm):
    """The network of an arm, as far as the names of its parameters go.

    It is one for images of its own default size, which may be too small to pool.
    """
    options = train_mnist.network_options(given)
    options.pop("pool", None)
    if arm == "without":
        options = {name: value for name, value in options.items()
                   if name not in train_mnist.OF_TRANSFORMER}
    return symbols.get_symbol(given.get("network", "lenet"), add_stn=arm == "with", **options)


def check_patterns(given):
    """Raises ValueError for patterns that match nothing, or leave an arm nothing to train."""
    for arm, flags in (("without", of_classifier(given)), ("with", given)):
        symbol = network_of(given, arm)
        try:
            pretrained.fixed(flags.get("fix"), symbol, INPUTS)
            pretrained.matching("--reset", flags.get("reset"),
                                pretrained.parameters(symbol, INPUTS))
        except ValueError as error:
            raise ValueError(f"{arm} the transformer: {error}") from None


def compare(folder, seeds):
    """What the runs of a folder say.

    Returns:
        ``{"arms": {arm: figures}, "difference": percentage points, "interval": half the width of
        its 95% confidence interval, None for one seed, "overhead": of the time}``.
    """
    arms = {arm: _arm([_figures(training_runs.result_path(folder, f"{arm}/seed-{seed}"))
                       for seed in range(seeds)]) for arm in ARMS}
    pairs = zip(arms["without"]["accuracies"], arms["with"]["accuracies"])
    gains = [with_it - without for without, with_it in pairs]
    interval = T[seeds - 2] * statistics.stdev(gains) / seeds ** 0.5 if seeds > 1 else None
    return {"arms": arms, "difference": statistics.mean(gains), "interval": interval,
            "overhead": arms["with"]["seconds_per_epoch"]
            / arms["without"]["seconds_per_epoch"] - 1}


def _figures(path):
    """The figures of a run; ValueError if they lack what is compared."""
    figures = training_runs.read(path)
    if not all(figures.get(name) for name in ("epochs", "seconds", "history")):
        raise ValueError(f"{path}: its epochs, seconds or history are missing: remove it to train "
                         "it again")
    return figures


def _arm(runs):
    """The figures of an arm."""
    accuracies = [100 * run["test_accuracy"] for run in runs]
    return {"accuracies": accuracies,
            "mean": statistics.mean(accuracies),
            "spread": statistics.stdev(accuracies) if len(runs) > 1 else None,
            "parameters": runs[0]["parameters"],
            "seconds_per_epoch": statistics.median(run["seconds"] / run["epochs"] for run in runs),
            "history": [run["history"] for run in runs]}


def report(compared):
    """The table of a comparison and, below it, what the transformer gains."""
    table = markdown.table(
        ["transformer", "seeds", "test accuracy, %", "parameters", "s per epoch"],
        [[arm, len(figures["accuracies"]), _plus_minus(figures["mean"], figures["spread"]),
          f"{figures['parameters']:,}", f"{figures['seconds_per_epoch']:.1f}"]
         for arm, figures in compared["arms"].items()])
    gain = _plus_minus(compared["difference"], compared["interval"], "+")
    sure = " (95% confidence)" if compared["interval"] is not None else ""
    return (f"{table}\n\nWith the transformer: {gain} points{sure}, paired by seed, "
            f"for {compared['overhead']:+.0%} of time.")


def _plus_minus(value, spread, sign=""):
    return f"{value:{sign}.2f}" + ("" if spread is None else f" ± {spread:.2f}")


def curves(compared):
    """A figure of accuracy and loss after each epoch, on the images that are scored then."""
    epoch = compared["arms"][ARMS[0]]["history"][0][0]
    part = "validation" if "validation_accuracy" in epoch else "test"

    def of_arms(name, factor=1):
        curves = {}
        for arm, figures in compared["arms"].items():
            runs = [[epoch[name] for epoch in history] for history in figures["history"]]
            curves[f"{arm} transformer"] = factor * np.array(runs)
        return curves

    return pictures.curves({f"{part} accuracy, %": of_arms(f"{part}_accuracy", 100),
                            f"{part} loss, nats": of_arms(f"{part}_loss")}, "epochs")


def main():
    args, given, name = parse_flags()
    folder = args.output or os.path.join("results", "compare", name)
    files.prepare_output(os.path.join(folder, "comparison.json"))
    training_runs.train(runs_of(given, args.seeds), folder, os.path.join("models", "compare", name))
    compared = compare(folder, args.seeds)
    files.write_json(os.path.join(folder, "comparison.json"), compared)
    text = report(compared)
    files.write_bytes(os.path.join(folder, "comparison.md"), f"{text}\n".encode())
    pictures.save(curves(compared), os.path.join(folder, "curves.png"))
    print(f"\n{text}\n\nWritten: {folder}")


if __name__ == "__main__":
    cli.run(main)
