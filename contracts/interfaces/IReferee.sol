// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

/// @notice One undecided operator of one match: everything a referee needs to find its inputs and to recompute it, and the terms of the match.
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
/// @param since Instant at which the match came to the referee.
/// @param window The task's referee window, seconds.
/// @param clockA Time left to side A on its chess clock.
/// @param clockB Time left to side B.
/// @param grace Uncharged time of each response.
/// @param buildWindow Time for a post.
/// @param arityBits log2 of the children that a move publishes.
/// @param accountA Account of side A.
/// @param accountB Account of side B.
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
    uint40 since;
    uint40 window;
    uint40 clockA;
    uint40 clockB;
    uint40 grace;
    uint40 buildWindow;
    uint8 arityBits;
    address accountA;
    address accountB;
}

/// @notice What a referee says of an operator.
/// @dev Root: `outputRoot` is the true root. AWins, BWins: that side stands, the other is wrong or was late. BothLose: neither stands. Void: the
/// referee was silent for its whole window, nobody is to blame.
enum Ruling {
    None,
    Root,
    AWins,
    BWins,
    BothLose,
    Void
}

/// @title Who decides the selected operator
/// @notice A referee is chosen by the client when it creates a task, together with a configuration. It decides when time is up, too: a match
/// that waits for it has no other clock. Both functions are called with STATICCALL.
interface IReferee {
    /// @notice Reverts unless `config` is a configuration under which this referee can judge.
    /// @param config The referee configuration of a new task.
    /// @param arityBits The task's.
    /// @return verbs The most verbs for which a ruling may ask to be paid.
    function validate(bytes calldata config, uint8 arityBits) external view returns (uint256 verbs);

    /// @notice The ruling, if there is one by now or `evidence` proves it. Reverts otherwise; the match then goes on.
    /// @param question The operator to be judged.
    /// @param evidence In the referee's own format.
    /// @return ruling Never None.
    /// @return outputRoot The true output root for Ruling.Root, else zero.
    /// @return verbs Verbs that led to the ruling, beside the one that fetches it.
    function judge(Question calldata question, bytes calldata evidence)
        external
        view
        returns (Ruling ruling, bytes32 outputRoot, uint256 verbs);
}
