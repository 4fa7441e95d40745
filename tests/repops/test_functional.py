"""RepOps as functions on torch tensors and numpy arrays: values, bits, memory, gradients, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import repops
from repops import _kernels, names
from repops.functional import FUNCTIONS
from repops.tensors import array_of

GENERATOR = torch.Generator().manual_seed(11)


def f32(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR)


def positive(*shape: int) -> Tensor:
    return torch.rand(shape, generator=GENERATOR) + 0.1


def ints(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=GENERATOR)


def bools(*shape: int) -> Tensor:
    return f32(*shape) > 0


X, Y, P, I, M = f32(6, 7), f32(6, 7), positive(6, 7), ints(5, 6, 7), bools(6, 7)  # noqa: E741
A, B = f32(3, 4, 5), f32(5, 6)
Q, K, V = f32(2, 3, 8, 4), f32(2, 3, 8, 4), f32(2, 3, 8, 4)
CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *[(n, (X, Y), {}) for n in ("add", "sub", "mul", "div", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge")],
    *[
        (n, (X,), {})
        for n in ("neg", "abs", "sign", "square", "exp", "exp2", "expm1", "tanh", "sigmoid", "erf", "sin", "cos")
    ],
    *[(n, (X,), {}) for n in ("relu", "gelu", "silu", "softplus", "leaky_relu", "clone")],
    *[(n, (P,), {}) for n in ("sqrt", "rsqrt", "log", "log2", "log10", "log1p", "reciprocal")],
    *[(n, (M, X > 1), {}) for n in ("logical_and", "logical_or", "logical_xor")],
    *[(n, (X,), {}) for n in ("sum", "mean", "amax", "amin", "var")],
    *[(n, (X, 1), {"keepdim": True}) for n in ("sum", "mean", "amax", "amin", "var")],
    ("sum", (A.transpose(0, 2), 1), {}),
    ("sum", (I,), {}),
    ("gelu", (X,), {"approximate": "tanh"}),
    ("logical_not", (M,), {}),
    ("where", (M, X, Y), {}),
    ("where", (M, X, 1.5), {}),
    ("clamp", (X, -0.5, 0.5), {}),
    ("pow", (X, 3), {}),
    ("add", (X, 2), {}),
    ("add", (I, 2.5), {}),
    ("sub", (X, Y), {"alpha": 2}),
    ("sub", (X, Y[0]), {}),
    ("any", (M,), {}),
    ("all", (M, 1), {}),
    ("softmax", (X, 1), {}),
    ("softmax", (X,), {"dim": 0}),
    ("log_softmax", (X, 1), {}),
    ("matmul", (A, B), {}),
    ("matmul", (A, B[:, 0]), {}),
    ("matmul", (B[:, 0], B), {}),
    ("matmul", (B[:, 0], B[:, 1]), {}),
    ("matmul", (f32(2, 1, 3, 4), f32(5, 4, 2)), {}),
    ("matmul", (f32(4, 3).T, f32(5, 4).T), {}),
    ("mm", (X, Y.T), {}),
    ("bmm", (A, f32(3, 5, 2)), {}),
    ("addmm", (f32(6), X, Y.T), {"beta": 0.5}),
    ("baddbmm", (f32(3, 4, 2), A, f32(3, 5, 2)), {"alpha": 0.5}),
    ("permute", (A, (2, 0, 1)), {}),
    ("transpose", (A, 0, 1), {}),
    ("reshape", (A, (12, 5)), {}),
    ("cat", ([X, Y], 1), {}),
    ("stack", ([X, Y], 1), {}),
    ("gather", (X, 1, I), {}),
    ("index_select", (X, 0, I[0]), {}),
    ("linear", (X, f32(3, 7), f32(3)), {}),
    ("layer_norm", (X, (7,), f32(7), f32(7)), {}),
    ("rms_norm", (X, (7,), f32(7)), {}),
    ("embedding", (I, f32(5, 3)), {}),
    ("scaled_dot_product_attention", (Q, K, V), {}),
    ("scaled_dot_product_attention", (Q, K, V), {"is_causal": True}),
    ("scaled_dot_product_attention", (Q, K, V), {"attn_mask": torch.ones(8, 8, dtype=torch.bool).tril(2)}),
    ("cross_entropy", (X, I[:, 0]), {}),
    ("cross_entropy", (X, torch.tensor([0, 1, -100, 2, 3, 4])), {}),
    ("nll_loss", (X, I[:, 0]), {"reduction": "sum"}),
    ("mse_loss", (X, Y), {}),
    ("pad", (X, (1, 2)), {}),
]
IDS = [f"{name}{i}" for i, (name, _, _) in enumerate(CASES)]


def of_torch(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(torch if name in names.TORCH else F, name)
    return found


def as_numpy(value: Any) -> Any:
    if isinstance(value, list):
        return [as_numpy(x) for x in value]
    return value.numpy() if isinstance(value, Tensor) else value


def tensors(args: tuple[Any, ...]) -> list[Tensor]:
    return [x for arg in args for x in (arg if isinstance(arg, list) else [arg]) if isinstance(x, Tensor)]


def same_bits(a: Any, b: Any) -> bool:
    x, y = array_of(a, "a"), array_of(b, "b")
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    threads = repops.threads()
    yield
    repops.set_threads(threads)
    repops.set_isa(None)


def test_every_function_has_a_case() -> None:
    assert {name for name, _, _ in CASES} == names.FUNCTIONS == set(FUNCTIONS)


@pytest.mark.parametrize(("name", "args", "kwargs"), CASES, ids=IDS)
def test_functions_are_torchs_with_their_own_bits(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    function = getattr(repops, name)
    result = function(*args, **kwargs)
    torch.testing.assert_close(result, of_torch(name)(*args, **kwargs), rtol=1e-5, atol=1e-5)
    assert isinstance(result, Tensor) and result.is_contiguous()
    assert not any(np.may_share_memory(result.numpy(), x.numpy()) for x in tensors(args))
    array = function(*[as_numpy(x) for x in args], **{k: as_numpy(x) for k, x in kwargs.items()})
    assert isinstance(array, np.ndarray) and same_bits(array, result)
    for threads, isa in ((3, None), (1, _kernels.isas()[-1])):
        repops.set_threads(threads)
        repops.set_isa(isa)
        assert same_bits(function(*args, **kwargs), result)
    out = torch.empty_like(result)
    assert function(*args, **kwargs, out=out) is out and same_bits(out, result)


@pytest.mark.parametrize(("name", "args", "kwargs"), CASES, ids=IDS)
def test_gradients_are_torchs(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    leaves = [x.detach().clone().requires_grad_() for x in tensors(args) if x.is_floating_point()]
    given = iter(leaves)

    def with_leaves(value: Any) -> Any:
        if isinstance(value, list):
            return [with_leaves(x) for x in value]
        return next(given) if isinstance(value, Tensor) and value.is_floating_point() else value

    arguments = [with_leaves(x) for x in args]
    expected = of_torch(name)(*arguments, **kwargs)
    if not expected.requires_grad:
        return
    result = getattr(repops, name)(*arguments, **kwargs)
    assert same_bits(result.detach(), getattr(repops, name)(*args, **kwargs))
    weights = torch.linspace(0.5, 2, result.numel()).view(result.shape)
    for actual, wanted in zip(
        torch.autograd.grad(result, leaves, weights), torch.autograd.grad(expected, leaves, weights), strict=True
    ):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-4)


def test_gradients_flow_through_several_functions_and_no_grad_stops_them() -> None:
    x, w = f32(4, 5).requires_grad_(), f32(5, 3).requires_grad_()
    repops.cross_entropy(repops.gelu(repops.matmul(x, w)), torch.tensor([0, 1, 2, 0])).backward()
    assert x.grad is not None and w.grad is not None
    other = [x.detach().clone().requires_grad_(), w.detach().clone().requires_grad_()]
    F.cross_entropy(F.gelu(other[0] @ other[1]), torch.tensor([0, 1, 2, 0])).backward()
    for mine, theirs in zip((x, w), other, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    with torch.no_grad():
        assert not repops.exp(x).requires_grad


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(0, 2),
    "sliced": lambda x: x[1:, ::2],
    "reversed axes, sliced": lambda x: x.permute(2, 1, 0)[:, :3],
    "expanded": lambda x: x[:, :1].expand(4, 6, 8),
    "one element, expanded": lambda x: x[:1, :1, :1].expand(4, 6, 8),
    "windows": lambda x: x.as_strided((3, 4, 5), (1, 1, 1)),
    "huge strides": lambda x: x.as_strided((1, 1, 2), (2**40, 2**41, 3)),
    "channels last": lambda x: x.permute(0, 2, 1).contiguous().permute(0, 2, 1),
    "no elements": lambda x: x[:0],
    "zero-size inside": lambda x: x[:, 3:3].transpose(0, 2),
    "scalar": lambda x: x[1, 2, 3],
}


@pytest.mark.parametrize("view", VIEWS)
def test_any_view_gives_the_bits_of_its_contiguous_copy(view: str) -> None:
    x = VIEWS[view](f32(4, 6, 8))
    for function in (
        repops.exp,
        repops.sum,
        lambda v: repops.add(v, v),
        lambda v: repops.sum(v, -1) if v.ndim else repops.neg(v),
        lambda v: repops.softmax(v, 0) if v.ndim else repops.neg(v),
    ):
        want = function(x.contiguous())
        assert same_bits(function(x), want)
        assert same_bits(function(x.numpy()), want)
    if x.dim() == 3:
        y = f32(2, x.shape[2], 3)[:1]
        assert same_bits(repops.matmul(x, y), repops.matmul(x.contiguous(), y))


def test_a_view_that_requires_gradients_is_folded_in_its_logical_order() -> None:
    for _ in range(6):
        x = f32(40, 61, 8).transpose(0, 2)
        assert same_bits(repops.sum(x.detach().requires_grad_()).detach(), repops.sum(x.contiguous()))


def test_numpy_views_that_torch_has_not() -> None:
    x = f32(4, 6).numpy()
    for view in (x[::-1], x[:, ::-2], np.broadcast_to(x[:1], (5, 6)), np.frombuffer(x.tobytes(), np.float32)[1:]):
        assert same_bits(repops.exp(view), repops.exp(np.ascontiguousarray(view)))
    odd = np.frombuffer(b"?" + x.tobytes(), np.uint8)[1:].view(np.float32)  # not aligned, not writable
    assert same_bits(repops.exp(odd), repops.exp(x.ravel()))
    pairs = np.zeros(5, np.dtype([("a", "u1"), ("b", "<f4")]))
    pairs["b"] = x[0, :5]
    assert same_bits(repops.exp(pairs["b"]), repops.exp(x[0, :5]))
    assert repops.exp(np.float32(0)).shape == ()


def test_empty_and_zero_size() -> None:
    assert same_bits(repops.matmul(f32(3, 0), f32(0, 2)), torch.zeros(3, 2))
    assert repops.matmul(f32(0, 4), f32(4, 2)).shape == (0, 2)
    assert repops.matmul(f32(2, 3, 0), f32(2, 0, 4)).eq(0).all()
    assert repops.sum(f32(0, 3), 0).tolist() == [0, 0, 0]
    assert repops.softmax(f32(0, 3), 1).shape == (0, 3)
    assert repops.embedding(ints(1, 0), f32(5, 3)).shape == (0, 3)
    assert repops.cat([f32(0, 3), f32(2, 3)]).shape == (2, 3)
    assert repops.mean(f32(0)).isnan()
    x = f32(3, 0).requires_grad_()
    y = f32(0, 2).requires_grad_()
    repops.matmul(x, y).sum().backward()
    assert x.grad is not None and x.grad.shape == (3, 0)


def refused(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(repops.TensorError, match=text) as caught:
        call()
    assert caught.value.what and caught.value.where and caught.value.cure


def test_bad_tensors_are_refused() -> None:
    refused(lambda: repops.exp(X.double()), "float64")
    refused(lambda: repops.exp(np.zeros(3)), "float64")
    refused(lambda: repops.exp(X.to(torch.complex64)), "complex64")
    refused(lambda: repops.exp(np.zeros(3, ">f4")), "f4")
    refused(lambda: repops.exp(np.zeros(3, np.uint8)), "uint8")
    refused(lambda: repops.exp(np.array(["a"])), "U1")
    refused(lambda: repops.exp(X.to("meta")), "meta tensor")
    refused(lambda: repops.exp(X.to_sparse()), "sparse")
    refused(lambda: repops.exp(1.0), "no tensor")
    refused(lambda: repops.add(X, X.numpy()), "mixed")
    refused(lambda: repops.exp(torch.zeros([1] * 9)), "9 dimensions")
    refused(lambda: repops.reshape(X, (1,) * 9 + (6, 7)), "11 dimensions")
    refused(lambda: repops.exp(torch.zeros(1).expand(2**41)), "too many elements")
    big = torch.zeros(1).expand(2**21)
    refused(lambda: repops.add(big.view(-1, 1), big), "broadcast to too much")


def test_bad_arguments_are_refused() -> None:
    refused(lambda: repops.matmul(X, Y), "same reduction dim")
    refused(lambda: repops.add(X, f32(5)), "match|broadcast")
    refused(lambda: repops.sum(X, 2), "out of range")
    refused(lambda: repops.softmax(X), "dim")
    refused(lambda: repops.exp(X, nonsense=1), "nonsense")
    refused(lambda: repops.mean(I), "floating|dtype")
    refused(lambda: repops.cat([X, f32(6, 7, 1)]), "same number of dimensions|Expected|expected")
    refused(lambda: repops.layer_norm(X, (6,)), "normalized_shape|Given")
    with pytest.raises(repops.UnsupportedOperators):
        repops.pow(I, I)


def test_indices_out_of_range_are_refused() -> None:
    refused(lambda: repops.embedding(torch.tensor([5]), f32(5, 3)), r"outside \[0, 5\)")
    refused(lambda: repops.embedding(torch.tensor([-1]), f32(5, 3)), r"outside \[0, 5\)")
    refused(lambda: repops.embedding(input=np.array([9]), weight=f32(5, 3).numpy()), r"outside \[0, 5\)")
    refused(lambda: repops.gather(X, 1, torch.full((6, 1), 7)), r"outside \[0, 7\)")
    refused(lambda: repops.gather(X, dim=-1, index=torch.full((6, 1), -1)), r"outside \[0, 7\)")
    refused(lambda: repops.index_select(X, 0, torch.tensor([6])), r"outside \[0, 6\)")
    refused(lambda: repops.cross_entropy(X, torch.full((6,), 7)), r"outside \[0, 7\)")
    refused(lambda: repops.nll_loss(X, torch.full((6,), -1)), r"outside \[0, 7\)")
    ignored = repops.cross_entropy(X, torch.full((6,), -1), ignore_index=-1, reduction="sum")
    assert float(ignored) == 0


def test_bad_outputs_are_refused() -> None:
    x = f32(4, 4)
    refused(lambda: repops.exp(x, out=x), "overlaps")
    refused(lambda: repops.exp(x[:2], out=x.view(-1)[7:15].view(2, 4)), "overlaps")
    refused(lambda: repops.exp(x, out=torch.empty(4, 5)), r"\[4, 5\]")
    refused(lambda: repops.exp(x, out=torch.empty(4, 4, dtype=torch.int64)), "i64")
    refused(lambda: repops.exp(x, out=torch.empty(4, 4).T), "contiguous")
    refused(lambda: repops.exp(x, out=torch.empty(4).expand(4, 4)), "contiguous")
    refused(lambda: repops.exp(x, out=np.empty((4, 4), np.float32)), "another kind")
    refused(lambda: repops.exp(x, out=torch.empty(4, 4, requires_grad=True)), "requires gradients")
    refused(lambda: repops.exp(f32(4).requires_grad_(), out=torch.empty(4)), "requires gradients")
    constant = np.zeros((4, 4), np.float32)
    constant.flags.writeable = False
    refused(lambda: repops.exp(x.numpy(), out=constant), "not writable")
    assert (constant == 0).all()


def test_settings() -> None:
    for count in (0, -1, 1.5, True, "2"):
        refused(lambda count=count: repops.set_threads(count), "threads")
    refused(lambda: repops.set_isa("z80"), "z80")
    repops.set_threads(5)
    repops.set_isa("scalar")
    assert (repops.threads(), repops.isa()) == (5, "scalar")


def test_torch_is_imported_by_the_first_function_only() -> None:
    code = "import sys, repops; assert 'torch' not in sys.modules; repops.exp; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
