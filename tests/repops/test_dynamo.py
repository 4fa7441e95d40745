"""`torch.compile(model, backend="repops")`: right values and gradients, bits that nothing changes, refusals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import repops
import repops.dynamo

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    threads = repops.threads()
    yield
    repops.set_threads(threads)
    torch._dynamo.reset()


class Block(nn.Module):
    """A transformer block with a head, for 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv = nn.Linear(12, 32), nn.Linear(32, 96)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        q, k, v = self.qkv(self.norm(h)).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        h = h + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return self.head(F.gelu(h))


def gradients(model: nn.Module, function: nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(1)
    x, y = torch.randn(3, 9, 12), torch.randint(10, (3, 9))
    model.zero_grad()
    loss = F.cross_entropy(function(x).flatten(0, 1), y.flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_values_and_gradients_are_the_models_and_their_bits_do_not_depend_on_threads() -> None:
    torch.manual_seed(0)
    model = Block()
    compiled = torch.compile(model, backend="repops", dynamic=False)
    want = gradients(model, model)
    found = []
    for threads in (1, 2, 3):
        repops.set_threads(threads)
        found.append(gradients(model, compiled))
    assert len(want) == len(found[0]) == 1 + len(list(model.parameters()))
    for name, value in want.items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-4, atol=1e-6)
        assert len({each[name].numpy().tobytes() for each in found}) == 1, name


def test_a_training_goes_down_and_repeats() -> None:
    def run() -> list[bytes]:
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = Block()
        function = torch.compile(model, backend="repops", dynamic=False)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        x, y = torch.randn(4, 6, 12), torch.randint(10, (4, 6))
        losses = []
        for _ in range(8):
            optimizer.zero_grad()
            loss = F.cross_entropy(function(x).flatten(0, 1), y.flatten())
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0]
        return [p.detach().numpy().tobytes() for p in model.parameters()]

    assert run() == run()


def test_what_has_no_operator_is_refused_with_its_name() -> None:
    function = torch.compile(lambda x: torch.fft.fft(x).real, backend="repops", dynamic=False)
    with pytest.raises(Exception, match="fft") as caught:
        function(torch.randn(8))
    assert "UnsupportedOperators" in repr(caught.value) or "UnsupportedOperators" in str(caught.value)


def test_options_are_refused() -> None:
    with pytest.raises(Exception, match="unknown options"):
        torch.compile(lambda x: x + 1, backend="repops", options={"speed": 11}, dynamic=False)(torch.ones(2))


def test_the_example_shows_one_result() -> None:
    command = [sys.executable, str(ROOT / "examples" / "reproducible_training.py"), "--steps", "3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, env=_environment())
    ours = [line for line in done.stdout.splitlines() if line.startswith("repops")]
    assert len(ours) == 2
    assert "1 result(s); rows that change when the batch is split: 0" in ours[1]
    assert "threads" in ours[0] and len({part.split()[-1] for part in ours[0].split(", ")}) == 1


def _environment() -> dict[str, str]:
    import os  # noqa: PLC0415

    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
