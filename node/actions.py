"""What an actor can do, and what it has at hand when it plans.

`Chain` actions become one transaction each, `Local` actions are work that a later plan builds on (trees to build, trees
to fetch, inputs to serve).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from node.structs import HashInput, Node, Opening, ProgramHeader, Witness
from repops import Program
from repops.commit import TensorTree, Tree

# ------------------------------------------------------------------------------------------------------------ Actions


@dataclass(frozen=True)
class Chain:
    """One transaction."""


@dataclass(frozen=True)
class TrialVerb(Chain):
    """A verb of a trial, or about a verdict that can be appealed: sent to the task's referee."""

    match: int


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
    """Posts the root of one's tree of the level. proof: of its last real leaf. children: its top ones, for B."""

    match: int
    root: bytes
    proof: tuple[bytes, ...]
    children: tuple[bytes, ...]


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
class TrialBegin(TrialVerb):
    """Starts the trial of an operator. proof: of the node under the program's nodes root."""

    header: ProgramHeader
    node: Node
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class TrialOpen(TrialVerb):
    """Opens the top children of A's output root, or of its trace's."""

    children: tuple[bytes, ...]


@dataclass(frozen=True)
class TrialAdvance(TrialVerb):
    """A first-divergence proof over tiles or over states."""

    m: int
    index: int
    a: bytes
    b: bytes
    siblings: tuple[bytes, ...]
    children: tuple[bytes, ...]
    pre: Opening


@dataclass(frozen=True)
class ShowTiles(TrialVerb):
    """Shows A's tile, and B's (empty: B is left to show it)."""

    tile_a: bytes
    tile_b: bytes


@dataclass(frozen=True)
class PostElement(TrialVerb):
    """Posts the root of one's trace of the element. proof: of its last leaf. children: its top ones, for B."""

    root: bytes
    proof: tuple[bytes, ...]
    children: tuple[bytes, ...]


@dataclass(frozen=True)
class Execute(TrialVerb):
    """Has the contract execute the disputed instruction."""

    header: ProgramHeader
    node: Node
    proof: tuple[bytes, ...]
    witness: Witness


@dataclass(frozen=True)
class Conclude(TrialVerb):
    """Ends a trial that is decided, or whose due side is late."""


@dataclass(frozen=True)
class Batch(Chain):
    """Several verbs of one match, in their order, in one transaction; all of them or none. They are calls of one
    contract. match: as it is foreseen, if the first verb is `Pair`."""

    match: int
    verbs: tuple[Chain, ...]


@dataclass(frozen=True)
class SubmitVerdict(TrialVerb):
    """Brings a committee's verdict against which the sides may appeal."""

    config: bytes
    verdict: bytes


@dataclass(frozen=True)
class Appeal(TrialVerb):
    """Appeals against the committee's verdict."""


@dataclass(frozen=True)
class Timeout(Chain):
    """Ends a match whose due side is late."""

    match: int


@dataclass(frozen=True)
class Local:
    """Work of one's own; nothing is sent."""


@dataclass(frozen=True)
class Fetch(Local):
    """Something to ask the opponent for, who may not serve it."""


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
class FetchTree(Fetch):
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
class BuildOutput(Local):
    """Re-execute a step up to a compute node: the tree over the tiles of its output, and its run by RepVM."""

    task: int
    step: int
    node: int


@dataclass(frozen=True)
class BuildElement(Local):
    """Build the tree over the states of the run for an element of a node. value: what one claims of it."""

    task: int
    step: int
    node: int
    element: int
    value: int


@dataclass(frozen=True)
class BuildWitness(Local):
    """Put together what the contract needs to execute instruction `position` of the run for an element."""

    match: int
    element: int
    position: int


@dataclass(frozen=True)
class FetchTile(Fetch):
    """Ask the opponent for a tile of its output."""

    leaf: bytes
    root: bytes
    size: int
    index: int
    owner: str


@dataclass(frozen=True)
class FetchPath(Fetch):
    """Ask the opponent for the nodes of its trace along the first difference from one's own (`own` is its root)."""

    own: bytes
    root: bytes
    owner: str


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
    task. served: (task, step, node) whose inputs are put up. evidence: the committee's verdict, by match. outputs: the
    tiles of one's own output, by (task, step, node). elements: one's own trace, by (task, step, node, element). tiles:
    the other side's, by hash. paths: the other side's trace along the first difference, by both roots, one's own first.
    witnesses: by (match, position); None if there is none, because one's own states are not those agreed on. asked:
    matches whose committee has been asked in this tick. takes_seats, challenges: whether it joins tasks for which it
    has a claim, before and after the reveals. one_transaction: whether it asks the other side for its tree, to settle
    a level with one proof; if not, or if the other side does not serve it, the level is played move by move. watched:
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
    outputs: Mapping[tuple[int, int, int], TensorTree] = field(default_factory=dict)
    elements: Mapping[tuple[int, int, int, int], Tree] = field(default_factory=dict)
    tiles: Mapping[bytes, bytes] = field(default_factory=dict)
    paths: Mapping[tuple[bytes, bytes], Tree] = field(default_factory=dict)
    witnesses: Mapping[tuple[int, int], Witness | None] = field(default_factory=dict)
    asked: frozenset[int] = frozenset()
    watched: frozenset[int] = frozenset()
    takes_seats: bool = False
    challenges: bool = False
    one_transaction: bool = True
