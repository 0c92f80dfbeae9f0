"""What a run shows while it trains, and how Ctrl-C ends it."""
import logging
import signal
import time

from tqdm import tqdm


class Progress:
    """A bar on a terminal; elsewhere a log line every ``disp_batches`` batches, as upstream's."""

    def __init__(self, epoch, num_batches, batch_size, disp_batches):
        self.epoch, self.batch_size, self.disp_batches = epoch, batch_size, disp_batches
        self.batches, self.last = 0, time.monotonic()
        self.bar = tqdm(total=num_batches * batch_size, desc=f"Epoch[{epoch}]", unit=" images",
                        unit_scale=True, disable=None, leave=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()

    def update(self, tally):
        """Takes note of one more batch; ``tally`` has been counted up to it."""
        self.batches += 1
        if not self.bar.disable:
            self.bar.set_postfix(loss=f"{tally.loss:.4f}", accuracy=f"{tally.accuracy:.4f}",
                                 refresh=False)
            self.bar.update(self.batch_size)
        elif self.batches % self.disp_batches == 0:
            now = time.monotonic()
            speed = self.disp_batches * self.batch_size / (now - self.last)
            self.last = now
            logging.info("Epoch[%d] Batch [%d]\tSpeed: %.2f samples/sec\taccuracy=%f\tloss=%f",
                         self.epoch, self.batches, speed, tally.accuracy, tally.loss)


def log_epoch(epoch, part, tally):
    """Logs a tally of "Train" or "Validation" in the words that upstream's log parsers know."""
    logging.info("Epoch[%d] %s-accuracy=%f", epoch, part, tally.accuracy)
    logging.info("Epoch[%d] %s-loss=%f", epoch, part, tally.loss)


class Interruption:
    """Takes note of Ctrl-C, so that a loop can end between two steps; a second one kills at once.

    An exception in the middle of a step could be raised inside a callback of MXNet and be lost.
    """

    def __enter__(self):
        self.requested = False
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is signal.default_int_handler:  # else it is ignored, or somebody else's
            signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(self, *_):
        signal.signal(signal.SIGINT, self._before)

    def _request(self, *_):
        self.requested = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
