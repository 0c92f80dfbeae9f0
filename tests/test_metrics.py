import math

import mxnet as mx
import numpy as np
import pytest

from common.data import synthetic
from common.data.batches import ImageIter
from common.models import metrics


def test_tally_is_the_plain_count():
    rng = np.random.RandomState(0)
    probabilities = rng.dirichlet(np.ones(10), 100).astype(np.float32)
    labels = rng.randint(0, 10, 100).astype(np.float32)
    tally = metrics.Tally()
    for part in (slice(0, 64), slice(64, 100)):
        tally.add(probabilities[part], labels[part])
    chosen = probabilities[np.arange(100), labels.astype(int)]
    assert tally.count == 100
    assert tally.accuracy == (probabilities.argmax(1) == labels).mean()
    assert tally.loss == pytest.approx(-np.log(chosen).mean(), rel=1e-6)


def test_a_probability_of_zero_is_finite_and_nan_is_not():
    tally = metrics.Tally()
    tally.add(np.float32([[1, 0]]), np.float32([1]))
    assert 80 < tally.loss < 100
    tally.add(np.float32([[math.nan, 0]]), np.float32([0]))
    assert math.isnan(tally.loss)


def test_nan_is_no_answer():
    """Of a row of NaN, NumPy's argmax is 0."""
    answers, labels = whole_numbers()
    answers[0, :, 1], labels[0, 1] = math.nan, 0
    answers[1, 2, 0], labels[1, 0] = math.nan, 2
    tally = metrics.Tally()
    tally.add(answers[:3], labels[:3])
    assert (tally.count, tally.correct) == (3, 1)


def test_batches_that_are_added_together_count_as_each_by_itself():
    answers, labels = whole_numbers()
    parts = [slice(0, 70), slice(70, 140), slice(140, 200)]
    one, together, seen = metrics.Tally(), metrics.Tally(), []
    for part, _ in zip(parts, together.add_in_turn(*zip(*((answers[part], labels[part])
                                                          for part in parts)))):
        one.add(answers[part], labels[part])
        seen.append(together.count)
        assert vars(one) == vars(together)  # to the last bit
    assert seen == [70, 140, 200]


@pytest.fixture
def module():
    """A linear classifier, bound for training."""
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=10, name="fc")
    module = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"))
    module.bind([("data", (64, 1, 28, 28))], [("softmax_label", (64,))])
    mx.random.seed(0)
    module.init_params(mx.init.Xavier())
    return module


def test_padding_is_not_counted(module):
    images, labels = synthetic.draw(100, seed=0)
    tally = metrics.score(module, ImageIter(images, labels, 64))
    weight, bias = (module.get_params()[0][name].asnumpy() for name in ("fc_weight", "fc_bias"))
    answers = (images.reshape(100, -1) / 255 @ weight.T + bias).argmax(axis=1)
    assert tally.count == 100
    assert tally.correct == (answers == labels).sum()


def test_ten_thousand_at_batch_64_are_ten_thousand(module):
    images, labels = synthetic.draw(10000, seed=0)
    assert metrics.score(module, ImageIter(images, labels, 64)).count == 10000


def test_new_parameters_are_not_ignored(module):
    """A Module bound for prediction only would go on with those of its first forward."""
    batches = ImageIter(*synthetic.draw(128, seed=0), batch_size=64)
    first = metrics.score(module, batches).loss
    arg_params, aux_params = module.get_params()
    module.set_params({name: value * 3 for name, value in arg_params.items()}, aux_params)
    assert metrics.score(module, batches).loss != first


def whole_numbers(count=200, classes=4, places=3):
    """Probabilities (count, classes, places), and labels that the first of them get right."""
    rng = np.random.RandomState(0)
    answers = rng.dirichlet(np.ones(classes), (count, places)).transpose(0, 2, 1)
    answers = np.ascontiguousarray(answers, np.float32)
    labels = answers.argmax(axis=1)
    labels[50:] = rng.randint(0, classes, (count - 50, places))
    return answers, labels


def test_a_whole_number_is_right_in_all_places():
    answers, labels = whole_numbers()
    tally = metrics.Tally()
    tally.add(answers, labels.astype(np.float32))
    right = [all(answer[:, place].argmax() == label[place] for place in range(3))
             for answer, label in zip(answers, labels)]
    assert tally.correct == sum(right) < 100
    chances = [np.prod([answer[digit, place] for place, digit in enumerate(label)])
               for answer, label in zip(answers.astype(float), labels)]
    assert tally.loss == pytest.approx(-np.log(chances).mean(), rel=1e-5)


@pytest.mark.parametrize("top_k", [1, 3, 4])
def test_the_most_probable_numbers(top_k):
    answers, labels = whole_numbers()
    found = metrics.evaluate(answers, labels, top_k)
    among = []
    for answer, label in zip(answers.astype(float), labels):
        joint = np.einsum("a,b,c->abc", *answer.T)
        among.append((joint > joint[tuple(label)]).sum() < top_k)
    assert found["top_k_accuracy"] == np.mean(among)
    assert found["images"] == 200
    if top_k == 1:
        assert found["top_k_accuracy"] == found["test_accuracy"]
    assert np.sum(found["confusion"]) == 600


def test_what_is_most_probable_and_what_is_most_wrong():
    answers, labels = whole_numbers()
    predicted, chances = metrics.most_probable(answers)
    joint = [np.einsum("a,b,c->abc", *answer.T) for answer in answers.astype(float)]
    np.testing.assert_allclose(chances, [each.max() for each in joint], rtol=1e-5)
    assert predicted.shape == (200, 3)
    worst = metrics.worst_mistakes(answers, labels, 5)
    losses = -np.log([each[tuple(label)] for each, label in zip(joint, labels)])
    losses[(predicted == labels).all(axis=1)] = 0
    assert worst.tolist() == np.argsort(-losses)[:5].tolist()
    assert metrics.worst_mistakes(answers[:50], labels[:50], 5).size == 0


def test_of_equal_answers_the_first_class_is_the_guess():
    found = metrics.evaluate(np.full((3, 4), 0.25), np.array([0, 1, 3]), top_k=2)
    assert (found["correct"], found["top_k_accuracy"]) == (1, pytest.approx(2 / 3))


def test_labels_of_other_classes_are_refused():
    with pytest.raises(ValueError, match="the label 4 is none of the network's 4 classes, 0 to 3"):
        metrics.evaluate(np.full((3, 4), 0.25), np.array([0, 1, 4]), top_k=2)
    with pytest.raises(ValueError, match="the label -1 is none of the network's 4 classes"):
        metrics.evaluate(np.full((3, 4), 0.25), np.array([0, -1, 3]), top_k=2)


@pytest.mark.parametrize("top_k", [-1, 0, 5])
def test_guesses_that_an_image_cannot_have_are_refused(top_k):
    with pytest.raises(ValueError, match=f"--top-k {top_k}: the network has 4 classes"):
        metrics.evaluate(np.full((3, 4), 0.25), np.array([0, 1, 3]), top_k)


def test_labels_of_another_number_of_places_are_refused():
    answers, labels = whole_numbers()
    for other in (labels[:, :2], labels[:, 0]):
        with pytest.raises(ValueError, match="the network gives 3 labels an image, but there"):
            metrics.evaluate(answers, other, 1)
    with pytest.raises(ValueError, match="gives one label an image, but there are 3 labels an im"):
        metrics.evaluate(answers[:, :, 0], labels, 1)
