"""The transformers against plain NumPy: grids, sampling, gradients, and what they promise."""
import inspect
import json
import statistics

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import synthetic
from common.training.recipe import SeededInit
from symbols import stn
from tests.conftest import DEVICE
from tests.pairwise import pairwise

FAMILIES = [*stn.TRANSFORMS, "tps:2", "tps:7"]
SHAPES = [((2, 1, 28, 28), (28, 28)), ((3, 4, 9, 14), (9, 14)), ((2, 3, 20, 12), (31, 7)),
          ((1, 2, 5, 40), (2, 2))]


def turned(points, angle, aspect):
    """Turns points (P, 2) by an angle in pixels of which the target is ``aspect`` wider."""
    x, y = points[:, 0] * aspect, points[:, 1]
    return np.stack([(np.cos(angle) * x - np.sin(angle) * y) / aspect,
                     np.sin(angle) * x + np.cos(angle) * y], axis=1)


def projected(points, matrix):
    """Takes points (P, 2) through a 3 x 3 matrix."""
    homogeneous = np.hstack([points, np.ones((len(points), 1))]) @ matrix.T
    return homogeneous[:, :2] / homogeneous[:, 2:]


def spline(points, theta):
    """The thin plate spline through the values in theta, by solving for its coefficients."""
    size = int(np.sqrt(len(theta) / 2))
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    control = np.stack([x.ravel(), y.ravel()], axis=1)

    def terms(where):
        squares = ((where[:, None] - control) ** 2).sum(axis=2)
        kernel = squares * np.log(np.where(squares > 0, squares, 1))
        return np.hstack([kernel, np.ones((len(where), 1)), where])

    system = np.zeros((len(control) + 3,) * 2)
    system[:-3] = terms(control)
    system[-3:, :-3] = system[:-3, -3:].T
    values = np.concatenate([theta.reshape(2, -1).T, np.zeros((3, 2))])
    return terms(points) @ np.linalg.solve(system, values)


# The source points in plain NumPy, from the target's points (P, 2), theta, and how much wider the
# target is. A family that is not here is compared with its own ``source_points``.
FORMULAS = {
    "translation": lambda points, theta, _: points + theta,
    "attention": lambda points, theta, _: theta[0] * points + theta[1:],
    "rotation": lambda points, theta, aspect: turned(points, theta[0], aspect),
    "similarity": lambda points, theta, aspect: (theta[0] * turned(points, theta[1], aspect)
                                                 + theta[2:]),
    "affine": lambda points, theta, _: projected(points, np.append(theta, (0, 0, 1)).reshape(3, 3)),
    "projective": lambda points, theta, _: projected(points, np.append(theta, 1).reshape(3, 3)),
    "tps": lambda points, theta, _: spline(points, theta),
}


def grid(transform, theta, target_shape):
    """The source points of one theta, (height, width, 2)."""
    height, width = target_shape
    formula = FORMULAS.get(transform.partition(":")[0])
    if formula is None:
        return stn.source_points([theta], target_shape, (3, 3), transform)[0] - 1
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    source = formula(points, np.asarray(theta, dtype=np.float64), (width - 1) / (height - 1))
    return source.reshape(height, width, 2)


def sample(images, points):
    """Bilinear sampling (equation 5) at points (N, height, width, 2)."""
    _, _, height, width = images.shape
    column = (points[..., 0] + 1) * (width - 1) / 2
    row = (points[..., 1] + 1) * (height - 1) / 2
    by_row = np.maximum(0, 1 - np.abs(row[:, None] - np.arange(height)[:, None, None]))
    by_column = np.maximum(0, 1 - np.abs(column[:, None] - np.arange(width)[:, None, None]))
    return np.einsum("nchw,nhij,nwij->ncij", images, by_row, by_column)


def warped(transform, images, theta, target_shape):
    return sample(images, np.stack([grid(transform, one, target_shape) for one in theta]))


def bound(symbol, images, theta, dtype="float32", grad_req="write"):
    arrays = {"data": mx.nd.array(images, dtype=dtype), "theta": mx.nd.array(theta, dtype=dtype)}
    gradients = {name: mx.nd.zeros_like(array) for name, array in arrays.items()}
    return symbol.bind(DEVICE, arrays, gradients, grad_req)


def transform_symbol(transform, target_shape, name="stn", **options):
    return stn.spatial_transformer(mx.sym.Variable("data"), mx.sym.Variable("theta"), target_shape,
                                   transform, name, **options)


def transformed(transform, images, theta, target_shape, dtype="float32"):
    symbol = transform_symbol(transform, target_shape)
    return bound(symbol, images, theta, dtype).forward()[0].asnumpy()


def thetas(transform, count, spread=0.0, seed=0):
    identity = np.array(stn.get_transform(transform).identity)
    noise = np.random.RandomState(seed).uniform(-spread, spread, (count, len(identity)))
    return identity + noise


def pictures(*shape, seed=0):
    return np.random.RandomState(seed).rand(*shape)


# Outputs


@pytest.mark.parametrize(("shape", "target_shape"), SHAPES)
@pytest.mark.parametrize("spread", [0.2, 1.5])  # 1.5 takes most points outside
@pytest.mark.parametrize("transform", FAMILIES)
def test_agrees_with_numpy(transform, shape, target_shape, spread):
    if transform == "projective":
        spread = min(spread, 0.45)  # the horizon outside the picture: near it nothing is stable
    images, theta = pictures(*shape), thetas(transform, shape[0], spread)
    expected = warped(transform, images, theta, target_shape)
    np.testing.assert_allclose(transformed(transform, images, theta, target_shape, "float64"),
                               expected, atol=1e-10)
    # In float32, a rounding error of the coordinates is worth so many of the source's pixels; that
    # of a spline grows with its number of points.
    pixels = np.abs([grid(transform, one, target_shape) for one in theta]).max() * max(shape[2:])
    rounding = 1e-5 if transform == "tps:7" else 5e-7
    np.testing.assert_allclose(transformed(transform, images, theta, target_shape), expected,
                               atol=max(1e-5, rounding * pixels))


@pytest.mark.parametrize("target_shape", [(5, 4), (8, 9)])
@pytest.mark.parametrize("transform", FAMILIES)
def test_outside_the_border_goes_on(transform, target_shape):
    images = pictures(3, 2, 7, 6)
    theta = thetas(transform, 3, 0.45 if transform == "projective" else 1.5)
    points = np.stack([grid(transform, one, target_shape) for one in theta])
    assert (np.abs(points) > 1).any()
    symbol = transform_symbol(transform, target_shape, outside="border")
    executor = bound(symbol, images, theta, "float64")
    output = executor.forward(is_train=True)[0].asnumpy()
    np.testing.assert_allclose(output, sample(images, np.clip(points, -1, stn.LAST)), atol=1e-10)
    np.testing.assert_allclose(output, sample(images, np.clip(points, -1, 1)), atol=5e-7)
    executor.backward(mx.nd.ones((3, 2, *target_shape), dtype="float64"))
    # Each point's weights add up to 1, also outside, so that no brightness is lost.
    np.testing.assert_allclose(executor.grad_dict["data"].asnumpy().sum(axis=(1, 2, 3)),
                               2 * np.prod(target_shape), rtol=1e-9)


def test_what_is_outside_has_two_names():
    with pytest.raises(ValueError, match="outside must be zero or border, got 'edge'"):
        transform_symbol("affine", (5, 5), outside="edge")


@pytest.mark.parametrize("size", [(5, 5), (28, 28), (17, 33), (224, 224)])
@pytest.mark.parametrize("transform", FAMILIES)
def test_identity(transform, size):
    images = pictures(2, 3, *size)
    np.testing.assert_allclose(transformed(transform, images, thetas(transform, 2), size), images,
                               atol=1e-5 if max(size) < 100 else 1e-4)


def test_half_zoom_is_the_centre_crop():
    images, crop = pictures(2, 1, 9, 9), (slice(None), slice(None), slice(2, 7), slice(2, 7))
    lattice = np.array(stn.get_transform("tps").identity)
    for transform, theta in {"attention": [0.5, 0, 0], "similarity": [0.5, 0, 0, 0],
                             "affine": [0.5, 0, 0, 0, 0.5, 0],
                             "projective": [0.5, 0, 0, 0, 0.5, 0, 0, 0],
                             "tps": lattice / 2}.items():
        np.testing.assert_allclose(transformed(transform, images, [theta] * 2, (5, 5)),
                                   images[crop], atol=1e-5, err_msg=transform)


SHIFTS = {"translation": 0, "attention": 1, "similarity": 2, "affine": 2, "projective": 2,
          "tps": slice(16), "tps:2": slice(4), "tps:7": slice(49)}  # where theta has that along x


@pytest.mark.parametrize(("transform", "place"), SHIFTS.items())
def test_whole_pixels_to_the_right_shift_to_the_left(transform, place):
    images, shift = pictures(1, 1, 9, 9), 2 * 2 / 8  # 2 pixels of 8 between -1 and 1
    theta = thetas(transform, 1)
    theta[:, place] += shift
    expected = np.zeros_like(images)
    expected[..., :7] = images[..., 2:]
    np.testing.assert_allclose(transformed(transform, images, theta, (9, 9), "float64"), expected,
                               atol=1e-10)


@pytest.mark.parametrize("shape", [(9, 9), (8, 12)])
def test_a_half_turn_is_exact_and_a_quarter_turn_is_on_squares(shape):
    images = pictures(2, 1, *shape)
    half = transformed("rotation", images, [[np.pi]] * 2, shape)
    np.testing.assert_allclose(half, images[:, :, ::-1, ::-1], atol=1e-5)
    if shape[0] == shape[1]:
        quarter = transformed("rotation", images, [[np.pi / 2]] * 2, shape)
        np.testing.assert_allclose(quarter, np.rot90(images, axes=(2, 3)), atol=1e-5)


def test_turns_are_rigid_in_pixels():
    points = stn.source_points([[0.3]], (9, 15), (9, 15), "rotation")[0]
    across, down = points[0, 1] - points[0, 0], points[1, 0] - points[0, 0]
    np.testing.assert_allclose([np.hypot(*across), np.hypot(*down), across @ down], [1, 1, 0],
                               atol=1e-10)


def test_an_affine_map_is_in_the_larger_families():
    images, shape = pictures(2, 2, 12, 10), (11, 13)
    theta = thetas("affine", 2, 0.3)
    expected = transformed("affine", images, theta, shape)
    projective = np.hstack([theta, np.zeros((2, 2))])
    np.testing.assert_allclose(transformed("projective", images, projective, shape), expected,
                               atol=1e-5)
    lattice = np.array(stn.get_transform("tps").identity).reshape(2, -1)
    homogeneous = np.vstack([lattice, np.ones(lattice.shape[1])])
    moved = (theta.reshape(2, 2, 3) @ homogeneous).reshape(2, -1)
    np.testing.assert_allclose(transformed("tps", images, moved, shape), expected, atol=1e-5)


# Gradients


@pytest.mark.parametrize("transform", FAMILIES)
@pytest.mark.parametrize("target_shape", [(5, 4), (8, 9)])
def test_gradients_are_the_numerical_ones(transform, target_shape):
    weights = mx.sym.Variable("weights", shape=(2, 2, *target_shape), dtype="float64")
    symbol = mx.sym.sum(transform_symbol(transform, target_shape) * weights)
    values = {"data": pictures(2, 2, 6, 7),
              "theta": thetas(transform, 2, 0.05, seed=3) * 0.83 + 0.013,
              "weights": pictures(2, 2, *target_shape, seed=1)}
    arrays = {name: mx.nd.array(value, dtype="float64") for name, value in values.items()}
    gradients = {name: mx.nd.zeros_like(array) for name, array in arrays.items()}
    executor = symbol.bind(DEVICE, arrays, gradients)
    executor.forward(is_train=True)
    executor.backward(mx.nd.ones(1, dtype="float64"))

    def loss(name, moved):
        images, theta = (moved if name == key else values[key] for key in ("data", "theta"))
        return (warped(transform, images, theta, target_shape) * values["weights"]).sum()

    for name in ("data", "theta"):
        expected = np.zeros(values[name].shape)
        for place in np.ndindex(*expected.shape):
            step = np.zeros_like(expected)
            step[place] = 1e-6
            expected[place] = (loss(name, values[name] + step)
                               - loss(name, values[name] - step)) / 2e-6
        np.testing.assert_allclose(gradients[name].asnumpy(), expected, rtol=1e-5, atol=1e-7)


def named(count, scopes):
    """Opens a naming of each of many transformers: by their names, or by the scopes they are in."""
    for index in range(count):
        with mx.name.Prefix(f"scope{index}_" if scopes else ""):
            yield index, "stn" if scopes else f"stn{index}"


def parallel_gradients(transform, count, grad_req, start=0.0, scopes=False, behind=None):
    """Gradients of a sum of transformers on one feature map and with one theta."""
    data, theta = mx.sym.Variable("data") * 1.5, mx.sym.Variable("theta") * 1
    data = behind(data) if behind else data
    parts = [stn.spatial_transformer(data, theta, (5, 6), transform, name) * (index + 1)
             for index, name in named(count, scopes)]
    executor = bound(mx.sym.add_n(*parts), pictures(2, 3, 7, 8), thetas(transform, 2, 0.1) * 0.9,
                     "float64", grad_req)
    for gradient in executor.grad_arrays:
        gradient[:] = start
    executor.forward(is_train=True)
    executor.backward(mx.nd.ones((2, 3, 5, 6), dtype="float64"))
    return [gradient.asnumpy() for gradient in executor.grad_arrays]


# From 8 on, MXNet adds gradients in another way; a family of each sampler shows what is before.
@pytest.mark.parametrize(("transform", "count", "scopes"), [
    *pairwise(["affine", "tps"], [1, 4, 7], [False, True]),
    *pairwise(FAMILIES, [8, 12], [False, True])])
def test_gradients_of_many_transformers_on_one_map_add_up(transform, count, scopes):
    one = parallel_gradients(transform, 1, "write")
    for single, many in zip(one, parallel_gradients(transform, count, "write", scopes=scopes)):
        np.testing.assert_allclose(many, single * count * (count + 1) / 2, rtol=1e-8, atol=1e-10)


COPIES = {"identity": mx.sym.identity, "dropout": lambda data: mx.sym.Dropout(data, p=0)}


@pytest.mark.parametrize("copy", COPIES)
def test_gradients_add_up_behind_a_copy(copy):
    plain = parallel_gradients("affine", 8, "write")
    for one, other in zip(plain, parallel_gradients("affine", 8, "write", behind=COPIES[copy])):
        np.testing.assert_array_equal(other, one)


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("transform", FAMILIES)
def test_a_transformer_behind_a_copy_of_the_input_predicts(transform, copy):
    """MXNet takes copies out of what it only runs forward, on the first CPU device."""
    images = mx.nd.array(pictures(2, 3, 7, 8))
    theta = mx.nd.array(thetas(transform, 2, 0.1))
    answers = []
    for data in (mx.sym.Variable("data"), COPIES[copy](mx.sym.Variable("data"))):
        symbol = stn.spatial_transformer(data, mx.sym.Variable("theta"), (5, 6), transform)
        executor = symbol.bind(DEVICE, {"data": images, "theta": theta}, grad_req="null")
        answers.append(executor.forward()[0].asnumpy())
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("transform", FAMILIES)
def test_gradients_can_be_added_or_left_out(transform, count):
    written = parallel_gradients(transform, count, "write", start=7)
    for one, added in zip(written, parallel_gradients(transform, count, "add", start=7)):
        np.testing.assert_allclose(added, one + 7, rtol=1e-10)
    for wanted, name in enumerate(("data", "theta")):
        requests = {"data": "null", "theta": "null", name: "write"}
        gradients = parallel_gradients(transform, count, requests, start=7)
        np.testing.assert_array_equal(gradients[wanted], written[wanted])
        assert (gradients[1 - wanted] == 7).all()


@pytest.mark.parametrize("transform", FAMILIES)
def test_gradients_add_up_in_gluon(transform):
    variables = [mx.sym.Variable(name) for name in ("data", "theta")]
    parts = [transform_symbol(transform, (5, 6), f"stn{index}") for index in range(8)]
    inputs = [mx.nd.array(pictures(2, 3, 7, 8)), mx.nd.array(thetas(transform, 2, 0.1))]
    gradients = []
    for symbol in (parts[0] * 8, mx.sym.add_n(*parts)):
        block = mx.gluon.SymbolBlock(symbol, variables)
        block.hybridize()
        for array in inputs:
            array.attach_grad()
        with mx.autograd.record():
            block(*inputs).sum().backward()
        gradients.append([array.grad.asnumpy() for array in inputs])
    for one, many in zip(*gradients):
        np.testing.assert_allclose(many, one, rtol=1e-4, atol=1e-4)


# Anything finite gives something finite


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_any_finite_theta_gives_finite_pictures_and_gradients(data):
    transform = data.draw(st.sampled_from([*FAMILIES, "tps:3"]))
    shape = data.draw(st.tuples(*[st.integers(2, 20)] * 2))
    target_shape = data.draw(st.tuples(*[st.integers(2, 20)] * 2))
    count = len(stn.get_transform(transform).identity)
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    numbers = st.one_of(finite, st.floats(-2, 2, width=32))
    theta = data.draw(st.lists(numbers, min_size=count, max_size=count))
    executor = bound(transform_symbol(transform, target_shape), pictures(1, 2, *shape), [theta])
    outputs = executor.forward(is_train=True)[0].asnumpy()
    assert outputs.shape == (1, 2, *target_shape)
    assert outputs.min() >= -1e-3
    assert outputs.max() <= 1.001
    executor.backward(mx.nd.ones((1, 2, *target_shape)))
    for gradient in executor.grad_arrays:
        assert np.isfinite(gradient.asnumpy()).all()


@pytest.mark.parametrize("slope", [1, -1, 2])  # the denominator is 0 at a border, or within
def test_a_horizon_in_the_picture_gives_finite_pictures(slope):
    for theta in ([1, 0, 0, 0, 1, 0, slope, 0], [1, 0, 0, 0, 1, 0, 0, slope]):
        warped = transformed("projective", pictures(1, 1, 5, 5), [theta], (5, 5))
        assert np.isfinite(warped).all()


@pytest.mark.parametrize("denominator", [1e-3, 2e-4, 5e-5, 1e-6, 0, -1e-6, -5e-5, -2e-4, -1e-3])
def test_denominators_are_kept_away_from_0(denominator):
    """That of the point at the right is g + 1, and the point that it is sampled at 1 / (g + 1)."""
    theta = [[1, 0, 0, 0, 1, 0, denominator - 1, 0]]
    far = 1 / (stn.source_points(theta, (3, 3), (3, 3), "projective")[0, 1, 2, 0] - 1)
    assert abs(far) >= 0.99e-4
    if abs(denominator) > 1e-4:
        assert far == pytest.approx(denominator, rel=1e-2)


def test_a_pool_that_does_not_divide_the_target_leaves_the_rest_out():
    symbol = transform_symbol("affine", (28, 28), pool=3)
    assert symbol.infer_shape(data=(2, 1, 28, 28), theta=(2, 6))[1] == [(2, 1, 9, 9)]


def test_a_theta_that_is_not_a_number_shows():
    assert np.isnan(transformed("affine", pictures(1, 1, 5, 5), [[np.nan] * 6], (5, 5))).any()


@pytest.mark.parametrize("transform", FAMILIES)
def test_bounded_parameters_stay_in_reach_and_move_freely_near_the_identity(transform):
    family = stn.get_transform(transform)
    identity, reach = np.array(family.identity), np.array(family.reach)
    theta = mx.sym.Variable("theta")
    symbol = family.bounded(theta)

    def bounded(values):
        return symbol.bind(DEVICE, {"theta": mx.nd.array(values)}).forward()[0].asnumpy()

    np.testing.assert_allclose(bounded([identity])[0], identity, atol=1e-6)
    np.testing.assert_allclose(bounded([identity + 0.01])[0], identity + 0.01, atol=1e-5)
    for far in (-1e38, -3, 3, 1e38):
        assert (np.abs(bounded([identity + far])[0] - identity) <= reach * (1 + 1e-6)).all()


@pytest.mark.parametrize(("transform", "furthest"), [
    ("translation", [1, 1]), ("attention", [1.9, 1, 1]), ("rotation", [np.pi]),
    ("similarity", [1.9, np.pi, 1, 1]), ("affine", [1.9, 0.9, 1, 0.9, 1.9, 1])])
def test_bounded_parameters_reach_as_far_as_the_head_says(transform, furthest):
    symbol = stn.get_transform(transform).bounded(mx.sym.Variable("theta"))
    theta, = symbol.eval(theta=mx.nd.full((1, len(furthest)), 1e6))
    np.testing.assert_allclose(theta.asnumpy()[0], furthest, rtol=1e-6)


@pytest.mark.parametrize("far", [-1e38, -1, 1, 1e38])
def test_bounded_scales_are_positive_and_horizons_far(far):
    for transform, place in (("attention", 0), ("similarity", 0)):
        theta = stn.get_transform(transform).bounded(mx.sym.Variable("theta"))
        values = mx.nd.full((1, len(stn.get_transform(transform).identity)), far)
        assert theta.bind(DEVICE, {"theta": values}).forward()[0][0, place] > 0.09
    theta = stn.get_transform("projective").bounded(mx.sym.Variable("theta"))
    last = theta.bind(DEVICE, {"theta": mx.nd.full((1, 8), far)}).forward()[0].asnumpy()[0, 6:]
    assert 1 - np.abs(last).sum() > 0.09


# The localisation head


def head_of(transform="affine", shape=(3, 2, 6, 5), initializer=None, **options):
    """A Module of the localisation head alone, and the symbol."""
    theta = stn.localisation_head(mx.sym.Variable("data"), transform, **options)
    module = mx.mod.Module(theta, label_names=None, context=DEVICE)
    module.bind([("data", shape)], for_training=False)
    module.init_params(initializer or mx.init.Xavier())
    return module, theta


def theta_of(module, features):
    module.forward(mx.io.DataBatch([mx.nd.array(features)]))
    return module.get_outputs()[0].asnumpy()


@pytest.mark.parametrize(("transform", "initializer", "options"), pairwise(
    FAMILIES, [mx.init.Xavier(), mx.init.Uniform(5), mx.init.One()],
    [{"stable": True}, {"stable": True, "bounded": True}, {"stable": False, "bounded": True}]))
def test_the_head_starts_at_the_identity_whatever_the_initialiser(transform, initializer, options):
    module, _ = head_of(transform, initializer=initializer, **options)
    np.testing.assert_allclose(theta_of(module, pictures(3, 2, 6, 5)), thetas(transform, 3),
                               atol=1e-6)


def moved(module, spread=0.3):
    """The parameters of a head off the identity."""
    rng = np.random.RandomState(0)
    return {name: value + mx.nd.array(rng.uniform(-spread, spread, value.shape))
            for name, value in module.get_params()[0].items()}


def test_the_stable_head_sees_the_direction_of_its_features_alone():
    module, _ = head_of()
    params = moved(module)
    params["stn_loc_fc1_bias"][:] = 0
    module.set_params(params, {})
    features = pictures(3, 2, 6, 5)
    np.testing.assert_allclose(theta_of(module, 1000 * features), theta_of(module, features),
                               atol=1e-5)
    np.testing.assert_array_equal(theta_of(module, 0 * features),
                                  np.tile(params["stn_loc_fc2_bias"].asnumpy(), (3, 1)))


def test_the_stable_heads_json_is_the_same_network():
    module, theta = head_of()
    loaded = mx.mod.Module(mx.sym.load_json(theta.tojson()), label_names=None, context=DEVICE)
    loaded.bind([("data", (3, 2, 6, 5))], for_training=False)
    loaded.init_params(mx.init.Uniform(5))
    features = pictures(3, 2, 6, 5)
    np.testing.assert_array_equal(theta_of(loaded, features), theta_of(module, features))
    params = moved(module)
    for each in (module, loaded):
        each.set_params(params, {})
    np.testing.assert_array_equal(theta_of(loaded, features), theta_of(module, features))


@pytest.mark.parametrize("share", [stn.COMMON, 0.1])
def test_gradients_of_the_stable_head(share):
    """As of what differs from image to image; less for the last layer, and for what is common."""
    def executor_of(stable):
        theta = stn.localisation_head(mx.sym.Variable("data"), num_hidden=4, stable=stable,
                                      common=share)
        if not stable:  # the same value by other means, for MXNet to differentiate
            inner = theta.get_internals()["stn_loc_fc1_relu_output"]
            unit = mx.sym.broadcast_div(inner, mx.sym.sqrt(mx.sym.sum(
                inner * inner, axis=1, keepdims=True) + 1e-10))
            theta = mx.sym.FullyConnected(unit, num_hidden=6, name="stn_loc_fc2")
        return theta.simple_bind(DEVICE, data=(3, 5), grad_req="write", type_dict=dict.fromkeys(
            theta.list_arguments(), "float64"))

    rng = np.random.RandomState(1)
    stable, plain = map(executor_of, (True, False))
    for name, array in stable.arg_dict.items():
        array[:] = plain.arg_dict[name][:] = mx.nd.array(rng.uniform(-1, 1, array.shape))
    gradient = rng.uniform(-1, 1, (3, 6)) + 1
    common = gradient.mean(axis=0)
    for executor, left_out in ((stable, 0), (plain, common * (1 - share))):
        executor.forward(is_train=True)
        executor.backward(mx.nd.array(gradient - left_out, dtype="float64"))
    np.testing.assert_allclose(stable.outputs[0].asnumpy(), plain.outputs[0].asnumpy(), rtol=1e-6)
    for name, expected in plain.grad_dict.items():
        factor = stn.PACE if "fc2" in name else 1
        np.testing.assert_allclose(stable.grad_dict[name].asnumpy(), factor * expected.asnumpy(),
                                   rtol=1e-5, atol=1e-7, err_msg=name)
        assert np.abs(expected.asnumpy()).max() > 1e-3, name


def thetas_by_adam(pace, monkeypatch):
    """What a stable head says after 10 steps with a rate of 0.01, by gradients of its own."""
    monkeypatch.setattr(stn, "PACE", pace)
    module, _ = head_of(shape=(32, 2, 6, 5), initializer=SeededInit(mx.init.Xavier(), seed=0))
    module.bind([("data", (32, 2, 6, 5))], for_training=True, force_rebind=True)
    module.init_optimizer(optimizer="adam",
                          optimizer_params={"learning_rate": 0.01, "epsilon": 1e-15})
    rng = np.random.RandomState(0)
    for _ in range(10):
        module.forward(mx.io.DataBatch([mx.nd.array(rng.uniform(size=(32, 2, 6, 5)))]))
        module.backward([mx.nd.array(rng.normal(size=(32, 6)))])
        module.update()
    return theta_of(module, pictures(32, 2, 6, 5))


def test_by_adam_its_pace_changes_nothing(monkeypatch):
    slow, full = (thetas_by_adam(pace, monkeypatch) for pace in (stn.PACE, 1))
    moved_by = full - thetas("affine", 32)
    np.testing.assert_allclose(slow, full, atol=0.01 * np.abs(moved_by).max())
    assert np.abs(moved_by).max() > 0.05


def test_the_stable_head_in_gluon():
    module, theta = head_of()
    module.set_params(moved(module), {})
    block = mx.gluon.SymbolBlock(theta, mx.sym.Variable("data"))
    block.hybridize()
    features = mx.nd.array(pictures(3, 2, 6, 5))
    block.collect_params().initialize()
    block(features)  # tells the shapes
    for name, value in module.get_params()[0].items():
        block.collect_params()[name].set_data(value)
    with mx.autograd.record():
        found = block(features)
    found.backward()
    np.testing.assert_allclose(found.asnumpy(), theta_of(module, features.asnumpy()), atol=1e-6)
    gradient = block.collect_params()["stn_loc_fc2_bias"].grad().asnumpy()
    np.testing.assert_allclose(gradient, [3 * stn.PACE * stn.COMMON] * 6, rtol=1e-5)


def accuracy_after_sgd(stable, seed):
    """Of a small network with momentum 0.9 and a rate of 0.15; stable is None without transformer.
    """
    images, labels = synthetic.draw(600, seed)
    batches = mx.io.NDArrayIter(images[:, None] / np.float32(255), labels.astype(np.float32), 50)
    net = data = mx.sym.Variable("data")
    if stable is not None:
        half = mx.sym.Pooling(data, pool_type="max", kernel=(2, 2), stride=(2, 2), name="half")
        maps = mx.sym.Convolution(half, num_filter=8, kernel=(5, 5), name="stn_loc_conv")
        loc = stn.localisation_head(mx.sym.Activation(maps, act_type="relu", name="stn_loc_relu"),
                                    stable=stable)
        net = stn.spatial_transformer(data, loc, (28, 28))
    net = mx.sym.FullyConnected(net, num_hidden=64, name="fc1")
    net = mx.sym.FullyConnected(mx.sym.Activation(net, act_type="relu", name="relu"),
                                num_hidden=10, name="fc2")
    module = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"), context=DEVICE)
    module.bind(batches.provide_data, batches.provide_label)
    module.init_params(SeededInit(mx.init.Xavier(), seed))
    module.init_optimizer(optimizer="sgd",
                          optimizer_params={"learning_rate": 0.15, "momentum": 0.9})
    for _ in range(4):
        batches.reset()
        for batch in batches:
            module.forward_backward(batch)
            module.update()
    return dict(module.score(batches, "acc"))["accuracy"]


def test_the_stable_head_survives_sgd_with_momentum_where_the_plain_one_dies():
    # A single plain one may come back to life, by a rounding error of the processor's.
    without, plain, stable = (statistics.median(accuracy_after_sgd(head, seed) for seed in range(3))
                              for head in (None, False, True))
    assert without > 0.9
    assert plain < 0.2
    assert stable > 0.9


# Several transformers


def test_transformers_in_a_row_compose():
    shape = (15, 15)
    ramp = np.add.outer(np.arange(15) * 0.3, np.arange(15) * 0.7)  # bilinear sampling is exact
    images, first, second = ramp[None, None], thetas("affine", 1, 0.1), thetas("affine", 1, 0.1, 1)
    net = mx.sym.Variable("data")
    for name in ("first", "second"):
        net = stn.spatial_transformer(net, mx.sym.Variable(name), shape, name=f"stn_{name}")
    values = {"data": images, "first": first, "second": second}
    executor = net.bind(DEVICE, {name: mx.nd.array(value) for name, value in values.items()})
    twice = executor.forward()[0].asnumpy()
    once = transformed("affine", images, stn.compose(first, second), shape)
    inside = (slice(None), slice(None), slice(4, 11), slice(4, 11))
    np.testing.assert_allclose(twice[inside], once[inside], atol=1e-4)
    assert np.abs(once[inside] - images[inside]).max() > 0.5


def test_transformers_deep_in_a_network_train():
    data = mx.sym.Variable("data")
    maps = mx.sym.Convolution(data, num_filter=4, kernel=(3, 3), name="conv")
    parts = [stn.spatial_transformer(maps, stn.localisation_head(maps, transform, name=name),
                                     (6, 6), transform, name)
             for name, transform in (("one", "attention"), ("two", "tps:3"), ("three", "affine"))]
    net = mx.sym.FullyConnected(mx.sym.concat(*parts, dim=1), num_hidden=3, name="fc")
    module = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"), context=DEVICE)
    module.bind([("data", (4, 2, 12, 10))], [("softmax_label", (4,))])
    module.init_params(mx.init.Xavier())
    module.init_optimizer(optimizer="adam")
    start = {name: value.asnumpy() for name, value in module.get_params()[0].items()}
    batch = mx.io.DataBatch([mx.nd.array(pictures(4, 2, 12, 10))], [mx.nd.array([0, 1, 2, 0])])
    for _ in range(2):
        module.forward_backward(batch)
        module.update()
    for name, value in module.get_params()[0].items():
        assert (value.asnumpy() != start[name]).any(), name


# Points and maps


@pytest.mark.parametrize("transform", [*FORMULAS, "tps:2", "tps:7"])
def test_source_points_are_the_grid_in_pixels(transform):
    theta = thetas(transform, 3, 0.2)
    points = stn.source_points(theta, (5, 8), (21, 11), transform)
    expected = np.stack([grid(transform, one, (5, 8)) for one in theta])
    np.testing.assert_allclose(points, (expected + 1) / 2 * (10, 20), atol=1e-9)


@pytest.mark.parametrize(("transform", "theta"), [
    ("rotation", [2e4]), ("affine", [2e4, 0, 1e4, 0, 1, 0]), ("translation", [-3e4, 0])])
def test_source_points_are_those_of_a_theta_within_the_limit(transform, theta):
    """As the transformer itself clips it."""
    limited = np.clip([theta], -stn.LIMIT, stn.LIMIT)
    points, expected = (stn.source_points(each, (5, 8), (21, 11), transform)
                        for each in ([theta], limited))
    np.testing.assert_array_equal(points, expected)


def test_a_family_has_a_reach_for_each_parameter():
    with pytest.raises(ValueError, match="a reach for each parameter: 2 of the identity, 1 of"):
        stn.Affine((1, 0), (0.9,))


def test_no_thetas_have_no_points():
    assert stn.source_points(np.zeros((0, 6)), (5, 8), (21, 11)).shape == (0, 5, 8, 2)
    assert stn.outline(np.zeros((0, 6)), (5, 8), (21, 11)).shape == (0, 23, 2)


def test_the_outline_of_the_identity_goes_around_the_picture():
    border = stn.outline(thetas("affine", 1), (3, 4), (3, 4))[0]
    np.testing.assert_allclose(border, [
        (0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (3, 2), (2, 2), (1, 2), (0, 2), (0, 1), (0, 0)],
        atol=1e-9)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31 - 1))
def test_inverses_undo_and_compositions_compose(seed):
    first, second = thetas("affine", 3, 0.4, seed), thetas("affine", 3, 0.4, seed + 1)
    np.testing.assert_allclose(stn.compose(first, stn.invert(first)), thetas("affine", 3),
                               atol=1e-9)
    np.testing.assert_allclose(stn.invert(mx.nd.array(first)), stn.invert(first), rtol=1e-3)
    points = stn.source_points(second, (4, 5), (3, 3)) - 1  # normalised: 3 pixels are -1, 0, 1
    homogeneous = np.concatenate([points, np.ones((3, 4, 5, 1))], axis=3)
    through = np.einsum("nij,nhwj->nhwi", first.reshape(3, 2, 3), homogeneous)
    composed = stn.source_points(stn.compose(first, second), (4, 5), (3, 3)) - 1
    np.testing.assert_allclose(composed, through, atol=1e-9)


# The symbols


@pytest.mark.parametrize("transform", FAMILIES)
def test_two_builds_are_one_and_all_nodes_are_named_after_the_transformer(transform):
    def build():
        features = mx.sym.Variable("features")
        loc = stn.localisation_head(features, transform, bounded=True, name="a")
        return stn.spatial_transformer(mx.sym.Variable("data"), loc, (6, 7), transform, name="a")

    assert build().tojson() == build().tojson()
    names = {node["name"] for node in json.loads(build().tojson())["nodes"]}
    assert all(name.startswith("a_") for name in names - {"data", "features", "a"})
    assert "a_theta_output" in build().get_internals().list_outputs()


@pytest.mark.parametrize("transform", FAMILIES)
def test_a_prefix_scope_counts_for_every_node(transform):
    with mx.name.Prefix("net_"):
        loc = stn.localisation_head(mx.sym.Variable("features"), transform, bounded=True)
        symbol = stn.spatial_transformer(mx.sym.Variable("data"), loc, (6, 7), transform)
    names = [node["name"] for node in json.loads(symbol.tojson())["nodes"]]
    assert len(set(names)) == len(names)
    assert all(name.startswith("net_stn_") for name in set(names) - {"data", "features", "net_stn"})
    assert "net_stn_theta_output" in symbol.get_internals().list_outputs()


@pytest.mark.parametrize("transform", FAMILIES)
def test_a_second_transformer_needs_a_name_of_its_own(transform):
    loc = stn.localisation_head(mx.sym.Variable("data"), transform)
    first = stn.spatial_transformer(mx.sym.Variable("data"), loc, (6, 7), transform)
    with pytest.raises(ValueError, match="there is a stn_loc_fc2 already .* different names"):
        stn.localisation_head(first, transform)
    for data, theta in ((first, loc), (mx.sym.Variable("data"), mx.sym.Flatten(first))):
        with pytest.raises(ValueError, match="there is a stn already .* different names"):
            stn.spatial_transformer(data, theta, (6, 7), transform)
    second = stn.spatial_transformer(first, loc, (6, 7), transform, name="second")
    assert second.list_outputs() == ["second_output"]


@pytest.mark.parametrize("transform", FAMILIES)
def test_a_theta_of_another_size_is_refused(transform):
    count = len(stn.get_transform(transform).identity)
    shapes = [(2, count + 1), (8, count + 1), (9, count + 1), (2, 2 * count), (2, count, 2),
              (2, count, 3, 3), (2 * count,)]
    for shape in shapes:
        with pytest.raises((mx.MXNetError, RuntimeError)):
            transformed(transform, pictures(shape[0], 1, 9, 9), np.ones(shape), (6, 7))


@pytest.mark.parametrize("options", [{}, {"stable": False}, {"bounded": True}], ids=str)
@pytest.mark.parametrize(("of_head", "transform"), [
    ("rotation", "affine"), ("rotation", "tps"), ("affine", "rotation"), ("tps:2", "tps:3")])
def test_a_head_for_another_transform_is_refused(of_head, transform, options):
    data = mx.sym.Variable("data")
    loc = stn.localisation_head(data, of_head, **options)
    with pytest.raises(ValueError, match="theta has .* parameters, and the transform takes"):
        stn.spatial_transformer(data, loc, (6, 7), transform)
    stn.spatial_transformer(data, loc, (6, 7), of_head)


@pytest.mark.parametrize("transform", FAMILIES)
def test_nothing_but_data_and_theta_goes_in(transform):
    symbol = transform_symbol(transform, (6, 7))
    assert symbol.list_arguments() == ["data", "theta"]
    assert symbol.list_auxiliary_states() == []


def test_it_needs_mxnet_and_numpy_alone():
    lines = inspect.getsource(stn).splitlines()
    assert [line for line in lines if line.startswith(("import", "from"))] == [
        "import json", "from numbers import Integral, Real", "import mxnet as mx",
        "import numpy as np"]


@pytest.mark.parametrize(("transform", "words"), [
    ("tsp", f"no transform 'tsp': there is {', '.join(stn.TRANSFORMS)}, tps:K"),
    ("tps:1", "2 x 2 points or more"), ("tps:0", "2 x 2 points or more"),
    ("tps:", "no transform"), ("tps:-3", "no transform"), ("tps:4.5", "no transform"),
    ("affine:4", "no transform"), (None, "no transform None")])
def test_unknown_transforms_are_refused(transform, words):
    with pytest.raises(ValueError, match=words):
        transform_symbol(transform, (5, 5))
    with pytest.raises(ValueError, match=words):
        stn.localisation_head(mx.sym.Variable("data"), transform)


@pytest.mark.parametrize("target_shape", [(1, 5), (5, 1), (0, 5), (-3, 4), (6.5, 6), 28, (28,),
                                          "28", (28, 28, 1)])
def test_targets_that_are_too_small_are_refused(target_shape):
    with pytest.raises(ValueError, match="at least 2 x 2 pixels, got"):
        transform_symbol("affine", target_shape)


def test_unknown_attributes_are_refused():
    with pytest.raises(ValueError, match="may hold lr_mult, got wd as well"):
        stn.localisation_head(mx.sym.Variable("data"), attr={"lr_mult": 1, "wd": 0})


@pytest.mark.parametrize(("transform", "size"), [
    *(("affine", size) for size in (2, 3, 5, 8, 12, 27, 28, 48, 63, 64)),
    ("translation", 28), ("projective", 28), ("projective", 9), ("tps", 28), ("tps", 13)])
def test_around_a_picture_of_one_colour_the_border_pulls_nowhere(transform, size):
    """All that is sampled has that colour, whatever theta is."""
    identity = stn.get_transform(transform).identity
    symbol = stn.spatial_transformer(mx.sym.Variable("data"), mx.sym.Variable("loc"), (size, size),
                                     transform, outside="border")
    gradient = mx.nd.ones((1, len(identity)))
    executor = symbol.bind(DEVICE, {"data": mx.nd.ones((1, 1, size, size)),
                                    "loc": mx.nd.array([identity])},
                           args_grad={"loc": gradient}, grad_req={"data": "null", "loc": "write"})
    output, = executor.forward(is_train=True)
    executor.backward(mx.nd.ones(output.shape))
    np.testing.assert_allclose(output.asnumpy(), 1, atol=1e-5)
    np.testing.assert_allclose(gradient.asnumpy(), 0, atol=1e-3)


def test_a_family_of_one_s_own_may_have_any_constants():
    half_mirrored = stn.Affine((0,), (1,), lambda _, a: (-1, 0, a, 0, 0.5, 0))
    theta = half_mirrored.affine(mx.sym.Variable("theta"), (4, 4))
    found = theta.bind(mx.cpu(), {"theta": mx.nd.array([[0.25]], mx.cpu())}).forward()[0]
    assert found.asnumpy().tolist() == [[-1, 0, 0.25, 0, 0.5, 0]]


@pytest.mark.parametrize("shape", [(3, 4), (3, 8), (2, 3), (6, 2), (6,), (2, 3, 6), ()])
def test_thetas_that_are_not_affine_are_not_calculated_with(shape):
    for calculate in (stn.invert, lambda theta: stn.compose(theta, theta)):
        with pytest.raises(ValueError, match=r"an affine theta is \(N, 6\), got"):
            calculate(np.ones(shape))


@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 1), (2, 6, 1)])
def test_source_points_of_thetas_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"theta must be \(N, 6\), got"):
        stn.source_points(np.ones(shape), (4, 4), (4, 4))


def test_a_list_is_no_transform():
    with pytest.raises(ValueError, match="no transform .'affine'.: there is "):
        stn.get_transform(["affine"])


def test_pool_may_be_a_number_of_numpy():
    symbol = stn.spatial_transformer(mx.sym.Variable("data"), mx.sym.Variable("loc"), (8, 8),
                                     pool=np.int64(2))
    assert symbol.infer_shape(data=(3, 1, 9, 9), loc=(3, 6))[1] == [(3, 1, 4, 4)]
