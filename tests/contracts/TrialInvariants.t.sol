// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IAppealReferee} from "../../contracts/interfaces/IAppealReferee.sol";
import {IEvmReferee} from "../../contracts/interfaces/IEvmReferee.sol";
import {IMulticall} from "../../contracts/interfaces/IMulticall.sol";
import {IReferee, Question} from "../../contracts/interfaces/IReferee.sol";
import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {AppealBase} from "./Appeals.t.sol";
import {TrialBase} from "./Trials.t.sol";
import {Trees} from "./utils/Trees.sol";

/// @notice Random play of whole matches, from the claims to one instruction, with Verde and the EVM referee or the one to which a committee's
/// verdict is appealed. One step of a task is disputed; a book says what a participant claims of one operator's output there, book 0 the truth.
/// @dev The committee is silent or says anything. Whoever holds book 0 answers whenever it is due, at a random instant in time, move by move or at once, verb by verb or two in a
/// transaction; liars do too, or let the time pass.
contract TrialHandler is AppealBase {
    using Trees for Trees.Tree;

    address internal constant BURN = 0x000000000000000000000000000000000000dEaD;
    address internal constant CLIENT = address(0xC11E27);
    uint64 internal constant STEPS = 6;
    uint40 internal constant WINDOW = 1 hours;
    // What is waited for (`_due`), besides a phase, or 6 and a stage.
    uint256 internal constant RULED = 6 + uint256(IEvmReferee.Stage.Done);
    uint256 internal constant COMMITTEE = 17;
    uint256 internal constant APPELLANT = 18;
    uint256 internal constant VERDICT_STANDS = 19;
    /// Bits of `seen` from here on: what the committee said, 4 of it, or nothing.
    uint256 internal constant SAID = 20;

    IVerde internal verde;
    IEvmReferee internal evm;
    uint256 internal taskId;
    /// The disputed step: books agree on all before it.
    uint256 internal disputed;
    Player[] internal books;
    mapping(uint256 index => uint256) internal bookOf;
    /// Side A's book in the match that is played.
    uint256 internal bookA;
    mapping(uint256 matchId => uint256) internal measures;
    /// What has been met: bits of `Seen`, in three bytes of stages: answered, late, answered with another verb in the same transaction.
    uint256 public seen;
    uint256 public outcomes;
    uint256 internal draws;
    /// What the committee will say: A's root, B's, another, or that inputs cannot be had.
    uint256 internal saying;

    function setUp() public override {
        super.setUp();
        evm = referee;
        verde = IVerde(deployCode("Verde.sol:Verde"));
        _load(0); // five tiles in a tree of eight, sixteen states
        _describeProgram();
        books.push(_honest());
        books.push(_liar(c.value ^ 1, 3));
        books.push(_liar(c.value ^ 2, 3));
        books.push(_liar(c.value ^ 4, 11));
        Player memory p = _honest();
        p.tiles = _spoiled("missing");
        books.push(p);
        vm.deal(CLIENT, 1e6 ether);
        vm.deal(address(this), 0);
    }

    function _draw(uint256 seed) internal returns (uint256) {
        return uint256(keccak256(abi.encode(seed, ++draws)));
    }

    function account(uint256 index) public pure returns (address) {
        return address(uint160(0xACC0 + index));
    }

    // ---------------------------------------------------------------- Claims

    function _laterOf(uint256 book) internal pure returns (bytes32) {
        return keccak256(abi.encode("later", book));
    }

    /// @dev A's trace ends in A's state.
    function _later() internal view override returns (bytes32) {
        return _laterOf(bookA);
    }

    /// @dev State root after `n` steps.
    function _stateOf(uint256 book, uint256 n) internal view returns (bytes32) {
        if (n == disputed) return _state().root();
        if (n < disputed) return keccak256(abi.encode("agreed", n));
        return n == disputed + 1 ? _laterOf(book) : keccak256(abi.encode("after", book, n));
    }

    function _claim(uint256 book) internal view returns (Trees.Tree memory) {
        uint256 interval = verde.getTask(taskId).interval;
        bytes32[] memory leaves = new bytes32[]((STEPS + interval - 1) / interval);
        for (uint256 i = 0; i < leaves.length; i++) {
            leaves[i] = _stateOf(book, _least((i + 1) * interval, STEPS));
        }
        return Trees.build(leaves);
    }

    /// @dev A book's tree of the level, and its number of leaves.
    function _tree(uint256 book, IVerde.Match memory game) internal view returns (Trees.Tree memory, uint256 n) {
        if (game.level == IVerde.Level.Checkpoints) return (_claim(book), 0);
        bytes32[] memory leaves;
        if (game.level == IVerde.Level.Operators) {
            leaves = new bytes32[](NODES);
            leaves[0] = _inputRoot(0);
            leaves[NODE] = books[book].tiles.root();
            leaves[2] = _laterOf(book);
        } else {
            uint256 interval = verde.getTask(taskId).interval;
            leaves = new bytes32[](STEPS - game.step < interval ? STEPS - game.step : interval);
            for (uint256 i = 0; i < leaves.length; i++) {
                leaves[i] = _stateOf(book, game.step + i + 1);
            }
        }
        return (Trees.build(leaves), leaves.length);
    }

    // ---------------------------------------------------------------- The task

    /// @notice A new task, once the last one has ended: two or three seats, perhaps a challenger, claims from few books.
    function create(uint256 seed) external {
        if (taskId != 0 && _isLive(taskId)) return;
        disputed = _draw(seed) % STEPS;
        IVerde.TaskParams memory params;
        params.program = header;
        params.dataRoot = _data().root();
        params.batchCount = 2;
        (params.steps, params.interval) = (STEPS, uint64(1 + _draw(seed) % STEPS));
        params.seats = uint8(2 + _draw(seed) % 2);
        params.providers = new address[](0);
        params.arityBits = uint8(1 + _draw(seed) % 4);
        (params.reward, params.bond, params.verbFee, params.bounty) = (3 ether, 2 ether, 0.01 ether, 0.1 ether);
        (params.commitWindow, params.revealWindow, params.challengeWindow) = (WINDOW, WINDOW, WINDOW);
        (params.buildWindow, params.allowance, params.grace) = (BUILD, ALLOWANCE, GRACE);
        params.refereeWindow = WINDOW;
        referee = _draw(seed) % 2 == 0 ? evm : appeals;
        params.referee = referee;
        if (_appealing()) params.refereeConfig = config;
        params.initialStateRoot = disputed == 0 ? _state().root() : _stateOf(0, 0);
        vm.prank(CLIENT);
        taskId = verde.createTask{value: uint256(params.reward) * params.seats}(params);
        _join(seed, params.seats);
    }

    function _join(uint256 seed, uint256 seats) internal {
        uint256 last = _claim(0).height == 0 ? 0 : (STEPS - 1) / verde.getTask(taskId).interval;
        bytes32[] memory salts = new bytes32[](seats + 1);
        for (uint256 i = 0; i <= seats; i++) {
            bookOf[i] = _draw(seed) % 3 == 0 ? 0 : _draw(seed) % books.length;
            vm.deal(account(i), 2 ether);
            if (i == seats) break;
            Trees.Tree memory claim = _claim(bookOf[i]);
            bytes32 commitment = keccak256(
                abi.encode(
                    keccak256(
                        "Commitment(uint256 chainId,address verde,uint256 taskId,address provider,bytes32 claimRoot,bytes32 finalStateRoot,bytes32 salt)"
                    ),
                    block.chainid,
                    address(verde),
                    taskId,
                    account(i),
                    claim.root(),
                    claim.leaf(last),
                    salts[i]
                )
            );
            vm.prank(account(i));
            verde.commit{value: 2 ether}(taskId, commitment);
        }
        vm.warp(block.timestamp + WINDOW);
        for (uint256 i = 0; i < seats; i++) {
            Trees.Tree memory claim = _claim(bookOf[i]);
            vm.prank(account(i));
            verde.reveal(taskId, claim.root(), claim.leaf(last), salts[i], claim.prove(last));
        }
        vm.warp(block.timestamp + WINDOW);
        if (_draw(seed) % 2 == 0) return;
        Trees.Tree memory own = _claim(bookOf[seats]);
        vm.prank(account(seats));
        verde.challenge{value: 2 ether}(taskId, own.root(), own.leaf(last), own.prove(last));
    }

    function _appealing() internal view returns (bool) {
        return address(referee) == address(appeals);
    }

    function _isLive(uint256 id) internal view returns (bool) {
        return verde.getTask(id).status == IVerde.Status.Live;
    }

    /// @notice Pairs what can be paired; settles and pays out when nothing is left to play.
    function proceed() external {
        if (taskId == 0 || !_isLive(taskId)) return;
        (bool ok,) = address(verde).call(abi.encodeCall(IVerde.pair, (taskId)));
        if (ok) {
            measures[verde.matchCount()] = type(uint256).max;
            return;
        }
        if (_liveMatch(0) != 0) return;
        IVerde.Task memory task = verde.getTask(taskId);
        if (block.timestamp < task.challengeDeadline) vm.warp(task.challengeDeadline);
        verde.settle(taskId);
        bool honest = false;
        bool stands = false;
        for (uint256 i = 0; i < task.participants; i++) {
            bool survived = verde.getParticipant(taskId, i).standing == IVerde.Standing.Free;
            if (bookOf[i] == 0) honest = true;
            if (bookOf[i] == 0 && survived) stands = true;
            address(verde).call(abi.encodeCall(IVerde.collect, (taskId, i)));
        }
        // INVARIANT: if one participant is honest, its claim is what settles.
        assertEq(honest, stands, "the truth stands");
        checkSolvency();
        for (uint256 i = 0; i < task.participants + 2; i++) {
            address who = i == task.participants ? CLIENT : i > task.participants ? BURN : account(i);
            if (verde.credit(who) > 0) verde.withdraw(who);
        }
        assertEq(address(verde).balance, 0, "everything is paid out");
        outcomes |= 1 << (8 + uint256(verde.getTask(taskId).status));
    }

    function done() external view returns (bool) {
        return taskId != 0 && !_isLive(taskId);
    }

    // ---------------------------------------------------------------- The match

    /// @dev A match of the task that is being played, or 0.
    function _liveMatch(uint256 draw) internal view returns (uint256) {
        uint256 count = verde.matchCount();
        for (uint256 i = 0; i < count; i++) {
            uint256 id = 1 + (draw % count + i) % count;
            IVerde.Match memory game = verde.getMatch(id);
            if (game.taskId == taskId && game.phase != IVerde.Phase.Done) return id;
        }
        return 0;
    }

    /// @dev Makes a match's sides those that TrialBase plays for.
    function _enter(uint256 id) internal {
        IVerde.Match memory game = verde.getMatch(id);
        (court, matchId) = (address(verde), id);
        bookA = bookOf[game.indexA];
        (sideA, sideB) = (books[bookA], books[bookOf[game.indexB]]);
        (sideA.account, sideB.account) = (account(game.indexA), account(game.indexB));
    }

    /// @dev The due side's response: to which contract, by whom if that matters, and what.
    function _next() internal view returns (address to, address sender, bytes memory call) {
        IVerde.Match memory game = verde.getMatch(matchId);
        if (game.phase == IVerde.Phase.Referee) {
            (IVerde.Side side,, uint256 what) = _due();
            if (what == VERDICT_STANDS) return (address(verde), sender, abi.encodeCall(IVerde.judge, (matchId, "")));
            if (what == COMMITTEE) {
                call = _verdict();
            } else if (what == APPELLANT) {
                sender = side == IVerde.Side.A ? sideA.account : sideB.account;
                call = _appeal();
            } else if (what == RULED) {
                call = abi.encodeCall(IEvmReferee.conclude, (address(verde), matchId)); // ruled, not fetched
            } else {
                (call, sender) = _response();
            }
            return (address(referee), sender, call);
        }
        to = address(verde);
        (Trees.Tree memory a,) = _tree(bookA, game);
        (Trees.Tree memory b,) = _tree(bookOf[game.indexB], game);
        if (game.phase == IVerde.Phase.PostA || game.phase == IVerde.Phase.PostB) {
            bool isA = game.phase == IVerde.Phase.PostA;
            sender = isA ? sideA.account : sideB.account;
            (Trees.Tree memory own, uint256 n) = _tree(isA ? bookA : bookOf[game.indexB], game);
            bytes32[] memory children = none;
            if (!isA && spareOpening && game.rest > 0) {
                children = own.children(0, 0, _least(game.arityBits, game.rest));
            }
            call = abi.encodeCall(IVerde.post, (matchId, own.root(), own.prove(n - 1), children));
        } else if (game.phase == IVerde.Phase.Open && !oneShot) {
            call = abi.encodeCall(IVerde.open, (matchId, a.children(0, 0, _least(game.arityBits, game.rest))));
        } else {
            uint256 m = oneShot ? game.rest : _least(game.arityBits, game.rest);
            Move memory move = _moveBetween(a, b, game.rest, game.position, m, game.turn, game.arityBits);
            uint256 position = uint256(game.position) * 2 ** m + move.index;
            if (m == game.rest && game.level != IVerde.Level.Operators && position > 0) {
                move.pre = IVerde.Opening(a.leaf(position - 1), a.prove(position - 1));
            }
            call = abi.encodeCall(
                IVerde.advance, (matchId, move.m, move.index, move.a, move.b, move.siblings, move.children, move.pre)
            );
        }
    }

    function _verdict() internal view returns (bytes memory) {
        (, Question memory question) = verde.question(matchId);
        bytes32 root = saying == 0 ? question.rootA : saying == 1 ? question.rootB : keccak256("another");
        bytes memory signed = saying == 3 ? _signed(question, 0, true) : _signed(question, root, false);
        return abi.encodeCall(IAppealReferee.submitVerdict, (address(verde), matchId, config, signed));
    }

    function _appeal() internal view returns (bytes memory) {
        return abi.encodeCall(IAppealReferee.appeal, (address(verde), matchId));
    }

    function _least(uint256 a, uint256 b) internal pure returns (uint256) {
        return a < b ? a : b;
    }

    function _perform(address to, address sender, bytes memory call) internal returns (bool ok) {
        if (sender != address(0)) vm.prank(sender);
        (ok,) = to.call(call);
    }

    /// @dev Who is due, until when; and a number for what is waited for. A ruling waits for ever.
    function _due() internal view returns (IVerde.Side side, uint256 end, uint256 what) {
        IVerde.Match memory game = verde.getMatch(matchId);
        if (game.phase != IVerde.Phase.Referee) {
            (uint256 since, uint256 limit) = verde.timeLimit(matchId);
            return (game.turn, since + limit, uint256(game.phase));
        }
        IEvmReferee.Trial memory t = _trial();
        what = 6 + uint256(t.stage);
        if (t.stage == IEvmReferee.Stage.Done) return (t.turn, type(uint40).max, what);
        if (t.stage == IEvmReferee.Stage.None) return _dueBeforeTheTrial(game);
        bool posting = t.stage == IEvmReferee.Stage.TraceA || t.stage == IEvmReferee.Stage.TraceB;
        end = uint256(t.since) + (posting ? BUILD : t.turn == IVerde.Side.A ? t.clockA : t.clockB);
        return (t.turn, end, what);
    }

    function _dueBeforeTheTrial(IVerde.Match memory game)
        internal
        view
        returns (IVerde.Side side, uint256 end, uint256 what)
    {
        uint256 opening = game.since;
        if (_appealing()) {
            IAppealReferee.Verdict memory v = appeals.getVerdict(address(verde), matchId);
            if (v.time == 0) {
                opening += WINDOW;
                if (block.timestamp < opening) return (IVerde.Side.A, opening, COMMITTEE);
            } else if (!v.available) {
                opening = v.time;
            } else if (v.appealedAt != 0) {
                opening = v.appealedAt;
            } else {
                // Whom the verdict makes lose; if that is both, the honest side.
                bool isA = v.outputRoot != game.nodeA && (v.outputRoot == game.nodeB || bookOf[game.indexB] != 0);
                side = isA ? IVerde.Side.A : IVerde.Side.B;
                end = v.time + APPEAL;
                if (block.timestamp < end) return (side, end, APPELLANT);
                return (side, type(uint40).max, VERDICT_STANDS);
            }
        }
        return (IVerde.Side.A, opening + game.clockA, 6);
    }

    /// @notice The due side of a match answers in time; sometimes with the next verb in the same transaction.
    function act(uint256 seed) external {
        uint256 id = _liveMatch(_draw(seed));
        if (id == 0) return;
        _enter(id);
        (oneShot, spareOpening, saying) = (_draw(seed) % 2 == 0, _draw(seed) % 2 == 0, _draw(seed) % 4);
        (, uint256 end, uint256 what) = _due();
        // A liar may let a verdict stand.
        if (what == APPELLANT && !_honestIsDue() && end < _honestEnd() && _draw(seed) % 4 == 0) return vm.warp(end);
        if (block.timestamp < end) {
            uint256 draw = _draw(seed);
            uint256 time = block.timestamp + (draw >> 8) % (draw % 2 == 0 ? GRACE : 3 * GRACE);
            uint256 latest = _least(end, _honestEnd()) - 1;
            vm.warp((draw % 11 == 0 && end != type(uint40).max) || time > latest ? latest : time);
        }
        uint256 check = _draw(seed) % 6;
        if (check == 0) _checkVerbs();
        else if (check == 1) _checkDue();
        if (block.timestamp >= end) return _end(id, seed); // while another match was played
        (address to, address sender, bytes memory call) = _next();
        if (_draw(seed) % 3 == 0) {
            bytes[] memory calls;
            (calls, sender) = _joined(to, sender, call);
            if (calls.length == 2) seen |= 1 << (32 + what);
            call = abi.encodeCall(IMulticall.multicall, (calls));
        }
        assertTrue(_perform(to, sender, call), "the due side's verb is refused");
        seen |= 1 << what;
        if (what == COMMITTEE) seen |= 1 << (SAID + saying);
        _after(id);
    }

    /// @dev A call, and the one after it if the same account may make it in the same contract.
    function _joined(address to, address sender, bytes memory call)
        internal
        returns (bytes[] memory calls, address by)
    {
        uint256 snapshot = vm.snapshotState();
        assertTrue(_perform(to, sender, call), "the due side's verb is refused");
        address to2 = address(0);
        bytes memory call2;
        by = sender;
        if (verde.getMatch(matchId).phase != IVerde.Phase.Done) {
            address sender2;
            (to2, sender2, call2) = _next();
            if (sender2 != address(0) && sender != address(0) && sender != sender2) to2 = address(0);
            else if (sender2 != address(0) && to2 == to) by = sender2;
        }
        vm.revertToStateAndDelete(snapshot);
        calls = new bytes[](to2 == to ? 2 : 1);
        calls[0] = call;
        if (to2 == to) calls[1] = call2;
    }

    /// @notice A liar that is due lets the time pass, and somebody says so; or the committee does.
    function lapse(uint256 seed) external {
        uint256 id = _liveMatch(_draw(seed));
        if (id == 0) return;
        _enter(id);
        (, uint256 end, uint256 what) = _due();
        if (_honestIsDue() || end >= _honestEnd() || end == type(uint40).max) return;
        if (block.timestamp < end) vm.warp(end);
        if (what == COMMITTEE) seen |= 1 << (SAID + 4);
        else _end(id, seed);
    }

    function _end(uint256 id, uint256 seed) internal {
        uint256 expected = _lateOutcome();
        assertTrue(_late(_draw(seed)), "nobody can say that the side is late");
        assertEq(uint256(verde.getMatch(id).outcome), expected, "late");
        _after(id);
    }

    /// @dev How a match ends when the due side is late. Of the two that a verdict may make lose, none is late alone.
    function _lateOutcome() internal view returns (uint256) {
        (IVerde.Side side,, uint256 what) = _due();
        if (what == APPELLANT || what == VERDICT_STANDS) {
            IVerde.Match memory game = verde.getMatch(matchId);
            bytes32 root = appeals.getVerdict(address(verde), matchId).outputRoot;
            if (root != game.nodeA && root != game.nodeB) return uint256(IVerde.Outcome.BothLose);
        }
        return uint256(side == IVerde.Side.A ? IVerde.Outcome.BWins : IVerde.Outcome.AWins);
    }

    function _honestIsDue() internal view returns (bool) {
        IVerde.Match memory game = verde.getMatch(matchId);
        (IVerde.Side side,, uint256 what) = _due();
        if (what == COMMITTEE) return false;
        return bookOf[side == IVerde.Side.A ? game.indexA : game.indexB] == 0;
    }

    /// @dev The first instant at which an honest side would be late in any match.
    function _honestEnd() internal returns (uint256 first) {
        uint256 id = matchId;
        first = type(uint40).max;
        for (uint256 k = 1; k <= verde.matchCount(); k++) {
            IVerde.Match memory game = verde.getMatch(k);
            if (game.taskId != taskId || game.phase == IVerde.Phase.Done) continue;
            matchId = k;
            (, uint256 end, uint256 what) = _due();
            // After a silent committee A is due.
            if (what == COMMITTEE && bookOf[game.indexA] == 0) first = _least(first, end + game.clockA);
            else if (_honestIsDue()) first = _least(first, end);
        }
        matchId = id;
    }

    /// @dev Ends a match whose due side is late, in one of the ways that there are.
    function _late(uint256 draw) internal returns (bool) {
        if (verde.getMatch(matchId).phase != IVerde.Phase.Referee) {
            return _perform(address(verde), address(0), abi.encodeCall(IVerde.timeout, (matchId)));
        }
        // Without a trial there is nothing to conclude.
        (,, uint256 what) = _due();
        if (draw % 2 == 0 || what == VERDICT_STANDS) {
            return _perform(address(verde), address(0), abi.encodeCall(IVerde.judge, (matchId, "")));
        }
        return _perform(address(referee), address(0), abi.encodeCall(IEvmReferee.conclude, (address(verde), matchId)));
    }

    // ---------------------------------------------------------------- Invariants

    /// @dev At every state and instant exactly one class of call is enabled: the due side's verb, or what says that it is late.
    function _checkDue() internal {
        (, uint256 end, uint256 what) = _due();
        uint256 expected = _lateOutcome();
        bool rules = end == type(uint40).max;
        uint256 snapshot = vm.snapshotState();
        uint256[3] memory instants = [block.timestamp, end - 1, end];
        for (uint256 i = 0; i < (rules ? 1 : 3); i++) {
            if (instants[i] < block.timestamp) continue;
            bool late = instants[i] >= end;
            (address to, address sender, bytes memory call) = _next();
            vm.warp(instants[i]);
            assertEq(_perform(to, sender, call), !late, "responds");
            vm.revertToState(snapshot);
            for (uint256 k = 0; k < 2; k++) {
                vm.warp(instants[i]);
                // A ruling is fetched in any of three ways. A committee that is late leaves it to A.
                assertEq(_late(k), (late && what != COMMITTEE) || rules, "late");
                if (late && what != COMMITTEE) {
                    assertEq(uint256(verde.getMatch(matchId).outcome), expected, "who is late loses");
                }
                vm.revertToState(snapshot);
            }
        }
        vm.deleteStateSnapshot(snapshot);
        if (!rules) seen |= 1 << (64 + what);
    }

    /// @dev While the referee is asked, no verb of another stage is accepted.
    function _checkVerbs() internal {
        if (verde.getMatch(matchId).phase != IVerde.Phase.Referee) return;
        (, uint256 end, uint256 what) = _due();
        uint256 snapshot = vm.snapshotState();
        // Bits of the stages in which a verb is due; then the committee and who may appeal.
        uint16[9] memory when = [0x001, 0x002, 0x080, 0x186, 0x018, 0x060, 0x200, 0x800, 0x1000];
        for (uint256 k = 0; k < 9; k++) {
            (bool ok,) = address(this).call(abi.encodeCall(this.tryVerb, (k)));
            vm.revertToState(snapshot);
            assertEq(ok, block.timestamp < end && (when[k] >> (what - 6)) & 1 == 1, "a verb of another stage");
        }
        vm.deleteStateSnapshot(snapshot);
    }

    function tryVerb(uint256 k) external {
        IEvmReferee.Trial memory t = _trial();
        bool isA = t.stage == IEvmReferee.Stage.TraceA;
        bytes memory call;
        if (k == 0) call = _beginning();
        else if (k == 1) call = _opening(sideA.tiles);
        else if (k == 2) call = _opening(sideA.trace);
        else if (k == 3) call = _moving(_move(t.rest));
        else if (k == 4) call = _showing(true);
        else if (k == 5) call = _posting(isA ? IVerde.Side.A : IVerde.Side.B);
        else if (k == 6) call = _executing();
        else call = k == 7 ? _verdict() : _appeal();
        address sender = k == 5 || k == 8 ? (isA ? sideA.account : sideB.account) : address(0);
        require(_perform(address(referee), sender, call));
    }

    /// @dev After a verb: the match is nearer to its end, within its verbs; at its end the honest side has won and the money is where it belongs.
    function _after(uint256 id) internal {
        IVerde.Match memory game = verde.getMatch(id);
        IVerde.Task memory task = verde.getTask(taskId);
        uint256 measure = _measure(game);
        assertLt(measure, measures[id], "the match does not come nearer to its end");
        measures[id] = measure;
        uint256 most = verde.maxVerbs(task.steps, task.interval, task.nodes, task.arityBits);
        uint256 more = referee.validate(_appealing() ? config : bytes(""), task.arityBits);
        assertLe(game.verbs, most + more, "verbs");
        if (game.phase == IVerde.Phase.Referee) assertLe(_trial().verbs, more, "verbs of a trial");
        checkSolvency();
        if (game.phase != IVerde.Phase.Done) return;
        outcomes |= 1 << uint256(game.outcome);
        assertTrue(game.outcome != IVerde.Outcome.Void, "no ruling is void");
        if (bookOf[game.indexA] == 0) assertEq(uint256(game.outcome), uint256(IVerde.Outcome.AWins), "honest A");
        if (bookOf[game.indexB] == 0) assertEq(uint256(game.outcome), uint256(IVerde.Outcome.BWins), "honest B");
    }

    function _measure(IVerde.Match memory game) internal view returns (uint256) {
        if (game.phase == IVerde.Phase.Done) return 0;
        if (game.phase != IVerde.Phase.Referee) {
            uint256 levels = 100_000 + (2 - uint256(game.level)) * 1000;
            if (game.phase == IVerde.Phase.PostA) return levels + 200;
            if (game.phase == IVerde.Phase.PostB) return levels + 199;
            return levels + (game.phase == IVerde.Phase.Open ? 100 : game.rest);
        }
        (,, uint256 what) = _due();
        if (what == COMMITTEE) return 3000;
        if (what == APPELLANT || what == VERDICT_STANDS) return 2000;
        IEvmReferee.Trial memory t = _trial();
        return 1 + (10 - uint256(t.stage)) * 100 + t.rest;
    }

    /// @notice What the contract holds is what it owes: escrow, bonds of those who have not lost, credits.
    function checkSolvency() public view {
        if (taskId == 0) return;
        IVerde.Task memory task = verde.getTask(taskId);
        uint256 owed = verde.credit(BURN) + verde.credit(CLIENT);
        if (task.status == IVerde.Status.Live) owed += uint256(task.reward) * task.seats;
        for (uint256 i = 0; i < task.participants; i++) {
            IVerde.Participant memory p = verde.getParticipant(taskId, i);
            owed += verde.credit(p.account);
            if (p.standing != IVerde.Standing.Lost && !p.collected) owed += task.bond;
        }
        assertEq(address(verde).balance, owed, "solvency");
    }
}

contract TrialInvariantsTest is TrialBase {
    TrialHandler internal handler;

    function setUp() public override {
        vm.warp(START);
        handler = new TrialHandler();
        handler.setUp();
        bytes4[] memory selectors = new bytes4[](6);
        selectors[0] = TrialHandler.create.selector;
        selectors[1] = TrialHandler.proceed.selector;
        selectors[2] = TrialHandler.act.selector;
        selectors[3] = TrialHandler.act.selector;
        selectors[4] = TrialHandler.act.selector;
        selectors[5] = TrialHandler.lapse.selector;
        targetContract(address(handler));
        targetSelector(FuzzSelector({addr: address(handler), selectors: selectors}));
    }

    function _playToTheEnd(uint256 seed) internal {
        handler.create(seed);
        handler.proceed();
        for (uint256 round = 0; !handler.done(); round++) {
            assertLt(round, 400, "the task does not end");
            uint256 draw = uint256(keccak256(abi.encode(seed, round)));
            if (draw % 24 == 0) handler.lapse(seed);
            else if (draw % 8 == 1) handler.proceed();
            else handler.act(seed);
        }
    }

    /// Every task ends, the truth stands if anybody holds it, and every wei is paid out.
    /// forge-config: default.fuzz.runs = 64
    function testFuzz_EveryTrialEnds(uint256 seed) public {
        _playToTheEnd(seed);
    }

    /// The random games are not all alike: among a few fixed ones every phase and stage is answered, let pass, and joined with the verb
    /// after it, and every outcome is met.
    function test_TrialsMeetEveryStage() public {
        // Of Verde: open, move, both posts; of a trial: none (the beginning) to the execution.
        uint256 all = 0x1E | (0x3FF << 6);
        // A ruling; a committee, an appeal, a verdict that stands; all that a committee says, and its silence.
        uint256 ruled = (1 << 16) | (7 << 17) | (0x1F << 20);
        // After A's posts comes the other side's; after the execution nothing.
        uint256 joined = all & ~uint256((1 << 3) | (1 << 11) | (1 << 15));
        joined |= 3 << 17;
        uint256 wanted = all | ruled | ((all | (3 << 17)) << 64) | (joined << 32);
        uint256 outcomes = 0x040E; // either side wins, both lose; settled
        uint256 seed = 0;
        while ((handler.seen() & wanted != wanted || handler.outcomes() & outcomes != outcomes) && seed < 120) {
            _playToTheEnd(seed++);
        }
        assertEq(handler.seen() & wanted, wanted, "what is met in these games");
        assertEq(handler.outcomes() & outcomes, outcomes, "how these games end");
    }

    /// forge-config: default.invariant.runs = 24
    /// forge-config: default.invariant.depth = 80
    function invariant_Money() public view {
        handler.checkSolvency();
    }
}
