"""How a rational liar answers for a wrong element: with a run that is right but for one instruction."""

from __future__ import annotations

import numpy as np

from repops.commit import Hashes, Tree
from repops.vm import NodeRun
from repops.vm.isa import Instruction
from repops.vm.machine import State, step

REACH = 64  # how many instructions before the end the lie may begin


def forge(run: NodeRun, element: int, value: int) -> Tree:
    """A trace of an element that ends in `value`.

    It differs from the honest one from an instruction on whose result is the element's value: the first of the last
    REACH for which that leads to `value`; if there is none, from the HALT on.
    """
    honest = run.trace(element)
    output, count = run.run(element)
    if output == value:
        return honest.tree
    leaves = np.array(honest.tree.leaves())
    for at in range(max(0, count - REACH), count - 1):
        wrong = _replaced(run, element, at, output, value)
        if wrong is not None and _follow(run, wrong, at, leaves, value):
            return Tree(leaves, run.height)
    leaves[count - 1 :] = _row(State.halt(value))
    return Tree(leaves, run.height)


def fault(run: NodeRun, element: int, at: int, bit: int) -> tuple[int, Tree]:
    """What comes out if one bit of the result of instruction `at` is flipped, and the trace of that run. An instruction
    that writes no register writes what it should."""
    leaves = np.array(run.trace(element).tree.leaves())
    state = State.decode(run.state(element, at + 1))
    written = _written(run, element, at)
    if written is not None:
        state.registers[written] ^= 1 << bit
    ended = _run_on(run, state, at, leaves)
    return ended.output, Tree(leaves, run.height)


def _written(run: NodeRun, element: int, at: int) -> int | None:
    """The register that instruction `at` of a run changes; None if it changes none."""
    before, after = (State.decode(run.state(element, n)) for n in (at, at + 1))
    if after.halted:
        return None
    register = Instruction.decode(run.image.words[before.pc]).a % len(after.registers)
    changed = after.registers[register] != before.registers[register]
    return register if changed else None


def _replaced(run: NodeRun, element: int, at: int, output: int, value: int) -> State | None:
    """The state after instruction `at` with its result replaced, if its result is the output."""
    written = _written(run, element, at)
    state = State.decode(run.state(element, at + 1))
    if written is None or state.registers[written] != output:
        return None
    state.registers[written] = value
    return state


def _follow(run: NodeRun, state: State, at: int, leaves: Hashes, value: int) -> bool:
    """Whether a run that goes on from this state after instruction `at` ends in `value`; then `leaves` are changed."""
    changed = leaves.copy()
    if _run_on(run, state, at, changed).output != value:
        return False
    leaves[:] = changed
    return True


def _run_on(run: NodeRun, state: State, at: int, leaves: Hashes) -> State:
    """Runs on to the end, and writes the leaves from `at` on. Returns the last state."""
    for n in range(at, len(leaves)):
        if n > at:
            state = step(state, run.surroundings, n == len(leaves) - 1)
        leaves[n] = _row(state)
        if state.halted:
            leaves[n:] = leaves[n]
            break
    return state


def _row(state: State) -> Hashes:
    return np.frombuffer(state.hash, np.uint8)
