"""Small data of one's own for the tests."""
import numpy as np

from common.data import datasets, synthetic

SHAPE = (18, 20)  # of small images; the LeNet takes them
TRAIN = ["--num-epochs", 1, "--batch-size", 10, "--cpus", 1, "--network", "mlp", "--width", 8]


def drawn(count, seed=0, shape=SHAPE):
    return synthetic.draw(count, seed, shape)


def coloured(images):
    """Images (N, 3, H, W) of those (N, H, W)."""
    return np.stack([images, images // 2, 255 - images], axis=1)


def load(path, **options):
    return datasets.load("mnist", str(path), **options)
