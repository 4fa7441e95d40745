// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {Question, Ruling} from "../../contracts/interfaces/IReferee.sol";
import {ICommitteeReferee} from "../../contracts/interfaces/ICommitteeReferee.sol";
import {BaseTest} from "./Base.t.sol";

/// @notice The committee: who may sign, how many must, and what exactly is signed.
contract CommitteeTest is BaseTest {
    Question internal question;
    bytes32 internal constant ROOT = keccak256("output");

    function setUp() public override {
        super.setUp();
        question = Question({
            verde: address(verde),
            taskId: 3,
            matchId: 5,
            programRoot: keccak256("program"),
            dataRoot: keccak256("data"),
            batchCount: 7,
            preState: keccak256("state"),
            step: 11,
            node: 13,
            traceRoot: keccak256("trace"),
            rootA: ROOT,
            rootB: keccak256("other"),
            configHash: keccak256(config),
            since: START,
            window: REFEREE,
            clockA: ALLOWANCE,
            clockB: ALLOWANCE,
            grace: GRACE,
            buildWindow: BUILD,
            arityBits: 4,
            accountA: alice,
            accountB: bob
        });
        vm.warp(START);
    }

    function _evidence(bytes32 root, bool unavailable, bytes[] memory signatures) internal view returns (bytes memory) {
        return abi.encode(config, abi.encode(root, unavailable, signatures));
    }

    function _signed(uint256[] memory keys) internal view returns (bytes[] memory) {
        return _sign(_digest(question, ROOT, false), keys);
    }

    function _invalid(uint256 threshold, address[] memory members, bytes memory error_) internal {
        vm.expectRevert(error_);
        committee.validate(abi.encode(uint8(threshold), members), 4);
    }

    // ---------------------------------------------------------------- Configuration

    function test_ValidateMajorities() public {
        for (uint256 n = 0; n <= 33; n++) {
            address[] memory members = new address[](n);
            for (uint256 i = 0; i < n; i++) {
                members[i] = address(uint160(i + 1));
            }
            for (uint256 t = 0; t <= n + 1; t++) {
                bool valid = n >= 1 && n <= 32 && t <= n && 2 * t > n;
                if (!valid) {
                    vm.expectRevert(abi.encodeWithSelector(ICommitteeReferee.InvalidThreshold.selector, t, n));
                }
                committee.validate(abi.encode(uint8(t), members), 4);
            }
        }
    }

    function test_ValidateOrder() public {
        address[] memory members = new address[](3);
        (members[0], members[1], members[2]) = (address(1), address(3), address(2));
        _invalid(2, members, abi.encodeWithSelector(ICommitteeReferee.MembersNotAscending.selector, 2));
        members[2] = address(3);
        _invalid(2, members, abi.encodeWithSelector(ICommitteeReferee.MembersNotAscending.selector, 2));
        (members[0], members[2]) = (address(0), address(4));
        _invalid(2, members, abi.encodeWithSelector(ICommitteeReferee.MembersNotAscending.selector, 0));
    }

    function test_ValidateRefusesGarbage() public {
        vm.expectRevert();
        committee.validate("", 4);
        vm.expectRevert();
        committee.validate(abi.encode(uint256(300), new address[](1)), 4);
    }

    // ---------------------------------------------------------------- Verdicts

    function test_AnyMajorityCounts() public view {
        uint8[2][3] memory pairs = [[0, 1], [0, 2], [1, 2]];
        for (uint256 i = 0; i < 3; i++) {
            bytes[] memory signatures = _signed(_keys(pairs[i][0], pairs[i][1]));
            (Ruling ruling, bytes32 root, uint256 verbs) = committee.judge(question, _evidence(ROOT, false, signatures));
            assertEq(ruling, Ruling.Root);
            assertEq(verbs, 0);
            assertEq(root, ROOT);
        }
        (Ruling all, bytes32 same,) = committee.judge(question, _evidence(ROOT, false, _signed(memberKeys)));
        assertEq(all, Ruling.Root);
        assertEq(same, ROOT);
    }

    function test_UnavailableNamesNoRoot() public {
        bytes[] memory signatures = _sign(_digest(question, 0, true), _keys(0, 1));
        (Ruling ruling, bytes32 root,) = committee.judge(question, _evidence(0, true, signatures));
        assertEq(ruling, Ruling.BothLose);
        assertEq(root, 0);
        signatures = _sign(_digest(question, ROOT, true), _keys(0, 1));
        bytes memory evidence = _evidence(ROOT, true, signatures);
        vm.expectRevert(abi.encodeWithSelector(ICommitteeReferee.RootOfUnavailable.selector, ROOT));
        committee.judge(question, evidence);
        // A signed root is not a signed absence, and the other way round.
        evidence = _evidence(0, true, _signed(_keys(0, 1)));
        vm.expectPartialRevert(ICommitteeReferee.NotMember.selector);
        committee.judge(question, evidence);
    }

    /// The root of an empty tensor is a root.
    function test_ZeroIsARoot() public view {
        bytes[] memory signatures = _sign(_digest(question, 0, false), _keys(0, 1));
        (Ruling ruling, bytes32 root,) = committee.judge(question, _evidence(0, false, signatures));
        assertEq(ruling, Ruling.Root);
        assertEq(root, 0);
    }

    /// Silence is said without evidence, from the end of the window on; from then on no verdict counts.
    function test_SilenceIsVoid() public {
        vm.warp(START + REFEREE - 1);
        vm.expectRevert(abi.encodeWithSelector(ICommitteeReferee.InTime.selector, REFEREE - 1, REFEREE));
        committee.judge(question, "");
        bytes memory evidence = _evidence(ROOT, false, _signed(_keys(0, 1)));
        committee.judge(question, evidence);
        vm.warp(START + REFEREE);
        (Ruling ruling, bytes32 root,) = committee.judge(question, "");
        assertEq(ruling, Ruling.Void);
        assertEq(root, 0);
        vm.expectRevert(abi.encodeWithSelector(ICommitteeReferee.TooLate.selector, REFEREE, REFEREE));
        committee.judge(question, evidence);
    }

    function test_TooFewSignatures() public {
        uint256[] memory keys = new uint256[](1);
        keys[0] = memberKeys[1];
        bytes memory evidence = _evidence(ROOT, false, _signed(keys));
        vm.expectRevert(abi.encodeWithSelector(ICommitteeReferee.TooFewSignatures.selector, 1, 2));
        committee.judge(question, evidence);
    }

    function test_OneMemberCountsOnce() public {
        bytes memory evidence = _evidence(ROOT, false, _signed(_keys(1, 1)));
        vm.expectRevert(abi.encodeWithSelector(ICommitteeReferee.NotMember.selector, 1, vm.addr(memberKeys[1])));
        committee.judge(question, evidence);
        evidence = _evidence(ROOT, false, _signed(_keys(2, 1)));
        vm.expectRevert(abi.encodeWithSelector(ICommitteeReferee.NotMember.selector, 1, vm.addr(memberKeys[1])));
        committee.judge(question, evidence);
    }

    function test_StrangersDoNotCount() public {
        (address stranger, uint256 key) = makeAddrAndKey("stranger");
        uint256[] memory keys = _keys(0, 0);
        keys[1] = key;
        bytes memory evidence = _evidence(ROOT, false, _signed(keys));
        vm.expectRevert(abi.encodeWithSelector(ICommitteeReferee.NotMember.selector, 1, stranger));
        committee.judge(question, evidence);
    }

    function test_AnotherConfigurationDoesNotCount() public {
        bytes memory other = abi.encode(uint8(1), new address[](1));
        bytes memory evidence = abi.encode(other, abi.encode(ROOT, false, _signed(_keys(0, 1))));
        vm.expectRevert(
            abi.encodeWithSelector(ICommitteeReferee.WrongConfig.selector, keccak256(other), keccak256(config))
        );
        committee.judge(question, evidence);
    }

    function test_MalformedSignatures() public {
        bytes[] memory signatures = _signed(_keys(0, 1));
        bytes memory good = signatures[1];
        bytes memory error_ = abi.encodeWithSelector(ICommitteeReferee.MalformedSignature.selector, 1);

        signatures[1] = abi.encodePacked(good, uint8(0));
        bytes memory evidence = _evidence(ROOT, false, signatures);
        vm.expectRevert(error_);
        committee.judge(question, evidence);

        (uint8 v, bytes32 r, bytes32 s) = vm.sign(memberKeys[1], _digest(question, ROOT, false));
        signatures[1] = abi.encodePacked(r, s, uint8(v - 27));
        evidence = _evidence(ROOT, false, signatures);
        vm.expectRevert(error_);
        committee.judge(question, evidence);

        // The same signature with the other s.
        uint256 order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
        signatures[1] = abi.encodePacked(r, order - uint256(s), uint8(v == 27 ? 28 : 27));
        evidence = _evidence(ROOT, false, signatures);
        vm.expectRevert(error_);
        committee.judge(question, evidence);

        signatures[1] = abi.encodePacked(bytes32(0), s, v);
        evidence = _evidence(ROOT, false, signatures);
        vm.expectRevert(error_);
        committee.judge(question, evidence);
    }

    /// A verdict counts for one operator of one match alone.
    function test_VerdictsAreBoundToTheirQuestion() public {
        bytes memory evidence = _evidence(ROOT, false, _signed(_keys(0, 1)));
        Question memory original = question;
        for (uint256 i = 0; i < 7; i++) {
            Question memory other = question;
            if (i == 0) other.verde = address(this);
            if (i == 1) other.taskId++;
            if (i == 2) other.matchId++;
            if (i == 3) other.preState = keccak256("another state");
            if (i == 4) other.step++;
            if (i == 5) other.node++;
            if (i == 6) other.traceRoot = keccak256("another trace");
            vm.expectPartialRevert(ICommitteeReferee.NotMember.selector);
            committee.judge(other, evidence);
        }
        committee.judge(original, evidence);
        vm.chainId(block.chainid + 1);
        vm.expectPartialRevert(ICommitteeReferee.NotMember.selector);
        committee.judge(original, evidence);
    }

    function test_VerdictsAreBoundToTheCommittee() public {
        bytes memory evidence = _evidence(ROOT, false, _signed(_keys(0, 1)));
        ICommitteeReferee other = ICommitteeReferee(deployCode("CommitteeReferee.sol:CommitteeReferee"));
        vm.expectPartialRevert(ICommitteeReferee.NotMember.selector);
        other.judge(question, evidence);
    }

    function test_DigestIsTheOneInTheSpecification() public view {
        ICommitteeReferee referee = ICommitteeReferee(address(committee));
        assertEq(referee.digest(question, ROOT, false), _digest(question, ROOT, false));
        assertEq(referee.digest(question, 0, true), _digest(question, 0, true));
    }
}
