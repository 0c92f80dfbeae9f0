"""Datasets by name."""
import hashlib
from typing import NamedTuple

import numpy as np

from common.data import mnist, synthetic
from common.data.batches import derive_seed

DATASETS = (*mnist.PUBLISHED, "synthetic")
TEST = 0x7E57  # sets the seed of the test images apart from those of the epochs


class Dataset(NamedTuple):
    """Images (N, H, W) and labels (N,), uint8, for training and test, and where they are from."""

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
        data_dir: folder of the idx files; by default ``data/<name>``. Not for "synthetic".
        num_examples: training images to use; by default all, or 10,000 drawn ones.

    Returns:
        A ``Dataset``.

    Raises:
        ValueError: the files are not good, or hold fewer training images than asked for; or there
            are none.
        OSError: the files could not be had.
    """
    if name == "synthetic":
        if data_dir is not None:
            raise ValueError("--data-dir has no meaning with --dataset synthetic: it has no files")
        count = num_examples or 10000
        return Dataset(*synthetic.draw(count, seed=0),
                       *synthetic.draw(max(count // 5, 100), seed=1), origin=name)
    arrays, origin = mnist.load_with_origin(name, data_dir)
    dataset = Dataset(*arrays, origin)
    available = len(dataset.train_images)
    if num_examples and num_examples > available:
        raise ValueError(f"{name} has {available} training images, {num_examples} were asked for")
    return dataset._replace(train_images=dataset.train_images[:num_examples],
                            train_labels=dataset.train_labels[:num_examples])


def class_names(origin, count):
    """The names of ``count`` classes, learnt from data of that ``origin``: words or numbers."""
    names = mnist.PUBLISHED[origin].class_names if origin in mnist.PUBLISHED else ()
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
