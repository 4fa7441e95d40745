// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {BaseTest} from "./Base.t.sol";
import {World} from "./utils/World.sol";

/// @notice Whole matches: wherever a liar leaves the true execution, the match ends exactly there and the liar is out.
contract PlayTest is BaseTest {
    function testFuzz_HonestProviderWinsWhereTheLiarLeft(
        uint256 step,
        uint256 node,
        uint256 interval,
        uint256 arityBits,
        bool liarFirst,
        bool oneShot_,
        bool spareOpening_
    ) public {
        IVerde.TaskParams memory params = _params();
        params.steps = 11;
        params.interval = uint64(bound(interval, 1, 11));
        params.arityBits = uint8(bound(arityBits, 1, 6));
        step = bound(step, 0, 10);
        node = bound(node, 0, World.NODES - 1);
        (oneShot, spareOpening) = (oneShot_, spareOpening_);
        World.Plan memory liar = _liar(step, node);
        uint256 matchId = liarFirst ? _paired(params, liar, _honest()) : _paired(params, _honest(), liar);

        _playOut(matchId);
        IVerde.Match memory game = verde.getMatch(matchId);
        assertEq(game.step, step, "step");
        assertEq(game.position, node, "node");
        assertEq(game.preState, World.stateRoot(_honest(), step), "agreed state");
        if (node < World.COMPUTE) {
            assertEq(game.phase, IVerde.Phase.Referee);
            verde.judge(matchId, _verdict(matchId, _truth(matchId), false));
        }
        game = verde.getMatch(matchId);
        assertEq(game.phase, IVerde.Phase.Done);
        assertEq(game.outcome, liarFirst ? IVerde.Outcome.BWins : IVerde.Outcome.AWins);
        assertEq(_standing(game.taskId, liarFirst ? 0 : 1), IVerde.Standing.Lost);
        assertEq(_standing(game.taskId, liarFirst ? 1 : 0), IVerde.Standing.Free);
        assertLe(game.verbs, verde.maxVerbs(params.steps, params.interval, params.program.nodes, params.arityBits));
    }
}
