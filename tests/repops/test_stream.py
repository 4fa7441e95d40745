"""Outputs so large that they are written past the caches: the same bits as in parts that are not."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_calls import F32, VECTOR_ISAS, Array, f32_bits

from repops import _kernels


def placed(a: Array, offset: int) -> Array:
    """A copy of it, so many bytes after an aligned address."""
    memory = np.empty(a.nbytes + 64 + offset, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    memory[start : start + a.nbytes] = a.reshape(-1).view(np.uint8)
    return memory[start : start + a.nbytes]


def call(
    op: str, isa: str, threads: int, inputs: list[Array], shapes: list[tuple[int, ...]], *literals: int, offset: int = 0
) -> list[bytes]:
    run = _kernels.run_fused if op in _kernels.fused(isa) else _kernels.run
    outs = [(placed(np.zeros(s, np.float32), offset), int(F32), list(s)) for s in shapes]
    given = [(placed(a, offset), int(F32), list(a.shape)) for a in inputs]
    run(op, isa, threads, [], list(literals), given, outs if run is _kernels.run_fused else outs[0])
    return [out[0].tobytes() for out in outs]


@pytest.mark.parametrize("isa", VECTOR_ISAS)
@pytest.mark.parametrize("offset", [0, 1, 4])
@pytest.mark.parametrize("columns", [1024, 1019, 16, 13])
def test_pointwise(isa: str, offset: int, columns: int) -> None:
    rng = np.random.default_rng(columns)
    rows = (5 << 20) // columns
    a = rng.standard_normal((rows, columns), np.float32)
    a.reshape(-1)[::1001] = -np.nan
    for shape in ((rows, columns), (columns,), (rows, 1)):
        b = rng.standard_normal(shape, np.float32)
        want = a + b
        want[np.isnan(want)] = np.nan
        for threads in (1, 2):
            (got,) = call("add", isa, threads, [a, b], [a.shape], offset=offset)
            assert got == want.tobytes(), (shape, threads)


@pytest.mark.parametrize("isa", VECTOR_ISAS)
@pytest.mark.parametrize("offset", [0, 1, 4])
@pytest.mark.parametrize("columns", [1024, 1019])
def test_rows(isa: str, offset: int, columns: int) -> None:
    rng = np.random.default_rng(columns)
    rows, part = (4 << 20) // columns, 1024
    dy, x = (rng.standard_normal((rows, columns), np.float32) for _ in range(2))
    mean, rstd = (rng.random((rows, 1), np.float32) for _ in range(2))
    w = rng.standard_normal(columns, np.float32)
    count = f32_bits(columns)
    parts = [slice(i, min(i + part, rows)) for i in range(0, rows, part)]
    shape = lambda s: (s.stop - s.start, columns)  # noqa: E731
    softmax = b"".join(call("softmax_backward", isa, 1, [dy[s], x[s]], [shape(s)])[0] for s in parts)
    norm = [call("layer_norm_backward", isa, 1, [dy[s], x[s], mean[s], rstd[s], w], [shape(s)], count) for s in parts]
    shapes = [(rows, columns), (1, columns), (1, columns)]
    sums = []
    for threads in (1, 2):
        assert call("softmax_backward", isa, threads, [dy, x], shapes[:1], offset=offset) == [softmax]
        inputs = [dy, x, mean, rstd, w]
        dx, *columns_sums = call("layer_norm_backward", isa, threads, inputs, shapes, count, offset=offset)
        assert dx == b"".join(p[0] for p in norm)
        sums.append(columns_sums)
    assert sums[0] == sums[1] == call("layer_norm_backward", isa, 2, inputs, shapes, count, offset=1)[1:]
