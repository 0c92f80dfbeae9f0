"""Classes: their names, and the labels that are their numbers."""
import logging
import os
import unicodedata
from collections import Counter

import numpy as np

from common import cli, files

MOST = 2**16  # classes
JOINERS = "\u200c\u200d"  # and what keeps letters apart
NOTHING = "none"  # the class of a place in which a whole number has no digit
DIGITS = (*"0123456789", NOTHING)  # the classes of each of its places
NAMED, ORDERED = "names", "as the classes are named"  # what labels data have
UNEQUAL = 5  # times as many images as the smallest class has are worth a line


def read_names(path):
    """Names of classes in a file, one a line.

    Raises OSError if it cannot be read, and ValueError if it holds something else.
    """
    try:
        names = files.read(path).decode("utf-8-sig").splitlines()  # leaves out Windows' mark
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    if not all(map(is_name, names)):
        raise ValueError(f"{path}: a line without a name, or with control characters")
    return tuple(names)


def is_name(text):
    """Whether a text may be the name of a class: not blank, nor with what changes how it is shown.

    Spaces of all widths may be in it, and what joins letters or keeps them apart, as in Persian.
    """
    return bool(text.strip()) and all(
        letter.isprintable() or letter in JOINERS or unicodedata.category(letter) == "Zs"
        for letter in text)


def given_names(text):
    """The names that ``--class-names FILE`` or ``--class-names a,b,c`` says; None for None.

    Raises ValueError or OSError if there are none, or one of them twice.
    """
    if text is None:
        return None
    if os.path.exists(text):
        names = read_names(text)
    elif "," in text:
        names = tuple(name.strip() for name in text.split(","))
    else:
        raise ValueError(f"--class-names {text}: neither a file that is there nor names such as "
                         "a,b,c")
    return checked_names(f"--class-names {text}", names)


def checked_names(where, names):
    """Those names; ValueError if there are fewer than two, or one is unfit or there twice."""
    unfit = [name for name in names if not is_name(name)]
    if unfit:
        raise ValueError(f"{where}: {unfit[0]!a} is not the name of a class")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{where}: {twice[0]} is there twice")
    if len(names) < 2:
        raise ValueError(f"{where}: two names or more are needed")
    return names


def as_labels(path, labels, places=1):
    """Labels (N,) as int64.

    Args:
        path: where they come from, for the messages.
        labels: whole numbers from 0, of any type, (N,) or (N, 1).
        places: where an image has several labels, how many: then (N, places).

    Raises:
        ValueError: they are something else; the message says what to do.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    several = labels.ndim == 2 and labels.shape[1] == places
    if not (several or labels.ndim == 1) or labels.dtype.kind not in "biuf":
        hint = ": one for each class? give their argmax(axis=1)" if labels.ndim == 2 else ""
        raise ValueError(f"{path}: expected labels (N,) of whole numbers, got {labels.dtype} "
                         f"({', '.join(map(str, labels.shape))}){hint}")
    unfit = labels[~((labels >= 0) & (labels < MOST))]
    unfit = unfit if unfit.size else labels[labels != np.floor(labels)]
    if unfit.size:
        raise ValueError(f"{path}: the label {unfit[0]:g} is not a whole number from 0 to "
                         f"{MOST - 1}")
    return labels.astype(np.int64)


def from_zero(path, train_labels, test_labels, count):
    """Labels that begin at 0, and the names of their classes, which are their numbers.

    Where none is 0, but some are 1, they are moved by one and keep their numbers as names.

    Args:
        path: where they come from, for the messages.
        train_labels, test_labels: int64 (N,), from 0.
        count: of the classes; None where the largest label decides.

    Returns:
        Both arrays and the names.
    """
    both = np.concatenate((train_labels, test_labels))
    least, most = int(both.min()), int(both.max())
    first = int(least == 1 and not (count and most < count))
    if first:
        logging.info("%s: the labels are 1 to %d: classes 0 to %d, named 1 to %d", path, most,
                     most - 1, most)
    return train_labels - first, test_labels - first, numbers(first, count or most - first + 1)


def renumbered(path, labels, names, wanted):
    """Labels by the numbers that their classes have in another list of names.

    Args:
        path: where they come from, for the message.
        labels: (N,).
        names: of their classes, by label.
        wanted: the other list.

    Raises:
        ValueError: the name of a label that there is is not in it.
    """
    numbers = {name: number for number, name in enumerate(wanted)}
    present = {label: names[label] for label in np.unique(labels).tolist()}
    for name in present.values():
        if name not in numbers:
            raise ValueError(f"{path}: the class {name} is none of {cli.some(wanted)}"
                             f"{cli.did_you_mean(name, wanted)}")
    table = np.zeros(max(present, default=0) + 1, np.int64)
    table[list(present)] = [numbers[name] for name in present.values()]
    return table[labels]


def complete(names, count):
    """The names of ``count`` classes as a tuple.

    Args:
        names: number of a class -> name. The others are named by their numbers or, if any name is a
            number, by words: it would be taken for another class.
        count: at least that of ``names``.
    """
    word = "unnamed " if any(map(str.isdecimal, names.values())) else ""
    return tuple(names.get(number, f"{word}{number}") for number in range(count))


def numbers(first, count):
    """The names of classes whose labels are numbers in a row."""
    return tuple(map(str, range(first, first + count)))


def kind_of_labels(data_classes, named):
    """What tells the classes in data: ``NAMED``, ``ORDERED`` or "from 1", in words.

    Args:
        data_classes: what the data call the classes: names, or else labels.
        named: whether they name them.
    """
    if named:
        return NAMED
    in_a_row = numbers(int(data_classes[0]), len(data_classes))
    return f"from {data_classes[0]}" if tuple(data_classes) == in_a_row else ORDERED


def are_numbers(names):
    """Whether names of classes are mere numbers."""
    return all(map(str.isdecimal, names))


def fitting(names, count):
    """The names as a list, if they are of so many classes; else numbers."""
    return list(names if len(names) == count else map(str, range(count)))


def as_text(label, names=None):
    """What a label says: the name of its class, or the digits of a whole number.

    Args:
        label: a number; or those of several places, (places,).
        names: of the classes; by default numbers, or ``DIGITS`` for several places.
    """
    names = dict(enumerate(names or (DIGITS if np.ndim(label) else ())))
    words = [names.get(digit, str(digit)) for digit in np.ravel(label)]
    return "".join(word for word in words if word != NOTHING) or NOTHING


def note_sizes(labels, names):
    """Says in a line if some classes have far fewer training images than others."""
    if labels.ndim > 1:
        return  # places behind a number have a class of their own
    sizes = np.bincount(labels, minlength=len(names))
    if sizes.max() > UNEQUAL * sizes.min():
        logging.info("The classes are unequal: %s has %d training images, %s has %d",
                     names[sizes.argmin()], sizes.min(), names[sizes.argmax()], sizes.max())


def split(labels):
    """The numbers of those images that are for training, and of those for the test, both rising.

    A fifth of each class is for the test: the last of them in an order that is drawn by a fixed
    seed, so that it is always the same. A class of one image has none there.
    """
    for_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(round(len(members) / 5), min(1, len(members) - 1))
        order = np.random.RandomState(0).permutation(len(members))
        for_test[members[order[len(members) - count:]]] = True
    return np.flatnonzero(~for_test), np.flatnonzero(for_test)
