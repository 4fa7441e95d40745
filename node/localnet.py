"""A whole network in one process: the development chain, the contracts, and actors that share nothing but the chain and
each other's data source. Used by `verde demo` and by the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from hexbytes import HexBytes

from node.actions import Action, AskReferee, Local
from node.chain.devnet import Devnet
from node.chain.rpc import Rpc
from node.chain.sender import Sender, Sent
from node.data import DataSource
from node.errors import VerdeError
from node.fold import ChainState, TaskState, can_pair, due, pairing_since
from node.player import PATIENCE, Link, Player
from node.structs import RefereeKind, Status

LAST_SECONDS = 3  # how close to a deadline the slowest actor that is modelled acts

P = TypeVar("P", bound=Player)


@dataclass(frozen=True)
class Contracts:
    """Addresses."""

    verde: str
    committee: str
    evm: str
    appeal: str

    @property
    def referees(self) -> Mapping[str, RefereeKind]:
        """The referees' kinds by address."""
        kinds = RefereeKind.COMMITTEE, RefereeKind.EVM, RefereeKind.APPEAL
        return dict(zip((self.committee, self.evm, self.appeal), kinds, strict=True))


class Stuck(VerdeError):
    """A task did not end in the rounds that were given."""


class Localnet:
    """The chain, the contracts and everybody who acts.

    `directory` is how actors find each other's data sources, by address; `sent` every transaction of every account,
    with the account's name; `names` account addresses to names.
    """

    def __init__(self, devnet: Devnet | None = None, contracts: Contracts | None = None) -> None:
        """contracts: deployed if None."""
        self.devnet = devnet or Devnet()
        self.contracts = contracts or deploy(self.devnet)
        self.verde = self.contracts.verde
        self.directory: dict[str, DataSource] = {}
        self.actors: list[Player] = []
        self.names: dict[str, str] = {}
        self.sent: list[tuple[str, Sent]] = []
        self.start_balances: dict[str, int] = {}

    def rpc(self, provider: Any = None) -> Rpc:
        """A connection of its own to the chain. provider: another web3 provider, such as a faulty one."""
        return Rpc(provider or self.devnet.provider, self.devnet.chain_id)

    def link(self, name: str, provider: Any = None) -> Link:
        """A link to the contract for the funded account of this name."""
        account = self.devnet.account(name)
        self.names[account.address] = name
        self.start_balances[account.address] = self.balance(account.address)
        return Link.connect(
            self.rpc(provider),
            self.verde,
            account,
            referees=self.contracts.referees,
            on_sent=lambda sent: self.sent.append((name, sent)),
        )

    def add(self, player: P) -> P:
        """Puts an actor into the network: from now on it acts, and the others can ask it."""
        self.actors.append(player)
        self.directory[player.address] = player.serves()
        return player

    def balance(self, address: str) -> int:
        """Wei of an account."""
        return int(self.devnet.w3.eth.get_balance(address))  # type: ignore[arg-type]

    def gained(self, player: Player) -> int:
        """Wei that an actor has won or lost since it was linked, its gas not counted."""
        sender = bytes.fromhex(player.address[2:])
        mined = [tx for block in self.devnet.chain.blocks for tx in block.transactions if bytes(tx.sender) == sender]
        fees = 0
        for tx in mined:
            receipt = self.devnet.w3.eth.get_transaction_receipt(HexBytes(tx.hash))
            fees += receipt["gasUsed"] * receipt["effectiveGasPrice"]
        return self.balance(player.address) - self.start_balances[player.address] + fees

    def run(
        self,
        task_id: int,
        *,
        until: Callable[[TaskState], bool] | None = None,
        each: Callable[[], None] | None = None,
        rounds: int = 1_000,
    ) -> TaskState:
        """Lets everybody act, and time pass when nobody has anything to do, until the task has ended and all is
        paid out.

        until: stops earlier. each: called after every round. Raises Stuck after so many rounds.
        """
        watcher = Player(self.link("watcher"), {})
        done: set[tuple[str, Action]] = set()
        for _ in range(rounds):
            did = {(actor.address, a) for actor in list(self.actors) for a in actor.tick()}
            # Who asks the referee waits; who has forgotten what it did, and does it again, gets nowhere.
            acted = {(who, a) for who, a in did - done if not isinstance(a, AskReferee)}
            done |= {(who, a) for who, a in acted if isinstance(a, Local)}
            watcher.sync()
            if each is not None:
                each()
            task = watcher.state.tasks[task_id]
            if until is not None and until(task):
                return task
            if acted or any(actor.trouble for actor in self.actors):
                continue
            if task.status is not Status.LIVE:
                return task
            self.devnet.advance(max(1, self._next_instant(watcher.state, task) - self.devnet.now))
        raise Stuck(f"it has not ended after {rounds} rounds", where=f"task {task_id}")

    def _next_instant(self, state: ChainState, task: TaskState) -> int:
        """The next instant at which something becomes possible that is not possible now."""
        now = self.devnet.now
        half_time = (task.commit_deadline + task.reveal_deadline) // 2  # who does not see finality reveals then
        instants = [task.commit_deadline, half_time, task.reveal_deadline, task.challenge_deadline]
        instants.append(task.challenge_deadline - LAST_SECONDS)
        if can_pair(task, now):
            since = pairing_since(state, task)
            instants += [since + PATIENCE, since + task.grace]  # until then it is left to side A
        for match in state.live_matches(task.task_id):
            waits = due(task, match, now)
            if waits is not None:
                # Half-way too: a referee's patience ends there. And just before the end: some like to be late.
                instants += [waits.deadline, waits.deadline - LAST_SECONDS, waits.since + waits.limit // 2]
                instants.append(waits.since + PATIENCE)
        return min((instant for instant in instants if instant > now), default=now + 1)


def deploy(devnet: Devnet) -> Contracts:
    """Deploys Verde and the referees."""
    deployer = Sender(Rpc(devnet.provider, devnet.chain_id), devnet.account("deployer"))
    return Contracts(*(deployer.deploy(name) for name in ("Verde", "CommitteeReferee", "EvmReferee", "AppealReferee")))
