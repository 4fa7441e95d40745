// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "../interfaces/IVerde.sol";

/// @title Deadlines, time limits and the chess clock
/// @notice Every limit is exclusive: `elapsed < limit` counts, and from `elapsed == limit` on the other class of call is enabled, never both.
library Clock {
    /// @notice Reverts from the instant `deadline` on.
    function requireBefore(uint256 deadline) internal view {
        if (block.timestamp >= deadline) revert IVerde.TooLate(block.timestamp, deadline);
    }

    /// @notice Reverts before the instant `opens`.
    function requireFrom(uint256 opens) internal view {
        if (block.timestamp < opens) revert IVerde.TooEarly(block.timestamp, opens);
    }

    /// @notice Reverts unless there is time left.
    function requireInTime(uint256 elapsed, uint256 limit) internal pure {
        if (elapsed >= limit) revert IVerde.OutOfTime(elapsed, limit);
    }

    /// @notice Reverts unless the time is over.
    function requireOver(uint256 elapsed, uint256 limit) internal pure {
        if (elapsed < limit) revert IVerde.InTime(elapsed, limit);
    }

    /// @notice Charges a response: the first `grace` seconds are free, there are no increments.
    /// @param clock Time left before the response.
    /// @return Time left after it, never 0.
    function spend(uint256 clock, uint256 elapsed, uint256 grace) internal pure returns (uint40) {
        requireInTime(elapsed, clock);
        unchecked {
            // SAFETY: the charge is at most `elapsed`, which is less than `clock`, and a clock is a uint40.
            return uint40(elapsed > grace ? clock - (elapsed - grace) : clock);
        }
    }
}
