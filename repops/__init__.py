"""RepOps: reproducible operators, programs and commitments.

    step, state, make_batch = repops.lift(module, loss, optimizer=repops.AdamW(), schedule=repops.constant(1e-3))
    program = repops.capture(step, state, make_batch(x, y, 0))
    state = repops.compile(program)(state, make_batch(x, y, 0))

    y = repops.matmul(a, b)                            # and the other functions of `repops.functional`
    model = torch.compile(model, backend="repops")     # registered by `repops.dynamo`

torch is imported when `capture`, `lift`, an optimizer or a function is first used, not before: providers and referees
run without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from repops import graph, names
from repops.commit import Tree
from repops.compiled import CompiledProgram, compile
from repops.errors import (
    CaptureError,
    CommitmentError,
    ProgramError,
    RepopsError,
    TensorError,
    UnsupportedOperators,
)
from repops.execute import Executor, Frozen, Walk, WalkStep, execute_node
from repops.graph.ir import BatchTensor, Constant, Input, Node, Program, Ref, RefKind, Slot
from repops.settings import isa, set_isa, set_threads, threads

if TYPE_CHECKING:
    from repops.capture import capture
    from repops.lift import lift, lift_forward
    from repops.optim import SGD, AdamW, Clipped, constant, cosine, linear_decay

__all__ = [
    "SGD",
    "AdamW",
    "BatchTensor",
    "CaptureError",
    "Clipped",
    "CommitmentError",
    "CompiledProgram",
    "Constant",
    "Executor",
    "Frozen",
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
    "compile",
    "constant",
    "cosine",
    "execute_node",
    "graph",
    "isa",
    "lift",
    "lift_forward",
    "linear_decay",
    "set_isa",
    "set_threads",
    "threads",
]

_WITH_TORCH = dict.fromkeys(("SGD", "AdamW", "Clipped", "constant", "cosine", "linear_decay"), "optim")
_WITH_TORCH |= {"capture": "", "lift": "", "lift_forward": "lift"}


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        home = _WITH_TORCH[name]
        # capture and lift are modules that can be called (repops.callable).
        return getattr(import_module(f"repops.{home}"), name) if home else import_module(f"repops.{name}")
    if name in names.FUNCTIONS:
        return import_module("repops.functional").FUNCTIONS[name]
    raise AttributeError(f"module 'repops' has no attribute {name!r}")
