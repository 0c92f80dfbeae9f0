"""Class probabilities of a trained network, as fast as the machine has them."""
import mxnet as mx
import numpy as np

from common.data.batches import ImageIter
from common.graph import rewrite
from common.models import devices
from common.models.metrics import keep_in_flight, predictions


class Predictor:
    """A network with fixed parameters: called with images, it gives their probabilities.

    Args:
        symbol: without label, as from ``rewrite.label_free`` or an export; its input is "data".
        arg_params, aux_params: name -> NDArray.
        image_shape: (C, H, W).
        batch_size: images in a batch; 1 answers soonest, some hundred answer most in a second.
        gpus: numbers of GPUs, or None for the CPU.
        cpus: number of CPU devices, or None for one for each core.

    Raises:
        ValueError: there are no such GPUs.
        mx.MXNetError: the network is not for such images.
    """

    def __init__(self, symbol, arg_params, aux_params, image_shape, batch_size=256,
                 gpus=None, cpus=None):
        self.batch_size, self.image_shape = batch_size, tuple(image_shape)
        contexts = devices.contexts(gpus, cpus, batch_size)
        if gpus is None:
            # The thread of the first CPU device copies the batches to all of them. Where it has to
            # compute too, the other devices wait for theirs. And there alone MXNet fuses operators
            # unasked, some of them wrongly.
            contexts = [mx.cpu(context.device_id + 1) for context in contexts]
        shape = (batch_size, *image_shape)
        self.module = mx.mod.Module(
            rewrite.for_cpu(symbol, contexts, "float32", for_training=False, data=shape),
            label_names=None, context=contexts)
        self.module.bind([("data", shape)], for_training=False)
        executors = self.module._exec_group.execs
        for share in {executor.arg_dict["data"].shape for executor in executors}:
            rewrite.check_reshapes(symbol, data=share)
        self.module.set_params(arg_params, aux_params)

    def __call__(self, images):
        """The probabilities (N, classes), float32, of uint8 images (N, H, W) or (N, C, H, W).

        Raises ValueError for others; ``batches.as_pixels`` says which it takes.
        """
        batches = ImageIter(images, np.zeros(len(images), np.uint8), self.batch_size)
        if batches.image_shape != self.image_shape:
            wanted, given = (" x ".join(map(str, shape))
                             for shape in (self.image_shape, batches.image_shape))
            raise ValueError(f"expected images of {wanted}, got {given}")
        return np.concatenate([outputs.asnumpy()[:self.batch_size - batch.pad]
                               for outputs, batch in keep_in_flight(
                                   predictions(self.module, batches))])
