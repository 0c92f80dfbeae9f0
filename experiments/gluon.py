"""How fast the LeNet trains as a block of Gluon, and how well examples/gluon_mnist.py does.

    python -m experiments.gluon             # the speed: some minutes, and nothing else should run
    python -m experiments.gluon --accuracy  # the example with three seeds, some minutes each

The block and the Module of train_mnist.py run the same rewritten graph on the same batch of 128
images, on one device and on all cores. Each figure is the median of rounds in which they take
turns. A seed that is done is not trained again: its figures are in results/gluon-mnist.json.
"""
import os
import re
import statistics
import subprocess
import sys

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import mxnet as mx
from mxnet import autograd, gluon

import symbols
from common import agent, cli, files, markdown
from common.graph import rewrite
from common.models import devices
from common.provenance import provenance
from common.reports.results import mean_and_spread
from common.training.fused_trainer import Trainer
from common.training.fused_update import Module
from experiments.protocol import throughput
from symbols.blocks import as_block

BATCH, ROUNDS, SECONDS = 128, 7, 3
RATE = {"learning_rate": 0.003}
SHAPE = (BATCH, 1, 28, 28)
# Forward, each operator begins when its own inputs are there: the devices wait less.
FAST = {"static_alloc": True, "static_shape": True, "forward_bulk_size": 1}
GLUON = {"own_loss": True, "options": FAST, "trainer": Trainer}
WAYS = {
    "Module": None,
    "Gluon": GLUON,
    "Gluon, a loss behind": {**GLUON, "own_loss": False},
    "Gluon, not static": {**GLUON, "options": {}},
    "Gluon, its own Trainer": {**GLUON, "trainer": gluon.Trainer},
}
SEEDS = range(3)
ACCURACIES = "results/gluon-mnist.json"


def steps(way, contexts):
    """A function that makes a training step."""
    symbol = rewrite.for_cpu(symbols.get_symbol("lenet"), contexts, "float32", data=SHAPE)
    batch = mx.io.DataBatch([mx.nd.random.uniform(shape=SHAPE)], [mx.nd.arange(BATCH) % 10])
    if way == "Module":
        return _module_step(symbol, contexts, batch)
    return _gluon_step(symbol, contexts, batch, **WAYS[way])


def _module_step(symbol, contexts, batch):
    module = Module(symbol, context=contexts)
    module.bind([("data", SHAPE)], [("softmax_label", SHAPE[:1])])
    module.init_params(mx.init.Xavier())
    module.init_optimizer(mx.kv.create("local"), "adam", dict(RATE))

    def step():
        module.forward_backward(batch)
        module.update()
    return step


def _gluon_step(symbol, contexts, batch, own_loss, options, trainer):
    block, cross_entropy = as_block(symbol, own_loss=own_loss), gluon.loss.SoftmaxCrossEntropyLoss()
    block.initialize(mx.init.Xavier(), ctx=contexts)
    block.hybridize(**options)
    cross_entropy.hybridize(**options)
    trainer = trainer(block.collect_params(), "adam", dict(RATE))

    def loss(images, labels):
        return block(images, labels) if own_loss else cross_entropy(block(images), labels)

    def step():
        parts = zip(*(gluon.utils.split_and_load(array, contexts, even_split=False)
                      for array in (batch.data[0], batch.label[0])))
        with autograd.record():
            losses = [loss(images, labels) for images, labels in parts]
        autograd.backward(losses)
        trainer.step(BATCH)
    return step


def measure(contexts):
    """Images/s of each of ``WAYS``, a list of rounds each."""
    made = {way: steps(way, contexts) for way in WAYS}
    rounds = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, step in made.items():
            rounds[way].append(throughput(step, SECONDS, BATCH, mx.nd.waitall))
    return rounds


def table(results):
    """Medians, and what Gluon has of the Module's."""
    rows = []
    for count, rounds in results.items():
        medians = [statistics.median(rounds[way]) for way in WAYS]
        rows.append([count, *(f"{median:,.0f}" for median in medians),
                     f"{medians[1] / medians[0]:.2f}"])
    heads = [f"{way}, images/s" for way in WAYS]
    return markdown.table(["devices", *heads, "Gluon / Module"], rows)


def train(seed):
    """Runs the example: the test accuracy after each epoch.

    Raises OSError if it fails.
    """
    folder = os.path.join("models", "gluon-mnist", f"seed-{seed}-export")
    command = [sys.executable, "-m", "examples.gluon_mnist", "--seed", str(seed),
               "--folder", folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False,
                          preexec_fn=agent.die_with(os.getpid()))
    if done.returncode:
        raise OSError(f"examples.gluon_mnist --seed {seed} failed")
    return [float(value) for value in re.findall(r"test accuracy (\S+)", done.stdout)]


def train_missing():
    """The test accuracies of each of ``SEEDS``, those that are not in ``ACCURACIES`` trained."""
    done = files.figures(ACCURACIES, "experiments.gluon", lambda found: [
        list(map(float, run)) for run in found["test_accuracies"].values()])
    accuracies = done.get("test_accuracies", {})
    for seed in map(str, SEEDS):
        if seed not in accuracies:
            accuracies[seed] = train(seed)
            files.write_json(ACCURACIES, dict(provenance(), test_accuracies=accuracies))
    return accuracies


def main():
    parser = cli.Parser(prog="experiments.gluon", description=__doc__.splitlines()[0])
    parser.add_argument("--result", default="results/gluon.json", help="file of the figures")
    parser.add_argument("--accuracy", action="store_true", help="train examples/gluon_mnist.py")
    args = parser.parse_args()
    if args.accuracy:
        files.prepare_output(ACCURACIES)
        with files.exclusive(f"{ACCURACIES}.lock"):
            last = [100 * accuracies[-1] for accuracies in train_missing().values()]
        print(f"test accuracy, %: {mean_and_spread(last)}")
        return
    files.figures(args.result, "experiments.gluon",
                  lambda found: table(found["images_per_second"]))
    files.prepare_output(args.result)
    every = len(devices.contexts(None, None, BATCH))
    results = {str(count): measure([mx.cpu(number) for number in range(count)])
               for count in sorted({1, every})}
    files.write_json(args.result, dict(provenance(), images_per_second=results))
    print(table(results))


if __name__ == "__main__":
    cli.run(main)
