"""Reruns the paper's experiments on distorted MNIST and compares the errors with its own.

    python -m experiments.paper           # trains what is missing, days; then as --print
    python -m experiments.paper --quick   # four cells of them, shorter: minutes
    python -m experiments.paper --print   # prints the tables, writes them into docs/paper.md
    python -m experiments.paper --draw    # draws the distortions, and angles that a network found

Each run is a ``train_mnist.py`` on one CPU device, or two, so that its bits do not depend on how
many cores a machine has; as many run at once as there are cores. A run that was stopped goes on
from its last checkpoint; a finished one leaves its figures in
``results/paper/<column>/<row>/seed-<n>.json``.
"""
import os
import statistics
from typing import NamedTuple

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import numpy as np

from common import cli, files, markdown
from common.data import datasets
from common.data.distort import DISTORTIONS, distort
from common.find_mxnet import usable_cores
from common.models import trained
from common.reports import pictures, results, training_runs


class Recipe(NamedTuple):
    """How long a network is trained, at what rate, and on how many devices."""

    epochs: int
    lr: float
    cpus: int = 1


RECIPES = {"mlp": Recipe(60, 0.004), "cnn": Recipe(16, 0.004)}  # its epochs are long
# Sums are learnt slowly, and at the other rate filters of the CNN die. It takes hours: two devices.
ADDITION_RECIPES = {"mlp": Recipe(90, 0.001), "addition": Recipe(90, 0.001),
                    "cnn": Recipe(110, 0.001, cpus=2)}
SEEDS = range(3)
QUICK = {"columns": ["R"], "rows": ["FCN", "CNN", "ST-FCN affine", "ST-CNN affine"], "epochs": 3}

# Test errors of the paper, %; None for what it did not train.
PAPER = {
    "distorted digits": {
        "columns": ("R", "RTS", "P", "E", "TC"),
        "FCN": (2.1, 5.2, 3.1, 3.2, 13.2),
        "CNN": (1.2, 0.8, 1.5, 1.4, 3.5),
        "ST-FCN affine": (1.2, 0.8, 1.5, 2.7, 2.0),
        "ST-FCN projective": (1.3, 0.9, 1.4, 2.6, None),
        "ST-FCN tps": (1.1, 0.8, 1.4, 2.4, None),
        "ST-CNN affine": (0.7, 0.5, 0.8, 1.2, 1.7),
        "ST-CNN projective": (0.8, 0.6, 0.8, 1.3, None),
        "ST-CNN tps": (0.7, 0.5, 0.8, 1.1, None),
    },
    "two digits to add": {
        "columns": ("addition",),
        "FCN": (47.7,),
        "CNN": (14.7,),
        "ST-FCN affine": (22.6,),
        "2 x ST-FCN affine": (9.0,),
        "2 x ST-FCN projective": (5.9,),
        "2 x ST-FCN tps": (5.8,),
    },
    "with the stable head": {
        "columns": ("R", "RTS"),
        "ST-CNN affine, stable": (0.7, 0.5),
    },
}
NETWORKS = {"FCN": "mlp", "CNN": "cnn", "ST-FCN": "mlp", "ST-CNN": "cnn", "2 x ST-FCN": "addition"}
# So that in each column the FCNs have 400,000 parameters each, within 1%, and the CNNs as many as
# each other; the one that adds has 400,000 too, as it is compared with the others of its table.
WIDTHS = {
    "FCN": {"R": 349, "RTS": 202, "P": 349, "E": 349, "TC": 108, "addition": 109},
    "ST-FCN": {"R": 343, "RTS": 433, "P": 343, "E": 343, "TC": 303, "addition": 306},
    "CNN": {"R": 64, "RTS": 64, "P": 64, "E": 64, "TC": 64, "addition": 175},
    "ST-CNN": {"R": 57, "RTS": 67, "P": 57, "E": 57, "TC": 73},
    "2 x ST-FCN": {"addition": 173},
}
POOLED = ("RTS", "TC", "addition")
PAGE = "docs/paper.md"
MARKS = "<!-- experiments/paper.py writes from here -->", "<!-- to here -->"  # in it


def rows(table):
    """The names of the networks of a table of ``PAPER``."""
    return [name for name in table if name != "columns"]


def all_runs():
    """The runs of all cells, seed by seed, so that the tables are filled evenly."""
    return [run_of(row, column, seed) for seed in SEEDS for table in PAPER.values()
            for row in rows(table) for column in table["columns"]]


def quick_runs():
    """Some of them, shorter, with one seed."""
    return [run_of(row, column, 0, QUICK["epochs"])
            for column in QUICK["columns"] for row in QUICK["rows"]]


def run_of(row, column, seed, epochs=None):
    """The training of a network (a row of ``PAPER``) on a distortion, from a seed."""
    plain_row, _, head = row.partition(", ")
    family, _, transform = plain_row.rpartition(" ") if "ST-" in row else (row, "", None)
    network = NETWORKS[family]
    recipe = (ADDITION_RECIPES if column == "addition" else RECIPES)[network]
    flags = ["--network", network, "--width", WIDTHS[family][column],
             "--distort", column, "--seed", seed, "--num-epochs", epochs or recipe.epochs]
    if transform:
        flags += ["--add-stn", "--transform", transform]
        flags += ["--pool", 2] if column in POOLED else []
        flags += ["--stable"] if head else []
    flags += ["--cpus", recipe.cpus, "--batch-size", 128, "--lr", recipe.lr,
              "--warmup-epochs", 2]
    name = f"{column}/{row.lower().replace(',', '').replace(' ', '-')}/seed-{seed}"
    return training_runs.Run(name, list(map(str, flags)))


def tables(folder, epochs=None):
    """The tables, in Markdown: mean and standard deviation, the paper's figure, the difference.

    Raises ValueError if a file in the folder is no result, or of other flags.
    """
    return "\n\n".join(_table(folder, title, table, epochs) for title, table in PAPER.items())


def _table(folder, title, table, epochs):
    def cells(row):
        for column, paper in zip(table["columns"], table[row]):
            yield _cell(folder, [run_of(row, column, seed, epochs) for seed in SEEDS], paper)

    return markdown.table([title, *table["columns"]], [[row, *cells(row)] for row in rows(table)])


def _cell(folder, seeds, paper):
    done = filter(None, (training_runs.figures(run, folder) for run in seeds))
    errors = [100 * (1 - figures["test_accuracy"]) for figures in done]
    if not errors:
        return "" if paper is None else f"({paper})"
    difference = "" if paper is None else f" ({paper}, {statistics.mean(errors) - paper:+.2f})"
    return results.mean_and_spread(errors) + difference


def gains(folder):
    """What the transformer buys, as a Markdown table: the first rows of the first table, paired."""
    columns = PAPER["distorted digits"]["columns"]
    lines = []
    for name, plain in (("fully connected", "FCN"), ("convolutional", "CNN")):
        for row, transformer in ((plain, "without"), (f"ST-{plain} affine", "with")):
            cells = [_cell(folder, [run_of(row, column, seed) for seed in SEEDS], None)
                     for column in columns]
            lines.append([name, transformer, *cells])
    return markdown.table(["", "transformer", *columns], lines)


def write_tables(path, text):
    """Puts tables in the place that a file has for them.

    Raises ValueError if it has none, OSError if it cannot be read or written.
    """
    with open(path, encoding="utf-8") as file:
        before, start, rest = file.read().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not end:
        raise ValueError(f"{path}: no place for the tables, between {MARKS[0]} and {MARKS[1]}")
    files.write_bytes(path, f"{before}{start}\n\n{text}\n\n{end}{after}".encode())


def draw(folder):
    """Writes ``distortions.png`` and, of ST-CNN affine on R as it is published, ``angles.png``."""
    images = datasets.load("mnist").test_images
    rows = {name: distort(name, images[:10], seed=0) for name in DISTORTIONS}
    pictures.save(pictures.grid_of_images({"MNIST": images[:10], **rows}),
                  os.path.join(folder, "distortions.png"))

    turned, applied = distort("R", images, seed=0, with_theta=True)
    network = trained.load("published/mnist-R-cnn-stn")
    found = network.predictor((1, *turned.shape[1:]), "stn_theta_output")(turned)
    true, found = -angle_of(applied), angle_of(found)
    # Nothing in training says which way is up: any one angle between them will do.
    offset = np.median(found - true)
    left = np.abs((found - true - offset + 180) % 360 - 180)
    slope = np.polyfit(true, found, 1)[0]
    title = f"ST-CNN affine on R: slope {slope:.2f},\nwhat is left of a turn {left.mean():.1f}°"
    pictures.save(pictures.angles(true, found, title), os.path.join(folder, "angles.png"))


def angle_of(theta):
    """By how much affine thetas (N, 6) turn, in degrees: the angle of the nearest rotation."""
    a, b, _, d, e, _ = theta.T
    return np.degrees(np.arctan2(d - b, a + e))


def main():
    parser = cli.Parser(prog="experiments.paper", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("--quick", action="store_true", help="train a few cells only, for a few epochs")
    flag("--print", action="store_true",
         help="train nothing, print the tables and write them into docs/paper.md")
    flag("--draw", action="store_true", help="train nothing, draw the pictures of docs/")
    flag("--jobs", type=cli.number(int, least=1), default=usable_cores(), help="runs at a time")
    args = parser.parse_args()
    if args.draw:
        draw("pictures")
        return
    name = "paper-quick" if args.quick else "paper"
    folder = os.path.join("models" if args.quick else "results", name)
    try:
        if not args.print:
            training_runs.train(quick_runs() if args.quick else all_runs(), folder,
                                os.path.join("models", name), args.jobs)
    finally:
        text = tables(folder, QUICK["epochs"] if args.quick else None)
        print(text)
        if not args.quick:
            write_tables(PAGE, text)


if __name__ == "__main__":
    cli.run(main)
