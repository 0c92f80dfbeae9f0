"""The kinds of files that ``tests/fuzz.py`` damages, and how each is loaded."""
import gzip
import os
import shutil

from PIL import Image

import symbols
from common import checkpoint, data, export, fetch, idx, image_files, synthetic, trained
from tests import mutations
from tests.conftest import run_script

SHAPES = {"data": (2, 1, 28, 28), "softmax_label": (2,)}
IMAGES = synthetic.draw(4, seed=0)[0]
DATA = ["--dataset", "synthetic", "--num-examples", "100"]
TRAIN = ["train_mnist.py", *DATA, "--batch-size", "20", "--cpus", "1", "--add-stn",
         "--model-prefix", "{}/a"]


def make(folder):
    """Trains a small network with the real script, and writes idx files and a picture."""
    done = run_script(*[part.format(folder) for part in TRAIN], "--num-epochs", 1)
    assert done.returncode == 0, done.stderr
    shutil.copytree(os.path.join(folder, "a-export"), os.path.join(folder, "foreign"))
    os.remove(os.path.join(folder, "foreign", export.SUMS))
    for suffix, pack in (("", bytes), (".gz", gzip.compress)):
        os.mkdir(os.path.join(folder, f"idx{suffix}"))
        for name in fetch.NAMES:
            array = synthetic.draw(20, seed=0)["labels" in name]
            write(os.path.join(folder, f"idx{suffix}", name + suffix), pack(idx.encode(array)))
    Image.fromarray(IMAGES[0]).save(os.path.join(folder, "digit.png"))


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
    checkpoint.settle(prefix, 1)
    symbol = symbols.get_symbol("lenet", add_stn=True)
    return (checkpoint.load_params(prefix, 1, symbol, **SHAPES), checkpoint.load_state(prefix, 1))


def _predict(path):
    network = trained.load(path)
    answers = network.predictor((1, 28, 28), batch_size=4, cpus=1)(IMAGES)
    return network.symbol.tojson(), network.arg_params, network.aux_params, answers


def load_export(folder):
    return _predict(os.path.join(folder, "a-export"))


def load_foreign(folder):
    return _predict(os.path.join(folder, "foreign"))


def load_raw(folder):
    return data.load("mnist", os.path.join(folder, "idx"))


def load_gzipped(folder):
    return data.load("mnist", os.path.join(folder, "idx.gz"))


def load_picture(folder):
    return image_files.read_all([os.path.join(folder, "digit.png")])


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


EXPORT = [f"a-export/{name}" for name in (export.SYMBOL, export.PARAMS)]
SYMBOL, PARAMS = f"foreign/{export.SYMBOL}", f"foreign/{export.PARAMS}"
SWAPPED = ("a-0001.params", "a-0001.state", "a-symbol.json", "a-0001.json", SYMBOL, PARAMS,
           f"idx/{fetch.NAMES[3]}", "digit.png")
RESUME = [*TRAIN, "--num-epochs", "2", "--load-epoch", "1", "--overwrite"]
SCORE = ["score.py", "{}/a", *DATA]
SCORE_EXPORT = ["score.py", "{}/a-export", *DATA]
SCORE_FOREIGN = ["score.py", "{}/foreign", *DATA]
READ = ["train_mnist.py", "--test-io", "1", "--batch-size", "10", "--data-dir"]
KINDS = {
    "params": Kind(["a-0001.params"], load_checkpoint, True, RESUME),
    "state": Kind(["a-0001.state"], load_checkpoint, True, RESUME),
    "symbol": Kind(["a-symbol.json"], load_checkpoint, True, SCORE),
    "manifest": Kind(["a-0001.json"], load_checkpoint, True, SCORE),
    "idx.gz": Kind([f"idx.gz/{name}.gz" for name in fetch.NAMES], load_gzipped, True,
                   [*READ, "{}/idx.gz"]),
    "idx": Kind([f"idx/{name}" for name in fetch.NAMES], load_raw, False, [*READ, "{}/idx"]),
    "picture": Kind(["digit.png"], load_picture, False,
                    ["score.py", "{}/a-export", "--predict", "{}/digit.png"]),
    "export": Kind(EXPORT, load_export, True, SCORE_EXPORT),
    "params, no checksum": Kind([PARAMS], load_foreign, False, SCORE_FOREIGN),
    "symbol, no checksum": Kind([SYMBOL], load_foreign, False, SCORE_FOREIGN),
    "graph, no checksum": Kind([SYMBOL], load_foreign, False, SCORE_FOREIGN,
                               [mutations.wrong_graph]),
}


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)
