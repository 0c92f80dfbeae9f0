"""Class probabilities of a trained network, as fast as the machine has them."""
import bisect
import collections
import ctypes
import itertools
import math
import threading

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, check_call

from common.data import arrays
from common.data.batches import PIXEL, as_pixels
from common.data.records import Stream
from common.graph import constants, rewrite
from common.models import devices

FEW = 8  # images that are not worth a second device, which takes its time to start
LANES = 2  # of a device, so that one is filled while it computes the other


class Predictor:
    """A network with fixed parameters: called with images, it gives their probabilities.

    A call is cut into pieces, which the devices compute in turns, each by an executor for pieces of
    that size. These are made when they are first needed, for powers of two: so few images are
    answered soon, and many take no more memory than their answers. What an image is answered
    depends on the size of its piece by rounding. Threads that share a Predictor take turns.

    Args:
        symbol: without label, as from ``rewrite.label_free`` or an export; its input is "data".
        arg_params, aux_params: name -> NDArray.
        image_shape: (C, H, W).
        batch_size: the most images that all devices together compute at once.
        gpus: numbers of GPUs, or None for the CPU.
        cpus: number of CPU devices, or None for one for each core.

    Raises:
        ValueError: there are no such GPUs, or the network does not give something for each image.
        mx.MXNetError: the network is not for such images.
    """

    def __init__(self, symbol, arg_params, aux_params, image_shape, batch_size=256,
                 gpus=None, cpus=None):
        self.image_shape = tuple(image_shape)
        self._contexts = devices.contexts(gpus, cpus, batch_size)
        largest = -(-batch_size // len(self._contexts))
        if gpus is None:
            # On the first CPU device alone MXNet fuses operators unasked, some of them wrongly.
            self._contexts = [mx.cpu(context.device_id + 1) for context in self._contexts]
            largest = min(largest, largest_piece(image_shape))
        self.sizes = [2**power for power in range(largest.bit_length()) if 2**power < largest]
        self.sizes.append(largest)
        for size in self.sizes:
            rewrite.check_reshapes(symbol, data=(size, *image_shape))
        fast = rewrite.for_cpu(symbol, self._contexts, "float32", for_training=False,
                               data=(largest, *image_shape))
        if fast is not symbol:
            fast, arg_params = constants.fold(fast, arg_params, self._contexts[0],
                                              [(size, *image_shape) for size in {1, largest}])
        devices_lanes = [_lanes(fast, context, arg_params, aux_params, (largest, *image_shape))
                         for context in self._contexts]
        self._lanes = [lane for turn in zip(*devices_lanes) for lane in turn]
        self._turn = threading.Lock()

    def __call__(self, images):
        """The probabilities (N, classes), float32, of uint8 images (N, H, W) or (N, C, H, W).

        Raises ValueError for others; ``batches.as_pixels`` says which it takes.
        """
        images = as_pixels(images)
        if images.shape[1:] != self.image_shape:
            wanted, given = map(arrays.in_words, (self.image_shape, images.shape[1:]))
            raise ValueError(f"expected images of {wanted}, got {given}")
        if not len(images):
            raise ValueError("expected images, got none")
        with self._turn:
            return self._probabilities(images)

    def _probabilities(self, images):
        pieces = self._pieces(len(images))
        parts = self._answers(images, pieces)
        first = next(parts)
        if len(pieces) == 1:
            return first.copy()
        answers = np.empty((len(images), *first.shape[1:]), first.dtype)
        for piece, part in zip(pieces, itertools.chain([first], parts)):
            answers[piece] = part
        return answers

    def warm_up(self):
        """Predicts pieces of all sizes, so that no later call has to wait for an executor."""
        nothing = np.zeros((1, *self.image_shape), np.uint8)
        with self._turn:
            for lane in self._lanes:
                for size in self.sizes:
                    lane.start(nothing, size)
            mx.nd.waitall()

    def _answers(self, images, pieces):
        """Yields what is said of the images of each piece, good until the next is asked for.

        MXNet computes asynchronously, and here as many pieces at a time as there are lanes.
        """
        running = collections.deque()
        for number, lane in zip(range(len(pieces)), itertools.cycle(self._lanes)):
            if len(running) == len(self._lanes):
                yield running.popleft().answers()
            data = _taken(images, *pieces[number:number + 2])
            running.append(lane.start(data, self._fitting(len(data))))
        for computation in running:
            yield computation.answers()

    def _pieces(self, count):
        """The slices that a call is cut into: for all devices, and with little that fills up."""
        share = max(-(-count // len(self._contexts)), FEW)
        length = self.sizes[bisect.bisect_right(self.sizes, share) - 1]
        return [slice(start, min(start + length, count)) for start in range(0, count, length)]

    def _fitting(self, count):
        """The smallest size that a piece of some images fits into."""
        return self.sizes[bisect.bisect_left(self.sizes, count)]


def largest_piece(image_shape):
    """How many images a CPU device computes at once: more of them leave its cache, or gain nothing.

    That is measured, of the zoo's networks: 128 images of 28 x 28, 32 from 64 x 64 on.
    """
    return min(128, max(32, 2**17 // math.prod(image_shape[1:])))


def _lanes(symbol, context, arg_params, aux_params, shape):
    """The lanes of a device, which have the same parameters."""
    args, aux_states = ({name: params[name].copyto(context) for name in names if name in params}
                        for names, params in ((symbol.list_arguments(), arg_params),
                                              (symbol.list_auxiliary_states(), aux_params)))
    return [_Lane(symbol, context, args, aux_states, shape) for _ in range(LANES)]


class _Lane:
    """What a device computes one piece after the other: an executor for each size of piece.

    Args:
        symbol: of the network.
        context: the device.
        args, aux_states: name -> NDArray there.
        shape: of the images of the largest piece.
    """

    def __init__(self, symbol, context, args, aux_states, shape):
        self._symbol, self._context, self._args = symbol, context, args
        self._aux_states, self._data = aux_states, mx.nd.zeros(shape, context)
        self._pixels = _memory(self._data) if context.device_type == "cpu" else None
        self._computations = {}
        self._computation(len(self._data))

    def start(self, images, size):
        """Starts to compute what the network says of uint8 images, as many as ``size`` or fewer.

        Returns the _Computation, whose answers are good until the next start.
        """
        computation = self._computation(size)
        computation.start(images)
        return computation

    def _computation(self, size):
        """That for pieces of a size; it takes its memory from the first one, the largest."""
        if size not in self._computations:
            largest = self._computations.get(len(self._data))
            executor = self._symbol.bind(
                self._context, {**self._args, "data": self._data[:size]}, grad_req="null",
                aux_states=self._aux_states, shared_exec=largest and largest.executor)
            pixels = None if self._pixels is None else self._pixels[:size]
            self._computations[size] = _Computation(executor, pixels)
        return self._computations[size]


class _Computation:
    """An executor for pieces of one size, and the memory that they and their answers are in.

    It calls MXNet's library past ``Executor.forward`` and ``NDArray.asnumpy``, which for one image
    take half as long as the network.

    Args:
        executor: of a network with one input, "data".
        pixels: the memory of that, (size, C, H, W), or None if it is not the CPU's.
    """

    def __init__(self, executor, pixels):
        self.executor, self._pixels, self._output = executor, pixels, executor.outputs[0]
        size, *_ = executor.arg_dict["data"].shape
        if self._output.shape[:1] != (size,):
            raise ValueError("expected a network that gives something for each image, got "
                             f"{self._output.shape} for {size} images")
        self._answers, self._given = np.empty(self._output.shape, self._output.dtype), 0
        self._place = ctypes.c_void_p(self._answers.ctypes.data)
        self._count = ctypes.c_size_t(self._answers.size)

    def start(self, images):
        """Starts to compute what the network says of uint8 images, ``size`` or fewer."""
        self._given = len(images)
        if self._pixels is None:
            data = self.executor.arg_dict["data"]
            mx.nd.from_numpy(_scaled(images, np.empty(data.shape, np.float32))).copyto(data)
        else:  # past MXNet's engine, whose threads would wait for each other and for cores
            _scaled(images, self._pixels)
        check_call(_LIB.MXExecutorForward(self.executor.handle, 0))

    def answers(self):
        """Waits for what was started; returns an array that is good until that of the next."""
        check_call(_LIB.MXNDArraySyncCopyToCPU(self._output.handle, self._place, self._count))
        return self._answers[:self._given]


def _memory(array):
    """The memory of an NDArray of float32 on a CPU, as a NumPy array that can be written."""
    array.wait_to_read()
    pointer = ctypes.c_void_p()
    check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), array.shape)


def _scaled(images, place):
    """Writes uint8 images into a place, as numbers from 0 to 1 and filled up with zeros."""
    np.multiply(images, PIXEL, out=place[:len(images)])
    place[len(images):] = 0
    return place


def _taken(images, piece, following=None):
    """A slice of images; the one that follows is read meanwhile, if it is on the disk."""
    if not isinstance(images, Stream):
        return images[piece]
    taken = images[np.arange(piece.start, piece.stop)]
    if following is not None:
        images.read_ahead(np.arange(following.start, following.stop))
    return taken
