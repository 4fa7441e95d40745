// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IEvmReferee} from "../../contracts/interfaces/IEvmReferee.sol";
import {IMulticall} from "../../contracts/interfaces/IMulticall.sol";
import {IReferee} from "../../contracts/interfaces/IReferee.sol";
import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {RepVM} from "../../contracts/libraries/RepVM.sol";
import {BaseTest} from "./Base.t.sol";
import {Trees} from "./utils/Trees.sol";
import {Machine} from "./utils/Trials.sol";

/// @notice What a whole match costs, as transactions (tests/contracts/snapshots/matches.json): 2^20 steps in 2^10 segments, 2^14 nodes, an output of
/// 2^24 elements, a run of 2^13 states. Half of the bits of every index are set.
/// forge-config: default.isolate = true
contract MatchGasTest is BaseTest {
    using Trees for Trees.Tree;

    uint256 internal constant SEGMENT = 341; // of 2^10, and the step in it
    uint256 internal constant NODE = 5461; // of 2^14
    uint256 internal constant NODES = 2 ** 14;
    uint256 internal constant TILE = 21845; // of 2^16
    uint256 internal constant OFFSET = 4 * 77; // in the tile
    uint256 internal constant COLUMNS = 2 ** 10;
    uint256 internal constant STATES = 2 ** 13;

    /// @dev Trees of both sides by level: checkpoints, steps, operators, tiles, states; and where they part.
    struct Game {
        Trees.Tree[2][5] trees;
        uint256[5] at;
        Trees.Tree nodes;
        Trees.Tree image;
        Trees.Tree[2] inputs;
        Trees.Tree state;
        IVerde.Node node;
        IVerde.ProgramHeader header;
        uint64[] words;
        bytes[] states;
        bytes[2] tiles;
        bytes[2] inputTiles;
        uint256[2] inputPlaces;
        uint64[2] values;
        uint256 arityBits;
    }

    IEvmReferee internal trials;
    Machine internal machine;
    bytes32[] internal none;
    bytes[] internal batch;
    string internal mode;
    uint256 internal total;
    uint256 internal sent;

    function setUp() public override {
        super.setUp();
        trials = IEvmReferee(deployCode("EvmReferee.sol:EvmReferee"));
        machine = new Machine();
    }

    // ---------------------------------------------------------------- The world

    function _filler(string memory what, uint256 n) internal pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](n);
        for (uint256 i = 0; i < n; i++) {
            leaves[i] = keccak256(abi.encode(what, i));
        }
    }

    /// @dev Both sides' trees of `n` leaves: equal left of `at`, different from there on.
    function _part(Game memory g, uint256 level, uint256 n, uint256 at, bytes32[2] memory leaf, bytes32 before)
        internal
        pure
    {
        for (uint256 side = 0; side < 2; side++) {
            bytes32[] memory leaves = _filler("leaf", n);
            for (uint256 i = at; i < n; i++) {
                leaves[i] = keccak256(abi.encode(side, i));
            }
            leaves[at] = leaf[side];
            if (before != 0) leaves[at - 1] = before;
            if (level == 2) leaves[0] = g.inputs[0].root();
            g.trees[level][side] = Trees.build(leaves);
        }
        g.at[level] = at;
    }

    function _roots(Game memory g, uint256 level) internal pure returns (bytes32[2] memory roots) {
        return [g.trees[level][0].root(), g.trees[level][1].root()];
    }

    function _lasts(Game memory g, uint256 level) internal pure returns (bytes32[2] memory leaves) {
        uint256 last = 2 ** g.trees[level][0].height - 1;
        return [g.trees[level][0].leaf(last), g.trees[level][1].leaf(last)];
    }

    function _bytes(string memory what) internal pure returns (bytes memory data) {
        return abi.encodePacked(_filler(what, 32));
    }

    function _build(uint256 arityBits) internal view returns (Game memory g) {
        g.arityBits = arityBits;
        string memory json = vm.readFile("tests/vectors/trials.json");
        g.node = abi.decode(vm.parseJsonBytes(json, ".cases[0].node"), (IVerde.Node));
        bytes32[] memory words = vm.parseJsonBytes32Array(json, ".cases[0].words");
        g.words = new uint64[](words.length);
        for (uint256 i = 0; i < words.length; i++) {
            g.words[i] = uint64(uint256(words[i]));
        }
        // A row is added to every row of a matrix.
        (g.node.shape[0], g.node.shape[1]) = (uint64(2 ** 24 / COLUMNS), uint64(COLUMNS));
        (g.node.inputs[0].shape[0], g.node.inputs[0].shape[1]) = (g.node.shape[0], g.node.shape[1]);
        g.node.inputs[1].shape[0] = uint64(COLUMNS);
        (g.node.tileHeight, g.node.vmHeight) = (16, 13);
        _buildInputs(g);
        _run(g);
        _buildProgram(g);
        _buildLevels(g);
    }

    function _buildInputs(Game memory g) internal pure {
        g.inputPlaces = [TILE, ((TILE * 256 + OFFSET / 4) % COLUMNS) / 256];
        for (uint256 k = 0; k < 2; k++) {
            g.inputTiles[k] = _bytes(k == 0 ? "matrix" : "row");
            bytes32[] memory leaves = _filler("input", k == 0 ? 2 ** 16 : COLUMNS / 256);
            leaves[g.inputPlaces[k]] = keccak256(g.inputTiles[k]);
            g.inputs[k] = Trees.build(leaves);
        }
        bytes32[] memory slots = _filler("slot", 2);
        slots[1] = g.inputs[1].root();
        g.state = Trees.build(slots);
    }

    function _run(Game memory g) internal view {
        g.states = new bytes[](100);
        bytes memory state = machine.start(TILE * 256 + OFFSET / 4);
        uint256 n = 0;
        while (!RepVM.halted(state)) {
            g.states[n++] = state;
            uint64 word = g.words[RepVM.pc(state)];
            (RepVM.Need what, uint256 tensor, uint256 index) = machine.need(state, word, g.node, g.words.length);
            uint256 value = 0;
            if (what == RepVM.Need.Word) value = g.words[index];
            if (what == RepVM.Need.Element) {
                // The last load is what the sides differ on.
                g.at[4] = n - 1;
                value = machine.little(g.inputTiles[tensor], 4 * index % 1024, 4);
            }
            state = machine.execute(state, word, g.node, value, false);
        }
        g.states[n] = state;
        // Every output differs from others; bytes 32 to 40 of a halted state are not the output, so it is found by its hash.
        g.values[0] = _output(state);
        g.values[1] = g.values[0] ^ 1;
        bytes32[2] memory after_ = [keccak256(g.states[g.at[4] + 1]), keccak256("wrong")];
        _part(g, 4, STATES, g.at[4], after_, g.at[4] == 0 ? bytes32(0) : keccak256(g.states[g.at[4]]));
        for (uint256 side = 0; side < 2; side++) {
            bytes32[] memory leaves = new bytes32[](STATES);
            for (uint256 i = 0; i < STATES; i++) {
                leaves[i] = i < g.at[4] ? keccak256(g.states[i + 1]) : g.trees[4][side].leaf(i);
            }
            leaves[STATES - 1] = RepVM.haltedHash(g.values[side]);
            g.trees[4][side] = Trees.build(leaves);
        }
    }

    /// @dev The output in a halted state, which tells nothing else.
    function _output(bytes memory state) internal pure returns (uint64) {
        for (uint256 at = 0; at + 8 <= state.length; at += 8) {
            uint64 value = uint64(bytes8(_word(state, at)));
            if (value != 0 && RepVM.haltedHash(value) == keccak256(state)) return value;
        }
        revert("no output");
    }

    function _word(bytes memory data, uint256 at) internal pure returns (bytes32 word) {
        assembly {
            word := mload(add(add(data, 0x20), at))
        }
    }

    function _buildProgram(Game memory g) internal pure {
        bytes32[] memory fours = new bytes32[]((g.words.length + 3) / 4);
        for (uint256 i = 0; i < fours.length; i++) {
            fours[i] = keccak256(abi.encode(_four(g, i)));
        }
        g.image = Trees.build(fours);
        bytes32[] memory leaves = _filler("node", NODES);
        leaves[NODE] = keccak256(abi.encode(g.node));
        g.nodes = Trees.build(leaves);
        g.header.computeNodes = uint32(NODES - 1);
        g.header.nodes = uint32(NODES);
        g.header.slots = 2;
        g.header.batchTensors = 2;
        g.header.constants = 3;
        g.header.nodesRoot = g.nodes.root();
        g.header.slotsHash = keccak256("slots");
        g.header.batchHash = keccak256("batch");
        g.header.constantsRoot = keccak256("constants root");
        g.header.constantsHash = keccak256("constants");
    }

    function _four(Game memory g, uint256 leaf) internal pure returns (bytes32) {
        uint256 four = 0;
        for (uint256 k = 0; k < 4; k++) {
            four = four * 2 ** 64 + (4 * leaf + k < g.words.length ? g.words[4 * leaf + k] : 0);
        }
        return bytes32(four);
    }

    function _buildLevels(Game memory g) internal pure {
        for (uint256 side = 0; side < 2; side++) {
            g.tiles[side] = _bytes("output");
            for (uint256 k = 0; k < 4; k++) {
                g.tiles[side][OFFSET + k] = bytes1(uint8(g.values[side] >> (8 * k)));
            }
        }
        _part(g, 3, 2 ** 16, TILE, [keccak256(g.tiles[0]), keccak256(g.tiles[1])], 0);
        _part(g, 2, NODES, NODE, _roots(g, 3), 0);
        _part(g, 1, 2 ** 10, SEGMENT, _lasts(g, 2), g.state.root());
        _part(g, 0, 2 ** 10, SEGMENT, _lasts(g, 1), 0);
    }

    function _task(Game memory g, IReferee referee, bytes memory refereeConfig) internal returns (uint256 taskId) {
        vm.warp(START);
        IVerde.TaskParams memory params = _params();
        params.program = g.header;
        (params.steps, params.interval, params.arityBits) = (2 ** 20, 2 ** 10, uint8(g.arityBits));
        (params.referee, params.refereeConfig) = (referee, refereeConfig);
        taskId = _create(params);
        _commitSide(g, taskId, alice, 0);
        _commitSide(g, taskId, bob, 1);
        _toReveal(taskId);
        _revealSide(g, taskId, alice, 0);
        _revealSide(g, taskId, bob, 1);
        _toChallenge(taskId);
    }

    function _commitSide(Game memory g, uint256 taskId, address who, uint256 side) internal {
        bytes32 commitment = _commitment(taskId, who, g.trees[0][side].root(), _lasts(g, 0)[side]);
        vm.prank(who);
        verde.commit{value: 2 ether}(taskId, commitment);
    }

    function _revealSide(Game memory g, uint256 taskId, address who, uint256 side) internal {
        bytes32[] memory proof = g.trees[0][side].prove(2 ** 10 - 1);
        vm.prank(who);
        verde.reveal(taskId, g.trees[0][side].root(), _lasts(g, 0)[side], SALT, proof);
    }

    // ---------------------------------------------------------------- Calls

    function _stride(Game memory g, uint256 rest) internal pure returns (uint256) {
        return g.arityBits < rest ? g.arityBits : rest;
    }

    /// @dev The move `m` levels down from height `rest`.
    function _move(Game memory g, uint256 level, uint256 rest, uint256 m, IVerde.Side mover)
        internal
        pure
        returns (Move memory move)
    {
        (Trees.Tree memory a, Trees.Tree memory b) = (g.trees[level][0], g.trees[level][1]);
        uint256 place = g.at[level] >> (rest - m);
        uint256 depth = a.height - rest;
        (move.m, move.index) = (uint8(m), uint64(place % 2 ** m));
        (move.a, move.b) = (a.node(depth + m, place), b.node(depth + m, place));
        move.siblings = a.siblings(b, depth, place >> m, m, place % 2 ** m);
        if (m < rest) {
            Trees.Tree memory own = mover == IVerde.Side.A ? a : b;
            move.children = own.children(depth + m, place, _stride(g, rest - m));
        } else if (level != 2 && level != 3) {
            move.pre = IVerde.Opening(a.leaf(g.at[level] - 1), a.prove(g.at[level] - 1));
        }
    }

    function _advance(Game memory g, uint256 matchId, uint256 level, uint256 rest, uint256 m, IVerde.Side mover)
        internal
        view
        returns (bytes memory)
    {
        return _encode(matchId, level, _move(g, level, rest, m, mover));
    }

    function _encode(uint256 matchId, uint256 level, Move memory v) internal view returns (bytes memory) {
        bytes memory rest = abi.encode(v.m, v.index, v.a, v.b, v.siblings, v.children, v.pre);
        // The arguments follow one or two static words, which moves the offsets of the three that are dynamic.
        uint256 more = level < 3 ? 32 : 64;
        for (uint256 k = 4; k < 7; k++) {
            assembly {
                let at := add(add(rest, 0x20), mul(k, 0x20))
                mstore(at, add(mload(at), more))
            }
        }
        if (level < 3) return bytes.concat(abi.encodeWithSelector(IVerde.advance.selector, matchId), rest);
        return bytes.concat(abi.encodeWithSelector(IEvmReferee.advance.selector, verde, matchId), rest);
    }

    function _open(Game memory g, uint256 matchId, uint256 level) internal view returns (bytes memory) {
        bytes32[] memory children = g.trees[level][0].children(0, 0, _stride(g, g.trees[level][0].height));
        if (level < 3) return abi.encodeCall(IVerde.open, (matchId, children));
        return abi.encodeCall(IEvmReferee.open, (address(verde), matchId, children));
    }

    function _post(Game memory g, uint256 matchId, uint256 level, uint256 side, bool withChildren)
        internal
        view
        returns (bytes memory)
    {
        Trees.Tree memory tree = g.trees[level][side];
        bytes32[] memory children = withChildren ? tree.children(0, 0, _stride(g, tree.height)) : none;
        bytes32[] memory proof = tree.prove(2 ** tree.height - 1);
        if (level < 3) return abi.encodeCall(IVerde.post, (matchId, tree.root(), proof, children));
        return abi.encodeCall(IEvmReferee.post, (address(verde), matchId, tree.root(), proof, children));
    }

    function _begin(Game memory g, uint256 matchId) internal view returns (bytes memory) {
        return abi.encodeCall(IEvmReferee.begin, (address(verde), matchId, g.header, g.node, g.nodes.prove(NODE)));
    }

    function _show(Game memory g, uint256 matchId, bool both) internal view returns (bytes memory) {
        return
            abi.encodeCall(IEvmReferee.showTiles, (address(verde), matchId, g.tiles[0], both ? g.tiles[1] : bytes("")));
    }

    function _execute(Game memory g, uint256 matchId) internal view returns (bytes memory) {
        IEvmReferee.Witness memory w;
        w.state = g.states[g.at[4]];
        w.words = g.words.length;
        w.codeRoot = g.image.root();
        uint256 pc = RepVM.pc(w.state);
        w.instructions = _four(g, pc / 4);
        w.instructionsProof = g.image.prove(pc / 4);
        (w.input.batchProof, w.constantsProof) = (none, none);
        (, uint256 tensor,) = machine.need(w.state, g.words[pc], g.node, g.words.length);
        w.input.value = g.inputs[tensor].root();
        w.input.proof = tensor == 0 ? g.trees[2][0].prove(0) : g.state.prove(1);
        w.tile = g.inputTiles[tensor];
        w.tileProof = g.inputs[tensor].prove(g.inputPlaces[tensor]);
        return abi.encodeCall(IEvmReferee.execute, (address(verde), matchId, g.header, g.node, g.nodes.prove(NODE), w));
    }

    /// @dev Sends what is in `batch`, as one transaction.
    function _send(address who, address to, string memory name) internal {
        bytes memory data = batch.length == 1 ? batch[0] : abi.encodeCall(IMulticall.multicall, (batch));
        delete batch;
        vm.prank(who);
        (bool ok, bytes memory result) = to.call(data);
        uint256 gas = vm.lastCallGas().gasTotalUsed;
        if (!ok) {
            assembly ("memory-safe") {
                revert(add(result, 0x20), mload(result))
            }
        }
        total += gas;
        sent++;
        vm.snapshotValue("matches", string.concat(mode, vm.toString(sent), ". ", name), gas);
    }

    function _start(Game memory g, string memory what) internal {
        mode = string.concat(what, ", ", vm.toString(2 ** g.arityBits), " children: ");
        (total, sent) = (0, 0);
    }

    function _sum(string memory name) internal returns (uint256) {
        vm.snapshotValue("matches", string.concat(mode, name), total);
        return total;
    }

    // ---------------------------------------------------------------- At once

    /// Six transactions, where each side's trees are at hand.
    function _playAtOnce(Game memory g) internal returns (uint256) {
        uint256 taskId = _task(g, trials, "");
        uint256 id = verde.matchCount() + 1;
        _start(g, "at once");
        batch.push(abi.encodeCall(IVerde.pair, (taskId)));
        batch.push(_advance(g, id, 0, 10, 10, IVerde.Side.A));
        batch.push(_post(g, id, 1, 0, false));
        _send(alice, address(verde), "A: pair, advance, post");
        batch.push(_post(g, id, 1, 1, false));
        batch.push(_advance(g, id, 1, 10, 10, IVerde.Side.A));
        _send(bob, address(verde), "B: post, advance");
        batch.push(_post(g, id, 2, 0, false));
        _send(alice, address(verde), "A: post");
        batch.push(_post(g, id, 2, 1, false));
        batch.push(_advance(g, id, 2, 14, 14, IVerde.Side.A));
        _send(bob, address(verde), "B: post, advance");
        _sum("to the operator");
        batch.push(_begin(g, id));
        batch.push(_advance(g, id, 3, 16, 16, IVerde.Side.A));
        batch.push(_show(g, id, true));
        batch.push(_post(g, id, 4, 0, false));
        _send(alice, address(trials), "A: begin, advance, showTiles, post");
        batch.push(_post(g, id, 4, 1, false));
        batch.push(_advance(g, id, 4, 13, 13, IVerde.Side.A));
        batch.push(_execute(g, id));
        _send(bob, address(trials), "B: post, advance, execute");
        assertEq(verde.getMatch(id).outcome, IVerde.Outcome.AWins);
        return _sum("to the instruction");
    }

    /// Arity does not matter: nothing is published.
    function test_GasAtOnce() public {
        assertLe(_playAtOnce(_build(4)), 1_150_000);
    }

    // ---------------------------------------------------------------- Move by move

    /// @dev The moves of a level, alternating, from `rest` down; the last one may go with what follows (left in `batch`).
    function _moves(Game memory g, uint256 id, uint256 level, IVerde.Side mover, bool keepLast)
        internal
        returns (IVerde.Side)
    {
        address to = level < 3 ? address(verde) : address(trials);
        for (uint256 rest = g.trees[level][0].height; rest > 0;) {
            uint256 m = _stride(g, rest);
            batch.push(_advance(g, id, level, rest, m, mover));
            rest -= m;
            if (rest == 0 && keepLast && mover == IVerde.Side.A) return mover;
            _send(mover == IVerde.Side.A ? alice : bob, to, "advance");
            mover = mover == IVerde.Side.A ? IVerde.Side.B : IVerde.Side.A;
        }
        return mover;
    }

    /// Nobody serves anything: what is not on the chain is not known.
    function _playMoves(Game memory g, bool toInstruction) internal returns (uint256) {
        uint256 taskId = toInstruction ? _task(g, trials, "") : _task(g, committee, config);
        uint256 id = verde.matchCount() + 1;
        _start(g, "move by move");
        batch.push(abi.encodeCall(IVerde.pair, (taskId)));
        batch.push(_open(g, id, 0));
        _send(alice, address(verde), "A: pair, open");
        _moves(g, id, 0, IVerde.Side.B, false);
        for (uint256 level = 1; level < 3; level++) {
            batch.push(_post(g, id, level, 0, false));
            _send(alice, address(verde), "A: post");
            batch.push(_post(g, id, level, 1, true));
            _send(bob, address(verde), "B: post, children");
            _moves(g, id, level, IVerde.Side.A, false);
        }
        if (!toInstruction) {
            batch.push(abi.encodeCall(IVerde.judge, (id, _verdict(id, g.trees[2][0].leaf(NODE), false))));
            _send(anyone, address(verde), "judge, 2 of 3");
            assertEq(verde.getMatch(id).outcome, IVerde.Outcome.AWins);
            return _sum("to the operator");
        }
        batch.push(_begin(g, id));
        batch.push(_open(g, id, 3));
        _send(alice, address(trials), "A: begin, open");
        _moves(g, id, 3, IVerde.Side.B, true);
        batch.push(_show(g, id, false));
        _send(alice, address(trials), "A: (advance,) showTiles");
        batch.push(_show(g, id, true));
        _send(bob, address(trials), "B: showTiles");
        batch.push(_post(g, id, 4, 0, false));
        _send(alice, address(trials), "A: post");
        batch.push(_post(g, id, 4, 1, true));
        _send(bob, address(trials), "B: post, children");
        _moves(g, id, 4, IVerde.Side.A, true);
        batch.push(_execute(g, id));
        _send(alice, address(trials), "A: (advance,) execute");
        assertEq(verde.getMatch(id).outcome, IVerde.Outcome.AWins);
        return _sum("to the instruction");
    }

    function test_GasMoveByMoveOf16() public {
        Game memory g = _build(4);
        assertLe(_playMoves(g, false), 1_400_000);
        assertLe(_playMoves(g, true), 2_500_000);
    }

    function test_GasMoveByMoveOf32() public {
        Game memory g = _build(5);
        assertLe(_playMoves(g, false), 1_300_000);
        assertLe(_playMoves(g, true), 2_500_000);
    }
}
