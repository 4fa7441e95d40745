"""The contracts' state, rebuilt from their events: `fold(state, event) -> state`, pure.

`ChainState` mirrors contract storage to the field (a property test compares it with every view of the contract
after random play) and adds what a player needs and the contract does not keep: the levels of each match with the
posted roots, the moves and the published children. Everything is immutable; a fold copies what it changes, so any
state may be kept, compared or handed to another thread.

What follows from the time is asked with an instant: `stage`, `due`, `can_pair`, `can_settle`, `owed`,
`holdback_owed`. They classify as the contract does (docs/spec/game.md): every bound is exclusive, a call counts iff
it comes before the deadline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, TypeVar, assert_never

from eth_utils.crypto import keccak

from node import events as ev
from node.errors import InconsistentEvents
from node.events import Event, Meta
from node.structs import (
    ZERO,
    Claim,
    Level,
    Match,
    Member,
    Outcome,
    Participant,
    Phase,
    Reason,
    RefereeKind,
    Ruling,
    Side,
    Standing,
    Status,
    Task,
    TaskParams,
    TrialStage,
    Verdict,
)
from node.trial import Move, TrialState, begun, follow, never_begun
from node.trial import limit as trial_limit
from repops.commit import height

T = TypeVar("T")


class Stage(Enum):
    """Where a task stands at an instant: the stored status, refined by the time while it is live."""

    COMMITTING = "committing"
    REVEALING = "revealing"
    CHALLENGING = "challenging"
    RESOLVING = "resolving"  # past the challenge deadline; matches may still be played or paired
    SETTLED = "settled"
    FAILED = "failed"
    VOIDED = "voided"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class LevelState:
    """One level of a match.

    `step` is the first step of the segment (Steps), the disputed step (Operators), or 0. `leaves` is the tree's real
    leaf count, `height` its height. `pre_state` is the agreed state root before leaf 0. `last_a`, `last_b` are the
    disputed leaves of the level above, in which the posted trees end (the final state roots at Checkpoints).
    `root_a`, `root_b` are the claims' or posted roots, None until posted; `top` the children that B posted with its
    root, which spare the opening. `closed_at` with `leaf_a`, `leaf_b` is
    the first divergence, None until found.
    """

    level: Level
    step: int
    leaves: int
    height: int
    pre_state: bytes
    last_a: bytes
    last_b: bytes
    root_a: bytes | None = None
    root_b: bytes | None = None
    top: tuple[bytes, ...] = ()
    moves: tuple[Move, ...] = ()
    closed_at: int | None = None
    leaf_a: bytes | None = None
    leaf_b: bytes | None = None

    def root(self, side: Side) -> bytes | None:
        """The root of this side's tree of the level."""
        return self.root_a if side is Side.A else self.root_b

    def last(self, side: Side) -> bytes:
        """The leaf in which this side's tree must end."""
        return self.last_a if side is Side.A else self.last_b


@dataclass(frozen=True)
class MatchState(Match):
    """A match: its storage, and how it came there. `levels` runs from Checkpoints to the current level."""

    started_at: int
    levels: tuple[LevelState, ...] = ()
    reason: Reason = Reason.NONE
    ended_at: int = 0
    paid: int = 0
    burned: int = 0
    ruling: Ruling | None = None  # of the referee or over a hash node, None before there is one
    output_root: bytes | None = None
    trial: TrialState | None = None  # the game below the operator
    verdict: Verdict | None = None  # of a committee whose verdict can be appealed
    wrong_members: int = 0  # bits of the members who signed the root that lost an appeal

    @property
    def at(self) -> LevelState:
        """The current (or last) level."""
        return self.levels[-1]

    @property
    def children(self) -> tuple[bytes, ...]:
        """The children that the last move published below its mover's node, or B's post below its root; or none."""
        return self.at.moves[-1].children if self.at.moves else self.at.top

    def index(self, side: Side) -> int:
        """The participant on this side."""
        return self.index_a if side is Side.A else self.index_b

    def node(self, side: Side) -> bytes:
        """This side's current node (a leaf once the level is closed)."""
        return self.node_a if side is Side.A else self.node_b

    def clock(self, side: Side) -> int:
        """Seconds left on this side's chess clock, as stored."""
        return self.clock_a if side is Side.A else self.clock_b

    def side_of(self, index: int) -> Side | None:
        """The side that participant `index` plays, None if it does not play here."""
        return Side.A if index == self.index_a else Side.B if index == self.index_b else None


@dataclass(frozen=True)
class TaskState(Task):
    """A task: its storage, its participants and claims (claim `i` is `claim_list[i - 1]`), and how it came there."""

    task_id: int
    created_at: int
    params: TaskParams
    roster: tuple[Participant, ...] = ()
    claim_list: tuple[Claim, ...] = ()
    members: Mapping[str, Member] = field(default_factory=dict)
    match_ids: tuple[int, ...] = ()
    settled_claim: int = 0  # id of the claim that stands, 0 before
    referee_kind: RefereeKind = RefereeKind.UNKNOWN

    def index_of(self, account: str) -> int | None:
        """The participant index of an account (checksummed), None if it takes no part."""
        member = self.members.get(account)
        return member.participant - 1 if member is not None and member.participant else None

    def claim(self, claim_id: int) -> Claim:
        """The claim with this id (from 1)."""
        return self.claim_list[claim_id - 1]

    def claim_of(self, index: int) -> Claim | None:
        """The revealed claim of participant `index`, None before the reveal."""
        claim_id = self.roster[index].claim_id
        return self.claim(claim_id) if claim_id else None

    def leaves(self, level: Level, step: int) -> int:
        """Real leaf count of the tree at `level`; `step`: the first step of the segment (used at Steps only)."""
        match level:
            case Level.CHECKPOINTS:
                return -(-self.steps // self.interval)
            case Level.STEPS:
                return min(self.interval, self.steps - step)
            case Level.OPERATORS:
                return self.nodes


@dataclass(frozen=True)
class ChainState:
    """Everything the contracts know. `referees`: the kind of each referee that this node knows, by address. `last` is
    where the last folded event stands."""

    referees: Mapping[str, RefereeKind] = field(default_factory=dict)
    tasks: Mapping[int, TaskState] = field(default_factory=dict)
    matches: Mapping[int, MatchState] = field(default_factory=dict)
    credits: Mapping[str, int] = field(default_factory=dict)
    last: Meta | None = None

    def credit(self, account: str) -> int:
        """Wei that `withdraw(account)` would send."""
        return self.credits.get(account, 0)

    def live_matches(self, task_id: int) -> tuple[MatchState, ...]:
        """The task's matches that are being played, oldest first."""
        task = self.tasks[task_id]
        if task.status is not Status.LIVE:
            return ()
        return tuple(m for m in (self.matches[i] for i in task.match_ids) if m.phase is not Phase.DONE)


class Asked(Enum):
    """What a match in phase Referee waits for: a committee's verdict, an appeal against it, the sides of a trial."""

    VERDICT = "verdict"
    APPEAL = "appeal"
    TRIAL = "trial"


@dataclass(frozen=True)
class Due:
    """What a live match waits for: `phase` says which call, `side` who is due (None: nobody, anyone may bring the
    verdict). A call counts iff it is mined before `deadline`; from then on one call is left, which ends the match, or
    leads to what comes then (`late`): `timeout`; in phase Referee `conclude` for a trial, else `judge` without
    evidence. asked: in phase Referee."""

    phase: Phase
    side: Side | None
    since: int
    limit: int
    late: bool
    asked: Asked | None = None

    @property
    def deadline(self) -> int:
        return self.since + self.limit


def stage(task: TaskState, now: int) -> Stage:
    """Where the task stands at `now`."""
    match task.status:
        case Status.SETTLED:
            return Stage.SETTLED
        case Status.FAILED:
            return Stage.FAILED
        case Status.VOIDED:
            return Stage.VOIDED
        case Status.CANCELLED:
            return Stage.CANCELLED
    if now < task.commit_deadline:
        return Stage.COMMITTING
    if now < task.reveal_deadline:
        return Stage.REVEALING
    return Stage.CHALLENGING if now < task.challenge_deadline else Stage.RESOLVING


def due(task: TaskState, match: MatchState, now: int) -> Due | None:
    """What the match waits for at `now`; None if it is over (its task's end ends it, too)."""
    if task.status is not Status.LIVE or match.phase is Phase.DONE:
        return None
    side: Side | None
    match match.phase:
        case Phase.POST_A | Phase.POST_B:
            side, limit = match.turn, task.build_window
        case Phase.REFEREE:
            return _referee_due(task, match, now)
        case _:
            side, limit = match.turn, match.clock(match.turn)
    return Due(match.phase, side, match.since, limit, now - match.since >= limit)


def _referee_due(task: TaskState, match: MatchState, now: int) -> Due:
    verdict = match.verdict

    def wait(asked: Asked, side: Side | None, since: int, limit: int) -> Due:
        return Due(match.phase, side, since, limit, now - since >= limit, asked)

    opening = match.since
    if task.referee_kind is RefereeKind.APPEAL:
        if verdict is None:
            opening += task.referee_window
        elif verdict.available and not verdict.appealed_at:
            return wait(Asked.APPEAL, None, verdict.time, verdict.appeal_window)
        else:
            opening = verdict.appealed_at or verdict.time
    if not task.referee_kind.has_trials or now < opening:
        return wait(Asked.VERDICT, None, match.since, task.referee_window)
    trial = match.trial
    if trial is None:
        return wait(Asked.TRIAL, Side.A, opening, match.clock_a)
    if trial.stage is TrialStage.DONE:
        return wait(Asked.TRIAL, None, trial.since, 0)
    return wait(Asked.TRIAL, trial.turn, trial.since, trial_limit(trial, task.build_window))


def can_cancel(task: TaskState, now: int) -> bool:
    """Whether the client can cancel at `now`."""
    return task.status is Status.LIVE and task.committed < 2 and now < task.commit_deadline


def can_expire(task: TaskState, now: int) -> bool:
    """Whether anyone can end the task at `now` for want of commitments."""
    return task.status is Status.LIVE and task.committed < 2 and now >= task.commit_deadline


def can_pair(task: TaskState, now: int) -> bool:
    """Whether `pair` starts a match at `now`: two claims have free survivors."""
    return task.status is Status.LIVE and task.committed >= 2 and now >= task.reveal_deadline and task.head != task.tail


def next_pair(task: TaskState) -> tuple[int, int]:
    """The participants of the match that `pair` starts, side A first, if it can start one."""
    first = task.claim(task.head)
    one, two = first.head - 1, task.claim(first.next).head - 1
    return min(one, two), max(one, two)


def pairing_since(state: ChainState, task: TaskState) -> int:
    """The last instant of which the events say that it may have made a match possible: the end of the reveals, of a
    match, or the arrival of a new claim."""
    joined = task.challenge_deadline - task.challenge_window
    return max([joined, *(state.matches[match_id].ended_at for match_id in task.match_ids)])


def can_settle(task: TaskState, now: int) -> bool:
    """Whether `settle` ends the task at `now`."""
    return (
        task.status is Status.LIVE
        and task.committed >= 2
        and now >= task.challenge_deadline
        and task.live_matches == 0
        and task.head == task.tail
    )


def owed(task: TaskState, index: int) -> int:
    """Wei that `collect(task, index)` credits now; 0 if nothing is due (then it reverts)."""
    who = task.roster[index]
    if who.collected:
        return 0
    match task.status:
        case Status.CANCELLED:
            return task.bond
        case Status.VOIDED if who.standing in (Standing.FREE, Standing.PLAYING):
            return task.bond
        case Status.SETTLED if who.standing is Standing.FREE:
            return task.bond + (task.reward - _held(task) if _is_paid(task, index) else 0)
    return 0


def holdback_owed(task: TaskState, index: int, now: int) -> int:
    """Wei that `collectHoldback(task, index)` credits at `now`; 0 if nothing is due (then it reverts)."""
    who = task.roster[index]
    waits = not task.confirmed and now < task.ended_at + task.delivery_window
    if task.status is not Status.SETTLED or who.holdback_collected or who.standing is not Standing.FREE or waits:
        return 0
    return _held(task) if _is_paid(task, index) else 0


def _is_paid(task: TaskState, index: int) -> bool:
    """Whether a survivor of a settled task has earned a reward: it has a seat, or is the challenger that is paid."""
    return index < task.committed or task.payee == index + 1


def _held(task: Task) -> int:
    return task.reward * task.holdback_bps // 10_000


def fold_all(state: ChainState, events: Iterable[Event]) -> ChainState:
    """Folds events in their order."""
    for event in events:
        state = fold(state, event)
    return state


def fold(state: ChainState, event: Event) -> ChainState:
    """The state after `event`. Raises InconsistentEvents if no contract can have emitted it here."""
    if state.last is not None and event.meta <= state.last:
        raise InconsistentEvents(
            f"{type(event).__name__} stands at or before the last folded event",
            where=_where(event),
            cure="Fold each event once, in the order of the chain",
        )
    try:
        return replace(_fold(state, event), last=event.meta)
    except (KeyError, IndexError) as error:
        raise _inconsistent(event, f"it names something that does not exist: {error}") from error


def _fold(state: ChainState, event: Event) -> ChainState:
    match event:
        case ev.TaskCreated():
            return _created(state, event)
        case ev.Credited():
            amount = state.credit(event.account) + event.amount
            return replace(state, credits={**state.credits, event.account: amount})
        case ev.Withdrawn():
            if state.credit(event.account) != event.amount:
                raise _inconsistent(event, f"the credit was {state.credit(event.account)}")
            return replace(state, credits={k: v for k, v in state.credits.items() if k != event.account})
        case ev.Committed():
            return _with(state, _committed(state.tasks[event.task_id], event))
        case ev.Cancelled():
            return _with(state, _ended(state.tasks[event.task_id], Status.CANCELLED, event.time))
        case ev.Revealed():
            task = state.tasks[event.task_id]
            task = replace(task, revealed=task.revealed + 1, surviving_seats=task.surviving_seats + 1)
            return _with(state, _claims(task, event))
        case ev.Challenged():
            task = state.tasks[event.task_id]
            task = _join(task, event, event.challenger, Standing.NONE, ZERO)
            task = replace(task, challenge_deadline=event.challenge_deadline)
            return _with(state, _claims(task, event))
        case ev.Paired():
            return _paired(state, event)
        case ev.Opened():
            return _with(state, _opened(state, event))
        case ev.Advanced():
            return _with(state, _advanced(state, event))
        case ev.LevelClosed():
            return _with(state, _level_closed(state, event))
        case ev.Posted():
            return _with(state, _posted(state, event))
        case ev.Judged():
            return _with(state, _judged(state, event))
        case ev.MatchEnded():
            return _match_ended(state, event)
        case ev.Settled():
            task = _ended(state.tasks[event.task_id], Status.SETTLED, event.time)
            return _with(state, replace(task, payee=event.payee, settled_claim=event.claim_id))
        case ev.Failed():
            return _with(state, _ended(state.tasks[event.task_id], Status.FAILED, event.time))
        case ev.Voided():
            return _with(state, _ended(state.tasks[event.task_id], Status.VOIDED, event.time))
        case ev.Collected():
            return _with(state, _mark(state.tasks[event.task_id], event.index, collected=True))
        case ev.DeliveryConfirmed():
            return _with(state, replace(state.tasks[event.task_id], confirmed=True))
        case ev.HoldbackCollected():
            return _with(state, _mark(state.tasks[event.task_id], event.index, holdback_collected=True))
        case ev.Begun():
            return _with(state, _begun(state, event))
        case ev.VerdictGiven() | ev.Appealed():
            return _with(state, _verdict(state, event))
        case ev.CommitteeWrong():
            return _with(state, replace(_live(state, event, Phase.REFEREE), wrong_members=event.signers))
        case (
            ev.TrialOpened()
            | ev.TrialAdvanced()
            | ev.TileShown()
            | ev.ElementFound()
            | ev.TracePosted()
            | ev.InstructionFound()
            | ev.Executed()
            | ev.Ruled()
        ):
            return _with(state, _tried(state, event))
    assert_never(event)


# -- tasks ---------------------------------------------------------------------------------------------------------


def _created(state: ChainState, event: ev.TaskCreated) -> ChainState:
    p = event.params
    if event.task_id != len(state.tasks) + 1:
        raise _inconsistent(event, f"task {len(state.tasks) + 1} comes next")
    commit = event.time + p.commit_window
    reveal = commit + p.reveal_window
    task = TaskState(
        client=event.client,
        status=Status.LIVE,
        open=not p.providers,
        confirmed=False,
        seats=p.seats,
        committed=0,
        revealed=0,
        surviving_seats=0,
        arity_bits=p.arity_bits,
        participants=0,
        commit_deadline=commit,
        reveal_deadline=reveal,
        challenge_deadline=reveal + p.challenge_window,
        ended_at=0,
        live_matches=0,
        head=0,
        tail=0,
        claims=0,
        payee=0,
        holdback_bps=p.holdback_bps,
        build_window=p.build_window,
        allowance=p.allowance,
        grace=p.grace,
        referee_window=p.referee_window,
        delivery_window=p.delivery_window,
        challenge_window=p.challenge_window,
        referee=p.referee,
        reward=p.reward,
        bond=p.bond,
        verb_fee=p.verb_fee,
        bounty=p.bounty,
        steps=p.steps,
        interval=p.interval,
        batch_count=p.batch_count,
        compute_nodes=p.program.compute_nodes,
        nodes=p.program.nodes,
        program_root=event.program_root,
        initial_state_root=p.initial_state_root,
        data_root=p.data_root,
        config_hash=keccak(p.referee_config),
        task_id=event.task_id,
        created_at=event.time,
        params=p,
        members={account: Member(named=True, participant=0) for account in p.providers},
        referee_kind=state.referees.get(p.referee, RefereeKind.UNKNOWN),
    )
    return _with(state, task)


def _ended(task: TaskState, status: Status, time: int) -> TaskState:
    return replace(task, status=status, ended_at=time)


def _join(task: TaskState, event: Event, account: str, standing: Standing, commitment: bytes) -> TaskState:
    index: int = event.index  # type: ignore[union-attr]
    if index != len(task.roster):
        raise _inconsistent(event, f"participant {len(task.roster)} comes next")
    who = Participant(account, standing, False, False, 0, 0, commitment)
    member = replace(task.members.get(account, Member(named=False, participant=0)), participant=index + 1)
    return replace(
        task,
        participants=task.participants + 1,
        roster=(*task.roster, who),
        members={**task.members, account: member},
    )


def _committed(task: TaskState, event: ev.Committed) -> TaskState:
    task = _join(task, event, event.provider, Standing.COMMITTED, event.commitment)
    return replace(task, committed=task.committed + 1)


def _claims(task: TaskState, event: ev.Revealed | ev.Challenged) -> TaskState:
    """Participant `event.index` holds claim `event.claim_id` from now on and stands in its queue."""
    if event.claim_id == len(task.claim_list) + 1:
        claim = Claim(event.claim_root, event.final_state_root, 0, 0, 0)
        task = replace(task, claims=task.claims + 1, claim_list=(*task.claim_list, claim))
    elif task.claim(event.claim_id).root != event.claim_root:
        raise _inconsistent(event, "the claim has another root")
    return _enqueue(_mark(task, event.index, claim_id=event.claim_id), event.index)


def _mark(task: TaskState, index: int, **changes: Any) -> TaskState:
    return replace(task, roster=_set(task.roster, index, replace(task.roster[index], **changes)))


# -- queues --------------------------------------------------------------------------------------------------------


def _change_claim(task: TaskState, claim_id: int, **changes: Any) -> TaskState:
    return replace(task, claim_list=_set(task.claim_list, claim_id - 1, replace(task.claim(claim_id), **changes)))


def _enqueue(task: TaskState, index: int) -> TaskState:
    """Participant `index` goes to the back of its claim's queue; a claim that had none free goes to the back of
    claims."""
    task = _mark(task, index, standing=Standing.FREE, next=0)
    claim_id, link = task.roster[index].claim_id, index + 1
    claim = task.claim(claim_id)
    if claim.head:
        task = _mark(task, claim.tail - 1, next=link)
        return _change_claim(task, claim_id, tail=link)
    return _append_claim(_change_claim(task, claim_id, head=link, tail=link), claim_id)


def _append_claim(task: TaskState, claim_id: int) -> TaskState:
    if task.head == 0:
        return replace(task, head=claim_id, tail=claim_id)
    task = _change_claim(task, task.tail, next=claim_id)
    return replace(task, tail=claim_id)


def _pop_claim(task: TaskState) -> tuple[TaskState, int]:
    claim_id = task.head
    following = task.claim(claim_id).next
    task = _change_claim(task, claim_id, next=0)
    return replace(task, head=following, tail=task.tail if following else 0), claim_id


def _pop_participant(task: TaskState, claim_id: int) -> tuple[TaskState, int]:
    index = task.claim(claim_id).head - 1
    following = task.roster[index].next
    task = _mark(task, index, standing=Standing.PLAYING, next=0)
    return _change_claim(task, claim_id, head=following), index


# -- matches -------------------------------------------------------------------------------------------------------


def _paired(state: ChainState, event: ev.Paired) -> ChainState:
    task = state.tasks[event.task_id]
    if event.match_id != len(state.matches) + 1:
        raise _inconsistent(event, f"match {len(state.matches) + 1} comes next")
    if task.head == task.tail:
        raise _inconsistent(event, "no two claims have free survivors")
    task, first = _pop_claim(task)
    task, second = _pop_claim(task)
    task, one = _pop_participant(task, first)
    task, two = _pop_participant(task, second)
    if (event.index_a, event.index_b) != (min(one, two), max(one, two)):
        raise _inconsistent(event, f"participants {min(one, two)} and {max(one, two)} are next")
    for claim_id in (first, second):
        if task.claim(claim_id).head:
            task = _append_claim(task, claim_id)
    task = replace(task, live_matches=task.live_matches + 1, match_ids=(*task.match_ids, event.match_id))
    claim_a, claim_b = task.claim_of(event.index_a), task.claim_of(event.index_b)
    assert claim_a is not None and claim_b is not None, "who stands in a claim's queue has a claim"
    leaves = task.leaves(Level.CHECKPOINTS, 0)
    level = LevelState(
        level=Level.CHECKPOINTS,
        step=0,
        leaves=leaves,
        height=height(leaves),
        pre_state=task.initial_state_root,
        last_a=claim_a.final_state_root,
        last_b=claim_b.final_state_root,
        root_a=claim_a.root,
        root_b=claim_b.root,
    )
    match = MatchState(
        node_a=claim_a.root,
        node_b=claim_b.root,
        root_a=ZERO,
        pre_state=ZERO,
        task_id=event.task_id,
        grace=task.grace,
        arity_bits=task.arity_bits,
        index_a=event.index_a,
        index_b=event.index_b,
        step=0,
        position=0,
        since=event.time,
        clock_a=task.allowance,
        clock_b=task.allowance,
        verbs=0,
        level=Level.CHECKPOINTS,
        phase=Phase.OPEN,
        turn=Side.A,
        rest=level.height,
        outcome=Outcome.NONE,
        match_id=event.match_id,
        started_at=event.time,
        levels=(level,),
    )
    return _with(_with(state, task), match)


def _live(state: ChainState, event: Event, *phases: Phase) -> MatchState:
    match = state.matches[event.match_id]  # type: ignore[union-attr]
    if match.phase not in phases:
        raise _inconsistent(event, f"the match is in phase {match.phase.name}")
    return match


def _charge(state: ChainState, match: MatchState, side: Side, time: int) -> MatchState:
    """The response of `side` at `time` costs what exceeds the grace, and is a verb."""
    cost = max(time - match.since - state.tasks[match.task_id].grace, 0)
    if side is Side.A:
        match = replace(match, clock_a=match.clock_a - cost)
    else:
        match = replace(match, clock_b=match.clock_b - cost)
    return replace(match, since=time, verbs=match.verbs + 1)


def _at(match: MatchState, **changes: Any) -> MatchState:
    """The match with its current level changed."""
    return replace(match, levels=(*match.levels[:-1], replace(match.at, **changes)))


def _opened(state: ChainState, event: ev.Opened) -> MatchState:
    match = _live(state, event, Phase.OPEN)
    move = Move(
        Side.A, 0, match.position, match.rest, match.node_a, match.node_b, (), event.children, event.time, event.meta
    )
    match = _charge(state, match, Side.A, event.time)
    match = replace(match, phase=Phase.MOVE, turn=Side.B, root_a=match.node_a)
    return _at(match, moves=(*match.at.moves, move))


def _advanced(state: ChainState, event: ev.Advanced) -> MatchState:
    match = _live(state, event, Phase.OPEN, Phase.MOVE)
    move = Move(
        event.mover,
        event.m,
        event.position,
        event.rest,
        event.node_a,
        event.node_b,
        event.siblings,
        event.children,
        event.time,
        event.meta,
    )
    match = replace(
        _charge(state, match, event.mover, event.time),
        node_a=event.node_a,
        node_b=event.node_b,
        position=event.position,
        rest=event.rest,
        phase=Phase.MOVE,
        turn=event.mover.other if event.rest else event.mover,
    )
    match = _at(match, moves=(*match.at.moves, move))
    return match if event.rest else _closed(match)


def _closed(match: MatchState) -> MatchState:
    """The current level's first divergence is found: position and nodes are its leaf."""
    return _at(match, closed_at=match.position, leaf_a=match.node_a, leaf_b=match.node_b)


def _level_closed(state: ChainState, event: ev.LevelClosed) -> MatchState:
    match = _live(state, event, Phase.OPEN, Phase.MOVE, Phase.POST_B)
    if (match.level, match.position, match.rest) != (event.closed, event.position, 0):
        raise _inconsistent(event, f"the match stands at {match.level.name}, {match.position}, rest {match.rest}")
    match = _closed(match)
    match = replace(match, phase=event.phase, pre_state=event.pre_state, step=event.step, turn=Side.A)
    if event.phase is not Phase.POST_A:
        return replace(match, root_a=match.at.root_a or ZERO)
    leaves = state.tasks[match.task_id].leaves(event.level, event.step)
    level = LevelState(
        level=event.level,
        step=event.step,
        leaves=leaves,
        height=height(leaves),
        pre_state=event.pre_state,
        last_a=match.node_a,
        last_b=match.node_b,
    )
    return replace(match, level=event.level, position=0, rest=level.height, levels=(*match.levels, level))


def _posted(state: ChainState, event: ev.Posted) -> MatchState:
    if event.side is Side.A:
        match = _live(state, event, Phase.POST_A)
        match = _at(replace(match, phase=Phase.POST_B, turn=Side.B, node_a=event.root), root_a=event.root)
    else:
        match = _live(state, event, Phase.POST_B)
        match = replace(match, phase=Phase.OPEN, turn=Side.A, node_b=event.root)
        if event.children:
            match = replace(match, phase=Phase.MOVE, root_a=match.node_a)
        match = _at(match, root_b=event.root, top=event.children)
    return replace(match, since=event.time, verbs=match.verbs + 1)


def _judged(state: ChainState, event: ev.Judged) -> MatchState:
    match = _live(state, event, Phase.HASH_NODE, Phase.REFEREE)
    if match.phase is Phase.HASH_NODE:
        match = _charge(state, match, Side.A, event.time)
    else:
        task = state.tasks[match.task_id]
        match = replace(match, verbs=match.verbs + 1 + _ruling_verbs(task, match))
    return replace(match, ruling=event.ruling, output_root=event.output_root)


def _ruling_verbs(task: TaskState, match: MatchState) -> int:
    """The verbs that the referee counts beside the one that fetches its ruling."""
    tried = 0 if match.trial is None else match.trial.verbs
    match task.referee_kind:
        case RefereeKind.EVM:
            return tried
        case RefereeKind.APPEAL:
            stands = match.verdict is not None and match.verdict.available and not match.verdict.appealed_at
            return 1 if stands else tried + 2
    return 0


def _begun(state: ChainState, event: ev.Begun) -> MatchState:
    match = _live(state, event, Phase.REFEREE)
    if match.trial is not None:
        raise _inconsistent(event, "the trial has begun already")
    return replace(match, trial=begun(state.tasks[match.task_id], match, event))


def _tried(state: ChainState, event: ev.TrialMove) -> MatchState:
    match = _live(state, event, Phase.REFEREE)
    task = state.tasks[match.task_id]
    trial = match.trial
    if trial is None:
        if not isinstance(event, ev.Ruled):
            raise _inconsistent(event, "the trial has not begun")
        return replace(match, trial=never_begun(event.ruling))
    after = follow(trial, event, task.build_window)
    if after is None:
        raise _inconsistent(event, f"the trial is at {trial.stage.name}, rest {trial.rest}")
    return replace(match, trial=after)


def _verdict(state: ChainState, event: ev.VerdictGiven | ev.Appealed) -> MatchState:
    match = _live(state, event, Phase.REFEREE)
    if isinstance(event, ev.VerdictGiven):
        window = event.appeal_end - event.time
        return replace(match, verdict=Verdict(event.output_root, event.time, window, 0, event.available, event.signers))
    if match.verdict is None:
        raise _inconsistent(event, "there is no verdict")
    return replace(match, verdict=replace(match.verdict, appealed_at=event.time))


def _match_ended(state: ChainState, event: ev.MatchEnded) -> ChainState:
    match = state.matches[event.match_id]
    task = state.tasks[event.task_id]
    if match.phase is Phase.DONE:
        raise _inconsistent(event, "the match is over already")
    lost = {
        Outcome.A_WINS: (match.index_b,),
        Outcome.B_WINS: (match.index_a,),
        Outcome.BOTH_LOSE: (match.index_a, match.index_b),
    }.get(event.outcome, ())
    for index in lost:
        task = _mark(task, index, standing=Standing.LOST)
    task = replace(
        task,
        live_matches=task.live_matches - 1,
        surviving_seats=task.surviving_seats - sum(index < task.committed for index in lost),
    )
    if event.outcome in (Outcome.A_WINS, Outcome.B_WINS):
        task = _enqueue(task, match.index(Side.A if event.outcome is Outcome.A_WINS else Side.B))
    match = replace(
        match,
        phase=Phase.DONE,
        outcome=event.outcome,
        reason=event.reason,
        ended_at=event.time,
        paid=event.paid,
        burned=event.burned,
    )
    return _with(_with(state, task), match)


# -- small things --------------------------------------------------------------------------------------------------


def _with(state: ChainState, changed: TaskState | MatchState) -> ChainState:
    if isinstance(changed, TaskState):
        return replace(state, tasks={**state.tasks, changed.task_id: changed})
    return replace(state, matches={**state.matches, changed.match_id: changed})


def _set(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    if not 0 <= index < len(items):
        raise IndexError(f"index {index} of {len(items)}")
    return (*items[:index], item, *items[index + 1 :])


def _where(event: Event) -> str:
    return f"block {event.meta.block}, log {event.meta.log_index}"


def _inconsistent(event: Event, why: str) -> InconsistentEvents:
    return InconsistentEvents(
        f"{type(event).__name__} cannot follow here: {why}",
        where=_where(event),
        cure="The endpoint left out or invented logs: read again from the contract's creation or use another one",
    )
