"""Accuracy, loss and other figures of answers, counted over each image once."""
import math

import mxnet as mx
import numpy as np

from common.graph.rewrite import ending


class NoProbabilities(ValueError):
    """What a network gives are no class probabilities."""


def probabilities(network, images, **options):
    """The class probabilities of images.

    Args:
        network: a ``trained.Trained``.
        images: uint8 (N, H, W) or (N, C, H, W).
        **options: of ``Predictor``.

    Returns:
        float32 (N, classes).

    Raises:
        NoProbabilities: the network gives something else.
        ValueError: the network is not for such images.
    """
    image_shape = images.shape[1:] if images.ndim == 4 else (1, *images.shape[1:])
    return classifier(network, image_shape, **options)(images)


def classifier(network, image_shape, **options):
    """A function that gives the ``probabilities`` of images (C, H, W), again and again."""
    found = (f"{network.path}: the network does not give class probabilities: it ends in "
             f"{ending(network.training)}")
    if len(network.symbol.list_outputs()) > 1:
        raise NoProbabilities(f"{found}; of several outputs one alone should be a softmax")
    predictor = network.predictor(image_shape, **options)

    def classify(images):
        answers = predictor(images)
        shape = answers.shape[1:]
        if shape[1:] == (1,) * len(shape[1:]):  # of 1 x 1 pixels, with a softmax for each
            answers = answers.reshape(len(answers), -1)
        if (answers.ndim != 2 or len(answers) != len(images) or (answers < 0).any()
                or not np.allclose(answers.sum(axis=1), 1, atol=1e-3)):  # NaN is not close
            raise NoProbabilities(f"{found}, whose answers ({', '.join(map(str, ('N', *shape)))}) "
                                  "are not from 0 to 1 with the sum 1")
        return answers
    return classify


def evaluate(answers, labels, top_k):
    """Scores class probabilities.

    Args:
        answers: probabilities (N, classes).
        labels: true classes (N,).
        top_k: how many guesses an image has; equal probabilities are guessed in order of class.

    Returns:
        The figures, as JSON can hold them; ``confusion`` has the true classes down and the
        predicted ones across.

    Raises:
        ValueError: there are more guesses than classes, or labels of other classes.
    """
    classes = answers.shape[1]
    if top_k > classes:
        raise ValueError(f"--top-k {top_k}: the network has {classes} classes")
    if labels.max() >= classes:
        raise ValueError(f"the label {labels.max()} is none of the network's {classes} classes, "
                         f"0 to {classes - 1}")
    tally = Tally()
    tally.add(answers, labels)
    guesses = np.argsort(-answers, axis=1, kind="stable")[:, :top_k]
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (labels, answers.argmax(axis=1)), 1)
    return {"images": tally.count, "correct": tally.correct, "test_accuracy": tally.accuracy,
            "test_loss": tally.loss, "top_k": top_k,
            "top_k_accuracy": float((guesses == labels[:, None]).any(axis=1).mean()),
            "confusion": confusion.tolist()}


def worst_mistakes(answers, labels, most):
    """The numbers of up to ``most`` images that are taken for another class, highest loss first."""
    wrong = np.flatnonzero(answers.argmax(axis=1) != labels)
    return wrong[np.argsort(answers[wrong, labels[wrong]], kind="stable")][:most]


class Tally:
    """Counts right answers and sums the cross-entropy (nats) over images."""

    def __init__(self, count=0, correct=0, total_loss=0.0):
        self.count, self.correct, self.total_loss = count, correct, total_loss

    def add(self, probabilities, labels):
        """Adds images: probabilities (N, classes) and whole-numbered labels (N,)."""
        labels = labels.astype(np.int64)
        chosen = probabilities[np.arange(len(labels)), labels]
        self.count += len(labels)
        self.correct += int((probabilities.argmax(axis=1) == labels).sum())
        least = np.finfo(probabilities.dtype).tiny  # a probability may round to 0
        self.total_loss -= float(np.log(np.maximum(chosen, least)).sum(dtype=np.float64))

    @property
    def accuracy(self):
        return self.correct / self.count if self.count else math.nan

    @property
    def loss(self):
        """Mean cross-entropy; NaN if any probability was."""
        return self.total_loss / self.count if self.count else math.nan


def score(module, batches):
    """Evaluates a Module on an ``ImageIter``.

    The Module must be bound for training: one bound with ``for_training=False`` keeps the weights
    of its first prediction in its fused convolutions, whatever parameters it is given later.

    Args:
        module: with one output, class probabilities (N, classes).
        batches: an iterator; read from its beginning.

    Returns:
        A ``Tally``; images that fill up the last batch are not in it.
    """
    tally = Tally()
    batches.seek(0)
    mx.nd.waitall()  # forward sets the mode for all that is still queued: steps would lose dropout
    for outputs, batch in keep_in_flight(predictions(module, batches)):
        real = batches.batch_size - batch.pad
        tally.add(outputs.asnumpy()[:real], batch.label[0].asnumpy()[:real])
    return tally


def predictions(module, batches):
    """Yields the outputs of a Module for each batch, and the batch."""
    for batch in batches:
        module.forward(batch, is_train=False)
        yield outputs_to_keep(module), batch


def outputs_to_keep(module):
    """The output of a Module's last forward, in an array that its next one does not overwrite."""
    parts, = module.get_outputs(merge_multi_context=False)
    return mx.nd.concat(*parts, dim=0) if len(parts) > 1 else parts[0].copy()


def keep_in_flight(items, burst=4):
    """Yields items in bursts, when as many again have been taken.

    MXNet computes asynchronously: so the device has batches to work on while the host waits for the
    outputs of earlier ones and counts them; and the host does not wake up for each of them.
    """
    waiting = []
    for item in items:
        waiting.append(item)
        if len(waiting) == 2 * burst:
            yield from waiting[:burst]
            del waiting[:burst]
    yield from waiting
