"""Shows that each transform learns to undo a distortion of its own family.

    python -m experiments.recover_theta                      # all of them, a few minutes
    python -m experiments.recover_theta --transforms rotation tps

With --result it can be stopped and goes on: what is in the file is not trained again.

Each MNIST digit is distorted by a random map D, anew in each epoch; a localisation network sees the
distorted digit, and is trained so that the transformer gives the original back. How well theta
undoes D is measured on the test digits, at the points p where the original has ink: D(theta(p))
should be p again. Beside it: the accuracy of a classifier that has seen upright digits only.
"""
import sys
import time

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

import symbols
from common import cli, files, markdown
from common.data import datasets
from common.training.recipe import SeededInit
from experiments import done_runs
from symbols import stn

SHAPE = (28, 28)
BATCH = 100
SETTINGS = ("num_epochs", "num_examples", "seed")  # of all that is in one file
# The distortions: how far from the identity each parameter is drawn, uniformly. What is not here is
# drawn from a fifth of its reach.
SPREAD = {
    "translation": [0.3, 0.3],
    "attention": [0.3, 0.2, 0.2],
    "rotation": [np.pi / 3],
    "similarity": [0.2, np.pi / 4, 0.15, 0.15],
    "affine": [0.25, 0.25, 0.15, 0.25, 0.25, 0.15],
    "projective": [0.2, 0.2, 0.15, 0.2, 0.2, 0.15, 0.15, 0.15],
    "tps": [0.2] * 32,
}


def whole_batches(images, labels):
    """Images (N, 1, 28, 28) from 0 to 1 and labels, N cut down to a multiple of ``BATCH``."""
    count = len(images) // BATCH * BATCH
    return images[:count, None].astype(np.float32) / 255, labels[:count]


def draw(transform, count, rng):
    """Random thetas (count, parameters)."""
    family = stn.get_transform(transform)
    spread = np.array(SPREAD.get(transform, np.array(family.reach) / 5))
    return family.identity + rng.uniform(-spread, spread, (count, len(spread)))


class Warp:
    """Distorts batches of images (N, 1, H, W) by given thetas."""

    def __init__(self, transform):
        symbol = stn.spatial_transformer(mx.sym.Variable("data"), mx.sym.Variable("theta"), SHAPE,
                                         transform)
        count = len(stn.get_transform(transform).identity)
        self.executor = symbol.simple_bind(mx.cpu(), grad_req="null", data=(BATCH, 1, *SHAPE),
                                           theta=(BATCH, count))

    def __call__(self, images, theta):
        return self.executor.forward(data=images, theta=mx.nd.array(theta))[0]


def network(transform):
    """The loss between the straightened and the original images, and theta."""
    image, original = mx.sym.Variable("data"), mx.sym.Variable("original")
    net = image
    for index, num_filter in enumerate((16, 32), start=1):
        net = mx.sym.Convolution(net, num_filter=num_filter, kernel=(5, 5), name=f"conv{index}")
        net = mx.sym.Activation(net, act_type="relu", name=f"relu{index}")
        net = mx.sym.Pooling(net, pool_type="max", kernel=(2, 2), stride=(2, 2),
                             name=f"pool{index}")
    theta = stn.localisation_head(net, transform, num_hidden=128, stable=False)
    difference = stn.spatial_transformer(image, theta, SHAPE, transform) - original
    # Blurred, so that strokes that miss each other by some pixels still attract.
    difference = mx.sym.Pooling(difference, pool_type="avg", kernel=(5, 5), pad=(2, 2))
    loss = mx.sym.MakeLoss(mx.sym.sum(mx.sym.square(difference), axis=(1, 2, 3)), name="loss",
                           normalization="batch")
    return mx.sym.Group([loss, mx.sym.BlockGrad(theta, name="theta")])


def train(transform, images, num_epochs, seed):
    """A Module trained to undo distortions."""
    module = mx.mod.Module(network(transform), label_names=["original"])
    module.bind([("data", (BATCH, 1, *SHAPE))], [("original", (BATCH, 1, *SHAPE))])
    warp, rng = Warp(transform), np.random.RandomState(seed)

    def batch(part):
        original = mx.nd.array(images[part])
        return mx.io.DataBatch([warp(original, draw(transform, BATCH, rng))], [original])

    return optimise(module, batch, len(images), num_epochs, seed)


def train_classifier(images, labels, num_epochs, seed):
    """A Module of the zoo's mlp, trained on the undistorted digits."""
    module = mx.mod.Module(symbols.get_symbol("mlp", add_stn=False))
    module.bind([("data", (BATCH, 1, *SHAPE))], [("softmax_label", (BATCH,))])

    def batch(part):
        return mx.io.DataBatch([mx.nd.array(images[part])], [mx.nd.array(labels[part])])

    return optimise(module, batch, len(images), num_epochs, seed)


def optimise(module, batch, count, num_epochs, seed):
    """Starts and trains a Module on batches made from indices below ``count``, and returns it."""
    module.init_params(SeededInit(mx.init.Xavier(), seed))
    steps = count // BATCH * num_epochs
    schedule = mx.lr_scheduler.PolyScheduler(steps + 1, base_lr=0.002, pwr=1,
                                             warmup_steps=steps // 10)
    module.init_optimizer(optimizer="adam", optimizer_params={"learning_rate": 0.002,
                                                              "lr_scheduler": schedule})
    rng = np.random.RandomState(seed)
    for _ in range(num_epochs):
        for part in rng.permutation(count).reshape(-1, BATCH):
            module.forward_backward(batch(part))
            module.update()
    mx.nd.waitall()
    return module


def point_errors(transform, distortion, theta, images):
    """Mean distance, in pixels, between each inked point p and D(theta(p)).

    Points that theta takes outside the image are left out.
    """
    there = stn.source_points(theta, SHAPE, SHAPE, transform)  # (N, H, W, 2)
    back = stn.source_points(distortion, SHAPE, SHAPE, transform)
    normalised = there / (np.array(SHAPE[::-1]) - 1) * 2 - 1
    found = mx.nd.BilinearSampler(mx.nd.array(back.transpose(0, 3, 1, 2)),
                                  mx.nd.array(normalised.transpose(0, 3, 1, 2))).asnumpy()
    home = stn.source_points([stn.get_transform("affine").identity], SHAPE, SHAPE)
    distance = np.linalg.norm(found.transpose(0, 2, 3, 1) - home, axis=3)
    counted = (images[:, 0] > 0.5) & (np.abs(normalised) <= 1).all(axis=3)
    return distance[counted].mean()


def residuals(transform, distortion, theta):
    """What is left of an affine distortion: mean angle in degrees, scale in %, shift in pixels."""
    left = stn.compose(_affine(transform, distortion), _affine(transform, theta))
    a, b, shift_x, d, e, shift_y = left.T
    pixels = (SHAPE[0] - 1) / 2
    return {"angle": float(np.degrees(np.abs(np.arctan2(d - b, a + e))).mean()),
            "scale": float(100 * np.abs(np.sqrt(np.abs(a * e - b * d)) - 1).mean()),
            "shift": float(pixels * np.hypot(shift_x, shift_y).mean())}


def _affine(transform, theta):
    """The affine theta of one of the families within, from where it takes the corners."""
    corners = stn.source_points(theta, (2, 2), (2, 2), transform) * 2 - 1  # (N, row, column, x y)
    across = (corners[:, 0, 1] - corners[:, 0, 0]) / 2
    down = (corners[:, 1, 0] - corners[:, 0, 0]) / 2
    return np.stack([across, down, corners.mean(axis=(1, 2))], axis=2).reshape(-1, 6)


def predict(module, images):
    """The last output of a Module for images (N, 1, H, W), as NumPy array."""
    outputs = []
    for start in range(0, len(images), BATCH):
        module.forward(mx.io.DataBatch([mx.nd.array(images[start:start + BATCH])]), is_train=False)
        outputs.append(module.get_outputs()[-1].asnumpy())
    return np.concatenate(outputs)


def measure(transform, module, classifier, images, labels, seed):
    """The figures of one transform on test images."""
    distortion = draw(transform, len(images), np.random.RandomState(seed))
    identity = np.tile(stn.get_transform(transform).identity, (len(images), 1))
    warp = Warp(transform)

    def warped(source, theta):
        return np.concatenate([
            warp(mx.nd.array(source[start:start + BATCH]), theta[start:start + BATCH]).asnumpy()
            for start in range(0, len(source), BATCH)])

    def accuracy(pictures):
        return float((predict(classifier, pictures).argmax(axis=1) == labels).mean())

    distorted = warped(images, distortion)
    theta = predict(module, distorted)
    figures = {
        "points": [float(point_errors(transform, distortion, tried, images))
                   for tried in (identity, theta)],
        "accuracy": [accuracy(images), accuracy(distorted), accuracy(warped(distorted, theta))]}
    if isinstance(stn.get_transform(transform), stn.Affine):
        before, after = (residuals(transform, distortion, tried) for tried in (identity, theta))
        figures.update({name: [before[name], after[name]] for name in before
                        if before[name] > 1e-6})
    return figures


def table(results):
    """The figures of each transform, as a Markdown table."""
    return markdown.table(["transform", "points, px", "angle, °", "scale, %", "shift, px",
                           "accuracy, % (upright)"], [row(*both) for both in results.items()])


def row(transform, figures):
    """The cells of a transform."""
    cells = [" → ".join(f"{value:.2f}" for value in figures[name]) if name in figures else ""
             for name in ("points", "angle", "scale", "shift")]
    upright, distorted, straightened = (f"{100 * value:.1f}" for value in figures["accuracy"])
    return [transform, *cells, f"{distorted} → {straightened} ({upright})"]


def parse_flags():
    parser = cli.Parser(prog="experiments.recover_theta", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("--transforms", nargs="+", choices=stn.TRANSFORMS, default=list(stn.TRANSFORMS),
         help="which to train")
    flag("--num-epochs", type=cli.number(int, least=1), default=10, help="of training")
    flag("--num-examples", type=cli.number(int, least=BATCH), default=20000,
         help=f"training images to use, rounded down to a multiple of {BATCH}")
    flag("--seed", type=cli.number(int, least=0, most=2**31 - 2), default=0, help="of everything")
    flag("--result", help="file to write the figures to, as JSON")
    return parser.parse_args()


def main():
    args = parse_flags()
    if args.result is None:
        run(args, {}, save=None)
        return
    files.prepare_output(args.result)
    settings = {name: getattr(args, name) for name in SETTINGS}
    with files.exclusive(f"{args.result}.lock"):
        done = done_runs.load(args.result, "experiments.recover_theta", settings, "transforms",
                              table)
        run(args, done, lambda: done_runs.save(args.result, settings, "transforms", done))


def run(args, done, save):
    """Trains what is asked for and not done, and prints the table.

    Args:
        args: the flags.
        done: transform -> its figures; those of what is trained are added.
        save: a function to call after each, or None.
    """
    left = [transform for transform in args.transforms if transform not in done]
    if left:
        train_all(left, args, done, save)
    print(table({transform: done[transform] for transform in args.transforms}))


def train_all(transforms, args, done, save):
    """Trains a network for each transform, and adds its figures to those that are done."""
    mnist = datasets.load("mnist", num_examples=args.num_examples)
    train_images, train_labels = whole_batches(mnist.train_images, mnist.train_labels)
    test_images, test_labels = whole_batches(mnist.test_images, mnist.test_labels)
    classifier = train_classifier(train_images, train_labels, args.num_epochs, args.seed)
    for number, transform in enumerate(transforms, start=1):
        begin = time.monotonic()
        module = train(transform, train_images, args.num_epochs, args.seed)
        figures = measure(transform, module, classifier, test_images, test_labels, args.seed + 1)
        done[transform] = dict(figures, seconds=time.monotonic() - begin)
        if save:
            save()
        print(f"{number} of {len(transforms)}  {transform}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.run(main)
