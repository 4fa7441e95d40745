"""The functions of `repops.functional`, named as in torch or torch.nn.functional; known without importing torch."""

from __future__ import annotations

TORCH = (
    *("add", "sub", "mul", "div", "neg", "abs", "sign", "maximum", "minimum", "clamp", "pow", "reciprocal", "square"),
    *("sqrt", "rsqrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p"),
    *("tanh", "sigmoid", "erf", "sin", "cos"),
    *("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "logical_not", "where"),
    *("sum", "mean", "amax", "amin", "var", "any", "all", "softmax", "log_softmax"),
    *("matmul", "mm", "bmm", "addmm", "baddbmm"),
    *("permute", "transpose", "reshape", "cat", "stack", "gather", "index_select", "clone"),
)
NN = (
    *("relu", "gelu", "silu", "softplus", "leaky_relu", "linear", "layer_norm", "rms_norm", "embedding"),
    *("scaled_dot_product_attention", "cross_entropy", "nll_loss", "mse_loss", "pad"),
)
FUNCTIONS = frozenset((*TORCH, *NN))
