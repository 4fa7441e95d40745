"""One endpoint of one chain: the chain id is checked, and whatever goes wrong on the way becomes a typed error.

Endpoints are named in messages by scheme, host and port only: paths, queries and user names of RPC URLs are keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from eth_abi.exceptions import DecodingError
from requests.exceptions import RequestException
from web3 import HTTPProvider, Web3
from web3.exceptions import ContractLogicError, Web3Exception, Web3RPCError
from web3.providers.base import BaseProvider

from node.errors import ConfigError, RpcUnavailable, WrongChain

T = TypeVar("T")


class RpcRefused(RpcUnavailable):
    """The endpoint answered with a JSON-RPC error. `message` is its text."""

    def __init__(self, message: str, *, where: str) -> None:
        self.message = message
        super().__init__(f"the endpoint refused: {message}", where=where)


class Reverted(Exception):
    """A call reverted on the chain; `data` is the revert data (empty if the endpoint gave none). Not for people: the
    sender turns it into TxReverted."""

    def __init__(self, message: str, data: bytes) -> None:
        self.data = data
        super().__init__(message)


class Rpc:
    """A web3 behind which every failure is a RpcUnavailable, a RpcRefused or a Reverted.

    `provider` is an http(s) URL or a web3 provider. The chain id is asked once, at construction: WrongChain names
    both ids, RpcUnavailable the endpoint, ConfigError an URL that is none.
    """

    def __init__(self, provider: str | BaseProvider, chain_id: int) -> None:
        self.chain_id = chain_id
        if isinstance(provider, str):
            self.name = redact(provider)
            provider = HTTPProvider(provider)
        else:
            self.name = redact(str(getattr(provider, "endpoint_uri", None) or type(provider).__name__))
        self.w3 = Web3(provider)
        actual = self.ask("eth_chainId", lambda: self.w3.eth.chain_id, int)
        if actual != chain_id:
            raise WrongChain(chain_id, actual, where=self.name)

    def ask(self, what: str, request: Callable[[], T], kind: type = object) -> T:
        """The answer of `request`, a few lines of web3, which must be a `kind`. `what` names the method in messages."""
        where = f"{self.name}, {what}"
        try:
            answer = request()
        except ContractLogicError as error:
            raise Reverted(str(error), revert_data(error)) from error
        except Web3RPCError as error:
            data = revert_data(error)
            if data:
                raise Reverted(str(error), data) from error
            raise RpcRefused(_rpc_message(error), where=where) from error
        # The causes below hold the endpoint's whole URL or answer: not chained, so that no traceback shows a key.
        except (Web3Exception, RequestException, OSError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            what_came = f"HTTP status {status}" if status is not None else type(error).__name__
            raise RpcUnavailable(
                f"no answer ({what_came})", where=where, cure="Check the endpoint and the network"
            ) from None
        except (DecodingError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RpcUnavailable(
                f"a malformed answer ({type(error).__name__})", where=where, cure="Use another endpoint"
            ) from None
        if answer is None or not isinstance(answer, kind):
            raise RpcUnavailable(
                f"a malformed answer ({type(answer).__name__})", where=where, cure="Use another endpoint"
            )
        return answer


def redact(uri: str) -> str:
    """The URI without what may be secret: scheme, host and port only."""
    try:
        parts = urlsplit(uri)
        if not parts.scheme or not parts.hostname:
            if "/" in uri or "@" in uri or "?" in uri:
                raise ConfigError("not an RPC endpoint", cure="Give an URL like https://host:port/path")
            return uri
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    except ValueError as error:
        raise ConfigError("not an RPC endpoint", cure="Give an URL like https://host:port/path") from error


def revert_data(error: Web3Exception) -> bytes:
    """The revert data in an error of web3, empty if there is none. Endpoints put it in different places."""
    data: Any = getattr(error, "data", None)
    response = getattr(error, "rpc_response", None)
    if not data and isinstance(response, dict) and isinstance(response.get("error"), dict):
        data = response["error"].get("data")
    if isinstance(data, dict):
        data = data.get("data") or data.get("result")
    if not isinstance(data, str):
        return b""
    text = data.removeprefix("Reverted ").removeprefix("0x")
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _rpc_message(error: Web3RPCError) -> str:
    response = error.rpc_response
    if isinstance(response, dict):
        inner = response.get("error")
        if isinstance(inner, dict) and isinstance(inner.get("message"), str):
            return inner["message"]
    return str(error)
