"""What is looked at beside the training itself, after each epoch: transformers, boards, films."""
import logging

import numpy as np

from common.graph.rewrite import label_free
from common.models.trained import Trained
from common.training import diagnosis
from common.training.tensorboard import Board

FILMED = 10  # test images


class NoObservers:
    """In place of ``EpochObservers``, those of a worker that is not the first."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def before(self, module):
        """Does nothing, as all the others."""

    def after_epoch(self, module, epochs, trained, scored):
        pass

    def look(self, module, epochs):
        pass

    def figures(self):
        return {}


class EpochObservers(NoObservers):
    """Watches a run; a context manager, since files are open meanwhile.

    Args:
        watch: the ``fit.Watch``.
        prefix: path and start of the names of the run's files.
        symbol: the network.
        batches: an ``ImageIter`` without a seed, of the images to look at.
        finished: epochs that a resumed run has behind it.

    Raises:
        ValueError, OSError: TensorBoard's files cannot be written.
    """

    def __init__(self, watch, prefix, symbol, batches, finished=0):
        self.symbol, self.every = symbol, watch.visualize_every
        self.finished = finished
        self.board = watch.tensorboard and Board(watch.tensorboard, finished)
        self.film = None
        if self.every:
            from common.reports.visualise import Film  # here, since matplotlib takes time to import
            filmed = np.asarray(batches.images[:FILMED])  # of a stream, too
            self.film = Film(f"{prefix}-film", filmed, batches.labels[:FILMED])
        self.diagnoser, self.diagnoses = diagnosis.Diagnoser(symbol, batches), []

    def __enter__(self):
        if self.board:
            self.board.__enter__()
        if self.film:
            self.film.forget(self.finished)
        return self

    def __exit__(self, *error):
        if self.board:
            self.board.__exit__(*error)

    def before(self, module):
        """Draws the network as it is before the first step."""
        if self.film:
            self._film(module, 0)

    def after_epoch(self, module, epochs, trained, scored):
        """Looks at a Module that has just trained an epoch.

        Args:
            module: a ``fused_update.Module``.
            epochs: that are finished.
            trained, scored: ``Tally`` of the training images and of those held out.
        """
        self.look(module, epochs)
        if self.board:
            self.board.write(epochs, module.learning_rate, trained, scored, self.diagnoses)

    def look(self, module, epochs):
        """As ``after_epoch``, but not for TensorBoard: also of what another process trained."""
        self.diagnoses = self.diagnoser.diagnose(module)
        diagnosis.log_diagnoses(epochs - 1, self.diagnoses)
        if self.film and epochs % self.every == 0:
            self._film(module, epochs)

    def _film(self, module, epochs):
        params = module.get_params()
        self.film.take(Trained(self.film.folder, label_free(self.symbol), *params), epochs)

    def figures(self):
        """What the transformers do in the end, as JSON can hold it; joins the film."""
        if self.film:
            path = f"{self.film.folder}.gif"
            if self.film.join(path):
                logging.info("Drawn: %s", path)
        if not self.diagnoses:
            return {}
        return {"transformers": {one.name: one.figures() for one in self.diagnoses}}
