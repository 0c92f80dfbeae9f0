"""Loads an export as a block of Gluon, which takes batches of any size.

    python -m examples.load_in_gluon
"""
from common import find_mxnet  # noqa: F401  or a copy of it: first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

folder = "published/mnist-lenet-stn"
images = np.zeros((1, 1, 28, 28), np.float32)  # (N, C, H, W), from 0 (black) to 1 (white)
images[:, :, 5:23, 13:16] = 1  # an upright stroke: a one

block = mx.gluon.SymbolBlock.imports(f"{folder}/model-symbol.json", ["data"],
                                     f"{folder}/model-0000.params")
block.hybridize()  # faster
answers = block(mx.nd.array(images)).asnumpy()  # (N, classes), probabilities

print(f"It is a {answers[0].argmax()}, with probability {answers[0].max():.3f}")
