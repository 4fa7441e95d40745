// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "./interfaces/IVerde.sol";
import {IReferee, Question, Ruling} from "./interfaces/IReferee.sol";
import {HashNodes} from "./HashNodes.sol";
import {TaskRules} from "./TaskRules.sol";
import {Vault} from "./Vault.sol";
import {ClaimQueue} from "./libraries/ClaimQueue.sol";
import {Clock} from "./libraries/Clock.sol";
import {Divergence} from "./libraries/Divergence.sol";
import {Forward} from "./libraries/Forward.sol";
import {Merkle} from "./libraries/Merkle.sol";
import {Programs} from "./libraries/Programs.sol";
import {Unpack} from "./libraries/Unpack.sol";

/// @title Matches
/// @notice Two different claims are driven down to the first checkpoint, the first step and the first operator on which they differ.
/// docs/spec/game.md, sections 2 and 3.
/// @dev At every instant of a live match exactly one class of call is enabled: the due side's response (or the verdict), or `timeout`.
abstract contract Disputes is Vault {
    mapping(uint256 taskId => Task) internal _tasks;
    mapping(uint256 taskId => mapping(uint256 index => Participant)) internal _participants;
    mapping(uint256 taskId => mapping(uint256 claimId => Claim)) internal _claims;
    /// @dev See `_match`.
    mapping(uint256 place => Match) private _matches;

    /// @dev Recomputes hash nodes; knows what a task's parameters must be. Code of their own, because a contract's size is limited.
    address private immutable HASH_NODES = address(new HashNodes());
    address internal immutable TASK_RULES = address(new TaskRules());
    /// @dev Keeps the count of verbs in its field, whatever a referee says.
    uint256 private constant MAX_REFEREE_VERBS = 1 << 12;
    /// @dev Places that ended matches leave to new ones.
    uint256 private constant PLACES = 8;

    /// @inheritdoc IVerde
    uint256 public matchCount;

    // ---------------------------------------------------------------- Pairing

    /// @inheritdoc IVerde
    function pair(uint256 taskId) external returns (uint256 matchId) {
        Task storage task = _liveTask(taskId);
        Clock.requireFrom(task.revealDeadline);
        (uint32 first, uint32 second) = ClaimQueue.takePair(taskId, task, _claims[taskId], _participants[taskId]);
        (uint32 indexA, uint32 indexB) = first < second ? (first, second) : (second, first);
        matchId = ++matchCount;
        ++task.liveMatches;

        uint256 height = Merkle.height(_checkpoints(task));
        Match storage game = _matches[matchId % PLACES];
        if (!_ended(game)) game = _matches[matchId + PLACES];
        game.nodeA = _claims[taskId][_participants[taskId][indexA].claimId].root;
        game.nodeB = _claims[taskId][_participants[taskId][indexB].claimId].root;
        game.taskId = uint64(taskId);
        game.grace = task.grace;
        game.arityBits = task.arityBits;
        game.indexA = indexA;
        game.indexB = indexB;
        game.step = 0;
        game.outcome = Outcome.None;
        game.position = 0;
        game.since = uint40(block.timestamp);
        game.clockA = task.allowance;
        game.clockB = task.allowance;
        game.verbs = 0;
        game.level = Level.Checkpoints;
        game.phase = Phase.Open;
        game.turn = Side.A;
        game.rest = uint8(height);
        game.matchId = uint40(matchId);
        emit Paired(taskId, matchId, indexA, indexB, uint40(block.timestamp));
        if (height == 0) _descend(matchId, game, task, 0);
    }

    // ---------------------------------------------------------------- Moves

    /// @inheritdoc IVerde
    function open(uint256 matchId, bytes32[] calldata children) external {
        (Match storage game,) = _liveMatch(matchId);
        _requirePhase(game, Phase.Open);
        _respond(game, Side.A);
        bytes32 root = game.nodeA;
        Merkle.verifyChildren(root, _stride(game, game.rest), children);
        game.rootA = root;
        game.phase = Phase.Move;
        game.turn = Side.B;
        emit Opened(matchId, children, uint40(block.timestamp));
    }

    /// @inheritdoc IVerde
    function advance(
        uint256 matchId,
        uint8 m,
        uint64 index,
        bytes32 a,
        bytes32 b,
        bytes32[] calldata siblings,
        bytes32[] calldata children,
        Opening calldata pre
    ) external {
        (Match storage game, Task storage task) = _liveMatch(matchId);
        Phase phase = game.phase;
        if (phase != Phase.Move && phase != Phase.Open) revert WrongPhase(phase);
        Side mover = game.turn;
        _respond(game, mover);

        uint8 rest = game.rest;
        if (m != rest && (phase == Phase.Open || m != _stride(game, rest))) revert WrongDepth(m, rest);
        bytes32 nodeA = game.nodeA;
        Divergence.verify(nodeA, game.nodeB, m, index, a, b, siblings);
        rest -= m;
        uint40 position = uint40((uint256(game.position) << m) | index);
        game.nodeA = a;
        game.nodeB = b;
        game.position = position;
        game.rest = rest;
        emit Advanced(
            matchId,
            mover,
            m,
            position,
            rest,
            a,
            b,
            siblings[:rest == 0 ? 0 : siblings.length],
            children,
            uint40(block.timestamp)
        );

        if (rest == 0) {
            Merkle.requireLength(children.length, 0);
            _close(matchId, game, task, phase == Phase.Open ? nodeA : game.rootA, pre);
        } else {
            Merkle.verifyChildren(mover == Side.A ? a : b, _stride(game, rest), children);
            _requireEmpty(pre);
            game.turn = mover == Side.A ? Side.B : Side.A;
        }
    }

    /// @inheritdoc IVerde
    function post(uint256 matchId, bytes32 root, bytes32[] calldata proof, bytes32[] calldata children) external {
        (Match storage game, Task storage task) = _liveMatch(matchId);
        Phase phase = game.phase;
        if (phase != Phase.PostA && phase != Phase.PostB) revert WrongPhase(phase);
        Clock.requireInTime(block.timestamp - game.since, task.buildWindow);
        Side side = game.turn;
        address poster = _participants[game.taskId][side == Side.A ? game.indexA : game.indexB].account;
        _requireSender(poster);
        // A post is bound to the claim by its last real leaf, which is the poster's side of the level above.
        Merkle.verify(root, side == Side.A ? game.nodeA : game.nodeB, _leaves(game, task) - 1, game.rest, proof);
        _count(game);
        emit Posted(matchId, side, root, children, uint40(block.timestamp));

        if (side == Side.A) {
            Merkle.requireLength(children.length, 0);
            game.nodeA = root;
            game.phase = Phase.PostB;
            game.turn = Side.B;
            return;
        }
        game.nodeB = root;
        game.turn = Side.A;
        uint256 rest = game.rest;
        if (rest != 0 && children.length != 0) {
            Merkle.verifyChildren(root, _stride(game, rest), children);
            game.rootA = game.nodeA;
            game.phase = Phase.Move;
            return;
        }
        Merkle.requireLength(children.length, 0);
        game.phase = Phase.Open;
        if (rest == 0) _descend(matchId, game, task, game.nodeA);
    }

    // ---------------------------------------------------------------- Judgement

    /// @inheritdoc IVerde
    function hashNode(
        uint256 matchId,
        ProgramHeader calldata,
        Node calldata,
        bytes32[] calldata,
        HashInput calldata,
        HashInput calldata
    ) external {
        (Match storage game, Task storage task) = _liveMatch(matchId);
        _requirePhase(game, Phase.HashNode);
        _respond(game, Side.A);
        Programs.Context memory context = Programs.Context({
            traceRoot: game.rootA,
            node: game.position,
            preState: game.preState,
            dataRoot: task.dataRoot,
            batchCount: task.batchCount,
            step: game.step
        });
        bytes memory result =
            Forward.call(HASH_NODES, HashNodes.outputRoot.selector, abi.encode(task.programRoot, context));
        bytes32 outputRoot = abi.decode(result, (bytes32));
        emit Judged(matchId, Ruling.Root, outputRoot, uint40(block.timestamp));
        _end(matchId, game, task, _compare(game, outputRoot), Reason.HashNode);
    }

    /// @inheritdoc IVerde
    function judge(uint256 matchId, bytes calldata evidence) external {
        (Match storage game, Task storage task) = _liveMatch(matchId);
        _requirePhase(game, Phase.Referee);
        // SAFETY: a view function is called with STATICCALL, so the referee can change nothing, here or elsewhere.
        (Ruling ruling, bytes32 outputRoot, uint256 verbs) =
            task.referee.judge(_question(matchId, game, task), evidence);
        game.verbs = uint16(game.verbs + 1 + (verbs < MAX_REFEREE_VERBS ? verbs : MAX_REFEREE_VERBS));
        emit Judged(matchId, ruling, outputRoot, uint40(block.timestamp));
        if (ruling == Ruling.Root) {
            _end(matchId, game, task, _compare(game, outputRoot), Reason.Verdict);
        } else if (ruling == Ruling.AWins || ruling == Ruling.BWins) {
            _end(matchId, game, task, ruling == Ruling.AWins ? Outcome.AWins : Outcome.BWins, Reason.Verdict);
        } else if (ruling == Ruling.BothLose) {
            _end(matchId, game, task, Outcome.BothLose, Reason.Unavailable);
        } else {
            // None is no ruling; a referee that gives it has said nothing.
            if (ruling != Ruling.Void) revert InvalidRuling();
            _end(matchId, game, task, Outcome.Void, Reason.Silence);
            _void(game.taskId, task);
        }
    }

    /// @inheritdoc IVerde
    function timeout(uint256 matchId) external {
        (Match storage game, Task storage task) = _liveMatch(matchId);
        Phase phase = game.phase;
        // While the referee is asked, time is the referee's to judge.
        if (phase == Phase.Done || phase == Phase.Referee) revert WrongPhase(phase);
        Clock.requireOver(block.timestamp - game.since, _limit(game, task));
        _end(matchId, game, task, game.turn == Side.A ? Outcome.BWins : Outcome.AWins, Reason.Timeout);
    }

    // ---------------------------------------------------------------- Views

    /// @inheritdoc IVerde
    function getMatch(uint256 matchId) external view returns (Match memory) {
        Match storage stored = _match(matchId);
        uint256 slot;
        assembly ("memory-safe") {
            slot := stored.slot
        }
        Unpack.returnStruct(slot, hex"202020200805010404050105050505020101010105");
    }

    /// @inheritdoc IVerde
    function question(uint256 matchId) external view returns (IReferee referee, Question memory) {
        (Match storage game, Task storage task) = _liveMatch(matchId);
        _requirePhase(game, Phase.Referee);
        return (task.referee, _question(matchId, game, task));
    }

    /// @inheritdoc IVerde
    function terms(uint256 matchId) external view returns (IReferee referee, Question memory) {
        (Match storage game, Task storage task) = _liveMatch(matchId);
        _requirePhase(game, Phase.Referee);
        return (task.referee, _terms(matchId, game, task));
    }

    /// @inheritdoc IVerde
    function players(uint256 matchId) external view returns (address accountA, address accountB, uint40 buildWindow) {
        Match storage game = _match(matchId);
        uint256 taskId = game.taskId;
        accountA = _participants[taskId][game.indexA].account;
        accountB = _participants[taskId][game.indexB].account;
        buildWindow = _tasks[taskId].buildWindow;
    }

    /// @inheritdoc IVerde
    function timeLimit(uint256 matchId) external view returns (uint256 since, uint256 limit) {
        Match storage game = _match(matchId);
        Task storage task = _tasks[game.taskId];
        if (task.status == Status.Live && game.phase != Phase.Done) return (game.since, _limit(game, task));
    }

    /// @inheritdoc IVerde
    function maxVerbs(uint64, uint64, uint32, uint8) external view returns (uint256 verbs) {
        return abi.decode(Forward.call(TASK_RULES, TaskRules.maxVerbs.selector, ""), (uint256));
    }

    // ---------------------------------------------------------------- Internals

    function _liveTask(uint256 taskId) internal view returns (Task storage task) {
        task = _task(taskId);
        _requireStatus(task, Status.Live);
    }

    function _task(uint256 taskId) internal view returns (Task storage task) {
        task = _tasks[taskId];
        if (task.status == Status.None) revert UnknownTask(taskId);
    }

    /// @dev The storage of a match, empty if it is unknown. A new match takes the place of an ended one: to overwrite a word costs a quarter of
    /// writing a new one. A match that finds its place taken has one of its own.
    function _match(uint256 matchId) private view returns (Match storage game) {
        game = _matches[matchId % PLACES];
        if (game.matchId != matchId) game = _matches[matchId + PLACES];
    }

    /// @dev Whether nothing of a match can happen any more.
    function _ended(Match storage game) private view returns (bool) {
        return game.phase == Phase.None || game.phase == Phase.Done || _tasks[game.taskId].status != Status.Live;
    }

    /// @dev The match may be done; every caller checks the phase.
    function _liveMatch(uint256 matchId) private view returns (Match storage game, Task storage task) {
        game = _match(matchId);
        if (game.phase == Phase.None) revert UnknownMatch(matchId);
        task = _tasks[game.taskId];
        // A match that is done says so, whatever became of its task.
        if (game.phase != Phase.Done) _requireStatus(task, Status.Live);
    }

    function _requirePhase(Match storage game, Phase phase) private view {
        if (game.phase != phase) revert WrongPhase(game.phase);
    }

    function _requireStatus(Task storage task, Status status) internal view {
        if (task.status != status) revert WrongStatus(task.status);
    }

    function _requireSender(address expected) internal view {
        if (msg.sender != expected) revert WrongSender(msg.sender, expected);
    }

    /// @dev Counts a verb and starts the next clock.
    function _count(Match storage game) private {
        ++game.verbs;
        game.since = uint40(block.timestamp);
    }

    /// @dev Charges a response to the chess clock of `side`.
    function _respond(Match storage game, Side side) private {
        uint256 elapsed = block.timestamp - game.since;
        (uint40 clockA, uint40 clockB) = (game.clockA, game.clockB);
        if (side == Side.A) clockA = Clock.spend(clockA, elapsed, game.grace);
        else clockB = Clock.spend(clockB, elapsed, game.grace);
        // All in one slot, and with nothing between them written at once.
        game.clockA = clockA;
        game.clockB = clockB;
        _count(game);
    }

    /// @dev Time that the current phase has, from `since` on.
    function _limit(Match storage game, Task storage task) private view returns (uint256) {
        Phase phase = game.phase;
        if (phase == Phase.PostA || phase == Phase.PostB) return task.buildWindow;
        if (phase == Phase.Referee) return task.refereeWindow;
        return game.turn == Side.A ? game.clockA : game.clockB;
    }

    /// @dev Levels that one move goes down.
    function _stride(Match storage game, uint256 rest) private view returns (uint256) {
        uint256 bits = game.arityBits;
        return bits < rest ? bits : rest;
    }

    function _checkpoints(Task storage task) internal view returns (uint256) {
        return (uint256(task.steps) + task.interval - 1) / task.interval;
    }

    /// @dev Real leaves of the level's tree.
    function _leaves(Match storage game, Task storage task) private view returns (uint256) {
        if (game.level == Level.Checkpoints) return _checkpoints(task);
        if (game.level == Level.Operators) return task.nodes;
        return _segment(task, game.step);
    }

    /// @dev Steps of the segment that begins with step `first`.
    function _segment(Task storage task, uint256 first) private view returns (uint256) {
        uint256 interval = task.interval;
        uint256 left = task.steps - first;
        return interval < left ? interval : left;
    }

    function _requireEmpty(Opening calldata pre) private pure {
        if (pre.value != 0 || pre.proof.length != 0) revert UnexpectedOpening(pre.value, pre.proof.length);
    }

    /// @dev Closes the level at the leaf pair (nodeA, nodeB) after a divergence proof. `rootA` is A's root of the level.
    function _close(uint256 matchId, Match storage game, Task storage task, bytes32 rootA, Opening calldata pre)
        private
    {
        uint256 leaves = _leaves(game, task);
        uint256 position = game.position;
        if (position >= leaves) {
            // Nothing is computed for a missing leaf: it is zero.
            _requireEmpty(pre);
            _end(matchId, game, task, _compare(game, 0), Reason.Padding);
            return;
        }
        if (position > 0 && game.level != Level.Operators) {
            Merkle.verify(rootA, pre.value, position - 1, Merkle.height(leaves), pre.proof);
            game.preState = pre.value;
        } else {
            _requireEmpty(pre);
        }
        _descend(matchId, game, task, rootA);
    }

    /// @dev From the closed level to what comes next; `position` is the first differing leaf, and a real one.
    function _descend(uint256 matchId, Match storage game, Task storage task, bytes32 rootA) private {
        Level closed = game.level;
        uint40 position = game.position;
        Level level = Level.Operators;
        Phase phase = Phase.PostA;
        uint40 step = game.step;
        if (closed == Level.Operators) {
            phase = position < task.computeNodes ? Phase.Referee : Phase.HashNode;
            game.rootA = rootA;
        } else {
            if (closed == Level.Checkpoints) {
                if (position == 0) game.preState = task.initialStateRoot;
                step = uint40(uint256(position) * task.interval);
                if (_segment(task, step) > 1) level = Level.Steps;
            } else {
                step += position;
            }
            game.step = step;
            game.level = level;
            game.position = 0;
            game.rest = uint8(Merkle.height(_leaves(game, task)));
        }
        game.phase = phase;
        game.turn = Side.A;
        emit LevelClosed(matchId, closed, position, game.preState, step, level, phase);
    }

    /// @dev Who holds the true root?
    function _compare(Match storage game, bytes32 truth) private view returns (Outcome) {
        if (game.nodeA == truth) return Outcome.AWins;
        if (game.nodeB == truth) return Outcome.BWins;
        return Outcome.BothLose;
    }

    function _question(uint256 matchId, Match storage game, Task storage task)
        private
        view
        returns (Question memory asked)
    {
        asked = _terms(matchId, game, task);
        asked.dataRoot = task.dataRoot;
        asked.batchCount = task.batchCount;
        asked.preState = game.preState;
        asked.step = game.step;
        asked.traceRoot = game.rootA;
        asked.configHash = task.configHash;
        asked.accountA = _participants[asked.taskId][game.indexA].account;
        asked.accountB = _participants[asked.taskId][game.indexB].account;
    }

    function _terms(uint256 matchId, Match storage game, Task storage task)
        private
        view
        returns (Question memory asked)
    {
        asked.verde = address(this);
        asked.taskId = game.taskId;
        asked.matchId = matchId;
        asked.programRoot = task.programRoot;
        asked.node = uint32(game.position);
        asked.rootA = game.nodeA;
        asked.rootB = game.nodeB;
        asked.since = game.since;
        asked.window = task.refereeWindow;
        asked.clockA = game.clockA;
        asked.clockB = game.clockB;
        asked.grace = game.grace;
        asked.buildWindow = task.buildWindow;
        asked.arityBits = game.arityBits;
    }

    /// @dev Ends a match: the loser is out, its bond pays the winner and burns, the winner waits for its next match.
    function _end(uint256 matchId, Match storage game, Task storage task, Outcome outcome, Reason reason) private {
        game.phase = Phase.Done;
        game.outcome = outcome;
        --task.liveMatches;
        uint256 taskId = game.taskId;
        uint256 paid;
        uint256 burned;
        address winner;
        if (outcome == Outcome.BothLose) {
            burned = 2 * uint256(task.bond);
            _lose(taskId, task, game.indexA);
            _lose(taskId, task, game.indexB);
        } else if (outcome != Outcome.Void) {
            (uint32 winning, uint32 losing) =
                outcome == Outcome.AWins ? (game.indexA, game.indexB) : (game.indexB, game.indexA);
            // INVARIANT: at most half a bond, by the check at the task's creation.
            paid = uint256(task.verbFee) * game.verbs + task.bounty;
            // A referee counts its verbs itself; it cannot spend more than the task allows.
            if (paid > task.bond / 2) paid = task.bond / 2;
            burned = task.bond - paid;
            winner = _participants[taskId][winning].account;
            _lose(taskId, task, losing);
            ClaimQueue.push(task, _claims[taskId], _participants[taskId], winning);
        }
        emit MatchEnded(taskId, matchId, outcome, reason, paid, burned, uint40(block.timestamp));
        _credit(winner, paid);
        _credit(BURN, burned);
    }

    function _lose(uint256 taskId, Task storage task, uint32 index) private {
        _participants[taskId][index].standing = Standing.Lost;
        if (index < task.committed) --task.survivingSeats;
    }

    /// @dev The referee was silent: nobody is to blame, and nobody may take the work for free.
    function _void(uint256 taskId, Task storage task) private {
        _endTask(task, Status.Voided);
        emit Voided(taskId, uint40(block.timestamp));
        _credit(BURN, uint256(task.reward) * task.seats + _forfeited(task));
    }

    function _endTask(Task storage task, Status status) internal {
        task.status = status;
        task.endedAt = uint40(block.timestamp);
    }

    /// @dev Bonds of the seats that did not reveal.
    function _forfeited(Task storage task) internal view returns (uint256) {
        return uint256(task.bond) * (task.committed - task.revealed);
    }
}
