"""The development chain: time to the second, snapshots, and JSON-RPC answers in the shapes of a real node."""

from __future__ import annotations

import pytest
from conftest import Deployed
from eth_account import Account
from web3.exceptions import BlockNotFound, ContractCustomError, TransactionNotFound, Web3RPCError

from node.chain.devnet import BALANCE, Devnet, dev_account
from node.structs import BURN


def transfer(devnet: Devnet, wei: int, *, nonce: int | None = None, fee: int = 10**10, gas: int = 21_000) -> bytes:
    """A signed transfer from the account "a" to the burn address."""
    account = devnet.account("a")
    used = devnet.w3.eth.get_transaction_count(account.address, "pending") if nonce is None else nonce
    signed = account.sign_transaction(
        {
            "type": 2,
            "chainId": devnet.chain_id,
            "nonce": used,
            "to": BURN,
            "value": wei,
            "data": b"",
            "gas": gas,
            "maxFeePerGas": fee,
            "maxPriorityFeePerGas": 10**9,
        }
    )
    return bytes(signed.raw_transaction)


def test_a_transaction_costs_one_second_and_advance_is_exact() -> None:
    devnet = Devnet(names=("a",))
    start = devnet.now
    devnet.w3.eth.send_raw_transaction(transfer(devnet, 5))
    assert devnet.now == start + 1
    assert devnet.advance(1_000) == start + 1_001
    devnet.set_next_timestamp(start + 5_000)
    devnet.w3.eth.send_raw_transaction(transfer(devnet, 5))
    assert devnet.now == start + 5_000
    assert devnet.w3.eth.get_block("latest")["timestamp"] == start + 5_000
    with pytest.raises(ValueError, match="later"):
        devnet.set_next_timestamp(start + 5_000)


def test_money_moves_and_the_receipt_says_what_it_cost() -> None:
    devnet = Devnet(names=("a",))
    tx = devnet.w3.eth.send_raw_transaction(transfer(devnet, 5))
    receipt = devnet.w3.eth.get_transaction_receipt(tx)
    assert (receipt["status"], receipt["gasUsed"]) == (1, 21_000)
    assert devnet.w3.eth.get_balance(BURN) == 5
    paid = receipt["gasUsed"] * receipt["effectiveGasPrice"]
    assert devnet.w3.eth.get_balance(devnet.account("a").address) == BALANCE - 5 - paid
    assert devnet.w3.eth.get_transaction(tx)["value"] == 5
    with pytest.raises(TransactionNotFound):
        devnet.w3.eth.get_transaction_receipt(bytes(32))


def test_one_block_holds_what_waited() -> None:
    devnet = Devnet(names=("a",))
    devnet.automine = False
    hashes = [devnet.w3.eth.send_raw_transaction(transfer(devnet, i)) for i in range(3)]
    assert devnet.w3.eth.get_balance(BURN) == 0
    devnet.mine()
    block = devnet.w3.eth.get_block("latest")
    assert block["transactions"] == hashes
    assert [devnet.w3.eth.get_transaction_receipt(h)["transactionIndex"] for h in hashes] == [0, 1, 2]
    assert block["gasUsed"] == 63_000
    assert devnet.w3.eth.get_balance(BURN) == 3


def test_snapshot_and_revert() -> None:
    devnet = Devnet(names=("a",))
    snapshot = devnet.snapshot()
    head = devnet.w3.eth.get_block("latest")["hash"]
    tx = devnet.w3.eth.send_raw_transaction(transfer(devnet, 5))
    gone = devnet.w3.eth.get_block("latest")["hash"]
    for _ in range(2):  # a snapshot stays good
        devnet.revert(snapshot)
        assert devnet.w3.eth.get_block("latest")["hash"] == head
        assert devnet.w3.eth.get_balance(BURN) == 0
        with pytest.raises(TransactionNotFound):
            devnet.w3.eth.get_transaction_receipt(tx)
        with pytest.raises(BlockNotFound):
            devnet.w3.eth.get_block(gone)
        devnet.w3.eth.send_raw_transaction(transfer(devnet, 7))
        assert devnet.w3.eth.get_balance(BURN) == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nonce": 5}, "nonce"),
        ({"wei": 2 * BALANCE}, "insufficient funds"),
        ({"fee": 10**6}, "fee"),
        ({"gas": 100_000_000}, "gas limit"),
    ],
)
def test_what_cannot_be_mined_is_refused(changes: dict[str, int], message: str) -> None:
    devnet = Devnet(names=("a",))
    raw = transfer(devnet, changes.pop("wei", 1), **changes)
    with pytest.raises(Web3RPCError, match=message):
        devnet.w3.eth.send_raw_transaction(raw)
    assert devnet.w3.eth.block_number == 0
    assert devnet.w3.eth.get_balance(BURN) == 0


def test_a_transaction_counts_once() -> None:
    devnet = Devnet(names=("a",))
    raw = transfer(devnet, 5)
    devnet.w3.eth.send_raw_transaction(raw)
    with pytest.raises(Web3RPCError, match="already known"):
        devnet.w3.eth.send_raw_transaction(raw)
    with pytest.raises(Web3RPCError, match="nonce too low"):
        devnet.w3.eth.send_raw_transaction(transfer(devnet, 6, nonce=0))
    with pytest.raises(Web3RPCError, match="invalid transaction"):
        devnet.w3.eth.send_raw_transaction(b"\x02\xc0")
    assert devnet.w3.eth.get_balance(BURN) == 5


def test_accounts_have_money_and_follow_from_their_names() -> None:
    devnet = Devnet(names=("a",))
    assert devnet.w3.eth.get_balance(devnet.account("a").address) == BALANCE
    assert devnet.w3.eth.get_balance(devnet.account("late").address) == BALANCE
    assert devnet.account("late").address == dev_account("late").address
    assert dev_account("a").address != dev_account("b").address
    nobody = Account.create().address
    assert devnet.w3.eth.get_balance(nobody) == 0


def test_a_custom_error_comes_as_from_a_real_node(deployed: Deployed) -> None:
    """Revert data under error.data, code 3: web3 makes a ContractCustomError of it."""
    call = deployed.verde.pair(77)
    w3 = deployed.rpc.w3
    for request in (w3.eth.call, w3.eth.estimate_gas):
        with pytest.raises(ContractCustomError) as caught:
            request({"to": call.to, "data": call.data, "from": deployed.sender("client").address})
        assert str(caught.value.data).endswith(f"{77:064x}")


def test_latest_and_pending_see_their_own_time(deployed: Deployed) -> None:
    """`latest` runs in the head's context, `pending` in that of the block to come."""
    code = bytes.fromhex("4260005260206000f3")  # TIMESTAMP PUSH1 0 MSTORE PUSH1 32 PUSH1 0 RETURN
    devnet = deployed.devnet
    devnet.set_next_timestamp(devnet.now + 500)
    seen = [int.from_bytes(devnet.w3.eth.call({"data": code}, tag), "big") for tag in ("latest", "pending")]
    assert seen == [devnet.now, devnet.now + 500]


def test_logs_by_range_address_and_topic(deployed: Deployed) -> None:
    w3, verde = deployed.rpc.w3, deployed.verde
    before = w3.eth.block_number
    deployed.devnet.mine(3)
    assert w3.eth.get_logs({"fromBlock": 0, "toBlock": before + 3, "address": BURN}) == []
    assert w3.eth.get_logs({"fromBlock": before + 100, "toBlock": before + 200, "address": verde.address}) == []


def test_an_unknown_method_is_an_error() -> None:
    answer = Devnet().provider.make_request("eth_mining", [])  # type: ignore[arg-type]
    assert answer["error"]["code"] == -32601
