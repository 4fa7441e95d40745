"""The sender: simulation, receipts, the contract's errors by name, what is done already, and endpoints that fail."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
from chain_play import random_params, random_work
from conftest import Deployed
from eth_account import Account
from test_chain import FAULTS, SECRET, FaultyProvider, answer, refuse

from node.chain.contracts import Verde
from node.chain.rpc import Rpc
from node.chain.sender import AlreadyDone, Fees, Sender, Sent
from node.errors import ChainError, RpcUnavailable, TxReverted, TxUnresolved, VerdeError
from node.events import Committed, Credited, TaskCreated
from node.structs import TaskParams


@pytest.fixture
def params(deployed: Deployed) -> TaskParams:
    rng = random.Random(3)
    members = [deployed.sender(f"member {i}").address for i in range(3)]
    return random_params(rng, random_work(rng), deployed.referee, members, 2)


@pytest.fixture
def faulty(deployed: Deployed) -> FaultyProvider:
    return FaultyProvider(deployed.devnet.provider)


@pytest.fixture
def over(deployed: Deployed, faulty: FaultyProvider) -> Sender:
    """The client's sender over an endpoint with faults."""
    rpc = Rpc(faulty, deployed.devnet.chain_id)
    return Sender(rpc, deployed.devnet.account("client"), poll=0.01, timeout=0.3)


def test_a_sent_call_is_recorded_with_its_cost(deployed: Deployed, params: TaskParams) -> None:
    heard: list[Sent] = []
    client = Sender(deployed.rpc, deployed.devnet.account("client"), on_sent=heard.append)
    before = client.balance()
    sent = client.send(deployed.verde.create_task(params))
    assert isinstance(sent, Sent)
    receipt = deployed.rpc.w3.eth.get_transaction_receipt(sent.tx_hash)
    assert (sent.verb, sent.block, sent.gas) == ("create_task", receipt["blockNumber"], receipt["gasUsed"])
    assert client.balance() == before - sent.fee - params.reward * params.seats
    assert isinstance(sent.events[0], TaskCreated)
    assert client.sent == heard == [sent]


def test_a_refusal_of_the_contract_is_named_and_costs_nothing(deployed: Deployed, params: TaskParams) -> None:
    client = deployed.sender("client")
    before = client.balance()
    with pytest.raises(TxReverted) as caught:
        client.send(deployed.verde.pair(9))
    assert (caught.value.error, caught.value.arguments) == ("UnknownTask", {"task_id": 9})
    assert "task 9" in str(caught.value)
    assert "UnknownTask(task_id=9)" in str(caught.value)
    client.send(deployed.verde.create_task(params))
    with pytest.raises(TxReverted) as caught:
        client.send(deployed.verde.commit(1, bytes(32), bond=params.bond - 1))
    assert caught.value.arguments == {"sent": params.bond - 1, "needed": params.bond}
    assert client.balance() == before - client.sent[0].fee - params.reward * params.seats


def test_what_somebody_did_before_is_already_done(deployed: Deployed, params: TaskParams) -> None:
    client, other = deployed.sender("client"), deployed.sender("provider 0")
    client.send(deployed.verde.create_task(params))
    first = client.send(deployed.verde.cancel(1))
    assert isinstance(first, Sent)
    assert [type(event).__name__ for event in first.events] == ["Cancelled", "Credited"]
    again = client.send(deployed.verde.cancel(1))
    assert isinstance(again, AlreadyDone)
    assert again.error.error == "WrongStatus"
    assert isinstance(other.send(deployed.verde.withdraw(client.address)), Sent)
    assert isinstance(client.send(deployed.verde.withdraw(client.address)), AlreadyDone)


def test_a_seat_taken_twice_is_already_done(deployed: Deployed, params: TaskParams) -> None:
    provider = deployed.sender("provider 0")
    deployed.sender("client").send(deployed.verde.create_task(params))
    call = deployed.verde.commit(1, bytes(32), bond=params.bond)
    sent = provider.send(call)
    assert isinstance(sent, Sent)
    assert sent.events == (Committed(1, provider.address, 0, bytes(32), meta=sent.events[0].meta),)
    assert isinstance(provider.send(call), AlreadyDone)


def test_a_race_lost_on_the_chain_is_already_done(deployed: Deployed, params: TaskParams) -> None:
    """Two send the same call at once: both simulations pass, one transaction reverts in the block."""
    client = deployed.sender("client")
    client.send(deployed.verde.create_task(params))
    deployed.devnet.advance(params.commit_window)
    one, two = deployed.sender("provider 0"), deployed.sender("provider 1")
    call = deployed.verde.expire(1)
    deployed.devnet.automine = False
    for sender in (one, two):
        sender.timeout = 0.0
        with pytest.raises(TxUnresolved):
            sender.send(call)
    deployed.devnet.automine = True
    hashes = [bytes(t.hash) for t in deployed.devnet.provider.pool]
    deployed.devnet.mine()
    statuses = [deployed.rpc.w3.eth.get_transaction_receipt(h)["status"] for h in hashes]
    assert statuses == [1, 0]
    error = one._why(call, hashes[1])
    assert (error.error, error.tx_hash) == ("WrongStatus", hashes[1])
    assert isinstance(one.send(call), AlreadyDone)


def test_a_transaction_that_reverts_in_its_block(deployed: Deployed, faulty: FaultyProvider, over: Sender) -> None:
    """An endpoint that simulates wrongly: the transaction is mined, reverts, and the reason is found."""
    faulty.faults["eth_estimateGas"] = answer(hex(200_000))
    with pytest.raises(TxReverted) as caught:
        over.send(Verde(over.rpc, deployed.verde.address).pair(9))
    assert caught.value.error == "UnknownTask"
    assert caught.value.tx_hash == deployed.devnet.chain.head.transactions[0].hash
    assert over.sent == []


def test_an_endpoint_that_gives_no_reason_for_an_estimate(
    deployed: Deployed, faulty: FaultyProvider, over: Sender
) -> None:
    faulty.faults["eth_estimateGas"] = refuse(3, "execution reverted")
    with pytest.raises(TxReverted) as caught:
        over.send(deployed.verde.pair(9))
    assert caught.value.error == "UnknownTask"


def test_a_transaction_without_a_receipt_is_unresolved(
    deployed: Deployed, faulty: FaultyProvider, over: Sender, params: TaskParams
) -> None:
    faulty.faults["eth_getTransactionReceipt"] = answer(None)
    with pytest.raises(TxUnresolved) as caught:
        over.send(deployed.verde.create_task(params))
    assert caught.value.tx_hash == deployed.devnet.chain.head.transactions[0].hash


def test_a_lost_answer_to_a_sent_transaction_does_not_send_twice(
    deployed: Deployed, faulty: FaultyProvider, over: Sender, params: TaskParams
) -> None:
    """The endpoint takes the transaction and says "already known", as after a retry below us."""

    def twice(request: Any) -> Any:
        faulty.inner.make_request("eth_sendRawTransaction", request)  # type: ignore[arg-type]
        return faulty.inner.make_request("eth_sendRawTransaction", request)  # type: ignore[arg-type]

    faulty.faults["eth_sendRawTransaction"] = twice
    assert isinstance(over.send(deployed.verde.create_task(params)), Sent)
    assert deployed.verde.task_count() == 1


@pytest.mark.parametrize(
    "method", ["eth_estimateGas", "eth_getTransactionCount", "eth_getBlockByNumber", "eth_sendRawTransaction"]
)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_endpoint_is_a_typed_error(
    deployed: Deployed, faulty: FaultyProvider, over: Sender, params: TaskParams, method: str, fault: Any
) -> None:
    faulty.faults[method] = fault
    with pytest.raises(VerdeError) as caught:
        over.send(deployed.verde.create_task(params))
    assert caught.value.exit_code == 3
    assert SECRET not in str(caught.value)
    assert deployed.verde.task_count() == 0
    faulty.faults.clear()
    assert isinstance(over.send(deployed.verde.create_task(params)), Sent)


def test_an_account_without_money(deployed: Deployed, params: TaskParams) -> None:
    poor = Sender(deployed.rpc, Account.create())
    with pytest.raises(ChainError) as caught:
        poor.send(deployed.verde.create_task(params))
    assert poor.address in str(caught.value)
    assert poor.balance() == 0


def test_fees_have_a_cap(deployed: Deployed, params: TaskParams) -> None:
    sender = Sender(deployed.rpc, deployed.devnet.account("client"), fees=Fees(cap=1))
    with pytest.raises(ChainError, match="cap"):
        sender.send(deployed.verde.create_task(params))
    assert deployed.verde.task_count() == 0


def test_a_chain_without_a_fee_oracle(
    deployed: Deployed, faulty: FaultyProvider, over: Sender, params: TaskParams
) -> None:
    faulty.faults["eth_maxPriorityFeePerGas"] = refuse(-32601, "no such method")
    assert isinstance(over.send(deployed.verde.create_task(params)), Sent)


def test_keys_stay_out_of_logs_and_errors(
    deployed: Deployed, params: TaskParams, caplog: pytest.LogCaptureFixture
) -> None:
    sender = deployed.sender("client")
    key = sender.account.key.hex().removeprefix("0x")
    with caplog.at_level(logging.DEBUG):
        sender.send(deployed.verde.create_task(params))
        with pytest.raises(TxReverted) as caught:
            sender.send(deployed.verde.pair(9))
    for text in (caplog.text, str(caught.value), repr(sender), repr(sender.sent)):
        assert key not in text


def test_money_events_follow_a_cancelled_task(deployed: Deployed, params: TaskParams) -> None:
    client = deployed.sender("client")
    client.send(deployed.verde.create_task(params))
    sent = client.send(deployed.verde.cancel(1))
    assert isinstance(sent, Sent)
    assert [e.amount for e in sent.events if isinstance(e, Credited)] == [params.reward * params.seats]
    with pytest.raises(RpcUnavailable):
        Rpc("http://127.0.0.1:9", deployed.devnet.chain_id)
