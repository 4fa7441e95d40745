"""Logs become events, or a typed error."""

from __future__ import annotations

import random
from typing import Any

import pytest
from chain_play import Tree, random_params, random_work
from conftest import Deployed
from hexbytes import HexBytes

from node.chain.sender import Sent
from node.errors import ConfigError, MalformedLog, VerdeError
from node.events import EVENTS, Committed, TaskCreated, decode_log, decoders
from node.structs import ZERO


@pytest.fixture
def created(deployed: Deployed) -> tuple[dict[str, Any], TaskCreated]:
    """The log of a new task, and what it should say."""
    rng = random.Random(1)
    work = random_work(rng)
    members = [deployed.sender(f"member {i}").address for i in range(3)]
    params = random_params(rng, work, deployed.referee, members, 2)
    client = deployed.sender("client")
    sent = client.send(deployed.verde.create_task(params))
    assert isinstance(sent, Sent)
    (event,) = sent.events
    assert isinstance(event, TaskCreated)
    assert event.params == params
    assert (event.task_id, event.client, event.time) == (1, client.address, deployed.devnet.now)
    assert event.params.initial_state_root == Tree(work.initial_slots(), 2).root
    log = dict(deployed.rpc.w3.eth.get_transaction_receipt(HexBytes(sent.tx_hash))["logs"][0])
    return log, event


def test_every_event_of_the_abi_has_a_class() -> None:
    assert {decoder.cls for decoder in decoders().values()} == set(EVENTS)
    assert len(decoders()) == len(EVENTS)


def test_a_log_decodes_with_its_place(created: tuple[dict[str, Any], TaskCreated]) -> None:
    log, event = created
    decoded = decode_log(log)
    assert decoded == event
    assert (decoded.meta.block, decoded.meta.log_index) == (log["blockNumber"], 0)
    assert decoded.meta.block_hash == bytes(log["blockHash"])
    assert decoded.meta.tx_hash == bytes(log["transactionHash"])


def test_meta_orders_events_and_does_not_make_them_differ(created: tuple[dict[str, Any], TaskCreated]) -> None:
    log, event = created
    later = decode_log({**log, "blockNumber": log["blockNumber"] + 1})
    assert later == event
    assert later.meta > event.meta


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda log: {**log, "data": log["data"][:-1]}, "do not fit"),
        (lambda log: {**log, "data": log["data"][:-32]}, "do not fit"),
        (lambda log: {**log, "data": bytes(log["data"]) + bytes(32)}, "canonical"),
        (lambda log: {**log, "data": b""}, "do not fit"),
        (lambda log: {**log, "data": bytes(log["data"])[:32] + b"\xff" * 32 + bytes(log["data"])[64:]}, "do not fit"),
        (lambda log: {**log, "data": bytes(64) + b"\xff" * 32 + bytes(log["data"])[96:]}, "do not fit"),
        (lambda log: {**log, "topics": log["topics"][:2]}, "do not fit"),
        (lambda log: {**log, "topics": [*log["topics"], HexBytes(ZERO)]}, "canonical|do not fit"),
        (lambda log: {**log, "topics": [HexBytes(b"\x01" * 32), *log["topics"][1:]]}, "no event"),
        (lambda log: {**log, "topics": []}, "no event"),
        (lambda log: {k: v for k, v in log.items() if k != "blockHash"}, "fields"),
        (lambda log: {**log, "blockNumber": None}, "fields"),
        (lambda log: {**log, "topics": None}, "fields"),
    ],
)
def test_a_malformed_log_is_a_typed_error(created: tuple[dict[str, Any], TaskCreated], change: Any, says: str) -> None:
    with pytest.raises(MalformedLog, match=says) as caught:
        decode_log(change(created[0]))
    assert caught.value.exit_code == 3


def test_random_bytes_never_escape_the_error_tree(created: tuple[dict[str, Any], TaskCreated]) -> None:
    log, _ = created
    rng = random.Random(7)
    refused = 0
    for _ in range(300):
        data = bytearray(log["data"])
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            decode_log({**log, "data": bytes(data)})
        except VerdeError as error:
            assert isinstance(error, MalformedLog)
            refused += 1
    assert refused > 0


def test_an_unknown_enum_value_is_malformed() -> None:
    topic, decoder = next((t, d) for t, d in decoders().items() if d.cls.__name__ == "MatchEnded")
    words = [9, 0, 0, 0, 0]  # outcome 9
    log = {
        "topics": [topic, (1).to_bytes(32, "big"), (1).to_bytes(32, "big")],
        "data": b"".join(word.to_bytes(32, "big") for word in words),
        "blockNumber": 1,
        "logIndex": 0,
        "blockHash": ZERO,
        "transactionHash": ZERO,
    }
    assert decoder.names[2] == "outcome"
    with pytest.raises(MalformedLog, match="Outcome"):
        decode_log(log)


def test_a_class_that_drifts_from_the_abi_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    decoders.cache_clear()
    monkeypatch.setattr("node.events.EVENTS", tuple(cls for cls in EVENTS if cls is not Committed))
    with pytest.raises(ConfigError, match="Committed"):
        decoders()
    monkeypatch.undo()
    decoders.cache_clear()
    decoders()
