"""The elementary functions: accuracy against float64, special values, and coefficients that the script derives."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kernel_calls import F32, NAN_BITS, SPECIAL_F32, VECTOR_ISAS, Array, Case, f32_bits
from scipy import special  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
PRIME = 15013  # about 286,000 of the 2^32 inputs


def apply(op: str, x: Array, isa: str | None = None) -> Array:
    return Case(op, [x], F32, x.shape).array(isa)


def slope(op: str, x: Array) -> Array:
    one = np.ones_like(x)
    return Case(op, [one, x], F32, x.shape).array()


def normal(x: Array) -> Array:
    return special.ndtr(x)


def gate(x: Array) -> Array:
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def gelu_erf_slope(x: Array) -> Array:
    return normal(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gelu_tanh_slope(x: Array) -> Array:
    s = special.expit(gate(x))
    return s + x * s * special.expit(-gate(x)) * 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)


def strided_inputs() -> Array:
    x = np.arange(0, 2**32, PRIME, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return x[np.isfinite(x)]


def ulps(value: Array, truth: Array) -> Array:
    """Distance in units of the last place of binary32 at the truth, subnormal numbers included."""
    spacing = np.ldexp(1.0, np.maximum(np.frexp(np.abs(truth))[1], -125) - 24)
    with np.errstate(invalid="ignore"):
        return np.abs(value.astype(np.float64) - truth) / spacing


# The bounds of docs/functions.md.
@pytest.mark.parametrize(
    ("op", "oracle", "bound"),
    [
        ("exp", np.exp, 0.92),
        ("exp2", np.exp2, 1.0),
        ("expm1", np.expm1, 1.25),
        ("log", np.log, 0.9),
        ("log2", np.log2, 1.25),
        ("log10", np.log10, 1.25),
        ("log1p", np.log1p, 1.0),
        ("sin", np.sin, 0.8),
        ("cos", np.cos, 0.8),
        ("tanh", np.tanh, 1.0),
        ("erf", special.erf, 1.0),
        ("sigmoid", special.expit, 2.5),
        ("silu", lambda x: x * special.expit(x), 2.5),
        ("softplus", lambda x: np.logaddexp(x, 0), 2.0),
        ("rsqrt", lambda x: 1 / np.sqrt(x), 1.5),
    ],
)
def test_error_in_ulps(op: str, oracle: Callable[[Array], Array], bound: float) -> None:
    x = strided_inputs()
    if op in ("log", "log2", "log10", "rsqrt"):
        x = x[x > 0]
    if op == "log1p":
        x = x[x > -1]
    with np.errstate(over="ignore", under="ignore"):
        truth = oracle(x.astype(np.float64))
    inside = np.abs(truth) < float(np.finfo(np.float32).max)
    error = ulps(apply(op, x)[inside], truth[inside])
    assert float(error.max()) <= bound, x[inside][int(error.argmax())]
    assert np.all(np.isinf(apply(op, x)[~inside]))


def test_a_scan_of_every_function_keeps_the_bounds() -> None:
    script = ROOT / "scripts" / "scan_functions.py"
    command = [sys.executable, str(script), "--stride", "4001", "--pairs", "2000000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 20


def power(x: float, y: float) -> np.float32:
    return Case("pow", [np.float32([x]), np.float32([y])], F32, (1,)).array()[0]


EDGES = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, 1.5, -1.5, 2.0**24, 2.0**25, 1e-40, -1e-40, 3e38]
EDGES += [math.inf, -math.inf, math.nan, 1e30, -1e30, 8388607.5, 16777215.0, -16777215.0]


@pytest.mark.parametrize("x", EDGES)
@pytest.mark.parametrize("y", EDGES)
def test_pow_has_the_special_cases_of_c(x: float, y: float) -> None:
    with np.errstate(all="ignore"):
        base, exponent = (np.full(2, np.float32(v), np.float64) for v in (x, y))
        expected = np.power(base, exponent)[0]  # arrays: numpy takes the square root for a scalar exponent of 0.5
        rounded = np.float32(expected)
    got = power(x, y)
    if np.isnan(rounded):
        assert got.view(np.uint32) == NAN_BITS
    elif np.isinf(rounded) or rounded == 0:
        assert got.view(np.uint32) == rounded.view(np.uint32)
    else:
        assert ulps(np.array([got]), np.array([expected]))[0] <= 1


def test_pow_of_whole_numbers_is_exact() -> None:
    for base in range(2, 13):
        for exponent in range(1, 24):
            if base**exponent < 2**24:
                assert power(base, exponent) == base**exponent and power(-base, exponent) == (-base) ** exponent


def test_pow_agrees_on_every_instruction_set() -> None:
    rng = np.random.default_rng(5)
    x, y = (np.concatenate([rng.choice(SPECIAL_F32, 4000), rng.integers(0, 2**32, 40_000, np.uint32)]) for _ in "xy")
    a, b = rng.random(40_000, np.float32) * 10, rng.standard_normal(40_000).astype(np.float32) * 30
    Case(
        "pow", [np.concatenate([x.view(np.float32), a]), np.concatenate([y.view(np.float32), b])], F32, (84_000,)
    ).check()


def test_sine_and_cosine_are_odd_and_even_and_right_beside_multiples_of_pi() -> None:
    x = np.array([0x4016CBE4, 0x48490FDB, 0x484D246F, 0x5C160D07, 0x7F7FFFFF, 0x48800000, 0x487FFFFF], np.uint32)
    x = np.concatenate([x.view(np.float32), np.float32(np.arange(1, 200_000, 37) * math.pi / 2)])
    wide = x.astype(np.float64)
    for op, oracle in (("sin", np.sin), ("cos", np.cos)):
        assert float(ulps(apply(op, x), oracle(wide)).max()) <= 0.8
    assert np.array_equal(apply("sin", -x), -apply("sin", x)) and np.array_equal(apply("cos", -x), apply("cos", x))


@pytest.mark.parametrize(
    ("op", "oracle", "bound"),
    [
        ("gelu_erf", lambda x: x * normal(x), 1.0),
        ("gelu_tanh", lambda x: x * special.expit(gate(x)), 1.0),
    ],
)
def test_gelu_error_is_two_ulps_or_small_against_the_input(
    op: str, oracle: Callable[[Array], Array], bound: float
) -> None:
    x = strided_inputs()
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        truth = oracle(x.astype(np.float64))
    truth[np.isnan(truth)] = 0.0  # -1e30 times 0 after overflow of the cube
    value = apply(op, x).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.abs(value - truth) / (np.abs(x.astype(np.float64)) * 2.0**-23)
    error = np.fmin(ulps(value, truth) / 2, relative)
    assert float(np.nanmax(error)) <= bound, x[int(np.nanargmax(error))]


def test_gelu_erf_goes_smoothly_to_zero_in_the_negative_tail() -> None:
    x = -np.linspace(0.01, 13.0, 100_000).astype(np.float32)
    truth = x.astype(np.float64) * normal(x.astype(np.float64))
    error = np.abs(apply("gelu_erf", x) / truth - 1)
    assert float(error[x > -4].max()) <= 1e-4 and float(error.max()) <= 0.02


@pytest.mark.parametrize(("op", "oracle"), [("gelu_erf_grad", gelu_erf_slope), ("gelu_tanh_grad", gelu_tanh_slope)])
def test_slopes_are_right_to_2_to_the_minus_22(op: str, oracle: Callable[[Array], Array]) -> None:
    x = np.linspace(-30, 30, 200_001).astype(np.float32)
    error = np.abs(slope(op, x).astype(np.float64) - oracle(x.astype(np.float64)))
    assert float(error.max()) <= 2.0**-22
    far = np.array([np.inf, 3e38, -3e38, -np.inf], dtype=np.float32)
    assert np.array_equal(np.abs(slope(op, far)), np.array([1, 1, 0, 0], dtype=np.float32))


SPECIAL_VALUES = [
    ("exp", -math.inf, 0.0), ("exp", math.inf, math.inf), ("exp", 0.0, 1.0), ("exp", -0.0, 1.0),
    ("exp", 89.0, math.inf), ("exp", -104.0, 0.0),
    ("exp", 1e30, math.inf), ("exp", -1e30, 0.0), ("exp", -103.0, 2.0**-149),
    ("exp2", 10.0, 1024.0), ("exp2", -149.0, 2.0**-149), ("exp2", 128.0, math.inf), ("exp2", -math.inf, 0.0),
    ("exp2", math.inf, math.inf), ("exp2", -0.0, 1.0), ("exp2", -151.0, 0.0), ("exp2", 127.0, 2.0**127),
    ("expm1", -0.0, -0.0), ("expm1", 1e-45, 1e-45), ("expm1", -math.inf, -1.0), ("expm1", math.inf, math.inf),
    ("expm1", -1e30, -1.0), ("expm1", 88.0, 1.6516363e38), ("expm1", 88.9, math.inf),
    ("log1p", -0.0, -0.0), ("log1p", 0.0, 0.0), ("log1p", -1e-45, -1e-45), ("log1p", -1.0, -math.inf),
    ("log1p", -1.5, math.nan), ("log1p", math.inf, math.inf), ("log1p", -math.inf, math.nan),
    ("log1p", 3e38, 88.59685), ("log1p", 2.0**60, 41.58883),
    ("log2", 0.0, -math.inf), ("log2", 8.0, 3.0), ("log2", 2.0**-149, -149.0), ("log2", -1.0, math.nan),
    ("log2", math.inf, math.inf), ("log2", 1.0, 0.0), ("log10", 1000.0, 3.0), ("log10", 1e10, 10.0),
    ("log10", 1.0, 0.0), ("log10", -0.0, -math.inf), ("log10", -1e-45, math.nan),
    ("sin", 0.0, 0.0), ("sin", -0.0, -0.0), ("sin", 1e-45, 1e-45), ("sin", math.inf, math.nan),
    ("sin", -math.inf, math.nan), ("cos", 0.0, 1.0), ("cos", -0.0, 1.0), ("cos", math.inf, math.nan),
    ("softplus", math.inf, math.inf), ("softplus", -math.inf, 0.0), ("softplus", 0.0, math.log(2)),
    ("softplus", 50.0, 50.0), ("softplus", -103.0, 2.0**-149),
    ("log", 0.0, -math.inf), ("log", -0.0, -math.inf), ("log", 1.0, 0.0), ("log", math.inf, math.inf),
    ("log", -1.0, math.nan), ("log", -1e-45, math.nan), ("log", -math.inf, math.nan), ("log", 2.0**-149, -103.27893),
    ("tanh", math.inf, 1.0), ("tanh", -math.inf, -1.0), ("tanh", -0.0, -0.0), ("tanh", 1e-45, 1e-45),
    ("tanh", 30.0, 1.0),
    ("erf", math.inf, 1.0), ("erf", -math.inf, -1.0), ("erf", -0.0, -0.0), ("erf", 1e-45, 1e-45), ("erf", -9.0, -1.0),
    ("sigmoid", math.inf, 1.0), ("sigmoid", -math.inf, 0.0), ("sigmoid", 0.0, 0.5), ("sigmoid", -1e30, 0.0),
    ("silu", math.inf, math.inf), ("silu", -math.inf, -0.0), ("silu", -0.0, -0.0), ("silu", -3e38, -0.0),
    ("silu", 3e38, 3e38),
    ("gelu_erf", math.inf, math.inf), ("gelu_erf", -math.inf, -0.0), ("gelu_erf", -0.0, -0.0),
    ("gelu_erf", -3e38, -0.0),
    ("gelu_erf", 3e38, 3e38), ("gelu_erf", 0.0, 0.0),
    ("gelu_tanh", math.inf, math.inf), ("gelu_tanh", -math.inf, -0.0), ("gelu_tanh", -0.0, -0.0),
    ("gelu_tanh", -3e38, -0.0), ("gelu_tanh", 3e38, 3e38), ("gelu_tanh", 0.0, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("op", "x", "expected"), SPECIAL_VALUES)
def test_special_values(op: str, x: float, expected: float) -> None:
    got = int(apply(op, np.array([x], dtype=np.float32)).view(np.uint32)[0])
    assert got == (NAN_BITS if math.isnan(expected) else f32_bits(expected))


@pytest.mark.parametrize(
    "op",
    [
        *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "softplus"),
        *("tanh", "erf", "sigmoid", "silu", "gelu_erf", "gelu_tanh"),
    ],
)
def test_a_nan_is_canonical_and_every_instruction_set_agrees(op: str) -> None:
    x = np.concatenate([SPECIAL_F32, np.arange(0, 2**32, 1_000_003, dtype=np.uint64).astype(np.uint32)]).view(
        np.float32
    )
    expected = apply(op, x, "scalar")
    assert np.all(expected.view(np.uint32)[np.isnan(expected)] == NAN_BITS)
    assert np.all(np.isnan(expected[np.isnan(x)]))
    for isa in VECTOR_ISAS:
        assert apply(op, x, isa).tobytes() == expected.tobytes(), isa


def test_exp_does_not_decrease() -> None:
    x = np.linspace(-104.5, 89.5, 400_001).astype(np.float32)
    y = apply("exp", x)
    assert np.all(y[1:] >= y[:-1])


def test_the_header_holds_what_the_script_derives() -> None:
    script = ROOT / "scripts" / "derive_coefficients.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
