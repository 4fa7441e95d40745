"""The one table of operators of profile RO-1 (docs/spec/operators.md).

Everything that the library knows about an operator hangs on its row: its name, its shape rule, its float64 twin, and
what the executor may do with it. The kernels in `csrc/kernels` and the RepVM programs in `repops/vm/programs` are found
by name; tests hold their lists against this table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from repops.dtypes import DType
from repops.ops import rules, twins
from repops.ops.rules import Rule
from repops.ops.twins import Array, Twin

_F32, _I64, _I32, _BOOL = DType.F32, DType.I64, DType.I32, DType.BOOL


@dataclass(frozen=True)
class Operator:
    """One row of the table.

    rule: raises RuleViolation for a node that does not fit. twin: the same mathematics in float64. in_place: the output
    may take the memory of an input of the same dtype and element count, because an element depends on the elements of
    the same index only. fused: the fused kernel of the groups found from this operator (`repops.fuse`), "" if there is
    none.
    """

    name: str
    rule: Rule
    twin: Twin
    in_place: bool = False
    fused: str = ""


# The operator from which each group that a fused kernel computes is found; mostly the last.
_FUSED = {
    "softmax": "softmax_forward",
    "log_softmax": "log_softmax_forward",
    "layer_norm": "layer_norm_forward",
    "layer_norm_grad": "layer_norm_backward",
    "attention_out": "attention_forward",
    "attention_dk": "attention_backward",
    "sub": "adamw",
    "scatter": "cross_entropy_backward",
    "mul": "softmax_backward",
    "exp": "log_softmax_backward",
}


def _rows(rule: Rule, **by_name: Callable[..., Array]) -> list[Operator]:
    """Pointwise operators with one rule; each name with its function in float64."""
    return [
        Operator(
            name,
            rule,
            twins.pointwise(function),
            in_place=True,
            fused=_FUSED.get(name, ""),
        )
        for name, function in by_name.items()
    ]


def _sums(arity: int, **by_name: Callable[..., Array]) -> list[Operator]:
    """f32 sums of a function of the inputs; each name with its term in float64."""
    return [Operator(name, rules.reduction(arity), twins.reduction(term)) for name, term in by_name.items()]


def _attention(**by_name: Twin) -> list[Operator]:
    names = {f"attention_{name}": twin for name, twin in by_name.items()}
    return [Operator(n, rules.attention(n), twin, fused=_FUSED.get(n, "")) for n, twin in names.items()]


def _pools(**by_name: Twin) -> list[Operator]:
    return [Operator(name, rules.pool(name), twin) for name, twin in by_name.items()]


_POINTWISE = rules.pointwise

_ROWS: list[Operator] = [
    *_rows(
        _POINTWISE("T", "T", out="T"),
        add=np.add,
        sub=np.subtract,
        mul=np.multiply,
        maximum=np.maximum,
        minimum=np.minimum,
    ),
    *_rows(_POINTWISE("T", out="T"), neg=np.negative, abs=np.abs),
    *_rows(_POINTWISE(_F32, _F32, out=_F32), div=np.divide, pow=np.power),
    *_rows(
        _POINTWISE(_F32, out=_F32),
        sqrt=np.sqrt,
        rsqrt=lambda x: 1 / np.sqrt(x),
        exp=np.exp,
        exp2=np.exp2,
        expm1=np.expm1,
        log=np.log,
        log2=np.log2,
        log10=np.log10,
        log1p=np.log1p,
        sin=np.sin,
        cos=np.cos,
        softplus=lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
        tanh=np.tanh,
        sigmoid=twins.sigmoid,
        erf=twins.erf,
        gelu_erf=twins.gelu_erf,
        gelu_tanh=twins.gelu_tanh,
        silu=lambda x: x * twins.sigmoid(x),
        relu=lambda x: np.maximum(x, 0.0),
    ),
    *_rows(
        _POINTWISE(_F32, _F32, out=_F32),
        relu_grad=lambda dy, y: np.where(y <= 0, 0.0, dy),
        tanh_grad=lambda dy, y: dy * (1 - y * y),
        sigmoid_grad=lambda dy, y: dy * y * (1 - y),
        silu_grad=twins.silu_grad,
        gelu_erf_grad=twins.gelu_erf_grad,
        gelu_tanh_grad=twins.gelu_tanh_grad,
    ),
    *_rows(
        _POINTWISE("T", "T", out=_BOOL),
        eq=np.equal,
        ne=np.not_equal,
        lt=np.less,
        le=np.less_equal,
        gt=np.greater,
        ge=np.greater_equal,
    ),
    *_rows(
        _POINTWISE(_BOOL, _BOOL, out=_BOOL),
        logical_and=np.logical_and,
        logical_or=np.logical_or,
        logical_xor=np.logical_xor,
    ),
    *_rows(_POINTWISE(_BOOL, out=_BOOL), logical_not=np.logical_not),
    *_rows(_POINTWISE(_BOOL, "any", "any", out="any"), where=np.where),
    Operator("cast", rules.cast, twins.cast, in_place=True),
    *_rows(_POINTWISE(_F32, out=_F32, literals=2), rstd=lambda ssq, n, eps: 1 / np.sqrt(ssq / n + eps)),
    *_rows(
        _POINTWISE(_F32, _F32, _F32, out=_F32),
        softmax=lambda x, m, s: np.exp(x - m) / s,
        log_softmax=lambda x, m, s: x - m - np.log(s),
        normalize=lambda x, mean, rstd: (x - mean) * rstd,
    ),
    *_rows(
        _POINTWISE(*[_F32] * 5, out=_F32),
        layer_norm=lambda x, mean, rstd, w, b: (x - mean) * rstd * w + b,
    ),
    *_rows(_POINTWISE(*[_F32] * 7, out=_F32), layer_norm_grad=twins.layer_norm_grad),
    Operator("sum", rules.reduction(1, (_F32, _I64, _I32, _BOOL)), twins.reduction(lambda x: x)),
    Operator("amax", rules.reduction(1), twins.reduction(lambda x: x, np.maximum, -np.inf)),
    *_sums(1, sum_sq=np.square),
    *_sums(
        2,
        sum_mul=np.multiply,
        sum_sq_centered=lambda x, mean: np.square(x - mean),
        sum_exp=lambda x, m: np.exp(x - m),
    ),
    *_sums(4, sum_mul_normalized=lambda g, x, mean, rstd: g * (x - mean) * rstd),
    Operator("matmul", rules.matmul, twins.matmul),
    Operator("conv2d", rules.convolution("conv2d"), twins.conv2d),
    Operator("conv2d_dx", rules.convolution("conv2d_dx"), twins.conv2d_dx),
    Operator("conv2d_dw", rules.convolution("conv2d_dw"), twins.conv2d_dw),
    *_pools(
        max_pool=twins.max_pool,
        max_pool_index=twins.max_pool_index,
        max_pool_grad=twins.max_pool_grad,
        avg_pool=twins.avg_pool,
        avg_pool_grad=twins.avg_pool_grad,
    ),
    *_attention(
        scores=twins.attention_scores,
        max=twins.attention_max,
        sum=twins.attention_sum,
        out=twins.attention_out,
        dv=twins.attention_dv,
        dp=twins.attention_dp,
        ds=twins.attention_ds,
        dq=twins.attention_dq,
        dk=twins.attention_dk,
    ),
    Operator("permute", rules.permute, twins.permute),
    Operator("expand", rules.expand, twins.expand),
    Operator("slice", rules.slice_, twins.slice_),
    Operator("slice_grad", rules.slice_grad, twins.slice_grad),
    Operator("cat", rules.cat, twins.cat),
    Operator("gather", rules.gather, twins.gather),
    Operator("scatter", rules.scatter, twins.scatter, fused=_FUSED["scatter"]),
    Operator("embedding", rules.embedding, twins.embedding),
    Operator("embedding_grad", rules.embedding_grad, twins.embedding_grad),
    Operator("cumsum", rules.cumsum, twins.cumsum),
    Operator("philox", rules.philox, twins.philox),
    Operator("iota", rules.iota, twins.iota),
    Operator("fill", rules.fill, twins.fill),
]

OPERATORS: dict[str, Operator] = {row.name: row for row in _ROWS}
