// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IEvmReferee} from "../interfaces/IEvmReferee.sol";
import {IReferee, Question, Ruling} from "../interfaces/IReferee.sol";
import {IVerde} from "../interfaces/IVerde.sol";
import {Multicall} from "../Multicall.sol";
import {Clock} from "../libraries/Clock.sol";
import {Divergence} from "../libraries/Divergence.sol";
import {Merkle} from "../libraries/Merkle.sol";
import {Programs} from "../libraries/Programs.sol";
import {RepVM} from "../libraries/RepVM.sol";
import {Unpack} from "../libraries/Unpack.sol";

/// @title Trials: elements and instructions
/// @notice docs/spec/game.md, section "The EVM referee". At every instant of a trial exactly one side is due; whoever is due and out of time
/// has lost, which `judge` says without a verb.
/// @dev What is due when, and from when on, is the heir's to say (`_opening`).
abstract contract EvmGame is IEvmReferee, Multicall {
    uint256 internal constant TILE_BYTES = 1024;
    uint256 private constant MAX_TILE_HEIGHT = 33; // 2^40 elements of 8 bytes
    uint256 private constant MAX_VM_HEIGHT = 20;
    /// @dev What `IVerde.question` returns: the referee and the 22 words of a Question.
    uint256 private constant QUESTION_BYTES = 23 * 32;

    /// @dev Places that ended trials leave to new ones, as in Verde.
    uint256 private constant PLACES = 8;

    /// @dev See `_trial`.
    mapping(address verde => mapping(uint256 place => Trial)) private _trials;

    // ---------------------------------------------------------------- Verbs

    /// @inheritdoc IEvmReferee
    function begin(
        address verde,
        uint256 matchId,
        IVerde.ProgramHeader calldata header,
        IVerde.Node calldata node,
        bytes32[] calldata nodeProof
    ) external {
        Trial storage trial = _at(verde, matchId, Stage.None);
        Question memory question = _ask(verde, matchId, IVerde.terms.selector);
        uint256 since = _opening(question);
        Clock.requireInTime(block.timestamp - since, question.clockA);
        _verifyNode(question, header, node, nodeProof);

        uint256 elements = RepVM.count(node.shape);
        uint256 size = RepVM.itemSize(node.dtype);
        trial = _trials[verde][matchId % PLACES];
        if (!_over(verde, trial)) trial = _trials[verde][matchId + PLACES];
        trial.nodeA = question.rootA;
        trial.nodeB = question.rootB;
        trial.position = 0;
        trial.since = uint40(since);
        trial.clockA = question.clockA;
        trial.clockB = question.clockB;
        trial.verbs = 0;
        trial.rest = node.tileHeight;
        trial.stage = Stage.Open;
        trial.turn = IVerde.Side.A;
        trial.ruling = Ruling.None;
        trial.arityBits = question.arityBits;
        trial.vmHeight = node.vmHeight;
        trial.itemSize = uint8(size);
        trial.matchId = uint32(matchId);
        trial.elements = uint48(elements);
        trial.element = 0;
        trial.valueA = 0;
        trial.valueB = 0;
        trial.grace = question.grace;
        emit Begun(verde, matchId, node.tileHeight, node.vmHeight, uint48(elements), uint8(size), uint40(since));
        if (node.tileHeight == 0) _closeTiles(verde, matchId, trial, 0);
    }

    /// @inheritdoc IEvmReferee
    function open(address verde, uint256 matchId, bytes32[] calldata children) external {
        Trial storage trial = _trial(verde, matchId);
        Stage stage = trial.stage;
        if (!_opens(stage)) revert WrongStage(stage);
        _respond(trial);
        bytes32 root = trial.nodeA;
        Merkle.verifyChildren(root, _stride(trial, trial.rest), children);
        if (stage == Stage.OpenTrace) trial.rootA = root;
        trial.stage = stage == Stage.Open ? Stage.Elements : Stage.Instructions;
        trial.turn = IVerde.Side.B;
        emit Opened(verde, matchId, children, uint40(block.timestamp));
    }

    /// @inheritdoc IEvmReferee
    function advance(
        address verde,
        uint256 matchId,
        uint8 m,
        uint64 index,
        bytes32 a,
        bytes32 b,
        bytes32[] calldata siblings,
        bytes32[] calldata children,
        IVerde.Opening calldata pre
    ) external {
        Trial storage trial = _trial(verde, matchId);
        Stage stage = trial.stage;
        bool opens = _opens(stage);
        if (!opens && stage != Stage.Elements && stage != Stage.Instructions) revert WrongStage(stage);
        IVerde.Side mover = trial.turn;
        _respond(trial);

        uint8 rest = trial.rest;
        if (m != rest && (opens || m != _stride(trial, rest))) revert IVerde.WrongDepth(m, rest);
        bytes32 nodeA = trial.nodeA;
        Divergence.verify(nodeA, trial.nodeB, m, index, a, b, siblings);
        rest -= m;
        uint40 position = uint40((uint256(trial.position) << m) | index);
        trial.nodeA = a;
        trial.nodeB = b;
        trial.position = position;
        trial.rest = rest;
        emit Advanced(
            verde,
            matchId,
            mover,
            m,
            position,
            rest,
            a,
            b,
            siblings[:rest == 0 ? 0 : siblings.length],
            children,
            uint40(block.timestamp)
        );
        if (rest != 0) {
            Merkle.verifyChildren(mover == IVerde.Side.A ? a : b, _stride(trial, rest), children);
            _requireEmpty(pre);
            trial.turn = mover == IVerde.Side.A ? IVerde.Side.B : IVerde.Side.A;
            return;
        }
        Merkle.requireLength(children.length, 0);
        if (stage > Stage.TraceB) {
            _closeInstructions(verde, matchId, trial, opens ? nodeA : trial.rootA, pre);
        } else {
            _requireEmpty(pre);
            _closeTiles(verde, matchId, trial, position);
        }
    }

    /// @inheritdoc IEvmReferee
    function showTiles(address verde, uint256 matchId, bytes calldata tileA, bytes calldata tileB) external {
        Trial storage trial = _trial(verde, matchId);
        Stage stage = trial.stage;
        if (stage != Stage.TileA && stage != Stage.TileB) revert WrongStage(stage);
        bool atOnce = stage == Stage.TileA && trial.since == block.timestamp;
        _respond(trial);
        _requireTile(tileA, trial.nodeA);
        if (stage == Stage.TileA && tileB.length == 0) {
            trial.stage = Stage.TileB;
            trial.turn = IVerde.Side.B;
            emit TileShown(verde, matchId, tileA, uint40(block.timestamp));
            return;
        }
        _requireTile(tileB, trial.nodeB);
        uint256 offset = _firstDifference(tileA, tileB);
        uint256 size = trial.itemSize;
        uint256 element = (uint256(trial.position) * TILE_BYTES + offset) / size;
        if (element >= trial.elements) {
            // Past its end a tensor is zero.
            _rule(verde, matchId, trial, _standing(tileA[offset] == 0, tileB[offset] == 0));
            return;
        }
        offset -= offset % size;
        uint64 valueA = uint64(_little(tileA, offset, size));
        uint64 valueB = uint64(_little(tileB, offset, size));
        // A slot that is written and cleared in one transaction costs next to nothing. The level's moves were most likely made in this one.
        if (atOnce) trial.nodeB = 0;
        trial.element = uint40(element);
        trial.valueA = valueA;
        trial.valueB = valueB;
        trial.position = 0;
        trial.rest = trial.vmHeight;
        trial.stage = Stage.TraceA;
        trial.turn = IVerde.Side.A;
        emit ElementFound(verde, matchId, uint40(element), valueA, valueB, uint40(block.timestamp));
    }

    /// @inheritdoc IEvmReferee
    function post(address verde, uint256 matchId, bytes32 root, bytes32[] calldata proof, bytes32[] calldata children)
        external
    {
        Trial storage trial = _trial(verde, matchId);
        Stage stage = trial.stage;
        if (stage != Stage.TraceA && stage != Stage.TraceB) revert WrongStage(stage);
        bool isA = stage == Stage.TraceA;
        (address accountA, address accountB, uint40 buildWindow) = IVerde(verde).players(matchId);
        address poster = isA ? accountA : accountB;
        if (msg.sender != poster) revert IVerde.WrongSender(msg.sender, poster);
        Clock.requireInTime(block.timestamp - trial.since, buildWindow);
        _count(trial);
        uint256 height = trial.vmHeight;
        // The trace ends in the value that the side has committed to.
        bytes32 last = RepVM.haltedHash(isA ? trial.valueA : trial.valueB);
        Merkle.verify(root, last, (1 << height) - 1, height, proof);
        emit Posted(verde, matchId, isA ? IVerde.Side.A : IVerde.Side.B, root, children, uint40(block.timestamp));
        if (isA) {
            Merkle.requireLength(children.length, 0);
            trial.nodeA = root;
            trial.stage = Stage.TraceB;
            trial.turn = IVerde.Side.B;
            return;
        }
        trial.nodeB = root;
        trial.turn = IVerde.Side.A;
        if (height != 0 && children.length != 0) {
            Merkle.verifyChildren(root, _stride(trial, height), children);
            trial.rootA = trial.nodeA;
            trial.stage = Stage.Instructions;
            return;
        }
        Merkle.requireLength(children.length, 0);
        if (height == 0) _found(verde, matchId, trial, RepVM.startHash(trial.element));
        else trial.stage = Stage.OpenTrace;
    }

    /// @inheritdoc IEvmReferee
    function execute(
        address verde,
        uint256 matchId,
        IVerde.ProgramHeader calldata header,
        IVerde.Node calldata node,
        bytes32[] calldata nodeProof,
        Witness calldata witness
    ) external {
        Trial storage trial = _at(verde, matchId, Stage.Execute);
        _respond(trial);
        Question memory question = _question(verde, matchId);
        _verifyNode(question, header, node, nodeProof);
        (bytes32 truth, uint64 word) = _successor(trial, question, header, node, witness);
        emit Executed(verde, matchId, word, truth);
        _rule(verde, matchId, trial, _standing(trial.nodeA == truth, trial.nodeB == truth));
        // Nobody needs them any more, and cleared slots are paid back.
        (trial.nodeA, trial.nodeB, trial.rootA) = (0, 0, 0);
        IVerde(verde).judge(matchId, "");
    }

    /// @inheritdoc IEvmReferee
    function conclude(address verde, uint256 matchId) external {
        (Ruling ruling,) = _ruling(_ask(verde, matchId, IVerde.terms.selector));
        Trial storage trial = _trial(verde, matchId);
        if (trial.stage != Stage.Done) _rule(verde, matchId, trial, ruling);
        IVerde(verde).judge(matchId, "");
    }

    // ---------------------------------------------------------------- Views

    /// @inheritdoc IEvmReferee
    function getTrial(address verde, uint256 matchId) external view returns (Trial memory) {
        Trial storage stored = _trial(verde, matchId);
        uint256 slot;
        assembly ("memory-safe") {
            slot := stored.slot
        }
        Unpack.returnStruct(slot, hex"202020050505050101010101010101040605080805");
    }

    /// @dev Verbs of a trial: two levels with their openings, two tiles, two posts, the execution.
    function _maxVerbs(uint8 arityBits) internal pure returns (uint256) {
        uint256 bits = arityBits;
        return 7 + (MAX_TILE_HEIGHT + bits - 1) / bits + (MAX_VM_HEIGHT + bits - 1) / bits;
    }

    /// @dev The ruling of a trial: its own, or by time. Reverts if there is none yet.
    function _ruling(Question memory question) internal view returns (Ruling, uint256 verbs) {
        Trial storage trial = _trial(question.verde, question.matchId);
        Stage stage = trial.stage;
        if (stage == Stage.Done) return (trial.ruling, trial.verbs);
        bool dueA = stage == Stage.None || trial.turn == IVerde.Side.A;
        uint256 elapsed = block.timestamp - (stage == Stage.None ? _opening(question) : trial.since);
        uint256 limit = stage == Stage.TraceA || stage == Stage.TraceB
            ? question.buildWindow
            : stage == Stage.None ? question.clockA : dueA ? trial.clockA : trial.clockB;
        if (elapsed < limit) revert Undecided(elapsed, limit);
        return (dueA ? Ruling.BWins : Ruling.AWins, trial.verbs);
    }

    // ---------------------------------------------------------------- For heirs

    /// @dev Instant from which side A is due to begin. Reverts if the game is not open.
    function _opening(Question memory question) internal view virtual returns (uint256 since);

    /// @dev A trial has ended.
    function _ruled(address verde, uint256 matchId, Ruling ruling) internal virtual {}

    /// @dev The question of a match that waits for this referee.
    function _question(address verde, uint256 matchId) internal view returns (Question memory) {
        return _ask(verde, matchId, IVerde.question.selector);
    }

    /// @dev The question or only its terms, by `selector`. What it reverts with is passed on.
    function _ask(address verde, uint256 matchId, bytes4 selector) private view returns (Question memory question) {
        (bool ok, bytes memory result) = verde.staticcall(abi.encodeWithSelector(selector, matchId));
        address referee;
        assembly ("memory-safe") {
            if iszero(ok) { revert(add(result, 0x20), mload(result)) }
            // The referee, then the struct, which is static: in memory as it was returned.
            referee := mload(add(result, 0x20))
            question := add(result, 0x40)
        }
        if (result.length != QUESTION_BYTES || referee != address(this)) revert NotAsked(verde, matchId);
    }

    // ---------------------------------------------------------------- Internals

    /// @dev Whether A is due to open a tree.
    function _opens(Stage stage) private pure returns (bool) {
        return stage == Stage.Open || stage == Stage.OpenTrace;
    }

    /// @dev The storage of a trial, empty if it has not begun.
    function _trial(address verde, uint256 matchId) private view returns (Trial storage trial) {
        trial = _trials[verde][matchId % PLACES];
        if (trial.matchId != matchId) trial = _trials[verde][matchId + PLACES];
    }

    /// @dev Whether nothing of a trial can happen any more. One that ended by time may never have been concluded: then nobody asks any more.
    function _over(address verde, Trial storage trial) private view returns (bool) {
        Stage stage = trial.stage;
        if (stage == Stage.None || stage == Stage.Done) return true;
        // SAFETY: with too little gas for the question, the caller, who needs more for what follows, fails as well.
        (bool asked,) = verde.staticcall(abi.encodeCall(IVerde.terms, (trial.matchId)));
        return !asked;
    }

    function _at(address verde, uint256 matchId, Stage stage) private view returns (Trial storage trial) {
        trial = _trial(verde, matchId);
        if (trial.stage != stage) revert WrongStage(trial.stage);
    }

    function _count(Trial storage trial) private {
        ++trial.verbs;
        trial.since = uint40(block.timestamp);
    }

    /// @dev Charges the due side's response to its chess clock.
    function _respond(Trial storage trial) private {
        uint256 elapsed = block.timestamp - trial.since;
        (uint40 clockA, uint40 clockB) = (trial.clockA, trial.clockB);
        if (trial.turn == IVerde.Side.A) clockA = Clock.spend(clockA, elapsed, trial.grace);
        else clockB = Clock.spend(clockB, elapsed, trial.grace);
        // All in one slot, and with nothing between them written at once.
        trial.clockA = clockA;
        trial.clockB = clockB;
        _count(trial);
    }

    function _stride(Trial storage trial, uint256 rest) private view returns (uint256) {
        uint256 bits = trial.arityBits;
        return bits < rest ? bits : rest;
    }

    function _requireEmpty(IVerde.Opening calldata pre) private pure {
        if (pre.value != 0 || pre.proof.length != 0) revert IVerde.UnexpectedOpening(pre.value, pre.proof.length);
    }

    function _requireTile(bytes calldata tile, bytes32 leaf) private pure {
        if (tile.length != TILE_BYTES) revert WrongSize(tile.length, TILE_BYTES);
        Merkle.requireRoot(keccak256(tile), leaf);
    }

    /// @dev Index of the first byte that differs.
    function _firstDifference(bytes calldata a, bytes calldata b) private pure returns (uint256 offset) {
        uint256 difference;
        assembly ("memory-safe") {
            for {} lt(offset, TILE_BYTES) { offset := add(offset, 32) } {
                difference := xor(calldataload(add(a.offset, offset)), calldataload(add(b.offset, offset)))
                if difference { break }
            }
        }
        if (offset == TILE_BYTES) revert NoDifference();
        while (difference >> 248 == 0) {
            difference <<= 8;
            ++offset;
        }
    }

    /// @dev `size` bytes as a little-endian number.
    function _little(bytes calldata data, uint256 offset, uint256 size) private pure returns (uint256 value) {
        uint256 word = uint256(bytes32(data[offset:])); // the first byte at the top
        for (uint256 k; k < size; ++k) {
            value |= ((word >> (248 - 8 * k)) & 0xFF) << (8 * k);
        }
    }

    function _verifyNode(
        Question memory question,
        IVerde.ProgramHeader calldata header,
        IVerde.Node calldata node,
        bytes32[] calldata proof
    ) private pure {
        bytes32 computed = Programs.root(header);
        if (computed != question.programRoot) revert IVerde.WrongProgram(computed, question.programRoot);
        Merkle.verify(header.nodesRoot, Programs.leaf(node), question.node, Merkle.height(header.nodes), proof);
    }

    /// @dev The tiles differ first at leaf `position`, in trial.nodeA and trial.nodeB.
    function _closeTiles(address verde, uint256 matchId, Trial storage trial, uint256 position) private {
        if (position * TILE_BYTES >= uint256(trial.elements) * trial.itemSize) {
            // A missing tile is zero.
            _rule(verde, matchId, trial, _standing(trial.nodeA == 0, trial.nodeB == 0));
            return;
        }
        trial.stage = Stage.TileA;
        trial.turn = IVerde.Side.A;
    }

    /// @dev The traces differ first at leaf `trial.position`.
    function _closeInstructions(
        address verde,
        uint256 matchId,
        Trial storage trial,
        bytes32 rootA,
        IVerde.Opening calldata pre
    ) private {
        uint256 position = trial.position;
        bytes32 before = pre.value;
        if (position == 0) {
            _requireEmpty(pre);
            before = RepVM.startHash(trial.element);
        } else {
            Merkle.verify(rootA, before, position - 1, trial.vmHeight, pre.proof);
        }
        _found(verde, matchId, trial, before);
    }

    function _found(address verde, uint256 matchId, Trial storage trial, bytes32 before) private {
        trial.rootA = before;
        trial.stage = Stage.Execute;
        trial.turn = IVerde.Side.A;
        emit InstructionFound(verde, matchId, trial.position, before, trial.nodeA, trial.nodeB);
    }

    /// @dev The hash of the state after the disputed instruction, and the instruction.
    function _successor(
        Trial storage trial,
        Question memory question,
        IVerde.ProgramHeader calldata header,
        IVerde.Node calldata node,
        Witness calldata witness
    ) private view returns (bytes32, uint64 word) {
        if (witness.state.length != RepVM.STATE_BYTES) {
            revert WrongSize(witness.state.length, RepVM.STATE_BYTES);
        }
        bytes memory state = witness.state;
        Merkle.requireRoot(keccak256(state), trial.rootA);
        if (RepVM.halted(state)) return (trial.rootA, 0);
        bytes32 code = keccak256(abi.encode(RepVM.CODE_TYPEHASH, witness.words, witness.codeRoot));
        Merkle.requireRoot(code, node.code);
        uint256 pc = RepVM.pc(state);
        if (pc >= witness.words) {
            RepVM.trap(state);
            return (keccak256(state), 0);
        }
        word = _word(witness, witness.instructions, pc, witness.instructionsProof);
        RepVM.Instruction memory instruction = RepVM.decode(word);
        uint256 value = _value(question, header, node, witness, state, instruction);
        bool last = trial.position == (1 << trial.vmHeight) - 1;
        RepVM.execute(state, instruction, node, value, last);
        return (keccak256(state), word);
    }

    /// @dev Word `index` of the image, out of the four that hold it.
    function _word(Witness calldata witness, bytes32 four, uint256 index, bytes32[] calldata proof)
        private
        pure
        returns (uint64)
    {
        bytes32 leaf = keccak256(abi.encode(four));
        Merkle.verify(witness.codeRoot, leaf, index / 4, Merkle.height((witness.words + 3) / 4), proof);
        return uint64(uint256(four) >> (64 * (3 - index % 4)));
    }

    /// @dev What the instruction reads from outside its state: an element of an input, or a word of the image.
    function _value(
        Question memory question,
        IVerde.ProgramHeader calldata header,
        IVerde.Node calldata node,
        Witness calldata witness,
        bytes memory state,
        RepVM.Instruction memory instruction
    ) private pure returns (uint256) {
        (RepVM.Need what, uint256 tensor, uint256 index) = RepVM.need(state, instruction, node, witness.words);
        if (what == RepVM.Need.Nothing) return 0;
        if (what == RepVM.Need.Word) return _word(witness, witness.constants, index, witness.constantsProof);
        IVerde.Input calldata ref = node.inputs[tensor];
        Programs.Context memory context = Programs.Context({
            traceRoot: question.traceRoot,
            node: question.node,
            preState: question.preState,
            dataRoot: question.dataRoot,
            batchCount: question.batchCount,
            step: question.step
        });
        Programs.verifyInput(context, header, ref, witness.input);
        uint256 size = RepVM.itemSize(ref.dtype);
        uint256 tiles = (RepVM.count(ref.shape) * size + TILE_BYTES - 1) / TILE_BYTES;
        uint256 offset = index * size;
        if (witness.tile.length != TILE_BYTES) revert WrongSize(witness.tile.length, TILE_BYTES);
        Merkle.verify(
            witness.input.value, keccak256(witness.tile), offset / TILE_BYTES, Merkle.height(tiles), witness.tileProof
        );
        return _little(witness.tile, offset % TILE_BYTES, size);
    }

    function _standing(bool a, bool b) private pure returns (Ruling) {
        return a ? Ruling.AWins : b ? Ruling.BWins : Ruling.BothLose;
    }

    function _rule(address verde, uint256 matchId, Trial storage trial, Ruling ruling) private {
        trial.stage = Stage.Done;
        trial.ruling = ruling;
        emit Ruled(verde, matchId, ruling, uint40(block.timestamp));
        _ruled(verde, matchId, ruling);
    }
}
