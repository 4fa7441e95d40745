"""What a program is made of, in numbers: for `verde program inspect`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from repops.commit import height
from repops.graph import ir
from repops.graph.encoding import constant_root
from repops.graph.ir import BatchTensor, Constant, Program, Slot, element_count


def describe(program: Program) -> dict[str, Any]:
    """A JSON-ready description of a checked program.

    Keys: profile, root, nodes (compute, hash, trace), operators (name to count, most frequent first), slots, batch,
    constants (each with dtype, shape, bytes), bytes (of state, batch, constants and all node outputs), heights (of the
    trees of trace, state and batch, and the greatest of a node's output).
    """
    state, batch, constants = (
        [_described(t) for t in tensors] for tensors in (program.slots, program.batch, program.constants)
    )
    outputs = [element_count(n.shape) * n.dtype.itemsize for n in program.nodes]
    for item, slot in zip(state, program.slots, strict=True):
        item["update"] = slot.update.text
    for item, constant in zip(constants, program.constants, strict=True):
        item["root"] = "0x" + constant_root(constant).hex()
    return {
        "profile": ir.PROFILE,
        "root": "0x" + program.root.hex(),
        "nodes": {
            "compute": len(program.nodes),
            "hash": program.trace_length - len(program.nodes),
            "trace": program.trace_length,
        },
        "operators": dict(sorted(Counter(n.op for n in program.nodes).items(), key=lambda item: (-item[1], item[0]))),
        "slots": state,
        "batch": batch,
        "constants": constants,
        "bytes": {
            "state": sum(item["bytes"] for item in state),
            "batch": sum(item["bytes"] for item in batch),
            "constants": sum(item["bytes"] for item in constants),
            "node_outputs": sum(outputs),
        },
        "heights": {
            "trace": height(program.trace_length),
            "state": max(1, height(len(program.slots))),
            "batch": max(1, height(len(program.batch))),
            "largest_output": max((ir.tile_height(n.dtype, n.shape) for n in program.nodes), default=0),
        },
    }


def _described(tensor: Slot | BatchTensor | Constant) -> dict[str, Any]:
    named = {} if isinstance(tensor, Constant) else {"name": tensor.name}
    size = element_count(tensor.shape) * tensor.dtype.itemsize
    return {**named, "dtype": tensor.dtype.text, "shape": list(tensor.shape), "bytes": size}
