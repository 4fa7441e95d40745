"""The pointwise table of docs/spec/operators.md, evaluated as it stands, gives the kernels' bits."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kernel_calls import F32, NAN_BITS, Array, Case, f32_bits, hostile
from test_function_listings import evaluate, fma

PAGE = Path(__file__).resolve().parents[2] / "docs" / "spec" / "operators.md"

# Rows whose result is text: tests of their own.
TEXT = ["add", "sub", "mul", "maximum", "minimum", "neg", "abs", "pow", "where", "cast"]
TEXT += ["eq", "ne", "lt", "le", "gt", "ge"]
TEXT += [f"logical_{name}" for name in ("and", "or", "xor", "not")]


def rows() -> dict[str, tuple[list[str], list[str], str]]:
    """By operator: inputs, literals, result. Of the table of the section Pointwise."""
    section = PAGE.read_text(encoding="utf-8").split("\n## Pointwise\n")[1].split("\n## ")[0]
    found = {}
    for line in section.split("\n"):
        cells = [c.strip() for c in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0] not in ("operator", "---"):
            names = re.sub(r"\[O-\d+\] ", "", cells[0]).split()
            inputs = [re.sub(r" : .*", "", x) for x in cells[1].split(", ")]
            literals = [re.sub(r" \(f32\)", "", x) for x in cells[2].split(", ") if x]
            found |= dict.fromkeys(names, (inputs, literals, cells[3]))
    return found


ROWS = rows()
EVALUATED = [n for n, row in ROWS.items() if "section Functions" not in row[2] and n not in TEXT]


def canonical(x: Array) -> Array:
    return np.where(np.isnan(x), np.uint32(NAN_BITS), x.view(np.uint32)).view(np.float32)


def primitive(operation: Callable[..., Array]) -> Callable[..., Array]:
    return lambda *a: canonical(np.asarray(operation(*np.broadcast_arrays(*map(np.float32, a))), np.float32))


PRIMITIVES = {
    "ADD": primitive(np.add), "SUB": primitive(np.subtract), "MUL": primitive(np.multiply), "DIV": primitive(np.divide),
    "SQRT": primitive(np.sqrt), "FMA": primitive(fma), "NEG": primitive(np.negative),
    "MAX": primitive(lambda a, b: np.where((a == 0) & (b == 0), a + b, np.maximum(a, b))),
    "EXP": lambda x: evaluate("exp", x), "LOG": lambda x: evaluate("log", x),
    "SIGMOID": lambda x: evaluate("sigmoid", x),
}  # fmt: skip


def result(text: str, known: dict[str, Array]) -> Array:
    """`name = expression; ...; expression`, where an expression is of primitives or "x <= 0 ? a : b"."""
    *steps, last = text.split("; ")
    for step in steps:
        name, expression = step.split(" = ")
        known = {**known, name: result(expression, known)}
    chosen = re.fullmatch(r"(\w+) <= 0 \? \+0 : (\w+)", last)
    if chosen is not None:
        y, dy = known[chosen[1]], known[chosen[2]]
        return np.where(y <= 0, np.uint32(0), dy.view(np.uint32)).view(np.float32)
    expression = re.sub(r"NEG (\w+)", r"NEG(\1)", last).replace("+0)", "0)")
    value: Array = eval(expression, {"__builtins__": {}}, {**PRIMITIVES, **known})  # the page's own expression
    return value


def test_the_table_is_whole() -> None:
    assert set(TEXT) <= set(ROWS)
    assert len(EVALUATED) == 14, EVALUATED


@pytest.mark.parametrize("op", EVALUATED)
def test_the_page_gives_the_kernels_bits(op: str) -> None:
    inputs, literals, text = ROWS[op]
    rng = np.random.default_rng(1)
    values = [hostile(rng, F32, (3000,)) for _ in inputs]
    patterns = [f32_bits(768.0), f32_bits(1e-5)][: len(literals)]
    known = dict(zip(inputs, values, strict=True))
    known |= {n: np.full(3000, p, np.uint32).view(np.float32) for n, p in zip(literals, patterns, strict=True)}
    with np.errstate(all="ignore"):
        expected = result(text, known)
    got = Case(op, values, F32, (3000,), literals=patterns).array()
    wrong = np.flatnonzero(got.view(np.uint32) != expected.view(np.uint32))
    assert not len(wrong), (len(wrong), [v[wrong[0]] for v in values], got[wrong[0]], expected[wrong[0]])
