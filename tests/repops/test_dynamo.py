"""`torch.compile(model, backend="repops")`: right values and gradients, bits that nothing changes, refusals."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


def test_what_has_no_operator_is_refused_with_our_own_error() -> None:
    function = torch.compile(lambda x: torch.fft.fft(x).real, backend="repops", dynamic=False)
    with pytest.raises(repops.UnsupportedOperators, match="fft") as caught:
        function(torch.randn(8))
    assert any("_fft_r2c" in name for name in caught.value.operators)
    assert caught.value.what and caught.value.where and caught.value.cure


def test_options_are_refused() -> None:
    with pytest.raises(repops.CaptureError, match="unknown options: speed"):
        torch.compile(lambda x: x + 1, backend="repops", options={"speed": 11}, dynamic=False)(torch.ones(2))


def test_a_dtype_that_programs_lack_is_refused() -> None:
    with pytest.raises(repops.TensorError, match="float64"):
        torch.compile(lambda x: x + 1, backend="repops", dynamic=False)(torch.ones(2, dtype=torch.float64))


def test_errors_of_dynamo_itself_stay_dynamos() -> None:
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(print, backend="repops", fullgraph=True)(torch.ones(2))


def growing(function: Callable[[Tensor], Tensor]) -> int:
    """How many shapes a function takes, up to 5."""
    for n in range(1, 6):
        try:
            assert len(function(torch.ones(n))) == n
        except torch._dynamo.exc.FailOnRecompileLimitHit:
            return n - 1
    return 5


def test_too_many_shapes_are_an_error_not_eager_torch() -> None:
    def run() -> int:
        torch._dynamo.reset()
        with torch._dynamo.config.patch(recompile_limit=3):
            return growing(torch.compile(lambda x: torch.sigmoid(x) * 2, backend="repops", dynamic=False))

    assert run() == 3
    with ThreadPoolExecutor(1) as pool:  # dynamo's settings are a thread's own
        assert pool.submit(run).result() == 3
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=False):
        assert run() == 5


@pytest.mark.parametrize("dynamic", [None, True])
def test_dynamic_shapes_take_any_number_of_sizes_with_the_same_bits(dynamic: bool | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 5), nn.GELU())
    compiled = torch.compile(model, backend="repops", dynamic=dynamic)
    for n in (2, 3, 5):
        x = torch.randn(n, 12)
        model.zero_grad()
        out = compiled(x)
        assert (
            out.detach().numpy().tobytes()
            == repops.gelu(repops.linear(x, *model[0].parameters())).detach().numpy().tobytes()
        )
        out.sum().backward()  # type: ignore[no-untyped-call]
        found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        model(x).sum().backward()
        for actual, p in zip(found, model.parameters(), strict=True):
            torch.testing.assert_close(actual, p.grad)


def test_an_installed_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """In a process that imports torch only, with the metadata that pyproject.toml makes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = tmp_path / "verde_node-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n", encoding="utf-8"
    )
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *[f"{name} = {target}" for name, target in points.items()])
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    code = (
        "import torch; assert 'repops' in torch.compiler.list_backends()\n"
        "import sys; assert 'repops' not in sys.modules\n"
        "y = torch.compile(lambda x: x.exp(), backend='repops', dynamic=False)(torch.ones(3))\n"
        "import repops; assert torch.equal(y, repops.exp(torch.ones(3)))\n"
        "assert torch._dynamo.config.fail_on_recompile_limit_hit"
    )
    environment = _environment() | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment)


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
