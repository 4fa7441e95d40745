"""The reference definitions against oracles of their own: exact FMA by fractions, sums and folds in plain Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from kernel_calls import BOOL, F32, I64, NAN_BITS, Array, Case, f32_bits, finite, fma, hostile

from repops import _kernels
from repops.ops.table import OPERATORS

Term = Callable[[np.float32, int], np.float32]
Zero = np.float32(0.0)


def exp(x: Array) -> Array:
    """EXP has tests of its own; here it is a given."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    return Case("exp", [x], F32, x.shape).array("scalar")


def chain(blocks: Iterable[np.float32], carry: np.float32 | None = None) -> np.float32:
    s = carry
    for block in blocks:
        s = block if s is None else s + block
    return Zero if s is None else s


def dot(a: Array, b: Array, carry: np.float32 | None = None, visible: Array | None = None) -> np.float32:
    """DOT in blocks of 256; positions that are not visible are absent, and so are blocks without one."""
    seen = np.ones(len(a), dtype=bool) if visible is None else visible
    blocks = []
    for start in range(0, len(a), 256):
        ks = [k for k in range(start, min(start + 256, len(a))) if seen[k]]
        p = Zero
        for k in ks:
            p = fma(a[k], b[k], p)
        if ks:
            blocks.append(p)
    return chain(blocks, carry)


def rsum(n: int, step: Term, carry: np.float32 | None = None, visible: Array | None = None) -> np.float32:
    """RSUM: blocks of 1,024, 32 lanes, the tree."""
    blocks = []
    for start in range(0, n, 1024):
        lane = [Zero] * 32
        some = False
        for i in range(start, min(start + 1024, n)):
            if visible is None or visible[i]:
                lane[i % 32] = step(lane[i % 32], i)
                some = True
        for h in (16, 8, 4, 2, 1):
            for j in range(h):
                lane[j] = lane[j] + lane[j + h]
        if some:
            blocks.append(lane[0])
    return chain(blocks, carry)


def close_bits(got: Array, expected: Array) -> None:
    assert got.tobytes() == np.asarray(expected, dtype=np.float32).tobytes()


def test_every_operator_of_the_table_has_a_reference() -> None:
    assert set(OPERATORS) == set(_kernels.operators())


@pytest.mark.parametrize("depth", [0, 1, 255, 256, 257, 600])
@pytest.mark.parametrize(("ta", "tb"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_matmul_is_dot(depth: int, ta: int, tb: int) -> None:
    rng = np.random.default_rng(depth)
    a, b = finite(rng, (2, 2, depth)), finite(rng, (2, depth, 3))
    inputs = [np.ascontiguousarray(a.swapaxes(1, 2)) if ta else a, np.ascontiguousarray(b.swapaxes(1, 2)) if tb else b]
    expected = [[[dot(a[i, m], b[i, :, n]) for n in range(3)] for m in range(2)] for i in range(2)]
    close_bits(Case("matmul", inputs, F32, (2, 2, 3), [ta, tb, 0, depth]).array("scalar"), np.array(expected))


def test_a_link_of_a_matmul_begins_with_its_carry() -> None:
    rng = np.random.default_rng(2)
    a, b = finite(rng, (1, 16384 + 300)), finite(rng, (16384 + 300, 2))
    whole = Case("matmul", [a, b], F32, (1, 2), [0, 0, 0, 16684]).array("scalar")
    first = Case("matmul", [a, b], F32, (1, 2), [0, 0, 0, 16384]).array("scalar")
    close_bits(Case("matmul", [a, b, first], F32, (1, 2), [0, 0, 16384, 16684]).array("scalar"), whole)
    expected = [dot(a[0, 16384:], b[16384:, n], carry=first[0, n]) for n in range(2)]
    close_bits(whole, np.array([expected]))


@pytest.mark.parametrize("n", [0, 1, 31, 33, 1024, 1025, 2500])
@pytest.mark.parametrize("last", [True, False])
def test_reductions_are_rsum(n: int, last: bool) -> None:
    """Along the last axis and along the first of two; inputs that broadcast."""
    rng = np.random.default_rng(n)
    x, y = finite(rng, (3, n)), finite(rng, (3, n))
    mean, rstd = finite(rng, (3, 1)), finite(rng, (3, 1))
    terms: dict[str, tuple[list[Array], Callable[[int], Term]]] = {
        "sum": ([x], lambda r: lambda s, i: s + x[r, i]),
        "sum_sq": ([x], lambda r: lambda s, i: fma(x[r, i], x[r, i], s)),
        "sum_mul": ([x, y], lambda r: lambda s, i: fma(x[r, i], y[r, i], s)),
        "sum_sq_centered": ([x, mean], lambda r: lambda s, i: fma(x[r, i] - mean[r, 0], x[r, i] - mean[r, 0], s)),
        "sum_exp": ([x, mean], lambda r: lambda s, i: s + exp(x[r, i] - mean[r, 0])[()]),
        "sum_mul_normalized": (
            [y, x, mean, rstd],
            lambda r: lambda s, i: fma(y[r, i], (x[r, i] - mean[r, 0]) * rstd[r, 0], s),
        ),
    }
    for op, (inputs, term) in terms.items():
        expected = np.array([rsum(n, term(r)) for r in range(3)])
        if last:
            case = Case(op, inputs, F32, (3, 1), [1, 1, 0, n])
        else:
            case = Case(op, [np.ascontiguousarray(t.T) for t in inputs], F32, (1, 3), [1, 0, 0, n])
        close_bits(case.array("scalar").ravel(), expected)


def test_adjacent_axes_are_numbered_row_major_and_a_mask_broadcasts() -> None:
    rng = np.random.default_rng(4)
    x, y = finite(rng, (2, 5, 9, 2)), finite(rng, (9, 1))
    full = np.broadcast_to(y, x.shape)
    expected = [
        rsum(45, lambda s, i, b=b, c=c: fma(x[b, i // 9, i % 9, c], full[b, i // 9, i % 9, c], s))  # type: ignore[misc]
        for b in range(2)
        for c in range(2)
    ]
    close_bits(Case("sum_mul", [x, y], F32, (2, 1, 1, 2), [2, 1, 2, 0, 45]).array("scalar").ravel(), np.array(expected))


def test_a_link_of_a_sum_begins_with_its_carry() -> None:
    x = finite(np.random.default_rng(6), (1, 16384 + 1500))
    whole = Case("sum", [x], F32, (1, 1), [1, 1, 0, 17884]).array("scalar")
    first = Case("sum", [x], F32, (1, 1), [1, 1, 0, 16384]).array("scalar")
    close_bits(Case("sum", [x, first], F32, (1, 1), [1, 1, 16384, 17884]).array("scalar"), whole)
    close_bits(whole, rsum(1500, lambda s, i: s + x[0, 16384 + i], carry=first[0, 0]))


def test_integer_sums_wrap_and_bools_count() -> None:
    rng = np.random.default_rng(8)
    x, flags, carry = hostile(rng, I64, (4, 50)), hostile(rng, BOOL, (4, 50)), hostile(rng, I64, (4, 1))
    with np.errstate(over="ignore"):
        expected = x[:, 10:].sum(axis=1, keepdims=True) + carry
    assert np.array_equal(Case("sum", [x, carry], I64, (4, 1), [1, 1, 10, 50]).array("scalar"), expected)
    count = (flags.view(np.uint8) != 0).sum(axis=1, keepdims=True)
    assert np.array_equal(Case("sum", [flags], I64, (4, 1), [1, 1, 0, 50]).array("scalar"), count)


def test_amax() -> None:
    nan, inf = np.nan, np.inf
    x = np.array([[1, 5, -3], [nan, 1, 2], [-0.0, -0.0, 0.0], [-inf, -inf, -inf]], dtype=np.float32)
    got = Case("amax", [x], F32, (4, 1), [1, 1, 0, 3]).array("scalar").view(np.uint32).ravel().tolist()
    assert got == [f32_bits(5.0), NAN_BITS, 0, f32_bits(-inf)]
    empty = np.zeros((1, 0), dtype=np.float32)
    assert Case("amax", [empty], F32, (1, 1), [1, 1, 0, 0]).array("scalar").item() == -inf
    carry = np.array([[9], [0], [1], [-1]], dtype=np.float32)
    got = Case("amax", [x, carry], F32, (4, 1), [1, 1, 0, 3]).array("scalar").view(np.uint32).ravel().tolist()
    assert got == [f32_bits(9.0), NAN_BITS, f32_bits(1.0), f32_bits(-1.0)]


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize(("queries", "keys"), [(5, 7), (300, 290), (3, 1100)])
def test_attention_group(causal: int, queries: int, keys: int) -> None:
    """All nine operators on a few elements each; masked positions are absent and blocks without one are skipped."""
    rng = np.random.default_rng(queries)
    heads, width, value_width = 2, 3, 2
    scale = np.float32(0.577)
    literal = [f32_bits(float(scale))]
    q, k = finite(rng, (heads, queries, width)), finite(rng, (heads, keys, width))
    v, dout = finite(rng, (heads, keys, value_width)), finite(rng, (heads, queries, value_width))
    delta = finite(rng, (heads, queries, 1))
    visible = np.tril(np.ones((queries, keys), dtype=bool)) if causal else np.ones((queries, keys), dtype=bool)

    def call(name: str, inputs: list[Array], shape: tuple[int, ...], literals: list[int]) -> Array:
        return Case(f"attention_{name}", inputs, F32, shape, [causal], literals).array("scalar", 2)

    scores = (heads, queries, keys)
    s = call("scores", [q, k], scores, literal)
    m = call("max", [s], (heads, queries, 1), [])
    sums = call("sum", [s, m], (heads, queries, 1), [])
    out = call("out", [s, m, sums, v], (heads, queries, value_width), [])
    dv = call("dv", [s, m, sums, dout], (heads, keys, value_width), [])
    dp = call("dp", [dout, v], scores, [])
    ds = call("ds", [s, m, sums, dp, delta], scores, [])
    dq = call("dq", [ds, k], (heads, queries, width), literal)
    dk = call("dk", [ds, q], (heads, keys, width), literal)

    assert np.all(np.isneginf(s[:, ~visible])) and not np.any(dp[:, ~visible]) and not np.any(ds[:, ~visible])
    for _ in range(6):
        b, i, j = (int(rng.integers(0, n)) for n in (heads, queries, keys))
        seen, seen_by = visible[i], visible[:, j]
        assert m[b, i, 0] == s[b, i][seen].max()
        e = exp(np.where(seen, s[b, i] - m[b, i], np.float32(0)))
        assert sums[b, i, 0] == rsum(keys, lambda lane, at: lane + e[at], visible=seen)  # noqa: B023
        close_bits(out[b, i, 1], dot(e, v[b, :, 1], visible=seen) * (np.float32(1) / sums[b, i, 0]))
        with np.errstate(over="ignore"):
            shifted = np.where(seen_by, s[b, :, j] - m[b, :, 0], np.float32(0))
        p = exp(shifted) * (np.float32(1) / sums[b, :, 0])
        close_bits(dv[b, j, 1], dot(p, dout[b, :, 1], visible=seen_by))
        close_bits(dq[b, i, 2], dot(ds[b, i], k[b, :, 2], visible=seen) * scale)
        close_bits(dk[b, j, 0], dot(ds[b, :, j], q[b, :, 0], visible=seen_by) * scale)
        if seen[j]:
            close_bits(s[b, i, j], dot(q[b, i], k[b, j]) * scale)
            close_bits(dp[b, i, j], dot(dout[b, i], v[b, j]))
            close_bits(ds[b, i, j], p[i] * (dp[b, i, j] - delta[b, i, 0]))


def test_one_element_is_what_a_run_writes() -> None:
    rng = np.random.default_rng(12)
    a, b = hostile(rng, F32, (5, 40)), hostile(rng, F32, (40, 6))
    case = Case("matmul", [a, b], F32, (5, 6), [0, 0, 0, 40])
    assert [case.element(i) for i in range(30)] == case.array("scalar").view(np.uint32).ravel().tolist()


def test_a_nan_in_a_fold_is_canonical() -> None:
    rng = np.random.default_rng(13)
    a, b, carry = hostile(rng, F32, (20, 40)), hostile(rng, F32, (40, 20)), hostile(rng, F32, (20, 20))
    for inputs, params in (([a, b], [0, 0, 0, 40]), ([a, b, carry], [0, 0, 40, 40])):
        out = Case("matmul", inputs, F32, (20, 20), params).array("scalar")
        assert np.isnan(out).any() and np.all(out.view(np.uint32)[np.isnan(out)] == NAN_BITS)
