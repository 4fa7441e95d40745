// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {Test} from "forge-std/Test.sol";
import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {IReferee, Question, Ruling} from "../../contracts/interfaces/IReferee.sol";
import {Trees} from "./utils/Trees.sol";
import {World} from "./utils/World.sol";

/// @notice A deployed Verde with a committee of three, named actors, and players that find the due move from their own trees.
abstract contract BaseTest is Test {
    using Trees for Trees.Tree;

    address internal constant BURN = 0x000000000000000000000000000000000000dEaD;
    uint40 internal constant START = 1_700_000_000;
    uint40 internal constant COMMIT = 1 hours;
    uint40 internal constant REVEAL = 30 minutes;
    uint40 internal constant CHALLENGE = 2 hours;
    uint40 internal constant BUILD = 20 minutes;
    uint40 internal constant ALLOWANCE = 10 minutes;
    uint40 internal constant GRACE = 1 minutes;
    uint40 internal constant REFEREE = 40 minutes;
    uint40 internal constant DELIVERY = 1 days;
    bytes32 internal constant SALT = keccak256("salt of the commitment");
    bytes32 internal constant COMMIT_TYPEHASH = keccak256(
        "Commitment(uint256 chainId,address verde,uint256 taskId,address provider,bytes32 claimRoot,bytes32 finalStateRoot,bytes32 salt)"
    );

    IVerde internal verde;
    IReferee internal committee;
    address internal client = makeAddr("client");
    address internal alice = makeAddr("alice");
    address internal bob = makeAddr("bob");
    address internal carol = makeAddr("carol");
    address internal mallory = makeAddr("mallory");
    address internal anyone = makeAddr("anyone");
    uint256[] internal memberKeys;
    bytes internal config;

    /// What each participant plays.
    mapping(uint256 taskId => mapping(uint256 index => World.Plan)) internal plans;
    /// Whether levels are played in one transaction, by the match.
    bool internal oneShot;
    /// Whether B posts the top children of its tree.
    bool internal spareOpening;

    function setUp() public virtual {
        vm.warp(START);
        verde = IVerde(deployCode("Verde.sol:Verde"));
        committee = IReferee(deployCode("CommitteeReferee.sol:CommitteeReferee"));
        address[] memory members = _members();
        config = abi.encode(uint8(2), members);
        vm.deal(client, 1_000 ether);
        vm.deal(alice, 100 ether);
        vm.deal(bob, 100 ether);
        vm.deal(carol, 100 ether);
        vm.deal(mallory, 100 ether);
    }

    // ---------------------------------------------------------------- Committee

    function _members() internal returns (address[] memory members) {
        members = new address[](3);
        for (uint256 i = 0; i < 3; i++) {
            (address member, uint256 key) = makeAddrAndKey(string.concat("member ", vm.toString(i)));
            memberKeys.push(key);
            members[i] = member;
            for (uint256 j = i; j > 0 && members[j] < members[j - 1]; j--) {
                (members[j], members[j - 1]) = (members[j - 1], members[j]);
                (memberKeys[j], memberKeys[j - 1]) = (memberKeys[j - 1], memberKeys[j]);
            }
        }
    }

    function _question(uint256 matchId) internal view returns (Question memory) {
        IVerde.Match memory game = verde.getMatch(matchId);
        IVerde.Task memory task = verde.getTask(game.taskId);
        return Question({
            verde: address(verde),
            taskId: game.taskId,
            matchId: matchId,
            programRoot: task.programRoot,
            dataRoot: task.dataRoot,
            batchCount: task.batchCount,
            preState: game.preState,
            step: game.step,
            node: uint32(game.position),
            traceRoot: game.rootA,
            rootA: game.nodeA,
            rootB: game.nodeB,
            configHash: task.configHash,
            since: game.since,
            window: task.refereeWindow,
            clockA: game.clockA,
            clockB: game.clockB,
            grace: task.grace,
            buildWindow: task.buildWindow,
            arityBits: task.arityBits,
            accountA: verde.getParticipant(game.taskId, game.indexA).account,
            accountB: verde.getParticipant(game.taskId, game.indexB).account
        });
    }

    function _digest(Question memory question, bytes32 outputRoot, bool unavailable) internal view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Verde Committee"),
                keccak256("1"),
                block.chainid,
                address(committee)
            )
        );
        bytes32 verdict = keccak256(
            abi.encode(
                keccak256(
                    "Verdict(address verde,uint256 taskId,uint256 matchId,bytes32 preState,uint64 step,uint32 node,bytes32 traceRoot,bytes32 outputRoot,bool unavailable)"
                ),
                question.verde,
                question.taskId,
                question.matchId,
                question.preState,
                question.step,
                question.node,
                question.traceRoot,
                outputRoot,
                unavailable
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, verdict));
    }

    function _sign(bytes32 digest, uint256[] memory keys) internal pure returns (bytes[] memory signatures) {
        signatures = new bytes[](keys.length);
        for (uint256 i = 0; i < keys.length; i++) {
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(keys[i], digest);
            signatures[i] = abi.encodePacked(r, s, v);
        }
    }

    function _keys(uint256 first, uint256 second) internal view returns (uint256[] memory keys) {
        keys = new uint256[](2);
        keys[0] = memberKeys[first];
        keys[1] = memberKeys[second];
    }

    /// @dev Two members sign.
    function _verdict(uint256 matchId, bytes32 outputRoot, bool unavailable) internal view returns (bytes memory) {
        bytes[] memory signatures = _sign(_digest(_question(matchId), outputRoot, unavailable), _keys(0, 2));
        return abi.encode(config, abi.encode(outputRoot, unavailable, signatures));
    }

    /// @dev What an honest committee signs.
    function _truth(uint256 matchId) internal view returns (bytes32) {
        IVerde.Match memory game = verde.getMatch(matchId);
        return World.output(_honest(), game.step, game.position);
    }

    // ---------------------------------------------------------------- Task

    function _params() internal view returns (IVerde.TaskParams memory params) {
        params.program = World.header();
        params.initialStateRoot = World.state(_honest(), 0).root();
        params.dataRoot = World.data().root();
        params.batchCount = uint64(World.BATCHES);
        params.steps = 22;
        params.interval = 4;
        params.seats = 2;
        params.providers = new address[](0);
        params.arityBits = 2;
        params.reward = 3 ether;
        params.bond = 2 ether;
        params.verbFee = 0.01 ether;
        params.bounty = 0.25 ether;
        params.holdbackBps = 2_500;
        params.commitWindow = COMMIT;
        params.revealWindow = REVEAL;
        params.challengeWindow = CHALLENGE;
        params.buildWindow = BUILD;
        params.allowance = ALLOWANCE;
        params.grace = GRACE;
        params.refereeWindow = REFEREE;
        params.deliveryWindow = DELIVERY;
        params.referee = committee;
        params.refereeConfig = config;
    }

    function _create(IVerde.TaskParams memory params) internal returns (uint256 taskId) {
        vm.prank(client);
        return verde.createTask{value: uint256(params.reward) * params.seats}(params);
    }

    function _create() internal returns (uint256) {
        return _create(_params());
    }

    function _honest() internal pure returns (World.Plan memory plan) {}

    function _liar(uint256 step, uint256 node) internal pure returns (World.Plan memory) {
        return World.Plan(keccak256("liar"), step, node, false);
    }

    function _claimOf(uint256 taskId, World.Plan memory plan) internal view returns (Trees.Tree memory) {
        IVerde.Task memory task = verde.getTask(taskId);
        return World.checkpoints(plan, task.steps, task.interval);
    }

    function _final(uint256 taskId, World.Plan memory plan) internal view returns (bytes32) {
        return World.stateRoot(plan, verde.getTask(taskId).steps);
    }

    function _commitment(uint256 taskId, address who, bytes32 root, bytes32 finalStateRoot)
        internal
        view
        returns (bytes32)
    {
        return keccak256(
            abi.encode(COMMIT_TYPEHASH, block.chainid, address(verde), taskId, who, root, finalStateRoot, SALT)
        );
    }

    function _bond(uint256 taskId) internal view returns (uint256) {
        return verde.getTask(taskId).bond;
    }

    function _commit(uint256 taskId, address who, World.Plan memory plan) internal {
        uint256 index = verde.getTask(taskId).participants;
        bytes32 commitment = _commitment(taskId, who, _claimOf(taskId, plan).root(), _final(taskId, plan));
        uint256 bond = _bond(taskId);
        vm.prank(who);
        verde.commit{value: bond}(taskId, commitment);
        plans[taskId][index] = plan;
    }

    function _finalProof(uint256 taskId, World.Plan memory plan) internal view returns (bytes32[] memory) {
        IVerde.Task memory task = verde.getTask(taskId);
        return _claimOf(taskId, plan).prove((task.steps + task.interval - 1) / task.interval - 1);
    }

    function _reveal(uint256 taskId, address who, World.Plan memory plan) internal {
        bytes32 root = _claimOf(taskId, plan).root();
        bytes32 finalStateRoot = _final(taskId, plan);
        bytes32[] memory proof = _finalProof(taskId, plan);
        vm.prank(who);
        verde.reveal(taskId, root, finalStateRoot, SALT, proof);
    }

    function _challenge(uint256 taskId, address who, World.Plan memory plan) internal {
        uint256 index = verde.getTask(taskId).participants;
        bytes32 root = _claimOf(taskId, plan).root();
        bytes32 finalStateRoot = _final(taskId, plan);
        bytes32[] memory proof = _finalProof(taskId, plan);
        uint256 bond = _bond(taskId);
        vm.prank(who);
        verde.challenge{value: bond}(taskId, root, finalStateRoot, proof);
        plans[taskId][index] = plan;
    }

    function _toReveal(uint256 taskId) internal {
        vm.warp(verde.getTask(taskId).commitDeadline);
    }

    function _toChallenge(uint256 taskId) internal {
        vm.warp(verde.getTask(taskId).revealDeadline);
    }

    function _toSettle(uint256 taskId) internal {
        uint256 deadline = verde.getTask(taskId).challengeDeadline;
        if (block.timestamp < deadline) vm.warp(deadline);
    }

    /// @dev Alice plays `a`, Bob plays `b`, both have revealed, and the challenge window is open.
    function _revealed(IVerde.TaskParams memory params, World.Plan memory a, World.Plan memory b)
        internal
        returns (uint256 taskId)
    {
        taskId = _create(params);
        _commit(taskId, alice, a);
        _commit(taskId, bob, b);
        _toReveal(taskId);
        _reveal(taskId, alice, a);
        _reveal(taskId, bob, b);
        _toChallenge(taskId);
    }

    function _paired(IVerde.TaskParams memory params, World.Plan memory a, World.Plan memory b)
        internal
        returns (uint256 matchId)
    {
        return verde.pair(_revealed(params, a, b));
    }

    // ---------------------------------------------------------------- Match

    struct Move {
        uint8 m;
        uint64 index;
        bytes32 a;
        bytes32 b;
        bytes32[] siblings;
        bytes32[] children;
        IVerde.Opening pre;
    }

    function _plan(uint256 matchId, IVerde.Side side) internal view returns (World.Plan memory) {
        IVerde.Match memory game = verde.getMatch(matchId);
        return plans[game.taskId][side == IVerde.Side.A ? game.indexA : game.indexB];
    }

    /// @dev A side's tree of the match's level.
    function _tree(uint256 matchId, IVerde.Side side) internal view returns (Trees.Tree memory) {
        IVerde.Match memory game = verde.getMatch(matchId);
        IVerde.Task memory task = verde.getTask(game.taskId);
        World.Plan memory plan = _plan(matchId, side);
        if (game.level == IVerde.Level.Checkpoints) return World.checkpoints(plan, task.steps, task.interval);
        if (game.level == IVerde.Level.Steps) return World.segment(plan, task.steps, task.interval, game.step);
        return Trees.build(World.trace(plan, game.step));
    }

    /// @dev Real leaves of the match's level.
    function _leaves(uint256 matchId) internal view returns (uint256) {
        IVerde.Match memory game = verde.getMatch(matchId);
        IVerde.Task memory task = verde.getTask(game.taskId);
        if (game.level == IVerde.Level.Checkpoints) return (task.steps + task.interval - 1) / task.interval;
        if (game.level == IVerde.Level.Operators) return task.nodes;
        return task.steps - game.step < task.interval ? task.steps - game.step : task.interval;
    }

    function _stride(uint256 matchId, uint256 rest) internal view returns (uint256) {
        uint256 bits = verde.getTask(verde.getMatch(matchId).taskId).arityBits;
        return bits < rest ? bits : rest;
    }

    function _children(uint256 matchId) internal view returns (bytes32[] memory) {
        Trees.Tree memory tree = _tree(matchId, IVerde.Side.A);
        return tree.children(0, 0, _stride(matchId, tree.height));
    }

    /// @dev The one valid divergence proof that goes down `m` levels.
    function _move(uint256 matchId, uint256 m) internal view returns (Move memory move) {
        IVerde.Match memory game = verde.getMatch(matchId);
        Trees.Tree memory a = _tree(matchId, IVerde.Side.A);
        Trees.Tree memory b = _tree(matchId, IVerde.Side.B);
        uint256 depth = a.height - game.rest;
        uint256 index = a.firstDifference(b, depth, game.position, m);
        uint256 position = uint256(game.position) * 2 ** m + index;
        move.m = uint8(m);
        move.index = uint64(index);
        move.a = a.node(depth + m, position);
        move.b = b.node(depth + m, position);
        move.siblings = a.siblings(b, depth, game.position, m, index);
        uint256 rest = game.rest - m;
        if (rest > 0) {
            Trees.Tree memory mover = game.turn == IVerde.Side.A ? a : b;
            move.children = mover.children(depth + m, position, _stride(matchId, rest));
        } else if (game.level != IVerde.Level.Operators && position > 0 && position < _leaves(matchId)) {
            move.pre = IVerde.Opening(a.leaf(position - 1), a.prove(position - 1));
        }
    }

    function _send(uint256 matchId, Move memory move) internal {
        verde.advance(matchId, move.m, move.index, move.a, move.b, move.siblings, move.children, move.pre);
    }

    function _advance(uint256 matchId, uint256 m) internal {
        _send(matchId, _move(matchId, m));
    }

    function _post(uint256 matchId, IVerde.Side side) internal {
        IVerde.Match memory game = verde.getMatch(matchId);
        address poster = verde.getParticipant(game.taskId, side == IVerde.Side.A ? game.indexA : game.indexB).account;
        Trees.Tree memory tree = _tree(matchId, side);
        bytes32 root = tree.root();
        bytes32[] memory proof = tree.prove(_leaves(matchId) - 1);
        bytes32[] memory children = new bytes32[](0);
        if (spareOpening && side == IVerde.Side.B && tree.height > 0) {
            children = tree.children(0, 0, _stride(matchId, tree.height));
        }
        vm.prank(poster);
        verde.post(matchId, root, proof, children);
    }

    function _hashNode(uint256 matchId) internal {
        IVerde.Match memory game = verde.getMatch(matchId);
        World.Plan memory plan = _plan(matchId, IVerde.Side.A);
        verde.hashNode(
            matchId,
            World.header(),
            World.program(game.position),
            World.nodes().prove(game.position),
            World.openInput(plan, game.step, game.position, 0),
            World.openInput(plan, game.step, game.position, 1)
        );
    }

    /// @dev The due side's response, whatever it is.
    function _respond(uint256 matchId) internal {
        IVerde.Match memory game = verde.getMatch(matchId);
        if (game.phase == IVerde.Phase.Open) {
            if (oneShot) _advance(matchId, game.rest);
            else verde.open(matchId, _children(matchId));
        } else if (game.phase == IVerde.Phase.Move) {
            _advance(matchId, oneShot ? game.rest : _stride(matchId, game.rest));
        } else if (game.phase == IVerde.Phase.PostA) {
            _post(matchId, IVerde.Side.A);
        } else if (game.phase == IVerde.Phase.PostB) {
            _post(matchId, IVerde.Side.B);
        } else if (game.phase == IVerde.Phase.HashNode) {
            _hashNode(matchId);
        } else {
            revert("nobody is due");
        }
    }

    /// @dev Ends a match whose time is over, whoever has to say so.
    function _late(uint256 matchId) internal {
        if (verde.getMatch(matchId).phase == IVerde.Phase.Referee) verde.judge(matchId, "");
        else verde.timeout(matchId);
    }

    /// @dev Plays until the referee is asked or the match is done.
    function _playOut(uint256 matchId) internal {
        for (uint256 i = 0; i < 200; i++) {
            IVerde.Phase phase = verde.getMatch(matchId).phase;
            if (phase == IVerde.Phase.Referee || phase == IVerde.Phase.Done) return;
            _respond(matchId);
        }
        revert("the match does not end");
    }

    /// @dev Plays until the match waits for `phase` at `level`.
    function _playTo(uint256 matchId, IVerde.Level level, IVerde.Phase phase) internal {
        for (uint256 i = 0; i < 200; i++) {
            IVerde.Match memory game = verde.getMatch(matchId);
            if (game.level == level && game.phase == phase) return;
            _respond(matchId);
        }
        revert("the match does not get there");
    }

    function _standing(uint256 taskId, uint256 index) internal view returns (IVerde.Standing) {
        return verde.getParticipant(taskId, index).standing;
    }

    // ---------------------------------------------------------------- Assertions

    function assertEq(IVerde.Phase a, IVerde.Phase b) internal pure {
        assertEq(uint256(a), uint256(b), "phase");
    }

    function assertEq(IVerde.Level a, IVerde.Level b) internal pure {
        assertEq(uint256(a), uint256(b), "level");
    }

    function assertEq(IVerde.Status a, IVerde.Status b) internal pure {
        assertEq(uint256(a), uint256(b), "status");
    }

    function assertEq(IVerde.Standing a, IVerde.Standing b) internal pure {
        assertEq(uint256(a), uint256(b), "standing");
    }

    function assertEq(IVerde.Outcome a, IVerde.Outcome b) internal pure {
        assertEq(uint256(a), uint256(b), "outcome");
    }

    function assertEq(Ruling a, Ruling b) internal pure {
        assertEq(uint256(a), uint256(b), "ruling");
    }

    function assertEq(IVerde.Side a, IVerde.Side b) internal pure {
        assertEq(uint256(a), uint256(b), "side");
    }
}
