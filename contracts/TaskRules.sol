// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "./interfaces/IVerde.sol";
import {Merkle} from "./libraries/Merkle.sol";
import {Programs} from "./libraries/Programs.sol";

/// @title What a new task's parameters must be
/// @notice Without state; docs/spec/game.md, section 1. Verde passes the arguments of `createTask` and `maxVerbs` on as they are.
contract TaskRules {
    uint256 private constant MAX_STEPS = 1 << 40;
    uint256 private constant MAX_SEATS = 16;
    uint256 private constant MAX_ARITY_BITS = 6;
    uint256 private constant BPS = 10_000;

    /// @notice Reverts unless the parameters are in their ranges and half a bond covers what a match can cost its loser.
    /// @dev Everything but what needs the new task's storage, the clock or the value sent.
    function check(IVerde.TaskParams calldata params) external view {
        _require(Programs.wellFormed(params.program), "program");
        _require(params.batchCount != 0, "batchCount");
        _require(params.steps != 0 && params.steps <= MAX_STEPS, "steps");
        _require(params.interval != 0 && params.interval <= params.steps, "interval");
        _require(params.seats >= 2 && params.seats <= MAX_SEATS, "seats");
        uint256 named = params.providers.length;
        _require(named == 0 || named == params.seats, "providers");
        _require(params.arityBits != 0 && params.arityBits <= MAX_ARITY_BITS, "arityBits");
        _require(params.reward != 0, "reward");
        _require(params.bond != 0, "bond");
        _require(params.holdbackBps <= BPS, "holdbackBps");
        _require(params.commitWindow != 0, "commitWindow");
        _require(params.revealWindow != 0, "revealWindow");
        _require(params.challengeWindow != 0, "challengeWindow");
        _require(params.buildWindow != 0, "buildWindow");
        _require(params.grace < params.allowance, "grace");
        _require(params.refereeWindow != 0, "refereeWindow");
        _require(params.holdbackBps == 0 || params.deliveryWindow != 0, "deliveryWindow");

        uint256 verbs = maxVerbs(params.steps, params.interval, params.program.nodes, params.arityBits);
        if (address(params.referee).code.length == 0) revert IVerde.RefereeHasNoCode(address(params.referee));
        verbs += params.referee.validate(params.refereeConfig, params.arityBits);
        uint256 needed = 2 * (params.verbFee * verbs + params.bounty);
        if (params.bond < needed) revert IVerde.BondTooSmall(params.bond, needed);
    }

    /// @notice As `IVerde.maxVerbs`.
    function maxVerbs(uint64 steps, uint64 interval, uint32 nodes, uint8 arityBits)
        public
        pure
        returns (uint256 verbs)
    {
        _require(interval != 0, "interval");
        _require(arityBits != 0, "arityBits");
        verbs = _levelVerbs((uint256(steps) + interval - 1) / interval, arityBits);
        if (interval > 1) verbs += 2 + _levelVerbs(interval, arityBits);
        verbs += 2 + _levelVerbs(nodes, arityBits);
        verbs += 1; // the judgement
    }

    /// @dev Verbs of a level of `n` leaves: the opening and the moves.
    function _levelVerbs(uint256 n, uint256 arityBits) private pure returns (uint256) {
        uint256 height = Merkle.height(n);
        return height == 0 ? 0 : 1 + (height + arityBits - 1) / arityBits;
    }

    function _require(bool valid, bytes32 name) private pure {
        if (!valid) revert IVerde.InvalidParameter(name);
    }
}
