"""Trains the residual network on drawn traffic signs, with no transformer, one and two.

    python -m experiments.signs            # trains what is missing; then as --print
    python -m experiments.signs --print    # prints the table of what there is
    python -m experiments.signs --choose   # how the rate is chosen: on held-out training images
    python -m experiments.signs --draw     # the picture of docs/signs.md

One transformer is at the input, a second one before the first stage. ``experiments/rows.py`` says
where the figures are.
"""
from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import numpy as np

from common import cli
from common.data import signs
from common.reports import pictures, results
from experiments.rows import Rows

EXPERIMENT = Rows(
    name="signs",
    rows={
        "resnet": [],
        "resnet-stn": ["--add-stn"],
        "resnet-stn-twice": ["--add-stn", "--stn-at", "input,stage1"],
    },
    recipe=["--dataset", "signs", "--network", "resnet", "--num-examples", "12000",
            "--num-epochs", "10", "--cpus", "1"],
    lr="0.003",  # that of train_mnist.py
    rates=("0.001", "0.003", "0.01"),
    held_out="2000")


def draw(path):
    """Draws each class: its face, and a picture of the dataset beside it."""
    faces = signs.faces(48)
    on_grey = np.rint(255 * (faces[..., :3] + 0.6 * (1 - faces[..., 3:]))).astype(np.uint8)
    images, labels = signs.draw(signs.CLASSES, seed=0)
    pairs = np.concatenate([on_grey.transpose(0, 3, 1, 2), images[np.argsort(labels)]], axis=3)
    pictures.save(pictures.sheet(pairs, signs.CLASS_NAMES, "The 43 signs"), path)


def main():
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--draw", action="store_true", help="draw the picture of docs/signs.md")
    args = parser.parse_args()
    if args.draw:
        draw("pictures/signs.jpg")
    else:
        EXPERIMENT.run(args, results.table)


if __name__ == "__main__":
    cli.run(main)
