"""Drawings become pictures such as MNIST's."""
import numpy as np
import pytest

from common.data import strokes

SEVEN = [np.array([[.25, .2], [.75, .2], [.6, .5], [.45, .88]])]


def extent(image):
    """(width, height) of what is not black, in pixels."""
    return [np.ptp(np.nonzero(image.max(axis=axis) > 64)[0]) + 1 for axis in (0, 1)]


@pytest.mark.parametrize("size", [1, 0.3])
@pytest.mark.parametrize("corner", [(0, 0), (0.2, 0.1)])
def test_where_and_how_large_it_was_drawn_changes_nothing(size, corner):
    drawn = [size * SEVEN[0] / 1.3 + corner]
    image = strokes.as_digit(drawn)
    assert (image.shape, image.dtype) == ((28, 28), np.uint8)
    assert np.abs(image - strokes.as_digit(SEVEN).astype(int)).max() <= 40  # the pen's corners


def test_it_fits_into_20_pixels_and_keeps_its_proportions():
    width, height = extent(strokes.as_digit(SEVEN))
    assert height == pytest.approx(20, abs=1)
    assert width == pytest.approx((20 - strokes.PEN) * 0.5 / 0.68 + strokes.PEN, abs=1)


def test_its_mass_is_in_the_middle_and_like_that_of_mnist():
    image = strokes.as_digit(SEVEN) / 255
    middles = np.arange(28) + 0.5
    for axis in (0, 1):
        assert (image.sum(axis=axis) @ middles) / image.sum() == pytest.approx(14.5, abs=0.1)
    assert 0.05 < image.mean() < 0.2


def test_a_dot_stays_a_dot():
    width, height = extent(strokes.as_digit([np.array([[0.9, 0.1]])]))
    assert width == height
    assert 2 <= width <= 4
