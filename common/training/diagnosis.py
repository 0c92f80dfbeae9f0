"""What the transformers of a network do to the test images, looked at after each epoch.

A transformer that has collapsed says nothing by itself: the loss stays finite, while the classifier
is shown black pictures, or the same warp of every image.
"""
import logging
from typing import NamedTuple

import mxnet as mx
import numpy as np

from common.data.batches import ImageIter
from common.graph.find_transformers import inside, lattice, source_grid, transformers

IMAGES = 500  # test images that are looked at
PICTURES = 8  # of a batch that are kept, before and after
DEVICE = mx.cpu(1)  # on the first one MXNet fuses operators, some of them wrongly
WRITTEN_OUT = 8  # parameters of a theta that are logged one by one

BLANK = 0.01  # of the source's brightness
OUTSIDE = 0.05  # of the points inside the image
CONSTANT = 1e-4  # standard deviation of each parameter over the images
UNMOVED = 0.01  # distance from the identity's points, where the image is 2 wide
CURES = "a lower --lr, --stable, a smaller --loc-lr-mult, or a start at the identity"


class Diagnosis(NamedTuple):
    """What a transformer does to some images, N of them.

    Attributes:
        name: of the transformer.
        theta: (N, parameters).
        inside: fraction of its points inside the image, (N,).
        distance: of its points from those of the identity, on average, in coordinates, (N,).
        before, after: mean absolute value of what it samples and of its output, (N,).
        sources, pictures: some of the same, (N or less, C, H, W).
    """

    name: str
    theta: np.ndarray
    inside: np.ndarray
    distance: np.ndarray
    before: np.ndarray
    after: np.ndarray
    sources: np.ndarray
    pictures: np.ndarray

    def figures(self):
        """Over the images: means and standard deviations of theta, and fractions, for JSON."""
        return {"theta_mean": self.theta.mean(axis=0, dtype=np.float64).tolist(),
                "theta_spread": self.theta.std(axis=0, dtype=np.float64).tolist(),
                "inside": float(self.inside.mean()),
                "brightness": float(self.after.mean() / max(self.before.mean(), 1e-30))}

    def complaint(self, epoch):
        """What is wrong with it after an epoch, counted from 0, and what to do; None if nothing is.

        A theta that is the same for every image is a collapse where it warps them, for a dead
        localisation network moves its bias alone. At the identity it is one that has not started:
        its last weight was 0, and an epoch of few batches, or a rate that still rises from 0, may
        have left it small. That is said from the second epoch on.
        """
        figures = self.figures()
        constant = max(figures["theta_spread"]) < CONSTANT
        moved = self.distance.mean() > UNMOVED
        wrong = [words for words, is_so in (
            (f"{figures['inside']:.1%} of its points are inside the image",
             figures["inside"] < OUTSIDE),
            ("its pictures are blank", figures["brightness"] < BLANK),
            ("theta is the same for every image", constant and moved)) if is_so]
        if wrong:
            return f"has collapsed: {', '.join(wrong)}; try {CURES}"
        if constant and epoch > 0:
            return ("has not started to learn: it is the identity for every image; try "
                    "--stable, a larger --loc-lr-mult, a higher --lr or smaller batches")
        return None


class Diagnoser:
    """Looks at what the transformers of a network do, at one state of its training after another.

    Nothing of the training is touched: neither parameters nor random numbers.

    Args:
        symbol: the network, with the input "data".
        test: an ``ImageIter`` without a seed; of its images at most ``IMAGES`` are used.
    """

    def __init__(self, symbol, test):
        self._found, internals = transformers(symbol), symbol.get_internals()
        self._wanted = {one.name: (one.source, one.where, one.theta, f"{one.name}_output")
                        for one in self._found}
        self._names = sorted(set().union(*self._wanted.values()))
        self._outputs = self._found and mx.sym.Group([internals[name] for name in self._names])
        self._test, self._batches, self._executor = test, None, None

    def diagnose(self, module):
        """A list with a ``Diagnosis`` for each transformer, in the order of the graph.

        Args:
            module: a Module that trains the network.
        """
        if not self._found:
            return []
        if self._executor:
            self._executor.copy_params_from(*module.get_params(), allow_extra_params=True)
        else:
            self._bind(*module.get_params())
        parts = {one.name: [] for one in self._found}
        self._batches.seek(0)
        for batch in self._batches:
            outputs = self._executor.forward(is_train=False, data=batch.data[0])
            values = {name: output.asnumpy()[:self._batches.batch_size - batch.pad]
                      for name, output in zip(self._names, outputs)}
            for one in self._found:
                parts[one.name].append(
                    _values(one, *(values[name] for name in self._wanted[one.name])))
        return [Diagnosis(name, *map(np.concatenate, zip(*batchwise)))
                for name, batchwise in parts.items()]

    def _bind(self, arg_params, aux_params):
        """Makes the executor, once: each that is bound takes another of MXNet's scratch memories.

        There are many of them, and each stays as large as the largest grid that was made in it.
        """
        self._batches = ImageIter(self._test.images[:IMAGES], self._test.labels[:IMAGES],
                                  min(self._test.batch_size, IMAGES), dtype=self._test.dtype)
        args, aux_states = ({name: value.copyto(DEVICE) for name, value in params.items()}
                            for params in (arg_params, aux_params))
        data, = self._batches.provide_data
        args["data"] = mx.nd.zeros(data.shape, DEVICE, data.dtype)
        self._executor = self._outputs.bind(DEVICE, args, grad_req="null", aux_states=aux_states)


def log_diagnoses(epoch, diagnoses):
    """Logs what the transformers do after an epoch, counted from 0, and warns of a collapse."""
    for one in diagnoses:
        figures = one.figures()
        logging.info("Epoch[%d] %s: theta %s; %.1f%% of its points inside", epoch, one.name,
                     _in_words(figures["theta_mean"], figures["theta_spread"]),
                     100 * figures["inside"])
        complaint = one.complaint(epoch)
        if complaint:
            logging.warning("Epoch[%d] WARNING: %s %s", epoch, one.name, complaint)


def _values(transformer, source, where, theta, output):
    """The values of a ``Diagnosis`` for the images of one batch."""
    points = source_grid(where, transformer)
    moves = points - lattice(points.shape[1:3])
    return (theta.reshape(len(theta), -1), inside(points),
            np.hypot(moves[..., 0], moves[..., 1]).mean(axis=(1, 2)),
            np.abs(source).mean(axis=(1, 2, 3)), np.abs(output).mean(axis=(1, 2, 3)),
            source[:PICTURES], output[:PICTURES])


def _in_words(means, spreads):
    if len(means) <= WRITTEN_OUT:
        return ", ".join(f"{mean:.3f}±{spread:.3f}" for mean, spread in zip(means, spreads))
    return (f"{len(means)} parameters, means {min(means):.3f} to {max(means):.3f}, "
            f"spreads {min(spreads):.3f} to {max(spreads):.3f}")
