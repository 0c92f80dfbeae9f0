"""Batches of images for a Module: what images are, and the iterator over them.

Images stay uint8 in memory; batches are scaled to [0, 1] as they are taken, or by the devices.
"""
import math

import mxnet as mx
import numpy as np

from common.data.records import Stream

BLOCK = 1000  # images that are augmented at once
JITTER = 0x717  # sets the seed of what is drawn for each image apart from that of the order
TOGETHER, MOST = 2**20, 16  # pixels of batches that are taken at once, and how many batches
PIXEL = np.float32(1 / 255)  # what uint8 is multiplied by
PIXELS = "images are to be uint8, from 0 to 255, of shape (N, H, W) or (N, C, H, W)"


def derive_seed(seed, *path):
    """A seed (31 bits), a pure function of the run's seed and whole numbers.

    Zeros at the end count for nothing: ``derive_seed(1, 2) == derive_seed(1, 2, 0)``.
    """
    return int(np.random.SeedSequence((seed, *path)).generate_state(1)[0]) & 0x7FFFFFFF


def as_pixels(images):
    """Images as what everything here computes with, uint8 (N, C, H, W).

    Args:
        images: an array, in any order in memory, of uint8 (N, H, W) or (N, C, H, W), or of bool,
            which is black and white; or a ``records.Stream``.

    Raises:
        ValueError: they are something else: what a number means that is not of uint8 is unknown.
    """
    if isinstance(images, Stream):
        return images.with_ndim(4)
    if not isinstance(images, np.ndarray):
        raise ValueError(f"{PIXELS}, got a {type(images).__name__}")
    if images.dtype == bool:
        images = images * np.uint8(255)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        extent = (f" from {images.min():g} to {images.max():g}"
                  if images.size and images.dtype.kind in "iuf" else "")
        advice = ": np.rint(255 * images).astype(np.uint8)?" if extent == " from 0 to 1" else ""
        raise ValueError(f"{PIXELS}, got {images.dtype} {images.shape}{extent}{advice}")
    return images if images.ndim == 4 else images[:, None]


class ImageIter(mx.io.DataIter):
    """Batches of uint8 images, as float in [0, 1] of shape (batch_size, C, H, W), with labels.

    ``reset`` goes on to the next epoch, ``seek`` to a given one. With a seed, for training, the
    order is a function of (seed, epoch), and what does not fill a last batch is left out (other
    images each epoch). Without one, for evaluation, the order is the arrays' own, and the last
    batch is filled up with the first images; its ``pad`` is their number.

    Args:
        images: uint8 (N, H, W) or (N, C, H, W), or others that ``as_pixels`` takes.
        labels: whole numbers (N,), or (N, places) where an image has several.
        batch_size: images in a batch.
        seed: None to keep the order, else a number from 0.
        dtype: of the batches: "float32" or "float64".
        augment: for training, a function of images, labels and a seed that returns what is to be
            trained on in their place, anew in each epoch; such as a distortion.
        jitter: for training, a function of some images, uint8 (n, C, H, W), of their indices
            (n,) and of a seed, which each epoch has its own of, that returns what is to be trained
            on in their place; such as ``augment.Jitter``. It comes after ``augment``.
        num_parts, part_index: shares the images between workers. Each epoch, worker ``part_index``
            takes its own part of the order; all parts are equally long.
        raw: for batches of the pixels themselves, uint8 from 0 to 255, for a network that begins
            with ``rewrite.with_raw_input``. Labels are of ``dtype`` all the same.

    Attributes:
        together: how many batches are taken at once.

    Raises:
        ValueError: arrays that do not fit together, too few images for one training batch, or
            something else than uint8.
    """

    def __init__(self, images, labels, batch_size, seed=None, dtype="float32",
                 num_parts=1, part_index=0, augment=None, jitter=None, raw=False):
        super().__init__(batch_size)
        as_pixels(images)
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        if not 0 <= part_index < num_parts:
            raise ValueError(f"part_index must be from 0 to {num_parts - 1}, got {part_index}")
        self.num_images = len(images) // num_parts
        if self.num_images < (1 if seed is None else batch_size):
            raise ValueError(f"a batch of {batch_size} is more than the "
                             f"{self.num_images} images there are"
                             + (f" for each of {num_parts} workers" if num_parts > 1 else ""))
        self.images, self.labels, self.seed, self.dtype = images, labels, seed, dtype
        self.augment, self.jitter, self.raw = augment, jitter, raw
        sample = images[:1]
        if augment is not None:
            sample, _ = augment(np.asarray(sample), labels[:1], 0)
        self.image_shape = as_pixels(sample).shape[1:]  # (C, H, W)
        self.num_parts, self.part_index = num_parts, part_index
        pixels = batch_size * math.prod(self.image_shape)
        # What is on the disk takes long, and is read in the background: the less the better.
        self.together = 1 if isinstance(images, Stream) else min(MOST, max(1, TOGETHER // pixels))
        self.seek(0)

    @property
    def num_batches(self):
        """Batches in an epoch."""
        if self.seed is None:
            return -(-self.num_images // self.batch_size)
        return self.num_images // self.batch_size

    @property
    def provide_data(self):
        return [mx.io.DataDesc("data", (self.batch_size, *self.image_shape),
                               "uint8" if self.raw else self.dtype)]

    @property
    def provide_label(self):
        return [mx.io.DataDesc("softmax_label", (self.batch_size, *self.labels.shape[1:]),
                               self.dtype)]

    def seek(self, epoch, batch=0):
        """Goes to a batch of an epoch."""
        self.epoch, self.position, self._blocks, self._ahead = epoch, batch, {}, iter(())
        order = np.arange(len(self.images))
        if self.seed is not None:
            order = np.random.RandomState(derive_seed(self.seed, epoch)).permutation(order)
        self._order = order[self.part_index::self.num_parts][:self.num_images]

    def reset(self):
        self.seek(self.epoch + 1)

    def next(self):
        if self.position == self.num_batches:
            raise StopIteration
        batch = next(self._ahead, None)
        if batch is None:
            self._ahead = self._batches(self.position)
            batch = next(self._ahead)
        self.position += 1
        return batch

    def _batches(self, first):
        """Yields some batches that are taken together, which is less work than each by itself."""
        size, last = self.batch_size, min(first + self.together, self.num_batches)
        which, pad = self._indices(first, last)
        if self.augment is None:
            following = min(last + self.together, self.num_batches)
            images, labels = self._taken(which, self._indices(last, following)[0])
            images = as_pixels(images)
        else:
            images, labels = self._augmented(first * size, last * size)
        if self.jitter is not None:
            images = self.jitter(images, which, derive_seed(self.seed, self.epoch, JITTER))
        if not self.raw:
            images = np.multiply(images, np.dtype(self.dtype).type(1 / 255))
        # from_numpy, because nd.array would wait for all that the device has been told to do.
        data = mx.nd.from_numpy(np.ascontiguousarray(images))
        label = mx.nd.from_numpy(labels.astype(self.dtype))
        provided = {"provide_data": self.provide_data, "provide_label": self.provide_label}
        for start in range(0, len(which), size):
            rows = slice(start, start + size)
            yield mx.io.DataBatch(data=[data[rows]], label=[label[rows]], index=which[rows],
                                  pad=pad if start + size == len(which) else 0, **provided)

    def _indices(self, first, last):
        """Of the images of some batches; the last ones are padding, and their number."""
        which = self._order[first * self.batch_size:last * self.batch_size]
        pad = (last - first) * self.batch_size - len(which)
        return np.concatenate([which, np.resize(self._order, pad)]), pad

    def _taken(self, which, following):
        """Images and labels; those that follow are read meanwhile, if they are on the disk."""
        images = self.images[which]
        if isinstance(self.images, Stream) and len(following):
            self.images.read_ahead(following)
        return images, self.labels[which]

    def _augmented(self, start, stop):
        """Images of the epoch, augmented: in blocks, so that any size of batches sees the same."""
        numbers = range(start // BLOCK, (stop - 1) // BLOCK + 1)
        self._blocks = {number: self._blocks.get(number) or self._block(number)
                        for number in numbers}
        images, labels = map(np.concatenate, zip(*self._blocks.values()))
        rows = slice(start - numbers[0] * BLOCK, stop - numbers[0] * BLOCK)
        return images[rows], labels[rows]

    def _block(self, number):
        which = self._order[number * BLOCK:(number + 1) * BLOCK]
        seed = derive_seed(self.seed, self.epoch, self.part_index, number)
        following = self._order[(number + 1) * BLOCK:(number + 2) * BLOCK]
        images, labels = self.augment(*self._taken(which, following), seed)
        return as_pixels(images), labels
