// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "../interfaces/IVerde.sol";
import {Merkle} from "./Merkle.sol";

/// @title The first-divergence proof
/// @notice One list of siblings proves three things of two trees: that `a` lies in the first, that `b` lies in the second at the same place, and
/// that everything to the left of them is equal, since a left sibling is given once and used for both.
library Divergence {
    /// @notice Reverts unless `a` and `b` are the first two nodes that differ, `m` levels below `nodeA` and `nodeB`.
    /// @param index Which of the 2^m nodes.
    /// @param siblings Bottom-up. Where a bit of `index` is 1: the left sibling. Where it is 0: A's right sibling, then B's.
    function verify(
        bytes32 nodeA,
        bytes32 nodeB,
        uint256 m,
        uint256 index,
        bytes32 a,
        bytes32 b,
        bytes32[] calldata siblings
    ) internal pure {
        if (a == b) revert IVerde.NoDivergence(a);
        Merkle.requireIndex(index, m);
        uint256 words;
        assembly ("memory-safe") {
            let next := siblings.offset
            for { let k := 0 } lt(k, m) { k := add(k, 1) } {
                switch and(shr(k, index), 1)
                case 1 {
                    mstore(0x00, calldataload(next))
                    mstore(0x20, a)
                    a := keccak256(0x00, 0x40)
                    mstore(0x20, b)
                    b := keccak256(0x00, 0x40)
                    next := add(next, 0x20)
                }
                default {
                    mstore(0x00, a)
                    mstore(0x20, calldataload(next))
                    a := keccak256(0x00, 0x40)
                    mstore(0x00, b)
                    mstore(0x20, calldataload(add(next, 0x20)))
                    b := keccak256(0x00, 0x40)
                    next := add(next, 0x40)
                }
            }
            words := shr(5, sub(next, siblings.offset))
        }
        // What was read past a list that is too short counts for nothing.
        Merkle.requireLength(siblings.length, words);
        Merkle.requireRoot(a, nodeA);
        Merkle.requireRoot(b, nodeB);
    }
}
