"""Trains a published model on to classes of your own, by Module.fit.

    python -m examples.fine_tune

The classes here are odd and even, of drawn digits. This is for a program of your own, which cuts
the symbol itself; train_mnist.py starts from a model by the flags of docs/fine-tuning.md. The head
of this model is not the stable one, and at full steps its transformer would die:
docs/when-a-transformer-dies.md says why, and what else would help.
"""
from common import find_mxnet  # noqa: F401  or a copy of it: first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

from common.data import synthetic

folder = "published/mnist-lenet-stn"
images, digits = synthetic.draw(2400, seed=0)  # put your own images here
images = images[:, None].astype("float32") / 255  # (N, C, H, W), from 0 (black) to 1 (white)
labels = digits % 2
mx.random.seed(0)  # for the start and the dropout
np.random.seed(0)  # for the order of the images
train = mx.io.NDArrayIter(images[:2000], labels[:2000], batch_size=50, shuffle=True)
test = mx.io.NDArrayIter(images[2000:], labels[2000:], batch_size=50)

# The network as it is, up to the full connection to its ten classes; then one to two classes.
symbol = mx.sym.load(f"{folder}/model-train-symbol.json")
_, arg_params, aux_params = mx.model.load_checkpoint(f"{folder}/model", 0)
net = symbol.get_internals()["dropout2_output"]
net = mx.sym.FullyConnected(net, num_hidden=2, name="odd_or_even")
net = mx.sym.SoftmaxOutput(net, name="softmax")

module = mx.mod.Module(net)
module.fit(train, num_epoch=2, initializer=mx.init.Xavier(),
           arg_params=arg_params, aux_params=aux_params, allow_missing=True,  # odd_or_even is new
           optimizer="sgd", optimizer_params={"learning_rate": 0.01, "momentum": 0.9,
                                              "clip_gradient": 1})  # lets the transformer live

print(f"Test accuracy: {dict(module.score(test, 'acc'))['accuracy']:.3f}")
