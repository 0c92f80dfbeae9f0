"""Loads an export by MXNet's C predict API: these calls do in C, and in all that can call C.

    python -m examples.load_in_c

Here Python makes them by ctypes, and imports MXNet only to find its library. Linux's has this API.
"""
import ctypes

from common import find_mxnet  # noqa: F401  or a copy of it: first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

folder = "published/mnist-lenet-stn"
images = np.zeros((1, 1, 28, 28), np.float32)  # (N, C, H, W), from 0 (black) to 1 (white)
images[:, :, 5:23, 13:16] = 1  # an upright stroke: a one

library = ctypes.CDLL(mx.libinfo.find_lib_path()[0])  # libmxnet.so
library.MXGetLastError.restype = ctypes.c_char_p
unsigned, floats = ctypes.c_uint, ctypes.POINTER(ctypes.c_float)


def call(function, *args):
    """Calls a function of the library, which returns 0 if all went well."""
    if function(*args) != 0:
        raise RuntimeError(library.MXGetLastError().decode())


with open(f"{folder}/model-symbol.json", "rb") as file:
    symbol = file.read()
with open(f"{folder}/model-0000.params", "rb") as file:
    params = file.read()

network = ctypes.c_void_p()
on_cpu, device = 1, 0
names = (ctypes.c_char_p * 1)(b"data")
starts = (unsigned * 2)(0, images.ndim)  # of the shape of each input, and the end of the last
call(library.MXPredCreate, symbol, params, len(params), on_cpu, device, len(names), names, starts,
     (unsigned * images.ndim)(*images.shape), ctypes.byref(network))

pixels = np.ascontiguousarray(images, np.float32)
call(library.MXPredSetInput, network, b"data", pixels.ctypes.data_as(floats),
     unsigned(pixels.size))
call(library.MXPredForward, network)

shape, dimensions = ctypes.POINTER(unsigned)(), unsigned()
call(library.MXPredGetOutputShape, network, 0, ctypes.byref(shape), ctypes.byref(dimensions))
answers = np.empty(shape[:dimensions.value], np.float32)  # (N, classes), probabilities
call(library.MXPredGetOutput, network, 0, answers.ctypes.data_as(floats), unsigned(answers.size))
call(library.MXPredFree, network)

print(f"It is a {answers[0].argmax()}, with probability {answers[0].max():.3f}")
