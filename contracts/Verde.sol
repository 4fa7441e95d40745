// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "./interfaces/IVerde.sol";
import {Disputes} from "./Disputes.sol";
import {Multicall} from "./Multicall.sol";
import {TaskRules} from "./TaskRules.sol";
import {ClaimQueue} from "./libraries/ClaimQueue.sol";
import {Clock} from "./libraries/Clock.sol";
import {Forward} from "./libraries/Forward.sol";
import {Merkle} from "./libraries/Merkle.sol";
import {Programs} from "./libraries/Programs.sol";
import {Unpack} from "./libraries/Unpack.sol";

/// @title Verde: verification by refereed delegation
/// @notice Tasks, claims and settlement. A client hands one program to several providers that it does not trust; different claims are played
/// out against each other (Disputes), and the claim that stands is paid (Vault). docs/spec/game.md, sections 1 and 4.
contract Verde is Disputes, Multicall {
    bytes32 private constant COMMIT_TYPEHASH = keccak256(
        "Commitment(uint256 chainId,address verde,uint256 taskId,address provider,bytes32 claimRoot,bytes32 finalStateRoot,bytes32 salt)"
    );
    uint256 private constant BPS = 10_000;

    mapping(uint256 taskId => mapping(address account => Member)) private _members;
    mapping(uint256 taskId => mapping(bytes32 claimRoot => uint32)) private _claimIds;

    /// @inheritdoc IVerde
    uint256 public taskCount;

    // ---------------------------------------------------------------- Creation

    /// @inheritdoc IVerde
    function createTask(TaskParams calldata params) external payable returns (uint256 taskId) {
        Forward.call(TASK_RULES, TaskRules.check.selector, "");
        _requireValue(uint256(params.reward) * params.seats);
        taskId = ++taskCount;
        Task storage task = _tasks[taskId];
        task.client = msg.sender;
        task.status = Status.Live;
        task.open = params.providers.length == 0;
        task.seats = params.seats;
        task.arityBits = params.arityBits;
        uint256 deadline = block.timestamp + params.commitWindow;
        task.commitDeadline = uint40(deadline);
        deadline += params.revealWindow;
        task.revealDeadline = uint40(deadline);
        deadline += params.challengeWindow;
        _requireParameter(deadline <= type(uint40).max, "windows");
        task.challengeDeadline = uint40(deadline);
        task.holdbackBps = params.holdbackBps;
        task.buildWindow = params.buildWindow;
        task.allowance = params.allowance;
        task.grace = params.grace;
        task.refereeWindow = params.refereeWindow;
        task.deliveryWindow = params.deliveryWindow;
        task.challengeWindow = params.challengeWindow;
        task.referee = params.referee;
        task.reward = params.reward;
        task.bond = params.bond;
        task.verbFee = params.verbFee;
        task.bounty = params.bounty;
        task.steps = uint48(params.steps);
        task.interval = uint48(params.interval);
        task.batchCount = params.batchCount;
        task.computeNodes = uint24(params.program.computeNodes);
        task.nodes = uint24(params.program.nodes);
        bytes32 programRoot = Programs.root(params.program);
        task.programRoot = programRoot;
        task.initialStateRoot = params.initialStateRoot;
        task.dataRoot = params.dataRoot;
        task.configHash = keccak256(params.refereeConfig);
        for (uint256 i; i < params.providers.length; ++i) {
            address provider = params.providers[i];
            Member storage member = _members[taskId][provider];
            _requireParameter(provider != address(0) && !member.named, "providers");
            member.named = true;
        }
        emit TaskCreated(taskId, msg.sender, programRoot, uint40(block.timestamp), params);
    }

    // ---------------------------------------------------------------- Claims

    /// @inheritdoc IVerde
    function commit(uint256 taskId, bytes32 commitment) external payable {
        Task storage task = _liveTask(taskId);
        Clock.requireBefore(task.commitDeadline);
        if (!task.open && !_members[taskId][msg.sender].named) revert NotNamed(msg.sender);
        if (task.open && task.committed == task.seats) revert NoSeat(task.seats);
        uint32 index = _join(taskId, task);
        ++task.committed;
        Participant storage participant = _participants[taskId][index];
        participant.standing = Standing.Committed;
        participant.commitment = commitment;
        emit Committed(taskId, msg.sender, index, commitment);
    }

    /// @inheritdoc IVerde
    function cancel(uint256 taskId) external {
        Task storage task = _liveTask(taskId);
        _requireSender(task.client);
        Clock.requireBefore(task.commitDeadline);
        _cancel(taskId, task);
    }

    /// @inheritdoc IVerde
    function expire(uint256 taskId) external {
        Task storage task = _liveTask(taskId);
        Clock.requireFrom(task.commitDeadline);
        _cancel(taskId, task);
    }

    /// @inheritdoc IVerde
    function reveal(uint256 taskId, bytes32 claimRoot, bytes32 finalStateRoot, bytes32 salt, bytes32[] calldata proof)
        external
    {
        Task storage task = _liveTask(taskId);
        Clock.requireFrom(task.commitDeadline);
        Clock.requireBefore(task.revealDeadline);
        _requireCommitments(task);
        uint32 link = _members[taskId][msg.sender].participant;
        if (link == 0) revert WrongStanding(Standing.None);
        uint32 index = link - 1;
        Participant storage participant = _participants[taskId][index];
        if (participant.standing != Standing.Committed) revert WrongStanding(participant.standing);
        bytes32 computed = keccak256(
            abi.encode(
                COMMIT_TYPEHASH, block.chainid, address(this), taskId, msg.sender, claimRoot, finalStateRoot, salt
            )
        );
        if (computed != participant.commitment) revert WrongCommitment(computed, participant.commitment);
        ++task.revealed;
        ++task.survivingSeats;
        uint32 claimId = _claim(taskId, task, index, claimRoot, finalStateRoot, proof);
        emit Revealed(taskId, msg.sender, index, claimId, claimRoot, finalStateRoot);
    }

    /// @inheritdoc IVerde
    function challenge(uint256 taskId, bytes32 claimRoot, bytes32 finalStateRoot, bytes32[] calldata proof)
        external
        payable
    {
        Task storage task = _liveTask(taskId);
        Clock.requireFrom(task.revealDeadline);
        Clock.requireBefore(task.challengeDeadline);
        _requireCommitments(task);
        uint32 index = _join(taskId, task);
        uint32 known = task.claims;
        uint32 claimId = _claim(taskId, task, index, claimRoot, finalStateRoot, proof);
        uint40 deadline = task.challengeDeadline;
        if (claimId > known) {
            // A new claim can be answered for a whole window. Deadlines never move back.
            uint256 extended = block.timestamp + task.challengeWindow;
            if (extended > type(uint40).max) extended = type(uint40).max;
            if (extended > deadline) task.challengeDeadline = deadline = uint40(extended);
        }
        emit Challenged(taskId, msg.sender, index, claimId, claimRoot, finalStateRoot, deadline);
    }

    // ---------------------------------------------------------------- Settlement

    /// @inheritdoc IVerde
    function settle(uint256 taskId) external {
        Task storage task = _liveTask(taskId);
        Clock.requireFrom(task.challengeDeadline);
        _requireCommitments(task);
        if (task.liveMatches != 0) revert MatchesLive(task.liveMatches);
        // No match is live, so every survivor is free and every claim with survivors stands in the queue.
        uint32 claimId = task.head;
        if (claimId != task.tail) revert ClaimsDiffer(claimId, _claims[taskId][claimId].next);

        uint256 unused = task.seats;
        if (claimId == 0) {
            _endTask(task, Status.Failed);
            emit Failed(taskId, uint40(block.timestamp));
        } else {
            _endTask(task, Status.Settled);
            Claim storage claim = _claims[taskId][claimId];
            uint32 payee;
            if (task.survivingSeats == 0) {
                payee = claim.head;
                task.payee = payee;
                unused -= 1;
            } else {
                unused -= task.survivingSeats;
            }
            emit Settled(taskId, claimId, claim.root, claim.finalStateRoot, payee, uint40(block.timestamp));
        }
        _credit(task.client, unused * task.reward);
        _credit(BURN, _forfeited(task));
    }

    /// @inheritdoc IVerde
    function collect(uint256 taskId, uint256 index) external {
        Task storage task = _task(taskId);
        Participant storage participant = _participant(taskId, index);
        if (task.status == Status.Live) revert WrongStatus(Status.Live);
        if (participant.collected || !_keepsBond(task, participant)) revert NothingDue(taskId, index);
        uint256 amount = task.bond;
        if (_isPaid(task, participant, index)) amount += task.reward - _holdback(task);
        participant.collected = true;
        emit Collected(taskId, uint32(index), amount);
        _credit(participant.account, amount);
    }

    /// @inheritdoc IVerde
    function confirmDelivery(uint256 taskId) external {
        Task storage task = _task(taskId);
        _requireStatus(task, Status.Settled);
        _requireSender(task.client);
        if (task.confirmed) revert AlreadyConfirmed(taskId);
        task.confirmed = true;
        emit DeliveryConfirmed(taskId);
    }

    /// @inheritdoc IVerde
    function collectHoldback(uint256 taskId, uint256 index) external {
        Task storage task = _task(taskId);
        Participant storage participant = _participant(taskId, index);
        _requireStatus(task, Status.Settled);
        uint256 amount = _holdback(task);
        if (participant.holdbackCollected || amount == 0 || !_isPaid(task, participant, index)) {
            revert NothingDue(taskId, index);
        }
        uint256 due = uint256(task.endedAt) + task.deliveryWindow;
        if (!task.confirmed) Clock.requireFrom(due);
        participant.holdbackCollected = true;
        emit HoldbackCollected(taskId, uint32(index), amount);
        _credit(participant.account, amount);
    }

    // ---------------------------------------------------------------- Views

    /// @inheritdoc IVerde
    function getTask(uint256 taskId) external view returns (Task memory) {
        Task storage stored = _tasks[taskId];
        uint256 slot;
        assembly ("memory-safe") {
            slot := stored.slot
        }
        Unpack.returnStruct(slot, hex"14010101010101040505050504040404040201050505050606080303050105141010101020202020");
    }

    /// @inheritdoc IVerde
    function getParticipant(uint256 taskId, uint256 index) external view returns (Participant memory) {
        Participant storage stored = _participants[taskId][index];
        uint256 slot;
        assembly ("memory-safe") {
            slot := stored.slot
        }
        Unpack.returnStruct(slot, hex"14010101040420");
    }

    /// @inheritdoc IVerde
    function getClaim(uint256 taskId, uint256 claimId) external view returns (Claim memory) {
        Claim storage stored = _claims[taskId][claimId];
        uint256 slot;
        assembly ("memory-safe") {
            slot := stored.slot
        }
        Unpack.returnStruct(slot, hex"2020040404");
    }

    /// @inheritdoc IVerde
    function claimIdOf(uint256 taskId, bytes32 claimRoot) external view returns (uint256) {
        return _claimIds[taskId][claimRoot];
    }

    /// @inheritdoc IVerde
    function getMember(uint256 taskId, address account) external view returns (Member memory) {
        Member storage stored = _members[taskId][account];
        uint256 slot;
        assembly ("memory-safe") {
            slot := stored.slot
        }
        Unpack.returnStruct(slot, hex"0104");
    }

    // ---------------------------------------------------------------- Internals

    function _requireParameter(bool valid, bytes32 name) private pure {
        if (!valid) revert InvalidParameter(name);
    }

    function _requireValue(uint256 needed) private view {
        if (msg.value != needed) revert WrongValue(msg.value, needed);
    }

    /// @dev With fewer than two commitments a task can only be cancelled.
    function _requireCommitments(Task storage task) private view {
        if (task.committed < 2) revert WrongCommitments(task.committed);
    }

    function _participant(uint256 taskId, uint256 index) private view returns (Participant storage participant) {
        participant = _participants[taskId][index];
        if (participant.standing == Standing.None) revert UnknownParticipant(taskId, index);
    }

    /// @dev Takes the sender's bond and makes it the next participant.
    function _join(uint256 taskId, Task storage task) private returns (uint32 index) {
        _requireValue(task.bond);
        Member storage member = _members[taskId][msg.sender];
        if (member.participant != 0) revert AlreadyJoined(msg.sender, member.participant - 1);
        index = task.participants;
        task.participants = index + 1;
        member.participant = index + 1;
        _participants[taskId][index].account = msg.sender;
    }

    /// @dev Checks a claim and puts its holder into the claim's queue.
    function _claim(
        uint256 taskId,
        Task storage task,
        uint32 index,
        bytes32 claimRoot,
        bytes32 finalStateRoot,
        bytes32[] calldata proof
    ) private returns (uint32 claimId) {
        uint256 leaves = _checkpoints(task);
        Merkle.verify(claimRoot, finalStateRoot, leaves - 1, Merkle.height(leaves), proof);
        claimId = _claimIds[taskId][claimRoot];
        if (claimId == 0) {
            claimId = ++task.claims;
            _claimIds[taskId][claimRoot] = claimId;
            Claim storage claim = _claims[taskId][claimId];
            claim.root = claimRoot;
            claim.finalStateRoot = finalStateRoot;
        }
        _participants[taskId][index].claimId = claimId;
        ClaimQueue.push(task, _claims[taskId], _participants[taskId], index);
    }

    function _cancel(uint256 taskId, Task storage task) private {
        if (task.committed >= 2) revert WrongCommitments(task.committed);
        _endTask(task, Status.Cancelled);
        emit Cancelled(taskId, uint40(block.timestamp));
        _credit(task.client, uint256(task.reward) * task.seats);
    }

    /// @dev Whether the bond of a participant of an ended task goes back to it.
    function _keepsBond(Task storage task, Participant storage participant) private view returns (bool) {
        if (task.status == Status.Cancelled) return true;
        return participant.standing == Standing.Free || participant.standing == Standing.Playing;
    }

    /// @dev Whether a participant of an ended task has earned a reward.
    function _isPaid(Task storage task, Participant storage participant, uint256 index) private view returns (bool) {
        if (task.status != Status.Settled || participant.standing != Standing.Free) return false;
        return index < task.committed || index + 1 == task.payee;
    }

    /// @dev The share of a reward that waits for the delivery.
    function _holdback(Task storage task) private view returns (uint256) {
        return (uint256(task.reward) * task.holdbackBps) / BPS;
    }
}
