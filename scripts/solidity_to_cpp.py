#!/usr/bin/env python3
"""Translates a Solidity library of integer arithmetic to C++, from the compiler's own syntax tree.

    scripts/solidity_to_cpp.py contracts/libraries/Float32.sol     prints a C++ header

The port is `namespace port`: every function of the library under its name with an underscore, every integer a
`evm::Word` (csrc/tools/uint256.h), a signed one in two's complement. It is derived from the source whenever it is
needed, so it cannot drift from it. What is not known to mean the same in C++ is refused: checked arithmetic, other
types, loops, calls. Needs node and `npm install` in the project's root; Python's standard library only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Node = dict[str, Any]

INTEGERS = {"uint256": 256, "int256": 256, "int64": 64}
ARITHMETIC = {"+", "-", "*"}  # checked outside `unchecked`
OPERATORS = ARITHMETIC | {"/", "%", "&", "|", "^", "<<", ">>", "<", ">", "<=", ">=", "==", "!=", "&&", "||"}
YUL = {"add", "sub", "mul", "and", "or", "xor", "not", "shl", "shr", "lt", "gt", "slt", "sgt", "eq", "iszero", "byte"}


class Refused(Exception):
    """The source has something that this translation does not know."""


def syntax_tree(path: Path) -> Node:
    """The compiler's syntax tree of one source file without imports. Raises Refused with the compiler's messages."""
    source = path.name
    request = {
        "language": "Solidity",
        "sources": {source: {"content": path.read_text("utf-8")}},
        "settings": {"outputSelection": {"*": {"": ["ast"]}}},
    }
    done = subprocess.run(
        ["node", str(ROOT / "scripts" / "solc"), "--standard-json"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Refused(f"the compiler does not run: {done.stderr}")
    answer = json.loads(done.stdout)
    errors = [e["formattedMessage"] for e in answer.get("errors", []) if e["severity"] == "error"]
    if errors:
        raise Refused("\n".join(errors))
    tree: Node = answer["sources"][source]["ast"]
    return tree


def name(node: Node) -> str:
    """Of a thing in C++: no keyword and no macro ends with an underscore."""
    return f"{node['name']}_"


def type_of(node: Node) -> str:
    text: str = node["typeDescriptions"]["typeString"]
    return text


def word(value: int) -> str:
    """A constant, modulo 2^256."""
    value %= 2**256
    if value < 2**64:
        return f"Word({value:#x}ull)"
    return "Word(" + ", ".join(f"{value >> shift & (2**64 - 1):#x}ull" for shift in (192, 128, 64, 0)) + ")"


class Translation:
    """One library."""

    def __init__(self, tree: Node) -> None:
        libraries = [n for n in tree["nodes"] if n["nodeType"] == "ContractDefinition"]
        if len(libraries) != 1 or libraries[0]["contractKind"] != "library":
            raise Refused("not one library")
        self.nodes: list[Node] = libraries[0]["nodes"]
        self.unchecked = 0

    def text(self) -> str:
        lines = ["// Written by scripts/solidity_to_cpp.py.", "#pragma once", '#include "tools/uint256.h"', ""]
        lines += ["namespace port {", "using evm::Word;"]
        functions = []
        for node in self.nodes:
            if node["nodeType"] == "VariableDeclaration" and node["constant"]:
                lines.append(f"static const Word {name(node)} = {self.expression(node['value'])};")
            elif node["nodeType"] == "FunctionDefinition":
                functions.append(node)
            else:
                raise Refused(f"a {node['nodeType']} in a library")
        lines += [self.head(node) + ";" for node in functions]
        for node in functions:
            lines += self.function(node)
        return "\n".join([*lines, "}  // namespace port", ""])

    # ---- functions and statements

    def kind(self, node: Node) -> str:
        """The C++ type of a declaration."""
        solidity = type_of(node)
        if solidity != "bool" and solidity not in INTEGERS:
            raise Refused(f"the type {solidity}")
        return "bool" if solidity == "bool" else "Word"

    def head(self, node: Node) -> str:
        results = node["returnParameters"]["parameters"]
        if len(results) != 1 or node["modifiers"] or node["stateMutability"] != "pure":
            raise Refused(f"the form of {node['name']}")
        parameters = ", ".join(f"{self.kind(p)} {name(p)}" for p in node["parameters"]["parameters"])
        return f"static inline {self.kind(results[0])} {name(node)}({parameters})"

    def function(self, node: Node) -> list[str]:
        (result,) = node["returnParameters"]["parameters"]
        lines = [self.head(node) + " {"]
        if result["name"]:
            lines.append(f"{self.kind(result)} {name(result)}{{}};")
        lines += self.statement(node["body"])
        if result["name"]:
            lines.append(f"return {name(result)};")
        return [*lines, "}"]

    def statement(self, node: Node) -> list[str]:
        kind = node["nodeType"]
        if kind == "Block":
            return ["{", *(line for inner in node["statements"] for line in self.statement(inner)), "}"]
        if kind == "UncheckedBlock":
            self.unchecked += 1
            lines = self.statement({"nodeType": "Block", "statements": node["statements"]})
            self.unchecked -= 1
            return lines
        if kind == "VariableDeclarationStatement":
            (variable,) = node["declarations"]
            return [f"{self.kind(variable)} {name(variable)} = {self.expression(node['initialValue'])};"]
        if kind == "ExpressionStatement" and node["expression"]["nodeType"] == "Assignment":
            return [self.assignment(node["expression"])]
        if kind == "IfStatement":
            lines = [f"if ({self.expression(node['condition'])})", *self.braced(node["trueBody"])]
            return [*lines, "else", *self.braced(node["falseBody"])] if node.get("falseBody") else lines
        if kind == "Return":
            return [f"return {self.expression(node['expression'])};"]
        if kind == "InlineAssembly":
            return [line for inner in node["AST"]["statements"] for line in self.yul_statement(inner)]
        raise Refused(f"a {kind}")

    def braced(self, node: Node) -> list[str]:
        return ["{", *self.statement(node), "}"]

    def assignment(self, node: Node) -> str:
        target, operator = node["leftHandSide"], node["operator"]
        if target["nodeType"] != "Identifier" or type_of(target) != "uint256":
            raise Refused("an assignment to something else than a uint256 variable")
        value = self.expression(node["rightHandSide"])
        if operator != "=":
            self.check(operator[:-1], type_of(target))
            value = f"({name(target)} {operator[:-1]} {value})"
        return f"{name(target)} = {value};"

    # ---- expressions

    def check(self, operator: str, solidity: str) -> None:
        """Refuses an operator whose result would differ in C++."""
        if operator not in OPERATORS:
            raise Refused(f"the operator {operator}")
        if operator in ARITHMETIC and not self.unchecked:
            raise Refused(f"checked arithmetic ({operator})")
        compare = operator in {"<", ">", "<=", ">=", "==", "!=", "&&", "||"}
        if not compare and solidity != "uint256":
            raise Refused(f"{operator} on {solidity}")

    def expression(self, node: Node) -> str:
        solidity = type_of(node)
        if solidity.startswith("int_const "):
            return word(self.constant(solidity))
        handlers: dict[str, Callable[[Node], str]] = {
            "Identifier": name,
            "TupleExpression": self.parentheses,
            "Conditional": self.conditional,
            "BinaryOperation": self.binary,
            "UnaryOperation": self.unary,
            "FunctionCall": self.call,
            "MemberAccess": self.member,
        }
        if node["nodeType"] not in handlers:
            raise Refused(f"a {node['nodeType']}")
        return handlers[node["nodeType"]](node)

    def constant(self, solidity: str) -> int:
        try:
            return int(solidity.removeprefix("int_const "))
        except ValueError:
            raise Refused(f"the constant {solidity}") from None

    def parentheses(self, node: Node) -> str:
        (inner,) = node["components"]
        return self.expression(inner)

    def conditional(self, node: Node) -> str:
        condition, yes, no = (
            self.expression(node[part]) for part in ("condition", "trueExpression", "falseExpression")
        )
        return f"({condition} ? {yes} : {no})"

    def binary(self, node: Node) -> str:
        operator, common = node["operator"], node["commonType"]["typeString"]
        # A shift has the type of its left side; of a literal by a variable that is uint256.
        shifted = node["leftExpression"]["typeDescriptions"]["typeString"]
        if operator in {"<<", ">>"}:
            common = "uint256" if shifted.startswith("int_const ") and "-" not in shifted else shifted
            if type_of(node) != "uint256":
                raise Refused(f"a shift of type {type_of(node)}")
        self.check(operator, common)
        left, right = self.expression(node["leftExpression"]), self.expression(node["rightExpression"])
        if common.startswith("int") and operator in {"<", ">"}:
            first, second = (left, right) if operator == "<" else (right, left)
            return f"signed_less({first}, {second})"
        if common.startswith("int") and operator not in {"==", "!="}:
            raise Refused(f"{operator} on {common}")
        return f"({left} {operator} {right})"

    def unary(self, node: Node) -> str:
        operator, solidity = node["operator"], type_of(node)
        inner = self.expression(node["subExpression"])
        if operator == "!" and solidity == "bool":
            return f"(!{inner})"
        if operator == "-" and solidity == "int256" and self.unchecked:
            return f"(-{inner})"
        raise Refused(f"{operator} on {solidity}")

    def call(self, node: Node) -> str:
        arguments = [self.expression(a) for a in node["arguments"]]
        callee = node["expression"]
        if node["kind"] == "functionCall" and callee["nodeType"] == "Identifier":
            return f"{name(callee)}({', '.join(arguments)})"
        if node["kind"] == "typeConversion":
            return self.conversion(type_of(node["arguments"][0]), type_of(node), arguments[0])
        raise Refused(f"a call of kind {node['kind']}")

    def conversion(self, source: str, target: str, value: str) -> str:
        if {source, target} <= {"uint256", "int256"} or (source, target) == ("int64", "int256"):
            return value
        if (source, target) == ("int256", "int64"):
            return f"sign_extend({value}, 64)"
        raise Refused(f"{target}({source})")

    def member(self, node: Node) -> str:
        bits = INTEGERS.get(type_of(node), 0)
        extreme = node["expression"]["typeDescriptions"]["typeString"] == f"type({type_of(node)})"
        if extreme and type_of(node).startswith("int") and node["memberName"] in {"max", "min"}:
            return word(2 ** (bits - 1) - 1 if node["memberName"] == "max" else -(2 ** (bits - 1)))
        raise Refused(f"the member {node['memberName']}")

    # ---- inline assembly

    def yul_statement(self, node: Node) -> list[str]:
        if node["nodeType"] == "YulAssignment" and len(node["variableNames"]) == 1:
            return [f"{name(node['variableNames'][0])} = {self.yul_expression(node['value'])};"]
        raise Refused(f"a {node['nodeType']}")

    def yul_expression(self, node: Node) -> str:
        if node["nodeType"] == "YulIdentifier":
            return f"evm::op::word({name(node)})"
        if node["nodeType"] == "YulLiteral" and node["kind"] == "number":
            return word(int(node["value"], 0))
        if node["nodeType"] == "YulFunctionCall" and node["functionName"]["name"] in YUL:
            arguments = ", ".join(self.yul_expression(a) for a in node["arguments"])
            return f"evm::op::{name(node['functionName'])}({arguments})"
        raise Refused(f"a {node['nodeType']} in assembly")


def translate(path: Path) -> str:
    """The C++ header of a library. Raises Refused."""
    return Translation(syntax_tree(path)).text()


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: scripts/solidity_to_cpp.py LIBRARY.sol", file=sys.stderr)
        return 2
    try:
        sys.stdout.write(translate(Path(sys.argv[1])))
    except Refused as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
