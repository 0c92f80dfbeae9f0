"""Datasets by name, or of one's own in any of some formats."""
import contextlib
import hashlib
import logging
import os
from typing import NamedTuple, Tuple

import numpy as np

from common import cli
from common.data import (
    arrays,
    class_list,
    image_folder,
    mnist,
    npz_file,
    numbers,
    records,
    signs,
    svhn,
    synthetic,
    table_files,
)
from common.data.batches import derive_seed

DRAWN = {  # by the code, of any size
    "numbers": numbers,
    "signs": signs,
    "synthetic": synthetic,
}
DATASETS = (*mnist.PUBLISHED, *DRAWN)
TEST = 0x7E57  # sets the seed of the test images apart from those of the epochs
FORMATS = ("a folder of idx files named as MNIST's", "of pictures, <class>/*.png",
           "of SVHN's .mat files", "or of train.csv", "one .csv file", "an .npz file with x_train")
ARCHIVES = (".7z", ".gz", ".rar", ".tar", ".tgz", ".zip")


class Dataset(NamedTuple):
    """Images (N, H, W) or (N, 3, H, W) and labels for training and test, and what they are.

    Images are uint8, and so are labels of up to 256 classes: (N,), or (N, places) of whole numbers,
    whose last class says that there is no digit.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    origin: str  # one of DATASETS, or as of ``mnist.load_with_origin``
    class_names: Tuple[str, ...]  # words or numbers
    data_classes: Tuple[str, ...]  # what the data call the classes: names, or else labels
    named: bool  # whether the data name their classes

    @property
    def labels(self):
        """What labels are in the data: see ``class_list.kind_of_labels``."""
        return class_list.kind_of_labels(self.data_classes, self.named)

    @property
    def sha256(self):
        """Of all images and labels, in hexadecimal."""
        digest = hashlib.sha256()
        for array in self[:4]:
            digest.update(f"{array.shape}".encode())
            streamed = isinstance(array, records.Stream)
            digest.update(array.identity() if streamed else np.ascontiguousarray(array))
        return digest.hexdigest()


def add_flags(flag):
    """Adds the flags that say where data are and how they are read, by ``add_argument``."""
    flag("--data-dir", metavar="PATH",
         help="data of your own: " + "; ".join(FORMATS) + "; by default data/<dataset>")
    flag("--data-train", metavar="FILE", help="training images of your own, in RecordIO (.rec)")
    flag("--data-val", metavar="FILE", help="the images to test on, likewise")
    flag("--image-shape", type=cli.picture_shape, metavar="C,H,W",
         help="resize the images, and make them grey (1,H,W) or coloured (3,H,W); by default they "
              "stay as they are")
    flag("--broken", choices=("fail", "skip"), default="fail",
         help="what to do about pictures in a folder that cannot be read")


def options(args):
    """What ``load`` is to get of those flags, apart from the path."""
    return {"image_shape": args.image_shape, "skip_broken": args.broken == "skip",
            "data_train": args.data_train, "data_val": args.data_val}


def load(name, data_dir=None, num_examples=None, image_shape=None, num_classes=None,
         class_names=None, skip_broken=False, test_only=False, data_train=None, data_val=None):
    """Loads a dataset, fetching what is missing.

    Args:
        name: one of ``DATASETS``; it says what is fetched where there is nothing. Or "noise", of
            ``image_shape`` and ``num_classes``, to measure speed with.
        data_dir: where the data are, in one of ``FORMATS``; by default ``data/<name>``. Not for
            those of ``DRAWN``.
        num_examples: training images to use; by default all, or 10,000 drawn ones, or 12,800 of
            "noise".
        image_shape: (C, H, W), C being 1 or 3, that the images are resized to; by default they stay
            as they are.
        num_classes: by default as many as the data have.
        class_names: of all classes. Where the data name theirs, these choose the order; but
            numbers may get other names.
        skip_broken: whether broken pictures in a folder are left out, where otherwise the first of
            them ends all.
        test_only: whether the training images will not be used: there may be none.
        data_train, data_val: RecordIO files of the training and of the test images, in place of
            the rest. Large ones are read as they are used: their images are a ``records.Stream``.

    Returns:
        A ``Dataset``.

    Raises:
        ValueError: the files are not good, or hold fewer training images than asked for, or more
            classes; or there are none.
        OSError: the files could not be had.
    """
    if data_train is not None or data_val is not None:
        if name in DRAWN:
            raise ValueError(f"--dataset {name} is drawn: it does not go with --data-train and "
                             "--data-val")
        found, names = _packed(data_dir, data_train, data_val, image_shape, test_only)
        origin = mnist.OWN
    elif name == "noise":
        found, origin, names = _noise(num_examples or 12800, image_shape, num_classes), name, None
    elif name in DRAWN:
        found, origin, names = _drawn(name, data_dir, num_examples or 10000)
    else:
        found, origin, names = _read(name, data_dir, image_shape, skip_broken, test_only)
    where = data_train or data_val or data_dir or name
    names = names or published_names(origin)
    named = names is not None
    places = numbers.PLACES if names == class_list.DIGITS else 1
    images = list(found[::2])
    labels = [class_list.as_labels(where, part, places) for part in found[1::2]]
    _check_together(where, images, labels, test_only)
    available = len(images[0])
    if num_examples and num_examples > available:
        raise ValueError(f"{where} has {available} training images, {num_examples} were asked for")
    images[0] = images[0][:num_examples]
    if image_shape is not None:
        images = [arrays.resize(part, image_shape) if isinstance(part, np.ndarray) else part
                  for part in images]
    _check_sizes(where, *images)
    labels, names, data_classes = _classes(where, labels, names, num_classes, class_names)
    if len(names) < 2 and not test_only:
        raise ValueError(f"{where}: all images are of one class: a network needs two or more")
    if origin == mnist.OWN:
        training = "" if test_only else f"{available} training and "
        logging.info("%s: %s%d test images of %s, %d classes: %s", where, training, len(images[1]),
                     arrays.in_words(images[1].shape[1:]), len(names), cli.some(names))
    return Dataset(images[0], labels[0][:num_examples], images[1], labels[1], origin, names,
                   data_classes, named)


def _packed(data_dir, train_path, test_path, image_shape, test_only):
    """As ``_read``, of RecordIO files; their origin is one's own."""
    if data_dir is not None:
        raise ValueError("--data-dir does not go with --data-train and --data-val: they are two "
                         "ways to say where the data are")
    if test_path is None or (train_path is None and not test_only):
        raise ValueError("--data-train and --data-val go together: images to train on, and to test "
                         "on")
    test = records.Reader(test_path, image_shape)
    train = test if train_path is None else records.Reader(train_path, image_shape)
    named, test_named, test_labels = train.class_names(), test.class_names(), test.labels
    names = class_list.complete(named, train.labels.max() + 1)
    if named and test_named:
        test_labels = class_list.renumbered(test_path, test_labels, test_named, names)
    elif named and test_labels.max() >= len(names):
        raise ValueError(f"{test_path}: the label {test_labels.max()} is none of the training's, "
                         f"which end at {len(names) - 1}")
    images, test_images = (_without_channel(records.pixels(part)) for part in (train, test))
    count = 0 if train is test else None
    return ((images[:count], train.labels[:count], test_images, test_labels),
            names if named else None)


def _without_channel(images):
    """Images as those of other formats: grey ones are (N, H, W)."""
    if images.shape[1] > 1:
        return images
    return images.with_ndim(3) if isinstance(images, records.Stream) else images[:, 0]


def _noise(count, image_shape, num_classes):
    """Training images and labels, test images and labels, of nothing that can be learnt."""
    options = {"image_shape": image_shape or (1, 28, 28), "num_classes": num_classes or 10}
    train, test = (synthetic.noise(number, seed, **options)
                   for seed, number in enumerate((count, 100)))
    return (_without_channel(train[0]), train[1], _without_channel(test[0]), test[1])


def _drawn(name, data_dir, count):
    """As ``_read``, of what is drawn."""
    if data_dir is not None:
        raise ValueError(f"--data-dir has no meaning with --dataset {name}: it has no files")
    draw = DRAWN[name].draw
    return (*draw(count, seed=0), *draw(max(count // 5, 100), seed=1)), name, None


def _read(name, data_dir, image_shape, skip_broken, test_only):
    """Training images and labels, test images and labels; their origin; and names of classes.

    There are no names, but None, where the labels' numbers will do.
    """
    if data_dir is None or not os.path.exists(data_dir) or mnist.is_idx_folder(data_dir) or (
            os.path.isdir(data_dir) and mnist.is_free(data_dir)):
        return (*mnist.load_with_origin(name, data_dir), None)
    if svhn.is_one(data_dir):
        found, names = svhn.read(data_dir, image_shape, skip_broken, test_only)
        return found, mnist.OWN, names
    if image_folder.is_one(data_dir):
        is_flat = image_folder.folders_of_classes(data_dir) == [data_dir]
        tables = table_files.images_in(data_dir) if is_flat else []
        if tables:
            raise ValueError(f"{data_dir}: a table to learn from, {tables[0]}, beside folders of "
                             "pictures: give the path of the table, or move it")
        found, names = image_folder.read(data_dir, image_shape, skip_broken, test_only)
        return found, mnist.OWN, names
    if data_dir.lower().endswith(".npz"):
        return _with_test(data_dir, *npz_file.read(data_dir)), mnist.OWN, None
    tables = table_files.find(data_dir)
    if tables[0]:
        found = table_files.read(*tables, image_shape)
        return _with_test(data_dir, *found), mnist.OWN, None
    raise ValueError(f"{data_dir}: none of what --data-dir takes: {', '.join(FORMATS)}; or an "
                     f"empty folder, to fetch {name} into{_hint(data_dir)}")


def _hint(path):
    """What to do about a path that holds no data, as far as it can be guessed; or nothing."""
    if not os.path.isdir(path):
        return "; unpack it first" if path.lower().endswith(ARCHIVES) else ""
    names = sorted(os.listdir(path))
    held = [name for name in names if name.lower().endswith((".npz", *table_files.SUFFIXES))]
    if held:
        return f"; give the path of {held[0]} in it"
    loose = [name for name in names if image_folder.is_picture(name)]
    return f"; {loose[0]} is to be in the folder of its class" if loose else ""


def _with_test(path, train_images, train_labels, test_images, test_labels):
    """The same arrays, images as uint8; where there are none for the test, some of the others."""
    if test_images is not None:
        train_images, test_images = arrays.as_images(path, train_images, test_images)
        return train_images, train_labels, test_images, test_labels
    images, = arrays.as_images(path, train_images)
    labels = class_list.as_labels(path, train_labels)
    if len(images) != len(labels):
        raise ValueError(f"{path}: {len(images)} images but {len(labels)} labels")
    parts = class_list.split(labels)
    logging.info("%s: has no test images: a fifth of each class, %d in all, are taken", path,
                 len(parts[1]))
    return tuple(array[part] for part in parts for array in (images, labels))


def published_names(origin):
    """The words for the classes of one of ``DATASETS``; None where numbers will do."""
    if origin in DRAWN:
        return getattr(DRAWN[origin], "CLASS_NAMES", None)
    return (mnist.PUBLISHED[origin].class_names or None) if origin in mnist.PUBLISHED else None


def _check_together(where, images, labels, test_only):
    for part, *both in zip(("training", "test"), images, labels):
        count, other = map(len, both)
        if not count and not (part == "training" and test_only):
            raise ValueError(f"{where}: no {part} images")
        if count != other:
            raise ValueError(f"{where}: {count} {part} images but {other} labels")


def _check_sizes(where, *images):
    train, test = (part.shape[1:] for part in images)
    if train != test:
        raise ValueError(f"{where}: training images have {arrays.in_words(train)} pixels, test "
                         f"images {arrays.in_words(test)}: --image-shape C,H,W resizes all")


def _classes(where, labels, names, num_classes, wanted):
    """Labels that are numbers of classes, the names of these, and what the data call them.

    Args:
        where: the data come from, for the messages.
        labels: those that were read, int64.
        names: of the classes, None for their numbers.
        num_classes, wanted: what was asked for, or None.
    """
    count = num_classes or (len(wanted) if wanted else None)
    if wanted and num_classes not in (None, len(wanted)):
        raise ValueError(f"--num-classes {num_classes}, but --class-names has {len(wanted)} names")
    if not names:
        *labels, names = class_list.from_zero(where, *labels, count)
    if wanted and (set(names) <= set(wanted) or not class_list.are_numbers(names)):
        labels = [class_list.renumbered(where, part, names, wanted) for part in labels]
        names = wanted
    names = class_list.complete(dict(enumerate(names)), max(len(names), count or 0))
    most = int(np.concatenate(labels).max())
    if most >= (count or len(names)):
        flag = f"--num-classes {count}" if num_classes else f"--class-names of {len(wanted)} names"
        raise ValueError(f"{where}: the label {most} is not one of 0 to {count - 1}, so {flag} is "
                         "too few")
    small = np.uint8 if len(names) <= 256 else np.int32
    return [part.astype(small) for part in labels], wanted or names, names


def check_not_read(path, args):
    """Raises ValueError if what is written to a path would replace data that flags name."""
    target = os.path.realpath(path)
    for name in ("data_dir", "data_train", "data_val", "class_names"):
        if getattr(args, name, None) is None:
            continue
        source = os.path.realpath(getattr(args, name))
        if target == source or _is_in(source, target):
            raise ValueError(f"{path}: is read, by {cli.flag_of(name)}, and would be lost: write "
                             "elsewhere")


def check_not_among(prefix, args):
    """Raises ValueError if the files of a run would be among the classes of its data."""
    path = args.data_dir
    if (path is None or not _is_below(path, prefix) or mnist.is_idx_folder(path)
            or svhn.is_one(path) or not image_folder.is_one(path)):
        return
    for folder in image_folder.folders_of_classes(path):
        if _is_below(folder, prefix):
            raise ValueError(f"{prefix}: would be among the classes in {folder}: go to another "
                             "folder, or give another --model-prefix")


def _is_below(folder, path):
    return os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep)


def _is_in(folder, path):
    """Whether a file is one of those that are read of a folder."""
    if not _is_below(folder, path) or not os.path.exists(path):
        return False
    if image_folder.is_picture(path):
        return image_folder.is_one(folder) or svhn.is_one(folder)
    read = [*mnist.idx_files(folder), *svhn.matlab_files(folder)]
    with contextlib.suppress(ValueError):  # of tables that are not read then
        read += table_files.find(folder)
    return path in map(os.path.realpath, filter(None, read))


def short_name(name, data_dir=None, data_train=None):
    """What the files of a model are named after: the dataset, or the folder or file of one's own.

    Args:
        name, data_dir, data_train: as for ``load``.
    """
    if data_train is not None:
        return os.path.splitext(os.path.basename(data_train))[0]
    if data_dir is None or name in DRAWN or mnist.is_published(name, data_dir):
        return name
    stem = os.path.basename(os.path.abspath(data_dir))
    for suffix in (".gz", ".csv", ".npz"):
        stem = stem[:-len(suffix)] if stem.endswith(suffix) else stem
    return stem or name


def hold_out(dataset, count):
    """The training images and labels of a ``Dataset`` without the last ones, and those.

    Raises ValueError if none would be left.
    """
    images, labels = dataset.train_images, dataset.train_labels
    if count >= len(images):
        raise ValueError(f"--validation {count} leaves none of {len(images)} training images")
    left = len(images) - count
    gone = np.setdiff1d(labels[left:], labels[:left]) if labels.ndim == 1 else ()
    if len(gone):
        logging.warning("--validation %d holds out all training images of %d classes, such as %s: "
                        "if they are sorted by their classes, mix them", count, len(gone),
                        dataset.class_names[gone[0]])
    return (images[:left], labels[:left]), (images[left:], labels[left:])


def for_evaluation(images, labels, seed, augment=None):
    """Images and labels to score a network on: what ``augment`` makes of them for a run's seed."""
    if augment is None:
        return images, labels
    return augment(np.asarray(images), labels, derive_seed(seed, TEST))
