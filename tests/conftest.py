"""Shared fixtures: a development chain with the contracts deployed, fresh for every test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from node.chain.contracts import Verde
from node.chain.devnet import Devnet
from node.chain.reader import Follower, LogReader
from node.chain.rpc import Rpc
from node.chain.sender import Sender

NAMES = ("client", *(f"provider {i}" for i in range(8)), *(f"member {i}" for i in range(3)))


@dataclass
class Deployed:
    """The contracts on a development chain, and who can act on it."""

    devnet: Devnet
    rpc: Rpc
    verde: Verde
    referee: str  # address of the CommitteeReferee

    def sender(self, name: str) -> Sender:
        return Sender(self.rpc, self.devnet.account(name), poll=0.01, timeout=5)

    def follower(self) -> Follower:
        return Follower(LogReader(self.rpc, self.verde.address))


@pytest.fixture(scope="session")
def _deployed() -> Deployed:
    devnet = Devnet(names=NAMES)
    rpc = Rpc(devnet.provider, devnet.chain_id)
    sender = Sender(rpc, devnet.account("client"))
    referee = sender.deploy("CommitteeReferee")
    return Deployed(devnet, rpc, Verde(rpc, sender.deploy("Verde")), referee)


@pytest.fixture
def deployed(_deployed: Deployed) -> Iterator[Deployed]:
    """The contracts, deployed once a session; each test starts from the block after the deployment."""
    snapshot = _deployed.devnet.snapshot()
    _deployed.devnet.automine = True
    yield _deployed
    _deployed.devnet.revert(snapshot)
