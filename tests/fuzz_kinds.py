"""The kinds of files that ``tests/fuzz.py`` damages, and how each is loaded."""
import contextlib
import gzip
import os
import pathlib
import shutil

import numpy as np
from PIL import Image

import symbols
from common.data import datasets, fetch, idx, image_files, records, synthetic
from common.models import export_folder, trained
from common.reports import training_runs
from common.storage import checkpoint
from common.training import resume
from common.training.recipe import Recipe
from tests import hostile_symbols, mutations, test_svhn
from tests.conftest import run_script

SHAPES = {"data": (2, 1, 28, 28), "softmax_label": (2,)}
RECIPE = Recipe(lr=0.1, num_epochs=2)  # of a run that goes on
IMAGES = synthetic.draw(4, seed=0)[0]
DATA = ["--dataset", "synthetic", "--num-examples", "100"]
TRAIN = ["train_mnist.py", *DATA, "--batch-size", "20", "--cpus", "1", "--add-stn",
         "--model-prefix", "{}/a", "--result", "{}/result.json"]


def make(folder):
    """Trains a small network with the real script, and writes idx files and a picture."""
    done = run_script(*[part.format(folder) for part in TRAIN], "--num-epochs", 1)
    assert done.returncode == 0, done.stderr
    shutil.copytree(os.path.join(folder, "a-export"), os.path.join(folder, "foreign"))
    os.remove(os.path.join(folder, "foreign", export_folder.SUMS))
    done = run_script("export.py", os.path.join(folder, "a"), "--int8", "--output",
                      os.path.join(folder, "int8"))
    assert done.returncode == 0, done.stderr
    os.remove(os.path.join(folder, "int8", export_folder.SUMS))
    for name in ("symbol.json", "0001.params", "0001.state"):
        shutil.copy(os.path.join(folder, f"a-{name}"), os.path.join(folder, f"b-{name}"))
    for suffix, pack in (("", bytes), (".gz", gzip.compress)):
        os.mkdir(os.path.join(folder, f"idx{suffix}"))
        for name in fetch.NAMES:
            array = synthetic.draw(20, seed=0)["labels" in name]
            write(os.path.join(folder, f"idx{suffix}", name + suffix), pack(idx.encode(array)))
    Image.fromarray(IMAGES[0]).save(os.path.join(folder, "digit.png"))
    images, labels = synthetic.draw(40, seed=0)
    np.savez_compressed(os.path.join(folder, "own.npz"), x_train=images, y_train=labels)
    rows = np.concatenate([labels[:, None], images.reshape(40, -1)], axis=1)
    np.savetxt(os.path.join(folder, "own.csv"), rows, fmt="%d", delimiter=",")
    for number, image in enumerate(images):
        os.makedirs(os.path.join(folder, "photos", "ab"[number % 2]), exist_ok=True)
        Image.fromarray(image).save(os.path.join(folder, "photos", "ab"[number % 2],
                                                 f"{number}.png"))
    records.write(os.path.join(folder, "photos"), os.path.join(folder, "a.rec"))
    os.mkdir(os.path.join(folder, "digits"))
    for part in ("train", "test"):
        test_svhn.write_part(pathlib.Path(folder, "svhn", part))
        test_svhn.write_digits(os.path.join(folder, "digits", f"{part}_32x32.mat"), labels + 1)


def load_checkpoint(folder):
    """As train_mnist.py goes on from it, and as the other scripts read it; both are to refuse."""
    found, refusals = [], []
    for load in (_resume, _predict):
        try:
            found.append(load(os.path.join(folder, "a")))
        except (ValueError, OSError) as refusal:
            refusals.append(refusal)
    if len(refusals) == 2:
        raise refusals[0]
    return found


def _resume(prefix):
    checkpoint.finish_renames(prefix, 1)
    symbol = symbols.get_symbol("lenet", add_stn=True)
    return (checkpoint.load_params(prefix, 1, symbol, **SHAPES), checkpoint.load_state(prefix, 1))


def _predict(path):
    network = trained.load(path)
    answers = network.predictor((1, 28, 28), batch_size=4, cpus=1)(IMAGES)
    return network.symbol.tojson(), network.arg_params, network.aux_params, answers


def load_network(name):
    """A function that loads an export."""
    return lambda folder: _predict(os.path.join(folder, name))


def load_meta(folder):
    """As train_mnist.py goes on from it, and export.py writes it on a card."""
    prefix = os.path.join(folder, "b")
    run, _ = resume.load(resume.Source(prefix, 1, 1), RECIPE)
    return run, export_folder.about(checkpoint.load_state(prefix, 1)[1])


def load_shapes(folder):
    return export_folder.image_shape(os.path.join(folder, "foreign"))


def load_result(folder):
    figures = training_runs.read(os.path.join(folder, "result.json"))
    return (f"{figures['test_accuracy']:.2%} {figures['parameters']:,}",
            [f"{epoch['test_accuracy']:.2%}" for epoch in figures.get("history", [])])


def load_with_shapes(name):
    """A function that loads an export, and the shapes beside it."""
    def load(folder):
        path = os.path.join(folder, name)
        return export_folder.image_shape(path), _predict(path)
    return load


def load_data(name):
    """A function that loads a dataset."""
    return lambda folder: datasets.load("mnist", os.path.join(folder, name))


def load_picture(folder):
    return image_files.read_all([os.path.join(folder, "digit.png")])


def load_records(folder):
    path = os.path.join(folder, "a.rec")
    return (*records.load(path), records.Reader(path).class_names())


class Kind:
    """A kind of file.

    Args:
        names: of the files, in the folder; one of them is damaged at a time.
        load: function of the folder that returns what was loaded.
        vouched: whether checksums tell every damage to what is loaded.
        script: the script that loads it with its flags, where "{}" stands for the folder.
        damages: functions of bytes and a ``random.Random``.
    """

    def __init__(self, names, load, vouched, script, damages=mutations.DAMAGES):
        self.names, self.load, self.vouched = names, load, vouched
        self.script, self.damages = script, damages

    def damage(self, folder, random):
        """Damages a file; returns its path and its content before."""
        path = os.path.join(folder, random.choice(self.names))
        whole = changed = read(path)
        while changed == whole:
            if random.random() < 0.05:
                changed = read(os.path.join(folder, random.choice(SWAPPED)))
            else:
                changed = random.choice(self.damages)(whole, random)
        write(path, changed)
        return path, whole


class Special(Kind):
    """As ``Kind``, but files become what is no plain file."""

    def damage(self, folder, random):
        path = os.path.join(folder, random.choice(self.names))
        whole = read(path)
        os.remove(path)
        random.choice(mutations.SPECIAL)(path)
        return path, whole


def hostile(_, random):
    return hostile_symbols.draw(random)


EXPORT = [f"a-export/{name}" for name in (export_folder.SYMBOL, export_folder.PARAMS)]
SYMBOL, PARAMS = f"foreign/{export_folder.SYMBOL}", f"foreign/{export_folder.PARAMS}"
SWAPPED = ("a-0001.params", "a-0001.state", "a-symbol.json", "a-0001.json", SYMBOL, PARAMS,
           f"idx/{fetch.NAMES[3]}", "digit.png")
RESUME = [*TRAIN, "--num-epochs", "2", "--load-epoch", "1", "--overwrite"]
SCORE = ["score.py", "{}/a", *DATA]
SCORE_EXPORT = ["score.py", "{}/a-export", *DATA]
SCORE_FOREIGN = ["score.py", "{}/foreign", *DATA]
INT8 = [f"int8/{name}" for name in (export_folder.SYMBOL, export_folder.PARAMS)]
SCORE_INT8 = ["score.py", "{}/int8", *DATA]
SHAPES_JSON = "foreign/model-shapes.json"
ONNX = ["export.py", "{}/foreign", "--onnx", "{}/foreign.onnx"]
READ = ["train_mnist.py", "--test-io", "1", "--batch-size", "10", "--data-dir"]
KINDS = {
    "params": Kind(["a-0001.params"], load_checkpoint, True, RESUME),
    "state": Kind(["a-0001.state"], load_checkpoint, True, RESUME),
    "symbol": Kind(["a-symbol.json"], load_checkpoint, True, SCORE),
    "manifest": Kind(["a-0001.json"], load_checkpoint, True, SCORE),
    "idx.gz": Kind([f"idx.gz/{name}.gz" for name in fetch.NAMES], load_data("idx.gz"), True,
                   [*READ, "{}/idx.gz"]),
    "idx": Kind([f"idx/{name}" for name in fetch.NAMES], load_data("idx"), False,
                [*READ, "{}/idx"]),
    "npz": Kind(["own.npz"], load_data("own.npz"), False, [*READ, "{}/own.npz"]),
    "table": Kind(["own.csv"], load_data("own.csv"), False, [*READ, "{}/own.csv"]),
    "folder of pictures": Kind(["photos/a/0.png"], load_data("photos"), False,
                               [*READ, "{}/photos"]),
    "picture": Kind(["digit.png"], load_picture, False,
                    ["score.py", "{}/a-export", "--predict", "{}/digit.png"]),
    "SVHN's boxes": Kind(["svhn/train/digitStruct.mat"], load_data("svhn"), False,
                         [*READ, "{}/svhn", "--network", "svhn"]),
    "SVHN's digits": Kind(["digits/train_32x32.mat"], load_data("digits"), False,
                          [*READ, "{}/digits"]),
    "records": Kind(["a.rec", "a.idx", "a.lst"], load_records, False, None),
    "export": Kind(EXPORT, load_network("a-export"), True, SCORE_EXPORT),
    "params, no checksum": Kind([PARAMS], load_network("foreign"), False, SCORE_FOREIGN),
    "symbol, no checksum": Kind([SYMBOL], load_network("foreign"), False, SCORE_FOREIGN),
    "graph, no checksum": Kind([SYMBOL], load_network("foreign"), False, SCORE_FOREIGN,
                               [mutations.wrong_graph]),
    "operators at their worst": Kind([SYMBOL], load_network("foreign"), False, SCORE_FOREIGN,
                                     [hostile]),
    "int8, no checksum": Kind(INT8, load_network("int8"), False, SCORE_INT8),
    "graph in int8, no checksum": Kind(INT8[:1], load_network("int8"), False, SCORE_INT8,
                                       [mutations.wrong_graph]),
    "JSON of a state": Kind(["b-0001.state"], load_meta, False, ["export.py", "{}/b"],
                            [mutations.wrong_meta]),
    "JSON of shapes": Kind([SHAPES_JSON], load_shapes, False, ONNX, [mutations.wrong_json]),
    "JSON of a result": Kind(["result.json"], load_result, False, None, [mutations.wrong_json]),
    "no plain file": Special(["a-0001.params", "a-0001.state", "a-0001.json", "a-symbol.json"],
                             load_checkpoint, True, RESUME),
    "no plain file in an export": Special([*EXPORT, f"a-export/{export_folder.SUMS}",
                                           "a-export/model-shapes.json"],
                                          load_with_shapes("a-export"), True,
                                          ["export.py", "{}/a-export", "--onnx", "{}/a.onnx"]),
    "no plain file, no checksum": Special([SYMBOL, PARAMS, SHAPES_JSON],
                                          load_with_shapes("foreign"), True, ONNX),
}


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, content):
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)  # which may be no plain file
    with open(path, "xb") as file:
        file.write(content)
