"""The one table of operators of profile RO-1 (docs/spec/operators.md).

Everything that the library knows about an operator hangs on its row: its name and version (and so its code hash), its
shape rule, its float64 twin, and what the executor may do with it. The kernels in `csrc/kernels` are found by name; a
test holds their list against this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from eth_utils.crypto import keccak

from repops.dtypes import DType
from repops.ops import rules
from repops.ops.rules import Rule

VM_HEIGHT = 20
_F32, _I64, _BOOL = DType.F32, DType.I64, DType.BOOL


@dataclass(frozen=True)
class Operator:
    """One row of the table.

    rule: raises RuleViolation for a node that does not fit. in_place: the indices of inputs whose memory the output may
    reuse when input and output have the same dtype and element count (each output element depends on that input's
    element of the same index only). vm_height: height of the tree over the RepVM states of one element.
    """

    name: str
    rule: Rule
    version: int = 1
    in_place: tuple[int, ...] = ()
    vm_height: int = VM_HEIGHT

    @cached_property
    def code_hash(self) -> bytes:
        """keccak256 of "RO-1/<operator>/<version>", 32 bytes."""
        return keccak(text=f"RO-1/{self.name}/{self.version}")


def _pointwise(names: str, *dtypes: DType | str, out: DType | str, literals: int = 0) -> list[Operator]:
    rule = rules.pointwise(*dtypes, out=out, literals=literals)
    return [Operator(name, rule, in_place=tuple(range(len(dtypes)))) for name in names.split()]


_ROWS: list[Operator] = [
    *_pointwise("add sub mul maximum minimum", "T", "T", out="T"),
    *_pointwise("neg abs", "T", out="T"),
    *_pointwise("div", _F32, _F32, out=_F32),
    *_pointwise("sqrt rsqrt exp log tanh sigmoid erf gelu_erf gelu_tanh silu relu", _F32, out=_F32),
    *_pointwise("relu_grad tanh_grad sigmoid_grad silu_grad gelu_erf_grad gelu_tanh_grad", _F32, _F32, out=_F32),
    *_pointwise("eq ne lt le gt ge", "T", "T", out=_BOOL),
    *_pointwise("logical_and logical_or logical_xor", _BOOL, _BOOL, out=_BOOL),
    *_pointwise("logical_not", _BOOL, out=_BOOL),
    *_pointwise("where", _BOOL, "any", "any", out="any"),
    Operator("cast", rules.cast, in_place=(0,)),
    *_pointwise("rstd", _F32, out=_F32, literals=2),
    *_pointwise("softmax log_softmax normalize", _F32, _F32, _F32, out=_F32),
    *_pointwise("layer_norm", *[_F32] * 5, out=_F32),
    *_pointwise("layer_norm_grad", *[_F32] * 7, out=_F32),
    Operator("sum", rules.reduction(1, (_F32, _I64, _BOOL))),
    *[Operator(name, rules.reduction(1)) for name in ("amax", "sum_sq")],
    *[Operator(name, rules.reduction(2)) for name in ("sum_mul", "sum_sq_centered", "sum_exp")],
    Operator("sum_mul_normalized", rules.reduction(4)),
    Operator("matmul", rules.matmul),
    *[
        Operator(f"attention_{name}", rules.attention(f"attention_{name}"))
        for name in ("scores", "max", "sum", "out", "dv", "dp", "ds", "dq", "dk")
    ],
    Operator("permute", rules.permute),
    Operator("expand", rules.expand),
    Operator("slice", rules.slice_),
    Operator("slice_grad", rules.slice_grad),
    Operator("cat", rules.cat),
    Operator("gather", rules.gather),
    Operator("scatter", rules.scatter),
    Operator("embedding", rules.embedding),
    Operator("embedding_grad", rules.embedding_grad),
    Operator("iota", rules.iota),
    Operator("fill", rules.fill),
]

OPERATORS: dict[str, Operator] = {row.name: row for row in _ROWS}
