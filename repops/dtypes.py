"""The element types of programs (docs/spec/programs.md) and their names, sizes and numpy forms."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

from repops.errors import TensorError


class DType(IntEnum):
    """Code of an element type. ROOT marks the operands of hash nodes; no tensor has it.

    numpy has no bfloat16: a bf16 tensor is a uint16 array of its bit patterns. No other dtype uses uint16, so the
    mapping is one to one.
    """

    F32 = 1
    BF16 = 2
    F16 = 3
    I64 = 4
    I32 = 5
    BOOL = 6
    ROOT = 255

    @property
    def text(self) -> str:
        """The name in files and messages: "f32", "bf16", "f16", "i64", "i32", "bool" or "root"."""
        return self.name.lower()

    @property
    def itemsize(self) -> int:
        """Bytes of one element. Raises TensorError for ROOT."""
        return self.numpy.itemsize

    @property
    def bits(self) -> int:
        """Bits of one element's pattern, 8 for a bool. Raises TensorError for ROOT."""
        return 8 * self.itemsize

    @property
    def numpy(self) -> np.dtype[Any]:
        """The little-endian numpy dtype that carries it (uint16 for bf16). Raises TensorError for ROOT."""
        if self is DType.ROOT:
            raise TensorError("a root is not a tensor element", "dtype root", "Use 32 raw bytes")
        return _NUMPY[self]

    @property
    def is_float(self) -> bool:
        """True for f32, bf16 and f16."""
        return self in (DType.F32, DType.BF16, DType.F16)

    @classmethod
    def parse(cls, text: str) -> DType:
        """From the name of a tensor element type ("f32" ..., not "root"). Raises TensorError if unknown."""
        found = _BY_NAME.get(text)
        if found is None:
            raise TensorError(f"unknown dtype {text!r}", cure=f"Known dtypes: {', '.join(_BY_NAME)}")
        return found

    @classmethod
    def of(cls, dtype: Any) -> DType:
        """From a numpy dtype (or anything `numpy.dtype` takes) or a torch dtype; uint16 means bf16.

        Raises TensorError for a type that programs do not have (float64, complex, unsigned ...) or a big-endian one.
        torch is not imported: its dtypes are known by their text.
        """
        text = str(dtype)
        if text.startswith("torch."):
            found = _BY_TORCH.get(text)
        else:
            try:
                found = _BY_NUMPY.get(np.dtype(dtype))
            except TypeError:
                found = None
        if found is None:
            raise TensorError(
                f"dtype {text} is not an element type of programs",
                cure="Convert it to f32, bf16 (numpy: uint16 bit patterns), f16, i64, i32 or bool",
            )
        return found


_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.F32: np.dtype("<f4"),
    DType.BF16: np.dtype("<u2"),
    DType.F16: np.dtype("<f2"),
    DType.I64: np.dtype("<i8"),
    DType.I32: np.dtype("<i4"),
    DType.BOOL: np.dtype(np.bool_),
}
_BY_NUMPY = {numpy: dtype for dtype, numpy in _NUMPY.items()}
_BY_NAME = {dtype.text: dtype for dtype in _NUMPY}
_BY_TORCH = {
    "torch.float32": DType.F32,
    "torch.bfloat16": DType.BF16,
    "torch.float16": DType.F16,
    "torch.int64": DType.I64,
    "torch.int32": DType.I32,
    "torch.bool": DType.BOOL,
}


def to_float64(array: np.ndarray[Any, Any] | np.generic, dtype: DType) -> np.ndarray[Any, Any]:
    """The numbers of a float tensor, of bf16 patterns too, exactly."""
    if dtype is DType.BF16:
        return (np.asarray(array).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.asarray(array).astype(np.float64)
