// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {Float32} from "../libraries/Float32.sol";

/// @notice Float32 over many cases in one call, compiled as the contracts are: for Float32.t.sol and scripts/check_float32.py.
contract Float32Calls {
    /// @notice Applies one operation to every case.
    /// @param operation Its place in `_apply`.
    /// @param cases Operands a * 2^64 + b * 2^32 + c, three patterns of which an operation takes the first ones. fromInt64 takes a and b together as
    /// an integer, a widening the low 16 bits of a.
    /// @return results For each case the result (64 bits) * 2^64 + the gas of the operation.
    function run(uint256 operation, uint256[] calldata cases) external view returns (uint256[] memory results) {
        unchecked {
            results = new uint256[](cases.length);
            (uint256 idle,, uint256 after_) = _apply(type(uint256).max, 0, 0, 0);
            idle -= after_;
            for (uint256 i; i < cases.length; ++i) {
                uint256 word = cases[i];
                (uint256 before, uint256 result, uint256 left) =
                    _apply(operation, word >> 64, (word >> 32) & 0xFFFFFFFF, word & 0xFFFFFFFF);
                results[i] = (result << 64) | (before - left - idle);
            }
        }
    }

    /// @dev The gas left before, the result, the gas left after.
    function _apply(uint256 operation, uint256 a, uint256 b, uint256 c)
        private
        view
        returns (uint256, uint256, uint256)
    {
        if (operation == 0) return (gasleft(), Float32.add(a, b), gasleft());
        if (operation == 1) return (gasleft(), Float32.sub(a, b), gasleft());
        if (operation == 2) return (gasleft(), Float32.mul(a, b), gasleft());
        if (operation == 3) return (gasleft(), Float32.div(a, b), gasleft());
        if (operation == 4) return (gasleft(), Float32.sqrt(a), gasleft());
        if (operation == 5) return (gasleft(), Float32.fma(a, b, c), gasleft());
        if (operation == 6) return (gasleft(), _bit(Float32.eq(a, b)), gasleft());
        if (operation == 7) return (gasleft(), _bit(Float32.lt(a, b)), gasleft());
        if (operation == 8) return (gasleft(), _bit(Float32.le(a, b)), gasleft());
        if (operation == 9) return (gasleft(), _bit(Float32.isNaN(a)), gasleft());
        if (operation == 10) return (gasleft(), Float32.maximum(a, b), gasleft());
        if (operation == 11) return (gasleft(), Float32.minimum(a, b), gasleft());
        if (operation == 12) return (gasleft(), Float32.fromInt64(int64(uint64((a << 32) | b))), gasleft());
        if (operation == 13) return (gasleft(), uint64(Float32.toInt64(a)), gasleft());
        if (operation == 14) return (gasleft(), Float32.widenF16(a & 0xFFFF), gasleft());
        if (operation == 15) return (gasleft(), Float32.widenBF16(a & 0xFFFF), gasleft());
        if (operation == 16) return (gasleft(), Float32.narrowF16(a), gasleft());
        if (operation == 17) return (gasleft(), Float32.narrowBF16(a), gasleft());
        return (gasleft(), a, gasleft());
    }

    function _bit(bool x) private pure returns (uint256 y) {
        assembly ("memory-safe") {
            y := x
        }
    }
}
