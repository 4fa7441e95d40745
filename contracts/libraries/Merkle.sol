// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "../interfaces/IVerde.sol";

/// @title The tree of docs/spec/commitments.md
/// @notice Ordered pairs, declared heights, missing leaves are zero. A proof's length is never the prover's choice.
library Merkle {
    /// @notice keccak256(left || right).
    function hash(bytes32 left, bytes32 right) internal pure returns (bytes32 node) {
        assembly ("memory-safe") {
            mstore(0x00, left)
            mstore(0x20, right)
            node := keccak256(0x00, 0x40)
        }
    }

    /// @notice Height of the tree over `n` leaves: ceil(log2(max(n, 1))).
    /// @param n At most 2^255.
    function height(uint256 n) internal pure returns (uint256 h) {
        unchecked {
            // First how many bytes, then how many bits.
            while ((uint256(256) << h) < n) h += 8;
            while ((uint256(1) << h) < n) ++h;
        }
    }

    /// @notice Reverts unless `leaf` is leaf `index` of the tree of this height under `root`.
    /// @param proof Siblings, bottom-up.
    function verify(bytes32 root, bytes32 leaf, uint256 index, uint256 height_, bytes32[] calldata proof)
        internal
        pure
    {
        requireLength(proof.length, height_);
        requireIndex(index, height_);
        bytes32 node = leaf;
        assembly ("memory-safe") {
            for { let k := 0 } lt(k, height_) { k := add(k, 1) } {
                // Where the node goes, in the pair at 0: left (0) or right (32).
                let place := shl(5, and(shr(k, index), 1))
                mstore(place, node)
                mstore(xor(place, 0x20), calldataload(add(proof.offset, shl(5, k))))
                node := keccak256(0x00, 0x40)
            }
        }
        requireRoot(node, root);
    }

    /// @notice Reverts unless `nodes` are the 2^m nodes `m` levels below `root`, left to right.
    function verifyChildren(bytes32 root, uint256 m, bytes32[] calldata nodes) internal pure {
        uint256 width = uint256(1) << m;
        requireLength(nodes.length, width);
        bytes32 top;
        assembly ("memory-safe") {
            // The layers are folded in place, in memory beyond the free pointer, which nobody else uses meanwhile.
            let layer := mload(0x40)
            calldatacopy(layer, nodes.offset, shl(5, width))
            for {} gt(width, 1) {} {
                width := shr(1, width)
                for { let i := 0 } lt(i, width) { i := add(i, 1) } {
                    mstore(add(layer, shl(5, i)), keccak256(add(layer, shl(6, i)), 0x40))
                }
            }
            top := mload(layer)
        }
        requireRoot(top, root);
    }

    /// @notice Reverts unless a tree of this height has a leaf `index`.
    function requireIndex(uint256 index, uint256 height_) internal pure {
        if (index >> height_ != 0) revert IVerde.IndexOutOfRange(index, height_);
    }

    /// @notice Reverts unless a list has the one length that it may have.
    function requireLength(uint256 length, uint256 expected) internal pure {
        if (length != expected) revert IVerde.WrongLength(length, expected);
    }

    /// @notice Reverts unless a proof leads where it should.
    function requireRoot(bytes32 computed, bytes32 expected) internal pure {
        if (computed != expected) revert IVerde.WrongRoot(computed, expected);
    }
}
