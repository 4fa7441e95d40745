"""What an actor does next: a pure function of the contract's state, the time and what the actor has at hand.

`plan` remembers nothing: an action that was done has changed the state and is not planned again, so a restart or a
reorg needs no journal. The game below the operator is planned in `node/trial_plan.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from node.actions import (
    Action,
    Advance,
    BuildSteps,
    BuildTrace,
    Challenge,
    Collect,
    CollectHoldback,
    Commit,
    Expire,
    FetchTree,
    HashNode,
    LocalView,
    Open,
    OwnClaim,
    Pair,
    Post,
    Reveal,
    Settle,
    Timeout,
    Withdraw,
)
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
    next_pair,
    owed,
    pairing_since,
    stage,
)
from node.moves import Place
from node.structs import NO_OPENING, Level, Phase, Side, Standing
from node.trial_plan import referee_actions
from node.witness import node_struct, open_input
from repops.commit import Tree

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


def plan_match(state: ChainState, now: int, local: LocalView, match_id: int) -> list[Action]:
    """What to do in a match right after a verb of one's own, in the same transaction: besides what one is due for,
    moves for which the other side is due. There is only one such move, and whoever makes it spares the other a
    transaction."""
    match = state.matches[match_id]
    task = state.tasks[match.task_id]
    return list(_match_actions(now, local, task, match, task.index_of(local.address), ahead=True))


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
                if can_pair(task, now) and (index == next_pair(task)[0] or _a_is_slow(state, now, task)):
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


def _a_is_slow(state: ChainState, now: int, task: TaskState) -> bool:
    """Side A pairs and makes its first move in one transaction, if the others let it: for as long as its grace."""
    return now >= pairing_since(state, task) + task.grace


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
    now: int, local: LocalView, task: TaskState, match: MatchState, index: int | None, *, ahead: bool = False
) -> Iterator[Action]:
    """ahead: see `plan_match`."""
    waits = due(task, match, now)
    if waits is None:
        return
    side = None if index is None else match.side_of(index)
    if waits.phase is Phase.REFEREE:
        yield from referee_actions(local, task, match, side, waits, ahead=ahead)
        return
    if waits.late:
        yield Timeout(match.match_id)
        return
    if side is None:
        return
    if waits.phase in (Phase.POST_A, Phase.POST_B):
        if waits.side is side or not ahead:
            yield from _post_actions(local, task, match, side)
    elif waits.phase is Phase.HASH_NODE:
        if waits.side is side:
            yield from _hash_node(local, task, match)
    elif waits.side is side or ahead:
        yield from _moves(local, task, match, side)


def _post_actions(local: LocalView, task: TaskState, match: MatchState, side: Side) -> Iterator[Action]:
    """Both sides build while the first is due: its build window is spent in parallel. B gives its children along, and
    A can answer; but not if B can make A's move, in the same transaction."""
    tree = _own_tree(local, match, side)
    if tree is None:
        if match.task_id in local.claims:
            yield _build(match)
    elif match.turn is side:
        children: tuple[bytes, ...] = ()
        if side is Side.B and tree.height:
            missing = _missing(local, task, match, side)
            if missing is not None:
                yield missing
                return
            if match.at.root_a not in local.trees:
                children = Place(tree.height, 0, task.arity_bits, ()).opening(tree)
        yield Post(match.match_id, tree.root, tuple(tree.prove(match.at.leaves - 1)), children)


def _missing(local: LocalView, task: TaskState, match: MatchState, side: Side) -> FetchTree | None:
    """The other side's tree of the level, if one would have it and may still ask for it."""
    root = match.at.root(side.other)
    if not local.one_transaction or root is None or root in local.trees or root in local.unreachable:
        return None
    return FetchTree(root, match.at.height, task.roster[match.index(side.other)].account)


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
    """A move: down the whole rest if the opponent's tree is at hand, else, if one is due, as far as its children
    reach."""
    level = match.at
    own = _own_tree(local, match, side)
    theirs_root = level.root(side.other)
    if own is None and match.task_id in local.claims:  # after a restart
        yield _build(match)
    if own is None or own.root != level.root(side) or theirs_root is None:
        return
    missing = _missing(local, task, match, side)
    if missing is not None:
        yield missing
        return
    theirs = local.trees.get(theirs_root)
    if theirs is None and match.turn is not side:
        return
    place = Place(match.rest, match.position, task.arity_bits, level.moves)
    if theirs is None and match.phase is Phase.OPEN:
        yield Open(match.match_id, place.opening(own))
        return
    step = place.step(own, theirs, side, match.children)
    pre = NO_OPENING
    if step.rest == 0 and level.level is not Level.OPERATORS and 0 < step.position < level.leaves:
        pre = place.before(own, own if side is Side.A else theirs, step)
    found = step.found
    yield Advance(match.match_id, found.m, found.index, found.a, found.b, found.siblings, step.children, pre)


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
    left, right = (open_input(local.trees, task, match, trace, operand.ref) for operand in node.inputs)
    yield HashNode(match.match_id, header, node_struct(node), tuple(nodes.prove(match.position)), left, right)
