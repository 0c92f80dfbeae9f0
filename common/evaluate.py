"""What the class probabilities that a network gives are worth, as whole arrays."""
import numpy as np

from common.graph import ending
from common.score import Tally


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
    found = (f"{network.path}: the network does not give class probabilities: it ends in "
             f"{ending(network.training)}")
    if len(network.symbol.list_outputs()) > 1:
        raise NoProbabilities(f"{found}; of several outputs one alone should be a softmax")
    image_shape = images.shape[1:] if images.ndim == 4 else (1, *images.shape[1:])
    answers = network.predictor(image_shape, **options)(images)
    shape = answers.shape[1:]
    if shape[1:] == (1,) * len(shape[1:]):  # of 1 x 1 pixels, where there is one softmax for each
        answers = answers.reshape(len(answers), -1)
    if (answers.ndim != 2 or len(answers) != len(images) or (answers < 0).any()
            or not np.allclose(answers.sum(axis=1), 1, atol=1e-3)):  # NaN is not close
        raise NoProbabilities(f"{found}, whose answers ({', '.join(map(str, ('N', *shape)))}) are "
                              "not from 0 to 1 with the sum 1")
    return answers


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
