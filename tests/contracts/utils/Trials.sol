// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IEvmReferee} from "../../../contracts/interfaces/IEvmReferee.sol";
import {IReferee, Question, Ruling} from "../../../contracts/interfaces/IReferee.sol";
import {IVerde} from "../../../contracts/interfaces/IVerde.sol";
import {RepVM} from "../../../contracts/libraries/RepVM.sol";
import {Trees} from "./Trees.sol";

/// @notice Asks one question and remembers the ruling, as Verde does.
contract Asker {
    IReferee internal referee;
    Question internal asked;
    bool public over;
    Ruling public ruling;
    bytes32 public outputRoot;
    uint256 public verbs;

    error Over();

    function ask(IReferee referee_, Question calldata question_) external {
        (referee, asked, over) = (referee_, question_, false);
    }

    function question(uint256 matchId) external view returns (IReferee, Question memory) {
        if (over || matchId != asked.matchId) revert Over();
        return (referee, asked);
    }

    function terms(uint256 matchId) external view returns (IReferee, Question memory) {
        if (over || matchId != asked.matchId) revert Over();
        Question memory terms_ = asked;
        (terms_.dataRoot, terms_.batchCount, terms_.preState, terms_.step) = (0, 0, 0, 0);
        (terms_.traceRoot, terms_.configHash, terms_.accountA, terms_.accountB) = (0, 0, address(0), address(0));
        return (referee, terms_);
    }

    function players(uint256) external view returns (address, address, uint40) {
        return (asked.accountA, asked.accountB, asked.buildWindow);
    }

    function judge(uint256, bytes calldata evidence) external {
        if (over) revert Over();
        (ruling, outputRoot, verbs) = referee.judge(asked, evidence);
        over = true;
    }
}

/// @notice RepVM's instructions as external calls, and whole runs.
contract Machine {
    function need(bytes memory state, uint64 word, IVerde.Node calldata node, uint256 words)
        external
        pure
        returns (RepVM.Need, uint256, uint256)
    {
        return RepVM.need(state, RepVM.decode(word), node, words);
    }

    function execute(bytes memory state, uint64 word, IVerde.Node calldata node, uint256 value, bool last)
        external
        pure
        returns (bytes memory)
    {
        RepVM.execute(state, RepVM.decode(word), node, value, last);
        return state;
    }

    function start(uint256 element) public pure returns (bytes memory state) {
        state = new bytes(RepVM.STATE_BYTES);
        for (uint256 k = 0; k < 8; k++) {
            state[32 + 8 + k] = bytes1(uint8(element >> (8 * (7 - k))));
        }
    }

    /// @notice The states after instruction 0, 1, ... up to and with the halted one.
    function run(uint64[] calldata words, IVerde.Node calldata node, bytes[] calldata inputs, uint256 element)
        external
        pure
        returns (bytes[] memory states)
    {
        uint256 most = 2 ** uint256(node.vmHeight);
        states = new bytes[](most);
        bytes memory state = start(element);
        uint256 n = 0;
        while (n < most && !RepVM.halted(state)) {
            _step(state, words, node, inputs, n == most - 1);
            states[n++] = bytes.concat(state);
        }
        assembly ("memory-safe") {
            mstore(states, n)
        }
    }

    function _step(
        bytes memory state,
        uint64[] calldata words,
        IVerde.Node calldata node,
        bytes[] calldata inputs,
        bool last
    ) internal pure {
        uint256 pc = RepVM.pc(state);
        if (pc >= words.length) return RepVM.trap(state);
        RepVM.Instruction memory i = RepVM.decode(words[pc]);
        (RepVM.Need what, uint256 tensor, uint256 index) = RepVM.need(state, i, node, words.length);
        uint256 value = 0;
        if (what == RepVM.Need.Word) value = words[index];
        if (what == RepVM.Need.Element) {
            uint256 size = RepVM.itemSize(node.inputs[tensor].dtype);
            value = little(inputs[tensor], index * size, size);
        }
        RepVM.execute(state, i, node, value, last);
    }

    function little(bytes memory data, uint256 first, uint256 size) public pure returns (uint256 value) {
        for (uint256 k = size; k > 0; k--) {
            value = value * 256 + uint8(data[first + k - 1]);
        }
    }

    function startHash(uint256 element) external pure returns (bytes32) {
        return RepVM.startHash(element);
    }

    function haltedHash(uint64 output) external pure returns (bytes32) {
        return RepVM.haltedHash(output);
    }
}

/// @notice Tensors and traces as trees.
library Tiles {
    using Trees for Trees.Tree;

    uint256 internal constant BYTES = 1024;

    function count(bytes memory data) internal pure returns (uint256) {
        return (data.length + BYTES - 1) / BYTES;
    }

    /// @dev Tile `index`, padded with zeros.
    function tile(bytes memory data, uint256 index) internal pure returns (bytes memory out) {
        out = new bytes(BYTES);
        uint256 first = index * BYTES;
        uint256 size = data.length - first < BYTES ? data.length - first : BYTES;
        assembly ("memory-safe") {
            mcopy(add(out, 0x20), add(add(data, 0x20), first), size)
        }
    }

    function tree(bytes memory data) internal pure returns (Trees.Tree memory) {
        bytes32[] memory leaves = new bytes32[](count(data));
        for (uint256 i = 0; i < leaves.length; i++) {
            leaves[i] = keccak256(tile(data, i));
        }
        return Trees.build(leaves);
    }
}
