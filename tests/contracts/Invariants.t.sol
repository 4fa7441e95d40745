// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {BaseTest} from "./Base.t.sol";
import {World} from "./utils/World.sol";

/// @notice Plays random games with the true contracts and keeps a model of its own: who paid what, who is out, what each task still owes.
/// @dev Every action chooses among what is legal and must succeed; what is illegal is tried besides, and must not.
contract Handler is BaseTest {
    uint256 internal constant ACTORS = 7;
    uint256 internal constant MAX_TASKS = 4;

    /// Money of one task, by the model.
    struct Ledger {
        uint256 paidIn;
        uint256 paidOut;
        uint256 slashed;
        uint256 toClient;
        bool ended;
    }

    address[] public actors;
    mapping(uint256 taskId => Ledger) internal ledgers;
    /// Termination: what is left of a match can only fall.
    mapping(uint256 matchId => uint256) internal measures;
    mapping(bytes32 verb => uint256) public calls;
    uint256 public refusals;

    function setUp() public override {
        super.setUp();
        for (uint256 i = 0; i < ACTORS; i++) {
            actors.push(makeAddr(string.concat("actor ", vm.toString(i))));
            vm.deal(actors[i], 1e6 ether);
        }
        vm.deal(client, 1e6 ether);
        vm.deal(address(this), 0);
    }

    // ---------------------------------------------------------------- Choices

    function _planOf(uint256 seed) internal pure returns (World.Plan memory plan) {
        // Honest, or one of a few liars, so that claims repeat.
        uint256 kind = seed % 6;
        if (kind < 2) return plan;
        if (kind == 2) return World.Plan("liar", 0, 2, false);
        if (kind == 3) return World.Plan("liar", 5, 9, false);
        if (kind == 4) return World.Plan("other", 0, 2, false);
        return World.Plan(0, 999, 0, true);
    }

    function _taskOf(uint256 seed) internal view returns (uint256) {
        uint256 count = verde.taskCount();
        return count == 0 ? 0 : 1 + seed % count;
    }

    /// @dev A match that is live, or 0.
    function _matchOf(uint256 seed) internal view returns (uint256) {
        uint256 count = verde.matchCount();
        for (uint256 i = 0; i < count; i++) {
            uint256 matchId = 1 + (seed % count + i) % count;
            if (isLive(matchId)) return matchId;
        }
        return 0;
    }

    function isLive(uint256 matchId) public view returns (bool) {
        IVerde.Match memory game = verde.getMatch(matchId);
        return game.phase != IVerde.Phase.Done && verde.getTask(game.taskId).status == IVerde.Status.Live;
    }

    function _isLiveTask(uint256 taskId) internal view returns (bool) {
        return verde.getTask(taskId).status == IVerde.Status.Live;
    }

    modifier counted(bytes32 verb) {
        calls[verb]++;
        _;
    }

    // ---------------------------------------------------------------- Tasks

    function create(uint256 seed) external counted("create") {
        if (verde.taskCount() == MAX_TASKS) return;
        IVerde.TaskParams memory params = _params();
        params.seats = uint8(2 + seed % 3);
        params.steps = uint64(6 + seed % 3);
        params.interval = uint64(1 + (seed >> 8) % 3);
        params.arityBits = uint8(1 + (seed >> 16) % 3);
        params.reward = uint128(1 + (seed >> 24) % 1e18);
        params.holdbackBps = uint16((seed >> 90) % 10_001);
        uint256 taskId = _create(params);
        ledgers[taskId].paidIn = uint256(params.reward) * params.seats;
    }

    function commit(uint256 seed, uint256 who) external counted("commit") {
        uint256 taskId = _taskOf(seed);
        if (!_isLiveTask(taskId)) return;
        IVerde.Task memory task = verde.getTask(taskId);
        address actor = actors[who % ACTORS];
        bool legal = block.timestamp < task.commitDeadline && task.committed < task.seats
            && verde.getMember(taskId, actor).participant == 0;
        if (!legal) return _mustFail(actor, task.bond, abi.encodeCall(IVerde.commit, (taskId, bytes32(seed))));
        _commit(taskId, actor, _planOf(seed >> 8));
        ledgers[taskId].paidIn += task.bond;
    }

    function reveal(uint256 seed, uint256 who) external counted("reveal") {
        uint256 taskId = _taskOf(seed);
        if (!_isLiveTask(taskId)) return;
        IVerde.Task memory task = verde.getTask(taskId);
        if (task.committed < 2 || block.timestamp >= task.revealDeadline) return;
        if (block.timestamp < task.commitDeadline) _toReveal(taskId);
        uint256 index = who % task.committed;
        if (_standing(taskId, index) != IVerde.Standing.Committed) return;
        _reveal(taskId, verde.getParticipant(taskId, index).account, plans[taskId][index]);
    }

    function challenge(uint256 seed, uint256 who) external counted("challenge") {
        uint256 taskId = _taskOf(seed);
        if (!_isLiveTask(taskId)) return;
        IVerde.Task memory task = verde.getTask(taskId);
        address actor = actors[who % ACTORS];
        if (task.committed < 2 || block.timestamp >= task.challengeDeadline) return;
        if (verde.getMember(taskId, actor).participant != 0) return;
        if (block.timestamp < task.revealDeadline) _toChallenge(taskId);
        _challenge(taskId, actor, _planOf(seed >> 8));
        ledgers[taskId].paidIn += task.bond;
    }

    function cancelOrExpire(uint256 seed) external counted("cancel") {
        uint256 taskId = _taskOf(seed);
        if (!_isLiveTask(taskId) || seed % 4 != 0) return;
        IVerde.Task memory task = verde.getTask(taskId);
        bool early = block.timestamp < task.commitDeadline;
        bytes memory call = early ? abi.encodeCall(IVerde.cancel, (taskId)) : abi.encodeCall(IVerde.expire, (taskId));
        if (task.committed >= 2) return _mustFail(client, 0, call);
        uint256 before = verde.credit(client);
        _mustSucceed(client, call);
        _ended(taskId, verde.credit(client) - before, 0);
    }

    function settle(uint256 seed) external counted("settle") {
        uint256 taskId = _taskOf(seed);
        if (!_isLiveTask(taskId)) return;
        IVerde.Task memory task = verde.getTask(taskId);
        bytes memory call = abi.encodeCall(IVerde.settle, (taskId));
        bool legal = block.timestamp >= task.challengeDeadline && task.committed >= 2 && _claimsAlive(taskId) <= 1
            && _playing(taskId) == 0;
        if (!legal) return _mustFail(anyone, 0, call);
        (uint256 client_, uint256 burned) = (verde.credit(client), verde.credit(BURN));
        _mustSucceed(anyone, call);
        _ended(taskId, verde.credit(client) - client_, verde.credit(BURN) - burned);
    }

    function collect(uint256 seed, uint256 who) external counted("collect") {
        uint256 taskId = _taskOf(seed);
        IVerde.Task memory task = verde.getTask(taskId);
        if (task.participants == 0) return;
        uint256 index = who % task.participants;
        address account = verde.getParticipant(taskId, index).account;
        uint256 before = verde.credit(account);
        vm.prank(anyone);
        (bool ok,) = address(verde).call(abi.encodeCall(IVerde.collect, (taskId, index)));
        ledgers[taskId].paidOut += verde.credit(account) - before;
        if (ok) _mustFail(anyone, 0, abi.encodeCall(IVerde.collect, (taskId, index)));
        before = verde.credit(account);
        (ok,) = address(verde).call(abi.encodeCall(IVerde.collectHoldback, (taskId, index)));
        ledgers[taskId].paidOut += verde.credit(account) - before;
        if (ok) _mustFail(anyone, 0, abi.encodeCall(IVerde.collectHoldback, (taskId, index)));
    }

    function withdraw(uint256 who) external counted("withdraw") {
        address account = actors[who % ACTORS];
        uint256 amount = verde.credit(account);
        if (amount == 0) return _mustFail(anyone, 0, abi.encodeCall(IVerde.withdraw, (account)));
        uint256 before = account.balance;
        verde.withdraw(account);
        assertEq(account.balance - before, amount);
    }

    /// @notice Withdraws all credits. Returns what is left in the contract.
    function payOut() external returns (uint256) {
        for (uint256 i = 0; i < ACTORS + 2; i++) {
            address account = i < ACTORS ? actors[i] : i == ACTORS ? client : BURN;
            if (verde.credit(account) > 0) verde.withdraw(account);
        }
        return address(verde).balance;
    }

    function statusOf(uint256 taskId) external view returns (IVerde.Status) {
        return verde.getTask(taskId).status;
    }

    /// @notice The outcomes of all matches so far, one bit each from bit 8 on.
    function endings() external view returns (uint256 seen) {
        for (uint256 matchId = 1; matchId <= verde.matchCount(); matchId++) {
            seen |= 1 << (8 + uint256(verde.getMatch(matchId).outcome));
        }
    }

    // ---------------------------------------------------------------- Matches

    function pair(uint256 seed) external counted("pair") {
        uint256 taskId = _taskOf(seed);
        if (!_isLiveTask(taskId)) return;
        bytes memory call = abi.encodeCall(IVerde.pair, (taskId));
        bool legal = block.timestamp >= verde.getTask(taskId).revealDeadline && _freeClaims(taskId) >= 2;
        if (!legal) return _mustFail(anyone, 0, call);
        _mustSucceed(anyone, call);
        measures[verde.matchCount()] = type(uint256).max;
        _checkMatch(verde.matchCount());
    }

    function play(uint256 seed, uint256 seconds_, uint256 moves) external counted("play") {
        uint256 matchId = _matchOf(seed);
        if (matchId == 0) return;
        oneShot = seed % 2 == 0;
        moves = 1 + moves % 6;
        for (uint256 i = 0; i < moves && isLive(matchId); i++) {
            (uint256 since, uint256 limit) = verde.timeLimit(matchId);
            uint256 latest = since + limit;
            // Sometimes at the very last instant.
            uint256 time = block.timestamp + seconds_ % (seconds_ % 3 == 0 ? GRACE : 3 * GRACE);
            if (seconds_ % 11 == 0) time = latest - 1;
            if (time >= latest) time = latest - 1;
            if (time > block.timestamp) vm.warp(time);
            if (block.timestamp < latest) this.respondOnce(matchId);
            if (verde.getMatch(matchId).phase == IVerde.Phase.Referee) return;
        }
    }

    function lapse(uint256 seed) external counted("timeout") {
        uint256 matchId = _matchOf(seed);
        if (matchId == 0) return;
        // Rarely, but a referee is silent as often as not.
        if (verde.getMatch(matchId).phase != IVerde.Phase.Referee && seed % 5 != 0) return;
        (uint256 since, uint256 limit) = verde.timeLimit(matchId);
        if (since + limit > block.timestamp) vm.warp(since + limit);
        _checkMatch(matchId);
        uint256 taskId = verde.getMatch(matchId).taskId;
        uint256[3] memory before = _moneyBefore(taskId, matchId);
        _late(matchId);
        _moneyAfter(taskId, matchId, before);
        _checkMeasure(matchId);
    }

    function wait_(uint256 seconds_) external counted("wait") {
        vm.warp(block.timestamp + seconds_ % 40 minutes);
    }

    function respondOnce(uint256 matchId) external {
        require(msg.sender == address(this));
        _checkMatch(matchId);
        uint256 taskId = verde.getMatch(matchId).taskId;
        uint256[3] memory before = _moneyBefore(taskId, matchId);
        this.respond(matchId);
        _moneyAfter(taskId, matchId, before);
        _checkHonest(matchId);
        _checkMeasure(matchId);
    }

    function respond(uint256 matchId) external {
        if (verde.getMatch(matchId).phase == IVerde.Phase.Referee) {
            verde.judge(matchId, _verdict(matchId, _truth(matchId), false));
        } else {
            _respond(matchId);
        }
    }

    // ---------------------------------------------------------------- The model

    function _mustSucceed(address sender, bytes memory call) internal {
        vm.prank(sender);
        (bool ok,) = address(verde).call(call);
        assertTrue(ok, "a legal call was refused");
    }

    function _mustFail(address sender, uint256 value, bytes memory call) internal {
        vm.prank(sender);
        (bool ok,) = address(verde).call{value: value}(call);
        assertFalse(ok, "an illegal call was accepted");
        refusals++;
    }

    function _ended(uint256 taskId, uint256 toClient, uint256 burned) internal {
        Ledger storage ledger = ledgers[taskId];
        ledger.ended = true;
        ledger.toClient += toClient;
        ledger.paidOut += toClient + burned;
        // INVARIANT: the client gets back unspent escrow at most.
        IVerde.Task memory task = verde.getTask(taskId);
        assertLe(ledger.toClient, uint256(task.reward) * task.seats);
    }

    function _moneyBefore(uint256 taskId, uint256 matchId) internal view returns (uint256[3] memory) {
        IVerde.Match memory game = verde.getMatch(matchId);
        return [
            verde.credit(BURN),
            verde.credit(verde.getParticipant(taskId, game.indexA).account)
                + verde.credit(verde.getParticipant(taskId, game.indexB).account),
            verde.credit(client)
        ];
    }

    /// @dev What the end of a match moves: a loser's bond, at least half of it burned, none of it to the client.
    function _moneyAfter(uint256 taskId, uint256 matchId, uint256[3] memory before) internal {
        uint256[3] memory now_ = _moneyBefore(taskId, matchId);
        IVerde.Match memory game = verde.getMatch(matchId);
        IVerde.Task memory task = verde.getTask(taskId);
        uint256 burned = now_[0] - before[0];
        uint256 paid = now_[1] - before[1];
        ledgers[taskId].paidOut += burned + paid;
        assertEq(now_[2], before[2], "the client gains nothing by a match");
        if (game.outcome == IVerde.Outcome.AWins || game.outcome == IVerde.Outcome.BWins) {
            assertEq(paid, task.bounty + uint256(task.verbFee) * game.verbs);
            assertEq(paid + burned, task.bond);
            assertGe(burned, paid, "half is burned");
        } else if (game.outcome == IVerde.Outcome.BothLose) {
            assertEq(paid, 0);
            assertEq(burned, 2 * uint256(task.bond));
        } else if (game.outcome == IVerde.Outcome.Void) {
            ledgers[taskId].ended = true;
            assertEq(paid, 0);
            assertEq(
                burned,
                uint256(task.reward) * task.seats + uint256(task.bond) * (uint256(task.committed) - task.revealed)
            );
        } else {
            assertEq(paid + burned, 0);
        }
    }

    /// @dev INVARIANT: whoever plays the true execution loses no match that is played to its end.
    function _checkHonest(uint256 matchId) internal view {
        IVerde.Match memory game = verde.getMatch(matchId);
        if (game.outcome == IVerde.Outcome.None || game.outcome == IVerde.Outcome.Void) return;
        for (uint256 i = 0; i < 2; i++) {
            uint256 index = i == 0 ? game.indexA : game.indexB;
            World.Plan memory plan = plans[game.taskId][index];
            if (plan.salt == 0 && !plan.padding) {
                assertEq(game.outcome, i == 0 ? IVerde.Outcome.AWins : IVerde.Outcome.BWins);
            }
        }
    }

    /// @notice Exactly one class of call is enabled: the due side's response, or what ends a match that is late; and no verb of another phase.
    function _checkMatch(uint256 matchId) internal {
        uint256 snapshot = vm.snapshotState();
        (bool responds,) = address(this).call(abi.encodeCall(this.respond, (matchId)));
        vm.revertToState(snapshot);
        (bool timesOut,) = address(this).call(abi.encodeCall(this.late, (matchId)));
        vm.revertToState(snapshot);
        assertTrue(responds != timesOut, "exactly one class of call");
        IVerde.Phase phase = verde.getMatch(matchId).phase;
        bool[5] memory accepted;
        (accepted[0],) = address(this).call(abi.encodeCall(this.tryOpen, (matchId)));
        vm.revertToState(snapshot);
        (accepted[1],) = address(this).call(abi.encodeCall(this.tryAdvance, (matchId)));
        vm.revertToState(snapshot);
        (accepted[2],) = address(this).call(abi.encodeCall(this.tryPosts, (matchId)));
        vm.revertToState(snapshot);
        (accepted[3],) = address(this).call(abi.encodeCall(this.tryHashNode, (matchId)));
        vm.revertToState(snapshot);
        (accepted[4],) = address(this).call(abi.encodeCall(this.tryJudge, (matchId)));
        vm.revertToState(snapshot);
        assertEq(accepted[0], responds && phase == IVerde.Phase.Open, "open");
        assertEq(accepted[1], responds && (phase == IVerde.Phase.Open || phase == IVerde.Phase.Move), "advance");
        assertEq(accepted[2], responds && (phase == IVerde.Phase.PostA || phase == IVerde.Phase.PostB), "post");
        assertEq(accepted[3], responds && phase == IVerde.Phase.HashNode, "hashNode");
        assertEq(accepted[4], responds && phase == IVerde.Phase.Referee, "judge");
        vm.deleteStateSnapshot(snapshot);
    }

    function late(uint256 matchId) external {
        _late(matchId);
    }

    function tryOpen(uint256 matchId) external {
        verde.open(matchId, _children(matchId));
    }

    function tryAdvance(uint256 matchId) external {
        _advance(matchId, verde.getMatch(matchId).rest);
    }

    function tryPosts(uint256 matchId) external {
        spareOpening = !spareOpening;
        _post(matchId, verde.getMatch(matchId).turn);
    }

    function tryHashNode(uint256 matchId) external {
        _hashNode(matchId);
    }

    function tryJudge(uint256 matchId) external {
        verde.judge(matchId, _verdict(matchId, _truth(matchId), false));
    }

    /// @notice Each verb brings the end nearer: fewer levels, phases or heights are left.
    function _checkMeasure(uint256 matchId) internal {
        IVerde.Match memory game = verde.getMatch(matchId);
        uint256 measure = 0;
        if (game.phase != IVerde.Phase.Done) {
            measure = (2 - uint256(game.level)) * 1000;
            if (game.phase == IVerde.Phase.PostA) measure += 200;
            else if (game.phase == IVerde.Phase.PostB) measure += 199;
            else if (game.phase == IVerde.Phase.Open) measure += 198;
            else if (game.phase == IVerde.Phase.Move) measure += 2 + game.rest;
            else measure += 1;
        }
        assertLt(measure, measures[matchId], "the match does not come nearer to its end");
        measures[matchId] = measure;
    }

    // ---------------------------------------------------------------- Counting by hand

    function _count(uint256 taskId, IVerde.Standing standing) internal view returns (uint256 count) {
        uint256 n = verde.getTask(taskId).participants;
        for (uint256 i = 0; i < n; i++) {
            if (_standing(taskId, i) == standing) count++;
        }
    }

    function _playing(uint256 taskId) internal view returns (uint256) {
        return _count(taskId, IVerde.Standing.Playing);
    }

    function _claims(uint256 taskId, bool freeOnly) internal view returns (uint256 count) {
        uint256 n = verde.getTask(taskId).participants;
        uint256 seen = 0;
        for (uint256 i = 0; i < n; i++) {
            IVerde.Participant memory participant = verde.getParticipant(taskId, i);
            bool alive = participant.standing == IVerde.Standing.Free
                || (!freeOnly && participant.standing == IVerde.Standing.Playing);
            if (alive && seen & (1 << participant.claimId) == 0) {
                seen |= 1 << participant.claimId;
                count++;
            }
        }
    }

    function _claimsAlive(uint256 taskId) internal view returns (uint256) {
        return _claims(taskId, false);
    }

    function _freeClaims(uint256 taskId) internal view returns (uint256) {
        return _claims(taskId, true);
    }

    // ---------------------------------------------------------------- Invariants, called by the test

    /// @notice What a task owes by its state alone: escrow or uncollected rewards, and bonds.
    function owed(uint256 taskId) public view returns (uint256 amount) {
        IVerde.Task memory task = verde.getTask(taskId);
        bool live = task.status == IVerde.Status.Live;
        if (live) amount = uint256(task.reward) * task.seats;
        uint256 held = (uint256(task.reward) * task.holdbackBps) / 10_000;
        for (uint256 i = 0; i < task.participants; i++) {
            IVerde.Participant memory p = verde.getParticipant(taskId, i);
            bool survivor = p.standing == IVerde.Standing.Free || p.standing == IVerde.Standing.Playing;
            bool bond = survivor
                || (p.standing == IVerde.Standing.Committed && (live || task.status == IVerde.Status.Cancelled));
            if (bond && !p.collected) amount += task.bond;
            bool rewarded =
                task.status == IVerde.Status.Settled && survivor && (i < task.committed || i + 1 == task.payee);
            if (rewarded && !p.collected) amount += task.reward - held;
            if (rewarded && !p.holdbackCollected) amount += held;
        }
    }

    function checkConservation() external view {
        for (uint256 taskId = 1; taskId <= verde.taskCount(); taskId++) {
            assertEq(ledgers[taskId].paidIn, ledgers[taskId].paidOut + owed(taskId), "conservation");
        }
    }

    function checkSolvency() external view {
        uint256 debts = verde.credit(BURN) + verde.credit(client) + verde.credit(anyone);
        for (uint256 i = 0; i < ACTORS; i++) {
            debts += verde.credit(actors[i]);
        }
        for (uint256 taskId = 1; taskId <= verde.taskCount(); taskId++) {
            debts += owed(taskId);
        }
        assertEq(address(verde).balance, debts, "solvency");
    }

    /// @notice Counters and queues against a count by hand.
    function checkCounters() external view {
        for (uint256 taskId = 1; taskId <= verde.taskCount(); taskId++) {
            IVerde.Task memory task = verde.getTask(taskId);
            assertEq(
                uint256(task.liveMatches) * 2,
                task.status == IVerde.Status.Voided ? _voidedPlayers(taskId) : _playing(taskId)
            );
            uint256 queued = 0;
            uint256 free = 0;
            for (uint256 claimId = task.head; claimId != 0;) {
                IVerde.Claim memory claim = verde.getClaim(taskId, claimId);
                queued++;
                assertGt(claim.head, 0, "a claim without free survivors waits");
                uint256 last = 0;
                for (uint256 link = claim.head; link != 0;) {
                    IVerde.Participant memory p = verde.getParticipant(taskId, link - 1);
                    assertEq(p.standing, IVerde.Standing.Free);
                    assertEq(p.claimId, claimId);
                    free++;
                    last = link;
                    link = p.next;
                }
                assertEq(claim.tail, last);
                if (claim.next == 0) assertEq(task.tail, claimId);
                claimId = claim.next;
            }
            assertEq(free, _count(taskId, IVerde.Standing.Free), "every free survivor waits");
            assertEq(queued, _freeClaims(taskId));
            uint256 seats = 0;
            for (uint256 i = 0; i < task.committed; i++) {
                IVerde.Standing standing = _standing(taskId, i);
                if (standing == IVerde.Standing.Free || standing == IVerde.Standing.Playing) seats++;
            }
            assertEq(task.survivingSeats, seats);
        }
    }

    /// @dev In a voided task the players of the voided match stay where they were.
    function _voidedPlayers(uint256 taskId) internal view returns (uint256) {
        return _playing(taskId) - 2;
    }

    /// @notice A task with survivors always has a call that brings it on: a live match, a pair, or settling.
    function checkMatches() external view {
        uint256 count = verde.matchCount();
        for (uint256 taskId = 1; taskId <= verde.taskCount(); taskId++) {
            uint256 played = 0;
            for (uint256 matchId = 1; matchId <= count; matchId++) {
                if (verde.getMatch(matchId).taskId == taskId) played++;
            }
            uint256 n = verde.getTask(taskId).participants;
            assertLe(played, n == 0 ? 0 : n - 1, "at most participants - 1 matches");
        }
    }
}

contract InvariantsTest is BaseTest {
    Handler internal handler;

    function setUp() public override {
        super.setUp();
        handler = new Handler();
        handler.setUp();
        bytes4[] memory selectors = new bytes4[](13);
        selectors[0] = Handler.create.selector;
        selectors[1] = Handler.commit.selector;
        selectors[2] = Handler.reveal.selector;
        selectors[3] = Handler.challenge.selector;
        selectors[4] = Handler.cancelOrExpire.selector;
        selectors[5] = Handler.settle.selector;
        selectors[6] = Handler.collect.selector;
        selectors[7] = Handler.withdraw.selector;
        selectors[8] = Handler.pair.selector;
        selectors[9] = Handler.play.selector;
        selectors[10] = Handler.lapse.selector;
        selectors[11] = Handler.wait_.selector;
        selectors[12] = Handler.play.selector;
        targetContract(address(handler));
        targetSelector(FuzzSelector({addr: address(handler), selectors: selectors}));
    }

    /// Every task ends, whatever is played, and pays out every wei.
    /// forge-config: default.fuzz.runs = 32
    function testFuzz_EveryTaskEnds(uint256 seed) public {
        _playToTheEnd(seed);
    }

    function _playToTheEnd(uint256 seed) internal {
        handler.create(_draw(seed, 1));
        for (uint256 i = 0; i < 5; i++) {
            handler.commit(_draw(seed, 10 + i) << 8, i);
        }
        for (uint256 i = 0; i < 4; i++) {
            if (_draw(seed, 20 + i) % 5 != 0) handler.reveal(0, i);
        }
        for (uint256 i = 4; i < 7; i++) {
            if (_draw(seed, 30 + i) % 3 != 0) handler.challenge(_draw(seed, 40 + i) << 8, i);
        }
        uint256 round = 100;
        while (handler.statusOf(1) == IVerde.Status.Live) {
            assertLt(round, 600, "the task does not end");
            uint256 draw = _draw(seed, round++);
            if (draw % 8 == 0) handler.lapse(draw >> 8);
            else if (draw % 8 == 1) handler.settle(0);
            else if (draw % 8 == 2) handler.wait_(draw >> 8);
            else if (draw % 8 == 3) handler.pair(0);
            else handler.play(draw >> 8, draw >> 64, draw >> 128);
            handler.checkSolvency();
            handler.checkConservation();
            handler.checkCounters();
        }
        vm.warp(block.timestamp + DELIVERY);
        for (uint256 i = 0; i < 7; i++) {
            handler.collect(0, i);
        }
        handler.checkSolvency();
        handler.checkConservation();
        assertEq(handler.owed(1), 0, "everything is collected");
        assertEq(handler.payOut(), 0, "everything is withdrawn");
    }

    /// The random games are not all alike: among a few fixed ones every ending is met.
    function test_GamesMeetEveryEnding() public {
        uint256 wanted = 0;
        for (uint256 i = uint256(IVerde.Status.Settled); i <= uint256(IVerde.Status.Voided); i++) {
            wanted |= 1 << i;
        }
        for (uint256 i = uint256(IVerde.Outcome.AWins); i <= uint256(IVerde.Outcome.Void); i++) {
            wanted |= 1 << (8 + i);
        }
        uint256 seen = 0;
        uint256 snapshot = vm.snapshotState();
        for (uint256 seed = 0; seed < 40 && seen & wanted != wanted; seed++) {
            _playToTheEnd(seed);
            seen |= (1 << uint256(handler.statusOf(1))) | handler.endings();
            vm.revertToState(snapshot);
        }
        assertEq(seen & wanted, wanted);
    }

    function _draw(uint256 seed, uint256 salt) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, salt)));
    }

    /// forge-config: default.invariant.runs = 24
    /// forge-config: default.invariant.depth = 100
    function invariant_MoneyAndQueues() public view {
        handler.checkSolvency();
        handler.checkConservation();
        handler.checkCounters();
        handler.checkMatches();
    }
}
