// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.37;

import {IEvmReferee} from "../../contracts/interfaces/IEvmReferee.sol";
import {TrialBase} from "./Trials.t.sol";

/// @notice What each verb of a trial costs as a transaction (tests/contracts/snapshots/trials.json). The asker is not Verde: the ruling's way into a
/// match is not in these numbers.
/// forge-config: default.isolate = true
contract TrialGasTest is TrialBase {
    function _snapshotAll(string memory how) internal {
        string[10] memory names = [
            "begin",
            "open",
            "tiles, a move",
            "A's tile",
            "B's tile",
            "A's trace",
            "B's trace",
            "open the trace",
            "states, a move",
            "execute"
        ];
        uint256 total = 0;
        for (uint256 i = 0; i < 60; i++) {
            IEvmReferee.Stage stage = _trial().stage;
            if (stage == IEvmReferee.Stage.Done) break;
            _respond();
            total += vm.lastCallGas().gasTotalUsed;
            vm.snapshotGasLastCall("trials", string.concat(how, names[uint256(stage)]));
        }
        vm.snapshotValue("trials", string.concat(how, "in all"), total);
    }

    function test_GasOfATrial() public {
        for (uint256 k = 0; k < 2; k++) {
            _load(2); // 2^7 states, the dearest load
            vm.warp(START);
            oneShot = k == 1;
            (sideA, sideB) = (_honest(), _liar(c.value ^ 1, 60));
            _ask();
            _snapshotAll(k == 0 ? "interactive: " : "at once: ");
            setUp();
        }
    }
}
