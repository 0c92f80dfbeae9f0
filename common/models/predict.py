"""Class probabilities of a trained network, as fast as the machine has them."""
import mxnet as mx
import numpy as np

from common.data.batches import PIXEL, as_pixels
from common.data.records import Stream
from common.graph import constants, rewrite
from common.models import devices
from common.models.metrics import keep_in_flight

LARGEST_PIECE = 128  # images that a CPU device computes at once: more of them leave its cache


class Predictor:
    """A network with fixed parameters: called with images, it gives their probabilities.

    A call is cut into pieces, which the devices compute in turns, each by an executor for pieces of
    that size. These are made when they are first needed, for powers of two: so few images are
    answered soon, and many take no more memory than their answers. What an image is answered
    depends on the size of its piece by rounding. Threads need a Predictor each.

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
            # The thread of the first CPU device copies the pieces to all of them. Where it has to
            # compute too, the other devices wait for theirs. And there alone MXNet fuses operators
            # unasked, some of them wrongly.
            self._contexts = [mx.cpu(context.device_id + 1) for context in self._contexts]
            largest = min(largest, LARGEST_PIECE)
        self.sizes = [2**power for power in range(largest.bit_length()) if 2**power < largest]
        self.sizes.append(largest)
        for size in self.sizes:
            rewrite.check_reshapes(symbol, data=(size, *image_shape))
        self._symbol = rewrite.for_cpu(symbol, self._contexts, "float32", for_training=False,
                                       data=(largest, *image_shape))
        if self._symbol is not symbol:
            self._symbol, arg_params = constants.fold(
                self._symbol, arg_params, self._contexts[0],
                [(size, *image_shape) for size in {1, largest}])
        self._params = [[_on(context, names, params) for names, params in (
            (self._symbol.list_arguments(), arg_params),
            (self._symbol.list_auxiliary_states(), aux_params))] for context in self._contexts]
        self._executors = {}
        for device in range(len(self._contexts)):
            self._executor(device, largest)

    def __call__(self, images):
        """The probabilities (N, classes), float32, of uint8 images (N, H, W) or (N, C, H, W).

        Raises ValueError for others; ``batches.as_pixels`` says which it takes.
        """
        images = as_pixels(images)
        if images.shape[1:] != self.image_shape:
            wanted, given = (" x ".join(map(str, shape))
                             for shape in (self.image_shape, images.shape[1:]))
            raise ValueError(f"expected images of {wanted}, got {given}")
        if len(images) <= min(devices.SMALLEST_SHARE, self.sizes[-1]):
            return self._at_once(images)
        answers = None
        for piece, output in keep_in_flight(self._outputs(images), burst=len(self._contexts)):
            part = output.asnumpy()[:piece.stop - piece.start]
            if answers is None:
                answers = np.empty((len(images), *part.shape[1:]), part.dtype)
            answers[piece] = part
        return answers

    def warm_up(self):
        """Predicts pieces of all sizes, so that no later call has to wait for an executor."""
        for device in range(len(self._contexts)):
            for size in self.sizes:
                self._executor(device, size).forward(is_train=False)
        mx.nd.waitall()

    def _at_once(self, images):
        """Few images, in one piece and without what copes with many of them."""
        if not len(images):
            raise ValueError("expected images, got none")
        executor = self._executor(0, self._fitting(len(images)))
        data = executor.arg_dict["data"]
        data._sync_copyfrom(_scaled(_taken(images, slice(0, len(images))), data.shape))
        executor.forward(is_train=False)
        return executor.outputs[0].asnumpy()[:len(images)]

    def _outputs(self, images):
        """Yields slices of images, and their outputs."""
        pieces = self._pieces(len(images))
        for number, piece in enumerate(pieces):
            device = number % len(self._contexts)
            data = _taken(images, *pieces[number:number + 2])
            executor = self._executor(device, self._fitting(len(data)))
            place = executor.arg_dict["data"]
            # from_numpy, because nd.array would wait for all that the device has been told to do.
            mx.nd.from_numpy(_scaled(data, place.shape)).copyto(place)
            executor.forward(is_train=False)
            yield piece, executor.outputs[0].copy()  # which the next forward does not overwrite

    def _pieces(self, count):
        """The slices that a call is cut into: for all devices, and with little that fills up."""
        share = max(-(-count // len(self._contexts)), devices.SMALLEST_SHARE)
        length = max(size for size in self.sizes if size <= share)
        return [slice(start, min(start + length, count)) for start in range(0, count, length)]

    def _fitting(self, count):
        """The smallest size that a piece of some images fits into."""
        return next(size for size in self.sizes if size >= count)

    def _executor(self, device, size):
        """That of a device for pieces of a size."""
        if (device, size) not in self._executors:
            context, (args, auxs) = self._contexts[device], self._params[device]
            data = mx.nd.zeros((size, *self.image_shape), context)
            executor = self._symbol.bind(
                context, {**args, "data": data}, aux_states=auxs, grad_req="null",
                shared_exec=self._executors.get((device, self.sizes[-1])))  # its memory is enough
            if executor.outputs[0].shape[:1] != (size,):
                raise ValueError("expected a network that gives something for each image, got "
                                 f"{executor.outputs[0].shape} for {size} images")
            self._executors[device, size] = executor
        return self._executors[device, size]


def _on(context, names, params):
    """Copies of those params that have names, on a device."""
    return {name: params[name].copyto(context) for name in names if name in params}


def _scaled(images, shape):
    """Numbers from 0 to 1 of uint8 images, filled up with zeros to a shape."""
    scaled = np.empty(shape, np.float32)
    np.multiply(images, PIXEL, out=scaled[:len(images)])
    scaled[len(images):] = 0
    return scaled


def _taken(images, piece, following=None):
    """A slice of images; the one that follows is read meanwhile, if it is on the disk."""
    if not isinstance(images, Stream):
        return images[piece]
    taken = images[np.arange(piece.start, piece.stop)]
    if following is not None:
        images.read_ahead(np.arange(following.start, following.stop))
    return taken
