"""The enums and structs of the contracts (contracts/interfaces/), field by field in their order, in snake case.

Roots are `bytes` of length 32, addresses checksummed `str`, amounts wei, times seconds. An enum or struct that the
ABI knows under another set of fields is refused when the bindings are loaded (`node/chain/abi.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

ZERO = bytes(32)
NOBODY = "0x0000000000000000000000000000000000000000"
BURN = "0x000000000000000000000000000000000000dEaD"


class Status(IntEnum):
    """What is stored of a task's life; `node.fold.Stage` adds what follows from the time."""

    NONE = 0
    LIVE = 1
    SETTLED = 2
    FAILED = 3
    VOIDED = 4
    CANCELLED = 5


class Standing(IntEnum):
    """Where a participant stands: has a seat but has not revealed, waits in its claim's queue, plays a match, is
    out."""

    NONE = 0
    COMMITTED = 1
    FREE = 2
    PLAYING = 3
    LOST = 4


class Level(IntEnum):
    """The tree on which a match stands."""

    CHECKPOINTS = 0
    STEPS = 1
    OPERATORS = 2


class Phase(IntEnum):
    """What a match waits for."""

    NONE = 0
    OPEN = 1
    MOVE = 2
    POST_A = 3
    POST_B = 4
    HASH_NODE = 5
    REFEREE = 6
    DONE = 7


class Side(IntEnum):
    """Side A is the participant with the lower index."""

    A = 0
    B = 1

    @property
    def other(self) -> Side:
        return Side(1 - self)


class Outcome(IntEnum):
    """How a match ended."""

    NONE = 0
    A_WINS = 1
    B_WINS = 2
    BOTH_LOSE = 3
    VOID = 4


class Reason(IntEnum):
    """Why a match ended."""

    NONE = 0
    TIMEOUT = 1
    PADDING = 2
    HASH_NODE = 3
    VERDICT = 4
    UNAVAILABLE = 5
    SILENCE = 6


class Ruling(IntEnum):
    """What a referee says of an operator: its true root, a side that stands, that none does, or nothing at all."""

    NONE = 0
    ROOT = 1
    A_WINS = 2
    B_WINS = 3
    BOTH_LOSE = 4
    VOID = 5


class TrialStage(IntEnum):
    """What a trial waits for: the tiles' top children, a divergence proof over tiles, A's tile, both tiles, A's and
    B's trace of the element, the top children of A's trace, a divergence proof over states, the instruction."""

    NONE = 0
    OPEN = 1
    ELEMENTS = 2
    TILE_A = 3
    TILE_B = 4
    TRACE_A = 5
    TRACE_B = 6
    OPEN_TRACE = 7
    INSTRUCTIONS = 8
    EXECUTE = 9
    DONE = 10


class RefereeKind(Enum):
    """Which contract a task has as its referee. UNKNOWN: none that this node knows."""

    UNKNOWN = "unknown"
    COMMITTEE = "committee"
    EVM = "evm"
    APPEAL = "appeal"

    @property
    def has_committee(self) -> bool:
        """Whether a committee is asked (first)."""
        return self in (RefereeKind.COMMITTEE, RefereeKind.APPEAL)

    @property
    def has_trials(self) -> bool:
        """Whether a match may go on below the operator."""
        return self in (RefereeKind.EVM, RefereeKind.APPEAL)


@dataclass(frozen=True)
class ProgramHeader:
    """A program in short (docs/spec/programs.md)."""

    compute_nodes: int
    nodes: int
    slots: int
    batch_tensors: int
    constants: int
    nodes_root: bytes
    slots_hash: bytes
    batch_hash: bytes
    constants_root: bytes
    constants_hash: bytes


@dataclass(frozen=True)
class Input:
    """One input of a node: a ref (kind 0 state, 1 batch, 2 constant, 3 node, 4 zero) and how it is read."""

    kind: int
    index: int
    dtype: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """A node of a program; its leaf under nodesRoot is keccak256(abi.encode(node))."""

    code: bytes
    params: tuple[int, ...]
    literals: tuple[int, ...]
    inputs: tuple[Input, ...]
    dtype: int
    shape: tuple[int, ...]
    tile_height: int
    vm_height: int


@dataclass(frozen=True)
class TaskParams:
    """All parameters of a task (docs/spec/game.md, section 1)."""

    program: ProgramHeader
    initial_state_root: bytes
    data_root: bytes
    batch_count: int
    steps: int
    interval: int
    seats: int
    providers: tuple[str, ...]
    arity_bits: int
    reward: int
    bond: int
    verb_fee: int
    bounty: int
    holdback_bps: int
    commit_window: int
    reveal_window: int
    challenge_window: int
    build_window: int
    allowance: int
    grace: int
    referee_window: int
    delivery_window: int
    referee: str
    referee_config: bytes


@dataclass(frozen=True)
class Task:
    """Stored state of a task."""

    client: str
    open: bool
    confirmed: bool
    seats: int
    committed: int
    revealed: int
    surviving_seats: int
    participants: int
    commit_deadline: int
    reveal_deadline: int
    challenge_deadline: int
    ended_at: int
    live_matches: int
    head: int
    tail: int
    claims: int
    payee: int
    holdback_bps: int
    arity_bits: int
    allowance: int
    grace: int
    delivery_window: int
    challenge_window: int
    steps: int
    interval: int
    batch_count: int
    compute_nodes: int
    nodes: int
    build_window: int
    status: Status
    referee_window: int
    referee: str
    reward: int
    bond: int
    verb_fee: int
    bounty: int
    program_root: bytes
    initial_state_root: bytes
    data_root: bytes
    config_hash: bytes


@dataclass(frozen=True)
class Participant:
    """Stored state of a participant. Links hold index + 1, 0 for none."""

    account: str
    standing: Standing
    collected: bool
    holdback_collected: bool
    claim_id: int
    next: int
    commitment: bytes


@dataclass(frozen=True)
class Claim:
    """Stored state of a claim and its queue of free survivors."""

    root: bytes
    final_state_root: bytes
    head: int
    tail: int
    next: int


@dataclass(frozen=True)
class Member:
    """What is stored of an account in a task; `participant` is index + 1."""

    named: bool
    participant: int


@dataclass(frozen=True)
class Match:
    """Stored state of a match."""

    node_a: bytes
    node_b: bytes
    root_a: bytes
    pre_state: bytes
    task_id: int
    grace: int
    arity_bits: int
    index_a: int
    index_b: int
    step: int
    outcome: Outcome
    position: int
    since: int
    clock_a: int
    clock_b: int
    verbs: int
    level: Level
    phase: Phase
    turn: Side
    rest: int
    match_id: int


@dataclass(frozen=True)
class Opening:
    """A leaf with its siblings, bottom-up."""

    value: bytes
    proof: tuple[bytes, ...]


NO_OPENING = Opening(ZERO, ())


@dataclass(frozen=True)
class HashInput:
    """The root of one input of a hash node, with proofs, bottom-up. The batch fields are ZERO and empty unless the
    input is a batch tensor."""

    value: bytes
    proof: tuple[bytes, ...]
    batch_root: bytes = ZERO
    batch_proof: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Question:
    """One undecided operator of one match, as the contract puts it to a referee (IReferee.sol)."""

    verde: str
    task_id: int
    match_id: int
    program_root: bytes
    data_root: bytes
    batch_count: int
    pre_state: bytes
    step: int
    node: int
    trace_root: bytes
    root_a: bytes
    root_b: bytes
    config_hash: bytes
    since: int
    window: int
    clock_a: int
    clock_b: int
    grace: int
    build_window: int
    arity_bits: int
    account_a: str
    account_b: str


@dataclass(frozen=True)
class Trial:
    """Stored state of a trial (IEvmReferee.sol)."""

    node_a: bytes
    node_b: bytes
    root_a: bytes
    position: int
    since: int
    clock_a: int
    clock_b: int
    verbs: int
    rest: int
    stage: TrialStage
    turn: Side
    ruling: Ruling
    arity_bits: int
    vm_height: int
    item_size: int
    match_id: int
    elements: int
    element: int
    value_a: int
    value_b: int
    grace: int


@dataclass(frozen=True)
class Witness:
    """What `execute` recomputes an instruction from. What an instruction does not need is empty or zero."""

    state: bytes
    words: int
    code_root: bytes
    instructions: bytes
    instructions_proof: tuple[bytes, ...]
    input: HashInput
    tile: bytes
    tile_proof: tuple[bytes, ...]
    constants: bytes
    constants_proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Verdict:
    """What a committee said of a match before an appeal (IAppealReferee.sol); times are 0 if there is none."""

    output_root: bytes
    time: int
    appeal_window: int
    appealed_at: int
    available: bool
    signers: int
