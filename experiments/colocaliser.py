"""What pictures have in common, found without labels: the localisation network and its training.

Pictures hold something alike, somewhere. A localisation network sees a picture and says where to
crop it: by a scale and a shift. Of two pictures, the crops should look more alike than a crop and
one at random, to an encoder that was trained to tell digits: a triplet hinge loss. Crops start
large and close in. Nobody says where the digits are, nor that they are digits of one class.

After Jaderberg et al., 2015, appendix A.2. ``experiments/colocalise.py`` measures how well it does.
"""
import functools
import os
import statistics
from typing import NamedTuple

import mxnet as mx
import numpy as np

from common.data import augment
from common.data.batches import derive_seed
from common.graph import rewrite
from common.models import trained
from common.training.recipe import SeededInit
from symbols import stn

SHAPE, DIGIT = (84, 84), 28
ENCODER = "mnist-lenet"  # in published/
FEATURES, CELL = "pool2_output", 4  # what its convolutions give, every so many pixels
TEMPERATURE = 4  # of its probabilities of the classes
BORDER = 26  # pixels around a picture, mirrored: there is no outside, which would be alike to all
MARGIN, REACH = 1, 0.05  # of the loss; how far the scale may go
RIDGE = 1  # of the mean variance, that is added to each when windows of maps are whitened
BATCH, FILTERS, HIDDEN = 25, 16, 64
OFFSET, STEP, APART = 24, 4, 8  # pixels: how far, and how closely, the shift that all crops share
# is searched; how far from the best the next best is
LAST = 50  # steps whose mean is the loss of a training
DEVICE = mx.cpu(1)  # on the first one MXNet fuses operators unasked


class Phase(NamedTuple):
    """A part of training.

    Attributes:
        side: of the crops, in pixels.
        steps, lr: how many steps, at what rate.
        moved: how far the localisation network's pictures are moved at random, in pixels.
        tries: how many, of which that with the lowest loss counts: from other first values, or
            where it is searched, with another shift of all crops.
        searched: whether all crops are shifted together first, to where they look most alike.
        pixels: whether the transformer cuts pixels, which are encoded by their class; else it
            samples maps of what the encoder's hidden layer says of windows of this side.
        scaled: whether the scale is learnt.
    """

    side: int
    steps: int
    lr: float
    moved: int
    tries: int = 1
    searched: bool = False
    pixels: bool = False
    scaled: bool = False

    @property
    def scale(self):
        """Of a window that has as many pixels in the picture as the crop has."""
        return (self.side - 1) / (SHAPE[0] - 1)


# Large windows find what there is in common, smaller ones where it is; both are content where all
# are off by the same. So that is searched, at the digits' size.
PHASES = (Phase(52, 1500, 0.01, moved=24, tries=2),
          Phase(36, 800, 0.005, moved=8, searched=True),
          Phase(DIGIT, 400, 0.005, moved=4, tries=3, searched=True, pixels=True),
          Phase(DIGIT, 400, 0.005, moved=4, pixels=True, scaled=True))
SETTINGS = {"phases": [list(phase) for phase in PHASES], "batch": BATCH, "filters": FILTERS,
            "hidden": HIDDEN, "encoder": ENCODER, "temperature": TEMPERATURE, "border": BORDER,
            "margin": MARGIN, "reach": REACH, "ridge": RIDGE, "offset": [OFFSET, STEP, APART],
            "last": LAST}


class Encoder:
    """The network that compares crops; it is not trained here.

    Its linear layers are convolutions here: so they look at all parts of a picture that are as
    large as a digit, every ``CELL`` pixels.

    Attributes:
        params: name -> NDArray.
        units, size: numbers that ``hidden`` and ``classes`` give of a digit.
    """

    def __init__(self):
        network = trained.load(os.path.join(trained.PUBLISHED, ENCODER))
        self._features = network.symbol.get_internals()[FEATURES]
        self.params = dict(network.checked_params(network.symbol, (1, DIGIT, DIGIT))[0])
        for name, kernel in (("fc1", (-1, CELL, CELL)), ("fc2", (-1, 1, 1))):
            weight = self.params[f"{name}_weight"]
            self.params[f"{name}_weight"] = weight.reshape((len(weight), *kernel))
        self.units, self.size = (len(self.params[f"{name}_bias"]) for name in ("fc1", "fc2"))

    def hidden(self, images):
        """What the hidden layer says of the parts of images (N, 1, ...): symbol (N, units, ...)."""
        net = mx.sym.Convolution(self._features(data=images), num_filter=self.units,
                                 kernel=(CELL, CELL), name="fc1")
        return mx.sym.Activation(net, act_type="relu", name="fc1_relu")

    def classes(self, crops):
        """The softened probabilities of the classes of crops (N, 1, 28, 28), a symbol (N, size)."""
        net = mx.sym.Convolution(self.hidden(crops), num_filter=self.size, kernel=(1, 1),
                                 name="fc2")
        return mx.sym.softmax(mx.sym.Flatten(net) / TEMPERATURE, name="classes")

    def maps(self, images):
        """What the hidden layer says of the parts of images.

        Args:
            images: NDArray (N, 1, height, width).

        Returns:
            NDArray (N, units, rows, columns).
        """
        hidden = self.hidden(mx.sym.Variable("images"))
        params = {name: self.params[name] for name in hidden.list_arguments() if name != "images"}
        return hidden.bind(mx.cpu(), {**params, "images": images}).forward()[0]


@functools.lru_cache(maxsize=None)
def encoder():
    """The ``Encoder``."""
    return Encoder()


def sources(images, phase):
    """What the transformer samples: pictures with a border, or maps of their windows.

    Args:
        images: uint8 (N, 84, 84).
        phase: a ``Phase``.

    Returns:
        NDArray (N, channels, rows, columns). Of maps, each place has what ``whitened`` gives of the
        mean of the parts of the window around it.
    """
    border = [(0, 0), (BORDER, BORDER), (BORDER, BORDER)]
    wide = mx.nd.array(np.pad(images, border, mode="reflect")[:, None] / 255)
    if phase.pixels:
        return wide
    parts = (phase.side - DIGIT) // CELL + 1
    means = mx.nd.Pooling(encoder().maps(wide), kernel=(parts, parts), pool_type="avg")
    return mx.nd.array(whitened(means.asnumpy()))


def whitened(maps):
    """Maps (N, channels, rows, columns) less what is usual: of mean 0, and variances nearer to 1.

    The loss compares crops with random ones. What most windows of the pictures have in common says
    nothing there, and what they differ by most drowns the rest.
    """
    places = np.moveaxis(maps, 1, -1)
    places = places - places.mean(axis=(0, 1, 2))
    variances, axes = np.linalg.eigh(np.cov(places.reshape(-1, places.shape[-1]).T))
    white = axes / np.sqrt(variances + RIDGE * variances.mean()) @ axes.T
    return np.moveaxis(places @ white, -1, 1)


def encodings(source, theta, phase):
    """The encodings of crops, a symbol (N, size).

    Args:
        source: symbol, of what ``sources`` gives.
        theta: symbol (N, 3), of "attention", in the picture without its border.
        phase: a ``Phase``. Of maps one place is a crop, whatever the scale, and encoded by its
            direction.
    """
    wide, own = SHAPE[0] + 2 * BORDER, SHAPE[0] - 1
    if phase.pixels:
        crop = stn.spatial_transformer(source, theta * (own / (wide - 1)), (DIGIT, DIGIT),
                                       "attention")
        return encoder().classes(crop)
    # The outermost middles of windows are half a window further in than the border.
    middle = mx.sym.slice_axis(theta, axis=1, begin=1, end=3) * (own / (wide - phase.side))
    place = mx.sym.BilinearSampler(source, mx.sym.reshape(middle, shape=(0, 0, 1, 1)))
    return mx.sym.L2Normalization(mx.sym.Flatten(place), eps=1e-8, name="encoding")


def window(phase):
    """The ``stn.Transform`` of a phase: attention that starts at its scale and stays near it."""
    attention = stn.get_transform("attention")
    return stn.Affine((phase.scale, 0, 0), (REACH, *attention.reach[1:]), attention.entries)


def network(phase, stable=True):
    """The loss, and the theta of pictures "data" that are moved by "shift", a theta, too.

    The crops are cut from "source", which is not moved, and compared with the encodings "random".
    So pictures cannot be learnt by heart: what is looked for is found wherever it comes to be.

    Args:
        phase: a ``Phase``.
        stable: whether the localisation network has the stable head.
    """
    net = mx.sym.Convolution(mx.sym.Variable("data"), num_filter=FILTERS, kernel=(9, 9),
                             stride=(4, 4), name="stn_loc_conv1")
    net = mx.sym.Activation(net, act_type="relu", name="stn_loc_relu1")
    net = mx.sym.Pooling(net, pool_type="max", kernel=(2, 2), stride=(2, 2), name="stn_loc_pool1")
    net = mx.sym.FullyConnected(net, num_hidden=HIDDEN, name="stn_loc_fc0")
    net = mx.sym.Activation(net, act_type="relu", name="stn_loc_fc0_relu")
    theta = stn.localisation_head(net, window(phase), num_hidden=HIDDEN, bounded=True,
                                  stable=stable)
    if not phase.scaled:
        scale, middle = (mx.sym.slice_axis(theta, axis=1, begin=begin, end=end)
                         for begin, end in ((0, 1), (1, 3)))
        theta = mx.sym.concat(mx.sym.ones_like(scale) * phase.scale, middle, dim=1)
    theta = theta - mx.sym.Variable("shift")
    encoded = encodings(mx.sym.Variable("source"), theta, phase)
    return mx.sym.Group([triplet_loss(encoded, mx.sym.Variable("random")),
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


class CropEncoder:
    """The encodings of crops, without gradients.

    Args:
        phase: a ``Phase``.
        shape: of the sources that it is called with.
    """

    def __init__(self, phase, shape):
        symbol = encodings(mx.sym.Variable("source"), mx.sym.Variable("theta"), phase)
        shapes = {"source": shape, "theta": (shape[0], 3)}
        fast = rewrite.for_cpu(symbol, [DEVICE], "float32", for_training=False, **shapes)
        self._executor = fast.simple_bind(DEVICE, grad_req="null", **shapes)
        self._executor.copy_params_from(encoder().params, allow_extra_params=True)

    def __call__(self, source, theta):
        """NDArray (N, size), of a source (N, ...) and theta (N, 3)."""
        return self._executor.forward(source=source, theta=mx.nd.array(theta))[0]

    def random(self, source, scales, rng):
        """Those of crops anywhere, NDArray (N, size), of such scales (N,)."""
        return self(source, np.column_stack([scales, rng.uniform(-1, 1, (len(scales), 2))]))


def train(images, seed, stable=True, phases=PHASES, watch=None):
    """Trains a localisation network on pictures of a class.

    Args:
        images: uint8 (N, 84, 84), N a multiple of ``BATCH``.
        seed: of everything that is random here.
        stable: as for ``network``.
        phases: of training.
        watch: function that is called with the thetas (N, 3) before each step, if it is given.

    Returns:
        The thetas (N, 3) that it ends with, and the mean loss of the ``LAST`` steps.
    """
    rng, params = np.random.RandomState(seed), {}
    theta, scale = np.zeros((len(images), 3)), 0
    for phase in phases:
        cut_from, ends = sources(images, phase), []
        # What is near the middle of the last window stays so.
        growth, scale = np.array([phase.scale - scale, 0, 0]), phase.scale
        theta = theta + growth
        for number, offset in enumerate(_offsets(images, theta, phase, rng)):
            module = _module(phase, cut_from.shape[1:], stable, derive_seed(seed, number),
                             _shifted(params, growth + offset))
            losses = _train(module, images, cut_from, theta + offset, phase, rng, watch)
            ends.append((statistics.mean(losses[-LAST:]), _thetas(module, images, cut_from),
                         module.get_params()[0]))
        loss, theta, params = min(ends, key=lambda end: end[0])
    return theta, loss


def _offsets(images, theta, phase, rng):
    if phase.searched:
        return best_offsets(images, theta, phase.tries, rng)
    return np.zeros((phase.tries, 3))


def _shifted(params, by):
    """Parameters with which all thetas are shifted, if there are any."""
    bias = "stn_loc_fc2_bias"
    return {**params, bias: params[bias] + mx.nd.array(by)} if params else {}


def _train(module, images, cut_from, theta, phase, rng, watch):
    """Trains a phase, from such thetas; returns the losses of its steps."""
    encode, losses = CropEncoder(phase, (BATCH, *cut_from.shape[1:])), []
    for part in _parts(rng, len(images), phase.steps):
        if watch is not None:
            watch(theta)
        moved, shift = _moved(images[part],
                              rng.randint(-phase.moved, phase.moved + 1, (BATCH, 2)))
        cut = mx.nd.take(cut_from, mx.nd.array(part))
        random = encode.random(cut, theta[part, 0], rng)
        module.forward_backward(mx.io.DataBatch([moved, shift, cut, random]))
        module.update()
        loss, theta[part] = (output.asnumpy() for output in module.get_outputs())
        losses.append(loss.item())
    return losses


def best_offsets(images, theta, count, rng):
    """The shifts by which crops, if all are shifted, look most alike.

    They are cut as large as digits, whatever theta's scale is, and encoded by their class: larger
    ones, and maps, may be more alike off the middle.

    Args:
        images: uint8 (N, 84, 84).
        theta: of the crops, (N, 3).
        count: how many shifts.
        rng: a ``RandomState``.

    Returns:
        (count, 3), the best first, ``APART`` in x or y; their scale is 0.
    """
    phase = PHASES[-1]
    source, scales = sources(images, phase), np.full(len(images), phase.scale)
    encode, theta = CropEncoder(phase, source.shape), np.column_stack([scales, theta[:, 1:]])
    random = encode.random(source, scales, rng).copy()
    loss = triplet_loss(mx.sym.Variable("encodings"), mx.sym.Variable("random"))

    def after(offset):
        found, = loss.eval(DEVICE, encodings=encode(source, theta + offset), random=random)
        return found.asscalar()

    steps = _as_shift(np.arange(-OFFSET, OFFSET + 1, STEP))
    left, best = sorted(([0, x, y] for x in steps for y in steps), key=after), []
    while len(best) < count:
        best.append(left[0])
        left = [offset for offset in left
                if np.abs(np.subtract(offset, best[-1])).max() > _as_shift(APART - STEP / 2)]
    return np.array(best)


def _as_shift(pixels):
    return pixels / ((SHAPE[0] - 1) / 2)


def _moved(images, by):
    """Pictures (N, 84, 84) moved by pixels (N, 2), x and y, and that as thetas: NDArrays."""
    far = np.abs(by).max()
    lefts, tops = (far - by).T
    moved = augment.cut_padded(images[:, None], far, tops, lefts)
    shift = np.column_stack([np.zeros(len(by)), _as_shift(by)])
    return mx.nd.array(moved / 255), mx.nd.array(shift)


def _module(phase, cut_from, stable, seed, params):
    """A Module with its optimizer, that starts from those parameters that there are."""
    size = encoder().size if phase.pixels else cut_from[0]
    shapes = {"data": (BATCH, 1, *SHAPE), "shift": (BATCH, 3), "source": (BATCH, *cut_from),
              "random": (BATCH, size)}
    symbol = rewrite.for_cpu(network(phase, stable), [DEVICE], "float32", **shapes)
    given = {name: value for name, value in {**params, **encoder().params}.items()
             if name in symbol.list_arguments()}
    module = mx.mod.Module(symbol, list(shapes), None, context=DEVICE,
                           fixed_param_names=[name for name in given if name in encoder().params])
    module.bind(list(shapes.items()))
    module.init_params(SeededInit(mx.init.Xavier(), seed), given, allow_missing=True)
    rate = mx.lr_scheduler.PolyScheduler(phase.steps + 1, base_lr=phase.lr, pwr=1,
                                         warmup_steps=phase.steps // 10)
    module.init_optimizer(optimizer="adam", optimizer_params={"learning_rate": phase.lr,
                                                              "lr_scheduler": rate})
    return module


def _parts(rng, count, steps):
    """Indices below ``count``, ``BATCH`` at a time; each comes up as often as the others."""
    order = [rng.permutation(count) for _ in range(-(-steps * BATCH // count))]
    return np.concatenate(order)[:steps * BATCH].reshape(steps, BATCH)


def _thetas(module, images, cut_from):
    thetas, nothing = [], mx.nd.zeros(module.data_shapes[-1].shape)
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        still = _moved(images[part], np.zeros((BATCH, 2), int))
        module.forward(mx.io.DataBatch([*still, cut_from[part], nothing]), is_train=False)
        thetas.append(module.get_outputs()[1].asnumpy())
    return np.concatenate(thetas)
