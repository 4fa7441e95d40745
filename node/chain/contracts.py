"""Bindings of the contracts: every verb as a `Call` that the sender sends, every view as a dataclass of
`node/structs.py`.

Nothing here sends. Custom errors are decoded by name with `explain`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from node.chain.abi import abi_type, artifact, check_fields, from_abi, snake, to_abi
from node.chain.rpc import Reverted, Rpc
from node.errors import ChainError, ConfigError, TxReverted
from node.structs import (
    NO_OPENING,
    Claim,
    HashInput,
    Match,
    Member,
    Node,
    Opening,
    Participant,
    ProgramHeader,
    Question,
    Task,
    TaskParams,
    Trial,
    Verdict,
    Witness,
)

T = TypeVar("T")

COMMIT_TYPEHASH = keccak(
    text="Commitment(uint256 chainId,address verde,uint256 taskId,address provider,bytes32 claimRoot,"
    "bytes32 finalStateRoot,bytes32 salt)"
)


@dataclass(frozen=True)
class Call:
    """One call of a contract, ready to be sent. `where` names its subject ("task 3", "match 5") in messages.

    `match_id` and `verbs` belong to the verbs of a match: the number of verbs that the match (or its trial) had when
    the call was planned. If it has moved on since, a revert means that somebody else was faster. `verde` is the Verde
    contract if the call is one of a referee. `parts`: of a multicall, its verbs.
    """

    verb: str
    to: str
    data: bytes
    value: int = 0
    where: str = ""
    match_id: int = 0
    verbs: int | None = None
    verde: str = ""
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Function:
    selector: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@cache
def _functions(contract: str) -> Mapping[str, _Function]:
    """The contract's functions by name, checked against the dataclasses that stand for their structs."""
    found = {}
    for entry in artifact(contract).abi:
        if entry["type"] != "function":
            continue
        inputs = tuple(abi_type(parameter) for parameter in entry["inputs"])
        outputs = tuple(abi_type(parameter) for parameter in entry["outputs"])
        selector = keccak(text=f"{entry['name']}({','.join(inputs)})")[:4]
        found[entry["name"]] = _Function(selector, inputs, outputs)
        for parameter in (*entry["inputs"], *entry["outputs"]):
            struct = _STRUCTS.get(str(parameter.get("internalType", "")).removeprefix("struct "))
            if struct is not None:
                check_fields(struct, parameter["components"], f"{contract}.{entry['name']}")
    return found


_STRUCTS: Mapping[str, type] = {
    **{
        f"IVerde.{cls.__name__}": cls
        for cls in (Task, Participant, Claim, Member, Match, TaskParams, ProgramHeader, Node, Opening, HashInput)
    },
    "Question": Question,
    "IEvmReferee.Trial": Trial,
    "IEvmReferee.Witness": Witness,
    "IAppealReferee.Verdict": Verdict,
}


@cache
def _errors() -> Mapping[bytes, tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Selector -> name, argument names, argument types of every custom error, and of Solidity's own two."""
    found: dict[bytes, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
        keccak(text="Error(string)")[:4]: ("Error", ("message",), ("string",)),
        keccak(text="Panic(uint256)")[:4]: ("Panic", ("code",), ("uint256",)),
    }
    for contract in ("Verde", "CommitteeReferee", "AppealReferee", "EvmReferee"):
        for entry in artifact(contract).abi:
            if entry["type"] == "error":
                names = tuple(snake(parameter["name"]) for parameter in entry["inputs"])
                types = tuple(abi_type(parameter) for parameter in entry["inputs"])
                found[keccak(text=f"{entry['name']}({','.join(types)})")[:4]] = (entry["name"], names, types)
    return found


def explain(verb: str, data: bytes, *, where: str = "", tx_hash: bytes | None = None) -> TxReverted:
    """Revert data as a TxReverted with the error's name and arguments; unknown data stays bytes."""
    name, arguments = "", {}
    known = _errors().get(data[:4])
    if known is not None:
        try:
            values = decode(known[2], data[4:])
            name, arguments = known[0], dict(zip(known[1], values, strict=True))
        except DecodingError:
            name, arguments = known[0], {}
    return TxReverted(verb, name, arguments, data=data, where=where, tx_hash=tx_hash)


def commitment(
    chain_id: int, verde: str, task_id: int, provider: str, claim_root: bytes, final_state_root: bytes, salt: bytes
) -> bytes:
    """What `commit` seals (docs/spec/game.md, section 1)."""
    types = ("bytes32", "uint256", "address", "uint256", "address", "bytes32", "bytes32", "bytes32")
    return keccak(
        encode(types, (COMMIT_TYPEHASH, chain_id, verde, task_id, provider, claim_root, final_state_root, salt))
    )


class Verde:
    """The Verde contract at `address`, behind `rpc`. Raises ConfigError if there is no code at the address."""

    def __init__(self, rpc: Rpc, address: str) -> None:
        try:
            self.address = to_checksum_address(address)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{address!r} is no address", cure="Give the Verde contract's address, 0x and 40 hex digits"
            ) from error
        self.rpc = rpc
        if not rpc.ask("eth_getCode", lambda: rpc.w3.eth.get_code(self.address)):
            raise ConfigError(
                "there is no contract at this address",
                where=f"{self.address} on chain {rpc.chain_id}",
                cure="Give the address of a deployed Verde contract",
            )

    # -- verbs of a task ---------------------------------------------------------------------------------------------

    def create_task(self, params: TaskParams) -> Call:
        """Creates a task; carries `reward * seats` wei."""
        return self._call("createTask", params, value=params.reward * params.seats, where="new task")

    def commit(self, task_id: int, sealed: bytes, *, bond: int) -> Call:
        """Takes a seat with a sealed claim (see `commitment`); carries the bond."""
        return self._call("commit", task_id, sealed, value=bond, where=f"task {task_id}")

    def cancel(self, task_id: int) -> Call:
        return self._call("cancel", task_id, where=f"task {task_id}")

    def expire(self, task_id: int) -> Call:
        return self._call("expire", task_id, where=f"task {task_id}")

    def reveal(
        self, task_id: int, claim_root: bytes, final_state_root: bytes, salt: bytes, proof: tuple[bytes, ...]
    ) -> Call:
        return self._call("reveal", task_id, claim_root, final_state_root, salt, proof, where=f"task {task_id}")

    def challenge(
        self, task_id: int, claim_root: bytes, final_state_root: bytes, proof: tuple[bytes, ...], *, bond: int
    ) -> Call:
        return self._call(
            "challenge", task_id, claim_root, final_state_root, proof, value=bond, where=f"task {task_id}"
        )

    def pair(self, task_id: int) -> Call:
        return self._call("pair", task_id, where=f"task {task_id}")

    def settle(self, task_id: int) -> Call:
        return self._call("settle", task_id, where=f"task {task_id}")

    def collect(self, task_id: int, index: int) -> Call:
        return self._call("collect", task_id, index, where=f"task {task_id}, participant {index}")

    def confirm_delivery(self, task_id: int) -> Call:
        return self._call("confirmDelivery", task_id, where=f"task {task_id}")

    def collect_holdback(self, task_id: int, index: int) -> Call:
        return self._call("collectHoldback", task_id, index, where=f"task {task_id}, participant {index}")

    def withdraw(self, account: str) -> Call:
        return self._call("withdraw", account, where=account)

    # -- verbs of a match --------------------------------------------------------------------------------------------

    def open(self, match_id: int, children: tuple[bytes, ...], *, verbs: int | None = None) -> Call:
        return self._play("open", match_id, children, verbs=verbs)

    def advance(
        self,
        match_id: int,
        m: int,
        index: int,
        a: bytes,
        b: bytes,
        siblings: tuple[bytes, ...],
        children: tuple[bytes, ...] = (),
        pre: Opening = NO_OPENING,
        *,
        verbs: int | None = None,
    ) -> Call:
        return self._play("advance", match_id, m, index, a, b, siblings, children, pre, verbs=verbs)

    def post(
        self,
        match_id: int,
        root: bytes,
        proof: tuple[bytes, ...],
        children: tuple[bytes, ...] = (),
        *,
        verbs: int | None = None,
    ) -> Call:
        return self._play("post", match_id, root, proof, children, verbs=verbs)

    def hash_node(
        self,
        match_id: int,
        header: ProgramHeader,
        node: Node,
        node_proof: tuple[bytes, ...],
        left: HashInput,
        right: HashInput,
        *,
        verbs: int | None = None,
    ) -> Call:
        return self._play("hashNode", match_id, header, node, node_proof, left, right, verbs=verbs)

    def judge(self, match_id: int, evidence: bytes, *, verbs: int | None = None) -> Call:
        return self._play("judge", match_id, evidence, verbs=verbs)

    def timeout(self, match_id: int, *, verbs: int | None = None) -> Call:
        return self._play("timeout", match_id, verbs=verbs)

    def multicall(self, calls: Sequence[Call]) -> Call:
        """Several verbs in one transaction; all of them or none."""
        data = encode_call("Verde", "multicall", [call.data for call in calls])
        return _batch("multicall", data, calls)

    # -- views -------------------------------------------------------------------------------------------------------

    def task_count(self) -> int:
        return int(self._view("taskCount"))

    def match_count(self) -> int:
        return int(self._view("matchCount"))

    def credit(self, account: str) -> int:
        return int(self._view("credit", account))

    def get_task(self, task_id: int) -> Task:
        return self._struct(Task, "getTask", task_id)

    def get_participant(self, task_id: int, index: int) -> Participant:
        return self._struct(Participant, "getParticipant", task_id, index)

    def get_claim(self, task_id: int, claim_id: int) -> Claim:
        return self._struct(Claim, "getClaim", task_id, claim_id)

    def claim_id_of(self, task_id: int, claim_root: bytes) -> int:
        return int(self._view("claimIdOf", task_id, claim_root))

    def get_member(self, task_id: int, account: str) -> Member:
        return self._struct(Member, "getMember", task_id, account)

    def get_match(self, match_id: int) -> Match:
        return self._struct(Match, "getMatch", match_id)

    def time_limit(self, match_id: int) -> tuple[int, int]:
        """`since` and `limit` of the match's phase; zeros if it is over."""
        since, limit = self._values("timeLimit", match_id)
        return int(since), int(limit)

    def max_verbs(self, steps: int, interval: int, nodes: int, arity_bits: int) -> int:
        """Most verbs that one match can take; a bond must be at least twice `verb_fee * max_verbs + bounty`."""
        return int(self._view("maxVerbs", steps, interval, nodes, arity_bits))

    def question(self, match_id: int) -> tuple[str, Question]:
        """The referee that a match in phase Referee waits for, and what it is asked."""
        referee, asked = self._values("question", match_id)
        found: Question = from_abi(Question, asked)
        return to_checksum_address(referee), found

    def referee_verbs(self, referee: str, config: bytes, arity_bits: int) -> int:
        """The most verbs that a referee may ask to be paid for. Raises TxReverted if it refuses the configuration."""
        return int(ask(self.rpc, referee, "IReferee", "validate", config, arity_bits)[0])

    # -- inside ------------------------------------------------------------------------------------------------------

    def _call(self, name: str, *arguments: Any, value: int = 0, where: str = "") -> Call:
        return Call(snake(name), self.address, encode_call("Verde", name, *arguments), value, where)

    def _play(self, name: str, match_id: int, *arguments: Any, verbs: int | None) -> Call:
        data = encode_call("Verde", name, match_id, *arguments)
        return Call(snake(name), self.address, data, 0, f"match {match_id}", match_id, verbs)

    def _values(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        return ask(self.rpc, self.address, "Verde", name, *arguments)

    def _view(self, name: str, *arguments: Any) -> Any:
        return self._values(name, *arguments)[0]

    def _struct(self, cls: type[T], name: str, *arguments: Any) -> T:
        struct: T = from_abi(cls, self._view(name, *arguments))
        return struct


class TrialReferee:
    """A referee with trials (EvmReferee or AppealReferee) at `address`, for the matches of a Verde contract."""

    def __init__(self, verde: Verde, address: str) -> None:
        self.verde, self.address = verde, address

    # -- verbs ---------------------------------------------------------------------------------------------------------

    def begin(self, match_id: int, header: ProgramHeader, node: Node, node_proof: tuple[bytes, ...]) -> Call:
        return self._call("begin", match_id, header, node, node_proof)

    def open(self, match_id: int, children: tuple[bytes, ...], *, verbs: int | None = None) -> Call:
        return self._call("open", match_id, children, verbs=verbs)

    def advance(
        self,
        match_id: int,
        m: int,
        index: int,
        a: bytes,
        b: bytes,
        siblings: tuple[bytes, ...],
        children: tuple[bytes, ...] = (),
        pre: Opening = NO_OPENING,
        *,
        verbs: int | None = None,
    ) -> Call:
        return self._call("advance", match_id, m, index, a, b, siblings, children, pre, verbs=verbs)

    def show_tiles(self, match_id: int, tile_a: bytes, tile_b: bytes, *, verbs: int | None = None) -> Call:
        return self._call("showTiles", match_id, tile_a, tile_b, verbs=verbs)

    def post(
        self,
        match_id: int,
        root: bytes,
        proof: tuple[bytes, ...],
        children: tuple[bytes, ...],
        *,
        verbs: int | None = None,
    ) -> Call:
        return self._call("post", match_id, root, proof, children, verbs=verbs)

    def execute(
        self,
        match_id: int,
        header: ProgramHeader,
        node: Node,
        node_proof: tuple[bytes, ...],
        witness: Witness,
        *,
        verbs: int | None = None,
    ) -> Call:
        return self._call("execute", match_id, header, node, node_proof, witness, verbs=verbs)

    def conclude(self, match_id: int) -> Call:
        return self._call("conclude", match_id)

    def multicall(self, calls: Sequence[Call]) -> Call:
        """Several verbs of one trial in one transaction; all of them or none."""
        data = encode_call("AppealReferee", "multicall", [call.data for call in calls])
        return _batch("trial_multicall", data, calls)

    def submit_verdict(self, match_id: int, config: bytes, verdict: bytes) -> Call:
        return self._call("submitVerdict", match_id, config, verdict)

    def appeal(self, match_id: int) -> Call:
        return self._call("appeal", match_id)

    # -- views ---------------------------------------------------------------------------------------------------------

    def get_trial(self, match_id: int) -> Trial:
        trial: Trial = from_abi(Trial, self._ask("getTrial", match_id))
        return trial

    def get_verdict(self, match_id: int) -> Verdict:
        """Of an AppealReferee."""
        verdict: Verdict = from_abi(Verdict, self._ask("getVerdict", match_id))
        return verdict

    def _call(self, name: str, match_id: int, *arguments: Any, verbs: int | None = None) -> Call:
        # An AppealReferee has every function of an EvmReferee.
        data = encode_call("AppealReferee", name, self.verde.address, match_id, *arguments)
        where = f"match {match_id}"
        return Call(f"trial_{snake(name)}", self.address, data, 0, where, match_id, verbs, self.verde.address)

    def _ask(self, name: str, match_id: int) -> Any:
        return ask(self.verde.rpc, self.address, "AppealReferee", name, self.verde.address, match_id)[0]


def _batch(verb: str, data: bytes, calls: Sequence[Call]) -> Call:
    return replace(calls[-1], verb=verb, data=data, verbs=None, parts=tuple(call.verb for call in calls))


def ask(rpc: Rpc, address: str, contract: str, name: str, *arguments: Any) -> tuple[Any, ...]:
    """What a view of a contract returns. Raises TxReverted, ChainError if that does not fit the ABI."""
    data = encode_call(contract, name, *arguments)
    try:
        answer = rpc.ask(name, lambda: rpc.w3.eth.call({"to": to_checksum_address(address), "data": HexBytes(data)}))
    except Reverted as error:
        raise explain(name, error.data, where=address) from error
    try:
        values: tuple[Any, ...] = decode(_functions(contract)[name].outputs, bytes(answer))
        return values
    except DecodingError as error:
        raise ChainError(
            f"the answer of {name} does not fit the ABI", where=address, cure=f"Is this a {contract} contract?"
        ) from error


def encode_call(contract: str, name: str, *arguments: Any) -> bytes:
    """Calldata of a function; dataclasses of `node/structs.py` stand for their tuples."""
    function = _functions(contract)[name]
    return function.selector + encode(function.inputs, [to_abi(argument) for argument in arguments])
