"""The committee referee's formats: configuration, signed verdicts, evidence (docs/spec/game.md, section 3).

What a verdict says is found out in `node/referee.py`; here it is put into the bytes that
contracts/referees/ reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eth_abi.abi import decode, encode
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount

from node.errors import ConfigError, DataError
from node.fold import MatchState, TaskState
from node.structs import ZERO, Phase, Question, RefereeKind

MAX_MEMBERS = 32
_VERDICT = [
    {"name": "verde", "type": "address"},
    {"name": "taskId", "type": "uint256"},
    {"name": "matchId", "type": "uint256"},
    {"name": "preState", "type": "bytes32"},
    {"name": "step", "type": "uint64"},
    {"name": "node", "type": "uint32"},
    {"name": "traceRoot", "type": "bytes32"},
    {"name": "outputRoot", "type": "bytes32"},
    {"name": "unavailable", "type": "bool"},
]


def encode_config(threshold: int, members: Sequence[str]) -> bytes:
    """`refereeConfig` of a task: `threshold` of `members` decide. Raises ConfigError unless it is a majority of 1
    to 32 distinct members; their order does not matter."""
    ascending = sorted(members, key=lambda member: int(member, 16))
    if not 0 < len(ascending) <= MAX_MEMBERS or len({member.lower() for member in members}) != len(ascending):
        raise ConfigError(
            f"a committee has 1 to {MAX_MEMBERS} distinct members, not {len(members)}", cure="Name each member once"
        )
    if int(ascending[0], 16) == 0:
        raise ConfigError("the zero address cannot be a member of a committee", cure="Name accounts that can sign")
    if not len(ascending) < 2 * threshold <= 2 * len(ascending):
        raise ConfigError(
            f"{threshold} of {len(members)} is not a majority",
            cure=f"Choose a threshold from {len(members) // 2 + 1} to {len(members)}",
        )
    return encode(("uint8", "address[]"), (threshold, ascending))


def question(verde: str, task: TaskState, match: MatchState) -> Question:
    """The question that a match in phase Referee puts. ValueError in another phase."""
    if match.phase is not Phase.REFEREE:
        raise ValueError(f"match {match.match_id} is in phase {match.phase.name}")
    return Question(
        verde=verde,
        task_id=task.task_id,
        match_id=match.match_id,
        program_root=task.program_root,
        data_root=task.data_root,
        batch_count=task.batch_count,
        pre_state=match.pre_state,
        step=match.step,
        node=match.position,
        trace_root=match.root_a,
        root_a=match.node_a,
        root_b=match.node_b,
        config_hash=task.config_hash,
        since=match.since,
        window=task.referee_window,
        clock_a=match.clock_a,
        clock_b=match.clock_b,
        grace=task.grace,
        build_window=task.build_window,
        arity_bits=task.arity_bits,
        account_a=task.roster[match.index_a].account,
        account_b=task.roster[match.index_b].account,
    )


def committee_config(task: TaskState) -> bytes | None:
    """The committee's part of a task's referee configuration, None if its referee has no committee. Raises DataError
    if an appeal referee's configuration is none."""
    config = task.params.referee_config
    if task.referee_kind is RefereeKind.EVM:
        return None
    if task.referee_kind is not RefereeKind.APPEAL:
        return config
    try:
        return bytes(decode(["uint40", "bytes"], config)[1])
    except Exception as error:  # eth_abi raises several unrelated types for malformed bytes
        raise DataError(f"no configuration of an appeal: {error}", where=f"referee {task.referee}") from error


def encode_appeal(appeal_window: int, committee: bytes) -> bytes:
    """`refereeConfig` of a task whose committee's verdict can be appealed for `appeal_window` seconds."""
    return encode(("uint40", "bytes"), (appeal_window, committee))


def verdict(asked: Question, *, chain_id: int, referee: str, output_root: bytes | None) -> Mapping[str, Any]:
    """The EIP-712 message of a verdict: the operator's true output root, or None if its agreed inputs cannot be
    had."""
    return {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Verdict": _VERDICT,
        },
        "primaryType": "Verdict",
        "domain": {"name": "Verde Committee", "version": "1", "chainId": chain_id, "verifyingContract": referee},
        "message": {
            "verde": asked.verde,
            "taskId": asked.task_id,
            "matchId": asked.match_id,
            "preState": asked.pre_state,
            "step": asked.step,
            "node": asked.node,
            "traceRoot": asked.trace_root,
            "outputRoot": ZERO if output_root is None else output_root,
            "unavailable": output_root is None,
        },
    }


def sign(member: LocalAccount, asked: Question, *, chain_id: int, referee: str, output_root: bytes | None) -> bytes:
    """`member`'s signature (65 bytes) under a verdict."""
    message = verdict(asked, chain_id=chain_id, referee=referee, output_root=output_root)
    return bytes(member.sign_message(encode_typed_data(full_message=dict(message))).signature)


def encode_verdict(output_root: bytes | None, signatures: Mapping[str, bytes]) -> bytes:
    """Equal verdicts of several members, by address, as `submitVerdict` takes them."""
    ascending = [signatures[member] for member in sorted(signatures, key=lambda member: int(member, 16))]
    root = ZERO if output_root is None else output_root
    return encode(("bytes32", "bool", "bytes[]"), (root, output_root is None, ascending))


def encode_evidence(config: bytes, verdict: bytes) -> bytes:
    """The evidence for `judge`: the committee and its verdict."""
    return encode(("bytes", "bytes"), (config, verdict))
