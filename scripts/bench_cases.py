"""What scripts/bench_repops.py measures: one `Case` for each operator and shape.

Ours is what a user gets: the step, captured, compiled to a plan with fused kernels, its results written into buffers
that exist before. torch's side is the eager call for the same result, with `out=` or in place where torch has it;
where it allocates, its allocator recycles the memory of the call before (see `bench_repops.environment`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from repops import optim

Tensors = dict[str, Tensor]
aten: Any = torch.ops.aten


@dataclass
class Data:
    """Inputs and result buffers of one case, and the two sides.

    step: (state, batch) -> results, captured for ours. eager: runs torch, returns the results in the slots' order;
    again: the same with result buffers of its own. operands: of a product, for numpy.
    """

    batch: Tensors
    slots: Tensors
    step: Callable[[Tensors, Tensors], Tensors]
    eager: Callable[[], Any]
    again: Callable[[], Any]
    operands: tuple[Tensor, Tensor] | None = None
    tolerance: float = 1e-5


@dataclass(frozen=True)
class Case:
    """A row of the table. kind: gemm, compute or memory. quick: part of the quick run."""

    op: str
    shape: str
    kind: str
    make: Callable[[], Data]
    quick: bool = False

    @property
    def name(self) -> str:
        """What --only is matched with."""
        return f"{self.op} {self.shape}"


def cases() -> list[Case]:
    """All rows, in the table's order."""
    return [
        *_products(),
        *_convolutions(),
        *_rows(),
        *_elementwise(),
        *_attention(),
        *_training(),
        *_sums(),
        *_broadcasts(),
        *_movement(),
        *_pools(),
    ]


def _simple(
    inputs: Tensors,
    step: Callable[..., Tensor],
    eager: Callable[..., Any],
    *,
    out: bool = True,
    tolerance: float = 1e-5,
) -> Data:
    """One result from inputs in order. eager(out, *inputs) writes into `out`, or, without, eager(*inputs) allocates."""
    values = list(inputs.values())
    like = step(*values)
    first, second, mine = (torch.zeros(like.shape) for _ in range(3))
    run = [(lambda o=o: eager(o, *values)) if out else (lambda: eager(*values)) for o in (first, second)]
    return Data(inputs, {"out": mine}, lambda _, b: {"out": step(*b.values())}, *run, tolerance=tolerance)


def _multiple(inputs: Tensors, step: Callable[..., tuple[Tensor, ...]], eager: Callable[..., Any]) -> Data:
    """Several results; torch allocates its own."""
    values = list(inputs.values())
    slots = {f"out{i}": torch.zeros(x.shape) for i, x in enumerate(step(*values))}
    run = lambda: eager(*values)  # noqa: E731
    return Data(inputs, slots, lambda _, b: dict(zip(slots, step(*b.values()), strict=True)), run, run)


# ---- products --------------------------------------------------------------------------------------------------------


def _product(batch: int, m: int, k: int, n: int, layout: str) -> Data:
    lead = (batch,) if batch else ()
    a = torch.randn(*lead, *((k, m) if layout[0] == "T" else (m, k)))
    b = torch.randn(*lead, *((n, k) if layout[1] == "T" else (k, n)))
    left = (lambda x: x.mT) if layout[0] == "T" else (lambda x: x)
    right = (lambda x: x.mT) if layout[1] == "T" else (lambda x: x)
    data = _simple(
        {"a": a, "b": b}, lambda x, y: left(x) @ right(y), lambda o, x, y: torch.matmul(left(x), right(y), out=o)
    )
    data.operands = (left(a), right(b))
    return data


def _products() -> Iterator[Case]:
    squares = [(1024, 1024, 1024), (2048, 2048, 2048), (512, 4096, 4096), (64, 768, 3072), (4096, 64, 4096)]
    shapes = [(0, m, k, n, layout) for m, k, n in squares for layout in ("NN", "NT", "TN")]
    shapes += [(12, 128, 64, 128, layout) for layout in ("NN", "NT", "TN")]
    shapes += [(24, 256, 64, 256, "NT"), (24, 256, 256, 64, "NN"), (24, 256, 256, 64, "TN")]
    for batch, m, k, n, layout in shapes:
        text = f"{f'b{batch} ' if batch else ''}{m}x{k}x{n} {layout}"
        quick = (m, k, n) in ((1024, 1024, 1024), (64, 768, 3072), (128, 64, 128)) and layout != "TN"
        yield Case("matmul", text, "gemm", lambda a=(batch, m, k, n, layout): _product(*a), quick)
    for k, n in ((4096, 4096), (14336, 4096), (768, 3072), (768, 50257)):
        for layout in ("NN", "NT"):
            quick = (k, n) == (4096, 4096)
            yield Case("gemv", f"1x{k}x{n} {layout}", "gemm", lambda a=(0, 1, k, n, layout): _product(*a), quick)


# ---- convolutions ----------------------------------------------------------------------------------------------------


def _convolution(part: str, x: tuple[int, ...], w: tuple[int, ...], stride: int, pad: int, groups: int) -> Data:
    """part: forward, dx or dw."""
    image, weight = torch.randn(x), torch.randn(w)
    geometry = ([stride] * 2, [pad] * 2, [1, 1], False, [0, 0], groups)
    if part == "forward":
        forward = lambda x, w: aten.convolution(x, w, None, *geometry)  # noqa: E731
        return _simple({"x": image, "w": weight}, forward, forward, out=False, tolerance=1e-4)
    mask = [part == "dx", part == "dw", False]

    def backward(dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        gradient: Tensor = aten.convolution_backward(dy, x, w, None, *geometry, mask)[mask.index(True)]
        return gradient

    dy = torch.randn(aten.convolution(image, weight, None, *geometry).shape)
    return _simple({"dy": dy, "x": image, "w": weight}, backward, backward, out=False, tolerance=1e-4)


def _convolutions() -> Iterator[Case]:
    for name, x, w, stride, pad, groups in (
        ("3x3", (8, 64, 56, 56), (64, 64, 3, 3), 1, 1, 1),
        ("3x3 stride 2", (8, 64, 56, 56), (128, 64, 3, 3), 2, 1, 1),
        ("3x3", (8, 512, 7, 7), (512, 512, 3, 3), 1, 1, 1),
        ("1x1", (8, 256, 28, 28), (256, 256, 1, 1), 1, 0, 1),
        ("7x7 stride 2", (8, 3, 224, 224), (64, 3, 7, 7), 2, 3, 1),
        ("depthwise 3x3", (8, 64, 56, 56), (64, 1, 3, 3), 1, 1, 64),
        ("patches 16x16", (8, 3, 224, 224), (768, 3, 16, 16), 16, 0, 1),
    ):
        shape = f"{name} {list(x)} to {w[0]}".replace(", ", ",")
        for part in ("forward", "dx", "dw"):
            make = lambda a=(part, x, w, stride, pad, groups): _convolution(*a)  # noqa: E731
            quick = name == "3x3" and x[1] == 64
            yield Case(f"conv2d {part}".removesuffix(" forward"), shape, "compute", make, quick)


# ---- rows: softmax and norms -----------------------------------------------------------------------------------------


def _softmax(rows: int, n: int, log: bool) -> Data:
    function = aten._log_softmax if log else aten._softmax
    return _simple(
        {"x": torch.randn(rows, n)}, lambda x: function(x, -1, False), lambda o, x: function.out(x, -1, False, out=o)
    )


def _softmax_backward(rows: int, n: int, log: bool) -> Data:
    name = "_log_softmax_backward_data" if log else "_softmax_backward_data"
    function = getattr(aten, name)
    y = torch.randn(rows, n).softmax(-1)
    inputs = {"dy": torch.randn(rows, n), "y": y.log() if log else y}
    keyword = "out" if log else "grad_input"
    return _simple(
        inputs,
        lambda dy, y: function(dy, y, -1, torch.float32),
        lambda o, dy, y: function.out(dy, y, -1, torch.float32, **{keyword: o}),
    )


def _layer_norm(rows: int, n: int) -> Data:
    inputs = {"x": torch.randn(rows, n), "w": torch.randn(n), "b": torch.randn(n)}
    norm = lambda x, w, b: F.layer_norm(x, (n,), w, b)  # noqa: E731
    return _simple(inputs, norm, norm, out=False)


def _layer_norm_backward(rows: int, n: int) -> Data:
    x, w, b = torch.randn(rows, n), torch.randn(n), torch.randn(n)
    _, mean, rstd = aten.native_layer_norm(x, (n,), w, b, 1e-5)
    inputs = {"dy": torch.randn(rows, n), "x": x, "mean": mean, "rstd": rstd, "w": w, "b": b}

    def backward(dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return tuple(aten.native_layer_norm_backward(dy, x, (n,), mean, rstd, w, b, [True, True, True]))

    return _multiple(inputs, backward, backward)


def _rms_norm(rows: int, n: int) -> Data:
    inputs = {"x": torch.randn(rows, n), "w": torch.randn(n)}
    norm = lambda x, w: F.rms_norm(x, (n,), w, 1e-6)  # noqa: E731
    return _simple(inputs, norm, norm, out=False)


def _rms_norm_training(rows: int, n: int) -> Data:
    inputs = {"x": torch.randn(rows, n), "w": torch.randn(n), "dy": torch.randn(rows, n)}

    def both(x: Tensor, w: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        return torch.autograd.grad(F.rms_norm(x, (n,), w, 1e-6), (x, w), dy)

    return _multiple(inputs, both, both)


def _rows() -> Iterator[Case]:
    for rows, n in ((4096, 1024), (6144, 256), (512, 50257)):
        shape, quick = f"[{rows},{n}]", n == 1024
        yield Case("softmax", shape, "compute", lambda a=(rows, n): _softmax(*a, False), quick)
        yield Case("log_softmax", shape, "compute", lambda a=(rows, n): _softmax(*a, True), quick)
    yield Case("softmax backward", "[4096,1024]", "compute", lambda: _softmax_backward(4096, 1024, False))
    yield Case("log_softmax backward", "[4096,1024]", "compute", lambda: _softmax_backward(4096, 1024, True))
    for rows, n in ((4096, 768), (512, 4096)):
        shape, quick = f"[{rows},{n}]", n == 768
        yield Case("layer_norm", shape, "compute", lambda a=(rows, n): _layer_norm(*a), quick)
        yield Case("layer_norm backward", shape, "compute", lambda a=(rows, n): _layer_norm_backward(*a), quick)
        yield Case("rms_norm", shape, "compute", lambda a=(rows, n): _rms_norm(*a), quick)
        yield Case("rms_norm forward+backward", shape, "compute", lambda a=(rows, n): _rms_norm_training(*a))


# ---- elementary functions --------------------------------------------------------------------------------------------


def _unary(n: int, step: Callable[[Tensor], Tensor], eager: Callable[..., Any]) -> Data:
    return _simple({"x": torch.randn(n)}, step, eager)


def _gradient(n: int, step: Callable[[Tensor, Tensor], Tensor], eager: Callable[..., Any]) -> Data:
    return _simple({"dy": torch.randn(n), "x": torch.randn(n)}, step, eager)


def _elementwise() -> Iterator[Case]:
    unary: dict[str, tuple[Callable[..., Tensor], Callable[..., Any]]] = {
        "exp": (torch.exp, lambda o, x: torch.exp(x, out=o)),
        "tanh": (torch.tanh, lambda o, x: torch.tanh(x, out=o)),
        "sigmoid": (torch.sigmoid, lambda o, x: torch.sigmoid(x, out=o)),
        "gelu erf": (F.gelu, lambda o, x: aten.gelu.out(x, out=o)),
        "gelu tanh": (
            lambda x: F.gelu(x, approximate="tanh"),
            lambda o, x: aten.gelu.out(x, approximate="tanh", out=o),
        ),
        "silu": (F.silu, lambda o, x: aten.silu.out(x, out=o)),
    }
    gradients: dict[str, tuple[Callable[..., Tensor], Callable[..., Any]]] = {
        "gelu erf backward": (aten.gelu_backward, lambda o, dy, x: aten.gelu_backward.grad_input(dy, x, grad_input=o)),
        "gelu tanh backward": (
            lambda dy, x: aten.gelu_backward(dy, x, approximate="tanh"),
            lambda o, dy, x: aten.gelu_backward.grad_input(dy, x, approximate="tanh", grad_input=o),
        ),
        "silu backward": (aten.silu_backward, lambda o, dy, x: aten.silu_backward.grad_input(dy, x, grad_input=o)),
    }
    for n in (1 << 22, 1 << 15):
        for op, sides in unary.items():
            quick = n == 1 << 22 and op in ("exp", "gelu erf")
            yield Case(op, f"[{n}]", "compute", lambda a=(n, *sides): _unary(*a), quick)
    for op, sides in gradients.items():
        yield Case(op, f"[{1 << 22}]", "compute", lambda a=sides: _gradient(1 << 22, *a))


# ---- attention -------------------------------------------------------------------------------------------------------


def _attention_forward(batch: int, heads: int, length: int, depth: int, causal: bool) -> Data:
    inputs = {name: torch.randn(batch, heads, length, depth) for name in "qkv"}
    attend = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal)  # noqa: E731
    return _simple(inputs, attend, attend, out=False)


def _attention_training(batch: int, heads: int, length: int, depth: int, causal: bool) -> Data:
    inputs = {name: torch.randn(batch, heads, length, depth) for name in ("q", "k", "v", "do")}

    def both(q: Tensor, k: Tensor, v: Tensor, do: Tensor) -> tuple[Tensor, ...]:
        q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return out.detach(), *torch.autograd.grad(out, (q, k, v), do)

    return _multiple(inputs, both, both)


def _attention() -> Iterator[Case]:
    for sizes in ((1, 12, 512, 64), (2, 12, 256, 64), (1, 4, 2048, 64), (1, 8, 1024, 128)):
        for causal in (True, False):
            shape = f"B{sizes[0]} H{sizes[1]} T{sizes[2]} D{sizes[3]}{' causal' if causal else ''}"
            quick = causal and sizes[2] == 512
            yield Case("attention", shape, "compute", lambda a=(*sizes, causal): _attention_forward(*a), quick)
            if sizes[2] <= 512:
                make = lambda a=(*sizes, causal): _attention_training(*a)  # noqa: E731
                yield Case("attention forward+backward", shape, "compute", make, quick)


# ---- what else a training step is made of ----------------------------------------------------------------------------


def _cross_entropy(rows: int, classes: int) -> Data:
    inputs = {"x": torch.randn(rows, classes), "target": torch.randint(classes, (rows,))}

    def both(x: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(x, target)
        return loss.detach(), *torch.autograd.grad(loss, (x,))

    return _multiple(inputs, both, both)


def _adamw(*shapes: tuple[int, ...]) -> Data:
    """One update of every parameter in place, both sides."""
    ours = optim.AdamW()
    parameters = {f"p{i}": torch.randn(s) for i, s in enumerate(shapes)}
    gradients = {f"g/{name}": torch.randn_like(p) for name, p in parameters.items()}

    def torch_side() -> Callable[[], list[Tensor]]:
        """With parameters, gradients and moments of its own: shared ones would stay in the caches between the turns."""
        theirs = [p.clone().requires_grad_() for p in parameters.values()]
        for p, g in zip(theirs, gradients.values(), strict=True):
            p.grad = g.clone()
        optimizer = torch.optim.AdamW(
            theirs, lr=1e-4, betas=ours.betas, eps=ours.eps, weight_decay=ours.weight_decay, fused=True
        )

        def eager() -> list[Tensor]:
            optimizer.step()
            return [p.detach() for p in theirs]

        return eager

    scalars = {name: torch.tensor(x) for name, x in ours.scalars(0, 1e-4).items()}
    slots = parameters | ours.slots(parameters)

    def step(state: Tensors, batch: Tensors) -> Tensors:
        moments = {n: t for n, t in state.items() if n not in parameters}
        grads = {name: batch[f"g/{name}"] for name in parameters}
        values = {n: batch[n] for n in scalars}
        new, moments = ours.update({n: state[n] for n in parameters}, grads, moments, values)
        return new | moments

    return Data(gradients | scalars, slots, step, torch_side(), torch_side(), tolerance=1e-4)


def _embedding(rows: int, width: int, count: int) -> Data:
    inputs = {"w": torch.randn(rows, width), "i": torch.randint(rows, (count,))}
    return _simple(inputs, lambda w, i: F.embedding(i, w), lambda o, w, i: torch.index_select(w, 0, i, out=o))


def _embedding_gradient(rows: int, width: int, count: int) -> Data:
    inputs = {"dy": torch.randn(count, width), "i": torch.randint(rows, (count,))}
    backward = lambda dy, i: aten.embedding_dense_backward(dy, i, rows, -1, False)  # noqa: E731
    return _simple(inputs, backward, backward, out=False)


def _training() -> Iterator[Case]:
    for rows, classes in ((512, 50257), (4096, 1024)):
        make = lambda a=(rows, classes): _cross_entropy(*a)  # noqa: E731
        yield Case("cross_entropy forward+backward", f"[{rows},{classes}]", "compute", make, classes == 1024)
    yield Case("adamw", "[1024,1024]", "compute", lambda: _adamw((1024, 1024)), True)
    yield Case("adamw", "[3072,768]+[768,3072]+[768]", "compute", lambda: _adamw((3072, 768), (768, 3072), (768,)))
    yield Case("adamw", "[16384,768]", "compute", lambda: _adamw((16384, 768)))
    for rows, width, count in ((50257, 768, 512), (50257, 768, 4096), (1024, 256, 8192)):
        shape, quick = f"[{rows},{width}] of {count}", count == 512
        yield Case("embedding", shape, "memory", lambda a=(rows, width, count): _embedding(*a), quick)
        yield Case("embedding gradient", shape, "memory", lambda a=(rows, width, count): _embedding_gradient(*a), quick)


# ---- bound by memory -------------------------------------------------------------------------------------------------


def _sum(shape: tuple[int, ...], dims: tuple[int, ...]) -> Data:
    return _simple(
        {"x": torch.randn(shape)}, lambda x: x.sum(dims), lambda o, x: torch.sum(x, dims, out=o), tolerance=1e-4
    )


def _amax(shape: tuple[int, ...], dims: tuple[int, ...]) -> Data:
    return _simple({"x": torch.randn(shape)}, lambda x: x.amax(dims), lambda o, x: torch.amax(x, dims, out=o))


def _sums() -> Iterator[Case]:
    reductions: list[tuple[tuple[int, ...], tuple[int, ...], bool]] = [
        ((4096, 1024), (1,), True),
        ((262144, 16), (1,), False),
        ((64, 65536), (1,), False),
        ((4096, 1024), (0,), True),
        ((1024, 16384), (0,), False),
        ((262144, 16), (0,), False),
        ((1048576, 3), (0,), False),
        ((64, 512, 128), (1,), False),
        ((64, 512, 128), (0, 1), False),
        ((32, 64, 28, 28), (2, 3), False),
        ((4194304,), (0,), False),
    ]
    for shape, dims, quick in reductions:
        text = f"{list(shape)} over {list(dims)}".replace(", ", ",")
        yield Case("sum", text, "memory", lambda a=(shape, dims): _sum(*a), quick)
    for dims in ((1,), (0,)):
        yield Case("amax", f"[4096,1024] over {list(dims)}", "memory", lambda a=((4096, 1024), dims): _amax(*a))


def _binary(op: Any, a: tuple[int, ...], b: tuple[int, ...]) -> Data:
    inputs = {"a": torch.randn(a), "b": torch.rand(b) + 0.5}
    return _simple(inputs, op, lambda o, x, y: op(x, y, out=o))


def _where(n: int) -> Data:
    inputs = {"c": torch.rand(n) < 0.5, "a": torch.randn(n), "b": torch.randn(n)}
    return _simple(inputs, torch.where, lambda o, c, a, b: torch.where(c, a, b, out=o))


def _broadcasts() -> Iterator[Case]:
    rows, n = 4096, 1024
    broadcasts: list[tuple[str, tuple[int, ...]]] = [
        ("[4096,1024]", (rows, n)),
        ("row [1024]", (n,)),
        ("column [4096,1]", (rows, 1)),
        ("scalar", ()),
    ]
    for name, op in (("add", torch.add), ("mul", torch.mul), ("div", torch.div)):
        for text, other in broadcasts:
            shape = f"[4096,1024] with {text}"
            yield Case(name, shape, "memory", lambda a=(op, (rows, n), other): _binary(*a), name == "mul")
    yield Case(
        "add",
        "[8,12,256,256] with [8,1,1,256]",
        "memory",
        lambda: _binary(torch.add, (8, 12, 256, 256), (8, 1, 1, 256)),
    )
    yield Case("mul", "[262144,16] with row [16]", "memory", lambda: _binary(torch.mul, (262144, 16), (16,)))
    yield Case("add", "[32768]", "memory", lambda: _binary(torch.add, (32768,), (32768,)))
    yield Case("where", "[4194304]", "memory", lambda: _where(1 << 22))


def _permute(shape: tuple[int, ...], dims: tuple[int, ...]) -> Data:
    move = lambda x: x.permute(dims).clone(memory_format=torch.contiguous_format)  # noqa: E731
    return _simple({"x": torch.randn(shape)}, move, lambda o, x: o.copy_(x.permute(dims)))


def _cat(shapes: list[tuple[int, ...]], dim: int) -> Data:
    inputs = {f"x{i}": torch.randn(s) for i, s in enumerate(shapes)}
    return _simple(inputs, lambda *x: torch.cat(x, dim), lambda o, *x: torch.cat(x, dim, out=o))


def _movement() -> Iterator[Case]:
    permutations: list[tuple[tuple[int, ...], tuple[int, ...], bool]] = [
        ((2048, 2048), (1, 0), True),
        ((768, 3072), (1, 0), False),
        ((2, 512, 12, 64), (0, 2, 1, 3), True),
        ((2, 12, 512, 64), (0, 2, 1, 3), False),
        ((2, 12, 512, 64), (0, 1, 3, 2), False),
        ((32, 64, 56, 56), (0, 2, 3, 1), False),
    ]
    for shape, dims, quick in permutations:
        text = f"{list(shape)} to {list(dims)}".replace(", ", ",")
        yield Case("permute", text, "memory", lambda a=(shape, dims): _permute(*a), quick)
    for shapes, dim in (([(2048, 1024)] * 2, 0), ([(4096, 512), (4096, 256)], 1), ([(8, 12, 128, 64)] * 2, 2)):
        text = f"{'+'.join(str(list(s)) for s in shapes)} along {dim}".replace(", ", ",")
        yield Case("cat", text, "memory", lambda a=(shapes, dim): _cat(*a))


def _pool(shape: tuple[int, ...], pool: Callable[[Tensor], Tensor]) -> Data:
    return _simple({"x": torch.randn(shape)}, pool, pool, out=False)


def _pool_training(shape: tuple[int, ...], pool: Callable[[Tensor], Tensor]) -> Data:
    x = torch.randn(shape)
    inputs = {"x": x, "dy": torch.randn_like(pool(x))}

    def both(x: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
        x = x.detach().requires_grad_()
        y = pool(x)
        return y.detach(), *torch.autograd.grad(y, (x,), dy)

    return _multiple(inputs, both, both)


def _pools() -> Iterator[Case]:
    images = (8, 64, 112, 112)
    pools: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
        "max_pool 3x3 stride 2": (lambda x: F.max_pool2d(x, 3, 2, 1), images),
        "max_pool 2x2": (lambda x: F.max_pool2d(x, 2), images),
        "avg_pool 2x2": (lambda x: F.avg_pool2d(x, 2), images),
        "avg_pool 3x3 stride 1": (lambda x: F.avg_pool2d(x, 3, 1, 1), images),
        "adaptive_avg_pool to 1x1": (lambda x: F.adaptive_avg_pool2d(x, 1), (32, 512, 7, 7)),
        "adaptive_avg_pool to 7x7": (lambda x: F.adaptive_avg_pool2d(x, 7), (8, 256, 17, 17)),
    }
    for name, (pool, shape) in pools.items():
        text, quick = str(list(shape)).replace(" ", ""), name.startswith("max_pool 3x3")
        yield Case(name, text, "memory", lambda a=(shape, pool): _pool(*a), quick)
        yield Case(f"{name} forward+backward", text, "memory", lambda a=(shape, pool): _pool_training(*a), quick)
