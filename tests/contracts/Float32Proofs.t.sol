// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {Float32} from "../../contracts/libraries/Float32.sol";

/// @notice Laws of Float32 for every operand, by symbolic execution: how it is run stands in docs/float32.md. forge runs nothing of it.
contract Float32Proofs {
    /// The rounding: the nearest float, and of two the even one, for every integer of 64 bits.
    function check_RoundsToNearestEven(int64 x) public pure {
        unchecked {
            uint256 a = Float32.fromInt64(x);
            if (x == 0) {
                assert(a == 0);
                return;
            }
            assert((a >> 31 == 1) == (x < 0));
            a &= 0x7FFFFFFF;
            uint256 g = (a >> 23) - 1;
            uint256 m = a - (g << 23);
            // In units of 2^-24: the integer, the float, the unit in the float's last place.
            uint256 exact = uint256(x < 0 ? -int256(x) : int256(x)) << 24;
            uint256 value = (m << g) >> 125;
            uint256 unit = 1 << (g - 125);
            uint256 off = value > exact ? value - exact : exact - value;
            assert(2 * off < unit || (2 * off == unit && m & 1 == 0));
        }
    }

    function check_IntegersGoThrough(int24 x) public pure {
        assert(Float32.toInt64(Float32.fromInt64(x)) == x);
    }

    function check_OneIsNeutral(uint32 a) public pure {
        assert(Float32.mul(a, 0x3F800000) == (Float32.isNaN(a) ? Float32.NAN : a));
    }

    function check_Order(uint32 a, uint32 b) public pure {
        bool ordered = !Float32.isNaN(a) && !Float32.isNaN(b);
        uint256 holds = (Float32.lt(a, b) ? 1 : 0) + (Float32.eq(a, b) ? 1 : 0) + (Float32.lt(b, a) ? 1 : 0);
        assert(holds == (ordered ? 1 : 0));
        assert(Float32.le(a, b) == (Float32.lt(a, b) || Float32.eq(a, b)));
    }

    function check_MaximumAndMinimum(uint32 a, uint32 b) public pure {
        uint256 high = Float32.maximum(a, b);
        uint256 low = Float32.minimum(a, b);
        if (Float32.isNaN(a) || Float32.isNaN(b)) {
            assert(high == Float32.NAN && low == Float32.NAN);
            return;
        }
        assert(low ^ high == a ^ b && (high == a || high == b));
        assert(Float32.le(low, high));
        if (Float32.eq(a, b)) assert(high == a & b);
    }

    function check_NarrowUndoesWiden(uint16 h) public pure {
        uint256 wide = Float32.widenF16(h);
        assert(Float32.narrowF16(wide) == (Float32.isNaN(wide) ? 0x7E00 : h));
        wide = Float32.widenBF16(h);
        assert(Float32.narrowBF16(wide) == (Float32.isNaN(wide) ? 0x7FC0 : h));
    }
}
