from concurrent.futures import ThreadPoolExecutor

import mxnet as mx
import numpy as np
import pytest

import symbols
from common.data import synthetic
from common.graph.rewrite import label_free
from common.models import predict
from common.models.predict import Predictor
from symbols import stn

IMAGES = synthetic.draw(70, seed=0)[0]


def network(**options):
    """A symbol with parameters, the transformer's off the identity, and what it says of IMAGES."""
    symbol = symbols.get_symbol("lenet", **options)
    module = mx.mod.Module(symbol)
    module.bind([("data", (70, 1, 28, 28))], [("softmax_label", (70,))])
    mx.random.seed(0)
    module.init_params(mx.init.Xavier(magnitude=6))
    arg_params, aux_params = module.get_params()
    if "stn_loc_fc2_bias" in arg_params:
        arg_params["stn_loc_fc2_bias"] += 0.05
    module.set_params(arg_params, aux_params)
    module.forward(mx.io.DataBatch([mx.nd.array(IMAGES[:, None] / 255)]), is_train=False)
    return label_free(symbol), arg_params, aux_params, module.get_outputs()[0].asnumpy()


@pytest.mark.parametrize("transform", [None, *stn.TRANSFORMS])
def test_it_says_what_the_network_says(transform):
    *trained, expected = network(add_stn=transform is not None, transform=transform or "affine")
    predictor = Predictor(*trained, (1, 28, 28), batch_size=32)
    np.testing.assert_allclose(predictor(IMAGES), expected, atol=1e-5)
    assert expected.std(axis=0).max() > 0.01


@pytest.mark.parametrize(("batch_size", "cpus"), [(1, 1), (7, 3), (70, 2), (100, None)])
def test_any_number_of_images_in_any_batches(batch_size, cpus):
    *trained, expected = network()
    predictor = Predictor(*trained, (1, 28, 28), batch_size=batch_size, cpus=cpus)
    for count in (1, 3, 16, 17, 33, 69, 70, 2):
        answer = predictor(IMAGES[:count])
        assert answer.shape == (count, 10)
        np.testing.assert_allclose(answer, expected[:count], atol=1e-5)


def test_many_images_are_cut_into_pieces_that_devices_take_in_turns(monkeypatch):
    *trained, expected = network()
    monkeypatch.setattr(predict, "largest_piece", lambda _: 16)
    predictor = Predictor(*trained, (1, 28, 28), batch_size=70, cpus=2)
    assert predictor.sizes == [1, 2, 4, 8, 16]
    for start in range(0, 70, 9):  # 70, 61, ..., 7
        np.testing.assert_allclose(predictor(IMAGES[start:]), expected[start:], atol=1e-5)


def test_few_images_stay_on_one_device():
    *trained, _ = network()
    predictor = Predictor(*trained, (1, 28, 28), cpus=2)
    for count, lengths in ((1, [1]), (8, [8]), (9, [8, 1]), (16, [8, 8]), (64, [32, 32])):
        pieces = predictor._pieces(count)
        assert [len(IMAGES[piece]) for piece in pieces] == lengths


def test_answers_stay_as_they_were_given():
    *trained, _ = network()
    predictor = Predictor(*trained, (1, 28, 28), batch_size=32)
    for count in (1, 3, 40):
        answers = predictor(IMAGES[:count])
        before = answers.copy()
        predictor(255 - IMAGES[:count])
        np.testing.assert_array_equal(answers, before)


def test_answers_in_blocks_of_channels_are_put_in_order():
    data = mx.sym.Variable("data")
    symbol = mx.sym.Convolution(data, kernel=(3, 3), num_filter=32, name="conv")
    weight = mx.nd.random.uniform(-1, 1, (32, 1, 3, 3))
    bias = mx.nd.zeros(32)
    expected = mx.nd.Convolution(mx.nd.array(IMAGES[:20, None] / 255), weight, bias, kernel=(3, 3),
                                 num_filter=32).asnumpy()
    predictor = Predictor(symbol, {"conv_weight": weight, "conv_bias": bias}, {}, (1, 28, 28))
    for count in (1, 3, 20, 20):
        np.testing.assert_allclose(predictor(IMAGES[:count]), expected[:count], atol=1e-5)


def test_it_keeps_the_parameters_that_it_was_given():
    symbol, arg_params, aux_params, expected = network()
    predictor = Predictor(symbol, arg_params, aux_params, (1, 28, 28), batch_size=32)
    for value in arg_params.values():
        value[:] = 0
    for count in (1, 20):  # by an executor that is made only now, and by one that was there
        np.testing.assert_allclose(predictor(IMAGES[:count]), expected[:count], atol=1e-5)
    other = Predictor(symbol, arg_params, aux_params, (1, 28, 28), batch_size=32)
    np.testing.assert_allclose(other(IMAGES), 0.1, atol=1e-6)


def test_a_parameter_that_is_missing_is_an_error():
    symbol, arg_params, aux_params, _ = network()
    del arg_params["fc2_bias"]
    with pytest.raises((ValueError, mx.MXNetError), match="fc2_bias"):
        Predictor(symbol, arg_params, aux_params, (1, 28, 28))


def test_no_images_are_refused():
    *trained, _ = network()
    with pytest.raises(ValueError, match="expected images, got none"):
        Predictor(*trained, (1, 28, 28))(IMAGES[:0])


def test_gpus_that_are_not_there_are_refused():
    *trained, _ = network()
    with pytest.raises(ValueError, match="--gpus"):
        Predictor(*trained, (1, 28, 28), gpus=[99])


def test_arrays_in_any_order_in_memory_and_black_and_white_ones():
    *trained, _ = network()
    predictor = Predictor(*trained, (1, 28, 28), batch_size=32)
    expected = predictor(IMAGES)
    turned = np.ascontiguousarray(IMAGES.transpose(0, 2, 1)).transpose(0, 2, 1)
    for images in (turned, np.asfortranarray(IMAGES), IMAGES[:, ::-1].copy()[:, ::-1],
                   IMAGES.repeat(2, axis=2)[:, None, :, ::2]):
        np.testing.assert_array_equal(predictor(images), expected)
    black_and_white = IMAGES > 127
    np.testing.assert_array_equal(predictor(black_and_white),
                                  predictor(black_and_white * np.uint8(255)))


def test_images_of_another_size_are_refused():
    *trained, _ = network()
    with pytest.raises(ValueError, match="expected images of 1 x 28 x 28, got 1 x 28 x 30"):
        Predictor(*trained, (1, 28, 28), batch_size=7)(np.pad(IMAGES, ((0, 0), (0, 0), (2, 0))))


def test_a_network_that_answers_images_together_is_refused():
    mean = mx.sym.mean(mx.sym.Variable("data"), axis=0, keepdims=True)
    with pytest.raises(ValueError, match=r"for each image, got \(1, 1, 28, 28\) for 35 images"):
        Predictor(mean, {}, {}, (1, 28, 28), batch_size=70, cpus=2)


@pytest.mark.parametrize(("shape", "count"), [
    ((1, 8, 8), 128), ((1, 28, 28), 128), ((1, 42, 42), 74), ((3, 64, 64), 32),
    ((3, 224, 224), 32)])
def test_large_images_are_computed_fewer_at_a_time(shape, count):
    assert predict.largest_piece(shape) == count
    mean = mx.sym.mean(mx.sym.Variable("data"), axis=(1, 2, 3))
    assert Predictor(mean, {}, {}, shape, batch_size=1000, cpus=2).sizes[-1] == count


def test_images_are_not_written_over_while_they_are_computed():
    *trained, _ = network()
    predictor = Predictor(*trained, (1, 28, 28), batch_size=64, cpus=1)
    drawn = synthetic.draw(6 * 64, seed=1)[0]
    alone = np.concatenate([predictor(drawn[start:start + 64]) for start in range(0, 384, 64)])
    for _ in range(5):
        np.testing.assert_array_equal(predictor(drawn), alone)


def test_threads_take_turns():
    *trained, _ = network()
    predictor = Predictor(*trained, (1, 28, 28), batch_size=16, cpus=2)
    counts = [1 + 7 * number % 70 for number in range(400)]
    alone = {count: predictor(IMAGES[:count]) for count in counts}
    with ThreadPoolExecutor(4) as pool:
        for count, answers in zip(counts, pool.map(lambda count: predictor(IMAGES[:count]),
                                                   counts)):
            np.testing.assert_array_equal(answers, alone[count])


def test_a_call_that_was_broken_off_leaves_nothing_behind():
    *trained, _ = network()
    predictor = Predictor(*trained, (1, 28, 28), batch_size=16, cpus=1)
    expected = predictor(IMAGES)
    for taken in (1, 3):
        outputs = predictor._answers(255 - predict.as_pixels(IMAGES), predictor._pieces(70))
        for _ in range(taken):
            next(outputs)
        outputs.close()  # with pieces that are being computed still
        np.testing.assert_array_equal(predictor(IMAGES), expected)
