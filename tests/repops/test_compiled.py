"""`repops.compile(program)`: a program as a function of dicts, its memory, its refusals, many threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from programs import sgd_program, sgd_tensors
from torch import Tensor

import repops
from repops import _kernels
from repops.graph.ir import Ref

Tensors = dict[str, Any]


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    threads = repops.threads()
    yield
    repops.set_threads(threads)
    repops.set_isa(None)


def in_torch(tensors: Tensors) -> Tensors:
    return {name: torch.from_numpy(np.array(x)) for name, x in tensors.items()}


def bits(tensors: Tensors) -> dict[str, bytes]:
    return {name: np.asarray(x).tobytes() for name, x in tensors.items()}


def expected() -> dict[str, bytes]:
    return bits(repops.Executor(sgd_program()).run(*sgd_tensors()))


@pytest.mark.parametrize("kind", [dict, in_torch])
def test_the_kind_of_each_tensor_is_kept_and_the_old_state_too(kind: Callable[[Tensors], Tensors]) -> None:
    state, batch = (kind(tensors) for tensors in sgd_tensors())
    before = bits(state)
    new = repops.compile(sgd_program())(state, batch)
    assert bits(new) == expected() and bits(state) == before
    assert list(new) == list(state)
    for name, value in new.items():
        assert type(value) is type(state[name]) and value.dtype == state[name].dtype
        assert not np.may_share_memory(np.asarray(value), np.asarray(state[name]))


def test_kinds_may_be_mixed() -> None:
    state, batch = sgd_tensors()
    state["weight"] = torch.from_numpy(state["weight"])
    new = repops.compile(sgd_program())(state, in_torch(batch))
    assert isinstance(new["weight"], Tensor) and isinstance(new["last"], np.ndarray) and bits(new) == expected()


@pytest.mark.parametrize("kind", [dict, in_torch])
def test_donation_updates_the_states_own_tensors(kind: Callable[[Tensors], Tensors]) -> None:
    state, batch = (kind(tensors) for tensors in sgd_tensors())
    function = repops.compile(sgd_program(), donate=True)
    new = function(state, batch)
    assert all(new[name] is state[name] for name in state)
    assert bits(state) == expected()
    second = function(new, batch, donate=False)
    assert bits(new) == expected() and bits(second) != expected()
    assert all(second[name] is not state[name] for name in state)


def test_bf16_tensors_of_torch_come_back_as_bf16() -> None:
    state = {"p": torch.linspace(-2, 2, 12).bfloat16().view(3, 4)}
    program = repops.capture(lambda s, b: {"p": s["p"] * 3 + b["x"]}, state, {"x": torch.ones(4).bfloat16()})
    new = repops.compile(program)(state, {"x": torch.ones(4).bfloat16()})
    assert new["p"].dtype is torch.bfloat16
    torch.testing.assert_close(new["p"], state["p"] * 3 + 1, rtol=2**-7, atol=2**-7)
    patterns = repops.compile(program)(
        {"p": state["p"].view(torch.int16).numpy().view(np.uint16)}, {"x": np.full(4, 0x3F80, np.uint16)}
    )
    assert patterns["p"].tobytes() == new["p"].view(torch.int16).numpy().tobytes()


def test_repeated_calls_and_every_setting_give_the_same_bits() -> None:
    for isa in (None, *_kernels.isas()):
        for threads in (None, 1, 3):
            function = repops.compile(sgd_program(), threads=threads, isa=isa)
            assert all(bits(function(*sgd_tensors())) == expected() for _ in range(3))
    function = repops.compile(sgd_program())
    for count in (1, 2, 5):
        repops.set_threads(count)
        assert bits(function(*sgd_tensors())) == expected()


def test_views_are_read_in_their_logical_order() -> None:
    state, batch = sgd_tensors()
    state["weight"] = np.asfortranarray(state["weight"])
    batch["x"] = np.repeat(batch["x"], 2, axis=1)[:, ::2]
    assert bits(repops.compile(sgd_program())(state, batch)) == expected()
    turned = in_torch(state) | {"weight": torch.from_numpy(state["weight"].T.copy()).T}
    assert bits(repops.compile(sgd_program())(turned, in_torch(batch))) == expected()


def test_one_function_called_from_many_threads() -> None:
    function = repops.compile(sgd_program(), threads=2)
    state, batch = sgd_tensors()
    scaled = [{**batch, "lr": np.array(i / 8, np.float32)} for i in range(8)]
    alone = [bits(function(state, b)) for b in scaled]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert [bits(x) for x in pool.map(lambda b: function(state, b), scaled)] == alone


def refused(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(repops.TensorError, match=text) as caught:
        call()
    assert caught.value.what and caught.value.where and caught.value.cure


def test_tensors_that_do_not_fit_are_refused_and_nothing_is_written() -> None:
    function = repops.compile(sgd_program(), donate=True)

    def wrong(text: str, **changes: Any) -> None:
        state, batch = sgd_tensors()
        before = bits(state)
        changed = [{k: changes.get(k, v) for k, v in tensors.items()} for tensors in (state, batch)]
        refused(lambda: function(*changed), text)
        assert bits(state) == before

    wrong("weight: dtype is int64", weight=np.zeros((4, 3), np.int64))
    wrong("weight: dtype float64", weight=np.zeros((4, 3)))
    wrong("float64", weight=torch.zeros(4, 3, dtype=torch.float64))
    wrong(r"weight: shape is \[3, 4\]", weight=np.zeros((3, 4), np.float32))
    wrong(r"x: shape is \[2, 4, 1\]", x=np.zeros((2, 4, 1), np.float32))
    wrong(r"x: shape is \[0, 4\]", x=torch.zeros(0, 4))
    wrong("x: list is no tensor", x=[1.0])
    wrong("weight: a meta tensor", weight=torch.zeros(4, 3, device="meta"))
    wrong("weight: it requires gradients", weight=torch.zeros(4, 3, requires_grad=True))
    wrong("weight: cannot be updated in place", weight=np.zeros((3, 4), np.float32).T)
    constant = np.zeros((4, 3), np.float32)
    constant.flags.writeable = False
    wrong("weight: cannot be updated in place", weight=constant)
    shared = np.zeros(14, np.float32)
    wrong("shares memory", weight=shared[:12].reshape(4, 3), last=shared[11:])
    state, batch = sgd_tensors()
    refused(lambda: function({k: v for k, v in state.items() if k != "count"}, batch), "without count")
    refused(lambda: function(state, batch | {"z": batch["x"]}), "unknown z")
    assert repops.compile(sgd_program())({**state, "weight": torch.zeros(4, 3, requires_grad=True)}, batch)


def test_programs_and_settings_that_do_not_fit_are_refused() -> None:
    program = sgd_program()
    broken = replace(program, slots=(replace(program.slots[0], update=Ref.node(9)), *program.slots[1:]))
    with pytest.raises(repops.ProgramError, match="slot 0"):
        repops.compile(broken)
    refused(lambda: repops.compile(program, isa="z80"), "z80")
    for threads in (0, -1, 1.5, True, "2"):
        refused(lambda threads=threads: repops.compile(program, threads=threads), "threads")
