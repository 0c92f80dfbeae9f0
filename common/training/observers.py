"""What is looked at beside the training itself, after each epoch: transformers, boards, films."""
import logging

from common.graph.rewrite import label_free
from common.models.trained import Trained
from common.training import diagnosis
from common.training.tensorboard import Board

FILMED = 10  # test images


class EpochObservers:
    """Watches a run; a context manager, since files are open meanwhile.

    Args:
        args: the flags of ``flags.add_training_flags``.
        symbol: the network.
        test: an ``ImageIter`` without a seed.

    Raises:
        ValueError, OSError: TensorBoard's files cannot be written.
    """

    def __init__(self, args, symbol, test):
        self.symbol, self.test, self.every = symbol, test, args.visualize_every
        self.finished = args.load_epoch or 0
        self.board = args.tensorboard and Board(args.tensorboard, self.finished)
        self.film = None
        if self.every:
            from common.reports.visualise import Film  # here, since matplotlib takes time to import
            self.film = Film(f"{args.model_prefix}-film", test.images[:FILMED],
                             test.labels[:FILMED])
        self.diagnoses = []

    def __enter__(self):
        if self.board:
            self.board.__enter__()
        if self.film:
            self.film.forget(self.finished)
        return self

    def __exit__(self, *error):
        if self.board:
            self.board.__exit__(*error)

    def start(self, module):
        """Draws the network as it is before the first step."""
        if self.film:
            self._film(module, 0)

    def look(self, module, epoch, trained, tested):
        """Looks at a Module that has trained an epoch, counted from 0.

        Args:
            module: a ``fused_update.Module``.
            epoch: its number.
            trained, tested: ``Tally`` of both sets.
        """
        self.review(module, epoch)
        if self.board:
            self.board.write(epoch + 1, module.learning_rate, trained, tested, self.diagnoses)

    def review(self, module, epoch):
        """As ``look``, but not for TensorBoard: of an epoch that was trained by another process."""
        self.diagnoses = diagnosis.diagnose(self.symbol, module, self.test)
        diagnosis.log_diagnoses(epoch, self.diagnoses)
        if self.film and (epoch + 1) % self.every == 0:
            self._film(module, epoch + 1)

    def _film(self, module, epoch):
        params = module.get_params()
        self.film.take(Trained(self.film.folder, label_free(self.symbol), *params), epoch)

    def figures(self):
        """What the transformers do in the end, as JSON can hold it; joins the film."""
        if self.film:
            path = f"{self.film.folder}.gif"
            self.film.join(path)
            logging.info("Drawn: %s", path)
        if not self.diagnoses:
            return {}
        return {"transformers": {one.name: one.figures() for one in self.diagnoses}}
