// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

/// @notice One undecided operator of one match: everything a referee needs to find its inputs and to recompute it.
/// @param verde The contract that asks.
/// @param taskId The task.
/// @param matchId The match, unique over `verde`.
/// @param programRoot Root of the task's program, docs/spec/programs.md.
/// @param dataRoot Root of the task's batches, docs/spec/commitments.md.
/// @param batchCount Number of batches; step `t` reads batch `t mod batchCount`.
/// @param preState State root before the step, agreed by both sides.
/// @param step The step, counted from 0.
/// @param node Index of the operator in the program's trace (a compute node).
/// @param traceRoot Side A's trace root of the step: every leaf left of `node` is agreed.
/// @param rootA Output root of the operator as side A claims it.
/// @param rootB Output root of the operator as side B claims it; differs from `rootA`.
/// @param configHash keccak256 of the referee configuration of the task.
struct Question {
    address verde;
    uint256 taskId;
    uint256 matchId;
    bytes32 programRoot;
    bytes32 dataRoot;
    uint64 batchCount;
    bytes32 preState;
    uint64 step;
    uint32 node;
    bytes32 traceRoot;
    bytes32 rootA;
    bytes32 rootB;
    bytes32 configHash;
}

/// @title Who decides the selected operator
/// @notice A referee is chosen by the client when it creates a task, together with a configuration. Both functions are called with STATICCALL.
interface IReferee {
    /// @notice Reverts unless `config` is a configuration under which this referee can judge.
    /// @param config The referee configuration of a new task.
    function validate(bytes calldata config) external view;

    /// @notice The operator's true output root, if `evidence` proves it. Reverts if the evidence proves nothing; the match then goes on.
    /// @param question The operator to be judged.
    /// @param evidence In the referee's own format.
    /// @return available False if the evidence proves that the operator's agreed inputs cannot be had: then both sides lose.
    /// @return outputRoot The true output root; zero when `available` is false.
    function judge(Question calldata question, bytes calldata evidence)
        external
        view
        returns (bool available, bytes32 outputRoot);
}
