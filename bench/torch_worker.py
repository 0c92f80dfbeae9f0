"""The same measurements of PyTorch: the seed network, eager, or compiled with --compile."""
import sys

import torch
from torch import nn
from torch.nn import functional

from bench.protocol import rate, serve

COMPILE = "--compile" in sys.argv


class Net(nn.Module):
    """The small LeNet, with or without its affine transformer."""

    def __init__(self, add_stn):
        super().__init__()
        self.add_stn = add_stn
        if add_stn:
            self.loc = nn.Sequential(
                nn.Conv2d(1, 8, 7), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(8, 10, 5), nn.ReLU(), nn.MaxPool2d(2),
                nn.Flatten(), nn.Linear(90, 32), nn.ReLU(), nn.Linear(32, 6))
            nn.init.zeros_(self.loc[-1].weight)
            self.loc[-1].bias.data = torch.tensor([1.0, 0, 0, 0, 1, 0])
        self.classifier = nn.Sequential(
            nn.Conv2d(1, 10, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(10, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(),
            nn.Linear(320, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 10))

    def forward(self, images):
        if self.add_stn:
            theta = self.loc(images).view(-1, 2, 3)
            grid = functional.affine_grid(theta, images.shape, align_corners=True)
            images = functional.grid_sample(images, grid, align_corners=True)
        return self.classifier(images)


def network(add_stn):
    net = Net(add_stn)
    torch.compiler.reset()  # each batch size gets a program of its own
    return torch.compile(net, dynamic=False) if COMPILE else net


def train(add_stn, batch_size, seconds):
    """Images/s of training steps on one batch."""
    net = network(add_stn).train()
    images, labels = torch.rand(batch_size, 1, 28, 28), torch.arange(batch_size) % 10
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003)

    def step():
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(net(images), labels).backward()
        optimizer.step()

    return batch_size * rate(step, lambda: None, seconds)


def predict(add_stn, batch_size, seconds):
    """Images/s of predictions of one batch."""
    net, images = network(add_stn).eval(), torch.rand(batch_size, 1, 28, 28)

    def step():
        with torch.inference_mode():
            functional.softmax(net(images), dim=1)

    return batch_size * rate(step, lambda: None, seconds)


if __name__ == "__main__":
    serve(lambda what, **fields: {"train": train, "predict": predict}[what](**fields))
