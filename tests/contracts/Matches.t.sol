// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {IReferee, Question, Ruling} from "../../contracts/interfaces/IReferee.sol";
import {ICommitteeReferee} from "../../contracts/interfaces/ICommitteeReferee.sol";
import {BaseTest} from "./Base.t.sol";
import {Trees} from "./utils/Trees.sol";
import {World} from "./utils/World.sol";

/// @notice A referee that answers as it is told, and tries to change the game while it is asked.
contract EvilReferee is IReferee {
    IVerde internal immutable verde;
    bytes32 internal root;
    bool internal mute;

    constructor(IVerde verde_) {
        verde = verde_;
    }

    function answer(bytes32 root_, bool mute_) external {
        (root, mute) = (root_, mute_);
    }

    function validate(bytes calldata, uint8) external pure returns (uint256) {
        return 0;
    }

    function judge(Question calldata question, bytes calldata) external view returns (Ruling, bytes32, uint256) {
        require(!mute, "mute");
        // A state change inside a STATICCALL fails, whoever is asked for it.
        (bool ok,) = address(verde).staticcall(abi.encodeCall(IVerde.timeout, (question.matchId)));
        require(!ok, "changed the game");
        return (Ruling.Root, root, 0);
    }
}

/// @notice A referee that rules as it is told, and asks for any number of verbs.
contract LavishReferee is IReferee {
    Ruling internal ruling;
    uint256 internal verbs;

    function rule(Ruling ruling_, uint256 verbs_) external {
        (ruling, verbs) = (ruling_, verbs_);
    }

    function validate(bytes calldata, uint8) external pure returns (uint256) {
        return 0;
    }

    function judge(Question calldata, bytes calldata) external view returns (Ruling, bytes32, uint256) {
        return (ruling, 0, verbs);
    }
}

/// @notice Matches: every refusal, every clock, every judgement, and what each end costs.
contract MatchesTest is BaseTest {
    using Trees for Trees.Tree;

    IVerde.Opening internal empty;
    bytes32[] internal none;

    function _game(World.Plan memory a, World.Plan memory b) internal returns (uint256) {
        return _paired(_params(), a, b);
    }

    /// @dev A match that disputes compute node 2 of step 14: checkpoint 3, step 2 of its segment.
    function _game() internal returns (uint256) {
        return _game(_honest(), _liar(14, 2));
    }

    function _atReferee() internal returns (uint256 matchId) {
        matchId = _game();
        _playOut(matchId);
    }

    /// @dev A match that disputes hash node `node`.
    function _atHashNode(uint256 node) internal returns (uint256 matchId) {
        matchId = _game(_honest(), _liar(14, node));
        _playTo(matchId, IVerde.Level.Operators, IVerde.Phase.HashNode);
    }

    function _judge(uint256 matchId) internal {
        verde.judge(matchId, _verdict(matchId, _truth(matchId), false));
    }

    // ---------------------------------------------------------------- Pairing

    function test_PairStartsAMatch() public {
        uint256 taskId = _revealed(_params(), _honest(), _liar(14, 2));
        vm.expectEmit(address(verde));
        emit IVerde.Paired(taskId, 1, 0, 1, uint40(block.timestamp));
        uint256 matchId = verde.pair(taskId);
        assertEq(verde.matchCount(), matchId);
        IVerde.Match memory expected;
        expected.nodeA = _claimOf(taskId, _honest()).root();
        expected.nodeB = _claimOf(taskId, _liar(14, 2)).root();
        expected.taskId = uint64(taskId);
        expected.grace = GRACE;
        expected.arityBits = 2;
        expected.indexB = 1;
        expected.since = uint40(block.timestamp);
        expected.clockA = ALLOWANCE;
        expected.clockB = ALLOWANCE;
        expected.phase = IVerde.Phase.Open;
        expected.rest = 3;
        expected.matchId = uint40(matchId);
        assertEq(keccak256(abi.encode(verde.getMatch(matchId))), keccak256(abi.encode(expected)));
        assertEq(_standing(taskId, 0), IVerde.Standing.Playing);
        assertEq(_standing(taskId, 1), IVerde.Standing.Playing);
        assertEq(verde.getTask(taskId).liveMatches, 1);
        assertEq(verde.getTask(taskId).head, 0);
        assertEq(verde.getTask(taskId).tail, 0);
    }

    function test_PairAtItsDeadline() public {
        uint256 taskId = _revealed(_params(), _honest(), _liar(14, 2));
        uint256 opens = block.timestamp;
        vm.warp(opens - 1);
        vm.expectRevert(abi.encodeWithSelector(IVerde.TooEarly.selector, opens - 1, opens));
        verde.pair(taskId);
        vm.warp(opens);
        verde.pair(taskId);
    }

    function test_PairRefusesWhenClaimsAgreeOrEverybodyPlays() public {
        uint256 taskId = _revealed(_params(), _honest(), _honest());
        bytes memory error_ = abi.encodeWithSelector(IVerde.NothingToPair.selector, taskId);
        vm.expectRevert(error_);
        verde.pair(taskId);
        _challenge(taskId, carol, _liar(3, 3));
        verde.pair(taskId);
        vm.expectRevert(error_);
        verde.pair(taskId);
    }

    /// Claims take turns, and within a claim whoever came first.
    function test_PairInTurn() public {
        IVerde.TaskParams memory params = _params();
        params.seats = 4;
        uint256 taskId = _create(params);
        address[4] memory who = [alice, bob, carol, mallory];
        for (uint256 i = 0; i < 4; i++) {
            _commit(taskId, who[i], i < 3 ? _honest() : _liar(9, 1));
        }
        _toReveal(taskId);
        for (uint256 i = 0; i < 4; i++) {
            _reveal(taskId, who[i], i < 3 ? _honest() : _liar(9, 1));
        }
        _toChallenge(taskId);
        World.Plan memory other = World.Plan("other", 0, 0, false);
        address eve = makeAddr("eve");
        vm.deal(eve, 2 ether);
        _challenge(taskId, eve, other);

        // Queue: honest (0, 1, 2), liar (3), other (4).
        uint256 first = verde.pair(taskId);
        assertEq(verde.getMatch(first).indexA, 0);
        assertEq(verde.getMatch(first).indexB, 3);
        // Queue: other (4), honest (1, 2). A is the lower index whatever the order of the claims.
        uint256 second = verde.pair(taskId);
        assertEq(verde.getMatch(second).indexA, 1);
        assertEq(verde.getMatch(second).indexB, 4);
        // The first match's winner joins its claim again, behind participant 2.
        _playOut(first);
        _judge(first);
        assertEq(verde.getClaim(taskId, 1).head, 3);
        assertEq(verde.getClaim(taskId, 1).tail, 1);
        assertEq(verde.getParticipant(taskId, 2).next, 1);
        vm.expectRevert(abi.encodeWithSelector(IVerde.NothingToPair.selector, taskId));
        verde.pair(taskId);
    }

    function test_PairWithOneCheckpointClosesTheLevel() public {
        IVerde.TaskParams memory params = _params();
        params.interval = params.steps;
        uint256 matchId = _paired(params, _honest(), _liar(14, 2));
        IVerde.Match memory game = verde.getMatch(matchId);
        assertEq(game.level, IVerde.Level.Steps);
        assertEq(game.phase, IVerde.Phase.PostA);
        assertEq(game.preState, World.stateRoot(_honest(), 0));
        assertEq(game.rest, 5, "22 steps");
    }

    function test_PairWithOneStepGoesToTheOperators() public {
        IVerde.TaskParams memory params = _params();
        (params.steps, params.interval) = (1, 1);
        uint256 matchId = _paired(params, _honest(), _liar(0, 2));
        IVerde.Match memory game = verde.getMatch(matchId);
        assertEq(game.level, IVerde.Level.Operators);
        assertEq(game.phase, IVerde.Phase.PostA);
        assertEq(game.rest, 4, "12 nodes");
    }

    // ---------------------------------------------------------------- Opening

    function test_OpenPassesTheTurn() public {
        uint256 matchId = _game();
        bytes32[] memory children = _children(matchId);
        vm.warp(block.timestamp + GRACE + 5);
        vm.expectEmit(address(verde));
        emit IVerde.Opened(matchId, children, uint40(block.timestamp));
        vm.prank(anyone);
        verde.open(matchId, children);
        IVerde.Match memory game = verde.getMatch(matchId);
        assertEq(game.phase, IVerde.Phase.Move);
        assertEq(game.turn, IVerde.Side.B);
        assertEq(game.clockA, ALLOWANCE - 5);
        assertEq(game.clockB, ALLOWANCE);
        assertEq(game.since, block.timestamp);
        assertEq(game.verbs, 1);
    }

    function test_OpenRefusals() public {
        uint256 matchId = _game();
        bytes32[] memory children = _children(matchId);
        bytes32[] memory shorter = new bytes32[](3);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 3, 4));
        verde.open(matchId, shorter);
        children[2] = ~children[2];
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        verde.open(matchId, children);
        vm.expectRevert(abi.encodeWithSelector(IVerde.UnknownMatch.selector, 9));
        verde.open(9, children);
    }

    // ---------------------------------------------------------------- Moves

    function test_AdvanceEmitsWhatTheOtherSideNeeds() public {
        uint256 matchId = _game();
        _respond(matchId);
        Move memory move = _move(matchId, 2);
        vm.expectEmit(address(verde));
        emit IVerde.Advanced(
            matchId,
            IVerde.Side.B,
            2,
            uint40(move.index),
            1,
            move.a,
            move.b,
            move.siblings,
            move.children,
            uint40(block.timestamp)
        );
        _send(matchId, move);
        IVerde.Match memory game = verde.getMatch(matchId);
        assertEq(game.turn, IVerde.Side.A);
        assertEq(game.position, 1, "leaves 2 and 3");
        assertEq(game.rest, 1);
        // The children are B's.
        Trees.Tree memory tree = _tree(matchId, IVerde.Side.B);
        assertEq(keccak256(abi.encode(move.children)), keccak256(abi.encode(tree.children(2, 1, 1))));
    }

    function test_AdvanceRefusesOtherDepths() public {
        uint256 matchId = _game();
        // In phase Open only the whole height will do.
        for (uint8 m = 0; m < 3; m++) {
            Move memory move = _move(matchId, m);
            move.m = m;
            vm.expectRevert(abi.encodeWithSelector(IVerde.WrongDepth.selector, m, 3));
            _send(matchId, move);
        }
        _respond(matchId);
        uint8[3] memory depths = [0, 1, 4];
        for (uint256 i = 0; i < 3; i++) {
            Move memory move = _move(matchId, 2);
            move.m = depths[i];
            vm.expectRevert(abi.encodeWithSelector(IVerde.WrongDepth.selector, depths[i], 3));
            _send(matchId, move);
        }
        _advance(matchId, 3);
        assertEq(verde.getMatch(matchId).level, IVerde.Level.Steps);
    }

    function test_AdvanceRefusesFalseProofs() public {
        uint256 matchId = _game();
        _respond(matchId);
        Move memory move = _move(matchId, 2);
        move.b = move.a;
        vm.expectRevert(abi.encodeWithSelector(IVerde.NoDivergence.selector, move.a));
        _send(matchId, move);
        move = _move(matchId, 2);
        move.index += 4;
        vm.expectRevert(abi.encodeWithSelector(IVerde.IndexOutOfRange.selector, move.index, 2));
        _send(matchId, move);
        move = _move(matchId, 2);
        move.siblings[0] = ~move.siblings[0];
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        _send(matchId, move);
        move = _move(matchId, 2);
        move.siblings = new bytes32[](4);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 4, 3));
        _send(matchId, move);
        move = _move(matchId, 2);
        (move.a, move.b) = (move.b, move.a);
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        _send(matchId, move);
    }

    /// A later difference is no first difference: neither side's left sibling serves both trees.
    function test_AdvanceRefusesALaterDivergence() public {
        uint256 matchId = _game();
        _respond(matchId);
        Trees.Tree memory a = _tree(matchId, IVerde.Side.A);
        Trees.Tree memory b = _tree(matchId, IVerde.Side.B);
        Move memory move = _move(matchId, 3);
        assertEq(move.index, 3);
        for (uint256 i = 0; i < 2; i++) {
            move.index = 4;
            (move.a, move.b) = (a.leaf(4), b.leaf(4));
            move.siblings = i == 0 ? a.siblings(b, 0, 0, 3, 4) : b.siblings(a, 0, 0, 3, 4);
            move.pre = IVerde.Opening(a.leaf(3), a.prove(3));
            vm.expectPartialRevert(IVerde.WrongRoot.selector);
            _send(matchId, move);
        }
    }

    function test_AdvanceRefusesFalseChildren() public {
        uint256 matchId = _game();
        _respond(matchId);
        Move memory move = _move(matchId, 2);
        move.children = new bytes32[](4);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 4, 2));
        _send(matchId, move);
        // The other side's children are not the mover's.
        move.children = _tree(matchId, IVerde.Side.A).children(2, 1, 1);
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        _send(matchId, move);
        move = _move(matchId, 3);
        move.children = new bytes32[](1);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 1, 0));
        _send(matchId, move);
        move = _move(matchId, 2);
        move.pre.value = "not here";
        vm.expectRevert(abi.encodeWithSelector(IVerde.UnexpectedOpening.selector, bytes32("not here"), 0));
        _send(matchId, move);
    }

    // ---------------------------------------------------------------- Closing a level

    function test_CloseOpensThePreState() public {
        uint256 matchId = _game();
        Move memory move = _move(matchId, 3);
        assertEq(move.index, 3, "checkpoint 3 is after step 15");
        bytes32 before = World.stateRoot(_honest(), 12);
        vm.expectEmit(address(verde));
        emit IVerde.LevelClosed(
            matchId, IVerde.Level.Checkpoints, 3, before, 12, IVerde.Level.Steps, IVerde.Phase.PostA
        );
        _send(matchId, move);
        IVerde.Match memory game = verde.getMatch(matchId);
        assertEq(game.preState, before);
        assertEq(game.step, 12);
        assertEq(game.rest, 2);
        assertEq(game.position, 0);
        assertEq(game.nodeA, World.stateRoot(_honest(), 16), "the disputed leaves");
        assertEq(game.nodeB, World.stateRoot(_liar(14, 2), 16));
    }

    function test_CloseRefusesAFalsePreState() public {
        uint256 matchId = _game();
        Move memory move = _move(matchId, 3);
        IVerde.Opening memory pre = move.pre;
        move.pre = empty;
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 0, 3));
        _send(matchId, move);
        move.pre = IVerde.Opening(keccak256("wrong"), pre.proof);
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        _send(matchId, move);
        // A true opening of another leaf.
        Trees.Tree memory tree = _tree(matchId, IVerde.Side.A);
        move.pre = IVerde.Opening(tree.leaf(1), tree.prove(1));
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        _send(matchId, move);
    }

    function test_CloseAtLeafZeroKeepsThePreState() public {
        uint256 matchId = _game(_honest(), _liar(0, 2));
        Move memory move = _move(matchId, 3);
        assertEq(move.index, 0);
        move.pre.proof = new bytes32[](1);
        vm.expectRevert(abi.encodeWithSelector(IVerde.UnexpectedOpening.selector, 0, 1));
        _send(matchId, move);
        move.pre = empty;
        _send(matchId, move);
        assertEq(verde.getMatch(matchId).preState, World.stateRoot(_honest(), 0));
    }

    function test_CloseAtTheOperatorsTakesNoOpening() public {
        uint256 matchId = _game();
        _playTo(matchId, IVerde.Level.Operators, IVerde.Phase.Open);
        Move memory move = _move(matchId, 4);
        assertEq(move.index, 2);
        move.pre.value = "not here";
        vm.expectRevert(abi.encodeWithSelector(IVerde.UnexpectedOpening.selector, bytes32("not here"), 0));
        _send(matchId, move);
        move.pre = empty;
        vm.expectEmit(address(verde));
        emit IVerde.LevelClosed(
            matchId,
            IVerde.Level.Operators,
            2,
            World.stateRoot(_honest(), 14),
            14,
            IVerde.Level.Operators,
            IVerde.Phase.Referee
        );
        _send(matchId, move);
    }

    /// The last segment has two steps: its tree is smaller.
    function test_CloseInTheLastSegment() public {
        uint256 matchId = _game(_honest(), _liar(21, 4));
        _playTo(matchId, IVerde.Level.Steps, IVerde.Phase.PostA);
        assertEq(verde.getMatch(matchId).rest, 1);
        _playOut(matchId);
        assertEq(verde.getMatch(matchId).step, 21);
        assertEq(verde.getMatch(matchId).position, 4);
    }

    /// A last segment of one step has no level Steps.
    function test_CloseSkipsASegmentOfOneStep() public {
        IVerde.TaskParams memory params = _params();
        params.steps = 21;
        uint256 matchId = _paired(params, _honest(), _liar(20, 4));
        _playTo(matchId, IVerde.Level.Operators, IVerde.Phase.PostA);
        assertEq(verde.getMatch(matchId).step, 20);
        assertEq(verde.getMatch(matchId).preState, World.stateRoot(_honest(), 20));
        _playOut(matchId);
        assertEq(verde.getMatch(matchId).position, 4);
    }

    // ---------------------------------------------------------------- Padding

    function _padded(bytes32 salt) internal pure returns (World.Plan memory) {
        return World.Plan(salt, 999, 0, true);
    }

    function test_PaddingIsZero() public {
        for (uint256 i = 0; i < 2; i++) {
            bool liarFirst = i == 1;
            uint256 matchId = liarFirst ? _game(_padded(0), _honest()) : _game(_honest(), _padded(0));
            uint256 taskId = verde.getMatch(matchId).taskId;
            Move memory move = _move(matchId, 3);
            assertEq(move.index, 6, "six checkpoints are real");
            move.pre.value = "not here";
            vm.expectRevert(abi.encodeWithSelector(IVerde.UnexpectedOpening.selector, bytes32("not here"), 0));
            _send(matchId, move);
            move.pre = empty;
            vm.expectEmit(address(verde));
            emit IVerde.MatchEnded(
                taskId,
                matchId,
                liarFirst ? IVerde.Outcome.BWins : IVerde.Outcome.AWins,
                IVerde.Reason.Padding,
                0.26 ether,
                1.74 ether,
                uint40(block.timestamp)
            );
            _send(matchId, move);
            assertEq(_standing(taskId, liarFirst ? 0 : 1), IVerde.Standing.Lost);
            vm.warp(START);
        }
    }

    function test_PaddingThatNobodyLeftEmptyLosesBoth() public {
        // Both spoil the same missing leaf, in different ways.
        uint256 taskId = _create();
        Trees.Tree[2] memory claims;
        address[2] memory who = [alice, bob];
        bytes32 finalStateRoot = World.stateRoot(_honest(), 22);
        for (uint256 i = 0; i < 2; i++) {
            claims[i] = World.checkpoints(_padded(0), 22, 4);
            bytes32[] memory leaves = new bytes32[](7);
            for (uint256 k = 0; k < 7; k++) {
                leaves[k] = k < 6 ? claims[i].leaf(k) : keccak256(abi.encode("spoiled", i));
            }
            claims[i] = Trees.build(leaves, 3);
            bytes32 commitment = _commitment(taskId, who[i], claims[i].root(), finalStateRoot);
            vm.prank(who[i]);
            verde.commit{value: 2 ether}(taskId, commitment);
        }
        _toReveal(taskId);
        for (uint256 i = 0; i < 2; i++) {
            vm.prank(who[i]);
            verde.reveal(taskId, claims[i].root(), finalStateRoot, SALT, claims[i].prove(5));
        }
        _toChallenge(taskId);
        uint256 matchId = verde.pair(taskId);
        Move memory move;
        (move.m, move.index) = (3, 6);
        (move.a, move.b) = (claims[0].leaf(6), claims[1].leaf(6));
        move.siblings = claims[0].siblings(claims[1], 0, 0, 3, 6);
        _send(matchId, move);
        assertEq(verde.getMatch(matchId).outcome, IVerde.Outcome.BothLose);
        assertEq(verde.credit(BURN), 4 ether);
        _toSettle(taskId);
        verde.settle(taskId);
        assertEq(verde.getTask(taskId).status, IVerde.Status.Failed);
        assertEq(verde.credit(client), 6 ether);
    }

    // ---------------------------------------------------------------- Posts

    function test_PostIsBoundToItsSide() public {
        uint256 matchId = _game();
        _playTo(matchId, IVerde.Level.Steps, IVerde.Phase.PostA);
        Trees.Tree memory a = _tree(matchId, IVerde.Side.A);
        Trees.Tree memory b = _tree(matchId, IVerde.Side.B);
        bytes32[] memory proofA = a.prove(3);
        bytes32[] memory proofB = b.prove(3);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongSender.selector, bob, alice));
        vm.prank(bob);
        verde.post(matchId, b.root(), proofB, none);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongSender.selector, anyone, alice));
        vm.prank(anyone);
        verde.post(matchId, a.root(), proofA, none);
        // A post must end in the poster's own disputed leaf.
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        vm.prank(alice);
        verde.post(matchId, b.root(), proofB, none);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 0, 2));
        vm.prank(alice);
        verde.post(matchId, a.root(), none, none);
        vm.expectEmit(address(verde));
        emit IVerde.Posted(matchId, IVerde.Side.A, a.root(), none, uint40(block.timestamp));
        vm.prank(alice);
        verde.post(matchId, a.root(), proofA, none);

        IVerde.Match memory game = verde.getMatch(matchId);
        assertEq(game.phase, IVerde.Phase.PostB);
        assertEq(game.turn, IVerde.Side.B);
        assertEq(game.nodeA, a.root());
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongSender.selector, alice, bob));
        vm.prank(alice);
        verde.post(matchId, a.root(), proofA, none);
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        vm.prank(bob);
        verde.post(matchId, a.root(), proofA, none);
        vm.prank(bob);
        verde.post(matchId, b.root(), proofB, none);
        game = verde.getMatch(matchId);
        assertEq(game.phase, IVerde.Phase.Open);
        assertEq(game.turn, IVerde.Side.A);
        assertEq(game.nodeA, a.root());
        assertEq(game.nodeB, b.root());
        assertEq(game.clockA, ALLOWANCE, "a post costs no chess time");
    }

    /// B's children spare the opening: they are its tree's, all of them or none.
    function test_BMayPostItsChildren() public {
        uint256 matchId = _game();
        _playTo(matchId, IVerde.Level.Steps, IVerde.Phase.PostA);
        Trees.Tree memory a = _tree(matchId, IVerde.Side.A);
        Trees.Tree memory b = _tree(matchId, IVerde.Side.B);
        // A's children would tell nobody anything.
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 4, 0));
        vm.prank(alice);
        verde.post(matchId, a.root(), a.prove(3), a.children(0, 0, 2));
        _post(matchId, IVerde.Side.A);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 2, 4));
        vm.prank(bob);
        verde.post(matchId, b.root(), b.prove(3), b.children(0, 0, 1));
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongRoot.selector, a.root(), b.root()));
        vm.prank(bob);
        verde.post(matchId, b.root(), b.prove(3), a.children(0, 0, 2));

        bytes32[] memory children = b.children(0, 0, 2);
        vm.expectEmit(address(verde));
        emit IVerde.Posted(matchId, IVerde.Side.B, b.root(), children, uint40(block.timestamp));
        vm.prank(bob);
        verde.post(matchId, b.root(), b.prove(3), children);
        IVerde.Match memory game = verde.getMatch(matchId);
        assertEq(game.phase, IVerde.Phase.Move);
        assertEq(game.turn, IVerde.Side.A);
        assertEq(game.nodeA, a.root());
        assertEq(game.nodeB, b.root());
        assertEq(game.clockB, ALLOWANCE, "a post costs no chess time");
        // There is nothing left to open.
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongPhase.selector, IVerde.Phase.Move));
        verde.open(matchId, a.children(0, 0, 2));
        _playOut(matchId);
        assertEq(verde.getMatch(matchId).position, 2);
        assertEq(verde.getMatch(matchId).step, 14);
    }

    /// A program with two slots and no compute node has a trace of one leaf: the posts close its level.
    function test_PostOfOneLeafClosesTheLevel() public {
        IVerde.TaskParams memory params = _params();
        params.program.slots = 2;
        params.program.computeNodes = 0;
        params.program.nodes = 1;
        (params.steps, params.interval) = (1, 1);
        uint256 taskId = _create(params);
        bytes32[2] memory roots = [keccak256("a"), keccak256("b")];
        address[2] memory who = [alice, bob];
        for (uint256 i = 0; i < 2; i++) {
            bytes32 commitment = _commitment(taskId, who[i], roots[i], roots[i]);
            vm.prank(who[i]);
            verde.commit{value: 2 ether}(taskId, commitment);
        }
        _toReveal(taskId);
        for (uint256 i = 0; i < 2; i++) {
            vm.prank(who[i]);
            verde.reveal(taskId, roots[i], roots[i], SALT, none);
        }
        _toChallenge(taskId);
        uint256 matchId = verde.pair(taskId);
        for (uint256 i = 0; i < 2; i++) {
            vm.prank(who[i]);
            verde.post(matchId, roots[i], none, none);
            if (i == 1) break;
            // One leaf has no children.
            bytes32[] memory leaf = new bytes32[](1);
            leaf[0] = roots[1];
            vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 1, 0));
            vm.prank(bob);
            verde.post(matchId, roots[1], none, leaf);
        }
        IVerde.Match memory game = verde.getMatch(matchId);
        assertEq(game.phase, IVerde.Phase.HashNode);
        assertEq(game.position, 0);
        assertEq(game.turn, IVerde.Side.A);
    }

    // ---------------------------------------------------------------- Hash nodes

    function test_HashNodeIsJudgedByOneHash() public {
        for (uint256 node = World.COMPUTE; node < World.NODES; node++) {
            vm.warp(START);
            this.judgeHashNode(node, false);
            vm.warp(START);
            this.judgeHashNode(node, true);
        }
    }

    /// @dev A call of its own, since memory is never freed within one.
    function judgeHashNode(uint256 node, bool liarFirst) external {
        World.Plan memory liar = _liar(14, node);
        uint256 matchId = liarFirst ? _game(liar, _honest()) : _game(_honest(), liar);
        _playTo(matchId, IVerde.Level.Operators, IVerde.Phase.HashNode);
        assertEq(verde.getMatch(matchId).position, node);
        uint256 taskId = verde.getMatch(matchId).taskId;
        vm.expectEmit(address(verde));
        emit IVerde.Judged(matchId, Ruling.Root, World.trace(_honest(), 14)[node], uint40(block.timestamp));
        _callHashNode(matchId);
        assertEq(verde.getMatch(matchId).outcome, liarFirst ? IVerde.Outcome.BWins : IVerde.Outcome.AWins);
        assertEq(_standing(taskId, liarFirst ? 0 : 1), IVerde.Standing.Lost);
    }

    /// @dev With the views made first, so that an expectation meets the verb.
    function _callHashNode(uint256 matchId) internal {
        IVerde.Match memory game = verde.getMatch(matchId);
        bytes memory call = _hashNodeCall(matchId, game, _plan(matchId, IVerde.Side.A));
        (bool ok,) = address(verde).call(call);
        assertTrue(ok);
    }

    function _hashNodeCall(uint256 matchId, IVerde.Match memory game, World.Plan memory plan)
        internal
        pure
        returns (bytes memory)
    {
        return abi.encodeCall(
            IVerde.hashNode,
            (
                matchId,
                World.header(),
                World.program(game.position),
                World.nodes().prove(game.position),
                World.openInput(plan, game.step, game.position, 0),
                World.openInput(plan, game.step, game.position, 1)
            )
        );
    }

    function test_HashNodeThatBothGotWrongLosesBoth() public {
        uint256 matchId = _game(_liar(14, 9), World.Plan("another liar", 14, 9, false));
        _playTo(matchId, IVerde.Level.Operators, IVerde.Phase.HashNode);
        _hashNode(matchId);
        assertEq(verde.getMatch(matchId).outcome, IVerde.Outcome.BothLose);
        assertEq(verde.credit(BURN), 4 ether);
    }

    struct HashNodeCall {
        IVerde.ProgramHeader header;
        IVerde.Node node;
        bytes32[] proof;
        IVerde.HashInput left;
        IVerde.HashInput right;
    }

    function _hashNodeArguments(uint256 node) internal pure returns (HashNodeCall memory c) {
        c.header = World.header();
        c.node = World.program(node);
        c.proof = World.nodes().prove(node);
        c.left = World.openInput(_honest(), 14, node, 0);
        c.right = World.openInput(_honest(), 14, node, 1);
    }

    function _refusedHashNode(uint256 matchId, HashNodeCall memory c, bytes memory error_) internal {
        if (error_.length == 4) vm.expectPartialRevert(bytes4(error_));
        else vm.expectRevert(error_);
        verde.hashNode(matchId, c.header, c.node, c.proof, c.left, c.right);
    }

    function test_HashNodeRefusesAnotherProgram() public {
        uint256 matchId = _atHashNode(5);
        HashNodeCall memory c = _hashNodeArguments(5);
        c.header.slotsHash = "other";
        bytes32 computed = keccak256(abi.encode(keccak256("VerdeProgram(RO-1,1)"), c.header));
        bytes32 root = verde.getTask(1).programRoot;
        _refusedHashNode(matchId, c, abi.encodeWithSelector(IVerde.WrongProgram.selector, computed, root));
    }

    function test_HashNodeRefusesAnotherNode() public {
        uint256 matchId = _atHashNode(5);
        HashNodeCall memory c = _hashNodeArguments(5);
        c.node = World.program(6);
        c.proof = World.nodes().prove(6);
        _refusedHashNode(matchId, c, abi.encodePacked(IVerde.WrongRoot.selector));
        c = _hashNodeArguments(5);
        c.node.inputs[0].index = 2;
        _refusedHashNode(matchId, c, abi.encodePacked(IVerde.WrongRoot.selector));
        c = _hashNodeArguments(5);
        c.proof = none;
        _refusedHashNode(matchId, c, abi.encodeWithSelector(IVerde.WrongLength.selector, 0, 4));
    }

    function test_HashNodeRefusesFalseInputs() public {
        uint256 matchId = _atHashNode(5);
        // Node 5 is (node 3, batch 0).
        HashNodeCall memory c = _hashNodeArguments(5);
        c.left.value = ~c.left.value;
        _refusedHashNode(matchId, c, abi.encodePacked(IVerde.WrongRoot.selector));
        c = _hashNodeArguments(5);
        c.left.batchRoot = "not here";
        _refusedHashNode(matchId, c, abi.encodeWithSelector(IVerde.UnexpectedOpening.selector, bytes32("not here"), 0));
        c = _hashNodeArguments(5);
        c.left.batchProof = new bytes32[](2);
        _refusedHashNode(matchId, c, abi.encodeWithSelector(IVerde.UnexpectedOpening.selector, 0, 2));
        c = _hashNodeArguments(5);
        c.right.value = ~c.right.value;
        _refusedHashNode(matchId, c, abi.encodePacked(IVerde.WrongRoot.selector));
        // Another step's batch, truly opened.
        c = _hashNodeArguments(5);
        c.right = World.openInput(_honest(), 15, 5, 1);
        _refusedHashNode(matchId, c, abi.encodePacked(IVerde.WrongRoot.selector));
    }

    function test_HashNodeRefusesFalseStatesConstantsAndZeros() public {
        // Node 6 is (constant 1, state 3), node 7 is (node 4, zero).
        uint256 matchId = _atHashNode(6);
        HashNodeCall memory c = _hashNodeArguments(6);
        c.left.value = World.constants().leaf(0);
        _refusedHashNode(matchId, c, abi.encodePacked(IVerde.WrongRoot.selector));
        c = _hashNodeArguments(6);
        c.right.value = "false";
        _refusedHashNode(matchId, c, abi.encodePacked(IVerde.WrongRoot.selector));
        vm.warp(START);
        matchId = _atHashNode(7);
        c = _hashNodeArguments(7);
        c.right.value = "false";
        _refusedHashNode(matchId, c, abi.encodeWithSelector(IVerde.UnexpectedOpening.selector, bytes32("false"), 0));
        c = _hashNodeArguments(7);
        c.right.proof = new bytes32[](3);
        _refusedHashNode(matchId, c, abi.encodeWithSelector(IVerde.UnexpectedOpening.selector, 0, 3));
    }

    /// A client may commit to a malformed program. Its hash nodes cannot be judged: the side that is due runs out of time.
    function test_HashNodeRefusesMalformedNodes() public {
        uint256 node = 9;
        for (uint256 i = 0; i < 5; i++) {
            vm.warp(START);
            IVerde.Node memory bad = World.program(node);
            bytes memory error_;
            if (i == 0) {
                bad.code = keccak256("RO-1/add/1");
                error_ = abi.encodeWithSelector(IVerde.NotHashNode.selector, bad.code);
            } else if (i == 1) {
                bad.inputs = new IVerde.Input[](3);
                error_ = abi.encodeWithSelector(IVerde.NotHashNode.selector, bad.code);
            } else if (i == 2) {
                (bad.inputs[0].kind, bad.inputs[0].index) = (3, 9);
                error_ = abi.encodeWithSelector(IVerde.InvalidReference.selector, 3, 9);
            } else if (i == 3) {
                (bad.inputs[0].kind, bad.inputs[0].index) = (5, 1);
                error_ = abi.encodeWithSelector(IVerde.InvalidReference.selector, 5, 1);
            } else {
                (bad.inputs[0].kind, bad.inputs[0].index) = (4, 1);
                error_ = abi.encodeWithSelector(IVerde.InvalidReference.selector, 4, 1);
            }
            bytes32[] memory leaves = new bytes32[](World.NODES);
            for (uint256 k = 0; k < World.NODES; k++) {
                leaves[k] = keccak256(abi.encode(k == node ? bad : World.program(k)));
            }
            IVerde.TaskParams memory params = _params();
            params.program.nodesRoot = Trees.build(leaves).root();
            uint256 matchId = _paired(params, _honest(), _liar(14, node));
            _playTo(matchId, IVerde.Level.Operators, IVerde.Phase.HashNode);
            HashNodeCall memory c = _hashNodeArguments(node);
            c.header = params.program;
            c.node = bad;
            c.proof = Trees.build(leaves).prove(node);
            _refusedHashNode(matchId, c, error_);
        }
    }

    // ---------------------------------------------------------------- Verdicts

    function test_JudgeDecides() public {
        uint256 matchId = _atReferee();
        bytes32 truth = _truth(matchId);
        bytes memory evidence = _verdict(matchId, truth, false);
        uint256 verbs = verde.getMatch(matchId).verbs;
        vm.expectEmit(address(verde));
        emit IVerde.Judged(matchId, Ruling.Root, truth, uint40(block.timestamp));
        vm.expectEmit(address(verde));
        emit IVerde.MatchEnded(
            1,
            matchId,
            IVerde.Outcome.AWins,
            IVerde.Reason.Verdict,
            0.25 ether + (verbs + 1) * 0.01 ether,
            1.75 ether - (verbs + 1) * 0.01 ether,
            uint40(block.timestamp)
        );
        verde.judge(matchId, evidence);
        assertEq(verde.credit(alice), 0.25 ether + (verbs + 1) * 0.01 ether);
        assertEq(verde.credit(alice) + verde.credit(BURN), 2 ether);
        assertEq(verde.credit(client), 0);
        assertEq(verde.getTask(1).survivingSeats, 1);
        assertEq(verde.getTask(1).liveMatches, 0);
    }

    function test_JudgeForB() public {
        uint256 matchId = _game(_liar(14, 2), _honest());
        _playOut(matchId);
        _judge(matchId);
        assertEq(verde.getMatch(matchId).outcome, IVerde.Outcome.BWins);
        assertEq(_standing(1, 0), IVerde.Standing.Lost);
    }

    function test_JudgeForNeither() public {
        uint256 matchId = _game(_liar(14, 2), World.Plan("another liar", 14, 2, false));
        _playOut(matchId);
        _judge(matchId);
        assertEq(verde.getMatch(matchId).outcome, IVerde.Outcome.BothLose);
        assertEq(verde.credit(BURN), 4 ether);
        assertEq(_standing(1, 0), IVerde.Standing.Lost);
        assertEq(_standing(1, 1), IVerde.Standing.Lost);
        assertEq(verde.getTask(1).survivingSeats, 0);
    }

    function test_JudgeUnavailable() public {
        uint256 matchId = _atReferee();
        bytes memory evidence = _verdict(matchId, 0, true);
        vm.expectEmit(address(verde));
        emit IVerde.Judged(matchId, Ruling.BothLose, 0, uint40(block.timestamp));
        vm.expectEmit(address(verde));
        emit IVerde.MatchEnded(
            1, matchId, IVerde.Outcome.BothLose, IVerde.Reason.Unavailable, 0, 4 ether, uint40(block.timestamp)
        );
        verde.judge(matchId, evidence);
    }

    /// A ruling names a side, both or none; its verbs are paid like those of the match, but never more than half a bond.
    function test_JudgeTakesTheRuling() public {
        LavishReferee lavish = new LavishReferee();
        IVerde.TaskParams memory params = _params();
        params.referee = lavish;
        uint256 matchId = _paired(params, _honest(), _liar(14, 2));
        _playOut(matchId);
        uint256 verbs = verde.getMatch(matchId).verbs + 1; // with the judgement
        lavish.rule(Ruling.None, 1);
        vm.expectRevert(IVerde.InvalidRuling.selector);
        verde.judge(matchId, "");
        uint256 snapshot = vm.snapshotState();
        lavish.rule(Ruling.BWins, 5);
        verde.judge(matchId, "");
        assertEq(verde.getMatch(matchId).outcome, IVerde.Outcome.BWins);
        assertEq(verde.credit(bob), 0.25 ether + (verbs + 5) * 0.01 ether);
        assertEq(verde.credit(bob) + verde.credit(BURN), 2 ether);
        vm.revertToState(snapshot);
        uint256[3] memory many = [uint256(1 << 12), uint256(1 << 16), type(uint256).max];
        for (uint256 i = 0; i < 3; i++) {
            lavish.rule(Ruling.AWins, many[i]);
            verde.judge(matchId, "");
            assertEq(verde.getMatch(matchId).outcome, IVerde.Outcome.AWins);
            assertEq(verde.credit(alice), 1 ether, "half a bond");
            assertEq(verde.credit(BURN), 1 ether);
            vm.revertToState(snapshot);
        }
        lavish.rule(Ruling.BothLose, 5);
        verde.judge(matchId, "");
        assertEq(verde.credit(BURN), 4 ether);
    }

    function test_JudgeThatRevertsJudgesNothing() public {
        uint256 matchId = _atReferee();
        bytes memory evidence = _verdict(matchId + 1, _truth(matchId), false);
        vm.expectPartialRevert(bytes4(keccak256("NotMember(uint256,address)")));
        verde.judge(matchId, evidence);
        assertEq(verde.getMatch(matchId).phase, IVerde.Phase.Referee);
        _judge(matchId);
    }

    function test_JudgeCannotBeUsedToReenter() public {
        EvilReferee evil = new EvilReferee(verde);
        IVerde.TaskParams memory params = _params();
        params.referee = evil;
        uint256 matchId = _paired(params, _honest(), _liar(14, 2));
        _playOut(matchId);
        evil.answer(0, true);
        vm.expectRevert(bytes("mute"));
        verde.judge(matchId, "");
        evil.answer(_truth(matchId), false);
        vm.warp(block.timestamp + REFEREE - 1);
        verde.judge(matchId, "");
        assertEq(verde.getMatch(matchId).outcome, IVerde.Outcome.AWins);
    }

    /// The question says all that the referee needs.
    function test_JudgeAsksTheQuestion() public {
        uint256 matchId = _atReferee();
        bytes memory evidence = _verdict(matchId, _truth(matchId), false);
        Question memory question = _question(matchId);
        assertEq(question.step, 14);
        assertEq(question.node, 2);
        assertEq(question.preState, World.stateRoot(_honest(), 14));
        assertEq(question.traceRoot, Trees.build(World.trace(_honest(), 14)).root());
        assertEq(question.rootA, World.output(_honest(), 14, 2));
        assertEq(question.rootB, World.output(_liar(14, 2), 14, 2));
        vm.expectCall(address(committee), abi.encodeCall(IReferee.judge, (question, evidence)));
        verde.judge(matchId, evidence);
    }

    // ---------------------------------------------------------------- Phases

    /// In each phase the verbs of the other phases are refused.
    function test_VerbsOfOtherPhasesAreRefused() public {
        uint256 matchId = _game(_honest(), _liar(14, 9));
        uint256 seen = 0;
        for (uint256 i = 0; i < 100; i++) {
            IVerde.Phase phase = verde.getMatch(matchId).phase;
            seen |= 1 << uint256(phase);
            bytes memory error_ = abi.encodeWithSelector(IVerde.WrongPhase.selector, phase);
            if (phase != IVerde.Phase.Open) {
                vm.expectRevert(error_);
                verde.open(matchId, none);
            }
            if (phase != IVerde.Phase.Open && phase != IVerde.Phase.Move) {
                vm.expectRevert(error_);
                verde.advance(matchId, 1, 0, 0, 0, none, none, empty);
            }
            if (phase != IVerde.Phase.PostA && phase != IVerde.Phase.PostB) {
                vm.expectRevert(error_);
                verde.post(matchId, 0, none, none);
            }
            if (phase != IVerde.Phase.HashNode) {
                _refusedHashNode(matchId, _hashNodeArguments(9), error_);
            }
            if (phase != IVerde.Phase.Referee) {
                vm.expectRevert(error_);
                verde.judge(matchId, "");
            }
            if (phase == IVerde.Phase.Done) {
                vm.expectRevert(error_);
                verde.timeout(matchId);
                (uint256 since, uint256 limit) = verde.timeLimit(matchId);
                assertEq(since + limit, 0);
                break;
            }
            _respond(matchId);
        }
        assertEq(seen, 2 + 4 + 8 + 16 + 32 + 128, "all phases but the referee's");
        vm.warp(START);
        matchId = _atReferee();
        bytes memory atReferee = abi.encodeWithSelector(IVerde.WrongPhase.selector, IVerde.Phase.Referee);
        vm.expectRevert(atReferee);
        verde.open(matchId, none);
        vm.expectRevert(atReferee);
        verde.advance(matchId, 1, 0, 0, 0, none, none, empty);
        vm.expectRevert(atReferee);
        verde.post(matchId, 0, none, none);
        _refusedHashNode(matchId, _hashNodeArguments(9), atReferee);
    }

    function test_UnknownMatches() public {
        bytes memory error_ = abi.encodeWithSelector(IVerde.UnknownMatch.selector, 5);
        vm.expectRevert(error_);
        verde.advance(5, 1, 0, 0, 0, none, none, empty);
        vm.expectRevert(error_);
        verde.post(5, 0, none, none);
        _refusedHashNode(5, _hashNodeArguments(9), error_);
        vm.expectRevert(error_);
        verde.judge(5, "");
        vm.expectRevert(error_);
        verde.timeout(5);
    }

    // ---------------------------------------------------------------- Clocks

    /// @dev Whether the due side's response and `timeout` are accepted now.
    function _enabled(uint256 matchId) internal returns (bool responds, bool timesOut) {
        uint256 snapshot = vm.snapshotState();
        (responds,) = address(this).call(abi.encodeCall(this.respond, (matchId)));
        vm.revertToState(snapshot);
        (timesOut,) = address(this).call(abi.encodeCall(this.late, (matchId)));
        vm.revertToState(snapshot);
    }

    function late(uint256 matchId) external {
        _late(matchId);
    }

    function respond(uint256 matchId) external {
        if (verde.getMatch(matchId).phase == IVerde.Phase.Referee) _judge(matchId);
        else _respond(matchId);
    }

    /// In every phase, one second before the limit, at it, and one second after it.
    function test_EveryClockAtItsBoundary() public {
        for (uint256 last = 2; last <= 9; last += 7) {
            vm.warp(START);
            uint256 matchId = _game(_honest(), _liar(14, last));
            for (uint256 i = 0; i < 100 && verde.getMatch(matchId).phase != IVerde.Phase.Done; i++) {
                (uint256 since, uint256 limit) = verde.timeLimit(matchId);
                assertEq(since, block.timestamp);
                IVerde.Match memory game = verde.getMatch(matchId);
                bool posting = game.phase == IVerde.Phase.PostA || game.phase == IVerde.Phase.PostB;
                uint256 clock = game.turn == IVerde.Side.A ? game.clockA : game.clockB;
                assertEq(limit, posting ? BUILD : game.phase == IVerde.Phase.Referee ? REFEREE : clock);
                for (uint256 k = 0; k < 3; k++) {
                    vm.warp(since + limit + k - 1);
                    (bool responds, bool timesOut) = _enabled(matchId);
                    assertEq(responds, k == 0);
                    assertEq(timesOut, k > 0);
                }
                // Now and then a side thinks, so that the limits move.
                vm.warp(since + (i % 3) * GRACE);
                this.respond(matchId);
            }
        }
    }

    function test_LateVerbsAreRefused() public {
        uint256 matchId = _game();
        bytes32[] memory children = _children(matchId);
        vm.warp(block.timestamp + ALLOWANCE);
        bytes memory error_ = abi.encodeWithSelector(IVerde.OutOfTime.selector, ALLOWANCE, ALLOWANCE);
        vm.expectRevert(error_);
        verde.open(matchId, children);
        Move memory move = _move(matchId, 3);
        vm.expectRevert(error_);
        _send(matchId, move);
        vm.warp(START);
        matchId = _game();
        _playTo(matchId, IVerde.Level.Steps, IVerde.Phase.PostA);
        bytes32[] memory proof = _tree(matchId, IVerde.Side.A).prove(3);
        bytes32 root = _tree(matchId, IVerde.Side.A).root();
        vm.warp(block.timestamp + BUILD);
        vm.expectRevert(abi.encodeWithSelector(IVerde.OutOfTime.selector, BUILD, BUILD));
        vm.prank(alice);
        verde.post(matchId, root, proof, none);
        vm.warp(START);
        matchId = _atReferee();
        bytes memory evidence = _verdict(matchId, _truth(matchId), false);
        vm.warp(block.timestamp + REFEREE);
        vm.expectRevert(abi.encodeWithSelector(ICommitteeReferee.TooLate.selector, REFEREE, REFEREE));
        verde.judge(matchId, evidence);
        // Nor does `timeout` end it: the referee says what its silence means.
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongPhase.selector, IVerde.Phase.Referee));
        verde.timeout(matchId);
        vm.warp(START);
        matchId = _atHashNode(9);
        uint256 clock = verde.getMatch(matchId).clockA;
        vm.warp(block.timestamp + clock);
        _refusedHashNode(
            matchId, _hashNodeArguments(9), abi.encodeWithSelector(IVerde.OutOfTime.selector, clock, clock)
        );
    }

    function test_TimeoutLosesForTheDueSide() public {
        uint256 matchId = _game();
        vm.expectRevert(abi.encodeWithSelector(IVerde.InTime.selector, 0, ALLOWANCE));
        verde.timeout(matchId);
        vm.warp(block.timestamp + ALLOWANCE);
        vm.expectEmit(address(verde));
        emit IVerde.MatchEnded(
            1, matchId, IVerde.Outcome.BWins, IVerde.Reason.Timeout, 0.25 ether, 1.75 ether, uint40(block.timestamp)
        );
        verde.timeout(matchId);
        assertEq(verde.credit(bob), 0.25 ether);
        assertEq(verde.credit(BURN), 1.75 ether);
        assertEq(_standing(1, 0), IVerde.Standing.Lost);
        assertEq(_standing(1, 1), IVerde.Standing.Free);
    }

    function test_TimeoutInMoveAndPosts() public {
        uint256 matchId = _game();
        _respond(matchId);
        vm.warp(block.timestamp + ALLOWANCE);
        verde.timeout(matchId);
        assertEq(verde.getMatch(matchId).outcome, IVerde.Outcome.AWins);
        IVerde.Phase[3] memory phases = [IVerde.Phase.PostA, IVerde.Phase.PostB, IVerde.Phase.HashNode];
        for (uint256 i = 0; i < 3; i++) {
            vm.warp(START);
            matchId = _game(_honest(), _liar(14, 9));
            _playTo(matchId, IVerde.Level.Operators, phases[i]);
            vm.warp(block.timestamp + BUILD);
            verde.timeout(matchId);
            assertEq(verde.getMatch(matchId).outcome, i == 1 ? IVerde.Outcome.AWins : IVerde.Outcome.BWins);
        }
    }

    /// A clock is charged past the grace, side by side, and no time comes back.
    function testFuzz_ClocksOnlyFall(uint256 seed) public {
        uint256 matchId = _game(_honest(), _liar(14, 9));
        uint256[2] memory clocks = [uint256(ALLOWANCE), ALLOWANCE];
        for (uint256 i = 0; i < 100; i++) {
            IVerde.Match memory game = verde.getMatch(matchId);
            assertEq(game.clockA, clocks[0]);
            assertEq(game.clockB, clocks[1]);
            if (game.phase == IVerde.Phase.Done) return;
            (, uint256 limit) = verde.timeLimit(matchId);
            uint256 elapsed = uint256(keccak256(abi.encode(seed, i))) % (2 * limit);
            vm.warp(block.timestamp + elapsed);
            if (elapsed >= limit) {
                verde.timeout(matchId);
                bool aLoses = game.turn == IVerde.Side.A;
                assertEq(verde.getMatch(matchId).outcome, aLoses ? IVerde.Outcome.BWins : IVerde.Outcome.AWins);
                return;
            }
            _respond(matchId);
            bool posting = game.phase == IVerde.Phase.PostA || game.phase == IVerde.Phase.PostB;
            if (!posting && elapsed > GRACE) clocks[uint256(game.turn)] -= elapsed - GRACE;
        }
    }

    // ---------------------------------------------------------------- Voiding

    function test_SilenceVoidsTheTask() public {
        IVerde.TaskParams memory params = _params();
        params.seats = 4;
        uint256 taskId = _create(params);
        address[4] memory who = [alice, bob, carol, mallory];
        World.Plan[4] memory plan = [_honest(), _liar(14, 2), _honest(), _liar(14, 2)];
        for (uint256 i = 0; i < 4; i++) {
            _commit(taskId, who[i], plan[i]);
        }
        _toReveal(taskId);
        for (uint256 i = 0; i < 4; i++) {
            _reveal(taskId, who[i], plan[i]);
        }
        _toChallenge(taskId);
        uint256 first = verde.pair(taskId);
        uint256 second = verde.pair(taskId);
        _playOut(first);
        bytes32[] memory children = _children(second);
        vm.warp(block.timestamp + REFEREE);
        vm.expectEmit(address(verde));
        emit IVerde.MatchEnded(taskId, first, IVerde.Outcome.Void, IVerde.Reason.Silence, 0, 0, uint40(block.timestamp));
        vm.expectEmit(address(verde));
        emit IVerde.Voided(taskId, uint40(block.timestamp));
        vm.expectEmit(address(verde));
        emit IVerde.Credited(BURN, 12 ether);
        verde.judge(first, "");

        // No verb is accepted any more, not even in the other match.
        bytes memory error_ = abi.encodeWithSelector(IVerde.WrongStatus.selector, IVerde.Status.Voided);
        vm.expectRevert(error_);
        verde.open(second, children);
        vm.expectRevert(error_);
        verde.timeout(second);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongPhase.selector, IVerde.Phase.Done));
        verde.timeout(first);
        (uint256 since, uint256 limit) = verde.timeLimit(second);
        assertEq(since + limit, 0);
        for (uint256 i = 0; i < 4; i++) {
            verde.collect(taskId, i);
            assertEq(verde.credit(who[i]), 2 ether);
        }
        assertEq(verde.credit(client), 0);
    }
}
