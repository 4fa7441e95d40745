// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {Vm} from "forge-std/Vm.sol";
import {IAppealReferee} from "../../contracts/interfaces/IAppealReferee.sol";
import {ICommitteeReferee} from "../../contracts/interfaces/ICommitteeReferee.sol";
import {IEvmReferee} from "../../contracts/interfaces/IEvmReferee.sol";
import {IReferee, Question, Ruling} from "../../contracts/interfaces/IReferee.sol";
import {IVerde} from "../../contracts/interfaces/IVerde.sol";
import {TrialBase} from "./Trials.t.sol";
import {Trees} from "./utils/Trees.sol";

/// @notice The appeal referee and a committee of three of which two suffice.
abstract contract AppealBase is TrialBase {
    uint40 internal constant APPEAL = 15 minutes;

    IAppealReferee internal appeals;
    bytes internal config;
    uint256[] internal keys;

    function setUp() public virtual override {
        super.setUp();
        appeals = IAppealReferee(deployCode("AppealReferee.sol:AppealReferee"));
        address[] memory members = new address[](3);
        for (uint256 i = 0; i < 3; i++) {
            (address member, uint256 key) = makeAddrAndKey(string.concat("member ", vm.toString(i)));
            keys.push(key);
            members[i] = member;
            for (uint256 j = i; j > 0 && members[j] < members[j - 1]; j--) {
                (members[j], members[j - 1]) = (members[j - 1], members[j]);
                (keys[j], keys[j - 1]) = (keys[j - 1], keys[j]);
            }
        }
        config = abi.encode(APPEAL, abi.encode(uint8(2), members));
    }

    /// @dev What two members say of a match.
    function _signed(Question memory question, bytes32 root, bool unavailable) internal view returns (bytes memory) {
        bytes32 digest = appeals.digest(question, root, unavailable);
        bytes[] memory signatures = new bytes[](2);
        for (uint256 i = 0; i < 2; i++) {
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(keys[2 * i], digest);
            signatures[i] = abi.encodePacked(r, s, v);
        }
        return abi.encode(root, unavailable, signatures);
    }
}

/// @notice A committee first, the chain on appeal: whose word stands when, and who is named.
contract AppealsTest is AppealBase {
    using Trees for Trees.Tree;

    uint40 internal constant WINDOW = 40 minutes; // the committee's

    function setUp() public override {
        super.setUp();
        referee = appeals;
        _load(1);
    }

    /// @dev A match between the honest side (A) and a liar waits for the referee.
    function _asked() internal {
        (sideA, sideB) = (_honest(), _liar(c.value ^ 1, 2));
        _ask();
        (, Question memory question) = asker.question(MATCH);
        question.configHash = keccak256(config);
        asker.ask(IReferee(address(appeals)), question);
    }

    function _signed(bytes32 root, bool unavailable) internal view returns (bytes memory) {
        (, Question memory question) = asker.question(MATCH);
        return _signed(question, root, unavailable);
    }

    function _submit(bytes32 root, bool unavailable) internal {
        bytes memory verdict = _signed(root, unavailable);
        appeals.submitVerdict(address(asker), MATCH, config, verdict);
    }

    function _appeal(address who) internal {
        vm.prank(who);
        appeals.appeal(address(asker), MATCH);
    }

    function _undecided(uint256 elapsed, uint256 limit) internal {
        vm.expectRevert(abi.encodeWithSelector(IEvmReferee.Undecided.selector, elapsed, limit));
        asker.judge(MATCH, "");
    }

    // ---------------------------------------------------------------- Configuration

    function test_Validate() public {
        assertEq(appeals.validate(config, 4), 2 + 7 + 9 + 5);
        vm.expectRevert(IAppealReferee.NoAppealWindow.selector);
        appeals.validate(abi.encode(uint40(0), abi.encode(uint8(2), new address[](3))), 4);
        vm.expectPartialRevert(ICommitteeReferee.InvalidThreshold.selector);
        appeals.validate(abi.encode(APPEAL, abi.encode(uint8(1), new address[](3))), 4);
    }

    // ---------------------------------------------------------------- Without an appeal

    function test_AVerdictStandsAfterTheAppealWindow() public {
        _asked();
        bytes32 root = sideA.tiles.root();
        vm.warp(START + 100);
        _submit(root, false);
        vm.warp(START + 100 + APPEAL - 1);
        _undecided(APPEAL - 1, APPEAL);
        vm.warp(START + 100 + APPEAL);
        vm.prank(sideB.account);
        vm.expectRevert(IAppealReferee.NoAppeal.selector);
        appeals.appeal(address(asker), MATCH);
        asker.judge(MATCH, "");
        assertEq(asker.ruling(), Ruling.Root);
        assertEq(asker.outputRoot(), root);
        assertEq(asker.verbs(), 1);
    }

    function test_VerdictsComeOnceAndInTime() public {
        _asked();
        bytes memory verdict = _signed(sideA.tiles.root(), false);
        vm.warp(START + WINDOW);
        vm.expectRevert(abi.encodeWithSelector(IAppealReferee.NoMoreVerdict.selector, 0));
        appeals.submitVerdict(address(asker), MATCH, config, verdict);
        vm.warp(START + WINDOW - 1);
        vm.expectPartialRevert(ICommitteeReferee.WrongConfig.selector);
        appeals.submitVerdict(address(asker), MATCH, abi.encode(APPEAL + 1, ""), verdict);
        appeals.submitVerdict(address(asker), MATCH, config, verdict);
        verdict = _signed(sideB.tiles.root(), false);
        vm.expectRevert(abi.encodeWithSelector(IAppealReferee.NoMoreVerdict.selector, START + WINDOW - 1));
        appeals.submitVerdict(address(asker), MATCH, config, verdict);
        IAppealReferee.Verdict memory stored = appeals.getVerdict(address(asker), MATCH);
        assertEq(stored.outputRoot, sideA.tiles.root());
        assertEq(stored.signers, 5);
        assertEq(stored.appealWindow, APPEAL);
        assertTrue(stored.available);
    }

    // ---------------------------------------------------------------- Appeals

    /// A committee that signs for the liar is overruled and named.
    function test_AWrongCommitteeIsNamed() public {
        _asked();
        bytes32 root = sideB.tiles.root();
        _submit(root, false);
        vm.expectRevert(IAppealReferee.NotAppealed.selector);
        this.begin();
        vm.warp(START + APPEAL - 1);
        _appeal(sideA.account);
        for (uint256 i = 0; i < 60 && _trial().stage != IEvmReferee.Stage.Execute; i++) {
            _respond();
        }
        bytes32[] memory proof = nodes.prove(NODE);
        IEvmReferee.Witness memory w = _witness(_trial().position);
        vm.expectEmit(address(appeals));
        emit IAppealReferee.CommitteeWrong(address(asker), MATCH, root, 5);
        appeals.execute(address(asker), MATCH, header, _node(), proof, w);
        assertEq(asker.ruling(), Ruling.AWins);
        assertEq(asker.verbs(), _trial().verbs + 2);
    }

    function begin() external {
        _begin();
    }

    /// A loser that appeals against the truth names nobody.
    function test_ARightCommitteeIsNotNamed() public {
        _asked();
        _submit(sideA.tiles.root(), false);
        _appeal(sideB.account);
        vm.recordLogs();
        _playOut();
        assertEq(asker.ruling(), Ruling.AWins);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        assertGt(logs.length, 5);
        for (uint256 i = 0; i < logs.length; i++) {
            assertTrue(logs[i].topics[0] != IAppealReferee.CommitteeWrong.selector);
        }
    }

    /// Also where the side that held the committee's root is silent: `conclude` says so.
    function test_ACommitteeIsNamedByTime() public {
        _asked();
        _submit(sideB.tiles.root(), false);
        _appeal(sideA.account);
        _playTo(IEvmReferee.Stage.TileB);
        vm.warp(block.timestamp + ALLOWANCE);
        vm.expectEmit(address(appeals));
        emit IAppealReferee.CommitteeWrong(address(asker), MATCH, sideB.tiles.root(), 5);
        appeals.conclude(address(asker), MATCH);
        assertEq(asker.ruling(), Ruling.AWins);
    }

    function test_WhoMayAppealAndWhen() public {
        _asked();
        vm.prank(sideA.account);
        vm.expectRevert(IAppealReferee.NoAppeal.selector);
        appeals.appeal(address(asker), MATCH);
        _submit(sideB.tiles.root(), false);
        vm.expectPartialRevert(IVerde.WrongSender.selector);
        appeals.appeal(address(asker), MATCH);
        _appeal(sideA.account);
        // Both sides at once, in either order: the second finds it done.
        vm.prank(sideB.account);
        vm.expectRevert(IAppealReferee.NoAppeal.selector);
        appeals.appeal(address(asker), MATCH);
        // The appeal starts A's clock.
        vm.warp(START + ALLOWANCE - 1);
        _undecided(ALLOWANCE - 1, ALLOWANCE);
        vm.warp(START + ALLOWANCE);
        asker.judge(MATCH, "");
        assertEq(asker.ruling(), Ruling.BWins);
    }

    // ---------------------------------------------------------------- Silence

    function test_ASilentCommitteeLeavesItToTheChain() public {
        _asked();
        vm.warp(START + WINDOW - 1);
        _undecided(WINDOW - 1, WINDOW);
        vm.expectRevert(abi.encodeWithSelector(IEvmReferee.Undecided.selector, WINDOW - 1, WINDOW));
        this.begin();
        vm.warp(START + WINDOW);
        _playOut();
        assertEq(_trial().clockA, ALLOWANCE);
        assertEq(asker.ruling(), Ruling.AWins);
    }

    function test_AbsentInputsLeaveItToTheChain() public {
        _asked();
        vm.warp(START + 5);
        _submit(0, true);
        vm.prank(sideA.account);
        vm.expectRevert(IAppealReferee.NoAppeal.selector);
        appeals.appeal(address(asker), MATCH);
        _playOut();
        assertEq(asker.ruling(), Ruling.AWins);
    }
}
