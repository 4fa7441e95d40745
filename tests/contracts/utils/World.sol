// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "../../../contracts/interfaces/IVerde.sol";
import {Trees} from "./Trees.sol";

/// @notice A small program, its true execution, and liars that leave it at a step and a node of their choice.
/// @dev Five slots (state tree of height 3) and five compute nodes; the seven hash nodes use every kind of reference:
/// hash 0 (node 3, batch 0), 1 (constant 1, state 3), 2 (node 4, zero), 3 (zero, zero), 4 (hash 0, hash 1), 5 (hash 2, hash 3), 6 (hash 4, hash 5).
library World {
    using Trees for Trees.Tree;

    /// @notice Who plays. The honest one has salt 0; a liar's outputs are garbage from (`step`, `node`) on; `padding` also spoils the first
    /// missing leaf of the claim, if it has one.
    struct Plan {
        bytes32 salt;
        uint256 step;
        uint256 node;
        bool padding;
    }

    uint256 internal constant COMPUTE = 5;
    uint256 internal constant NODES = 12;
    uint256 internal constant SLOTS = 5;
    uint256 internal constant TENSORS = 2;
    uint256 internal constant CONSTANTS = 3;
    uint256 internal constant BATCHES = 3;

    uint8 internal constant STATE = 0;
    uint8 internal constant BATCH = 1;
    uint8 internal constant CONSTANT = 2;
    uint8 internal constant NODE = 3;
    uint8 internal constant ZERO = 4;

    // ---------------------------------------------------------------- Data

    function constants() internal pure returns (Trees.Tree memory) {
        bytes32[] memory leaves = new bytes32[](CONSTANTS);
        for (uint256 i = 0; i < CONSTANTS; i++) {
            leaves[i] = keccak256(abi.encode("constant", i));
        }
        return Trees.build(leaves);
    }

    function batch(uint256 index) internal pure returns (Trees.Tree memory) {
        bytes32[] memory leaves = new bytes32[](TENSORS);
        for (uint256 i = 0; i < TENSORS; i++) {
            leaves[i] = keccak256(abi.encode("batch", index, i));
        }
        return Trees.build(leaves, 1);
    }

    function data() internal pure returns (Trees.Tree memory) {
        bytes32[] memory leaves = new bytes32[](BATCHES);
        for (uint256 i = 0; i < BATCHES; i++) {
            leaves[i] = batch(i).root();
        }
        return Trees.build(leaves);
    }

    // ---------------------------------------------------------------- Program

    function refOf(uint256 index, uint256 side) internal pure returns (uint8 kind, uint32 ref) {
        uint8[14] memory kinds =
            [NODE, BATCH, CONSTANT, STATE, NODE, ZERO, ZERO, ZERO, NODE, NODE, NODE, NODE, NODE, NODE];
        uint8[14] memory refs = [3, 0, 1, 3, 4, 0, 0, 0, 5, 6, 7, 8, 9, 10];
        uint256 i = 2 * (index - COMPUTE) + side;
        return (kinds[i], refs[i]);
    }

    function program(uint256 index) internal pure returns (IVerde.Node memory node) {
        node.inputs = new IVerde.Input[](2);
        node.params = new int64[](0);
        node.literals = new uint64[](0);
        if (index < COMPUTE) {
            node.code = keccak256("RO-1/add/1");
            node.inputs[0] = IVerde.Input(STATE, uint32(index), 1, new uint64[](2));
            node.inputs[0].shape[0] = 4;
            node.inputs[0].shape[1] = 3;
            node.inputs[1] = IVerde.Input(CONSTANT, 0, 1, new uint64[](0));
            node.params = new int64[](1);
            node.params[0] = -7;
            node.literals = new uint64[](1);
            node.literals[0] = 0x3f800000;
            node.dtype = 1;
            node.shape = new uint64[](1);
            node.shape[0] = 12;
            node.vmHeight = 20;
        } else {
            node.code = keccak256("RO-1/hash/1");
            for (uint256 side = 0; side < 2; side++) {
                (uint8 kind, uint32 ref) = refOf(index, side);
                node.inputs[side] = IVerde.Input(kind, ref, 255, new uint64[](0));
            }
            node.dtype = 255;
            node.shape = new uint64[](0);
        }
    }

    function nodes() internal pure returns (Trees.Tree memory) {
        bytes32[] memory leaves = new bytes32[](NODES);
        for (uint256 i = 0; i < NODES; i++) {
            leaves[i] = keccak256(abi.encode(program(i)));
        }
        return Trees.build(leaves);
    }

    function header() internal pure returns (IVerde.ProgramHeader memory) {
        return IVerde.ProgramHeader({
            computeNodes: uint32(COMPUTE),
            nodes: uint32(NODES),
            slots: uint32(SLOTS),
            batchTensors: uint32(TENSORS),
            constants: uint32(CONSTANTS),
            nodesRoot: nodes().root(),
            slotsHash: keccak256("slots"),
            batchHash: keccak256("batch"),
            constantsRoot: constants().root(),
            constantsHash: keccak256("constants")
        });
    }

    // ---------------------------------------------------------------- Execution

    function output(Plan memory plan, uint256 step, uint256 node) internal pure returns (bytes32) {
        bool lies = plan.salt != 0 && (step > plan.step || (step == plan.step && node >= plan.node));
        return keccak256(abi.encode("output", lies ? plan.salt : bytes32(0), step, node));
    }

    /// @notice The slots before `step`.
    function state(Plan memory plan, uint256 step) internal pure returns (Trees.Tree memory) {
        bytes32[] memory leaves = new bytes32[](SLOTS);
        if (step == 0) {
            for (uint256 i = 0; i < SLOTS; i++) {
                leaves[i] = keccak256(abi.encode("initial", i));
            }
        } else {
            leaves[0] = output(plan, step - 1, 3);
            leaves[1] = batch((step - 1) % BATCHES).leaf(0);
            leaves[2] = constants().leaf(1);
            leaves[3] = keccak256(abi.encode("initial", uint256(3)));
            leaves[4] = output(plan, step - 1, 4);
        }
        return Trees.build(leaves);
    }

    /// @notice Root of the input `side` of hash node `index`, as this trace has it.
    function inputRoot(bytes32[] memory trace_, uint256 step, uint256 index, uint256 side)
        internal
        pure
        returns (bytes32)
    {
        (uint8 kind, uint32 ref) = refOf(index, side);
        if (kind == NODE) return trace_[ref];
        if (kind == BATCH) return batch(step % BATCHES).leaf(ref);
        if (kind == CONSTANT) return constants().leaf(ref);
        // The only state reference is to slot 3, which never changes.
        if (kind == STATE) return keccak256(abi.encode("initial", uint256(ref)));
        return 0;
    }

    /// @notice The trace of `step`: the outputs of all nodes.
    function trace(Plan memory plan, uint256 step) internal pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](NODES);
        for (uint256 i = 0; i < COMPUTE; i++) {
            leaves[i] = output(plan, step, i);
        }
        for (uint256 i = COMPUTE; i < NODES; i++) {
            leaves[i] = keccak256(abi.encodePacked(inputRoot(leaves, step, i, 0), inputRoot(leaves, step, i, 1)));
            if (plan.salt != 0 && plan.step == step && plan.node == i) leaves[i] = output(plan, step, i);
        }
    }

    /// @notice State root after `steps` steps.
    function stateRoot(Plan memory plan, uint256 steps) internal pure returns (bytes32) {
        if (steps == 0) return state(plan, 0).root();
        return trace(plan, steps - 1)[NODES - 1];
    }

    function checkpoints(Plan memory plan, uint256 steps, uint256 interval) internal pure returns (Trees.Tree memory) {
        uint256 n = (steps + interval - 1) / interval;
        uint256 height = Trees.heightOf(n);
        bool padding = plan.padding && n < 2 ** height;
        bytes32[] memory leaves = new bytes32[](padding ? n + 1 : n);
        for (uint256 i = 0; i < n; i++) {
            uint256 done = (i + 1) * interval;
            leaves[i] = stateRoot(plan, done < steps ? done : steps);
        }
        if (padding) leaves[n] = keccak256("padding");
        return Trees.build(leaves, height);
    }

    /// @notice State roots after each step of the segment that starts with `first`.
    function segment(Plan memory plan, uint256 steps, uint256 interval, uint256 first)
        internal
        pure
        returns (Trees.Tree memory)
    {
        uint256 n = steps - first < interval ? steps - first : interval;
        bytes32[] memory leaves = new bytes32[](n);
        for (uint256 i = 0; i < n; i++) {
            leaves[i] = stateRoot(plan, first + i + 1);
        }
        return Trees.build(leaves);
    }

    // ---------------------------------------------------------------- Judgement

    /// @notice Opens the input `side` of hash node `index` of `step` from a side's trace.
    function openInput(Plan memory plan, uint256 step, uint256 index, uint256 side)
        internal
        pure
        returns (IVerde.HashInput memory opened)
    {
        (uint8 kind, uint32 ref) = refOf(index, side);
        opened.proof = new bytes32[](0);
        opened.batchProof = new bytes32[](0);
        if (kind == NODE) {
            Trees.Tree memory tree = Trees.build(trace(plan, step));
            opened.value = tree.leaf(ref);
            opened.proof = tree.prove(ref);
        } else if (kind == STATE) {
            Trees.Tree memory tree = state(plan, step);
            opened.value = tree.leaf(ref);
            opened.proof = tree.prove(ref);
        } else if (kind == CONSTANT) {
            Trees.Tree memory tree = constants();
            opened.value = tree.leaf(ref);
            opened.proof = tree.prove(ref);
        } else if (kind == BATCH) {
            Trees.Tree memory tree = batch(step % BATCHES);
            opened.value = tree.leaf(ref);
            opened.proof = tree.prove(ref);
            opened.batchRoot = tree.root();
            opened.batchProof = data().prove(step % BATCHES);
        }
    }
}
