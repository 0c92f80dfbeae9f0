"""Accuracy, loss and other figures of answers, counted over each image once.

An image has one label, or several: those of a whole number, in as many places. Then the answers are
class probabilities for each place, an image is right if all its places are, and its cross-entropy
is the sum of theirs: that of the number.
"""
import math

import mxnet as mx
import numpy as np

from common.graph.rewrite import ending

FEWEST = 4  # batches whose outputs are read at once


class NoProbabilities(ValueError):
    """What a network gives are no class probabilities."""


def probabilities(network, images, **options):
    """The class probabilities of images.

    Args:
        network: a ``trained.Trained``.
        images: uint8 (N, H, W) or (N, C, H, W).
        **options: of ``Predictor``.

    Returns:
        float32 (N, classes), or (N, classes, places).

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
        if set(shape[1:]) == {1}:  # of 1 x 1 pixels, with a softmax for each
            answers = answers.reshape(len(answers), -1)
        if (answers.ndim not in (2, 3) or len(answers) != len(images) or (answers < 0).any()
                or not np.allclose(answers.sum(axis=1), 1, atol=1e-3)):  # NaN is not close
            raise NoProbabilities(f"{found}, whose answers ({', '.join(map(str, ('N', *shape)))}) "
                                  "are not from 0 to 1 with the sum 1")
        return answers
    return classify


def most_probable(answers):
    """What an image shows most probably, and how probable that is.

    Args:
        answers: probabilities (N, classes), or (N, classes, places).

    Returns:
        Classes (N,) or (N, places), and probabilities (N,): of all places together.
    """
    return answers.argmax(axis=1), _by_place(answers.max(axis=1)).prod(axis=1)


def evaluate(answers, labels, top_k):
    """Scores class probabilities.

    Args:
        answers: probabilities (N, classes), or (N, classes, places).
        labels: true classes (N,), or (N, places).
        top_k: how many guesses an image has; equal probabilities are guessed in order of class,
            where there is one place.

    Returns:
        The figures, as JSON can hold them; ``confusion`` has the true classes down and the
        predicted ones across, and counts places.

    Raises:
        ValueError: there are more guesses than classes, or none, or labels of other classes.
    """
    if answers.ndim != labels.ndim + 1 or answers.shape[2:] != labels.shape[1:]:
        raise ValueError(f"the network gives {_per_image(answers.shape[2:])}, but there "
                         f"{'is' if labels.ndim == 1 else 'are'} {_per_image(labels.shape[1:])}")
    classes = answers.shape[1]
    if not 1 <= top_k <= classes:
        raise ValueError(f"--top-k {top_k}: the network has {classes} classes")
    for label in (labels.min(), labels.max()):
        if not 0 <= label < classes:
            raise ValueError(f"the label {label} is none of the network's {classes} classes, "
                             f"0 to {classes - 1}")
    tally = Tally()
    tally.add(answers, labels)
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (labels, answers.argmax(axis=1)), 1)
    return {"images": tally.count, "correct": tally.correct, "test_accuracy": tally.accuracy,
            "test_loss": tally.loss, "top_k": top_k,
            "top_k_accuracy": float(_among_guesses(answers, labels, top_k).mean()),
            "confusion": confusion.tolist()}


def _per_image(places):
    return f"{places[0]} labels an image" if places else "one label an image"


def _among_guesses(answers, labels, top_k):
    """Whether the truth is among the ``top_k`` most probable classes, or numbers, (N,)."""
    (count, classes), labels = answers.shape[:2], _by_place(labels)
    answers = answers.reshape(count, classes, labels.shape[1])
    # Place by place, the most probable beginnings of numbers: no others begin the most probable.
    probable, right = np.ones((count, 1)), np.ones((count, 1), bool)
    for place in range(labels.shape[1]):
        longer = (probable[:, :, None] * answers[:, None, :, place]).reshape(count, -1)
        is_next = np.arange(classes) == labels[:, place, None, None]
        best = np.argsort(-longer, axis=1, kind="stable")[:, :top_k]
        probable = np.take_along_axis(longer, best, axis=1)
        right = np.take_along_axis((right[:, :, None] & is_next).reshape(count, -1), best, axis=1)
    return right.any(axis=1)


def worst_mistakes(answers, labels, most):
    """The numbers of up to ``most`` images taken for something else, highest loss first."""
    wrong = np.flatnonzero(~are_right(answers, labels))
    chances = _by_place(_chosen(answers[wrong], labels[wrong])).prod(axis=1)
    return wrong[np.argsort(chances, kind="stable")][:most]


def are_right(answers, labels):
    """Whether the most probable class is the true one, in all places if there are several, (N,).

    Of NaN there is no most probable one, though ``argmax`` says 0.
    """
    known = ~np.isnan(answers.max(axis=1))
    return _by_place((answers.argmax(axis=1) == labels) & known).all(axis=1)


def _by_place(values):
    """Values (N,) or (N, places) as (N, places), of one place or more."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _chosen(answers, labels):
    """The probabilities of the true classes, (N,) or (N, places)."""
    return np.take_along_axis(answers, labels[:, None], axis=1)[:, 0]


class Tally:
    """Counts right answers and sums the cross-entropy (nats) over images."""

    def __init__(self, count=0, correct=0, total_loss=0.0):
        self.count, self.correct, self.total_loss = count, correct, total_loss

    def add(self, probabilities, labels):
        """Adds images: probabilities and whole-numbered labels, as of ``evaluate``."""
        for _ in self.add_in_turn([probabilities], [labels]):
            pass

    def add_in_turn(self, probabilities, labels):
        """Adds batches, lists of what ``add`` takes; yields after each of them."""
        sizes = [len(part) for part in labels]
        probabilities = np.concatenate(probabilities)
        labels = np.concatenate(labels).astype(np.int64)
        right = are_right(probabilities, labels)
        least = np.finfo(probabilities.dtype).tiny  # a probability may round to 0
        logs = np.log(np.maximum(_chosen(probabilities, labels), least))
        end = 0
        for size in sizes:
            rows, end = slice(end, end + size), end + size
            self.count += size
            self.correct += int(np.count_nonzero(right[rows]))
            self.total_loss -= float(logs[rows].sum(dtype=np.float64))
            yield

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
        module: with one output, class probabilities, as of ``evaluate``.
        batches: an iterator; read from its beginning.

    Returns:
        A ``Tally``; images that fill up the last batch are not in it.
    """
    tally = Tally()
    batches.seek(0)
    mx.nd.waitall()  # forward sets the mode for all that is still queued: steps would lose dropout
    for answers, labels in answers_and_labels(predictions(module, batches), batches.together):
        for _ in tally.add_in_turn(answers, labels):
            pass
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


def in_bursts(items, burst):
    """Yields lists of ``burst`` items or, at the end, more; each when as many again are taken.

    MXNet computes asynchronously: so the device has batches to work on while the host waits for the
    outputs of earlier ones and counts them; and the host does not wake up for each of them.
    """
    waiting = []
    for item in items:
        waiting.append(item)
        if len(waiting) == 2 * burst:
            yield waiting[:burst]
            del waiting[:burst]
    if waiting:
        yield waiting


def answers_and_labels(items, together):
    """Yields, for some batches at once, two lists of NumPy arrays, without what is padding.

    Args:
        items: of the outputs of a Module for a batch, and the batch.
        together: as of the ``ImageIter`` that they come from.
    """
    for burst in in_bursts(items, max(FEWEST, together)):
        burst[-1][0].wait_to_read()  # the last ones: so the host wakes up once for all
        sizes = [len(batch.index) - batch.pad for _, batch in burst]
        yield ([outputs.asnumpy()[:size] for size, (outputs, _) in zip(sizes, burst)],
               [batch.label[0].asnumpy()[:size] for size, (_, batch) in zip(sizes, burst)])
