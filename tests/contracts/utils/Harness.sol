// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "../../../contracts/interfaces/IVerde.sol";
import {Clock} from "../../../contracts/libraries/Clock.sol";
import {Divergence} from "../../../contracts/libraries/Divergence.sol";
import {Merkle} from "../../../contracts/libraries/Merkle.sol";
import {Programs} from "../../../contracts/libraries/Programs.sol";

/// @notice The libraries' functions as external calls, so that tests can give them calldata and catch what they revert with.
contract Harness {
    function divergence(
        bytes32 nodeA,
        bytes32 nodeB,
        uint256 m,
        uint256 index,
        bytes32 a,
        bytes32 b,
        bytes32[] calldata siblings
    ) external pure {
        Divergence.verify(nodeA, nodeB, m, index, a, b, siblings);
    }

    function verify(bytes32 root, bytes32 leaf, uint256 index, uint256 levels, bytes32[] calldata proof) external pure {
        Merkle.verify(root, leaf, index, levels, proof);
    }

    function verifyChildren(bytes32 root, uint256 m, bytes32[] calldata nodes) external pure {
        Merkle.verifyChildren(root, m, nodes);
    }

    function height(uint256 n) external pure returns (uint256) {
        return Merkle.height(n);
    }

    function hash(bytes32 left, bytes32 right) external pure returns (bytes32) {
        return Merkle.hash(left, right);
    }

    function spend(uint256 clock, uint256 elapsed, uint256 grace) external pure returns (uint40) {
        return Clock.spend(clock, elapsed, grace);
    }

    function requireInTime(uint256 elapsed, uint256 limit) external pure {
        Clock.requireInTime(elapsed, limit);
    }

    function requireOver(uint256 elapsed, uint256 limit) external pure {
        Clock.requireOver(elapsed, limit);
    }

    function programRoot(IVerde.ProgramHeader calldata header) external pure returns (bytes32) {
        return Programs.root(header);
    }

    function nodeLeaf(IVerde.Node calldata node) external pure returns (bytes32) {
        return Programs.leaf(node);
    }

    function heightOfTable(uint256 entries) external pure returns (uint256) {
        return Programs.tableHeight(entries);
    }
}
