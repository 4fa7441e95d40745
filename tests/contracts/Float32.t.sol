// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {Test} from "forge-std/Test.sol";
import {console2} from "forge-std/console2.sol";
import {Float32} from "../../contracts/libraries/Float32.sol";

/// @dev contracts/harness/Float32Calls.sol.
interface IFloat32Calls {
    function run(uint256 operation, uint256[] calldata cases) external view returns (uint256[] memory results);
}

/// @notice Float32 against tests/vectors/float32.json (scripts/check_float32.py), laws of arithmetic, and what it costs. More in docs/float32.md.
contract Float32Test is Test {
    uint256 internal constant ONE = 0x3F800000;
    uint256 internal constant SIGN = 0x80000000;

    IFloat32Calls internal calls = IFloat32Calls(deployCode("Float32Calls.sol:Float32Calls"));

    /// @dev In the order of Float32Calls.
    function _operations() internal pure returns (string[18] memory) {
        return [
            "add",
            "sub",
            "mul",
            "div",
            "sqrt",
            "fma",
            "eq",
            "lt",
            "le",
            "isNaN",
            "maximum",
            "minimum",
            "fromInt64",
            "toInt64",
            "widenF16",
            "widenBF16",
            "narrowF16",
            "narrowBF16"
        ];
    }

    // ---------------------------------------------------------------- Vectors and gas

    function test_Vectors() public view {
        string memory json = vm.readFile("tests/vectors/float32.json");
        string[18] memory operations = _operations();
        for (uint256 i = 0; i < operations.length; i++) {
            bytes memory records = vm.parseJsonBytes(json, string.concat(".", operations[i]));
            assertGt(records.length, 0);
            (uint256[] memory cases, uint256[] memory expected) = _unpack(records);
            uint256[] memory results = calls.run(i, cases);
            for (uint256 k = 0; k < cases.length; k++) {
                if (results[k] >> 64 == expected[k]) continue;
                console2.log(operations[i]);
                console2.logBytes32(bytes32(cases[k]));
                assertEq(results[k] >> 64, expected[k]);
            }
        }
    }

    function _unpack(bytes memory records) internal pure returns (uint256[] memory cases, uint256[] memory expected) {
        cases = new uint256[](records.length / 20);
        expected = new uint256[](cases.length);
        for (uint256 k = 0; k < cases.length; k++) {
            uint256 word;
            assembly ("memory-safe") {
                word := shr(96, mload(add(add(records, 32), mul(20, k))))
            }
            cases[k] = word >> 64;
            expected[k] = word & type(uint64).max;
        }
    }

    /// Gas of an operation alone, without the call around it: median over random finite operands, most over the vectors.
    function test_Gas() public {
        string memory json = vm.readFile("tests/vectors/float32.json");
        string[18] memory operations = _operations();
        for (uint256 i = 0; i < operations.length; i++) {
            uint256[] memory gas = vm.sort(_gas(i, _finite(i)));
            uint256 median = gas[gas.length / 2];
            (uint256[] memory cases,) = _unpack(vm.parseJsonBytes(json, string.concat(".", operations[i])));
            gas = vm.sort(_gas(i, cases));
            uint256 most = gas[gas.length - 1];
            console2.log(operations[i], median, most);
            vm.snapshotValue("float32", operations[i], median);
            vm.snapshotValue("float32", string.concat(operations[i], ", most"), most);
            assertLe(median, 1_000);
            assertLe(most, 1_200);
        }
    }

    function _gas(uint256 operation, uint256[] memory cases) internal view returns (uint256[] memory gas) {
        gas = calls.run(operation, cases);
        for (uint256 k = 0; k < gas.length; k++) {
            gas[k] &= type(uint64).max;
        }
    }

    /// @dev 1,001 cases: any finite patterns; in every second one their exponents are near 1's, as in a program that learns.
    function _finite(uint256 operation) internal pure returns (uint256[] memory cases) {
        cases = new uint256[](1_001);
        for (uint256 k = 0; k < cases.length; k++) {
            uint256 random = uint256(keccak256(abi.encode(operation, k)));
            for (uint256 j = 0; j < 3; j++) {
                uint256 exponent = k % 2 == 0 ? (random >> (96 + 8 * j)) % 255 : 119 + (random >> (96 + 8 * j)) % 16;
                cases[k] = (cases[k] << 32) | ((random >> (32 * j)) & 0x807FFFFF) | (exponent << 23);
            }
        }
    }

    // ---------------------------------------------------------------- Laws

    function testFuzz_AddAndMulCommute(uint32 a, uint32 b, uint32 c) public pure {
        assertEq(Float32.add(a, b), Float32.add(b, a));
        assertEq(Float32.mul(a, b), Float32.mul(b, a));
        assertEq(Float32.fma(a, b, c), Float32.fma(b, a, c));
    }

    function testFuzz_Neutral(uint32 a) public pure {
        uint256 same = Float32.isNaN(a) ? Float32.NAN : a;
        assertEq(Float32.mul(a, ONE), same);
        assertEq(Float32.div(a, ONE), same);
        assertEq(Float32.add(a, SIGN), same);
        assertEq(Float32.sub(a, 0), same);
        assertEq(Float32.fma(a, ONE, SIGN), same);
    }

    function testFuzz_SubAddsTheNegative(uint32 a, uint32 b) public pure {
        assertEq(Float32.sub(a, b), Float32.add(a, b ^ SIGN));
        if (Float32.lt(a, b) || Float32.lt(b, a)) assertEq(Float32.sub(a, b), Float32.sub(b, a) ^ SIGN);
    }

    function testFuzz_FmaOfOneIsAdd(uint32 a, uint32 c) public pure {
        assertEq(Float32.fma(a, ONE, c), Float32.add(a, c));
    }

    function testFuzz_FmaOfMinusZeroIsMul(uint32 a, uint32 b) public pure {
        assertEq(Float32.fma(a, b, SIGN), Float32.mul(a, b));
    }

    /// What a product loses is exactly fma(a, b, -(a * b)), far from the edges of the range.
    function testFuzz_FmaGivesTheErrorOfAProduct(uint32 a, uint32 b) public pure {
        a = (a & 0x807FFFFF) | ((64 + ((a >> 23) & 127)) << 23);
        b = (b & 0x807FFFFF) | ((96 + ((b >> 23) & 63)) << 23);
        uint256 product = Float32.mul(a, b);
        uint256 lost = Float32.fma(a, b, product ^ SIGN);
        assertEq(Float32.fma(a, b, lost ^ SIGN), product);
        assertEq(Float32.add(product, lost), product);
    }

    function testFuzz_DoubleIsTwice(uint32 a) public pure {
        assertEq(Float32.add(a, a), Float32.mul(a, 0x40000000));
        assertEq(Float32.div(a, 0x40000000), Float32.mul(a, 0x3F000000));
    }

    function testFuzz_QuotientOfAProduct(uint16 m, uint8 n) public pure {
        uint256 a = Float32.fromInt64(int64(uint64(m) * (n | 1)));
        assertEq(Float32.div(a, Float32.fromInt64(int64(uint64(n | 1)))), Float32.fromInt64(int64(uint64(m))));
    }

    function testFuzz_RootOfASquare(uint32 a) public pure {
        uint256 root = Float32.fromInt64(int64(uint64(a & 0xFFF)));
        assertEq(Float32.sqrt(Float32.mul(root, root)), root);
    }

    /// sqrt(a) lies within half a unit of the root: squared, in integers.
    function testFuzz_RootIsNearest(uint32 a) public pure {
        a = (a & 0x7FFFFF) | ((64 + (a >> 25)) << 23);
        uint256 root = Float32.sqrt(a);
        uint256 halves = 2 * ((root & 0x7FFFFF) | 0x800000);
        uint256 square = ((uint256(a) & 0x7FFFFF) | 0x800000) << (152 + (a >> 23) - 2 * (root >> 23));
        assertLe((halves - 1) * (halves - 1), square);
        assertGe((halves + 1) * (halves + 1), square);
    }

    function testFuzz_Order(uint32 a, uint32 b) public pure {
        bool ordered = !Float32.isNaN(a) && !Float32.isNaN(b);
        uint256 holds = (Float32.lt(a, b) ? 1 : 0) + (Float32.eq(a, b) ? 1 : 0) + (Float32.lt(b, a) ? 1 : 0);
        assertEq(holds, ordered ? 1 : 0);
        assertEq(Float32.le(a, b), Float32.lt(a, b) || Float32.eq(a, b));
        if (!ordered) return;
        uint256 high = Float32.maximum(a, b);
        uint256 low = Float32.minimum(a, b);
        assertTrue(Float32.le(low, a) && Float32.le(low, b) && Float32.le(a, high) && Float32.le(b, high));
        assertEq(low ^ high, a ^ b);
    }

    function testFuzz_IntegersGoThrough(int24 x) public pure {
        assertEq(Float32.toInt64(Float32.fromInt64(x)), x);
        assertEq(Float32.toInt64(Float32.fromInt64(int64(x) << 40)), int64(x) << 40);
    }

    function testFuzz_NarrowUndoesWiden(uint16 h) public pure {
        uint256 wide = Float32.widenF16(h);
        assertEq(Float32.narrowF16(wide), Float32.isNaN(wide) ? 0x7E00 : h);
        wide = Float32.widenBF16(h);
        assertEq(Float32.narrowBF16(wide), Float32.isNaN(wide) ? 0x7FC0 : h);
    }
}
