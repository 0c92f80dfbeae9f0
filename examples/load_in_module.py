"""Loads an export by MXNet's Module API, and asks it which digit a picture shows.

    python -m examples.load_in_module
"""
from common import find_mxnet  # noqa: F401  or a copy of it: first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

folder = "published/mnist-lenet-stn"
images = np.zeros((1, 1, 28, 28), np.float32)  # (N, C, H, W), from 0 (black) to 1 (white)
images[:, :, 5:23, 13:16] = 1  # an upright stroke: a one

module = mx.mod.Module.load(f"{folder}/model", 0, label_names=None)
module.bind([("data", images.shape)], for_training=False)
module.forward(mx.io.DataBatch([mx.nd.array(images)]))
answers = module.get_outputs()[0].asnumpy()  # (N, classes), probabilities

print(f"It is a {answers[0].argmax()}, with probability {answers[0].max():.3f}")
