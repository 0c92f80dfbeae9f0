"""Pictures for people: matplotlib figures, written whole or not at all."""
import io

import numpy as np
from matplotlib.figure import Figure

from common import files

INCH = 1.0  # of a picture in a grid
DPI = 100


def save(figure, path):
    """Writes a figure as PNG; OSError if that cannot be done."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    files.write_bytes(path, content.getvalue())


def grid_of_images(rows):
    """A figure with a row of images for each entry, and its label before them.

    Args:
        rows: label -> images, uint8 (N, H, W); sizes may differ between rows.
    """
    columns = max(map(len, rows.values()))
    figure = Figure(figsize=(INCH * (columns + 1), INCH * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (label, images) in zip(axes, rows.items()):
        line[0].set_ylabel(label, rotation="horizontal", ha="right", va="center", fontsize="large")
        for axis in line:
            axis.set(xticks=[], yticks=[])
        for axis, image in zip(line, images):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    return figure


def angles(true, predicted, title):
    """A figure of predicted against true angles.

    Args:
        true, predicted: in degrees, (N,).
        title: a line above.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    limit = 1.1 * np.abs(true).max()
    axis.plot([-limit, limit], [-limit, limit], color="gray", linewidth=1, label="undone exactly")
    axis.plot(true, predicted, ".", markersize=2, alpha=0.5, label="a test image")
    axis.set(xlabel="true angle, °", ylabel="angle that theta undoes, °", title=title,
             xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    axis.legend(loc="upper left")
    return figure
