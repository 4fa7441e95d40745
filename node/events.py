"""The contracts' events as frozen dataclasses, and their decoding from logs.

One class per event of contracts/interfaces/IVerde.sol, and of the referees that keep a state (IEvmReferee.sol,
IAppealReferee.sol); fields in their order, in snake case; `meta` says where on the chain it stands. `node/fold.py`
rebuilds the contracts' state from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeAlias, get_args, get_type_hints

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_utils.crypto import keccak

from node.chain.abi import abi_type, artifact, check_fields, from_abi
from node.errors import ConfigError, MalformedLog
from node.structs import Level, Outcome, Phase, Reason, Ruling, Side, TaskParams


@dataclass(frozen=True, order=True)
class Meta:
    """Where an event stands: block, transaction, and the log's index within the block."""

    block: int
    log_index: int
    block_hash: bytes
    tx_hash: bytes


@dataclass(frozen=True, kw_only=True)
class _Event:
    meta: Meta = field(compare=False)


@dataclass(frozen=True)
class TaskCreated(_Event):
    """A task was created; its escrow is `params.reward * params.seats` wei."""

    task_id: int
    client: str
    program_root: bytes
    time: int
    params: TaskParams


@dataclass(frozen=True)
class Committed(_Event):
    """`provider` took a seat as participant `index` and paid its bond."""

    task_id: int
    provider: str
    index: int
    commitment: bytes


@dataclass(frozen=True)
class Cancelled(_Event):
    """The task ended with fewer than two commitments."""

    task_id: int
    time: int


@dataclass(frozen=True)
class Revealed(_Event):
    """Participant `index` revealed its claim and stands in its queue."""

    task_id: int
    provider: str
    index: int
    claim_id: int
    claim_root: bytes
    final_state_root: bytes


@dataclass(frozen=True)
class Challenged(_Event):
    """`challenger` joined as participant `index`, paid its bond and stands in its claim's queue. A claim that nobody
    held before has moved the challenge deadline."""

    task_id: int
    challenger: str
    index: int
    claim_id: int
    claim_root: bytes
    final_state_root: bytes
    challenge_deadline: int


@dataclass(frozen=True)
class Paired(_Event):
    """A match began at level Checkpoints; A is due to open (unless the claim is one checkpoint)."""

    task_id: int
    match_id: int
    index_a: int
    index_b: int
    time: int


@dataclass(frozen=True)
class Opened(_Event):
    """A's root was opened; B is due."""

    match_id: int
    children: tuple[bytes, ...]
    time: int


@dataclass(frozen=True)
class Advanced(_Event):
    """`mover` proved the first divergence `m` levels further down."""

    match_id: int
    mover: Side
    m: int
    position: int
    rest: int
    node_a: bytes
    node_b: bytes
    siblings: tuple[bytes, ...]
    children: tuple[bytes, ...]
    time: int


@dataclass(frozen=True)
class LevelClosed(_Event):
    """Leaf `position` of `closed` is the first divergence; the match goes on at `level` in `phase`."""

    match_id: int
    closed: Level
    position: int
    pre_state: bytes
    step: int
    level: Level
    phase: Phase


@dataclass(frozen=True)
class Posted(_Event):
    """`side` posted the root of its tree of the level; B with the top children of its tree, or A is due to open."""

    match_id: int
    side: Side
    root: bytes
    children: tuple[bytes, ...]
    time: int


@dataclass(frozen=True)
class Judged(_Event):
    """The referee ruled on the disputed node (`output_root` is the true one if the ruling is ROOT), or the contract
    computed a hash node."""

    match_id: int
    ruling: Ruling
    output_root: bytes
    time: int


@dataclass(frozen=True)
class MatchEnded(_Event):
    """The match is over: `paid` wei of the loser's bond went to the winner, `burned` wei were burned."""

    task_id: int
    match_id: int
    outcome: Outcome
    reason: Reason
    paid: int
    burned: int
    time: int


@dataclass(frozen=True)
class Settled(_Event):
    """Claim `claim_id` stands. `payee` is index + 1 of the challenger that is paid a reward if no seat survived."""

    task_id: int
    claim_id: int
    claim_root: bytes
    final_state_root: bytes
    payee: int
    time: int


@dataclass(frozen=True)
class Failed(_Event):
    """Nobody survived."""

    task_id: int
    time: int


@dataclass(frozen=True)
class Voided(_Event):
    """The referee was silent: the escrow was burned, all matches of the task end."""

    task_id: int
    time: int


@dataclass(frozen=True)
class Collected(_Event):
    """What the ended task owed participant `index` was credited."""

    task_id: int
    index: int
    amount: int


@dataclass(frozen=True)
class DeliveryConfirmed(_Event):
    """The client has its result."""

    task_id: int


@dataclass(frozen=True)
class HoldbackCollected(_Event):
    """The held-back share of participant `index` was credited."""

    task_id: int
    index: int
    amount: int


@dataclass(frozen=True)
class Credited(_Event):
    """`credit[account]` rose by `amount`."""

    account: str
    amount: int


@dataclass(frozen=True)
class Withdrawn(_Event):
    """All of `credit[account]`, `amount` wei, was sent to `account`."""

    account: str
    amount: int


@dataclass(frozen=True)
class _TrialEvent(_Event):
    """An event of a referee, about match `match_id` of the Verde contract at `verde`."""

    verde: str
    match_id: int


@dataclass(frozen=True)
class Begun(_TrialEvent):
    """A trial began; side A is due since `since`."""

    tile_height: int
    vm_height: int
    elements: int
    item_size: int
    since: int


@dataclass(frozen=True)
class TrialOpened(_TrialEvent):
    """The children of A's output root; B is due."""

    children: tuple[bytes, ...]
    time: int


@dataclass(frozen=True)
class TrialAdvanced(_TrialEvent):
    """`mover` proved the first divergence, over tiles or over states, `m` levels further down."""

    mover: Side
    m: int
    position: int
    rest: int
    a: bytes
    b: bytes
    siblings: tuple[bytes, ...]
    children: tuple[bytes, ...]
    time: int


@dataclass(frozen=True)
class TileShown(_TrialEvent):
    """Side A showed its tile; B is due."""

    tile: bytes
    time: int


@dataclass(frozen=True)
class ElementFound(_TrialEvent):
    """The first differing element, and what both sides claim of it as little-endian numbers."""

    element: int
    value_a: int
    value_b: int
    time: int


@dataclass(frozen=True)
class TracePosted(_TrialEvent):
    """`side` posted the root of the element's trace, B with the top children of its tree, or A is due to
    open."""

    side: Side
    root: bytes
    children: tuple[bytes, ...]
    time: int


@dataclass(frozen=True)
class InstructionFound(_TrialEvent):
    """The instruction was found: the agreed state before it and both claims of the state after it, as hashes."""

    position: int
    before: bytes
    after_a: bytes
    after_b: bytes


@dataclass(frozen=True)
class Executed(_TrialEvent):
    """The contract executed the instruction (0 if there is none at pc)."""

    word: int
    state_after: bytes


@dataclass(frozen=True)
class Ruled(_TrialEvent):
    """The trial is over."""

    ruling: Ruling
    time: int


@dataclass(frozen=True)
class VerdictGiven(_TrialEvent):
    """The committee has spoken; its root stands from `appeal_end` on unless a side appeals."""

    available: bool
    output_root: bytes
    signers: int
    time: int
    appeal_end: int


@dataclass(frozen=True)
class Appealed(_TrialEvent):
    """A side has appealed: side A is due from `time` on."""

    account: str
    time: int


@dataclass(frozen=True)
class CommitteeWrong(_TrialEvent):
    """Who lost the appeal held the root that these members (bits) had signed."""

    output_root: bytes
    signers: int


Event: TypeAlias = (
    TaskCreated
    | Committed
    | Cancelled
    | Revealed
    | Challenged
    | Paired
    | Opened
    | Advanced
    | LevelClosed
    | Posted
    | Judged
    | MatchEnded
    | Settled
    | Failed
    | Voided
    | Collected
    | DeliveryConfirmed
    | HoldbackCollected
    | Credited
    | Withdrawn
    | Begun
    | TrialOpened
    | TrialAdvanced
    | TileShown
    | ElementFound
    | TracePosted
    | InstructionFound
    | Executed
    | Ruled
    | VerdictGiven
    | Appealed
    | CommitteeWrong
)

EVENTS: tuple[type[Event], ...] = get_args(Event)
TrialMove: TypeAlias = (
    TrialOpened | TrialAdvanced | TileShown | ElementFound | TracePosted | InstructionFound | Executed | Ruled
)
# What the referees call their events where Verde has one of that name.
_RENAMED = {"Opened": TrialOpened, "Advanced": TrialAdvanced, "Posted": TracePosted}


@dataclass(frozen=True)
class _Decoder:
    """How one event is read: which arguments stand in topics, which in the data."""

    cls: type[Event]
    names: tuple[str, ...]
    indexed: tuple[bool, ...]
    types: tuple[str, ...]
    hints: Mapping[str, Any]


@cache
def decoders() -> Mapping[bytes, _Decoder]:
    """Topic 0 -> decoder, from the ABI. Raises ConfigError if the ABI and the classes above differ."""
    classes = {cls.__name__: cls for cls in EVENTS}
    found: dict[bytes, _Decoder] = {}
    # The events of an EvmReferee are those of an AppealReferee, without the last three.
    entries = [(e, contract) for contract in ("Verde", "AppealReferee") for e in artifact(contract).abi]
    for entry, contract in entries:
        if entry["type"] != "event":
            continue
        name = entry["name"]
        if contract != "Verde" and name in _RENAMED:
            name = _RENAMED[name].__name__
        cls = classes.pop(name, None)
        if cls is None:
            raise ConfigError("the ABI has an event that the node does not know", where=entry["name"])
        check_fields(cls, entry["inputs"], entry["name"], skip=("meta",))
        types = tuple(abi_type(parameter) for parameter in entry["inputs"])
        found[keccak(text=f"{entry['name']}({','.join(types)})")] = _Decoder(
            cls,
            tuple(f.name for f in fields(cls) if f.name != "meta"),
            tuple(parameter["indexed"] for parameter in entry["inputs"]),
            types,
            get_type_hints(cls),
        )
    if classes:
        raise ConfigError("the ABI lacks events that the node knows", where=", ".join(sorted(classes)))
    return found


def decode_log(log: Mapping[str, Any]) -> Event:
    """The event in a log as web3 returns it. Raises MalformedLog: no event of the contract, or bytes that the contract
    cannot have emitted (wrong lengths, non-canonical encoding, unknown enum value)."""
    try:
        meta = Meta(
            int(log["blockNumber"]), int(log["logIndex"]), bytes(log["blockHash"]), bytes(log["transactionHash"])
        )
        topics, data = [bytes(topic) for topic in log["topics"]], bytes(log["data"])
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedLog(f"a log without its fields ({error})", where="log") from error
    where = f"block {meta.block}, log {meta.log_index}"
    decoder = decoders().get(topics[0]) if topics else None
    if decoder is None:
        raise MalformedLog(
            f"no event of the contract: topic {'0x' + topics[0].hex() if topics else 'missing'}",
            where=where,
            cure="Check that the address is that of a Verde contract of this version",
        )
    try:
        in_topics = [kind for kind, indexed in zip(decoder.types, decoder.indexed, strict=True) if indexed]
        in_data = [kind for kind, indexed in zip(decoder.types, decoder.indexed, strict=True) if not indexed]
        values = [iter(decode(in_data, data)), iter(decode(in_topics, b"".join(topics[1:])))]
        arguments = [next(values[indexed]) for indexed in decoder.indexed]
        split = {
            True: [a for a, indexed in zip(arguments, decoder.indexed, strict=True) if indexed],
            False: [a for a, indexed in zip(arguments, decoder.indexed, strict=True) if not indexed],
        }
        if encode(in_data, split[False]) != data or encode(in_topics, split[True]) != b"".join(topics[1:]):
            raise ValueError("not the canonical encoding")
        return decoder.cls(
            **{n: from_abi(decoder.hints[n], a) for n, a in zip(decoder.names, arguments, strict=True)}, meta=meta
        )
    except (DecodingError, EncodingError, ValueError, TypeError, OverflowError) as error:
        raise MalformedLog(
            f"the bytes of {decoder.cls.__name__} do not fit its ABI ({error})",
            where=where,
            cure="The endpoint is broken or lies: use another one",
        ) from error
