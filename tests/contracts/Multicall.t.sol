// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IMulticall} from "../../contracts/interfaces/IMulticall.sol";
import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {BaseTest} from "./Base.t.sol";
import {Trees} from "./utils/Trees.sol";
import {World} from "./utils/World.sol";

/// @notice Sends what it was given whenever it is paid.
contract Reentrant {
    IVerde internal verde;
    bytes internal call;
    bytes public answer;

    function arm(IVerde verde_, bytes calldata call_) external {
        (verde, call) = (verde_, call_);
    }

    function send(bytes calldata data, uint256 value) external {
        (bool ok, bytes memory result) = address(verde).call{value: value}(data);
        require(ok, string(result));
    }

    receive() external payable {
        if (call.length == 0) return;
        (, answer) = address(verde).call(call);
    }
}

/// @notice Several verbs in one transaction: a level that is at hand takes one transaction of each side.
contract MulticallTest is BaseTest {
    using Trees for Trees.Tree;

    bytes[] internal calls;

    function _pairCall(uint256 taskId) internal pure returns (bytes memory) {
        return abi.encodeCall(IVerde.pair, (taskId));
    }

    function _moveCall(uint256 matchId, Move memory move) internal pure returns (bytes memory) {
        return abi.encodeCall(
            IVerde.advance, (matchId, move.m, move.index, move.a, move.b, move.siblings, move.children, move.pre)
        );
    }

    function _postCall(uint256 matchId, Trees.Tree memory tree, uint256 last) internal pure returns (bytes memory) {
        return abi.encodeCall(IVerde.post, (matchId, tree.root(), tree.prove(last), new bytes32[](0)));
    }

    /// @dev The move down a whole level, and the trees under which it stands.
    function _whole(Trees.Tree memory a, Trees.Tree memory b, bool pre) internal pure returns (Move memory move) {
        uint256 index = a.firstDifference(b, 0, 0, a.height);
        (move.m, move.index, move.a, move.b) = (uint8(a.height), uint64(index), a.leaf(index), b.leaf(index));
        move.siblings = a.siblings(b, 0, 0, a.height, index);
        if (pre && index > 0) move.pre = IVerde.Opening(a.leaf(index - 1), a.prove(index - 1));
    }

    /// Four transactions to the operator: A pairs, moves and posts; B posts and moves, though A is due; A posts; B posts and moves.
    function test_AMatchInFourTransactions() public {
        (World.Plan memory honest, World.Plan memory liar) = (_honest(), _liar(14, 2));
        uint256 taskId = _revealed(_params(), honest, liar);
        Trees.Tree memory a = World.segment(honest, 22, 4, 12);
        Trees.Tree memory b = World.segment(liar, 22, 4, 12);
        calls = [
            _pairCall(taskId),
            _moveCall(1, _whole(_claimOf(taskId, honest), _claimOf(taskId, liar), true)),
            _postCall(1, a, 3)
        ];
        vm.prank(alice);
        verde.multicall(calls);
        assertEq(verde.getMatch(1).phase, IVerde.Phase.PostB);

        calls = [_postCall(1, b, 3), _moveCall(1, _whole(a, b, true))];
        vm.prank(bob);
        verde.multicall(calls);
        IVerde.Match memory game = verde.getMatch(1);
        assertEq(game.phase, IVerde.Phase.PostA);
        assertEq(game.step, 14);
        assertEq(game.clockA, ALLOWANCE, "B's move for A costs A nothing");

        (a, b) = (Trees.build(World.trace(honest, 14)), Trees.build(World.trace(liar, 14)));
        calls = [_postCall(1, a, 11)];
        vm.prank(alice);
        verde.multicall(calls);
        calls = [_postCall(1, b, 11), _moveCall(1, _whole(a, b, false))];
        vm.prank(bob);
        verde.multicall(calls);
        game = verde.getMatch(1);
        assertEq(game.phase, IVerde.Phase.Referee);
        assertEq(game.position, 2);
        assertEq(game.rootA, a.root());
        assertEq(game.verbs, 7);
    }

    /// A move is forced: whoever sends it, the due side's clock pays, beyond the grace.
    function test_AnyoneMayMoveForTheDueSide() public {
        uint256 matchId = _paired(_params(), _honest(), _liar(14, 2));
        vm.warp(block.timestamp + GRACE + 7);
        Move memory move = _move(matchId, 3);
        vm.prank(bob);
        _send(matchId, move);
        assertEq(verde.getMatch(matchId).clockA, ALLOWANCE - 7);
        assertEq(verde.getMatch(matchId).clockB, ALLOWANCE);
        // A post is its side's own, in a batch too.
        calls = [_postCall(matchId, World.segment(_honest(), 22, 4, 12), 3)];
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongSender.selector, bob, alice));
        vm.prank(bob);
        verde.multicall(calls);
    }

    /// All or nothing, with the first error.
    function test_TheFirstErrorEndsIt() public {
        uint256 taskId = _revealed(_params(), _honest(), _liar(14, 2));
        calls = [_pairCall(taskId), _pairCall(taskId), abi.encodeCall(IVerde.timeout, (9))];
        vm.expectRevert(abi.encodeWithSelector(IVerde.NothingToPair.selector, taskId));
        verde.multicall(calls);
        assertEq(verde.matchCount(), 0);
        calls = [bytes(hex"01020304")];
        vm.expectRevert(bytes(""));
        verde.multicall(calls);
        calls = new bytes[](0);
        verde.multicall(calls);
    }

    /// It carries no ether, so no bond counts twice, and no bond comes out of the others' money.
    function test_PayableVerbsRevert() public {
        uint256 taskId = _create();
        bytes32 commitment = _commitment(taskId, alice, _claimOf(taskId, _honest()).root(), _final(taskId, _honest()));
        calls = [abi.encodeCall(IVerde.commit, (taskId, commitment))];
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongValue.selector, 0, 2 ether));
        vm.prank(alice);
        verde.multicall(calls);
        vm.prank(alice);
        (bool ok,) = address(verde).call{value: 2 ether}(abi.encodeCall(IMulticall.multicall, (calls)));
        assertFalse(ok, "it carries no ether");
        calls = [abi.encodeCall(IVerde.createTask, (_params()))];
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongValue.selector, 0, 6 ether));
        verde.multicall(calls);
        _commit(taskId, alice, _honest());
        _commit(taskId, bob, _liar(14, 2));
        _toChallenge(taskId);
        bytes32 root = _claimOf(taskId, _honest()).root();
        bytes32 last = _final(taskId, _honest());
        calls = [abi.encodeCall(IVerde.challenge, (taskId, root, last, _finalProof(taskId, _honest())))];
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongValue.selector, 0, 2 ether));
        vm.prank(carol);
        verde.multicall(calls);
    }

    /// A batch in a batch is the same batch.
    function test_BatchesNest() public {
        uint256 taskId = _revealed(_params(), _honest(), _liar(14, 2));
        bytes[] memory inner = new bytes[](1);
        inner[0] = _pairCall(taskId);
        calls = [abi.encodeCall(IMulticall.multicall, (inner))];
        verde.multicall(calls);
        assertEq(verde.matchCount(), 1);
    }

    /// Whoever is paid in the middle of a batch finds a whole state: its credit is gone, and it cannot be paid twice.
    function test_ReenteringABatchPaysNobodyTwice() public {
        Reentrant who = new Reentrant();
        vm.deal(address(who), 2 ether);
        uint256 taskId = _create();
        who.arm(verde, "");
        who.send(abi.encodeCall(IVerde.commit, (taskId, keccak256("alone"))), 2 ether);
        _toReveal(taskId);
        verde.expire(taskId);
        bytes memory pay = abi.encodeCall(IVerde.withdraw, (address(who)));
        calls = [abi.encodeCall(IVerde.collect, (taskId, 0)), pay];
        bytes[] memory again = new bytes[](2);
        (again[0], again[1]) = (calls[0], pay);
        who.arm(verde, abi.encodeCall(IMulticall.multicall, (again)));
        uint256 before = address(verde).balance;
        verde.multicall(calls);
        assertEq(address(who).balance, 2 ether);
        assertEq(address(verde).balance, before - 2 ether);
        assertEq(who.answer(), abi.encodeWithSelector(IVerde.NothingDue.selector, taskId, 0));
    }
}
