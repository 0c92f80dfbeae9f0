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
        [_row(name, figures) for name, figures in rows.items()])


def _figures(path):
    figures = training_runs.read(path)
    return figures["test_accuracy"], figures["parameters"]


def _row(name, figures):
    accuracies = [100 * accuracy for accuracy, _ in figures]
    return [name, len(figures), mean_and_spread(accuracies), f"{min(accuracies):.2f}",
            f"{max(accuracies):.2f}", f"{figures[0][1]:,}"]


def mean_and_spread(values):
    """The mean and, of more than one value, the standard deviation, as text."""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"
