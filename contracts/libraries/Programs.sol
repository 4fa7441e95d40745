// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "../interfaces/IVerde.sol";
import {Merkle} from "./Merkle.sol";

/// @title Hashing of programs, and the judgement of a hash node
/// @notice docs/spec/programs.md and the section on hash nodes of docs/spec/commitments.md.
library Programs {
    bytes32 internal constant PROGRAM_TYPEHASH = keccak256("VerdeProgram(RO-1,1)");
    bytes32 internal constant HASH_CODE = keccak256("RO-1/hash/1");
    uint256 internal constant MAX_NODES = 1 << 20;

    /// Kinds of references.
    uint256 internal constant STATE = 0;
    uint256 internal constant BATCH = 1;
    uint256 internal constant CONSTANT = 2;
    uint256 internal constant NODE = 3;
    uint256 internal constant ZERO = 4;

    /// @notice The agreed roots under which the inputs of a node are opened.
    /// @param traceRoot Root of the step's trace; leaves left of `node` are agreed.
    /// @param node Index of the node whose inputs are meant.
    /// @param preState State root before the step.
    /// @param dataRoot Root of the batches.
    /// @param batchCount Number of batches.
    /// @param step The step.
    struct Context {
        bytes32 traceRoot;
        uint256 node;
        bytes32 preState;
        bytes32 dataRoot;
        uint256 batchCount;
        uint256 step;
    }

    /// @notice The program root.
    function root(IVerde.ProgramHeader calldata header) internal pure returns (bytes32) {
        return keccak256(abi.encode(PROGRAM_TYPEHASH, header));
    }

    /// @notice A node's leaf under nodesRoot.
    function leaf(IVerde.Node calldata node) internal pure returns (bytes32) {
        return keccak256(abi.encode(node));
    }

    /// @notice Height of a tree over slots or batch tensors.
    function tableHeight(uint256 entries) internal pure returns (uint256) {
        uint256 h = Merkle.height(entries);
        return h == 0 ? 1 : h;
    }

    /// @notice Whether the counts of a header fit each other.
    function wellFormed(IVerde.ProgramHeader calldata header) internal pure returns (bool) {
        uint256 hashNodes = (uint256(1) << tableHeight(header.slots)) - 1;
        return header.nodes <= MAX_NODES && header.nodes == header.computeNodes + hashNodes;
    }

    /// @notice Recomputes a hash node from its opened inputs. Reverts unless node `context.node` of `programRoot` is a hash node and both
    /// inputs are what they refer to.
    /// @return outputRoot keccak256(left || right).
    function hashNode(
        bytes32 programRoot,
        Context memory context,
        IVerde.ProgramHeader calldata header,
        IVerde.Node calldata node,
        bytes32[] calldata nodeProof,
        IVerde.HashInput calldata left,
        IVerde.HashInput calldata right
    ) internal pure returns (bytes32 outputRoot) {
        bytes32 computed = root(header);
        if (computed != programRoot) revert IVerde.WrongProgram(computed, programRoot);
        Merkle.verify(header.nodesRoot, leaf(node), context.node, Merkle.height(header.nodes), nodeProof);
        if (node.code != HASH_CODE || node.inputs.length != 2) revert IVerde.NotHashNode(node.code);
        verifyInput(context, header, node.inputs[0], left);
        verifyInput(context, header, node.inputs[1], right);
        return Merkle.hash(left.value, right.value);
    }

    /// @notice Reverts unless `opened` is the root of what `ref` refers to.
    function verifyInput(
        Context memory context,
        IVerde.ProgramHeader calldata header,
        IVerde.Input calldata ref,
        IVerde.HashInput calldata opened
    ) internal pure {
        uint256 kind = ref.kind;
        if (kind == BATCH) {
            Merkle.verify(
                context.dataRoot,
                opened.batchRoot,
                context.step % context.batchCount,
                Merkle.height(context.batchCount),
                opened.batchProof
            );
            Merkle.verify(opened.batchRoot, opened.value, ref.index, tableHeight(header.batchTensors), opened.proof);
            return;
        }
        if (opened.batchRoot != 0 || opened.batchProof.length != 0) {
            revert IVerde.UnexpectedOpening(opened.batchRoot, opened.batchProof.length);
        }
        if (kind == STATE) {
            Merkle.verify(context.preState, opened.value, ref.index, tableHeight(header.slots), opened.proof);
        } else if (kind == CONSTANT) {
            Merkle.verify(header.constantsRoot, opened.value, ref.index, Merkle.height(header.constants), opened.proof);
        } else if (kind == NODE && ref.index < context.node) {
            // SAFETY: a leaf at or right of the node itself is not agreed, and would be A's word alone.
            Merkle.verify(context.traceRoot, opened.value, ref.index, Merkle.height(header.nodes), opened.proof);
        } else if (kind == ZERO && ref.index == 0) {
            if (opened.value != 0 || opened.proof.length != 0) {
                revert IVerde.UnexpectedOpening(opened.value, opened.proof.length);
            }
        } else {
            revert IVerde.InvalidReference(kind, ref.index);
        }
    }
}
