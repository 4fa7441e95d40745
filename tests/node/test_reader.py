"""The follower: ranges, halving, reorgs, endpoints that lag, lie or fail."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from chain_play import random_params, random_work
from conftest import Deployed
from test_chain import FAULTS, FaultyProvider, answer, refuse

from node.chain.reader import Follower, LogReader
from node.chain.rpc import Rpc
from node.chain.sender import Sent
from node.errors import InconsistentEvents, MalformedLog, RpcUnavailable, VerdeError
from node.events import TaskCreated, Withdrawn
from node.fold import ChainState, fold
from node.structs import TaskParams


@pytest.fixture
def params(deployed: Deployed) -> TaskParams:
    rng = random.Random(3)
    members = [deployed.sender(f"member {i}").address for i in range(3)]
    return random_params(rng, random_work(rng), deployed.referee, members, 2)


@pytest.fixture
def create(deployed: Deployed, params: TaskParams) -> Callable[[], int]:
    """Creates a task; returns the block it stands in."""
    client = deployed.sender("client")

    def go() -> int:
        sent = client.send(deployed.verde.create_task(params))
        assert isinstance(sent, Sent)
        return sent.block

    return go


@pytest.fixture
def faulty(deployed: Deployed) -> FaultyProvider:
    return FaultyProvider(deployed.devnet.provider)


def follow(deployed: Deployed, provider: FaultyProvider, **options: Any) -> Follower:
    rpc = Rpc(provider, deployed.devnet.chain_id)
    return Follower(LogReader(rpc, deployed.verde.address, **options))


def test_each_event_comes_once(deployed: Deployed, create: Callable[[], int]) -> None:
    follower = deployed.follower()
    assert follower.tick().events == ()
    create()
    create()
    update = follower.tick()
    assert [type(event) for event in update.events] == [TaskCreated, TaskCreated]
    assert (len(update.state.tasks), update.rewound_to) == (2, None)
    assert update.head.number == deployed.devnet.chain.head.number
    assert update.head.timestamp == deployed.devnet.now
    assert follower.tick().events == ()
    assert follower.state is update.state


def test_several_events_of_one_block(deployed: Deployed, params: TaskParams) -> None:
    deployed.devnet.automine = False
    for name in ("client", "provider 0", "provider 1"):
        sender = deployed.sender(name)
        sender.timeout = 0.0
        with pytest.raises(VerdeError, match="no receipt"):
            sender.send(deployed.verde.create_task(params))
    deployed.devnet.mine()
    update = deployed.follower().tick()
    assert [event.meta.log_index for event in update.events] == [0, 1, 2]
    assert len({event.meta.block for event in update.events}) == 1
    assert len(update.state.tasks) == 3


def test_a_refused_range_is_halved(deployed: Deployed, faulty: FaultyProvider, create: Callable[[], int]) -> None:
    for _ in range(3):
        create()
        deployed.devnet.mine(5)
    asked: list[int] = []

    def at_most_four(params: Any) -> Any:
        span = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
        asked.append(span)
        if span > 4:
            return refuse(-32005, "query returned more than 10000 results")(params)
        return faulty.inner.make_request("eth_getLogs", params)  # type: ignore[arg-type]

    faulty.faults["eth_getLogs"] = at_most_four
    update = follow(deployed, faulty).tick()
    assert len(update.state.tasks) == 3
    assert update.state == deployed.follower().tick().state
    assert max(asked) > 4
    assert sum(span for span in asked if span <= 4) == update.head.number + 1


def test_a_range_of_one_block_that_fails_is_an_error(deployed: Deployed, faulty: FaultyProvider) -> None:
    follower = follow(deployed, faulty)
    faulty.faults["eth_getLogs"] = refuse(-32005, "no")
    with pytest.raises(RpcUnavailable, match="no"):
        follower.tick()
    del faulty.faults["eth_getLogs"]
    assert follower.tick().state == ChainState()  # and the next tick works


@pytest.mark.parametrize("back", [1, 2, 5, 20])
def test_a_reorg_rewinds(deployed: Deployed, create: Callable[[], int], back: int) -> None:
    follower = deployed.follower()
    create()
    deployed.devnet.mine(3)
    follower.tick()
    snapshot, fork = deployed.devnet.snapshot(), deployed.devnet.chain.head.number
    for i in range(back):
        create()
        if i % 3 == 0:
            follower.tick()
    follower.tick()
    assert len(follower.state.tasks) == 1 + back
    deployed.devnet.revert(snapshot)
    deployed.devnet.advance(7)  # another block at the same height
    create()
    update = follower.tick()
    assert update.rewound_to is not None
    assert update.rewound_to <= fork
    assert len(update.state.tasks) == 2
    assert update.state == deployed.follower().tick().state


def test_a_reorg_to_a_shorter_chain(deployed: Deployed, create: Callable[[], int]) -> None:
    follower = deployed.follower()
    snapshot = deployed.devnet.snapshot()
    for _ in range(3):
        create()
        follower.tick()
    deployed.devnet.revert(snapshot)
    update = follower.tick()
    assert update.state == deployed.follower().tick().state
    assert update.state.tasks == {}


def test_a_reorg_deeper_than_the_memory_reads_again_from_the_start(
    deployed: Deployed, create: Callable[[], int]
) -> None:
    follower = Follower(LogReader(deployed.rpc, deployed.verde.address), depth=2)
    snapshot = deployed.devnet.snapshot()
    for _ in range(12):
        create()
        follower.tick()
    deployed.devnet.revert(snapshot)
    for _ in range(13):
        create()
    update = follower.tick()
    assert len(update.state.tasks) == 13
    assert update.state == deployed.follower().tick().state


def test_a_chain_that_changes_under_the_reading(
    deployed: Deployed, faulty: FaultyProvider, create: Callable[[], int]
) -> None:
    snapshot = deployed.devnet.snapshot()
    create()
    follower = follow(deployed, faulty)
    calls = 0

    def reorg_once(params: Any) -> Any:
        nonlocal calls
        calls += 1
        logs = faulty.inner.make_request("eth_getLogs", params)  # type: ignore[arg-type]
        if calls == 1:
            deployed.devnet.revert(snapshot)
            deployed.devnet.advance(50)
        return logs

    faulty.faults["eth_getLogs"] = reorg_once
    assert follower.tick().state.tasks == {}
    assert calls == 2


def test_an_endpoint_that_lags_shows_its_own_past(
    deployed: Deployed, faulty: FaultyProvider, create: Callable[[], int]
) -> None:
    follower = follow(deployed, faulty)
    first = create()
    follower.tick()
    create()
    follower.tick()
    old = faulty.inner.make_request("eth_getBlockByNumber", [hex(first), False])  # type: ignore[arg-type]

    def lag(params: Any) -> Any:
        if params[0] == "latest":
            return old
        return faulty.inner.make_request("eth_getBlockByNumber", params)  # type: ignore[arg-type]

    faulty.faults["eth_getBlockByNumber"] = lag
    assert len(follower.tick().state.tasks) == 1
    faulty.faults.clear()
    assert len(follower.tick().state.tasks) == 2


@pytest.mark.parametrize("method", ["eth_getLogs", "eth_getBlockByNumber"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_endpoint_leaves_the_state_alone(
    deployed: Deployed, faulty: FaultyProvider, create: Callable[[], int], method: str, fault: Any
) -> None:
    follower = follow(deployed, faulty)
    create()
    before = follower.tick().state
    create()
    faulty.faults[method] = fault
    with pytest.raises(VerdeError) as caught:
        follower.tick()
    assert caught.value.exit_code == 3
    assert follower.state == before
    faulty.faults.clear()
    assert len(follower.tick().state.tasks) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda logs: [{**log, "removed": True} for log in logs],
        lambda logs: [{**log, "address": "0x" + "11" * 20} for log in logs],
        lambda logs: [{**log, "blockNumber": "0x7fffffff"} for log in logs],
        lambda logs: [*logs, *logs],
        lambda logs: [{**log, "data": "0x"} for log in logs],
        lambda logs: [{k: v for k, v in log.items() if k != "topics"} for log in logs],
        lambda logs: list(reversed(logs)),
    ],
)
def test_an_endpoint_that_lies_about_logs(
    deployed: Deployed, faulty: FaultyProvider, create: Callable[[], int], change: Any
) -> None:
    follower = follow(deployed, faulty)
    create()
    create()

    def lie(params: Any) -> Any:
        logs = faulty.inner.make_request("eth_getLogs", params)["result"]  # type: ignore[arg-type]
        return answer(change(logs))(params)

    faulty.faults["eth_getLogs"] = lie
    with pytest.raises(MalformedLog):
        follower.tick()
    assert follower.state == ChainState()


def test_an_endpoint_that_hides_a_log(deployed: Deployed, faulty: FaultyProvider, create: Callable[[], int]) -> None:
    follower = follow(deployed, faulty)
    create()
    create()

    def hide(params: Any) -> Any:
        return answer(faulty.inner.make_request("eth_getLogs", params)["result"][1:])(params)  # type: ignore[arg-type]

    faulty.faults["eth_getLogs"] = hide
    with pytest.raises(InconsistentEvents, match="task 1 comes next"):
        follower.tick()


def test_an_event_folds_once(deployed: Deployed, create: Callable[[], int]) -> None:
    create()
    update = deployed.follower().tick()
    (event,) = update.events
    with pytest.raises(InconsistentEvents, match="last folded"):
        fold(update.state, event)
    with pytest.raises(InconsistentEvents, match="credit was 0"):
        fold(ChainState(), Withdrawn("0x" + "11" * 20, 5, meta=event.meta))
