// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

/// @notice Whole Merkle trees in memory, written from docs/spec/commitments.md and sharing no code with the contracts.
library Trees {
    /// @dev A heap: nodes[1] is the root, the children of nodes[i] are nodes[2i] and nodes[2i + 1].
    struct Tree {
        uint256 height;
        bytes32[] nodes;
    }

    function heightOf(uint256 n) internal pure returns (uint256 h) {
        while (2 ** h < n) h++;
    }

    function build(bytes32[] memory leaves, uint256 height) internal pure returns (Tree memory tree) {
        tree.height = height;
        tree.nodes = new bytes32[](2 ** (height + 1));
        for (uint256 i = 0; i < leaves.length; i++) {
            tree.nodes[2 ** height + i] = leaves[i];
        }
        for (uint256 i = 2 ** height - 1; i > 0; i--) {
            tree.nodes[i] = keccak256(abi.encodePacked(tree.nodes[2 * i], tree.nodes[2 * i + 1]));
        }
    }

    function build(bytes32[] memory leaves) internal pure returns (Tree memory) {
        return build(leaves, heightOf(leaves.length));
    }

    function root(Tree memory tree) internal pure returns (bytes32) {
        return tree.nodes[1];
    }

    /// @dev Node `index` at `depth` below the root.
    function node(Tree memory tree, uint256 depth, uint256 index) internal pure returns (bytes32) {
        return tree.nodes[2 ** depth + index];
    }

    function leaf(Tree memory tree, uint256 index) internal pure returns (bytes32) {
        return node(tree, tree.height, index);
    }

    function prove(Tree memory tree, uint256 index) internal pure returns (bytes32[] memory proof) {
        proof = new bytes32[](tree.height);
        uint256 place = 2 ** tree.height + index;
        for (uint256 k = 0; k < tree.height; k++) {
            proof[k] = tree.nodes[place ^ 1];
            place /= 2;
        }
    }

    /// @dev The 2^m nodes `m` levels below node `index` at `depth`.
    function children(Tree memory tree, uint256 depth, uint256 index, uint256 m)
        internal
        pure
        returns (bytes32[] memory nodes)
    {
        nodes = new bytes32[](2 ** m);
        for (uint256 i = 0; i < nodes.length; i++) {
            nodes[i] = node(tree, depth + m, index * 2 ** m + i);
        }
    }

    /// @dev First of the 2^m nodes below node `position` at `depth` in which the trees differ.
    function firstDifference(Tree memory a, Tree memory b, uint256 depth, uint256 position, uint256 m)
        internal
        pure
        returns (uint256 index)
    {
        while (node(a, depth + m, position * 2 ** m + index) == node(b, depth + m, position * 2 ** m + index)) {
            index++;
        }
        require(index < 2 ** m, "the trees are equal here");
    }

    /// @dev Siblings of a divergence proof from node `position` at `depth` to its `index`-th node `m` levels below.
    function siblings(Tree memory a, Tree memory b, uint256 depth, uint256 position, uint256 m, uint256 index)
        internal
        pure
        returns (bytes32[] memory words)
    {
        uint256 count = 0;
        for (uint256 k = 0; k < m; k++) {
            count += (index / 2 ** k) % 2 == 1 ? 1 : 2;
        }
        words = new bytes32[](count);
        count = 0;
        uint256 place = position * 2 ** m + index;
        for (uint256 k = 0; k < m; k++) {
            uint256 level = depth + m - k;
            if (place % 2 == 1) {
                words[count++] = node(a, level, place - 1);
            } else {
                words[count++] = node(a, level, place + 1);
                words[count++] = node(b, level, place + 1);
            }
            place /= 2;
        }
    }
}
