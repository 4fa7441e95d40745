"""What an actor does next: a pure function of the contract's state, the time and what the actor has at hand.

`plan` remembers nothing: an action that was done has changed the state and is not planned again, so a restart or a
reorg needs no journal. Its actions are of two kinds: `Chain` actions become one transaction each, `Local` actions are
work that a later plan builds on (trees to build, trees to fetch, inputs to serve).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from node.fold import (
    ChainState,
    MatchState,
    Stage,
    TaskState,
    can_expire,
    can_pair,
    can_settle,
    due,
    holdback_owed,
    owed,
    stage,
)
from node.moves import opening_before, siblings_of_a
from node.structs import (
    NO_OPENING,
    ZERO,
    HashInput,
    Input,
    Level,
    Node,
    Opening,
    Phase,
    ProgramHeader,
    Side,
    Standing,
)
from repops import Program
from repops.commit import Divergence, Tree, divergence_between, divergence_proof
from repops.graph.encoding import HASH_CODE
from repops.graph.ir import Ref, RefKind

# ------------------------------------------------------------------------------------------------------------ Actions


@dataclass(frozen=True)
class Chain:
    """One transaction."""


@dataclass(frozen=True)
class Commit(Chain):
    """Takes a seat with a sealed claim and pays the bond."""

    task: int
    commitment: bytes
    bond: int


@dataclass(frozen=True)
class Reveal(Chain):
    """Opens the commitment. proof: of the claim's last real leaf, `final_root`."""

    task: int
    claim_root: bytes
    final_root: bytes
    salt: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Challenge(Chain):
    """Joins as a challenger with a claim and pays the bond."""

    task: int
    claim_root: bytes
    final_root: bytes
    proof: tuple[bytes, ...]
    bond: int


@dataclass(frozen=True)
class Expire(Chain):
    """Ends a task with fewer than two commitments."""

    task: int


@dataclass(frozen=True)
class Pair(Chain):
    """Starts the next match."""

    task: int


@dataclass(frozen=True)
class Settle(Chain):
    """Ends a task that nobody disputes any more."""

    task: int


@dataclass(frozen=True)
class Collect(Chain):
    """Credits a participant what an ended task owes it."""

    task: int
    index: int


@dataclass(frozen=True)
class CollectHoldback(Chain):
    """Credits a participant the held-back share of its reward."""

    task: int
    index: int


@dataclass(frozen=True)
class Withdraw(Chain):
    """Sends an account its credit."""

    account: str


@dataclass(frozen=True)
class Open(Chain):
    """Opens the top children of A's root."""

    match: int
    children: tuple[bytes, ...]


@dataclass(frozen=True)
class Advance(Chain):
    """A first-divergence proof over `m` levels."""

    match: int
    m: int
    index: int
    a: bytes
    b: bytes
    siblings: tuple[bytes, ...]
    children: tuple[bytes, ...]
    pre: Opening


@dataclass(frozen=True)
class Post(Chain):
    """Posts the root of one's tree of the level. proof: of its last real leaf."""

    match: int
    root: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class HashNode(Chain):
    """Has a hash node judged by the contract."""

    match: int
    header: ProgramHeader
    node: Node
    proof: tuple[bytes, ...]
    left: HashInput
    right: HashInput


@dataclass(frozen=True)
class Judge(Chain):
    """Brings the committee's verdict."""

    match: int
    evidence: bytes


@dataclass(frozen=True)
class Timeout(Chain):
    """Ends a match whose due side is late."""

    match: int


@dataclass(frozen=True)
class Local:
    """Work of one's own; nothing is sent."""


@dataclass(frozen=True)
class BuildSteps(Local):
    """Re-execute the segment that begins with step `first` and build the tree over its states."""

    task: int
    first: int


@dataclass(frozen=True)
class BuildTrace(Local):
    """Re-execute a step: the trees over its trace and its pre-state, and those of program, batch and constants."""

    task: int
    step: int


@dataclass(frozen=True)
class FetchTree(Local):
    """Ask the opponent for its tree of a level: with it the level takes one transaction."""

    root: bytes
    height: int
    owner: str


@dataclass(frozen=True)
class ServeInputs(Local):
    """Put up what the referee needs to recompute a node: the inputs' tensors and the trees they stand in."""

    task: int
    step: int
    node: int


@dataclass(frozen=True)
class AskReferee(Local):
    """Ask the committee's members for their verdicts."""

    match: int


Action = Chain | Local

# ---------------------------------------------------------------------------------------------------------- Local view


@dataclass(frozen=True)
class OwnClaim:
    """A claim of one's own: its tree, the state it ends in, the salt of its commitment and the commitment."""

    tree: Tree
    final_root: bytes
    count: int
    salt: bytes
    commitment: bytes


@dataclass(frozen=True)
class LocalView:
    """What an actor knows of itself, and what it is there for.

    final: the time of a finalized block, in seconds.
    claims: by task. segments: own trees by (task, first step). traces: own trees by (task, step). trees: every tree at
    hand by its root, own or fetched and checked. unreachable: roots of trees that were asked for in vain. programs: by
    task. served: (task, step, node) whose inputs are put up. evidence: for `judge`, by match. asked: matches
    whose committee has been asked in this tick. takes_seats, challenges: whether it joins tasks for which it has a
    claim, before and after the reveals. one_transaction: whether it asks the other side for its tree, to settle a
    level with one proof; if not, or if the other side does not serve it, the level is played move by move. watched:
    tasks that it moves along though it takes no part (a client its own).
    """

    address: str
    final: int = 0
    claims: Mapping[int, OwnClaim] = field(default_factory=dict)
    segments: Mapping[tuple[int, int], Tree] = field(default_factory=dict)
    traces: Mapping[tuple[int, int], Tree] = field(default_factory=dict)
    trees: Mapping[bytes, Tree] = field(default_factory=dict)
    unreachable: frozenset[bytes] = frozenset()
    programs: Mapping[int, Program] = field(default_factory=dict)
    served: frozenset[tuple[int, int, int]] = frozenset()
    evidence: Mapping[int, bytes] = field(default_factory=dict)
    asked: frozenset[int] = frozenset()
    watched: frozenset[int] = frozenset()
    takes_seats: bool = False
    challenges: bool = False
    one_transaction: bool = True


# ---------------------------------------------------------------------------------------------------------------- Plan


def plan(state: ChainState, now: int, local: LocalView) -> list[Action]:
    """What to do now, in this order. now: the chain's time in seconds.

    An actor cares for the tasks in which it takes part and for those that it watches: it plays its own matches and does
    what anybody may do (pairing, timeouts, settling), so that the others need not be waited for.
    """
    actions: list[Action] = []
    for task in state.tasks.values():
        index = task.index_of(local.address)
        if index is None and task.task_id not in local.watched and task.task_id not in local.claims:
            continue
        actions += _task_actions(state, now, local, task, index)
    if state.credit(local.address):
        actions.append(Withdraw(local.address))
    return actions


def _task_actions(
    state: ChainState, now: int, local: LocalView, task: TaskState, index: int | None
) -> Iterator[Action]:
    claim = local.claims.get(task.task_id)
    match stage(task, now):
        case Stage.COMMITTING:
            if index is None and claim is not None and local.takes_seats and seat_free(task, local.address):
                yield Commit(task.task_id, claim.commitment, task.bond)
        case Stage.REVEALING | Stage.CHALLENGING | Stage.RESOLVING as at:
            if can_expire(task, now):
                yield Expire(task.task_id)
            elif at is Stage.REVEALING:
                sealed = index is not None and task.roster[index].standing is Standing.COMMITTED
                if sealed and claim is not None and _may_reveal(task, now, local.final):
                    yield Reveal(
                        task.task_id,
                        claim.tree.root,
                        claim.final_root,
                        claim.salt,
                        tuple(claim.tree.prove(claim.count - 1)),
                    )
            else:
                if at is Stage.CHALLENGING and index is None and claim is not None and local.challenges:
                    yield from _challenge(task, claim)
                if can_pair(task, now):
                    yield Pair(task.task_id)
                for match_ in state.live_matches(task.task_id):
                    yield from _match_actions(now, local, task, match_, index)
                if can_settle(task, now):
                    yield Settle(task.task_id)
        case _:
            if index is not None and owed(task, index):
                yield Collect(task.task_id, index)
            if index is not None and holdback_owed(task, index, now):
                yield CollectHoldback(task.task_id, index)


def _may_reveal(task: TaskState, now: int, final: int) -> bool:
    """Nobody can commit to a copy once the commit deadline has passed in a finalized block. On a chain that finalizes
    slowly one has to reveal all the same, or lose the bond: when half of the time is over."""
    return final >= task.commit_deadline or now >= (task.commit_deadline + task.reveal_deadline) // 2


def seat_free(task: TaskState, account: str) -> bool:
    """Whether an account that takes no part yet may still take a seat."""
    member = task.members.get(account)
    return task.committed < task.seats and (task.open or (member is not None and member.named))


def _challenge(task: TaskState, claim: OwnClaim) -> Iterator[Action]:
    """A challenger joins unless its own claim is the only one that is alive.

    That somebody else holds it too is no reason to stay away: a sybil may hold the honest claim to keep challengers
    out, and let itself be beaten once the challenge window is over.
    """
    alive = {Standing.FREE, Standing.PLAYING}
    claims = {task.claim(who.claim_id).root for who in task.roster if who.claim_id and who.standing in alive}
    if claims != {claim.tree.root}:
        yield Challenge(
            task.task_id, claim.tree.root, claim.final_root, tuple(claim.tree.prove(claim.count - 1)), task.bond
        )


def _match_actions(
    now: int, local: LocalView, task: TaskState, match: MatchState, index: int | None
) -> Iterator[Action]:
    waits = due(task, match, now)
    if waits is None:
        return
    if waits.late:
        yield Timeout(match.match_id)
        return
    side = None if index is None else match.side_of(index)
    if waits.phase is Phase.REFEREE:
        yield from _referee_actions(local, match, side)
        return
    if side is None:
        return
    if waits.phase in (Phase.POST_A, Phase.POST_B):
        yield from _post_actions(local, match, side, waits.side)
    elif waits.side is side:
        if waits.phase is Phase.HASH_NODE:
            yield from _hash_node(local, task, match)
        else:
            yield from _moves(local, task, match, side)


def _referee_actions(local: LocalView, match: MatchState, side: Side | None) -> Iterator[Action]:
    key = (match.task_id, match.step, match.position)
    if side is not None and match.task_id in local.claims and key not in local.served:
        yield ServeInputs(*key)
    evidence = local.evidence.get(match.match_id)
    if evidence is not None:
        yield Judge(match.match_id, evidence)
    elif match.match_id not in local.asked:
        yield AskReferee(match.match_id)


def _post_actions(local: LocalView, match: MatchState, side: Side, due_side: Side | None) -> Iterator[Action]:
    """Both sides build while the first is due: its build window is spent in parallel."""
    level = match.at
    tree = _own_tree(local, match, side)
    if tree is None:
        if match.task_id in local.claims:
            yield _build(match)
    elif due_side is side:
        yield Post(match.match_id, tree.root, tuple(tree.prove(level.leaves - 1)))


def _build(match: MatchState) -> Action:
    level = match.at
    if level.level is Level.STEPS:
        return BuildSteps(match.task_id, level.step)
    return BuildTrace(match.task_id, level.step)


def _own_tree(local: LocalView, match: MatchState, side: Side) -> Tree | None:
    """One's own tree of the match's level, if it is at hand."""
    level = match.at
    if level.level is Level.CHECKPOINTS:
        claim = local.claims.get(match.task_id)
        return claim.tree if claim is not None else None
    built = local.segments if level.level is Level.STEPS else local.traces
    return built.get((match.task_id, level.step))


def _moves(local: LocalView, task: TaskState, match: MatchState, side: Side) -> Iterator[Action]:
    """The due side's move: down the whole rest if the opponent's tree is at hand, else as far as its children reach."""
    level = match.at
    own = _own_tree(local, match, side)
    theirs_root = level.root(side.other)
    if own is None and match.task_id in local.claims:  # after a restart
        yield _build(match)
    if own is None or own.root != level.root(side) or theirs_root is None:
        return
    theirs = local.trees.get(theirs_root)
    if local.one_transaction and theirs is None and theirs_root not in local.unreachable:
        yield FetchTree(theirs_root, level.height, task.roster[match.index(side.other)].account)
        return
    if theirs is not None:
        a, b = (own, theirs) if side is Side.A else (theirs, own)
        found = divergence_between(a, b, match.rest, match.position)
    elif match.phase is Phase.OPEN:
        yield Open(match.match_id, tuple(own.children(match.rest, match.position, _arity(task, match.rest))))
        return
    else:
        found = divergence_proof(own, match.rest, match.position, match.children, mine_is_a=side is Side.A)
    position = match.position << found.m | found.index
    rest = match.rest - found.m
    children = tuple(own.children(rest, position, _arity(task, rest))) if rest else ()
    pre = NO_OPENING
    if rest == 0 and level.level is not Level.OPERATORS and 0 < position < level.leaves:
        pre = _opening(match, own, own if side is Side.A else theirs, position, found)
    yield Advance(match.match_id, found.m, found.index, found.a, found.b, found.siblings, children, pre)


def _arity(task: TaskState, rest: int) -> int:
    return min(task.arity_bits, rest)


def _opening(match: MatchState, own: Tree, tree_a: Tree | None, position: int, found: Divergence) -> Opening:
    """The leaf before the divergence, under A's root. tree_a: A's tree, if it is at hand."""
    if tree_a is not None:
        return Opening(tree_a.leaf(position - 1), tuple(tree_a.prove(position - 1)))
    siblings = siblings_of_a(found.index, found.m, found.siblings)
    for move in reversed(match.at.moves):
        siblings += siblings_of_a(move.position & (1 << move.m) - 1, move.m, move.siblings)
    value, proof = opening_before(own, position, found.a, siblings)
    return Opening(value, tuple(proof))


def _hash_node(local: LocalView, task: TaskState, match: MatchState) -> Iterator[Action]:
    """Side A has the disputed hash node judged: its inputs are opened under A's own trace root."""
    header = task.params.program
    program, trace, nodes, pre = (
        local.programs.get(match.task_id),
        local.traces.get((match.task_id, match.step)),
        local.trees.get(header.nodes_root),
        local.trees.get(match.pre_state),
    )
    if program is None or trace is None or nodes is None or pre is None:
        yield BuildTrace(match.task_id, match.step)
        return
    node = program.trace_node(match.position)
    left, right = (_hash_input(local, task, match, (trace, pre), operand.ref) for operand in node.inputs)
    inputs = tuple(Input(int(i.ref.kind), i.ref.index, int(i.dtype), ()) for i in node.inputs)
    struct = Node(HASH_CODE, (), (), inputs, int(node.dtype), (), 0, 0)
    yield HashNode(match.match_id, header, struct, tuple(nodes.prove(match.position)), left, right)


def _hash_input(local: LocalView, task: TaskState, match: MatchState, trees: tuple[Tree, Tree], ref: Ref) -> HashInput:
    """One operand of a hash node with its proofs. trees: A's trace and the pre-state."""
    trace, pre = trees
    match ref.kind:
        case RefKind.NODE:
            return HashInput(trace.leaf(ref.index), tuple(trace.prove(ref.index)))
        case RefKind.STATE:
            return HashInput(pre.leaf(ref.index), tuple(pre.prove(ref.index)))
        case RefKind.CONSTANT:
            constants = local.trees[task.params.program.constants_root]
            return HashInput(constants.leaf(ref.index), tuple(constants.prove(ref.index)))
        case RefKind.BATCH:
            data = local.trees[task.data_root]
            at = match.step % task.batch_count
            batch = local.trees[data.leaf(at)]
            return HashInput(batch.leaf(ref.index), tuple(batch.prove(ref.index)), batch.root, tuple(data.prove(at)))
        case RefKind.ZERO:
            return HashInput(ZERO, ())
