"""Program directories (docs/spec/programs.md, "Files"): `program.json` in canonical JSON, `constants.safetensors`.

A file comes from somebody else: sizes are bounded before anything is read or allocated, links are not followed inside
the directory, nothing is unpickled, and every fault is a ProgramError.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from safetensors import SafetensorError, TensorSpec, deserialize, serialize

from repops.dtypes import DType
from repops.errors import ProgramError, TensorError
from repops.graph import ir
from repops.graph.check import check_program, check_tensor_type
from repops.graph.encoding import constant_root
from repops.graph.ir import BatchTensor, Constant, Input, Node, Program, Ref, Shape, Slot, element_count

GRAPH_FILE = "program.json"
CONSTANTS_FILE = "constants.safetensors"
FORMAT, VERSION = "verde-program", 1
MAX_GRAPH_BYTES = 2**28

MAX_DEPTH = 8  # a program has 6

# A string of JSON; one without an end goes on to the end of the text.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_OPENING, _CLOSING = (np.frombuffer(b, np.uint8) for b in (b"[{", b"]}"))
_INTEGER_DIGITS = 20  # 2^64 - 1 has 20
# safetensors has its own names: one set when it writes, another in the file.
_WRITTEN_NAMES = {
    DType.F32: "float32",
    DType.BF16: "bfloat16",
    DType.F16: "float16",
    DType.I64: "int64",
    DType.I32: "int32",
    DType.BOOL: "bool",
}
_READ_NAMES = {dtype.name: dtype for dtype in _WRITTEN_NAMES}


def save(program: Program, path: str | Path) -> None:
    """Writes a program directory atomically; an existing program at `path` is replaced as a whole.

    Raises ProgramError if the program is not well formed, or if `path` exists and is not a program directory, or if the
    system refuses.
    """
    path = Path(path)
    check_program(program)
    text = canonical_json(to_json(program))
    if path.is_symlink() or (path.exists() and not is_program_directory(path)):
        raise ProgramError("exists and is not a program directory", str(path), "Choose another path or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise ProgramError(f"cannot write ({error.strerror})", str(path), "Choose a writable place") from None
    try:
        _write(fresh / GRAPH_FILE, text)
        if program.constants:
            _write(fresh / CONSTANTS_FILE, _constants_bytes(program.constants))
        fresh.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            path.rename(old / "old")
            try:
                fresh.rename(path)
            except OSError:
                (old / "old").rename(path)
                raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            fresh.rename(path)
    except OSError as error:
        raise ProgramError(f"cannot write ({error.strerror})", str(path), "Choose a writable place") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def load(path: str | Path) -> Program:
    """Reads a program directory and checks everything, the root last. Raises ProgramError for anything amiss."""
    path = Path(path)
    if not path.is_dir():
        raise ProgramError("is not a program directory", str(path), f"A program is a directory with {GRAPH_FILE}")
    where = str(path / GRAPH_FILE)
    raw = _read(path / GRAPH_FILE, MAX_GRAPH_BYTES)
    document = parse_json(raw, where)
    try:
        program, declared_root = _from_json(document, path)
        check_program(program)
    except (ProgramError, TensorError) as error:
        raise ProgramError(error.what, f"{where}: {error.where}" if error.where else where, error.cure) from None
    if program.root != declared_root:
        raise ProgramError(
            f"its root is 0x{program.root.hex()}, the file says 0x{declared_root.hex()}",
            where,
            "The file is damaged or made for another version: get it again",
        )
    return program


def is_program_directory(path: Path) -> bool:
    """Whether `path` is a directory that holds a program and nothing else (its content is not checked)."""
    if not path.is_dir() or path.is_symlink():
        return False
    names = {entry.name for entry in path.iterdir()}
    return GRAPH_FILE in names and names <= {GRAPH_FILE, CONSTANTS_FILE}


def canonical_json(document: object) -> bytes:
    """UTF-8, keys sorted, no spaces. The document holds dicts, lists, strings, integers only."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_json(raw: bytes, where: str) -> object:
    """Parses untrusted canonical JSON of dicts, lists, strings, integers. Raises ProgramError, never anything else."""
    # The parser recurses on the C stack, whose end is not an exception everywhere.
    brackets = np.frombuffer(_STRING.sub(b"", raw), np.uint8)
    depth = np.cumsum(np.isin(brackets, _OPENING).astype(np.int32) - np.isin(brackets, _CLOSING))
    if depth.size and int(depth.max()) > MAX_DEPTH:
        raise ProgramError("is nested too deeply", where, "Write programs with Program.save")
    try:
        document = json.loads(
            raw.decode("utf-8"),
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
            parse_int=_parse_int,
            object_pairs_hook=_unique_keys,
        )
        if canonical_json(document) != raw:
            raise _BadJson("is not in canonical form")
    except UnicodeError:
        raise ProgramError("is not UTF-8 text", where, "Get the file again") from None
    except json.JSONDecodeError as error:
        what = f"is not JSON ({error.msg} at byte {error.pos})"
        raise ProgramError(what, where, "The file is truncated or damaged: get it again") from None
    except _BadJson as error:
        raise ProgramError(str(error), where, "Write programs with Program.save") from None
    return document


def to_json(program: Program) -> dict[str, Any]:
    """The document of a checked program, root included."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "profile": ir.PROFILE,
        "slots": [_tensor_json(s) | {"name": s.name, "update": s.update.text} for s in program.slots],
        "batch": [_tensor_json(b) | {"name": b.name} for b in program.batch],
        "constants": [_tensor_json(c) | {"root": "0x" + constant_root(c).hex()} for c in program.constants],
        "nodes": [
            _tensor_json(n)
            | {
                "op": n.op,
                "params": list(n.params),
                "literals": [hex(v) for v in n.literals],
                "inputs": [{"ref": i.ref.text, "shape": list(i.shape)} for i in n.inputs],
            }
            for n in program.nodes
        ],
        "root": "0x" + program.root.hex(),
    }


class _BadJson(Exception):
    """Something that canonical JSON does not have."""


def _refuse_number(text: str) -> NoReturn:
    raise _BadJson(f"holds the number {text[:40]}, which is not an integer")


def _parse_int(text: str) -> int:
    if len(text) > _INTEGER_DIGITS:
        raise _BadJson(f"holds an integer of {len(text)} digits")
    return int(text)


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _BadJson("holds an object with a key twice")
    return found


def _tensor_json(tensor: Slot | BatchTensor | Constant | Node) -> dict[str, Any]:
    return {"dtype": tensor.dtype.text, "shape": list(tensor.shape)}


def _from_json(document: object, path: Path) -> tuple[Program, bytes]:
    top = _object(
        document, "document", ("format", "version", "profile", "slots", "batch", "constants", "nodes", "root")
    )
    for key, wanted in (("format", FORMAT), ("version", VERSION), ("profile", ir.PROFILE)):
        if top[key] != wanted or isinstance(top[key], bool):
            raise ProgramError(f"{key} is {_short(top[key])}", "", f"This library reads {key} {wanted!r}")
    slot_items = _list(top["slots"], "slots", ir.MAX_SLOTS)
    batch_items = _list(top["batch"], "batch", ir.MAX_BATCH_TENSORS)
    constant_items = _list(top["constants"], "constants", ir.MAX_CONSTANTS)
    node_items = _list(top["nodes"], "nodes", ir.MAX_TRACE_NODES)
    slots = tuple(_slot(item, f"slot {i}") for i, item in enumerate(slot_items))
    batch = tuple(_batch_tensor(item, f"batch tensor {i}") for i, item in enumerate(batch_items))
    declared = [_constant(item, f"constant {i}") for i, item in enumerate(constant_items)]
    types: dict[str, list[DType]] = {
        "state": [s.dtype for s in slots],
        "batch": [b.dtype for b in batch],
        "constant": [dtype for dtype, _, _ in declared],
        "node": [],
    }
    nodes = []
    for i, item in enumerate(node_items):
        nodes.append(_node(item, f"node {i}", types))
        types["node"].append(nodes[-1].dtype)
    constants = _read_constants(path, declared)
    return Program(slots, batch, constants, tuple(nodes)), _root(top["root"], "root")


def _slot(item: object, where: str) -> Slot:
    fields = _object(item, where, ("name", "dtype", "shape", "update"))
    dtype, shape = _tensor_type(fields, where)
    return Slot(_text(fields["name"], f"{where}, name"), dtype, shape, _ref(fields["update"], f"{where}, update"))


def _batch_tensor(item: object, where: str) -> BatchTensor:
    fields = _object(item, where, ("name", "dtype", "shape"))
    dtype, shape = _tensor_type(fields, where)
    return BatchTensor(_text(fields["name"], f"{where}, name"), dtype, shape)


def _constant(item: object, where: str) -> tuple[DType, Shape, bytes]:
    fields = _object(item, where, ("dtype", "shape", "root"))
    dtype, shape = _tensor_type(fields, where)
    return dtype, shape, _root(fields["root"], f"{where}, root")


def _node(item: object, where: str, types: Mapping[str, list[DType]]) -> Node:
    fields = _object(item, where, ("op", "params", "literals", "inputs", "dtype", "shape"))
    dtype, shape = _tensor_type(fields, where)
    params = [_integer(p, f"{where}, params") for p in _list(fields["params"], f"{where}, params", ir.MAX_PARAMS)]
    literals = [
        _literal(v, f"{where}, literals") for v in _list(fields["literals"], f"{where}, literals", ir.MAX_LITERALS)
    ]
    inputs = []
    for i, entry in enumerate(_list(fields["inputs"], f"{where}, inputs", ir.MAX_INPUTS)):
        place = f"{where}, input {i}"
        read = _object(entry, place, ("ref", "shape"))
        ref = _ref(read["ref"], place)
        known = types[ref.kind.name.lower()]
        if ref.index >= len(known):
            raise ProgramError(f"{ref.text} does not exist before it", place, "A node refers to earlier nodes only")
        inputs.append(Input(ref, known[ref.index], _shape(read["shape"], place)))
    return Node(_text(fields["op"], f"{where}, op"), tuple(params), tuple(literals), tuple(inputs), dtype, shape)


def _read_constants(path: Path, declared: list[tuple[DType, Shape, bytes]]) -> tuple[Constant, ...]:
    file = path / CONSTANTS_FILE
    if not declared:
        if os.path.lexists(file):
            raise ProgramError("there is a constants file, but no constant", str(file), "Remove it")
        return ()
    expected = sum(element_count(shape) * dtype.itemsize for dtype, shape, _ in declared)
    raw = _read(file, expected + 512 * len(declared) + 1024)
    try:
        tensors = dict(deserialize(raw))  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError, OverflowError, MemoryError) as error:
        raise ProgramError(f"is not a safetensors file ({error})", str(file), "Get it again") from None
    if len(raw) - 8 - int.from_bytes(raw[:8], "little") != expected or b"__metadata__" in raw[8 : len(raw) - expected]:
        raise ProgramError("holds more than the constants", str(file), "Write programs with Program.save")
    if set(tensors) != {str(i) for i in range(len(declared))}:
        raise ProgramError("does not hold exactly the constants", str(file), 'They are called "0", "1", ...')
    constants = []
    for i, (dtype, shape, root) in enumerate(declared):
        found = tensors[str(i)]
        if _READ_NAMES.get(found["dtype"]) is not dtype or tuple(found["shape"]) != shape:
            raise ProgramError(
                f"constant {i} is {found['dtype']}{found['shape']}, declared {dtype.text}{list(shape)}",
                str(file),
                "The two files do not belong together: get both again",
            )
        data = np.frombuffer(bytes(found["data"]), dtype=dtype.numpy).reshape(shape)
        if dtype is DType.BOOL and bool((data.view(np.uint8) > 1).any()):
            raise ProgramError(f"constant {i} holds a bool that is not 0 or 1", str(file), "Get it again")
        constants.append(Constant(dtype, shape, data))
        if constant_root(constants[-1]) != root:
            raise ProgramError(f"constant {i} has another root than declared", str(file), "Get both files again")
    return tuple(constants)


def _constants_bytes(constants: tuple[Constant, ...]) -> bytes:
    tensors = {
        str(i): TensorSpec(
            dtype=_WRITTEN_NAMES[c.dtype], shape=c.shape, data_ptr=c.data.ctypes.data, data_len=c.data.nbytes
        )
        for i, c in enumerate(constants)
    }
    return bytes(serialize(tensors))


def _read(file: Path, limit: int) -> bytes:
    """Bytes of a regular file of at most `limit` bytes; links are not followed."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ProgramError(
            f"cannot be read ({error.strerror})", str(file), "A program needs it as a plain file"
        ) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ProgramError("is not a plain file", str(file), "A program needs it as a plain file")
        if status.st_size > limit:
            raise ProgramError(f"has {status.st_size} bytes", str(file), f"At most {limit} are right here")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            raw = stream.read(status.st_size + 1)
    except OSError as error:
        raise ProgramError(f"cannot be read ({error.strerror})", str(file), "Get it again") from None
    finally:
        os.close(descriptor)
    if len(raw) != status.st_size:
        raise ProgramError("changed while it was read", str(file), "Get it again")
    return raw


def _write(file: Path, data: bytes) -> None:
    with file.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _object(value: object, where: str, keys: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(value, dict) or set(value) != set(keys):
        found = sorted(value) if isinstance(value, dict) else _short(value)
        raise ProgramError(
            f"found {str(found)[:200]}", where, f"An object with the keys {', '.join(keys)} belongs here"
        )
    return value


def _list(value: object, where: str, limit: int) -> list[object]:
    if not isinstance(value, list) or len(value) > limit:
        found = f"{len(value)} entries" if isinstance(value, list) else _short(value)
        raise ProgramError(f"found {found}", where, f"A list of at most {limit} belongs here")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ProgramError(f"found {_short(value)}", where, "A text belongs here")
    return value


def _integer(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProgramError(f"found {_short(value)}", where, "An integer belongs here")
    return value


def _literal(value: object, where: str) -> int:
    text = _text(value, where)
    try:
        number = int(text, 16) if len(text) <= 18 else -1
    except ValueError:
        number = -1
    if number < 0 or hex(number) != text:
        raise ProgramError(f"found {_short(value)}", where, 'A pattern as "0x" and lower-case hex belongs here')
    return number


def _root(value: object, where: str) -> bytes:
    text = _text(value, where)
    try:
        root = bytes.fromhex(text[2:])
    except ValueError:
        root = b""
    if len(root) != 32 or "0x" + root.hex() != text:
        raise ProgramError(f"found {_short(value)}", where, 'A root as "0x" and 64 lower-case hex digits belongs here')
    return root


def _ref(value: object, where: str) -> Ref:
    try:
        return Ref.parse(_text(value, where))
    except ProgramError as error:
        raise ProgramError(error.what, where, error.cure) from None


def _shape(value: object, where: str) -> Shape:
    return tuple(_integer(d, f"{where}, shape") for d in _list(value, f"{where}, shape", ir.MAX_RANK))


def _tensor_type(fields: Mapping[str, object], where: str) -> tuple[DType, Shape]:
    try:
        dtype = DType.parse(_text(fields["dtype"], f"{where}, dtype"))
    except TensorError as error:
        raise ProgramError(error.what, where, error.cure) from None
    shape = _shape(fields["shape"], where)
    check_tensor_type(dtype, shape, where)
    return dtype, shape


def _short(value: object) -> str:
    return repr(value)[:60]
