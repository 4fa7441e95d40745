// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "../interfaces/IVerde.sol";

/// @title Free survivors, waiting for a match
/// @notice Two layers of linked first-in-first-out queues: claims that have free survivors, and the free survivors of each claim. Links hold
/// index + 1 for participants and the id for claims, 0 for none. A claim stands in the task's queue iff its own queue is not empty, and every
/// step is O(1) in the number of participants.
library ClaimQueue {
    /// @notice Puts participant `index` at the end of its claim's queue, and the claim at the end of the task's queue if it was in none.
    function push(
        IVerde.Task storage task,
        mapping(uint256 => IVerde.Claim) storage claims,
        mapping(uint256 => IVerde.Participant) storage participants,
        uint32 index
    ) internal {
        IVerde.Participant storage participant = participants[index];
        uint32 claimId = participant.claimId;
        IVerde.Claim storage claim = claims[claimId];
        uint32 link = index + 1;
        participant.standing = IVerde.Standing.Free;
        if (claim.head == 0) {
            claim.head = link;
            _pushClaim(task, claims, claimId);
        } else {
            participants[claim.tail - 1].next = link;
        }
        claim.tail = link;
    }

    /// @notice Takes the first free survivors of the first two claims; claims that have more go to the end, the first one first.
    /// @dev Reverts unless two claims wait.
    /// @return first Index of the participant from the first claim.
    /// @return second Index of the participant from the second claim.
    function takePair(
        uint256 taskId,
        IVerde.Task storage task,
        mapping(uint256 => IVerde.Claim) storage claims,
        mapping(uint256 => IVerde.Participant) storage participants
    ) internal returns (uint32 first, uint32 second) {
        if (task.head == task.tail) {
            revert IVerde.NothingToPair(taskId);
        }
        uint32 claim = _popClaim(task, claims);
        uint32 other = _popClaim(task, claims);
        first = _pop(claims[claim], participants);
        second = _pop(claims[other], participants);
        if (claims[claim].head != 0) _pushClaim(task, claims, claim);
        if (claims[other].head != 0) _pushClaim(task, claims, other);
    }

    function _pushClaim(IVerde.Task storage task, mapping(uint256 => IVerde.Claim) storage claims, uint32 claimId)
        private
    {
        if (task.tail == 0) task.head = claimId;
        else claims[task.tail].next = claimId;
        task.tail = claimId;
    }

    function _popClaim(IVerde.Task storage task, mapping(uint256 => IVerde.Claim) storage claims)
        private
        returns (uint32 claimId)
    {
        claimId = task.head;
        uint32 next = claims[claimId].next;
        claims[claimId].next = 0;
        task.head = next;
        if (next == 0) task.tail = 0;
    }

    function _pop(IVerde.Claim storage claim, mapping(uint256 => IVerde.Participant) storage participants)
        private
        returns (uint32 index)
    {
        index = claim.head - 1;
        IVerde.Participant storage participant = participants[index];
        uint32 next = participant.next;
        participant.next = 0;
        participant.standing = IVerde.Standing.Playing;
        // A tail that stays where it was keeps the slot from zero: the winner's way back is cheaper.
        claim.head = next;
    }
}
