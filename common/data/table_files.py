"""Tables of grey images as CSV, raw or gzipped: a row an image, its label and its pixels.

As Kaggle gives them (``label,pixel0,pixel1,...``, in any order), and without a header, or with one
of 0, 1, 2, ... as pandas makes it, where the label comes first. The pixels go along the lines of
the image, whole numbers from 0 to 255.
"""
import collections
import contextlib
import csv
import gzip
import itertools
import logging
import math
import os
import re
import zlib

import numpy as np

from common import cli, files
from common.data import arrays, class_list

SUFFIXES = (".csv", ".csv.gz")
LABEL = "label"
LEAST = 16  # pixels of an image for which a table is no list of pictures
LONGEST_LINE = 2**24  # letters
BLOCK = 2000  # rows that are read at once


def find(path):
    """The path of the training table that is meant by a path, and that of the test table.

    Args:
        path: of a table, or of a folder with ``train.csv`` or ``*_train.csv`` and perhaps the same
            for the test.

    Returns:
        Two paths; None for a table that is not there.

    Raises:
        ValueError: there are tables of several sets, and none is ``train.csv``.
    """
    if not os.path.isdir(path):
        return (path if path.lower().endswith(SUFFIXES) else None), None
    trains, tests = (_tables(path, part) for part in ("train", "test"))
    if not trains:
        return None, None
    start = "" if "" in trains else next(iter(trains))
    test = tests.get(start) or tests.get("")
    if (start and len(trains) > 1) or (tests and not test):
        both = cli.some(sorted([*trains.values(), *tests.values()]))
        raise ValueError(f"{path}: tables of several sets, {both}: give each set a folder of its "
                         "own")
    return os.path.join(path, trains[start]), test and os.path.join(path, test)


def _tables(path, part):
    """The names of the tables of a part in a folder, by what comes before its name."""
    found = {}
    for name in sorted(os.listdir(path), reverse=True):  # so that raw ones come before gzipped
        table = re.fullmatch(rf"(|[^.].*_){part}\.csv(\.gz)?", name, flags=re.I)
        if table:
            found[table[1].lower()] = name
    return found


def images_in(folder):
    """The names of the training tables in a folder that have columns enough for an image."""
    return [name for name in _tables(folder, "train").values()
            if _width(os.path.join(folder, name)) > LEAST]


def _width(path):
    with _opened(path) as lines:
        return next(lines, "").count(",") + 1


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
        test = _read(test_path, image_shape, like=train[2])
        if test is None:
            logging.info("%s: has no column named %s, so it is no test set: not read", test_path,
                         LABEL)
    return (*train[:2], *(test[:2] if test else (None, None)))


def _read(path, image_shape, like=()):
    """Images (N, H, W) and labels (N,) of a table, and its columns of pixels; None without labels.

    Args:
        like: the columns of pixels of a table that it belongs to. How many there are tells whether
            there are labels without names of the columns.
    """
    with _opened(path) as lines:
        first = next(csv.reader([next(lines, "")]), [])
        names = [name.strip().lower() for name in first]
        named = not all(map(_is_number, first))
        header = named or names == list(map(str, range(len(names))))
        if len(first) < 2:
            raise ValueError(f"{path}: no table of a label and pixels, with commas between them")
        if LABEL not in names if named else len(names) == len(like):
            return None
        twice = [name for name, count in collections.Counter(names).items() if name and count > 1]
        if named and twice:
            raise ValueError(f"{path}: two columns are named {twice[0]!r}")
        place = names.index(LABEL) if named else 0
        del names[place]
        order = _order(path, names, like) if named else slice(None)
        shape = _shape(path, len(names), image_shape)
        images, labels, count = [], [], 0
        rows = lines if header else itertools.chain([",".join(first)], lines)
        for block in iter(lambda: list(itertools.islice(rows, BLOCK)), []):
            pixels, numbers = _values(path, block, count + 1 + header, len(first), place)
            count += len(block)
            arrays.check_size(path, count, shape)
            images.append(pixels[:, order].reshape(-1, *shape))
            labels.append(numbers)
    if not count:
        raise ValueError(f"{path}: has no rows of numbers")
    return np.concatenate(images), np.concatenate(labels), names


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


def _order(path, names, like):
    """The places of the columns of pixels, along the lines of the image.

    Columns whose names differ by one number go by it, and others as in ``like``, if it has them.
    """
    kind, count = collections.Counter(map(_kind, names)).most_common(1)[0]
    if len(names) / 2 < count < len(names):
        other = next(name for name in names if _kind(name) != kind)
        raise ValueError(f"{path}: the column {other!r} is not named as the pixels are: a table "
                         "has a label and pixels, and nothing else")
    if count == len(names) and kind.count("#") == 1:
        keys = [int(re.search("[0-9]+", name)[0]) for name in names]
    elif set(like) == set(names):
        places = dict(zip(like, itertools.count()))
        keys = [places[name] for name in names]
    else:
        return slice(None)
    return sorted(range(len(names)), key=keys.__getitem__)


def _kind(name):
    return re.sub("[0-9]+", "#", name)


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
