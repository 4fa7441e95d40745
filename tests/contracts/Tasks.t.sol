// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {IReferee} from "../../contracts/interfaces/IReferee.sol";
import {BaseTest} from "./Base.t.sol";
import {Trees} from "./utils/Trees.sol";
import {World} from "./utils/World.sol";

/// @notice Takes money only while `willing`; on the way it tries to be paid twice.
contract Recipient {
    IVerde internal immutable verde;
    bool internal willing;
    bool public reentered;

    constructor(IVerde verde_) {
        verde = verde_;
    }

    function setWilling(bool willing_) external {
        willing = willing_;
    }

    function commit(uint256 taskId, uint256 bond) external {
        verde.commit{value: bond}(taskId, keccak256("whatever"));
    }

    receive() external payable {
        require(willing, "unwilling");
        (reentered,) = address(verde).call(abi.encodeCall(IVerde.withdraw, (address(this))));
    }
}

/// @notice Tasks, claims and settlement: every refusal, every deadline, every wei.
contract TasksTest is BaseTest {
    using Trees for Trees.Tree;

    function _refused(IVerde.TaskParams memory params, bytes memory error_) internal {
        uint256 value = uint256(params.reward) * params.seats;
        vm.deal(client, 10 ether + value);
        vm.expectRevert(error_);
        vm.prank(client);
        verde.createTask{value: value}(params);
    }

    function _invalid(IVerde.TaskParams memory params, bytes32 name) internal {
        _refused(params, abi.encodeWithSelector(IVerde.InvalidParameter.selector, name));
    }

    function _providers(address a, address b) internal pure returns (address[] memory list) {
        list = new address[](2);
        (list[0], list[1]) = (a, b);
    }

    /// @dev A settled task: Alice and Bob agree.
    function _settled() internal returns (uint256 taskId) {
        taskId = _revealed(_params(), _honest(), _honest());
        _toSettle(taskId);
        verde.settle(taskId);
    }

    /// @dev A voided task: the referee was silent about Alice and Bob.
    function _voided() internal returns (uint256 taskId) {
        taskId = _revealed(_params(), _honest(), _liar(3, 2));
        uint256 matchId = verde.pair(taskId);
        _playOut(matchId);
        vm.warp(block.timestamp + REFEREE);
        verde.judge(matchId, "");
    }

    // ---------------------------------------------------------------- Creation

    function test_CreateStoresEveryParameter() public {
        IVerde.TaskParams memory params = _params();
        vm.expectEmit(address(verde));
        emit IVerde.TaskCreated(
            1,
            client,
            keccak256(abi.encode(keccak256("VerdeProgram(RO-1,1)"), params.program)),
            uint40(block.timestamp),
            params
        );
        uint256 taskId = _create(params);
        assertEq(taskId, 1);
        assertEq(verde.taskCount(), 1);
        IVerde.Task memory expected;
        expected.client = client;
        expected.status = IVerde.Status.Live;
        expected.open = true;
        expected.seats = params.seats;
        expected.arityBits = params.arityBits;
        expected.commitDeadline = START + COMMIT;
        expected.revealDeadline = START + COMMIT + REVEAL;
        expected.challengeDeadline = START + COMMIT + REVEAL + CHALLENGE;
        expected.holdbackBps = params.holdbackBps;
        expected.buildWindow = BUILD;
        expected.allowance = ALLOWANCE;
        expected.grace = GRACE;
        expected.refereeWindow = REFEREE;
        expected.deliveryWindow = DELIVERY;
        expected.challengeWindow = CHALLENGE;
        expected.referee = committee;
        expected.reward = params.reward;
        expected.bond = params.bond;
        expected.verbFee = params.verbFee;
        expected.bounty = params.bounty;
        expected.steps = uint48(params.steps);
        expected.interval = uint48(params.interval);
        expected.batchCount = params.batchCount;
        expected.computeNodes = uint24(params.program.computeNodes);
        expected.nodes = uint24(params.program.nodes);
        expected.programRoot = keccak256(abi.encode(keccak256("VerdeProgram(RO-1,1)"), params.program));
        expected.initialStateRoot = params.initialStateRoot;
        expected.dataRoot = params.dataRoot;
        expected.configHash = keccak256(config);
        assertEq(keccak256(abi.encode(verde.getTask(taskId))), keccak256(abi.encode(expected)));
        assertEq(address(verde).balance, 6 ether);
    }

    function test_CreateReservesSeatsForNamedProviders() public {
        IVerde.TaskParams memory params = _params();
        params.providers = _providers(alice, bob);
        uint256 taskId = _create(params);
        assertFalse(verde.getTask(taskId).open);
        assertTrue(verde.getMember(taskId, alice).named);
        assertTrue(verde.getMember(taskId, bob).named);
        assertFalse(verde.getMember(taskId, carol).named);
    }

    function test_CreateRefusesWrongValue() public {
        IVerde.TaskParams memory params = _params();
        vm.startPrank(client);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongValue.selector, 6 ether - 1, 6 ether));
        verde.createTask{value: 6 ether - 1}(params);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongValue.selector, 6 ether + 1, 6 ether));
        verde.createTask{value: 6 ether + 1}(params);
    }

    function test_CreateRefusesBadPrograms() public {
        IVerde.TaskParams memory params = _params();
        params.program.nodes += 1;
        _invalid(params, "program");
        params.program.nodes -= 2;
        _invalid(params, "program");
        params = _params();
        params.program.slots = 9;
        _invalid(params, "program");
        params = _params();
        params.program.computeNodes = uint32((1 << 20) - 6);
        params.program.nodes = uint32((1 << 20) + 1);
        _invalid(params, "program");
        params.program.computeNodes -= 1;
        params.program.nodes -= 1;
        _create(params);
        params.program.computeNodes = type(uint32).max;
        params.program.nodes = 6;
        _invalid(params, "program");
    }

    function test_CreateRefusesParametersOutOfRange() public {
        IVerde.TaskParams memory params = _params();
        params.batchCount = 0;
        _invalid(params, "batchCount");
        params = _params();
        params.steps = 0;
        _invalid(params, "steps");
        params.steps = (1 << 40) + 1;
        _invalid(params, "steps");
        params = _params();
        params.interval = 0;
        _invalid(params, "interval");
        params.interval = params.steps + 1;
        _invalid(params, "interval");
        params = _params();
        params.seats = 1;
        _invalid(params, "seats");
        params.seats = 17;
        _invalid(params, "seats");
        params = _params();
        params.arityBits = 0;
        _invalid(params, "arityBits");
        params.arityBits = 7;
        _invalid(params, "arityBits");
        params = _params();
        params.reward = 0;
        _invalid(params, "reward");
        params = _params();
        params.bond = 0;
        _invalid(params, "bond");
        params = _params();
        params.holdbackBps = 10_001;
        _invalid(params, "holdbackBps");
    }

    function test_CreateRefusesBadProviders() public {
        IVerde.TaskParams memory params = _params();
        params.providers = new address[](1);
        params.providers[0] = alice;
        _invalid(params, "providers");
        params.providers = _providers(alice, alice);
        _invalid(params, "providers");
        params.providers = _providers(alice, address(0));
        _invalid(params, "providers");
    }

    function test_CreateRefusesBadWindows() public {
        IVerde.TaskParams memory params = _params();
        params.commitWindow = 0;
        _invalid(params, "commitWindow");
        params = _params();
        params.revealWindow = 0;
        _invalid(params, "revealWindow");
        params = _params();
        params.challengeWindow = 0;
        _invalid(params, "challengeWindow");
        params = _params();
        params.buildWindow = 0;
        _invalid(params, "buildWindow");
        params = _params();
        params.grace = params.allowance;
        _invalid(params, "grace");
        params.grace -= 1;
        _create(params);
        params = _params();
        params.refereeWindow = 0;
        _invalid(params, "refereeWindow");
        params = _params();
        params.deliveryWindow = 0;
        _invalid(params, "deliveryWindow");
        params.holdbackBps = 0;
        _create(params);
        params = _params();
        params.commitWindow = type(uint40).max - START - REVEAL - CHALLENGE + 1;
        _invalid(params, "windows");
        params.commitWindow -= 1;
        _create(params);
    }

    function test_CreateAcceptsTheExtremes() public {
        IVerde.TaskParams memory params = _params();
        params.steps = 1 << 40;
        params.interval = 1;
        params.arityBits = 1;
        params.seats = 16;
        params.holdbackBps = 10_000;
        _create(params);
        params.interval = 1 << 40;
        params.arityBits = 6;
        _create(params);
        assertEq(verde.maxVerbs(params.steps, 1, 1 << 20, 1), 41 + 2 + 21 + 1);
        assertEq(verde.maxVerbs(params.steps, 1 << 20, 1 << 20, 4), 6 + 2 + 6 + 2 + 6 + 1);
        assertEq(verde.maxVerbs(1, 1, 1, 4), 3);
    }

    function test_MaxVerbsRefusesZeros() public {
        vm.expectRevert(abi.encodeWithSelector(IVerde.InvalidParameter.selector, bytes32("interval")));
        verde.maxVerbs(1, 0, 12, 4);
        vm.expectRevert(abi.encodeWithSelector(IVerde.InvalidParameter.selector, bytes32("arityBits")));
        verde.maxVerbs(1, 1, 12, 0);
    }

    function test_CreateRefusesABondThatCannotPay() public {
        IVerde.TaskParams memory params = _params();
        uint256 verbs = verde.maxVerbs(params.steps, params.interval, params.program.nodes, params.arityBits);
        // Checkpoints: 6 leaves, 1 + 2; steps: 4 leaves, 2 + 1 + 1; operators: 12 leaves, 2 + 1 + 2; the judgement.
        assertEq(verbs, 3 + 4 + 5 + 1);
        params.bond = uint128(2 * (params.verbFee * verbs + params.bounty));
        _create(params);
        params.bond -= 1;
        _refused(params, abi.encodeWithSelector(IVerde.BondTooSmall.selector, params.bond, params.bond + 1));
        params = _params();
        (params.verbFee, params.bounty, params.bond) = (type(uint128).max, type(uint128).max, type(uint128).max);
        uint256 needed = 2 * (uint256(type(uint128).max) * verbs + type(uint128).max);
        _refused(params, abi.encodeWithSelector(IVerde.BondTooSmall.selector, params.bond, needed));
    }

    function test_CreateRefusesARefereeWithoutCode() public {
        IVerde.TaskParams memory params = _params();
        params.referee = IReferee(carol);
        _refused(params, abi.encodeWithSelector(IVerde.RefereeHasNoCode.selector, carol));
    }

    function test_CreateAsksTheReferee() public {
        IVerde.TaskParams memory params = _params();
        params.refereeConfig = abi.encode(uint8(1), new address[](0));
        _refused(params, abi.encodeWithSignature("InvalidThreshold(uint256,uint256)", 1, 0));
    }

    // ---------------------------------------------------------------- Commitments

    function test_CommitTakesASeat() public {
        uint256 taskId = _create();
        vm.expectEmit(address(verde));
        emit IVerde.Committed(taskId, alice, 0, "sealed");
        vm.prank(alice);
        verde.commit{value: 2 ether}(taskId, "sealed");
        IVerde.Participant memory participant = verde.getParticipant(taskId, 0);
        assertEq(participant.account, alice);
        assertEq(participant.standing, IVerde.Standing.Committed);
        assertEq(participant.commitment, "sealed");
        assertEq(verde.getMember(taskId, alice).participant, 1);
        assertEq(verde.getTask(taskId).committed, 1);
        assertEq(verde.getTask(taskId).participants, 1);
    }

    function test_CommitRefusals() public {
        IVerde.TaskParams memory params = _params();
        params.providers = _providers(alice, bob);
        uint256 taskId = _create(params);
        vm.expectRevert(abi.encodeWithSelector(IVerde.UnknownTask.selector, 2));
        vm.prank(alice);
        verde.commit{value: 2 ether}(2, "sealed");
        vm.expectRevert(abi.encodeWithSelector(IVerde.NotNamed.selector, carol));
        vm.prank(carol);
        verde.commit{value: 2 ether}(taskId, "sealed");
        vm.startPrank(alice);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongValue.selector, 2 ether - 1, 2 ether));
        verde.commit{value: 2 ether - 1}(taskId, "sealed");
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongValue.selector, 2 ether + 1, 2 ether));
        verde.commit{value: 2 ether + 1}(taskId, "sealed");
        verde.commit{value: 2 ether}(taskId, "sealed");
        vm.expectRevert(abi.encodeWithSelector(IVerde.AlreadyJoined.selector, alice, 0));
        verde.commit{value: 2 ether}(taskId, "sealed");
    }

    function test_CommitRefusesWhenTheSeatsAreTaken() public {
        uint256 taskId = _create();
        _commit(taskId, alice, _honest());
        _commit(taskId, bob, _honest());
        vm.expectRevert(abi.encodeWithSelector(IVerde.NoSeat.selector, 2));
        vm.prank(carol);
        verde.commit{value: 2 ether}(taskId, "sealed");
    }

    function test_CommitAtItsDeadline() public {
        uint256 taskId = _create();
        uint256 deadline = verde.getTask(taskId).commitDeadline;
        vm.warp(deadline - 1);
        vm.prank(alice);
        verde.commit{value: 2 ether}(taskId, "sealed");
        for (uint256 late = 0; late < 2; late++) {
            vm.warp(deadline + late);
            vm.expectRevert(abi.encodeWithSelector(IVerde.TooLate.selector, deadline + late, deadline));
            vm.prank(bob);
            verde.commit{value: 2 ether}(taskId, "sealed");
        }
    }

    // ---------------------------------------------------------------- Cancelling

    function test_CancelGivesEverythingBack() public {
        uint256 taskId = _create();
        _commit(taskId, alice, _honest());
        vm.prank(client);
        verde.cancel(taskId);
        assertEq(verde.getTask(taskId).status, IVerde.Status.Cancelled);
        assertEq(verde.getTask(taskId).endedAt, block.timestamp);
        assertEq(verde.credit(client), 6 ether);
        verde.collect(taskId, 0);
        assertEq(verde.credit(alice), 2 ether);
        vm.expectRevert(abi.encodeWithSelector(IVerde.NothingDue.selector, taskId, 0));
        verde.collect(taskId, 0);
    }

    function test_CancelRefusals() public {
        uint256 taskId = _create();
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongSender.selector, alice, client));
        vm.prank(alice);
        verde.cancel(taskId);
        _commit(taskId, alice, _honest());
        _commit(taskId, bob, _honest());
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongCommitments.selector, 2));
        vm.prank(client);
        verde.cancel(taskId);
    }

    function test_CancelAndExpireShareTheCommitDeadline() public {
        uint256 taskId = _create();
        uint256 deadline = verde.getTask(taskId).commitDeadline;
        uint256 snapshot = vm.snapshotState();
        for (uint256 i = 0; i < 3; i++) {
            uint256 time = deadline + i - 1;
            vm.warp(time);
            bool late = i > 0;
            if (late) vm.expectRevert(abi.encodeWithSelector(IVerde.TooLate.selector, time, deadline));
            vm.prank(client);
            verde.cancel(taskId);
            vm.revertToState(snapshot);
            vm.warp(time);
            if (!late) vm.expectRevert(abi.encodeWithSelector(IVerde.TooEarly.selector, time, deadline));
            verde.expire(taskId);
            if (late) assertEq(verde.credit(client), 6 ether);
            vm.revertToState(snapshot);
        }
    }

    function test_ExpireRefusesWithTwoCommitments() public {
        uint256 taskId = _create();
        _commit(taskId, alice, _honest());
        _commit(taskId, bob, _honest());
        _toReveal(taskId);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongCommitments.selector, 2));
        verde.expire(taskId);
    }

    // ---------------------------------------------------------------- Reveals

    function test_RevealMakesASurvivor() public {
        uint256 taskId = _create();
        _commit(taskId, alice, _honest());
        _commit(taskId, bob, _honest());
        _toReveal(taskId);
        bytes32 root = _claimOf(taskId, _honest()).root();
        bytes32 finalStateRoot = _final(taskId, _honest());
        bytes32[] memory proof = _finalProof(taskId, _honest());
        vm.expectEmit(address(verde));
        emit IVerde.Revealed(taskId, bob, 1, 1, root, finalStateRoot);
        vm.prank(bob);
        verde.reveal(taskId, root, finalStateRoot, SALT, proof);
        _reveal(taskId, alice, _honest());

        IVerde.Claim memory claim = verde.getClaim(taskId, 1);
        assertEq(claim.root, root);
        assertEq(claim.finalStateRoot, finalStateRoot);
        assertEq(claim.head, 2, "Bob revealed first");
        assertEq(claim.tail, 1);
        assertEq(verde.getParticipant(taskId, 1).next, 1);
        assertEq(verde.claimIdOf(taskId, root), 1);
        IVerde.Task memory task = verde.getTask(taskId);
        assertEq(task.claims, 1);
        assertEq(task.head, 1);
        assertEq(task.tail, 1);
        assertEq(task.revealed, 2);
        assertEq(task.survivingSeats, 2);
        assertEq(_standing(taskId, 0), IVerde.Standing.Free);
    }

    function test_RevealAtItsDeadlines() public {
        uint256 taskId = _create();
        _commit(taskId, alice, _honest());
        _commit(taskId, bob, _honest());
        uint256 opens = verde.getTask(taskId).commitDeadline;
        uint256 deadline = verde.getTask(taskId).revealDeadline;
        bytes32 root = _claimOf(taskId, _honest()).root();
        bytes32 finalStateRoot = _final(taskId, _honest());
        bytes32[] memory proof = _finalProof(taskId, _honest());
        uint256[5] memory times = [opens - 1, opens, deadline - 1, deadline, deadline + 1];
        uint256 snapshot = vm.snapshotState();
        for (uint256 i = 0; i < times.length; i++) {
            vm.warp(times[i]);
            if (i == 0) vm.expectRevert(abi.encodeWithSelector(IVerde.TooEarly.selector, times[i], opens));
            if (i > 2) vm.expectRevert(abi.encodeWithSelector(IVerde.TooLate.selector, times[i], deadline));
            vm.prank(alice);
            verde.reveal(taskId, root, finalStateRoot, SALT, proof);
            vm.revertToState(snapshot);
        }
    }

    function test_RevealRefusesWhatWasNotCommitted() public {
        uint256 taskId = _create();
        _commit(taskId, alice, _honest());
        _commit(taskId, bob, _honest());
        _toReveal(taskId);
        bytes32 root = _claimOf(taskId, _honest()).root();
        bytes32 finalStateRoot = _final(taskId, _honest());
        bytes32[] memory proof = _finalProof(taskId, _honest());
        bytes32 sealed_ = verde.getParticipant(taskId, 0).commitment;
        vm.startPrank(alice);
        vm.expectRevert(
            abi.encodeWithSelector(
                IVerde.WrongCommitment.selector, _commitment(taskId, alice, ~root, finalStateRoot), sealed_
            )
        );
        verde.reveal(taskId, ~root, finalStateRoot, SALT, proof);
        vm.expectRevert(
            abi.encodeWithSelector(
                IVerde.WrongCommitment.selector, _commitment(taskId, alice, root, ~finalStateRoot), sealed_
            )
        );
        verde.reveal(taskId, root, ~finalStateRoot, SALT, proof);
        vm.expectPartialRevert(IVerde.WrongCommitment.selector);
        verde.reveal(taskId, root, finalStateRoot, ~SALT, proof);
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongStanding.selector, IVerde.Standing.None));
        vm.prank(carol);
        verde.reveal(taskId, root, finalStateRoot, SALT, proof);
        _reveal(taskId, alice, _honest());
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongStanding.selector, IVerde.Standing.Free));
        vm.prank(alice);
        verde.reveal(taskId, root, finalStateRoot, SALT, proof);
    }

    /// The sealed bytes of another provider are of no use: the commitment names its maker.
    function test_RevealRefusesACopiedCommitment() public {
        uint256 taskId = _create();
        _commit(taskId, alice, _honest());
        bytes32 copied = verde.getParticipant(taskId, 0).commitment;
        vm.prank(mallory);
        verde.commit{value: 2 ether}(taskId, copied);
        _toReveal(taskId);
        _reveal(taskId, alice, _honest());
        bytes32 root = _claimOf(taskId, _honest()).root();
        bytes32 finalStateRoot = _final(taskId, _honest());
        bytes32[] memory proof = _finalProof(taskId, _honest());
        vm.expectRevert(
            abi.encodeWithSelector(
                IVerde.WrongCommitment.selector, _commitment(taskId, mallory, root, finalStateRoot), copied
            )
        );
        vm.prank(mallory);
        verde.reveal(taskId, root, finalStateRoot, SALT, proof);
    }

    function test_RevealProvesTheFinalState() public {
        uint256 taskId = _create();
        bytes32 root = _claimOf(taskId, _honest()).root();
        bytes32 wrong = keccak256("another state");
        bytes32[] memory proof = _finalProof(taskId, _honest());
        bytes32 commitment = _commitment(taskId, alice, root, wrong);
        vm.prank(alice);
        verde.commit{value: 2 ether}(taskId, commitment);
        _commit(taskId, bob, _honest());
        _toReveal(taskId);
        vm.startPrank(alice);
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        verde.reveal(taskId, root, wrong, SALT, proof);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 0, 3));
        verde.reveal(taskId, root, wrong, SALT, new bytes32[](0));
    }

    /// A sealed claim must not open while its task may still be called off for want of others.
    function test_OneCommitmentGoesNowhere() public {
        uint256 taskId = _create();
        _commit(taskId, alice, _honest());
        bytes32 root = _claimOf(taskId, _honest()).root();
        bytes32 finalStateRoot = _final(taskId, _honest());
        bytes32[] memory proof = _finalProof(taskId, _honest());
        bytes memory error_ = abi.encodeWithSelector(IVerde.WrongCommitments.selector, 1);
        _toReveal(taskId);
        vm.expectRevert(error_);
        vm.prank(alice);
        verde.reveal(taskId, root, finalStateRoot, SALT, proof);
        _toChallenge(taskId);
        vm.expectRevert(error_);
        vm.prank(carol);
        verde.challenge{value: 2 ether}(taskId, root, finalStateRoot, proof);
        vm.expectRevert(abi.encodeWithSelector(IVerde.NothingToPair.selector, taskId));
        verde.pair(taskId);
        _toSettle(taskId);
        vm.expectRevert(error_);
        verde.settle(taskId);
        verde.expire(taskId);
        verde.collect(taskId, 0);
        assertEq(verde.credit(alice), 2 ether);
    }

    // ---------------------------------------------------------------- Challenges

    function test_ChallengeJoinsWithAClaim() public {
        uint256 taskId = _revealed(_params(), _liar(0, 0), _liar(0, 0));
        bytes32 root = _claimOf(taskId, _honest()).root();
        bytes32 finalStateRoot = _final(taskId, _honest());
        bytes32[] memory proof = _finalProof(taskId, _honest());
        vm.expectEmit(address(verde));
        emit IVerde.Challenged(taskId, carol, 2, 2, root, finalStateRoot, uint40(block.timestamp) + CHALLENGE);
        vm.prank(carol);
        verde.challenge{value: 2 ether}(taskId, root, finalStateRoot, proof);
        IVerde.Participant memory participant = verde.getParticipant(taskId, 2);
        assertEq(participant.account, carol);
        assertEq(participant.standing, IVerde.Standing.Free);
        assertEq(participant.claimId, 2);
        assertEq(verde.getTask(taskId).committed, 2);
        assertEq(verde.getTask(taskId).participants, 3);
        assertEq(verde.getTask(taskId).survivingSeats, 2);
        assertEq(verde.getTask(taskId).tail, 2);
    }

    function test_ChallengeRefusals() public {
        uint256 taskId = _revealed(_params(), _honest(), _honest());
        bytes32 root = _claimOf(taskId, _liar(1, 1)).root();
        bytes32 finalStateRoot = _final(taskId, _liar(1, 1));
        bytes32[] memory proof = _finalProof(taskId, _liar(1, 1));
        vm.expectRevert(abi.encodeWithSelector(IVerde.AlreadyJoined.selector, alice, 0));
        vm.prank(alice);
        verde.challenge{value: 2 ether}(taskId, root, finalStateRoot, proof);
        vm.startPrank(carol);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongValue.selector, 1 ether, 2 ether));
        verde.challenge{value: 1 ether}(taskId, root, finalStateRoot, proof);
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        verde.challenge{value: 2 ether}(taskId, root, ~finalStateRoot, proof);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 0, 3));
        verde.challenge{value: 2 ether}(taskId, root, finalStateRoot, new bytes32[](0));
        verde.challenge{value: 2 ether}(taskId, root, finalStateRoot, proof);
        vm.expectRevert(abi.encodeWithSelector(IVerde.AlreadyJoined.selector, carol, 2));
        verde.challenge{value: 2 ether}(taskId, root, finalStateRoot, proof);
    }

    function test_ChallengeAtItsDeadlines() public {
        uint256 taskId = _revealed(_params(), _honest(), _honest());
        uint256 opens = verde.getTask(taskId).revealDeadline;
        uint256 deadline = verde.getTask(taskId).challengeDeadline;
        bytes32 root = _claimOf(taskId, _liar(1, 1)).root();
        bytes32 finalStateRoot = _final(taskId, _liar(1, 1));
        bytes32[] memory proof = _finalProof(taskId, _liar(1, 1));
        uint256[5] memory times = [opens - 1, opens, deadline - 1, deadline, deadline + 1];
        uint256 snapshot = vm.snapshotState();
        for (uint256 i = 0; i < times.length; i++) {
            vm.warp(times[i]);
            if (i == 0) vm.expectRevert(abi.encodeWithSelector(IVerde.TooEarly.selector, times[i], opens));
            if (i > 2) vm.expectRevert(abi.encodeWithSelector(IVerde.TooLate.selector, times[i], deadline));
            vm.prank(carol);
            verde.challenge{value: 2 ether}(taskId, root, finalStateRoot, proof);
            vm.revertToState(snapshot);
        }
    }

    /// @dev All seats hold one claim, and another one comes in the last second: whoever knows better can still answer.
    function test_ANewClaimOpensAWholeWindow() public {
        uint256 taskId = _revealed(_params(), _honest(), _honest());
        uint256 deadline = verde.getTask(taskId).challengeDeadline;
        vm.warp(deadline - 1);
        _challenge(taskId, carol, _liar(1, 1));
        assertEq(verde.getTask(taskId).challengeDeadline, deadline - 1 + CHALLENGE);
        vm.warp(deadline + CHALLENGE - 2);
        vm.expectRevert(abi.encodeWithSelector(IVerde.TooEarly.selector, block.timestamp, deadline + CHALLENGE - 1));
        verde.settle(taskId);
        _challenge(taskId, mallory, _honest());
        assertEq(verde.getTask(taskId).challengeDeadline, deadline + CHALLENGE - 1, "a known claim moves nothing");
    }

    /// @dev Too long a window is cut at what a deadline can hold, and never moves it back.
    function test_AnExtendedDeadlineDoesNotOverflow() public {
        IVerde.TaskParams memory params = _params();
        uint256 rest = uint256(type(uint40).max) - block.timestamp - params.commitWindow - params.revealWindow;
        params.challengeWindow = uint40(rest);
        uint256 taskId = _revealed(params, _honest(), _honest());
        assertEq(verde.getTask(taskId).challengeDeadline, type(uint40).max);
        vm.warp(block.timestamp + 1);
        _challenge(taskId, carol, _liar(1, 1));
        assertEq(verde.getTask(taskId).challengeDeadline, type(uint40).max);
    }

    function test_ANamedProviderWithoutASeatMayChallenge() public {
        IVerde.TaskParams memory params = _params();
        params.seats = 3;
        params.providers = new address[](3);
        (params.providers[0], params.providers[1], params.providers[2]) = (alice, bob, carol);
        uint256 taskId = _revealed(params, _honest(), _honest());
        _challenge(taskId, carol, _honest());
        assertEq(verde.getMember(taskId, carol).participant, 3);
        assertTrue(verde.getMember(taskId, carol).named);
    }

    // ---------------------------------------------------------------- Settling

    function test_SettlePaysTheSurvivors() public {
        uint256 taskId = _revealed(_params(), _honest(), _honest());
        _toSettle(taskId);
        bytes32 root = _claimOf(taskId, _honest()).root();
        bytes32 finalStateRoot = _final(taskId, _honest());
        vm.expectEmit(address(verde));
        emit IVerde.Settled(taskId, 1, root, finalStateRoot, 0, uint40(block.timestamp));
        verde.settle(taskId);
        assertEq(verde.getTask(taskId).status, IVerde.Status.Settled);
        assertEq(verde.credit(client), 0);
        verde.collect(taskId, 0);
        verde.collect(taskId, 1);
        // 3 ether of which a quarter is held back, and the bond.
        assertEq(verde.credit(alice), 4.25 ether);
        assertEq(verde.credit(bob), 4.25 ether);
        vm.prank(client);
        verde.confirmDelivery(taskId);
        verde.collectHoldback(taskId, 0);
        verde.collectHoldback(taskId, 1);
        assertEq(verde.credit(alice), 5 ether);
        assertEq(verde.credit(bob), 5 ether);
        assertEq(address(verde).balance, 10 ether);
    }

    function test_SettleWithOneReveal() public {
        uint256 taskId = _create();
        _commit(taskId, alice, _honest());
        _commit(taskId, bob, _honest());
        _toReveal(taskId);
        _reveal(taskId, alice, _honest());
        _toSettle(taskId);
        verde.settle(taskId);
        assertEq(verde.credit(client), 3 ether, "the reward of the seat that did not reveal");
        assertEq(verde.credit(BURN), 2 ether, "its bond");
        vm.expectRevert(abi.encodeWithSelector(IVerde.NothingDue.selector, taskId, 1));
        verde.collect(taskId, 1);
        verde.collect(taskId, 0);
        assertEq(verde.credit(alice), 4.25 ether);
    }

    function test_SettleFailsWhenNobodyRevealed() public {
        uint256 taskId = _create();
        _commit(taskId, alice, _honest());
        _commit(taskId, bob, _honest());
        _toSettle(taskId);
        vm.expectEmit(address(verde));
        emit IVerde.Failed(taskId, uint40(block.timestamp));
        verde.settle(taskId);
        assertEq(verde.getTask(taskId).status, IVerde.Status.Failed);
        assertEq(verde.credit(client), 6 ether);
        assertEq(verde.credit(BURN), 4 ether);
        vm.expectRevert(abi.encodeWithSelector(IVerde.NothingDue.selector, taskId, 0));
        verde.collect(taskId, 0);
    }

    function test_SettlePaysTheChallengerWhenNoSeatSurvives() public {
        uint256 taskId = _revealed(_params(), _liar(0, 0), _liar(0, 0));
        _challenge(taskId, carol, _honest());
        _challenge(taskId, mallory, _honest());
        for (uint256 i = 0; i < 2; i++) {
            uint256 matchId = verde.pair(taskId);
            _playOut(matchId);
            verde.judge(matchId, _verdict(matchId, _truth(matchId), false));
        }
        uint256 won = verde.credit(carol) + verde.credit(mallory);
        _toSettle(taskId);
        verde.settle(taskId);
        IVerde.Task memory task = verde.getTask(taskId);
        assertEq(task.survivingSeats, 0);
        assertEq(task.payee, verde.getClaim(taskId, 2).head, "the head of the queue");
        assertEq(verde.credit(client), 3 ether);
        verde.collect(taskId, 2);
        verde.collect(taskId, 3);
        vm.warp(block.timestamp + DELIVERY);
        verde.collectHoldback(taskId, task.payee - 1);
        uint256 unpaid = task.payee == 3 ? 3 : 2;
        vm.expectRevert(abi.encodeWithSelector(IVerde.NothingDue.selector, taskId, unpaid));
        verde.collectHoldback(taskId, unpaid);
        assertEq(verde.credit(carol) + verde.credit(mallory), won + 4 ether + 3 ether);
        for (uint256 i = 0; i < 2; i++) {
            vm.expectRevert(abi.encodeWithSelector(IVerde.NothingDue.selector, taskId, i));
            verde.collect(taskId, i);
        }
    }

    function test_SettleAtItsDeadline() public {
        uint256 taskId = _revealed(_params(), _honest(), _honest());
        uint256 deadline = verde.getTask(taskId).challengeDeadline;
        vm.warp(deadline - 1);
        vm.expectRevert(abi.encodeWithSelector(IVerde.TooEarly.selector, deadline - 1, deadline));
        verde.settle(taskId);
        vm.warp(deadline);
        verde.settle(taskId);
    }

    function test_SettleRefusesWhileClaimsDiffer() public {
        uint256 taskId = _revealed(_params(), _honest(), _liar(3, 2));
        _toSettle(taskId);
        vm.expectRevert(abi.encodeWithSelector(IVerde.ClaimsDiffer.selector, 1, 2));
        verde.settle(taskId);
        uint256 matchId = verde.pair(taskId);
        vm.expectRevert(abi.encodeWithSelector(IVerde.MatchesLive.selector, 1));
        verde.settle(taskId);
        _playOut(matchId);
        verde.judge(matchId, _verdict(matchId, _truth(matchId), false));
        verde.settle(taskId);
        assertEq(verde.credit(client), 3 ether, "the loser's reward");
    }

    function test_EndedTasksAcceptNoVerb() public {
        for (uint256 i = 0; i < 4; i++) {
            uint256 taskId = i == 0 ? _settled() : i == 1 ? _voided() : _create();
            if (i == 2) {
                vm.prank(client);
                verde.cancel(taskId);
            } else if (i == 3) {
                _commit(taskId, alice, _honest());
                _commit(taskId, bob, _honest());
                _toSettle(taskId);
                verde.settle(taskId);
            }
            bytes memory error_ = abi.encodeWithSelector(IVerde.WrongStatus.selector, verde.getTask(taskId).status);
            bytes32[] memory none = new bytes32[](0);
            vm.deal(carol, 100 ether);
            vm.startPrank(carol);
            vm.expectRevert(error_);
            verde.commit{value: 2 ether}(taskId, 0);
            vm.expectRevert(error_);
            verde.cancel(taskId);
            vm.expectRevert(error_);
            verde.expire(taskId);
            vm.expectRevert(error_);
            verde.reveal(taskId, 0, 0, 0, none);
            vm.expectRevert(error_);
            verde.challenge{value: 2 ether}(taskId, 0, 0, none);
            vm.expectRevert(error_);
            verde.pair(taskId);
            vm.expectRevert(error_);
            verde.settle(taskId);
            if (i > 0) {
                vm.expectRevert(error_);
                verde.confirmDelivery(taskId);
            }
            vm.stopPrank();
        }
    }

    function test_UnknownTasks() public {
        bytes memory error_ = abi.encodeWithSelector(IVerde.UnknownTask.selector, 7);
        bytes32[] memory none = new bytes32[](0);
        vm.expectRevert(error_);
        verde.commit(7, 0);
        vm.expectRevert(error_);
        verde.cancel(7);
        vm.expectRevert(error_);
        verde.expire(7);
        vm.expectRevert(error_);
        verde.reveal(7, 0, 0, 0, none);
        vm.expectRevert(error_);
        verde.challenge(7, 0, 0, none);
        vm.expectRevert(error_);
        verde.pair(7);
        vm.expectRevert(error_);
        verde.settle(7);
        vm.expectRevert(error_);
        verde.collect(7, 0);
        vm.expectRevert(error_);
        verde.confirmDelivery(7);
        vm.expectRevert(error_);
        verde.collectHoldback(7, 0);
        IVerde.Task memory nothing;
        assertEq(keccak256(abi.encode(verde.getTask(7))), keccak256(abi.encode(nothing)));
    }

    // ---------------------------------------------------------------- Collecting

    function test_CollectRefusals() public {
        uint256 taskId = _revealed(_params(), _honest(), _honest());
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongStatus.selector, IVerde.Status.Live));
        verde.collect(taskId, 0);
        _toSettle(taskId);
        verde.settle(taskId);
        vm.expectRevert(abi.encodeWithSelector(IVerde.UnknownParticipant.selector, taskId, 2));
        verde.collect(taskId, 2);
        vm.expectEmit(address(verde));
        emit IVerde.Collected(taskId, 0, 4.25 ether);
        verde.collect(taskId, 0);
        vm.expectRevert(abi.encodeWithSelector(IVerde.NothingDue.selector, taskId, 0));
        verde.collect(taskId, 0);
        assertTrue(verde.getParticipant(taskId, 0).collected);
    }

    function test_CollectFromAVoidedTask() public {
        uint256 taskId = _voided();
        assertEq(verde.getTask(taskId).status, IVerde.Status.Voided);
        assertEq(verde.credit(BURN), 6 ether);
        assertEq(verde.credit(client), 0);
        verde.collect(taskId, 0);
        verde.collect(taskId, 1);
        assertEq(verde.credit(alice), 2 ether);
        assertEq(verde.credit(bob), 2 ether);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongStatus.selector, IVerde.Status.Voided));
        verde.collectHoldback(taskId, 0);
    }

    function test_VoidingBurnsTheBondsThatDidNotReveal() public {
        IVerde.TaskParams memory params = _params();
        params.seats = 3;
        uint256 taskId = _create(params);
        _commit(taskId, alice, _honest());
        _commit(taskId, bob, _liar(3, 2));
        _commit(taskId, carol, _honest());
        _toReveal(taskId);
        _reveal(taskId, alice, _honest());
        _reveal(taskId, bob, _liar(3, 2));
        _toChallenge(taskId);
        uint256 matchId = verde.pair(taskId);
        _playOut(matchId);
        vm.warp(block.timestamp + REFEREE);
        verde.judge(matchId, "");
        assertEq(verde.credit(BURN), 9 ether + 2 ether);
        vm.expectRevert(abi.encodeWithSelector(IVerde.NothingDue.selector, taskId, 2));
        verde.collect(taskId, 2);
    }

    function test_ConfirmRefusals() public {
        uint256 taskId = _revealed(_params(), _honest(), _honest());
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongStatus.selector, IVerde.Status.Live));
        vm.prank(client);
        verde.confirmDelivery(taskId);
        _toSettle(taskId);
        verde.settle(taskId);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongSender.selector, alice, client));
        vm.prank(alice);
        verde.confirmDelivery(taskId);
        vm.startPrank(client);
        vm.expectEmit(address(verde));
        emit IVerde.DeliveryConfirmed(taskId);
        verde.confirmDelivery(taskId);
        vm.expectRevert(abi.encodeWithSelector(IVerde.AlreadyConfirmed.selector, taskId));
        verde.confirmDelivery(taskId);
    }

    function test_HoldbackAtItsDeadline() public {
        uint256 taskId = _settled();
        uint256 due = block.timestamp + DELIVERY;
        vm.warp(due - 1);
        vm.expectRevert(abi.encodeWithSelector(IVerde.TooEarly.selector, due - 1, due));
        verde.collectHoldback(taskId, 0);
        vm.warp(due);
        vm.expectEmit(address(verde));
        emit IVerde.HoldbackCollected(taskId, 0, 0.75 ether);
        verde.collectHoldback(taskId, 0);
        vm.expectRevert(abi.encodeWithSelector(IVerde.NothingDue.selector, taskId, 0));
        verde.collectHoldback(taskId, 0);
        vm.expectRevert(abi.encodeWithSelector(IVerde.UnknownParticipant.selector, taskId, 2));
        verde.collectHoldback(taskId, 2);
    }

    function test_HoldbackOfNothing() public {
        IVerde.TaskParams memory params = _params();
        params.holdbackBps = 0;
        uint256 taskId = _revealed(params, _honest(), _honest());
        _challenge(taskId, carol, _honest());
        _toSettle(taskId);
        verde.settle(taskId);
        vm.expectRevert(abi.encodeWithSelector(IVerde.NothingDue.selector, taskId, 0));
        verde.collectHoldback(taskId, 0);
        verde.collect(taskId, 0);
        assertEq(verde.credit(alice), 5 ether);
        verde.collect(taskId, 2);
        assertEq(verde.credit(carol), 2 ether, "a challenger gets its bond");
    }

    /// Whatever the share, the two parts are the reward to the wei.
    function testFuzz_HoldbackLosesNoWei(uint128 reward, uint16 bps) public {
        IVerde.TaskParams memory params = _params();
        params.reward = uint128(bound(reward, 1, 1e30));
        params.holdbackBps = uint16(bound(bps, 1, 10_000));
        vm.deal(client, 1e32);
        uint256 taskId = _revealed(params, _honest(), _honest());
        _toSettle(taskId);
        verde.settle(taskId);
        verde.collect(taskId, 0);
        uint256 held = (uint256(params.reward) * params.holdbackBps) / 10_000;
        assertEq(verde.credit(alice), 2 ether + params.reward - held);
        vm.warp(block.timestamp + DELIVERY);
        if (held == 0) vm.expectRevert(abi.encodeWithSelector(IVerde.NothingDue.selector, taskId, 0));
        verde.collectHoldback(taskId, 0);
        assertEq(verde.credit(alice), 2 ether + params.reward);
    }

    // ---------------------------------------------------------------- Withdrawing

    function test_WithdrawSendsTheCredit() public {
        uint256 taskId = _settled();
        verde.collect(taskId, 0);
        uint256 before = alice.balance;
        vm.expectEmit(address(verde));
        emit IVerde.Withdrawn(alice, 4.25 ether);
        vm.prank(anyone);
        verde.withdraw(alice);
        assertEq(alice.balance - before, 4.25 ether);
        assertEq(verde.credit(alice), 0);
        vm.expectRevert(abi.encodeWithSelector(IVerde.NothingToWithdraw.selector, alice));
        verde.withdraw(alice);
    }

    function test_WithdrawToAnUnwillingAccountKeepsTheCredit() public {
        Recipient recipient = new Recipient(verde);
        vm.deal(address(recipient), 2 ether);
        uint256 taskId = _create();
        recipient.commit(taskId, 2 ether);
        vm.prank(client);
        verde.cancel(taskId);
        verde.collect(taskId, 0);
        vm.expectRevert(abi.encodeWithSelector(IVerde.TransferFailed.selector, address(recipient)));
        verde.withdraw(address(recipient));
        assertEq(verde.credit(address(recipient)), 2 ether);

        recipient.setWilling(true);
        verde.withdraw(address(recipient));
        assertEq(address(recipient).balance, 2 ether);
        assertFalse(recipient.reentered(), "a second withdrawal inside the first");
    }

    function test_BurnedWeiCanOnlyGoToTheBurnAddress() public {
        uint256 taskId = _create();
        _commit(taskId, alice, _honest());
        _commit(taskId, bob, _honest());
        _toSettle(taskId);
        verde.settle(taskId);
        verde.withdraw(BURN);
        assertEq(BURN.balance, 4 ether);
    }

    /// The contract takes no ether but through its verbs; what is forced upon it belongs to nobody.
    function test_EtherSentByForceChangesNothing() public {
        vm.deal(anyone, 1 ether);
        vm.prank(anyone);
        (bool ok,) = address(verde).call{value: 1 ether}("");
        assertFalse(ok);
        uint256 taskId = _settled();
        vm.deal(address(verde), address(verde).balance + 7 ether);
        for (uint256 i = 0; i < 2; i++) {
            verde.collect(taskId, i);
        }
        vm.warp(block.timestamp + DELIVERY);
        for (uint256 i = 0; i < 2; i++) {
            verde.collectHoldback(taskId, i);
        }
        verde.withdraw(alice);
        verde.withdraw(bob);
        assertEq(address(verde).balance, 7 ether);
    }

    function test_CreditedIsAnnounced() public {
        uint256 taskId = _create();
        vm.expectEmit(address(verde));
        emit IVerde.Cancelled(taskId, uint40(block.timestamp));
        vm.expectEmit(address(verde));
        emit IVerde.Credited(client, 6 ether);
        vm.prank(client);
        verde.cancel(taskId);
    }
}
