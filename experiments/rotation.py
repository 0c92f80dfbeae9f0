"""Trains on digits turned by any angle: a CNN, and transformers before it that turn them back.

    python -m experiments.rotation            # trains what is missing; then as --print
    python -m experiments.rotation --print    # prints the table of what there is
    python -m experiments.rotation --choose   # how the rate is chosen: on held-out training images
    python -m experiments.rotation --draw     # what the transformers that were trained turn back

There are as many training images as in the published rotated MNIST (Larochelle et al., 2007),
turned anew in each epoch. ``experiments/rows.py`` says where the figures are.
"""
from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import os

import numpy as np

from common import cli
from common.data import datasets
from common.reports import pictures, results
from experiments import paper
from experiments.rows import Rows

PICTURE = "pictures/rotation.png"
# So many filters that all rows have as many parameters, within 1%: see ``experiments/paper.py``.
STN = ["--width", "57", "--add-stn", "--stable"]
EXPERIMENT = Rows(
    name="rotation",
    rows={
        "cnn": ["--width", "64"],
        "st-cnn": STN,
        "st-cnn-4-steps": [*STN, "--stn-steps", "4"],
        "st-cnn-rotation-4-steps": [*STN, "--stn-steps", "4", "--transform", "rotation"],
    },
    recipe=["--network", "cnn", "--distort", "R360", "--num-examples", "12000",
            "--num-epochs", "80", "--warmup-epochs", "10", "--cpus", "1"],
    lr="0.003",
    rates=("0.002", "0.003", "0.004"),
    held_out="2000",
    choice_seed=100)
DRAWN, NEAR = 4000, 30  # test images; degrees


def draw(models, path):
    """Writes a picture of what the transformers of the first seed turn back.

    Raises OSError if one has not been trained.
    """
    images, panels = datasets.load("mnist").test_images[:DRAWN], {}
    for row, flags in EXPERIMENT.rows.items():
        if "--add-stn" in flags:
            export = os.path.join(models, row, f"seed-{EXPERIMENT.seeds[0]}-export")
            true, found = paper.turns(export, images, "R360")
            panels[f"{row}: {along_an_axis(true, found):.0%} along one axis"] = true, found
    pictures.save(pictures.angles(panels), path)


def along_an_axis(true, found):
    """The share of digits that end within 30° of the axis of most, either way up; 1/3 by chance.

    Args:
        true, found: by how much digits were turned, and turned back, in degrees, (N,).
    """
    doubled = 2 * np.radians(true - found)
    off = doubled - np.angle(np.exp(1j * doubled).mean())
    return (np.cos(off) > np.cos(2 * np.radians(NEAR))).mean()


def main():
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--draw", action="store_true", help=f"train nothing, draw {PICTURE}")
    args = parser.parse_args()
    if args.draw:
        draw(f"models/{EXPERIMENT.folder}", PICTURE)
    else:
        EXPERIMENT.run(args, results.table)


if __name__ == "__main__":
    cli.run(main)
