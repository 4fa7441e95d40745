"""Random numbers and dropout: the bits of Philox, masks that eager torch and the program share, running sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import BOOL, F32, I64, VECTOR_ISAS, Case, DType, hostile
from programs import Attention, mlp
from torch import Tensor, nn

import repops
from repops.capture.random import RandomCapture
from repops.errors import CaptureError, ProgramError
from repops.graph.ir import BatchTensor, Input, Node, Program, Ref, Slot
from repops.ops.twins import philox_uniform

ANY = st.integers(-(2**63), 2**63 - 1)


def philox(seed: int, step: int, node: int, shape: tuple[int, ...]) -> Case:
    return Case("philox", [np.array(seed), np.array(step)], F32, shape, [node])


def test_known_answers() -> None:
    """Random123's vector for counter and key zero; here the upper 24 bits of each word."""
    zero = philox(0, 0, 0, (4,)).check() * 2.0**24
    assert [int(x) for x in zero] == [w >> 8 for w in (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)]


@given(ANY, ANY, st.integers(0, 2**24 - 1), st.integers(0, 700))
@settings(max_examples=40, deadline=None)
def test_all_instruction_sets_agree_with_the_twin(seed: int, step: int, node: int, count: int) -> None:
    out = philox(seed, step, node, (count,)).check()
    assert out.tobytes() == philox_uniform(seed, step, node, count).tobytes()
    assert np.all((out >= 0) & (out < 1))


def by_hand(seed: int, step: int, node: int, element: int) -> int:
    """The 24 bits of an element, by the table of docs/spec/operators.md in whole numbers."""
    low = 2**32 - 1
    q = element >> 2
    c = [q & low, (q >> 32) | node << 8, step & low, step >> 32 & low]
    k = [seed & low, seed >> 32 & low]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & low, p0 >> 32 ^ c[3] ^ k[1], p0 & low]
        k = [k[0] + 0x9E3779B9 & low, k[1] + 0xBB67AE85 & low]
    return c[element % 4] >> 8


@pytest.mark.parametrize(("seed", "step", "node"), [(0, 0, 0), (-1, -(2**63), 2**24 - 1), (2**40 + 3, 2**33, 77)])
def test_words_by_hand(seed: int, step: int, node: int) -> None:
    """Also of elements whose number has more than 34 bits: their high half goes into word 1 of the counter."""
    for element in (0, 1, 2, 3, 4, 5, 1023, 2**34 - 1, 2**34, 2**39 + 2**34 + 7):
        pattern = philox(seed, step, node, (2**20, 2**20)).element(element)
        assert np.uint32(pattern).view(np.float32) * 2.0**24 == by_hand(seed, step, node, element)


def test_what_the_rule_refuses() -> None:
    def check(node: int = 0, seed: DType = I64, shape: tuple[int, ...] = (), out: DType = F32) -> None:
        inputs = (Input(Ref.batch(0), seed, shape), Input(Ref.batch(1), I64, ()))
        made = Node("philox", (node,), (), inputs, out, (5,))
        batch = (BatchTensor("seed", seed, shape), BatchTensor("step", I64, ()))
        Program((Slot("s", out, (5,), Ref.node(0)),), batch, (), (made,)).check()

    check(2**24 - 1)
    refused: list[dict[str, Any]] = [
        {"node": 2**24}, {"node": -1}, {"seed": DType.I32}, {"shape": (1,)}, {"out": DType.BF16},
    ]  # fmt: skip
    for change in refused:
        with pytest.raises(ProgramError, match="node 0"):
            check(**change)


def test_numbers_do_not_depend_on_the_shape_and_differ_by_every_part_of_the_counter() -> None:
    base = philox(1, 2, 3, (4, 50)).array()
    assert base.ravel()[:100].tobytes() == philox(1, 2, 3, (100,)).array().tobytes()
    for other in (philox(2, 2, 3, (4, 50)), philox(1, 3, 3, (4, 50)), philox(1, 2, 4, (4, 50))):
        assert np.mean(other.array() == base) < 0.01
    for isa in VECTOR_ISAS:
        assert len({philox(1, 2, 3, (40_000,)).run(isa, threads) for threads in (1, 2, 3)}) == 1
    big = philox(7, 0, 0, (200_000,)).array()
    assert abs(big.mean() - 0.5) < 0.003 and abs(np.mean(big < 0.1) - 0.1) < 0.003


@given(
    st.sampled_from([I64, BOOL]), st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 2**32), st.data()
)
@settings(max_examples=40, deadline=None)
def test_cumsum_wraps(dtype: DType, shape: list[int], seed: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = hostile(np.random.default_rng(seed), dtype, shape)
    out = Case("cumsum", [x], I64, tuple(shape), [axis]).check()
    with np.errstate(over="ignore"):
        expected = np.cumsum(x.view(np.uint8) != 0 if dtype is BOOL else x, axis=axis, dtype=np.int64)
    assert np.array_equal(out, expected)


def test_a_long_running_sum_is_refused() -> None:
    def program(length: int) -> Program:
        node = Node("cumsum", (0,), (), (Input(Ref.batch(0), I64, (length,)),), I64, (length,))
        return Program((Slot("s", I64, (length,), Ref.node(0)),), (BatchTensor("x", I64, (length,)),), (), (node,))

    program(16_384).check()
    with pytest.raises(ProgramError, match="At most 16384"):
        program(16_385).check()


def test_cumsum_is_captured() -> None:
    x = torch.tensor([[1, -2, 3], [4, 5, -6]])
    program = repops.capture(lambda s, b: {"x": s["x"].cumsum(1) + (s["x"] > 0).cumsum(0)}, {"x": x}, {})
    assert [n.op for n in program.nodes].count("cumsum") == 2


# Dropout


class Block(nn.Module):
    """Attention with dropout inside, dropout layers of every kind around it."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.attention = nn.Embedding(11, 16), Attention(16, 2, False)
        self.drop, self.channels, self.head = nn.Dropout(0.25), nn.Dropout1d(0.3), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.channels(self.tokens(x))
        q = k = v = h.view(*h.shape[:2], 2, 8).transpose(1, 2)
        drawn = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=0.2 if self.training else 0.0)
        h = self.drop(h + drawn.transpose(1, 2).reshape(h.shape)) + self.attention(h)
        return self.head(h.mean(1))


def lifted(module: nn.Module, x: Tensor, classes: int, **options: int):  # type: ignore[no-untyped-def]
    y = torch.arange(len(x)) % classes
    step, state, make_batch = repops.lift(
        module, F.cross_entropy, optimizer=repops.AdamW(), schedule=repops.constant(0.01), **options
    )
    return step, state, lambda index: make_batch(x, y, index)


def test_a_transformer_with_dropout_is_captured_and_checked() -> None:
    torch.manual_seed(3)
    step, state, batch = lifted(Block(), torch.randint(0, 11, (3, 6)), 5, seed=9)
    assert [int(batch(4)[name]) for name in ("dropout.seed", "dropout.step")] == [9, 4]
    program = repops.capture(step, state, batch(1))
    assert [n.params for n in program.nodes if n.op == "philox"] == [(0,), (1,), (2,)]


def test_steps_follow_eager_torch_with_the_same_masks() -> None:
    torch.manual_seed(4)
    module = nn.Sequential(mlp(), nn.Dropout(0.4, inplace=True), nn.Linear(4, 4))
    step, state, batch = lifted(module, torch.randn(8, 7), 4)
    executor = repops.Executor(repops.capture(step, state, batch(0)))
    values, eager, losses = state, state, []
    for index in range(6):
        values = executor.run(values, batch(index))
        with RandomCapture(batch(index)):
            eager = step(eager, batch(index))
        assert float(values["loss"]) == pytest.approx(float(eager["loss"]), rel=1e-4)
        losses.append(float(executor.run(state, batch(index))["loss"]))
    assert len(set(losses)) == 6, "every step has its own masks"


def test_bernoulli_and_rand() -> None:
    def step(s: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
        x = s["x"]
        mask = torch.empty_like(x).bernoulli_(0.3) + torch.bernoulli(torch.full_like(x, 0.6)) * 2
        noise = torch.rand(4, 5) + torch.rand((4, 5)) + torch.rand_like(x)
        return {
            "x": F.dropout(x, 1.0) + F.dropout(x, 0.0) + mask + noise + F.dropout2d(x.view(1, 2, 2, 5), 0.5).view(4, 5)
        }

    batch = {"dropout.seed": torch.tensor(1), "dropout.step": torch.tensor(2)}
    program = repops.capture(step, {"x": torch.randn(4, 5)}, batch)
    assert [n.params[0] for n in program.nodes if n.op == "philox"] == list(range(7))


def test_dropout_without_a_seed_is_refused_and_eval_needs_none() -> None:
    with pytest.raises(CaptureError, match=r"dropout\.seed"):
        repops.capture(lambda s, b: {"x": F.dropout(s["x"], 0.5)}, {"x": torch.ones(3)}, {})
    module = nn.Sequential(mlp(), nn.Dropout(0.4)).eval()
    step, state, batch = lifted(module, torch.randn(8, 7), 4)
    assert "dropout.seed" not in batch(0)
    assert "philox" not in {n.op for n in repops.capture(step, state, batch(0)).nodes}
