"""The player: reads the chain, folds, plans, does what is planned; one tick at a time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from eth_account.signers.local import LocalAccount

from node.actions import (
    Action,
    Advance,
    Appeal,
    AskReferee,
    Batch,
    Chain,
    Challenge,
    Collect,
    CollectHoldback,
    Commit,
    Conclude,
    Execute,
    Expire,
    FetchTile,
    FetchTree,
    HashNode,
    Judge,
    Local,
    LocalView,
    Open,
    Pair,
    Post,
    PostElement,
    Reveal,
    Settle,
    ShowTiles,
    SubmitVerdict,
    Timeout,
    TrialAdvance,
    TrialBegin,
    TrialOpen,
    TrialVerb,
    Withdraw,
)
from node.ahead import look_ahead
from node.chain import committee
from node.chain.contracts import Call, TrialReferee, Verde
from node.chain.reader import Follower, LogReader
from node.chain.rpc import Rpc, RpcRefused
from node.chain.sender import AlreadyDone, Sender, Sent
from node.data import DataSource, Fetcher, MemoryStore
from node.errors import DataError, RpcUnavailable, TxReverted, TxUnresolved
from node.events import Event
from node.fold import ChainState, TaskState, can_pair, due, pairing_since
from node.plan import plan
from node.structs import RefereeKind, Status
from node.verdict import Committee
from repops.commit import Tree

log = logging.getLogger(__name__)

TRIES = 2  # how often the other side is asked for what it should serve
PATIENCE = 3  # seconds after which, even after a restart, once is enough

OnAction = Callable[["Player", Action, Sent | AlreadyDone | None], None]


@dataclass(frozen=True)
class Link:
    """A player's way to the chain: the contract, who reads it and who sends to it."""

    verde: Verde
    follower: Follower
    sender: Sender

    @classmethod
    def connect(
        cls,
        rpc: Rpc,
        address: str,
        account: LocalAccount,
        *,
        referees: Mapping[str, RefereeKind] | None = None,
        start: int = 0,
        on_sent: Callable[[Sent], None] | None = None,
    ) -> Link:
        """A link of an account to the Verde contract at an address. referees: the kinds of the referee contracts that
        are trusted to be what they seem, by address. start: the block before the contract's creation. on_sent: hears of
        every transaction of the account."""
        follower = Follower(LogReader(rpc, address, referees=referees), start=start)
        return cls(Verde(rpc, address), follower, Sender(rpc, account, on_sent=on_sent))

    @property
    def chain_id(self) -> int:
        return self.verde.rpc.chain_id


class Player:
    """Whoever takes part in the game: an account, a way to the chain, what it serves, and whom it can ask.

    directory: the data sources of the other actors, by address. Nothing else connects the actors. on_action is
    called after each action with (player, action, receipt or None).
    """

    def __init__(self, link: Link, directory: Mapping[str, DataSource], on_action: OnAction | None = None) -> None:
        self.link = link
        self.address = link.sender.address
        self.directory = directory
        self.on_action = on_action
        self.state = link.follower.state
        self.now = 0  # time of the latest block
        self.final = 0  # time of a finalized block
        self.trouble: RpcUnavailable | TxUnresolved | None = None  # what ended the last tick early
        self.store = MemoryStore(lambda: (self.final, self.now))
        self._trees: dict[bytes, Tree] = {}
        self._unreachable: set[bytes] = set()
        self._misses: Counter[bytes] = Counter()
        self._asked: set[int] = set()
        self._evidence: dict[int, bytes] = {}
        self._tiles: dict[bytes, bytes] = {}

    def tick(self) -> list[Action]:
        """Does everything that is to be done now, and returns what was done.

        A call that the contract refuses is no failure: somebody may have made it a moment before. It is planned
        again in the next tick if it is still due. An endpoint that does not answer ends the tick; the next one
        plans anew.
        """
        done: list[Action] = []
        tried: set[Action] = set()
        self._asked.clear()
        self.trouble = None
        try:
            self.sync()
            self.prepare()
            while (action := self._next(tried)) is not None:
                tried.add(action)
                if self._do(action):
                    done.append(action)
        except (RpcUnavailable, TxUnresolved) as error:
            log.warning("%s: %s", self.address, error)
            self.trouble = error
        return done

    def sync(self) -> None:
        """Reads what is new on the chain."""
        update = self.link.follower.tick()
        self.state, self.now = update.state, update.head.timestamp
        if any(self.final < task.commit_deadline <= self.now for task in self._live_tasks()):
            self.final = self._finalized()
        if update.rewound_to is not None:
            self.rewound()
        self.heard(update.events)

    def heard(self, events: Sequence[Event]) -> None:
        """What is done with new events besides folding them: nothing."""

    def rewound(self) -> None:
        """Forgets what hangs on ids: after a reorg a match may have the same id and be another one."""
        self._evidence.clear()
        self._unreachable.clear()
        self._misses.clear()

    def _live_tasks(self) -> list[TaskState]:
        return [task for task in self.state.tasks.values() if task.status is Status.LIVE]

    def _finalized(self) -> int:
        """The time of the finalized block; what was known before if the endpoint does not say."""
        try:
            block = self.link.follower.reader.block("finalized")
        except RpcRefused:  # the endpoint's chain has no such thing
            return self.final
        return self.final if block is None else block.timestamp

    def prepare(self) -> None:
        """What is done before planning, after every sync of a tick. A player has nothing to prepare."""

    def choose(self, state: ChainState, actions: Sequence[Action]) -> Sequence[Action]:
        """What of the plan is done: all of it. state: where it was planned, now or after a verb of one's own."""
        return actions

    def view(self) -> LocalView:
        """What the plan is made from besides the chain's state."""
        return LocalView(
            address=self.address,
            final=self.final,
            trees=self._trees,
            unreachable=frozenset(self._unreachable),
            evidence=self._evidence,
            tiles=self._tiles,
            asked=frozenset(self._asked),
        )

    def serves(self) -> DataSource:
        """What the other actors may ask of this one."""
        return self.store

    def perform(self, action: Local) -> None:
        """Does local work."""
        match action:
            case FetchTree(root, height, owner):
                try:
                    self.keep_tree(self.fetcher(owner, others=False).tree(root, height))
                except DataError as error:
                    log.info(
                        "%s: no tree of %s at hand, the level is played move by move: %s", self.address, owner, error
                    )
                    self.miss(root)
            case FetchTile(leaf, root, size, index, owner):
                try:
                    self._tiles[leaf] = self.fetcher(owner, others=False).tile(root, size, index, leaf)
                except DataError as error:
                    log.info("%s: no tile of %s at hand, it has to show it itself: %s", self.address, owner, error)
                    self.miss(leaf)
            case AskReferee(match_id):
                self._asked.add(match_id)
                self._ask_referee(match_id)
            case _:
                raise TypeError(f"{type(action).__name__} is not for {type(self).__name__}")

    def miss(self, root: bytes) -> None:
        """Nobody served this. It is asked for once more in the next tick: the other side may be building it now, unless
        nothing has happened for a while."""
        self._misses[root] += 1
        since = [pairing_since(self.state, task) for task in self._live_tasks() if can_pair(task, self.now)]
        live = [(task, match) for task in self._live_tasks() for match in self.state.live_matches(task.task_id)]
        since += [found.since for task, match in live if (found := due(task, match, self.now))]
        if self._misses[root] >= TRIES or self.now - max(since, default=self.now) >= PATIENCE:
            self._unreachable.add(root)

    def keep_tree(self, tree: Tree) -> None:
        """Has a tree at hand from now on. One of height 0 has nothing to open, and the root of another tree."""
        if tree.height:
            self._trees[tree.root] = tree

    def fetcher(self, *first: str, others: bool = True) -> Fetcher:
        """Asks these actors, in this order, then (others) everybody else in the directory."""
        names = [*first, *(name for name in self.directory if name not in first)] if others else list(first)
        return Fetcher([self.directory[name] for name in names if name in self.directory])

    def _next(self, tried: set[Action]) -> Action | None:
        """The first action of a fresh plan that this tick has not tried; local work first, calls may build on it. A
        call takes along what can follow it in the same transaction."""
        view = self.view()
        actions = [a for a in self.choose(self.state, plan(self.state, self.now, view)) if a not in tried]
        for action in sorted(actions, key=lambda action: isinstance(action, Chain)):
            if isinstance(action, Chain):
                ahead = look_ahead(self.state, self.now, view, action, self.choose, tried)
                if ahead is None or ahead in tried:
                    continue
                return ahead
            return action
        return None

    def _do(self, action: Action) -> bool:
        receipt: Sent | AlreadyDone | None = None
        if isinstance(action, Local):
            given_up, missed = len(self._unreachable), self._misses.total()
            self.perform(action)
            if self._misses.total() > missed and len(self._unreachable) == given_up:
                return False  # nothing is gained yet
        else:
            try:
                receipt = self.link.sender.send(self._call(action))
            except TxReverted as error:
                log.info("%s: %s", self.address, error)
                matches = len(self.state.matches)
                self.sync()
                if not isinstance(action, Batch) or len(self.state.matches) != matches:
                    return False
                return self._do(action.verbs[0])  # it is right by itself
            self.sync()
        if self.on_action is not None:
            self.on_action(self, action, receipt)
        return True

    def _call(self, action: Chain) -> Call:
        verde = self.link.verde
        match action:
            case Commit(task, commitment, bond):
                return verde.commit(task, commitment, bond=bond)
            case Reveal(task, claim_root, final_root, salt, proof):
                return verde.reveal(task, claim_root, final_root, salt, proof)
            case Challenge(task, claim_root, final_root, proof, bond):
                return verde.challenge(task, claim_root, final_root, proof, bond=bond)
            case Expire(task):
                return verde.expire(task)
            case Pair(task):
                return verde.pair(task)
            case Settle(task):
                return verde.settle(task)
            case Collect(task, index):
                return verde.collect(task, index)
            case CollectHoldback(task, index):
                return verde.collect_holdback(task, index)
            case Withdraw(account):
                return verde.withdraw(account)
            case Open(match, children):
                return verde.open(match, children, verbs=self._verbs(match))
            case Advance(match, m, index, a, b, siblings, children, pre):
                verbs = self._verbs(match)
                return verde.advance(match, m, index, a, b, siblings, children, pre, verbs=verbs)
            case Post(match, root, proof, children):
                return verde.post(match, root, proof, children, verbs=self._verbs(match))
            case HashNode(match, header, node, proof, left, right):
                return verde.hash_node(match, header, node, proof, left, right, verbs=self._verbs(match))
            case Judge(match, evidence):
                return verde.judge(match, evidence, verbs=self._verbs(match))
            case Timeout(match):
                return verde.timeout(match, verbs=self._verbs(match))
            case Batch(match, parts):
                calls = [self._call(part) for part in parts]
                below = isinstance(parts[0], TrialVerb)
                return self._referee(match).multicall(calls) if below else verde.multicall(calls)
            case TrialVerb():
                return self._trial_call(action)
        raise TypeError(f"{type(action).__name__} is no call")

    def _referee(self, match_id: int) -> TrialReferee:
        return TrialReferee(self.link.verde, self.state.tasks[self.state.matches[match_id].task_id].referee)

    def _trial_call(self, action: TrialVerb) -> Call:
        match_id: int = action.match
        trial = self.state.matches[match_id].trial
        referee, verbs = self._referee(match_id), 0 if trial is None else trial.verbs
        match action:
            case TrialBegin(_, header, node, proof):
                return referee.begin(match_id, header, node, proof)
            case TrialOpen(_, children):
                return referee.open(match_id, children, verbs=verbs)
            case TrialAdvance(_, m, index, a, b, siblings, children, pre):
                return referee.advance(match_id, m, index, a, b, siblings, children, pre, verbs=verbs)
            case ShowTiles(_, tile_a, tile_b):
                return referee.show_tiles(match_id, tile_a, tile_b, verbs=verbs)
            case PostElement(_, root, proof, children):
                return referee.post(match_id, root, proof, children, verbs=verbs)
            case Execute(_, header, node, proof, witness):
                return referee.execute(match_id, header, node, proof, witness, verbs=verbs)
            case Conclude():
                return referee.conclude(match_id)
            case SubmitVerdict(_, config, verdict):
                return referee.submit_verdict(match_id, config, verdict)
            case Appeal():
                return referee.appeal(match_id)
        raise TypeError(f"{type(action).__name__} is no call")

    def _verbs(self, match_id: int) -> int | None:
        """None for a match that does not exist yet."""
        match = self.state.matches.get(match_id)
        return None if match is None else match.verbs

    def _ask_referee(self, match_id: int) -> None:
        """Collects the members' verdicts; with enough of them that agree the committee has one."""
        match = self.state.matches[match_id]
        task = self.state.tasks[match.task_id]
        try:
            body = Committee.of(self.link.chain_id, task)
        except DataError as error:
            log.warning("%s: match %d has no committee to ask: %s", self.address, match_id, error)
            return
        asked = committee.question(self.link.verde.address, task, match)
        evidence = body.verdict(self.fetcher(*body.members, others=False).verdicts(match_id), asked)
        if evidence is not None:
            self._evidence[match_id] = evidence
