"""What the class probabilities that a network gives are worth, as whole arrays."""
import numpy as np

from common.score import Tally


def probabilities(network, images, **options):
    """The class probabilities of images.

    Args:
        network: a ``trained.Trained``.
        images: uint8 (N, H, W) or (N, C, H, W).
        **options: of ``Predictor``.

    Returns:
        float32 (N, classes).

    Raises:
        ValueError: the network is not for such images, or does not give probabilities.
    """
    image_shape = images.shape[1:] if images.ndim == 4 else (1, *images.shape[1:])
    answers = network.predictor(image_shape, **options)(images)
    if answers.ndim != 2 or not np.allclose(answers.sum(axis=1), 1, atol=1e-3):  # NaN is not close
        raise ValueError(f"{network.path}: the network does not give class probabilities")
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
