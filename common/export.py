"""Folders that other programs load a trained network from, without a file of this zoo.

    model-symbol.json         without label: input "data", output "softmax_output"
    model-0000.params         its parameters
    model-shapes.json         the input's shape, as SageMaker wants it
    signature.json            the same, as the multi-model server wants it
    synset.txt                the names of the classes, one a line
    model-train-symbol.json   the symbol with its label, to go on training
    README.md                 what the model is, and the SHA-256 of the other files
"""
import json
import os

from common import checkpoint, data, files, graph, summary
from common.provenance import provenance

FILES = {
    "model-symbol.json": "the network without its label",
    "model-0000.params": "its parameters",
    "model-shapes.json": "the shape of its input, for SageMaker",
    "signature.json": "the same, for the multi-model server",
    "synset.txt": "the names of the classes",
    "model-train-symbol.json": "the network with its label, to go on training",
}


def export(folder, symbol, arg_params, aux_params, image_shape, classes=None, raw_input=False,
           about=None):
    """Writes a network for other programs, in place of what an earlier export wrote.

    Each file is written whole or not at all, the params last.

    Args:
        folder: made if need be.
        symbol: a training symbol that ends in a SoftmaxOutput.
        arg_params, aux_params: name -> NDArray, all that the symbol needs.
        image_shape: (C, H, W).
        classes: their names; by default their numbers.
        raw_input: whether the network for prediction takes pixels from 0 to 255, not 0 to 1.
        about: more to be said of the model: what -> text.

    Returns:
        The paths of the JSON and the params.

    Raises:
        ValueError: more or fewer names than classes.
        OSError: a file cannot be written.
    """
    deployed = graph.label_free(symbol)
    _, ((_, count),), _ = deployed.infer_shape(data=(1, *image_shape))
    classes = data.class_names(None, count) if classes is None else classes
    if len(classes) != count:
        raise ValueError(f"{len(classes)} names of classes, but the network has {count} classes")
    if raw_input:
        deployed = graph.with_raw_input(deployed)
    texts = {
        "model-symbol.json": deployed.tojson(),
        "model-shapes.json": _json([{"name": "data", "shape": [1, *image_shape]}]),
        "signature.json": _json({"inputs": [{"data_name": "data",
                                             "data_shape": [0, *image_shape]}]}),
        "synset.txt": "".join(f"{name}\n" for name in classes),
        "model-train-symbol.json": symbol.tojson(),
    }
    symbol_path, params_path, _ = checkpoint.paths(os.path.join(folder, "model"), 0)
    os.makedirs(folder, exist_ok=True)
    with files.replacing(params_path) as temporary:
        checkpoint.save_params(temporary, arg_params, aux_params)
        sums = {os.path.basename(params_path): checkpoint.sha256(temporary)}
        for name, text in texts.items():
            files.write_bytes(os.path.join(folder, name), text.encode())
            sums[name] = checkpoint.sha256(os.path.join(folder, name))
        pixels = "pixels from 0 to 255" + ("" if raw_input else ", divided by 255")
        lines = _card(os.path.basename(os.path.abspath(folder)), {
            "Input `data`": f"images (N, {', '.join(map(str, image_shape))}), float, {pixels}",
            "Output `softmax_output`": f"probabilities (N, {count}) of the classes in synset.txt",
            **(about or {})}, sums, summary.table(symbol, image_shape))
        files.write_bytes(os.path.join(folder, "README.md"), "\n".join([*lines, ""]).encode())
    return symbol_path, params_path


def image_shape(folder):
    """The (C, H, W) that an export is for.

    Raises OSError if the folder does not say it, and ValueError if that is damaged.
    """
    path = os.path.join(folder, "model-shapes.json")
    with open(path, encoding="utf-8") as file:
        try:
            _, *shape = json.load(file)[0]["shape"]
        except (ValueError, TypeError, LookupError):
            raise ValueError(f"{path}: not the shapes of an export") from None
    return tuple(shape)


def about(meta):
    """What the meta of a checkpoint tells of a model: what -> text; empty without any."""
    flags, told = meta.get("flags", {}), {}
    if flags.get("network"):
        transform = f" with transformer, {flags.get('transform') or 'affine'}"
        told["Network"] = flags["network"] + (transform if flags.get("add_stn") else "")
    if flags.get("dataset"):
        distorted = f", distorted by {flags['distort']}" if flags.get("distort") else ""
        told["Data"] = flags["dataset"] + distorted
    if meta.get("history"):
        told["Test accuracy"] = f"{meta['history'][-1]['test_accuracy']:.4f}"
    if meta.get("command"):
        told["Trained by"] = f"`{meta['command']}`"
    return told


def _card(title, told, sums, table):
    """The lines of the folder's README.md."""
    here = provenance()
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    told = dict(told, **{"Written by": f"`{here['command']}`", "Versions": versions})
    return [f"# {title}", "", *(f"- {what}: {text}" for what, text in told.items()), "",
            "| file | | SHA-256 |", "| --- | --- | --- |",
            *(f"| {name} | {what} | {sums[name]} |" for name, what in FILES.items()), "",
            "```", table, "```"]


def _json(value):
    return json.dumps(value) + "\n"
