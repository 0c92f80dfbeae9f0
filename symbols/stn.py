"""Spatial transformers for symbolic MXNet 1.9: localisation head, grid and sampler.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", 2015
(arXiv 1506.02025). This file needs MXNet and NumPy alone: lift it into a network of your own.

    loc = localisation_head(features, "affine")            # theta, (N, 6)
    net = spatial_transformer(data, loc, (28, 28), "affine")

Conventions:
- Images are (N, C, H, W). Points are (x, y), x to the right, y down.
- Coordinates run from -1 to 1 between the centres of the corner pixels, in source and target.
- theta says for a target point (x, y) at which source point to sample (equation 1):

    transform    parameters               source point
    translation  a, b                     x + a, y + b
    attention    s, a, b                  s x + a, s y + b
    rotation     t                        (x, y) turned by t
    similarity   s, t, a, b               s (x, y) turned by t, plus (a, b)
    affine       a, b, c, d, e, f         a x + b y + c, d x + e y + f
    projective   a, b, c, d, e, f, g, h   the affine one divided by g x + h y + 1
    tps:K        K K x's, K K y's         thin plate spline that takes the points of a regular
                                          K x K lattice over the target to these; "tps" is "tps:4"

- An angle t is in radians; the grid turns clockwise, so the picture turns counter-clockwise. Turns
  are rigid in the target's pixels, also where it is a rectangle.
- Sampling is bilinear (equation 5). Outside the source everything is 0; where its background is not
  0, as in photographs or behind a normalisation, outside="border" goes on with its edge.
- Any finite theta gives a finite grid: theta is clipped to +-10,000 and the projective denominator
  kept 0.0001 away from 0.

Several transformers side by side or in a row need different names:

    parts = [spatial_transformer(maps, loc, (14, 14), name=name) for name, loc in heads.items()]
"""
import json
from numbers import Integral, Real

import mxnet as mx
import numpy as np

LIMIT = 1e4  # of theta: past it the sampler's weights overflow, and 0 * inf is NaN
SMALLEST_DENOMINATOR = 1e-4
OUTSIDE = ("zero", "border")  # what is sampled outside the source
# Where points beyond the last column or row go: on it, MXNet differentiates against a 0 beyond.
LAST = 1 - 2**-23
# The axis of each image's numbers, (N, K), from the end: along axis 1 MXNet has oneDNN put them
# together, and loses a kilobyte for each in every backward pass.
COLUMNS = -1
PACE, COMMON = 0.1, 0.01  # what the stable head takes of gradients: see ``localisation_head``


class Transform:
    """A family of maps from the target's points to the source's.

    Attributes:
        identity: theta of the map that moves nothing, a tuple with a number for each parameter.
        reach: how far from there a bounded parameter may go, likewise.
    """

    def __init__(self, identity, reach):
        if len(identity) != len(reach):
            raise ValueError(f"a reach for each parameter: {len(identity)} of the identity, "
                             f"{len(reach)} of the reach")
        self.identity, self.reach = identity, reach

    def grid(self, theta, target_shape):
        """The source points (N, 2, height, width), symbol, for theta (N, parameters), symbol."""
        raise NotImplementedError

    def sampled(self, data, theta, target_shape, name, outside="zero"):
        """The images (N, C, H, W) that theta warps; ``name`` is of the last node."""
        with mx.name.Prefix(f"{name}_grid_"):
            grid = self.grid(theta, target_shape)  # (N, 2, height, width)
            if outside == "border":
                grid = mx.sym.clip(grid, a_min=-1, a_max=LAST, name="border")
        return mx.sym.BilinearSampler(data, grid, name=name)

    def bounded(self, theta):
        """theta with each parameter squashed into identity +- reach; slope 1 at the identity."""
        columns = mx.sym.split(theta, num_outputs=len(self.identity), axis=1)
        return mx.sym.concat(*[
            mx.sym.tanh((columns[index] - centre) / reach) * reach + centre
            for index, (centre, reach) in enumerate(zip(self.identity, self.reach))], dim=COLUMNS)


class Affine(Transform):
    """Affine maps, or some of them.

    Attributes:
        entries: function that makes the six entries of the affine theta, row by row, from the
            target's (width - 1) / (height - 1) and the parameters' columns (N, 1); some may be mere
            numbers. None where the parameters are those entries.
    """

    def __init__(self, identity, reach, entries=None):
        super().__init__(identity, reach)
        self.entries = entries

    def affine(self, theta, target_shape):
        """The affine theta (N, 6) of the same map."""
        if self.entries is None:
            return theta
        height, width = target_shape
        count = len(self.identity)
        columns = mx.sym.split(theta, num_outputs=count, axis=1)
        entries = self.entries((width - 1) / (height - 1), *(columns[i] for i in range(count)))
        constants = {0: mx.sym.zeros_like(columns[0]), 1: mx.sym.ones_like(columns[0])}
        for entry in entries:
            if isinstance(entry, Real) and entry not in constants:
                constants[entry] = constants[1] * entry
        return mx.sym.concat(*[constants[entry] if isinstance(entry, Real) else entry
                               for entry in entries], dim=COLUMNS)

    def grid(self, theta, target_shape):
        matrix = mx.sym.reshape(self.affine(theta, target_shape), shape=(0, 2, 3))
        return _as_grid(mx.sym.dot(matrix, _homogeneous(_lattice(theta, target_shape))),
                        target_shape)

    def sampled(self, data, theta, target_shape, name, outside="zero"):
        if outside != "zero":
            return super().sampled(data, theta, target_shape, name, outside)
        with mx.name.Prefix(f"{name}_grid_"):
            affine = self.affine(theta, target_shape)  # (N, 6)
        return mx.sym.SpatialTransformer(data, affine, target_shape=target_shape, name=name,
                                         transform_type="affine", sampler_type="bilinear")


# The six entries of affine thetas, for ``Affine``. Turns are rigid in pixels: where coordinates run
# from -1 to 1 over a width that is ``aspect`` times the height, turning by t is
#     x' = cos t x - sin t / aspect y
#     y' = aspect sin t x + cos t y

def _translation(_, a, b):
    return 1, 0, a, 0, 1, b


def _attention(_, s, a, b):
    return s, 0, a, 0, s, b


def _rotation(aspect, t):
    return (mx.sym.cos(t), mx.sym.sin(t) / -aspect, 0,
            mx.sym.sin(t) * aspect, mx.sym.cos(t), 0)


def _similarity(aspect, s, t, a, b):
    return (s * mx.sym.cos(t), s * mx.sym.sin(t) / -aspect, a,
            s * mx.sym.sin(t) * aspect, s * mx.sym.cos(t), b)


class Projective(Transform):
    """Projective maps with a last entry of 1."""

    def __init__(self):
        super().__init__((1, 0, 0, 0, 1, 0, 0, 0), (0.9, 0.9, 1, 0.9, 0.9, 1, 0.45, 0.45))

    def grid(self, theta, target_shape):
        # x' = (a x + b y + c) / (g x + h y + 1)
        # y' = (d x + e y + f) / (g x + h y + 1)
        lattice = _lattice(theta, target_shape)
        rows = [mx.sym.slice_axis(theta, axis=1, begin=begin, end=end)
                for begin, end in ((0, 3), (3, 6), (6, 8))]
        # Row by row, because MXNet is slow at dividing by what has to be broadcast.
        x, y = (mx.sym.dot(row, _homogeneous(lattice)) for row in rows[:2])  # (N, target points)
        denominator = mx.sym.dot(rows[2], lattice) + 1
        too_small = mx.sym.abs(denominator) < SMALLEST_DENOMINATOR
        denominator = denominator + too_small * (2 * SMALLEST_DENOMINATOR)
        return _as_grid(mx.sym.stack(x / denominator, y / denominator, axis=1), target_shape)


class ThinPlateSpline(Transform):
    """Thin plate splines that take a regular lattice over the target to the points in theta.

    What depends on the lattice alone is computed in the graph, so that nothing of it is a
    parameter that could be trained, decayed or lost.

    Args:
        size: points in each row and column of the lattice, at least 2.
    """

    def __init__(self, size=4):
        if size < 2:
            raise ValueError(f"a thin plate spline needs 2 x 2 points or more, got {size} x {size}")
        self.size = size
        y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
        super().__init__(tuple(np.concatenate([x.ravel(), y.ravel()]).tolist()),
                         (1,) * (2 * size * size))

    def grid(self, theta, target_shape):
        control = _lattice(theta, (self.size, self.size))
        moves = mx.sym.broadcast_sub(mx.sym.reshape(theta, shape=(0, 2, self.size ** 2)),
                                     mx.sym.expand_dims(control, axis=0))
        weights = mx.sym.broadcast_add(mx.sym.dot(moves, self._solution(theta, control)),
                                       mx.sym.expand_dims(_staying(control), axis=0))
        terms = mx.sym.concat(_kernel(theta, (self.size, self.size), target_shape),
                              _homogeneous(_lattice(theta, target_shape)), dim=0)
        return _as_grid(mx.sym.dot(weights, terms), target_shape)

    def bounded(self, theta):
        control = mx.sym.reshape(_lattice(theta, (self.size, self.size)), shape=(1, -1))
        moves = mx.sym.tanh(mx.sym.broadcast_sub(theta, control) / self.reach[0]) * self.reach[0]
        return mx.sym.broadcast_add(moves, control)

    def _solution(self, theta, control):
        """What turns the moves of the control points into weights, (points, points + 3).

        The spline that moves the control points c by the values v moves a point p by
            f(p) = sum_i w_i U(|p - c_i|) + A (p, 1),    U(r) = r^2 log r^2
        and its weights solve
            [w A] [ K   P ] = [v 0],    K_ij = U(|c_i - c_j|),  P_i = (c_i, 1)
                  [ P^T 0 ]
        So [w A] = v . (the first rows of the inverse).
        """
        shape, affine = (self.size, self.size), _homogeneous(control)
        corner = mx.sym.zeros_like(mx.sym.dot(affine, affine, transpose_b=True))
        system = mx.sym.concat(
            mx.sym.concat(_kernel(theta, shape, shape), affine, dim=0),
            mx.sym.concat(mx.sym.transpose(affine), corner, dim=0), dim=1)
        inverse = mx.sym.linalg.inverse(system)
        # One Newton step: in float32, MXNet's inverse of a 10 x 10 lattice is right to 0.004 only.
        inverse = 2 * inverse - mx.sym.dot(mx.sym.dot(inverse, system), inverse)
        return mx.sym.slice_axis(inverse, axis=0, begin=0, end=self.size ** 2)


TRANSFORMS = {
    "translation": Affine((0, 0), (1, 1), _translation),
    "attention": Affine((1, 0, 0), (0.9, 1, 1), _attention),
    "rotation": Affine((0,), (np.pi,), _rotation),
    "similarity": Affine((1, 0, 0, 0), (0.9, np.pi, 1, 1), _similarity),
    "affine": Affine((1, 0, 0, 0, 1, 0), (0.9, 0.9, 1, 0.9, 0.9, 1)),
    "projective": Projective(),
    "tps": ThinPlateSpline(),
}


def get_transform(transform):
    """The ``Transform`` of a name.

    Args:
        transform: a key of ``TRANSFORMS``, "tps:K" for a spline with K x K points, or a Transform.

    Raises:
        ValueError: there is none of that name, or K is not a whole number from 2.
    """
    if isinstance(transform, Transform):
        return transform
    name = str(transform)
    family, _, size = name.partition(":")
    if family == "tps" and size.isdecimal():
        return ThinPlateSpline(int(size))
    if name not in TRANSFORMS:
        raise ValueError(f"no transform {transform!r}: there is {', '.join(TRANSFORMS)}, tps:K")
    return TRANSFORMS[name]


def localisation_head(features, transform="affine", num_hidden=32, attr=None, bounded=False,
                      name="stn", stable=True, common=COMMON):
    """Regresses theta from the features of a localisation network.

    In a Module it starts at the identity, whatever the initialiser: the start and the lr_mult are
    written on the Variables (weight 0, bias the identity), and so stay with the symbol when it is
    saved as JSON. Gluon's SymbolBlock reads neither: set them on its Parameters. Nor do FeedForward
    and an initialiser that is asked for a mere name: give it an InitDesc with the attributes.

    A step of SGD moves theta by rate x gradient x |h|^2, h being what the last layer sees. The
    gradient is steep and most of it common to all images of a batch, which learn nothing from
    moving together, but leave the picture, and do not come back: outside all is 0, and so is the
    sampler's gradient. Hence, in the stable head,

    - h has length 1;
    - of the gradient that a batch has in common, on each device, only the part ``common`` goes
      through;
    - the last layer gets ``PACE`` times its gradient.

    Adam and its kin divide by the size of the gradient, so that its factors change nothing there.

    Args:
        features: symbol (N, ...); flattened here.
        transform: as for ``get_transform``.
        num_hidden: units of the layer before the regression.
        attr: ``{"lr_mult": m}``, the factor on the learning rate of both layers; default 1, in
            whatever AttrScope.
        bounded: whether each parameter is kept near the identity's: scales, and the diagonal of a
            matrix, from 0.1 to 1.9 and the rest of it up to 0.9, shifts and points of a spline up
            to 1 (half the picture), angles up to a half turn, the projective denominator from 0.1.
        name: prefix of the nodes ``<name>_loc_fc1`` and ``<name>_loc_fc2``.
        stable: whether it is the stable head, which needs no other lr_mult than 1; else the
            paper's, which many a rate kills, but which takes fewer operators.
        common: of the stable head. Iterated transformers need more: see ``steps.common_in``.

    Returns:
        theta, symbol (N, parameters of the transform).

    Raises:
        ValueError: no such transform, an ``attr`` other than lr_mult, or a name that the features
            come from.
    """
    transform, lr_mult, name = get_transform(transform), _lr_mult(attr), full_name(name)
    _check_new(f"{name}_loc_fc2", features)
    with mx.name.NameManager():
        net = mx.sym.Flatten(features, name=f"{name}_loc_flatten")
        net = _dense(net, num_hidden, f"{name}_loc_fc1", lr_mult)
        net = mx.sym.Activation(net, act_type="relu", name=f"{name}_loc_fc1_relu")
        if stable:
            net = mx.sym.L2Normalization(net, mode="instance", name=f"{name}_loc_fc1_unit")
        theta = _dense(net, len(transform.identity), f"{name}_loc_fc2", lr_mult,
                       weight_init=mx.init.Zero(),
                       bias_init=mx.init.Constant(mx.nd.array(transform.identity)),
                       pace=PACE if stable else 1)
        if stable:
            theta = _less_in_common(theta, common, f"{name}_loc_fc2")
    if not bounded:
        return theta
    with mx.name.Prefix(f"{name}_loc_bounded_"):
        return transform.bounded(theta)


def spatial_transformer(data, loc, target_shape, transform="affine", name="stn", pool=1,
                        outside="zero"):
    """Warps each image by its own map.

    Args:
        data: symbol (N, C, H, W).
        loc: theta, symbol (N, parameters of the transform), as from ``localisation_head``.
        target_shape: (height, width) of the output in pixels, at least 2 each.
        transform: as for ``get_transform``.
        name: of the node, whose output is ``<name>_output``; that of ``<name>_theta`` is theta.
        pool: the target is averaged over squares of that many pixels, so that a picture which the
            map makes smaller loses less; the node is ``<name>_pool``.
        outside: "zero", or "border" for the nearest pixel of the source.

    Returns:
        Symbol (N, C, height, width), or of a ``pool``-th of that size.

    Raises:
        ValueError: no such transform or outside, theta is from a head for another number of
            parameters, a name that data or theta come from, or the target is too small for
            coordinates from -1 to 1, or for the pooling.
    """
    transform, target_shape = get_transform(transform), _checked(target_shape)
    check_head(loc, len(transform.identity))
    if outside not in OUTSIDE:
        raise ValueError(f"outside must be {' or '.join(OUTSIDE)}, got {outside!r}")
    if not isinstance(pool, Integral) or not 1 <= pool <= min(target_shape):
        raise ValueError(f"pool must be a whole number from 1 to {min(target_shape)}, got {pool!r}")
    name, pool = full_name(name), int(pool)
    _check_new(name, data, loc)
    # Copies for this transformer alone: where gradients are to be added, as from 8 consumers of a
    # tensor on, SpatialTransformer and clip overwrite them. The attribute keeps MXNet from merging
    # the copies of several transformers; not those of one that is composed several times.
    own = {"__transformer__": name}
    with mx.name.NameManager():
        data = _copy_of(data, f"{name}_data_copy", own)
        # A copy that refuses other numbers of parameters, all but a single one; MXNet's reshape
        # would take any.
        theta = mx.sym.broadcast_to(loc, shape=(0, len(transform.identity)),
                                    name=f"{name}_loc_copy", attr=own)
        theta = mx.sym.clip(theta, a_min=-LIMIT, a_max=LIMIT, name=f"{name}_theta")
        net = transform.sampled(data, theta, target_shape, name, outside)
        if pool == 1:
            return net
        return mx.sym.Pooling(net, pool_type="avg", kernel=(pool, pool), stride=(pool, pool),
                              name=f"{name}_pool")


def source_points(theta, target_shape, source_shape, transform="affine"):
    """Where each pixel of the target is sampled, in pixels of the source.

    Args:
        theta: array or NDArray (N, parameters of the transform).
        target_shape: (height, width) of the target in pixels.
        source_shape: (height, width) of the source in pixels.
        transform: as for ``get_transform``.

    Returns:
        NumPy array (N, height, width, 2) of points (x, y); (0, 0) is the centre of the top left
        pixel.

    Raises:
        ValueError: theta has another shape, or as ``spatial_transformer``.
    """
    transform, theta = get_transform(transform), mx.nd.array(theta, mx.cpu(), "float64")
    if theta.ndim != 2 or theta.shape[1] != len(transform.identity):
        raise ValueError(f"theta must be (N, {len(transform.identity)}), got {theta.shape}")
    target_shape = _checked(target_shape)
    if not len(theta):  # of which MXNet makes no grid
        return np.zeros((0, *target_shape, 2))
    limited = mx.sym.clip(mx.sym.Variable("theta"), a_min=-LIMIT, a_max=LIMIT)
    grid = transform.grid(limited, target_shape)
    grid = grid.bind(mx.cpu(), {"theta": theta}).forward()[0].asnumpy()
    height, width = source_shape
    return (grid.transpose(0, 2, 3, 1) + 1) / 2 * (width - 1, height - 1)


def outline(theta, target_shape, source_shape, transform="affine"):
    """The border of the target, drawn on the source: see ``source_points``.

    Returns:
        NumPy array (N, 2 (height + width) - 3, 2) of points (x, y) in pixels of the source, once
        around, clockwise in the target from its top left pixel and back to it.
    """
    return border(source_points(theta, target_shape, source_shape, transform))


def border(points):
    """The outermost of points (N, height, width, 2): see ``outline``."""
    return np.concatenate([points[:, 0], points[:, 1:, -1], points[:, -1, -2::-1],
                           points[:, -2::-1, 0]], axis=1)


def compose(first, second):
    """The affine theta (N, 6) of two transformers in a row, ``first`` nearer to the source.

    Raises ValueError if one is not (N, 6).
    """
    return (_square(first) @ _square(second))[:, :2].reshape(-1, 6)


def invert(theta):
    """The affine theta (N, 6) that undoes one.

    Raises ValueError if that is not (N, 6), numpy.linalg.LinAlgError if nothing undoes it.
    """
    return np.linalg.inv(_square(theta))[:, :2].reshape(-1, 6)


def _copy_of(data, name, attr):
    """A copy of a symbol (N, C, H, W).

    MXNet 1.9.1 leaves out identities and dropouts when it predicts, and loses an input that goes
    through two of them in a row; hence another operator behind one of those.
    """
    graph = json.loads(data.tojson())
    if graph["nodes"][graph["heads"][0][0]]["op"] in ("_copy", "Dropout"):
        return mx.sym.reshape(data, shape=(0, 0, 0, 0), name=name, attr=attr)
    return mx.sym.identity(data, name=name, attr=attr)


def _checked(target_shape):
    if (not isinstance(target_shape, (tuple, list)) or len(target_shape) != 2
            or not all(isinstance(size, Integral) and size >= 2 for size in target_shape)):
        raise ValueError("target_shape must be (height, width) of at least 2 x 2 pixels, "
                         f"got {target_shape!r}")
    return tuple(map(int, target_shape))


def full_name(name):
    """A name as the caller's ``mx.name.Prefix`` scopes make it."""
    return mx.sym.zeros(1, name=name).name


def check_head(loc, count):
    """Raises ValueError if a ``localisation_head`` made another number of parameters.

    MXNet refuses most of them, but later, and takes a single one for all.
    """
    prefix, _, last = (loc.name or "").rpartition("_loc_")
    if last in ("fc2", "fc2_stable") or last.startswith("bounded_"):
        made = int(loc.attr_dict().get(f"{prefix}_loc_fc2", {}).get("num_hidden", count))
        if made != count:
            raise ValueError(f"theta has {made} parameters, and the transform takes {count}: "
                             "give both functions the same")


def _check_new(name, *symbols):
    """Raises ValueError if there is a node of that name behind symbols."""
    for symbol in symbols:
        if f"{name}_output" in symbol.get_internals().list_outputs():
            raise ValueError(f"there is a {name} already before this one: transformers in a row, "
                             "or side by side, need different names, name=\"stn0\", \"stn1\", ...")


def _line(like, count):
    """Numbers at equal distances from -1 to 1, (1, count), in the type of theta."""
    one = mx.sym.ones_like(mx.sym.slice(like, begin=(0, 0), end=(1, 1)))
    one = mx.sym.broadcast_to(mx.sym.BlockGrad(one), shape=(1, count))
    return mx.sym.contrib.arange_like(one, start=-1, step=2 / (count - 1), axis=1)


def _lattice(like, shape):
    """The points of a regular lattice from -1 to 1, (2, height * width), in the type of theta."""
    height, width = shape
    x = mx.sym.reshape(_line(like, width), shape=(1, 1, width))
    y = mx.sym.reshape(_line(like, height), shape=(1, height, 1))
    points = [mx.sym.broadcast_to(part, shape=(1, height, width)) for part in (x, y)]
    return mx.sym.reshape(mx.sym.concat(*points, dim=0), shape=(2, height * width))


def _homogeneous(points):
    """Points (2, P) with a third coordinate of 1, (3, P)."""
    one = mx.sym.ones_like(mx.sym.slice_axis(points, axis=0, begin=0, end=1))
    return mx.sym.concat(points, one, dim=0)


def _as_grid(points, target_shape):
    return mx.sym.reshape(points, shape=(0, 2, *target_shape))


def _kernel(like, first, second):
    """r^2 log r^2 for half the distances from the points of a lattice to another's, as (P, Q).

    Whole distances would give the same splines from a system that is less well conditioned.

    Args:
        like: theta, whose type it has.
        first, second: (height, width) of the lattices.
    """
    # r^2 = dy^2 + dx^2: a lattice has few different dy and dx.
    down, across = (mx.sym.square(mx.sym.broadcast_sub(
        mx.sym.reshape(_line(like, here), shape=(here, 1)), _line(like, there)) / 2)
        for here, there in zip(first, second))
    squares = mx.sym.broadcast_add(
        mx.sym.reshape(down, shape=(first[0], 1, second[0], 1)),
        mx.sym.reshape(across, shape=(1, first[1], 1, second[1])))
    squares = mx.sym.reshape(squares, shape=(first[0] * first[1], second[0] * second[1]))
    return squares * mx.sym.log(mx.sym.maximum(squares, 1e-30))


def _staying(control):
    """The weights of the spline that moves nothing: 0, and an affine part that gives (x, y)."""
    one = mx.sym.ones_like(mx.sym.slice(control, begin=(0, 0), end=(1, 1)))
    zero = mx.sym.zeros_like(one)
    affine = mx.sym.reshape(mx.sym.concat(one, zero, zero, zero, one, zero, dim=1), shape=(2, 3))
    return mx.sym.concat(mx.sym.zeros_like(control), affine, dim=1)


def _square(theta):
    theta = theta.asnumpy() if isinstance(theta, mx.nd.NDArray) else theta
    theta = np.asarray(theta, dtype=np.float64)
    if theta.ndim != 2 or theta.shape[1] != 6:
        raise ValueError(f"an affine theta is (N, 6), got {theta.shape}")
    rows = theta.reshape(-1, 2, 3)
    return np.concatenate([rows, np.tile([[[0, 0, 1]]], (len(rows), 1, 1))], axis=1)


def _lr_mult(attr):
    attr = dict(attr or {})
    lr_mult = float(attr.pop("lr_mult", 1))
    if attr:
        raise ValueError(f"attr may hold lr_mult, got {', '.join(sorted(attr))} as well")
    return lr_mult


def _dense(net, num_hidden, name, lr_mult, weight_init=None, bias_init=None, pace=1):
    weight = mx.sym.Variable(f"{name}_weight", lr_mult=lr_mult, init=weight_init)
    bias = mx.sym.Variable(f"{name}_bias", lr_mult=lr_mult, init=bias_init)
    if pace != 1:
        weight, bias = _paced(weight, pace), _paced(bias, pace)
    return mx.sym.FullyConnected(net, weight, bias, num_hidden=num_hidden, name=name)


def _paced(parameter, pace):
    """A parameter whose gradient is ``pace`` times what it would be; its value is its own."""
    with mx.name.Prefix(f"{parameter.name}_"):
        fixed = mx.sym.BlockGrad(parameter, name="fixed")
        return mx.sym.elemwise_add(fixed, (parameter - fixed) * pace, name="paced")


def _less_in_common(theta, share, name):
    """theta, but of the mean gradient of a batch's images only a share goes through."""
    with mx.name.Prefix(f"{name}_"):
        common = mx.sym.mean(theta, axis=0, keepdims=True, name="common")
        nothing = (mx.sym.BlockGrad(common, name="common_fixed") - common) * (1 - share)
        return mx.sym.broadcast_add(theta, nothing, name="stable")
