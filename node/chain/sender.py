"""Sends transactions: simulate, sign, send, wait. One queue for each account.

A call is simulated (eth_estimateGas on the pending block) before it is sent; what would revert is not sent. A
revert that only says that the work is done already (somebody else played the same forced move, settled, collected)
is an outcome and no error: `AlreadyDone`. Of several verbs in one transaction nobody can tell which is done: there it
is an error, and the player tries the first one alone. Every transaction is recorded with its gas for the report.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from eth_account.signers.local import LocalAccount
from eth_typing import ChecksumAddress
from hexbytes import HexBytes
from web3.exceptions import TransactionNotFound
from web3.types import RPCEndpoint, TxParams, TxReceipt, Wei

from node.chain.abi import artifact
from node.chain.contracts import Call, TrialReferee, Verde, explain
from node.chain.rpc import Reverted, Rpc, RpcRefused
from node.errors import ChainError, RpcUnavailable, TxReverted, TxUnresolved
from node.events import Event, decode_log
from node.structs import Phase

# Errors which mean that nobody needs this call any more, whoever made it.
DONE: dict[str, frozenset[str]] = {
    "commit": frozenset({"AlreadyJoined"}),
    "challenge": frozenset({"AlreadyJoined"}),
    "cancel": frozenset({"WrongStatus"}),
    "expire": frozenset({"WrongStatus"}),
    "pair": frozenset({"NothingToPair", "WrongStatus"}),
    "settle": frozenset({"WrongStatus"}),
    "collect": frozenset({"NothingDue"}),
    "confirm_delivery": frozenset({"AlreadyConfirmed"}),
    "collect_holdback": frozenset({"NothingDue"}),
    "withdraw": frozenset({"NothingToWithdraw"}),
    "open": frozenset({"WrongPhase", "WrongStatus"}),
    "advance": frozenset({"WrongPhase", "WrongStatus"}),
    "post": frozenset({"WrongPhase", "WrongStatus"}),
    "hash_node": frozenset({"WrongPhase", "WrongStatus"}),
    "judge": frozenset({"WrongPhase", "WrongStatus"}),
    "timeout": frozenset({"WrongPhase", "WrongStatus"}),
    "trial_conclude": frozenset({"WrongPhase", "WrongStatus"}),
    "trial_begin": frozenset({"WrongStage", "WrongPhase", "WrongStatus"}),
    "trial_submit_verdict": frozenset({"NoMoreVerdict", "WrongPhase", "WrongStatus"}),
    "trial_appeal": frozenset({"NoAppeal", "WrongPhase", "WrongStatus"}),
    **dict.fromkeys(
        ("trial_open", "trial_advance", "trial_show_tiles", "trial_post", "trial_execute"),
        frozenset({"WrongStage", "WrongPhase", "WrongStatus"}),
    ),
}


@dataclass(frozen=True)
class Sent:
    """A transaction that was mined and did what it should. `gas` is used gas, `fee` wei paid for it, `events` what the
    contract said, `parts` the verbs of a multicall."""

    verb: str
    where: str
    tx_hash: bytes
    block: int
    gas: int
    fee: int
    events: tuple[Event, ...]
    parts: tuple[str, ...] = ()

    @property
    def verbs(self) -> tuple[str, ...]:
        """The verbs that it was made of."""
        return self.parts or (self.verb,)


@dataclass(frozen=True)
class AlreadyDone:
    """Nothing had to be done: the contract stands already where the call would have led. `error` says so in its
    words."""

    verb: str
    where: str
    error: TxReverted


@dataclass(frozen=True)
class Fees:
    """EIP-1559 fees: `max_fee = base_factor * base fee + tip`, never above `cap` wei per gas."""

    base_factor: float = 2.0
    cap: int = 500 * 10**9


class Sender:
    """Sends the calls of one account to one chain, one after the other.

    `timeout`: seconds to wait for a receipt; `poll`: seconds between two looks. `on_sent` hears of every mined
    transaction. The key never leaves the LocalAccount.
    """

    def __init__(
        self,
        rpc: Rpc,
        account: LocalAccount,
        *,
        fees: Fees | None = None,
        timeout: float = 180.0,
        poll: float = 0.5,
        on_sent: Callable[[Sent], None] | None = None,
    ) -> None:
        self.rpc, self.account = rpc, account
        self.fees = fees or Fees()
        self.timeout, self.poll = timeout, poll
        self.sent: list[Sent] = []
        self._on_sent = on_sent
        self._queue = threading.Lock()

    @property
    def address(self) -> str:
        return str(self.account.address)

    def balance(self) -> int:
        """Wei that the account holds."""
        return int(self.rpc.ask("eth_getBalance", lambda: self.rpc.w3.eth.get_balance(self._from), int))

    def simulate(self, call: Call) -> bytes:
        """What the call would return in the pending block. Raises TxReverted."""
        try:
            return bytes(self.rpc.ask("eth_call", lambda: self.rpc.w3.eth.call(self._params(call), "pending")))
        except Reverted as error:
            raise explain(call.verb, error.data, where=call.where) from error

    def send(self, call: Call) -> Sent | AlreadyDone:
        """Simulates, sends, and waits until the call is mined. Raises TxReverted (with the contract's error by name),
        TxUnresolved, RpcUnavailable, or ChainError if the account cannot pay."""
        with self._queue:
            try:
                gas = self._estimate(call)
            except TxReverted as error:
                if self._done(call, error):
                    return AlreadyDone(call.verb, call.where, error)
                raise
            receipt = self._transact(call, gas)
            tx_hash = bytes(receipt["transactionHash"])
            if receipt["status"] != 1:
                why = self._why(call, tx_hash)
                if self._done(call, why):
                    return AlreadyDone(call.verb, call.where, why)
                raise why
            return self._record(call, receipt)

    def deploy(self, contract: str) -> str:
        """Deploys a contract of `node/abi/` without constructor arguments; returns its address."""
        call = Call("deploy", "", artifact(contract).bytecode, where=contract)
        with self._queue:
            receipt = self._transact(call, self._estimate(call))
            if receipt["status"] != 1:
                raise self._why(call, bytes(receipt["transactionHash"]))
            self._record(call, receipt)
            return str(receipt["contractAddress"])

    # -- inside ------------------------------------------------------------------------------------------------------

    @property
    def _from(self) -> ChecksumAddress:
        address: ChecksumAddress = self.account.address
        return address

    def _params(self, call: Call) -> TxParams:
        params: TxParams = {"from": self._from, "data": HexBytes(call.data), "value": Wei(call.value)}
        if call.to:
            params["to"] = call.to
        return params

    def _estimate(self, call: Call) -> int:
        try:
            params = self._params(call)
            gas = self.rpc.ask("eth_estimateGas", lambda: self.rpc.w3.eth.estimate_gas(params, "pending"), int)
            return gas + gas // 5
        except Reverted as error:
            if not error.data:
                self.simulate(call)  # some endpoints give the reason only here
            raise explain(call.verb, error.data, where=call.where) from error
        except RpcRefused as error:
            raise self._refused(call, error) from error

    def _transact(self, call: Call, gas: int) -> TxReceipt:
        w3 = self.rpc.w3
        nonce = self.rpc.ask(
            "eth_getTransactionCount", lambda: w3.eth.get_transaction_count(self._from, "pending"), int
        )
        max_fee, tip = self._price()
        params: TxParams = {
            "type": 2,
            "chainId": self.rpc.chain_id,
            "nonce": nonce,
            "value": Wei(call.value),
            "data": HexBytes(call.data),
            "gas": gas,
            "maxFeePerGas": Wei(max_fee),
            "maxPriorityFeePerGas": Wei(tip),
        }
        if call.to:
            params["to"] = call.to
        signed = self.account.sign_transaction(params)  # type: ignore[arg-type]
        try:
            self.rpc.ask("eth_sendRawTransaction", lambda: w3.eth.send_raw_transaction(signed.raw_transaction))
        except RpcRefused as error:
            if "already known" not in error.message.lower():
                raise self._refused(call, error) from error
        return self._wait(call, bytes(signed.hash))

    def _price(self) -> tuple[int, int]:
        w3 = self.rpc.w3
        base = self.rpc.ask("eth_getBlockByNumber", lambda: w3.eth.get_block("latest")["baseFeePerGas"], int)
        try:
            # Not w3.eth.max_priority_fee: where the method is missing, that warns and asks for history.
            method = RPCEndpoint("eth_maxPriorityFeePerGas")
            tip = self.rpc.ask(method, lambda: int(w3.manager.request_blocking(method, []), 16), int)
        except RpcRefused:
            tip = 10**9
        if base + tip > self.fees.cap:
            raise ChainError(
                f"the chain asks {base + tip} wei per gas, the cap is {self.fees.cap}",
                where=self.rpc.name,
                cure="Wait for lower fees, or raise the cap",
            )
        return min(int(base * self.fees.base_factor) + tip, self.fees.cap), tip

    def _wait(self, call: Call, tx_hash: bytes) -> TxReceipt:
        until = time.monotonic() + self.timeout
        while True:
            receipt = self._receipt(tx_hash)
            if receipt is not None:
                return receipt
            if time.monotonic() >= until:
                raise TxUnresolved(call.verb, tx_hash, self.timeout, where=call.where)
            time.sleep(self.poll)

    def _receipt(self, tx_hash: bytes) -> TxReceipt | None:
        def look() -> TxReceipt | bool:
            try:
                return self.rpc.w3.eth.get_transaction_receipt(HexBytes(tx_hash))
            except TransactionNotFound:
                return False

        try:
            receipt = self.rpc.ask("eth_getTransactionReceipt", look)
        except RpcUnavailable:
            return None  # it was sent: keep looking until the time is over
        return None if isinstance(receipt, bool) else receipt

    def _why(self, call: Call, tx_hash: bytes) -> TxReverted:
        """The reason of a transaction that was mined and reverted: what a call says now."""
        try:
            self.simulate(call)
        except TxReverted as error:
            return explain(call.verb, error.data, where=call.where, tx_hash=tx_hash)
        return explain(call.verb, b"", where=call.where, tx_hash=tx_hash)

    def _done(self, call: Call, error: TxReverted) -> bool:
        if error.error in DONE.get(call.verb, ()):
            return True
        if call.verbs is None:
            return False
        verde = Verde(self.rpc, call.verde or call.to)
        match = verde.get_match(call.match_id)
        if match.phase is Phase.NONE:  # another match has taken the place of one that ended
            return call.match_id <= verde.match_count()
        verbs = TrialReferee(verde, call.to).get_trial(call.match_id).verbs if call.verde else match.verbs
        return match.phase is Phase.DONE or verbs != call.verbs

    def _record(self, call: Call, receipt: TxReceipt) -> Sent:
        sent = Sent(
            call.verb,
            call.where,
            bytes(receipt["transactionHash"]),
            receipt["blockNumber"],
            receipt["gasUsed"],
            receipt["gasUsed"] * receipt["effectiveGasPrice"],
            tuple(decode_log(log) for log in receipt["logs"] if log["address"] in (call.to, call.verde)),
            call.parts,
        )
        self.sent.append(sent)
        if self._on_sent is not None:
            self._on_sent(sent)
        return sent

    def _refused(self, call: Call, error: RpcRefused) -> ChainError:
        if "insufficient funds" in error.message.lower():
            return ChainError(
                f"{call.verb}: the account cannot pay ({error.message})",
                where=f"account {self.address}, {call.where}",
                cure="Send it more wei",
            )
        return error
