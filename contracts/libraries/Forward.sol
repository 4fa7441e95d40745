// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

/// @title The current call, passed on
/// @notice To a contract without state that holds a part of the code, because a contract's size is limited.
library Forward {
    /// @notice Calls `selector` of `target` with the arguments of the current call as they are, and `tail` behind them. What it reverts with is passed on.
    /// @return result What it returns, ABI-encoded.
    function call(address target, bytes4 selector, bytes memory tail) internal view returns (bytes memory result) {
        bool ok;
        (ok, result) = target.staticcall(abi.encodePacked(selector, msg.data[4:], tail));
        if (!ok) {
            assembly ("memory-safe") {
                revert(add(result, 0x20), mload(result))
            }
        }
    }
}
