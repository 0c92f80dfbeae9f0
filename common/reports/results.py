"""The figures of many runs, as Markdown."""
import glob
import os
import statistics

from common import markdown
from common.reports import training_runs


def table(folder):
    """The Markdown table of a folder of results, a row for each sub-folder.

    Raises ValueError if there is no result, or a file that is none.
    """
    paths = sorted(glob.glob(os.path.join(folder, "*", "seed-*.json")))
    if not paths:
        raise ValueError(f"{folder}: no results, such as {folder}/lenet/seed-0.json")
    rows = {}
    for path in paths:
        rows.setdefault(os.path.basename(os.path.dirname(path)), []).append(_figures(path))
    return markdown.table(
        ["run", "seeds", "test accuracy, %", "lowest", "highest", "parameters"],
        [row(name, [accuracy for accuracy, _ in figures], figures[0][1])
         for name, figures in rows.items()])


def _figures(path):
    figures = training_runs.read(path)
    return 100 * figures["test_accuracy"], figures["parameters"]


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
