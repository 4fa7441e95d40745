"""Capture: what it lowers, what it refuses, and that its self-check is not blind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from programs import MODELS, captured
from torch import Tensor

import repops
from repops.capture import capture
from repops.capture.builder import Builder, pattern
from repops.dtypes import DType
from repops.errors import CaptureError, UnsupportedOperators
from repops.graph.ir import Ref, RefKind

lower, trace, verify = (import_module(f"repops.capture.{name}") for name in ("lower", "trace", "verify"))

Step = Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]


@pytest.mark.parametrize("model", MODELS)
def test_models_are_captured_with_both_checks(model: str) -> None:
    program, _, state, batch = captured(model)
    assert [slot.name for slot in program.slots] == list(state) and [b.name for b in program.batch] == list(batch)
    assert len(set(program.nodes)) == len(program.nodes), "equal nodes are one node"
    used = {i.ref for n in program.nodes for i in n.inputs} | {s.update for s in program.slots}
    assert all(Ref.node(i) in used for i in range(len(program.nodes))), "no dead nodes"


def test_attention_is_one_group_forward_and_backward() -> None:
    program = captured("causal-sgd")[0]
    group = [n for n in program.nodes if n.op.startswith("attention_")]
    assert sorted(n.op.removeprefix("attention_") for n in group) == [
        "dk",
        "dp",
        "dq",
        "ds",
        "dv",
        "max",
        "out",
        "scores",
        "sum",
    ]
    assert all(n.params == (1,) for n in group)
    assert "softmax" not in {n.op for n in program.nodes}


def test_transposes_are_absorbed_into_matmul() -> None:
    program = captured("mlp-sgd")[0]
    assert "permute" not in {n.op for n in program.nodes}
    assert {n.params[:2] for n in program.nodes if n.op == "matmul"} == {(0, 0), (0, 1), (1, 0)}


PROGRAM_ROOT = """
import sys; sys.path.insert(0, {tests!r})
from programs import captured
print(captured("transformer-adamw")[0].root.hex())
"""


def test_capturing_twice_gives_the_same_root() -> None:
    program, step, state, batch = captured("transformer-adamw")
    assert capture(step, state, batch, check=False).root == program.root
    script = PROGRAM_ROOT.format(tests=str(Path(__file__).parent))
    root = Path(__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == program.root.hex()


# What an operator's lowering gives, against torch, through all of capture with both checks.

CASES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "arithmetic": lambda x, i, c: (x + 2 * x - x / 3 + 1 - 0.1) * (1 / (x * x + 1)),
    "alpha": lambda x, i, c: torch.add(x, x, alpha=0.3) + torch.sub(x, x, alpha=2) + torch.rsub(x, 1, alpha=3),
    "promotion": lambda x, i, c: x + i + (i / 3) + (i * 1.5) + c,
    "integers": lambda x, i, c: (i * 3 - i + 7).clamp(-2, 9) + torch.maximum(i, -i).abs(),
    "compare": lambda x, i, c: (
        (x > 0.1).float() + (i >= 1.5) + (x == x.abs()) + (c != (x < 0)) + (x / i).isnan() + (x / i).isinf()
    ),
    "logic": lambda x, i, c: (c & (x > 0)) | ~(i > 2) ^ c,
    "bool add": lambda x, i, c: (c + (x > 0)).float() + (c * (x > 0)),
    "where": lambda x, i, c: torch.where(c, x, 0.5) + torch.where(x > 0, i, 2),
    "unary": lambda x, i, c: (
        x.exp() + x.abs().sqrt() + (x.abs() + 1).log() + x.tanh() + x.sigmoid() + torch.erf(x) - x.neg()
    ),
    "rsqrt": lambda x, i, c: (x * x + 1).rsqrt() + (x * x + 1).reciprocal(),
    "powers": lambda x, i, c: x**2 + x**3 + (x.abs() + 1) ** 0.5 + (x.abs() + 1) ** -2 + x**1 + x**0 + i**2,
    "activations": lambda x, i, c: (
        F.gelu(x) + F.gelu(x, approximate="tanh") + F.silu(x) + F.relu(x) + F.leaky_relu(x, 0.1)
    ),
    "functions": lambda x, i, c: (
        x.sin() + (3 * x).cos() + x.exp2() + x.expm1() + x.abs().log1p() + (x.abs() + 1).log2() + (x * x + 1).log10()
    ),
    "tan": lambda x, i, c: x.tan() + i.sin(),
    "general powers": lambda x, i, c: (
        (x.abs() + 1) ** 1.5 + x.abs() ** -0.3 + 2**x + 10**x + (x.abs() + 1) ** x + x.pow(17) / 1e6
    ),
    "more activations": lambda x, i, c: (
        F.softplus(x) + F.softplus(x, 2, 1) + F.elu(x, 1.3) + F.selu(x) + F.mish(x) + F.hardtanh(x) + F.logsigmoid(x)
    ),
    "clamps": lambda x, i, c: x.clamp(min=-0.5) + x.clamp(max=0.5) + x.clamp(-0.2, 0.3) + x.clamp(max=x.mean()),
    "sums": lambda x, i, c: x + x.sum() + x.sum(0) + x.sum((0, 2), keepdim=True) + c.sum() + i.sum(1, keepdim=True),
    "transposed sum": lambda x, i, c: (
        x + x.permute(2, 0, 1).sum((0, 2)).view(2, 1, 1) + x.transpose(1, 2).sum(1).unsqueeze(-1)
    ),
    "means": lambda x, i, c: x - x.mean() - x.mean(1, keepdim=True) + x.var(2, keepdim=True) + x.std(),
    "extrema": lambda x, i, c: (
        x + x.amax(1, keepdim=True) - x.amin((0, 2), keepdim=True) + c.any(2, keepdim=True) + c.all()
    ),
    "extrema with places": lambda x, i, c: x + x.max(1, keepdim=True)[0] * 2 - x.min(2, keepdim=True).values,
    "repeats": lambda x, i, c: x + x[:, :1, :2].repeat(1, 3, 2) + x[0, 0].repeat(2, 3, 1) + x.flip(1, -1) * 3,
    "bits of bools": lambda x, i, c: torch.where((c & True) | ((c ^ True) & (x > 0)), x, 2 * x),
    "softmax": lambda x, i, c: x.softmax(1) + x.log_softmax(-1) + x.softmax(0),
    "layer norm": lambda x, i, c: (
        F.layer_norm(x, (3, 4)) + F.layer_norm(x, (4,), x[0, 0]) + F.layer_norm(x, (4,), None, x[1, 1])
    ),
    "matmul": lambda x, i, c: (
        x @ x.transpose(1, 2) @ x + x @ x[0].t() @ x[1] + torch.baddbmm(x, x[:, :, :3], x, beta=2, alpha=3)
    ),
    "vector": lambda x, i, c: (
        x + (x @ x[0, 0]).unsqueeze(-1) + torch.dot(x[0, 0], x[1, 1]) + torch.outer(x[0, 0, :3], x[0, 1])
    ),
    "einsum": lambda x, i, c: (
        torch.einsum("abc,adc->abd", x, x).sum() + torch.einsum("abc,bc->ac", x, x[0]).unsqueeze(1) + x
    ),
    "views": lambda x, i, c: (
        x.reshape(4, 6).t().reshape(2, 3, 4) + x.flatten().view(2, 3, 4) + x.unsqueeze(0).squeeze()
    ),
    "slices": lambda x, i, c: x + x[:, :1] + x[1:, :, ::2].repeat_interleave(2, 2) + x[-1] + x.narrow(2, 1, 1),
    "split": lambda x, i, c: (
        torch.cat([a * k for k, a in enumerate(x.split([1, 3], 2))], 2) + torch.stack(x.unbind(1)[::-1], 1)
    ),
    "repeat": lambda x, i, c: x + x[:, :1, :2].repeat(1, 3, 2) + x[0, 0].repeat(2, 3, 1),
    "chunk": lambda x, i, c: torch.cat(x.chunk(3, 1)[::-1], 1) + torch.cat([x[:1], x[:1]]),
    "pad": lambda x, i, c: (
        F.pad(x, (1, 0, 0, 2))[:, :3, :4]
        + F.pad(x, (-1, 1))
        + F.pad(x, (2, -2, -1, 1), value=1.5)
        + F.pad(i, (0, 1), value=-100)[:, :, 1:]
    ),
    "expand": lambda x, i, c: (
        x + x[:1].expand(2, 3, 4) + x[0, 0, 0].expand(3, 4) + torch.ones(3, 1) * torch.zeros_like(x)
    ),
    "gather": lambda x, i, c: x.gather(2, i.clamp(0, 3)) + x.scatter(1, i.clamp(0, 2), 2.5),
    "index": lambda x, i, c: (
        x[torch.tensor([1, 0])] + x[0][i[0, 0].clamp(-3, 2)][0] + x.index_select(0, i[0, 0, :2].clamp(0, 1))
    ),
    "index of several": lambda x, i, c: (
        x[i[0, 0, :2].clamp(0, 1)[:, None], i[0, :, 0].clamp(-3, 2)]
        + x[:, i[0, 0].clamp(0, 2)].sum(1)[:, None]
        + x[1, :, i[0, 0].clamp(-4, 3)]
        + x[i[0, 0, :2].clamp(0, 1), :, i[1, 0, :2].clamp(0, 3)].unsqueeze(-1)
        + c[i.clamp(0, 1), i.clamp(0, 2), i.clamp(0, 3)].long()
    ),
    "index put": lambda x, i, c: (
        x.index_put((i[0, 0, :2].clamp(0, 1), i[0, :2, 0].clamp(-3, 2)), x[0, :2], True)
        + x.index_put(
            (i[0, 0, :2].clamp(0, 1)[:, None, None], torch.arange(3)[:, None], i[0].clamp(-3, 3)), x * 2, True
        )
        + x.index_add(1, i[0, :, 0].clamp(0, 2), x)
        + torch.zeros_like(x).scatter_add(2, i.clamp(0, 3)[:, :2, :3], x.detach())
        + x.scatter_add(1, i.clamp(0, 2), x * 3)
    ),
    "index overwrite": lambda x, i, c: (
        x.index_put((i[0, 0, :2].clamp(0, 1), torch.tensor([2, -3])), x[0, :2])
        + x.index_copy(1, torch.tensor([2, 0]), x[:, 1:])
        + x.scatter(2, torch.tensor([3, 0, 1]).expand(2, 3, 3), x[:, :, 1:] * 2)
        + i.index_put((torch.tensor([1, 1]),), i[:, :1] * 7)
    ),
    "argmax": lambda x, i, c: (
        x.argmax(1, keepdim=True)
        + x.relu().argmax(-1, keepdim=True) * 3
        + x.argmax()
        - x.argmin(2, keepdim=True)
        + x.max(1, keepdim=True)[1]
        + x.min(0)[1]
        + torch.where(c, x, torch.nan).argmax(0)
        + x.max()
        - x.min()
    ),
    "norms": lambda x, i, c: (
        x
        + torch.linalg.vector_norm(x)
        + torch.linalg.vector_norm(x, dim=(0, 2), keepdim=True)
        + x.permute(2, 0, 1).norm(dim=1)[:, 0].view(4)
        + torch.nn.utils.get_total_norm([x, x[0], x[0, 0], x.sum()])
    ),
    "embedding": lambda x, i, c: F.embedding(i.clamp(0, 2), x[0]).sum(2) + F.one_hot(i.clamp(0, 3), 4)[:, :, 0],
    "births": lambda x, i, c: (
        x + torch.arange(4) + torch.arange(1, 9, 2.0) + torch.full((4,), 2) + torch.tensor([1.0, 2, 3, 4])
    ),
    "constant": lambda x, i, c: x * torch.tensor(3.0) + torch.tensor([[0.5], [1.5], [2.5]]),
    "in place": lambda x, i, c: x.clone().mul_(2).add_(1).clamp_(min=0),
    "assignment": lambda x, i, c: _assigned(x),
    "casts": lambda x, i, c: x.long() + i.float().long() + x.bool().long() + c.long(),
    "masked attention": lambda x, i, c: F.scaled_dot_product_attention(x, x, x, attn_mask=x[:, :, :3] > -9, scale=0.3),
    "grouped attention": lambda x, i, c: F.scaled_dot_product_attention(
        x.view(1, 2, 3, 4), x[:1, None], x[1:, None]
    ).view(2, 3, 4),
    "grouped causal attention": lambda x, i, c: (
        F.scaled_dot_product_attention(
            torch.stack([x[:1], x[1:], x[:1] * 2, x[1:] * 3], 1),
            torch.stack([x[:1], x[1:] + 1], 1),
            torch.stack([x[1:], x[1:]], 1),
            is_causal=True,
            enable_gqa=True,
        ).sum(1)
        + x
    ),
    "causal attention": lambda x, i, c: F.scaled_dot_product_attention(x, x * 2, x + 1, is_causal=True),
}


def _assigned(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 1:3] = 0.5
    x[1] = x[0]
    return x


def _tensors() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, generator=g)
    batch = {"i": torch.randint(-3, 5, (2, 3, 4), generator=g), "c": torch.rand(2, 3, 4, generator=g) > 0.5}
    return {"x": x}, batch


@pytest.mark.parametrize("case", CASES)
def test_lowering(case: str) -> None:
    state, batch = _tensors()
    state["out"] = torch.zeros_like(CASES[case](state["x"], batch["i"], batch["c"]))

    def step(s: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"x": s["x"], "out": CASES[case](s["x"], b["i"], b["c"]).to(s["out"].dtype)}

    program = capture(step, state, batch, check=False)
    assert program.slots[0].update == Ref.state(0), "an unchanged slot is itself"
    got = repops.Executor(program).run(state, batch)["out"]
    one_by_one = repops.Executor(program, fuse=False).run(state, batch)["out"]
    assert got.tobytes() == one_by_one.tobytes(), "fused and unfused"
    expected = step(state, batch)["out"].numpy()
    if expected.dtype == np.float32:
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("case", [c for c in CASES if c not in ("integers", "logic", "casts", "bool add")])
def test_gradients(case: str) -> None:
    state, batch = _tensors()
    state["g"] = torch.zeros(2, 3, 4)

    def step(s: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
        x = s["x"].detach().requires_grad_()
        out = CASES[case](x, b["i"], b["c"])
        if not out.requires_grad:
            return {"x": s["x"], "g": s["g"] + 0}
        return {"x": s["x"], "g": torch.autograd.grad((out * (out + 1)).sum(), [x])[0]}

    try:
        program = capture(step, state, batch)
    except UnsupportedOperators as refused:
        assert {"assignment": "new_empty_strided"}[case] in str(refused)
        return
    assert program.nodes


def test_a_long_fold_is_a_chain_of_links() -> None:
    n = 2 * 16_384 + 5

    def step(s: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sum": b["x"].sum(), "dot": b["x"][None] @ b["x"][:, None], "mean": b["x"].view(1, n).mean(1)}

    batch = {"x": torch.randn(n, generator=torch.Generator().manual_seed(1))}
    program = capture(step, {"sum": torch.zeros(()), "dot": torch.zeros(1, 1), "mean": torch.zeros(1)}, batch)
    ranges = [n.params[-2:] for n in program.nodes if n.op in ("sum", "matmul")]
    assert ranges == [(0, 16_384), (16_384, 32_768), (32_768, n)] * 2, "the mean shares the sum's links"
    links = [node for node in program.nodes if node.op == "sum"]
    assert [len(node.inputs) for node in links] == [1, 2, 2]


# Refusals

STATE = {"p": torch.arange(4.0)}


def refused(step: Step, state: dict[str, Tensor] | None = None, batch: dict[str, Tensor] | None = None) -> str:
    with pytest.raises(CaptureError) as caught:
        capture(step, state or STATE, batch or {})
    return str(caught.value)


def test_everything_unsupported_is_listed_with_count_and_place() -> None:
    def step(s: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
        x = torch.sort(s["p"])[0]
        x = x.cumprod(0) + s["p"].cumprod(0)
        return {"p": x + torch.randn(4) + torch.empty(4)}

    with pytest.raises(UnsupportedOperators) as caught:
        capture(step, STATE, {})
    line = step.__code__.co_firstlineno
    listed = "\n".join(caught.value.operators)
    assert f"aten.sort.default: 1 time, first at test_capture.py line {line + 1}" in listed
    assert f"aten.cumprod.default: 2 times, first at test_capture.py line {line + 2}" in listed
    assert "aten.randn" in listed and "aten.empty.memory_format" in listed


def test_unused_unsupported_work_is_dropped() -> None:
    def step(s: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
        torch.sort(s["p"])
        torch.empty(3)
        return {"p": s["p"] * 2}

    assert [n.op for n in capture(step, STATE, {}).nodes] == ["fill", "mul"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.int16, torch.uint8])
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    message = refused(lambda s, b: {"p": (s["p"].to(dtype) * 2).to(torch.float32)})
    assert str(dtype) in message
    assert str(dtype) in refused(lambda s, b: dict(s), {"p": torch.zeros(3, dtype=dtype)})


def test_data_dependent_control_flow_is_refused() -> None:
    message = refused(lambda s, b: {"p": s["p"] * 2 if s["p"].sum() > 0 else s["p"]})
    assert "values" in message and "test_capture.py line" in message
    assert "by a mask" in refused(lambda s, b: {"p": s["p"][s["p"] > 0].sum() + s["p"]})


def test_tensors_from_outside_are_refused() -> None:
    outside = torch.ones(4)
    assert "from outside its arguments, of shape [4]" in refused(lambda s, b: {"p": s["p"] * outside})


def test_changing_an_argument_in_place_is_refused() -> None:
    assert "changes p in place" in refused(lambda s, b: {"p": s["p"].add_(1)})


def test_a_step_returns_its_slots() -> None:
    assert "q" in refused(lambda s, b: {"q": s["p"]})
    assert "slot p" in refused(lambda s, b: {"p": s["p"][:2]})
    assert "slot p" in refused(lambda s, b: {"p": s["p"].long()})
    assert "dict" in refused(lambda s, b: s["p"])  # type: ignore[arg-type, return-value]
    assert "not a tensor" in refused(lambda s, b: s, {"p": 1.0})  # type: ignore[dict-item]


# The self-check sees wrong mathematics


def wrong(monkeypatch: pytest.MonkeyPatch, target: str, rule: Any) -> str:
    _, step, state, batch = captured("transformer-adamw")
    monkeypatch.setitem(lower._RULES, target, rule)
    return refused(step, state, batch)


def test_a_wrong_gradient_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tanh derivative for the erf GELU: off by less than 1e-3 everywhere."""
    rule = lower._Lowering.gelu_backward
    message = wrong(monkeypatch, "aten.gelu_backward.default", lambda self, dy, x, **_: rule(self, dy, x, "tanh"))
    assert "self-check failed" in message and "float64 twin" in message and "slot " in message


def test_a_wrong_layer_norm_bias_gradient_names_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(self: Any, *args: Any) -> Any:
        dx, dw, db = lower._Lowering.layer_norm_backward(self, *args)
        return dx, dw, self.b.pointwise("mul", db, self.b.scalar(1.001, DType.F32))

    assert "slot norm" in wrong(monkeypatch, "aten.native_layer_norm_backward.default", rule)


def test_a_wrong_attention_gradient_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(self: Any, *args: Any) -> Any:
        dq, dk, dv = lower._Lowering.attention_backward(self, *args)
        return dk, dq, dv

    assert "slot " in wrong(monkeypatch, "repops.attention_backward.default", rule)


def test_decomposed_default_attention_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the interception the backward is a fused CPU kernel: refused, never lowered."""
    _, step, state, batch = captured("transformer-adamw")
    monkeypatch.setattr(trace, "AttentionCapture", torch.overrides.BaseTorchFunctionMode)
    assert "_scaled_dot_product_flash_attention_for_cpu_backward" in refused(step, state, batch)


def test_a_wrong_kernel_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    program, step, state, batch = captured("mlp-sgd")
    actual = repops.Executor(program).run(state, batch)
    actual["0.weight"][0, 0] += 0.01
    monkeypatch.setattr(verify.Executor, "run", lambda *_: actual)
    with pytest.raises(CaptureError, match=r"slot 0\.weight: the self-check failed .*RepOps kernels"):
        verify.self_check(program, step, state, batch)


def test_the_light_check_takes_no_float64_and_sees_what_is_wrong_by_more_than_1e_4(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program, step, state, batch = captured("transformer-adamw")
    monkeypatch.setattr(verify, "run_twins", lambda *_: pytest.fail("a twin ran"))
    assert capture(step, state, batch, check="light").root == program.root
    rule = lower._Lowering.layer_norm_backward

    def scaled(self: Any, *args: Any) -> Any:
        dx, dw, db = rule(self, *args)
        return dx, dw, self.b.pointwise("mul", db, self.b.scalar(1.01, DType.F32))

    monkeypatch.setitem(lower._RULES, "aten.native_layer_norm_backward.default", scaled)
    with pytest.raises(CaptureError, match=r"slot norm.*RepOps kernels"):
        capture(step, state, batch, check="light")
    with pytest.raises(CaptureError, match="check is 'quick'"):
        capture(step, state, batch, check="quick")  # type: ignore[arg-type]


def test_a_wrong_integer_slot_is_caught() -> None:
    state = {"n": torch.tensor([1, 2])}
    program = capture(lambda s, b: {"n": s["n"] + 1}, state, {})
    with pytest.raises(CaptureError, match=r"slot n: .*2 elements differ"):
        verify.self_check(program, lambda s, b: {"n": s["n"] + 2}, state, {})


# The builder's views


def test_patterns_are_rounded_once() -> None:
    assert pattern(0.1, DType.F32) == 0x3DCCCCCD and pattern(1e-12, DType.F32) == 0x2B8CBCCC
    assert pattern(float("-inf"), DType.F32) == 0xFF800000 and pattern(1e39, DType.F32) == 0x7F800000
    assert pattern(-1, DType.I64) == 2**64 - 1 and pattern(True, DType.BOOL) == 1
    assert pattern(1.0 + 2.0**-24 + 2.0**-50, DType.F32) == 0x3F800001, "no double rounding"


def test_views_cost_no_nodes_until_an_order_is_needed() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        shape = tuple(int(d) for d in rng.integers(1, 4, rng.integers(1, 4)))
        builder = Builder([("s", DType.F32, shape)], [])
        array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        value, expected = builder.state(0), array
        for _ in range(rng.integers(1, 6)):
            kind = rng.integers(3)
            if kind == 0:
                dims = rng.permutation(expected.ndim).tolist()
                value, expected = builder.permute(value, dims), expected.transpose(dims)
            elif kind == 1:
                factors = _factors(expected.size, rng)
                value, expected = builder.view(value, factors), expected.reshape(factors)
            elif expected.size < 500:
                wide = (2, *(3 if d == 1 else d for d in expected.shape))
                value, expected = builder.expand(value, wide), np.broadcast_to(expected, wide)
            if expected.ndim > 6:
                break
        assert value.shape == expected.shape
        if expected.size != array.size:
            continue  # not the slot's element count
        program = builder.finish([value])
        got = repops.Executor(program).run({"s": array}, {})["s"]
        assert got.tobytes() == np.ascontiguousarray(expected).tobytes()
        if value.is_plain and program.slots[0].update.kind is RefKind.STATE:
            assert not program.nodes


def _factors(n: int, rng: np.random.Generator) -> tuple[int, ...]:
    factors = []
    while n > 1 and len(factors) < 4:
        choices = [d for d in range(1, n + 1) if n % d == 0]
        factors.append(int(rng.choice(choices)))
        n //= factors[-1]
    return (*factors, n)
