"""Spatial transformers for symbolic MXNet 1.9: localisation head, grid and sampler.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", 2015
(arXiv 1506.02025). This file needs MXNet alone: lift it into a network of your own.

    loc = localisation_head(features)                      # theta, (N, 6)
    net = spatial_transformer(data, loc, target_shape=(28, 28))

Conventions:
- Images are (N, C, H, W). Points are (x, y), x to the right, y down.
- Coordinates run from -1 to 1 between the centres of the corner pixels, in source and target.
- theta maps a target point to the source point that is sampled there (equation 1):
      (x_s, y_s) = [[theta_1, theta_2, theta_3], [theta_4, theta_5, theta_6]] (x_t, y_t, 1)
- Sampling is bilinear (equation 5); outside the source everything is 0. Hence: sample first and
  normalise afterwards, if the normalised background is not 0.
"""
import mxnet as mx

IDENTITY = (1, 0, 0, 0, 1, 0)


def localisation_head(features, num_hidden=32, attr=None, name="stn"):
    """Regresses theta from the features of a localisation network.

    It starts at the identity, whatever the initialiser: the start is written on the last layer's
    Variables (weight 0, bias the identity) and so stays with the symbol when it is saved as JSON.

    Args:
        features: symbol (N, ...); flattened here.
        num_hidden: units of the layer before the regression.
        attr: ``{"lr_mult": m}``, the factor on the learning rate of both layers; default 1.
        name: prefix of the nodes ``<name>_loc_fc1`` and ``<name>_loc_fc2``.

    Returns:
        theta, symbol (N, 6), its output is named ``<name>_loc_fc2_output``.
    """
    lr_mult = _lr_mult(attr)
    net = mx.sym.Flatten(features, name=f"{name}_loc_flatten")
    net = _dense(net, num_hidden, f"{name}_loc_fc1", lr_mult)
    net = mx.sym.Activation(net, act_type="relu", name=f"{name}_loc_fc1_relu")
    return _dense(net, len(IDENTITY), f"{name}_loc_fc2", lr_mult, weight_init=mx.init.Zero(),
                  bias_init=mx.init.Constant(mx.nd.array(IDENTITY)))


def spatial_transformer(data, loc, target_shape, name="stn"):
    """Warps each image by its own affine map.

    Args:
        data: symbol (N, C, H, W).
        loc: theta, symbol (N, 6), as from ``localisation_head``.
        target_shape: (height, width) of the output in pixels, at least 2 each.
        name: of the node; its output is ``<name>_output``.

    Returns:
        Symbol (N, C, height, width).

    Raises:
        ValueError: the target is too small for coordinates from -1 to 1.
    """
    height, width = target_shape
    if min(height, width) < 2:
        raise ValueError(f"target_shape must be at least 2 x 2 pixels, got {height} x {width}")
    return mx.sym.SpatialTransformer(data, loc, target_shape=(int(height), int(width)),
                                     transform_type="affine", sampler_type="bilinear", name=name)


def _lr_mult(attr):
    attr = dict(attr or {})
    lr_mult = float(attr.pop("lr_mult", 1))
    if attr:
        raise ValueError(f"attr may hold lr_mult, got {', '.join(sorted(attr))} as well")
    return lr_mult


def _dense(net, num_hidden, name, lr_mult, weight_init=None, bias_init=None):
    weight = mx.sym.Variable(f"{name}_weight", lr_mult=lr_mult, init=weight_init)
    bias = mx.sym.Variable(f"{name}_bias", lr_mult=lr_mult, init=bias_init)
    return mx.sym.FullyConnected(net, weight, bias, num_hidden=num_hidden, name=name)
