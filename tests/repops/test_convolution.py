"""Convolution in a captured step: forward and both gradients against torch, and what is refused."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import repops
from repops.dtypes import DType
from repops.errors import UnsupportedOperators

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "3x3": (nn.Conv2d(3, 5, 3, padding=1), (2, 3, 6, 7)),
    "without bias": (nn.Conv2d(3, 5, 3, bias=False), (2, 3, 6, 7)),
    "stride and dilation": (nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(2, 1), dilation=(2, 1)), (2, 4, 9, 8)),
    "groups": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (1, 4, 5, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1), (2, 4, 5, 5)),
    "pointwise": (nn.Conv2d(4, 3, 1), (2, 4, 5, 5)),
    "patches": (nn.Conv2d(3, 8, 4, stride=4), (2, 3, 8, 12)),
    "same padding": (nn.Conv2d(3, 4, (4, 3), padding="same"), (2, 3, 6, 7)),
    "sequence": (nn.Conv1d(3, 5, 3, padding=1, stride=2), (2, 3, 11)),
    "grouped sequence": (nn.Conv1d(6, 6, 4, groups=3, dilation=2, padding=3), (2, 6, 11)),
    "one image": (nn.Conv2d(3, 5, 3, padding=1), (3, 6, 7)),
    "transposed": (nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), (2, 3, 5, 4)),
    "transposed groups": (nn.ConvTranspose2d(4, 6, (2, 3), groups=2, dilation=2), (2, 4, 5, 4)),
    "transposed sequence": (nn.ConvTranspose1d(3, 4, 5, stride=3), (2, 3, 7)),
}


@pytest.mark.filterwarnings("ignore:Using padding")
@pytest.mark.parametrize("name", LAYERS)
def test_a_training_through_a_layer(name: str) -> None:
    """Three steps with momentum: x's gradient goes through the layer into the one before."""
    torch.manual_seed(3)
    layer, shape = LAYERS[name]
    module = nn.Sequential(nn.Linear(shape[-1], shape[-1]), layer, nn.Tanh())
    target = torch.randn(module(torch.randn(shape)).shape)
    step, state, make_batch = repops.lift(
        module, F.mse_loss, optimizer=repops.SGD(momentum=0.9), schedule=repops.constant(0.5)
    )
    batches = [make_batch(torch.randn(shape), target, i) for i in range(3)]
    program = repops.capture(step, state, batches[0])
    assert {"conv2d", "conv2d_dx", "conv2d_dw"} <= {n.op for n in program.nodes}
    executor, values, eager = repops.Executor(program), state, state
    for batch in batches:
        values, eager = executor.run(values, batch), step(eager, batch)
    for slot in eager:
        np.testing.assert_allclose(values[slot], eager[slot].numpy(), rtol=2e-4, atol=2e-5, err_msg=slot)


def test_the_gradient_of_a_long_weight_is_cut_into_links() -> None:
    layer = nn.Conv2d(1, 2, 3, padding=1)
    step, state, make_batch = repops.lift(layer, F.mse_loss, optimizer=repops.SGD(), schedule=repops.constant(0.1))
    x = torch.randn(2, 1, 96, 97)
    batch = make_batch(x, torch.randn(2, 2, 96, 97), 0)
    program = repops.capture(step, state, batch)
    assert [n.params[-2:] for n in program.nodes if n.op == "conv2d_dw"] == [(0, 16_384), (16_384, 2 * 96 * 97)]
    new, eager = repops.Executor(program).run(state, batch), step(state, batch)
    np.testing.assert_allclose(new["weight"], eager["weight"].numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype: torch.dtype) -> None:
    """The bits of the f32 sum, rounded once: within one unit of torch's own."""
    torch.manual_seed(1)
    state = {"x": torch.randn(2, 4, 6, 6, dtype=dtype), "w": torch.randn(4, 4, 3, 3, dtype=dtype)}

    def step(s: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"x": F.conv2d(s["x"], s["w"], padding=1), "w": s["w"]}

    program = repops.capture(step, state, {})
    assert [(n.op, n.dtype) for n in program.nodes] == [("conv2d", DType.of(dtype))]
    out = torch.from_numpy(repops.Executor(program).run(state, {})["x"].view(np.int16)).view(dtype)
    exact = F.conv2d(state["x"].double(), state["w"].double(), padding=1)
    assert float(((out.double() - exact) / exact.abs().clamp_min(1)).abs().max()) < torch.finfo(dtype).eps


def test_volumes_are_refused() -> None:
    layer = nn.Conv3d(1, 1, 2)
    step, state, make_batch = repops.lift(layer, F.mse_loss, optimizer=repops.SGD(), schedule=repops.constant(0.1))
    x = torch.randn(1, 1, 3, 3, 3)
    with pytest.raises(UnsupportedOperators, match=r"convolution.default \(of rank 5\)"):
        repops.capture(step, state, make_batch(x, torch.randn(1, 1, 2, 2, 2), 0))


def test_output_padding_of_a_stride_is_refused() -> None:
    layer = nn.ConvTranspose2d(1, 1, 2, stride=1, dilation=3, output_padding=2)
    step, state, make_batch = repops.lift(layer, F.mse_loss, optimizer=repops.SGD(), schedule=repops.constant(0.1))
    x = torch.randn(1, 1, 3, 3)
    with pytest.raises(UnsupportedOperators, match="output padding of a stride or more"):
        repops.capture(step, state, make_batch(x, layer(x).detach(), 0))


def test_a_small_network_learns() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, groups=8, padding=1),
        nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(6 * 16, 3),
    )  # fmt: skip
    step, state, make_batch = repops.lift(
        module, F.cross_entropy, optimizer=repops.AdamW(), schedule=repops.constant(0.01)
    )
    x, y = torch.randn(12, 1, 8, 8), torch.arange(12) % 3
    program = repops.capture(step, state, make_batch(x, y, 0))
    executor, values, losses = repops.Executor(program), state, []
    for i in range(30):
        values = executor.run(values, make_batch(x, y, i))
        losses.append(float(values["loss"]))
    assert losses[-1] < 0.3 * losses[0]
    assert prod(values["5.weight"].shape) == 48
