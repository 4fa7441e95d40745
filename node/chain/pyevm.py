"""A chain inside the process: py-evm under Prague rules, one producer, exact control of time.

py-evm is used directly. eth-tester was measured and left out: it finds a transaction by walking all blocks, recovers
each sender twice, reverts a snapshot by importing a block anew, and shapes a revert in a way of its own, so a sender
tested on it is not tested for a real node. Here a transaction, a receipt and a log are looked up in a dict, a snapshot
is a block number, and `node/chain/devnet.py` answers in the JSON-RPC shapes of geth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from eth.abc import BlockHeaderAPI, ChainAPI, ComputationAPI, SignedTransactionAPI, VirtualMachineAPI
from eth.chains.base import MiningChain
from eth.constants import BLANK_ROOT_HASH, POST_MERGE_DIFFICULTY, POST_MERGE_MIX_HASH, POST_MERGE_NONCE
from eth.db.atomic import AtomicDB
from eth.exceptions import InvalidInstruction, Revert
from eth.vm.forks.prague import PragueVM
from eth.vm.spoof import SpoofTransaction
from eth_typing import Address, BlockNumber, Hash32
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException

BLOCK_GAS_LIMIT = 60_000_000


class Rejected(Exception):
    """A transaction that a node would not take into its pool; the message is geth's."""


class Reverted(Exception):
    """A simulated call failed. `data` is the revert data, empty for an exceptional halt."""

    def __init__(self, reason: str, data: bytes) -> None:
        self.reason, self.data = reason, data
        super().__init__(reason)


@dataclass(frozen=True)
class Log:
    """One log as the chain keeps it; `index` counts within the block."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    index: int


@dataclass(frozen=True)
class Mined:
    """One transaction with its outcome."""

    transaction: SignedTransactionAPI
    hash: bytes
    sender: bytes
    index: int
    status: int
    gas_used: int
    cumulative_gas: int
    contract: bytes | None
    logs: tuple[Log, ...]


@dataclass(frozen=True)
class Block:
    """A block of the chain."""

    header: BlockHeaderAPI
    transactions: tuple[Mined, ...]

    @cached_property
    def hash(self) -> bytes:
        return bytes(self.header.hash)

    @property
    def number(self) -> int:
        return int(self.header.block_number)

    @property
    def timestamp(self) -> int:
        return int(self.header.timestamp)


class EvmChain:
    """Blocks on py-evm. Every block costs at least one second of chain time; nothing else moves the clock.

    `balances` maps addresses to wei at genesis, `timestamp` is the genesis time.
    """

    def __init__(self, *, chain_id: int, timestamp: int, balances: Mapping[bytes, int]) -> None:
        id_of_chain = chain_id

        class Chain(MiningChain):
            chain_id = id_of_chain
            vm_configuration = ((BlockNumber(0), PragueVM),)

        self.chain_id = chain_id
        self._chain: ChainAPI = Chain.from_genesis(
            AtomicDB(),
            {
                "coinbase": Address(bytes(20)),
                "difficulty": POST_MERGE_DIFFICULTY,
                "extra_data": b"",
                "gas_limit": BLOCK_GAS_LIMIT,
                "mix_hash": POST_MERGE_MIX_HASH,
                "nonce": POST_MERGE_NONCE,
                "receipt_root": BLANK_ROOT_HASH,
                "timestamp": timestamp,
                "transaction_root": BLANK_ROOT_HASH,
            },
            {
                Address(address): {"balance": wei, "nonce": 0, "code": b"", "storage": {}}
                for address, wei in balances.items()
            },
        )
        genesis = self._chain.get_canonical_block_header_by_number(BlockNumber(0))
        self.blocks: list[Block] = [Block(genesis, ())]
        self._by_hash: dict[bytes, Block] = {self.blocks[0].hash: self.blocks[0]}
        self._mined: dict[bytes, tuple[Block, Mined]] = {}
        self._next_timestamp: int | None = None

    @property
    def head(self) -> Block:
        return self.blocks[-1]

    @property
    def next_timestamp(self) -> int:
        """The timestamp that the next block will carry."""
        return self.head.timestamp + 1 if self._next_timestamp is None else self._next_timestamp

    def set_next_timestamp(self, timestamp: int) -> None:
        """The next block carries exactly `timestamp`. ValueError if it is not later than the head's."""
        if timestamp <= self.head.timestamp:
            raise ValueError(f"the next block must be later than {self.head.timestamp}, not {timestamp}")
        self._next_timestamp = timestamp

    def block_by_hash(self, block_hash: bytes) -> Block | None:
        return self._by_hash.get(block_hash)

    def mined(self, tx_hash: bytes) -> tuple[Block, Mined] | None:
        return self._mined.get(tx_hash)

    def revert_to(self, number: int) -> None:
        """Forgets every block after `number`. The states they led to stay in the database and harm nobody."""
        if not 0 <= number < len(self.blocks):
            raise ValueError(f"there is no block {number}, the head is {self.head.number}")
        for block in self.blocks[number + 1 :]:
            del self._by_hash[block.hash]
            for mined in block.transactions:
                del self._mined[mined.hash]
        del self.blocks[number + 1 :]
        self._next_timestamp = None

    def decode(self, raw: bytes) -> SignedTransactionAPI:
        """The signed transaction in `raw`, checked against the head state as a pool would. Raises Rejected."""
        try:
            transaction = self._vm(self._next_header()).get_transaction_builder().decode(raw)
            sender = transaction.sender
        except (RLPException, ValidationError, ValueError, TypeError, IndexError) as error:
            raise Rejected(f"rlp: invalid transaction: {error}") from error
        if bytes(transaction.hash) in self._mined:
            raise Rejected("already known")
        if transaction.chain_id not in (None, self.chain_id):
            raise Rejected(f"invalid chain id for signer: have {transaction.chain_id} want {self.chain_id}")
        state = self.state()
        nonce = state.get_nonce(sender)
        if transaction.nonce < nonce:
            raise Rejected(f"nonce too low: next nonce {nonce}, tx nonce {transaction.nonce}")
        if transaction.gas > BLOCK_GAS_LIMIT:
            raise Rejected("exceeds block gas limit")
        cost = transaction.value + transaction.gas * transaction.max_fee_per_gas
        if state.get_balance(sender) < cost:
            raise Rejected(f"insufficient funds for gas * price + value: have {state.get_balance(sender)} want {cost}")
        return transaction

    def mine(self, transactions: Sequence[SignedTransactionAPI] = ()) -> Block:
        """Mines one block with these transactions, in this order. Raises Rejected (and mines nothing) if one cannot be
        included: a wrong nonce, a fee below the base fee, a sender without the money."""
        header = self._next_header()
        vm = self._vm(header)
        try:
            filled, receipts, computations = vm.apply_all_transactions(transactions, header)
        except ValidationError as error:
            raise Rejected(str(error)) from error
        block = vm.mine_block(vm.set_block_transactions_and_withdrawals(vm.get_block(), filled, transactions, receipts))
        self._chain.chaindb.persist_header(block.block.header)  # BLOCKHASH reads ancestors from here
        mined: list[Mined] = []
        before, log_index = 0, 0
        for index, (tx, receipt, computation) in enumerate(zip(transactions, receipts, computations, strict=True)):
            logs = tuple(
                Log(bytes(log.address), tuple(topic.to_bytes(32, "big") for topic in log.topics), bytes(log.data), at)
                for at, log in enumerate(receipt.logs, log_index)
            )
            log_index += len(logs)
            created = computation.msg.is_create and not computation.is_error
            contract = bytes(computation.msg.storage_address) if created else None
            used = receipt.gas_used - before
            before = receipt.gas_used
            status = int(not computation.is_error)
            mined.append(Mined(tx, bytes(tx.hash), bytes(tx.sender), index, status, used, before, contract, logs))
        done = Block(block.block.header, tuple(mined))
        self.blocks.append(done)
        self._by_hash[done.hash] = done
        self._mined.update((m.hash, (done, m)) for m in mined)
        self._next_timestamp = None
        return done

    def state(self, block: Block | None = None) -> Any:
        """py-evm's account and storage state after `block` (the head by default); read only."""
        return self._vm((block or self.head).header).state

    def simulate(
        self, *, sender: bytes, to: bytes | None, value: int, data: bytes, gas: int | None, block: Block | None
    ) -> tuple[bytes, int]:
        """Executes a call on the state after `block`, in that block's context, or, with `block=None`, on the head state
        in the context of the block to come ("pending"). Returns the output and the gas that a transaction must offer.
        Fees are not charged, as in eth_call. Raises Reverted, or Rejected if the sender lacks the value."""
        header = self._next_header() if block is None else block.header
        header = header.copy(base_fee_per_gas=0, gas_used=0)
        vm = self._vm(header)
        balance = vm.state.get_balance(Address(sender))
        if balance < value:
            raise Rejected(f"insufficient funds for gas * price + value: have {balance} want {value}")
        limit = min(gas or BLOCK_GAS_LIMIT, BLOCK_GAS_LIMIT)
        builder: Any = vm.get_transaction_builder()
        unsigned = builder.new_unsigned_dynamic_fee_transaction(
            chain_id=self.chain_id,
            nonce=vm.state.get_nonce(Address(sender)),
            max_priority_fee_per_gas=0,
            max_fee_per_gas=0,
            gas=limit,
            to=Address(to or b""),
            value=value,
            data=data,
            access_list=(),
        )
        try:
            spoofed: Any = SpoofTransaction(unsigned, from_=sender)
            computation: ComputationAPI = vm.state.apply_transaction(spoofed)
        except ValidationError as error:
            raise Rejected(str(error)) from error
        if computation.is_error:
            if isinstance(computation.error, Revert):
                raise Reverted("execution reverted", bytes(computation.output))
            invalid = isinstance(computation.error, InvalidInstruction)
            name = "invalid opcode" if invalid else type(computation.error).__name__
            raise Reverted(f"execution failed: {name}", b"")
        used = limit - computation.get_gas_remaining()
        # Refunds come after the fact and 1/64 of the gas stays behind at each call: offer more than what was used.
        return bytes(computation.output), used + used // 8 + 10_000

    def _next_header(self) -> BlockHeaderAPI:
        number = self.head.number + 1
        header: BlockHeaderAPI = PragueVM.create_header_from_parent(
            self.head.header,
            timestamp=self.next_timestamp,
            gas_limit=BLOCK_GAS_LIMIT,
            mix_hash=Hash32(keccak(number.to_bytes(32, "big"))),
        )
        return header

    def _vm(self, header: BlockHeaderAPI) -> VirtualMachineAPI:
        return self._chain.get_vm(header)
