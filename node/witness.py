"""What the contract recomputes a disputed node or instruction from: openings under the agreed roots. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from eth_abi.abi import decode

from node.chain.abi import from_abi
from node.fold import MatchState, TaskState
from node.structs import ZERO, HashInput, Node, Witness
from repops import graph
from repops.commit import TILE_BYTES, TensorTree, Tree, keccak256
from repops.graph.encoding import NODE_ABI, encode_node
from repops.graph.ir import Ref, RefKind, element_count
from repops.vm import NodeRun
from repops.vm.image import WORDS_PER_LEAF
from repops.vm.isa import REGISTERS, Instruction, Op
from repops.vm.machine import State

Proven = tuple[bytes, tuple[bytes, ...]]
NO_INPUT = HashInput(ZERO, ())
NO_LEAF: Proven = (bytes(32), ())
NO_TILE: Proven = (b"", ())


def node_struct(node: graph.ir.Node) -> Node:
    """A node of a program as the contract takes it."""
    struct: Node = from_abi(Node, decode([NODE_ABI], encode_node(node))[0])
    return struct


def open_input(trees: Mapping[bytes, Tree], task: TaskState, match: MatchState, trace: Tree, ref: Ref) -> HashInput:
    """The root of what a node reads, with its proofs. trace: A's. trees: by root, those of the pre-state, the
    constants, the data set and the step's batch. Raises KeyError if one is missing."""
    match ref.kind:
        case RefKind.NODE:
            return HashInput(trace.leaf(ref.index), tuple(trace.prove(ref.index)))
        case RefKind.STATE:
            pre = trees[match.pre_state]
            return HashInput(pre.leaf(ref.index), tuple(pre.prove(ref.index)))
        case RefKind.CONSTANT:
            root = task.params.program.constants_root
            # A single constant is its own tree.
            constants = trees[root] if task.params.program.constants > 1 else Tree([root])
            return HashInput(constants.leaf(ref.index), tuple(constants.prove(ref.index)))
        case RefKind.BATCH:
            at = match.step % task.batch_count
            data = trees[task.data_root] if task.batch_count > 1 else Tree([task.data_root])
            batch = trees[data.leaf(at)]
            return HashInput(batch.leaf(ref.index), tuple(batch.prove(ref.index)), batch.root, tuple(data.prove(at)))
        case RefKind.ZERO:
            return NO_INPUT


def needed(run: NodeRun, state: State, instruction: Instruction) -> tuple[int, int] | None:
    """What an instruction reads from outside its state: (input, element), (-1, word of the image), or None."""
    if instruction.op not in (Op.LOAD, Op.RAW, Op.CODE):
        return None
    fields = [instruction.a, instruction.c, *([] if instruction.op == Op.CODE else [instruction.b])]
    if any(register >= REGISTERS for register in fields):
        return None
    y = _signed(state.registers[instruction.c] + instruction.imm)
    if instruction.op == Op.CODE:
        return (-1, y) if 0 <= y < len(run.image.words) else None
    element = _signed(state.registers[instruction.b])
    inputs = run.node.inputs
    return (y, element) if 0 <= y < len(inputs) and 0 <= element < element_count(inputs[y].shape) else None


def build_witness(
    run: NodeRun, element: int, position: int, trees: Mapping[bytes, Tree], task: TaskState, match: MatchState,
    trace: Tree,
) -> Witness:  # fmt: skip
    """The witness for instruction `position` of the run for an element; trees, trace: as for `open_input`."""
    encoded = run.state(element, position)
    state, image = State.decode(encoded), run.image
    instructions, path = NO_LEAF
    constants, constants_path = NO_LEAF
    opened, (tile, tile_path) = NO_INPUT, NO_TILE

    def leaf(word: int) -> Proven:
        at = word // WORDS_PER_LEAF
        return image.leaves[at], tuple(image.tree.prove(at))

    if not state.halted and state.pc < len(image.words):
        instructions, path = leaf(state.pc)
        need = needed(run, state, Instruction.decode(image.words[state.pc]))
        if need is not None and need[0] < 0:
            constants, constants_path = leaf(need[1])
        elif need is not None:
            source = run.node.inputs[need[0]]
            opened = open_input(trees, task, match, trace, source.ref)
            tiles = TensorTree(run.surroundings.inputs[need[0]])
            at = need[1] * source.dtype.itemsize // TILE_BYTES
            tile, tile_path = tiles.tile(at), tuple(tiles.prove(at))
    return Witness(
        state=encoded,
        words=len(image.words),
        code_root=image.tree.root,
        instructions=instructions,
        instructions_proof=path,
        input=opened,
        tile=tile,
        tile_proof=tile_path,
        constants=constants,
        constants_proof=constants_path,
    )


def agreed_state(run: NodeRun, element: int, position: int) -> bytes:
    """Hash of the state before instruction `position`, as this run has it."""
    return keccak256(run.state(element, position))


def _signed(word: int) -> int:
    word &= 2**64 - 1
    return word - (word >> 63 << 64)
