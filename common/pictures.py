"""Pictures for people: matplotlib figures, written whole or not at all."""
import io

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from common import files

INCH = 1.0  # of a picture in a grid
DPI = 100
SHEET = 8  # square images in a row of a sheet


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


def confusion(matrix, title):
    """A figure of how many images of each true class (down) are taken for which (across).

    Args:
        matrix: whole numbers (classes, classes).
        title: a line above.
    """
    matrix = np.asarray(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 1.5 + 0.5 * len(matrix)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    # The root of the share, so that a few mistakes among hundreds can be seen.
    axis.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    for (true, predicted), count in np.ndenumerate(matrix):
        axis.text(predicted, true, count, ha="center", va="center", fontsize="small",
                  color="white" if shares[true, predicted] > 0.3 else "black")
    axis.set(xlabel="predicted class", ylabel="true class", title=title,
             xticks=range(len(matrix)), yticks=range(len(matrix)))
    return figure


def sheet(images, captions, title):
    """A figure of captioned images, in rows.

    Args:
        images: uint8 (N, H, W) or (N, C, H, W), whose channels are drawn side by side.
        captions: a line for each.
        title: a line above.
    """
    drawn = [_side_by_side(image) for image in images]
    height, width = drawn[0].shape if drawn else (1, 1)
    columns = max(1, round(SHEET * height / width))
    rows = max(1, -(-len(drawn) // columns))
    figure = Figure(figsize=(1.1 * SHEET, 1.3 * rows + 0.5), layout="constrained")
    figure.suptitle(title)
    for axis in figure.subplots(rows, columns, squeeze=False).flat:
        axis.set_axis_off()
    for axis, image, caption in zip(figure.axes, drawn, captions):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(caption, fontsize="small")
    return figure


def _side_by_side(image):
    """An image (H, W) of the channels of one (C, H, W) with white lines between them."""
    if image.ndim == 2:
        return image
    lined = np.pad(image, ((0, 0), (0, 0), (0, 1)), constant_values=255)
    return np.concatenate(lined, axis=1)[:, :-1]
