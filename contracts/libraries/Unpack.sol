// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

/// @title Views of packed structs
/// @notice Returns a stored struct from its fields' widths, by the compiler's own rule: fields fill a slot from its low end, one that does not
/// fit starts the next slot. Generated getters of structs with forty fields would take a tenth of the contract's size limit.
library Unpack {
    /// @notice Ends the call and returns the struct at `slot`, one word for each field.
    /// @dev Only for structs of value types, in functions that return nothing but the struct.
    /// @param slot First slot of the struct.
    /// @param widths Bytes of each field, in order.
    function returnStruct(uint256 slot, bytes memory widths) internal view {
        assembly ("memory-safe") {
            let out := mload(0x40)
            let count := mload(widths)
            let word := sload(slot)
            let offset := 0
            for { let i := 0 } lt(i, count) { i := add(i, 1) } {
                let width := byte(0, mload(add(add(widths, 0x20), i)))
                if gt(add(offset, width), 32) {
                    slot := add(slot, 1)
                    word := sload(slot)
                    offset := 0
                }
                // For a whole slot the shift gives 0 and the mask all ones.
                let mask := sub(shl(shl(3, width), 1), 1)
                mstore(add(out, shl(5, i)), and(shr(shl(3, offset), word), mask))
                offset := add(offset, width)
            }
            return(out, shl(5, count))
        }
    }
}
