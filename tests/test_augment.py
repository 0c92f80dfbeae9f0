"""Light augmentation: by hand, by the image's own draw, and through the iterator."""
import numpy as np
import pytest

from common import cli
from common.data import augment, synthetic
from common.data.augment import Jitter
from common.data.batches import ImageIter

EVERY = Jitter(pad_size=3, mirror=True, brightness=0.4)
WHICH = np.arange(60)


@pytest.fixture(scope="module")
def noise():
    return synthetic.noise(60, seed=0, image_shape=(3, 8, 9), num_classes=4)


def drawn(jitter, images, which=WHICH, seed=5):
    changed = jitter(images, which, seed)
    assert (changed.dtype, changed.shape) == (np.uint8, images.shape)
    return changed


def test_nothing_is_changed_by_default(noise):
    np.testing.assert_array_equal(drawn(Jitter(), noise[0]), noise[0])


def test_an_image_is_cut_out_of_its_padded_self(noise):
    images, _ = noise
    places = set()
    for image, changed in zip(images, drawn(Jitter(pad_size=2), images)):
        padded = np.zeros((3, 12, 13), np.uint8)
        padded[:, 2:10, 2:11] = image
        place, = [(top, left) for top in range(5) for left in range(5)
                  if (padded[:, top:top + 8, left:left + 9] == changed).all()]
        places.add(place)
    assert {top for top, _ in places} == {left for _, left in places} == set(range(5))


def test_every_second_image_is_mirrored(noise):
    images, _ = noise
    changed = drawn(Jitter(mirror=True), images)
    mirrored = [(after == before[:, :, ::-1]).all() for before, after in zip(images, changed)]
    same = [(after == before).all() for before, after in zip(images, changed)]
    assert np.logical_xor(mirrored, same).all()
    assert 20 < sum(mirrored) < 40


def test_brightness_multiplies_up_to_white(noise):
    images, _ = noise
    factors = []
    for before, after in zip(images, drawn(Jitter(brightness=0.4), images)):
        dark = before < 150  # up to 1.4 times that fits
        factor = after[dark].sum() / before[dark].sum()
        np.testing.assert_allclose(after, np.minimum(before * factor, 255), atol=1)
        factors.append(factor)
    assert 0.6 <= min(factors) < 0.7
    assert 1.3 < max(factors) <= 1.4


def test_draws_are_even_and_independent():
    numbers = augment._random(np.arange(20000), 7)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        np.testing.assert_allclose(np.histogram(column, 10, (0, 1))[0], 2000, atol=250)
    others = augment._random(np.arange(20000), 8)
    apart = np.concatenate([numbers[1:], numbers[:-1], others[1:]], axis=1)
    np.testing.assert_allclose(np.corrcoef(apart.T), np.eye(12), atol=0.04)


def test_what_an_image_gets_is_its_own(noise):
    images, _ = noise
    whole = drawn(EVERY, images)
    some = np.array([40, 3, 17])
    np.testing.assert_array_equal(drawn(EVERY, images[some], some), whole[some])
    assert (drawn(EVERY, images, seed=6) != whole).any(axis=(1, 2, 3)).all()


def epoch(noise, batch_size, number=1, jitter=EVERY, start=0, **options):
    """Images, in [0, 1], and labels of an epoch, by index."""
    batches = ImageIter(*noise, batch_size, seed=3, jitter=jitter, **options)
    batches.seek(number, start)
    return {index: (image, label) for batch in batches for index, image, label
            in zip(batch.index, batch.data[0].asnumpy(), batch.label[0].asnumpy())}


def agree(some, whole):
    assert some
    return all((some[index][0] == whole[index][0]).all() for index in some)


def test_the_iterator_gives_each_image_its_own_in_each_epoch(noise):
    whole = epoch(noise, 10)
    assert len(whole) == 60
    assert agree(epoch(noise, 12), whole)  # in batches of any size
    assert agree(epoch(noise, 10, start=4), whole)  # where a run goes on
    parts = [epoch(noise, 10, num_parts=2, part_index=part) for part in (0, 1)]
    assert agree({**parts[0], **parts[1]}, whole)  # among any number of workers
    assert not agree(epoch(noise, 10, number=2), whole)
    for index, (image, label) in epoch(noise, 10, jitter=None).items():
        assert label == whole[index][1]
        np.testing.assert_allclose(image, noise[0][index] / 255, rtol=1e-6)


def test_it_comes_after_a_distortion(noise):
    def halved(images, labels, seed):
        return images // 2, labels + 1

    both = epoch(noise, 10, augment=halved)
    halves = epoch((noise[0] // 2, noise[1] + 1), 10)
    assert agree(both, halves)
    assert all(both[index][1] == halves[index][1] for index in both)


def from_flags(*flags):
    parser = cli.Parser(prog="a")
    augment.add_augmentation_flags(parser)
    return augment.from_flags(parser.parse_args(flags))


def test_flags():
    assert from_flags() is None
    assert from_flags("--random-mirror", "1") == Jitter(mirror=True)
    assert from_flags("--pad-size", "4", "--random-crop", "1", "--brightness", "0.2") == Jitter(
        4, False, 0.2)
    for alone in (("--pad-size", "4"), ("--random-crop", "1")):
        with pytest.raises(ValueError, match="--random-crop 1 and --pad-size go together"):
            from_flags(*alone)
