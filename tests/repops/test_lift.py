"""Lifting a module: the slots, the batch, and that a lifted step trains as eager torch does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from programs import Transformer, mlp
from torch import Tensor, nn

import repops
from repops.errors import CaptureError


class Scaled(nn.Module):
    """A trained layer, a frozen one, a buffer that the forward pass changes, and one that it only reads."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.frozen = nn.Linear(3, 4), nn.Linear(4, 2)
        self.frozen.requires_grad_(False)
        self.register_buffer("average", torch.zeros(4))
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        with torch.no_grad():
            self.average.mul_(0.9).add_(0.1 * h.mean(0))
        return self.frozen(h * self.scale)


def test_slots_and_batch() -> None:
    torch.manual_seed(4)
    module = Scaled()
    step, state, make_batch = repops.lift(
        module, F.mse_loss, optimizer=repops.SGD(momentum=0.9), schedule=lambda index: 0.1 / (index + 1)
    )
    trained = ["layer.weight", "layer.bias"]
    names = [*trained, "frozen.weight", "frozen.bias", "average", "scale", *(f"momentum/{n}" for n in trained), "loss"]
    assert list(state) == names and state["loss"].shape == ()
    batch = make_batch(torch.randn(5, 3), torch.randn(5, 2), 2)
    assert list(batch) == ["x", "y", "lr"] and batch["lr"].dtype == torch.float32
    assert batch["lr"].item() == np.float32(0.1 / 3) and batch["lr"].shape == ()

    program = repops.capture(step, state, batch)
    unchanged = [s.name for i, s in enumerate(program.slots) if s.update == repops.Ref.state(i)]
    assert unchanged == ["frozen.weight", "frozen.bias", "scale"]
    before = {n: t.clone() for n, t in module.state_dict().items()}
    new = repops.Executor(program).run(state, batch)
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items()), "the module is not modified"
    module(batch["x"])
    np.testing.assert_allclose(new["average"], module.average.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["mlp", "transformer"])
def test_thirty_steps_train_like_eager_torch(kind: str) -> None:
    torch.manual_seed(4)
    module = mlp() if kind == "mlp" else Transformer()
    x = torch.randn(8, 7) if kind == "mlp" else torch.randint(0, 11, (8, 6))
    y = torch.randint(0, 4, (8,))
    schedule = repops.cosine(0.01, 30, warmup=3)
    step, state, make_batch = repops.lift(module, F.cross_entropy, optimizer=repops.AdamW(eps=1e-4), schedule=schedule)
    program = repops.capture(step, state, make_batch(x, y, 0), check=False)
    executor, values, losses = repops.Executor(program), state, []
    optimizer = torch.optim.AdamW(module.parameters(), eps=1e-4)
    for index in range(30):
        values = executor.run(values, make_batch(x, y, index))
        optimizer.param_groups[0]["lr"] = schedule(index)
        optimizer.zero_grad()
        loss = F.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert float(values["loss"]) == pytest.approx(losses[-1], rel=1e-3)
    assert losses[-1] < 0.7 * losses[0]
    for name, p in module.named_parameters():
        torch.testing.assert_close(torch.from_numpy(values[name]), p.detach(), rtol=2e-2, atol=1e-3)


def test_nothing_to_train_is_refused() -> None:
    module = mlp().requires_grad_(False)
    with pytest.raises(CaptureError, match="no parameter"):
        repops.lift(module, F.mse_loss, optimizer=repops.SGD(), schedule=repops.constant(0.1))


def test_a_name_twice_is_refused() -> None:
    module = nn.Module()
    module.register_parameter("loss", nn.Parameter(torch.zeros(())))
    with pytest.raises(CaptureError, match="loss: this name stands for two"):
        repops.lift(module, F.mse_loss, optimizer=repops.SGD(), schedule=repops.constant(0.1))
