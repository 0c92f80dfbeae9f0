"""Trains on digits turned by any angle: a CNN, and transformers before it that turn them back.

    python -m experiments.rotation            # trains what is missing; then as --print
    python -m experiments.rotation --print    # prints the table of what there is
    python -m experiments.rotation --choose   # how the rate is chosen: on held-out training images

There are as many training images as in the published rotated MNIST (Larochelle et al., 2007),
turned anew in each epoch. ``experiments/rows.py`` says where the figures are.
"""
from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
from common import cli
from common.reports import results
from experiments.rows import Rows

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
    choice_seed=("--seed", "100"))


def main():
    EXPERIMENT.run(EXPERIMENT.parser(__doc__).parse_args(), results.table)


if __name__ == "__main__":
    cli.run(main)
