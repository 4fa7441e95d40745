"""Verdicts as the committee's members serve them, and their collection into what the contract takes.

docs/spec/game.md, section 3, "Committee". The bytes are those of `node/chain/committee.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from eth_abi.abi import decode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from node.chain import committee
from node.errors import DataError
from node.fold import TaskState
from node.structs import Question


@dataclass(frozen=True)
class SignedVerdict:
    """What a member says about a question, with its 65-byte signature: the output root of the disputed node, or
    None if the node's agreed inputs cannot be had from either side."""

    asked: Question
    output_root: bytes | None
    signature: bytes


@dataclass(frozen=True)
class Committee:
    """The committee of a task. config: its part of the task's `refereeConfig`; referee: the referee's address."""

    chain_id: int
    referee: str
    config: bytes
    threshold: int
    members: tuple[str, ...]

    @classmethod
    def read(cls, chain_id: int, referee: str, config: bytes) -> Committee:
        """Reads the committee of a configuration. Raises DataError if it is none."""
        try:
            threshold, members = decode(["uint8", "address[]"], config)
        except Exception as error:  # eth_abi raises several unrelated types for malformed bytes
            raise DataError(f"no configuration of a committee: {error}", where=f"referee {referee}") from error
        return cls(chain_id, referee, config, threshold, tuple(to_checksum_address(member) for member in members))

    @classmethod
    def of(cls, chain_id: int, task: TaskState) -> Committee:
        """The committee that a task names. Raises DataError if it names none."""
        config = committee.committee_config(task)
        if config is None:
            raise DataError("this referee has no committee", where=f"referee {task.referee}")
        return cls.read(chain_id, task.referee, config)

    def sign(self, member: LocalAccount, asked: Question, output_root: bytes | None) -> SignedVerdict:
        """A member's verdict."""
        said = committee.sign(member, asked, chain_id=self.chain_id, referee=self.referee, output_root=output_root)
        return SignedVerdict(asked, output_root, said)

    def signer(self, signed: SignedVerdict) -> str | None:
        """The member that signed, None if nobody of the committee did."""
        message = committee.verdict(
            signed.asked, chain_id=self.chain_id, referee=self.referee, output_root=signed.output_root
        )
        try:
            who = Account.recover_message(encode_typed_data(full_message=dict(message)), signature=signed.signature)
        except Exception:  # malformed signatures raise several unrelated types; none of them is a member's
            return None
        return str(who) if who in self.members else None

    def verdict(self, verdicts: Iterable[SignedVerdict], asked: Question) -> bytes | None:
        """The committee's verdict (`encode_verdict`) once `threshold` members say the same; None before that.

        What is not about this question or not signed by a member does not count. Who signed two answers counts for
        both: which of them reaches the threshold is up to the others.
        """
        answers: dict[bytes | None, dict[str, bytes]] = {}
        for signed in verdicts:
            who = self.signer(signed) if signed.asked == asked else None
            if who is not None:
                answers.setdefault(signed.output_root, {})[who] = signed.signature
        for output_root, signatures in answers.items():
            if len(signatures) >= self.threshold:
                chosen = dict(sorted(signatures.items())[: self.threshold])
                return committee.encode_verdict(output_root, chosen)
        return None
