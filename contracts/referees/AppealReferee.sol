// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IAppealReferee} from "../interfaces/IAppealReferee.sol";
import {IReferee, Question, Ruling} from "../interfaces/IReferee.sol";
import {IVerde} from "../interfaces/IVerde.sol";
import {Unpack} from "../libraries/Unpack.sol";
import {Committee} from "./Committee.sol";
import {EvmGame} from "./EvmGame.sol";

/// @title A committee first, the chain on appeal
contract AppealReferee is IAppealReferee, EvmGame, Committee {
    mapping(address verde => mapping(uint256 matchId => Verdict)) private _verdicts;

    /// @inheritdoc IReferee
    function validate(bytes calldata config, uint8 arityBits) external pure returns (uint256 verbs) {
        (uint40 appealWindow, bytes memory committee) = abi.decode(config, (uint40, bytes));
        if (appealWindow == 0) revert NoAppealWindow();
        _validate(committee);
        return 2 + _maxVerbs(arityBits); // the verdict and the appeal
    }

    /// @inheritdoc IAppealReferee
    function submitVerdict(address verde, uint256 matchId, bytes calldata config, bytes calldata verdict) external {
        Question memory question = _question(verde, matchId);
        _requireConfig(config, question.configHash);
        Verdict storage stored = _verdicts[verde][matchId];
        if (stored.time != 0 || block.timestamp - question.since >= question.window) {
            revert NoMoreVerdict(stored.time);
        }
        (uint40 appealWindow, bytes memory committee) = abi.decode(config, (uint40, bytes));
        (bool available, bytes32 outputRoot, uint256 signers) = _verdict(question, committee, verdict);
        stored.outputRoot = outputRoot;
        stored.time = uint40(block.timestamp);
        stored.appealWindow = appealWindow;
        stored.available = available;
        stored.signers = uint32(signers);
        uint40 end = uint40(block.timestamp + appealWindow);
        emit VerdictGiven(verde, matchId, available, outputRoot, signers, uint40(block.timestamp), end);
    }

    /// @inheritdoc IAppealReferee
    function appeal(address verde, uint256 matchId) external {
        Question memory question = _question(verde, matchId);
        if (msg.sender != question.accountA && msg.sender != question.accountB) {
            revert IVerde.WrongSender(msg.sender, question.accountA);
        }
        Verdict storage stored = _verdicts[verde][matchId];
        if (!stored.available || stored.appealedAt != 0 || _final(stored)) revert NoAppeal();
        stored.appealedAt = uint40(block.timestamp);
        emit Appealed(verde, matchId, msg.sender, uint40(block.timestamp));
    }

    /// @inheritdoc IReferee
    function judge(Question calldata question, bytes calldata)
        external
        view
        returns (Ruling ruling, bytes32 outputRoot, uint256 verbs)
    {
        Verdict storage stored = _verdicts[question.verde][question.matchId];
        if (stored.available && stored.appealedAt == 0) {
            if (!_final(stored)) revert Undecided(block.timestamp - stored.time, stored.appealWindow);
            return (Ruling.Root, stored.outputRoot, 1);
        }
        (ruling, verbs) = _ruling(question);
        verbs += 2;
    }

    /// @inheritdoc IAppealReferee
    function getVerdict(address verde, uint256 matchId) external view returns (Verdict memory) {
        Verdict storage stored = _verdicts[verde][matchId];
        uint256 slot;
        assembly ("memory-safe") {
            slot := stored.slot
        }
        Unpack.returnStruct(slot, hex"200505050104");
    }

    /// @dev From the appeal, from a verdict that the inputs cannot be had, or from the end of the committee's silence.
    function _opening(Question memory question) internal view override returns (uint256) {
        Verdict storage stored = _verdicts[question.verde][question.matchId];
        if (stored.available) {
            if (stored.appealedAt == 0) revert NotAppealed();
            return stored.appealedAt;
        }
        if (stored.time != 0) return stored.time;
        uint256 elapsed = block.timestamp - question.since;
        if (elapsed < question.window) revert Undecided(elapsed, question.window);
        return uint256(question.since) + question.window;
    }

    /// @dev Names the committee if the loser held its root.
    function _ruled(address verde, uint256 matchId, Ruling ruling) internal override {
        Verdict storage stored = _verdicts[verde][matchId];
        if (!stored.available) return;
        Question memory question = _question(verde, matchId);
        bytes32 outputRoot = stored.outputRoot;
        bool wrong = (ruling != Ruling.AWins && outputRoot == question.rootA)
            || (ruling != Ruling.BWins && outputRoot == question.rootB);
        if (wrong) emit CommitteeWrong(verde, matchId, outputRoot, stored.signers);
    }

    function _final(Verdict storage stored) private view returns (bool) {
        return block.timestamp - stored.time >= stored.appealWindow;
    }
}
