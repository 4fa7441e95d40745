// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {ICommitteeReferee} from "./ICommitteeReferee.sol";
import {IEvmReferee} from "./IEvmReferee.sol";

/// @title A committee whose verdict can be appealed to the chain
/// @notice The committee is asked first. Its verdict stands unless a side appeals within the appeal window; then, and when the committee is silent or
/// cannot get the inputs, the game of IEvmReferee decides. Configuration: `abi.encode(uint40 appealWindow, bytes committee)`.
interface IAppealReferee is IEvmReferee, ICommitteeReferee {
    /// @notice What the committee said of a match.
    struct Verdict {
        bytes32 outputRoot;
        /// Instant of the verdict, 0 if there is none.
        uint40 time;
        uint40 appealWindow;
        /// Instant of the appeal, 0 if there is none.
        uint40 appealedAt;
        bool available;
        /// Bit i is set if member i has signed.
        uint32 signers;
    }

    /// @notice The committee has spoken; without an appeal its root stands from `appealEnd` on.
    event VerdictGiven(
        address indexed verde,
        uint256 indexed matchId,
        bool available,
        bytes32 outputRoot,
        uint256 signers,
        uint40 time,
        uint40 appealEnd
    );
    /// @notice A side has appealed: side A is due from `time` on.
    event Appealed(address indexed verde, uint256 indexed matchId, address account, uint40 time);
    /// @notice The loser of an appeal held the root that these members had signed.
    event CommitteeWrong(address indexed verde, uint256 indexed matchId, bytes32 outputRoot, uint256 signers);

    /// @notice An appeal window is needed.
    error NoAppealWindow();
    /// @notice There is a verdict already, or an end of the committee's time.
    error NoMoreVerdict(uint40 time);
    /// @notice There is nothing to appeal against, or it is too late, or it was done.
    error NoAppeal();
    /// @notice The verdict stands; nobody has appealed.
    error NotAppealed();

    /// @notice Brings the committee's verdict, within the task's referee window. Anyone may.
    /// @param config The task's referee configuration.
    /// @param verdict `abi.encode(bytes32 outputRoot, bool unavailable, bytes[] signatures)`.
    function submitVerdict(address verde, uint256 matchId, bytes calldata config, bytes calldata verdict) external;

    /// @notice Appeals against the verdict; for the two sides of the match.
    function appeal(address verde, uint256 matchId) external;

    /// @notice The verdict of a match; all zero if there is none.
    function getVerdict(address verde, uint256 matchId) external view returns (Verdict memory);
}
