"""A network of one's own with the spatial transformer of symbols/stn.py, trained by Module.fit.

    python -m examples.lift_stn

symbols/stn.py needs MXNet and NumPy alone: copy it. The head is the stable one, which bears the
rates that the network trains at without a transformer. The digits here are drawn, then turned,
scaled and put anywhere. Without the transformer the same classifier gets some 60% of them right.
"""
from common import find_mxnet  # noqa: F401  or a copy of it: first, so that MXNet can be imported

# isort: split
import mxnet as mx
import numpy as np

from common.data import synthetic
from common.data.distort import distort
from symbols.stn import localisation_head, spatial_transformer

images, labels = synthetic.draw(7000, seed=0)  # put your own images here
images = distort("RTS", images, seed=0)  # (N, 42, 42)
images = images[:, None].astype("float32") / 255  # (N, C, H, W), from 0 (black) to 1 (white)
mx.random.seed(0)  # for the start
np.random.seed(0)  # for the order of the images
train = mx.io.NDArrayIter(images[:6000], labels[:6000], batch_size=50, shuffle=True)
test = mx.io.NDArrayIter(images[6000:], labels[6000:], batch_size=50)

# The localisation network: features of the image, and a head that makes theta of them.
data = mx.sym.Variable("data")
features = mx.sym.Convolution(data, num_filter=16, kernel=(5, 5), stride=(2, 2),
                              name="stn_loc_conv1")
features = mx.sym.Activation(features, act_type="relu", name="stn_loc_relu1")
theta = localisation_head(features, "similarity")
straightened = spatial_transformer(data, theta, target_shape=(28, 28), transform="similarity")

# A classifier of one's own, which sees the straightened image.
net = mx.sym.FullyConnected(straightened, num_hidden=128, name="fc1")
net = mx.sym.Activation(net, act_type="relu", name="relu1")
net = mx.sym.FullyConnected(net, num_hidden=10, name="fc2")
net = mx.sym.SoftmaxOutput(net, name="softmax")

module = mx.mod.Module(net)
module.fit(train, num_epoch=3, initializer=mx.init.Xavier(),
           optimizer="adam", optimizer_params={"learning_rate": 0.003})

print(f"Test accuracy: {dict(module.score(test, 'acc'))['accuracy']:.3f}")
