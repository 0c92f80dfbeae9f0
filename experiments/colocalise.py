"""Finds what pictures have in common, without labels: the paper's co-localisation.

    python -m experiments.colocalise           # trains what is missing; then as --print
    python -m experiments.colocalise --print   # prints the tables, writes them into the page
    python -m experiments.colocalise --choose  # other seeds, on training images, for the recipe
    python -m experiments.colocalise --draw    # a film of the boxes while they are learnt

After Jaderberg et al., 2015, appendix A.2. A hundred pictures of 84 x 84 pixels hold a digit of one
class each, somewhere, alone (T) or among 16 crops of other digits (TC). How they are found:
``experiments/colocaliser.py``.

Runs are on one CPU device, one at a time; stopped at any time, it goes on with the next one.
"""
import os
import statistics
import tempfile
from typing import NamedTuple

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import numpy as np

from common import cli, files, markdown
from common.data import datasets
from common.data.distort import DISTORTIONS, distort, top_left, warp
from common.reports import pictures, results, visualise
from experiments import colocaliser, done_runs, pages
from experiments.colocaliser import DIGIT, PHASES, SETTINGS, SHAPE
from symbols import stn

RESULT, CHOICE = (f"results/colocalisation/{name}.json" for name in ("found", "choice"))
PAGE, FILM = "docs/colocalisation.md", "pictures/colocalisation.gif"
PROGRAM = "experiments/colocalise.py"
IMAGES, CROPS = 100, 16
TASKS = {"T": DISTORTIONS["T"]._replace(target_shape=SHAPE),
         "TC": DISTORTIONS["TC"]._replace(target_shape=SHAPE, crops=CROPS)}
PAPER = {"T": "100", "TC": "75 to 93"}  # %, of the classes
SEEDS, CHOICE_SEEDS = range(3), range(100, 103)
FILMED, ON_FILM, EVERY, SECONDS = 4, 8, 290, 0.5  # digit, pictures, steps between two frames
ENOUGH = 0.5  # of the overlap of a box with the true one
HEADS = {"stable": True, "plain": False}


class Run(NamedTuple):
    """A training on the pictures of one class."""

    task: str
    digit: int
    head: str
    seed: int

    @property
    def name(self):
        return "/".join(map(str, self))


def all_runs():
    """The runs of the first table, seed by seed; then those of the other head, of one seed."""
    runs = [Run(task, digit, "stable", seed)
            for seed in SEEDS for task in TASKS for digit in range(10)]
    return runs + [Run(task, digit, "plain", 0) for digit in range(10) for task in TASKS]


def choices():
    """The runs that recipes are chosen by."""
    return [Run(task, digit, "stable", seed)
            for seed in CHOICE_SEEDS for digit in range(10) for task in TASKS]


def pictures_of(run, images, labels):
    """The pictures of a run, and where the digits are.

    Args:
        run: a ``Run``.
        images, labels: of MNIST, (N, 28, 28) and (N,).

    Returns:
        uint8 (100, 84, 84), and boxes as of ``boxes``.

    Raises:
        ValueError: there are too few images of the class.
    """
    rng = np.random.RandomState(run.seed)
    # The crops of TC come from all classes, so all are distorted, and one is taken.
    order = np.sort(rng.permutation(len(images))[:20 * IMAGES])
    images, labels = images[order], labels[order]
    chosen = np.flatnonzero(labels == run.digit)[:IMAGES]
    if len(chosen) < IMAGES:
        raise ValueError(f"needs {IMAGES} images of the digit {run.digit}, got {len(chosen)}")
    distorted, theta = distort(TASKS[run.task], images, run.seed, with_theta=True)
    corner = top_left(theta[chosen], images.shape[1:]) - 0.5
    return distorted[chosen], np.concatenate([corner, corner + DIGIT], axis=1)


def boxes(theta):
    """The borders of crops, in pixels of the picture, whose top left one is from -0.5 to 0.5.

    Args:
        theta: of "attention", (N, 3).

    Returns:
        (N, 4): left, top, right, bottom.
    """
    half = (np.array(SHAPE[::-1]) - 1) / 2
    # A pixel of the crop reaches half a pixel further than its centre.
    reach = np.abs(theta[:, :1]) * half * DIGIT / (DIGIT - 1)
    centre = (theta[:, 1:] + 1) * half
    return np.concatenate([centre - reach, centre + reach], axis=1)


def overlap(found, true):
    """The area that boxes (N, 4) share, of that which they cover together: (N,)."""
    shared = np.minimum(found[:, 2:], true[:, 2:]) - np.maximum(found[:, :2], true[:, :2])
    shared = np.maximum(shared, 0).prod(axis=1)
    areas = [(box[:, 2:] - box[:, :2]).prod(axis=1) for box in (found, true)]
    return shared / (sum(areas) - shared)


def measure(run, images, labels):
    """The figures of a run: the share of digits that are found, the mean overlap, the loss."""
    shown, true = pictures_of(run, images, labels)
    theta, loss = colocaliser.train(shown, run.seed, HEADS[run.head])
    overlaps = overlap(boxes(theta), true)
    return {"found": float((overlaps > ENOUGH).mean()),
            "overlap": round(float(overlaps.mean()), 4), "loss": round(loss, 4)}


def load(path):
    """The figures of the runs that are done, by name.

    Raises ValueError if the file is no result, or one of other settings.
    """
    return done_runs.load(path, "experiments.colocalise", SETTINGS, "runs",
                          lambda done: tables(all_runs(), done))


def tables(runs, done):
    """The table of the share of digits found, in %, for each head: means over the seeds."""
    heads = [head for head in HEADS if any(run.head == head for run in runs if run.name in done)]
    return "\n\n".join(_table(head, runs, done) for head in heads)


def _table(head, runs, done):
    def found(task, digit=None):
        return [100 * done[run.name]["found"] for run in runs
                if run.name in done and (run.task, run.head) == (task, head)
                and digit in (None, run.digit)]

    def cells(task):
        digits = [found(task, digit) for digit in range(10)]
        shown = [f"{statistics.mean(values):.0f}" if values else "" for values in digits]
        every = found(task)
        return [task, *shown, results.mean_and_spread(every) if every else "", PAPER[task]]

    return markdown.table([f"found, %, {head} head", *range(10), "all", "paper"],
                          [cells(task) for task in TASKS])


def draw(path):
    """Writes a film of the boxes on some pictures of TC while they are learnt."""
    mnist, run = datasets.load("mnist"), Run("TC", FILMED, "stable", SEEDS[0])
    shown, true = pictures_of(run, mnist.test_images, mnist.test_labels)
    phases, seen = [phase._replace(tries=1) for phase in PHASES], []
    theta, _ = colocaliser.train(shown, run.seed, phases=phases,
                                 watch=lambda theta: seen.append(theta[:ON_FILM].copy()))
    seen.append(theta[:ON_FILM])
    shown, true = shown[:ON_FILM], true[:ON_FILM]
    with tempfile.TemporaryDirectory() as folder:
        frames = []
        for step in range(0, len(seen), EVERY):
            frames.append(os.path.join(folder, f"{step:04d}.png"))
            pictures.save(_frame(shown, true, seen[step], f"after {step} steps"), frames[-1])
        pictures.animate(frames, path, SECONDS)


def _frame(shown, true, theta, title):
    """A figure: pictures with the boxes on them, in blue if they are found; below, the crops."""
    crops = warp(shown, theta, (DIGIT, DIGIT), "attention")[:, None] / 255
    outlines = stn.outline(theta, (DIGIT, DIGIT), SHAPE, "attention")
    captions = [(f"{share:.2f}", visualise.RIGHT if share > ENOUGH else visualise.WRONG)
                for share in overlap(boxes(theta), true)]
    return pictures.transformed(shown[:, None], captions, {"crop": (outlines, crops)},
                                f"overlap with the digit's place, {title}")


def main():
    parser = cli.Parser(prog="experiments.colocalise", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("--print", action="store_true",
         help=f"train nothing, print the tables and write them into {PAGE}")
    flag("--choose", action="store_true", help="other seeds, on training images")
    flag("--draw", action="store_true", help=f"train nothing but what {FILM} shows, and draw it")
    flag("--result", help="file of the figures, as JSON; by default in results/colocalisation")
    args = parser.parse_args()
    if args.draw and (args.print or args.choose):
        raise ValueError("--draw does neither of the others: give it alone")
    if args.draw:
        draw(FILM)
        return
    runs, path = (choices(), CHOICE) if args.choose else (all_runs(), RESULT)
    path = path if args.result is None else args.result
    if not args.print:
        files.prepare_output(path)
        with files.exclusive(f"{path}.lock"):
            _train_missing(runs, load(path), path, "train" if args.choose else "test")
    done = load(path)
    if not any(run.name in done for run in runs):
        raise ValueError(f"{path}: no figures yet: leave out --print")
    pages.publish(PAGE, PROGRAM, tables(runs, done), write=path == RESULT and not args.choose)


def _train_missing(runs, done, path, part):
    mnist = datasets.load("mnist")
    images, labels = getattr(mnist, f"{part}_images"), getattr(mnist, f"{part}_labels")
    for number, run in enumerate(runs, start=1):
        if run.name not in done:
            done[run.name] = measure(run, images, labels)
            done_runs.save(path, SETTINGS, "runs", done)
            print(f"{number} of {len(runs)}  {run.name}: {done[run.name]['found']:.0%} found",
                  flush=True)


if __name__ == "__main__":
    cli.run(main)
