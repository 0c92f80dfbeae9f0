"""The operators that a symbol from a file may have: what networks for images are made of.

Not here are operators that hold pointers (_NDArray, _Native), call back into Python (Custom), read
files (_cvimread), read memory where their input says (take, pick, gather_nd), hold graphs of their
own (_foreach), and the parts of backward passes. The names with capitals behind an underscore are
of files from before MXNet 1.0.

Networks in int8 have some more, which give whole numbers that no other operators take; and layers
that hold the graph of what oneDNN fuses.
"""
NAMES = """
null Activation BatchNorm BilinearSampler BlockGrad Cast Concat Convolution Crop Deconvolution
Dropout ElementWiseSum Flatten FullyConnected GridGenerator GroupNorm InstanceNorm
L2Normalization LRN LayerNorm LeakyReLU MakeLoss Pad Pooling Reshape SliceChannel
SoftmaxActivation SoftmaxOutput Softmax SpatialTransformer SwapAxis UpSampling
LinearRegressionOutput LogisticRegressionOutput MAERegressionOutput
_contrib_AdaptiveAvgPooling2D _contrib_BilinearResize2D _contrib_arange_like
_contrib_div_sqrt_dim softmax log_softmax softmin make_loss smooth_l1
_arange _copy _eye _full _identity_with_attr_like_rhs _linspace _ones _zeros identity
ones_like zeros_like stop_gradient amp_cast amp_multicast cast
_Div _DivScalar _Maximum _MaximumScalar _Minimum _MinimumScalar _Minus _MinusScalar _Mul
_MulScalar _Plus _PlusScalar _Power _PowerScalar _RDivScalar _RMinusScalar _RPowerScalar
_add _div _div_scalar _equal _equal_scalar _greater _greater_equal _greater_equal_scalar
_greater_scalar _grad_add _hypot _hypot_scalar _lesser _lesser_equal _lesser_equal_scalar
_lesser_scalar _maximum _maximum_scalar _minimum _minimum_scalar _minus _minus_scalar _mod
_mod_scalar _mul _mul_scalar _not_equal _not_equal_scalar _plus _plus_scalar _power
_power_scalar _rdiv_scalar _rminus_scalar _rmod_scalar _rpower_scalar _sub add_n
elemwise_add elemwise_div elemwise_mul elemwise_sub
broadcast_add broadcast_axis broadcast_div broadcast_equal broadcast_greater
broadcast_greater_equal broadcast_hypot broadcast_lesser broadcast_lesser_equal broadcast_like
broadcast_maximum broadcast_minimum broadcast_minus broadcast_mod broadcast_mul
broadcast_not_equal broadcast_plus broadcast_power broadcast_sub broadcast_to
abs arccos arccosh arcsin arcsinh arctan arctanh cbrt ceil clip cos cosh degrees erf exp expm1
fix floor gamma gammaln hard_sigmoid log log10 log1p log2 logical_not negative radians rcbrt
reciprocal relu rint round rsqrt sigmoid sign sin sinh softsign sqrt square tan tanh trunc
argmax argmin max max_axis mean min min_axis moments nanprod nansum norm prod sum sum_axis
batch_dot dot khatri_rao _linalg_det _linalg_gemm _linalg_gemm2 _linalg_inverse _linalg_syrk
linalg_gemm linalg_gemm2 linalg_inverse
concat depth_to_space expand_dims flatten flip pad repeat reshape reshape_like reverse slice
slice_axis slice_like space_to_depth split squeeze stack swapaxes tile transpose where
"""
IN_INT8 = """
_contrib_dequantize _contrib_quantize_v2 _contrib_quantized_act _contrib_quantized_batch_norm
_contrib_quantized_concat _contrib_quantized_elemwise_add _contrib_quantized_flatten
_contrib_quantized_pooling _contrib_requantize
"""
FUSED = frozenset(["_sg_mkldnn_conv", "_sg_mkldnn_fully_connected"])
INT8 = FUSED.union(IN_INT8.split())
OPERATORS = INT8.union(NAMES.split())
SEVERAL_OUTPUTS = {"BatchNorm": 3, "GroupNorm": 3, "LayerNorm": 3, "moments": 2,
                   **dict.fromkeys(INT8 - FUSED - {"_contrib_dequantize"}, 3)}
SPLITS = ("SliceChannel", "split", "amp_multicast")  # which say how many outputs they have
INVERSES = ("_linalg_inverse", "linalg_inverse")  # on some numbers they end the process
FROM_SHAPE = ("_contrib_arange_like", "ones_like", "zeros_like")  # take no numbers of their input
