"""Trains the paper's network for house numbers on drawn ones: CNN, ST-CNN Single and Multi.

    python -m experiments.numbers            # trains what is missing; then as --print
    python -m experiments.numbers --print    # prints the table of what there is
    python -m experiments.numbers --choose   # how the rate is chosen: on held-out training images
    python -m experiments.numbers --speed    # measures the time of a step, when all else is quiet
    python -m experiments.numbers --draw     # the picture of docs/numbers.md

Single has one transformer at the input, Multi one before each of the first four convolutions.
``experiments/rows.py`` says where the figures are; the times are in ``results/numbers/speed.json``.
"""
from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import os
import statistics

import symbols
import train_mnist
from common import cli, files, markdown
from common.data import class_list, numbers
from common.data.batches import ImageIter
from common.provenance import provenance
from common.reports import pictures, results, training_runs
from common.training import fit, flags
from experiments.rows import Rows

EXPERIMENT = Rows(
    name="numbers",
    rows={
        "cnn": [],
        "st-cnn-single": ["--add-stn", "--stable"],
        "st-cnn-multi": ["--add-stn", "--stable", "--stn-at", "input,conv2,conv3,conv4"],
    },
    # A quarter of the paper's filters: two cores train it.
    recipe=["--dataset", "numbers", "--network", "svhn", "--width", "12", "--dropout", "0",
            "--num-examples", "28000", "--num-epochs", "3", "--batch-size", "32",
            "--warmup-epochs", "0.25", "--cpus", "1"],
    lr="0.001",  # by --choose
    rates=("0.0005", "0.001", "0.002"),
    held_out="2000",
    choice_seed=100)
SPEED = "speed.json"
IMAGES, ROUNDS = 1280, 5  # that the time is measured with
SHOWN = 24  # pictures


def table(folder, all_runs):
    """The Markdown table of errors in %, parameters, and times relative to the CNN's.

    Args:
        folder: of the results.
        all_runs: of the experiment; those that are not there yet are left out.
    """
    speed = files.figures(os.path.join(folder, SPEED), "experiments.numbers",
                          lambda found: [1 / found["seconds"][row] for row in EXPERIMENT.rows])
    times = speed.get("seconds")
    rows = []
    for row in EXPERIMENT.rows:
        runs = [run for run in all_runs if run.name.startswith(f"{row}/")]
        found = list(filter(None, (training_runs.figures(run, folder) for run in runs)))
        if not found:
            continue
        errors = [100 * (1 - figures["test_accuracy"]) for figures in found]
        time = f"{times[row] / times['cnn']:.2f}" if times else ""
        rows.append([*results.row(row, errors, found[0]["parameters"]), time])
    return markdown.table(["network", "seeds", "whole-number error, %", "lowest", "highest",
                           "parameters", "time of a step"], rows)


def measure(folder):
    """Measures how long each network trains on a batch, in turns, and writes the medians."""
    images, labels = numbers.draw(IMAGES, seed=0)
    measured = {row: [] for row in EXPERIMENT.rows}
    for _ in range(ROUNDS):
        for row, own in EXPERIMENT.rows.items():
            parser = cli.Parser()
            train_mnist.add_flags(parser)
            args = parser.parse_args([*EXPERIMENT.recipe, "--lr", EXPERIMENT.lr, *own,
                                      "--num-epochs", "2", "--warmup-epochs", "0"])
            train = ImageIter(images, labels, args.batch_size, seed=0)
            symbol = symbols.get_symbol(
                args.network, num_classes=len(numbers.CLASS_NAMES), add_stn=args.add_stn,
                image_shape=train.image_shape, **train_mnist.network_options(vars(args)),
                **train_mnist.options_for(labels, args))
            speed = fit.training_speed(symbol, train, flags.recipe(args))  # of the last epoch
            measured[row].append(args.batch_size / speed)
    seconds = {row: statistics.median(values) for row, values in measured.items()}
    files.write_json(os.path.join(folder, SPEED), {"seconds": seconds, **provenance()})


def draw(path):
    """Draws some of the dataset's pictures."""
    images, labels = numbers.draw(SHOWN, seed=0)
    pictures.save(pictures.sheet(images, list(map(class_list.as_text, labels)), "Numbers"), path)


def main():
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--speed", action="store_true", help="measure the time of a step")
    parser.add_argument("--draw", action="store_true", help="draw the picture of docs/numbers.md")
    args = parser.parse_args()
    if args.draw:
        draw("pictures/numbers.jpg")
    elif args.speed:
        files.prepare_output(os.path.join(EXPERIMENT.folder, SPEED))
        measure(EXPERIMENT.folder)
        print(table(EXPERIMENT.folder, EXPERIMENT.all_runs()))
    else:
        EXPERIMENT.run(args, table)


if __name__ == "__main__":
    cli.run(main)
