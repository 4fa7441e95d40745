"""The RPC behind the node: chain id, failures and malformed answers become typed errors; bindings and error names."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest
import requests
from conftest import Deployed
from web3.providers.base import BaseProvider

from node.chain.abi import artifact, check_fields, snake
from node.chain.committee import encode_config
from node.chain.contracts import Verde, explain
from node.chain.rpc import Reverted, Rpc, RpcRefused, redact
from node.errors import ChainError, ConfigError, RpcUnavailable, VerdeError, WrongChain
from node.structs import NOBODY, Participant

SECRET = "4f0c8e-a-key"


class FaultyProvider(BaseProvider):
    """Passes requests on to another provider, except where a fault is planned."""

    def __init__(self, inner: BaseProvider) -> None:
        super().__init__()
        self.inner = inner
        self.endpoint_uri = f"https://user:{SECRET}@rpc.example:8545/v2/{SECRET}?key={SECRET}"
        self.faults: dict[str, Callable[[Any], Any]] = {}

    def make_request(self, method: Any, params: Any) -> Any:
        fault = self.faults.get(method)
        return self.inner.make_request(method, params) if fault is None else fault(params)


def answer(value: Any) -> Callable[[Any], Any]:
    return lambda params: {"jsonrpc": "2.0", "id": 1, "result": value}


def refuse(code: int, message: Any) -> Callable[[Any], Any]:
    return lambda params: {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}}


def crash(error: Exception) -> Callable[[Any], Any]:
    def fail(params: Any) -> Any:
        raise error

    return fail


@pytest.fixture
def faulty(deployed: Deployed) -> FaultyProvider:
    return FaultyProvider(deployed.devnet.provider)


def test_the_wrong_chain_names_both_ids(deployed: Deployed) -> None:
    with pytest.raises(WrongChain) as caught:
        Rpc(deployed.devnet.provider, 1)
    assert (caught.value.expected, caught.value.actual) == (1, deployed.devnet.chain_id)
    assert "31337" in str(caught.value)
    assert "expected 1" in str(caught.value)
    assert caught.value.exit_code == 3


FAULTS = [
    crash(requests.exceptions.ConnectionError(f"https://rpc.example/{SECRET}")),
    crash(requests.exceptions.ReadTimeout(SECRET)),
    crash(ConnectionResetError()),
    refuse(-32005, "too many requests"),
    refuse(-32000, None),
    answer(None),
    answer("not hex"),
    answer([1, 2]),
    answer({"chain": 1}),
    lambda params: {"jsonrpc": "2.0", "id": 1},
    lambda params: {"jsonrpc": "2.0", "id": 1, "error": "a string"},
    lambda params: "not even an object",
    lambda params: None,
    lambda params: [],
]


@pytest.mark.parametrize("fault", FAULTS)
def test_an_endpoint_that_fails_is_named_without_its_secrets(faulty: FaultyProvider, fault: Any) -> None:
    faulty.faults["eth_chainId"] = fault
    with pytest.raises(RpcUnavailable) as caught:
        Rpc(faulty, 31_337)
    assert "https://rpc.example:8545" in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("fault", FAULTS)
def test_views_over_a_failing_endpoint(deployed: Deployed, faulty: FaultyProvider, fault: Any) -> None:
    verde = Verde(Rpc(faulty, deployed.devnet.chain_id), deployed.verde.address)
    faulty.faults["eth_call"] = fault
    with pytest.raises(ChainError) as caught:
        verde.task_count()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("data", ["0x", "0x00", "0x" + "ff" * 32 * 3, "0x" + "00" * 31 * 40])
def test_a_view_that_does_not_fit_the_abi(deployed: Deployed, faulty: FaultyProvider, data: str) -> None:
    verde = Verde(Rpc(faulty, deployed.devnet.chain_id), deployed.verde.address)
    faulty.faults["eth_call"] = answer(data)
    with pytest.raises(ChainError):
        verde.get_task(1)


def test_an_error_of_the_endpoint_keeps_its_message(faulty: FaultyProvider, deployed: Deployed) -> None:
    rpc = Rpc(faulty, deployed.devnet.chain_id)
    faulty.faults["eth_blockNumber"] = refuse(-32005, "slow down")
    with pytest.raises(RpcRefused, match="slow down"):
        rpc.ask("eth_blockNumber", lambda: rpc.w3.eth.block_number)


@pytest.mark.parametrize(
    "error",
    [
        {"code": 3, "message": "execution reverted", "data": "0x01020304"},
        {"code": -32000, "message": "execution reverted", "data": "Reverted 0x01020304"},
        {"code": -32015, "message": "VM execution error.", "data": "0x01020304"},
    ],
)
def test_revert_data_is_found_wherever_an_endpoint_puts_it(
    faulty: FaultyProvider, deployed: Deployed, error: dict[str, Any]
) -> None:
    rpc = Rpc(faulty, deployed.devnet.chain_id)
    faulty.faults["eth_call"] = lambda params: {"jsonrpc": "2.0", "id": 1, "error": error}
    with pytest.raises(Reverted) as caught:
        rpc.ask("eth_call", lambda: rpc.w3.eth.call({"to": deployed.verde.address}))
    assert caught.value.data == bytes.fromhex("01020304")


@pytest.mark.parametrize("address", ["", "0x12", "verde.eth", "0x" + "z" * 40, None])
def test_an_address_that_is_none(deployed: Deployed, address: Any) -> None:
    with pytest.raises(ConfigError, match="no address"):
        Verde(deployed.rpc, address)


def test_an_address_without_a_contract(deployed: Deployed) -> None:
    with pytest.raises(ConfigError, match="no contract"):
        Verde(deployed.rpc, NOBODY)


@pytest.mark.parametrize("uri", ["https://", "a/b", "http://[::1", "user@host"])
def test_an_endpoint_that_is_no_url(uri: str) -> None:
    with pytest.raises(ConfigError):
        redact(uri)


def test_every_custom_error_is_known_by_name() -> None:
    entries = [e for name in ("Verde", "CommitteeReferee") for e in artifact(name).abi if e["type"] == "error"]
    assert len(entries) > 30
    deployed = explain("pair", bytes.fromhex("4e487b71") + (0x11).to_bytes(32, "big"))
    assert (deployed.error, deployed.arguments) == ("Panic", {"code": 0x11})
    unknown = explain("pair", b"\x00\x01\x02\x03\x04")
    assert unknown.error == ""
    assert "0x0001020304" in str(unknown)


def test_names_become_snake_case() -> None:
    assert [snake(name) for name in ("taskId", "nodeA", "m", "holdbackBps", "claimIdOf")] == [
        "task_id",
        "node_a",
        "m",
        "holdback_bps",
        "claim_id_of",
    ]


def test_a_struct_that_drifts_from_the_abi_is_refused() -> None:
    entry = next(e for e in artifact("Verde").abi if e.get("name") == "getParticipant")
    components = entry["outputs"][0]["components"]
    check_fields(Participant, components, "getParticipant")
    with pytest.raises(ConfigError, match="getParticipant"):
        check_fields(Participant, components[1:], "getParticipant")
    with pytest.raises(ConfigError, match="order"):
        check_fields(Participant, [components[1], components[0], *components[2:]], "getParticipant")


def test_a_missing_artifact_says_how_to_make_it() -> None:
    with pytest.raises(ConfigError, match="build_contracts"):
        artifact("Nothing")


@pytest.mark.parametrize(
    ("threshold", "members"),
    [(0, 3), (1, 2), (1, 3), (4, 3), (1, 0), (17, 33)],
)
def test_a_committee_without_a_majority_is_refused(threshold: int, members: int) -> None:
    with pytest.raises(VerdeError):
        encode_config(threshold, [f"0x{i + 1:040x}" for i in range(members)])


def test_a_committee_of_doubles_or_nobody_is_refused() -> None:
    with pytest.raises(ConfigError):
        encode_config(2, [f"0x{1:040x}"] * 2)
    with pytest.raises(ConfigError, match="zero"):
        encode_config(1, [NOBODY])
