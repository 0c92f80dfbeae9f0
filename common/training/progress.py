"""What a run shows while it trains, and how Ctrl-C and SIGTERM end it."""
import logging
import signal
import time

from tqdm import tqdm

from common import cli


class Progress:
    """A bar on a terminal; elsewhere a log line every ``disp_batches`` batches, as upstream's.

    The bar, with the time that is left, is that of all epochs; accuracy and loss are of this one.
    """

    def __init__(self, epoch, num_epochs, batches, disp_batches):
        self.epoch, self.batch_size, self.disp_batches = epoch, batches.batch_size, disp_batches
        self.batches = self.before = batches.position
        self.began = time.monotonic()
        images = batches.num_batches * self.batch_size
        self.bar = tqdm(total=num_epochs * images, desc=f"Epoch[{epoch}]",
                        initial=epoch * images + self.batches * self.batch_size, unit=" img",
                        unit_scale=True, disable=None, leave=False, dynamic_ncols=True,
                        bar_format="{desc} {percentage:.0f}%, {remaining} left{postfix}, {rate_fmt}"
                                   " |{bar}|")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()

    def update(self, tally):
        """Takes note of one more batch; ``tally`` has been counted up to it."""
        self.batches += 1
        if not self.bar.disable:
            self.bar.set_postfix(accuracy=f"{tally.accuracy:.4f}", loss=f"{tally.loss:.4f}",
                                 refresh=False)
            self.bar.update(self.batch_size)
        elif self.batches % self.disp_batches == 0:
            # Since the epoch's beginning: batches come in bursts, so that of a few says nothing.
            images = (self.batches - self.before) * self.batch_size
            speed = images / (time.monotonic() - self.began)
            logging.info("Epoch[%d] Batch [%d]\tSpeed: %.2f samples/sec\taccuracy=%f\tloss=%f",
                         self.epoch, self.batches, speed, tally.accuracy, tally.loss)


def log_epoch(epoch, part, tally):
    """Logs a tally of "Train", "Validation" or "Test" as upstream's log parsers know it."""
    logging.info("Epoch[%d] %s-accuracy=%f", epoch, part, tally.accuracy)
    logging.info("Epoch[%d] %s-loss=%f", epoch, part, tally.loss)


class Interruption:
    """Takes note of Ctrl-C and SIGTERM, so that a loop can end between two steps.

    An exception in the middle of a step could be raised inside a callback of MXNet and be lost. A
    second signal kills at once. Ctrl-C is left alone where it is ignored, as in background jobs of
    a shell, or somebody else's.

    Attributes:
        received: the number of the signal that has come; 0 if none has.
    """

    def __enter__(self):
        self.received = 0
        self._before = {number: signal.getsignal(number)
                        for number in (signal.SIGINT, signal.SIGTERM)}
        if self._before[signal.SIGINT] is not signal.default_int_handler:
            del self._before[signal.SIGINT]
        for number in self._before:
            signal.signal(number, self._request)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number, _):
        self.received = number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)

    def take(self, number):
        """Takes note of a signal that another process has got."""
        self.received = self.received or number

    def leave(self, message):
        """Raises KeyboardInterrupt or, after SIGTERM, cli.Terminated with a message."""
        raise (cli.Terminated if self.received == signal.SIGTERM else KeyboardInterrupt)(message)
