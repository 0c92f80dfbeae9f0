import mxnet as mx
import numpy as np
import pytest

import symbols
from common.graph.find_transformers import (
    Transformer,
    has_plain_head,
    inside,
    source_grid,
    transformers,
)
from symbols import stn

DATA = mx.sym.Variable("data")
SOURCE, TARGET = (7, 9), (5, 6)  # (height, width)
FAMILIES = [*stn.TRANSFORMS, "tps:3"]
OURS = (stn.Affine, stn.Projective, stn.ThinPlateSpline)


def points(symbol, transformer, theta):
    """What a network samples at for theta: the points of its ``where``."""
    where = symbol.get_internals()[transformer.where]
    value = where.eval(mx.cpu(), theta=mx.nd.array(theta))[0].asnumpy()
    return source_grid(value, transformer)


@pytest.mark.parametrize("outside", stn.OUTSIDE)
@pytest.mark.parametrize("transform", FAMILIES)
def test_the_source_points_are_those_of_stn(transform, outside):
    symbol = stn.spatial_transformer(DATA, mx.sym.Variable("theta"), TARGET, transform,
                                     outside=outside)
    (transformer,) = transformers(symbol)
    identity = np.array([stn.get_transform(transform).identity])
    theta = identity + np.random.RandomState(0).uniform(-0.2, 0.2, (3, identity.size))
    found = points(symbol, transformer, theta)
    expected = stn.source_points(theta, TARGET, SOURCE, transform)
    assert found.shape == (3, *TARGET, 2)
    if isinstance(stn.get_transform(transform), OURS):  # others may stay inside
        assert (np.abs(found) > 1.01).any()  # where they are, not the border that is sampled
    np.testing.assert_allclose((found + 1) / 2 * (SOURCE[1] - 1, SOURCE[0] - 1), expected,
                               atol=1e-5)


@pytest.mark.parametrize(("transform", "where", "target_shape"), [
    ("affine", "stn_theta_output", (28, 28)),
    ("rotation", "stn_grid_concat0_output", (28, 28)),
    ("projective", None, None), ("tps", None, None)])
def test_a_transformer_of_the_zoo(transform, where, target_shape):
    (found,) = transformers(symbols.get_symbol("lenet", transform=transform))
    assert found == Transformer("stn", "stn_data_copy_output", where or found.where,
                                "stn_theta_output", target_shape)
    assert found.where.startswith("stn_")


def test_several_come_in_the_order_of_the_graph():
    names = [found.name for found in transformers(symbols.get_symbol("addition"))]
    assert names == ["stn0", "stn1"]
    assert transformers(symbols.get_symbol("lenet", add_stn=False)) == []


@pytest.mark.parametrize("network", sorted(symbols.NETWORKS))
def test_a_plain_head_is_told_from_a_stable_one(network):
    for options, plain in (({"stable": False}, True), ({"stable": True}, False),
                           ({"add_stn": False}, False)):
        assert has_plain_head(symbols.get_symbol(network, **options)) == plain


def test_transformers_from_elsewhere():
    theta, maps = mx.sym.Variable("theta"), mx.sym.split(DATA, num_outputs=2, name="maps")
    first = mx.sym.SpatialTransformer(maps[1], theta, target_shape=(4, 5), name="warp",
                                      transform_type="affine", sampler_type="bilinear")
    grid = mx.sym.GridGenerator(theta, transform_type="affine", target_shape="[4, 5]", name="grid")
    flow = mx.sym.GridGenerator(mx.sym.Variable("flow"), transform_type="warp", name="flow_grid")
    found = transformers(mx.sym.Group([
        first, mx.sym.BilinearSampler(DATA, grid, name="affine"),
        mx.sym.BilinearSampler(DATA, flow, name="warped"),
        mx.sym.BilinearSampler(DATA, mx.sym.Variable("grid"), name="bare")]))
    assert found == [
        Transformer("warp", "maps_output1", "theta", "theta", (4, 5)),
        Transformer("affine", "data", "theta", "theta", (4, 5)),
        Transformer("warped", "data", "flow_grid_output", "flow_grid_output", None),
        Transformer("bare", "data", "grid", "grid", None)]


def test_the_points_of_a_grid_generator_are_those_of_the_transformer():
    theta = np.array([[0.9, 0.2, -0.1, 0.1, 1.1, 0.3]])
    grid = mx.sym.GridGenerator(mx.sym.Variable("theta"), "affine", target_shape=TARGET)
    symbol = mx.sym.BilinearSampler(DATA, grid, name="sampler")
    sampler, = transformers(symbol)
    expected = grid.eval(theta=mx.nd.array(theta))[0].asnumpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(points(symbol, sampler, theta), expected, atol=1e-6)


@pytest.mark.parametrize("transform", FAMILIES)
def test_the_identity_is_inside(transform):
    symbol = stn.spatial_transformer(DATA, mx.sym.Variable("theta"), (60, 41), transform)
    (transformer,) = transformers(symbol)
    identity = [stn.get_transform(transform).identity]
    assert inside(points(symbol, transformer, identity)) == [1]


def test_the_fraction_inside():
    grid = np.zeros((3, 2, 2, 2))
    grid[1, 0, 0] = (1.01, 0)
    grid[1, 0, 1] = (1, -1)  # the centre of a corner pixel
    grid[2] = -3
    np.testing.assert_array_equal(inside(grid), [1, 0.75, 0])
