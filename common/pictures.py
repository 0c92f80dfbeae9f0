"""Pictures for people: matplotlib figures, written whole or not at all."""
import io

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image

from common import files

INCH = 1.0  # of a picture in a grid
DPI = 100
ACROSS = 10  # images in a row
BEYOND = 0.5  # of an image's size, shown around it where an outline goes there
OUTLINES = ("tab:orange", "tab:cyan", "tab:pink", "tab:olive")
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


def curves(panels, x_label):
    """A figure of panels side by side, with the mean of several runs and the range of all of them.

    Args:
        panels: title -> label of a curve -> (runs, points), the points being 1, 2, ...
        x_label: what the points count.
    """
    figure = Figure(figsize=(4.5 * len(panels), 3.5), layout="constrained")
    for axis, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0],
                                    panels.items()):
        for label, values in lines.items():
            x = np.arange(1, values.shape[1] + 1)
            axis.plot(x, values.mean(axis=0), marker=".", label=label)
            axis.fill_between(x, values.min(axis=0), values.max(axis=0), alpha=0.25)
        axis.set(xlabel=x_label, ylabel=title)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def transformed(images, outlines, outputs, captions, title=None):
    """A figure of images with outlines on them and, below each, what was made of it.

    Args:
        images: uint8 (N, C, H, W).
        outlines: for each transformer (N, P, 2), points (x, y) in pixels; a dot marks the first.
        outputs: for each transformer (N, C, h, w), from 0 to 1.
        captions: a text over each image.
        title: a line above all.
    """
    bands, lines = -(-len(images) // ACROSS), 1 + len(outputs)
    across = min(len(images), ACROSS)
    figure = Figure(figsize=(INCH * across, (INCH * lines + 0.25) * bands), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    axes = figure.subplots(bands * lines, across, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    shown, limits = as_rgb(images / 255), _limits(images.shape[2:], outlines)
    for index, caption in enumerate(captions):
        band, column = divmod(index, ACROSS)
        first, *others = axes[band * lines:(band + 1) * lines, column]
        first.imshow(shown[index])
        first.set_title(caption, fontsize="small", pad=2)
        for points, colour in zip(outlines, OUTLINES * len(outlines)):
            first.plot(*points[index].T, color=colour, linewidth=1.2)
            first.plot(*points[index][0], ".", color=colour, markersize=5)
        first.set(xlim=limits[0], ylim=limits[1])
        for axis, output in zip(others, outputs):
            axis.imshow(as_rgb(output[index:index + 1])[0])
    return figure


def _limits(shape, outlines):
    """What to show, (left, right), (bottom, top): the image, and some of what is around it."""
    points = np.concatenate([part.reshape(-1, 2) for part in outlines])
    limits = []
    for size, values in zip(shape[::-1], points.T):
        beyond = BEYOND * size
        limits.append((max(-beyond, min(-0.5, values.min() - 1)),
                       min(size - 1 + beyond, max(size - 0.5, values.max() + 1))))
    return limits[0], limits[1][::-1]


def as_rgb(images):
    """Images (N, C, H, W) from 0 to 1 as (N, H, W, 3): grey, red and green, colours, or a mean."""
    channels = images.shape[1]
    if channels == 2:
        images = np.concatenate([images, np.zeros_like(images[:, :1])], axis=1)
    elif channels != 3:
        images = np.repeat(images.mean(axis=1, keepdims=True), 3, axis=1)
    return np.clip(images.transpose(0, 2, 3, 1), 0, 1)


def animate(paths, path, seconds):
    """Makes a GIF that repeats for ever of PNG files.

    Args:
        paths: of the frames.
        path: of the GIF.
        seconds: that each frame is shown; the last one four times as long.
    """
    frames = [Image.open(frame).convert("RGB").quantize(64) for frame in paths]
    size = tuple(max(sizes) for sizes in zip(*(frame.size for frame in frames)))
    frames = [frame if frame.size == size else frame.resize(size) for frame in frames]
    durations = [1000 * seconds] * (len(frames) - 1) + [4000 * seconds]
    content = io.BytesIO()
    frames[0].save(content, format="GIF", save_all=True, append_images=frames[1:], loop=0,
                   duration=durations)
    files.write_bytes(path, content.getvalue())


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
