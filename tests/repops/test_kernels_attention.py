"""The attention group: node by node against the reference, fused against the nodes, causal and not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import F32, VECTOR_ISAS, Array, Case, f32_bits, finite, hostile

from repops import _kernels

SCALE = f32_bits(0.125)
SIZES = st.one_of(st.integers(0, 20), st.sampled_from([31, 32, 33, 47, 64, 65, 100]))


def group(
    rng: np.random.Generator, b: int, t: int, s: int, d: int, e: int, causal: int, special: bool = False
) -> dict[str, Case]:
    """The nine nodes of the group, forward and backward, each fed with the outputs of the ones before it."""
    make = (lambda *n: hostile(rng, F32, n)) if special else (lambda *n: finite(rng, n))
    q, k, v, do, delta = make(b, t, d), make(b, s, d), make(b, s, e), make(b, t, e), make(b, t, 1)
    nodes: dict[str, Case] = {}

    def node(op: str, inputs: list[Array], shape: tuple[int, ...], scaled: bool = False) -> Array:
        nodes[op] = Case(op, inputs, F32, shape, (causal,), (SCALE,) if scaled else ())
        return nodes[op].array()

    scores = node("attention_scores", [q, k], (b, t, s), scaled=True)
    if special:
        scores = hostile(rng, F32, (b, t, s))
    m = node("attention_max", [scores], (b, t, 1))
    l = node("attention_sum", [scores, m], (b, t, 1))  # noqa: E741
    node("attention_out", [scores, m, l, v], (b, t, e))
    node("attention_dv", [scores, m, l, do], (b, s, e))
    dp = node("attention_dp", [do, v], (b, t, s))
    ds = node("attention_ds", [scores, m, l, dp, delta], (b, t, s))
    node("attention_dq", [ds, k], (b, t, d), scaled=True)
    node("attention_dk", [ds, q], (b, s, d), scaled=True)
    return nodes


@given(st.integers(0, 3), SIZES, SIZES, SIZES, SIZES, st.integers(0, 1), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_all_instruction_sets_agree(
    b: int, t: int, s: int, d: int, e: int, causal: int, special: bool, seed: int
) -> None:
    for case in group(np.random.default_rng(seed), b, t, s, min(d, 40), min(e, 40), causal, special).values():
        case.check(offsets=(0, 2))


@pytest.mark.parametrize("t,s,d,e", [(530, 530, 7, 5), (300, 280, 300, 18), (30, 600, 8, 20), (600, 30, 16, 33)])
@pytest.mark.parametrize("causal", [0, 1])
def test_several_blocks(t: int, s: int, d: int, e: int, causal: int) -> None:
    """Folds over more than one block of 256, with the diagonal in any of them; sampled against the reference."""
    rng = np.random.default_rng(t)
    for case in group(rng, 1, t, s, d, e, causal).values():
        first = case.run(VECTOR_ISAS[0])
        for isa in VECTOR_ISAS:
            assert case.run(isa, 3) == first, (case.op, isa)
        bits = np.frombuffer(first, np.uint32)
        for index in {0, len(bits) - 1, *rng.integers(0, len(bits), 60).tolist()}:
            assert case.element(index) == bits[index], (case.op, index)


@pytest.mark.parametrize("causal", [0, 1])
def test_without_keys_or_queries_every_fold_is_empty(causal: int) -> None:
    def bits(nodes: dict[str, Case], name: str) -> set[int]:
        return set(nodes[f"attention_{name}"].check().view(np.uint32).ravel().tolist())

    no_keys = group(np.random.default_rng(0), 2, 3, 0, 4, 5, causal)
    assert bits(no_keys, "max") == {0xFF800000} and bits(no_keys, "sum") == bits(no_keys, "dq") == {0}
    assert bits(no_keys, "out") == {0x7FC00000}  # 0 / 0
    no_queries = group(np.random.default_rng(0), 2, 0, 3, 4, 5, causal)
    assert bits(no_queries, "dv") == bits(no_queries, "dk") == {0}


def fused_forward(q: Array, k: Array, v: Array, causal: int, isa: str, threads: int) -> list[Array]:
    b, t, _ = q.shape
    outs = [np.empty((b, t, v.shape[2]), np.float32), np.empty((b, t, 1), np.float32), np.empty((b, t, 1), np.float32)]
    _kernels.run_fused(
        "attention_forward", isa, threads, [causal], [SCALE],
        [(a, int(F32), list(a.shape)) for a in (q, k, v)], [(a, int(F32), list(a.shape)) for a in outs],
    )  # fmt: skip
    return outs


@given(st.integers(0, 3), SIZES, SIZES, SIZES, SIZES, st.integers(0, 1), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_fused_forward_has_the_nodes_bits(
    b: int, t: int, s: int, d: int, e: int, causal: int, special: bool, seed: int
) -> None:
    check_forward(np.random.default_rng(seed), (b, t, s, d, e), causal, special)


@pytest.mark.parametrize("shape", [(1, 1100, 1100, 4, 9), (2, 40, 2100, 300, 3), (1, 515, 300, 16, 64)])
@pytest.mark.parametrize("causal", [0, 1])
def test_fused_forward_over_several_blocks(shape: tuple[int, int, int, int, int], causal: int) -> None:
    check_forward(np.random.default_rng(1), shape, causal, False)


def check_forward(rng: np.random.Generator, shape: tuple[int, int, int, int, int], causal: int, special: bool) -> None:
    b, t, s, d, e = shape
    make = (lambda *n: hostile(rng, F32, n)) if special else (lambda *n: finite(rng, n))
    q, k, v = make(b, t, d), make(b, s, d), make(b, s, e)
    for isa in VECTOR_ISAS:
        scores = Case("attention_scores", [q, k], F32, (b, t, s), (causal,), (SCALE,)).array(isa)
        m = Case("attention_max", [scores], F32, (b, t, 1), (causal,)).array(isa)
        total = Case("attention_sum", [scores, m], F32, (b, t, 1), (causal,)).array(isa)
        out = Case("attention_out", [scores, m, total, v], F32, (b, t, e), (causal,)).array(isa)
        for threads in (1, 3):
            fused = fused_forward(q, k, v, causal, isa, threads)
            assert [x.tobytes() for x in fused] == [out.tobytes(), m.tobytes(), total.tobytes()], (isa, threads)


@given(st.integers(0, 3), SIZES, SIZES, SIZES, SIZES, st.integers(0, 1), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_fused_backward_has_the_nodes_bits(
    b: int, t: int, s: int, d: int, e: int, causal: int, special: bool, seed: int
) -> None:
    check_backward(np.random.default_rng(seed), (b, t, s, d, e), causal, special)


@pytest.mark.parametrize("shape", [(1, 600, 600, 4, 9), (2, 40, 530, 300, 3), (1, 530, 300, 16, 40)])
@pytest.mark.parametrize("causal", [0, 1])
def test_fused_backward_over_several_blocks(shape: tuple[int, int, int, int, int], causal: int) -> None:
    check_backward(np.random.default_rng(1), shape, causal, False)


def check_backward(rng: np.random.Generator, shape: tuple[int, int, int, int, int], causal: int, special: bool) -> None:
    b, t, s, d, e = shape
    make = (lambda *n: hostile(rng, F32, n)) if special else (lambda *n: finite(rng, n))
    q, k, v, do, delta = make(b, t, d), make(b, s, d), make(b, s, e), make(b, t, e), make(b, t, 1)
    for isa in VECTOR_ISAS:

        def node(op: str, inputs: list[Array], *shape: int, scaled: bool = False, isa: str = isa) -> Array:
            return Case(op, inputs, F32, shape, (causal,), (SCALE,) if scaled else ()).array(isa)

        scores = node("attention_scores", [q, k], b, t, s, scaled=True)
        m = node("attention_max", [scores], b, t, 1)
        total = node("attention_sum", [scores, m], b, t, 1)
        dv = node("attention_dv", [scores, m, total, do], b, s, e)
        ds = node("attention_ds", [scores, m, total, node("attention_dp", [do, v], b, t, s), delta], b, t, s)
        dq = node("attention_dq", [ds, k], b, t, d, scaled=True)
        dk = node("attention_dk", [ds, q], b, s, d, scaled=True)
        for threads in (1, 3):
            outs = [np.empty_like(a) for a in (dq, dk, dv)]
            _kernels.run_fused(
                "attention_backward", isa, threads, [causal], [SCALE],
                [(a, int(F32), list(a.shape)) for a in (q, k, v, m, total, do, delta)],
                [(a, int(F32), list(a.shape)) for a in outs],
            )  # fmt: skip
            assert [a.tobytes() for a in outs] == [a.tobytes() for a in (dq, dk, dv)], (isa, threads)
