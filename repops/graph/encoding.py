"""Canonical encoding of programs: node leaves, hash nodes, header, program root (docs/spec/programs.md, "Encoding").

Solidity reads what is written here; `tests/vectors/programs.json` is checked on both sides.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

from eth_abi.abi import encode

from repops.commit import ZERO, Tree, height, keccak256, tensor_root
from repops.dtypes import DType
from repops.graph.ir import Constant, Input, Node, Program, Ref, tile_height
from repops.vm.programs import image

PROGRAM_TYPEHASH = keccak256(b"VerdeProgram(RO-1,1)")
HASH_OPERATOR = "hash"
HASH_CODE = keccak256(b"RO-1/hash/1")

NODE_ABI = "(bytes32,int64[],uint64[],(uint8,uint32,uint8,uint64[])[],uint8,uint64[],uint8,uint8)"
HEADER_ABI = "(uint32,uint32,uint32,uint32,uint32,bytes32,bytes32,bytes32,bytes32,bytes32)"


@dataclass(frozen=True, slots=True)
class Header:
    """struct ProgramHeader, fields in the order of its encoding; hashes and roots are 32 bytes."""

    compute_nodes: int
    nodes: int
    slots: int
    batch_tensors: int
    constants: int
    nodes_root: bytes
    slots_hash: bytes
    batch_hash: bytes
    constants_root: bytes
    constants_hash: bytes

    def encode(self) -> bytes:
        """abi.encode(header), 320 bytes."""
        return encode([HEADER_ABI], [astuple(self)])

    @property
    def root(self) -> bytes:
        """The program root: keccak256(abi.encode(PROGRAM_TYPEHASH, header))."""
        return keccak256(PROGRAM_TYPEHASH + self.encode())


def encode_node(node: Node) -> bytes:
    """abi.encode of struct Node. The node must stand in a checked program or be a hash node."""
    inputs = [(int(i.ref.kind), i.ref.index, int(i.dtype), i.shape) for i in node.inputs]
    if node.dtype is DType.ROOT:
        code, heights = HASH_CODE, (0, 0)
    else:
        program = image(node.op)
        code, heights = program.code_hash, (tile_height(node.dtype, node.shape), program.height(node))
    return encode([NODE_ABI], [(code, node.params, node.literals, inputs, int(node.dtype), node.shape, *heights)])


def node_leaf(node: Node) -> bytes:
    """The node's leaf in the tree of nodes: keccak256 of its encoding, 32 bytes."""
    return keccak256(encode_node(node))


def hash_nodes(program: Program) -> tuple[Node, ...]:
    """The inner nodes of the new state's tree, bottom-up and left to right (docs/spec/commitments.md, "Hash nodes")."""
    level = [slot.update for slot in program.slots]
    nodes: list[Node] = []
    level += [Ref.zero()] * (2 ** max(1, height(len(level))) - len(level))
    while len(level) > 1:
        parents = []
        for left, right in zip(level[::2], level[1::2], strict=True):
            parents.append(Ref.node(len(program.nodes) + len(nodes)))
            nodes.append(_hash_node(left, right))
        level = parents
    return tuple(nodes)


def _hash_node(left: Ref, right: Ref) -> Node:
    inputs = (Input(left, DType.ROOT, ()), Input(right, DType.ROOT, ()))
    return Node(HASH_OPERATOR, (), (), inputs, DType.ROOT, ())


def nodes_tree(program: Program) -> Tree:
    """The tree over all node leaves, compute nodes then hash nodes; its proofs open single nodes on chain."""
    return Tree([node_leaf(node) for node in (*program.nodes, *program.hash_nodes)])


def constant_roots(program: Program) -> list[bytes]:
    """Tensor root of each constant, in order."""
    return [constant_root(constant) for constant in program.constants]


def constant_root(constant: Constant) -> bytes:
    """Tensor root of one constant, 32 bytes."""
    return tensor_root(constant.data)


def make_header(program: Program) -> Header:
    """The header of a checked program."""
    slots: list[Any] = [(s.name, int(s.dtype), s.shape, int(s.update.kind), s.update.index) for s in program.slots]
    batch: list[Any] = [(b.name, int(b.dtype), b.shape) for b in program.batch]
    constants: list[Any] = [(int(c.dtype), c.shape) for c in program.constants]
    roots = constant_roots(program)
    return Header(
        compute_nodes=len(program.nodes),
        nodes=program.trace_length,
        slots=len(program.slots),
        batch_tensors=len(program.batch),
        constants=len(program.constants),
        nodes_root=nodes_tree(program).root,
        slots_hash=keccak256(encode(["(string,uint8,uint64[],uint8,uint32)[]"], [slots])),
        batch_hash=keccak256(encode(["(string,uint8,uint64[])[]"], [batch])),
        constants_root=Tree(roots).root if roots else ZERO,
        constants_hash=keccak256(encode(["(uint8,uint64[])[]"], [constants])),
    )
