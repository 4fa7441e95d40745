// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IReferee, Question, Ruling} from "../interfaces/IReferee.sol";
import {EvmGame} from "./EvmGame.sol";

/// @title The chain as referee
/// @notice The game goes on from the operator to one floating-point instruction: nobody is trusted. The configuration is empty.
contract EvmReferee is EvmGame {
    /// @inheritdoc IReferee
    function validate(bytes calldata config, uint8 arityBits) external pure returns (uint256 verbs) {
        if (config.length != 0) revert UnexpectedConfig(config.length);
        return _maxVerbs(arityBits);
    }

    /// @inheritdoc IReferee
    function judge(Question calldata question, bytes calldata)
        external
        view
        returns (Ruling ruling, bytes32 outputRoot, uint256 verbs)
    {
        (ruling, verbs) = _ruling(question);
    }

    /// @dev From the moment when the match comes to the referee.
    function _opening(Question memory question) internal pure override returns (uint256) {
        return question.since;
    }
}
