"""Datasets by name."""
import hashlib
from typing import NamedTuple

import numpy as np

from common.data import mnist, signs, synthetic
from common.data.batches import derive_seed

DRAWN = {"signs": signs, "synthetic": synthetic}  # by the code, of any size
DATASETS = (*mnist.PUBLISHED, *DRAWN)
TEST = 0x7E57  # sets the seed of the test images apart from those of the epochs


class Dataset(NamedTuple):
    """Images (N, H, W) or (N, C, H, W) and labels (N,), uint8, and where they are from."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    origin: str  # one of DATASETS, or as of ``mnist.load_with_origin``

    @property
    def sha256(self):
        """Of all images and labels, in hexadecimal."""
        digest = hashlib.sha256()
        for array in self[:4]:
            digest.update(f"{array.shape}".encode())
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()


def load(name, data_dir=None, num_examples=None):
    """Loads a dataset, fetching what is missing.

    Args:
        name: one of ``DATASETS``.
        data_dir: folder of the idx files; by default ``data/<name>``. Not for those of ``DRAWN``.
        num_examples: training images to use; by default all, or 10,000 drawn ones.

    Returns:
        A ``Dataset``.

    Raises:
        ValueError: the files are not good, or hold fewer training images than asked for; or there
            are none.
        OSError: the files could not be had.
    """
    if name in DRAWN:
        if data_dir is not None:
            raise ValueError(f"--data-dir has no meaning with --dataset {name}: it has no files")
        count, draw = num_examples or 10000, DRAWN[name].draw
        return Dataset(*draw(count, seed=0), *draw(max(count // 5, 100), seed=1), origin=name)
    arrays, origin = mnist.load_with_origin(name, data_dir)
    dataset = Dataset(*arrays, origin)
    available = len(dataset.train_images)
    if num_examples and num_examples > available:
        raise ValueError(f"{name} has {available} training images, {num_examples} were asked for")
    return dataset._replace(train_images=dataset.train_images[:num_examples],
                            train_labels=dataset.train_labels[:num_examples])


def num_classes(name):
    """The number of classes of one of ``DATASETS``."""
    return DRAWN[name].CLASSES if name in DRAWN else mnist.CLASSES


def class_names(origin, count):
    """The names of ``count`` classes, learnt from data of that ``origin``: words or numbers."""
    names = signs.CLASS_NAMES if origin == "signs" else ()
    if origin in mnist.PUBLISHED:
        names = mnist.PUBLISHED[origin].class_names
    return names if len(names) == count else [str(number) for number in range(count)]


def hold_out(dataset, count):
    """The training images and labels of a ``Dataset`` without the last ones, and those.

    Raises ValueError if none would be left.
    """
    images, labels = dataset.train_images, dataset.train_labels
    if count >= len(images):
        raise ValueError(f"--validation {count} leaves none of {len(images)} training images")
    left = len(images) - count
    return (images[:left], labels[:left]), (images[left:], labels[left:])


def for_evaluation(images, labels, seed, augment=None):
    """Images and labels to score a network on: what ``augment`` makes of them for a run's seed."""
    return augment(images, labels, derive_seed(seed, TEST)) if augment else (images, labels)
