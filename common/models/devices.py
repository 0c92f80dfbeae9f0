"""The devices that a network is run on."""
import os

import mxnet as mx

from common import nvidia
from common.find_mxnet import usable_cores

SMALLEST_SHARE = 16  # images of a batch that are worth a CPU device of their own


def contexts(gpus, cpus, batch_size):
    """The devices to split batches over.

    Args:
        gpus: numbers of GPUs, or None for the CPU.
        cpus: number of CPU devices, or None for one for each core.
        batch_size: images in a batch, at least one for each device.

    Returns:
        A list of ``mx.Context``.

    Raises:
        ValueError: there are no such GPUs, or more devices than images.
    """
    if gpus is not None:
        _check_gpus(gpus)
        chosen = [mx.gpu(number) for number in gpus]
    else:
        free = usable_cores() // int(os.environ.get("OMP_NUM_THREADS", "1"))
        count = cpus or max(1, min(free, batch_size // SMALLEST_SHARE))
        chosen = [mx.cpu(number) for number in range(count)]
    if len(chosen) > batch_size:
        raise ValueError(f"--batch-size {batch_size} does not fill {len(chosen)} devices")
    return chosen


def _check_gpus(gpus):
    refusal = nvidia.refusal(gpus)
    if refusal:
        raise ValueError(f"--gpus: {refusal}")
    if not mx.runtime.Features().is_enabled("CUDA"):
        raise ValueError("--gpus: this MXNet is built for the CPU only; on a machine with an "
                         "NVIDIA GPU, `make setup MXNET=mxnet-cu112` installs one for CUDA 11.2; "
                         "without --gpus all runs on the CPU")
    available = mx.context.num_gpus()
    missing = [str(number) for number in gpus if number >= available]
    if missing:
        raise ValueError(f"--gpus: no GPU {', '.join(missing)}; MXNet finds {available} in this "
                         "machine (nvidia-smi lists them); without --gpus all runs on the CPU")
