// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "./interfaces/IVerde.sol";
import {Programs} from "./libraries/Programs.sol";

/// @title Recomputes hash nodes
/// @notice Without state. It takes the arguments of `IVerde.hashNode` as they are, with the agreed roots behind them.
contract HashNodes {
    /// @notice The program root and the six words of a context.
    uint256 private constant TAIL_BYTES = 7 * 32;

    /// @notice The root of a hash node, from its opened inputs. Behind the arguments the calldata holds the program root and a Programs.Context.
    /// @dev Reverts as `Programs.hashNode`.
    function outputRoot(
        uint256,
        IVerde.ProgramHeader calldata header,
        IVerde.Node calldata node,
        bytes32[] calldata nodeProof,
        IVerde.HashInput calldata left,
        IVerde.HashInput calldata right
    ) external pure returns (bytes32) {
        bytes calldata tail = msg.data[msg.data.length - TAIL_BYTES:];
        (bytes32 programRoot, Programs.Context memory context) = abi.decode(tail, (bytes32, Programs.Context));
        return Programs.hashNode(programRoot, context, header, node, nodeProof, left, right);
    }
}
