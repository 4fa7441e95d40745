"""Lifts a PyTorch module into a pure training step over a dict of slots."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from repops.callable import CallableModule
from repops.capture.random import SEED, STEP
from repops.capture.trace import Step
from repops.errors import CaptureError
from repops.optim import Optimizer, Schedule

Tensors = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
MakeBatch = Callable[[Tensor, Tensor, int], Tensors]
MakeNamedBatch = Callable[[Mapping[str, Tensor], int], Tensors]

LOSS = "loss"
_INPUT, _TARGET, _OUTPUT = "x", "y", "output"


@overload
def lift(
    module: nn.Module, loss: Loss, *, optimizer: Optimizer, schedule: Schedule, seed: int | None = None
) -> tuple[Step, Tensors, MakeBatch]: ...


@overload
def lift(
    module: nn.Module, loss: None = None, *, optimizer: Optimizer, schedule: Schedule, seed: int | None = None
) -> tuple[Step, Tensors, MakeNamedBatch]: ...


def lift(
    module: nn.Module, loss: Loss | None = None, *, optimizer: Optimizer, schedule: Schedule, seed: int | None = None
) -> tuple[Step, Tensors, Any]:
    """A module, its loss, an optimizer and a learning-rate schedule as (step, initial state, make_batch).

    The state's slots: the parameters and the buffers under their own names (a tied weight once), the optimizer's
    moments, and the 0-d slot "loss". `step(state, batch)` computes the loss, its gradients and the update.

    With a loss function the loss is loss(module(x), y), and `make_batch(x, y, index)` is the batch of the step with
    that index (from 0). Without one the module computes it, as those of `transformers` do from their labels: the loss
    is the field "loss" of module(**inputs), and the batch is `make_batch(inputs, index)`, inputs being tensors by
    keyword. Besides its inputs a batch holds the optimizer's scalars as 0-d f32 tensors, computed in float64.

    seed: of the dropout masks; the batch then holds it and the step's index as 0-d i64 tensors "dropout.seed" and
    "dropout.step". Default: 0 if the module has a dropout layer in train mode, else there are none. Give it where
    dropout is not a layer of its own (a probability passed to attention).

    Frozen parameters (requires_grad False) are slots that do not change. The module is not modified; its train or eval
    mode is the step's.
    Raises CaptureError if the module has nothing to train, a slot is named twice, or the module gives no loss.
    """
    named = dict(module.named_parameters())
    trained = [name for name, parameter in named.items() if parameter.requires_grad]
    if not trained:
        raise CaptureError(
            "it has no parameter that requires a gradient", "module", "Give it one, or write the step yourself"
        )
    parameters = {name: parameter.detach().clone() for name, parameter in named.items()}
    buffers = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
    moments = optimizer.slots({name: parameters[name] for name in trained})
    state = _joined(parameters, buffers, moments, {LOSS: torch.zeros(())})
    if seed is None and any(_drops(m) for m in module.modules()):
        seed = 0

    def scalars(index: int) -> Tensors:
        numbers = {
            name: torch.tensor(number, dtype=torch.float64).to(torch.float32)
            for name, number in optimizer.scalars(index, float(schedule(index))).items()
        }
        random = {} if seed is None else {SEED: torch.tensor(seed), STEP: torch.tensor(index)}
        return _joined(numbers, random)

    not_inputs = set(scalars(0))

    def loss_of(tensors: Tensors, batch: Tensors) -> Tensor:
        if loss is not None:
            return loss(torch.func.functional_call(module, tensors, (batch[_INPUT],)), batch[_TARGET])
        inputs = {name: tensor for name, tensor in batch.items() if name not in not_inputs}
        return _own_loss(torch.func.functional_call(module, tensors, (), inputs))

    def step(state: Tensors, batch: Tensors) -> Tensors:
        weights = {name: state[name].detach().requires_grad_(name in trained) for name in parameters}
        # Clones, because a module may update its buffers in place; what they hold afterwards is their new value.
        kept = {name: state[name].clone() for name in buffers}
        value = loss_of({**weights, **kept}, batch)
        gradients = torch.autograd.grad(value, [weights[name] for name in trained], materialize_grads=True)
        old = {name: state[name] for name in trained}
        new, updated = optimizer.update(
            old, dict(zip(trained, gradients, strict=True)), {name: state[name] for name in moments}, batch
        )
        frozen = {name: state[name] for name in parameters if name not in new}
        after = {name: tensor.detach() for name, tensor in kept.items()}
        return {**frozen, **new, **after, **updated, LOSS: value.detach()}

    def make_batch(x: Tensor, y: Tensor, index: int) -> Tensors:
        return _joined({_INPUT: x, _TARGET: y}, scalars(index))

    def make_named_batch(inputs: Mapping[str, Tensor], index: int) -> Tensors:
        return _joined(inputs, scalars(index))

    return step, state, make_batch if loss is not None else make_named_batch


def lift_forward(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str] = ()) -> tuple[Step, Tensors]:
    """A module's forward pass as (step, initial state), for inference: the batch is its inputs by keyword.

    inputs: an example, for the shapes. outputs: the fields of the module's output to keep, each a slot of its own name;
    if it names none the output is one tensor, the slot "output". The other slots are the parameters and the buffers.
    The module is not modified; its train or eval mode is the step's.
    Raises CaptureError if an output is no tensor, or a slot is named twice.
    """
    parameters = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    buffers = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}

    def step(state: Tensors, batch: Tensors) -> Tensors:
        weights = {name: state[name] for name in parameters}
        kept = {name: state[name].clone() for name in buffers}
        with torch.no_grad():
            result = torch.func.functional_call(module, {**weights, **kept}, (), dict(batch))
        found = {name: _field(result, name) for name in outputs} if outputs else {_OUTPUT: result}
        for name, tensor in found.items():
            if not isinstance(tensor, Tensor):
                raise CaptureError(f"it is {type(tensor).__name__}", f"output {name}", "Name outputs that are tensors")
        return _joined(weights, kept, found)

    after = step({**parameters, **buffers}, dict(inputs))
    results = {name: torch.zeros_like(after[name]) for name in outputs or (_OUTPUT,)}
    return step, _joined(parameters, buffers, results)


def _field(output: Any, name: str) -> Any:
    """A field of a module's output, an object or a mapping; None if there is none."""
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


def _own_loss(output: Any) -> Tensor:
    value = _field(output, LOSS)
    if not isinstance(value, Tensor) or value.dim():
        raise CaptureError(
            "its output has no 0-d tensor `loss`", "module", "Pass it what it computes a loss from (labels), or a loss"
        )
    return value


def _drops(module: nn.Module) -> bool:
    """Whether a module is dropout that draws numbers."""
    p = getattr(module, "p", getattr(module, "dropout", 0.0))
    return module.training and isinstance(p, float) and p > 0


def _joined(*groups: Mapping[str, Tensor]) -> Tensors:
    joined: Tensors = {}
    for group in groups:
        for name, tensor in group.items():
            if name in joined:
                raise CaptureError("this name stands for two tensors", name, "Rename the module's attribute")
            joined[name] = tensor
    return joined


sys.modules[__name__].__class__ = CallableModule
