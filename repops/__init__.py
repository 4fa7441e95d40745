"""RepOps: reproducible operators, programs and commitments.

    step, state, make_batch = repops.lift(module, loss, optimizer=repops.AdamW(), schedule=repops.constant(1e-3))
    program = repops.capture(step, state, make_batch(x, y, 0))
    state = repops.Executor(program).run(state, make_batch(x, y, 0))

torch is imported when `capture`, `lift` or an optimizer is first used, not before: providers and referees run without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from repops import graph
from repops.commit import Tree
from repops.errors import (
    CaptureError,
    CommitmentError,
    ProgramError,
    RepopsError,
    TensorError,
    UnsupportedOperators,
)
from repops.execute import Executor, Walk, WalkStep, execute_node
from repops.graph.ir import BatchTensor, Constant, Input, Node, Program, Ref, RefKind, Slot

if TYPE_CHECKING:
    from repops.capture import capture
    from repops.lift import lift, lift_forward
    from repops.optim import SGD, AdamW, Clipped, constant, cosine, linear

__all__ = [
    "SGD",
    "AdamW",
    "BatchTensor",
    "CaptureError",
    "Clipped",
    "CommitmentError",
    "Constant",
    "Executor",
    "Input",
    "Node",
    "Program",
    "ProgramError",
    "Ref",
    "RefKind",
    "RepopsError",
    "Slot",
    "TensorError",
    "Tree",
    "UnsupportedOperators",
    "Walk",
    "WalkStep",
    "capture",
    "constant",
    "cosine",
    "execute_node",
    "graph",
    "lift",
    "lift_forward",
    "linear",
]

_WITH_TORCH = dict.fromkeys(("SGD", "AdamW", "Clipped", "constant", "cosine", "linear"), "optim")
_WITH_TORCH |= {"capture": "", "lift": "", "lift_forward": "lift"}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module 'repops' has no attribute {name!r}")
    home = _WITH_TORCH[name]
    # capture and lift are modules that can be called (repops.callable).
    return getattr(import_module(f"repops.{home}"), name) if home else import_module(f"repops.{name}")
