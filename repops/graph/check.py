"""The rules of a well-formed program (docs/spec/programs.md, "Model"); `Program.check()` calls this."""

from __future__ import annotations

from collections.abc import Sequence

from repops.dtypes import DType
from repops.errors import ProgramError
from repops.graph import ir
from repops.graph.ir import BatchTensor, Node, Program, Ref, RefKind, Shape, Slot, element_count
from repops.ops.rules import RuleViolation
from repops.ops.table import OPERATORS
from repops.vm.programs import image

_TENSOR_DTYPES = frozenset(dtype for dtype in DType if dtype is not DType.ROOT)


def check_program(program: Program) -> None:
    """Raises ProgramError naming the node, slot, batch tensor or constant, and the cure; see `Program.check`."""
    _check_counts(program)
    named: tuple[tuple[str, Sequence[Slot | BatchTensor]], ...] = (
        ("slot", program.slots),
        ("batch tensor", program.batch),
    )
    for kind, tensors in named:
        _check_names(kind, tensors)
        for i, tensor in enumerate(tensors):
            check_tensor_type(tensor.dtype, tensor.shape, f"{kind} {i} ({tensor.name})")
    for i, constant in enumerate(program.constants):
        where = f"constant {i}"
        check_tensor_type(constant.dtype, constant.shape, where)
        data = constant.data
        if data.dtype != constant.dtype.numpy or data.shape != constant.shape or not data.flags.c_contiguous:
            raise ProgramError(
                f"its data is {data.dtype}{list(data.shape)}, declared {_type_text(constant.dtype, constant.shape)}",
                where,
                "Build constants with Constant.of",
            )
    for i, node in enumerate(program.nodes):
        check_node(program, i, node)
    for i, slot in enumerate(program.slots):
        _check_reference(
            program, slot.update, slot.dtype, slot.shape, f"slot {i} ({slot.name}), update", len(program.nodes)
        )


def check_tensor_type(dtype: DType, shape: Shape, where: str) -> None:
    """Raises ProgramError unless dtype is a tensor's and the shape is within the limits."""
    if dtype not in _TENSOR_DTYPES:
        raise ProgramError(f"dtype {dtype!r} is not a tensor's", where, "Use f32, bf16, f16, i64, i32 or bool")
    if len(shape) > ir.MAX_RANK:
        raise ProgramError(f"{len(shape)} dimensions", where, f"At most {ir.MAX_RANK} are allowed")
    for d in shape:
        if not 0 <= d < ir.MAX_ELEMENTS:
            raise ProgramError(f"dimension {d} is out of range", where, "A dimension is at least 0 and below 2^40")
    if ir.extent(shape) > ir.MAX_ELEMENTS:
        raise ProgramError(f"shape {list(shape)} has too many elements", where, "At most 2^40 are allowed")


def check_node(program: Program, index: int, node: Node) -> None:
    """Raises ProgramError unless node `index` obeys rules 1 to 3 and the limits of rule 6."""
    where = f"node {index} ({node.op[:40]})"
    operator = OPERATORS.get(node.op)
    if operator is None:
        raise ProgramError(
            f"unknown operator {node.op[:80]!r}",
            f"node {index}",
            f"Profile {ir.PROFILE} has the operators of docs/spec/operators.md",
        )
    for name, values, limit in (
        ("inputs", node.inputs, ir.MAX_INPUTS),
        ("params", node.params, ir.MAX_PARAMS),
        ("literals", node.literals, ir.MAX_LITERALS),
    ):
        if len(values) > limit:
            raise ProgramError(f"{len(values)} {name}", where, f"A node has at most {limit}")
    if not all(-(2**63) <= p < 2**63 for p in node.params):
        raise ProgramError("a param does not fit int64", where, "Params are int64")
    if not all(0 <= v < 2**64 for v in node.literals):
        raise ProgramError("a literal does not fit uint64", where, "Literals are raw bit patterns in uint64")
    check_tensor_type(node.dtype, node.shape, f"{where}, output")
    for i, item in enumerate(node.inputs):
        place = f"{where}, input {i}"
        check_tensor_type(item.dtype, item.shape, place)
        _check_reference(program, item.ref, item.dtype, item.shape, place, index)
    try:
        operator.rule(node)
    except RuleViolation as violation:
        raise ProgramError(violation.what, where, violation.cure) from None
    bound = image(node.op).bound(node)
    if bound > ir.MAX_INSTRUCTIONS:
        raise ProgramError(
            f"an element of its output takes up to {bound} RepVM instructions",
            where,
            f"At most {ir.MAX_INSTRUCTIONS} are allowed: do it in pieces along the axis that an element goes through",
        )


def _check_counts(program: Program) -> None:
    for name, count, limit in (
        ("slots", len(program.slots), ir.MAX_SLOTS),
        ("batch tensors", len(program.batch), ir.MAX_BATCH_TENSORS),
        ("constants", len(program.constants), ir.MAX_CONSTANTS),
        ("nodes", len(program.nodes), ir.MAX_TRACE_NODES),
    ):
        if count > limit:
            raise ProgramError(f"{count} {name}", "program", f"At most {limit} are allowed")
    if program.trace_length > ir.MAX_TRACE_NODES:
        raise ProgramError(
            f"a trace of {program.trace_length} nodes, hash nodes included",
            "program",
            f"At most {ir.MAX_TRACE_NODES} are allowed: split the step",
        )


def _check_names(kind: str, tensors: Sequence[Slot | BatchTensor]) -> None:
    seen: dict[str, int] = {}
    for i, tensor in enumerate(tensors):
        name = tensor.name
        if not name or not name.isprintable() or len(name.encode()) > ir.MAX_NAME_BYTES:
            raise ProgramError(
                f"bad name {name[:40]!r}", f"{kind} {i}", f"A name is 1 to {ir.MAX_NAME_BYTES} bytes of printable UTF-8"
            )
        if name in seen:
            raise ProgramError(
                f"name {name!r} stands for {kind} {seen[name]} as well", f"{kind} {i}", "Names are unique"
            )
        seen[name] = i


def _check_reference(program: Program, ref: Ref, dtype: DType, shape: Shape, where: str, before: int) -> None:
    """A ref read as dtype and shape, by something that may see the nodes with an index below `before`."""
    if ref.kind is RefKind.NODE and not 0 <= ref.index < before:
        raise ProgramError(f"refers to {ref.text}", where, "A node refers to earlier nodes only: order the nodes")
    try:
        actual_dtype, actual_shape = program.referent(ref)
    except ProgramError as error:
        raise ProgramError(error.what, where, error.cure) from None
    if actual_dtype is not dtype or element_count(actual_shape) != element_count(shape):
        raise ProgramError(
            f"{ref.text} is {_type_text(actual_dtype, actual_shape)}, read as {_type_text(dtype, shape)}",
            where,
            "dtype and element count must be equal: insert a cast, slice or expand node",
        )


def _type_text(dtype: DType, shape: Shape) -> str:
    return f"{dtype.text}{list(shape)}"
