"""The data of golden cases: a generator of our own in integers, so that no library, compiler or rounding changes it.

`csrc/tools/case_file.h` has the same generator; a test of the whole file would fail if they differed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from repops.dtypes import DType

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
_GOLDEN, _WORD = 0x9E3779B97F4A7C15, 2**64

SPECIAL_F32 = (
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x807FFFFF, 0x00800000, 0x80800000,
    0x3F800000, 0xBF800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000,
    0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF, 0xFF812345, 0x5F000000, 0xDF000000, 0x42B17218, 0xC2CFF1B5,
    0x33800000, 0x3F7FFFFF, 0x3F800001, 0x4B7FFFFF, 0xCB000001, 0x4F000000, 0xCF000001, 0x40490FDB,
)  # fmt: skip
SPECIAL_F16 = (
    0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x8400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00,
    0x7E00, 0xFE00, 0x7C01, 0xFFFF, 0x7FFF, 0xFD23, 0x7800, 0xF800, 0x498C, 0xCB00, 0x1000, 0x3BFF, 0x3C01, 0x67FF,
    0xE401, 0x7000, 0xF001, 0x4248,
)  # fmt: skip
SPECIAL_I64 = (
    0, 1, -1, 2, -2, 2**63 - 1, -(2**63), 1 - 2**63, 2**53, 2**53 + 1,
    2**24 + 1, -(2**24) - 1, 2**31 - 1, -(2**31), 2**32, 63,
)  # fmt: skip
SPECIAL_I32 = (
    0, 1, -1, 2, -2, 2**31 - 1, -(2**31), 1 - 2**31, 2**24, 2**24 + 1,
    -(2**24) - 1, 255, -256, 65535, 31, 32,
)  # fmt: skip


class Kind(IntEnum):
    """What the numbers are like; the codes of case_file.h."""

    PLAIN = 0  # small
    SPECIAL = 1  # of eight numbers one is special (zeros, subnormal, infinite, NaN, extreme), one any pattern
    BITS = 2  # any pattern
    RANGE = 3  # integers from `low` on, `count` of them
    BYTES = 4  # given


@dataclass(frozen=True)
class Data:
    """One tensor: dtype, shape, and how its elements come about."""

    dtype: DType
    shape: Shape
    kind: Kind
    seed: int = 0
    low: int = 0
    count: int = 0
    given: bytes = b""

    @classmethod
    def of(cls, array: Array) -> Data:
        """The bytes of an array."""
        return cls(DType.of(array.dtype), array.shape, Kind.BYTES, given=array.tobytes())

    def array(self) -> Array:
        """The tensor."""
        if self.kind is Kind.BYTES:
            return np.frombuffer(self.given, self.dtype.numpy).reshape(self.shape).copy()
        w = _words(self.seed, int(np.prod(self.shape, dtype=np.int64)))
        if self.kind is Kind.PLAIN:
            bits = _plain(self.dtype, w)
        elif self.kind is Kind.SPECIAL:
            bits = _special(self.dtype, w)
        elif self.kind is Kind.RANGE:
            bits = np.uint64(self.low % _WORD) + (w >> np.uint64(8)) % np.uint64(self.count)
        else:
            bits = w
        raw = bits.astype(np.dtype(f"<u{self.dtype.itemsize}"))
        return np.ascontiguousarray(raw).view(self.dtype.numpy).reshape(self.shape)


def _mix(z: Array) -> Array:
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def _words(seed: int, count: int) -> Array:
    base = _mix(np.array([(seed + _GOLDEN) % _WORD], np.uint64))
    return _mix(base + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN))


def _plain(dtype: DType, w: Array) -> Array:
    high, low = w >> np.uint64(32), w & np.uint64(7)
    f32 = high & np.uint64(0x807FFFFF) | (low + np.uint64(121)) << np.uint64(23)
    if dtype is DType.F32:
        return f32
    if dtype is DType.BF16:
        return f32 >> np.uint64(16)
    if dtype is DType.F16:
        return high & np.uint64(0x83FF) | (low + np.uint64(9)) << np.uint64(10)
    if dtype is DType.BOOL:
        return high & np.uint64(1)
    return high % np.uint64(41) - np.uint64(20)


def _special(dtype: DType, w: Array) -> Array:
    choice, place = w >> np.uint64(3) & np.uint64(7), (w >> np.uint64(8)).astype(np.int64)
    tables = {DType.F32: SPECIAL_F32, DType.BF16: [x >> 16 for x in SPECIAL_F32], DType.F16: SPECIAL_F16}
    tables |= {DType.I64: SPECIAL_I64, DType.I32: SPECIAL_I32}
    if dtype is DType.BOOL:  # any byte: everything but 0 is true
        chosen = w >> np.uint64(8)
    else:
        table = np.array([x % _WORD for x in tables[dtype]], np.uint64)
        chosen = table[place & len(table) - 1]
    return np.where(choice == 0, chosen, np.where(choice == 1, w >> np.uint64(32), _plain(dtype, w)))
