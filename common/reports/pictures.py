"""Pictures for people: matplotlib figures, written whole or not at all."""
import contextlib
import io
import os

import numpy as np

# A notebook's MPLBACKEND fails the import of matplotlib where a program's Python has no such
# backend. Figures need none.
backend = os.environ.pop("MPLBACKEND", None)
import matplotlib  # noqa: E402

if backend is not None:
    os.environ["MPLBACKEND"] = backend
    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = backend

# isort: split
from matplotlib.colors import PowerNorm  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402

matplotlib.rcdefaults()  # one's own settings may want LaTeX, or other sizes

from common import files  # noqa: E402

INCH = 1.0  # of a picture in a grid
DPI = 100
ACROSS = 10  # images in a row
SIDE = 0.66  # inches of the longer side of an image that is transformed
BEYOND = 0.2  # of its longer side, shown around it for outlines that go there
LINE, LETTER, GAP = 0.2, 0.08, 0.04  # inches of text, and between two pictures of an image
OUTLINES = (("tab:orange", "-"), ("tab:cyan", "--"), ("tab:pink", "-."), ("tab:olive", ":"))
SUFFIXES = (".png", ".jpg")  # of what ``save`` writes
MOST_NUMBERED = 60  # classes of a confusion matrix that has its counts written in it
SHEET = 8  # square images in a row of a sheet


def check_suffix(path, suffixes):
    """Raises ValueError for the name of a file that a picture is not written as."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix and suffix not in suffixes:
        raise ValueError(f"{path}: the picture is none of that kind: name it {suffixes[0]}")


def save(figure, path):
    """Writes a figure as PNG, or as JPEG by a path that says .jpg; OSError if it cannot be done."""
    content = io.BytesIO()
    figure.savefig(content, dpi=DPI,
                   format="jpg" if str(path).lower().endswith(".jpg") else "png")
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


def angles(panels):
    """A figure of panels side by side, of predicted against true angles.

    Args:
        panels: title -> (true, predicted), in degrees, (N,).
    """
    figure, axes = _panels(len(panels), 5, 5)
    for axis, (title, (true, predicted)) in zip(axes, panels.items()):
        limit = 1.1 * np.abs(true).max()
        axis.plot([-limit, limit], [-limit, limit], color="gray", linewidth=1,
                  label="undone exactly")
        axis.plot(true, predicted, ".", markersize=2, alpha=0.5, label="a test image")
        axis.set(xlabel="true angle, °", ylabel="angle that theta undoes, °", title=title,
                 xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axis.legend(loc="upper left")
    return figure


def _panels(count, width=4.5, height=3.5):
    """A figure with panels side by side, of so many inches each, and these."""
    figure = Figure(figsize=(width * count, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def against(panels, x_label):
    """A figure of panels side by side, against what grows by factors.

    Args:
        panels: title -> label of a line -> [(x, y), ...]; a line without points is left out, and
            has its colour in the other panels all the same.
        x_label: of the axis, which is logarithmic.
    """
    figure, axes = _panels(len(panels))
    ticks = sorted({x for lines in panels.values() for points in lines.values() for x, _ in points})
    for axis, (title, lines) in zip(axes, panels.items()):
        for number, (label, points) in enumerate(lines.items()):
            if points:
                axis.plot(*zip(*points), marker=".", label=label, color=f"C{number}")
        axis.set(title=title, xlabel=x_label, xscale="log")
        axis.set_xticks(ticks, list(map(str, ticks)))
        axis.minorticks_off()
        if any(lines.values()):
            axis.legend()
    return figure


def curves(panels, x_label):
    """A figure of panels side by side, with the mean of several runs and the range of all of them.

    Args:
        panels: title -> label of a curve -> (runs, points), the points being 1, 2, ...
        x_label: what the points count.
    """
    figure, axes = _panels(len(panels))
    for axis, (title, lines) in zip(axes, panels.items()):
        for label, values in lines.items():
            x = np.arange(1, values.shape[1] + 1)
            axis.plot(x, values.mean(axis=0), marker=".", label=label)
            axis.fill_between(x, values.min(axis=0), values.max(axis=0), alpha=0.25)
        axis.set(xlabel=x_label, ylabel=title)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def transformed(images, captions, views, title=None):
    """A figure of images with outlines on them and, below each, what was made of it.

    How large an image is drawn does not depend on the outlines, so that films do not zoom.

    Args:
        images: uint8 (N, C, H, W).
        captions: over each image, a text and its colour.
        views: label of a transformer -> its outlines (N, P, 2), points (x, y) in pixels, the first
            marked by a dot; and its pictures (N, C, h, w), from 0 to 1.
        title: a line above all.
    """
    shape = np.array(images.shape[2:])
    height, width = SIDE * shape / shape.max()
    around = BEYOND * SIDE
    column, first = width + 2 * around, height + 2 * around
    # Where the rows of a band of images are, (upper border, height) in inches below the band's.
    rows = [(LINE, first), *((LINE + first + (height + GAP) * number, height)
                             for number in range(len(views)))]
    band = sum(rows[-1]) + 2 * GAP
    left = LETTER * max(map(len, ["input", *views]))
    top = 0 if title is None else 1.5 * LINE
    across, bands = min(len(images), ACROSS), -(-len(images) // ACROSS)
    size = np.array([max(left + column * across, LETTER * len(title or "")), top + band * bands])
    figure = Figure(figsize=size)

    def write(x, y, text, **options):
        figure.text(x / size[0], 1 - y / size[1], text, va="center", fontsize="small", **options)

    def show(image, x, y, width, height):
        axis = figure.add_axes([x / size[0], 1 - (y + height) / size[1],
                                width / size[0], height / size[1]])
        axis.axis("off")
        axis.imshow(image)
        return axis

    if title is not None:
        write(size[0] / 2, LINE, title, ha="center")
    styles = OUTLINES * len(views)
    for number in range(bands):
        for label, (y, high), colour in zip(
                ["input", *views], rows, ["black", *(colour for colour, _ in styles)]):
            write(left, top + band * number + y + high / 2, label, color=colour, ha="right")
    beyond = BEYOND * shape.max() + 0.5
    for index, (image, (text, colour)) in enumerate(zip(as_rgb(images / 255), captions)):
        x, y = left + column * (index % ACROSS), top + band * (index // ACROSS)
        write(x + column / 2, y + LINE / 2, text, color=colour, ha="center")
        axis = show(image, x, y + LINE, column, first)
        axis.set(xlim=(-beyond, shape[1] - 1 + beyond), ylim=(shape[0] - 1 + beyond, -beyond))
        for (outlines, output), (below, _), (colour, dashes) in zip(
                views.values(), rows[1:], styles):
            axis.plot(*outlines[index].T, dashes, color=colour, linewidth=1.2)
            axis.plot(*outlines[index][0], ".", color=colour, markersize=5)
            show(as_rgb(output[index:index + 1])[0], x + around, y + below, width, height)
    return figure


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

    The counts are written in it where the classes are not too many.

    Args:
        matrix: whole numbers (classes, classes).
        title: a line above.
    """
    matrix = np.asarray(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    few = len(matrix) <= MOST_NUMBERED
    side = 1.5 + 0.5 * min(len(matrix), MOST_NUMBERED)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    # The root of the share, so that a few mistakes among hundreds can be seen.
    axis.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    for (true, predicted), count in np.ndenumerate(matrix) if few else ():
        axis.text(predicted, true, count, ha="center", va="center", fontsize="small",
                  color="white" if shares[true, predicted] > 0.3 else "black")
    axis.set(xlabel="predicted class", ylabel="true class", title=title)
    if few:
        axis.set(xticks=range(len(matrix)), yticks=range(len(matrix)))
    return figure


def sheet(images, captions, title):
    """A figure of captioned images, in rows.

    Args:
        images: uint8 (N, H, W) or (N, C, H, W); channels other than three colours are drawn side
            by side.
        captions: a line for each.
        title: a line above.
    """
    drawn = [_side_by_side(image) for image in images]
    height, width = drawn[0].shape[:2] if drawn else (1, 1)
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
    """An image (H, W) of the channels of one (C, H, W) with white lines between them.

    One of three colours becomes (H, W, 3).
    """
    if image.ndim == 2:
        return image
    if len(image) == 3:
        return image.transpose(1, 2, 0)
    lined = np.pad(image, ((0, 0), (0, 0), (0, 1)), constant_values=255)
    return np.concatenate(lined, axis=1)[:, :-1]
