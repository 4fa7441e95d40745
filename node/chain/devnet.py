"""The development network: an `EvmChain` behind a web3 provider, funded accounts, time travel, snapshots.

It speaks JSON-RPC in the shapes of geth, errors included, so everything above it runs unchanged against a real node.
Its keys are derived from public strings: never use them where money is worth something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_typing import HexStr
from eth_utils.conversions import to_bytes
from eth_utils.crypto import keccak
from web3 import Web3
from web3.providers.base import BaseProvider
from web3.types import RPCEndpoint, RPCResponse

from node.chain.pyevm import BLOCK_GAS_LIMIT, Block, EvmChain, Log, Mined, Rejected, Reverted

CHAIN_ID = 31_337
GENESIS_TIME = 1_750_000_000
BALANCE = 10**24  # wei of each account at genesis
PRIORITY_FEE = 10**9


def dev_account(name: str) -> LocalAccount:
    """The development account of this name: its key is keccak256("verde devnet account " + name). Public, worthless."""
    return Account.from_key(keccak(text=f"verde devnet account {name}"))  # type: ignore[no-any-return]


class RpcError(Exception):
    """An error object of JSON-RPC."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        self.code, self.message, self.data = code, message, data
        super().__init__(message)


class DevnetProvider(BaseProvider):
    """Answers the JSON-RPC methods that the node uses from an EvmChain."""

    endpoint_uri = "devnet"  # what error messages call this endpoint

    def __init__(self, chain: EvmChain) -> None:
        super().__init__()
        self.chain = chain
        self.automine = True
        self.pool: list[Any] = []
        self._id = 0
        self._methods: dict[str, Callable[..., Any]] = {
            "web3_clientVersion": lambda: "verde-devnet/py-evm",
            "net_version": lambda: str(chain.chain_id),
            "eth_chainId": lambda: hex(chain.chain_id),
            "eth_blockNumber": lambda: hex(chain.head.number),
            "eth_gasPrice": lambda: hex(self._base_fee() + PRIORITY_FEE),
            "eth_maxPriorityFeePerGas": lambda: hex(PRIORITY_FEE),
            "eth_getBalance": lambda a, tag="latest": hex(self._state(tag).get_balance(_bytes(a))),
            "eth_getTransactionCount": self._nonce,
            "eth_getCode": lambda a, tag="latest": _hex(self._state(tag).get_code(_bytes(a))),
            "eth_getStorageAt": lambda a, slot, tag="latest": _hex(
                self._state(tag).get_storage(_bytes(a), _int(slot)).to_bytes(32, "big")
            ),
            "eth_getBlockByNumber": lambda tag, full=False: self._block(self._at(tag), full),
            "eth_getBlockByHash": lambda h, full=False: self._block(chain.block_by_hash(_bytes(h)), full),
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getLogs": self._logs,
            "eth_call": lambda call, tag="latest": _hex(self._simulate(call, tag)[0]),
            "eth_estimateGas": lambda call, tag="pending": hex(self._simulate(call, tag)[1]),
            "eth_sendRawTransaction": self._send,
        }

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        self._id += 1
        response: dict[str, Any] = {"jsonrpc": "2.0", "id": self._id}
        try:
            handler = self._methods.get(method)
            if handler is None:
                raise RpcError(-32601, f"the method {method} does not exist/is not available")
            response["result"] = handler(*params)
        except RpcError as error:
            response["error"] = {"code": error.code, "message": error.message}
            if error.data is not None:
                response["error"]["data"] = error.data
        return response  # type: ignore[return-value]

    def is_connected(self, show_traceback: bool = False) -> bool:
        return True

    def mine(self) -> Block:
        """Mines what waits in the pool, in order of arrival; one block."""
        waiting, self.pool = self.pool, []
        return self.chain.mine(waiting)

    # -- methods ----------------------------------------------------------------------------------------------------

    def _send(self, raw: str) -> str:
        try:
            transaction = self.chain.decode(_bytes(raw))
            if any(waiting.hash == transaction.hash for waiting in self.pool):
                raise Rejected("already known")
            if self.automine:
                self.chain.mine([*self.pool, transaction])
                self.pool = []
            else:
                self.pool.append(transaction)
        except Rejected as error:
            raise RpcError(-32000, str(error)) from error
        return _hex(transaction.hash)

    def _simulate(self, call: dict[str, Any], tag: str) -> tuple[bytes, int]:
        to = call.get("to")
        try:
            return self.chain.simulate(
                sender=_bytes(call["from"]) if "from" in call else bytes(20),
                to=_bytes(to) if to else None,
                value=_int(call.get("value", "0x0")),
                data=_bytes(call.get("data") or call.get("input") or "0x"),
                gas=_int(call["gas"]) if "gas" in call else None,
                block=None if tag == "pending" else self._known(tag),
            )
        except Reverted as error:
            raise RpcError(3 if error.data else -32000, error.reason, _hex(error.data)) from error
        except Rejected as error:
            raise RpcError(-32000, str(error)) from error

    def _nonce(self, address: str, tag: str = "latest") -> str:
        sender = _bytes(address)
        nonce = self._state(tag).get_nonce(sender)
        if tag == "pending":
            nonce += sum(bytes(waiting.sender) == sender for waiting in self.pool)
        return hex(nonce)

    def _state(self, tag: str) -> Any:
        return self.chain.state(self.chain.head if tag == "pending" else self._known(tag))

    def _known(self, tag: str) -> Block:
        block = self._at(tag)
        if block is None:
            raise RpcError(-32000, f"header not found: {tag}")
        return block

    def _at(self, tag: str) -> Block | None:
        if tag in ("latest", "safe", "finalized", "pending"):
            return self.chain.head
        number = 0 if tag == "earliest" else _int(tag)
        return self.chain.blocks[number] if number < len(self.chain.blocks) else None

    def _base_fee(self) -> int:
        return _base_fee(self.chain.head)

    def _block(self, block: Block | None, full: bool) -> dict[str, Any] | None:
        if block is None:
            return None
        header = block.header
        return {
            "number": hex(block.number),
            "hash": _hex(block.hash),
            "parentHash": _hex(header.parent_hash),
            "timestamp": hex(block.timestamp),
            "baseFeePerGas": hex(_base_fee(block)),
            "gasLimit": hex(header.gas_limit),
            "gasUsed": hex(header.gas_used),
            "stateRoot": _hex(header.state_root),
            "transactionsRoot": _hex(header.transaction_root),
            "receiptsRoot": _hex(header.receipt_root),
            "mixHash": _hex(header.mix_hash),
            "miner": _hex(header.coinbase),
            "difficulty": hex(header.difficulty),
            "nonce": _hex(header.nonce),
            "extraData": _hex(header.extra_data),
            "transactions": [
                self._transaction_json(block, mined) if full else _hex(mined.hash) for mined in block.transactions
            ],
            "uncles": [],
        }

    def _transaction(self, tx_hash: str) -> dict[str, Any] | None:
        found = self.chain.mined(_bytes(tx_hash))
        return self._transaction_json(*found) if found else None

    def _transaction_json(self, block: Block, mined: Mined) -> dict[str, Any]:
        tx = mined.transaction
        return {
            "hash": _hex(mined.hash),
            "blockHash": _hex(block.hash),
            "blockNumber": hex(block.number),
            "transactionIndex": hex(mined.index),
            "from": _hex(mined.sender),
            "to": _hex(tx.to) if tx.to else None,
            "value": hex(tx.value),
            "input": _hex(tx.data),
            "nonce": hex(tx.nonce),
            "gas": hex(tx.gas),
            "maxFeePerGas": hex(tx.max_fee_per_gas),
            "maxPriorityFeePerGas": hex(tx.max_priority_fee_per_gas),
            "type": hex(getattr(tx, "type_id", 0) or 0),
        }

    def _receipt(self, tx_hash: str) -> dict[str, Any] | None:
        found = self.chain.mined(_bytes(tx_hash))
        if found is None:
            return None
        block, mined = found
        base = _base_fee(block)
        tx = mined.transaction
        return {
            "transactionHash": _hex(mined.hash),
            "transactionIndex": hex(mined.index),
            "blockHash": _hex(block.hash),
            "blockNumber": hex(block.number),
            "from": _hex(mined.sender),
            "to": _hex(tx.to) if tx.to else None,
            "contractAddress": _hex(mined.contract) if mined.contract else None,
            "status": hex(mined.status),
            "gasUsed": hex(mined.gas_used),
            "cumulativeGasUsed": hex(mined.cumulative_gas),
            "effectiveGasPrice": hex(min(tx.max_fee_per_gas, base + tx.max_priority_fee_per_gas)),
            "type": hex(getattr(tx, "type_id", 0) or 0),
            "logs": [self._log(block, mined, log) for log in mined.logs],
        }

    def _logs(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        if "blockHash" in query:
            only = self.chain.block_by_hash(_bytes(query["blockHash"]))
            if only is None:
                raise RpcError(-32000, "unknown block")
            blocks = [only]
        else:
            first = self._at(query.get("fromBlock", "latest"))
            last = self._at(query.get("toBlock", "latest")) or self.chain.head
            blocks = self.chain.blocks[first.number : last.number + 1] if first else []
        wanted = query.get("address", [])
        addresses = {_bytes(a) for a in ([wanted] if isinstance(wanted, str) else wanted)}
        topics = [
            None if topic is None else {_bytes(t) for t in ([topic] if isinstance(topic, str) else topic)}
            for topic in query.get("topics") or []
        ]
        return [
            self._log(block, mined, log)
            for block in blocks
            for mined in block.transactions
            for log in mined.logs
            if (not addresses or log.address in addresses) and _matches(log, topics)
        ]

    def _log(self, block: Block, mined: Mined, log: Log) -> dict[str, Any]:
        return {
            "address": _hex(log.address),
            "topics": [_hex(topic) for topic in log.topics],
            "data": _hex(log.data),
            "blockNumber": hex(block.number),
            "blockHash": _hex(block.hash),
            "transactionHash": _hex(mined.hash),
            "transactionIndex": hex(mined.index),
            "logIndex": hex(log.index),
            "removed": False,
        }


class Devnet:
    """One development chain with its web3 and its accounts.

    `account(name)` gives a funded account: funded at genesis if listed in `names`, else by a transfer from the faucet.
    `advance(seconds)` mines an empty block exactly that much later; each transaction costs one second.
    """

    def __init__(self, *, chain_id: int = CHAIN_ID, timestamp: int = GENESIS_TIME, names: tuple[str, ...] = ()) -> None:
        self._accounts = {name: dev_account(name) for name in ("faucet", *names)}
        balances = {bytes.fromhex(a.address[2:]): BALANCE for a in self._accounts.values()}
        balances[bytes.fromhex(self._accounts["faucet"].address[2:])] = BALANCE * 10**6
        self.chain = EvmChain(chain_id=chain_id, timestamp=timestamp, balances=balances)
        self.provider = DevnetProvider(self.chain)
        self.w3 = Web3(self.provider)
        self._snapshots: list[int] = []

    @property
    def chain_id(self) -> int:
        return self.chain.chain_id

    @property
    def now(self) -> int:
        """Timestamp of the head."""
        return self.chain.head.timestamp

    def account(self, name: str) -> LocalAccount:
        """The account of this name, with money."""
        if name not in self._accounts:
            account = dev_account(name)
            self.fund(account.address, BALANCE)
            self._accounts[name] = account
        return self._accounts[name]

    def fund(self, address: str, wei: int) -> None:
        """Sends `wei` to `address` from the faucet."""
        faucet = self._accounts["faucet"]
        signed = faucet.sign_transaction(
            {
                "type": 2,
                "chainId": self.chain_id,
                "nonce": self.w3.eth.get_transaction_count(faucet.address, "pending"),
                "to": to_bytes(hexstr=HexStr(address)),
                "value": wei,
                "data": b"",
                "gas": 100_000,
                "maxFeePerGas": 100 * 10**9,
                "maxPriorityFeePerGas": PRIORITY_FEE,
            }
        )
        self.w3.eth.send_raw_transaction(signed.raw_transaction)

    def advance(self, seconds: int) -> int:
        """Mines an empty block `seconds` after the head (and what waits in the pool with it); returns the new time."""
        self.chain.set_next_timestamp(self.now + seconds)
        self.provider.mine()
        return self.now

    def set_next_timestamp(self, timestamp: int) -> None:
        """The next block, and a "pending" simulation before it, has exactly this timestamp."""
        self.chain.set_next_timestamp(timestamp)

    def mine(self, blocks: int = 1) -> None:
        """Mines blocks one second apart; the first holds what waits in the pool."""
        for _ in range(blocks):
            self.provider.mine()

    @property
    def automine(self) -> bool:
        """Whether each transaction is mined at once in a block of its own (the default) or waits for `mine`."""
        return self.provider.automine

    @automine.setter
    def automine(self, on: bool) -> None:
        self.provider.automine = on

    def snapshot(self) -> int:
        """Remembers the head; `revert` with the returned id comes back to it."""
        self._snapshots.append(self.chain.head.number)
        return len(self._snapshots) - 1

    def revert(self, snapshot: int) -> None:
        """Back to the head at that snapshot; later blocks are forgotten, which to a reader is a reorg. The snapshot
        stays good."""
        self.chain.revert_to(self._snapshots[snapshot])
        del self._snapshots[snapshot + 1 :]
        self.provider.pool = []


def _base_fee(block: Block) -> int:
    fee = block.header.base_fee_per_gas
    assert fee is not None, "a Prague header has a base fee"
    return fee


def _matches(log: Log, topics: list[set[bytes] | None]) -> bool:
    return len(log.topics) >= len(topics) and all(
        wanted is None or topic in wanted for topic, wanted in zip(log.topics, topics, strict=False)
    )


def _hex(data: bytes) -> str:
    return "0x" + bytes(data).hex()


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else bytes.fromhex(text.removeprefix("0x"))


def _int(value: int | str) -> int:
    return value if isinstance(value, int) else int(value, 16)


__all__ = ["BLOCK_GAS_LIMIT", "CHAIN_ID", "Devnet", "DevnetProvider", "dev_account"]
