// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IVerde} from "./interfaces/IVerde.sol";

/// @title Money
/// @notice The only place that moves money: a credit for each account, and its withdrawal. No verb of the game calls anybody's code.
abstract contract Vault is IVerde {
    /// @dev Burned wei are a credit of this account, of which nobody has the key.
    address internal constant BURN = 0x000000000000000000000000000000000000dEaD;

    /// @inheritdoc IVerde
    mapping(address account => uint256) public credit;

    /// @inheritdoc IVerde
    function withdraw(address account) external {
        uint256 amount = credit[account];
        if (amount == 0) revert NothingToWithdraw(account);
        // INVARIANT: the debt is gone before the account's code runs.
        credit[account] = 0;
        emit Withdrawn(account, amount);
        (bool ok,) = account.call{value: amount}("");
        if (!ok) revert TransferFailed(account);
    }

    /// @dev Owes `amount` wei to `account`; nothing happens for no wei.
    function _credit(address account, uint256 amount) internal {
        if (amount == 0) return;
        credit[account] += amount;
        emit Credited(account, amount);
    }
}
