// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {BaseTest} from "./Base.t.sol";

/// @notice An ended match leaves its storage to the eighth match after it; a live one does not.
contract PlacesTest is BaseTest {
    function _pairMore(uint256 count) internal returns (uint256 matchId) {
        for (uint256 i = 0; i < count; i++) {
            matchId = _paired(_params(), _honest(), _liar(3, 2));
        }
    }

    /// @dev All that does not depend on when the match was paired, and is not left for a later phase to set.
    function _start(uint256 matchId) internal view returns (bytes32) {
        IVerde.Match memory game = verde.getMatch(matchId);
        assertEq(game.matchId, matchId);
        (game.matchId, game.taskId, game.since, game.rootA, game.preState) = (0, 0, 0, 0, 0);
        return keccak256(abi.encode(game));
    }

    function test_AnEndedMatchLeavesItsPlace() public {
        uint256 first = _pairMore(1);
        _playOut(first);
        verde.judge(first, _verdict(first, _truth(first), false));
        uint256 other = _pairMore(7);
        assertEq(verde.getMatch(first).phase, IVerde.Phase.Done);
        uint256 heir = _pairMore(1);
        assertEq(heir, first + 8);
        assertEq(verde.getMatch(first).phase, IVerde.Phase.None);
        vm.expectRevert(abi.encodeWithSelector(IVerde.UnknownMatch.selector, first));
        verde.timeout(first);
        assertEq(_start(heir), _start(other), "begins as in a place of its own");
        _playOut(heir);
        verde.judge(heir, _verdict(heir, _truth(heir), false));
        assertEq(verde.getMatch(heir).outcome, IVerde.Outcome.AWins);
    }

    function test_ALiveMatchKeepsItsPlace() public {
        uint256 first = _pairMore(1);
        bytes32 begun = keccak256(abi.encode(verde.getMatch(first)));
        uint256 late = _pairMore(8);
        assertEq(late, first + 8);
        assertEq(keccak256(abi.encode(verde.getMatch(first))), begun, "untouched");
        assertEq(_start(late), _start(first));
        _playOut(late);
        verde.judge(late, _verdict(late, _truth(late), false));
        assertEq(verde.getMatch(late).outcome, IVerde.Outcome.AWins);
        verde.timeout(first);
        assertEq(verde.getMatch(first).outcome, IVerde.Outcome.BWins);
        // Ended in a place of its own: nobody takes it.
        assertEq(verde.getMatch(_pairMore(8)).phase, IVerde.Phase.Open);
        assertEq(verde.getMatch(late).phase, IVerde.Phase.Done);
    }

    /// Match 8 has the first place, and no match has the number 0.
    function test_NoMatchIsZero() public {
        uint256 last = _pairMore(8);
        assertEq(last, 8);
        vm.expectRevert(abi.encodeWithSelector(IVerde.UnknownMatch.selector, 0));
        verde.timeout(0);
    }
}
