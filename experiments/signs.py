"""Trains the residual network on drawn traffic signs, with no transformer, one and two.

    python -m experiments.signs            # trains what is missing; then as --print
    python -m experiments.signs --print    # prints the table of what there is
    python -m experiments.signs --choose   # how the rate is chosen: on held-out training images
    python -m experiments.signs --draw     # the picture of docs/signs.md

One transformer is at the input, a second one before the first stage. Each run is a
``train_mnist.py`` on one device; all can be stopped and go on. A finished run leaves its figures in
``results/signs/<row>/seed-<n>.json``, one of ``--choose`` in ``results/signs-choice``.
"""
from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import numpy as np

from common import cli, markdown
from common.data import signs
from common.find_mxnet import usable_cores
from common.reports import pictures, results, training_runs

SEEDS = range(3)
ROWS = {
    "resnet": [],
    "resnet-stn": ["--add-stn"],
    "resnet-stn-twice": ["--add-stn", "--stn-at", "input,stage1"],
}
RECIPE = ["--dataset", "signs", "--network", "resnet", "--num-examples", "12000",
          "--num-epochs", "10", "--cpus", "1"]
LR = "0.003"  # one of these, by --choose
RATES = ("0.001", "0.003", "0.01")
HELD_OUT = "2000"  # training images, to choose by
FOLDER, CHOICE = "results/signs", "results/signs-choice"


def all_runs():
    """The runs of the table, seed by seed."""
    return [training_runs.Run(f"{row}/seed-{seed}",
                              [*RECIPE, "--lr", LR, "--seed", str(seed), *flags])
            for seed in SEEDS for row, flags in ROWS.items()]


def choices():
    """The runs that tell rates apart: of one seed, without some of the training images."""
    return {(row, rate): training_runs.Run(
        f"{row}/lr-{rate}", [*RECIPE, "--lr", rate, "--validation", HELD_OUT, *flags])
        for rate in RATES for row, flags in ROWS.items()}


def table_of_choices(folder):
    """The accuracies on held-out images, in %, as Markdown; nothing for what has not been run."""
    def cell(run):
        figures = training_runs.figures(run, folder)
        return "" if figures is None else f"{100 * figures['validation_accuracy']:.2f}"

    runs = choices()
    return markdown.table(["held-out accuracy, %", *(f"--lr {rate}" for rate in RATES)],
                          [[row, *(cell(runs[row, rate]) for rate in RATES)] for row in ROWS])


def draw(path):
    """Draws each class: its face, and a picture of the dataset beside it."""
    faces = signs.faces(48)
    on_grey = np.rint(255 * (faces[..., :3] + 0.6 * (1 - faces[..., 3:]))).astype(np.uint8)
    images, labels = signs.draw(signs.CLASSES, seed=0)
    pairs = np.concatenate([on_grey.transpose(0, 3, 1, 2), images[np.argsort(labels)]], axis=3)
    pictures.save(pictures.sheet(pairs, signs.CLASS_NAMES, "The 43 signs"), path)


def main():
    parser = cli.Parser(prog="experiments.signs", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("--print", action="store_true", help="train nothing, print the table of what there is")
    flag("--choose", action="store_true", help="the runs that choose the rate, and their table")
    flag("--draw", action="store_true", help="train nothing, draw the picture of docs/signs.md")
    flag("--jobs", type=cli.number(int, least=1), default=usable_cores(), help="runs at a time")
    args = parser.parse_args()
    if args.draw:
        draw("pictures/signs.jpg")
        return
    runs, folder = all_runs(), FOLDER
    if args.choose:
        runs, folder = list(choices().values()), CHOICE
    if not args.print:
        training_runs.train(runs, folder, f"models/{folder}", args.jobs)
    print(table_of_choices(folder) if args.choose else results.table(folder))


if __name__ == "__main__":
    cli.run(main)
