// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

/// @title IEEE 754-2019 binary32
/// @notice Round to nearest, ties to even, gradual underflow: the primitives of docs/spec/operators.md, bit for bit. A NaN that is computed is
/// 0x7FC00000; the widenings keep a NaN's payload.
/// @dev Floats are patterns in the low bits of a word, so that nothing is masked between operations. Every argument must be a pattern of its
/// width: below 2^32, or 2^16 for the widenings.
///
/// A finite number is unpacked to `m * 2^(g - 149)` with m < 2^24 and g = 0 .. 253, the exponent field less one (less zero for a subnormal). A
/// result before rounding is `s * 2^(e - 298)`, the scale of a product of two such numbers; e may be negative.
library Float32 {
    uint256 internal constant NAN = 0x7FC00000;
    uint256 internal constant INFINITY = 0x7F800000;
    uint256 private constant SIGN = 0x80000000;
    uint256 private constant MAGNITUDE = 0x7FFFFFFF;
    /// @dev Binary digits of a significand after the first.
    uint256 private constant DIGITS = 23;
    /// @dev The most by which a summand is moved: more than 48 + 26, so that what is moved further only says on which side the sum lies; no less than
    /// 104, so that a zero product never is moved further.
    uint256 private constant FAR = 104;

    // ---------------------------------------------------------------- Arithmetic

    /// @notice a + b.
    function add(uint256 a, uint256 b) internal pure returns (uint256) {
        unchecked {
            uint256 ga = _scale(a & MAGNITUDE);
            uint256 gb = _scale(b & MAGNITUDE);
            if ((ga + 2) | (gb + 2) > 255) return _addSpecial(a, b);
            return _sum(
                a & SIGN,
                (a & MAGNITUDE) - (ga << DIGITS),
                ga + 149,
                b & SIGN,
                (b & MAGNITUDE) - (gb << DIGITS),
                gb + 149
            );
        }
    }

    /// @notice a - b.
    function sub(uint256 a, uint256 b) internal pure returns (uint256) {
        return add(a, b ^ SIGN);
    }

    /// @notice a * b.
    function mul(uint256 a, uint256 b) internal pure returns (uint256) {
        unchecked {
            uint256 ga = _scale(a & MAGNITUDE);
            uint256 gb = _scale(b & MAGNITUDE);
            if ((ga + 2) | (gb + 2) > 255) return _mulSpecial(a, b);
            return
                _round((a ^ b) & SIGN, ga + gb, ((a & MAGNITUDE) - (ga << DIGITS)) * ((b & MAGNITUDE) - (gb << DIGITS)));
        }
    }

    /// @notice a * b + c, rounded once.
    function fma(uint256 a, uint256 b, uint256 c) internal pure returns (uint256) {
        unchecked {
            uint256 ga = _scale(a & MAGNITUDE);
            uint256 gb = _scale(b & MAGNITUDE);
            uint256 gc = _scale(c & MAGNITUDE);
            if ((ga + 2) | (gb + 2) | (gc + 2) > 255) {
                // A finite product is as good as a zero beside an infinite or NaN summand.
                return _addSpecial(_special(a) | _special(b) != 0 ? _mulSpecial(a, b) : 0, c);
            }
            return _sum(
                (a ^ b) & SIGN,
                ((a & MAGNITUDE) - (ga << DIGITS)) * ((b & MAGNITUDE) - (gb << DIGITS)),
                ga + gb,
                c & SIGN,
                (c & MAGNITUDE) - (gc << DIGITS),
                gc + 149
            );
        }
    }

    /// @notice a / b.
    function div(uint256 a, uint256 b) internal pure returns (uint256) {
        unchecked {
            (uint256 mb, uint256 gb) = _unpack(b);
            if (_special(a) | _special(b) != 0 || mb == 0) return _divSpecial(a, b);
            (uint256 ma, uint256 ga) = _unpack(a);
            ma <<= 64; // the quotient has 40 bits at least, or is zero
            return _round((a ^ b) & SIGN, ga - gb + (298 - 64), (ma / mb) | _bit(ma % mb != 0));
        }
    }

    /// @notice The square root of a.
    function sqrt(uint256 a) internal pure returns (uint256) {
        unchecked {
            if (a & MAGNITUDE == 0 || a == INFINITY) return a;
            if (a > INFINITY) return NAN; // or negative
            (uint256 m, uint256 g) = _unpack(a);
            // An even power of two times x, 2^50 <= x < 2^52.
            while (m < 1 << DIGITS) {
                m <<= 1;
                g -= 1;
            }
            uint256 x = m << (27 + (g & 1));
            // A line within 3.2% of the root, then Newton's method: its third step ends at the root's floor or one above.
            uint256 root = 11 * ((x >> 30) + (1 << 21));
            root = (root + x / root) >> 1;
            root = (root + x / root) >> 1;
            root = (root + x / root) >> 1;
            if (root * root > x) root -= 1;
            return _round(0, (g + 418) >> 1, (root << 1) | _bit(root * root != x));
        }
    }

    // ---------------------------------------------------------------- Compares

    /// @notice Whether a is a NaN.
    function isNaN(uint256 a) internal pure returns (bool) {
        return a & MAGNITUDE > INFINITY;
    }

    /// @notice a == b: false with a NaN; -0 = +0.
    function eq(uint256 a, uint256 b) internal pure returns (bool) {
        return !isNaN(a) && !isNaN(b) && _key(a) == _key(b);
    }

    /// @notice a < b: false with a NaN.
    function lt(uint256 a, uint256 b) internal pure returns (bool) {
        return !isNaN(a) && !isNaN(b) && _key(a) < _key(b);
    }

    /// @notice a <= b: false with a NaN.
    function le(uint256 a, uint256 b) internal pure returns (bool) {
        return !isNaN(a) && !isNaN(b) && _key(a) <= _key(b);
    }

    /// @notice IEEE 754-2019 maximum: NaN if either is; -0 < +0.
    function maximum(uint256 a, uint256 b) internal pure returns (uint256) {
        if (isNaN(a) || isNaN(b)) return NAN;
        if (_key(a) == _key(b)) return a & b; // differ only as +0 and -0
        return _key(a) > _key(b) ? a : b;
    }

    /// @notice IEEE 754-2019 minimum: NaN if either is; -0 < +0.
    function minimum(uint256 a, uint256 b) internal pure returns (uint256) {
        if (isNaN(a) || isNaN(b)) return NAN;
        if (_key(a) == _key(b)) return a | b;
        return _key(a) < _key(b) ? a : b;
    }

    // ---------------------------------------------------------------- Conversions

    /// @notice The integer, rounded.
    function fromInt64(int64 x) internal pure returns (uint256) {
        unchecked {
            return x < 0 ? _round(SIGN, 298, uint256(-int256(x))) : _round(0, 298, uint256(int256(x)));
        }
    }

    /// @notice Toward zero; beyond the range the nearest int64; 0 for a NaN.
    function toInt64(uint256 a) internal pure returns (int64) {
        unchecked {
            if (isNaN(a)) return 0;
            (uint256 m, uint256 g) = _unpack(a);
            if (g > 188) return a & SIGN == 0 ? type(int64).max : type(int64).min; // from 2^63 on
            int256 x = int256((m << g) >> 149);
            return int64(a & SIGN == 0 ? x : -x);
        }
    }

    /// @notice The bfloat16 as a binary32, exactly.
    function widenBF16(uint256 h) internal pure returns (uint256) {
        return h << 16;
    }

    /// @notice The binary16 as a binary32, exactly.
    function widenF16(uint256 h) internal pure returns (uint256) {
        unchecked {
            uint256 sign = (h & 0x8000) << 16;
            uint256 magnitude = (h & 0x7FFF) << 13;
            if (magnitude < 0x800000) return _round(sign, 298 - 37, magnitude); // subnormal: the unit is 2^-24
            return sign | (magnitude + (magnitude < 0xF800000 ? 112 << 23 : 224 << 23));
        }
    }

    /// @notice The nearest bfloat16; 0x7FC0 for a NaN.
    function narrowBF16(uint256 a) internal pure returns (uint256) {
        return isNaN(a) ? NAN >> 16 : _drop(a, 16);
    }

    /// @notice The nearest binary16; 0x7E00 for a NaN.
    function narrowF16(uint256 a) internal pure returns (uint256) {
        unchecked {
            uint256 sign = (a & SIGN) >> 16;
            uint256 magnitude = a & MAGNITUDE;
            if (magnitude > INFINITY) return 0x7E00;
            if (magnitude >= 0x477FF000) return sign | 0x7C00; // from 65,520 on
            if (magnitude >= 0x38800000) return sign | _drop(magnitude - (112 << 23), 13);
            (uint256 m, uint256 g) = _unpack(a);
            return sign | _drop(m, 125 - g); // subnormal: the unit is 2^-24
        }
    }

    // ---------------------------------------------------------------- Parts

    /// @dev s * 2^(e - 298), rounded, with the sign. s < 2^160. Of a number that is not exact the last bit of s is set and lies below the half of the
    /// result's unit.
    function _round(uint256 sign, uint256 e, uint256 s) private pure returns (uint256 a) {
        unchecked {
            // The exponent field less one; 0 for a subnormal too.
            uint256 g = _positive(_log2(s) + e - 172);
            // A significand that is rounded up to the next power of two carries into the field, as it should.
            e = g + 173 - e;
            s <<= 24;
            a = (g << DIGITS) + ((s + ((1 << (e - 1)) - 1) + ((s >> e) & 1)) >> e);
            if (a > INFINITY) a = INFINITY;
            a |= sign;
        }
    }

    /// @dev p * 2^(x - 298) + q * 2^(y - 298), each with its sign, rounded. p < 2^48, q < 2^24. A zero is not FAR above the other.
    function _sum(uint256 signP, uint256 p, uint256 x, uint256 signQ, uint256 q, uint256 y)
        private
        pure
        returns (uint256)
    {
        unchecked {
            // Both at the lower scale, or at FAR below the higher one.
            uint256 d;
            if (x < y) {
                d = y - x;
                if (d > FAR) d = FAR;
                q <<= d;
                x = y - d;
            } else {
                d = x - y;
                if (d > FAR) d = FAR;
                p <<= d;
                x -= d;
            }
            if (signP == signQ) {
                p += q;
            } else {
                if (p == q) return 0;
                if (p > q) {
                    p -= q;
                } else {
                    p = q - p;
                    signP = signQ;
                }
            }
            return _round(signP, x, p);
        }
    }

    /// @dev s / 2^n to the nearest integer, ties to even. n > 0.
    function _drop(uint256 s, uint256 n) private pure returns (uint256) {
        unchecked {
            return (s + ((1 << (n - 1)) - 1) + ((s >> n) & 1)) >> n;
        }
    }

    /// @dev The place of the highest bit of s. 0 < s < 2^160.
    function _log2(uint256 s) private pure returns (uint256 k) {
        assembly ("memory-safe") {
            k := mul(80, lt(0xFFFFFFFFFFFFFFFFFFFF, s))
            k := add(k, mul(40, lt(0xFFFFFFFFFF, shr(k, s))))
            k := add(k, mul(20, lt(0xFFFFF, shr(k, s))))
            k := add(k, mul(10, lt(0x3FF, shr(k, s))))
            k := add(k, mul(5, lt(0x1F, shr(k, s))))
            // Byte i is the place of the highest bit of i.
            k := add(k, byte(shr(k, s), 0x0000010102020202030303030303030304040404040404040404040404040404))
        }
    }

    /// @dev x, or 0 where it is negative in two's complement.
    function _positive(uint256 x) private pure returns (uint256 y) {
        assembly ("memory-safe") {
            y := mul(x, sgt(x, 0))
        }
    }

    function _bit(bool x) private pure returns (uint256 y) {
        assembly ("memory-safe") {
            y := x
        }
    }

    function _scale(uint256 m) private pure returns (uint256 g) {
        assembly ("memory-safe") {
            g := sub(shr(23, m), lt(0x7FFFFF, m))
        }
    }

    /// @dev A finite a is m * 2^(g - 149), but for its sign.
    function _unpack(uint256 a) private pure returns (uint256 m, uint256 g) {
        unchecked {
            m = a & MAGNITUDE;
            g = m >> DIGITS;
            g -= _bit(g != 0);
            m -= g << DIGITS;
        }
    }

    /// @dev 1 if a is infinite or a NaN, else 0.
    function _special(uint256 a) private pure returns (uint256) {
        unchecked {
            return ((a & INFINITY) + (1 << DIGITS)) >> 31;
        }
    }

    /// @dev Orders the numbers as they are; -0 = +0.
    function _key(uint256 a) private pure returns (uint256) {
        unchecked {
            return a < SIGN ? a + SIGN : 2 * SIGN - a;
        }
    }

    /// @dev a + b where one is infinite or a NaN.
    function _addSpecial(uint256 a, uint256 b) private pure returns (uint256) {
        if (isNaN(a) || isNaN(b)) return NAN;
        if (_special(a) == 0) return b;
        return _special(b) == 0 || a == b ? a : NAN;
    }

    /// @dev a * b where one is infinite or a NaN.
    function _mulSpecial(uint256 a, uint256 b) private pure returns (uint256) {
        if (isNaN(a) || isNaN(b) || a & MAGNITUDE == 0 || b & MAGNITUDE == 0) return NAN;
        return ((a ^ b) & SIGN) | INFINITY;
    }

    /// @dev a / b where one is infinite or a NaN, or b is zero.
    function _divSpecial(uint256 a, uint256 b) private pure returns (uint256) {
        if (isNaN(a) || isNaN(b) || a & MAGNITUDE == b & MAGNITUDE) return NAN;
        uint256 sign = (a ^ b) & SIGN;
        return _special(a) != 0 || b & MAGNITUDE == 0 ? sign | INFINITY : sign;
    }
}
