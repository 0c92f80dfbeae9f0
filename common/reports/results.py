"""The figures of many runs, as Markdown."""
import glob
import os
import statistics

from common import markdown
from common.reports import training_runs


def table(folder, runs=None):
    """The Markdown table of a folder of results, a row for each sub-folder.

    Args:
        folder: with files <row>/seed-<n>.json.
        runs: the ``training_runs.Run`` that they are to be of, in the order of the rows; by default
            all files that are there.

    Raises ValueError if there is no result, or a file that is none, or one of other flags.
    """
    rows = {}
    for name, figures in _by_row(folder, runs):
        rows.setdefault(name, []).append(figures)
    if not rows:
        raise ValueError(f"{folder}: no results, such as {folder}/lenet/seed-0.json")
    return markdown.table(
        ["run", "seeds", "test accuracy, %", "lowest", "highest", "parameters"],
        [row(name, [100 * each["test_accuracy"] for each in figures], figures[0]["parameters"])
         for name, figures in rows.items()])


def _by_row(folder, runs):
    """The row and the figures of each run that is done."""
    if runs is None:
        return [(os.path.basename(os.path.dirname(path)), training_runs.read(path))
                for path in sorted(glob.glob(os.path.join(folder, "*", "seed-*.json")))]
    found = [(run.name.split("/")[0], training_runs.figures(run, folder)) for run in runs]
    return [(name, figures) for name, figures in found if figures]


def row(name, percentages, parameters):
    """The cells of runs that differ in the seed: their number, mean, lowest, highest, parameters.

    Args:
        name: of the row.
        percentages: of each run.
        parameters: of the network.
    """
    return [name, len(percentages), mean_and_spread(percentages), f"{min(percentages):.2f}",
            f"{max(percentages):.2f}", f"{parameters:,}"]


def mean_and_spread(values):
    """The mean and, of more than one value, the standard deviation, as text."""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"
