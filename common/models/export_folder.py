"""Folders that other programs load a trained network from, without a file of this zoo.

    model-symbol.json         without label: input "data", output "softmax_output"
    model-0000.params         its parameters
    model-shapes.json         the input's shape, as SageMaker wants it
    signature.json            the same, as the multi-model server wants it
    synset.txt                the names of the classes, one a line
    model-train-symbol.json   the symbol with its label, to go on training
    SHA256SUMS                of these six files, for ``sha256sum --check``
    README.md                 what the model is, and the same sums
"""
import contextlib
import json
import os
import re
import shutil

from common import cli, files, markdown
from common.data import arrays, class_list
from common.find_mxnet import UNFUSED_SUMS
from common.graph import find_transformers, layers, rewrite
from common.provenance import provenance
from common.storage import checkpoint, fields, symbol_file

SYMBOL, PARAMS, SUMS, CARD = "model-symbol.json", "model-0000.params", "SHA256SUMS", "README.md"
CLASSES, TRAIN_SYMBOL = "synset.txt", "model-train-symbol.json"
FILES = {
    SYMBOL: "the network without its label",
    PARAMS: "its parameters",
    "model-shapes.json": "the shape of its input, for SageMaker",
    "signature.json": "the same, for the multi-model server",
    CLASSES: "the names of the classes",
    TRAIN_SYMBOL: "the network with its label, to go on training",
}
ORDER = (*(name for name in FILES if name != PARAMS), SUMS, CARD, PARAMS)  # of their renaming
INPUT, OUTPUT, NUMBERS, SUMMED = "Input `data`", "Output `softmax_output`", "Numbers", "On a CPU"
PIXELS = "pixels from 0 to 255"
TRAINED_ON = "To train it further"
# On a card, what is of the folder:
OF_FOLDER = (INPUT, OUTPUT, NUMBERS, SUMMED, TRAINED_ON, "Written by", "Versions")
NEW = ".new"  # the folder in which they wait for that
LOCK = ".lock"  # held meanwhile


def export(folder, symbol, arg_params, aux_params, image_shape, classes=None, raw_input=False,
           about=None, deployed=None):
    """Writes a network for other programs, in place of what an earlier export wrote.

    However it ends, there is the older export, the new one, or none that any program would load.

    Args:
        folder: made if need be.
        symbol: a training symbol that ends in a SoftmaxOutput.
        arg_params, aux_params: name -> NDArray, all that the symbol needs; written as float32,
            which is what most loaders feed a network with.
        image_shape: (C, H, W).
        classes: their names; by default their numbers.
        raw_input: whether the network takes pixels from 0 to 255, not 0 to 1.
        about: more to be said of the model: what -> text.
        deployed: a symbol to predict with, of the same parameters; by default ``symbol`` without
            its label.

    Returns:
        The paths of the JSON and the params.

    Raises:
        ValueError: more or fewer names than classes, or the output is no class probabilities, or
            another process is writing there.
        OSError: a file cannot be written, or the folder has other things in it than an export.
    """
    check_free(folder)
    if deployed is None:
        deployed = rewrite.label_free(symbol)
    if raw_input:
        symbol, deployed = map(rewrite.with_raw_input, (symbol, deployed))
    answer = answer_shape(deployed, image_shape)
    if rewrite.is_ambiguous(symbol, (1, *answer)):
        raise ValueError(f"it ends in a softmax of (N, {', '.join(map(str, answer))}) that does "
                         "not say over which axis: give it multi_output=True")
    count = answer[0]
    classes = class_list.fitting((), count) if classes is None else classes
    if len(classes) != count:
        raise ValueError(f"{len(classes)} names of classes, but the network has {count} classes")
    pixels = PIXELS + ("" if raw_input else ", divided by 255")
    of_places = f", for each of {answer[1]} digits" if len(answer) > 1 else ""
    told = {INPUT: f"images (N, {', '.join(map(str, image_shape))}), float, {pixels}",
            OUTPUT: f"probabilities (N, {', '.join(map(str, answer))}) of the classes in "
                    f"synset.txt{of_places}",
            **(about or {})}
    if rewrite.sums_convolutions(deployed):
        told[SUMMED] = (f"set {UNFUSED_SUMS}=1 before MXNet is imported, or it may predict "
                        "wrongly: it fuses some sums with convolutions as it should not")
    if find_transformers.has_plain_head(symbol):
        told[TRAINED_ON] = ("plain SGD may kill its transformer, whose head is not the stable one: "
                            "take Adam, or clip_gradient=1, or let the transformer stand still")
    with files.exclusive(os.path.join(folder, LOCK)), _replacing(folder) as new:
        checkpoint.save_params(os.path.join(new, PARAMS),
                               *map(_float32, (arg_params, aux_params)))
        _write(new, {
            SYMBOL: deployed.tojson(),
            "model-shapes.json": _json([{"name": "data", "shape": [1, *image_shape]}]),
            "signature.json": _json({"inputs": [{"data_name": "data",
                                                 "data_shape": [0, *image_shape]}]}),
            CLASSES: _lines(classes),
            TRAIN_SYMBOL: symbol.tojson()})
        sums = {name: files.sha256(os.path.join(new, name)) for name in FILES}
        _write(new, {
            SUMS: _lines(_listed(*item) for item in sums.items()),
            CARD: _lines(_card(os.path.basename(os.path.abspath(folder)), told, sums,
                               layers.table(symbol, image_shape)))})
    return os.path.join(folder, SYMBOL), os.path.join(folder, PARAMS)


def answer_shape(symbol, image_shape):
    """What a network for images (C, H, W) gives for each: (classes,), or (classes, places).

    Raises ValueError if that is something else.
    """
    _, (shape, *_), _ = symbol.infer_shape(data=(1, *image_shape))
    if len(shape) not in (2, 3):
        raise ValueError(f"expected class probabilities of shape (N, classes) or (N, classes, "
                         f"places), got an output of shape (N, {', '.join(map(str, shape[1:]))})")
    return shape[1:]


def check_free(folder):
    """Raises an error where an export cannot be written, or would be in the way of something else.

    Raises:
        OSError: the folder holds something, but not an export; or it cannot be made or changed.
        ValueError: its name is the prefix of checkpoints, which would not be found any more.
    """
    if checkpoint.begun(folder.rstrip(os.sep)):
        raise ValueError(f"{folder}: the prefix of checkpoints, which a folder of that name would "
                         "hide: give another one")
    if (os.path.isdir(folder) and set(os.listdir(folder)) - {NEW, LOCK}
            and not os.path.exists(os.path.join(folder, SYMBOL))):
        raise FileExistsError(f"{folder}: holds something else than an export: give a folder that "
                              "is empty or new")
    files.check_folder(folder)


def training_symbol(folder):
    """The symbol of an export with its label, for images of 0 to 1.

    Raises ValueError or OSError if it is not there as it was written.
    """
    check(folder, [TRAIN_SYMBOL])
    return rewrite.without_raw_input(symbol_file.read(os.path.join(folder, TRAIN_SYMBOL)))


def is_of_another(folder, symbol):
    """Whether a folder holds the export of another network than a training symbol.

    Whether that takes pixels or parts of 1 does not matter, nor whether one is from before.
    """
    path = os.path.join(folder, TRAIN_SYMBOL)
    if not os.path.isfile(path):
        return False
    own = map(checkpoint.as_before, (symbol, rewrite.with_raw_input(symbol)))
    return checkpoint.as_before(symbol_file.read(path)) not in own


def check(folder, names=(SYMBOL, PARAMS)):
    """Raises ValueError or OSError if files of an export are not as they were written.

    Those from before there were ``SHA256SUMS`` are taken as they are.
    """
    path = os.path.join(folder, SUMS)
    listed = files.read_if_there(path)
    if listed is None:
        return
    for name in names:
        file = os.path.join(folder, name)
        if not os.path.exists(file):
            raise FileNotFoundError(f"{file}: missing, though {path} lists it")
        if _listed(name, files.sha256(file)).encode() not in listed.splitlines():
            raise ValueError(f"{file}: not the file that {path} lists")


@contextlib.contextmanager
def _replacing(folder):
    """Yields a folder for the files of an export, which then take the places of an earlier one's.

    The old params go first and the new ones come last: a folder without them is no network to any
    loader, so that none finds the params of one export with the symbol of another.
    """
    new = os.path.join(folder, NEW)
    shutil.rmtree(new, ignore_errors=True)  # what a process that was killed left
    os.makedirs(new)
    try:
        yield new
        for name in ORDER:
            files.sync(os.path.join(new, name))
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, PARAMS))
        files.sync(folder)
        for name in ORDER:
            os.replace(os.path.join(new, name), os.path.join(folder, name))
    finally:
        shutil.rmtree(new, ignore_errors=True)
    files.sync(folder)


def image_shape(folder):
    """The (C, H, W) that an export is for.

    Raises OSError if the folder does not say it, and ValueError if that is damaged.
    """
    path = os.path.join(folder, "model-shapes.json")
    content = files.read(path)
    try:
        _, *shape = files.parse_json(content)[0]["shape"]
    except (ValueError, TypeError, LookupError):
        shape = None
    if not fields.is_image_shape(shape):
        raise ValueError(f"{path}: not the shapes of an export")
    return tuple(shape)


def takes_bytes(folder):
    """Whether an export was written for pixels from 0 to 255, as its card says."""
    return read_card(folder).get(INPUT, "").endswith(PIXELS)


def read_card(folder):
    """What the card of an export says: what -> text; empty without one."""
    content = files.read_if_there(os.path.join(folder, CARD)) or b""
    return dict(re.findall("^- (.*?): (.*)$", content.decode(errors="replace"), flags=re.M))


def about_export(folder):
    """What the card of an export tells of the model itself, as ``about`` did of its checkpoint."""
    return {what: text for what, text in read_card(folder).items() if what not in OF_FOLDER}


def about(meta):
    """What the meta of a checkpoint tells of a model: what -> text; empty without any."""
    flags, told = meta.get("flags", {}), {}
    if flags.get("network"):
        transform = f" with transformer, {flags.get('transform') or 'affine'}"
        told["Network"] = flags["network"] + (transform if flags.get("add_stn") else "")
    if flags.get("dataset"):
        distorted = f", distorted by {flags['distort']}" if flags.get("distort") else ""
        told["Data"] = (flags.get("data_origin") or flags["dataset"]) + distorted
        if flags.get("num_examples"):
            told["Training images"] = str(flags["num_examples"])
        told["Seed"] = str(flags.get("seed", 0))
        if flags.get("labels") or flags.get("first_label"):  # the latter of older ones
            told["Labels"] = flags.get("labels") or f"from {flags['first_label']}"
        if flags.get("data_classes"):
            told["Classes in the data"] = ", ".join(flags["data_classes"])
        if flags.get("image_shape"):
            told["Resized to"] = arrays.in_words(flags["image_shape"])
    figures = {**(meta.get("history") or [{}])[-1], **meta}
    for part in ("Test", "Validation"):
        if f"{part.lower()}_accuracy" in figures:
            told[f"{part} accuracy"] = f"{figures[f'{part.lower()}_accuracy']:.4f}"
    if meta.get("started_from"):
        told["Started from"] = _start_in_words(**meta["started_from"])
    if meta.get("command"):
        told["Trained by"] = f"`{meta['command']}`"
    return told


def _start_in_words(model, sha256, taken, anew):
    """What a network was made from: names of parameters, of all that it has."""
    count, among = len(taken) + len(anew), [*taken, *anew]
    words = (f"`{model}`, params with the SHA-256 {sha256}: {len(taken)} of {count} parameters "
             f"taken ({', '.join(layers.by_layer(taken, among))})")
    return words + (f", anew {', '.join(layers.by_layer(anew, among))}" if anew else "")


def _card(title, told, sums, table):
    """The lines of the folder's README.md."""
    here = provenance()
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    told = dict(told, **{"Written by": f"`{here['command']}`", "Versions": versions})
    return [f"# {title}", "",
            *(f"- {what}: {cli.printable(text)}" for what, text in told.items()), "",
            markdown.table(["file", "", "SHA-256"],
                           [[name, what, sums[name]] for name, what in FILES.items()]), "",
            "```", table, "```"]


def _float32(params):
    return {name: value.astype("float32", copy=False) for name, value in params.items()}


def _listed(name, sha256):
    """The line of a file, as ``sha256sum`` writes it."""
    return f"{sha256}  {name}"


def _write(folder, texts):
    for name, text in texts.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(text.encode())


def _lines(lines):
    return "".join(f"{line}\n" for line in lines)


def _json(value):
    return json.dumps(value) + "\n"
