"""Tables of grey images as CSV, raw or gzipped: a row an image, its label and its pixels.

As Kaggle gives them (``label,pixel0,pixel1,...``), and without a header, where the label comes
first. The pixels go along the lines of the image, whole numbers from 0 to 255.
"""
import contextlib
import csv
import gzip
import itertools
import logging
import math
import os
import zlib

import numpy as np

from common import files
from common.data import arrays, class_list

SUFFIXES = (".csv", ".csv.gz")
LABEL = "label"
LONGEST_LINE = 2**24  # letters
BLOCK = 2000  # rows that are read at once


def find(path):
    """The path of the training table that is meant by a path, and that of the test table.

    Args:
        path: of a table, or of a folder with ``train.csv`` or ``*_train.csv`` and perhaps the same
            for the test.

    Returns:
        Two paths; None for a table that is not there.
    """
    if not os.path.isdir(path):
        return (path if path.lower().endswith(SUFFIXES) else None), None
    names = sorted(os.listdir(path))
    return tuple(next((os.path.join(path, name) for name in names for suffix in SUFFIXES
                       if name.lower() == part + suffix
                       or name.lower().endswith(f"_{part}{suffix}")), None)
                 for part in ("train", "test"))


def read(train_path, test_path, image_shape=None):
    """Reads tables.

    Args:
        train_path: of a table with labels.
        test_path: of another one; it is passed over if it has none. Or None.
        image_shape: (1, H, W) if the images are not square.

    Returns:
        Training images, uint8 (N, H, W), and labels, test images and labels; None for the test's
        if there is no table of them.

    Raises:
        ValueError: a table is damaged, or has no labels, or is too large.
        OSError: it cannot be read.
    """
    train, test = _read(train_path, image_shape), None
    if train is None:
        raise ValueError(f"{train_path}: its first row is neither of numbers alone nor a header "
                         f"with a column named {LABEL}: nothing to learn from")
    if test_path is not None:
        test = _read(test_path, image_shape, columns=train[0][0].size)
        if test is None:
            logging.info("%s: has no column named %s, so it is no test set: not read", test_path,
                         LABEL)
    return (*train, *(test or (None, None)))


def _read(path, image_shape, columns=None):
    """Images (N, H, W) and labels (N,) of a table; None if it has no labels.

    Args:
        columns: how many of pixels there are, which tells whether there are labels without a
            header.
    """
    with _opened(path) as lines:
        first = next(csv.reader([next(lines, "")]), [])
        header = not all(map(_is_number, first))
        place = _label_column(first) if header else (None if len(first) == columns else 0)
        if len(first) < 2:
            raise ValueError(f"{path}: no table of a label and pixels, with commas between them")
        if place is None:
            return None
        shape = _shape(path, len(first) - 1, image_shape)
        images, labels, count = [], [], 0
        rows = lines if header else itertools.chain([",".join(first)], lines)
        for block in iter(lambda: list(itertools.islice(rows, BLOCK)), []):
            pixels, numbers = _values(path, block, count + 1 + header, len(first), place)
            count += len(block)
            arrays.check_size(path, count, shape)
            images.append(pixels.reshape(-1, *shape))
            labels.append(numbers)
    if not count:
        raise ValueError(f"{path}: has no rows of numbers")
    return np.concatenate(images), np.concatenate(labels)


@contextlib.contextmanager
def _opened(path):
    """Yields the lines of a table, those that are not empty."""
    with files.reading(path, files.ARRAYS) as file, (
            gzip.GzipFile(fileobj=file) if path.lower().endswith(".gz")
            else contextlib.nullcontext(file)) as unpacked:
        try:
            yield _lines(path, unpacked)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: not a whole gzip file ({error})") from None
        except csv.Error as error:
            raise ValueError(f"{path}: no table of numbers ({error})") from None


def _lines(path, file):
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise ValueError(f"{path}: line {number} is not text in UTF-8") from None
        if len(line) == LONGEST_LINE or "\0" in text:
            raise ValueError(f"{path}: line {number} is no line of a table")
        if text:
            yield text


def _is_number(word):
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _label_column(header):
    """The place of the labels, None if there are none."""
    names = [name.strip().lower() for name in header]
    return names.index(LABEL) if LABEL in names else None


def _shape(path, pixels, image_shape):
    """The (height, width) of so many pixels."""
    if image_shape is not None and math.prod(image_shape) == pixels:
        if image_shape[0] == 1:
            return tuple(image_shape[1:])
        raise ValueError(f"{path}: the order of the colours in a row is not known: give pictures, "
                         "or an .npz file")
    side = math.isqrt(pixels)
    if not pixels or side * side != pixels:
        raise ValueError(f"{path}: {pixels} columns beside the label are no square image: "
                         "--image-shape 1,H,W says its sides")
    return side, side


def _values(path, lines, first, columns, place):
    """The pixels (rows, columns - 1), uint8, and the labels of lines.

    Args:
        first: number of the first of them.
        columns: that each is to have.
        place: of the labels.
    """
    try:
        values = np.loadtxt(lines, dtype=np.float32, delimiter=",", comments=None, ndmin=2,
                            quotechar='"')
        pixels = np.delete(values, place, axis=1)
        labels = values[:, place]
    except (ValueError, IndexError):
        raise _problem(path, lines, first, columns, place) from None
    fit = (pixels >= 0) & (pixels <= 255) & (pixels == np.floor(pixels))  # NaN does not
    if values.shape[1] != columns or not fit.all() or not (labels >= 0).all():
        raise _problem(path, lines, first, columns, place)
    return pixels.astype(np.uint8), labels


def _problem(path, lines, first, columns, place):
    """What is wrong with one of some lines."""
    for number, line in enumerate(lines, first):
        words = next(csv.reader([line]), [])
        if len(words) != columns:
            return ValueError(f"{path}: row {number} has {len(words)} columns, the first row has "
                              f"{columns}")
        for column, word in enumerate(words):
            most, what = (class_list.MOST - 1, "label") if column == place else (255, "pixel")
            if not (_is_number(word) and 0 <= float(word) <= most and float(word) % 1 == 0):
                return ValueError(f"{path}: row {number}: the {what} {word!r} is no whole number "
                                  f"from 0 to {most}")
    return ValueError(f"{path}: no table of numbers in rows {first} to {first + len(lines) - 1}")
