// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {ICommitteeReferee} from "../interfaces/ICommitteeReferee.sol";
import {Question} from "../interfaces/IReferee.sol";

/// @title A committee that recomputes operators
/// @notice A verdict counts if at least `threshold` distinct members, more than half of all, have signed it (EIP-712). The members are the task's
/// configuration `abi.encode(uint8 threshold, address[] members)`.
abstract contract Committee is ICommitteeReferee {
    bytes32 private constant VERDICT_TYPEHASH = keccak256(
        "Verdict(address verde,uint256 taskId,uint256 matchId,bytes32 preState,uint64 step,uint32 node,bytes32 traceRoot,bytes32 outputRoot,bool unavailable)"
    );
    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    /// @dev Half of the order of secp256k1.
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;
    uint256 private constant MAX_MEMBERS = 32;

    /// @dev Reverts unless `config` is a committee.
    function _validate(bytes memory config) internal pure {
        (uint256 threshold, address[] memory members) = abi.decode(config, (uint8, address[]));
        if (members.length == 0 || members.length > MAX_MEMBERS) revert InvalidThreshold(threshold, members.length);
        if (threshold > members.length || 2 * threshold <= members.length) {
            revert InvalidThreshold(threshold, members.length);
        }
        address previous;
        for (uint256 i; i < members.length; ++i) {
            if (members[i] <= previous) revert MembersNotAscending(i);
            previous = members[i];
        }
    }

    /// @dev Reverts unless `config` is what the task has as `configHash`.
    function _requireConfig(bytes memory config, bytes32 expected) internal pure {
        bytes32 computed = keccak256(config);
        if (computed != expected) revert WrongConfig(computed, expected);
    }

    /// @dev What the committee says with this evidence. Reverts if the evidence proves nothing.
    /// @return available False: the operator's agreed inputs cannot be had.
    /// @return outputRoot The root that it signed.
    /// @return signers Bit i is set if member i has signed.
    function _verdict(Question memory question, bytes memory config, bytes memory evidence)
        internal
        view
        returns (bool available, bytes32 outputRoot, uint256 signers)
    {
        bool unavailable;
        bytes[] memory signatures;
        (outputRoot, unavailable, signatures) = abi.decode(evidence, (bytes32, bool, bytes[]));
        if (unavailable && outputRoot != 0) revert RootOfUnavailable(outputRoot);
        (uint256 threshold, address[] memory members) = abi.decode(config, (uint8, address[]));
        if (signatures.length < threshold) revert TooFewSignatures(signatures.length, threshold);
        bytes32 hash = digest(question, outputRoot, unavailable);
        uint256 next;
        for (uint256 i; i < signatures.length; ++i) {
            address signer = _recover(hash, signatures[i], i);
            // Both lists ascend, so one pass over the members finds every signer, and none twice.
            while (next < members.length && members[next] != signer) ++next;
            if (next == members.length) revert NotMember(i, signer);
            signers |= 1 << next++;
        }
        available = !unavailable;
    }

    /// @inheritdoc ICommitteeReferee
    function digest(Question memory question, bytes32 outputRoot, bool unavailable) public view returns (bytes32) {
        bytes32 verdict = keccak256(
            abi.encode(
                VERDICT_TYPEHASH,
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
        return keccak256(abi.encodePacked("\x19\x01", domainSeparator(), verdict));
    }

    /// @inheritdoc ICommitteeReferee
    function domainSeparator() public view returns (bytes32) {
        return keccak256(
            abi.encode(DOMAIN_TYPEHASH, keccak256("Verde Committee"), keccak256("1"), block.chainid, address(this))
        );
    }

    function _recover(bytes32 hash, bytes memory signature, uint256 index) private pure returns (address signer) {
        if (signature.length != 65) revert MalformedSignature(index);
        bytes32 r;
        bytes32 s;
        uint8 v;
        assembly ("memory-safe") {
            r := mload(add(signature, 0x20))
            s := mload(add(signature, 0x40))
            v := byte(0, mload(add(signature, 0x60)))
        }
        if (uint256(s) > HALF_ORDER || (v != 27 && v != 28)) revert MalformedSignature(index);
        signer = ecrecover(hash, v, r, s);
        if (signer == address(0)) revert MalformedSignature(index);
    }
}
