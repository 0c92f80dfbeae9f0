"""Cuts parts out of an export: theta, the straightened picture, and the classifier's features.

    python -m examples.cut_out_parts
"""
from common import find_mxnet  # noqa: F401  or a copy of it: first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

folder = "published/mnist-lenet-stn"
images = np.zeros((1, 1, 28, 28), np.float32)  # (N, C, H, W), from 0 (black) to 1 (white)
images[:, :, 5:23, 13:16] = 1  # an upright stroke: a one

symbol, arg_params, aux_params = mx.model.load_checkpoint(f"{folder}/model", 0)
inner = symbol.get_internals()  # inner.list_outputs() has the names of all that can be cut out
to_classes = symbol.get_children()[0]  # the full connection before the softmax
parts = mx.sym.Group([inner["stn_theta_output"], inner["stn_output"], to_classes.get_children()[0]])

module = mx.mod.Module(parts, label_names=None)
module.bind([("data", images.shape)], for_training=False)
module.set_params(arg_params, aux_params, allow_extra=True)
module.forward(mx.io.DataBatch([mx.nd.array(images)]))
theta, straightened, features = (output.asnumpy() for output in module.get_outputs())

print("theta:", theta[0].round(3))
print("the classifier sees a picture of shape", straightened[0].shape)
print("features of shape", features[0].shape)
