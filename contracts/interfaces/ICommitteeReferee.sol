// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IReferee, Question} from "./IReferee.sol";

/// @title A referee of people
/// @notice Configuration: `abi.encode(uint8 threshold, address[] members)`, members ascending. Evidence:
/// `abi.encode(bytes config, bytes verdict)`, verdict = `abi.encode(bytes32 outputRoot, bool unavailable, bytes[] signatures)`, signatures in ascending
/// order of signer.
interface ICommitteeReferee is IReferee {
    /// @notice The configuration is not that of the task.
    error WrongConfig(bytes32 computed, bytes32 expected);
    /// @notice `threshold` of `members` is no majority, or there are no members or more than 32.
    error InvalidThreshold(uint256 threshold, uint256 members);
    /// @notice Members must ascend and not be zero.
    error MembersNotAscending(uint256 index);
    /// @notice Fewer signatures than the threshold.
    error TooFewSignatures(uint256 signatures, uint256 threshold);
    /// @notice Signature `index` is not 65 bytes (r, s, v) with s in the lower half and v 27 or 28.
    error MalformedSignature(uint256 index);
    /// @notice Signature `index` is by `signer`, who is no member or not above the signer before.
    error NotMember(uint256 index, address signer);
    /// @notice The committee's window is over after `limit` seconds; `elapsed` have passed. Without evidence the call says so, and the task is void.
    error TooLate(uint256 elapsed, uint256 limit);
    /// @notice The committee has time: `elapsed` of `limit` seconds have passed.
    error InTime(uint256 elapsed, uint256 limit);
    /// @notice A verdict of missing inputs names no root.
    error RootOfUnavailable(bytes32 outputRoot);

    /// @notice What a member signs: the EIP-712 digest of its verdict.
    function digest(Question calldata question, bytes32 outputRoot, bool unavailable) external view returns (bytes32);

    /// @notice The EIP-712 domain separator, on the chain that it is asked on.
    function domainSeparator() external view returns (bytes32);
}
