"""`repops.compile(program)`: a program as a function of dicts of torch tensors or numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repops import settings
from repops.errors import TensorError
from repops.execute import Executor, Frozen
from repops.graph.ir import Program
from repops.tensors import array_of, is_torch, torch_of


class CompiledProgram:
    """A program, called: `f(state, batch) -> new state`, dicts by name; the kind of the tensors is kept.

    state, batch: exactly the program's tensors, torch (in CPU memory) or numpy, bf16 as uint16 in numpy; read where
    they lie. The new state is torch where the old one is. `slots`: the names of the state's tensors.
    """

    def __init__(self, executor: Executor | Frozen, threads: int | None, donate: bool) -> None:
        self.program = executor.program
        self.slots = executor.slots
        self._executor = executor
        self._threads = threads
        self._donate = donate

    def __call__(
        self, state: Mapping[str, Any], batch: Mapping[str, Any], *, donate: bool | None = None
    ) -> dict[str, Any]:
        """One step. donate: as in `compile`, for this call. Raises TensorError for a tensor that does not fit."""
        donate = self._donate if donate is None else donate
        if self._threads is None:
            self._executor.threads = settings.threads()
        states, batches = _arrays(state, "state"), _arrays(batch, "batch")
        for name, value in state.items():
            if donate and is_torch(value) and value.requires_grad:
                raise TensorError("it requires gradients", f"state tensor {name}", "Detach it, or donate=False")
        new = self._executor.run(states, batches, donate)
        if donate:
            return dict(state)
        return {name: torch_of(x) if is_torch(state[name]) else x for name, x in new.items()}

    def freeze(self, state: Mapping[str, Any]) -> CompiledProgram:
        """For inference: the same function with this state's values of the slots that the program does not change.

        Its calls take and give the other slots only (its `slots`): faster for few rows, same bits. It holds copies of
        the weights, packed for products, and reads nothing of `state` again: see `repops.Frozen`.
        Raises TensorError for a tensor that does not fit, and if the weights are frozen already.
        """
        if isinstance(self._executor, Frozen):
            raise TensorError("its weights are frozen already", "freeze", "Freeze the function that compile gave")
        return CompiledProgram(self._executor.freeze(_arrays(state, "state")), self._threads, self._donate)


def _arrays(tensors: Mapping[str, Any], what: str) -> dict[str, Any]:
    return {name: array_of(x, f"{what} tensor {name}") for name, x in tensors.items()}


def compile(
    program: Program, *, threads: int | None = None, isa: str | None = None, donate: bool = False
) -> CompiledProgram:
    """A function that runs the program's step; see `CompiledProgram`.

    threads, isa: None for those of `repops.set_threads` (at each call) and `repops.set_isa` (now). donate: the state's
    own tensors are updated in place and given back. None of them changes a bit of the result.
    Raises ProgramError if the program is not well formed, TensorError for an isa that this machine lacks or a number of
    threads below 1.
    """
    checked = None if threads is None else settings.checked_threads(threads, "compile")
    return CompiledProgram(Executor(program, checked or settings.threads(), isa or settings.isa()), checked, donate)
