"""Capture: from a PyTorch step function to a program. Here, in `lift` and in `optim` the library knows torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from repops.callable import CallableModule
from repops.capture.lower import lower
from repops.capture.trace import Step, trace
from repops.capture.verify import self_check
from repops.dtypes import DType
from repops.errors import CaptureError, TensorError
from repops.graph.ir import BatchTensor, Program, Shape

__all__ = ["capture"]


def capture(
    step: Step, state: Mapping[str, Tensor], batch: Mapping[str, Tensor], check: bool | Literal["light"] = True
) -> Program:
    """The program of a step: traced once with fake tensors, functionalised, lowered, and checked against the step.

    step: a pure function of (state, batch), dicts of tensors by name, that returns the new state: the same slots with
    the same dtypes and shapes. state, batch: example tensors; their shapes become the program's, slots keep their
    order. What changes from step to step (learning rate, bias corrections) comes in the batch. check: run the
    self-check of `repops.capture.verify`; "light": without its float64 half, for models of gigabytes.

    Raises UnsupportedOperators with the full list of what has no RepOps operator; CaptureError if the step does not
    return its slots, uses tensors from outside its arguments, or the self-check fails (naming slot and error).
    """
    if check not in (True, False, "light"):
        raise CaptureError(f"check is {check!r}", "capture", 'It is True, False or "light"')
    given = {"state": dict(state), "batch": dict(batch)}
    for what, tensors in given.items():
        for name, tensor in tensors.items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise CaptureError(
                    f"{type(tensor).__name__} is not a tensor", f"{what} {name}", "Give dicts of tensors"
                )
            try:
                DType.of(tensor.dtype)
            except TensorError:
                raise CaptureError(
                    f"dtype is {tensor.dtype}",
                    f"{what} tensor {name}",
                    "Programs take float32, bfloat16, float16, int64, int32 and bool",
                ) from None
            tensors[name] = tensor.detach().cpu().contiguous()
    states, batches = given["state"], given["batch"]
    program = lower(
        trace(step, states, batches),
        [(name, *_type(tensor)) for name, tensor in states.items()],
        [BatchTensor(name, *_type(tensor)) for name, tensor in batches.items()],
    )
    if check:
        self_check(program, step, states, batches, light=check == "light")
    return program


def _type(tensor: Tensor) -> tuple[DType, Shape]:
    return DType.of(tensor.dtype), tuple(int(d) for d in tensor.shape)


sys.modules[__name__].__class__ = CallableModule
