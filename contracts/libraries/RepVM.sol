// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "../interfaces/IVerde.sol";
import {Float32} from "./Float32.sol";

/// @title RepVM: one instruction
/// @notice docs/spec/repvm.md. A state is 512 bytes in memory; registers are 64-bit words, a float is a binary32 pattern in the low half.
/// Total: what the text does not define is a TRAP, the halted state of output 0.
library RepVM {
    bytes32 internal constant CODE_TYPEHASH = keccak256("RepVM(1)");
    uint256 internal constant STATE_BYTES = 512;
    uint256 internal constant REGISTERS = 32;
    uint256 internal constant SCRATCH = 56;

    /// Dtype codes of docs/spec/programs.md.
    uint256 internal constant F32 = 1;
    uint256 internal constant BF16 = 2;
    uint256 internal constant F16 = 3;
    uint256 internal constant I64 = 4;
    uint256 internal constant I32 = 5;
    uint256 internal constant BOOL = 6;

    uint256 private constant HALT = 0x01;
    uint256 private constant JMP = 0x02;
    uint256 private constant BEQ = 0x03;
    uint256 private constant BGE = 0x06;
    uint256 private constant ADD = 0x10;
    uint256 private constant SLT = 0x1E;
    uint256 private constant SEXT = 0x1F;
    uint256 private constant SEL = 0x20;
    uint256 private constant PARAM = 0x28;
    uint256 private constant LITERAL = 0x29;
    uint256 private constant DIM = 0x2A;
    uint256 private constant RANK = 0x2B;
    uint256 private constant DTYPE = 0x2C;
    uint256 private constant INPUTS = 0x2D;
    uint256 private constant PLACE = 0x2E;
    uint256 private constant LOAD = 0x30;
    uint256 private constant RAW = 0x31;
    uint256 private constant CODE = 0x32;
    uint256 private constant FADD = 0x38;
    uint256 private constant FDIV = 0x3B;
    uint256 private constant FSQRT = 0x3C;
    uint256 private constant FFMA = 0x3D;
    uint256 private constant FMAX = 0x3E;
    uint256 private constant FLE = 0x42;
    uint256 private constant FNAN = 0x43;
    uint256 private constant ITOF = 0x44;
    uint256 private constant FTOI = 0x45;
    uint256 private constant NARROW = 0x46;
    uint256 private constant GET = 0x48;
    uint256 private constant PUT = 0x49;

    uint256 private constant LOW = type(uint64).max;

    /// @notice What an instruction needs from outside its state and node.
    /// @dev Nothing; the element `index` of input `tensor`, which exists; word `index` of the image, which exists.
    enum Need {
        Nothing,
        Element,
        Word
    }

    /// @notice A decoded instruction word.
    struct Instruction {
        uint256 op;
        uint256 a;
        uint256 b;
        uint256 c;
        int256 imm;
    }

    // ---------------------------------------------------------------- States

    /// @notice Hash of the state before the first instruction of the run for `element`.
    function startHash(uint256 element) internal pure returns (bytes32) {
        bytes memory state = new bytes(STATE_BYTES);
        _set(state, 1, element);
        return keccak256(state);
    }

    /// @notice Hash of the halted state of `output`.
    function haltedHash(uint64 output) internal pure returns (bytes32) {
        bytes memory state = new bytes(STATE_BYTES);
        _halt(state, output);
        return keccak256(state);
    }

    /// @notice Whether a state is halted.
    function halted(bytes memory state) internal pure returns (bool) {
        return state[0] != 0;
    }

    /// @notice Index of the next instruction.
    function pc(bytes memory state) internal pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := and(shr(64, mload(add(state, 0x20))), 0xFFFFFFFF)
        }
    }

    /// @notice The fields of an instruction word.
    function decode(uint64 word) internal pure returns (Instruction memory i) {
        i.op = word >> 56;
        i.a = (word >> 48) & 0xFF;
        i.b = (word >> 40) & 0xFF;
        i.c = (word >> 32) & 0xFF;
        i.imm = int32(uint32(word));
    }

    // ---------------------------------------------------------------- What an instruction needs

    /// @notice What `execute` must be told as `value`: the stored bytes of an element, little-endian, or a word of the image.
    /// @param words Words of the image.
    /// @return what Whether that is an element, a word, or nothing.
    /// @return tensor Number of an input, for an element.
    /// @return index Row-major index of the element, or index of the word.
    function need(bytes memory state, Instruction memory i, IVerde.Node calldata node, uint256 words)
        internal
        pure
        returns (Need what, uint256 tensor, uint256 index)
    {
        if (i.op != LOAD && i.op != RAW && i.op != CODE) return (Need.Nothing, 0, 0);
        if (i.a >= REGISTERS || i.c >= REGISTERS || (i.op != CODE && i.b >= REGISTERS)) return (Need.Nothing, 0, 0);
        int256 y = _operand(state, i);
        if (i.op == CODE) return y >= 0 && uint256(y) < words ? (Need.Word, 0, uint256(y)) : (Need.Nothing, 0, 0);
        int256 element = _signed(_get(state, i.b));
        if (y < 0 || uint256(y) >= node.inputs.length || element < 0) return (Need.Nothing, 0, 0);
        if (uint256(element) >= count(node.inputs[uint256(y)].shape)) return (Need.Nothing, 0, 0);
        return (Need.Element, uint256(y), uint256(element));
    }

    /// @notice Number of elements of a shape.
    function count(uint64[] calldata shape) internal pure returns (uint256 n) {
        n = 1;
        for (uint256 d; d < shape.length; ++d) {
            n *= shape[d];
        }
    }

    /// @notice Bytes of an element.
    function itemSize(uint256 dtype) internal pure returns (uint256) {
        return dtype == I64 ? 8 : dtype == BOOL ? 1 : dtype == BF16 || dtype == F16 ? 2 : 4;
    }

    // ---------------------------------------------------------------- Execution

    /// @notice Turns a running state into its successor, in place.
    /// @param i The instruction at pc, which lies in the image.
    /// @param value What `need` asked for; 0 if nothing.
    /// @param last Whether the trace has no further leaf: then no successor is running.
    function execute(bytes memory state, Instruction memory i, IVerde.Node calldata node, uint256 value, bool last)
        internal
        pure
    {
        if (!_execute(state, i, node, value) || (last && !halted(state))) trap(state);
    }

    /// @notice Turns any state into the halted state of output 0.
    function trap(bytes memory state) internal pure {
        _halt(state, 0);
    }

    /// @dev False: a TRAP.
    function _execute(bytes memory state, Instruction memory i, IVerde.Node calldata node, uint256 value)
        private
        pure
        returns (bool)
    {
        uint256 op = i.op;
        if (op == JMP) {
            _jump(state, uint32(uint256(i.imm)));
            return true;
        }
        if (i.a >= REGISTERS) return false;
        if (op == HALT) {
            uint256 bits = 8 * itemSize(node.dtype);
            _halt(state, uint64(_get(state, i.a) & ((1 << bits) - 1)));
            return true;
        }
        uint256 next = pc(state) + 1;
        if (op >= BEQ && op <= BGE) {
            if (i.b >= REGISTERS) return false;
            _jump(state, _taken(op, _get(state, i.a), _get(state, i.b)) ? uint32(uint256(i.imm)) : next);
            return true;
        }
        if (op == GET || op == PUT) {
            if (i.b >= REGISTERS) return false;
            int256 offset = _wrap(_signed(_get(state, i.b)) + i.imm);
            if (offset < 0 || offset >= int256(SCRATCH)) return false;
            if (op == GET) _set(state, i.a, _scratch(state, uint256(offset)));
            else _setScratch(state, uint256(offset), uint32(_get(state, i.a)));
            _jump(state, next);
            return true;
        }
        (bool known, uint256 result) = _compute(state, i, node, value);
        if (!known) return false;
        _set(state, i.a, result & LOW);
        _jump(state, next);
        return true;
    }

    /// @dev The result of an instruction that only writes r[a].
    function _compute(bytes memory state, Instruction memory i, IVerde.Node calldata node, uint256 value)
        private
        pure
        returns (bool known, uint256 result)
    {
        uint256 op = i.op;
        if (op >= ADD && op <= SLT) {
            if (i.b >= REGISTERS || i.c >= REGISTERS) return (false, 0);
            return (true, _integer(op, _get(state, i.b), _operand(state, i)));
        }
        if (op >= PARAM && op <= CODE) {
            bool readsB = op == DIM || op == PLACE || op == LOAD || op == RAW;
            if ((readsB && i.b >= REGISTERS) || (op != INPUTS && i.c >= REGISTERS)) return (false, 0);
            return _lookup(
                op,
                readsB ? _signed(_get(state, i.b)) : int256(0),
                op == INPUTS ? int256(0) : _operand(state, i),
                node,
                value
            );
        }
        if (i.b >= REGISTERS) return (false, 0);
        uint256 x = _get(state, i.b);
        if (op == SEXT) return (true, uint256(int256(int32(uint32(x)))));
        if (op == SEL || op == FFMA) {
            if (i.c >= REGISTERS || i.imm < 0 || i.imm >= int256(REGISTERS)) return (false, 0);
            uint256 y = _get(state, i.c);
            uint256 z = _get(state, uint256(i.imm));
            if (op == SEL) return (true, x != 0 ? y : z);
            return (true, Float32.fma(uint32(x), uint32(y), uint32(z)));
        }
        if ((op >= FADD && op <= FDIV) || (op >= FMAX && op <= FLE)) {
            if (i.c >= REGISTERS) return (false, 0);
            return (true, _float(op, uint32(x), uint32(_get(state, i.c))));
        }
        if (op == FSQRT) return (true, Float32.sqrt(uint32(x)));
        if (op == FNAN) return (true, Float32.isNaN(uint32(x)) ? 1 : 0);
        if (op == ITOF) return (true, Float32.fromInt64(int64(uint64(x))));
        if (op == FTOI) return (true, uint256(int256(Float32.toInt64(uint32(x)))));
        if (op == NARROW) return (true, _narrow(uint32(x), node.dtype));
    }

    function _taken(uint256 op, uint256 x, uint256 y) private pure returns (bool) {
        if (op == 0x03) return x == y;
        if (op == 0x04) return x != y;
        bool less = _signed(x) < _signed(y);
        return op == 0x05 ? less : !less;
    }

    function _integer(uint256 op, uint256 word, int256 y) private pure returns (uint256) {
        int256 x = _signed(word);
        unchecked {
            if (op == 0x10) return uint256(x + y);
            if (op == 0x11) return uint256(x - y);
            if (op == 0x12) return uint256(x * y);
            if (op == 0x13) return uint256(_divide(x, y));
            if (op == 0x14) return uint256(x - _divide(x, y) * y);
            if (op == 0x15) return uint256(x & y);
            if (op == 0x16) return uint256(x | y);
            if (op == 0x17) return uint256(x ^ y);
            bool inside = y >= 0 && y < 64;
            if (op == 0x18) return inside ? word << uint256(y) : 0;
            if (op == 0x19) return inside ? word >> uint256(y) : 0;
            if (op == 0x1A) return uint256(x >> (inside ? uint256(y) : 63));
            if (op == 0x1B) return uint256(x < y ? x : y);
            if (op == 0x1C) return uint256(x > y ? x : y);
            if (op == 0x1D) return x == y ? 1 : 0;
            return x < y ? 1 : 0;
        }
    }

    /// @dev Toward zero; x / 0 = 0. In 256 bits -2^63 / -1 is 2^63, which wraps to -2^63.
    function _divide(int256 x, int256 y) private pure returns (int256) {
        return y == 0 ? int256(0) : x / y;
    }

    /// @dev PARAM to CODE, with r[b] and y.
    function _lookup(uint256 op, int256 x, int256 y, IVerde.Node calldata node, uint256 value)
        private
        pure
        returns (bool known, uint256 result)
    {
        known = true;
        if (op == PARAM) {
            if (y >= 0 && uint256(y) < node.params.length) result = uint256(int256(node.params[uint256(y)]));
        } else if (op == LITERAL) {
            if (y >= 0 && uint256(y) < node.literals.length) result = node.literals[uint256(y)];
        } else if (op == DIM) {
            if (y == -2) {
                uint64[] memory space_ = space(node);
                if (x >= 0 && uint256(x) < space_.length) result = space_[uint256(x)];
            } else if (_exists(y, node)) {
                uint64[] calldata shape = _shape(y, node);
                if (x >= 0 && uint256(x) < shape.length) result = shape[uint256(x)];
            }
        } else if (op == RANK) {
            if (y == -2) result = space(node).length;
            else if (_exists(y, node)) result = _shape(y, node).length;
        } else if (op == DTYPE) {
            if (y == -1) result = node.dtype;
            else if (_exists(y, node)) result = node.inputs[uint256(y)].dtype;
        } else if (op == INPUTS) {
            result = node.inputs.length;
        } else if (op == PLACE) {
            result = _place(x, y, node);
        } else if (op == LOAD) {
            // A value is 0 where the element does not exist, which is 0 in every dtype.
            result = y >= 0 && uint256(y) < node.inputs.length ? _number(value, node.inputs[uint256(y)].dtype) : 0;
        } else if (op == RAW || op == CODE) {
            result = value;
        } else {
            known = false;
        }
    }

    function _float(uint256 op, uint256 x, uint256 y) private pure returns (uint256) {
        if (op == 0x38) return Float32.add(x, y);
        if (op == 0x39) return Float32.sub(x, y);
        if (op == 0x3A) return Float32.mul(x, y);
        if (op == 0x3B) return Float32.div(x, y);
        if (op == 0x3E) return Float32.maximum(x, y);
        if (op == 0x3F) return Float32.minimum(x, y);
        bool is_ = op == 0x40 ? Float32.eq(x, y) : op == 0x41 ? Float32.lt(x, y) : Float32.le(x, y);
        return is_ ? 1 : 0;
    }

    function _narrow(uint256 x, uint256 dtype) private pure returns (uint256) {
        if (dtype == F32) return Float32.isNaN(x) ? 0x7FC00000 : x;
        return dtype == BF16 ? Float32.narrowBF16(x) : dtype == F16 ? Float32.narrowF16(x) : x;
    }

    /// @dev LOAD: stored bytes as a number, or as the pattern of an f32.
    function _number(uint256 stored, uint256 dtype) private pure returns (uint256) {
        if (dtype == BF16) return Float32.widenBF16(stored);
        if (dtype == F16) return Float32.widenF16(stored);
        if (dtype == I32) return uint256(int256(int32(uint32(stored))));
        if (dtype == BOOL) return stored == 0 ? 0 : 1;
        return stored;
    }

    // ---------------------------------------------------------------- Shapes

    /// @notice The shape to which all inputs and the output broadcast; the greatest length where they do not, 0 where one is 0.
    function space(IVerde.Node calldata node) internal pure returns (uint64[] memory shape) {
        uint256 rank = node.shape.length;
        for (uint256 k; k < node.inputs.length; ++k) {
            uint256 own = node.inputs[k].shape.length;
            if (own > rank) rank = own;
        }
        shape = new uint64[](rank);
        for (uint256 d; d < rank; ++d) {
            shape[d] = 1;
        }
        _spread(shape, node.shape);
        for (uint256 k; k < node.inputs.length; ++k) {
            _spread(shape, node.inputs[k].shape);
        }
    }

    function _spread(uint64[] memory shape, uint64[] calldata own) private pure {
        uint256 offset = shape.length - own.length;
        for (uint256 d; d < own.length; ++d) {
            uint64 length = own[d];
            uint64 known = shape[offset + d];
            if (known != 0 && (length == 0 || length > known)) shape[offset + d] = length;
        }
    }

    /// @dev Whether a tensor number names an input or the output.
    function _exists(int256 t, IVerde.Node calldata node) private pure returns (bool) {
        return t == -1 || (t >= 0 && uint256(t) < node.inputs.length);
    }

    function _shape(int256 t, IVerde.Node calldata node) private pure returns (uint64[] calldata) {
        return t == -1 ? node.shape : node.inputs[uint256(t)].shape;
    }

    /// @dev Where broadcasting finds element `index` of the space in tensor `t`.
    function _place(int256 index, int256 t, IVerde.Node calldata node) private pure returns (uint256) {
        if (t != -2 && !_exists(t, node)) return 0;
        if (index < 0) return LOW;
        uint64[] memory wide = space(node);
        uint256 rest = uint256(index);
        uint256[] memory coordinates = new uint256[](wide.length);
        for (uint256 d = wide.length; d > 0; --d) {
            uint256 length = wide[d - 1];
            if (length == 0) return 0;
            coordinates[d - 1] = rest % length;
            rest /= length;
        }
        uint256 place;
        unchecked {
            if (t == -2) {
                for (uint256 d; d < wide.length; ++d) {
                    place = place * wide[d] + (wide[d] == 1 ? 0 : coordinates[d]);
                }
                return place;
            }
            uint64[] calldata shape = _shape(t, node);
            uint256 offset = wide.length - shape.length;
            for (uint256 d; d < shape.length; ++d) {
                place = place * shape[d] + (shape[d] == 1 ? 0 : coordinates[offset + d]);
            }
        }
        return place;
    }

    // ---------------------------------------------------------------- Words of a state

    function _signed(uint256 word) private pure returns (int256) {
        return int256(int64(uint64(word)));
    }

    function _wrap(int256 x) private pure returns (int256) {
        return int256(int64(uint64(uint256(x))));
    }

    /// @dev y = r[c] + imm modulo 2^64.
    function _operand(bytes memory state, Instruction memory i) private pure returns (int256) {
        return _wrap(_signed(_get(state, i.c)) + i.imm);
    }

    function _get(bytes memory state, uint256 register) private pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := shr(192, mload(add(add(state, 0x40), shl(3, register))))
        }
    }

    function _set(bytes memory state, uint256 register, uint256 value) private pure {
        assembly ("memory-safe") {
            let offset := add(add(state, 0x40), shl(3, register))
            mstore(
                offset,
                or(
                    shl(192, value),
                    and(mload(offset), 0x0000000000000000FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF)
                )
            )
        }
    }

    function _scratch(bytes memory state, uint256 index) private pure returns (uint256 value) {
        assembly ("memory-safe") {
            // The word that ends with it: nothing past the state is read.
            value := and(mload(add(add(state, 0x124), shl(2, index))), 0xFFFFFFFF)
        }
    }

    function _setScratch(bytes memory state, uint256 index, uint256 value) private pure {
        assembly ("memory-safe") {
            let offset := add(add(state, 0x124), shl(2, index))
            mstore(offset, or(value, and(mload(offset), not(0xFFFFFFFF))))
        }
    }

    function _jump(bytes memory state, uint256 to) private pure {
        assembly ("memory-safe") {
            let offset := add(state, 0x20)
            let mask := shl(64, 0xFFFFFFFF)
            mstore(offset, or(and(shl(64, to), mask), and(mload(offset), not(mask))))
        }
    }

    function _halt(bytes memory state, uint64 output) private pure {
        assembly ("memory-safe") {
            let offset := add(state, 0x20)
            mstore(offset, or(shl(248, 1), output))
            for { let k := 0x20 } lt(k, 512) { k := add(k, 0x20) } { mstore(add(offset, k), 0) }
        }
    }
}
