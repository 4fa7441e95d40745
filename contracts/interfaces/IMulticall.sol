// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

/// @title Several calls in one transaction
interface IMulticall {
    /// @notice Makes each of `calls` to this contract, in order, as the sender; all of them or none. Carries no ether, so calls that must carry some revert.
    /// @param calls Calldata, each as if it were sent alone.
    /// @dev Reverts with what the first call that reverts gives.
    function multicall(bytes[] calldata calls) external;
}
