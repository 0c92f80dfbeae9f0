"""Figures and pictures of a training for TensorBoard, in the files of the package tensorboardX.

The package's own SummaryWriter is not used: it writes in a thread, and when that dies of a full
disk, the training waits for it for ever. Nor is its EventsWriter, which then leaves its file open.
"""
import os
import time

import numpy as np

from common import files
from common.training.diagnosis import PICTURES


class Board:
    """A folder that TensorBoard reads; a context manager that opens the file and closes it.

    Args:
        folder: made if need be. What it says of later epochs than ``finished``, from a run before,
            TensorBoard forgets.
        finished: epochs that a resumed run has behind it.

    Raises:
        ValueError: tensorboardX is not installed.
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder, finished=0):
        try:
            from tensorboardX import record_writer, summary
            from tensorboardX.proto import event_pb2
        except ImportError as error:
            raise ValueError(f"--tensorboard needs a package ({error}): "
                             "pip install tensorboardX") from None
        self._records, self._summary, self._protocol = record_writer, summary, event_pb2
        self._path, self._finished = os.path.join(folder, "events"), finished
        files.prepare_output(self._path)

    def __enter__(self):
        self._writer = self._records.RecordWriter(
            f"{self._path}.out.tfevents.{int(time.time())}.{os.getpid()}")
        self._add(0, file_version="brain.Event:2")
        start = self._protocol.SessionLog(status=self._protocol.SessionLog.START)
        self._add(self._finished + 1, session_log=start)
        return self

    def __exit__(self, *_):
        with files.name_os_errors(self._path):
            self._writer.close()

    def write(self, step, lr, trained, tested, diagnoses):
        """Writes what there is to say after an epoch.

        Args:
            step: finished epochs.
            lr: learning rate.
            trained, tested: ``Tally`` of both sets.
            diagnoses: list of ``Diagnosis``.
        """
        scalars = {"learning_rate": lr}
        for part, tally in (("train", trained), ("validation", tested)):
            scalars.update({f"accuracy/{part}": tally.accuracy, f"loss/{part}": tally.loss})
        for one in diagnoses:
            figures = one.figures()
            scalars[f"{one.name}/inside"] = figures["inside"]
            for kind in ("theta_mean", "theta_spread"):
                scalars.update((f"{one.name}_{kind}/{number}", value)
                               for number, value in enumerate(figures[kind]))
            for kind, images in (("before", one.sources), ("after", one.pictures)):
                self._add(step, summary=self._summary.image(
                    f"{one.name}/{kind}", _visible(images[:PICTURES]), dataformats="NCHW"))
        for tag, value in scalars.items():
            self._add(step, summary=self._summary.scalar(tag, value))
        with files.name_os_errors(self._path):
            self._writer.flush()

    def _add(self, step, **content):
        with files.name_os_errors(self._path):
            self._writer.write(self._protocol.Event(
                wall_time=time.time(), step=step, **content).SerializeToString())


def _visible(images):
    """Images (N, C, H, W) in [0, 1] as uint8, in colour if C is 3, else their first channel."""
    if images.shape[1] != 3:
        images = images[:, :1]
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)
