import mxnet as mx
import numpy as np
import pytest

from symbols import stn


def sample(images, theta, target_shape):
    """Grid and bilinear sampler in plain NumPy (equations 1 and 5)."""
    n, _, height, width = images.shape
    y, x = np.meshgrid(np.linspace(-1, 1, target_shape[0]), np.linspace(-1, 1, target_shape[1]),
                       indexing="ij")
    target = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])  # (3, points)
    source = theta.reshape(n, 2, 3) @ target  # (N, 2, points)
    column = (source[:, 0] + 1) * (width - 1) / 2
    row = (source[:, 1] + 1) * (height - 1) / 2
    rows, columns = np.arange(height)[:, None], np.arange(width)[:, None]
    by_row = np.maximum(0, 1 - np.abs(row[:, None] - rows))  # (N, H, points)
    by_column = np.maximum(0, 1 - np.abs(column[:, None] - columns))  # (N, W, points)
    warped = np.einsum("nchw,nhp,nwp->ncp", images, by_row, by_column)
    return warped.reshape(n, -1, *target_shape)


def transform(images, theta, target_shape):
    """The same by the symbol."""
    symbol = stn.spatial_transformer(mx.sym.Variable("data"), mx.sym.Variable("theta"),
                                     target_shape)
    executor = symbol.bind(mx.cpu(), {"data": mx.nd.array(images), "theta": mx.nd.array(theta)})
    return executor.forward()[0].asnumpy()


def identities(n):
    return np.tile(np.array(stn.IDENTITY, np.float32), (n, 1))


@pytest.mark.parametrize(("shape", "target_shape"), [
    ((2, 1, 28, 28), (28, 28)), ((3, 4, 9, 14), (9, 14)), ((2, 3, 20, 12), (31, 7)),
    ((1, 2, 5, 40), (2, 2))])
@pytest.mark.parametrize("spread", [0.2, 1.5])  # 1.5 takes most points outside
def test_agrees_with_numpy(shape, target_shape, spread):
    rng = np.random.RandomState(0)
    images = rng.rand(*shape).astype(np.float32)
    theta = identities(shape[0]) + rng.uniform(-spread, spread, (shape[0], 6)).astype(np.float32)
    np.testing.assert_allclose(transform(images, theta, target_shape),
                               sample(images, theta, target_shape), atol=1e-5)


@pytest.mark.parametrize("size", [(5, 5), (28, 28), (17, 33)])
def test_identity(size):
    images = np.random.RandomState(0).rand(2, 3, *size).astype(np.float32)
    np.testing.assert_allclose(transform(images, identities(2), size), images, atol=1e-5)


def test_half_zoom_is_the_centre_crop():
    images = np.random.RandomState(0).rand(2, 1, 9, 9).astype(np.float32)
    theta = np.tile(np.float32([0.5, 0, 0, 0, 0.5, 0]), (2, 1))
    np.testing.assert_allclose(transform(images, theta, (5, 5)), images[:, :, 2:7, 2:7], atol=1e-6)


def test_whole_pixels_to_the_right_shift_to_the_left():
    images = np.random.RandomState(0).rand(1, 1, 9, 9).astype(np.float32)
    theta = np.float32([[1, 0, 2 * 2 / 8, 0, 1, 0]])  # 2 pixels of 8 between -1 and 1
    expected = np.zeros_like(images)
    expected[..., :7] = images[..., 2:]
    np.testing.assert_allclose(transform(images, theta, (9, 9)), expected, atol=1e-6)


def test_gradients_are_the_numerical_ones():
    rng = np.random.RandomState(3)
    data, theta = mx.sym.Variable("data"), mx.sym.Variable("theta")
    symbol = mx.sym.sum(mx.sym.square(stn.spatial_transformer(data, theta, (5, 4))))
    values = {"data": mx.nd.array(rng.rand(2, 2, 6, 7), dtype="float64"),
              "theta": mx.nd.array(identities(2) * 0.83 + rng.uniform(-0.1, 0.1, (2, 6)),
                                   dtype="float64")}
    gradients = {name: mx.nd.zeros_like(value) for name, value in values.items()}
    executor = symbol.bind(mx.cpu(), values, gradients)
    executor.forward(is_train=True)
    executor.backward(mx.nd.ones(1, dtype="float64"))
    for name, value in values.items():
        start, expected = value.asnumpy(), np.zeros(value.shape)
        for place in np.ndindex(*value.shape):
            sums = []
            for step in (-1e-6, 1e-6):
                moved = start.copy()
                moved[place] += step
                value[:] = mx.nd.array(moved, dtype="float64")
                sums.append(executor.forward()[0].asscalar())
            value[:] = mx.nd.array(start, dtype="float64")
            expected[place] = (sums[1] - sums[0]) / 2e-6
        np.testing.assert_allclose(gradients[name].asnumpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("initializer", [mx.init.Xavier(), mx.init.Uniform(5), mx.init.One()])
def test_the_head_starts_at_the_identity_whatever_the_initialiser(initializer):
    theta = stn.localisation_head(mx.sym.Variable("data"))
    module = mx.mod.Module(theta, label_names=None)
    module.bind([("data", (3, 2, 6, 5))], for_training=False)
    module.init_params(initializer)
    module.forward(mx.io.DataBatch([mx.nd.random.uniform(shape=(3, 2, 6, 5))]))
    np.testing.assert_array_equal(module.get_outputs()[0].asnumpy(), identities(3))


def test_unknown_attributes_are_refused():
    with pytest.raises(ValueError, match="may hold lr_mult, got wd as well"):
        stn.localisation_head(mx.sym.Variable("data"), attr={"lr_mult": 1, "wd": 0})
