"""Program directories: the same bytes every time, and a typed error for every hostile file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import sgd_program

from repops.dtypes import DType
from repops.errors import ProgramError
from repops.graph.files import CONSTANTS_FILE, GRAPH_FILE, canonical_json, parse_json
from repops.graph.ir import Constant, Input, Node, Program, Ref, Slot

SMALL = Program((Slot("count", DType.I64, (), Ref.state(0)),), (), (), ())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    sgd_program().save(tmp_path / "p")
    return tmp_path / "p"


def test_round_trip_and_equal_bytes(saved: Path, tmp_path: Path) -> None:
    program = Program.load(saved)
    assert program == sgd_program() and program.root == sgd_program().root
    program.save(tmp_path / "again")
    for name in (GRAPH_FILE, CONSTANTS_FILE):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert sorted(os.listdir(saved)) == [CONSTANTS_FILE, GRAPH_FILE]
    assert b"__metadata__" not in (saved / CONSTANTS_FILE).read_bytes()


def test_the_document_is_the_one_in_the_specification(tmp_path: Path) -> None:
    """Byte by byte, for a name that JSON escapes, a literal, a param, a reshaped input."""
    node = Node("fill", (), (0xAB,), (), DType.F32, (2, 3))
    turned = Node("permute", (0,), (), (Input(Ref.node(0), DType.F32, (6,)),), DType.F32, (6,))
    program = Program((Slot('a "\u00e9"', DType.F32, (3, 2), Ref.node(1)),), (), (), (node, turned))
    program.save(tmp_path / "p")
    expected = (
        '{"batch":[],"constants":[],"format":"verde-program","nodes":['
        '{"dtype":"f32","inputs":[],"literals":["0xab"],"op":"fill","params":[],"shape":[2,3]},'
        '{"dtype":"f32","inputs":[{"ref":"node:0","shape":[6]}],"literals":[],"op":"permute","params":[0],"shape":[6]}'
        '],"profile":"RO-1","root":"0xROOT","slots":['
        '{"dtype":"f32","name":"a \\"\u00e9\\"","shape":[3,2],"update":"node:1"}],"version":1}'
    )
    assert (tmp_path / "p" / GRAPH_FILE).read_bytes() == expected.replace("ROOT", program.root.hex()).encode()


def test_every_dtype_is_a_constant(tmp_path: Path) -> None:
    arrays = [np.arange(3).astype(d.numpy) for d in DType if d is not DType.ROOT]
    program = replace(sgd_program(), constants=sgd_program().constants + tuple(Constant.of(a) for a in arrays))
    program.save(tmp_path / "p")
    assert Program.load(tmp_path / "p") == program


def test_without_constants_there_is_no_file(tmp_path: Path) -> None:
    program = SMALL
    program.save(tmp_path / "p")
    assert os.listdir(tmp_path / "p") == [GRAPH_FILE]
    assert Program.load(tmp_path / "p") == program
    (tmp_path / "p" / CONSTANTS_FILE).write_bytes(b"")
    refused(tmp_path / "p", "no constant")


def test_saving_replaces_a_program_as_a_whole_and_nothing_else(saved: Path, tmp_path: Path) -> None:
    smaller = SMALL
    smaller.save(saved)
    assert Program.load(saved) == smaller and os.listdir(tmp_path) == ["p"], "no leftovers"
    for make in (lambda p: p.write_text("mine"), lambda p: p.mkdir(), lambda p: p.symlink_to(saved)):
        other = tmp_path / "other"
        make(other)
        with pytest.raises(ProgramError, match="not a program directory"):
            smaller.save(other)
        other.rmdir() if other.is_dir() and not other.is_symlink() else other.unlink()
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(ProgramError, match="not a program directory"):
        smaller.save(saved)
    assert (saved / "notes.txt").read_text() == "mine"


def test_an_ill_formed_program_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ProgramError):
        replace(sgd_program(), nodes=()).save(tmp_path / "p")
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_program(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProgramError, match="No space left"):
        sgd_program().save(saved)
    assert Program.load(saved) == sgd_program() and os.listdir(saved.parent) == ["p"]


def refused(path: Path, match: str | None = None) -> str:
    with pytest.raises(ProgramError, match=match) as caught:
        Program.load(path)
    assert caught.value.where and caught.value.cure
    return str(caught.value)


Edit = Callable[[dict[str, Any]], Any]


def edited(path: Path, edit: Edit) -> Path:
    document = json.loads((path / GRAPH_FILE).read_text())
    edit(document)
    (path / GRAPH_FILE).write_bytes(canonical_json(document))
    return path


def put(*keys: Any, value: Any) -> Edit:
    def edit(document: dict[str, Any]) -> None:
        target: Any = document
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value

    return edit


EDITS: dict[str, tuple[Edit, str | None]] = {
    "root": (put("root", value="0x" + "0" * 64), "its root is"),
    "root text": (put("root", value="0xZZ"), "root"),
    "format": (put("format", value="other"), "format"),
    "version": (put("version", value=2), "version"),
    "profile": (put("profile", value="RO-2"), "profile"),
    "missing key": (lambda d: d.pop("nodes"), "document"),
    "extra key": (put("code", value="print()"), "document"),
    "list for object": (put("slots", 0, value=[]), "slot 0"),
    "text for list": (put("nodes", value="none"), "nodes"),
    "number for text": (put("nodes", 0, "op", value=7), "node 0, op"),
    "unknown operator": (put("nodes", 0, "op", value="exec"), "unknown operator"),
    "cycle": (put("nodes", 0, "inputs", 0, "ref", value="node:0"), "node 0, input 0"),
    "forward reference": (put("nodes", 1, "inputs", 0, "ref", value="node:3"), "node 1, input 0"),
    "bad ref": (put("nodes", 1, "inputs", 0, "ref", value="../node:0"), "not a ref"),
    "huge ref": (put("nodes", 1, "inputs", 0, "ref", value="node:99999999999999"), "not a ref"),
    "zero ref": (put("nodes", 1, "inputs", 0, "ref", value="zero:0"), "not a ref"),
    "shape": (put("nodes", 0, "shape", value=[3, 2]), r"node 0 \(matmul\)"),
    "input shape": (put("nodes", 0, "inputs", 0, "shape", value=[4, 4]), "node 0"),
    "absurd size": (put("slots", 0, "shape", value=[2**39, 2**39]), "too many elements"),
    "absurd dimension": (put("slots", 0, "shape", value=[2**63]), "out of range"),
    "absurd constant": (put("constants", 0, "shape", value=[2**39]), None),
    "negative size": (put("slots", 0, "shape", value=[-4, -3]), "out of range"),
    "rank": (put("slots", 0, "shape", value=[1] * 9), "9 entries"),
    "bool size": (put("slots", 0, "shape", value=[True]), "integer"),
    "text size": (put("slots", 0, "shape", value=["4"]), "integer"),
    "null": (put("slots", 0, "name", value=None), "slot 0, name"),
    "dtype": (put("slots", 0, "dtype", value="f64"), "unknown dtype"),
    "dtype list": (put("slots", 0, "dtype", value=["f32"]), "slot 0, dtype"),
    "root dtype": (put("slots", 0, "dtype", value="root"), "unknown dtype"),
    "duplicate slot": (put("slots", 1, "name", value="weight"), "slot 1"),
    "duplicate batch": (put("batch", 1, "name", value="x"), "batch tensor 1"),
    "control in name": (put("slots", 0, "name", value="a\u0000"), "slot 0"),
    "many params": (put("nodes", 0, "params", value=[0] * 65), "65 entries"),
    "wide param": (put("nodes", 0, "params", value=[0, 0, 0, 2**63]), "int64"),
    "literal number": (put("nodes", 3, "literals", value=[1]), "node 3, literals"),
    "literal case": (put("nodes", 3, "literals", value=["0xA"]), "node 3, literals"),
    "literal zeros": (put("nodes", 3, "literals", value=["0x0a"]), "node 3, literals"),
    "wide literal": (put("nodes", 3, "literals", value=["0x1" + "0" * 16]), "node 3, literals"),
    "underscore literal": (put("nodes", 3, "literals", value=["0x1_0"]), "node 3, literals"),
    "constant root": (put("constants", 0, "root", value="0x" + "1" * 64), "constant 0 has another root"),
    "constant dtype": (put("constants", 0, "dtype", value="i32"), None),
    "constant added": (lambda d: d["constants"].append(d["constants"][0]), None),
    "constant dropped": (lambda d: d["constants"].pop(), None),
    "slots limit": (put("slots", value=[0] * (2**16 + 1)), "65537 entries"),
}


@pytest.mark.parametrize("case", EDITS)
def test_a_hostile_document_is_refused(saved: Path, case: str) -> None:
    edit, match = EDITS[case]
    refused(edited(saved, edit), match)


RAW: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not JSON"),
    "truncated": (b'{"format":"verde-pro', "not JSON"),
    "binary": (b"\xff\xfe\x00", "not UTF-8"),
    "pickle": (b"\x80\x04\x95", "not UTF-8"),
    "float": (b'{"version":1.0}', "not an integer"),
    "exponent": (b'{"version":1e400}', "not an integer"),
    "nan": (b'{"version":NaN}', "not an integer"),
    "infinity": (b'{"version":-Infinity}', "not an integer"),
    "huge integer": (b'{"version":' + b"9" * 5000 + b"}", "5000 digits"),
    "deep lists": (b"[" * 200_000 + b"]" * 200_000, "nested"),
    "deep objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested"),
    "key twice": (b'{"version":1,"version":1}', "twice"),
    "spaces": (b'{ "version": 1 }', "canonical"),
    "order": (b'{"b":1,"a":1}', "canonical"),
    "newline at the end": (b"{}\n", "canonical"),
    "escape": (b'{"a":"\\u0041"}', "canonical"),
    "surrogate": (b'{"a":"\\ud800"}', "UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf{}", "not JSON"),
    "negative zero": (b'{"a":-0}', "canonical"),
    "not an object": (b"[]", "document"),
    "number": (b"1", "document"),
    "null": (b"null", "document"),
}


@pytest.mark.parametrize("case", RAW)
def test_hostile_bytes_are_refused(saved: Path, case: str) -> None:
    raw, match = RAW[case]
    (saved / GRAPH_FILE).write_bytes(raw)
    refused(saved, match)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_documents_never_escape_as_other_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damage") / "p"
    sgd_program().save(path)
    name = data.draw(st.sampled_from([GRAPH_FILE, CONSTANTS_FILE]))
    raw = bytearray((path / name).read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        del raw[at:]
    else:
        raw[at] ^= data.draw(st.integers(1, 255))
    (path / name).write_bytes(raw)
    with contextlib.suppress(ProgramError):
        assert Program.load(path).root == sgd_program().root


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_parse_or_are_refused(raw: bytes) -> None:
    try:
        assert canonical_json(parse_json(raw, "here")) == raw
    except ProgramError as error:
        assert error.where == "here"


def test_path_tricks(saved: Path, tmp_path: Path) -> None:
    refused(tmp_path / "absent", "not a program directory")
    refused(saved / GRAPH_FILE, "not a program directory")
    for name in (GRAPH_FILE, CONSTANTS_FILE):
        copy = tmp_path / f"trick-{name}"
        shutil.copytree(saved, copy)
        (copy / name).unlink()
        refused(copy, name)
        (copy / name).symlink_to(saved / name)
        refused(copy, name)
        (copy / name).unlink()
        (copy / name).mkdir()
        refused(copy, "plain file|read")
        (copy / name).rmdir()
        os.mkfifo(copy / name)
        refused(copy, "plain file")


def test_sizes_are_bounded_before_reading(saved: Path) -> None:
    with (saved / CONSTANTS_FILE).open("r+b") as stream:
        stream.truncate(2**33)
    refused(saved, "bytes")
    with (saved / GRAPH_FILE).open("r+b") as stream:
        stream.truncate(2**33)
    refused(saved, "bytes")


def tensors(saved: Path, change: Callable[[dict[str, Any]], Any], tail: bytes = b"") -> None:
    """Rewrites the header of the constants file."""
    raw = (saved / CONSTANTS_FILE).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    (saved / CONSTANTS_FILE).write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :] + tail)


@pytest.mark.parametrize(
    "change",
    [
        put("__metadata__", value={"a": "b"}),
        put("0", "dtype", value="I32"),
        put("0", "shape", value=[3, 2]),
        put("0", "shape", value=[2**62, 2**62]),
        put("0", "data_offsets", value=[0, 2**63]),
        put("0", "data_offsets", value=[8, 32]),
        put("0", "data_offsets", value=[-1, 24]),
        put("2", value={"dtype": "F32", "shape": [0], "data_offsets": [26, 26]}),
        lambda h: h.update({"../0": h.pop("0")}),
        lambda h: h.pop("1"),
    ],
)
def test_hostile_constants_are_refused(saved: Path, change: Edit) -> None:
    tensors(saved, change)
    assert CONSTANTS_FILE in refused(saved)


def test_other_constant_bytes_are_refused(saved: Path) -> None:
    raw = bytearray((saved / CONSTANTS_FILE).read_bytes())
    raw[-3] ^= 1
    (saved / CONSTANTS_FILE).write_bytes(raw)
    refused(saved, "constant")
    raw[-3] ^= 1
    raw[-1] = 2
    (saved / CONSTANTS_FILE).write_bytes(raw)
    refused(saved, "not 0 or 1|another root")
    (saved / CONSTANTS_FILE).write_bytes((2**62).to_bytes(8, "little") + b"{}")
    refused(saved, "safetensors")
