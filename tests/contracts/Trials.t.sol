// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {Test} from "forge-std/Test.sol";
import {IEvmReferee} from "../../contracts/interfaces/IEvmReferee.sol";
import {IReferee, Question, Ruling} from "../../contracts/interfaces/IReferee.sol";
import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {RepVM} from "../../contracts/libraries/RepVM.sol";
import {Trees} from "./utils/Trees.sol";
import {Asker, Machine, Tiles} from "./utils/Trials.sol";

/// @notice A trial with real operators (tests/vectors/trials.json): an honest side and a liar of a test's choice.
abstract contract TrialBase is Test {
    using Trees for Trees.Tree;

    uint40 internal constant START = 1_700_000_000;
    uint40 internal constant ALLOWANCE = 10 minutes;
    uint40 internal constant GRACE = 1 minutes;
    uint40 internal constant BUILD = 20 minutes;
    uint256 internal constant MATCH = 7;
    uint256 internal constant NODE = 1;
    uint256 internal constant NODES = 3;

    /// @dev One side: its output's bytes, the tile tree (whose last leaves a liar may spoil), and its trace.
    struct Player {
        address account;
        bytes output;
        Trees.Tree tiles;
        Trees.Tree trace;
        uint64 value;
    }

    struct Case {
        string name;
        bytes encoded; // the node
        uint64[] words;
        bytes[] inputs;
        bytes output;
        uint256 element;
        uint64 value;
        uint256 instructions;
        bytes32 traceRoot;
    }

    IEvmReferee internal referee;
    Asker internal asker;
    address internal court; // who asks, and about which match
    uint256 internal matchId = MATCH;
    Machine internal machine;
    string internal json;
    Case internal c;
    Player internal sideA;
    Player internal sideB;
    bytes[] internal states; // of the honest run
    bool internal oneShot;
    bool internal spareOpening = true; // whether B posts its children
    IVerde.ProgramHeader internal header;
    Trees.Tree internal nodes;
    bytes32[] internal none;
    IVerde.Opening internal empty;

    function setUp() public virtual {
        vm.warp(START);
        json = vm.readFile("tests/vectors/trials.json");
        machine = new Machine();
        asker = new Asker();
        court = address(asker);
        referee = IEvmReferee(deployCode("EvmReferee.sol:EvmReferee"));
    }

    // ---------------------------------------------------------------- The world

    function _load(uint256 index) internal {
        string memory at_ = string.concat(".cases[", vm.toString(index), "]");
        c.name = vm.parseJsonString(json, string.concat(at_, ".name"));
        c.encoded = vm.parseJsonBytes(json, string.concat(at_, ".node"));
        bytes32[] memory words = vm.parseJsonBytes32Array(json, string.concat(at_, ".words"));
        delete c.words;
        for (uint256 i = 0; i < words.length; i++) {
            c.words.push(uint64(uint256(words[i])));
        }
        c.inputs = vm.parseJsonBytesArray(json, string.concat(at_, ".inputs"));
        c.output = vm.parseJsonBytes(json, string.concat(at_, ".output"));
        c.element = vm.parseJsonUint(json, string.concat(at_, ".element"));
        c.value = uint64(vm.parseJsonUint(json, string.concat(at_, ".value")));
        c.instructions = vm.parseJsonUint(json, string.concat(at_, ".instructions"));
        c.traceRoot = vm.parseJsonBytes32(json, string.concat(at_, ".traceRoot"));
        states = machine.run(c.words, _node(), c.inputs, c.element);
    }

    function _node() internal view returns (IVerde.Node memory) {
        return abi.decode(c.encoded, (IVerde.Node));
    }

    function _cases() internal view returns (uint256 n) {
        while (vm.keyExistsJson(json, string.concat(".cases[", vm.toString(n), "]"))) n++;
    }

    /// @dev Root of input `k` of the case, or filler.
    function _inputRoot(uint256 k) internal view returns (bytes32) {
        return k < c.inputs.length ? Tiles.tree(c.inputs[k]).root() : keccak256(abi.encode("filler", k));
    }

    function _pair(bytes32 left, bytes32 right) internal pure returns (Trees.Tree memory) {
        bytes32[] memory leaves = new bytes32[](2);
        (leaves[0], leaves[1]) = (left, right);
        return Trees.build(leaves, 1);
    }

    function _state() internal view returns (Trees.Tree memory) {
        return _pair(keccak256("slot 0"), _inputRoot(1));
    }

    function _batch() internal view returns (Trees.Tree memory) {
        return _pair(_inputRoot(2), keccak256("tensor 1"));
    }

    function _data() internal view returns (Trees.Tree memory) {
        return _pair(keccak256("batch 0"), _batch().root());
    }

    function _constants() internal view returns (Trees.Tree memory) {
        return _pair(_inputRoot(3), keccak256("constant 1"));
    }

    /// @dev The step's trace as A has it. Operators with a fifth input read the node again, with other bytes: the fourth input's
    /// successor is node 0 too, so tests take inputs 0 to 3 only for loads.
    function _operators() internal view returns (Trees.Tree memory) {
        bytes32[] memory leaves = new bytes32[](NODES);
        leaves[0] = _inputRoot(0);
        leaves[NODE] = sideA.tiles.root();
        leaves[2] = _later();
        return Trees.build(leaves);
    }

    /// @dev The last leaf of A's trace, the step's state.
    function _later() internal view virtual returns (bytes32) {
        return keccak256("later");
    }

    function _image() internal view returns (Trees.Tree memory) {
        bytes32[] memory leaves = new bytes32[]((c.words.length + 3) / 4);
        for (uint256 i = 0; i < leaves.length; i++) {
            leaves[i] = keccak256(abi.encode(_four(i)));
        }
        return Trees.build(leaves);
    }

    function _four(uint256 leaf) internal view returns (bytes32) {
        uint256 four = 0;
        for (uint256 k = 0; k < 4; k++) {
            uint256 index = 4 * leaf + k;
            four = four * 2 ** 64 + (index < c.words.length ? c.words[index] : 0);
        }
        return bytes32(four);
    }

    function _describeProgram() internal {
        bytes32[] memory leaves = new bytes32[](NODES);
        leaves[0] = keccak256("node 0");
        leaves[NODE] = keccak256(abi.encode(_node()));
        leaves[2] = keccak256("node 2");
        nodes = Trees.build(leaves);
        header.computeNodes = 2;
        header.nodes = uint32(NODES);
        header.slots = 2;
        header.batchTensors = 2;
        header.constants = 2;
        header.nodesRoot = nodes.root();
        header.constantsRoot = _constants().root();
    }

    function _ask() internal {
        _describeProgram();
        Question memory question;
        question.verde = address(asker);
        question.taskId = 3;
        question.matchId = matchId;
        question.programRoot = keccak256(abi.encode(keccak256("VerdeProgram(RO-1,1)"), header));
        question.dataRoot = _data().root();
        question.batchCount = 2;
        question.preState = _state().root();
        question.step = 5;
        question.node = uint32(NODE);
        question.traceRoot = _operators().root();
        question.rootA = sideA.tiles.root();
        question.rootB = sideB.tiles.root();
        question.configHash = keccak256("");
        question.since = uint40(block.timestamp);
        question.window = 40 minutes;
        question.clockA = ALLOWANCE;
        question.clockB = ALLOWANCE - 1;
        question.grace = GRACE;
        question.buildWindow = BUILD;
        question.arityBits = 2;
        question.accountA = sideA.account;
        question.accountB = sideB.account;
        asker.ask(IReferee(address(referee)), question);
    }

    // ---------------------------------------------------------------- Players

    function _honestTrace() internal view returns (Trees.Tree memory) {
        bytes32[] memory leaves = new bytes32[](2 ** uint256(_node().vmHeight));
        for (uint256 i = 0; i < leaves.length; i++) {
            leaves[i] = keccak256(states[i < states.length ? i : states.length - 1]);
        }
        return Trees.build(leaves);
    }

    function _honest() internal view returns (Player memory p) {
        p.output = c.output;
        p.tiles = Tiles.tree(c.output);
        p.trace = _honestTrace();
        p.value = c.value;
        p.account = address(0xA11CE);
    }

    /// @dev Says `value` of the case's element; its states are garbage from instruction `from` on, but for the last, which halts with it.
    function _liar(uint64 value, uint256 from) internal view returns (Player memory p) {
        p = _honest();
        p.account = address(0xB0B);
        uint256 size = RepVM.itemSize(_node().dtype);
        bytes memory output = bytes.concat(c.output);
        for (uint256 k = 0; k < size; k++) {
            output[c.element * size + k] = bytes1(uint8(value >> (8 * k)));
        }
        p.output = output;
        p.tiles = Tiles.tree(output);
        p.value = value;
        uint256 n = 2 ** uint256(_node().vmHeight);
        bytes32[] memory leaves = new bytes32[](n);
        for (uint256 i = 0; i < n; i++) {
            leaves[i] = i < from ? p.trace.leaf(i) : keccak256(abi.encode("garbage", value, i));
        }
        leaves[n - 1] = machine.haltedHash(value);
        p.trace = Trees.build(leaves);
    }

    /// @dev The tiles of case 0, and something where there is none: it has five in a tree of eight.
    function _spoiled(bytes32 salt) internal view returns (Trees.Tree memory) {
        bytes32[] memory leaves = new bytes32[](7);
        for (uint256 i = 0; i < 5; i++) {
            leaves[i] = keccak256(Tiles.tile(c.output, i));
        }
        leaves[6] = keccak256(abi.encode(salt));
        return Trees.build(leaves);
    }

    function _play(Player memory a, Player memory b) internal {
        (sideA, sideB) = (a, b);
        _ask();
        _playOut();
    }

    function _trial() internal view returns (IEvmReferee.Trial memory) {
        return referee.getTrial(court, matchId);
    }

    /// @dev Makes a call of the referee, which must succeed.
    function _do(bytes memory call) internal {
        (bool ok, bytes memory result) = address(referee).call(call);
        if (!ok) {
            assembly ("memory-safe") {
                revert(add(result, 0x20), mload(result))
            }
        }
    }

    function _beginning() internal view returns (bytes memory) {
        return abi.encodeCall(IEvmReferee.begin, (court, matchId, header, _node(), nodes.prove(NODE)));
    }

    function _begin() internal {
        _do(_beginning());
    }

    function _stride(uint256 rest) internal view returns (uint256) {
        uint256 bits = _trial().arityBits;
        return bits < rest ? bits : rest;
    }

    struct Move {
        uint8 m;
        uint64 index;
        bytes32 a;
        bytes32 b;
        bytes32[] siblings;
        bytes32[] children;
        IVerde.Opening pre;
    }

    function _move(uint256 m) internal view returns (Move memory move) {
        IEvmReferee.Trial memory t = _trial();
        bool over = t.stage >= IEvmReferee.Stage.OpenTrace;
        Trees.Tree memory a = over ? sideA.trace : sideA.tiles;
        Trees.Tree memory b = over ? sideB.trace : sideB.tiles;
        move = _moveBetween(a, b, t.rest, t.position, m, t.turn, t.arityBits);
        uint256 position = uint256(t.position) * 2 ** m + move.index;
        if (over && t.rest == m && position > 0) {
            move.pre = IVerde.Opening(a.leaf(position - 1), a.prove(position - 1));
        }
    }

    /// @dev From node `position` at height `rest` down `m` levels; publishes the children of `mover`.
    function _moveBetween(
        Trees.Tree memory a,
        Trees.Tree memory b,
        uint256 rest,
        uint256 position,
        uint256 m,
        IVerde.Side mover,
        uint256 bits
    ) internal pure returns (Move memory move) {
        uint256 depth = a.height - rest;
        uint256 index = a.firstDifference(b, depth, position, m);
        (move.m, move.index) = (uint8(m), uint64(index));
        move.siblings = a.siblings(b, depth, position, m, index);
        position = position * 2 ** m + index;
        (move.a, move.b) = (a.node(depth + m, position), b.node(depth + m, position));
        rest -= m;
        if (rest > 0) {
            Trees.Tree memory own = mover == IVerde.Side.A ? a : b;
            move.children = own.children(depth + m, position, bits < rest ? bits : rest);
        }
    }

    function _moving(Move memory move) internal view returns (bytes memory) {
        return abi.encodeCall(
            IEvmReferee.advance,
            (court, matchId, move.m, move.index, move.a, move.b, move.siblings, move.children, move.pre)
        );
    }

    function _send(Move memory move) internal {
        _do(_moving(move));
    }

    function _opening(Trees.Tree memory tree) internal view returns (bytes memory) {
        return abi.encodeCall(IEvmReferee.open, (court, matchId, tree.children(0, 0, _stride(tree.height))));
    }

    function _posting(IVerde.Side side) internal view returns (bytes memory) {
        Player memory p = side == IVerde.Side.A ? sideA : sideB;
        uint256 height = p.trace.height;
        bytes32[] memory children = new bytes32[](0);
        if (spareOpening && side == IVerde.Side.B && height > 0) children = p.trace.children(0, 0, _stride(height));
        return
            abi.encodeCall(IEvmReferee.post, (court, matchId, p.trace.root(), p.trace.prove(2 ** height - 1), children));
    }

    function _post(IVerde.Side side) internal {
        bytes memory call = _posting(side);
        vm.prank(side == IVerde.Side.A ? sideA.account : sideB.account);
        _do(call);
    }

    /// @dev The state before instruction `n` of the honest run.
    function _before(uint256 n) internal view returns (bytes memory) {
        if (n == 0) return machine.start(c.element);
        return states[n - 1 < states.length ? n - 1 : states.length - 1];
    }

    function _open(Trees.Tree memory tree, uint256 index) internal pure returns (IVerde.HashInput memory opened) {
        opened.value = tree.leaf(index);
        opened.proof = tree.prove(index);
        opened.batchProof = new bytes32[](0);
    }

    function _openInput(uint256 tensor) internal view returns (IVerde.HashInput memory opened) {
        if (tensor % 4 == 0) return _open(_operators(), 0);
        if (tensor % 4 == 1) return _open(_state(), 1);
        if (tensor % 4 == 3) return _open(_constants(), 0);
        opened = _open(_batch(), 0);
        opened.batchRoot = _batch().root();
        opened.batchProof = _data().prove(1);
    }

    /// @dev What the honest side shows to have instruction `n` of its run executed.
    function _witness(uint256 n) internal view returns (IEvmReferee.Witness memory w) {
        w.state = _before(n);
        (w.instructionsProof, w.tileProof, w.constantsProof) = (none, none, none);
        (w.input.proof, w.input.batchProof) = (none, none);
        if (RepVM.halted(w.state)) return w;
        Trees.Tree memory image = _image();
        w.words = c.words.length;
        w.codeRoot = image.root();
        uint256 pc = RepVM.pc(w.state);
        w.instructions = _four(pc / 4);
        w.instructionsProof = image.prove(pc / 4);
        (RepVM.Need what, uint256 tensor, uint256 index) = machine.need(w.state, c.words[pc], _node(), c.words.length);
        if (what == RepVM.Need.Word) {
            w.constants = _four(index / 4);
            w.constantsProof = image.prove(index / 4);
        } else if (what == RepVM.Need.Element) {
            uint256 place = index * RepVM.itemSize(_node().inputs[tensor].dtype) / Tiles.BYTES;
            w.input = _openInput(tensor);
            w.tile = Tiles.tile(c.inputs[tensor], place);
            w.tileProof = Tiles.tree(c.inputs[tensor]).prove(place);
        }
    }

    function _executing() internal view returns (bytes memory) {
        IEvmReferee.Witness memory w = _witness(_trial().position);
        return abi.encodeCall(IEvmReferee.execute, (court, matchId, header, _node(), nodes.prove(NODE), w));
    }

    function _execute() internal {
        _do(_executing());
    }

    function _showing(bool both) internal view returns (bytes memory) {
        uint256 p = _trial().position;
        bytes memory b = both ? Tiles.tile(sideB.output, p) : bytes("");
        return abi.encodeCall(IEvmReferee.showTiles, (court, matchId, Tiles.tile(sideA.output, p), b));
    }

    /// @dev The due side's response, whatever it is, and who must send it, if that matters.
    function _response() internal view returns (bytes memory call, address sender) {
        IEvmReferee.Trial memory t = _trial();
        IEvmReferee.Stage stage = t.stage;
        if (stage == IEvmReferee.Stage.None) return (_beginning(), sender);
        if (stage == IEvmReferee.Stage.TileA) return (_showing(oneShot), sender);
        if (stage == IEvmReferee.Stage.TileB) return (_showing(true), sender);
        if (stage == IEvmReferee.Stage.TraceA) return (_posting(IVerde.Side.A), sideA.account);
        if (stage == IEvmReferee.Stage.TraceB) return (_posting(IVerde.Side.B), sideB.account);
        if (stage == IEvmReferee.Stage.Execute) return (_executing(), sender);
        require(stage != IEvmReferee.Stage.Done, "nobody is due");
        if (stage == IEvmReferee.Stage.Open && !oneShot) return (_opening(sideA.tiles), sender);
        if (stage == IEvmReferee.Stage.OpenTrace && !oneShot) return (_opening(sideA.trace), sender);
        return (_moving(_move(oneShot ? t.rest : _stride(t.rest))), sender);
    }

    function _respond() internal {
        (bytes memory call, address sender) = _response();
        if (sender != address(0)) vm.prank(sender);
        _do(call);
    }

    function _playOut() internal {
        for (uint256 i = 0; i < 200 && _trial().stage != IEvmReferee.Stage.Done; i++) {
            _respond();
        }
        assertEq(_trial().stage, IEvmReferee.Stage.Done);
    }

    function _playTo(IEvmReferee.Stage stage) internal {
        for (uint256 i = 0; i < 200; i++) {
            if (_trial().stage == stage) return;
            _respond();
        }
        revert("the trial does not get there");
    }

    function assertEq(IEvmReferee.Stage a, IEvmReferee.Stage b) internal pure {
        assertEq(uint256(a), uint256(b), "stage");
    }

    function assertEq(Ruling a, Ruling b) internal pure {
        assertEq(uint256(a), uint256(b), "ruling");
    }
}

/// @notice The game below the operator, down to one instruction.
contract TrialsTest is TrialBase {
    using Trees for Trees.Tree;

    /// The machine on chain runs every operator of the vectors as the library does.
    function test_RunsAreThoseOfTheLibrary() public {
        uint256 n = _cases();
        assertEq(n, 9);
        for (uint256 i = 0; i < n; i++) {
            _load(i);
            assertEq(keccak256(abi.encode(_node())), keccak256(c.encoded), c.name);
            assertEq(states.length, c.instructions, c.name);
            assertEq(keccak256(states[states.length - 1]), machine.haltedHash(c.value), c.name);
            assertEq(_honestTrace().root(), c.traceRoot, c.name);
            assertEq(_code(), _node().code, c.name);
        }
    }

    function _code() internal view returns (bytes32) {
        return keccak256(abi.encode(keccak256("RepVM(1)"), c.words.length, _image().root()));
    }

    /// Wherever the liar leaves the run, in every operator, on either side, move by move and at once: it loses.
    function test_LiarsLoseAtEveryInstruction() public {
        uint256[2] memory halves = [uint256(0), 1];
        for (uint256 i = 0; i < _cases(); i++) {
            _load(i);
            uint256 step = c.instructions > 40 ? 11 : 1;
            for (uint256 from = 0; from < c.instructions; from += step) {
                if (_fifthInput(from)) continue;
                for (uint256 k = 0; k < 2; k++) {
                    spareOpening = (from / step) % 3 != 0;
                    this.play(from, halves[k] == 0, (from + k) % 2 == 0);
                }
            }
        }
    }

    /// @dev Inputs beyond the fourth have no place of their own in the tests' trees.
    function _fifthInput(uint256 n) internal view returns (bool) {
        bytes memory state = _before(n);
        uint256 pc = RepVM.pc(state);
        if (RepVM.halted(state)) return false;
        (RepVM.Need what, uint256 tensor,) = machine.need(state, c.words[pc], _node(), c.words.length);
        return what == RepVM.Need.Element && tensor > 3;
    }

    function play(uint256 from, bool liarFirst, bool atOnce) external {
        uint256 snapshot = vm.snapshotState();
        oneShot = atOnce;
        Player memory liar = _liar(c.value ^ 1, from);
        Player memory honest = _honest();
        if (liarFirst) _play(liar, honest);
        else _play(honest, liar);
        IEvmReferee.Trial memory t = _trial();
        Ruling expected = liarFirst ? Ruling.BWins : Ruling.AWins;
        assertEq(t.ruling, expected);
        assertTrue(asker.over());
        assertEq(asker.ruling(), expected);
        assertEq(asker.outputRoot(), 0);
        assertEq(asker.verbs(), t.verbs);
        assertEq(t.element, c.element);
        // Two openings, two tiles, two posts, the execution, and the moves; the beginning is no verb.
        assertLe(t.verbs, 7 + (uint256(_node().tileHeight) + 1) / 2 + (uint256(_node().vmHeight) + 1) / 2);
        vm.revertToState(snapshot);
    }

    /// Both are wrong, in different ways: both lose.
    function test_TwoLiarsLose() public {
        _load(0);
        Player memory a = _liar(c.value ^ 1, 6);
        Player memory b = _liar(c.value ^ 2, 6);
        b.account = address(0xCA);
        _play(a, b);
        assertEq(asker.ruling(), Ruling.BothLose);
    }

    // ---------------------------------------------------------------- Padding

    /// Bytes past the tensor's end are zero: the side that holds another byte loses at its tile.
    function test_BytesPastTheEnd() public {
        _load(0); // 5,000 bytes: 904 of the last tile are real
        for (uint256 k = 0; k < 2; k++) {
            uint256 snapshot = vm.snapshotState();
            Player memory liar = _honest();
            liar.account = address(0xB0B);
            liar.output = bytes.concat(c.output, new bytes(120));
            liar.output[5003] = 0x01;
            liar.tiles = Tiles.tree(liar.output);
            if (k == 0) _play(_honest(), liar);
            else _play(liar, _honest());
            assertEq(_trial().ruling, k == 0 ? Ruling.AWins : Ruling.BWins);
            assertEq(_trial().element, 0);
            vm.revertToState(snapshot);
        }
        Player memory a = _honest();
        a.output = bytes.concat(c.output, hex"01", new bytes(119));
        Player memory b = _honest();
        b.output = bytes.concat(c.output, hex"02", new bytes(119));
        (a.tiles, b.tiles) = (Tiles.tree(a.output), Tiles.tree(b.output));
        _play(a, b);
        assertEq(_trial().ruling, Ruling.BothLose);
    }

    /// Tiles past the tensor's end are missing: the side that holds zero wins at once.
    function test_TilesPastTheEnd() public {
        _load(0); // five tiles in a tree of eight
        for (uint256 k = 0; k < 3; k++) {
            uint256 snapshot = vm.snapshotState();
            Player memory a = _honest();
            Player memory b = _honest();
            if (k != 0) a.tiles = _spoiled("a");
            if (k != 1) b.tiles = _spoiled("b");
            _play(a, b);
            assertEq(_trial().ruling, k == 0 ? Ruling.AWins : k == 1 ? Ruling.BWins : Ruling.BothLose);
            vm.revertToState(snapshot);
        }
    }

    // ---------------------------------------------------------------- Refusals

    /// @dev A call of the referee is refused with this error. Not by expectRevert: before a low-level call that only clears `ok`.
    function _refused(bytes memory call, bytes4 selector) internal {
        (bool ok, bytes memory result) = address(referee).call(call);
        assertFalse(ok, "accepted");
        assertEq(bytes4(result), selector, "refused for another reason");
    }

    function test_BeginNeedsTheNode() public {
        _load(0);
        (sideA, sideB) = (_honest(), _liar(c.value ^ 1, 3));
        _ask();
        bytes32[] memory proof = nodes.prove(NODE);
        IVerde.Node memory other = _node();
        other.vmHeight = 5;
        _refused(
            abi.encodeCall(IEvmReferee.begin, (address(asker), MATCH, header, other, proof)), IVerde.WrongRoot.selector
        );
        IVerde.ProgramHeader memory wrong = header;
        wrong.slots = 3;
        _refused(
            abi.encodeCall(IEvmReferee.begin, (address(asker), MATCH, wrong, _node(), proof)),
            IVerde.WrongProgram.selector
        );
        IEvmReferee stranger = IEvmReferee(deployCode("EvmReferee.sol:EvmReferee"));
        vm.expectRevert(abi.encodeWithSelector(IEvmReferee.NotAsked.selector, address(asker), MATCH));
        stranger.begin(address(asker), MATCH, header, _node(), proof);
        _begin();
        _refused(
            abi.encodeCall(IEvmReferee.begin, (address(asker), MATCH, header, _node(), proof)),
            IEvmReferee.WrongStage.selector
        );
    }

    /// In every stage the verbs of the others are refused.
    function test_VerbsOfOtherStagesAreRefused() public {
        _refuseVerbsOfOtherStages();
        setUp();
        spareOpening = false;
        _refuseVerbsOfOtherStages();
    }

    function _refuseVerbsOfOtherStages() internal {
        _load(0);
        (sideA, sideB) = (_honest(), _liar(c.value ^ 1, 3));
        _ask();
        IEvmReferee.Witness memory w = _witness(0);
        bytes32[] memory proof = nodes.prove(NODE);
        address verde = address(asker);
        for (uint256 i = 0; i < 60; i++) {
            IEvmReferee.Stage s = _trial().stage;
            bytes4 wrong = IEvmReferee.WrongStage.selector;
            if (s != IEvmReferee.Stage.None) {
                _refused(abi.encodeCall(IEvmReferee.begin, (verde, MATCH, header, _node(), proof)), wrong);
            }
            bool opens = s == IEvmReferee.Stage.Open || s == IEvmReferee.Stage.OpenTrace;
            if (!opens) _refused(abi.encodeCall(IEvmReferee.open, (verde, MATCH, none)), wrong);
            if (!opens && s != IEvmReferee.Stage.Elements && s != IEvmReferee.Stage.Instructions) {
                _refused(abi.encodeCall(IEvmReferee.advance, (verde, MATCH, 1, 0, 0, 0, none, none, empty)), wrong);
            }
            if (s != IEvmReferee.Stage.TileA && s != IEvmReferee.Stage.TileB) {
                _refused(abi.encodeCall(IEvmReferee.showTiles, (verde, MATCH, "", "")), wrong);
            }
            if (s != IEvmReferee.Stage.TraceA && s != IEvmReferee.Stage.TraceB) {
                _refused(abi.encodeCall(IEvmReferee.post, (verde, MATCH, 0, none, none)), wrong);
            }
            if (s != IEvmReferee.Stage.Execute) {
                _refused(abi.encodeCall(IEvmReferee.execute, (verde, MATCH, header, _node(), proof, w)), wrong);
            }
            if (s == IEvmReferee.Stage.Done) return;
            _respond();
        }
        revert("the trial does not end");
    }

    function test_TilesAreThoseCommittedTo() public {
        _load(0);
        (sideA, sideB) = (_honest(), _liar(c.value ^ 1, 3));
        _ask();
        _playTo(IEvmReferee.Stage.TileA);
        uint256 p = _trial().position;
        bytes memory a = Tiles.tile(sideA.output, p);
        bytes memory b = Tiles.tile(sideB.output, p);
        address v = address(asker);
        _refused(abi.encodeCall(IEvmReferee.showTiles, (v, MATCH, b, "")), IVerde.WrongRoot.selector);
        _refused(abi.encodeCall(IEvmReferee.showTiles, (v, MATCH, a, a)), IVerde.WrongRoot.selector);
        _refused(
            abi.encodeCall(IEvmReferee.showTiles, (v, MATCH, bytes.concat(a, hex"00"), "")),
            IEvmReferee.WrongSize.selector
        );
        referee.showTiles(v, MATCH, a, "");
        _refused(abi.encodeCall(IEvmReferee.showTiles, (v, MATCH, a, "")), IEvmReferee.WrongSize.selector);
        referee.showTiles(v, MATCH, a, b);
        assertEq(_trial().valueA, c.value);
        assertEq(_trial().valueB, c.value ^ 1);
    }

    /// Posts are bound to their senders, and end in the sender's own value.
    function test_PostsAreBound() public {
        _load(0);
        (sideA, sideB) = (_honest(), _liar(c.value ^ 1, 3));
        _ask();
        _playTo(IEvmReferee.Stage.TraceA);
        bytes memory call =
            abi.encodeCall(IEvmReferee.post, (address(asker), MATCH, sideA.trace.root(), sideA.trace.prove(15), none));
        vm.prank(sideB.account);
        _refused(call, IVerde.WrongSender.selector);
        // A trace that halts with another value, or never halts.
        Trees.Tree memory other = sideB.trace;
        call = abi.encodeCall(IEvmReferee.post, (address(asker), MATCH, other.root(), other.prove(15), none));
        vm.prank(sideA.account);
        _refused(call, IVerde.WrongRoot.selector);
        bytes32[] memory leaves = new bytes32[](16);
        for (uint256 i = 0; i < 16; i++) {
            leaves[i] = keccak256(abi.encode("runs on", i));
        }
        other = Trees.build(leaves);
        call = abi.encodeCall(IEvmReferee.post, (address(asker), MATCH, other.root(), other.prove(15), none));
        vm.prank(sideA.account);
        _refused(call, IVerde.WrongRoot.selector);
        // A's children would tell nobody anything.
        bytes32[] memory superfluous = sideA.trace.children(0, 0, 2);
        call = abi.encodeCall(
            IEvmReferee.post, (address(asker), MATCH, sideA.trace.root(), sideA.trace.prove(15), superfluous)
        );
        vm.prank(sideA.account);
        _refused(call, IVerde.WrongLength.selector);
        _post(IVerde.Side.A);
        bytes32[] memory root = new bytes32[](1);
        bytes32[] memory children = sideA.trace.children(0, 0, 2);
        root[0] = sideB.trace.root();
        _refusedChildren(root, IVerde.WrongLength.selector);
        _refusedChildren(children, IVerde.WrongRoot.selector);
        _post(IVerde.Side.B);
        assertEq(_trial().stage, IEvmReferee.Stage.Instructions);
    }

    function _refusedChildren(bytes32[] memory children, bytes4 selector) internal {
        bytes memory call = abi.encodeCall(
            IEvmReferee.post, (address(asker), MATCH, sideB.trace.root(), sideB.trace.prove(15), children)
        );
        vm.prank(sideB.account);
        _refused(call, selector);
    }

    /// Without its children B leaves the opening to A, or to whoever makes the whole level's move.
    function test_BNeedNotPostItsChildren() public {
        _load(0);
        spareOpening = false;
        (sideA, sideB) = (_honest(), _liar(c.value ^ 1, 3));
        _ask();
        _playTo(IEvmReferee.Stage.OpenTrace);
        assertTrue(_trial().turn == IVerde.Side.A);
        uint256 snapshot = vm.snapshotState();
        bytes memory error_ = abi.encodeWithSelector(IVerde.WrongDepth.selector, 2, 4);
        Move memory move = _move(2);
        vm.expectRevert(error_);
        _send(move);
        _refused(
            abi.encodeCall(IEvmReferee.open, (address(asker), MATCH, sideB.trace.children(0, 0, 2))),
            IVerde.WrongRoot.selector
        );
        _respond();
        assertEq(_trial().stage, IEvmReferee.Stage.Instructions);
        assertTrue(_trial().turn == IVerde.Side.B);
        _playOut();
        assertEq(asker.ruling(), Ruling.AWins);
        vm.revertToState(snapshot);
        _send(_move(4));
        assertEq(_trial().stage, IEvmReferee.Stage.Execute);
        assertEq(_trial().position, 3);
        _playOut();
        assertEq(asker.ruling(), Ruling.AWins);
    }

    /// Every part of a witness is needed as it is.
    function test_WitnessesAreChecked() public {
        for (uint256 i = 0; i < 2; i++) {
            _load(i == 0 ? 0 : 2);
            // A load of the first input; a constant of the image.
            uint256 n = _firstNeed(i == 0 ? RepVM.Need.Element : RepVM.Need.Word);
            uint256 snapshot = vm.snapshotState();
            (sideA, sideB) = (_honest(), _liar(c.value ^ 1, n));
            _ask();
            _playTo(IEvmReferee.Stage.Execute);
            assertEq(_trial().position, n);
            for (uint256 k = 0; k < 13; k++) {
                IEvmReferee.Witness memory w = _witness(n);
                bool touched = _tamper(w, k, i == 0);
                if (!touched) continue;
                bytes32[] memory proof = nodes.prove(NODE);
                vm.expectRevert();
                referee.execute(address(asker), MATCH, header, _node(), proof, w);
            }
            _execute();
            assertEq(asker.ruling(), Ruling.AWins);
            vm.revertToState(snapshot);
        }
    }

    function _firstNeed(RepVM.Need wanted) internal view returns (uint256 n) {
        while (true) {
            bytes memory state = _before(n);
            (RepVM.Need what,,) = machine.need(state, c.words[RepVM.pc(state)], _node(), c.words.length);
            if (what == wanted) return n;
            n++;
        }
    }

    /// @dev Loads from another tensor, with a tile that lies in it.
    function _forge(IEvmReferee.Witness memory w) internal view {
        bytes memory other = bytes.concat(c.inputs[0]);
        other[4 * c.element] ^= 0x01;
        Trees.Tree memory tree = Tiles.tree(other);
        uint256 place = 4 * c.element / Tiles.BYTES;
        (w.input.value, w.tile, w.tileProof) = (tree.root(), Tiles.tile(other, place), tree.prove(place));
    }

    function _tamper(IEvmReferee.Witness memory w, uint256 k, bool element) internal view returns (bool) {
        if (k == 0) w.state[100] ^= 0x01;
        else if (k == 1) w.state = bytes.concat(w.state, hex"00");
        else if (k == 2) w.words += 1;
        else if (k == 3) w.codeRoot = keccak256("another image");
        else if (k == 4) w.instructions = _four(1 + RepVM.pc(w.state) / 4);
        else if (k == 5) w.instructionsProof = none;
        else if (k == 6) w.state[5] = 0x01; // a bit that is always zero
        else if (element && k == 7) w.tile[3] ^= 0x80;
        else if (element && k == 8) w.tileProof[0] = keccak256("sibling");
        else if (element && k == 9) w.input.value = Tiles.tree(c.inputs[1]).root();
        else if (element && k == 10) w.input = _openInput(1); // another tensor's place
        else if (element && k == 11) w.tile = Tiles.tile(c.inputs[0], 1);
        else if (element && k == 12) _forge(w);
        else if (!element && k == 7) w.constants = bytes32(uint256(1));
        else if (!element && k == 8) w.constantsProof[0] = keccak256("sibling");
        else return false;
        return true;
    }

    /// The configuration is empty, and the verbs of a trial are bounded by the greatest trees.
    function test_ValidateTakesNoConfiguration() public {
        IReferee evm = IReferee(address(referee));
        uint256[6] memory verbs = [uint256(7 + 33 + 20), 7 + 17 + 10, 7 + 11 + 7, 7 + 9 + 5, 7 + 7 + 4, 7 + 6 + 4];
        for (uint8 bits = 1; bits <= 6; bits++) {
            assertEq(evm.validate("", bits), verbs[bits - 1]);
        }
        vm.expectRevert(abi.encodeWithSelector(IEvmReferee.UnexpectedConfig.selector, 1));
        evm.validate(hex"00", 4);
    }

    /// The state before the disputed instruction is the leaf to its left, or the start state.
    function test_TheStateBeforeIsOpenedUnderTheTraceOfA() public {
        _load(0);
        oneShot = true;
        (sideA, sideB) = (_honest(), _liar(c.value ^ 1, 3));
        _ask();
        _playTo(IEvmReferee.Stage.Instructions);
        Move memory move = _move(4);
        move.pre = empty;
        vm.expectRevert(abi.encodeWithSelector(IVerde.WrongLength.selector, 0, 4));
        _send(move);
        move.pre = IVerde.Opening(sideB.trace.leaf(2), sideB.trace.prove(2));
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        _send(move);
        move.pre = IVerde.Opening(sideA.trace.leaf(1), sideA.trace.prove(1));
        vm.expectPartialRevert(IVerde.WrongRoot.selector);
        _send(move);
        _send(_move(4));
        assertEq(_trial().rootA, keccak256(_before(3)));
        setUp();
        (sideA, sideB) = (_honest(), _liar(c.value ^ 1, 0));
        _ask();
        _playTo(IEvmReferee.Stage.Instructions);
        move = _move(4);
        move.pre.value = "not here";
        vm.expectRevert(abi.encodeWithSelector(IVerde.UnexpectedOpening.selector, bytes32("not here"), 0));
        _send(move);
        move.pre = empty;
        _send(move);
        assertEq(_trial().rootA, machine.startHash(c.element));
    }

    /// Of a witness only what the instruction needs is looked at; of a halted state's nothing but the state.
    function test_WhatIsNotNeededIsNotLookedAt() public {
        _load(0);
        uint256[2] memory positions = [_firstNeed(RepVM.Need.Nothing), c.instructions];
        for (uint256 i = 0; i < 2; i++) {
            uint256 snapshot = vm.snapshotState();
            (sideA, sideB) = (_honest(), _liar(c.value ^ 1, positions[i]));
            _ask();
            _playTo(IEvmReferee.Stage.Execute);
            assertEq(_trial().position, positions[i]);
            IEvmReferee.Witness memory w = _witness(positions[i]);
            assertEq(RepVM.halted(w.state), i == 1);
            (w.input.value, w.tile, w.constants) = ("junk", hex"00", "junk");
            if (i == 1) (w.words, w.codeRoot, w.instructions) = (7, "junk", "junk");
            bytes32[] memory proof = nodes.prove(NODE);
            referee.execute(address(asker), MATCH, header, _node(), proof, w);
            assertEq(asker.ruling(), Ruling.AWins);
            vm.revertToState(snapshot);
        }
    }

    /// Both agree on a state that still runs before the last instruction: after it the run is halted with 0.
    function test_TheLastStateIsHalted() public {
        _load(0);
        assertTrue(c.value != 0);
        assertFalse(RepVM.halted(_before(4)));
        (sideA, sideB) = (_honest(), _liar(0, 3));
        (sideA.trace, sideB.trace) = (_endless(c.value), _endless(0));
        _ask();
        _playTo(IEvmReferee.Stage.Execute);
        assertEq(_trial().position, 15);
        IEvmReferee.Witness memory w = _witness(3);
        bytes32[] memory proof = nodes.prove(NODE);
        referee.execute(address(asker), MATCH, header, _node(), proof, w);
        assertEq(asker.ruling(), Ruling.BWins);
    }

    /// @dev A trace whose last state but one is the honest one before instruction 3.
    function _endless(uint64 value) internal view returns (Trees.Tree memory) {
        bytes32[] memory leaves = new bytes32[](16);
        for (uint256 i = 0; i < 14; i++) {
            leaves[i] = keccak256(abi.encode("agreed", i));
        }
        leaves[14] = keccak256(_before(3));
        leaves[15] = machine.haltedHash(value);
        return Trees.build(leaves);
    }

    // ---------------------------------------------------------------- Clocks

    /// At every instant exactly one class of call is enabled: the due side's response, or the ruling by time.
    function test_EveryClockAtItsBoundary() public {
        _checkClocks();
        setUp();
        spareOpening = false;
        _checkClocks();
    }

    function _checkClocks() internal {
        _load(0);
        (sideA, sideB) = (_honest(), _liar(c.value ^ 1, 3));
        _ask();
        for (uint256 i = 0; i < 60; i++) {
            IEvmReferee.Trial memory t = _trial();
            if (t.stage == IEvmReferee.Stage.Done) return;
            bool none_ = t.stage == IEvmReferee.Stage.None;
            bool posting = t.stage == IEvmReferee.Stage.TraceA || t.stage == IEvmReferee.Stage.TraceB;
            uint256 since = none_ ? START : t.since;
            uint256 limit = none_ ? ALLOWANCE : posting ? BUILD : t.turn == IVerde.Side.A ? t.clockA : t.clockB;
            bool dueA = none_ || t.turn == IVerde.Side.A;
            for (uint256 k = 0; k < 3; k++) {
                vm.warp(since + limit + k - 1);
                uint256 snapshot = vm.snapshotState();
                (bool responds,) = address(this).call(abi.encodeCall(this.respond, ()));
                vm.revertToState(snapshot);
                (bool rules,) = address(referee).call(abi.encodeCall(IEvmReferee.conclude, (address(asker), MATCH)));
                if (rules) assertEq(asker.ruling(), dueA ? Ruling.BWins : Ruling.AWins);
                vm.revertToState(snapshot);
                (bool judged,) = address(asker).call(abi.encodeCall(Asker.judge, (MATCH, "")));
                if (judged) assertEq(asker.ruling(), dueA ? Ruling.BWins : Ruling.AWins);
                vm.revertToState(snapshot);
                assertEq(responds, k == 0, "responds");
                assertEq(rules, k > 0, "rules");
                assertEq(judged, k > 0, "judged");
            }
            vm.warp(since + (i % 3) * GRACE);
            _respond();
            vm.warp(_trial().since);
        }
        revert("the trial does not end");
    }

    function respond() external {
        _respond();
    }

    /// The beginning brings the node and nothing else: A's clock runs on, and it is not paid.
    function test_TheBeginningStopsNoClock() public {
        _load(0);
        (sideA, sideB) = (_honest(), _liar(c.value ^ 1, 3));
        _ask();
        vm.warp(START + GRACE + 7);
        _begin();
        assertEq(_trial().since, START);
        assertEq(_trial().clockA, ALLOWANCE);
        assertEq(_trial().verbs, 0);
        vm.warp(START + GRACE + 12);
        _respond();
        assertEq(_trial().clockA, ALLOWANCE - 12);
        assertEq(_trial().since, START + GRACE + 12);
        assertEq(_trial().verbs, 1);
    }

    /// What is decided is decided: the ruling does not change with time.
    function test_RulingsStand() public {
        _load(1);
        _play(_honest(), _liar(c.value ^ 4, 2));
        vm.warp(block.timestamp + 365 days);
        vm.expectRevert(Asker.Over.selector);
        referee.conclude(address(asker), MATCH);
        assertEq(_trial().ruling, Ruling.AWins);
    }

    // ---------------------------------------------------------------- Places

    /// A trial that takes the place of an ended one begins and ends as one in a place of its own.
    function test_AnEndedTrialLeavesItsPlace() public {
        _load(1);
        _play(_honest(), _liar(c.value ^ 4, 2));
        assertEq(_trial().ruling, Ruling.AWins);
        _load(2);
        (matchId, sideA, sideB) = (MATCH + 8, _liar(c.value ^ 1, 60), _honest());
        _ask();
        _begin();
        bytes32 begun = keccak256(abi.encode(_trial()));
        _playOut();
        assertEq(_trial().ruling, Ruling.BWins);
        bytes32 ended = keccak256(abi.encode(_trial()));
        assertEq(referee.getTrial(court, MATCH).stage, IEvmReferee.Stage.None);

        referee = IEvmReferee(deployCode("EvmReferee.sol:EvmReferee"));
        _ask();
        _begin();
        assertEq(begun, keccak256(abi.encode(_trial())), "begun");
        _playOut();
        assertEq(ended, keccak256(abi.encode(_trial())), "ended");
    }

    /// A trial that finds its place taken has one of its own; the other goes on.
    function test_ALiveTrialKeepsItsPlace() public {
        _load(1);
        (sideA, sideB) = (_honest(), _liar(c.value ^ 4, 2));
        _ask();
        _begin();
        bytes32 first = keccak256(abi.encode(_trial()));
        (IReferee asks, Question memory question) = asker.terms(MATCH);
        vm.mockCall(court, abi.encodeCall(IVerde.terms, (MATCH)), abi.encode(asks, question));
        matchId = MATCH + 8;
        _ask();
        _begin();
        assertEq(_trial().matchId, matchId);
        _playOut();
        assertEq(_trial().ruling, Ruling.AWins);
        assertEq(keccak256(abi.encode(referee.getTrial(court, MATCH))), first, "untouched");
        matchId = MATCH;
        _ask();
        _playOut();
        assertEq(_trial().ruling, Ruling.AWins);
    }

    /// A trial that ended by time and was never concluded leaves its place too.
    function test_ATrialThatNobodyAsksForLeavesItsPlace() public {
        _load(1);
        (sideA, sideB) = (_honest(), _liar(c.value ^ 4, 2));
        _ask();
        _begin();
        matchId = MATCH + 8;
        _ask(); // the court asks about the first no longer
        _begin();
        assertEq(referee.getTrial(court, MATCH).stage, IEvmReferee.Stage.None);
        _playOut();
        assertEq(_trial().ruling, Ruling.AWins);
    }

    // ---------------------------------------------------------------- Batches of verbs

    /// Nobody asks who sends a forced move, whatever it is: the side that is due pays with its clock.
    function test_AnyoneMayPlayForTheDueSide() public {
        _load(0);
        (oneShot, spareOpening) = (true, false);
        (sideA, sideB) = (_honest(), _liar(c.value ^ 1, 3));
        _ask();
        _begin();
        uint256 clockA = ALLOWANCE;
        for (uint256 i = 0; i < 60 && _trial().stage != IEvmReferee.Stage.Done; i++) {
            IEvmReferee.Stage s = _trial().stage;
            bool posts = s == IEvmReferee.Stage.TraceA || s == IEvmReferee.Stage.TraceB;
            vm.warp(block.timestamp + GRACE + 5);
            // The account that plays is the test's own, but for posts (`_post`).
            _respond();
            // Of a trial played at once, all but B's post is A's to do.
            if (!posts) clockA -= 5;
            assertEq(_trial().clockA, clockA, "A's clock");
            assertEq(_trial().clockB, ALLOWANCE - 1, "B's clock");
        }
        assertEq(asker.ruling(), Ruling.AWins);
    }

    function test_MulticallIsAllOrNothing() public {
        _load(0);
        oneShot = true;
        (sideA, sideB) = (_honest(), _liar(c.value ^ 1, 3));
        _ask();
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(IEvmReferee.begin, (address(asker), MATCH, header, _node(), nodes.prove(NODE)));
        calls[1] = abi.encodeCall(IEvmReferee.open, (address(asker), MATCH, none));
        vm.expectPartialRevert(IVerde.WrongLength.selector);
        referee.multicall(calls);
        assertEq(_trial().stage, IEvmReferee.Stage.None);
        calls[1] = abi.encodeCall(IEvmReferee.open, (address(asker), MATCH, sideA.tiles.children(0, 0, 2)));
        referee.multicall(calls);
        assertEq(_trial().stage, IEvmReferee.Stage.Elements);
    }
}
