"""Reruns the paper's experiments on distorted MNIST and compares the errors with its own.

    python -m experiments.paper           # trains what is missing, days; then as --print
    python -m experiments.paper --quick   # four cells of them, shorter: minutes
    python -m experiments.paper --long    # longer trainings, up to the paper's own: days
    python -m experiments.paper --print   # prints the tables, writes them into docs/paper.md
    python -m experiments.paper --draw    # draws the distortions, and angles that a network found

Each run is a ``train_mnist.py`` on one CPU device, or two, so that its bits do not depend on how
many cores a machine has; as many run at once as there are cores. A run that was stopped goes on
from its last checkpoint; a finished one leaves its figures in
``results/paper/<column>/<row>/seed-<n>.json``.
"""
import glob
import os
import statistics
from typing import Mapping, NamedTuple, Optional, Sequence, Tuple

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import numpy as np

from common import cli, files, markdown
from common.data import datasets
from common.data.distort import DISTORTIONS, distort
from common.find_mxnet import usable_cores
from common.models import trained
from common.reports import pictures, results, training_runs
from experiments import pages


class Recipe(NamedTuple):
    """How long a network is trained, at what rate, on how many devices, with what weight decay."""

    epochs: int
    lr: float
    cpus: int = 1
    wd: float = 0


RECIPES = {"mlp": Recipe(60, 0.004), "cnn": Recipe(16, 0.004)}  # its epochs are long
# Sums are learnt slowly, and at the other rate filters of the CNN die. It takes hours: two devices.
ADDITION_RECIPES = {"mlp": Recipe(90, 0.001), "addition": Recipe(90, 0.001),
                    "cnn": Recipe(110, 0.001, cpus=2)}
IN_STEPS = Recipe(16, 0.003)
LONG, LONG_RATES = 160, {"cnn": 0.002}  # from so many epochs on; not of sums
# The paper's length takes hours: two devices. And as 160 epochs know all training images by heart,
# a weight decay; after 48 it makes no difference to held-out images.
LONGEST = 640
QUICK = {"columns": ["R"], "rows": ["FCN", "CNN", "ST-FCN affine", "ST-CNN affine"], "epochs": 3}


class Table(NamedTuple):
    """Networks, distortions, and the paper's test errors, %; None for what it did not train.

    ``epochs`` are those of all runs, in place of their recipes'.
    """

    columns: Tuple[str, ...]
    rows: Mapping[str, Sequence[Optional[float]]]
    epochs: Optional[int] = None
    seeds: Sequence[int] = range(3)


TABLES = {
    "distorted digits": Table(("R", "RTS", "P", "E", "TC"), {
        "FCN": (2.1, 5.2, 3.1, 3.2, 13.2),
        "CNN": (1.2, 0.8, 1.5, 1.4, 3.5),
        "ST-FCN affine": (1.2, 0.8, 1.5, 2.7, 2.0),
        "ST-FCN projective": (1.3, 0.9, 1.4, 2.6, None),
        "ST-FCN tps": (1.1, 0.8, 1.4, 2.4, None),
        "ST-CNN affine": (0.7, 0.5, 0.8, 1.2, 1.7),
        "ST-CNN projective": (0.8, 0.6, 0.8, 1.3, None),
        "ST-CNN tps": (0.7, 0.5, 0.8, 1.1, None),
    }),
    "two digits to add": Table(("addition",), {
        "FCN": (47.7,),
        "CNN": (14.7,),
        "ST-FCN affine": (22.6,),
        "2 x ST-FCN affine": (9.0,),
        "2 x ST-FCN projective": (5.9,),
        "2 x ST-FCN tps": (5.8,),
    }),
    "with the stable head": Table(("R", "RTS"), {
        "ST-FCN affine, stable": (1.2, 0.8),
        "ST-CNN affine, stable": (0.7, 0.5),
        "ST-CNN affine, stable, 4 steps": (0.7, 0.5),
    }),
}
AGAINST_EPOCHS = {  # rows that are drawn against the epochs, of seed 0 on R
    "CNN": (1.2,),
    "ST-CNN affine, stable": (0.7,),
    "ST-CNN affine, stable, 4 steps": (0.7,),
}
LONG_TABLES = {
    **{f"{epochs} epochs": Table(("R",), AGAINST_EPOCHS, epochs, range(1)) for epochs in (4, 64)},
    "160 epochs": Table(("R", "RTS"), {
        "FCN": (2.1, 5.2),
        "CNN": (1.2, 0.8),
        "ST-FCN affine, stable": (1.2, 0.8),
        "ST-FCN projective, stable": (1.3, 0.9),
        "ST-FCN tps, stable": (1.1, 0.8),
        "ST-CNN affine, stable": (0.7, 0.5),
        "ST-CNN affine, stable, 4 steps": (0.7, 0.5),
        "ST-CNN projective, stable": (0.8, 0.6),
        "ST-CNN tps, stable": (0.7, 0.5),
    }, epochs=160),
    "160 epochs, of harder images": Table(("TC", "addition"), {
        "FCN": (13.2, 47.7),
        "CNN": (3.5, 14.7),
        "ST-FCN affine, stable": (2.0, 22.6),
    }, epochs=160),
    "640 epochs, the paper's length": Table(("R", "RTS"), {
        "CNN": (1.2, 0.8),
        "ST-CNN affine, stable": (0.7, 0.5),
        "ST-CNN affine, stable, 4 steps": (0.7, 0.5),
    }, epochs=LONGEST, seeds=range(1)),
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
OPTIONS = {"": [], "stable": ["--stable"], "stable, 4 steps": ["--stable", "--stn-steps", 4]}
POOLED = ("RTS", "TC", "addition")
RESULTS = "results/paper"
PAGE, PROGRAM = "docs/paper.md", "experiments/paper.py"
SLOPES = "results/slopes.json"  # how much of a turn each transformer undoes
EPOCHS_DRAWN = (4, None, 64, 160, LONGEST)  # None: those of the recipe


def all_runs(tables):
    """The runs of all cells, seed by seed, so that the tables are filled evenly."""
    last = max(len(table.seeds) for table in tables.values())
    return [run_of(row, column, seed, table.epochs) for seed in range(last)
            for table in tables.values() if seed in table.seeds
            for row in table.rows for column in table.columns]


def quick_runs():
    """Some of them, shorter, with one seed."""
    return [run_of(row, column, 0, QUICK["epochs"])
            for column in QUICK["columns"] for row in QUICK["rows"]]


def run_of(row, column, seed, epochs=None):
    """The training of a network (a row of ``TABLES``) on a distortion, from a seed."""
    plain_row, _, options = row.partition(", ")
    family, _, transform = plain_row.rpartition(" ") if "ST-" in row else (row, "", None)
    network = NETWORKS[family]
    recipe = recipe_of(network, column, options, epochs)
    flags = ["--network", network, "--width", WIDTHS[family][column],
             "--distort", column, "--seed", seed, "--num-epochs", recipe.epochs]
    if transform:
        flags += ["--add-stn", "--transform", transform]
        flags += ["--pool", 2] if column in POOLED else []
        flags += OPTIONS[options]
    flags += ["--cpus", recipe.cpus, "--batch-size", 128, "--lr", recipe.lr,
              "--warmup-epochs", 2, *(["--wd", recipe.wd] if recipe.wd else [])]
    name = f"{column}/{row.lower().replace(',', '').replace(' ', '-')}/seed-{seed}"
    return training_runs.Run(name, list(map(str, flags)))


def recipe_of(network, column, options, epochs):
    """The recipe for a distortion, or that of as many epochs, unless None.

    ``options`` are of ``OPTIONS``.
    """
    if column == "addition":
        recipe = ADDITION_RECIPES[network]
    else:
        recipe = IN_STEPS if "steps" in options else RECIPES[network]
        if (epochs or 0) >= LONG:
            recipe = recipe._replace(lr=LONG_RATES.get(network, recipe.lr))
    if epochs == LONGEST:
        recipe = recipe._replace(cpus=2, wd=0.0001)
    return recipe._replace(epochs=epochs or recipe.epochs)


def tables(shown, folder, epochs=None):
    """Tables in Markdown: mean and standard deviation, the paper's figure, the difference.

    Rows, and tables, of which nothing has been trained are left out.

    Args:
        shown: title -> ``Table``.
        folder: of the results; those of longer runs are in folders beside it: see ``folder_of``.
        epochs: of all runs, in place of the tables' and the recipes'.

    Raises ValueError if a file in the folder is no result, or of other flags.
    """
    made = (_table(title, table, folder_of(table.epochs, folder), epochs or table.epochs)
            for title, table in shown.items())
    return "\n\n".join(filter(None, made))


def page():
    """All tables of docs/paper.md; one of the trainings that are compared by their length alone."""
    whole = {title: table for title, table in {**TABLES, **LONG_TABLES}.items()
             if table.rows is not AGAINST_EPOCHS}
    return f"{tables(whole, RESULTS)}\n\n{against_epochs()}"


def against_epochs():
    """What is drawn against the epochs, as a Markdown table."""
    errors, undone = errors_and_slopes().values()
    lengths = sorted({epochs for points in errors.values() for epochs, _ in points})
    rows = []
    for row in AGAINST_EPOCHS:
        cells = {epochs: f"{error:.2f}" for epochs, error in errors[row]}
        cells.update({epochs: f"{cells[epochs]} ({part:.2f})" for epochs, part in undone[row]})
        rows.append([row, *(cells.get(epochs, "") for epochs in lengths)])
    return markdown.table(["R, seed 0: error (slope)", *(f"{epochs} epochs" for epochs in lengths)],
                          rows)


def folder_of(epochs, folder):
    """The folder of the results of runs of so many epochs; None are those of the recipes."""
    return f"{folder}-{epochs}-epochs" if epochs else folder


def _table(title, table, folder, epochs):
    rows = []
    for row in table.rows:
        errors = [errors_of(folder, [run_of(row, column, seed, epochs) for seed in table.seeds])
                  for column in table.columns]
        if any(errors):
            rows.append([row, *(_cell(found, paper, len(table.seeds))
                                for found, paper in zip(errors, table.rows[row]))])
    return markdown.table([title, *table.columns], rows) if rows else None


def errors_of(folder, runs):
    """The test errors, %, of those runs that are done."""
    done = filter(None, (training_runs.figures(run, folder) for run in runs))
    return [100 * (1 - figures["test_accuracy"]) for figures in done]


def _cell(errors, paper, seeds):
    """What a table has of a network on a distortion; of 2 seeds, where there are to be 3, says so.
    """
    if not errors:
        return "" if paper is None else f"({paper})"
    some = f", {len(errors)} seeds" if 1 < len(errors) < seeds else ""
    difference = "" if paper is None else f" ({paper}, {statistics.mean(errors) - paper:+.2f})"
    return results.mean_and_spread(errors) + some + difference


def gains(folder):
    """What the transformer buys, as a Markdown table: the first rows of the first table, paired."""
    table = TABLES["distorted digits"]
    lines = []
    for name, plain in (("fully connected", "FCN"), ("convolutional", "CNN")):
        for row, transformer in ((plain, "without"), (f"ST-{plain} affine", "with")):
            cells = [_cell(errors_of(folder, [run_of(row, column, seed) for seed in table.seeds]),
                           None, len(table.seeds)) for column in table.columns]
            lines.append([name, transformer, *cells])
    return markdown.table(["", "transformer", *table.columns], lines)


def draw(folder):
    """Writes ``distortions.png`` and, of ST-CNN affine on R as it is published, ``angles.png``."""
    images = datasets.load("mnist").test_images
    rows = {name: distort(name, images[:10], seed=0) for name in DISTORTIONS}
    pictures.save(pictures.grid_of_images({"MNIST": images[:10], **rows}),
                  os.path.join(folder, "distortions.png"))
    true, found = turns("published/mnist-R-cnn-stn", images)
    # Nothing in training says which way is up: any one angle between them will do.
    offset = np.median(found - true)
    left = np.abs((found - true - offset + 180) % 360 - 180)
    title = (f"ST-CNN affine on R: slope {slope(true, found):.2f},\n"
             f"what is left of a turn {left.mean():.1f}°")
    pictures.save(pictures.angles({title: (true, found)}), os.path.join(folder, "angles.png"))
    pictures.save(pictures.against(errors_and_slopes(), "epochs"),
                  os.path.join(folder, "epochs.png"))


def errors_and_slopes():
    """What is drawn against the epochs: title -> row -> [(epochs, value), ...]."""
    slopes = load_slopes()
    errors, undone = ({row: [] for row in AGAINST_EPOCHS} for _ in range(2))
    for epochs in EPOCHS_DRAWN:
        folder = folder_of(epochs, RESULTS)
        for row in AGAINST_EPOCHS:
            run = run_of(row, "R", 0, epochs)
            figures = training_runs.figures(run, folder)
            if figures is None:
                continue
            errors[row].append((figures["epochs"], 100 * (1 - figures["test_accuracy"])))
            name = os.path.join(os.path.basename(folder), run.name)
            if name in slopes:
                undone[row].append((figures["epochs"], slopes[name]))
    return {"test error, %": errors, "slope of the turn that is undone": undone}


def load_slopes():
    """The slopes that have been measured: a run's folder and name -> ``slope``."""
    return files.figures(SLOPES, "experiments.paper", lambda found: list(map(
        float, found.values())))


def turns(model, images, distortion="R"):
    """By how much images were turned, and turned back by a trained network, in degrees."""
    turned, applied = distort(distortion, images, seed=0, with_theta=True)
    predict = trained.load(model).predictor((1, *turned.shape[1:]), "stn_theta_output")
    return -angle_of(applied), angle_of(predict(turned))


def slope(true, found):
    """How much of a turn is undone: 1 for all of it, 0 for nothing.

    ``found`` is counted from its mean direction, so that it does not jump from 180° to -180° there.
    """
    mean = np.angle(np.exp(1j * np.radians(found)).mean(), deg=True)
    return np.polyfit(true, (found - mean + 180) % 360, 1)[0]


def angle_of(theta):
    """By how much affine thetas (N, 6) turn, in degrees: the angle of the nearest rotation."""
    a, b, _, d, e, _ = theta.T
    return np.degrees(np.arctan2(d - b, a + e))


def main():
    parser = cli.Parser(prog="experiments.paper", description=__doc__.splitlines()[0])
    flag = parser.add_mutually_exclusive_group().add_argument
    flag("--quick", action="store_true", help="train a few cells only, for a few epochs")
    flag("--long", action="store_true",
         help="train those of 4, 64, 160 and, as the paper, 640 epochs")
    flag("--print", action="store_true",
         help="train nothing, print the tables and write them into docs/paper.md")
    flag("--draw", action="store_true", help="train nothing, draw the pictures of docs/")
    parser.add_argument("--jobs", type=cli.number(int, least=1), default=usable_cores(),
                        help="runs at a time")
    args = parser.parse_args()
    if args.draw:
        draw("pictures")
    elif args.quick:
        train_quick(args.jobs)
    else:
        try:
            if not args.print:
                train(LONG_TABLES if args.long else TABLES, args.jobs)
        finally:
            pages.publish(PAGE, PROGRAM, page())


def train(chosen, jobs):
    """Trains what has no result yet, tables of as many epochs together."""
    for epochs in dict.fromkeys(table.epochs for table in chosen.values()):
        alike = {title: table for title, table in chosen.items() if table.epochs == epochs}
        folder = folder_of(epochs, RESULTS)
        scratch = os.path.join("models", os.path.basename(folder))
        try:
            training_runs.train(all_runs(alike), folder, scratch, jobs)
        finally:
            measure_slopes(scratch)


def measure_slopes(scratch):
    """Measures the affine transformers of ``R`` whose exports are in a folder, once each."""
    files.prepare_output(SLOPES)
    for export in glob.glob(os.path.join(scratch, "R", "st-cnn-affine*", "*-export")):
        name = os.path.relpath(export, "models")[:-len("-export")]
        if name not in load_slopes():
            found = slope(*turns(export, datasets.load("mnist").test_images))
            # Read again: trainings of other lengths, by another process, add theirs meanwhile.
            files.write_json(SLOPES, dict(sorted({**load_slopes(), name: found}.items())))


def train_quick(jobs):
    """Trains some runs, and prints their tables."""
    folder = os.path.join("models", "paper-quick")
    try:
        training_runs.train(quick_runs(), folder, folder, jobs)
    finally:
        print(tables(TABLES, folder, QUICK["epochs"]))


if __name__ == "__main__":
    cli.run(main)
