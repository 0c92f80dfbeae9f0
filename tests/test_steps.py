import mxnet as mx
import numpy as np
import pytest
from mxnet.test_utils import check_numeric_gradient

import symbols
from symbols import cnn, stn
from symbols.steps import straighten
from tests.conftest import DEVICE

SOURCE, TARGET = (12, 9), (8, 8)
FAMILIES = [name for name, family in stn.TRANSFORMS.items()
            if isinstance(family, (stn.Affine, stn.Projective))]
NETWORKS = symbols.networks_with("stn_steps")


def images(count=2):
    return np.random.RandomState(0).rand(count, 1, *SOURCE)


def thetas(family, seed=0):
    """Two, near the identity."""
    identity = np.array(stn.get_transform(family).identity)
    return identity + np.random.RandomState(seed).uniform(-0.2, 0.2, (2, len(identity)))


def evaluate(symbol, **arrays):
    arrays = {name: mx.nd.array(array, DEVICE) for name, array in arrays.items()}
    return symbol.bind(DEVICE, arrays).forward()[0].asnumpy()


def composed_of(family):
    return "projective" if family == "projective" else "affine"


def matrices(family, theta, shape):
    """The maps (N, 3, 3) of thetas."""
    if family != "projective":
        affine = stn.get_transform(family).affine(mx.sym.Variable("theta"), shape)
        theta = evaluate(affine, theta=theta)
    rest = np.tile([0.0, 0, 1][-(9 - theta.shape[1]):], (len(theta), 1))
    return np.concatenate([theta, rest], axis=1).reshape(-1, 3, 3)


def mean_of(seen):
    return mx.sym.expand_dims(mx.sym.mean(seen, axis=(1, 2, 3), name="mean"), axis=1, name="column")


def regardless(seen):
    """A localisation network that says the same in each step."""
    return mx.sym.broadcast_add(mx.sym.Variable("given"), mean_of(seen) * 0, name="same")


def test_two_in_a_network_have_names_of_their_own():
    net = mx.sym.Variable("data")
    for scope in ("a_", "b_"):
        with mx.name.Prefix(scope):
            net = straighten(net, stn.localisation_head, SOURCE, SOURCE, steps=3)
    names = net.get_internals().list_outputs()
    assert len(names) == len(set(names))
    assert all(name.startswith(("a_", "b_", "data")) for name in names)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_map_is_composed_and_the_original_sampled_once(family):
    given = thetas(family)
    symbol = straighten(mx.sym.Variable("data"), regardless, SOURCE, TARGET, family, steps=3)
    last = matrices(family, given, TARGET)
    first = matrices(family, given, SOURCE)
    product = first @ first @ last
    count = 8 if family == "projective" else 6
    expected = (product / product[:, 2:, 2:]).reshape(-1, 9)[:, :count]
    theta = evaluate(symbol.get_internals()["stn_theta_output"], data=images(), given=given)
    np.testing.assert_allclose(theta, expected, atol=1e-5)
    warped = stn.spatial_transformer(mx.sym.Variable("data"), mx.sym.Variable("theta"), TARGET,
                                     composed_of(family))
    np.testing.assert_allclose(evaluate(symbol, data=images(), given=given),
                               evaluate(warped, data=images(), theta=theta), atol=1e-5)


def means(seen):
    """A localisation network with a single weight, which sees what is in the picture."""
    weight = mx.sym.Variable("weight", lr_mult=0.5, init=mx.init.Zero())
    return mx.sym.dot(mean_of(seen), weight, name="look")


def test_each_step_sees_what_those_before_have_made_and_shares_their_weights():
    symbol = straighten(mx.sym.Variable("data"), means, SOURCE, SOURCE, "translation", steps=3)
    assert symbol.list_arguments() == ["data", "weight"]
    assert symbol.attr_dict()["weight"]["__lr_mult__"] == "0.5"
    weight, seen, shift = np.array([[0.3, -0.2]]), images(), np.zeros((2, 2))
    for _ in range(3):
        shift += seen.mean(axis=(1, 2, 3))[:, None] * weight
        moved = stn.spatial_transformer(mx.sym.Variable("data"), mx.sym.Variable("theta"), SOURCE,
                                        "translation")
        seen = evaluate(moved, data=images(), theta=shift)
    np.testing.assert_allclose(evaluate(symbol, data=images(), weight=weight), seen, atol=1e-5)


def test_the_gradient_goes_through_the_maps_of_all_steps():
    symbol = straighten(mx.sym.Variable("data"), regardless, SOURCE, SOURCE, "similarity", steps=3)
    y, x = np.meshgrid(*[np.linspace(0, 3, size) for size in SOURCE], indexing="ij")
    values = {"data": np.sin(x + y)[None, None], "given": np.array([[1.01, 0.02, 0.011, 0.023]])}
    check_numeric_gradient(symbol, values, grad_nodes=["given"],
                           numeric_eps=1e-6, rtol=1e-4, ctx=DEVICE, dtype=np.float64)


def gradient_of_weight(symbol, **arrays):
    arrays = {name: mx.nd.array(array, DEVICE) for name, array in arrays.items()}
    gradient = mx.nd.zeros_like(arrays["weight"])
    executor = symbol.bind(DEVICE, arrays, args_grad={"weight": gradient})
    executor.forward(is_train=True)
    executor.backward(mx.nd.array(np.random.RandomState(1).rand(2, 1, *SOURCE), DEVICE))
    return gradient.asnumpy()


def test_no_gradient_goes_from_what_a_step_sees_to_the_maps_before():
    symbol = straighten(mx.sym.Variable("data"), means, SOURCE, SOURCE, "translation", steps=3)
    values = {"data": images(), "weight": np.array([[0.3, -0.2]])}
    looks = [images(), *(evaluate(symbol.get_internals()[f"stn_step{step}_output"], **values)
                         for step in (1, 2))]
    seen = sum(look.mean(axis=(1, 2, 3)) for look in looks)[:, None]
    shift = mx.sym.dot(mx.sym.Variable("seen"), mx.sym.Variable("weight"))
    moved = stn.spatial_transformer(mx.sym.Variable("data"), shift, SOURCE, "translation")
    np.testing.assert_allclose(gradient_of_weight(symbol, **values),
                               gradient_of_weight(moved, seen=seen, **values), rtol=1e-3)


def test_one_step_is_a_usual_transformer():
    data = mx.sym.Variable("data")
    usual = stn.spatial_transformer(data, cnn.get_loc(data), (28, 28))
    assert straighten(data, cnn.get_loc, (28, 28), (28, 28)).tojson() == usual.tojson()


@pytest.mark.parametrize("network", NETWORKS)
def test_parameters_are_those_of_one_step(network):
    one, three = (symbols.get_symbol(network, stn_steps=steps) for steps in (1, 3))
    shapes, others = (dict(zip(symbol.list_arguments(), symbol.infer_shape(data=(2, 1, 28, 28))[0]))
                      for symbol in (one, three))
    assert shapes == others
    for name in shapes:
        assert one.attr_dict().get(name) == three.attr_dict().get(name)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("steps", "share"), [(1, 0.01), (2, 0.1)])
def test_the_stable_head_of_steps_takes_more_of_a_common_gradient(network, steps, share):
    symbol = symbols.get_symbol(network, stable=True, stn_steps=steps)
    theta = symbol.get_internals()["stn_loc_fc2_stable_output"]  # of the first step
    executor = theta.simple_bind(DEVICE, data=(3, 1, 28, 28))
    executor.forward(is_train=True)
    executor.backward(mx.nd.ones_like(executor.outputs[0]))
    np.testing.assert_allclose(executor.grad_dict["stn_loc_fc2_bias"].asnumpy(),
                               [3 * stn.PACE * share] * 6, rtol=1e-5)


@pytest.mark.parametrize(("options", "message"), [
    ({"steps": 0}, "steps must be a whole number from 1, got 0"),
    ({"steps": 1.5}, "steps must be a whole number from 1, got 1.5"),
    ({"steps": 2, "transform": "tps"}, "two maps of tps do not make a third"),
    ({"steps": 2, "transform": "no-such-one"}, "no transform 'no-such-one'")])
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        straighten(mx.sym.Variable("data"), cnn.get_loc, (28, 28), (28, 28), **options)


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_name_bad_steps(network):
    with pytest.raises(ValueError, match="steps must be a whole number from 1, got 'two'"):
        symbols.get_symbol(network, stn_steps="two")


def two_steps(data, name):
    return straighten(data, lambda seen: stn.localisation_head(seen, name=name), SOURCE, SOURCE,
                      steps=2, name=name)


def test_what_goes_into_steps_may_be_used_elsewhere_too():
    data = mx.sym.Variable("data")
    maps = mx.sym.Convolution(data, num_filter=1, kernel=(1, 1), name="maps")
    symbol = mx.sym.concat(two_steps(maps, "a"), two_steps(maps, "b"), maps, data, dim=1)
    names = symbol.list_arguments()
    assert len(names) == len(set(names))
    assert symbol.infer_shape(data=(2, 1, *SOURCE))[1] == [(2, 4, *SOURCE)]


def test_gradients_add_up_where_the_picture_goes_past_the_steps_too():
    data = mx.sym.Variable("data")
    symbol = mx.sym.concat(two_steps(data, "a"), data, dim=1)
    executor = symbol.simple_bind(DEVICE, data=(2, 1, *SOURCE))
    executor.arg_dict["a_loc_fc2_bias"][:] = mx.nd.array([1, 0, 0, 0, 1, 0])
    executor.forward(is_train=True, data=mx.nd.array(images()))
    executor.backward(mx.nd.ones((2, 2, *SOURCE)))
    np.testing.assert_allclose(executor.grad_dict["data"].asnumpy(), 2, atol=1e-4)


@pytest.mark.parametrize(("localise", "words"), [
    (lambda seen: None, "must make a symbol of the images"),
    (lambda seen: mx.sym.Variable("given"), "must make a symbol of the images"),
    (lambda seen: stn.localisation_head(seen, "similarity"), "theta has 4 parameters")])
def test_localisation_networks_that_do_not_fit_are_refused(localise, words):
    with pytest.raises(ValueError, match=words):
        straighten(mx.sym.Variable("data"), localise, SOURCE, TARGET, steps=2)
