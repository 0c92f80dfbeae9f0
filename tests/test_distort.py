import numpy as np
import pytest

from common.data import synthetic
from common.data.distort import (
    CROP,
    CROPS,
    DISTORTIONS,
    LEAST_DENOMINATOR,
    TASKS,
    addition_pairs,
    augmentation,
    distort,
    top_left,
    warp,
)
from symbols import stn

IMAGES, LABELS = synthetic.draw(700, seed=0)
CENTRE = 13.5  # of an image, in pixels


def sampled(image, points):
    """Bilinear samples of an image at points (..., 2) in pixels, 0 outside; in plain NumPy."""
    padded = np.pad(image.astype(float), 1)
    x, y = np.clip(np.moveaxis(points, -1, 0) + 1, 0, np.array(padded.shape)[::-1, None, None] - 1)
    left, top = (np.clip(np.floor(value).astype(int), 0, size - 2)
                 for value, size in ((x, padded.shape[1]), (y, padded.shape[0])))
    right, down = x - left, y - top
    return ((padded[top, left] * (1 - right) + padded[top, left + 1] * right) * (1 - down)
            + (padded[top + 1, left] * (1 - right) + padded[top + 1, left + 1] * right) * down)


def target_shape(name):
    return DISTORTIONS[name].target_shape or IMAGES.shape[1:]


def in_pixels(theta, name):
    """The maps from target to source pixels, (N, 3, 3), of affine thetas."""
    def scale(shape):
        half = np.array(shape[::-1]) / 2 - 0.5
        return np.array([[half[0], 0, half[0]], [0, half[1], half[1]], [0, 0, 1]])

    rows = np.concatenate([theta.reshape(-1, 2, 3),
                           np.tile([[[0, 0, 1]]], (len(theta), 1, 1))], axis=1)
    return scale(IMAGES.shape[1:]) @ rows @ np.linalg.inv(scale(target_shape(name)))


@pytest.mark.parametrize("name", DISTORTIONS)
def test_the_seed_decides(name):
    images, theta = distort(name, IMAGES, 3, with_theta=True)
    assert images.dtype == np.uint8
    assert images.shape == (700, *target_shape(name))
    np.testing.assert_array_equal(distort(name, IMAGES, 3), images)
    other, other_theta = distort(name, IMAGES, 4, with_theta=True)
    assert (other != images).any(axis=(1, 2)).all()
    assert (other_theta != theta).any(axis=1).all()


@pytest.mark.parametrize("name", [
    name for name, distortion in DISTORTIONS.items() if not distortion.crops])
def test_the_map_that_is_returned_was_applied(name):
    images, theta = distort(name, IMAGES, 0, with_theta=True)
    for index in (0, 499, 500, 699):
        points = stn.source_points(theta[index:index + 1], target_shape(name), IMAGES.shape[1:],
                                   DISTORTIONS[name].transform)[0]
        np.testing.assert_allclose(images[index], sampled(IMAGES[index], points), atol=0.6)


@pytest.mark.parametrize("shape", [(28, 28), (20, 15)])
def test_digits_that_are_copied_are_those_that_are_sampled(shape):
    images = IMAGES[:, :shape[0], :shape[1]]
    copied, theta = distort("T", images, 0, with_theta=True)
    np.testing.assert_array_equal(copied, warp(images, theta, (60, 60)))


@pytest.mark.parametrize("name", ["R", "RTS", "T"])
def test_the_inverse_map_undoes_it(name):
    images, theta = distort(name, IMAGES, 0, with_theta=True)
    undone = warp(images, stn.invert(theta), IMAGES.shape[1:]).astype(float)
    left = np.abs(undone - IMAGES).mean() / np.abs(IMAGES.astype(float)).mean()
    assert left < (0.01 if name == "T" else 0.35)  # what two interpolations blur
    confused = np.abs(undone - np.roll(IMAGES, 1, axis=0)).mean() / np.abs(IMAGES).mean()
    assert confused > 2 * left


@pytest.mark.parametrize(("name", "most"), [("R", 90), ("R360", 180)])
def test_turns_reach_as_far_as_they_should_and_nothing_else_happens(name, most):
    maps = in_pixels(distort(name, IMAGES, 0, with_theta=True)[1], name)
    angle = np.degrees(np.arctan2(maps[:, 0, 1], maps[:, 0, 0]))
    assert 0.94 * most < angle.max() < most
    assert -most < angle.min() < -0.94 * most
    assert abs(angle.mean()) < most / 15
    np.testing.assert_allclose(np.linalg.det(maps[:, :2, :2]), 1)
    np.testing.assert_allclose(maps @ [CENTRE, CENTRE, 1], [[CENTRE, CENTRE, 1]] * 700)


@pytest.mark.parametrize("name", ["RTS", "T"])
def test_digits_are_placed_where_they_fit(name):
    maps = in_pixels(distort(name, IMAGES, 0, with_theta=True)[1], name)
    scale = np.linalg.det(maps[:, :2, :2]) ** -0.5
    angle = np.degrees(np.arctan2(maps[:, 0, 1], maps[:, 0, 0]))
    centre = np.linalg.solve(maps[:, :2, :2], (CENTRE - maps[:, :2, 2])[..., None])[..., 0]
    if name == "RTS":
        assert 0.7 < scale.min() < 0.71
        assert 1.19 < scale.max() < 1.2
        assert 43 < np.abs(angle).max() < 45
    else:
        np.testing.assert_allclose(scale, 1)
        np.testing.assert_allclose(angle, 0, atol=1e-6)
    size = target_shape(name)[0]
    reach = [14 * scale[:, None] + side * (centre - (size - 1) / 2) for side in (-1, 1)]
    furthest = np.max(reach, axis=1)  # to the left, the top, the right, the bottom
    assert (size / 2 - 0.2 < furthest).all()
    assert (furthest <= size / 2 + 1e-6).all()


def test_pictures_that_are_not_square_stay_inside():
    shape = np.array([20, 36])
    theta = distort("RTS", np.zeros((700, *shape), np.uint8), 0, with_theta=True)[1]
    half = np.array([41, 41]) / 2
    linear, moved = theta.reshape(-1, 2, 3)[:, :, :2], theta.reshape(-1, 2, 3)[:, :, 2:]
    centre = np.linalg.solve(linear, -moved)[..., 0] * half  # x and y, in pixels of the target
    to_source = linear * ((shape[::-1] - 1) / 2)[:, None] / half
    scale = np.linalg.det(to_source)[:, None] ** -0.5
    reach = np.abs(centre) + scale * shape[::-1] / 2
    assert (reach <= np.maximum(21, scale * shape[::-1] / 2) + 1e-6).all()
    assert (reach.max(axis=0) > 20.5).all()


def test_corners_move_by_5_pixels_and_nothing_folds():
    theta = distort("P", IMAGES, 0, with_theta=True)[1]
    matrix = np.concatenate([theta, np.ones((700, 1))], axis=1).reshape(-1, 3, 3)
    corners = np.array([(-1, -1, 1), (1, -1, 1), (1, 1, 1), (-1, 1, 1)])
    assert (corners @ matrix[:, 2].T).min() >= LEAST_DENOMINATOR
    moved = np.einsum("nij,cj->nci", np.linalg.inv(matrix), corners)
    moved = (moved[..., :2] / moved[..., 2:] + 1) / 2 * 27
    distance = moved - (CENTRE + 0.875 * CENTRE * corners[:, :2])
    assert 4 < distance.std() < 5  # less than 5: the wildest are drawn again
    assert np.abs(distance.mean(axis=0)).max() < 2


def test_the_lattice_moves_by_a_pixel_and_a_half():
    theta = distort("E", IMAGES, 0, with_theta=True)[1].reshape(700, 2, 16)
    lattice = np.array(stn.get_transform("tps").identity).reshape(2, 16)
    scale = np.einsum("nij,ij->n", theta, lattice) / (lattice ** 2).sum()  # least squares
    assert 0.97 < np.percentile(scale, 5) < 1.05
    assert abs((1 / scale).mean() - 0.875) < 0.01
    assert 1.28 < np.percentile(scale, 95) < 1.4
    moves = (theta - scale[:, None, None] * lattice) * CENTRE
    assert 1.4 < moves.std() < 1.6


def test_clutter_is_six_crops_of_digits():
    plain, cluttered = distort("T", IMAGES, 0), distort("TC", IMAGES, 0)
    changed = cluttered != plain
    assert (cluttered >= plain).all()
    assert changed.sum(axis=(1, 2)).max() <= CROPS * CROP ** 2
    assert np.median(changed.sum(axis=(1, 2))) > CROP ** 2


def test_crops_are_of_other_digits():
    grey = np.arange(1, 201, dtype=np.uint8)[:, None, None]  # each digit has its own
    digits = np.broadcast_to(grey, (200, 28, 28)).copy()
    plain, cluttered = distort("T", digits, 0), distort("TC", digits, 0)
    assert (cluttered != grey)[cluttered != plain].all()
    crops = [len(np.unique(picture)) - 2 for picture in cluttered]  # but black and the digit itself
    assert np.median(crops) > CROPS / 2
    assert max(crops) == CROPS


def test_crops_are_of_the_middle_of_digits():
    digits = np.zeros((200, 28, 28), np.uint8)
    digits[:, 7:21, 7:21] = 255
    plain, cluttered = distort("T", digits, 0), distort("TC", digits, 0)
    crops = (cluttered != plain).sum(axis=(1, 2))
    assert np.median(crops) > (CROPS - 2) * CROP ** 2  # whole ones; some lie on the digit


def test_a_distortion_of_ones_own():
    wide = DISTORTIONS["TC"]._replace(target_shape=(84, 70), crops=16)
    cluttered, theta = distort(wide, IMAGES, 0, with_theta=True)
    plain = distort(wide._replace(crops=0), IMAGES, 0)
    assert plain.shape == cluttered.shape == (700, 84, 70)
    changed = (cluttered != plain).sum(axis=(1, 2))
    assert CROPS * CROP ** 2 < changed.max() <= 16 * CROP ** 2
    for image, digit, (column, row) in zip(plain, IMAGES, top_left(theta, (28, 28))):
        np.testing.assert_array_equal(image[row:row + 28, column:column + 28], digit)
    with pytest.raises(ValueError, match="it needs images of at most 84 x 70 pixels, got 100 x 50"):
        distort(wide, np.zeros((1, 100, 50), np.uint8), 0)


def test_pairs_are_added():
    pairs, sums = addition_pairs(IMAGES, LABELS, 7)
    assert pairs.shape == (700, 2, 42, 42)
    np.testing.assert_array_equal(pairs[:, 0], distort("RTS", IMAGES, 8))
    partner = np.random.RandomState(7).permutation(700)
    np.testing.assert_array_equal(pairs[:, 1], distort("RTS", IMAGES[partner], 9))
    np.testing.assert_array_equal(sums, LABELS + LABELS[partner])
    assert set(sums) <= set(range(19))
    _, sums = addition_pairs(IMAGES[:2], np.array([200, 200], np.uint8), 7)
    assert sums.tolist() == [400, 400]  # no byte holds it


@pytest.mark.parametrize("count", [1, 2, 500, 501])
def test_any_number_of_images(count):
    assert distort("TC", IMAGES[:count], 0).shape == (count, 60, 60)


def test_bad_input():
    with pytest.raises(ValueError, match="no distortion 'no-such-name': there is .*R, R360, RTS"):
        distort("no-such-name", IMAGES, 0)
    with pytest.raises(ValueError, match="RTS needs images of at most 42 x 42 pixels, got 50 x 50"):
        distort("RTS", np.zeros((1, 50, 50), np.uint8), 0)
    for images in (IMAGES / 255, IMAGES[:, None], IMAGES[:0]):
        with pytest.raises(ValueError, match=r"one or more in uint8 \(N, H, W\), got .*28, 28\)"):
            distort("R", images, 0)


@pytest.mark.parametrize(("name", "least"), [("P", 14), ("TC", 10), ("R", 2), ("E", 2)])
def test_pictures_that_are_too_small_are_refused(name, least):
    assert len(distort(name, np.full((3, least, least), 9, np.uint8), seed=0)) == 3
    for shape in ((least - 1, least), (least, least - 1)):
        with pytest.raises(ValueError, match=f"{name} needs images of at least {least} x {least}"):
            distort(name, np.full((3, *shape), 9, np.uint8), seed=0)


def test_p_keeps_the_digit_in_the_picture():
    ink = np.zeros((400, 28, 28), np.uint8)
    ink[:, 4:24, 4:24] = 255
    images, theta = distort("P", ink, seed=0, with_theta=True)
    points = stn.source_points(theta, (28, 28), (28, 28), "projective")
    border = np.concatenate([points[:, [0, -1]].reshape(400, -1, 2),
                             points[:, :, [0, -1]].reshape(400, -1, 2)], axis=1)
    inside = (np.abs(border - CENTRE) < 9.5).all(axis=-1)
    assert not inside.any()
    assert images.any(axis=(1, 2)).all()


@pytest.mark.parametrize("name", TASKS)
def test_a_task_makes_images_and_labels_and_knows_the_classes(name):
    make, num_classes = augmentation(name)
    images, labels = make(IMAGES, LABELS, 5)
    assert images.shape[0] == labels.shape[0] == len(IMAGES)
    assert num_classes == (19 if name == "addition" else 10)
    assert set(labels) <= set(range(num_classes))
    np.testing.assert_array_equal(make(IMAGES, LABELS, 5)[0], images)


def test_without_a_distortion_there_is_nothing_to_make():
    assert augmentation(None) == (None, 10)
    with pytest.raises(ValueError, match="no distortion 'no-such-name': there is .*R, .*addition"):
        augmentation("no-such-name")
