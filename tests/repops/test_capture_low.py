"""Steps in bf16 and f16: autocast, low-precision modules, f32 master weights; torch's rounding points."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kernel_calls import widened
from torch import Tensor, nn

import repops
from repops import _kernels
from repops.capture import verify
from repops.dtypes import DType
from repops.errors import CaptureError
from repops.graph.ir import Program

Tensors = dict[str, Tensor]
LOW = [torch.bfloat16, torch.float16]


class Block(nn.Module):
    """An embedding, a normalised MLP, causal attention and a head."""

    def __init__(self, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.autocast = autocast
        self.embed, self.up, self.norm = nn.Embedding(40, 24), nn.Linear(24, 48), nn.LayerNorm(48)
        self.qkv, self.head = nn.Linear(48, 144), nn.Linear(48, 40)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            h = self.norm(F.gelu(self.up(self.embed(x))))
            q, k, v = (t.unflatten(-1, (3, 16)).transpose(1, 2) for t in self.qkv(h).chunk(3, -1))
            h = h + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            logits: Tensor = self.head(F.silu(h))
            return logits


def loss(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1).float(), y.flatten())


def data() -> tuple[Tensor, Tensor]:
    x, y = (torch.randint(0, 40, (2, 11), generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    return x, y


def low_nodes(program: Program) -> Counter[str]:
    return Counter(n.op for n in program.nodes if n.dtype in (DType.BF16, DType.F16))


def same_everywhere(program: Program, state: Tensors, batch: Tensors) -> dict[str, np.ndarray]:
    """The new state, of the same bytes on every instruction set, fused or not, for one thread and three."""
    first = repops.Executor(program, isa="scalar").run(state, batch)
    for isa in _kernels.isas():
        for fuse, threads in ((True, 1), (True, 3), (False, 2)):
            again = repops.Executor(program, threads, isa, fuse=fuse).run(state, batch)
            assert all(again[name].tobytes() == first[name].tobytes() for name in first), (isa, fuse, threads)
    return first


@pytest.mark.parametrize("kind", ["autocast", "module"])
@pytest.mark.parametrize("dtype", LOW)
def test_a_low_precision_step(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    module = Block(dtype) if kind == "autocast" else Block().to(dtype)
    step, state, make_batch = repops.lift(module, loss, optimizer=repops.SGD(0.9), schedule=repops.constant(0.1))
    program = repops.capture(step, state, make_batch(*data(), 0))
    ops = low_nodes(program)
    assert {"attention_out", "layer_norm", "gelu_erf", "silu", "attention_dq"} <= set(ops)
    assert all(
        s.dtype.is_float and (s.dtype is DType.F32) == (kind == "autocast" or s.name == "loss") for s in program.slots
    )
    statistics = ("attention_scores", "attention_max", "attention_sum", "rstd", "sum_exp", "sum_sq_centered")
    assert all(n.dtype is DType.F32 for n in program.nodes if n.op in statistics)
    same_everywhere(program, state, make_batch(*data(), 0))


def test_training_with_f32_master_weights() -> None:
    """bf16 weights for forward and backward, cast from f32 slots that the optimizer updates."""
    torch.manual_seed(3)
    module = Block().bfloat16()
    names = [name for name, _ in module.named_parameters()]
    state = {name: p.detach().float() for name, p in module.named_parameters()} | {"loss": torch.zeros(())}

    def step(state: Tensors, batch: Tensors) -> Tensors:
        weights = {name: state[name].to(torch.bfloat16).requires_grad_() for name in names}
        value = loss(torch.func.functional_call(module, weights, (batch["x"],)), batch["y"])
        gradients = torch.autograd.grad(value, list(weights.values()))
        new = {name: state[name] - 0.1 * g.float() for name, g in zip(names, gradients, strict=True)}
        return new | {"loss": value.detach()}

    x, y = data()
    program = repops.capture(step, state, {"x": x, "y": y})
    assert all(slot.dtype is DType.F32 for slot in program.slots)
    executor, values = repops.Executor(program), []
    current: dict[str, np.ndarray] = {name: t.numpy().copy() for name, t in state.items()}
    for _ in range(25):
        current = executor.run(current, {"x": x, "y": y}, donate=True)
        values.append(float(current["loss"]))
    assert values[-1] < 0.5 * values[0]


def one(function: object, dtype: torch.dtype, *shape: int) -> tuple[Program, Tensors]:
    """A step of one slot x."""
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(5)) * 3).to(dtype)
    return repops.capture(lambda s, b: {"x": function(s["x"])}, {"x": x}, {}), {"x": x}  # type: ignore[operator]


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 0.1,
        lambda x: x + x * x,
        lambda x: (x * 0.3) / (x.abs() * 1.7),
        lambda x: torch.where(x > 0.1, x, 0.7),
        lambda x: x.clamp(-0.3, 1.1),
        lambda x: torch.cat([x[:, :3], x[:, 3:] * 2], 1),
        lambda x: x.float().mul(3.3).to(x.dtype),
        lambda x: x.masked_fill(x < 0, -0.1),
        lambda x: torch.full_like(x, 0.1) + x,
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: x.abs().sqrt() * x.sign(),
    ],
)
def test_rounds_where_torch_does(function: object, dtype: torch.dtype) -> None:
    """Operators that are the same in f32 here and in torch give torch's bits."""
    program, state = one(function, dtype, 6, 8)
    got = repops.Executor(program).run(state, {})["x"]
    expected = function(state["x"]).view(torch.int16).numpy()  # type: ignore[operator]
    assert np.array_equal(got.view(np.int16), expected)


def test_widening_is_not_a_node_and_rounding_is_not_one_either() -> None:
    program, _ = one(lambda x: (x.float() * 3.3 + x.float()).to(torch.bfloat16), torch.bfloat16, 6, 8)
    assert [(n.op, n.dtype.text) for n in program.nodes if n.op != "fill"] == [("mul", "f32"), ("add", "bf16")]


def test_the_twins_are_as_strict_for_bf16_as_for_f32() -> None:
    """They round nothing: an error of 7e-6, far below a unit of bf16, is found."""
    x = torch.randn(6, 8).to(torch.bfloat16)

    def step(s: Tensors, b: Tensors) -> Tensors:
        return {"x": s["x"] * 1.5}

    program = repops.capture(step, {"x": x}, {})
    with pytest.raises(CaptureError, match="float64 twin"):
        verify.self_check(program, lambda s, b: {"x": s["x"] * 1.50001}, {"x": x}, {})


@pytest.mark.parametrize("dtype", [torch.int32, torch.float16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    x = torch.arange(-8, 16, dtype=dtype).reshape(4, 6)
    index = torch.tensor([3, 0, 2], dtype=torch.int32)

    def step(s: Tensors, b: Tensors) -> Tensors:
        return {"x": s["x"] * 2 - s["x"].abs(), "y": s["x"][b["i"]].sum(0).to(torch.int64)}

    state = {"x": x, "y": torch.zeros(6, dtype=torch.int64)}
    program = repops.capture(step, state, {"i": index})
    new = repops.Executor(program).run(state, {"i": index})
    expected = step(state, {"i": index})
    assert all(np.array_equal(new[name], expected[name].numpy()) for name in new)


def test_bf16_tensors_at_the_front() -> None:
    program, state = one(lambda x: x + 1, torch.bfloat16, 3, 4)
    executor = repops.Executor(program)
    patterns = state["x"].view(torch.uint16).numpy()
    assert np.array_equal(executor.run(state, {})["x"], executor.run({"x": patterns}, {})["x"])
    assert np.array_equal(widened(executor.run(state, {})["x"]), (state["x"] + 1).float().numpy())
    transposed = {"x": state["x"].T.contiguous().T}
    assert np.array_equal(executor.run(transposed, {})["x"], executor.run(state, {})["x"])
    with pytest.raises(repops.errors.TensorError, match="dtype"):
        executor.run({"x": state["x"].float()}, {})
