"""Trains the default recipe over many seeds, for the table of docs/training.md.

    python -m experiments.accuracy           # trains what is missing, hours; then as --print
    python -m experiments.accuracy --print   # prints the table of what there is

Each run is a ``train_mnist.py`` on all cores, one at a time. It can be stopped and goes on; a
finished run leaves its figures in ``results/<row>/seed-<n>.json``.
"""
from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
from common import cli
from common.reports import results, training_runs

SEEDS, MORE_SEEDS = range(5), range(5, 20)
ROWS = {
    "lenet-stn": ["--add-stn"],
    "lenet-stn-stable": ["--add-stn", "--stable"],
    "lenet": [],
    "lenet-stn-3-epochs": ["--num-epochs", "3", "--add-stn"],
    "mlp-stn": ["--network", "mlp", "--add-stn"],
    "mlp": ["--network", "mlp"],
}
FOLDER, SCRATCH = "results", "models/results"


def all_runs():
    """The runs of all rows; the last are further seeds of the default network."""
    seeds = [(row, seed) for row in ROWS for seed in SEEDS]
    seeds += [("lenet-stn", seed) for seed in MORE_SEEDS]
    return [training_runs.Run(f"{row}/seed-{seed}", ["--seed", str(seed), *ROWS[row]])
            for row, seed in seeds]


def main():
    parser = cli.Parser(prog="experiments.accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("--print", action="store_true",
                        help="train nothing, print the table of what there is")
    if not parser.parse_args().print:
        training_runs.train(all_runs(), FOLDER, SCRATCH)
    print(results.table(FOLDER, all_runs()))


if __name__ == "__main__":
    cli.run(main)
