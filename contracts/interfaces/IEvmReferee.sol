// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IMulticall} from "./IMulticall.sol";
import {IReferee, Ruling} from "./IReferee.sol";
import {IVerde} from "./IVerde.sol";

/// @title The game below the operator
/// @notice Two providers that differ on one operator's output are driven down to the first differing element and to the first instruction of
/// that element's RepVM run on which they differ, which is executed here. docs/spec/game.md, section "The EVM referee".
interface IEvmReferee is IReferee, IMulticall {
    /// @notice What a trial waits for.
    /// @dev Open: the top children of A's output root. Elements: a divergence proof over tiles by `turn`. TileA: A's tile. TileB: both tiles.
    /// TraceA, TraceB: the root of the element's trace. OpenTrace: the top children of A's trace. Instructions: a divergence proof over states by
    /// `turn`. Execute: the instruction.
    enum Stage {
        None,
        Open,
        Elements,
        TileA,
        TileB,
        TraceA,
        TraceB,
        OpenTrace,
        Instructions,
        Execute,
        Done
    }

    /// @notice Stored state of a trial.
    struct Trial {
        /// The subtrees in which the first divergence lies; in TraceB and OpenTrace A's trace root; in Execute the two hashes of the state after the
        /// instruction. Zero when nobody needs them any more.
        bytes32 nodeA;
        bytes32 nodeB;
        /// In Instructions A's trace root; in Execute the hash of the agreed state before the instruction.
        bytes32 rootA;
        /// Index of nodeA and nodeB at their height.
        uint40 position;
        uint40 since;
        uint40 clockA;
        uint40 clockB;
        uint8 verbs;
        /// Height of nodeA and nodeB in their tree.
        uint8 rest;
        Stage stage;
        IVerde.Side turn;
        Ruling ruling;
        uint8 arityBits;
        /// Height of a trace.
        uint8 vmHeight;
        /// Bytes of an element of the output.
        uint8 itemSize;
        /// The match's: an ended trial leaves its place to a new one.
        uint32 matchId;
        /// Elements of the output.
        uint48 elements;
        /// The first differing element, and what the sides claim of it.
        uint40 element;
        uint64 valueA;
        uint64 valueB;
        uint40 grace;
    }

    /// @notice What `execute` recomputes an instruction from. Fields that an instruction does not need are empty or zero.
    struct Witness {
        /// The state before, 512 bytes.
        bytes state;
        /// The image: its number of words and the root of its tree, which hash to the node's code.
        uint256 words;
        bytes32 codeRoot;
        /// The four words that hold the instruction, with their siblings.
        bytes32 instructions;
        bytes32[] instructionsProof;
        /// The root of the input that is read, with its proofs; the tile that holds the element, with its siblings.
        IVerde.HashInput input;
        bytes tile;
        bytes32[] tileProof;
        /// The four words that hold the constant that is read, with their siblings.
        bytes32 constants;
        bytes32[] constantsProof;
    }

    /// @notice A trial began; side A is due since `since`.
    event Begun(
        address indexed verde,
        uint256 indexed matchId,
        uint8 tileHeight,
        uint8 vmHeight,
        uint48 elements,
        uint8 itemSize,
        uint40 since
    );
    /// @notice The children of A's output root, or of its trace root.
    event Opened(address indexed verde, uint256 indexed matchId, bytes32[] children, uint40 time);
    /// @notice `mover` proved the first divergence `m` levels down and published the children of its own new node; as in IVerde.
    event Advanced(
        address indexed verde,
        uint256 indexed matchId,
        IVerde.Side mover,
        uint8 m,
        uint40 position,
        uint8 rest,
        bytes32 a,
        bytes32 b,
        bytes32[] siblings,
        bytes32[] children,
        uint40 time
    );
    /// @notice Side A showed its tile.
    event TileShown(address indexed verde, uint256 indexed matchId, bytes tile, uint40 time);
    /// @notice The first differing element and both claims, as little-endian numbers.
    event ElementFound(
        address indexed verde, uint256 indexed matchId, uint40 element, uint64 valueA, uint64 valueB, uint40 time
    );
    /// @notice A trace root; with B's the top children of its tree, or A is due to open.
    event Posted(
        address indexed verde, uint256 indexed matchId, IVerde.Side side, bytes32 root, bytes32[] children, uint40 time
    );
    /// @notice The instruction was found: the agreed state before it and both claims of the state after it.
    event InstructionFound(
        address indexed verde, uint256 indexed matchId, uint40 position, bytes32 before, bytes32 afterA, bytes32 afterB
    );
    /// @notice The instruction was executed.
    event Executed(address indexed verde, uint256 indexed matchId, uint64 word, bytes32 stateAfter);
    /// @notice The trial is over.
    event Ruled(address indexed verde, uint256 indexed matchId, Ruling ruling, uint40 time);

    /// @notice The trial does not wait for this verb.
    error WrongStage(Stage stage);
    /// @notice Nothing is decided yet: `elapsed` of `limit` seconds have passed.
    error Undecided(uint256 elapsed, uint256 limit);
    /// @notice The match does not wait for this referee.
    error NotAsked(address verde, uint256 matchId);
    /// @notice A tile or a state has another size.
    error WrongSize(uint256 size, uint256 expected);
    /// @notice Both tiles are the same.
    error NoDifference();
    /// @notice This referee has no configuration.
    error UnexpectedConfig(uint256 length);

    /// @notice Starts the trial of a match that waits for this referee. Anyone may.
    /// @param header The program's header.
    /// @param node The disputed operator.
    /// @param nodeProof Its siblings under `nodesRoot`.
    function begin(
        address verde,
        uint256 matchId,
        IVerde.ProgramHeader calldata header,
        IVerde.Node calldata node,
        bytes32[] calldata nodeProof
    ) external;

    /// @notice Opens the top children of A's output root, or of its trace root; due A.
    function open(address verde, uint256 matchId, bytes32[] calldata children) external;

    /// @notice A first-divergence proof, as in IVerde; due `turn`.
    /// @param pre In a last move over states: leaf `position - 1` under A's trace root; else empty.
    function advance(
        address verde,
        uint256 matchId,
        uint8 m,
        uint64 index,
        bytes32 a,
        bytes32 b,
        bytes32[] calldata siblings,
        bytes32[] calldata children,
        IVerde.Opening calldata pre
    ) external;

    /// @notice Shows A's tile, and B's if it is at hand (else empty, which only A may leave to B); due A, then B.
    function showTiles(address verde, uint256 matchId, bytes calldata tileA, bytes calldata tileB) external;

    /// @notice Posts the root of the element's trace; only the due side's account.
    /// @param proof Siblings of the last leaf, which is the halted state of the side's own value.
    /// @param children B only, in a tree of height above 0: the top children of its tree, which spare the opening; or empty.
    function post(address verde, uint256 matchId, bytes32 root, bytes32[] calldata proof, bytes32[] calldata children)
        external;

    /// @notice Executes the instruction and rules; due A, forced, so anyone may. Fetches the ruling into the match.
    function execute(
        address verde,
        uint256 matchId,
        IVerde.ProgramHeader calldata header,
        IVerde.Node calldata node,
        bytes32[] calldata nodeProof,
        Witness calldata witness
    ) external;

    /// @notice Records the ruling of a trial that is over or whose due side is late, and fetches it into the match. Anyone may.
    /// @dev Reverts with Undecided while the due side has time.
    function conclude(address verde, uint256 matchId) external;

    /// @notice A trial; stage None if there is none.
    function getTrial(address verde, uint256 matchId) external view returns (Trial memory);
}
