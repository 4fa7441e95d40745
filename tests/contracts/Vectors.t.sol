// SPDX-License-Identifier: Apache-2.0
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

    /// @dev The ragged column `name` of a table: case `i` owns `count[i]` words from `offset[i]` on.
    struct Ragged {
        bytes32[] words;
        uint256[] offsets;
        uint256[] counts;
    }

    function _ragged(string memory table, string memory name) internal view returns (Ragged memory) {
        return Ragged(
            _words(string.concat(table, name)),
            _numbers(string.concat(table, ".offset")),
            _numbers(string.concat(table, ".count"))
        );
    }

    function _case(Ragged memory ragged, uint256 i) internal pure returns (bytes32[] memory part) {
        part = new bytes32[](ragged.counts[i]);
        for (uint256 k = 0; k < part.length; k++) {
            part[k] = ragged.words[ragged.offsets[i] + k];
        }
    }

    function _tensor(bytes memory data) internal pure returns (Trees.Tree memory) {
        bytes32[] memory leaves = new bytes32[]((data.length + 1023) / 1024);
        for (uint256 j = 0; j < leaves.length; j++) {
            bytes memory tile = new bytes(1024);
            for (uint256 k = 0; k < 1024 && j * 1024 + k < data.length; k++) {
                tile[k] = data[j * 1024 + k];
            }
            leaves[j] = keccak256(tile);
        }
        return Trees.build(leaves);
    }

    function test_TensorRoots() public view {
        bytes[] memory data = vm.parseJsonBytesArray(commitments, ".tensor.data");
        bytes32[] memory roots = _words(".tensor.root");
        uint256[] memory heights = _numbers(".tensor.height");
        assertGt(roots.length, 0);
        for (uint256 i = 0; i < roots.length; i++) {
            Trees.Tree memory tree = _tensor(data[i]);
            assertEq(tree.root(), roots[i]);
            assertEq(tree.height, heights[i]);
            assertEq(harness.height((data[i].length + 1023) / 1024), heights[i]);
            harness.verifyChildren(roots[i], heights[i], tree.children(0, 0, heights[i]));
        }
    }

    function test_Trees() public view {
        bytes32[] memory roots = _words(".tree.root");
        uint256[] memory heights = _numbers(".tree.height");
        Ragged memory leaves = _ragged(".tree", ".leaves");
        assertGt(roots.length, 0);
        for (uint256 i = 0; i < roots.length; i++) {
            Trees.Tree memory tree = Trees.build(_case(leaves, i), heights[i]);
            harness.verifyChildren(roots[i], heights[i], tree.children(0, 0, heights[i]));
            uint256 last = 2 ** heights[i] - 1;
            harness.verify(roots[i], tree.leaf(last), last, heights[i], tree.prove(last));
        }
    }

    struct Proofs {
        bytes32[] roots;
        bytes32[] leaves;
        uint256[] heights;
        uint256[] indices;
        bool[] valid;
        Ragged siblings;
    }

    function test_Proofs() public view {
        Proofs memory t = Proofs(
            _words(".proof.root"),
            _words(".proof.leaf"),
            _numbers(".proof.height"),
            _numbers(".proof.index"),
            vm.parseJsonBoolArray(commitments, ".proof.valid"),
            _ragged(".proof", ".siblings")
        );
        uint256 good = 0;
        for (uint256 i = 0; i < t.roots.length; i++) {
            bytes memory call = abi.encodeCall(
                Harness.verify, (t.roots[i], t.leaves[i], t.indices[i], t.heights[i], _case(t.siblings, i))
            );
            (bool ok,) = address(harness).staticcall(call);
            assertEq(ok, t.valid[i], vm.toString(i));
            if (ok) good++;
        }
        assertGt(good, 0);
        assertLt(good, t.roots.length);
    }

    function test_Structures() public view {
        bytes32[] memory roots = _words(".structure.root");
        uint256[] memory heights = _numbers(".structure.height");
        string[] memory kinds = vm.parseJsonStringArray(commitments, ".structure.kind");
        Ragged memory leaves = _ragged(".structure", ".roots");
        assertGt(roots.length, 0);
        for (uint256 i = 0; i < roots.length; i++) {
            bytes32 kind = keccak256(bytes(kinds[i]));
            bool table = kind == keccak256("state") || kind == keccak256("batch");
            uint256 n = leaves.counts[i];
            assertEq(table ? harness.heightOfTable(n) : harness.height(n), heights[i], kinds[i]);
            Trees.Tree memory tree = Trees.build(_case(leaves, i), heights[i]);
            harness.verifyChildren(roots[i], heights[i], tree.children(0, 0, heights[i]));
        }
    }

    struct Divergences {
        bytes32[] nodesA;
        bytes32[] nodesB;
        uint256[] ms;
        uint256[] indices;
        bytes32[] a;
        bytes32[] b;
        bool[] valid;
        Ragged siblings;
    }

    function _divergences() internal view returns (Divergences memory t) {
        t.nodesA = _words(".divergence.nodeA");
        t.nodesB = _words(".divergence.nodeB");
        t.ms = _numbers(".divergence.m");
        t.indices = _numbers(".divergence.index");
        t.a = _words(".divergence.a");
        t.b = _words(".divergence.b");
        t.valid = vm.parseJsonBoolArray(commitments, ".divergence.valid");
        t.siblings = _ragged(".divergence", ".siblings");
    }

    function test_Divergences() public view {
        Divergences memory t = _divergences();
        uint256 good = 0;
        for (uint256 i = 0; i < t.nodesA.length; i++) {
            bytes memory call = abi.encodeCall(
                Harness.divergence,
                (t.nodesA[i], t.nodesB[i], t.ms[i], t.indices[i], t.a[i], t.b[i], _case(t.siblings, i))
            );
            (bool ok,) = address(harness).staticcall(call);
            assertEq(ok, t.valid[i], vm.toString(i));
            if (ok) good++;
        }
        assertGt(good, 0);
        assertLt(good, t.nodesA.length);
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
