import re

import mxnet as mx
import numpy as np
import pytest

from common.data import batches, datasets, synthetic
from common.data.batches import ImageIter
from common.data.distort import augmentation


@pytest.fixture(scope="module")
def digits():
    return synthetic.draw(100, seed=0)


def indices(batches):
    return np.concatenate([batch.index for batch in batches])


def test_synthetic_digits_follow_from_the_seed():
    images, labels = synthetic.draw(50, seed=3)
    again, _ = synthetic.draw(50, seed=3)
    other, _ = synthetic.draw(50, seed=4)
    np.testing.assert_array_equal(images, again)
    assert (images != other).any()
    assert (images.dtype, images.shape) == (np.uint8, (50, 28, 28))
    assert np.bincount(labels).tolist() == [5] * 10
    assert synthetic.draw(7, seed=0, image_shape=(20, 33))[0].shape == (7, 20, 33)
    assert (images[:, 0] == 0).all()  # the background is 0: what lies outside an image


def test_batches_are_scaled_uint8(digits):
    images, labels = digits
    batches = ImageIter(images, labels, 10)
    batch = batches.next()
    assert batch.data[0].dtype == np.float32
    np.testing.assert_allclose(batch.data[0].asnumpy()[:, 0], images[:10] / 255, rtol=1e-6)
    np.testing.assert_array_equal(batch.label[0].asnumpy(), labels[:10])
    assert batches.images is images


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [
    {}, {"seed": 2}, {"seed": 2, "augment": lambda images, labels, seed: (images // 2, labels)},
    {"seed": 2, "jitter": lambda images, which, seed: images ^ np.uint8(seed % 256)}])
def test_raw_batches_are_the_pixels(digits, options, dtype):
    images, labels = digits
    labels = np.stack([labels, labels[::-1]], axis=1)
    raw, scaled = (ImageIter(images, labels, 32, dtype=dtype, raw=raw, **options)
                   for raw in (True, False))
    assert np.dtype(raw.provide_data[0].dtype) == np.uint8
    assert np.dtype(raw.provide_label[0].dtype) == dtype
    for pixels, batch in zip(raw, scaled):
        assert pixels.data[0].dtype == np.uint8
        np.testing.assert_array_equal(
            pixels.data[0].asnumpy() * np.dtype(dtype).type(1 / 255), batch.data[0].asnumpy())
        np.testing.assert_array_equal(pixels.label[0].asnumpy(), batch.label[0].asnumpy())
        assert (pixels.pad, pixels.index.tolist()) == (batch.pad, batch.index.tolist())
        if len(options) < 2:
            np.testing.assert_array_equal(pixels.data[0].asnumpy()[:, 0], images[pixels.index])
    assert raw.position == scaled.position == raw.num_batches


@pytest.mark.parametrize("seed", [None, 1])
def test_it_does_not_show_how_many_batches_are_taken_together(digits, monkeypatch, seed):
    def contents(together):
        monkeypatch.setattr(batches, "TOGETHER", together * 24 * 28 * 28)
        iterator, found = ImageIter(*digits, 24, seed=seed), []
        assert iterator.together == together
        for epoch, first in ((0, 0), (3, 1), (0, 4)):
            iterator.seek(epoch, first)
            while iterator.position < iterator.num_batches and len(found) < 9:
                batch = next(iterator)
                found.append((iterator.position, batch.pad, batch.index.tolist(),
                              batch.data[0].asnumpy().tobytes(), batch.label[0].asnumpy().tolist()))
        return found

    alone = contents(1)
    assert alone == contents(2) == contents(3) == contents(16)
    assert len(alone) == (9 if seed is None else 7)


def test_evaluation_covers_each_image_once(digits):
    batches = ImageIter(*digits, batch_size=32)
    pads = [batch.pad for batch in batches]
    assert pads == [0, 0, 0, 28]
    batches.reset()
    taken = indices(batches)
    assert taken[:100].tolist() == list(range(100))
    assert taken.shape == (128,)


def test_a_batch_larger_than_the_evaluation_data(digits):
    batch, = ImageIter(*digits, batch_size=250)
    assert batch.pad == 150
    assert batch.data[0].shape == (250, 1, 28, 28)


def test_training_order_is_a_function_of_seed_and_epoch(digits):
    def order(seed, epoch):
        batches = ImageIter(*digits, batch_size=32, seed=seed)
        batches.seek(epoch)
        return indices(batches).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert len(set(order(0, 1))) == 96  # what does not fill a batch is left out
    batches = ImageIter(*digits, batch_size=32, seed=0)
    list(batches)
    batches.reset()
    assert indices(batches).tolist() == order(0, 1)


def test_workers_share_an_epoch(digits):
    parts = [ImageIter(*digits, batch_size=11, seed=5, num_parts=3, part_index=part)
             for part in range(3)]
    taken = [indices(part).tolist() for part in parts]
    assert [len(part) for part in taken] == [33, 33, 33]
    assert len(set(sum(taken, []))) == 99


@pytest.mark.parametrize(("options", "words"), [
    ({"batch_size": 101, "seed": 0}, "a batch of 101 is more than the 100 images"),
    ({"batch_size": 10, "num_parts": 2, "part_index": 2}, "part_index"),
])
def test_unfit_options_are_refused(digits, options, words):
    with pytest.raises(ValueError, match=words):
        ImageIter(*digits, **options)


def test_unequal_counts_are_refused(digits):
    images, labels = digits
    with pytest.raises(ValueError, match="100 images but 99 labels"):
        ImageIter(images, labels[:-1], 10)


@pytest.mark.parametrize(("change", "words"), [
    (lambda images: images / np.float32(255), r"got float32 \(100, 28, 28\) from 0 to 1: np.rint"),
    (lambda images: images / 255, "got float64 .* from 0 to 1: np.rint"),
    (lambda images: images.astype("f"), r"got float32 \(100, 28, 28\) from 0 to 255$"),
    (lambda images: images.astype(np.int8), "got int8 .* from -12[0-9] to 127$"),
    (lambda images: images.astype(int), "got int64 "),
    (lambda images: images[0], r"got uint8 \(28, 28\)"),
    (lambda images: images[:0] / 255, r"got float64 \(0, 28, 28\)$"),
    (list, "got a list$"),
    (mx.nd.array, "got a NDArray$"),
])
def test_what_is_not_uint8_is_refused(digits, change, words):
    images, labels = digits
    with pytest.raises(ValueError, match="^images are to be uint8, from 0 to 255, .*, " + words):
        ImageIter(change(images), labels, 10)


def test_what_is_augmented_is_to_be_uint8_too(digits):
    with pytest.raises(ValueError, match="^images are to be uint8"):
        ImageIter(*digits, 10, seed=0, augment=lambda taken, labels, _: (taken / 255, labels))


def test_batches_of_arrays_in_any_order_in_memory(digits):
    images, labels = digits
    expected = next(ImageIter(images, labels, 10)).data[0].asnumpy()
    for other in (np.asfortranarray(images), images.transpose(0, 2, 1).copy().transpose(0, 2, 1)):
        for options in ({}, {"seed": 0, "augment": lambda _, labels, seed, other=other:
                             (other[:len(labels)], labels)}):
            batch = next(ImageIter(other, labels, 10, **options))
            np.testing.assert_array_equal(batch.data[0].asnumpy(), expected)
    flags = next(ImageIter(images > 99, labels, 10)).data[0].asnumpy()
    np.testing.assert_array_equal(flags[:, 0], images[:10] > 99)


def test_num_examples():
    dataset = datasets.load("mnist", num_examples=1000)
    assert [len(array) for array in dataset[:4]] == [1000, 1000, 10000, 10000]
    with pytest.raises(ValueError, match="60000 training images, 60001"):
        datasets.load("mnist", num_examples=60001)


def test_files_for_drawn_digits_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--dataset synthetic is drawn: it does not go with"):
        datasets.load("synthetic", data_train="a.rec", data_val="b.rec")
    with pytest.raises(ValueError, match="--data-dir has no meaning with --dataset synthetic"):
        datasets.load("synthetic", str(tmp_path))


def test_the_iterator_is_mxnets(digits):
    """Module.fit, MXNet's own loop, takes it too."""
    net = mx.sym.FullyConnected(mx.sym.Flatten(mx.sym.Variable("data")), num_hidden=10)
    module = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"))
    batches = ImageIter(*digits, batch_size=20, seed=0)
    module.fit(batches, num_epoch=15, optimizer_params={"learning_rate": 0.5})
    accuracy = dict(module.score(ImageIter(*digits, batch_size=20), "acc"))["accuracy"]
    assert accuracy > 0.9


def test_an_image_may_have_several_labels(digits):
    images, labels = digits
    labels = np.stack([labels, labels[::-1]], axis=1)
    batches = ImageIter(images, labels, 16, seed=0)
    assert batches.provide_label[0].shape == (16, 2)
    batch = next(batches)
    np.testing.assert_array_equal(batch.label[0].asnumpy(), labels[batch.index])


def shifted(images, labels, seed):
    """Larger images, brighter by something that depends on the seed, and other labels."""
    return np.pad(images, ((0, 0), (0, 2), (0, 0))) // 2 + np.uint8(seed % 100), labels + 1


def augmented_epoch(digits, epoch, batch_size=40):
    batches = ImageIter(*digits, batch_size, seed=5, augment=shifted)
    batches.seek(epoch)
    taken = list(batches)
    return [np.concatenate([getattr(batch, part)[0].asnumpy() for batch in taken])
            for part in ("data", "label")]


def test_what_is_augmented_differs_by_epoch_but_not_by_batch_size(digits, monkeypatch):
    monkeypatch.setattr(batches, "BLOCK", 30)  # batches of 40 begin in one block and end in another
    images, labels = augmented_epoch(digits, 0)
    assert images.shape == (80, 1, 30, 28)
    for one, other in zip(augmented_epoch(digits, 0, 20), (images, labels)):
        np.testing.assert_array_equal(one[:80], other)
    assert (augmented_epoch(digits, 1)[0] != images).any()
    plain = np.concatenate([batch.label[0].asnumpy() for batch
                            in ImageIter(*digits, 40, seed=5)])
    np.testing.assert_array_equal(labels, plain + 1)


def test_each_block_of_each_epoch_and_worker_is_augmented_by_its_own_seed(digits, monkeypatch):
    monkeypatch.setattr(batches, "BLOCK", 30)
    seeds = []

    def recorded(images, labels, seed):
        seeds.append(seed)
        return images, labels

    for part in (0, 1):
        iterator = ImageIter(*digits, 20, seed=5, augment=recorded, num_parts=2, part_index=part)
        seeds.pop()  # of the image whose shape is looked at
        for epoch in (0, 1):
            iterator.seek(epoch)
            list(iterator)
    assert len(seeds) == len(set(seeds)) == 8


def test_the_test_images_are_distorted_by_the_seed_alone():
    given = datasets.load("synthetic", num_examples=500)[2:4]
    augment, _ = augmentation("R")
    images, labels = datasets.for_evaluation(*given, 3, augment)
    np.testing.assert_array_equal(images, datasets.for_evaluation(*given, 3, augment)[0])
    np.testing.assert_array_equal(labels, given[1])
    assert (images != datasets.for_evaluation(*given, 4, augment)[0]).any()
    assert datasets.for_evaluation(*given, 3)[0] is given[0]


def test_the_last_training_images_are_held_out(caplog):
    dataset = datasets.load("synthetic", num_examples=500)
    kept, held_out = datasets.hold_out(dataset, 60)
    assert (len(kept[0]), len(held_out[0])) == (440, 60)
    for whole, parts in zip(dataset[:2], zip(kept, held_out)):
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    with pytest.raises(ValueError, match="--validation 500 leaves none of 500 training images"):
        datasets.hold_out(dataset, 500)
    assert not caplog.records


def test_images_that_are_sorted_by_their_classes_are_noticed(caplog):
    dataset = datasets.load("synthetic", num_examples=500)
    dataset = dataset._replace(train_labels=np.sort(dataset.train_labels))
    datasets.hold_out(dataset, 100)
    assert re.search("--validation 100 holds out all training images of [12] classes, such as [89]",
                     caplog.text)
