"""Processes that train one network together, each with a part of every batch.

A launcher starts them, on one machine or on several, and tells each by the variables ``DMLC_*``
which of them it is. MXNet's kvstore then adds up what they send it, on its servers, and nothing
more: each worker has the whole optimizer. So a checkpoint of one of them is one of all.

MXNet waits for ever for a worker that is gone. A launcher has to end the others, as ``launch.py``
does; where none does, they end by themselves when nothing has gone on for long.
"""
import contextlib
import io
import json
import logging
import math
import os
import sys
import threading
import time

import mxnet as mx
import numpy as np

from common import find_mxnet
from common.agent import READY
from common.models.metrics import Tally
from common.training import resume

KV_STORES = ("dist_sync", "dist_device_sync", "dist_sync_device")
ASYNCHRONOUS = ("dist_async", "dist_device_async", "dist_async_device")
IN_ORDER = 8  # workers whose gradients are added in their order, at the price of so many times
# the traffic; those of more in that of arrival, which changes the last bits
BETWEEN_STOPS = 8  # batches between two times that workers ask each other whether to stop
GAVE_UP = 4  # exit status
KEPT = []  # kvstores: MXNet waits for all workers before it frees one, so not after an error
LAUNCH = "python launch.py -n 2 -- python train_mnist.py --kv-store dist_sync ..."


def count(kv_store):
    """How many workers a group has by its launcher, 1 where there is none.

    Raises ValueError if what the launcher says does not fit together, or to the kvstore.
    """
    role = os.environ.get("DMLC_ROLE")
    if kv_store not in KV_STORES:
        if role == "worker":
            raise ValueError(f"--kv-store {kv_store}: this process was started as one of several "
                             "workers (DMLC_ROLE), which needs --kv-store dist_sync")
        return 1
    if role != "worker":
        raise ValueError(f"--kv-store {kv_store} trains in several processes, which a launcher "
                         f"starts: {LAUNCH}")
    for name in ("DMLC_PS_ROOT_URI", *find_mxnet.MOST_OF_A_GROUP):
        if not os.environ.get(name):
            raise ValueError(f"DMLC_ROLE is worker, but {name} is not set: the launcher has to")
    complaint = find_mxnet.wrong_group(os.environ)
    if complaint:
        raise ValueError(complaint)
    return int(os.environ["DMLC_NUM_WORKER"])


def _rank(count, otherwise):
    """The number that the launcher gives this worker, so that the first one is where its files are;
    MXNet's own goes by addresses and ports.
    """
    text = os.environ.get("DMLC_WORKER_ID") or str(otherwise)
    if not text.isdigit() or int(text) >= count:
        raise ValueError(f"DMLC_WORKER_ID={text!r}: expected a number from 0 to {count - 1}, one "
                         "for each worker")
    return int(text)


def join(kv_store, patience=600):
    """Meets the other workers, if there are any.

    Args:
        kv_store: as the flag says.
        patience: seconds without any progress after which a worker gives up the others.

    Returns:
        ``Workers``, or ``Alone``, a context manager. Raises ValueError as ``count``.
    """
    count(kv_store)
    return Workers(kv_store, patience) if kv_store in KV_STORES else Alone()


class Alone:
    """A group of one process.

    Attributes:
        rank: the number of this worker, from 0.
        count: how many there are.
        device_store: the kvstore for the devices of one worker, None for that of the recipe.
    """

    rank, count, device_store = 0, 1, None

    @property
    def first(self):
        """Whether this one writes the files and the log for all."""
        return self.rank == 0

    def set_up_log(self):
        """Logs all that the first worker says, and of the others what is wrong."""
        logging.basicConfig(level=logging.INFO if self.first else logging.WARNING,
                            format=("" if self.first else f"worker {self.rank}: ") + "%(message)s")

    def part(self, images, labels):
        """The images and labels that this worker scores: each is one worker's."""
        return images, labels

    def add_up(self, key, array):
        """The sum of an NDArray over all workers, another array on its device.

        ``key`` tells it from others of one size, and has no meaning elsewhere.
        """
        return array

    def gather(self, numbers):
        """The numbers of all workers, float64 (workers, numbers), in their order."""
        return np.array([numbers], np.float64)

    def share(self, arrays, meta):
        """What the first worker gives: arrays, name -> NumPy array, and whatever JSON holds."""
        return arrays, meta

    def agree_to_stop(self, position, number):
        """The signal that stops all workers before the batch at a position, 0 for none.

        ``number`` is that of the signal which this worker has got, or 0.
        """
        return number

    def gather_tallies(self, tally):
        """The ``Tally`` of each worker, in their order."""
        return [tally]

    def add_tallies(self, tally):
        """The ``Tally`` of all workers together."""
        return tally

    def check_alike(self, recipe, trains):
        """Raises ValueError if the first worker has another ``Recipe``, or does not train as well.
        """

    def progress(self):
        """Takes note that something goes on."""

    def on_its_own(self):
        """A context in which this process waits for no other one, however long it takes."""
        return contextlib.nullcontext()

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        """Waits until all workers are done, unless there was an error."""


class Workers(Alone):
    """Several processes; a worker makes all calls in the same order as the others.

    Args: as of ``join``.

    Attributes:
        rows: how many times a gradient is sent. Two numbers have one sum; from three on that
            depends on the order, so each worker's has a row.

    Raises ValueError if two of them have one number.
    """

    def __init__(self, kv_store, patience):
        self._watch = _Watch(patience)
        self._kv = mx.kv.create(kv_store)
        KEPT.append(self._kv)
        self.count = self._kv.num_workers
        self.rank = _rank(self.count, self._kv.rank)
        self.rows = self.count if 2 < self.count <= IN_ORDER else 1
        self.device_store = "device" if "device" in kv_store else "local"
        self._sums = {}
        _tell_launcher()
        self._watch.name = f"worker {self.rank}"
        if (self.gather([1]) != 1).any():
            raise ValueError(f"DMLC_WORKER_ID={self.rank}: another worker has the same")

    def set_up_log(self):
        super().set_up_log()
        if self.first and self.count > IN_ORDER:
            logging.warning("More than %d workers: gradients are added in the order in which they "
                            "come, so a repetition differs in its last bits", IN_ORDER)

    def part(self, images, labels):
        first, last = (len(images) * rank // self.count for rank in (self.rank, self.rank + 1))
        if len(images) < self.count:
            raise ValueError(f"{self.count} workers are more than the {len(images)} images that "
                             "are to be scored")
        return images[first:last], labels[first:last]

    def add_up(self, key, array):
        received = self._sum(f"{key} of {array.size}", array, self.rows)
        total = received[0]
        if self.rows > 1:
            total = mx.nd.add_n(*(received[row] for row in range(self.rows)))
        return total.reshape(array.shape).as_in_context(array.context)

    def gather(self, numbers):
        own = mx.nd.array(_as_floats(np.array(numbers, np.float64).tobytes()))
        received = self._sum(f"gathered{len(numbers)}", own, self.count).asnumpy()
        self.progress()
        return np.array([np.frombuffer(_as_bytes(row)) for row in received])

    def gather_tallies(self, tally):
        return [Tally(int(count), int(correct), total_loss) for count, correct, total_loss
                in self.gather([tally.count, tally.correct, tally.total_loss]).tolist()]

    def add_tallies(self, tally):
        parts = self.gather_tallies(tally)
        return Tally(*(sum(getattr(part, name) for part in parts)
                       for name in ("count", "correct", "total_loss")))

    def share(self, arrays, meta):
        content = _packed(arrays, meta) if self.first else None
        size = int(self.gather([content.size if self.first else 0]).max())
        own = mx.nd.array(content) if self.first else mx.nd.zeros(size)
        received = self._sum(f"shared{size}", own, 1).asnumpy()
        self.progress()
        return _unpacked(received[0])

    def agree_to_stop(self, position, number):
        if position % BETWEEN_STOPS:
            return 0
        asked = "stop" in self._sums and self._sums["stop"].received.asnumpy().max()
        self._sum("stop", mx.nd.array([number]), self.count)
        return int(asked)

    def check_alike(self, recipe, trains):
        _, first = self.share({}, {"recipe": recipe.as_json(), "trains": trains})
        differences = resume.differences(recipe, first, resume.ROUNDING, longer=False)
        if first["trains"] != trains:
            differences.append("one is to train, the other to do something else (--test-io 1, "
                               "--summary, --draw-graph)")
        if differences:
            raise ValueError(f"worker {self.rank} has other flags or data than worker 0 (there): "
                             f"{'; '.join(differences)}")

    def progress(self):
        self._watch.last = time.monotonic()

    @contextlib.contextmanager
    def on_its_own(self):
        self._watch.last = math.inf
        try:
            yield
        finally:
            self.progress()

    def __exit__(self, error, *_):
        if error is None:
            self.gather([1])
            mx.nd.waitall()
            self._sums.clear()
            self._kv = None
            KEPT.clear()
            self._watch.stop.set()

    def _sum(self, key, array, rows):
        if key not in self._sums:
            self._sums[key] = _Sum(self._kv, key, array, rows, self.rank if rows > 1 else 0)
        return self._sums[key].of(array)


class _Sum:
    """The sum over all workers of arrays of one size, again and again.

    MXNet may pull into the array that was pushed, and does not keep the order of pushes from
    several arrays. So there is one to push, filled anew each time, and another one to pull.
    """

    def __init__(self, kv, key, like, rows, row):
        self.kv, self.key, self.rows = kv, key, rows
        self.sent, self.received = (mx.nd.zeros((rows, like.size), dtype=like.dtype)
                                    for _ in range(2))
        self.own = self.sent[row]  # a view
        kv.init(key, self.sent)

    def of(self, array):
        """The sum (rows, size), an array that the next call overwrites."""
        if self.rows > 1:
            self.sent[:] = 0
        array.reshape(-1).copyto(self.own)
        self.kv.push(self.key, self.sent)
        self.kv.pull(self.key, out=self.received)
        return self.received


class _Watch(threading.Thread):
    """Ends this process when nothing has gone on for some seconds."""

    def __init__(self, patience):
        super().__init__(name="this worker", daemon=True)
        self.patience, self.last, self.stop = patience, time.monotonic(), threading.Event()
        self.start()

    def run(self):
        while not self.stop.wait(min(1, self.patience / 4)):
            if time.monotonic() - self.last > self.patience:
                sys.stderr.write(f"{self.name}: nothing has gone on for {self.patience:g} s: gives "
                                 "up, since another process must be gone (--patience)\n")
                sys.stderr.flush()
                os._exit(GAVE_UP)


def _tell_launcher():
    """Tells ``launch.py``, if it is that, that the group is complete."""
    pipe = os.environ.pop(READY, None)
    if pipe:
        os.write(int(pipe), b"\n")
        os.close(int(pipe))


def _as_floats(content):
    """An even number of bytes as float32, which MXNet's servers make of all: 16 bits in each."""
    return np.frombuffer(content, "<u2").astype(np.float32)


def _as_bytes(floats):
    return floats.astype("<u2").tobytes()


def _packed(arrays, meta):
    content = io.BytesIO()
    np.savez(content, meta=np.array(json.dumps(meta)), **arrays)
    content.write(b"\0" * (content.tell() % 2))
    return _as_floats(content.getvalue())


def _unpacked(floats):
    with np.load(io.BytesIO(_as_bytes(floats)), allow_pickle=False) as archive:
        arrays = dict(archive)
    return arrays, json.loads(str(arrays.pop("meta")))
