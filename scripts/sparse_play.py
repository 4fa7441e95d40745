"""Plays a dispute of sparse_match.py on the real contracts, on a chain in the process, and counts what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import groupby

from sparse_match import Dispute, Pair, Scale, word

from node.chain.committee import encode_appeal, encode_config, encode_evidence, encode_verdict, sign
from node.chain.contracts import Call, TrialReferee, Verde, commitment
from node.chain.devnet import Devnet
from node.chain.rpc import Rpc
from node.chain.sender import Sender, Sent
from node.localnet import deploy
from node.structs import Outcome, Phase, RefereeKind, Side, TaskParams

MEMBERS = ("member 1", "member 2", "member 3")
WINDOW = 10_000  # seconds; every window, and no match takes as long
SMALL = Scale(4, 2, 8, 2, 256, 2, RefereeKind.EVM, terms=64)


class How(Enum):
    """Which transactions a match is played in.

    INTERACTIVE: move by move, and what one side does next in the same contract goes into the same transaction.
    AT_ONCE: likewise, with one move for a level: the other side's nodes are at hand. SINGLE: interactive, a transaction
    for each verb.
    """

    INTERACTIVE = "interactive"
    AT_ONCE = "one-transaction"
    SINGLE = "verb by verb"


@dataclass(frozen=True)
class Step:
    """One verb, and the side that calls it."""

    side: Side
    name: str
    call: Call


@dataclass(frozen=True)
class Transaction:
    """One mined transaction: its verbs, the gas of its receipt, the bytes of its calldata."""

    side: Side
    verbs: tuple[str, ...]
    gas: int
    size: int


# So many ended matches leave their storage to new ones (contracts/Disputes.sol).
PLACES = 8


class Net:
    """A chain with the contracts and two sides, on which matches have been played: counters are not zero any more, and
    a new match takes over the storage of one that has ended.

    `reset` comes back to that point.
    """

    def __init__(self, matches: int = PLACES) -> None:
        self.devnet = Devnet(names=("client", *(f"{w} {s.name}" for w in ("warm", "side") for s in Side), *MEMBERS))
        self.contracts = deploy(self.devnet)
        self.rpc = Rpc(self.devnet.provider, self.devnet.chain_id)
        self.verde = Verde(self.rpc, self.contracts.verde)
        self.members = [self.devnet.account(name) for name in MEMBERS]
        self.committee = encode_config(2, [member.address for member in self.members])
        self.task_id = self.match_id = 0
        small = Dispute(SMALL)
        for _ in range(matches):
            self._warm(small)
        self._start = self.devnet.snapshot()

    def reset(self) -> None:
        """Forgets all that was played."""
        self.devnet.revert(self._start)

    def sender(self, name: str) -> Sender:
        return Sender(self.rpc, self.devnet.account(name), poll=0.01, timeout=5)

    def side(self, side: Side, who: str = "side") -> Sender:
        return self.sender(f"{who} {side.name}")

    def send(self, sender: Sender, call: Call) -> Sent:
        """Sends what nobody else can have done."""
        sent = sender.send(call)
        assert isinstance(sent, Sent), sent
        return sent

    # -- the task ------------------------------------------------------------------------------------------------------

    def referee(self, dispute: Dispute) -> tuple[str, bytes]:
        """Address and configuration."""
        match dispute.scale.referee:
            case RefereeKind.COMMITTEE:
                return self.contracts.committee, self.committee
            case RefereeKind.APPEAL:
                return self.contracts.appeal, encode_appeal(WINDOW, self.committee)
        return self.contracts.evm, b""

    def params(self, dispute: Dispute) -> TaskParams:
        scale, (referee, config) = dispute.scale, self.referee(dispute)
        return TaskParams(
            program=dispute.header,
            initial_state_root=word("initial state"),
            data_root=dispute.data.root,
            batch_count=scale.steps,
            steps=scale.steps,
            interval=scale.interval,
            seats=2,
            providers=(),
            arity_bits=scale.arity_bits,
            reward=10**18,
            bond=10**18,
            verb_fee=10**15,
            bounty=10**17,
            holdback_bps=1_000,
            commit_window=WINDOW,
            reveal_window=WINDOW,
            challenge_window=WINDOW,
            build_window=WINDOW,
            allowance=WINDOW,
            grace=60,
            referee_window=WINDOW,
            delivery_window=WINDOW,
            referee=referee,
            referee_config=config,
        )

    def prepare(self, dispute: Dispute, who: str = "side") -> Iterator[tuple[str, Sent]]:
        """A task whose two claims are those of the dispute, ready for `pair`: its transactions."""
        verde, params, claims = self.verde, self.params(dispute), dispute.claims
        yield "createTask", self.send(self.sender("client"), verde.create_task(params))
        self.task_id = verde.task_count()
        self.match_id = verde.match_count() + 1
        sealed = {side: (claims[side].root, claims[side].leaf(claims.a.count - 1), word("salt")) for side in Side}
        for side in Side:
            sender = self.side(side, who)
            seal = commitment(self.devnet.chain_id, verde.address, self.task_id, sender.address, *sealed[side])
            yield "commit", self.send(sender, verde.commit(self.task_id, seal, bond=params.bond))
        self.devnet.advance(WINDOW)
        for side in Side:
            call = verde.reveal(self.task_id, *sealed[side], claims.last(side))
            yield "reveal", self.send(self.side(side, who), call)
        self.devnet.advance(WINDOW)

    def _warm(self, dispute: Dispute) -> None:
        """A whole match of other accounts."""
        for _ in self.prepare(dispute, "warm"):
            pass
        game = Game(self, dispute, How.AT_ONCE, "warm")
        game.play()
        game.check()


class Game:
    """One match of a prepared task."""

    def __init__(self, net: Net, dispute: Dispute, how: How, who: str = "side") -> None:
        self.net, self.dispute, self.how, self.who = net, dispute, how, who
        self.verde = net.verde
        self.trials = TrialReferee(net.verde, net.referee(dispute)[0])
        self.bits = dispute.scale.arity_bits
        self.at_once = how is How.AT_ONCE

    def play(self) -> list[Transaction]:
        """The match, from `pair` to its end."""
        return [*self.to_the_operator(), *self.judgement()]

    def to_the_operator(self) -> list[Transaction]:
        """Down to the disputed node."""
        return self.send(self.match_steps())

    def judgement(self) -> list[Transaction]:
        """What comes after: the committee's verdict, or the trial."""
        if self.dispute.scale.hash_node:
            return []  # judged already
        if self.dispute.scale.referee is RefereeKind.COMMITTEE:
            return self.send([self.verdict()])
        return self.send(self.trial_steps())

    def check(self) -> None:
        """The honest side has won, and where the dispute has put the lie."""
        match, dispute = self.verde.get_match(self.net.match_id), self.dispute
        won = Outcome.A_WINS if dispute.scale.honest is Side.A else Outcome.B_WINS
        assert (match.phase, match.outcome) == (Phase.DONE, won), match
        assert (match.step, match.position) == (dispute.step, dispute.position), match
        if dispute.scale.referee is RefereeKind.EVM and not dispute.scale.hash_node:
            trial = self.trials.get_trial(self.net.match_id)
            assert (trial.element, trial.position) == (dispute.element, dispute.instruction), trial

    # -- the verbs -----------------------------------------------------------------------------------------------------

    def match_steps(self) -> Iterator[Step]:
        """Verde's verbs in their order."""
        d, verde, match_id = self.dispute, self.verde, self.net.match_id
        yield Step(Side.A, "pair", verde.pair(self.net.task_id))
        yield from self._level(verde, d.claims, None, opens=True)
        for pair, opens in ((d.steps, True), (d.operators, False)):
            if pair is d.steps and d.scale.interval == 1:
                continue
            for side in Side:
                children = self._children(pair, side)
                call = verde.post(match_id, pair[side].root, pair.last(side), children)
                yield Step(side, f"post, {side.name}", call)
            yield from self._level(verde, pair, Side.B, opens=opens)
        if d.scale.hash_node:
            call = verde.hash_node(match_id, d.header, d.struct, d.node_proof, *d.hash_inputs())
            yield Step(Side.A, "hashNode", call)

    def signed(self, root: bytes) -> bytes:
        """The verdict of two of the three members, for this root."""
        net, (referee, _) = self.net, self.net.referee(self.dispute)
        _, asked = self.verde.question(net.match_id)
        chain = net.devnet.chain_id
        pairs = [
            (m.address, sign(m, asked, chain_id=chain, referee=referee, output_root=root)) for m in net.members[:2]
        ]
        return encode_verdict(root, dict(pairs))

    def verdict(self) -> Step:
        """The committee finds that the honest side is right."""
        honest = self.dispute.scale.honest
        evidence = encode_evidence(self.net.committee, self.signed(self.dispute.tiles[honest].root))
        return Step(honest, "judge", self.verde.judge(self.net.match_id, evidence))

    def trial_steps(self) -> Iterator[Step]:
        """The referee's verbs in their order."""
        d, trials, match_id = self.dispute, self.trials, self.net.match_id
        yield Step(Side.A, "begin", trials.begin(match_id, d.header, d.struct, d.node_proof))
        yield from self._level(trials, d.tiles, None, opens=False)
        tiles = d.shown(Side.A), d.shown(Side.B)
        if not self.at_once:
            yield Step(Side.A, "showTiles, A", trials.show_tiles(match_id, tiles[0], b""))
        shower = Side.A if self.at_once else Side.B
        yield Step(shower, "showTiles, both", trials.show_tiles(match_id, *tiles))
        for side in Side:
            children = self._children(d.states, side)
            call = trials.post(match_id, d.states[side].root, d.states.last(side), children)
            yield Step(side, f"post, {side.name}", call)
        yield from self._level(trials, d.states, Side.B, opens=True)
        executor = Side.B if self.at_once else Side.A
        call = trials.execute(match_id, d.header, d.struct, d.node_proof, d.witness())
        yield Step(executor, "execute", call)

    def _children(self, pair: Pair, side: Side) -> tuple[bytes, ...]:
        """What a post of this side carries: B's children, if A is to answer with a move."""
        return pair.children(side, pair.height, self.bits) if side is Side.B and not self.at_once else ()

    def _level(self, contract: Verde | TrialReferee, pair: Pair, poster: Side | None, *, opens: bool) -> Iterator[Step]:
        """The moves of a level. poster: who has just posted its tree, with its children unless it moves itself; None: A
        opens. opens: the leaf before the difference is shown at the end."""
        match_id, rest = self.net.match_id, pair.height
        turn = Side.A
        if self.at_once:
            turn = poster or Side.A
        elif poster is None and rest:
            yield Step(Side.A, "open", contract.open(match_id, pair.children(Side.A, rest, self.bits)))
            turn = Side.B
        while rest:
            m = rest if self.at_once else min(self.bits, rest)
            found = pair.proof(rest, m)
            rest -= m
            children = pair.children(turn, rest, self.bits)
            pre = (pair.before(),) if opens and rest == 0 else ()
            call = contract.advance(match_id, m, found.index, found.a, found.b, found.siblings, children, *pre)
            yield Step(turn, "advance" if rest else "advance, closing", call)
            turn = turn.other

    # -- transactions --------------------------------------------------------------------------------------------------

    def send(self, steps: Iterable[Step]) -> list[Transaction]:
        """Sends verbs, several of them in a transaction if the match is played so."""
        done = []
        for group in self._grouped(steps):
            calls = [step.call for step in group]
            contract = self.verde if calls[0].to == self.verde.address else self.trials
            call = calls[0] if len(calls) == 1 else contract.multicall(calls)
            sent = self.net.send(self.net.side(group[0].side, self.who), call)
            done.append(Transaction(group[0].side, tuple(step.name for step in group), sent.gas, len(call.data)))
        return done

    def _grouped(self, steps: Iterable[Step]) -> Iterator[list[Step]]:
        if self.how is How.SINGLE:
            yield from ([step] for step in steps)
        else:
            for _, group in groupby(steps, key=lambda step: (step.side, step.call.to)):
                yield list(group)
