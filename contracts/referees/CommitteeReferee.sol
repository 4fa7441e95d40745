// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IReferee, Question, Ruling} from "../interfaces/IReferee.sol";
import {Committee} from "./Committee.sol";

/// @title A referee of people
/// @notice One deployment serves every task: it has no state. If the committee is silent for the task's referee window, the task is void.
contract CommitteeReferee is Committee {
    /// @inheritdoc IReferee
    function validate(bytes calldata config, uint8) external pure returns (uint256 verbs) {
        _validate(config);
        return 0;
    }

    /// @inheritdoc IReferee
    function judge(Question calldata question, bytes calldata evidence)
        external
        view
        returns (Ruling ruling, bytes32 outputRoot, uint256 verbs)
    {
        uint256 elapsed = block.timestamp - question.since;
        if (evidence.length == 0) {
            if (elapsed < question.window) revert InTime(elapsed, question.window);
            return (Ruling.Void, 0, 0);
        }
        if (elapsed >= question.window) revert TooLate(elapsed, question.window);
        (bytes memory config, bytes memory verdict) = abi.decode(evidence, (bytes, bytes));
        _requireConfig(config, question.configHash);
        bool available;
        (available, outputRoot,) = _verdict(question, config, verdict);
        ruling = available ? Ruling.Root : Ruling.BothLose;
    }
}
