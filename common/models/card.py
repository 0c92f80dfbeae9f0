"""What a trained network says of itself: what it was trained on, and the names of its classes.

An export says it in the card that ``export_folder.about`` wrote, a checkpoint in its state; other
networks say nothing. Scripts that need test images take those of the training,
unless flags choose others.
"""
import logging
import os
import re
from typing import NamedTuple

import numpy as np

from common import cli
from common.data import arrays, class_list, datasets, mnist
from common.data.distort import TASKS, augmentation
from common.models import export_folder, trained
from common.storage import checkpoint

DATA = re.compile(r"([\w ,.-]{1,60}?)(?:, distorted by (\w{1,20}))?")
NUMBER = r"(\d{1,10})\b"
TAKEN = "%s: its classes %s are taken for %s"
SHAPE = r"([13]) x (\d{1,5}) x (\d{1,5})"


class TestImages(NamedTuple):
    """Test images (N, [C,] H, W) and labels (N,), how they were chosen, and that in words."""

    images: np.ndarray
    labels: np.ndarray
    origin: str
    distort: str
    seed: int
    words: str


def add_flags(flag):
    """Adds the flags that choose test images, by a parser's ``add_argument``."""
    flag("--dataset", choices=datasets.DATASETS,
         help="dataset; by default the training's, or mnist")
    datasets.add_flags(flag)
    flag("--num-examples", type=cli.number(int, least=1),
         help="of the training: drawn datasets have a fifth as many test images")
    flag("--distort", choices=(*TASKS, "none"),
         help="distort the images as the paper does; by default as in the training")
    flag("--seed", type=cli.number(int, least=0, most=2**31 - 1),
         help="of the distortions; by default the training's, which gives the images that it was "
              "scored on")


def test_images(args):
    """The test images that the flags of ``add_flags`` choose for ``args.model``.

    Raises:
        ValueError: flags that do not fit together or to the files; or none, for a network that was
            trained on files of one's own.
        OSError: files could not be had.
    """
    known = trained_on(args.model, args.load_epoch)
    dataset = choose_dataset(args.model, args.dataset, args.data_dir or args.data_val,
                             known.get("origin"))
    count, seed, distort = args.num_examples, args.seed, args.distort
    if count and dataset not in datasets.DRAWN:
        raise ValueError(f"--num-examples is for --dataset {' or '.join(datasets.DRAWN)}: other "
                         "datasets have their test images, however many they train on")
    if count is None and dataset in datasets.DRAWN:
        count = known.get("num_examples")
    seed = known.get("seed", 0) if seed is None else seed
    if distort is None:
        distort = known.get("distort")
    elif distort == "none":
        distort = None
    options = datasets.options(args)
    options["image_shape"] = options["image_shape"] or known.get("image_shape")
    loaded = datasets.load(dataset, args.data_dir, count, test_only=True, **options)
    words = taken = _in_words(loaded.origin, distort, seed, options["image_shape"])
    if known:
        was = _in_words(known["origin"], known["distort"], known["seed"], known.get("image_shape"))
        same = (was == taken and loaded.origin in datasets.DATASETS  # own files may be others
                and (dataset not in datasets.DRAWN or count == known.get("num_examples")))
        words += ", as in the training" if same else f"; the network was trained on {was}"
    names = tuple(known_names(args.model, args.load_epoch) or ())
    if distort == "addition":  # whose classes are the sums of those in the data
        names = _in_data(class_list.numbers(0, len(names) // 2 + 1), known) or ()
    labels = _as_numbered_by(names, loaded, args.data_dir or args.data_val, known,
                             packed=args.data_val is not None)
    images, labels = datasets.for_evaluation(loaded.test_images, labels, seed,
                                             augmentation(distort)[0])
    return TestImages(images, labels, loaded.origin, distort, seed, words)


def training_images(model, epoch, count, data_dir=None, data_train=None, image_shape=None):
    """Some of the images that a network was trained on, distorted as they were.

    Args:
        model, epoch: as ``path`` and ``epoch`` of ``trained.load``.
        count: how many; fewer, if there are not so many.
        data_dir, data_train: where files of one's own are: a path as of ``datasets.load``, or a
            RecordIO file.
        image_shape: (C, H, W) that these are resized to, if the model does not say it.

    Returns:
        uint8 (n, H, W) or (n, C, H, W), in random order.

    Raises:
        ValueError: the model does not say what it was trained on, or the files are not good.
        OSError: files could not be had.
    """
    known = trained_on(model, epoch)
    origin, seed, shape = known.get("origin"), known.get("seed", 0), known.get("image_shape")
    if data_dir or data_train:
        shape = shape or image_shape
        known.pop("num_examples", None)
    elif origin not in datasets.DATASETS:
        raise ValueError(f"{model}: trained on {origin or 'what it does not say'}: --data-dir or "
                         "--data-train says where such images are")
    if data_train is None:
        images, labels, *_ = datasets.load(choose_dataset(model, None, data_dir, origin), data_dir,
                                           known.get("num_examples"), shape)
    else:  # alone, it is read as the images to test on would be
        _, _, images, labels, *_ = datasets.load("mnist", data_dir, image_shape=shape,
                                                 data_val=data_train, test_only=True)
    which = np.random.RandomState(seed).permutation(len(images))[:count]
    return datasets.for_evaluation(images[which], labels[which], seed,
                                   augmentation(known.get("distort"))[0])[0]


def _as_numbered_by(names, dataset, where, known, packed):
    """The test labels of a ``Dataset`` in the numbers that a model has for its classes.

    Classes have the names that they had in the training's data, and those that were given to them.
    Where either both data name their classes or neither does, the former decide, as soon as one
    of them is there; else the latter come first.

    Args:
        names: of the model's classes; there may be none.
        where: the data come from, for the messages.
        known: as of ``trained_on``.
        packed: whether they are RecordIO, whose labels are the numbers of classes.

    Raises:
        ValueError: the model lacks a class that one's own data have.
    """
    labels, own = dataset.test_labels, dataset.class_names
    if not names or len(set(names)) < len(names):  # which say nothing
        return labels
    named, in_data = known.get("named"), _in_data(names, known)
    if packed and named and not dataset.named:
        return _by_number(where, dataset, names, 0)
    present = {own[label] for label in np.unique(labels).tolist()}
    either = [names] if in_data is None else [in_data, names]
    if in_data is not None and named != dataset.named:
        either = [names, in_data]
    elif present.intersection(in_data or ()):
        either = [in_data]
    for wanted in either:
        if present <= set(wanted):
            if wanted != names and dataset.origin not in datasets.DATASETS:
                logging.info(TAKEN, where, *map(cli.some, (wanted, names)))
            return class_list.renumbered(where, labels, own, wanted)
    if dataset.origin in datasets.DATASETS:
        return labels
    if not dataset.named and (named is False or not class_list.are_numbers(names)):
        return _by_number(where, dataset, names, known.get("labels_from"))
    return class_list.renumbered(where, labels, own, either[0])  # which says what is missing


def _in_data(names, known):
    """What the training's data called a model's classes; None if that is not ``known``."""
    if "labels_from" in known:
        return class_list.numbers(known["labels_from"], len(names))
    return known.get("data_classes", names if "named" in known else None)


def _by_number(where, dataset, names, first):
    """Labels of data that do not name their classes, as the numbers of a model's names.

    ``first`` is the label of the first of them, None if that is not known.
    """
    labels = np.array([int(label) for label in dataset.data_classes])[dataset.test_labels]
    if first is None:
        first = int(labels.max() >= len(names))
    in_data = class_list.numbers(first, len(names))
    if in_data != names:
        logging.warning(TAKEN, where, *map(cli.some, (in_data, names)))
    for label in (labels.min(), labels.max()):
        if str(label) not in in_data:
            raise ValueError(f"{where}: the label {label} is none of {first} to {in_data[-1]}, "
                             "which the network knows")
    return labels - first


def wanted_images(args, network):
    """How pictures are to be read for a ``trained.Trained``.

    Returns:
        The number of channels, 1 or 3; and the (C, H, W) to resize pictures to: that of the flags,
        or of the training; or None.
    """
    shape = network.made_for() or (1,)
    channels = 3 if shape[0] == 3 else 1
    known = trained_on(args.model, args.load_epoch).get("image_shape")
    resized = args.image_shape or (known if known == shape else None)
    return channels, resized


def trained_on(path, epoch=None):
    """What a network was trained on, as far as it says so.

    Args:
        path, epoch: as for ``trained.load``.

    Returns:
        ``{"origin": as of ``datasets.Dataset``, "distort": a name or None, "seed": of the
        training}``, "num_examples" where not all training images were used, "named": whether the
        data named their classes, "labels_from" where they have labels in a row instead, the first,
        "data_classes" where they have other names there, and "image_shape" where they were resized;
        empty if it says nothing.
    """
    told = _told(path, epoch)
    said = DATA.fullmatch(told.get("Data", ""))
    if not said:
        return {}
    command = told.get("Trained by", "")  # older cards say the numbers nowhere else
    found = {"origin": said[1], "distort": said[2], "seed": 0}
    for name, what in (("seed", "Seed"), ("num_examples", "Training images")):
        number = (re.fullmatch(NUMBER, told.get(what, ""))
                  or re.search(rf"--{name.replace('_', '[-_]')}[ =]{NUMBER}", command))
        if number:
            found[name] = int(number[1])
    first = re.fullmatch(rf"from {NUMBER}", told.get("Labels", ""))
    if first:
        found["labels_from"] = int(first[1])
    if first or told.get("Labels") in (class_list.NAMED, class_list.ORDERED):
        found["named"] = told["Labels"] == class_list.NAMED
    if told.get("Classes in the data"):
        found["data_classes"] = tuple(told["Classes in the data"].split(", "))
    shape = re.fullmatch(SHAPE, told.get("Resized to", ""))
    if shape:
        found["image_shape"] = tuple(map(int, shape.groups()))
    return found


def class_names(path, epoch, count):
    """The names of a network's ``count`` classes, or their numbers.

    Args:
        path, epoch: as for ``trained.load``.
    """
    names = known_names(path, epoch) or ()
    if names and os.path.isdir(path) and len(names) != count:
        logging.warning("%s: not used: %d names, but the network has %d classes",
                        os.path.join(path, export_folder.CLASSES), len(names), count)
    return class_list.fitting(names, count)


def known_names(path, epoch):
    """The names of a network's classes, as far as it says them; else None."""
    if not os.path.isdir(path):
        meta = checkpoint.load_state(*trained.find(path, epoch))[1] or {}
        return meta.get("flags", {}).get("classes") or datasets.published_names(
            trained_on(path, epoch).get("origin"))
    try:
        return class_list.read_names(os.path.join(path, export_folder.CLASSES))
    except FileNotFoundError:
        return None
    except ValueError as error:
        logging.warning("%s: not used", error)
        return None


def choose_dataset(model, dataset, data_dir, origin):
    """The name of the dataset to load, by two flags and what a model was trained on, or None.

    Raises ValueError if that is files of one's own, and no flag says where they are.
    """
    if dataset is not None:
        return dataset
    if data_dir is not None:
        return origin if origin in mnist.PUBLISHED else "mnist"  # whose names the files have
    if origin is not None and origin not in datasets.DATASETS:
        raise ValueError(f"{model}: trained on {origin}: --data-dir or --data-val says where "
                         "they are, or --dataset what to take instead")
    return origin or "mnist"


def _in_words(origin, distort, seed, image_shape=None):
    resized = f", resized to {arrays.in_words(image_shape)}" if image_shape else ""
    return origin + resized + (f", distorted by {distort}, seed {seed}" if distort else "")


def _told(path, epoch):
    """What is said of a network: what -> text."""
    if os.path.isdir(path):
        return export_folder.read_card(path)
    return export_folder.about(checkpoint.load_state(*trained.find(path, epoch))[1] or {})
