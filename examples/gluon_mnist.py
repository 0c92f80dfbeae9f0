"""A network of one's own in Gluon, with a spatial transformer.

    python -m examples.gluon_mnist

It leaves an export, which score.py, visualize_stn.py, export.py and Module read, and a picture.
"""
from common import find_mxnet  # noqa: F401  or a copy of it: first, so that MXNet can be imported

# isort: split
import argparse

import mxnet as mx
from mxnet import autograd
from mxnet.gluon import loss, nn, utils

from common import cli
from common.data import batches, datasets
from common.models import devices, export_folder, trained
from common.reports import pictures, visualise
from common.training.fused_trainer import Trainer  # or gluon.Trainer: the same, not as fast
from symbols.blocks import SpatialTransformer, get_params

BATCH, RATE = 128, 0.003
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--num-epochs", type=cli.number(int, least=1), default=20)
parser.add_argument("--num-examples", type=cli.number(int, least=BATCH),
                    help="training images; by default all")
parser.add_argument("--seed", type=cli.number(int, least=0), default=0)
parser.add_argument("--folder", default="models/gluon-mnist-export", help="of the export")
args = parser.parse_args()
try:
    export_folder.check_free(args.folder)  # rather now than after the training
except (OSError, ValueError) as error:
    parser.error(error)
contexts = devices.contexts(None, None, BATCH)  # all cores: each takes a part of every batch


def network():
    """Convolutions that see what the transformer has straightened."""
    features, net = nn.HybridSequential(prefix="stn_loc_"), nn.HybridSequential(prefix="")
    with features.name_scope():
        features.add(nn.MaxPool2D(), nn.Conv2D(16, 5, activation="relu"), nn.MaxPool2D())
    with net.name_scope():
        net.add(SpatialTransformer(features, target_shape=(28, 28), prefix=""),
                nn.Conv2D(32, 5, activation="relu"), nn.MaxPool2D(),
                nn.Conv2D(64, 5, activation="relu"), nn.MaxPool2D(), nn.Dropout(0.5),
                nn.Dense(128, activation="relu"), nn.Dropout(0.5), nn.Dense(10))
    return net


def parts_of(batch):
    """The images and labels of a batch, for each device."""
    arrays = batch.data + batch.label
    return zip(*(utils.split_and_load(array, contexts, even_split=False) for array in arrays))


mnist = datasets.load("mnist", num_examples=args.num_examples)
train = batches.ImageIter(mnist.train_images, mnist.train_labels, BATCH, seed=args.seed)
test = batches.ImageIter(mnist.test_images, mnist.test_labels, 100)
mx.random.seed(args.seed)  # for the start and the dropouts
net = network()
net.initialize(mx.init.MSRAPrelu(), ctx=contexts)
net.hybridize(static_alloc=True, static_shape=True, forward_bulk_size=1)
cross_entropy = loss.SoftmaxCrossEntropyLoss()
steps = args.num_epochs * train.num_batches
falling = mx.lr_scheduler.PolyScheduler(steps + 1, RATE, pwr=1, warmup_steps=steps // 4)
trainer = Trainer(net.collect_params(), "adam", {"learning_rate": RATE, "lr_scheduler": falling})

for epoch in range(args.num_epochs):
    train.seek(epoch)
    for batch in train:
        with autograd.record():
            losses = [cross_entropy(net(images), labels) for images, labels in parts_of(batch)]
        autograd.backward(losses)
        trainer.step(BATCH)
    test.reset()
    accuracy = mx.metric.Accuracy()
    for images, labels in (part for batch in test for part in parts_of(batch)):
        accuracy.update(labels, net(images))
    print(f"Epoch {epoch + 1}: test accuracy {accuracy.get()[1]:.4f}", flush=True)

symbol = mx.sym.SoftmaxOutput(net(mx.sym.Variable("data")), name="softmax")
export_folder.export(args.folder, symbol, *get_params(net, symbol), train.image_shape)
seen = visualise.look(trained.load(args.folder), mnist.test_images[:8])
pictures.save(visualise.draw(seen, mnist.test_labels[:8]), f"{args.folder}.png")
