"""What the transformers of a network make of images, and pictures of it."""
import glob
import os
from typing import List, NamedTuple

import numpy as np

from common import files, pictures
from common.transformers import source_grid, transformers
from symbols.stn import border

SECONDS = 0.5  # that a picture of a film is shown


class View(NamedTuple):
    """What one transformer does to a batch.

    Attributes:
        name: of its node.
        theta: (N, parameters).
        outlines: the border of its target on the image, (N, P, 2) points (x, y) in pixels.
        output: its pictures, (N, C, h, w).
    """

    name: str
    theta: np.ndarray
    outlines: np.ndarray
    output: np.ndarray


class Look(NamedTuple):
    """A batch as a network sees it: images (N, C, H, W), probabilities (N, classes), views."""

    images: np.ndarray
    probabilities: np.ndarray
    views: List[View]


def look(network, images):
    """Runs a network on some images.

    Args:
        network: a ``trained.Trained``.
        images: uint8 (N, H, W) or (N, C, H, W).

    Returns:
        A ``Look``.

    Raises:
        ValueError: it has no transformer, or is not for such images.
    """
    found = transformers(network.symbol)
    if not found:
        raise ValueError(f"{network.path}: the network has no transformer")
    images = images if images.ndim == 4 else images[:, None]

    def output(name=None):
        return network.predictor(images.shape[1:], name, batch_size=len(images), cpus=1)(images)

    views = [View(part.name, output(part.theta),
                  outlines(source_grid(output(part.where), part), images.shape[2:]),
                  output(f"{part.name}_output")) for part in found]
    return Look(images, output(), views)


def outlines(points, image_shape):
    """The borders of targets, in pixels of the image.

    Args:
        points: (N, h, w, 2), from -1 to 1.
        image_shape: (height, width).

    Returns:
        (N, 2 (h + w) - 3, 2): once around, clockwise from the top left pixel and back to it.
    """
    height, width = image_shape
    return (border(points) + 1) / 2 * (width - 1, height - 1)


def draw(seen, labels, title=None):
    """A figure: the images with the outlines on them, below each what the transformers give.

    Args:
        seen: a ``Look``.
        labels: (N,).
        title: a line above.
    """
    predicted = seen.probabilities.argmax(axis=1)
    captions = [f"{label}" if label == answer else f"{label}, taken for {answer}"
                for label, answer in zip(labels, predicted)]
    return pictures.transformed(seen.images, [view.outlines for view in seen.views],
                                [view.output for view in seen.views], captions, title)


def describe(seen, labels, first=0):
    """Lines of text: number, from ``first`` on, label, prediction and thetas of each image."""
    for index, (label, probabilities) in enumerate(zip(labels, seen.probabilities)):
        answer = probabilities.argmax()
        thetas = "; ".join(
            f"{view.name} theta {' '.join(f'{value:.3f}' for value in view.theta[index])}"
            for view in seen.views)
        yield (f"{first + index}: {label}, predicted {answer} ({probabilities[answer]:.3f}), "
               f"{thetas}")


class Film:
    """Pictures of what a network does to the same images after each epoch, and a GIF of them.

    Args:
        folder: gets a PNG for each epoch; made if need be.
        images, labels: (N, [C,] H, W) and (N,).
    """

    def __init__(self, folder, images, labels):
        self.folder, self.images, self.labels = folder, images, labels
        os.makedirs(folder, exist_ok=True)

    def take(self, network, epoch):
        """Draws what a ``trained.Trained`` does after some epochs."""
        figure = draw(look(network, self.images), self.labels, f"after epoch {epoch}")
        pictures.save(figure, os.path.join(self.folder, f"{epoch:04d}.png"))

    def forget(self, epoch):
        """Removes the pictures of later epochs, which a run before has left."""
        for path in self._frames():
            if os.path.basename(path) > f"{epoch:04d}.png":
                files.remove(path)

    def join(self, path):
        """Makes a GIF of all pictures there are."""
        pictures.animate(self._frames(), path, SECONDS)

    def _frames(self):
        return sorted(glob.glob(os.path.join(glob.escape(self.folder), "[0-9][0-9][0-9][0-9].png")))
