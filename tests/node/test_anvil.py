"""The same code against a real node: anvil, where `npm install` has put it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain_play import random_params, random_work
from eth_account import Account

from node.chain.contracts import Verde
from node.chain.reader import Follower, LogReader
from node.chain.rpc import Rpc
from node.chain.sender import AlreadyDone, Sender, Sent
from node.errors import RpcUnavailable, TxReverted, WrongChain
from node.structs import TaskParams

OWN = Path(__file__).parents[2] / "node_modules" / ".bin" / "anvil"
ANVIL = str(OWN) if OWN.exists() else shutil.which("anvil")
CHAIN_ID = 4_242
MNEMONIC = "test test test test test test test test test test test junk"

pytestmark = pytest.mark.skipif(
    ANVIL is None and not os.environ.get("CI"), reason="anvil is not installed (npm install)"
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A fresh anvil with its default accounts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(ANVIL), "--port", str(port), "--chain-id", str(CHAIN_ID), "--hardfork", "prague", "--silent"]
    process = subprocess.Popen([*command, "--mnemonic", MNEMONIC], start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                Rpc(address, CHAIN_ID)
                break
            except RpcUnavailable:
                time.sleep(0.05)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # npm's anvil is a script that starts the program
        process.wait()


@pytest.fixture(scope="module")
def client(url: str) -> Sender:
    Account.enable_unaudited_hdwallet_features()
    return Sender(Rpc(url, CHAIN_ID), Account.from_mnemonic(MNEMONIC), poll=0.02, timeout=20)


@pytest.fixture(scope="module")
def verde(client: Sender) -> Verde:
    return Verde(client.rpc, client.deploy("Verde"))


@pytest.fixture(scope="module")
def params(client: Sender) -> TaskParams:
    rng = random.Random(3)
    members = [f"0x{i + 1:040x}" for i in range(3)]
    return random_params(rng, random_work(rng), client.deploy("CommitteeReferee"), members, 2)


def test_the_wrong_chain_id(url: str) -> None:
    with pytest.raises(WrongChain, match=f"{CHAIN_ID}, expected 1"):
        Rpc(url, 1)


def test_errors_by_name_and_what_is_done(client: Sender, verde: Verde, params: TaskParams) -> None:
    with pytest.raises(TxReverted) as caught:
        client.send(verde.pair(99))
    assert (caught.value.error, caught.value.arguments) == ("UnknownTask", {"task_id": 99})
    assert isinstance(client.send(verde.withdraw(client.address)), AlreadyDone)
    sent = client.send(verde.create_task(params))
    assert isinstance(sent, Sent)
    assert sent.gas > 100_000
    task_id = verde.task_count()
    assert isinstance(client.send(verde.cancel(task_id)), Sent)
    assert isinstance(client.send(verde.cancel(task_id)), AlreadyDone)
    assert verde.credit(client.address) == params.reward * params.seats


def test_a_reorg_of_a_real_node(client: Sender, verde: Verde, params: TaskParams) -> None:
    follower = Follower(LogReader(client.rpc, verde.address))
    before = len(follower.tick().state.tasks)
    for i in range(3):
        client.send(verde.create_task(params))
        assert len(follower.tick().state.tasks) == before + i + 1
    client.rpc.w3.provider.make_request("anvil_reorg", [2, []])  # type: ignore[arg-type]
    update = follower.tick()
    assert update.rewound_to is not None
    assert len(update.state.tasks) == before + 1
    assert update.state == Follower(LogReader(client.rpc, verde.address)).tick().state
    for task_id, task in update.state.tasks.items():
        assert verde.get_task(task_id).status == task.status
