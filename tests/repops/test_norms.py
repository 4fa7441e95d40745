"""Batch norm and group norm: captured with both checks; running statistics over several steps."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import repops
from repops import _kernels
from repops.dtypes import DType, to_float64
from repops.errors import UnsupportedOperators

NORMS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "batch norm of vectors": (nn.BatchNorm1d(4), (5, 4)),
    "batch norm of sequences": (nn.BatchNorm1d(4, momentum=0.3), (5, 4, 6)),
    "batch norm of images": (nn.BatchNorm2d(4), (3, 4, 5, 2)),
    "of one image": (nn.BatchNorm2d(4), (1, 4, 5, 2)),
    "without weights": (nn.BatchNorm2d(4, affine=False), (3, 4, 5, 2)),
    "without statistics": (nn.BatchNorm2d(4, track_running_stats=False), (3, 4, 5, 2)),
    "in eval mode": (nn.BatchNorm2d(4).eval(), (3, 4, 5, 2)),
    "instance norm": (nn.InstanceNorm2d(4, affine=True), (3, 4, 5, 2)),
    "group norm": (nn.GroupNorm(2, 4), (3, 4, 5, 2)),
    "group norm of vectors": (nn.GroupNorm(2, 12), (5, 12)),
    "group norm without weights": (nn.GroupNorm(4, 4, affine=False), (3, 4, 7)),
    "one group": (nn.GroupNorm(1, 4), (1, 4, 7)),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_step_through_a_norm(name: str) -> None:
    torch.manual_seed(5)
    norm, shape = NORMS[name]
    module = nn.Sequential(nn.Linear(shape[-1], shape[-1]), nn.Tanh(), norm, nn.Flatten())
    if norm.training:
        for p in norm.parameters():
            nn.init.normal_(p)
    x = torch.randn(shape) + 1
    step, state, make_batch = repops.lift(
        module, F.mse_loss, optimizer=repops.SGD(momentum=0.9), schedule=repops.constant(0.1)
    )
    batches = [make_batch(x * (i + 1), torch.randn(shape[0], int(np.prod(shape[1:]))), i) for i in range(3)]
    program = repops.capture(step, state, batches[0])
    assert "permute" not in {n.op for n in program.nodes if len(n.shape) > 2}, "activations stay where they are"
    executor, values, eager = repops.Executor(program), state, state
    for batch in batches:
        values, eager = executor.run(values, batch), step(eager, batch)
    for slot in eager:
        np.testing.assert_allclose(values[slot], eager[slot].numpy(), rtol=2e-4, atol=2e-5, err_msg=slot)
    if norm.training and getattr(norm, "track_running_stats", False):
        assert int(values["2.num_batches_tracked"]) == 3
        assert not np.array_equal(values["2.running_var"], np.ones(4)), "the statistics are updated"


class _Autocast(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.module(x)


LOW: dict[str, Callable[[nn.Module], nn.Module]] = {
    "bf16": lambda m: m.bfloat16(),
    "f16": lambda m: m.half(),
    "autocast": _Autocast,
}


@pytest.mark.parametrize("name", LOW)
@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4)], ids=["batch norm", "group norm"])
def test_low_precision(name: str, norm: nn.Module) -> None:
    """bf16 and f16 activations; the statistics are f32, and running ones are rounded to their own dtype only."""
    torch.manual_seed(6)
    module = LOW[name](nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), copy.deepcopy(norm), nn.Flatten()))
    dtype = next(module.parameters()).dtype
    x, y = torch.randn(4, 3, 6, 5).to(dtype), torch.randn(4, 48)
    loss = lambda out, wanted: F.mse_loss(out.float(), wanted)  # noqa: E731
    step, state, make_batch = repops.lift(module, loss, optimizer=repops.SGD(), schedule=repops.constant(0.5))
    batch = make_batch(x, y, 0)
    program = repops.capture(step, state, batch)
    assert {n.dtype for n in program.nodes if n.op in ("rstd", "sum_sq_centered")} == {DType.F32}
    low = DType.F16 if dtype is torch.float16 else DType.BF16
    assert low in {i.dtype for n in program.nodes if n.op == "layer_norm" for i in n.inputs}
    results = [repops.Executor(program, isa=isa).run(state, batch) for isa in _kernels.isas()]
    for slot, wanted in step(state, batch).items():
        assert len({r[slot].tobytes() for r in results}) == 1
        got = to_float64(np.asarray(results[0][slot]), DType.of(wanted.dtype))
        np.testing.assert_allclose(got, wanted.double().numpy(), rtol=2**-6, atol=2**-8, err_msg=slot)


def test_many_positions_are_cut_into_links() -> None:
    norm = nn.BatchNorm1d(2)
    step, state, make_batch = repops.lift(norm, F.mse_loss, optimizer=repops.SGD(), schedule=repops.constant(0.1))
    x = torch.randn(2, 2, 16_384 + 70)
    program = repops.capture(step, state, make_batch(x, torch.randn_like(x), 0))
    assert {n.params[-2] for n in program.nodes if n.op == "sum_sq_centered"} == {0, 16_384}


def test_running_statistics_are_never_lost_in_silence() -> None:
    """The operator itself with statistics would change them unseen."""

    def step(s: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
        mean, var = s["m"].clone(), s["m"] + 1
        out = torch.ops.aten.native_batch_norm(s["x"], None, None, mean, var, True, 0.1, 1e-5)[0]
        return {"x": out, "m": mean}

    with pytest.raises(UnsupportedOperators, match="running statistics unseen"):
        repops.capture(step, {"x": torch.randn(3, 2, 4), "m": torch.zeros(2)}, {})
