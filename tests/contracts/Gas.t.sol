// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {BaseTest} from "./Base.t.sol";
import {Trees} from "./utils/Trees.sol";
import {World} from "./utils/World.sol";

/// @notice What each verb costs as a transaction (tests/contracts/snapshots/verbs.json), that nothing grows with the number of challengers, and the code's size.
/// forge-config: default.isolate = true
contract GasTest is BaseTest {
    using Trees for Trees.Tree;

    uint256 internal constant SIZE_LIMIT = 24_576;

    function _snapshot(string memory verb) internal {
        vm.snapshotGasLastCall("verbs", verb);
    }

    function _large() internal view returns (IVerde.TaskParams memory params) {
        params = _params();
        (params.steps, params.interval, params.arityBits) = (256, 16, 4);
    }

    /// One honest provider and one liar, played in moves of arity 16.
    function test_GasOfAMatch() public {
        World.Plan memory liar = _liar(85, 9);
        uint256 taskId = _create(_large());
        _snapshot("createTask");
        _commit(taskId, alice, _honest());
        _snapshot("commit");
        _commit(taskId, bob, liar);
        _toReveal(taskId);
        _reveal(taskId, alice, _honest());
        _snapshot("reveal");
        _reveal(taskId, bob, liar);
        _toChallenge(taskId);
        _challenge(taskId, carol, _honest());
        _snapshot("challenge");
        uint256 matchId = verde.pair(taskId);
        _snapshot("pair");
        string[7] memory names =
            ["", "open, 16 children", "advance, 4 levels, closing", "post by A", "post by B", "hashNode", ""];
        for (uint256 i = 0; i < 50; i++) {
            IVerde.Phase phase = verde.getMatch(matchId).phase;
            if (phase == IVerde.Phase.Done) break;
            _respond(matchId);
            _snapshot(names[uint256(phase)]);
        }
        assertEq(verde.getMatch(matchId).outcome, IVerde.Outcome.AWins);
        _toSettle(taskId);
        verde.settle(taskId);
        _snapshot("settle");
        verde.collect(taskId, 0);
        _snapshot("collect");
        vm.prank(client);
        verde.confirmDelivery(taskId);
        _snapshot("confirmDelivery");
        verde.collectHoldback(taskId, 0);
        _snapshot("collectHoldback");
        verde.withdraw(alice);
        _snapshot("withdraw");
    }

    function test_GasOfAVerdict() public {
        uint256 matchId = _paired(_large(), _honest(), _liar(85, 2));
        _playOut(matchId);
        bytes memory evidence = _verdict(matchId, _truth(matchId), false);
        verde.judge(matchId, evidence);
        _snapshot("judge, 2 of 3");
    }

    function test_GasOfATimeout() public {
        uint256 matchId = _paired(_large(), _honest(), _liar(85, 2));
        vm.warp(block.timestamp + ALLOWANCE);
        verde.timeout(matchId);
        _snapshot("timeout");
    }

    /// @dev A claim of 512 checkpoints, garbage from leaf `first` on.
    function _claim(bytes32 salt, uint256 first) internal pure returns (Trees.Tree memory) {
        bytes32[] memory leaves = new bytes32[](512);
        for (uint256 i = 0; i < 512; i++) {
            leaves[i] = keccak256(abi.encode(i < first ? bytes32(0) : salt, i));
        }
        return Trees.build(leaves);
    }

    /// @dev Alice and Bob play claims that part at leaf 340, which no player needs to have computed.
    function _levelMatch(Trees.Tree memory a, Trees.Tree memory b) internal returns (uint256) {
        IVerde.TaskParams memory params = _params();
        (params.steps, params.interval, params.arityBits) = (512, 1, 4);
        uint256 taskId = _create(params);
        bytes32[2] memory sealed_ =
            [_commitment(taskId, alice, a.root(), a.leaf(511)), _commitment(taskId, bob, b.root(), b.leaf(511))];
        vm.prank(alice);
        verde.commit{value: 2 ether}(taskId, sealed_[0]);
        vm.prank(bob);
        verde.commit{value: 2 ether}(taskId, sealed_[1]);
        _toReveal(taskId);
        vm.prank(alice);
        verde.reveal(taskId, a.root(), a.leaf(511), SALT, a.prove(511));
        vm.prank(bob);
        verde.reveal(taskId, b.root(), b.leaf(511), SALT, b.prove(511));
        _toChallenge(taskId);
        return verde.pair(taskId);
    }

    /// The first move of a level of height 9 in steps of arity 16, and the whole level in one move.
    function test_GasOfALevel() public {
        Trees.Tree memory a = _claim("a", 340);
        Trees.Tree memory b = _claim("b", 340);
        uint256 matchId = _levelMatch(a, b);
        verde.open(matchId, a.children(0, 0, 4));
        Move memory move;
        (move.m, move.index) = (4, 340 >> 5);
        (move.a, move.b) = (a.node(4, 340 >> 5), b.node(4, 340 >> 5));
        move.siblings = a.siblings(b, 0, 0, 4, 340 >> 5);
        move.children = b.children(4, 340 >> 5, 4);
        _send(matchId, move);
        _snapshot("advance, 4 levels, 16 children");

        vm.warp(START);
        matchId = _levelMatch(a, b);
        (move.m, move.index) = (9, 340);
        (move.a, move.b) = (a.leaf(340), b.leaf(340));
        move.siblings = a.siblings(b, 0, 0, 9, 340);
        move.children = new bytes32[](0);
        move.pre = IVerde.Opening(a.leaf(339), a.prove(339));
        _send(matchId, move);
        _snapshot("advance, 9 levels, closing");
    }

    // ---------------------------------------------------------------- Growth

    /// @dev Gas of each verb with `challengers` of two more claims in the queues.
    function _costs(uint256 challengers) internal returns (uint256[8] memory costs) {
        World.Plan memory liar = _liar(14, 9);
        uint256 taskId = _revealed(_params(), _honest(), liar);
        for (uint256 i = 0; i < challengers; i++) {
            address sybil = makeAddr(string.concat("sybil ", vm.toString(i)));
            vm.deal(sybil, 2 ether);
            _challenge(taskId, sybil, i % 2 == 0 ? World.Plan("x", 3, 3, false) : liar);
        }
        costs[0] = _lastGas();
        uint256 matchId = verde.pair(taskId);
        costs[1] = _lastGas();
        _respond(matchId);
        costs[2] = _lastGas();
        _respond(matchId);
        costs[3] = _lastGas();
        _playTo(matchId, IVerde.Level.Steps, IVerde.Phase.PostB);
        costs[4] = _lastGas();
        _playTo(matchId, IVerde.Level.Operators, IVerde.Phase.HashNode);
        _respond(matchId);
        costs[5] = _lastGas();
        matchId = verde.pair(taskId);
        vm.warp(block.timestamp + ALLOWANCE);
        verde.timeout(matchId);
        costs[6] = _lastGas();
        verde.pair(taskId);
        costs[7] = _lastGas();
    }

    function _lastGas() internal view returns (uint256) {
        return vm.lastCallGas().gasTotalUsed;
    }

    /// Challengers are not capped, so no verb may grow dearer with them.
    function test_GasDoesNotGrowWithChallengers() public {
        uint256[8] memory few = _costs(4);
        vm.warp(START);
        uint256[8] memory many = _costs(60);
        for (uint256 i = 0; i < few.length; i++) {
            // A link that is set for the first time costs what a first write costs; a search would cost tens of times that.
            assertLe(many[i], few[i] + 25_000, vm.toString(i));
        }
    }

    function test_CodeSizes() public view {
        assertLe(address(verde).code.length, SIZE_LIMIT);
        assertLe(address(committee).code.length, SIZE_LIMIT);
    }
}
