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
        Merkle.requireLength(siblings.length, wordCount(m, index));
        uint256 next;
        unchecked {
            for (uint256 k; k < m; ++k) {
                if ((index >> k) & 1 == 1) {
                    bytes32 left = siblings[next++];
                    a = Merkle.hash(left, a);
                    b = Merkle.hash(left, b);
                } else {
                    a = Merkle.hash(a, siblings[next++]);
                    b = Merkle.hash(b, siblings[next++]);
                }
            }
        }
        Merkle.requireRoot(a, nodeA);
        Merkle.requireRoot(b, nodeB);
    }

    /// @notice Siblings in a proof: one for each set bit of `index`, two for each of the other bits.
    function wordCount(uint256 m, uint256 index) internal pure returns (uint256 words) {
        unchecked {
            for (uint256 k; k < m; ++k) {
                words += 2 - ((index >> k) & 1);
            }
        }
    }
}
