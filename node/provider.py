"""The provider: examines a task, executes it, commits to a claim, and answers for it in every match."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field, replace
from enum import Enum
from typing import TypeVar

from eth_account.messages import encode_defunct

from node.actions import (
    BuildElement,
    BuildOutput,
    BuildSteps,
    BuildTrace,
    BuildWitness,
    FetchPath,
    Local,
    LocalView,
    OwnClaim,
    ServeInputs,
)
from node.chain.contracts import commitment
from node.data import DataSource, Embargo, Fetcher, State
from node.errors import DataError, MissingData, VerdeError, WrongRoot
from node.fold import Stage, TaskState, stage
from node.plan import seat_free
from node.player import Link, Player
from node.structs import RefereeKind, Side, TaskParams, Witness
from node.witness import agreed_state, build_witness
from node.work import Job, Work
from repops.commit import (
    TensorTree,
    Tree,
    batch_tree,
    constants_tree,
    data_tree,
    height,
    keccak256,
    state_tree,
    tensor_roots,
)
from repops.errors import CommitmentError
from repops.graph.encoding import constant_roots, nodes_tree
from repops.graph.ir import element_count
from repops.vm import NodeRun
from repops.vm.programs import image

log = logging.getLogger(__name__)

T = TypeVar("T")

WorkFactory = Callable[[Job, int], Work]
TaskProgress = Callable[[int, int, int], None]


class Reason(Enum):
    """Why a provider refuses a task."""

    PROGRAM = "program"  # not well formed, or not what the task's header says
    DATA = "data"  # the initial state or a batch is not what its root says, or does not fit the program
    TOO_LARGE = "too large"
    TOO_SLOW = "too slow"  # it could not answer within the task's windows
    CLOCK = "clock"  # the windows are too short for anybody to be safe
    MONEY = "money"  # the reward is too small, or the bond too large
    REFEREE = "referee"  # the contract that decides is none that this node knows


class Refusal(VerdeError):
    """A provider does not take a task. `reason` is the kind of fault, `task` the task's id."""

    def __init__(self, task: int, reason: Reason, what: str, cure: str) -> None:
        self.task, self.reason = task, reason
        super().__init__(what, where=f"task {task}", cure=cure)


@dataclass(frozen=True)
class Policy:
    """What a provider accepts. Amounts in wei, times in seconds.

    Re-executing a segment and tracing a step must take at most `window_share` of the task's build window (measured
    on one step before the provider commits), and all steps at most that share of the time left to the commit
    deadline.
    """

    min_reward: int = 1
    max_bond: int = 10**20
    gas_reserve: int = 10**17
    min_allowance: int = 60
    min_grace: int = 0
    min_window: int = 30
    max_steps: int = 1 << 24
    max_batches: int = 1 << 20
    max_nodes: int = 1 << 20
    window_share: float = 0.5


@dataclass
class _Engagement:
    """A task that the provider has executed."""

    params: TaskParams
    work: Work
    claim: OwnClaim
    segments: dict[int, Tree] = field(default_factory=dict)
    traces: dict[int, Tree] = field(default_factory=dict)
    served: set[tuple[int, int]] = field(default_factory=set)
    outputs: dict[tuple[int, int], TensorTree] = field(default_factory=dict)
    runs: dict[tuple[int, int], NodeRun] = field(default_factory=dict)
    elements: dict[tuple[int, int, int], Tree] = field(default_factory=dict)


class Provider(Player):
    """Takes seats, or audits revealed claims as a challenger, or both.

    It keeps no journal: the salt of a commitment follows from its key and the task, and after a restart a task in
    which it takes part is executed again.
    """

    def __init__(
        self,
        link: Link,
        directory: Mapping[str, DataSource],
        *,
        policy: Policy | None = None,
        make_work: WorkFactory = Work,
        takes_seats: bool = True,
        challenges: bool = False,
        one_transaction: bool = True,
        threads: int = 1,
        progress: TaskProgress | None = None,
    ) -> None:
        """make_work: how it executes; adversaries give another. progress: called with (task, steps done, steps)."""
        super().__init__(link, directory)
        self.policy = policy or Policy()
        self.make_work = make_work
        self.takes_seats, self.challenges = takes_seats, challenges
        self.one_transaction = one_transaction
        self.threads = threads
        self.progress = progress
        self.refusals: dict[int, Refusal] = {}
        self._engagements: dict[int, _Engagement] = {}
        self._paths: dict[tuple[bytes, bytes], Tree] = {}
        self._witnesses: dict[tuple[int, int], Witness | None] = {}

    # -- tasks ------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Examines and executes the tasks that it may join, and those in which it takes part (after a restart)."""
        for task in list(self.state.tasks.values()):
            if task.task_id in self._engagements or task.task_id in self.refusals or not self._wants(task):
                continue
            try:
                self.engage(task)
            except Refusal as refusal:
                log.warning("%s refuses %s", self.address, refusal)
                self.refusals[task.task_id] = refusal
            except DataError as error:  # the client may serve it later
                log.info("%s cannot get the data of task %d yet: %s", self.address, task.task_id, error)

    def rewound(self) -> None:
        """See Player. A task that is another one now is examined and executed anew."""
        super().rewound()
        self.refusals.clear()
        self._witnesses.clear()
        tasks = self.state.tasks
        self._engagements = {
            task_id: engaged
            for task_id, engaged in self._engagements.items()
            if task_id in tasks and tasks[task_id].params == engaged.params
        }

    def _wants(self, task: TaskState) -> bool:
        joined = task.index_of(self.address) is not None
        match stage(task, self.now):
            case Stage.COMMITTING:
                return joined or (self.takes_seats and seat_free(task, self.address))
            case Stage.REVEALING | Stage.CHALLENGING:
                return joined or (self.challenges and task.committed >= 2)
            case Stage.RESOLVING:
                return joined
        return False

    def engage(self, task: TaskState) -> None:
        """Examines a task, executes it and makes its claim. Raises Refusal or DataError; then nothing is kept."""
        work = self.make_work(self.examine(task), self.threads)
        report = self.progress
        work.run(None if report is None else lambda done, steps: report(task.task_id, done, steps))
        tree, count = work.claim_tree(), work.job.checkpoints
        final, salt = tree.leaf(count - 1), self.salt(task.task_id)
        sealed = commitment(
            self.link.chain_id, self.link.verde.address, task.task_id, self.address, tree.root, final, salt
        )
        self._engagements[task.task_id] = _Engagement(task.params, work, OwnClaim(tree, final, count, salt, sealed))
        self._serve_tree(tree, task)
        self.store.put_program(work.job.program)
        self.store.put_tensors(work.final_state, _embargo(task))

    def salt(self, task_id: int) -> bytes:
        """The salt of the commitment to a task: known to the holder of the key alone, the same after every
        restart."""
        text = f"Verde commitment salt: chain {self.link.chain_id}, contract {self.link.verde.address}, task {task_id}"
        return keccak256(bytes(self.link.sender.account.sign_message(encode_defunct(text=text)).signature))

    # -- examination ---------------------------------------------------------------------------------------------

    def examine(self, task: TaskState) -> Job:
        """Everything that a provider checks before its bond is at stake. Raises Refusal, or DataError if data is
        missing.

        The program is recomputed from its files to its root (which covers code hashes, shapes and tree heights), the
        initial state and every batch to theirs; the windows are held against the time that one step takes here.
        """
        self._examine_terms(task)
        program = self._from_client(task, Reason.PROGRAM, lambda asked: asked.program(task.program_root))
        if astuple(program.header()) != astuple(task.params.program):
            raise Refusal(
                task.task_id, Reason.PROGRAM, "the header is not that of the program", "The client has to correct it"
            )

        def data(asked: Fetcher) -> tuple[State, list[bytes], dict[bytes, State]]:
            initial = asked.state(task.initial_state_root, program)
            roots = asked.leaves(task.data_root, task.batch_count, height(task.batch_count))
            return initial, roots, {root: asked.batch(root, program) for root in dict.fromkeys(roots)}

        initial, roots, by_root = self._from_client(task, Reason.DATA, data)
        job = Job(program, initial, [by_root[root] for root in roots], roots, task.steps, task.interval)
        self._examine_speed(task, job)
        return job

    def _from_client(self, task: TaskState, reason: Reason, ask: Callable[[Fetcher], T]) -> T:
        """What the client serves, or, if it serves nothing (any more), what anybody else does. A lie is a reason to
        refuse the task only if it is the client's."""
        try:
            return ask(self.fetcher(task.client, others=False))
        except WrongRoot as error:
            raise Refusal(
                task.task_id, reason, str(error), "The client has to serve what it has committed to"
            ) from error
        except MissingData:
            return ask(self.fetcher())

    def _examine_terms(self, task: TaskState) -> None:
        policy = self.policy
        if task.referee_kind is RefereeKind.UNKNOWN:
            what = f"the referee {task.referee} may rule as it likes"
            raise Refusal(task.task_id, Reason.REFEREE, what, "Name one of the referees that providers know")
        seated = task.index_of(self.address) is not None
        for limit, value, name in (
            (policy.max_steps, task.steps, "steps"),
            (policy.max_batches, task.batch_count, "batches"),
            (policy.max_nodes, task.nodes, "trace nodes"),
        ):
            if value > limit:
                raise Refusal(task.task_id, Reason.TOO_LARGE, f"{value} {name} are more than {limit}", "Split the task")
        for least, value, name in (
            (policy.min_allowance, task.allowance, "allowance"),
            (policy.min_grace, task.grace, "grace"),
            (policy.min_window, task.reveal_deadline - task.commit_deadline, "reveal window"),
            (policy.min_window, task.challenge_deadline - task.reveal_deadline, "challenge window"),
            (policy.min_window, task.build_window, "build window"),
            (policy.min_window, task.referee_window, "referee window"),
        ):
            if value < least:
                raise Refusal(
                    task.task_id, Reason.CLOCK, f"{name}: {value} s are less than {least} s", "Give it more time"
                )
        if task.reward < policy.min_reward:
            raise Refusal(
                task.task_id,
                Reason.MONEY,
                f"a reward of {task.reward} wei is less than {policy.min_reward}",
                "Pay more",
            )
        if seated:
            return  # the bond is paid
        affordable = min(policy.max_bond, self.link.sender.balance() - policy.gas_reserve)
        if task.bond > affordable:
            raise Refusal(
                task.task_id,
                Reason.MONEY,
                f"a bond of {task.bond} wei is more than {affordable}",
                "Ask for a smaller bond",
            )

    def _examine_speed(self, task: TaskState, job: Job) -> None:
        work = Work(job, self.threads)
        started = time.perf_counter()
        work.advance(0, job.initial)
        step = time.perf_counter() - started
        started = time.perf_counter()
        work.trace(0, job.initial)
        trace = time.perf_counter() - started
        worst = (min(job.interval, job.steps) * step) + trace
        if task.referee_kind.has_trials:
            worst = max(worst, _element_seconds(work))
        if worst > self.policy.window_share * task.build_window:
            raise Refusal(
                task.task_id,
                Reason.TOO_SLOW,
                f"what a dispute may ask for takes {worst:.1f} s here, the build window is {task.build_window} s",
                "Use more checkpoints or a longer build window",
            )
        left = (task.commit_deadline if task.index_of(self.address) is None else task.challenge_deadline) - self.now
        if stage(task, self.now) is Stage.COMMITTING and job.steps * step > self.policy.window_share * left:
            raise Refusal(
                task.task_id,
                Reason.TOO_SLOW,
                f"{job.steps} steps take {job.steps * step:.1f} s here, {left} s are left to commit",
                "Use a longer commit window",
            )

    # -- the game ------------------------------------------------------------------------------------------------

    def view(self) -> LocalView:
        """See Player."""
        engaged = self._engagements
        return replace(
            super().view(),
            claims={task: e.claim for task, e in engaged.items()},
            segments={(task, first): tree for task, e in engaged.items() for first, tree in e.segments.items()},
            traces={(task, step): tree for task, e in engaged.items() for step, tree in e.traces.items()},
            programs={task: e.work.job.program for task, e in engaged.items()},
            outputs={(task, *key): tree for task, e in engaged.items() for key, tree in e.outputs.items()},
            elements={(task, *key): tree for task, e in engaged.items() for key, tree in e.elements.items()},
            paths=self._paths,
            witnesses=self._witnesses,
            served=frozenset((task, *key) for task, e in engaged.items() for key in e.served),
            takes_seats=self.takes_seats,
            challenges=self.challenges,
            one_transaction=self.one_transaction,
        )

    def perform(self, action: Local) -> None:
        """See Player."""
        match action:
            case BuildSteps(task, first):
                engaged = self._engagements[task]
                engaged.segments[first] = engaged.work.segment_tree(first)
                self._serve_tree(engaged.segments[first], self.state.tasks[task])
            case BuildTrace(task, step):
                self._build_trace(self.state.tasks[task], self._engagements[task], step)
            case ServeInputs(task, step, node):
                engaged = self._engagements[task]
                embargo = _embargo(self.state.tasks[task])
                for tensor in engaged.work.node_inputs(step, node):
                    self.store.put_tensor(tensor, embargo)
                self._build_trace(self.state.tasks[task], engaged, step)
                engaged.served.add((step, node))
            case BuildOutput(task, step, node):
                self._build_output(self.state.tasks[task], self._engagements[task], step, node)
            case BuildElement(task, step, node, element, value):
                engaged = self._engagements[task]
                tree = engaged.work.element_trace(self._run(engaged, step, node), element, value)
                engaged.elements[step, node, element] = tree
                self.store.put_nodes(tree, _embargo(self.state.tasks[task]))
            case BuildWitness(match, element, position):
                self._witnesses[match, position] = self._witness(match, element, position)
            case FetchPath(own, root, owner):
                trees = (tree for engaged in self._engagements.values() for tree in engaged.elements.values())
                mine = next(tree for tree in trees if tree.root == own)
                try:
                    self._paths[own, root] = self.fetcher(owner, others=False).path(mine, root)
                except DataError as error:
                    log.info("%s: no trace of %s at hand, it is played move by move: %s", self.address, owner, error)
                    self.miss(root)
            case _:
                super().perform(action)

    def _build_trace(self, task: TaskState, engaged: _Engagement, step: int) -> None:
        work = engaged.work
        program, batch = work.job.program, work.batch(step)
        pre = work.state_before(step)
        if step not in engaged.traces:
            engaged.traces[step] = work.trace_tree(step)
        for tree in (
            engaged.traces[step],
            state_tree(tensor_roots(pre.values())),
            batch_tree(tensor_roots(batch.values())),
            data_tree(work.job.batch_roots),
            constants_tree(constant_roots(program)),
            nodes_tree(program),
        ):
            self._serve_tree(tree, task)

    def _build_output(self, task: TaskState, engaged: _Engagement, step: int, node: int) -> None:
        tree = engaged.outputs[step, node] = engaged.work.output_tree(step, node)
        self._serve_tree(tree, task)
        self.store.put_tensor(engaged.work.output(step, node), _embargo(task), tree.root)
        self._build_trace(task, engaged, step)

    def _run(self, engaged: _Engagement, step: int, node: int) -> NodeRun:
        if (step, node) not in engaged.runs:
            engaged.runs[step, node] = engaged.work.node_run(step, node)
        return engaged.runs[step, node]

    def _witness(self, match_id: int, element: int, position: int) -> Witness | None:
        """The witness for an instruction, None if its own states are not those that both sides have agreed on."""
        match = self.state.matches[match_id]
        engaged = self._engagements[match.task_id]
        run = self._run(engaged, match.step, match.position)
        before = match.trial.before if match.trial is not None else None
        if before is not None and agreed_state(run, element, position) != before:
            return None
        task = self.state.tasks[match.task_id]
        at_a = match.side_of(task.index_of(self.address) or 0) is Side.A
        trace = engaged.traces[match.step] if at_a else self._trees.get(match.root_a)
        if trace is None:  # what a node reads is opened under A's root
            return None
        try:
            return build_witness(run, element, position, self._trees, task, match, trace)
        except (KeyError, CommitmentError) as error:
            log.warning("%s: match %d: no witness: %s", self.address, match_id, error)
            return None

    def _serve_tree(self, tree: Tree, task: TaskState) -> None:
        """Keeps a tree, and serves its leaves as soon as nobody can commit to a copy any more."""
        self.keep_tree(tree)
        self.store.put_tree(tree, _embargo(task))


def _element_seconds(work: Work) -> float:
    """How long it takes to run one element of the node with the longest runs, and to build its trace."""
    nodes = work.job.program.nodes
    heights = [image(node.op).height(node) if element_count(node.shape) else -1 for node in nodes]
    if max(heights, default=-1) < 0:
        return 0.0
    started = time.perf_counter()
    work.element_trace(work.node_run(0, heights.index(max(heights))), 0, 0)
    return time.perf_counter() - started


def _embargo(task: TaskState) -> Embargo:
    """What belongs to a claim is served when no block can be replaced any more in which somebody could still commit. If
    the chain finalizes too slowly, when the reveals are over: from then on matches are played, and need the data."""
    return Embargo(final=task.commit_deadline, latest=task.reveal_deadline)
