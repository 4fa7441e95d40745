// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "./interfaces/IVerde.sol";
import {Programs} from "./libraries/Programs.sol";

/// @title Recomputes hash nodes
/// @notice Without state. It takes the arguments of `IVerde.hashNode` as they are, with the agreed roots behind them.
contract HashNodes {
    /// @notice The root of a hash node, from its opened inputs. `HashNodesCall` appends the program root and a Programs.Context to the calldata.
    /// @dev Reverts as `Programs.hashNode`.
    function outputRoot(
        uint256,
        IVerde.ProgramHeader calldata header,
        IVerde.Node calldata node,
        bytes32[] calldata nodeProof,
        IVerde.HashInput calldata left,
        IVerde.HashInput calldata right
    ) external pure returns (bytes32) {
        bytes calldata tail = msg.data[msg.data.length - HashNodesCall.TAIL_BYTES:];
        (bytes32 programRoot, Programs.Context memory context) = abi.decode(tail, (bytes32, Programs.Context));
        return Programs.hashNode(programRoot, context, header, node, nodeProof, left, right);
    }
}

/// @title The call of HashNodes
library HashNodesCall {
    /// @notice The program root and the six words of a context.
    uint256 internal constant TAIL_BYTES = 7 * 32;

    /// @notice Passes the arguments of the current call on, with the agreed roots behind them. Whatever it reverts with is passed on.
    function forward(HashNodes target, bytes32 programRoot, Programs.Context memory context)
        internal
        view
        returns (bytes32 root)
    {
        (bool ok, bytes memory result) = address(target)
            .staticcall(abi.encodePacked(HashNodes.outputRoot.selector, msg.data[4:], abi.encode(programRoot, context)));
        if (!ok) {
            assembly ("memory-safe") {
                revert(add(result, 0x20), mload(result))
            }
        }
        return abi.decode(result, (bytes32));
    }
}
