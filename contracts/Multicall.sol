// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IMulticall} from "./interfaces/IMulticall.sol";

/// @title Several calls in one transaction
abstract contract Multicall is IMulticall {
    /// @inheritdoc IMulticall
    /// @dev SAFETY: it is not payable, so `msg.value` is 0 in every call, and no bond counts twice. `msg.sender` stays who it is. Between two calls
    /// nothing is left undone: each is a whole verb.
    function multicall(bytes[] calldata calls) external {
        for (uint256 i; i < calls.length; ++i) {
            (bool ok, bytes memory result) = address(this).delegatecall(calls[i]);
            if (!ok) {
                assembly ("memory-safe") {
                    revert(add(result, 0x20), mload(result))
                }
            }
        }
    }
}
