"""What goes into one transaction: the verb that is planned, and whatever can follow it at once. Pure.

A verb's effect is folded into a copy of the state (`node/foresee.py`), and the match is planned again from there, as
long as the next verb is at hand and for the same contract. The first verb is right by itself: if the rest is refused,
it is sent alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from node.actions import (
    Action,
    Batch,
    BuildElement,
    BuildOutput,
    BuildSteps,
    BuildTrace,
    Chain,
    Fetch,
    Local,
    LocalView,
    Pair,
    TrialVerb,
)
from node.errors import InconsistentEvents
from node.fold import ChainState, due
from node.foresee import foresee
from node.plan import plan_match
from node.structs import Phase
from repops.errors import CommitmentError

Choose = Callable[[ChainState, Sequence[Action]], Sequence[Action]]

LONG = (BuildSteps, BuildTrace, BuildOutput, BuildElement)  # re-execute something


def look_ahead(
    state: ChainState,
    now: int,
    local: LocalView,
    first: Chain,
    choose: Choose = lambda _, actions: actions,
    tried: Collection[Action] = (),
) -> Action | None:
    """What to do for the planned verb `first`: send it alone or as the beginning of a batch, or do local work before,
    on which the next verb builds. None: wait for the next tick, because the opponent is asked again then.

    choose: what of a plan is done. tried: what has been done, or could not be done, in this tick.
    """
    verbs, patient = [first], _patient(state, now, first)
    below = isinstance(first, TrialVerb)
    match_id = len(state.matches) + 1 if isinstance(first, Pair) else getattr(first, "match", 0)
    while True:
        try:
            after = foresee(state, now, verbs[-1])
            if after is None or (after.matches[match_id].phase is Phase.REFEREE) is not below:
                break  # it is over, or goes on in another contract
            state = after
            action = next(iter(choose(state, plan_match(state, now, local, match_id))), None)
        except (CommitmentError, InconsistentEvents):
            break  # the contract will not accept the verb, so nothing follows it
        if isinstance(action, Fetch):
            return None if action in tried else action
        if isinstance(action, Local) and action not in tried and (patient or not isinstance(action, LONG)):
            return action
        if not isinstance(action, Chain) or isinstance(action, TrialVerb) is not below:
            break
        verbs.append(action)
    return first if len(verbs) == 1 else Batch(match_id, tuple(verbs))


def _patient(state: ChainState, now: int, first: Chain) -> bool:
    """Whether a long work may be waited for: nobody is due before a pairing, and the first half of the grace is free,
    with time enough left for what takes as long as a post may take."""
    match = state.matches.get(getattr(first, "match", 0))
    if match is None:
        return True
    task = state.tasks[match.task_id]
    waits = due(task, match, now)
    return waits is not None and 2 * (now - waits.since) < task.grace and waits.limit > task.build_window
