"""Small data of one's own for the tests."""
import numpy as np

from common.data import datasets, records, synthetic

SHAPE = (18, 20)  # of small images; the LeNet takes them
TRAIN = ["--num-epochs", 1, "--batch-size", 10, "--cpus", 1, "--network", "mlp", "--width", 8]


def drawn(count, seed=0, shape=SHAPE):
    return synthetic.draw(count, seed, shape)


def coloured(images):
    """Images (N, 3, H, W) of those (N, H, W)."""
    return np.stack([images, images // 2, 255 - images], axis=1)


def load(path, **options):
    return datasets.load("mnist", str(path), **options)


def as_im2rec(path, rows):
    """Writes a .rec and its .lst of rows (label, path, picture)."""
    with open(f"{path}.rec", "wb") as rec, open(f"{path}.lst", "w", encoding="utf-8") as lst:
        for number, (label, name, picture) in enumerate(rows):
            lst.write(f"{number}\t{label:f}\t{name}\n")
            rec.write(records.frame(records.HEADER.pack(0, label, number, 0) + picture))
