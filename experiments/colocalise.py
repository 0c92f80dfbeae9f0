"""Finds what pictures have in common, without labels: the paper's co-localisation.

    python -m experiments.colocalise           # trains what is missing; then as --print
    python -m experiments.colocalise --print   # prints the tables, writes them into the page
    python -m experiments.colocalise --choose  # other seeds, on training images, for the recipe
    python -m experiments.colocalise --draw    # a film of the boxes while they are learnt

After Jaderberg et al., 2015, appendix A.2. A hundred pictures of 84 x 84 pixels hold a digit of one
class each, somewhere, alone (T) or among 16 crops of other digits (TC). A localisation network sees
a picture and says where to crop it: by a scale and a shift. Of two pictures, the crops should look
more alike than a crop and one at random, to an encoder that was trained to tell digits. Crops start
large and close in. Nobody says where the digits are, nor that they are digits of one class.

Runs are on one CPU device, one at a time; stopped at any time, it goes on with the next one.
"""
import functools
import os
import statistics
import tempfile
from typing import NamedTuple

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

from common import cli, files, markdown
from common.data import datasets
from common.data.batches import derive_seed
from common.data.distort import DISTORTIONS, distort, top_left, warp
from common.graph import rewrite
from common.models import trained
from common.reports import pictures, results, visualise
from common.training.recipe import SeededInit
from experiments import done_runs, pages
from symbols import stn

RESULT, CHOICE = (f"results/colocalisation/{name}.json" for name in ("found", "choice"))
LOCK = "models/colocalisation.lock"
PAGE, FILM = "docs/colocalisation.md", "pictures/colocalisation.gif"
PROGRAM = "experiments/colocalise.py"
SHAPE, DIGIT, IMAGES, CROPS = (84, 84), 28, 100, 16
TASKS = {"T": DISTORTIONS["T"]._replace(target_shape=SHAPE),
         "TC": DISTORTIONS["TC"]._replace(target_shape=SHAPE, crops=CROPS)}
PAPER = {"T": "100", "TC": "75 to 93"}  # %, of the classes
SEEDS, CHOICE_SEEDS = range(3), range(100, 103)
FILMED, ON_FILM, EVERY, SECONDS = 2, 8, 300, 0.5  # digit, pictures, steps between two frames
ENOUGH = 0.5  # of the overlap of a box with the true one

ENCODER = "mnist-lenet"  # in published/
FEATURES, UNITS, CELL = "pool2_output", 50, 4  # of its convolutions; of its hidden layer; in pixels
MARGIN, REACH = 1, 0.05  # of the loss; how far the scale may go
BATCH, HIDDEN = 25, 32
LAST = 20  # steps whose mean is the loss of a start
STARTS, LEARNT = 3, 0.75  # starts at most, and the loss that is low enough
DEVICE = mx.cpu(1)  # on the first one MXNet fuses operators unasked


class Phase(NamedTuple):
    """A part of training.

    Attributes:
        side: of the crops, in pixels.
        steps, lr: how many steps, at what rate.
        hidden: whether the encoding is what the encoder's hidden layer gives.
    """

    side: int
    steps: int
    lr: float
    hidden: bool = False

    @property
    def scale(self):
        """Of a window that has as many pixels in the picture as the crop has."""
        return (self.side - 1) / (SHAPE[0] - 1)


# The windows close upon the digits, and at last centre them: what the encoder's convolutions give
# is as much alike where all crops are off by the same.
PHASES = (Phase(52, 3000, 0.01), Phase(40, 800, 0.01, hidden=True),
          Phase(DIGIT, 800, 0.005, hidden=True))
HEADS = {"stable": True, "plain": False}
SETTINGS = {"phases": [list(phase) for phase in PHASES], "batch": BATCH, "hidden": HIDDEN,
            "encoder": ENCODER, "margin": MARGIN, "reach": REACH, "starts": [STARTS, LEARNT]}


class Run(NamedTuple):
    """A training on the pictures of one class."""

    task: str
    digit: int
    head: str
    seed: int

    @property
    def name(self):
        return "/".join(map(str, self))


def all_runs():
    """The runs of the first table, seed by seed; then those of the other head, of one seed."""
    runs = [Run(task, digit, "stable", seed)
            for seed in SEEDS for task in TASKS for digit in range(10)]
    return runs + [Run(task, digit, "plain", 0) for digit in range(10) for task in TASKS]


def choices():
    """The runs that recipes are chosen by."""
    return [Run(task, digit, "stable", seed)
            for seed in CHOICE_SEEDS for digit in range(10) for task in TASKS]


def pictures_of(run, images, labels):
    """The pictures of a run, and where the digits are.

    Args:
        run: a ``Run``.
        images, labels: of MNIST, (N, 28, 28) and (N,).

    Returns:
        uint8 (100, 84, 84), and boxes as of ``boxes``.

    Raises:
        ValueError: there are too few images of the class.
    """
    rng = np.random.RandomState(run.seed)
    # The crops of TC come from all classes, so all are distorted, and one is taken.
    order = np.sort(rng.permutation(len(images))[:20 * IMAGES])
    images, labels = images[order], labels[order]
    chosen = np.flatnonzero(labels == run.digit)[:IMAGES]
    if len(chosen) < IMAGES:
        raise ValueError(f"needs {IMAGES} images of the digit {run.digit}, got {len(chosen)}")
    distorted, theta = distort(TASKS[run.task], images, run.seed, with_theta=True)
    corner = top_left(theta[chosen], images.shape[1:]) - 0.5
    return distorted[chosen], np.concatenate([corner, corner + DIGIT], axis=1)


def boxes(theta):
    """The borders of crops, in pixels of the picture, whose top left one is from -0.5 to 0.5.

    Args:
        theta: of "attention", (N, 3).

    Returns:
        (N, 4): left, top, right, bottom.
    """
    half = (np.array(SHAPE[::-1]) - 1) / 2
    # A pixel of the crop reaches half a pixel further than its centre.
    reach = np.abs(theta[:, :1]) * half * DIGIT / (DIGIT - 1)
    centre = (theta[:, 1:] + 1) * half
    return np.concatenate([centre - reach, centre + reach], axis=1)


def overlap(found, true):
    """The area that boxes (N, 4) share, of that which they cover together: (N,)."""
    shared = np.minimum(found[:, 2:], true[:, 2:]) - np.maximum(found[:, :2], true[:, :2])
    shared = np.maximum(shared, 0).prod(axis=1)
    areas = [(box[:, 2:] - box[:, :2]).prod(axis=1) for box in (found, true)]
    return shared / (sum(areas) - shared)


class Encoder:
    """The network that compares crops; it is not trained here.

    A crop larger than a digit is encoded by the mean of what the convolutions give in all its parts
    that are as large as a digit: so it says what is in it, wherever.

    Encodings of the convolutions have the length 1: else small ones win, which are those of
    nothing. Those of the hidden layer, h, are h / sqrt(|h|^2 + c^2), where c is the mean length of
    digits: what looks like a digit is longer than what does not.

    Args:
        hidden: whether the encoding is what the hidden layer gives.

    Attributes:
        params: name -> NDArray.
        size: numbers in an encoding.
    """

    def __init__(self, hidden):
        network = trained.load(os.path.join(trained.PUBLISHED, ENCODER))
        self._features = network.symbol.get_internals()[FEATURES]
        self._hidden, self._length = hidden, 0
        encoded = self._encode(mx.sym.Variable("crops"), DIGIT)
        names = set(encoded.list_arguments())
        params = network.checked_params(network.symbol, (1, DIGIT, DIGIT))[0]
        self.params = {name: value for name, value in params.items() if name in names}
        self.size = encoded.infer_shape(crops=(1, 1, DIGIT, DIGIT))[1][0][1]
        if hidden:
            digits = datasets.load("mnist").train_images[:1000, None]
            found, = encoded.bind(mx.cpu(), {**self.params, "crops": mx.nd.array(digits / 255)}
                                  ).forward()
            self._length = float(np.linalg.norm(found.asnumpy(), axis=1).mean())

    def _encode(self, crops, side):
        features = self._features(data=crops)
        larger = (side - DIGIT) // CELL + 1
        net = mx.sym.Flatten(mx.sym.Pooling(features, pool_type="avg", kernel=(larger, larger)))
        return mx.sym.FullyConnected(net, num_hidden=UNITS, name="fc1") if self._hidden else net

    def __call__(self, crops, side):
        """The encodings (N, size) of crops (N, 1, side, side), symbols."""
        encoded = self._encode(crops, side)
        square = mx.sym.sum(mx.sym.square(encoded), axis=1, keepdims=True)
        length = mx.sym.sqrt(square + max(self._length ** 2, 1e-10))
        return mx.sym.broadcast_div(encoded, length, name="encoding")


@functools.lru_cache(maxsize=None)
def encoder_of(hidden):
    """The ``Encoder`` of the hidden layer, or that of the convolutions."""
    return Encoder(hidden)


def window(phase):
    """The ``stn.Transform`` of a phase: attention that starts at its scale and stays near it."""
    attention = stn.get_transform("attention")
    return stn.Affine((phase.scale, 0, 0), (REACH, *attention.reach[1:]), attention.entries)


def network(encoder, phase, stable=True):
    """The loss and theta of pictures "data" and encodings "random".

    Args:
        encoder: an ``Encoder``.
        phase: a ``Phase``.
        stable: whether the localisation network has the stable head.
    """
    image, random = mx.sym.Variable("data"), mx.sym.Variable("random")
    net = mx.sym.Convolution(image, num_filter=8, kernel=(9, 9), stride=(4, 4),
                             name="stn_loc_conv1")
    net = mx.sym.Activation(net, act_type="relu", name="stn_loc_relu1")
    net = mx.sym.Pooling(net, pool_type="max", kernel=(2, 2), stride=(2, 2), name="stn_loc_pool1")
    net = mx.sym.FullyConnected(net, num_hidden=HIDDEN, name="stn_loc_fc0")
    net = mx.sym.Activation(net, act_type="relu", name="stn_loc_fc0_relu")
    transform, shape = window(phase), (phase.side, phase.side)
    theta = stn.localisation_head(net, transform, num_hidden=HIDDEN, bounded=True, stable=stable)
    crops = stn.spatial_transformer(image, theta, shape, transform)
    return mx.sym.Group([triplet_loss(encoder(crops, phase.side), random),
                         mx.sym.BlockGrad(theta, name="theta")])


def triplet_loss(encodings, random):
    """The mean of max(0, |e_n - e_m|^2 - |e_n - r_m|^2 + margin) over n and m, a symbol.

    Args:
        encodings: symbol (N, size), e.
        random: of as many random crops, symbol (N, size), r.
    """
    # |e|^2 is in both distances, and drops out.
    nearer = _squares(random) - _squares(encodings)  # (1, N)
    products = mx.sym.dot(encodings, random - encodings, transpose_b=True)
    loss = mx.sym.relu(mx.sym.broadcast_sub(2 * products, nearer) + MARGIN)
    return mx.sym.MakeLoss(mx.sym.mean(loss), name="loss")


def _squares(encodings):
    return mx.sym.reshape(mx.sym.sum(mx.sym.square(encodings), axis=1), shape=(1, -1))


class RandomCrops:
    """Encodings of crops at random, each as large as another crop."""

    def __init__(self, encoder, rng, side):
        image, theta = mx.sym.Variable("data"), mx.sym.Variable("theta")
        crops = stn.spatial_transformer(image, theta, (side, side), "attention")
        shapes = {"data": (BATCH, 1, *SHAPE), "theta": (BATCH, 3)}
        fast = rewrite.for_cpu(encoder(crops, side), [DEVICE], "float32", for_training=False,
                               **shapes)
        self._executor = fast.simple_bind(DEVICE, grad_req="null", **shapes)
        self._executor.copy_params_from(encoder.params)
        self._rng = rng

    def __call__(self, images, scales):
        """The encodings, NDArray (N, size).

        Args:
            images: NDArray (N, 1, 84, 84).
            scales: of the crops that the random ones are compared with, (N,).
        """
        theta = np.concatenate([np.reshape(scales, (-1, 1)),
                                self._rng.uniform(-1, 1, (len(scales), 2))], axis=1)
        return self._executor.forward(data=images, theta=mx.nd.array(theta))[0]


def train(images, seed, stable=True, phases=PHASES, starts=STARTS, watch=None):
    """Trains a localisation network on pictures of a class, again where it has not learnt.

    Args:
        images: uint8 (N, 84, 84), N a multiple of ``BATCH``.
        seed: of everything that is random here.
        stable: as for ``network``.
        phases: of training.
        starts: how many, until the loss is below ``LEARNT``; that with the lowest loss counts.
        watch: function that is called with the thetas (N, 3) before each step, if it is given.

    Returns:
        The thetas (N, 3) that it ends with, and the mean loss of the ``LAST`` steps.
    """
    ends = []
    for start in range(starts):
        ends.append(_train(images, derive_seed(seed, start), stable, phases, watch))
        if ends[-1][1] < LEARNT:
            break
    return min(ends, key=lambda end: end[1])


def _train(images, seed, stable, phases, watch):
    rng, data = np.random.RandomState(seed), mx.nd.array(images[:, None] / 255)
    theta = np.tile((phases[0].scale, 0.0, 0.0), (len(images), 1))
    params, losses, before = {}, [], phases[0]
    for phase in phases:
        encoder = encoder_of(phase.hidden)
        random = RandomCrops(encoder, rng, phase.side)
        if "stn_loc_fc2_bias" in params:  # what is near the middle of the last window stays so
            params["stn_loc_fc2_bias"][0] += phase.scale - before.scale
        module, before = _module(encoder, phase, stable, seed, params), phase
        for part in _parts(rng, len(images), phase.steps):
            if watch is not None:
                watch(theta)
            batch = mx.nd.take(data, mx.nd.array(part))
            module.forward_backward(mx.io.DataBatch([batch, random(batch, theta[part, 0])]))
            module.update()
            loss, theta[part] = (output.asnumpy() for output in module.get_outputs())
            losses.append(loss.item())
        params = {name: value for name, value in module.get_params()[0].items()
                  if name not in encoder.params}
    return _thetas(module, data, encoder.size), statistics.mean(losses[-LAST:])


def _module(encoder, phase, stable, seed, params):
    """A Module with its optimizer, that starts from those parameters that there are."""
    symbol = network(encoder, phase, stable)
    shapes = {"data": (BATCH, 1, *SHAPE), "random": (BATCH, encoder.size)}
    module = mx.mod.Module(rewrite.for_cpu(symbol, [DEVICE], "float32", **shapes), list(shapes),
                           None, context=DEVICE, fixed_param_names=list(encoder.params))
    module.bind(list(shapes.items()))
    module.init_params(SeededInit(mx.init.Xavier(), seed), {**params, **encoder.params},
                       allow_missing=True)
    rate = mx.lr_scheduler.PolyScheduler(phase.steps + 1, base_lr=phase.lr, pwr=1,
                                         warmup_steps=phase.steps // 10)
    module.init_optimizer(optimizer="adam", optimizer_params={"learning_rate": phase.lr,
                                                              "lr_scheduler": rate})
    return module


def _parts(rng, count, steps):
    """Indices below ``count``, ``BATCH`` at a time; each comes up as often as the others."""
    order = [rng.permutation(count) for _ in range(-(-steps * BATCH // count))]
    return np.concatenate(order)[:steps * BATCH].reshape(steps, BATCH)


def _thetas(module, data, size):
    nothing, thetas = mx.nd.zeros((BATCH, size)), []
    for start in range(0, len(data), BATCH):
        module.forward(mx.io.DataBatch([data[start:start + BATCH], nothing]), is_train=False)
        thetas.append(module.get_outputs()[1].asnumpy())
    return np.concatenate(thetas)


def measure(run, images, labels):
    """The figures of a run: the share of digits that are found, the mean overlap, the loss."""
    shown, true = pictures_of(run, images, labels)
    theta, loss = train(shown, run.seed, HEADS[run.head])
    overlaps = overlap(boxes(theta), true)
    return {"found": float((overlaps > ENOUGH).mean()),
            "overlap": round(float(overlaps.mean()), 4), "loss": round(loss, 4)}


def load(path):
    """The figures of the runs that are done, by name.

    Raises ValueError if the file is no result, or one of other settings.
    """
    return done_runs.load(path, "experiments.colocalise", SETTINGS, "runs")


def tables(runs, done):
    """The table of the share of digits found, in %, for each head: means over the seeds."""
    heads = [head for head in HEADS if any(run.head == head for run in runs if run.name in done)]
    return "\n\n".join(_table(head, runs, done) for head in heads)


def _table(head, runs, done):
    def found(task, digit=None):
        return [100 * done[run.name]["found"] for run in runs
                if run.name in done and (run.task, run.head) == (task, head)
                and digit in (None, run.digit)]

    def cells(task):
        digits = [found(task, digit) for digit in range(10)]
        shown = [f"{statistics.mean(values):.0f}" if values else "" for values in digits]
        every = found(task)
        return [task, *shown, results.mean_and_spread(every) if every else "", PAPER[task]]

    return markdown.table([f"found, %, {head} head", *range(10), "all", "paper"],
                          [cells(task) for task in TASKS])


def draw(path):
    """Writes a film of the boxes on some pictures of TC while they are learnt."""
    mnist, run = datasets.load("mnist"), Run("TC", FILMED, "stable", SEEDS[0])
    shown, true = pictures_of(run, mnist.test_images, mnist.test_labels)
    seen = []
    train(shown, run.seed, starts=1, watch=lambda theta: seen.append(theta[:ON_FILM].copy()))
    shown, true = shown[:ON_FILM], true[:ON_FILM]
    with tempfile.TemporaryDirectory() as folder:
        frames = []
        for step in range(0, len(seen), EVERY):
            frames.append(os.path.join(folder, f"{step:04d}.png"))
            pictures.save(_frame(shown, true, seen[step], f"after {step} steps"), frames[-1])
        pictures.animate(frames, path, SECONDS)


def _frame(shown, true, theta, title):
    """A figure: pictures with the boxes on them, in blue if they are found; below, the crops."""
    crops = warp(shown, theta, (DIGIT, DIGIT), "attention")[:, None] / 255
    outlines = stn.outline(theta, (DIGIT, DIGIT), SHAPE, "attention")
    captions = [(f"{share:.2f}", visualise.RIGHT if share > ENOUGH else visualise.WRONG)
                for share in overlap(boxes(theta), true)]
    return pictures.transformed(shown[:, None], captions, {"crop": (outlines, crops)},
                                f"overlap with the digit's place, {title}")


def main():
    parser = cli.Parser(prog="experiments.colocalise", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("--print", action="store_true",
         help=f"train nothing, print the tables and write them into {PAGE}")
    flag("--choose", action="store_true", help="other seeds, on training images")
    flag("--draw", action="store_true", help=f"train nothing but what {FILM} shows, and draw it")
    flag("--result", help="file of the figures, as JSON; by default in results/colocalisation")
    args = parser.parse_args()
    if args.draw:
        draw(FILM)
        return
    runs, path = (choices(), CHOICE) if args.choose else (all_runs(), RESULT)
    path = path if args.result is None else args.result
    done = load(path)
    if not args.print:
        files.prepare_output(path)
        with files.exclusive(LOCK):
            _train_missing(runs, done, path, "train" if args.choose else "test")
    pages.publish(PAGE, PROGRAM, tables(runs, done), write=path == RESULT)


def _train_missing(runs, done, path, part):
    mnist = datasets.load("mnist")
    images, labels = getattr(mnist, f"{part}_images"), getattr(mnist, f"{part}_labels")
    for number, run in enumerate(runs, start=1):
        if run.name not in done:
            done[run.name] = measure(run, images, labels)
            done_runs.save(path, SETTINGS, "runs", done)
            print(f"{number} of {len(runs)}  {run.name}: {done[run.name]['found']:.0%} found",
                  flush=True)


if __name__ == "__main__":
    cli.run(main)
