"""Convolution and its gradients: every kernel gives the reference's bytes, and the reference is the definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from convolutions import OPERATORS, Shape, random_shape
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import BF16, F16, F32, NAN_BITS, VECTOR_ISAS, Array, Case, fma, hostile

from repops.graph.ir import Input, Node, Ref
from repops.ops.rules import RuleViolation
from repops.ops.table import OPERATORS as TABLE

SEEDS = st.integers(0, 2**32 - 1)
NAMED = {
    "depthwise": Shape(2, 19, 1, 1, (11, 13), (3, 3), pad=(1, 1)),
    "depthwise, two filters, stride": Shape(2, 9, 1, 2, (12, 21), (3, 3), (2, 2), (1, 1)),
    "depthwise, long rows": Shape(3, 3, 1, 1, (9, 90), (3, 3), pad=(1, 1)),
    "depthwise, small planes": Shape(4, 9, 1, 1, (7, 7), (3, 3), pad=(1, 1)),
    "one filter, edges on one side": Shape(3, 1, 2, 1, (14, 20), (5, 3), (1, 2), (1, 3), (1, 2)),
    "pointwise, whole tiles": Shape(2, 1, 20, 37, (16, 16), (1, 1)),
    "pointwise": Shape(3, 1, 40, 37, (7, 9), (1, 1)),
    "pointwise, more filters": Shape(3, 2, 32, 80, (5, 7), (1, 1)),
    "pointwise, planes of a page": Shape(2, 1, 17, 21, (32, 32), (1, 1)),
    "pointwise, strides": Shape(2, 2, 20, 33, (13, 70), (1, 1), (3, 2)),
    "pointwise, stride": Shape(2, 1, 20, 17, (9, 9), (1, 1), (2, 2)),
    "patches": Shape(2, 1, 3, 21, (32, 48), (16, 16), (16, 16)),
    "patches and a rest": Shape(2, 1, 3, 9, (35, 50), (16, 16), (16, 16)),
    "patches, four filters a block": Shape(2, 1, 3, 21, (25, 24), (8, 8), (8, 8)),
    "patches of no round size": Shape(1, 1, 3, 21, (28, 140), (14, 14), (14, 14)),
    "first layer": Shape(2, 1, 3, 20, (30, 31), (7, 7), (2, 2), (3, 3)),
    "3x3": Shape(2, 1, 33, 21, (14, 14), (3, 3), pad=(1, 1)),
    "3x3, stride": Shape(2, 1, 33, 21, (14, 14), (3, 3), (2, 2), (1, 1)),
    "3x3, dilated": Shape(2, 2, 16, 9, (14, 15), (3, 3), pad=(2, 2), dilation=(2, 2)),
    "a row": Shape(2, 1, 5, 18, (1, 70), (1, 5), (1, 2), (0, 2)),
    "a block without a tap": Shape(1, 1, 1, 3, (4, 4), (17, 17), pad=(16, 16)),
    "stride beyond the window": Shape(1, 1, 4, 5, (13, 13), (2, 2), (3, 5)),
}


@given(SEEDS, st.sampled_from(OPERATORS), st.booleans())
@settings(max_examples=150, deadline=None)
def test_all_instruction_sets_agree(seed: int, op: str, special: bool) -> None:
    rng = np.random.default_rng(seed)
    random_shape(rng).case(op, rng, special).check(threads=(1, 3), offsets=(int(rng.integers(2)),))


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("name", NAMED)
def test_layers_as_they_are_used(name: str, op: str) -> None:
    for special in (False, True):
        NAMED[name].case(op, np.random.default_rng(1), special).check(offsets=(1,))


@given(SEEDS, st.sampled_from(OPERATORS), st.permutations([F32, BF16, F16]))
@settings(max_examples=30, deadline=None)
def test_low_precision_is_rounded_once(seed: int, op: str, dtypes: list[object]) -> None:
    rng = np.random.default_rng(seed)
    random_shape(rng).case(op, rng, True, tuple(dtypes)).check(offsets=(0,))  # type: ignore[arg-type]


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize(
    "shape",
    [
        Shape(4, 1, 70, 65, (30, 28), (3, 3), pad=(1, 1)),
        Shape(3, 1, 3, 40, (90, 96), (7, 7), (2, 2), (3, 3)),
        Shape(2, 64, 1, 1, (40, 40), (3, 3), pad=(1, 1)),
        Shape(5, 1, 130, 140, (7, 7), (3, 3), pad=(1, 1)),
    ],
)
def test_large_shapes_agree(op: str, shape: Shape) -> None:
    """Beyond one tile and one block, for 1 to 4 threads; sampled against the reference."""
    case = replace(shape.case(op, np.random.default_rng(2)))
    first = case.run(VECTOR_ISAS[0])
    for isa in VECTOR_ISAS:
        for threads in (1, 2, 4):
            assert case.run(isa, threads) == first
    bits = np.frombuffer(first, np.uint32)
    for index in np.random.default_rng(0).integers(0, len(bits), 40):
        assert case.element(int(index)) == bits[index]


def dot(terms: list[tuple[np.float32, np.float32] | None]) -> np.float32:
    """DOT in exact arithmetic; None is a tap that is not there."""
    total: np.float32 | None = None
    for block in range(0, len(terms), 256):
        seen = [t for t in terms[block : block + 256] if t is not None]
        p = np.float32(0)
        for a, b in seen:
            p = fma(a, b, p)
        if seen:
            total = p if total is None else fma(total, np.float32(1), p)
    return np.float32(0) if total is None else total


def read(x: Array, n: int, c: int, i: int, j: int) -> np.float32 | None:
    inside = 0 <= i < x.shape[2] and 0 <= j < x.shape[3]
    return np.float32(x[n, c, i, j]) if inside else None


@pytest.mark.parametrize("seed", range(12))
def test_the_definition(seed: int) -> None:
    """All three operators, one element each, term by term from the spec's text."""
    rng = np.random.default_rng(seed)
    s = random_shape(rng)
    while 0 in (*s.tensors()["x"], *s.tensors()["y"], *s.tensors()["w"]):
        s = random_shape(rng)
    (sh, sw), (ph, pw), (dh, dw) = s.stride, s.pad, s.dilation
    case = s.case("conv2d", rng)
    x, w = case.inputs
    at = tuple(int(rng.integers(d)) for d in case.shape)
    n, o, oh, ow = at
    first = o // s.filters * s.channels
    terms = [
        (v, w[o, c, kh, kw]) if (v := read(x, n, first + c, oh * sh - ph + kh * dh, ow * sw - pw + kw * dw)) is not None
        else None
        for c in range(s.channels) for kh in range(s.taps[0]) for kw in range(s.taps[1])
    ]  # fmt: skip
    assert case.array()[at].tobytes() == dot(terms).tobytes()

    case = s.case("conv2d_dx", rng)
    dy, w = case.inputs
    at = tuple(int(rng.integers(d)) for d in case.shape)
    n, c, i, j = at
    first = c // s.channels * s.filters
    terms = []
    for o in range(first, first + s.filters):
        for kh in range(s.taps[0]):
            for kw in range(s.taps[1]):
                (oh, left), (ow, right) = divmod(i + ph - kh * dh, sh), divmod(j + pw - kw * dw, sw)
                v = read(dy, n, o, oh, ow) if left == right == 0 else None
                terms.append(None if v is None else (v, w[o, c % s.channels, kh, kw]))
    assert case.array()[at].tobytes() == dot(terms).tobytes()

    case = s.case("conv2d_dw", rng)
    dy, x = case.inputs
    at = tuple(int(rng.integers(d)) for d in case.shape)
    o, c, kh, kw = at
    channel = o // s.filters * s.channels + c
    terms = [
        (dy[n, o, oh, ow], v)
        if (v := read(x, n, channel, oh * sh - ph + kh * dh, ow * sw - pw + kw * dw)) is not None
        else None
        for n in range(s.images) for oh in range(s.out[0]) for ow in range(s.out[1])
    ]  # fmt: skip
    assert case.array()[at].tobytes() == dot(terms).tobytes()


def cut(case: Case, start: int, stop: int, *carry: Array) -> Case:
    return replace(case, inputs=[*case.inputs, *carry], params=(*case.params[:-2], start, stop))


LONG = {
    "conv2d": Shape(1, 1, 1900, 3, (3, 3), (3, 3), pad=(1, 1)),
    "conv2d_dx": Shape(1, 1, 2, 1900, (4, 5), (3, 3), (2, 1), (1, 1)),
    "conv2d_dw": Shape(2, 1, 3, 2, (100, 101), (3, 2), pad=(1, 0)),
}


@pytest.mark.parametrize("op", OPERATORS)
def test_a_cut_never_changes_the_bits(op: str) -> None:
    terms = LONG[op].terms(op)
    assert 16_384 < terms <= 2 * 16_384
    case = LONG[op].case(op, np.random.default_rng(5))
    for isa in VECTOR_ISAS:
        head = cut(case, 0, 16_384).array(isa)
        assert cut(case, 16_384, terms, head).run(isa, 2) == case.run(isa)
    cut(case, 16_384, terms, hostile(np.random.default_rng(1), F32, case.shape)).check(threads=(2,), offsets=(1,))


@pytest.mark.parametrize("op", OPERATORS)
def test_a_carry_stays_where_no_tap_is_seen(op: str) -> None:
    """Not a legal link, but the kernel is total: the carry, canonical."""
    shape = Shape(1, 1, 2, 3, (1, 1), (1, 1), pad=(2, 2), stride=(2, 2))
    case = shape.case(op, np.random.default_rng(0))
    carry = np.full(case.shape, 0x7F800001, np.uint32).view(np.float32)
    case = cut(case, 0, 0, carry)
    assert np.all(case.check().view(np.uint32) == NAN_BITS)


def test_padding_is_not_multiplied() -> None:
    """inf times a padded zero would be NaN; adding +0 to -0 would be +0."""
    x = np.full((1, 1, 3, 20), -1e-30, np.float32)
    w = np.full((1, 1, 3, 3), 1e-30, np.float32)
    params = (1, 1, 1, 1, 1, 1, 1, 0, 9)
    assert np.all(Case("conv2d", [x, w], F32, (1, 1, 3, 20), params).check().view(np.uint32) == 0x80000000)
    out = Case("conv2d", [np.ones_like(x), np.full_like(w, np.inf)], F32, (1, 1, 3, 20), params).check()
    assert np.all(out == np.inf)


def test_rows_do_not_depend_on_the_batch() -> None:
    shape = NAMED["3x3"]
    case = replace(shape, images=7).case("conv2d", np.random.default_rng(3))
    whole = case.array()
    for i in (0, 4, 6):
        one = replace(case, inputs=[case.inputs[0][i : i + 1].copy(), case.inputs[1]], shape=(1, *case.shape[1:]))
        assert one.run(VECTOR_ISAS[-1]) == whole[i].tobytes()


GOOD = ("conv2d", (2, 4, 9, 9), (6, 2, 3, 3), (2, 6, 5, 5), (2, 2, 2, 1, 1, 1, 1, 0, 18))


@pytest.mark.parametrize(
    "change, what",
    [
        ({}, ""),
        ({3: (2, 6, 5, 4)}, "4 windows of 3 taps over 9"),
        ({1: (2, 5, 9, 9)}, "2 groups"),
        ({4: (0, 2, 2, 1, 1, 1, 1, 0, 18)}, "groups are 0"),
        ({4: (2, 0, 2, 1, 1, 1, 1, 0, 18)}, "stride is 0"),
        ({4: (2, 2, 2, -1, 1, 1, 1, 0, 18)}, "pad is -1"),
        ({4: (2, 2, 2, 1, 1, 1, 2**31, 0, 18)}, "dilation is"),
        ({4: (2, 2, 2, 1, 1, 1, 9, 0, 18)}, "a window of 19 over 11"),
        ({4: (2, 2, 2, 1, 1, 1, 1, 0, 17)}, "range"),
        ({2: (6, 2, 0, 3)}, "taps is 0"),
        ({1: (2, 4, 9)}, "shapes .2, 4, 9."),
    ],
)
def test_the_rule(change: dict[int, object], what: str) -> None:
    op, x, w, y, params = (change.get(i, v) for i, v in enumerate(GOOD))
    inputs = tuple(Input(Ref.batch(i), F32, s) for i, s in enumerate((x, w)))  # type: ignore[arg-type]
    node = Node(op, params, (), inputs, F32, y)  # type: ignore[arg-type]
    if not what:
        TABLE["conv2d"].rule(node)
        return
    with pytest.raises(RuleViolation, match=what):
        TABLE["conv2d"].rule(node)
