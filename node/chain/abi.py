"""From the contract's ABI to the node's dataclasses and back.

The ABI files in `node/abi/` are made by `scripts/build_contracts.py`. Names are camel case there and snake case
here; a dataclass whose fields are not exactly those of its ABI tuple is refused, so code and contract cannot drift
apart silently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum
from functools import cache
from importlib import resources
from typing import Any, get_args, get_origin, get_type_hints

from eth_utils.address import to_checksum_address

from node.errors import ConfigError


@dataclass(frozen=True)
class Artifact:
    """A compiled contract: its name, ABI and creation code."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: bytes


@cache
def artifact(name: str) -> Artifact:
    """The compiled contract `name` from `node/abi/`. Raises ConfigError if it is missing or not a build artifact."""
    file = resources.files("node").joinpath("abi", f"{name}.json")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Artifact(name, content["abi"], bytes.fromhex(content["bytecode"].removeprefix("0x")))
    except FileNotFoundError as error:
        raise ConfigError(
            "no compiled contract", where=f"node/abi/{name}.json", cure="Run scripts/build_contracts.py"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"not a build artifact ({error})", where=f"node/abi/{name}.json", cure="Run scripts/build_contracts.py"
        ) from error


def snake(name: str) -> str:
    """`taskId` -> `task_id`, `nodeA` -> `node_a`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def abi_type(parameter: Mapping[str, Any]) -> str:
    """The type of an ABI parameter with its tuples written out: `(uint32,bytes32)[]`."""
    kind: str = parameter["type"]
    if not kind.startswith("tuple"):
        return kind
    return "(" + ",".join(abi_type(part) for part in parameter["components"]) + ")" + kind.removeprefix("tuple")


def check_fields(cls: type, parameters: Sequence[Mapping[str, Any]], where: str, skip: Sequence[str] = ()) -> None:
    """Raises ConfigError unless the fields of dataclass `cls` are these ABI parameters in this order, nested ones
    too."""
    hints = get_type_hints(cls)
    ours = [field.name for field in fields(cls) if field.name not in skip]
    theirs = [snake(parameter["name"]) for parameter in parameters]
    if ours != theirs:
        differ = sorted(set(ours) ^ set(theirs)) or "their order"
        raise ConfigError(
            f"fields differ from the ABI: {differ}", where=where, cure=f"Adapt {cls.__name__} to the contract"
        )
    for parameter in parameters:
        inner = hints[snake(parameter["name"])]
        inner = get_args(inner)[0] if get_origin(inner) is tuple else inner
        if parameter["type"].startswith("tuple"):
            check_fields(inner, parameter["components"], f"{where}.{parameter['name']}")


def from_abi(kind: Any, value: Any) -> Any:
    """A decoded ABI value as `kind`: a dataclass (from a tuple, by position), an IntEnum, `tuple[X, ...]`, `str`
    (an address, checksummed), `bytes`, `int` or `bool`. Raises ValueError or TypeError if it does not fit."""
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        return tuple(from_abi(inner, item) for item in value)
    assert isinstance(kind, type)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        parts = list(value.values()) if isinstance(value, Mapping) else list(value)
        names = [field.name for field in fields(kind)]
        return kind(**{name: from_abi(hints[name], part) for name, part in zip(names, parts, strict=True)})
    if issubclass(kind, IntEnum):
        return kind(value)
    if kind is str:
        return to_checksum_address(value)
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return bytes(value) if isinstance(value, bytes) else value


def to_abi(value: Any) -> Any:
    """The reverse of `from_abi`: dataclasses become tuples, enums ints."""
    if is_dataclass(value) and not isinstance(value, type):
        return tuple(to_abi(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, IntEnum):
        return int(value)
    if isinstance(value, list | tuple):
        return [to_abi(item) for item in value]
    return value
