"""Folders of pictures, one folder for each class.

    photos/train/cat/1.jpg         training
    photos/test/cat/9.jpg          test

The folders may also be named training, and testing, val, valid or validation.
Without a test folder, and in a folder with the classes right in it, a fifth of each class is the
test part. The order of everything follows from the names alone. Nothing is written.
"""
import contextlib
import logging
import os
import re
import unicodedata

import numpy as np

from common import cli, files
from common.data import arrays, class_list, image_files

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff",
            ".webp")
TRAINS, TESTS = ("train", "training"), ("test", "testing", "val", "valid", "validation")
NOT_THERE = ("__macosx", "desktop.ini", "thumbs.db")  # what systems put beside pictures


def is_one(path):
    """Whether a path is a folder with pictures in folders."""
    return os.path.isdir(path) and any(
        any(map(is_picture, _files(folder))) for folder in _folders(path).values())


def folders_of_classes(path):
    """The folders that hold those of the classes: those of the parts or, without parts, ``path``.
    """
    halves = _halves(path)
    parts = filter(None, (_part_of(halves, names) for names in (TRAINS, TESTS)))
    return [halves[part] for part in parts] or [path]


def read(path, image_shape=None, skip_broken=False, test_only=False):
    """Reads a folder of pictures.

    Args:
        path: of the folder.
        image_shape: (C, H, W) to resize the pictures to; by default they must be of one size, and
            are grey unless one of them has colours.
        skip_broken: whether to leave broken pictures out with a warning, where otherwise they are
            refused.
        test_only: whether no training images are wanted; then there are none.

    Returns:
        Training images, uint8 (N, H, W) or (N, 3, H, W), and labels, test images and labels, int64;
        and the names of the classes.

    Raises:
        ValueError: the folder is not as it should be, or a picture is broken, or they are of
            several sizes, or too many.
        OSError: the folder cannot be read.
    """
    train, test, names = _parts(path, may_lack_training=test_only)
    parts = [([] if test_only else train), test]
    images, kept = _decoded(path, [file for part in parts for file, _ in part], image_shape,
                            skip_broken)
    labels = np.array([label for part in parts for _, label in part], np.int64)[kept]
    count = int((kept < len(parts[0])).sum())
    return (images[:count], labels[:count], images[count:], labels[count:]), names


def _parts(path, may_lack_training):
    """The (file, label) of the training pictures and of the test pictures, and the class names."""
    _check_links(path)
    folders, parts = _folders(path), _halves(path)
    train_name, test_name = (_part_of(parts, names) for names in (TRAINS, TESTS))
    if train_name or test_name:
        others = [name for name in parts if name not in (train_name, test_name)]
        if others:
            logging.info("%s: not read: %s", path, cli.some(others))
    if not train_name and not test_name:
        if all(name.lower().rstrip("0123456789") in (*TRAINS, *TESTS) for name in folders):
            raise ValueError(f"{path}: its pictures are in {cli.some([*folders])}, without "
                             "a folder for each class in there")
        _check_no_parts(path, folders)
        train, names = _classes(path)
    elif train_name:
        train, names = _classes(parts[train_name])
    elif may_lack_training:
        return [], *_classes(parts[test_name])
    else:
        raise ValueError(f"{path}: there is {test_name}, but no {TRAINS[0]}")
    if test_name:
        test = _renumbered(parts[test_name], names)
        if test_name not in TESTS[:2]:
            logging.info("%s: the pictures in %s are the test images", path, test_name)
    else:
        for_train, for_test = class_list.split(np.array([label for _, label in train]))
        logging.info("%s: no folder named test has classes in it: a fifth of each class, %d "
                     "pictures in all, are the test images", path, len(for_test))
        train, test = [train[index] for index in for_train], [train[index] for index in for_test]
    order = np.random.RandomState(0).permutation(len(train))  # the last may be held out
    return [train[index] for index in order], test, names


def _halves(path):
    """The folders in a folder that hold folders themselves, by their names in small letters."""
    found = {}
    for name, folder in _folders(path).items():
        if _folders(folder):
            key = name.lower().strip()
            if key in found:
                raise ValueError(f"{path}: two folders are named {key}, in small letters")
            found[key] = folder
    return found


def _part_of(halves, names):
    """The first of the names of a part that is there, or None."""
    return next((name for name in names if name in halves), None)


def _check_no_parts(path, folders):
    """Raises ValueError if folders that are taken for classes are parts under other names."""
    inner = [set(_folders(folder)) for folder in folders.values()]
    alike = len(inner[0]) > 1 and all(found == inner[0] for found in inner)
    words = {word for name in folders for word in re.split("[^a-z]+", name.lower())}
    if alike and words & {*TRAINS} and words & {*TESTS}:
        raise ValueError(f"{path}: {cli.some([*folders])} hold the same folders, so they "
                         f"are no classes: name them {TRAINS[0]} and {TESTS[0]}")


def _check_links(path):
    """Raises ValueError if a folder of a class, or of a part, may be lost: by a link to nothing."""
    for entry in _entries(path):
        if "." not in entry.name and not os.path.exists(entry.path):
            raise ValueError(f"{entry.path}: a link to what is not there: remove it")


def _classes(path, may_be_empty=False):
    """The (file, label) of all pictures in the folders of classes, and the names of these."""
    loose = [file for file in _files(path, deep=False) if is_picture(file)]
    if loose:
        raise ValueError(f"{loose[0]}: not in the folder of a class, such as "
                         f"{os.path.join(path, 'cat')}")
    _check_links(path)
    folders, found, others = _folders(path), [], []
    for label, (name, folder) in enumerate(folders.items()):
        if not class_list.is_name(name):
            raise ValueError(f"{path}: the name of a class, {name!a}, is no text in UTF-8, or "
                             "blank, or has control characters: rename the folder")
        paths = _files(folder, above=(_identity(path),))
        pictures = [file for file in paths if is_picture(file)]
        others += [file for file in paths if not is_picture(file)]
        if not pictures and not may_be_empty:
            raise ValueError(f"{folder}: no pictures in it ({', '.join(SUFFIXES)}): move it "
                             "elsewhere, or put some there")
        found += [(file, label) for file in pictures]
    if others:
        logging.info("%s: %d files are no pictures by their names, such as %s: not read", path,
                     len(others), os.path.basename(others[0]))
    return found, tuple(folders)


def _renumbered(path, names):
    """As ``_classes``, with the numbers that the classes have in the training."""
    found, own = _classes(path, may_be_empty=True)
    unknown = [name for name in own if name not in names]
    if unknown:
        raise ValueError(f"{path}: {unknown[0]} is no class of the training pictures: "
                         f"{cli.some(names)}")
    return [(file, names.index(own[label])) for file, label in found]


def _folders(path):
    """The folders in a folder, name -> path, in order: by number where all names are numbers."""
    found = {}
    for entry in _entries(path):
        if entry.is_dir():
            name = unicodedata.normalize("NFC", entry.name)  # some systems take letters apart
            if name in found:
                raise ValueError(f"{path}: two folders are named {name}")
            found[name] = entry.path
    return {name: found[name] for name in in_order(found)}


def in_order(names):
    """Names of classes in the order of their labels: by number where all are numbers."""
    numbers = class_list.are_numbers(names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))


def is_picture(file):
    """Whether a file is a picture by its name."""
    return file.lower().endswith(SUFFIXES)


def _files(path, deep=True, above=()):
    """The paths of all files in a folder, in order; if it is to be deep, also of those in it."""
    here, found = _identity(path), []
    if here in above:  # a link leads back to where it is
        return found
    for entry in sorted(_entries(path), key=lambda entry: unicodedata.normalize("NFC", entry.name)):
        if not entry.is_dir():
            found.append(entry.path)
        elif deep:
            found += _files(entry.path, deep, (*above, here))
    return found


def _identity(path):
    """What tells a folder from all others, by whichever links it is reached."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _entries(path):
    """What is in a folder, without hidden files and those that systems put there."""
    with os.scandir(path) as entries:
        return [entry for entry in entries
                if not entry.name.startswith(".") and entry.name.lower() not in NOT_THERE]


def _decoded(path, paths, image_shape, skip_broken):
    """The images of files, and the numbers of those files that are whole."""
    def pixels_of(file):
        content = files.read(file, image_files.LARGEST)
        return image_files.decode(file, content, image_shape=image_shape).pixels

    images, kept = np.empty((0, 1, 1), np.uint8), []
    with contextlib.closing(
            image_files.read_whole(path, paths, pixels_of, skip_broken)) as decoded:
        for number, pixels in decoded:
            if not kept:
                arrays.check_size(path, len(paths), pixels.shape)
                images = np.empty((len(paths), *pixels.shape), np.uint8)
            kept.append(number)
            images = _placed(images, len(kept) - 1, pixels, paths[number], paths[kept[0]])
    return images[:len(kept)], np.array(kept, np.int64)


def _placed(images, index, pixels, file, first):
    """Images (N, [3,] H, W) with one more in its place; all in colour from the first that is."""
    if pixels.shape[-2:] != images.shape[-2:]:
        sizes = [arrays.in_words(array.shape[-2:]) for array in (pixels, images)]
        raise ValueError(f"{file}: {sizes[0]} pixels, but {first} has {sizes[1]}: --image-shape "
                         "C,H,W resizes all, such as to 3,32,32 in colour or 1,28,28 in grey")
    if pixels.ndim == 3 and images.ndim == 3:
        arrays.check_size(os.path.dirname(file), len(images), pixels.shape)
        images = np.repeat(images[:, None], 3, axis=1)
    images[index] = pixels  # a grey one fills all three
    return images
