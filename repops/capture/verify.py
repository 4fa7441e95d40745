"""The self-check of a captured program: what runs is the lowered IR, compared slot by slot with the eager step.

Two comparisons, both by the norm of a slot's error, because elementwise two correct runs may differ without bound (from
zero Adam state an update is a sign, and a gradient that is zero up to rounding has any sign):

(a) the IR with the operators' float64 twins against the eager step in float64: 1e-6 of the update, plus half an f32 ulp
    of the old value, since the program's literals are rounded to f32. Wrong mathematics, gradients included, fails.
    Neither side rounds to bf16 or f16: every float is float64, whatever dtype the step asks for, and casts between
    floats change nothing. So the tolerance is the same for every step.
(b) the RepOps kernels against the eager step in its own dtypes: 1e-4 of the update, plus an f32 ulp of the old value;
    for a program with bf16 or f16 tensors 16 units of the coarsest (2^-8, 2^-11) of the update, plus one of the old
    value. The mathematics is (a)'s matter; this shows that the kernels compute it.

(a) takes most of the time and memory. (b) alone finds what is wrong by more than 1e-4 of a slot's update.
Both start from a state in which slots that were all zero (moments, losses) are random and positive, so that every slot
depends on everything it should, and second moments stay valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from repops.capture.attention import AttentionCapture
from repops.capture.random import RandomCapture
from repops.capture.trace import Step
from repops.dtypes import DType, to_float64
from repops.errors import CaptureError
from repops.execute import Executor
from repops.graph.ir import Input, Program, RefKind
from repops.ops.table import OPERATORS
from repops.plan import last_uses

Array = np.ndarray[Any, Any]

TWIN_TOLERANCE, TWIN_ROUNDING = 1e-6, 2.0**-24
KERNEL_TOLERANCE, KERNEL_ROUNDING = 1e-4, 2.0**-23
_UNITS = {DType.BF16: 2.0**-8, DType.F16: 2.0**-11}
LOW_TOLERANCE = 16  # units
_SMALLEST_SCALE = 1e-4
_SEED = 0x7E9D
_FREED = np.empty(0)


def self_check(
    program: Program, step: Step, state: Mapping[str, Tensor], batch: Mapping[str, Tensor], light: bool = False
) -> None:
    """Raises CaptureError naming the first slot that fails, and by how much. light: comparison (b) alone."""
    state = _lively(step, state, batch)
    if not light:
        _check_twins(program, step, state, batch)
    expected = run_eagerly(step, state, batch)
    run = Executor(program).run(state, batch)
    actual = {s.name: to_float64(run[s.name], s.dtype) if s.dtype is DType.BF16 else run[s.name] for s in program.slots}
    compare(program, _numbers(state), actual, expected, *kernel_tolerance(program), "RepOps kernels")


def _check_twins(program: Program, step: Step, state: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
    wide, wide_batch = _widened(state), _widened(batch)
    expected = _run_in_float64(step, wide, wide_batch)
    actual = run_twins(program, _numbers(wide), _numbers(wide_batch))
    compare(program, _numbers(state), actual, expected, TWIN_TOLERANCE, TWIN_ROUNDING, "float64 twin")


def kernel_tolerance(program: Program) -> tuple[float, float]:
    """Of the update and of the old value, by the coarsest dtype in the program."""
    dtypes = {node.dtype for node in program.nodes} | {slot.dtype for slot in program.slots}
    unit = max((unit for dtype, unit in _UNITS.items() if dtype in dtypes), default=None)
    return (KERNEL_TOLERANCE, KERNEL_ROUNDING) if unit is None else (LOW_TOLERANCE * unit, unit)


def run_twins(program: Program, state: Mapping[str, Array], batch: Mapping[str, Array]) -> dict[str, Array]:
    """The new state by the operators' float64 twins; floats are given and returned as float64."""
    given: dict[RefKind, list[Array]] = {
        RefKind.STATE: [state[s.name] for s in program.slots],
        RefKind.BATCH: [batch[b.name] for b in program.batch],
        RefKind.CONSTANT: [to_float64(c.data, c.dtype) if c.dtype.is_float else c.data for c in program.constants],
        RefKind.NODE: [],
    }

    def read(item: Input) -> Array:
        return given[item.ref.kind][item.ref.index].reshape(item.shape)

    last_use = last_uses(program)
    with np.errstate(all="ignore"):
        for index, node in enumerate(program.nodes):
            given[RefKind.NODE].append(OPERATORS[node.op].twin(node, [read(i) for i in node.inputs]))
            for item in node.inputs:
                if item.ref.kind is RefKind.NODE and last_use[item.ref] == index:
                    given[RefKind.NODE][item.ref.index] = _FREED
    return {s.name: read(Input(s.update, s.dtype, s.shape)) for s in program.slots}


def run_eagerly(step: Step, state: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Array]:
    """The new state by the step itself, which does not change its arguments (a trace would have refused that).

    Only its random numbers are the program's.
    """
    with RandomCapture(batch), AttentionCapture(random_only=True):
        result = step(dict(state), dict(batch))
    return _numbers(result)


def _run_in_float64(step: Step, state: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Array]:
    with _Float64():  # type: ignore[no-untyped-call]
        return run_eagerly(step, state, batch)


class _Float64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, an operator that is told to give floating-point numbers gives float64.

    Models cast to float32 where they want accuracy, which would cost the float64 reference its own.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        dtype = kwargs.get("dtype")
        if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


def compare(
    program: Program,
    old: Mapping[str, Array],
    actual: Mapping[str, Array],
    expected: Mapping[str, Array],
    tolerance: float,
    rounding: float,
    what: str,
) -> None:
    """Raises CaptureError unless |error| <= tolerance |update| + rounding |old| in every slot (0 if it is no float)."""
    for slot in program.slots:
        new, wanted, before = actual[slot.name], expected[slot.name], old[slot.name]
        if not slot.dtype.is_float:
            if not np.array_equal(new, wanted):
                raise _failed(slot.name, what, f"{int((new != wanted).sum())} elements differ")
            continue
        new, wanted, before = (np.asarray(x, dtype=np.float64).ravel() for x in (new, wanted, before))
        finite = np.isfinite(wanted)
        if not np.array_equal(finite, np.isfinite(new)):
            raise _failed(slot.name, what, "infinities or NaNs stand in other places")
        if not finite.all():
            new, wanted, before = new[finite], wanted[finite], before[finite]
        error, update = (float(np.linalg.norm(x)) for x in (new - wanted, wanted - before))
        if error > tolerance * update + rounding * float(np.linalg.norm(before)):
            raise _failed(
                slot.name, what, f"the error is {error:.3g}, the update {update:.3g}, the tolerance {tolerance:g} of it"
            )


def _failed(slot: str, what: str, how: str) -> CaptureError:
    return CaptureError(
        f"the self-check failed against eager torch ({what}): {how}",
        f"slot {slot}",
        "The program would compute something else than the step: report it, do not use check=False",
    )


def _lively(step: Step, state: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with random positive values, of the size that one step gives them, in f32 slots that are all zero."""
    generator = torch.Generator().manual_seed(_SEED)
    zeros = [k for k, v in state.items() if v.dtype.is_floating_point and not bool(v.any())]
    after = step(dict(state), dict(batch)) if zeros else {}
    lively = {}
    for name, value in state.items():
        lively[name] = value
        if name in zeros:
            size = float(after[name].detach().double().square().mean().sqrt()) if value.numel() else 0.0
            scale = max(size, _SMALLEST_SCALE) if np.isfinite(size) else 1.0
            lively[name] = (0.5 + torch.rand(value.shape, generator=generator)).to(value.dtype) * scale
    return lively


def _widened(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.double() if v.dtype.is_floating_point else v for k, v in tensors.items()}


def _numbers(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    """As numpy arrays; numpy has no bf16."""
    plain = {k: v.float() if v.dtype is torch.bfloat16 else v for k, v in tensors.items()}
    return {k: v.detach().contiguous().numpy() for k, v in plain.items()}
