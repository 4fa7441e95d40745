"""Runs programs with the RepOps kernels: for the result, for the trace, or node by node.

Inputs are checked once, at the front; inside a program no kernel raises. All ways give the same bits.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from repops import _kernels
from repops.commit import keccak256, tensor_root
from repops.dtypes import DType
from repops.errors import ProgramError, TensorError
from repops.graph.ir import BatchTensor, Input, Node, Program, Ref, RefKind, Shape, Slot, element_count
from repops.ops.table import OPERATORS
from repops.plan import Compiler, Operand, last_uses
from repops.tensors import machine_memory

Array = np.ndarray[Any, Any]
Tensors = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WalkStep:
    """One executed node: its index, itself, its inputs as it reads them, its output, which may be changed."""

    index: int
    node: Node
    inputs: tuple[Array, ...]
    output: Array


@dataclass(frozen=True, slots=True)
class CallTime:
    """What one kernel call of a run took: its operator or fused group, the shapes it read and wrote, the seconds."""

    op: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    seconds: float


class Executor:
    """Runs one program. threads: how many a kernel may use. isa: a name of `_kernels.isas()`, None for the best.

    `slots`: the names of the state's tensors.
    memory_limit: bytes that node outputs may need at once, default the machine's memory. fuse: let `run` use the fused
    kernels of groups of nodes, which give the same bits.
    Raises ProgramError if the program is not well formed or needs more memory, TensorError for an unknown isa.
    """

    def __init__(
        self,
        program: Program,
        threads: int = 1,
        isa: str | None = None,
        memory_limit: int | None = None,
        *,
        fuse: bool = True,
    ) -> None:
        self.program = program.check()
        self.threads = max(1, threads)
        self.isa = checked_isa(isa)
        self._fuse, self._memory_limit = fuse, memory_limit
        self._runs = _Runs(self, {})
        self.slots = self._runs.names
        self._last_use = last_uses(program)

    def run(self, state: Tensors, batch: Tensors, donate: bool = False) -> dict[str, Array]:
        """One step: the new state by slot name.

        state, batch: tensors by name, exactly the program's, as numpy arrays or anything with DLPack. donate: the
        state's own buffers are updated in place and returned; the old values are gone. Raises TensorError for a wrong
        tensor.
        """
        return self._runs.run(state, batch, donate, self.threads)[0]

    def profile(self, state: Tensors, batch: Tensors, donate: bool = False) -> list[CallTime]:
        """Runs one step as `run` does, and gives the time of each kernel call, in their order. Raises TensorError."""
        return self._runs.profile(state, batch, donate, self.threads)

    def freeze(self, state: Tensors) -> Frozen:
        """The program with this state's values of the slots that it does not change, for many runs: inference.

        state: as in `run`; only the slots whose update is the slot itself are read, now and never again. See `Frozen`.
        Raises TensorError for a wrong tensor.
        """
        return Frozen(self, state)

    def walk(self, state: Tensors, batch: Tensors, roots: bool = False) -> Walk:
        """Node by node; roots: collect the trace; see `Walk`. Raises TensorError for a wrong tensor."""
        states = checked_tensors(self.program.slots, state, "state")
        batches = checked_tensors(self.program.batch, batch, "batch")
        return Walk(self, states, batches, roots)

    def trace(self, state: Tensors, batch: Tensors) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Roots of all trace nodes, uint8 [trace_length, 32]; the last is the new state root. Raises TensorError."""
        walk = self.walk(state, batch, roots=True)
        for _ in walk:
            pass
        return walk.trace()


class Frozen:
    """A program whose weights are given once, by `Executor.freeze`: same bits as `Executor.run`, faster for few rows.

    The weights are the slots that no step changes. `slots` names the others: `run` takes and gives these. What a
    product of 4 to 256 rows multiplies by is packed for it once, not in each run.

    It reads nothing of the state that it was made from: it holds copies, packed ones of what only such products read,
    else plain ones, and one for each way in which a matrix is read, such as an embedding tied to the head. `bytes` says
    how many bytes that is: mostly as many as the weights have, so drop the originals if they are not needed. What is
    written to them later has no effect here; new weights need a new `freeze`. Constants are packed alike, by every
    Executor.
    """

    def __init__(self, executor: Executor, state: Tensors) -> None:
        self.program = executor.program
        self.threads = executor.threads
        states = checked_tensors(self.program.slots, state, "state")
        weights = {i: states[i] for i, slot in enumerate(self.program.slots) if slot.update == Ref.state(i)}
        self._runs = _Runs(executor, weights)
        self.slots = self._runs.names

    @property
    def bytes(self) -> int:
        """Bytes of the copies."""
        return self._runs.bytes

    def run(self, state: Tensors, batch: Tensors, donate: bool = False) -> dict[str, Array]:
        """One step: the new values of `slots`, by name. As `Executor.run`, but state holds exactly `slots`."""
        return self._runs.run(state, batch, donate, self.threads)[0]

    def profile(self, state: Tensors, batch: Tensors, donate: bool = False) -> list[CallTime]:
        """As `Executor.profile`, but state holds exactly `slots`."""
        return self._runs.profile(state, batch, donate, self.threads)


class _Runs:
    """A compiled program with what it reads in every run: constants, weights (slot index -> value), packed matrices."""

    def __init__(self, executor: Executor, weights: Mapping[int, Array]) -> None:
        program, isa = executor.program, executor.isa
        frozen = {*map(Ref.state, weights), *map(Ref.constant, range(len(program.constants)))}
        layout = Compiler(program, fused_kernels(isa) if executor._fuse else (), frozen)
        limit = executor._memory_limit or machine_memory()
        if layout.arena_bytes > limit:
            raise ProgramError(
                f"its node outputs need {layout.arena_bytes} bytes at once, {limit} are allowed",
                "program",
                "Raise memory_limit, or run it on a larger machine",
            )
        self._indices = [i for i in range(len(program.slots)) if i not in weights]
        self._slots = [program.slots[i] for i in self._indices]
        self.names = tuple(slot.name for slot in self._slots)
        self._batch = program.batch
        self._plan = layout.plan(isa)
        self._calls, self._written = layout.calls, layout.written
        constants = [c.data for c in program.constants]
        nothing = np.empty(0, np.uint8)
        packed = [np.empty(shape, dtype.numpy) for dtype, shape in layout.packed]
        given = [weights.get(i, nothing) for i in range(len(program.slots))]
        layout.packing(isa).run(given, [], constants, packed, executor.threads)
        self._constants = constants + packed
        # In the places of the slots: the weights that are read as they are; nothing for those that a run is given.
        read = {operand[:2] for call in layout.calls for operand in call[3]}
        self._states = [w.copy() if (int(RefKind.STATE), i) in read else nothing for i, w in enumerate(given)]
        self.bytes = sum(array.nbytes for array in (*packed, *self._states))

    def run(
        self, state: Tensors, batch: Tensors, donate: bool, threads: int, profile: bool = False
    ) -> tuple[dict[str, Array], list[float]]:
        """The new state by slot name, and the seconds of each call if they are asked for."""
        states = checked_tensors(self._slots, state, "state")
        batches = checked_tensors(self._batch, batch, "batch")
        if donate:
            _check_donation(self._slots, state, states)
            new = states
        else:
            new = [
                np.empty(slot.shape, slot.dtype.numpy) if i in self._written else old.copy()
                for i, slot, old in zip(self._indices, self._slots, states, strict=True)
            ]
        before, after = list(self._states), list(self._states)
        for i, old, own in zip(self._indices, states, new, strict=True):
            before[i], after[i] = old, own
        seconds: list[float] = self._plan.run(before, batches, self._constants, after, threads, profile)
        return dict(zip(self.names, new, strict=True)), seconds

    def profile(self, state: Tensors, batch: Tensors, donate: bool, threads: int) -> list[CallTime]:
        """The time of each call of a run."""
        seconds = self.run(state, batch, donate, threads, profile=True)[1]
        return [
            CallTime(op, _shapes(inputs), _shapes(outputs), taken)
            for (op, _, _, inputs, outputs, _), taken in zip(self._calls, seconds, strict=True)
        ]


class Walk:
    """An execution node by node. Iterate it to the end; what an iteration does to `.output` is what later nodes read.

    Then `state()` is the new state by slot name, and `trace()` the roots, if they were asked for.
    """

    def __init__(self, executor: Executor, states: Sequence[Array], batches: Sequence[Array], roots: bool) -> None:
        self._executor = executor
        self._memory = _Memory(executor.program, states, batches)
        self._roots: list[bytes] | None = [] if roots else None
        self._done = False

    def __iter__(self) -> Iterator[WalkStep]:
        executor, memory = self._executor, self._memory
        for index, node in enumerate(executor.program.nodes):
            inputs = tuple(memory.read(i) for i in node.inputs)
            output = execute_checked(node, inputs, executor.threads, executor.isa)
            memory.nodes[index] = output
            yield WalkStep(index, node, inputs, output)
            if self._roots is not None:
                self._roots.append(tensor_root(output, executor.threads))
            for item in node.inputs:
                if item.ref.kind is RefKind.NODE and executor._last_use[item.ref] == index:
                    memory.nodes[item.ref.index] = None
        self._done = True

    def state(self) -> dict[str, Array]:
        """The new state, after the last node. Raises TensorError before."""
        self._check_done()
        return self._memory.new_state()

    def trace(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Roots of all trace nodes, uint8 [trace_length, 32]. Raises TensorError before the end or without roots."""
        self._check_done()
        if self._roots is None:
            raise TensorError("the walk collected no roots", "trace", "Ask for them: walk(state, batch, roots=True)")
        roots = list(self._roots)
        for node in self._executor.program.hash_nodes:
            left, right = (self._root_of(item.ref, roots) for item in node.inputs)
            roots.append(keccak256(left + right))
        return np.frombuffer(b"".join(roots), np.uint8).reshape(-1, 32)

    def _root_of(self, ref: Ref, roots: Sequence[bytes]) -> bytes:
        if ref.kind is RefKind.NODE:
            return roots[ref.index]
        if ref.kind is RefKind.ZERO:
            return bytes(32)
        return tensor_root(self._memory.given[ref], self._executor.threads)

    def _check_done(self) -> None:
        if not self._done:
            raise TensorError("the walk has not reached its end", "walk", "Iterate it to the end first")


def execute_node(node: Node, inputs: Sequence[Any], threads: int = 1, isa: str | None = None) -> Array:
    """One compute node of a checked program, for the referee: its output, in the node's shape.

    inputs: tensors of the dtypes and element counts that the node declares. Raises TensorError if they are not,
    ProgramError for a hash node or an unknown operator.
    """
    if node.op not in OPERATORS:
        raise ProgramError(f"{node.op!r} is not an operator", "node", "Only compute nodes are executed")
    if len(inputs) != len(node.inputs):
        raise TensorError(
            f"{len(inputs)} tensors for {len(node.inputs)} inputs", f"node {node.op}", "Give one for each"
        )
    arrays = [
        _checked(value, item, f"node {node.op}, input {i}")
        for i, (item, value) in enumerate(zip(node.inputs, inputs, strict=True))
    ]
    return execute_checked(node, arrays, max(1, threads), checked_isa(isa))


def execute_checked(node: Node, inputs: Sequence[Array], threads: int, isa: str | None) -> Array:
    """As execute_node, for inputs that were checked."""
    out = np.empty(node.shape, node.dtype.numpy)
    _call(node, inputs, out, threads, isa)
    return out


def checked_isa(isa: str | None) -> str | None:
    """The isa, if this machine has it. Raises TensorError."""
    if isa is not None and isa not in _kernels.isas():
        raise TensorError(f"this machine has no {isa!r}", "isa", f"It has {', '.join(_kernels.isas())}")
    return isa


def fused_kernels(isa: str | None) -> list[str]:
    """The fused kernels of an instruction set (None: of the one that is used by default)."""
    names: list[str] = _kernels.fused(isa or os.environ.get("REPOPS_ISA") or _kernels.isas()[0])
    return names


def checked_tensors(wanted: Sequence[Slot | BatchTensor], given: Tensors, what: str) -> list[Array]:
    """The arrays in the program's order. Raises TensorError unless names, dtypes and shapes are the program's."""
    names = [tensor.name for tensor in wanted]
    known = set(names)
    missing, extra = [n for n in names if n not in given], [str(n) for n in given if n not in known]
    if missing or extra:
        faults = [f"without {', '.join(missing)}"] * bool(missing) + [f"with unknown {', '.join(extra)}"] * bool(extra)
        raise TensorError(f"{what} {' and '.join(faults)}", what, f"Give exactly: {', '.join(names)}")
    arrays = [_checked(given[t.name], t, f"{what} tensor {t.name}") for t in wanted]
    for array, tensor in zip(arrays, wanted, strict=True):
        if array.shape != tensor.shape:
            raise TensorError(
                f"shape is {list(array.shape)}, the program's is {list(tensor.shape)}",
                f"{what} tensor {tensor.name}",
                "Reshape it",
            )
    return arrays


def as_array(value: Any, where: str = "tensor") -> Array:
    """A C-contiguous numpy array over the same memory if possible. Takes numpy arrays and anything with DLPack.

    A bf16 tensor of torch becomes the uint16 array of its bit patterns, as numpy has no bf16. Raises TensorError for
    anything else, and for a big-endian array.
    """
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        value = value.view(sys.modules["torch"].uint16)
    try:
        array = np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else np.from_dlpack(value)
        array = array if array.flags.c_contiguous else np.ascontiguousarray(array)
    except (TypeError, ValueError, AttributeError, RuntimeError, BufferError) as error:
        raise TensorError(
            f"not a tensor that can be read ({error})", where, "Give a numpy array or a CPU tensor"
        ) from None
    return array


def _checked(value: Any, wanted: Slot | BatchTensor | Input, where: str) -> Array:
    array = as_array(value, where)
    dtype = DType.of(array.dtype) if array.dtype != np.dtype(np.float64) else None
    if dtype is not wanted.dtype:
        raise TensorError(f"dtype is {array.dtype}, the program's is {wanted.dtype.text}", where, "Convert it")
    if array.size != element_count(wanted.shape):
        raise TensorError(f"shape is {list(array.shape)}, the program's is {list(wanted.shape)}", where, "Reshape it")
    return array


def _check_donation(slots: Sequence[Slot], state: Tensors, arrays: Sequence[Array]) -> None:
    """Donated arrays are written: they must be writable, contiguous as given, and not overlap."""
    spans = []
    for slot, array in zip(slots, arrays, strict=True):
        where = f"state tensor {slot.name}"
        given = state[slot.name]
        copied = isinstance(given, (np.ndarray, np.generic)) and not np.shares_memory(given, array)
        if not array.flags.writeable or (copied and array.size):
            raise TensorError("cannot be updated in place", where, "Give a writable contiguous array, or donate=False")
        start = array.ctypes.data
        spans.append((start, start + array.nbytes, where))
    spans.sort()
    for (_, end, where), (start, _, other) in pairwise(spans):
        if start < end:
            raise TensorError(f"shares memory with {where}", other, "Give each slot memory of its own, or donate=False")


class _Memory:
    """The tensors of one execution: what was given, and the node outputs that are still needed."""

    def __init__(self, program: Program, states: Sequence[Array], batches: Sequence[Array]) -> None:
        self.program = program
        self.given: dict[Ref, Array] = {}
        self.given.update({Ref.state(i): a for i, a in enumerate(states)})
        self.given.update({Ref.batch(i): a for i, a in enumerate(batches)})
        self.given.update({Ref.constant(i): c.data for i, c in enumerate(program.constants)})
        self.nodes: list[Array | None] = [None] * len(program.nodes)

    def read(self, item: Input) -> Array:
        """An input in the shape under which it is read."""
        return self._find(item.ref).reshape(item.shape)

    def _find(self, ref: Ref) -> Array:
        found = self.nodes[ref.index] if ref.kind is RefKind.NODE else self.given[ref]
        assert found is not None, "a node output was freed before its last use"
        return found

    def new_state(self) -> dict[str, Array]:
        """The slots' updates, each with memory of its own (given tensors are copied)."""
        new: dict[str, Array] = {}
        seen: set[Ref] = set()
        for slot in self.program.slots:
            value = self._find(slot.update).reshape(slot.shape)
            if slot.update in seen or slot.update.kind is not RefKind.NODE:
                value = value.copy()
            seen.add(slot.update)
            new[slot.name] = value
        return new


def _call(node: Node, inputs: Sequence[Array], out: Array, threads: int, isa: str | None) -> None:
    given = [(a, int(i.dtype), list(i.shape)) for a, i in zip(inputs, node.inputs, strict=True)]
    result = (out, int(node.dtype), list(node.shape))
    _kernels.run(node.op, isa, threads, list(node.params), list(node.literals), given, result)


def _shapes(operands: Sequence[Operand]) -> tuple[Shape, ...]:
    return tuple(tuple(shape) for _, _, _, shape in operands)
