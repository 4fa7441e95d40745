// SPDX-License-Identifier: MIT
pragma solidity ^0.8.37;

import {Test} from "forge-std/Test.sol";
import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {Harness} from "./utils/Harness.sol";
import {Trees} from "./utils/Trees.sol";

/// @notice The vectors that C++, Python and Solidity share: tests/vectors/commitments.json and programs.json.
contract VectorsTest is Test {
    using Trees for Trees.Tree;

    Harness internal harness = new Harness();
    string internal commitments = vm.readFile("tests/vectors/commitments.json");
    string internal programs = vm.readFile("tests/vectors/programs.json");

    function _slice(bytes32[] memory flat, uint256 offset, uint256 count)
        internal
        pure
        returns (bytes32[] memory part)
    {
        part = new bytes32[](count);
        for (uint256 i = 0; i < count; i++) {
            part[i] = flat[offset + i];
        }
    }

    function _words(string memory key) internal view returns (bytes32[] memory) {
        return vm.parseJsonBytes32Array(commitments, key);
    }

    function _numbers(string memory key) internal view returns (uint256[] memory) {
        return vm.parseJsonUintArray(commitments, key);
    }

    function test_Zeros() public view {
        bytes32[] memory zeros = _words(".zeros");
        assertEq(zeros[0], bytes32(0));
        assertEq(zeros.length, 65);
        for (uint256 k = 1; k < zeros.length; k++) {
            assertEq(harness.hash(zeros[k - 1], zeros[k - 1]), zeros[k]);
        }
    }

    function test_TensorRoots() public view {
        bytes[] memory data = vm.parseJsonBytesArray(commitments, ".tensor.data");
        bytes32[] memory roots = _words(".tensor.root");
        uint256[] memory heights = _numbers(".tensor.height");
        assertGt(roots.length, 0);
        for (uint256 i = 0; i < roots.length; i++) {
            uint256 n = (data[i].length + 1023) / 1024;
            bytes32[] memory leaves = new bytes32[](n);
            for (uint256 j = 0; j < n; j++) {
                bytes memory tile = new bytes(1024);
                for (uint256 k = 0; k < 1024 && j * 1024 + k < data[i].length; k++) {
                    tile[k] = data[i][j * 1024 + k];
                }
                leaves[j] = keccak256(tile);
            }
            assertEq(harness.height(n), heights[i]);
            if (heights[i] <= 6) {
                Trees.Tree memory tree = Trees.build(leaves);
                assertEq(tree.root(), roots[i]);
                harness.verifyChildren(roots[i], heights[i], tree.children(0, 0, heights[i]));
            }
        }
    }

    function test_Trees() public view {
        bytes32[] memory roots = _words(".tree.root");
        bytes32[] memory leaves = _words(".tree.leaves");
        uint256[] memory heights = _numbers(".tree.height");
        uint256[] memory offsets = _numbers(".tree.offset");
        uint256[] memory counts = _numbers(".tree.count");
        assertGt(roots.length, 0);
        for (uint256 i = 0; i < roots.length; i++) {
            Trees.Tree memory tree = Trees.build(_slice(leaves, offsets[i], counts[i]), heights[i]);
            harness.verifyChildren(roots[i], heights[i], tree.children(0, 0, heights[i]));
            uint256 last = 2 ** heights[i] - 1;
            harness.verify(roots[i], tree.leaf(last), last, heights[i], tree.prove(last));
        }
    }

    function test_Proofs() public view {
        bytes32[] memory roots = _words(".proof.root");
        bytes32[] memory leaves = _words(".proof.leaf");
        bytes32[] memory siblings = _words(".proof.siblings");
        uint256[] memory heights = _numbers(".proof.height");
        uint256[] memory indices = _numbers(".proof.index");
        uint256[] memory offsets = _numbers(".proof.offset");
        uint256[] memory counts = _numbers(".proof.count");
        bool[] memory valid = vm.parseJsonBoolArray(commitments, ".proof.valid");
        uint256 good = 0;
        for (uint256 i = 0; i < roots.length; i++) {
            (bool ok,) = address(harness)
                .staticcall(
                    abi.encodeCall(
                        Harness.verify,
                        (roots[i], leaves[i], indices[i], heights[i], _slice(siblings, offsets[i], counts[i]))
                    )
                );
            assertEq(ok, valid[i], vm.toString(i));
            if (ok) good++;
        }
        assertGt(good, 0);
        assertLt(good, roots.length);
    }

    function test_Structures() public view {
        bytes32[] memory roots = _words(".structure.root");
        bytes32[] memory leaves = _words(".structure.roots");
        uint256[] memory heights = _numbers(".structure.height");
        uint256[] memory offsets = _numbers(".structure.offset");
        uint256[] memory counts = _numbers(".structure.count");
        string[] memory kinds = vm.parseJsonStringArray(commitments, ".structure.kind");
        assertGt(roots.length, 0);
        for (uint256 i = 0; i < roots.length; i++) {
            bytes32 kind = keccak256(bytes(kinds[i]));
            bool table = kind == keccak256("state") || kind == keccak256("batch");
            assertEq(table ? harness.tableHeight(counts[i]) : harness.height(counts[i]), heights[i], kinds[i]);
            Trees.Tree memory tree = Trees.build(_slice(leaves, offsets[i], counts[i]), heights[i]);
            harness.verifyChildren(roots[i], heights[i], tree.children(0, 0, heights[i]));
        }
    }

    function test_Divergences() public view {
        bytes32[] memory nodesA = _words(".divergence.nodeA");
        bytes32[] memory nodesB = _words(".divergence.nodeB");
        bytes32[] memory as_ = _words(".divergence.a");
        bytes32[] memory bs = _words(".divergence.b");
        bytes32[] memory siblings = _words(".divergence.siblings");
        uint256[] memory ms = _numbers(".divergence.m");
        uint256[] memory indices = _numbers(".divergence.index");
        uint256[] memory offsets = _numbers(".divergence.offset");
        uint256[] memory counts = _numbers(".divergence.count");
        bool[] memory valid = vm.parseJsonBoolArray(commitments, ".divergence.valid");
        uint256 good = 0;
        for (uint256 i = 0; i < nodesA.length; i++) {
            bytes32[] memory words = _slice(siblings, offsets[i], counts[i]);
            (bool ok,) = address(harness)
                .staticcall(
                    abi.encodeCall(Harness.divergence, (nodesA[i], nodesB[i], ms[i], indices[i], as_[i], bs[i], words))
                );
            assertEq(ok, valid[i], vm.toString(i));
            if (ok) good++;
        }
        assertGt(good, 0);
        assertLt(good, nodesA.length);
    }

    // ---------------------------------------------------------------- Programs

    function _nodes(string memory encodings, string memory leaves) internal view {
        bytes[] memory encoded = vm.parseJsonBytesArray(programs, encodings);
        bytes32[] memory expected = vm.parseJsonBytes32Array(programs, leaves);
        assertGt(encoded.length, 0);
        for (uint256 i = 0; i < encoded.length; i++) {
            IVerde.Node memory node = abi.decode(encoded[i], (IVerde.Node));
            assertEq(abi.encode(node), encoded[i], "encoding");
            assertEq(harness.nodeLeaf(node), expected[i], "leaf");
        }
    }

    function test_NodeLeaves() public view {
        _nodes(".nodeEncodings", ".nodeLeaves");
        _nodes(".hashNodeEncodings", ".hashNodeLeaves");
    }

    function test_HashNodesAreWhatTheContractTakesForThem() public view {
        bytes[] memory encoded = vm.parseJsonBytesArray(programs, ".hashNodeEncodings");
        for (uint256 i = 0; i < encoded.length; i++) {
            IVerde.Node memory node = abi.decode(encoded[i], (IVerde.Node));
            assertEq(node.code, keccak256("RO-1/hash/1"));
            assertEq(node.inputs.length, 2);
        }
    }

    function test_ProgramRoots() public view {
        bytes[] memory encoded = vm.parseJsonBytesArray(programs, ".headerEncodings");
        bytes32[] memory roots = vm.parseJsonBytes32Array(programs, ".programRoots");
        assertGt(encoded.length, 0);
        for (uint256 i = 0; i < encoded.length; i++) {
            IVerde.ProgramHeader memory header = abi.decode(encoded[i], (IVerde.ProgramHeader));
            assertEq(harness.programRoot(header), roots[i], "program root");
            bytes32[] memory leaves =
                vm.parseJsonBytes32Array(programs, string.concat(".leavesOfProgram", vm.toString(i)));
            assertEq(leaves.length, header.nodes, "nodes");
            assertEq(Trees.build(leaves).root(), header.nodesRoot, "nodes root");
        }
    }
}
