"""Accuracy and loss, counted over each image once."""
import math

import mxnet as mx
import numpy as np


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
    for outputs, batch in late(predictions(module, batches)):
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


def late(items, burst=4):
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
