"""Functions and compiled models on bf16, f16, i32 and bool tensors: torch's dtypes and values, their own bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_dynamo import Block
from test_functional import CASES, IDS, of_torch, same_bits
from torch import Tensor

import repops
import repops.dynamo
from repops import _kernels

LOW = {"bf16": torch.bfloat16, "f16": torch.float16}
# One of each way in which gradients are made: pointwise, reduction, row, matmul, attention, movement, loss.
WITH_GRADIENTS = {
    *("div", "gelu", "sum", "softmax", "layer_norm", "rms_norm", "matmul", "linear", "embedding", "cat", "where"),
    *("scaled_dot_product_attention", "cross_entropy", "mse_loss"),
}


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    threads = repops.threads()
    yield
    repops.set_threads(threads)
    repops.set_isa(None)
    torch._dynamo.reset()


def each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """An argument with its floating-point tensors changed."""
    if isinstance(value, (list, tuple)):
        return type(value)(each(x, change) for x in value)
    if isinstance(value, dict):
        return {name: each(x, change) for name, x in value.items()}
    return change(value) if isinstance(value, Tensor) and value.is_floating_point() else value


def close(actual: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert actual.dtype is wanted.dtype
    torch.testing.assert_close(actual, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize(("name", "args", "kwargs"), CASES, ids=IDS)
def test_functions_in_bf16(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    args, kwargs = each((args, kwargs), lambda x: x.bfloat16())
    result = getattr(repops, name)(*args, **kwargs)
    close(result, of_torch(name)(*args, **kwargs), 2e-2)
    repops.set_threads(3)
    out = torch.empty_like(result)
    assert getattr(repops, name)(*args, **kwargs, out=out) is out and same_bits(out, result)


@pytest.mark.parametrize(
    ("name", "low"), [(name, "bf16") for name in sorted(WITH_GRADIENTS)] + [("layer_norm", "f16"), ("matmul", "f16")]
)
def test_gradients_in_low_precision(name: str, low: str) -> None:
    args, kwargs = next((a, k) for n, a, k in CASES if n == name)
    leaves: list[Tensor] = []

    def leaf(x: Tensor) -> Tensor:
        leaves.append(x.detach().to(LOW[low]).requires_grad_())
        return leaves[-1]

    args, kwargs = each((args, kwargs), leaf)
    results = [f(*args, **kwargs) for f in (getattr(repops, name), of_torch(name))]
    weights = torch.linspace(0.5, 2, results[0].numel()).view(results[0].shape).to(results[0].dtype)
    mine, theirs = (torch.autograd.grad(result, leaves, weights) for result in results)
    for actual, wanted in zip(mine, theirs, strict=True):
        close(actual, wanted, 4e-2)
    plain = each((args, kwargs), lambda x: x.detach())
    repops.set_threads(3)
    repops.set_isa(_kernels.isas()[-1])
    assert same_bits(results[0].detach(), getattr(repops, name)(*plain[0], **plain[1]))


A = torch.arange(-21, 21, dtype=torch.int32).view(6, 7)
B = torch.arange(42, dtype=torch.int32).view(6, 7) % 5 - 2
M, N = A > 0, B > 0
INTEGERS: list[tuple[str, tuple[Any, ...]]] = [
    *[(n, (A, B)) for n in ("add", "sub", "mul", "div", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge")],
    *[(n, (A, M)) for n in ("add", "mul", "maximum", "eq", "lt")],
    *[(n, (M, N)) for n in ("add", "mul", "div", "eq", "logical_and", "logical_or", "logical_xor")],
    *[(n, (A,)) for n in ("neg", "abs", "sign", "square", "relu", "exp", "sum", "any", "all", "clone", "logical_not")],
    *[(n, (M,)) for n in ("sum", "any", "all", "exp", "clone", "logical_not")],
    *[(n, (A, 1)) for n in ("sum", "any", "all")],
    ("add", (A, 2)),
    ("mul", (A, 2.5)),
    ("add", (A, torch.arange(42).view(6, 7))),
    ("mul", (M, torch.full((6, 7), 0.75, dtype=torch.bfloat16))),
    ("where", (M, A, B)),
    ("where", (M, M, N)),
    ("clamp", (A, -3, 3)),
    ("transpose", (A, 0, 1)),
    ("permute", (M, (1, 0))),
    ("reshape", (M, (3, 14))),
    ("cat", ([A, B], 1)),
    ("cat", ([M, N], 0)),
    ("stack", ([M, N],)),
    ("gather", (A, 1, B.long() + 2)),
    ("index_select", (M, 0, B[0] + 2)),
    ("embedding", (B + 2, torch.linspace(-1, 1, 15).view(5, 3))),
]


@pytest.mark.parametrize(("name", "args"), INTEGERS, ids=[f"{n}{i}" for i, (n, _) in enumerate(INTEGERS)])
def test_integers_and_bools(name: str, args: tuple[Any, ...]) -> None:
    result, wanted = getattr(repops, name)(*args), of_torch(name)(*args)
    if wanted.is_floating_point():
        close(result, wanted, 1e-6)
    else:
        assert same_bits(result, wanted)


@pytest.mark.parametrize("kind", ["bf16", "f16", "autocast"])
def test_compiled_models_in_low_precision(kind: str) -> None:
    torch.manual_seed(0)
    model = Block().to(LOW.get(kind, torch.float32))
    x, y = torch.randn(3, 9, 12).to(LOW.get(kind, torch.float32)), torch.randint(10, (27,))
    compiled = torch.compile(model, backend="repops", dynamic=False)

    def train(function: Callable[[Tensor], Tensor]) -> list[Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
            out = function(x)
        F.cross_entropy(out.flatten(0, 1).float(), y).backward()  # type: ignore[no-untyped-call]
        return [out.detach(), *[p.grad.clone() for p in model.parameters() if p.grad is not None]]

    mine = train(compiled)
    for actual, wanted in zip(mine, train(model), strict=True):
        close(actual, wanted, 3e-2)
    repops.set_threads(3)
    assert all(same_bits(a, b) for a, b in zip(train(compiled), mine, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, *LOW.values()])
def test_compiled_functions_of_several_dtypes(dtype: torch.dtype) -> None:
    def function(x: Tensor, m: Tensor, n: Tensor) -> tuple[Tensor, ...]:
        return torch.where(m, x, -x), n.to(x.dtype) * x, m & (x > 0), n * 2 + 1, (x > 0).to(torch.int32)

    x = torch.randn(6, 7).to(dtype).requires_grad_()
    compiled = torch.compile(function, backend="repops", dynamic=False)
    mine, theirs = compiled(x, M, B), function(x, M, B)
    assert all(same_bits(a.detach(), b.detach()) for a, b in zip(mine, theirs, strict=True))
    gradients = [torch.autograd.grad(r[0].sum() + r[1].sum(), x)[0] for r in (mine, theirs)]
    assert same_bits(*gradients)
