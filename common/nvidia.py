"""NVIDIA's driver, asked before MXNet touches a card: which cards, and does MXNet run on them?

What MXNet 1.9.1's last packages hold for GPUs is machine code for compute capabilities 5.0, 6.0,
7.0, 8.0 and 8.6, and no PTX that a driver could translate for newer ones. Machine code runs on
cards of its own major number from its minor number on, so these are Maxwell to Ada, 5.0 to 8.9.
"""
import ctypes
import platform
from typing import NamedTuple, Tuple

OLDEST, NEWEST = (5, 0), (8, 9)  # compute capabilities
DRIVER = "libcuda.so.1"
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...


class Card(NamedTuple):
    """A GPU: its name and its compute capability, (major, minor)."""

    name: str
    capability: Tuple[int, int]

    @property
    def runs_mxnet(self):
        return OLDEST <= self.capability <= NEWEST

    def __str__(self):
        return f"{self.name}, compute capability {_dotted(self.capability)}"


class Driver(NamedTuple):
    """The driver: the newest CUDA it bears, (major, minor), and its cards by MXNet's numbers."""

    cuda: Tuple[int, int]
    cards: Tuple[Card, ...]


def driver():
    """Asks the driver.

    Raises OSError if there is none, or it does not work; ``CUDA_VISIBLE_DEVICES`` hides cards.
    """
    if platform.system() == "Darwin":
        raise OSError("NVIDIA has no driver for macOS")
    library = ctypes.CDLL(DRIVER)
    _call(library, "cuInit", 0)
    version = _number(library, "cuDriverGetVersion")
    count = _number(library, "cuDeviceGetCount")
    return Driver((version // 1000, version % 1000 // 10),
                  tuple(_card(library, ordinal) for ordinal in range(count)))


def refusal(numbers):
    """In one line why MXNet cannot run on these GPUs; None if it can, or no driver knows them."""
    try:
        cards = driver().cards
    except OSError:
        return None
    for number in numbers:
        if number < len(cards) and not cards[number].runs_mxnet:
            return (f"GPU {number}, {cards[number]}, is none that MXNet's last packages have "
                    f"machine code for: these are {_dotted(OLDEST)} to {_dotted(NEWEST)}, Maxwell "
                    "to Ada; without --gpus all runs on the CPU, and what `export.py --onnx` "
                    "writes predicts on this GPU by onnxruntime's CUDA")
    return None


def _dotted(numbers):
    return ".".join(map(str, numbers))


def _card(library, ordinal):
    device, name = _number(library, "cuDeviceGet", ordinal), ctypes.create_string_buffer(256)
    _call(library, "cuDeviceGetName", name, len(name), device)
    capability = tuple(_number(library, "cuDeviceGetAttribute", attribute, device)
                       for attribute in (MAJOR, MINOR))
    return Card(name.value.decode(errors="replace"), capability)


def _number(library, function, *arguments):
    """The whole number that a function of the driver writes to its first argument."""
    result = ctypes.c_int()
    _call(library, function, ctypes.byref(result), *arguments)
    return result.value


def _call(library, function, *arguments):
    try:
        status = getattr(library, function)(*arguments)
    except AttributeError:
        raise OSError(f"{DRIVER} has no {function}: is it NVIDIA's driver?") from None
    if status:
        raise OSError(f"NVIDIA's driver: {function} failed with status {status}")
