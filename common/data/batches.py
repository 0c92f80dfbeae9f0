"""Datasets by name, and the iterators that feed them to a Module.

Images stay uint8 in memory; each batch is scaled to [0, 1] as it is taken.
"""
import mxnet as mx
import numpy as np

from common.data.records import Stream

BLOCK = 1000  # images that are augmented at once
JITTER = 0x717  # sets the seed of what is drawn for each image apart from that of the order
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
            which is black and white; or a ``records.Stream``, which is returned as it is.

    Raises:
        ValueError: they are something else: what a number means that is not of uint8 is unknown.
    """
    if not isinstance(images, (np.ndarray, Stream)):
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
        jitter: for training, a function of a batch of images, uint8 (n, C, H, W), of their indices
            (n,) and of a seed, which each epoch has its own of, that returns what is to be trained
            on in their place; such as ``augment.Jitter``. It comes after ``augment``.
        num_parts, part_index: shares the images between workers. Each epoch, worker ``part_index``
            takes its own part of the order; all parts are equally long.

    Raises:
        ValueError: arrays that do not fit together, too few images for one training batch, or
            something else than uint8.
    """

    def __init__(self, images, labels, batch_size, seed=None, dtype="float32",
                 num_parts=1, part_index=0, augment=None, jitter=None):
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
        self.augment, self.jitter = augment, jitter
        sample = images[:1]
        if augment is not None:
            sample, _ = augment(np.asarray(sample), labels[:1], 0)
        self.image_shape = as_pixels(sample).shape[1:]  # (C, H, W)
        self.num_parts, self.part_index = num_parts, part_index
        self.seek(0)

    @property
    def num_batches(self):
        """Batches in an epoch."""
        if self.seed is None:
            return -(-self.num_images // self.batch_size)
        return self.num_images // self.batch_size

    @property
    def provide_data(self):
        return [mx.io.DataDesc("data", (self.batch_size, *self.image_shape), self.dtype)]

    @property
    def provide_label(self):
        return [mx.io.DataDesc("softmax_label", (self.batch_size, *self.labels.shape[1:]),
                               self.dtype)]

    def seek(self, epoch, batch=0):
        """Goes to a batch of an epoch."""
        self.epoch, self.position, self._blocks = epoch, batch, {}
        order = np.arange(len(self.images))
        if self.seed is not None:
            order = np.random.RandomState(derive_seed(self.seed, epoch)).permutation(order)
        self._order = order[self.part_index::self.num_parts][:self.num_images]

    def reset(self):
        self.seek(self.epoch + 1)

    def next(self):
        if self.position == self.num_batches:
            raise StopIteration
        which, pad = self._indices(self.position)
        start = self.position * self.batch_size
        self.position += 1
        if self.augment is None:
            last = self.position == self.num_batches
            images, labels = self._taken(which, None if last else self._indices(self.position)[0])
            images = as_pixels(images)
        else:
            images, labels = self._augmented(start, start + self.batch_size)
        if self.jitter is not None:
            images = self.jitter(images, which, derive_seed(self.seed, self.epoch, JITTER))
        # from_numpy, because nd.array would wait for all that the device has been told to do.
        images = np.multiply(images, np.dtype(self.dtype).type(1 / 255), order="C")
        labels = labels.astype(self.dtype)
        return mx.io.DataBatch(data=[mx.nd.from_numpy(images)], label=[mx.nd.from_numpy(labels)],
                               pad=pad, index=which,
                               provide_data=self.provide_data, provide_label=self.provide_label)

    def _indices(self, position):
        """Of the images of a batch; the last ones are padding, and their number."""
        start = position * self.batch_size
        which = self._order[start:start + self.batch_size]
        pad = self.batch_size - len(which)
        return np.concatenate([which, np.resize(self._order, pad)]), pad

    def _taken(self, which, following):
        """Images and labels; those that follow are read meanwhile, if they are on the disk."""
        images = self.images[which]
        if isinstance(self.images, Stream) and following is not None:
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
