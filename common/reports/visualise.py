"""What the transformers of a network make of images, and pictures of it."""
import glob
import logging
import os
from typing import List, NamedTuple, Optional

import numpy as np

from common import files
from common.data import class_list
from common.graph.find_transformers import lattice, source_grid, transformers
from common.models import metrics
from common.reports import pictures
from symbols.stn import border

SECONDS = 0.5  # that a picture of a film is shown
RIGHT, WRONG = "tab:blue", "tab:red"  # predictions


class View(NamedTuple):
    """What one transformer does to a batch.

    Attributes:
        name: of its node.
        theta: (N, parameters), or where there are none a grid (N, 2, h, w).
        outlines: the border of its target on the image, (N, P, 2) points (x, y) in pixels.
        poses: how its target lies on the image, (N, 4): see ``poses``.
        shown: name of the node whose output is seen behind it: its own, or that of its pooling.
        output: its pictures there, (N, C, h, w).
    """

    name: str
    theta: np.ndarray
    outlines: np.ndarray
    poses: np.ndarray
    shown: str
    output: np.ndarray


class Look(NamedTuple):
    """A batch as a network sees it: images (N, C, H, W), views, and probabilities (N, classes).

    There are no probabilities, but None, of a network that gives something else.
    """

    images: np.ndarray
    probabilities: Optional[np.ndarray]
    views: List[View]


def look(network, images):
    """Runs a network on some images.

    Args:
        network: a ``trained.Trained``.
        images: uint8 (N, H, W) or (N, C, H, W), an array or a ``records.Stream``.

    Returns:
        A ``Look``.

    Raises:
        ValueError: it has no transformer, or is not for such images.
    """
    images = np.asarray(images)  # of a file that is read as it is used, too
    images = images if images.ndim == 4 else images[:, None]
    options = {"batch_size": len(images), "cpus": 1}
    views = [see(images) for see in viewers(network, images.shape[1:], **options)]
    if not views:
        raise ValueError(f"{network.path}: the network has no transformer")
    try:
        probabilities = metrics.probabilities(network, images, **options)
    except metrics.NoProbabilities as error:
        logging.warning("No predictions are shown: %s", error)
        probabilities = None
    return Look(images, probabilities, views)


def viewers(network, image_shape, **options):
    """A function for each transformer of a network: it makes a ``View`` of images (N, C, H, W).

    Args:
        network: a ``trained.Trained``.
        image_shape: (C, H, W).
        **options: of ``Predictor``.

    Raises:
        ValueError: the network is not for such images.
    """
    def viewer(part):
        shown = _pooled(network.symbol, part.name)
        theta, where, output = (network.predictor(image_shape, name, **options)
                                for name in (part.theta, part.where, f"{shown}_output"))

        def view(images):
            points = source_grid(where(images), part)
            return View(part.name, theta(images), outlines(points, image_shape[1:]),
                        poses(points, image_shape[1:]), shown, output(images))
        return view
    return [viewer(part) for part in transformers(network.symbol)]


def _pooled(symbol, name):
    """The name of the node that averages a transformer's pictures (``--pool``), else its own."""
    internals, pooled = symbol.get_internals(), f"{name}_pool"
    if f"{pooled}_output" in internals.list_outputs() and (
            internals[f"{pooled}_output"].get_children().list_outputs() == [f"{name}_output"]):
        return pooled
    return name


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


def poses(points, image_shape):
    """How targets lie on the image: the turn, scale and shift nearest to how they are sampled.

    Args:
        points: (N, h, w, 2), from -1 to 1.
        image_shape: (height, width).

    Returns:
        (N, 4): degrees clockwise, from -180 to 180; scale, negative where the target is mirrored;
        pixels of the image to the right, and down.
    """
    half = (np.array(image_shape[::-1]) - 1) / 2
    target, source = lattice(points.shape[1:3]) * half, points * half
    # The affine map by least squares: the target's x and y are 0 on average, and uncorrelated.
    linear = np.einsum("nhwi,hwj->nij", source, target) / (target ** 2).sum(axis=(0, 1))
    (a, b), (c, d) = linear.transpose(1, 2, 0)
    area = a * d - b * c
    side = np.sign(area)  # -1 where left and right are swapped before the turn
    return np.stack([np.degrees(np.arctan2(side * c - b, side * a + d)),
                     side * np.sqrt(np.abs(area)), *source.mean(axis=(1, 2)).T], axis=1)


def draw(seen, labels, title=None):
    """A figure: the images with the outlines on them, below each what the transformers give.

    Args:
        seen: a ``Look``.
        labels: (N,), or (N, places).
        title: a line above.
    """
    texts = list(map(class_list.as_text, labels))
    if seen.probabilities is None:
        captions = [(text, "black") for text in texts]
    else:
        answers = map(class_list.as_text, seen.probabilities.argmax(axis=1))
        captions = [(f"{text} → {answer}", RIGHT if text == answer else WRONG)
                    for text, answer in zip(texts, answers)]
        title = ": ".join(filter(None, [title, "true → predicted class"]))
    views = {view.shown: (view.outlines, view.output) for view in seen.views}
    return pictures.transformed(seen.images, captions, views, title)


def describe(seen, labels, first=0, names=None):
    """Lines of text: number, from ``first`` on, label, prediction and thetas of each image.

    ``names`` are of the classes, as of ``class_list.as_text``.
    """
    for index, label in enumerate(labels):
        told = [f"{first + index}: {class_list.as_text(label, names)}"]
        if seen.probabilities is not None:
            (answer,), (chance,) = metrics.most_probable(seen.probabilities[index:index + 1])
            told.append(f"predicted {class_list.as_text(answer, names)} ({chance:.3f})")
        told.append("; ".join(f"{view.name} {_in_words(view.theta[index])}" for view in seen.views))
        yield ", ".join(told)


def _in_words(theta):
    """The parameters of a warp; of a grid (2, h, w), which has none, what it reaches over."""
    if theta.ndim < 3:
        return f"theta {' '.join(f'{value:.3f}' for value in theta.ravel())}"
    return "grid " + ", ".join(f"{axis} from {points.min():.3f} to {points.max():.3f}"
                               for axis, points in zip("xy", theta))


class Film:
    """Pictures of what a network does to the same images after each epoch, and a GIF of them.

    Args:
        folder: gets a PNG for each epoch; made if need be.
        images, labels: (N, [C,] H, W), and (N,) or (N, places).
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
        """Makes a GIF of all pictures there are; says whether there are any."""
        frames = self._frames()
        if frames:
            pictures.animate(frames, path, SECONDS)
        return bool(frames)

    def _frames(self):
        return sorted(glob.glob(os.path.join(glob.escape(self.folder), "[0-9][0-9][0-9][0-9].png")))
