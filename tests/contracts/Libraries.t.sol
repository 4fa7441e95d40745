// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {Test} from "forge-std/Test.sol";
import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {Harness} from "./utils/Harness.sol";
import {Trees} from "./utils/Trees.sol";

/// @notice Merkle, Divergence and Clock against naive recomputation.
contract LibrariesTest is Test {
    using Trees for Trees.Tree;

    Harness internal harness = new Harness();

    function _random(uint256 seed, uint256 n) internal pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](n);
        for (uint256 i = 0; i < n; i++) {
            leaves[i] = keccak256(abi.encode(seed, i));
        }
    }

    /// @dev Two trees that first differ at leaf `first`; to its right each leaf differs or not, by the seed.
    function _twoTrees(uint256 seed, uint256 height, uint256 first)
        internal
        pure
        returns (Trees.Tree memory a, Trees.Tree memory b)
    {
        bytes32[] memory leaves = _random(seed, 2 ** height);
        a = Trees.build(leaves, height);
        for (uint256 i = first; i < leaves.length; i++) {
            if (i == first || uint256(keccak256(abi.encode(seed, "differs", i))) % 3 == 0) {
                leaves[i] = keccak256(abi.encode(seed, "other", i));
            }
        }
        b = Trees.build(leaves, height);
    }

    /// @dev Whether the harness accepts the divergence proof.
    function _accepts(Trees.Tree memory a, Trees.Tree memory b, uint256 m, uint256 index, bytes32[] memory siblings)
        internal
        view
        returns (bool ok)
    {
        (ok,) = address(harness)
            .staticcall(
                abi.encodeCall(
                    Harness.divergence, (a.root(), b.root(), m, index, a.node(m, index), b.node(m, index), siblings)
                )
            );
    }

    // ---------------------------------------------------------------- Divergence

    /// Every place at every depth of two trees: accepted iff it is the first difference.
    function test_DivergenceOnlyAtTheFirstDifference() public view {
        for (uint256 height = 1; height <= 8; height++) {
            for (uint256 round = 0; round < 3; round++) {
                uint256 seed = height * 100 + round;
                uint256 first = uint256(keccak256(abi.encode(seed))) % (2 ** height);
                (Trees.Tree memory a, Trees.Tree memory b) = _twoTrees(seed, height, first);
                _everyPlace(a, b, first);
            }
        }
    }

    function _everyPlace(Trees.Tree memory a, Trees.Tree memory b, uint256 first) internal view {
        for (uint256 m = 1; m <= a.height; m++) {
            for (uint256 index = 0; index < 2 ** m; index++) {
                _place(a, b, m, index, index == first >> (a.height - m));
            }
        }
    }

    function _place(Trees.Tree memory a, Trees.Tree memory b, uint256 m, uint256 index, bool expected) internal view {
        bytes32[] memory siblings = a.siblings(b, 0, 0, m, index);
        assertEq(_accepts(a, b, m, index, siblings), expected);
        // Where the left siblings differ a liar may try the other tree's.
        siblings = b.siblings(a, 0, 0, m, index);
        if (!expected) assertFalse(_accepts(a, b, m, index, siblings));
    }

    /// Every leaf of a tree can be the first difference, also the first and the last one.
    function test_DivergenceAtEveryLeaf() public view {
        for (uint256 height = 1; height <= 6; height++) {
            for (uint256 first = 0; first < 2 ** height; first++) {
                (Trees.Tree memory a, Trees.Tree memory b) = _twoTrees(first, height, first);
                _place(a, b, height, first, true);
            }
        }
    }

    /// Whatever the strides, a descent ends at the first differing leaf.
    function testFuzz_DivergenceDescends(uint256 seed, uint256 height, uint256 first, uint256 arityBits) public view {
        height = bound(height, 1, 8);
        first = bound(first, 0, 2 ** height - 1);
        arityBits = bound(arityBits, 1, 6);
        (Trees.Tree memory a, Trees.Tree memory b) = _twoTrees(seed, height, first);
        assertEq(_descend(a, b, arityBits), first);
    }

    function _descend(Trees.Tree memory a, Trees.Tree memory b, uint256 arityBits)
        internal
        view
        returns (uint256 position)
    {
        uint256 depth = 0;
        while (depth < a.height) {
            uint256 m = arityBits < a.height - depth ? arityBits : a.height - depth;
            position = _step(a, b, depth, position, m);
            depth += m;
        }
    }

    function _step(Trees.Tree memory a, Trees.Tree memory b, uint256 depth, uint256 position, uint256 m)
        internal
        view
        returns (uint256 next)
    {
        uint256 index = a.firstDifference(b, depth, position, m);
        next = position * 2 ** m + index;
        bytes32[2] memory heads = [a.node(depth, position), b.node(depth, position)];
        bytes32[2] memory ends = [a.node(depth + m, next), b.node(depth + m, next)];
        bytes32[] memory siblings = a.siblings(b, depth, position, m, index);
        harness.divergence(heads[0], heads[1], m, index, ends[0], ends[1], siblings);
    }

    /// A true proof with one word changed proves nothing.
    function testFuzz_DivergenceRefusesAForgedWord(uint256 seed, uint256 height, uint256 first, uint256 word) public {
        height = bound(height, 1, 8);
        first = bound(first, 0, 2 ** height - 1);
        (Trees.Tree memory a, Trees.Tree memory b) = _twoTrees(seed, height, first);
        bytes32[] memory siblings = a.siblings(b, 0, 0, height, first);
        word = bound(word, 0, siblings.length + 3);
        bytes32[4] memory heads = [a.root(), b.root(), a.leaf(first), b.leaf(first)];
        if (word < 4) heads[word] = keccak256(abi.encode(heads[word]));
        else siblings[word - 4] = keccak256(abi.encode(siblings[word - 4]));
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        harness.divergence(heads[0], heads[1], height, first, heads[2], heads[3], siblings);
    }

    /// Two trees that differ nowhere left of the place, but are swapped: the sides are not interchangeable.
    function test_DivergenceKeepsTheSidesApart() public {
        (Trees.Tree memory a, Trees.Tree memory b) = _twoTrees(5, 4, 9);
        bytes32[] memory siblings = a.siblings(b, 0, 0, 4, 9);
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        harness.divergence(a.root(), b.root(), 4, 9, b.leaf(9), a.leaf(9), siblings);
    }

    function test_DivergenceRefusesEqualNodes() public {
        Trees.Tree memory a = Trees.build(_random(1, 8), 3);
        bytes32[] memory siblings = a.siblings(a, 0, 0, 3, 5);
        vm.expectRevert(abi.encodeWithSelector(IVerde.NoDivergence.selector, a.leaf(5)));
        harness.divergence(a.root(), a.root(), 3, 5, a.leaf(5), a.leaf(5), siblings);
    }

    function test_DivergenceRefusesAnIndexPastTheTree() public {
        (Trees.Tree memory a, Trees.Tree memory b) = _twoTrees(1, 3, 5);
        bytes32[] memory siblings = a.siblings(b, 0, 0, 3, 5);
        vm.expectRevert(abi.encodeWithSelector(IVerde.IndexOutOfRange.selector, 13, 3));
        harness.divergence(a.root(), b.root(), 3, 13, a.leaf(5), b.leaf(5), siblings);
    }

    function test_DivergenceRefusesAWordTooManyOrTooFew() public {
        (Trees.Tree memory a, Trees.Tree memory b) = _twoTrees(1, 3, 5);
        bytes32[] memory siblings = a.siblings(b, 0, 0, 3, 5);
        assertEq(siblings.length, 4, "index 5 goes right, left, right");
        bytes32[] memory longer = new bytes32[](5);
        bytes32[] memory shorter = new bytes32[](3);
        for (uint256 i = 0; i < 4; i++) {
            longer[i] = siblings[i];
            if (i < 3) shorter[i] = siblings[i];
        }
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 5, 4));
        harness.divergence(a.root(), b.root(), 3, 5, a.leaf(5), b.leaf(5), longer);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 3, 4));
        harness.divergence(a.root(), b.root(), 3, 5, a.leaf(5), b.leaf(5), shorter);
    }

    // ---------------------------------------------------------------- Merkle

    function testFuzz_ProofOfEveryLeaf(uint256 seed, uint256 n) public view {
        n = bound(n, 1, 100);
        Trees.Tree memory tree = Trees.build(_random(seed, n));
        for (uint256 i = 0; i < 2 ** tree.height; i++) {
            harness.verify(tree.root(), tree.leaf(i), i, tree.height, tree.prove(i));
        }
    }

    function testFuzz_ProofIsBoundToItsIndex(uint256 seed, uint256 n, uint256 i, uint256 j) public {
        n = bound(n, 2, 100);
        Trees.Tree memory tree = Trees.build(_random(seed, n));
        i = bound(i, 0, n - 1);
        j = bound(j, 0, 2 ** tree.height - 1);
        vm.assume(i != j);
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        harness.verify(tree.root(), tree.leaf(i), j, tree.height, tree.prove(i));
    }

    function testFuzz_ProofRefusesAForgedWord(uint256 seed, uint256 n, uint256 i, uint256 word) public {
        n = bound(n, 2, 100);
        Trees.Tree memory tree = Trees.build(_random(seed, n));
        i = bound(i, 0, n - 1);
        bytes32[] memory proof = tree.prove(i);
        word = bound(word, 0, proof.length);
        bytes32 leaf = tree.leaf(i);
        if (word == proof.length) leaf = ~leaf;
        else proof[word] = ~proof[word];
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        harness.verify(tree.root(), leaf, i, tree.height, proof);
    }

    function test_ProofHasTheTreesHeight() public {
        Trees.Tree memory tree = Trees.build(_random(1, 8));
        bytes32[] memory proof = tree.prove(2);
        // An inner node is no leaf: its proof is one word short.
        bytes32[] memory shorter = new bytes32[](2);
        (shorter[0], shorter[1]) = (proof[1], proof[2]);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 2, 3));
        harness.verify(tree.root(), tree.node(2, 1), 1, 3, shorter);
        vm.expectRevert(abi.encodeWithSelector(IVerde.IndexOutOfRange.selector, 10, 3));
        harness.verify(tree.root(), tree.leaf(2), 10, 3, proof);
    }

    function testFuzz_Children(uint256 seed, uint256 m, uint256 word) public {
        m = bound(m, 0, 6);
        Trees.Tree memory tree = Trees.build(_random(seed, 2 ** m), m);
        bytes32[] memory children = tree.children(0, 0, m);
        harness.verifyChildren(tree.root(), m, children);
        word = bound(word, 0, children.length - 1);
        children[word] = ~children[word];
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        harness.verifyChildren(tree.root(), m, children);
    }

    function test_ChildrenHaveTheirNumber() public {
        Trees.Tree memory tree = Trees.build(_random(1, 8));
        bytes32[] memory children = tree.children(0, 0, 2);
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 4, 8));
        harness.verifyChildren(tree.root(), 3, children);
    }

    function test_Height() public view {
        uint256[9] memory counts = [uint256(0), 1, 2, 3, 4, 5, 8, 9, 1 << 40];
        uint256[9] memory heights = [uint256(0), 0, 1, 2, 2, 3, 3, 4, 40];
        for (uint256 i = 0; i < counts.length; i++) {
            assertEq(harness.height(counts[i]), heights[i]);
        }
        assertEq(harness.height((1 << 40) + 1), 41);
        assertEq(harness.heightOfTable(1), 1);
        assertEq(harness.heightOfTable(5), 3);
    }

    function testFuzz_Height(uint64 n) public view {
        uint256 h = harness.height(n);
        assertGe(2 ** h, n);
        if (h > 0) assertLt(2 ** (h - 1), n);
    }

    // ---------------------------------------------------------------- Clock

    function testFuzz_ClockChargesPastTheGrace(uint40 clock, uint40 elapsed, uint40 grace) public {
        if (elapsed >= clock) {
            vm.expectRevert(abi.encodeWithSelector(IVerde.OutOfTime.selector, elapsed, clock));
            harness.spend(clock, elapsed, grace);
        } else {
            uint256 charge = elapsed > grace ? elapsed - grace : 0;
            uint256 left = harness.spend(clock, elapsed, grace);
            assertEq(left, clock - charge);
            assertGt(left, 0);
        }
    }

    function test_ClockAtItsBoundaries() public {
        assertEq(harness.spend(100, 0, 10), 100);
        assertEq(harness.spend(100, 9, 10), 100);
        assertEq(harness.spend(100, 10, 10), 100);
        assertEq(harness.spend(100, 11, 10), 99);
        assertEq(harness.spend(100, 99, 10), 11);
        vm.expectRevert(abi.encodeWithSelector(IVerde.OutOfTime.selector, 100, 100));
        harness.spend(100, 100, 10);
        vm.expectRevert(abi.encodeWithSelector(IVerde.OutOfTime.selector, 101, 100));
        harness.spend(100, 101, 10);
    }

    function test_LimitsAtTheirBoundary() public {
        harness.requireInTime(9, 10);
        harness.requireOver(10, 10);
        vm.expectRevert(abi.encodeWithSelector(IVerde.InTime.selector, 9, 10));
        harness.requireOver(9, 10);
        vm.expectRevert(abi.encodeWithSelector(IVerde.OutOfTime.selector, 10, 10));
        harness.requireInTime(10, 10);
    }

    /// At every instant exactly one of the two is enabled.
    function testFuzz_InTimeXorOver(uint40 elapsed, uint40 limit) public view {
        (bool inTime,) = address(harness).staticcall(abi.encodeCall(Harness.requireInTime, (elapsed, limit)));
        (bool over,) = address(harness).staticcall(abi.encodeCall(Harness.requireOver, (elapsed, limit)));
        assertEq(inTime, elapsed < limit);
        assertEq(over, !inTime);
    }
}
