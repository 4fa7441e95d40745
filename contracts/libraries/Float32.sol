// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

/// @title IEEE 754-2019 binary32
/// @notice Round to nearest, ties to even, gradual underflow: the primitives of docs/spec/operators.md, bit for bit. A NaN that is computed is
/// 0x7FC00000; the widenings keep a NaN's payload. How it is checked: docs/float32.md.
/// @dev Floats are patterns in the low bits of a word, so that nothing is masked between operations. Every argument must be a pattern of its
/// width: below 2^32, or 2^16 for the widenings.
///
/// A finite number is m * 2^(g - 149) with the significand m < 2^24 and the scale g = 0 .. 253: the exponent field less one, 0 for a subnormal too.
/// A result before its rounding is s * 2^(e - 298), the unit of a product of two such numbers; e may be negative.
library Float32 {
    uint256 internal constant NAN = 0x7FC00000;
    uint256 internal constant INFINITY = 0x7F800000;
    uint256 private constant SIGN = 0x80000000;
    uint256 private constant MAGNITUDE = 0x7FFFFFFF;
    /// @dev Binary digits of a significand after its first.
    uint256 private constant DIGITS = 23;
    /// @dev g + 2 of an infinity or NaN, and the bit that it has in none of the others.
    uint256 private constant SPECIAL = 256;
    /// @dev The most by which a summand is moved to meet the other one. What is still further below is smaller than a quarter of the result's unit
    /// also where it stands then (48 + 26 places would do), so that no more than its sign matters; and a product that is zero is never that far
    /// above a summand (253 - 149 places at most).
    uint256 private constant FAR = 104;

    // ---------------------------------------------------------------- Arithmetic

    /// @notice a + b.
    function add(uint256 a, uint256 b) internal pure returns (uint256) {
        unchecked {
            uint256 ga = _scale(a & MAGNITUDE);
            uint256 gb = _scale(b & MAGNITUDE);
            if ((ga + 2) | (gb + 2) >= SPECIAL) return _addSpecial(a, b);
            return _sum(a & SIGN, _significand(a, ga), ga + 149, b & SIGN, _significand(b, gb), gb + 149);
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
            if ((ga + 2) | (gb + 2) >= SPECIAL) return _mulSpecial(a, b);
            uint256 product = _significand(a, ga) * _significand(b, gb);
            return product == 0 ? (a ^ b) & SIGN : _round((a ^ b) & SIGN, ga + gb, product);
        }
    }

    /// @notice a * b + c, rounded once.
    function fma(uint256 a, uint256 b, uint256 c) internal pure returns (uint256) {
        unchecked {
            uint256 ga = _scale(a & MAGNITUDE);
            uint256 gb = _scale(b & MAGNITUDE);
            uint256 gc = _scale(c & MAGNITUDE);
            if ((ga + 2) | (gb + 2) | (gc + 2) >= SPECIAL) {
                // Beside an infinite or NaN summand any finite product is as good as zero.
                return _addSpecial((ga + 2) | (gb + 2) >= SPECIAL ? _mulSpecial(a, b) : 0, c);
            }
            uint256 product = _significand(a, ga) * _significand(b, gb);
            return _sum((a ^ b) & SIGN, product, ga + gb, c & SIGN, _significand(c, gc), gc + 149);
        }
    }

    /// @notice a / b.
    function div(uint256 a, uint256 b) internal pure returns (uint256) {
        unchecked {
            uint256 ga = _scale(a & MAGNITUDE);
            uint256 gb = _scale(b & MAGNITUDE);
            uint256 divisor = _significand(b, gb);
            if ((ga + 2) | (gb + 2) >= SPECIAL || divisor == 0) return _divSpecial(a, b);
            uint256 dividend = _significand(a, ga) << 64; // so that a quotient that is not zero has 40 bits
            if (dividend == 0) return (a ^ b) & SIGN;
            return _round((a ^ b) & SIGN, ga - gb + (298 - 64), (dividend / divisor) | _bit(dividend % divisor != 0));
        }
    }

    /// @notice The square root of a.
    function sqrt(uint256 a) internal pure returns (uint256) {
        unchecked {
            if (a & MAGNITUDE == 0 || a == INFINITY) return a;
            if (a > INFINITY) return NAN; // also the negative ones
            uint256 g = _scale(a & MAGNITUDE);
            uint256 m = _significand(a, g);
            // An even power of two times x, 2^50 <= x < 2^52.
            uint256 k = _log2(m);
            g += k;
            uint256 x = m << (51 - k - (g & 1));
            // A line within 3.2% of the root, then Newton's method: its third step ends at the root's floor or one above.
            uint256 root = 11 * ((x >> 30) + (1 << 21));
            root = (root + x / root) >> 1;
            root = (root + x / root) >> 1;
            root = (root + x / root) >> 1;
            if (root * root > x) root -= 1;
            return _round(0, (g + 395) >> 1, (root << 1) | _bit(root * root != x));
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
        if (_key(a) == _key(b)) return a & b; // they differ only as +0 and -0
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
            if (x == 0) return 0;
            return x < 0 ? _round(SIGN, 298, uint256(-int256(x))) : _round(0, 298, uint256(int256(x)));
        }
    }

    /// @notice Toward zero; beyond the range the nearest int64; 0 for a NaN.
    function toInt64(uint256 a) internal pure returns (int64) {
        unchecked {
            if (isNaN(a)) return 0;
            uint256 g = _scale(a & MAGNITUDE);
            if (g > 188) return a < SIGN ? type(int64).max : type(int64).min; // from 2^63 on
            int256 x = int256((_significand(a, g) << g) >> 149);
            return int64(a < SIGN ? x : -x);
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
            if (magnitude == 0) return sign;
            if (magnitude < 1 << DIGITS) return _round(sign, 298 - 37, magnitude); // subnormal: m * 2^-24
            return (sign | magnitude) + (magnitude < 31 << DIGITS ? 112 << DIGITS : 224 << DIGITS);
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
            if (magnitude >= 113 << DIGITS) return sign | _drop(magnitude - (112 << DIGITS), 13);
            uint256 g = _scale(magnitude);
            return sign | _drop(_significand(a, g), 125 - g); // subnormal: the unit is 2^-24
        }
    }

    // ---------------------------------------------------------------- Parts

    /// @dev s * 2^(e - 298), rounded, with the sign. 0 <= s < 2^160, and e <= 172 if s = 0. Where s stands for a number between integers, its last
    /// bit is set and worth less than half a unit of the result.
    function _round(uint256 sign, uint256 e, uint256 s) private pure returns (uint256) {
        unchecked {
            uint256 g = _positive(_log2(s) + e - 172);
            uint256 n = g + 173 - e;
            s <<= 24;
            // As _drop(s, n). A significand rounded up to a power of two carries into the exponent field, as it should.
            uint256 a = (g << DIGITS) + ((s + ((1 << (n - 1)) - 1) + ((s >> n) & 1)) >> n);
            return sign | (a < INFINITY ? a : INFINITY);
        }
    }

    /// @dev p * 2^(x - 298) + q * 2^(y - 298), each with its sign, rounded. p is a product of two significands, q a significand, x and y their scales;
    /// or p is a significand too.
    function _sum(uint256 signP, uint256 p, uint256 x, uint256 signQ, uint256 q, uint256 y)
        private
        pure
        returns (uint256)
    {
        unchecked {
            if (x < y) {
                uint256 d = y - x < FAR ? y - x : FAR;
                q <<= d;
                x = y - d;
            } else {
                uint256 d = x - y < FAR ? x - y : FAR;
                p <<= d;
                x -= d;
            }
            if (signP == signQ) return _round(signP, x, p + q);
            if (p > q) return _round(signP, x, p - q);
            return p < q ? _round(signQ, x, q - p) : 0;
        }
    }

    /// @dev s / 2^n to the nearest integer, ties to even. n > 0.
    function _drop(uint256 s, uint256 n) private pure returns (uint256) {
        unchecked {
            return (s + ((1 << (n - 1)) - 1) + ((s >> n) & 1)) >> n;
        }
    }

    /// @dev The place of the highest bit of s < 2^160; 0 for 0.
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
    function _positive(uint256 x) private pure returns (uint256) {
        unchecked {
            return x * _bit(int256(x) > 0);
        }
    }

    function _bit(bool x) private pure returns (uint256 y) {
        assembly ("memory-safe") {
            y := x
        }
    }

    /// @dev g of a number without its sign; 254 of an infinity or NaN.
    function _scale(uint256 magnitude) private pure returns (uint256) {
        unchecked {
            return (magnitude >> DIGITS) - _bit(magnitude > 0x7FFFFF);
        }
    }

    /// @dev m of a finite number, from its g.
    function _significand(uint256 a, uint256 g) private pure returns (uint256) {
        unchecked {
            return (a & MAGNITUDE) - (g << DIGITS);
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
        if (a & MAGNITUDE != INFINITY) return b;
        return b & MAGNITUDE != INFINITY || a == b ? a : NAN;
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
        return a & MAGNITUDE == INFINITY || b & MAGNITUDE == 0 ? sign | INFINITY : sign;
    }
}
