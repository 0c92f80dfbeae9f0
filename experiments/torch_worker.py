"""The same measurements of PyTorch on the reference network: eager, unless flags say otherwise.

    --channels-last   pictures and weights with their channels last
    --bfloat16        autocast to bfloat16
    --compile         compiled, for each batch size; in prediction its weights are frozen
    --max-autotune    likewise, and products of matrices are chosen by trying them
    --int8            eager, in int8 by PyTorch's own quantization: it predicts alone

With --learn SEED it trains on MNIST instead, by the reference network's recipe: SGD, rate 0.1 and a
hundredth of it in the full connections of the localisation network, batches of 64, 20 epochs; and
says its test accuracy after each of them.
"""
import functools
import sys
import warnings

try:
    import torch
    from torch import nn
    from torch._inductor import config as compiler
    from torch.ao import quantization
    from torch.ao.quantization import quantize_fx
    from torch.nn import functional
except ImportError as error:
    sys.exit(f"{error}: the benchmark compares with PyTorch: make bench sets it up")

from common.data import mnist
from experiments.protocol import MATRICES, serve, throughput

CHANNELS_LAST, BFLOAT16 = "--channels-last" in sys.argv, "--bfloat16" in sys.argv
INT8 = "--int8" in sys.argv
MODE = next((mode for flag, mode in (("--compile", "default"),
                                     ("--max-autotune", "max-autotune-no-cudagraphs"))
             if flag in sys.argv), None)


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


def laid_out(tensor_or_net):
    """With channels last, if so told."""
    return tensor_or_net.to(memory_format=torch.channels_last) if CHANNELS_LAST else tensor_or_net


def autocast():
    return torch.autocast("cpu", torch.bfloat16, enabled=BFLOAT16)


def in_int8(net):
    """A network in int8; a batch of images gives the ranges of its numbers."""
    images = torch.rand(64, 1, 28, 28)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a later PyTorch has another way
        observed = quantize_fx.prepare_fx(net, quantization.get_default_qconfig_mapping(), images)
        observed(images)
        return quantize_fx.convert_fx(observed)


@functools.lru_cache(maxsize=1)  # the rounds of one case need not compile again
def network(add_stn, training, batch_size):
    """A network in either mode, in int8 or compiled for just this batch size if so told."""
    net = laid_out(Net(add_stn).train(training))
    if INT8:
        return in_int8(net)
    if not MODE:
        return net
    torch.compiler.reset()
    return torch.compile(net, dynamic=False, mode=MODE)


def train(add_stn, batch_size, seconds):
    """Images/s of training steps on one batch."""
    net = network(add_stn, True, batch_size)
    images = laid_out(torch.rand(batch_size, 1, 28, 28))
    labels = torch.arange(batch_size) % 10
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            loss = functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()

    return throughput(step, seconds, batch_size)


def predict(add_stn, batch_size, seconds):
    """Images/s of predictions of one batch."""
    net = network(add_stn, False, batch_size)
    images = laid_out(torch.rand(batch_size, 1, 28, 28))

    def step():
        with torch.inference_mode(), autocast():
            functional.softmax(net(images), dim=1)

    return throughput(step, seconds, batch_size)


def roofline(seconds):
    """GFLOP/s of matrix products, by the name of what computes them."""
    def speed(size):
        matrix, product = torch.rand(size, size), torch.empty(size, size)
        steps = throughput(lambda: torch.mm(matrix, matrix, out=product), seconds, 1)
        return 2e-9 * size**3 * steps

    return {"PyTorch's matmul": max(map(speed, MATRICES))}


def about():
    return {"torch": torch.__version__}


def bfloat16():
    """Whether the processor multiplies bfloat16 itself."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def learn(seed):
    """Trains on MNIST, and says the test accuracy after each epoch."""
    torch.manual_seed(seed)
    images, labels, test_images, test_labels = (
        torch.from_numpy(array.copy()) for array in mnist.load("mnist", None))
    images, test_images = (array[:, None].float() / 255 for array in (images, test_images))
    net = network(True, True, 64)
    slow = [parameter for layer in net.loc if isinstance(layer, nn.Linear)
            for parameter in layer.parameters()]
    rest = [parameter for parameter in net.parameters()
            if not any(parameter is other for other in slow)]
    optimizer = torch.optim.SGD([{"params": rest}, {"params": slow, "lr": 0.001}], lr=0.1)
    for epoch in range(20):
        net.train()
        for chosen in torch.randperm(len(images)).split(64):
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(net(images[chosen]), labels[chosen].long()).backward()
            optimizer.step()
        net.eval()
        with torch.inference_mode():
            right = sum((net(part).argmax(1) == wanted).sum().item() for part, wanted
                        in zip(test_images.split(256), test_labels.split(256)))
        print(f"Epoch[{epoch}] Validation-accuracy={right / len(test_labels):f}", flush=True)


def main():
    if "--learn" in sys.argv:
        learn(int(sys.argv[-1]))
    else:
        compiler.freezing = True
        compiler.autotune_num_choices_displayed = 0
        compiler.max_autotune_report_choices_stats = False
        serve(train=train, predict=predict, roofline=roofline, about=about,
              bfloat16=bfloat16)


if __name__ == "__main__":
    main()
