// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {Test} from "forge-std/Test.sol";
import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {RepVM} from "../../contracts/libraries/RepVM.sol";
import {Trees} from "./utils/Trees.sol";
import {Machine} from "./utils/Trials.sol";

/// @notice RepVM on chain against the readable interpreter: tests/vectors/repvm.json, whose layout its `about` describes.
contract RepVMTest is Test {
    using Trees for Trees.Tree;

    string internal json;
    Machine internal machine;
    bytes[] internal nodes;

    function setUp() public {
        json = vm.readFile("tests/vectors/repvm.json");
        machine = new Machine();
        nodes = vm.parseJsonBytesArray(json, ".nodes");
    }

    function _node(uint256 index) internal view returns (IVerde.Node memory) {
        return abi.decode(nodes[index], (IVerde.Node));
    }

    /// @dev 512 bytes, of which the zeros at the end were left out.
    function _state(bytes memory short) internal pure returns (bytes memory state) {
        state = new bytes(RepVM.STATE_BYTES);
        for (uint256 k = 0; k < short.length; k++) {
            state[k] = short[k];
        }
    }

    struct Steps {
        uint256[] node;
        uint256[] words;
        uint256[] word;
        bool[] last;
        bytes[] before;
        uint256[] need;
        uint256[] tensor;
        uint256[] index;
        uint256[] value;
        uint256[] offset;
        bytes[] tile;
        bytes[] afterwards;
    }

    function _steps() internal view returns (Steps memory s) {
        s.node = vm.parseJsonUintArray(json, ".step.node");
        s.words = vm.parseJsonUintArray(json, ".step.words");
        s.word = vm.parseJsonUintArray(json, ".step.word");
        s.last = vm.parseJsonBoolArray(json, ".step.last");
        s.before = vm.parseJsonBytesArray(json, ".step.before");
        s.need = vm.parseJsonUintArray(json, ".step.need");
        s.tensor = vm.parseJsonUintArray(json, ".step.tensor");
        s.index = vm.parseJsonUintArray(json, ".step.index");
        s.value = vm.parseJsonUintArray(json, ".step.value");
        s.offset = vm.parseJsonUintArray(json, ".step.offset");
        s.tile = vm.parseJsonBytesArray(json, ".step.tile");
        s.afterwards = vm.parseJsonBytesArray(json, ".step.after");
    }

    /// Every instruction with its edge cases: what it needs, and the state after it.
    function test_Instructions() public view {
        Steps memory s = _steps();
        assertGt(s.node.length, 900);
        uint256[3] memory seen;
        for (uint256 i = 0; i < s.node.length; i++) {
            _check(s, i);
            seen[s.need[i]]++;
        }
        assertGt(seen[1], 40, "elements");
        assertGt(seen[2], 3, "words");
    }

    function _check(Steps memory s, uint256 i) internal view {
        string memory name = vm.toString(i);
        bytes memory state = _state(s.before[i]);
        bytes memory expected = _state(s.afterwards[i]);
        if (RepVM.halted(state)) {
            assertEq(keccak256(expected), keccak256(state), name);
            return;
        }
        if (RepVM.pc(state) >= s.words[i]) {
            RepVM.trap(state);
            assertEq(keccak256(state), keccak256(expected), name);
            return;
        }
        IVerde.Node memory node = _node(s.node[i]);
        uint64 word = uint64(s.word[i]);
        (RepVM.Need what, uint256 tensor, uint256 index) = machine.need(state, word, node, s.words[i]);
        assertEq(uint256(what), s.need[i], name);
        if (what == RepVM.Need.Element) {
            assertEq(tensor, s.tensor[i], name);
            uint256 size = RepVM.itemSize(node.inputs[tensor].dtype);
            assertEq(machine.little(_padded(s.tile[i]), s.offset[i], size), s.value[i], name);
        }
        if (what != RepVM.Need.Nothing) assertEq(index, s.index[i], name);
        state = machine.execute(state, word, node, s.value[i], s.last[i]);
        assertEq(keccak256(state), keccak256(expected), name);
    }

    function _padded(bytes memory short) internal pure returns (bytes memory tile) {
        tile = new bytes(1024);
        for (uint256 k = 0; k < short.length; k++) {
            tile[k] = short[k];
        }
    }

    /// Whole runs: the hash of the state after every instruction.
    function test_Runs() public view {
        uint256[] memory image = vm.parseJsonUintArray(json, ".run.image");
        uint256[] memory node = vm.parseJsonUintArray(json, ".run.node");
        uint256[] memory element = vm.parseJsonUintArray(json, ".run.element");
        bytes32[] memory hashes = vm.parseJsonBytes32Array(json, ".run.hashes");
        uint256[] memory offset = vm.parseJsonUintArray(json, ".run.offset");
        uint256[] memory count = vm.parseJsonUintArray(json, ".run.count");
        uint256[] memory output = vm.parseJsonUintArray(json, ".run.output");
        for (uint256 i = 0; i < image.length; i++) {
            bytes[] memory states = machine.run(_words(image[i]), _node(node[i]), _inputs(i), element[i]);
            assertEq(states.length, count[i], "instructions");
            for (uint256 n = 0; n < states.length; n++) {
                assertEq(keccak256(states[n]), hashes[offset[i] + n], vm.toString(n));
            }
            assertEq(keccak256(states[states.length - 1]), machine.haltedHash(uint64(output[i])), "output");
            assertEq(keccak256(machine.start(element[i])), machine.startHash(element[i]), "start");
        }
    }

    function _words(uint256 image) internal view returns (uint64[] memory words) {
        uint256[] memory all = vm.parseJsonUintArray(json, ".image.words");
        uint256[] memory offset = vm.parseJsonUintArray(json, ".image.offset");
        uint256[] memory count = vm.parseJsonUintArray(json, ".image.count");
        words = new uint64[](count[image]);
        for (uint256 k = 0; k < words.length; k++) {
            words[k] = uint64(all[offset[image] + k]);
        }
    }

    function _inputs(uint256 run) internal view returns (bytes[] memory inputs) {
        bytes[] memory all = vm.parseJsonBytesArray(json, ".run.inputs");
        uint256[] memory offset = vm.parseJsonUintArray(json, ".run.inputOffset");
        uint256[] memory count = vm.parseJsonUintArray(json, ".run.inputCount");
        inputs = new bytes[](count[run]);
        for (uint256 k = 0; k < inputs.length; k++) {
            inputs[k] = all[offset[run] + k];
        }
    }

    /// The hash of an image: its number of words and its tree.
    function test_Images() public view {
        bytes32[] memory code = vm.parseJsonBytes32Array(json, ".image.code");
        for (uint256 i = 0; i < code.length; i++) {
            uint64[] memory words = _words(i);
            bytes32[] memory leaves = new bytes32[]((words.length + 3) / 4);
            for (uint256 k = 0; k < leaves.length; k++) {
                bytes memory four = new bytes(0);
                for (uint256 j = 0; j < 4; j++) {
                    four = abi.encodePacked(four, 4 * k + j < words.length ? words[4 * k + j] : 0);
                }
                leaves[k] = keccak256(four);
            }
            bytes32 root = Trees.build(leaves).root();
            assertEq(keccak256(abi.encode(RepVM.CODE_TYPEHASH, words.length, root)), code[i], vm.toString(i));
        }
    }

    // ---------------------------------------------------------------- Totality

    /// No word, state or node makes an instruction revert, and what it gives is a state: bytes 1 to 19 are zero, the registers that it does not
    /// name are as they were.
    function testFuzz_NothingReverts(uint64 word, uint256 seed, uint256 which, bool last) public view {
        IVerde.Node memory node = _node(which % nodes.length);
        bytes memory before = _random(seed);
        (RepVM.Need what, uint256 tensor,) = machine.need(before, word, node, 1000);
        uint256 value = what == RepVM.Need.Nothing ? 0 : uint64(seed);
        if (what == RepVM.Need.Element) value %= 256 ** RepVM.itemSize(node.inputs[tensor].dtype);
        bytes memory result = machine.execute(before, word, node, value, last);
        assertEq(result.length, RepVM.STATE_BYTES);
        if (RepVM.halted(result)) {
            for (uint256 k = 1; k < result.length; k++) {
                if (k < 24 || k >= 32) assertEq(result[k], 0);
            }
        } else {
            assertFalse(last);
            _checkRegisters(before, result, (word >> 48) & 0xFF);
        }
    }

    function _random(uint256 seed) internal pure returns (bytes memory state) {
        state = new bytes(RepVM.STATE_BYTES);
        for (uint256 k = 20; k < state.length; k++) {
            if (k == 24) k = 32; // a running state has no output
            seed = uint256(keccak256(abi.encode(seed, k)));
            // Small numbers are where instructions differ from noise.
            state[k] = seed % 3 == 0 ? bytes1(uint8(seed >> 8)) : bytes1(0);
        }
    }

    function _checkRegisters(bytes memory before, bytes memory result, uint256 named) internal pure {
        for (uint256 k = 1; k < 20; k++) {
            assertEq(result[k], 0);
        }
        for (uint256 k = 32; k < 288; k++) {
            if (result[k] != before[k]) assertEq((k - 32) / 8, named);
        }
    }
}
