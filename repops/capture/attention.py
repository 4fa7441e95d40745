"""Scaled dot product attention as one group, forward and backward (docs/spec/operators.md, "Attention group").

Default `scaled_dot_product_attention`, once decomposed, gives wrong gradients without an error: the forward is taken
apart while the fused backward stays and reads inputs that no longer fit. So capture never lets it through: while a step
is traced every call becomes `repops::attention`, whose gradient is `repops::attention_backward`; both are lowered as
they stand to the operators of the group. The two compute real values as well, so that a trace can be run eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def _probabilities(q: Tensor, k: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Visible positions [T, S], scores, row maxima and row sums of exponentials of [B, T, S] attention."""
    scores = (q @ k.transpose(1, 2)) * scale
    visible = torch.ones(scores.shape[1:], dtype=torch.bool, device=q.device)
    visible = visible.tril() if causal else visible
    scores = scores.masked_fill(~visible, float("-inf"))
    m = scores.amax(2, keepdim=True)
    return visible, scores, m, (scores - m).exp().sum(2, keepdim=True)


@torch.library.custom_op("repops::attention", mutates_args=())
def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Tensor:
    """q [B, T, D], k [B, S, D], v [B, S, E] -> [B, T, E]; bf16 and f16 are computed in f32 and rounded once."""
    dtype = q.dtype
    q, k, v = _wide(q, k, v)
    _, scores, m, total = _probabilities(q, k, causal, scale)
    return (((scores - m).exp() @ v) / total).to(dtype)


_LOW = (torch.bfloat16, torch.float16)


def _wide(*tensors: Tensor) -> list[Tensor]:
    return [x.float() if x.dtype in _LOW else x for x in tensors]


@attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Tensor:
    return q.new_empty((q.shape[0], q.shape[1], v.shape[2]))


@torch.library.custom_op("repops::attention_backward", mutates_args=())
def attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, from the gradient and the value of the output."""
    dtype = q.dtype
    grad, q, k, v, out = _wide(grad, q, k, v, out)
    _, scores, m, total = _probabilities(q, k, causal, scale)
    p = (scores - m).exp() / total
    delta = (grad * out).sum(2, keepdim=True)
    ds = p * (grad @ v.transpose(1, 2) - delta)
    dq, dk, dv = (ds @ k) * scale, (ds.transpose(1, 2) @ q) * scale, p.transpose(1, 2) @ grad
    return dq.to(dtype), dk.to(dtype), dv.to(dtype)


@attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out = ctx.saved_tensors
    return (*torch.ops.repops.attention_backward(grad, q, k, v, out, ctx.causal, ctx.scale), None, None)


attention.register_autograd(_backward, setup_context=_setup_context)


class AttentionCapture(TorchFunctionMode):
    """While active, `F.scaled_dot_product_attention` is traced as `repops::attention`.

    With a mask or dropout, which the group does not have, it is written out with matmul and softmax.
    random_only: touch only calls with dropout, for an eager run that draws the same masks.
    """

    def __init__(self, random_only: bool = False) -> None:
        super().__init__()
        self._random_only = random_only

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.scaled_dot_product_attention and (not self._random_only or _has_dropout(*args, **(kwargs or {}))):
            return grouped_attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _has_dropout(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, **_: object
) -> bool:
    return dropout_p > 0


def grouped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`F.scaled_dot_product_attention` as `repops::attention`, or written out."""
    scale = 1 / sqrt(query.shape[-1]) if scale is None else scale
    if enable_gqa:
        key, value = (_repeated(x, query.shape[-3]) for x in (key, value))
    batch = torch.broadcast_shapes(*(x.shape[:-2] for x in (query, key, value)))  # type: ignore[no-untyped-call]
    query, key, value = (x.expand(*batch, *x.shape[-2:]) for x in (query, key, value))
    dtypes = {x.dtype for x in (query, key, value)}
    if attn_mask is not None or dropout_p or len(dtypes) > 1 or not dtypes <= {torch.float32, *_LOW}:
        return _written_out(query, key, value, attn_mask, dropout_p, is_causal, scale)
    heads = prod(query.shape[:-2])
    q, k, v = (x.reshape(heads, *x.shape[-2:]) for x in (query, key, value))
    out: Tensor = torch.ops.repops.attention(q, k, v, bool(is_causal), float(scale))
    return out.reshape(*query.shape[:-1], value.shape[-1])


def _repeated(x: Tensor, heads: int) -> Tensor:
    """Key or value heads [.., H, S, D], each for the heads / H query heads that it serves."""
    groups = x.unsqueeze(-3).expand(*x.shape[:-2], heads // x.shape[-3], *x.shape[-2:])
    return groups.reshape(*x.shape[:-3], heads, *x.shape[-2:])


def _written_out(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, causal: bool, scale: float
) -> Tensor:
    """The definition in torch's documentation: rows without a visible key are zero."""
    scores = (query * scale) @ key.transpose(-2, -1)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype is torch.bool else scores + mask
    weights: Tensor = torch.ops.aten._safe_softmax(scores, -1)
    return F.dropout(weights, dropout) @ value if dropout else weights @ value
