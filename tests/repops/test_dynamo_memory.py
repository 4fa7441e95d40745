"""Memory of `torch.compile(model, backend="repops")`: what is shared, what is a view, and that no bit depends on it."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import repops.dynamo  # noqa: F401
from repops import _kernels
from repops.dtypes import DType

F32 = int(DType.F32)
BATCH, ARENA, NEW = 1, 3, 4


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def network(seed: int, width: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(8, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, width), nn.Tanh())
    return nn.Sequential(layers, nn.Linear(width, 8, bias=False))


def compiled(function: Callable[..., Any]) -> Any:
    return torch.compile(function, backend="repops", dynamic=False)


def gradients(model: Callable[[Tensor], Tensor], parameters: list[Tensor], x: Tensor) -> list[bytes]:
    """The bits of an output and its gradients, by torch.autograd.grad, which changes nothing."""
    y = model(x)
    found = torch.autograd.grad(y.square().sum(), parameters)
    return [t.detach().numpy().tobytes() for t in (y, *found)]


def test_models_that_share_memory_in_several_threads() -> None:
    models = [network(0, 64), network(1, 96)]
    functions, inputs = [compiled(m) for m in models], [torch.randn(512, 8), torch.randn(300, 8)]

    def run(i: int) -> list[bytes]:
        return gradients(functions[i], list(models[i].parameters()), inputs[i])

    alone = [run(0), run(1)]
    with ThreadPoolExecutor(4) as pool:  # both models at once, and each from two threads
        found = list(pool.map(run, [0, 1] * 20))
    assert all(found[n] == alone[n % 2] for n in range(40))


def test_the_forward_of_one_model_within_the_backward_of_another() -> None:
    models = [network(0, 64), network(1, 96)]
    outer, inner = (compiled(m) for m in models)
    x = torch.randn(300, 8)
    alone, wanted = gradients(outer, list(models[0].parameters()), x), gradients(inner, list(models[1].parameters()), x)
    within: list[list[bytes]] = []

    class Middle(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: Tensor) -> Tensor:
            return y.clone()

        @staticmethod
        def backward(ctx: Any, *dy: Tensor) -> Tensor:
            with torch.enable_grad():
                within.append(gradients(inner, list(models[1].parameters()), x))
            return dy[0]

    def function(x: Tensor) -> Tensor:
        return Middle.apply(outer(x))  # type: ignore[no-any-return, no-untyped-call]

    assert gradients(function, list(models[0].parameters()), x) == alone
    assert within == [wanted]


def test_a_graph_that_is_retained_gives_the_same_gradients_again() -> None:
    model, other = network(0, 64), network(1, 96)
    function, between = compiled(model), compiled(other)
    x, parameters = torch.randn(50, 8), list(model.parameters())
    loss = function(x).square().sum()
    found = []
    for _ in range(3):
        found.append([g.numpy().tobytes() for g in torch.autograd.grad(loss, parameters, retain_graph=True)])
        between(x).sum().backward()
    assert found[0] == found[1] == found[2]


def test_saved_parameters_are_not_copied() -> None:
    model = network(0, 64)
    function, x = compiled(model), torch.randn(5, 8)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = function(x)
    weights = {p.numel(): p.untyped_storage().data_ptr() for p in model.parameters() if p.dim() == 2}
    found = [t for t in saved if t.numel() in weights]
    assert len(found) >= 2 and all(t.untyped_storage().data_ptr() == weights[t.numel()] for t in found)
    places = [t.untyped_storage().data_ptr() for t in saved if t.numel()]
    assert len(set(places)) == len(set(places) - {y.untyped_storage().data_ptr()})  # nothing reads the last product


def test_a_parameter_changed_before_the_backward_is_an_error_as_in_eager_torch() -> None:
    model = network(0, 16)
    loss = compiled(model)(torch.randn(5, 8)).sum()
    with torch.no_grad():
        model[1].weight.mul_(2)  # type: ignore[index, union-attr, operator]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_output_can_be_changed_in_place() -> None:
    w = torch.randn(8, 8, requires_grad=True)
    x = torch.randn(5, 8)
    y = compiled(lambda x: (x @ w).transpose(0, 1))(x)
    y.mul_(2)
    y.sum().backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad, (2 * x.sum(0)).unsqueeze(1).expand(8, 8))


def related(x: Tensor) -> tuple[Tensor, ...]:
    y = torch.exp(x)
    return y[1:3], y, y.transpose(0, 1), torch.exp(x), y.clone(), y[1], x.clone()


@pytest.mark.parametrize("step", [1, 2])
def test_outputs_share_memory_where_eager_torch_shares_it(step: int) -> None:
    x = torch.randn(3, 8)[:, ::step]
    wanted, found = related(x), compiled(related)(x)
    for a, b in zip(wanted, found, strict=True):
        assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)
    wanted[1].fill_(3)
    found[1].fill_(3)
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(a, b)


def test_a_saved_view_of_an_argument_with_gaps() -> None:
    x, w = torch.randn(5, 8), torch.randn(8, 9)[:, ::2].requires_grad_()

    def function(w: Tensor) -> Tensor:
        return torch.tanh(x @ w).mm(w.transpose(0, 1))

    (found,) = torch.autograd.grad(compiled(function)(w).sum(), w)
    (wanted,) = torch.autograd.grad(function(w).sum(), w)
    torch.testing.assert_close(found, wanted)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def plan(size: int, keep: bool) -> _kernels.Plan:
    """y = |-x|, with -x in the arena."""
    x, y = (BATCH, 0, F32, [size]), (NEW, 0, F32, [size])
    between = (ARENA, 0, F32, [size])
    return _kernels.Plan(
        [("neg", [], [], [x], [between], False), ("abs", [], [], [between], [y], False)], 4 * size, None, keep
    )


def test_large_arenas_stay_only_for_plans_that_keep_them() -> None:
    size = 16 << 20
    x, y = np.full(size, -1.5, np.float32), np.ones(size, np.float32)
    grown = []

    def run(each: _kernels.Plan) -> None:
        before = resident()
        each.run([], [x], [], [y], 1)
        assert (y == 1.5).all()
        y.fill(0)
        grown.append(resident() - before)

    passing = plan(size, keep=False)
    run(passing)
    keeping = plan(size, keep=True)
    run(keeping)
    run(passing)  # in the other's arena
    before = resident()
    del keeping
    gc.collect()
    grown.append(resident() - before)
    assert [round(g / (4 * size)) for g in grown] == [0, 1, 0, -1]


@pytest.mark.parametrize("size", [0, 100, 4 << 20, (8 << 20) + 5000])
def test_huge_pages_are_advice(size: int) -> None:
    memory = np.empty(size + 64, np.uint8)[64:]
    _kernels.advise_huge(memory)
    memory.fill(7)
    assert (memory == 7).all()
    memory.flags.writeable = False
    with pytest.raises(TypeError, match="writable C-contiguous buffer"):
        _kernels.advise_huge(memory)


def test_arenas_are_never_shared_by_runs_at_once() -> None:
    sizes = [1 << 10, 1 << 18, 3 << 20, 6 << 20]
    plans = [plan(n, keep=n == 3 << 20) for n in sizes]

    def run(turn: int) -> bool:
        i = turn % len(sizes)
        x, y = np.full(sizes[i], -float(turn), np.float32), np.empty(sizes[i], np.float32)
        plans[i].run([], [x], [], [y], 1 + turn % 2)
        return bool((y == turn).all())

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(run, range(200)))
