"""Tensors of people: torch tensors and numpy arrays as they lie in memory, and results of the same kind.

torch is not imported here; whoever gives a torch tensor has imported it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from repops import _kernels
from repops.dtypes import DType
from repops.errors import TensorError
from repops.graph.ir import MAX_ELEMENTS, MAX_RANK, Shape, extent

Array = np.ndarray[Any, Any]

# Bytes of a result whose memory is asked for in huge pages (numpy does so by itself): the allocator has it from the
# system for itself alone and gives it back, so each new one takes its page faults again.
_LARGE = 32 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor lies in memory. strides count elements, 0 along axes of length 1 and where one element repeats.

    Every element of the memory is visible and there are no gaps, as in `repops.capture.builder.Value`.
    """

    dtype: DType
    shape: Shape
    strides: tuple[int, ...]

    @property
    def order(self) -> list[int]:
        """The axes that occupy memory, from the slowest to the fastest."""
        return sorted((i for i, s in enumerate(self.strides) if s), key=lambda i: -self.strides[i])

    @property
    def stored(self) -> Shape:
        """The shape of the memory."""
        return self.shape if 0 in self.shape else tuple(self.shape[i] for i in self.order)


def is_torch(value: object) -> bool:
    """Whether a value is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_tensor(value: object) -> bool:
    """Whether a value is a torch tensor, a numpy array or a numpy scalar."""
    return isinstance(value, (np.ndarray, np.generic)) or is_torch(value)


def array_of(value: Any, where: str) -> Array:
    """A numpy array over the memory of a tensor, in its shape and strides; bf16 as uint16 patterns.

    Raises TensorError for what is no tensor in CPU memory, for a dtype that programs do not have, more than 8
    dimensions or more than 2^40 elements.
    """
    if is_torch(value):
        array = _array_of_torch(value, where)
    elif isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        _dtype(array.dtype, where)
    else:
        raise TensorError(f"{type(value).__name__} is no tensor", where, "Give a torch tensor or a numpy array")
    if array.ndim > MAX_RANK:
        raise TensorError(f"{array.ndim} dimensions", where, f"At most {MAX_RANK} are allowed")
    if extent(array.shape) > MAX_ELEMENTS:
        raise TensorError(f"shape {list(array.shape)} has too many elements", where, "At most 2^40 are allowed")
    return array


def _dtype(dtype: Any, where: str) -> DType:
    try:
        return DType.of(dtype)
    except TensorError as error:
        raise TensorError(error.what, where, error.cure) from None


def _array_of_torch(value: Any, where: str) -> Array:
    torch = _torch()
    if value.device.type != "cpu" or value.layout is not torch.strided:
        kind = value.device if value.layout is torch.strided else value.layout
        raise TensorError(f"a {kind} tensor", where, "Give a dense tensor in CPU memory")
    dtype = _dtype(value.dtype, where)
    value = value.detach()
    if value.is_neg():
        value = value.resolve_neg()
    try:
        bits = value.view(torch.int16) if dtype is DType.BF16 else value
        array: Array = bits.numpy()
    except (RuntimeError, TypeError) as error:
        raise TensorError(
            f"its memory cannot be read ({_first_line(error)})", where, "Give an ordinary tensor"
        ) from None
    return array.view(np.uint16) if dtype is DType.BF16 else array


def laid_out(array: Array) -> tuple[Array, Layout]:
    """The C-contiguous memory of an array and how the array lies in it; a copy only if its memory has gaps."""
    dtype, shape = DType.of(array.dtype), tuple(array.shape)
    if array.flags.c_contiguous:
        return array, Layout(dtype, shape, plain_strides(shape))
    layout = layout_of(dtype, shape, [s / array.itemsize for s in array.strides])
    if layout.strides == plain_strides(shape):
        return np.ascontiguousarray(array), layout
    kept = [i for i, s in enumerate(layout.strides) if s]
    visible = array[(*(slice(None) if s else 0 for s in layout.strides), ...)]
    return visible.transpose([kept.index(i) for i in layout.order]), layout


def layout_of(dtype: DType, shape: Shape, strides: Sequence[float]) -> Layout:
    """The layout of a tensor with these strides, in elements; of its contiguous copy if its memory has gaps."""
    layout = Layout(dtype, shape, tuple(0 if d == 1 else int(s) for d, s in zip(shape, strides, strict=True)))
    step = 1
    for i in reversed(layout.order):
        if strides[i] != step:
            break
        step *= shape[i]
    else:
        if 0 not in shape:
            return layout
    return Layout(dtype, shape, plain_strides(shape))


def plain_strides(shape: Shape) -> tuple[int, ...]:
    """Row-major strides in elements, 0 along axes of length 1; all 0 if there are no elements."""
    if 0 in shape:
        return (0,) * len(shape)
    strides, step = [], 1
    for d in reversed(shape):
        strides.append(0 if d == 1 else step)
        step *= d
    return tuple(reversed(strides))


def machine_memory() -> int:
    """Bytes of memory that this machine has."""
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def check_memory(needed: int, what: str, where: str) -> None:
    """Raises TensorError if that many bytes are more than the machine's memory."""
    if needed > machine_memory():
        raise TensorError(
            f"{what} {needed} bytes, this machine has {machine_memory()}", where, "Compute it in parts, or elsewhere"
        )


def new_array(shape: Shape, dtype: DType) -> tuple[Array, Array]:
    """A numpy result: what the caller gets, and the same memory for the kernels. Raises TensorError without memory."""
    try:
        array: Array = np.empty(shape, dtype.numpy)
    except MemoryError:
        raise _no_memory(shape, dtype) from None
    return array, array


def new_torch(shape: Shape, dtype: DType, axes: Sequence[int] | None = None) -> tuple[Any, Array]:
    """A torch result: the tensor, and a numpy array over its memory. Raises TensorError without memory.

    shape: of the memory. axes: where each axis of the tensor lies there, if they are not in order.
    """
    torch = _torch()
    order = sorted(range(len(shape)), key=None if axes is None else axes.__getitem__)
    sizes = shape if axes is None else [shape[i] for i in axes]
    try:
        tensor = torch.empty_permuted(sizes, order, dtype=torch_dtype(dtype))
    except (MemoryError, RuntimeError):
        raise _no_memory(shape, dtype) from None
    bits = (tensor.view(torch.int16) if dtype is DType.BF16 else tensor).permute(order)
    array = bits.numpy().view(dtype.numpy)
    if array.nbytes >= _LARGE:
        _kernels.advise_huge(array)
    return tensor, array


def torch_of(array: Array) -> Any:
    """A torch tensor over the memory of a contiguous, writable array; uint16 as bf16."""
    torch = _torch()
    if DType.of(array.dtype) is DType.BF16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def torch_dtype(dtype: DType) -> Any:
    """The torch dtype of an element type."""
    return getattr(_torch(), _TORCH_NAMES[dtype])


def _torch() -> ModuleType:
    return sys.modules["torch"]


def _no_memory(shape: Shape, dtype: DType) -> TensorError:
    what = f"there is no memory for {dtype.text}{list(shape)}"
    return TensorError(what, "result", "Compute it in parts, or give out")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")


_TORCH_NAMES = {
    DType.F32: "float32",
    DType.BF16: "bfloat16",
    DType.F16: "float16",
    DType.I64: "int64",
    DType.I32: "int32",
    DType.BOOL: "bool",
}
