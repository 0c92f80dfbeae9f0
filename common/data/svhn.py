"""SVHN's files, in a folder: whole house numbers in photographs, or single digits.

    train/digitStruct.mat    format 1: where the digits are in the pictures
    train/1.png
    test/..., extra/...      likewise; what is in extra is trained on, too
    train_32x32.mat          format 2: a digit in the middle of 32 x 32 pixels
    test_32x32.mat, extra_32x32.mat

Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", 2011. Format 1
becomes pictures of numbers, cut out as Goodfellow et al., "Multi-digit Number Recognition from
Street View Imagery using Deep Convolutional Neural Networks", 2013 (arXiv 1312.6082), section 5.1,
do it: the box around all digits is made larger by 30% in width and height, and what it holds is
resized to 64 x 64 pixels. The random crops that they train on are left out.

In both formats the label of a 0 is 10. Here it is 0.
"""
import contextlib
import functools
import importlib
import logging
import math
import os
import re

import numpy as np

from common import cli, files, sandbox
from common.data import arrays, class_list, image_files
from common.data.numbers import BLANK, PLACES

TRAIN, TEST, EXTRA = "train", "test", "extra"
BOXES, DIGITS = "{}/digitStruct.mat", "{}_32x32.mat"  # of formats 1 and 2
SHAPE, DIGIT = (3, 64, 64), (3, 32, 32)  # of what is cut out of format 1; of format 2
LARGER = 1.3  # than the box around the digits
FIELDS = ("left", "top", "width", "height", "label")
MOST_PICTURES, MOST_IN_ONE = 2**20, 2**8  # that a file may tell of; letters of a name, and digits
NUMBERS = re.compile("u?int(8|16|32|64)|single|double")  # MATLAB's words for them


def is_one(path):
    """Whether a path is a folder with SVHN's files."""
    return any(_has(path, kind, part) for kind in (BOXES, DIGITS) for part in (TRAIN, TEST))


def matlab_files(path):
    """The paths of SVHN's own files in a folder, which say where digits are, or hold them."""
    return [os.path.join(path, kind.format(part)) for kind in (BOXES, DIGITS)
            for part in (TRAIN, TEST, EXTRA) if _has(path, kind, part)]


def read(path, image_shape=None, skip_broken=False, test_only=False):
    """Reads a folder: whole numbers if they are there, else single digits.

    Args:
        path: of the folder.
        image_shape: (C, H, W) to resize what is cut out of format 1 to; by default ``SHAPE``.
        skip_broken: whether to leave broken pictures out with a warning, where otherwise they are
            refused.
        test_only: whether no training images are wanted; then there are none.

    Returns:
        Training images, uint8 (N, 3, H, W) or (N, H, W), and labels, test images and labels, int64:
        (N, 5) of whole numbers, else (N,); and the names of the classes, None where their numbers
        will do.

    Raises:
        ValueError: a file is damaged or missing, or holds something else; or a package is missing.
        OSError: a file cannot be read.
    """
    kind = BOXES if any(_has(path, BOXES, part) for part in (TRAIN, TEST)) else DIGITS
    training = [TRAIN, EXTRA] if _has(path, kind, EXTRA) else [TRAIN]
    parts = [[] if test_only else training, [TEST]]
    for part in sum(parts, []):
        if not _has(path, kind, part):
            raise ValueError(f"{os.path.join(path, kind.format(part))}: missing: SVHN has files "
                             f"for {TRAIN} and {TEST}")
    if kind == BOXES:
        cut = [_whole_numbers(path, names, image_shape or SHAPE, skip_broken) for names in parts]
        return sum(cut, ()), class_list.DIGITS
    return sum((_single_digits(path, names) for names in parts), ()), None


def _has(path, kind, part):
    return os.path.isfile(os.path.join(path, kind.format(part)))


def _whole_numbers(path, parts, image_shape, skip_broken):
    """The images and labels of some parts of format 1, in an order drawn by a fixed seed."""
    pictures = [(os.path.join(path, part, name), boxes) for part in parts
                for name, boxes in _boxes(os.path.join(path, BOXES.format(part)))]
    short = [(picture, boxes) for picture, boxes in pictures if len(boxes) <= PLACES]
    if len(short) < len(pictures):
        logging.info("%s: %d numbers of more than %d digits are left out", path,
                     len(pictures) - len(short), PLACES)
    arrays.check_size(path, len(short), image_shape)
    images = np.empty((len(short), *image_shape), np.uint8)
    labels = np.full((len(short), PLACES), BLANK, np.int64)
    short = [short[which] for which in np.random.RandomState(0).permutation(len(short))]
    count = 0
    for which, image in image_files.read_whole(
            path, short, lambda picture: _cut(*picture, image_shape), skip_broken):
        images[count], boxes = image, short[which][1]
        labels[count, :len(boxes)] = boxes[:, FIELDS.index("label")] % 10
        count += 1
    return (images[:count, 0] if image_shape[0] == 1 else images[:count]), labels[:count]


def _boxes(path):
    """The pictures of a digitStruct.mat, and their digits from the left, (digits, 5): ``FIELDS``.

    MATLAB's structures are HDF5 of references; where a picture has one digit, of plain numbers.
    """
    h5py = _package("h5py", path)
    with files.reading(path, files.ARRAYS):
        pass  # says what is wrong with it, if it is no file
    found = []
    try:
        with h5py.File(path, "r") as file:
            def numbers(values):
                column = _column(values, MOST_IN_ONE)
                return [float(value if column.dtype != object else _column(file[value], 1)[0])
                        for value in column]

            names, boxes = (_column(file["digitStruct"][field], MOST_PICTURES)
                            for field in ("name", "bbox"))
            for name, box in zip(names, boxes):
                box = file[box]
                found.append(("".join(map(chr, _column(file[name], MOST_IN_ONE))),
                              np.stack([numbers(box[field]) for field in FIELDS], axis=1)))
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise ValueError(f"{path}: not a whole digitStruct.mat of SVHN "
                         f"({cli.one_line(error)})") from None
    if not found:
        raise ValueError(f"{path}: no pictures")
    for name, boxes in found:
        labels = boxes[:, FIELDS.index("label")]
        if (os.path.basename(name) != name or not len(boxes) or not np.isfinite(boxes).all()
                or not np.isin(labels, range(1, 11)).all() or boxes[:, 2:4].min() <= 0):
            raise ValueError(f"{path}: not what SVHN has: the picture {cli.printable(name)!r} with "
                             f"boxes {', '.join(FIELDS)} {boxes.tolist()}")
    return found


def _column(values, most):
    """A column of numbers or references in HDF5, of at most so many rows.

    Nothing is read before: a file of some bytes may claim to hold, or may unpack to, any number.
    """
    chunk = values.chunks or (1,)
    if (values.ndim != 2 or values.shape[1] != 1 or len(values) > most
            or math.prod(chunk) > MOST_PICTURES or values.dtype.itemsize > 8):
        raise ValueError(f"{values.name} is {values.dtype} {values.shape}")
    return values[:, 0]


def _cut(path, boxes, image_shape):
    """What is cut out of the picture in a file, uint8 (C, H, W) or (H, W), resized."""
    picture = image_files.decode(path, files.read(path, image_files.LARGEST), image_shape[0]).pixels
    found = _cut_pixels(picture.reshape(-1, *picture.shape[-2:]), boxes)
    if not found.size:
        raise ValueError(f"{path}: its digits are outside the picture of "
                         f"{arrays.in_words(picture.shape[-2:])} pixels")
    return arrays.resize_one(found, image_shape)


def _cut_pixels(picture, boxes):
    """What the box around all digits of a picture (C, H, W) holds, when it is made larger.

    As far as the picture goes.
    """
    low, high = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:4]).max(axis=0)
    border = (high - low) * (LARGER - 1) / 2
    ends = np.maximum(np.rint([low - border, high + border]), 0).astype(int)
    columns, rows = (slice(*pair) for pair in ends.T)
    return picture[:, rows, columns]


def _single_digits(path, parts):
    """The images and labels of some parts of format 2."""
    paths = [os.path.join(path, DIGITS.format(part)) for part in parts]
    counts = [int(sandbox.run_in_child(file, functools.partial(_count_digits, file), "SciPy",
                                       "this file")) for file in paths]
    arrays.check_size(path, sum(counts), DIGIT)
    images, labels = np.empty((sum(counts), *DIGIT), np.uint8), np.empty(sum(counts), np.int64)
    for file, count, end in zip(paths, counts, np.cumsum(counts)):
        pixels, digits = _matlab_arrays(file)
        images[end - count:end] = pixels.transpose(3, 2, 0, 1)
        labels[end - count:end] = digits[:, 0] % 10
    return images, labels


def _count_digits(path):
    """How many images a file of format 2 has; ValueError if it is none that can be read.

    What it says of its arrays is looked at first: some kilobytes unpack to any number of bytes.
    """
    with _matlab_file(path) as (io, content):
        told = {name: (shape, kind) for name, shape, kind in io.whosmat(content)}
        (shape, kind), (labels_shape, labels_kind) = told["X"], told["y"]
    if (kind != "uint8" or shape[:3] != (32, 32, 3) or len(shape) != 4
            or labels_shape != (shape[3], 1) or not NUMBERS.fullmatch(labels_kind)):
        raise ValueError(f"{path}: expected SVHN's X, uint8 (32, 32, 3, N), and y, numbers (N, 1), "
                         f"got {kind} {shape} and {labels_kind} {labels_shape}")
    arrays.check_size(path, shape[3], DIGIT)
    if not np.isin(_matlab_arrays(path)[1], range(1, 11)).all():
        raise ValueError(f"{path}: expected SVHN's y, from 1 to 10")
    return shape[3]


def _matlab_arrays(path):
    """X and y of a file of format 2."""
    with _matlab_file(path) as (io, content):
        found = io.loadmat(content, variable_names=["X", "y"])
        return found["X"], found["y"]


@contextlib.contextmanager
def _matlab_file(path):
    """A context with ``scipy.io`` and a file of format 2; damage is a ValueError."""
    io = _package("scipy.io", path)
    with files.reading(path, files.ARRAYS) as file:
        try:
            yield io, file
        except MemoryError:
            raise
        except Exception as error:  # whatever a damaged file leads to
            raise ValueError(f"{path}: not a whole .mat file of SVHN, with X and y "
                             f"({cli.one_line(error)})") from None


def _package(name, path):
    """A package that only these files need."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise ValueError(f"{path} needs a package ({error}): pip install {package}") from None
