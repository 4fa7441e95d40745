// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IMulticall} from "./IMulticall.sol";
import {IReferee, Question, Ruling} from "./IReferee.sol";

/// @title Verde: verification by refereed delegation
/// @notice Tasks, claims, matches and money of docs/spec/game.md. Time is `block.timestamp`, ETH is the only money, there is no owner.
/// Every instant bound is exclusive: a call counts iff it comes before the deadline. Indices of participants count from 0 in the order of
/// joining; the links between them (`next`, `head`, `tail`) hold index + 1, and 0 for none. Ids of tasks, matches and claims count from 1.
interface IVerde is IMulticall {
    // ---------------------------------------------------------------- Types

    /// @notice What is stored of a task's life; Committing, Revealing and Challenging follow from the time.
    /// @dev Live: not ended. Settled: one claim stands. Failed: nobody survived. Voided: the referee was silent. Cancelled: fewer than two commitments.
    enum Status {
        None,
        Live,
        Settled,
        Failed,
        Voided,
        Cancelled
    }

    /// @notice Where a participant stands.
    /// @dev Committed: has a seat, has not revealed. Free: a survivor in its claim's queue. Playing: a survivor in a match. Lost: out.
    enum Standing {
        None,
        Committed,
        Free,
        Playing,
        Lost
    }

    /// @notice The tree on which a match stands.
    enum Level {
        Checkpoints,
        Steps,
        Operators
    }

    /// @notice What a match waits for.
    /// @dev Open: the top children of A's root. Move: a divergence proof by `turn`. PostA, PostB: the root of the level's tree. HashNode: the
    /// judgement of a hash node. Referee: the referee's verdict. Done: nothing.
    enum Phase {
        None,
        Open,
        Move,
        PostA,
        PostB,
        HashNode,
        Referee,
        Done
    }

    /// @notice Side A is the participant with the lower index.
    enum Side {
        A,
        B
    }

    /// @notice How a match ended.
    enum Outcome {
        None,
        AWins,
        BWins,
        BothLose,
        Void
    }

    /// @notice Why a match ended.
    /// @dev Timeout: the due side was late. Padding: the trees first differ past their last real leaf. HashNode: by one keccak. Verdict: the
    /// referee ruled for a side or named the output root. Unavailable: the referee could not get the agreed inputs. Silence: no verdict in the referee's window.
    enum Reason {
        None,
        Timeout,
        Padding,
        HashNode,
        Verdict,
        Unavailable,
        Silence
    }

    /// @notice A program in short, docs/spec/programs.md; programRoot = keccak256(abi.encode(PROGRAM_TYPEHASH, header)).
    struct ProgramHeader {
        uint32 computeNodes;
        uint32 nodes;
        uint32 slots;
        uint32 batchTensors;
        uint32 constants;
        bytes32 nodesRoot;
        bytes32 slotsHash;
        bytes32 batchHash;
        bytes32 constantsRoot;
        bytes32 constantsHash;
    }

    /// @notice One input of a node: a reference (kind 0 state, 1 batch, 2 constant, 3 node, 4 zero) with the dtype and shape it is read under.
    struct Input {
        uint8 kind;
        uint32 index;
        uint8 dtype;
        uint64[] shape;
    }

    /// @notice A node of a program; its leaf under nodesRoot is keccak256(abi.encode(node)).
    struct Node {
        bytes32 code;
        int64[] params;
        uint64[] literals;
        Input[] inputs;
        uint8 dtype;
        uint64[] shape;
        uint8 tileHeight;
        uint8 vmHeight;
    }

    /// @notice All parameters of a task. Durations are seconds, amounts are wei.
    struct TaskParams {
        /// What is run; hashed to the program root.
        ProgramHeader program;
        /// State root before step 0.
        bytes32 initialStateRoot;
        /// Root of the batches.
        bytes32 dataRoot;
        /// Number of batches, at least 1; step `t` reads batch `t mod batchCount`.
        uint64 batchCount;
        /// Steps to run, 1 to 2^40.
        uint64 steps;
        /// Steps between two checkpoints, 1 to `steps`.
        uint64 interval;
        /// Number of providers, 2 to 16.
        uint8 seats;
        /// The named providers (exactly `seats`, distinct, not zero), or empty: the first that commit.
        address[] providers;
        /// log2 of the children that a move publishes, 1 to 6.
        uint8 arityBits;
        /// For each seat, more than 0.
        uint128 reward;
        /// From each participant, more than 0.
        uint128 bond;
        /// For each verb of a match, to its winner, from the loser's bond.
        uint128 verbFee;
        /// To the winner of a match, from the loser's bond.
        uint128 bounty;
        /// Share of a reward that waits for the delivery, at most 10,000.
        uint16 holdbackBps;
        /// From creation to the commit deadline, more than 0.
        uint40 commitWindow;
        /// From the commit to the reveal deadline, more than 0.
        uint40 revealWindow;
        /// From the reveal to the challenge deadline, more than 0; and from a challenge with a new claim, at least.
        uint40 challengeWindow;
        /// For a post, more than 0.
        uint40 buildWindow;
        /// The chess clock of each side of a match.
        uint40 allowance;
        /// Time of each response that is not charged, less than `allowance`.
        uint40 grace;
        /// For the verdict, more than 0.
        uint40 refereeWindow;
        /// From settling until held-back shares can be collected without a confirmation, more than 0 if `holdbackBps` is.
        uint40 deliveryWindow;
        /// Who decides the selected operator; must have code.
        IReferee referee;
        /// Checked by `referee.validate`, kept as its hash.
        bytes refereeConfig;
    }

    /// @notice Stored state of a task.
    struct Task {
        address client;
        /// Whether anyone may take a seat.
        bool open;
        /// Whether the client has confirmed the delivery.
        bool confirmed;
        uint8 seats;
        /// Commitments so far; participants with lower indices hold seats, the others are challengers.
        uint8 committed;
        /// Commitments that were revealed.
        uint8 revealed;
        /// Revealed commitments that have not lost a match.
        uint8 survivingSeats;
        /// Commitments and challengers.
        uint32 participants;
        uint40 commitDeadline;
        uint40 revealDeadline;
        uint40 challengeDeadline;
        /// Instant at which the task ended, 0 while it is live.
        uint40 endedAt;
        uint32 liveMatches;
        /// First and last claim with free survivors.
        uint32 head;
        uint32 tail;
        uint32 claims;
        /// Index + 1 of the challenger that is paid a reward because no seat survived.
        uint32 payee;
        uint16 holdbackBps;
        uint8 arityBits;
        uint40 allowance;
        uint40 grace;
        uint40 deliveryWindow;
        uint40 challengeWindow;
        /// From here to `status` one slot holds all that most verbs of a match need.
        uint48 steps;
        uint48 interval;
        uint64 batchCount;
        uint24 computeNodes;
        uint24 nodes;
        uint40 buildWindow;
        Status status;
        uint40 refereeWindow;
        IReferee referee;
        uint128 reward;
        uint128 bond;
        uint128 verbFee;
        uint128 bounty;
        bytes32 programRoot;
        bytes32 initialStateRoot;
        bytes32 dataRoot;
        bytes32 configHash;
    }

    /// @notice Stored state of a participant.
    struct Participant {
        address account;
        Standing standing;
        bool collected;
        bool holdbackCollected;
        /// The revealed claim, 0 before the reveal.
        uint32 claimId;
        /// Next free survivor of the same claim.
        uint32 next;
        /// Zero for a challenger.
        bytes32 commitment;
    }

    /// @notice Stored state of a claim. Its queue is empty iff `head` is 0, and then the claim itself is in no queue, and `tail` means nothing.
    struct Claim {
        bytes32 root;
        bytes32 finalStateRoot;
        /// First and last free survivor.
        uint32 head;
        uint32 tail;
        /// Next claim with free survivors.
        uint32 next;
    }

    /// @notice What is stored of an account in a task.
    struct Member {
        /// Whether a seat is reserved for it.
        bool named;
        /// Index + 1 of its participant.
        uint32 participant;
    }

    /// @notice Stored state of a match.
    struct Match {
        /// The subtrees in which the first divergence lies; at a post the disputed leaves of the level above, of a side that has posted its root.
        bytes32 nodeA;
        bytes32 nodeB;
        /// Side A's root of the level, in the phases Move, HashNode and Referee (in Open it is `nodeA`).
        bytes32 rootA;
        /// The agreed state root before what is disputed, from the end of level Checkpoints on.
        bytes32 preState;
        /// What seldom changes has a slot of its own; all that changes with a verb lies in the next one.
        uint64 taskId;
        /// The task's, so that a move need not read it there.
        uint40 grace;
        uint8 arityBits;
        uint32 indexA;
        uint32 indexB;
        /// First step of the disputed segment, from level Operators on the disputed step.
        uint40 step;
        Outcome outcome;
        /// Index of nodeA and nodeB at their height.
        uint40 position;
        /// Instant at which the due side (or the referee) became due.
        uint40 since;
        /// Time left on the chess clocks.
        uint40 clockA;
        uint40 clockB;
        /// Verbs accepted.
        uint16 verbs;
        Level level;
        Phase phase;
        /// The due side, in the phases that have one.
        Side turn;
        /// Height of nodeA and nodeB in the level's tree; at a post the height of the tree that is posted.
        uint8 rest;
        /// The match's own: an ended match leaves its place to a new one.
        uint40 matchId;
    }

    /// @notice A leaf with its siblings, bottom-up.
    struct Opening {
        bytes32 value;
        bytes32[] proof;
    }

    /// @notice The root of one input of a hash node, with proofs, bottom-up.
    /// @dev `proof`: under A's trace root, the pre-state, the batch root or the constants root; empty for zero.
    /// `batchRoot`, `batchProof`: the step's batch under the task's data root; zero and empty unless the input is a batch tensor.
    struct HashInput {
        bytes32 value;
        bytes32[] proof;
        bytes32 batchRoot;
        bytes32[] batchProof;
    }

    // ---------------------------------------------------------------- Events

    /// @notice A task was created at `time` with `params.reward * params.seats` wei.
    event TaskCreated(
        uint256 indexed taskId, address indexed client, bytes32 programRoot, uint40 time, TaskParams params
    );

    /// @notice `provider` took a seat as participant `index` and paid its bond.
    event Committed(uint256 indexed taskId, address indexed provider, uint32 index, bytes32 commitment);

    /// @notice The task ended with fewer than two commitments; the escrow was credited to the client.
    event Cancelled(uint256 indexed taskId, uint40 time);

    /// @notice Participant `index` revealed its claim and stands in its queue.
    event Revealed(
        uint256 indexed taskId,
        address indexed provider,
        uint32 index,
        uint32 claimId,
        bytes32 claimRoot,
        bytes32 finalStateRoot
    );

    /// @notice `challenger` joined as participant `index`, paid its bond and stands in its claim's queue. A claim that nobody held before moves
    /// the challenge deadline to a whole window from now.
    event Challenged(
        uint256 indexed taskId,
        address indexed challenger,
        uint32 index,
        uint32 claimId,
        bytes32 claimRoot,
        bytes32 finalStateRoot,
        uint40 challengeDeadline
    );

    /// @notice A match began at level Checkpoints; A is due to open its claim (unless the claim is one checkpoint: then LevelClosed follows).
    event Paired(uint256 indexed taskId, uint256 indexed matchId, uint32 indexA, uint32 indexB, uint40 time);

    /// @notice A's root was opened; B is due.
    event Opened(uint256 indexed matchId, bytes32[] children, uint40 time);

    /// @notice `mover` proved the first divergence, `m` levels further down: now at `position`, height `rest`. If `rest` > 0 `children` lie
    /// below the mover's new node and the other side is due; else the level is closed and LevelClosed or MatchEnded follows.
    /// `siblings` are those of the proof, if `rest` > 0: side B needs A's right siblings for the opening under A's root that closes a level.
    event Advanced(
        uint256 indexed matchId,
        Side indexed mover,
        uint8 m,
        uint40 position,
        uint8 rest,
        bytes32 nodeA,
        bytes32 nodeB,
        bytes32[] siblings,
        bytes32[] children,
        uint40 time
    );

    /// @notice Leaf `position` of `closed` is the first divergence. The match goes on at `level` with `preState` agreed, in phase PostA
    /// (`step`: first step of the segment at Steps, the disputed step at Operators), HashNode or Referee (`position` is the node).
    event LevelClosed(
        uint256 indexed matchId, Level closed, uint40 position, bytes32 preState, uint40 step, Level level, Phase phase
    );

    /// @notice `side` posted the root of its tree of the level. After side B's post A is due: to move, if B gave the top `children` of its tree; else
    /// to open (unless the tree is one leaf: then LevelClosed follows).
    event Posted(uint256 indexed matchId, Side indexed side, bytes32 root, bytes32[] children, uint40 time);

    /// @notice The referee ruled on the disputed node; `outputRoot` is its true output root if the ruling is Root. Or a hash node was computed (Root).
    event Judged(uint256 indexed matchId, Ruling ruling, bytes32 outputRoot, uint40 time);

    /// @notice The match is over. `paid` wei of the loser's bond were credited to the winner, `burned` wei were burned.
    event MatchEnded(
        uint256 indexed taskId,
        uint256 indexed matchId,
        Outcome outcome,
        Reason reason,
        uint256 paid,
        uint256 burned,
        uint40 time
    );

    /// @notice Claim `claimId` stands. Surviving seats are paid; if there are none `payee` is index + 1 of the challenger that is.
    event Settled(
        uint256 indexed taskId, uint32 claimId, bytes32 claimRoot, bytes32 finalStateRoot, uint32 payee, uint40 time
    );

    /// @notice Nobody survived: the escrow was credited to the client.
    event Failed(uint256 indexed taskId, uint40 time);

    /// @notice The referee was silent: the escrow was burned, no verb is accepted in any match of the task.
    event Voided(uint256 indexed taskId, uint40 time);

    /// @notice `amount` wei that the ended task owes to participant `index` were credited.
    event Collected(uint256 indexed taskId, uint32 indexed index, uint256 amount);

    /// @notice The client has got its result: held-back shares can be collected.
    event DeliveryConfirmed(uint256 indexed taskId);

    /// @notice The held-back share of participant `index` was credited.
    event HoldbackCollected(uint256 indexed taskId, uint32 indexed index, uint256 amount);

    /// @notice `credit[account]` rose by `amount`. Follows every event above that moves money; burned wei go to 0x...dEaD.
    event Credited(address indexed account, uint256 amount);

    /// @notice All of `credit[account]` was sent to `account`.
    event Withdrawn(address indexed account, uint256 amount);

    // ---------------------------------------------------------------- Errors

    /// @notice The parameter of a new task is out of its range.
    /// @param name Field of TaskParams, in ASCII ("windows": their sum does not fit the clock).
    error InvalidParameter(bytes32 name);
    /// @notice The bond does not cover twice what a match can cost its loser.
    error BondTooSmall(uint256 bond, uint256 needed);
    /// @notice The referee is not a contract.
    error RefereeHasNoCode(address referee);
    /// @notice The call carries `sent` wei, it must carry exactly `needed`.
    error WrongValue(uint256 sent, uint256 needed);
    /// @notice There is no such task.
    error UnknownTask(uint256 taskId);
    /// @notice There is no such participant in the task.
    error UnknownParticipant(uint256 taskId, uint256 index);
    /// @notice There is no such match.
    error UnknownMatch(uint256 matchId);
    /// @notice The task is in another state than the call needs.
    error WrongStatus(Status status);
    /// @notice It is `time`; the call is open from `opens`.
    error TooEarly(uint256 time, uint256 opens);
    /// @notice It is `time`; the call was open before `deadline`.
    error TooLate(uint256 time, uint256 deadline);
    /// @notice Only `expected` may call this.
    error WrongSender(address sender, address expected);
    /// @notice The seats of this task are reserved for named providers, `sender` is none of them.
    error NotNamed(address sender);
    /// @notice All seats are taken.
    error NoSeat(uint256 seats);
    /// @notice `account` is a participant of the task already.
    error AlreadyJoined(address account, uint256 index);
    /// @notice The task has `committed` commitments: two or more to go on, fewer to be cancelled.
    error WrongCommitments(uint256 committed);
    /// @notice The participant does not stand where the call needs it.
    error WrongStanding(Standing standing);
    /// @notice What is revealed is not what was committed to.
    error WrongCommitment(bytes32 computed, bytes32 committed);
    /// @notice No two free survivors hold different claims.
    error NothingToPair(uint256 taskId);
    /// @notice Matches are being played, the task cannot settle.
    error MatchesLive(uint256 liveMatches);
    /// @notice More than one claim survives, the task cannot settle: call `pair`.
    error ClaimsDiffer(uint256 first, uint256 second);
    /// @notice The participant is owed nothing (now, or any more).
    error NothingDue(uint256 taskId, uint256 index);
    /// @notice The client has confirmed before.
    error AlreadyConfirmed(uint256 taskId);
    /// @notice `account` has no credit.
    error NothingToWithdraw(address account);
    /// @notice `account` refused the transfer.
    error TransferFailed(address account);

    /// @notice The match waits for something else.
    error WrongPhase(Phase phase);
    /// @notice The due side is late: `elapsed` of `limit` seconds are over. Call `timeout`.
    error OutOfTime(uint256 elapsed, uint256 limit);
    /// @notice The due side has time: `elapsed` of `limit` seconds are over.
    error InTime(uint256 elapsed, uint256 limit);
    /// @notice The two nodes are equal: this is no divergence.
    error NoDivergence(bytes32 node);
    /// @notice A move goes down min(arityBits, rest) levels or `rest` levels; the opening move only `rest`.
    error WrongDepth(uint256 m, uint256 rest);
    /// @notice The list must have `expected` words.
    error WrongLength(uint256 length, uint256 expected);
    /// @notice The index does not fit a tree of this height.
    error IndexOutOfRange(uint256 index, uint256 height);
    /// @notice The proof leads to another root.
    error WrongRoot(bytes32 computed, bytes32 expected);
    /// @notice An opening is given where none is needed.
    error UnexpectedOpening(bytes32 value, uint256 length);
    /// @notice The header is not that of the task's program.
    error WrongProgram(bytes32 computed, bytes32 expected);
    /// @notice The node is not a hash node.
    error NotHashNode(bytes32 code);
    /// @notice The referee gave no ruling.
    error InvalidRuling();
    /// @notice A hash node refers to something that it cannot refer to.
    error InvalidReference(uint256 kind, uint256 index);

    // ---------------------------------------------------------------- Task

    /// @notice Creates a task. Carries `params.reward * params.seats` wei.
    /// @dev Reverts: WrongValue, InvalidParameter, BondTooSmall, RefereeHasNoCode, or what `referee.validate` reverts with.
    /// @return taskId The new task's id.
    function createTask(TaskParams calldata params) external payable returns (uint256 taskId);

    /// @notice Takes a seat with a sealed claim. Carries the bond. Before the commit deadline, once per address, named providers only if there are any.
    /// @param commitment keccak256(abi.encode(COMMIT_TYPEHASH, chainid, contract, taskId, provider, claimRoot, finalStateRoot, salt)).
    /// @dev Reverts: UnknownTask, WrongStatus, TooLate, WrongValue, NotNamed, AlreadyJoined, NoSeat.
    function commit(uint256 taskId, bytes32 commitment) external payable;

    /// @notice Ends a task with fewer than two commitments before the commit deadline; for the client.
    /// @dev Reverts: UnknownTask, WrongStatus, WrongSender, TooLate, WrongCommitments.
    function cancel(uint256 taskId) external;

    /// @notice Ends a task with fewer than two commitments from the commit deadline on.
    /// @dev Reverts: UnknownTask, WrongStatus, TooEarly, WrongCommitments.
    function expire(uint256 taskId) external;

    /// @notice Opens the sender's commitment, from the commit deadline until the reveal deadline.
    /// @param proof Siblings of the claim's last real leaf, which must be `finalStateRoot`.
    /// @dev Reverts: UnknownTask, WrongStatus, TooEarly, TooLate, WrongCommitments, WrongStanding, WrongCommitment, WrongLength, WrongRoot.
    function reveal(uint256 taskId, bytes32 claimRoot, bytes32 finalStateRoot, bytes32 salt, bytes32[] calldata proof)
        external;

    /// @notice Joins with a claim of one's own, from the reveal deadline until the challenge deadline. Carries the bond. For anyone who is no participant.
    /// With a claim that nobody held before, the deadline becomes one challenge window from now, so that nobody can bring a claim unanswered.
    /// @param proof Siblings of the claim's last real leaf, which must be `finalStateRoot`.
    /// @dev Reverts: UnknownTask, WrongStatus, TooEarly, TooLate, WrongCommitments, WrongValue, AlreadyJoined, WrongLength, WrongRoot.
    function challenge(uint256 taskId, bytes32 claimRoot, bytes32 finalStateRoot, bytes32[] calldata proof)
        external
        payable;

    /// @notice Starts a match between the first free survivors of the first two claims in the queue, from the reveal deadline on.
    /// @dev Reverts: UnknownTask, WrongStatus, TooEarly, NothingToPair.
    /// @return matchId The new match's id.
    function pair(uint256 taskId) external returns (uint256 matchId);

    /// @notice Ends a task from the challenge deadline on, when no match is live and at most one claim survives.
    /// @dev Reverts: UnknownTask, WrongStatus, TooEarly, WrongCommitments, MatchesLive, ClaimsDiffer.
    function settle(uint256 taskId) external;

    /// @notice Credits participant `index` what the ended task owes it, once.
    /// @dev Reverts: UnknownTask, UnknownParticipant, WrongStatus, NothingDue.
    function collect(uint256 taskId, uint256 index) external;

    /// @notice Releases the held-back shares of a settled task; for the client.
    /// @dev Reverts: UnknownTask, WrongStatus, WrongSender, AlreadyConfirmed.
    function confirmDelivery(uint256 taskId) external;

    /// @notice Credits the held-back share of participant `index`, once, after the client's confirmation or the delivery window.
    /// @dev Reverts: UnknownTask, UnknownParticipant, WrongStatus, TooEarly, NothingDue.
    function collectHoldback(uint256 taskId, uint256 index) external;

    /// @notice Sends all of `credit[account]` to `account`.
    /// @dev Reverts: NothingToWithdraw, TransferFailed.
    function withdraw(address account) external;

    // ---------------------------------------------------------------- Match

    /// @notice Opens A's root of the level: phase Open. Anyone may call it, what is opened is unique.
    /// @param children The 2^min(arityBits, rest) nodes below A's root, left to right.
    /// @dev Every verb of a match reverts with UnknownMatch, WrongStatus (task not live), WrongPhase or OutOfTime. Here also: WrongLength, WrongRoot.
    function open(uint256 matchId, bytes32[] calldata children) external;

    /// @notice Proves the first divergence `m` levels further down: phase Move, or Open with `m` = rest. Anyone may call it; given `m` the move is unique.
    /// @param m min(arityBits, rest), or rest.
    /// @param index Which of the 2^m nodes.
    /// @param a A's node at `index`.
    /// @param b B's node at `index`.
    /// @param siblings Bottom-up; where a bit of `index` is 1: the left sibling, shared by both trees; where it is 0: A's right sibling, then B's.
    /// @param children If the new rest is above 0: the 2^min(arityBits, new rest) nodes below the mover's new node; else empty.
    /// @param pre When this closes level Checkpoints or Steps at a real leaf above 0: the leaf before it, under A's root; else empty.
    /// @dev Reverts also: WrongDepth, IndexOutOfRange, NoDivergence, WrongLength, WrongRoot, UnexpectedOpening.
    function advance(
        uint256 matchId,
        uint8 m,
        uint64 index,
        bytes32 a,
        bytes32 b,
        bytes32[] calldata siblings,
        bytes32[] calldata children,
        Opening calldata pre
    ) external;

    /// @notice Posts the sender's root of the level's tree: phases PostA and PostB, by that side's account.
    /// @param proof Siblings of the tree's last real leaf, which must be the sender's disputed leaf of the level above.
    /// @param children B only, in a tree of height above 0: the 2^min(arityBits, height) nodes below `root`, left to right, which spare the opening; or empty.
    /// @dev Reverts also: WrongSender, WrongLength, WrongRoot.
    function post(uint256 matchId, bytes32 root, bytes32[] calldata proof, bytes32[] calldata children) external;

    /// @notice Judges a hash node: phase HashNode. Anyone may call it.
    /// @param header Header of the task's program.
    /// @param node The disputed node.
    /// @param nodeProof Its siblings under nodesRoot.
    /// @param left First input.
    /// @param right Second input.
    /// @dev Reverts also: WrongProgram, NotHashNode, InvalidReference, WrongLength, WrongRoot, IndexOutOfRange, UnexpectedOpening.
    function hashNode(
        uint256 matchId,
        ProgramHeader calldata header,
        Node calldata node,
        bytes32[] calldata nodeProof,
        HashInput calldata left,
        HashInput calldata right
    ) external;

    /// @notice Fetches the referee's ruling, which may rest on `evidence` or on time: phase Referee. Anyone may call it. What the referee reverts with
    /// is passed on. If the referee was silent for its whole window the task is voided.
    /// @dev Reverts also: InvalidRuling.
    function judge(uint256 matchId, bytes calldata evidence) external;

    /// @notice Ends a match whose due side is late: that side loses. In phase Referee time is the referee's to judge.
    /// @dev Reverts: UnknownMatch, WrongStatus, WrongPhase, InTime.
    function timeout(uint256 matchId) external;

    // ---------------------------------------------------------------- Views

    /// @notice Number of tasks, the last one's id.
    function taskCount() external view returns (uint256);
    /// @notice Number of matches, the last one's id.
    function matchCount() external view returns (uint256);
    /// @notice Wei that `withdraw(account)` would send.
    function credit(address account) external view returns (uint256);
    /// @notice The stored task; all zero if there is none. So it is with the other views.
    function getTask(uint256 taskId) external view returns (Task memory);
    /// @notice The stored participant.
    function getParticipant(uint256 taskId, uint256 index) external view returns (Participant memory);
    /// @notice The stored claim.
    function getClaim(uint256 taskId, uint256 claimId) external view returns (Claim memory);
    /// @notice Id of the claim with this root, 0 if there is none.
    function claimIdOf(uint256 taskId, bytes32 claimRoot) external view returns (uint256);
    /// @notice What is stored of an account in a task.
    function getMember(uint256 taskId, address account) external view returns (Member memory);
    /// @notice The stored match.
    function getMatch(uint256 matchId) external view returns (Match memory);
    /// @notice The referee of a match in phase Referee, and what it is asked.
    /// @dev Reverts: UnknownMatch, WrongStatus, WrongPhase.
    function question(uint256 matchId) external view returns (IReferee referee, Question memory);
    /// @notice The same without what is needed only to recompute the operator: `dataRoot`, `batchCount`, `preState`, `step`, `traceRoot`, `configHash`
    /// and the accounts are zero.
    function terms(uint256 matchId) external view returns (IReferee referee, Question memory);
    /// @notice The accounts of a match and its time for a post; zero if there is no such match.
    function players(uint256 matchId) external view returns (address accountA, address accountB, uint40 buildWindow);
    /// @notice The time that the match's `phase` leaves: it ends `limit` seconds after `since`. Zero if the match is done or its task has ended.
    function timeLimit(uint256 matchId) external view returns (uint256 since, uint256 limit);
    /// @notice Most verbs that one match can take before the referee's own (IReferee.validate): with both, `2 * (verbFee * verbs + bounty)` must not
    /// exceed the bond.
    function maxVerbs(uint64 steps, uint64 interval, uint32 nodes, uint8 arityBits) external view returns (uint256);
}
