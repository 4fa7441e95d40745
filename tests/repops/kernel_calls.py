"""What the kernel tests share: one operator call, the ways to run it, and hostile random data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from repops import _kernels
from repops.dtypes import DType

Array = np.ndarray[Any, Any]
F32, BF16, F16 = DType.F32, DType.BF16, DType.F16
I64, I32, BOOL = DType.I64, DType.I32, DType.BOOL
VECTOR_ISAS = [isa for isa in _kernels.isas() if isa != "scalar"]
NAN_BITS = 0x7FC00000

SPECIAL_F32 = np.array(
    [
        0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x807FFFFF, 0x00800000, 0x80800000,
        0x3F800000, 0xBF800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000,
        0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF, 0x5F000000, 0xDF000000, 0x42B17218, 0xC2CFF1B5, 0x33800000,
    ],
    dtype=np.uint32,
)  # fmt: skip
SPECIAL_I64 = np.array([0, 1, -1, 2, -2, 2**63 - 1, -(2**63), 2**53 + 1, -(2**24) - 1], dtype=np.int64)


@dataclass(frozen=True)
class Case:
    """One call of one operator. Inputs are C-contiguous arrays whose numpy dtype is the operator's."""

    op: str
    inputs: Sequence[Array]
    dtype: DType
    shape: tuple[int, ...]
    params: Sequence[int] = ()
    literals: Sequence[int] = field(default=())

    def run(self, isa: str | None, threads: int = 1, offset: int = 0) -> bytes:
        """The output's bytes. offset: how far, in bytes, every buffer is moved off its natural alignment."""
        inputs = [(_moved(a, offset), int(DType.of(a.dtype)), list(a.shape)) for a in self.inputs]
        size = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        memory = np.full(size + 128, 0xA5, dtype=np.uint8)
        start = -memory.ctypes.data % 64 + offset
        _kernels.run(
            self.op, isa, threads, list(self.params), list(self.literals), inputs,
            (memory[start : start + size], int(self.dtype), list(self.shape)),
        )  # fmt: skip
        assert np.all(memory[:start] == 0xA5) and np.all(memory[start + size :] == 0xA5), "wrote outside the output"
        return memory[start : start + size].tobytes()

    def array(self, isa: str | None = None, threads: int = 1) -> Array:
        return np.frombuffer(self.run(isa, threads), dtype=self.dtype.numpy).reshape(self.shape)

    def element(self, index: int) -> int:
        inputs = [(a, int(DType.of(a.dtype)), list(a.shape)) for a in self.inputs]
        return _kernels.element(
            self.op, list(self.params), list(self.literals), inputs, int(self.dtype), list(self.shape), index
        )

    def check(self, threads: Sequence[int] = (1, 3), offsets: Sequence[int] = (0, 1)) -> Array:
        """Every instruction set, thread count and alignment gives the reference's bytes; returns them as an array."""
        expected = self.run("scalar")
        for isa in VECTOR_ISAS:
            for count in threads:
                for offset in offsets:
                    assert self.run(isa, count, offset) == expected, (self.op, isa, count, offset)
        return np.frombuffer(expected, dtype=self.dtype.numpy).reshape(self.shape)


def _moved(a: Array, offset: int) -> Array:
    memory = np.zeros(a.nbytes + 128, dtype=np.uint8)
    start = -memory.ctypes.data % 64 + offset
    memory[start : start + a.nbytes] = np.frombuffer(a.tobytes(), dtype=np.uint8)
    return memory[start : start + a.nbytes]


def hostile(rng: np.random.Generator, dtype: DType, shape: Sequence[int]) -> Array:
    """Random data of a dtype with special values: signed zeros, subnormals, infinities, NaN payloads, extremes."""
    shape = tuple(shape)
    if dtype is F32:
        x = (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, shape)).astype(np.float32)
        bits = np.where(rng.random(shape) < 0.2, rng.integers(0, 2**32, shape, dtype=np.uint32), x.view(np.uint32))
        bits = np.where(rng.random(shape) < 0.15, rng.choice(SPECIAL_F32, shape), bits)
        return np.ascontiguousarray(bits.astype(np.uint32)).view(np.float32).reshape(shape)
    if dtype is I64:
        x = rng.integers(-20, 20, shape, dtype=np.int64)
        x = np.where(rng.random(shape) < 0.3, rng.integers(-(2**63), 2**63 - 1, shape, dtype=np.int64), x)
        return np.ascontiguousarray(np.where(rng.random(shape) < 0.15, rng.choice(SPECIAL_I64, shape), x)).reshape(
            shape
        )
    if dtype is I32:
        return hostile(rng, I64, shape).astype(np.int32)
    if dtype in (
        BF16,
        F16,
    ):  # ordinary numbers, special ones, and any pattern: a third of them NaN payloads and subnormals
        x = rounded((rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, shape)).astype(np.float32), dtype)
        bits = x.view(np.uint16)
        wild = rng.integers(0, 2**16, shape, dtype=np.uint16)
        special = rounded(rng.choice(SPECIAL_F32, shape).astype(np.uint32).view(np.float32), dtype).view(np.uint16)
        tiny = wild & np.uint16(0x807F if dtype is BF16 else 0x83FF)
        for part, chance in ((wild, 0.15), (special, 0.15), (tiny, 0.1)):
            bits = np.where(rng.random(shape) < chance, part, bits)
        return np.ascontiguousarray(bits.astype(np.uint16)).view(dtype.numpy).reshape(shape)
    assert dtype is BOOL  # any byte: everything but 0 is true
    return rng.choice(np.array([0, 0, 0, 1, 1, 2, 0x80, 255], dtype=np.uint8), shape).view(np.bool_).reshape(shape)


def widened(x: Array) -> Array:
    """A float tensor as f32, exactly; a NaN is any NaN."""
    if DType.of(x.dtype) is BF16:
        return (x.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return x.astype(np.float32)


def rounded(x: Array, dtype: DType) -> Array:
    """f32 to a float dtype, to nearest even; NaN to its canonical pattern. Independent of the kernels."""
    x = np.asarray(x, dtype=np.float32)
    nan = np.isnan(x)
    if dtype is BF16:
        bits = np.where(nan, np.float32(0), x).view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        return np.where(nan, 0x7FC0, bits).astype(np.uint16)
    if dtype is F16:
        with np.errstate(over="ignore"):
            bits = np.where(nan, np.float32(0), x).astype(np.float16).view(np.uint16)
        return np.where(nan, 0x7E00, bits).astype(np.uint16).view(np.float16)
    return np.where(nan, np.uint32(NAN_BITS), x.view(np.uint32)).astype(np.uint32).view(np.float32)


def finite(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    return rng.standard_normal(tuple(shape)).astype(np.float32)


def f32_bits(x: float) -> int:
    return int(np.float32(x).view(np.uint32))


def round_f32(x: Fraction) -> np.float32:
    """Round an exact number to binary32, to nearest even, with subnormal numbers."""
    if x == 0:
        return np.float32(0)
    magnitude = abs(x)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if Fraction(2) ** exponent > magnitude:
        exponent -= 1
    unit = Fraction(2) ** (max(exponent, -126) - 23)
    value = round(magnitude / unit) * unit  # Fraction rounds half to even
    if value >= Fraction(2) ** 128:
        return np.float32(-np.inf if x < 0 else np.inf)
    return np.float32(float(-value if x < 0 else value))


def fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """Exact FMA of finite numbers (a zero result is +0: fine for a sum that is not of equal negative zeros)."""
    return round_f32(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))
