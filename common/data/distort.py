"""The paper's distortions of MNIST, fresh or fixed, with the maps that were applied.

| name | target | what happens to a digit |
| --- | --- | --- |
| R | its own size | turned by up to 90 degrees either way |
| R360 | its own size | turned by any angle |
| RTS | 42 x 42 | turned by up to 45 degrees, scaled by 0.7 to 1.2, placed anywhere |
| P | its own size | scaled by 0.75 to 1, each corner moved by N(0, 5) pixels (digit kept inside) |
| E | its own size | scaled by 0.75 to 1, a 4 x 4 lattice bent by N(0, 1.5) pixels (spline) |
| T | 60 x 60 | placed anywhere |
| TC | 60 x 60 | placed anywhere, among six crops of other digits, 6 x 6 pixels each |

After Jaderberg et al., 2015, appendix A.4 and section 4.1, but for R360, which is the task of the
published rotated MNIST (Larochelle et al., 2007). Choices of ours, where the text leaves
them open: R, P and E keep a picture's size, and E's lattice has 4 x 4 points; scale and angle are
uniform; "anywhere" is wherever the frame of the digit, before it is turned, stays inside; corners
of P that would fold the picture over, or push a part of the digit out of it, are drawn again (six
draws in ten, after which the moves deviate by 4.2 pixels); crops come from the middle of the
digits, where there is ink, and cover what is darker.
"""
import functools
from typing import Callable, NamedTuple, Optional, Tuple

import mxnet as mx
import numpy as np

from common.data.mnist import CLASSES
from symbols import stn

CHUNK = 500  # images that are warped at once
DEVICES = 70, 71  # numbers of CPU devices that do nothing else: no step of training is waited for
CROPS, CROP = 6, 6
LEAST_DENOMINATOR = 0.2  # of a projective map, anywhere in the target
CORNERS = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
DIGIT = 20 / 28  # of a picture's sides: MNIST's digits are as large, more or less in the middle


class Distortion(NamedTuple):
    """A family of random maps from the target's points to the source's.

    Attributes:
        draw: function of a RandomState, the number of images, and the (height, width) of target and
            source, that returns thetas (N, parameters).
        transform: what theta means; see ``symbols/stn.py``.
        target_shape: (height, width); None for the source's.
        by_whole_pixels: whether digits are moved by whole pixels alone, so that they can be copied.
        crops: of other digits, that are pasted over the result.
        least: pixels that the source must have each way.
    """

    draw: Callable
    transform: str = "affine"
    target_shape: Optional[Tuple[int, int]] = None
    by_whole_pixels: bool = False
    crops: int = 0
    least: int = 2


def distort(name, images, seed, with_theta=False):
    """Distorts images.

    Args:
        name: a key of ``DISTORTIONS``, or a ``Distortion``.
        images: uint8 (N, H, W).
        seed: a whole number from 0; the same seed gives the same distortions.
        with_theta: whether to return the maps too.

    Returns:
        Distorted images, uint8 (N, height, width); and the thetas (N, parameters) that were
        applied, in the terms of ``symbols/stn.py``, if they are wanted.

    Raises:
        ValueError: unknown distortion, no such images, too large ones for the target, or ones that
            are too small.
    """
    if isinstance(name, Distortion):
        name, distortion = "it", name
    else:
        _check_name(name, DISTORTIONS)
        distortion = DISTORTIONS[name]
    if images.dtype != np.uint8 or images.ndim != 3 or not images.size:
        colour = ", in colour: --image-shape 1,H,W makes them grey" * (images.shape[1:2] == (3,))
        raise ValueError("images to distort are to be grey, one or more in uint8 (N, H, W), got "
                         f"{images.dtype} {images.shape}{colour}")
    source_shape = images.shape[1:]
    target_shape = distortion.target_shape or source_shape
    if min(np.subtract(target_shape, source_shape)) < 0:
        raise ValueError(f"{name} needs images of at most {target_shape[0]} x {target_shape[1]} "
                         f"pixels, got {source_shape[0]} x {source_shape[1]}")
    if min(source_shape) < distortion.least:
        raise ValueError(f"{name} needs images of at least {distortion.least} x {distortion.least} "
                         f"pixels, got {source_shape[0]} x {source_shape[1]}")
    rng = np.random.RandomState(seed)
    theta = distortion.draw(rng, len(images), target_shape, source_shape)
    if distortion.by_whole_pixels:
        warped = _copied(images, theta, target_shape)
    else:
        warped = warp(images, theta, target_shape, distortion.transform)
    if distortion.crops:
        _clutter(rng, warped, images, distortion.crops)
    return (warped, theta) if with_theta else warped


def augmentation(name, num_classes=CLASSES):
    """What is to be learnt from distorted images.

    Args:
        name: one of ``TASKS``, or None to leave the images as they are.
        num_classes: of the images.

    Returns:
        A function of images (N, H, W), labels (N,) and a seed that returns what takes their place,
        or None; and the number of classes.

    Raises:
        ValueError: unknown task.
    """
    if name is None:
        return None, num_classes
    if name == "addition":
        return addition_pairs, 2 * num_classes - 1
    _check_name(name, TASKS)
    return lambda images, labels, seed: (distort(name, images, seed), labels), num_classes


def addition_pairs(images, labels, seed):
    """Pairs of digits to be added, each distorted by RTS by itself.

    Args:
        images: uint8 (N, H, W).
        labels: (N,), such as 0 to 9.
        seed: as for ``distort``.

    Returns:
        uint8 (N, 2, 42, 42), each image paired with a random one, and the sums (N,).
    """
    partner = np.random.RandomState(seed).permutation(len(images))
    both = [distort("RTS", part, seed + number)
            for number, part in enumerate((images, images[partner]), start=1)]
    return np.stack(both, axis=1), labels.astype(int) + labels[partner]


def warp(images, theta, target_shape, transform="affine"):
    """Samples each image by its own map, with MXNet's sampler.

    Args:
        images: uint8 (N, H, W).
        theta: (N, parameters of the transform).
        target_shape: (height, width).
        transform: as for ``stn.get_transform``.

    Returns:
        uint8 (N, height, width).
    """
    count = min(CHUNK, len(images))
    executors = _samplers(count, images.shape[1:], tuple(target_shape), transform)
    warped = np.empty((len(images), *target_shape), np.uint8)
    starts = [min(start, len(images) - count) for start in range(0, len(images), count)]
    for pair in zip(starts[::2], [*starts[1::2], None]):  # two at a time, on two devices
        outputs = [executor.forward(data=_floats(images[start:start + count, None]),
                                    theta=_floats(theta[start:start + count]))[0]
                   for executor, start in zip(executors, pair) if start is not None]
        for start, output in zip(pair, outputs):
            warped[start:start + count] = np.rint(output.asnumpy()[:, 0])
    return warped


@functools.lru_cache(maxsize=4)  # an epoch is distorted in many calls of one kind
def _samplers(count, source_shape, target_shape, transform):
    """Executors of the transformer for ``count`` images, one on each of ``DEVICES``."""
    symbol = stn.spatial_transformer(mx.sym.Variable("data"), mx.sym.Variable("theta"),
                                     target_shape, transform)
    parameters = len(stn.get_transform(transform).identity)
    return [symbol.simple_bind(mx.cpu(device), grad_req="null", theta=(count, parameters),
                               data=(count, 1, *source_shape)) for device in DEVICES]


def _copied(images, theta, target_shape):
    """What ``warp`` makes of images that only move by whole pixels, many times as fast."""
    height, width = images.shape[1:]
    copied = np.zeros((len(images), *target_shape), np.uint8)
    for picture, image, (column, row) in zip(copied, images, top_left(theta, (height, width))):
        picture[row:row + height, column:column + width] = image
    return copied


def top_left(theta, source_shape):
    """Where affine thetas (N, 6) that only move a picture put its top left pixel, in the target.

    Returns:
        Whole numbers (N, 2): column and row.
    """
    height, width = source_shape
    return np.stack([np.rint((scale - shift - 1) * (size - 1) / 2).astype(int)
                     for scale, shift, size in ((theta[:, 0], theta[:, 2], width),
                                                (theta[:, 4], theta[:, 5], height))], axis=1)


def _floats(array):
    # from_numpy, because nd.array would wait for all that the device has been told to do.
    return mx.nd.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _check_name(name, names):
    if name not in names:
        raise ValueError(f"no distortion {name!r}: there is {', '.join(names)}")


def _turned(rng, count, target_shape, source_shape, most=np.pi / 2):
    return placed(_uniform(rng, count, most), 1, 0, target_shape, source_shape)


def _turned_placed_scaled(rng, count, target_shape, source_shape):
    angle, scale = _uniform(rng, count, np.pi / 4), rng.uniform(0.7, 1.2, count)
    return placed(angle, scale, _anywhere(rng, scale, target_shape, source_shape), target_shape,
                   source_shape)


def _placed_only(rng, count, target_shape, source_shape):
    room = np.subtract(target_shape, source_shape)[::-1]
    shift = rng.randint(0, room + 1, (count, 2)) - room / 2  # whole pixels: nothing is blurred
    return placed(np.zeros(count), 1, shift, target_shape, source_shape)


def _uniform(rng, count, most):
    return rng.uniform(-most, most, count)


def _anywhere(rng, scale, target_shape, source_shape):
    """Shifts (N, 2) in pixels, from the target's centre, that keep the frame inside."""
    room = [(target - scale * source) / 2 for target, source in zip(target_shape, source_shape)]
    room = np.maximum(np.stack(room[::-1], axis=1), 0)
    return rng.uniform(-room, room)


def placed(angle, scale, shift, target_shape, source_shape):
    """Affine thetas that turn, scale and shift pictures.

    Args:
        angle: in radians, clockwise, (N,).
        scale: a number or (N,).
        shift: in pixels of the target, right and down, (2,) or (N, 2), or a number for both.
        target_shape, source_shape: (height, width).

    Returns:
        (N, 6), for ``warp``.
    """
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    linear = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)  # target to source
    offset = -np.einsum("nij,nj->ni", linear, np.broadcast_to(shift, (len(angle), 2)))
    half_target, half_source = (np.array(shape[::-1]) / 2 - 0.5
                                for shape in (target_shape, source_shape))
    linear = linear * half_target / half_source[:, None]
    return np.concatenate([linear, (offset / half_source)[:, :, None]], axis=2).reshape(-1, 6)


def _corners_moved(rng, count, target_shape, source_shape):
    """Projective thetas; the source's corners go where the target's are, scaled and moved."""
    pixel = 2 / (np.array(target_shape[::-1]) - 1)
    theta, todo = np.empty((count, 8)), np.arange(count)
    while len(todo):
        scale = rng.uniform(0.75, 1, (len(todo), 1, 1))
        moved = CORNERS * scale + rng.normal(0, 5, (len(todo), 4, 2)) * pixel
        to_target = _homography(moved)
        to_source = np.linalg.inv(to_target)
        to_source /= to_source[:, 2:, 2:]
        theta[todo] = to_source.reshape(-1, 9)[:, :8]
        todo = todo[_folded(to_source, moved) | _digit_outside(to_target)]
    return theta


def _homography(corners):
    """Projective matrices (N, 3, 3) that take the target's corners to others, (N, 4, 2).

    In closed form: Heckbert, "Fundamentals of Texture Mapping and Image Warping", 1989, section
    2.2.3, from the unit square.
    """
    first, second, third, fourth = corners.transpose(1, 0, 2)
    (x1, y1), (x2, y2) = (second - third).T, (fourth - third).T
    x, y = (first - second + third - fourth).T
    area = x1 * y2 - x2 * y1
    g, h = (x * y2 - x2 * y) / area, (x1 * y - x * y1) / area
    columns = [second - first + g[:, None] * second, fourth - first + h[:, None] * fourth, first]
    matrix = np.stack([np.concatenate([column, last[:, None]], axis=1)
                       for column, last in zip(columns, (g, h, np.ones_like(g)))], axis=2)
    return matrix @ np.array([[0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 1]])


def _folded(to_source, moved):
    """Whether a denominator is too small: linear, it is least at a corner of target or source."""
    last = to_source[:, 2]
    at_target, at_source = last[:, :2] @ CORNERS.T, np.einsum("nk,nck->nc", last[:, :2], moved)
    return np.minimum(at_target.min(1), at_source.min(1)) + 1 < LEAST_DENOMINATOR


def _digit_outside(to_target):
    """Whether a corner of the square that holds the digit is not in the target."""
    corners = np.concatenate([CORNERS * DIGIT, np.ones((4, 1))], axis=1)
    x, y, denominator = np.moveaxis(corners @ to_target.transpose(0, 2, 1), -1, 0)
    return (np.maximum(np.abs(x), np.abs(y)) > denominator).any(axis=1)


def _lattice_moved(rng, count, target_shape, source_shape):
    """Thetas of thin plate splines with 4 x 4 points."""
    lattice = np.array(stn.get_transform("tps:4").identity).reshape(2, 16)
    scale = rng.uniform(0.75, 1, (count, 1, 1))
    pixel = 2 / (np.array(source_shape[::-1]) - 1)
    moves = rng.normal(0, 1.5, (count, 2, 16)) * pixel[:, None]
    return (lattice / scale + moves).reshape(count, 32)


def _clutter(rng, images, digits, crops):
    """Pastes that many crops of digits over each image, in place."""
    count, height, width = images.shape
    rows, columns = np.mgrid[:CROP, :CROP]
    middle = [size // 4 for size in digits.shape[1:]]
    for _ in range(crops):
        # Any digit but the image's own, whose number is its place in the array.
        digit = (np.arange(count) + rng.randint(1, max(count, 2), count)) % count
        top, left = (rng.randint(m, size - m - CROP + 1, (count, 1, 1))
                     for m, size in zip(middle, digits.shape[1:]))
        crop = digits[digit[:, None, None], top + rows, left + columns]
        top, left = (rng.randint(0, size - CROP + 1, (count, 1, 1)) for size in (height, width))
        place = np.arange(count)[:, None, None], top + rows, left + columns
        images[place] = np.maximum(images[place], crop)


DISTORTIONS = {
    "R": Distortion(_turned),
    "R360": Distortion(functools.partial(_turned, most=np.pi)),
    "RTS": Distortion(_turned_placed_scaled, target_shape=(42, 42)),
    "P": Distortion(_corners_moved, "projective", least=14),  # of 8 pixels, 7 draws in 10,000 fit
    "E": Distortion(_lattice_moved, "tps:4"),
    "T": Distortion(_placed_only, target_shape=(60, 60), by_whole_pixels=True),
    "TC": Distortion(_placed_only, target_shape=(60, 60), by_whole_pixels=True, crops=CROPS,
                     least=10),
}
TASKS = (*DISTORTIONS, "addition")
