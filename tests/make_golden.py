"""Writes what this version writes, for every later one to read: exports, a checkpoint, names.

    python -m tests.make_golden tests/golden/2

The numbers in ``tests/golden`` are generations. None is ever written again: whoever changes what
files look like adds one, and goes on reading the others.
"""
import gzip
import json
import os
import shutil
import sys

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

import symbols
from common.data import idx, synthetic
from common.models import export_folder
from symbols import stn
from tests.conftest import run_script
from tests.test_export_folder import network, values
from tests.test_networks import VARIANTS, predict

TINY = {"network": "mlp", "width": 8, "image_shape": (1, 8, 8)}
MODELS = {
    "mlp": dict(TINY, add_stn=False),
    **{f"mlp-{transform}".replace(":", ""): dict(TINY, transform=transform)
       for transform in (*stn.TRANSFORMS, "tps:3")},
    **{f"mlp-{transform}-bounded": dict(TINY, transform=transform, bounded=True)
       for transform in ("similarity", "projective", "tps")},
    "mlp-affine-raw-input": dict(TINY, raw_input=True),
    "mlp-affine-pool": dict(TINY, image_shape=(3, 10, 8), pool=2, num_classes=4),
    "lenet-affine": {"network": "lenet", "image_shape": (1, 18, 18)},
    "cnn-similarity": {"network": "cnn", "width": 2, "transform": "similarity"},
    "addition-attention": {"network": "addition", "width": 8, "image_shape": (2, 8, 8),
                           "transform": "attention", "num_classes": 19},
    "resnet-affine": {"network": "resnet", "width": 2, "image_shape": (3, 12, 8),
                      "stn_at": "input,stage1"}}
TRAINING = ["--network", "mlp", "--width", "8", "--add-stn", "--transform", "similarity",
            "--distort", "R", "--data-dir", ".", "--num-epochs", "2", "--batch-size", "10",
            "--cpus", "1", "--model-prefix", "a", "--resume"]


def write_export(folder, raw_input=False, **options):
    """Writes an export, and beside it images and what the network makes of them."""
    image_shape = options.get("image_shape", (1, 28, 28))
    channels, *size = image_shape
    images = synthetic.draw(6 * channels, seed=0, image_shape=size)[0].reshape(6, *image_shape)
    symbol, module = network(batch_size=6, spread=0.3, **dict(options, image_shape=image_shape))
    export_folder.export(folder, symbol, *module.get_params(), image_shape, raw_input=raw_input)
    scaled = mx.io.DataBatch([mx.nd.array(images / 255)])
    outputs = {"softmax_output": predict(module, scaled)}
    thetas = [name for name in symbol.get_internals().list_outputs()
              if name.endswith("_theta_output")]
    for name in thetas:
        outputs[name], = values(symbol.get_internals()[name], module, scaled)
    np.savez_compressed(f"{folder}.npz", images=images, **outputs)


def write_checkpoint(folder):
    """Writes digits, the checkpoint after one of two epochs, and the params after both."""
    os.makedirs(folder)
    for name, count in (("train", 100), ("t10k", 50)):
        images, labels = synthetic.draw(count, seed=count, image_shape=(12, 12))
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            with open(os.path.join(folder, f"{name}-{kind}-ubyte.gz"), "wb") as file:
                file.write(gzip.compress(idx.encode(array), mtime=0))
    done = run_script("train_mnist.py", *TRAINING, cwd=folder)
    assert done.returncode == 0, done.stderr
    os.rename(os.path.join(folder, "a-0002.params"), os.path.join(folder, "finished.params"))
    for name in ("a-0002.state", "a-0002.json"):
        os.remove(os.path.join(folder, name))
    shutil.rmtree(os.path.join(folder, "a-export"))


def all_names():
    """The names that other programs rely on, of every network with every transformer."""
    return {" ".join([name, json.dumps(options)]): names(symbols.get_symbol(name, **options))
            for name in symbols.NETWORKS for options in VARIANTS}


def names(symbol):
    """The shapes of the parameters, and the outputs that do not belong to the inside of a warp."""
    shapes, _, _ = symbol.infer_shape(data=(1, 1, 28, 28))
    outputs = [name for name in symbol.get_internals().list_outputs() if name.endswith("_output")
               and "_grid_" not in name and "_loc_bounded_" not in name]
    return {"parameters": {name: list(shape) for name, shape in
                           zip(symbol.list_arguments(), shapes)}, "outputs": outputs}


def main(folder):
    os.makedirs(folder)
    for name, options in MODELS.items():
        write_export(os.path.join(folder, "exports", name), **options)
    write_checkpoint(os.path.join(folder, "training"))
    with open(os.path.join(folder, "names.json"), "w", encoding="utf-8") as file:
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in all_names().items()]
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
