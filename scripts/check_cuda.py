"""Compares every operator of libro_cuda.so with the CPU kernels, byte for byte, and times matmul.

Run on a machine with an NVIDIA GPU after building both (docs/cuda.md):

    python scripts/check_cuda.py BUILD_DIR [--rounds N] [--json]

BUILD_DIR holds `_kernels*.so` and `libro_cuda.so`. Exit code 1 if any byte differs or an operator is missing.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

F32, I64, BOOL = 1, 4, 6
NUMPY = {F32: np.dtype("<f4"), I64: np.dtype("<i8"), BOOL: np.dtype("?")}
MAX_RANK = 8


class Tensor(ctypes.Structure):
    """ro::Tensor of csrc/kernels/call.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * MAX_RANK),
    ]


class Call(ctypes.Structure):
    """ro::Call of csrc/kernels/call.h."""

    _fields_ = [
        ("inputs_", ctypes.POINTER(Tensor)),
        ("inputs", ctypes.c_int32),
        ("params", ctypes.POINTER(ctypes.c_int64)),
        ("param_count", ctypes.c_int32),
        ("literals", ctypes.POINTER(ctypes.c_uint64)),
        ("literal_count", ctypes.c_int32),
        ("out", Tensor),
        ("threads", ctypes.c_int32),
        ("more", ctypes.POINTER(Tensor)),
        ("more_count", ctypes.c_int32),
    ]


@dataclass
class Case:
    """One call of one operator."""

    op: str
    inputs: list[np.ndarray]
    out_dtype: int
    out_shape: tuple[int, ...]
    params: list[int] = field(default_factory=list)
    literals: list[int] = field(default_factory=list)


def dtype_of(array: np.ndarray) -> int:
    return {"f": F32, "i": I64, "b": BOOL}[array.dtype.kind]


def bits_of(x: float) -> int:
    return int(np.float32(x).view(np.uint32))


class Maker:
    """Random cases with all the awkward values: subnormals, infinities, NaN payloads, signed zeros."""

    special = np.array(
        [
            0,
            0x80000000,
            1,
            0x80000001,
            0x007FFFFF,
            0x7F800000,
            0xFF800000,
            0x7FC00000,
            0x7F800001,
            0xFFC12345,
            0x3F800000,
        ],
        dtype="<u4",
    )

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def f32(self, *shape: int, special: bool = True) -> np.ndarray:
        kind = self.rng.integers(3)
        x = (self.rng.standard_normal(shape) * 10.0 ** self.rng.integers(-3, 3)).astype("<f4")
        if special and kind == 0:
            x = self.rng.integers(0, 2**32, shape, dtype=np.uint32).view("<f4")
        if special and kind == 1 and x.size:
            flat = x.reshape(-1).view("<u4")
            where = self.rng.random(x.size) < 0.05
            flat[where] = self.rng.choice(self.special, int(where.sum()))
        return np.ascontiguousarray(x)

    def i64(self, *shape: int, low: int = -(2**63), high: int = 2**63 - 1) -> np.ndarray:
        return self.rng.integers(low, high, shape, dtype=np.int64, endpoint=True)

    def boolean(self, *shape: int) -> np.ndarray:
        return self.rng.random(shape) < 0.5

    def size(self, most: int = 40) -> int:
        return int(self.rng.integers(1, most + 1))

    def cases(self) -> Iterator[Case]:
        yield from self.pointwise()
        yield from self.reductions()
        yield from self.products()
        yield from self.movement()

    def pointwise(self) -> Iterator[Case]:
        m, n = self.size(), self.size(300)
        full, row, column = (m, n), (n,), (m, 1)
        unary = ["neg", "abs", "sqrt", "rsqrt", "exp", "log", "tanh", "sigmoid", "erf", "relu", "silu"]
        unary += ["gelu_erf", "gelu_tanh"]
        for op in unary:
            yield Case(op, [self.f32(*full)], F32, full)
        for op in ["relu_grad", "tanh_grad", "sigmoid_grad", "silu_grad", "gelu_erf_grad", "gelu_tanh_grad", "div"]:
            yield Case(op, [self.f32(*full), self.f32(*full)], F32, full)
        for op in ["add", "sub", "mul", "maximum", "minimum"]:
            yield Case(op, [self.f32(*full), self.f32(*row)], F32, full)
            yield Case(op, [self.i64(*column), self.i64(*full)], I64, full)
        for op in ["eq", "ne", "lt", "le", "gt", "ge"]:
            yield Case(op, [self.f32(*full), self.f32(*column)], BOOL, full)
            yield Case(op, [self.i64(*full, low=-2, high=2), self.i64(*row, low=-2, high=2)], BOOL, full)
        for op in ["logical_and", "logical_or", "logical_xor"]:
            yield Case(op, [self.boolean(*full), self.boolean(*row)], BOOL, full)
        yield Case("logical_not", [self.boolean(*full)], BOOL, full)
        yield Case("neg", [self.i64(*full)], I64, full)
        yield Case("abs", [self.i64(*full)], I64, full)
        yield Case("where", [self.boolean(*column), self.f32(*full), self.f32()], F32, full)
        yield Case("where", [self.boolean(*full), self.i64(*full), self.i64(*row)], I64, full)
        for source in (self.f32(*full), self.i64(*full), self.boolean(*full)):
            for out in (F32, I64, BOOL):
                yield Case("cast", [source], out, full)
        yield Case("rstd", [abs(self.f32(*full))], F32, full, literals=[bits_of(n), bits_of(1e-5)])
        x, mean, scale = self.f32(*full), self.f32(*column), self.f32(*column)
        yield Case("softmax", [x, mean, scale], F32, full)
        yield Case("log_softmax", [x, mean, scale], F32, full)
        yield Case("normalize", [x, mean, scale], F32, full)
        yield Case("layer_norm", [x, mean, scale, self.f32(*row), self.f32(*row)], F32, full)
        yield Case("layer_norm_grad", [self.f32(*full), x, mean, scale, self.f32(*row), mean, scale], F32, full)

    def reductions(self) -> Iterator[Case]:
        for shape, axes in (((3, 5, self.size(2500)), [2]), ((self.size(2500), 7), [0]), ((4, 9, 11, 6), [1, 2])):
            count = int(np.prod([shape[a] for a in axes]))
            out = tuple(1 if a in axes else d for a, d in enumerate(shape))
            params = [len(axes), *axes, 0, count]
            x, y, side = self.f32(*shape), self.f32(*shape), out
            for op in ["sum", "amax", "sum_sq"]:
                yield Case(op, [x], F32, out, params)
            yield Case("sum", [self.i64(*shape)], I64, out, params)
            yield Case("sum", [self.boolean(*shape)], I64, out, params)
            yield Case("sum_mul", [x, y], F32, out, params)
            yield Case("sum_sq_centered", [x, self.f32(*side)], F32, out, params)
            yield Case("sum_exp", [x, self.f32(*side)], F32, out, params)
            yield Case("sum_mul_normalized", [y, x, self.f32(*side), self.f32(*side)], F32, out, params)
        long = 16_384 + self.size(3000)
        x, carry = self.f32(2, long, special=False), self.f32(2, 1)
        yield Case("sum", [x, carry], F32, (2, 1), [1, 1, 16_384, long])
        yield Case("amax", [x, carry], F32, (2, 1), [1, 1, 16_384, long])

    def products(self) -> Iterator[Case]:
        for batch in ((), (3,)):
            m, n, k = self.size(150), self.size(150), self.size(700)
            for ta in (0, 1):
                for tb in (0, 1):
                    a = self.f32(*batch, *((k, m) if ta else (m, k)))
                    b = self.f32(*batch, *((n, k) if tb else (k, n)))
                    yield Case("matmul", [a, b], F32, (*batch, m, n), [ta, tb, 0, k])
        yield Case("matmul", [self.f32(5, 0), self.f32(0, 4)], F32, (5, 4), [0, 0, 0, 0])
        k = 16_384 + self.size(600)
        operands = [self.f32(9, k), self.f32(k, 10), self.f32(9, 10)]
        yield Case("matmul", operands, F32, (9, 10), [0, 0, 16_384, k])
        for causal in (0, 1):
            b, t, s, d, e = 2, self.size(), self.size(300), self.size(), self.size()
            scale = [bits_of(0.125)]
            q, k_, v = self.f32(b, t, d), self.f32(b, s, d), self.f32(b, s, e)
            scores, grad, square = self.f32(b, t, s), self.f32(b, t, e), self.f32(b, t, s)
            m, total, delta = self.f32(b, t, 1), self.f32(b, t, 1), self.f32(b, t, 1)
            p = [causal]
            yield Case("attention_scores", [q, k_], F32, (b, t, s), p, scale)
            yield Case("attention_max", [scores], F32, (b, t, 1), p)
            yield Case("attention_sum", [scores, m], F32, (b, t, 1), p)
            yield Case("attention_out", [scores, m, total, v], F32, (b, t, e), p)
            yield Case("attention_dv", [scores, m, total, grad], F32, (b, s, e), p)
            yield Case("attention_dp", [grad, v], F32, (b, t, s), p)
            yield Case("attention_ds", [scores, m, total, square, delta], F32, (b, t, s), p)
            yield Case("attention_dq", [scores, k_], F32, (b, t, d), p, scale)
            yield Case("attention_dk", [scores, q], F32, (b, s, d), p, scale)

    def movement(self) -> Iterator[Case]:
        a, b, c = self.size(), self.size(), self.size()
        x = self.f32(a, b, c)
        yield Case("permute", [x], F32, (c, a, b), [2, 0, 1])
        yield Case("permute", [self.i64(a, b)], I64, (b, a), [1, 0])
        yield Case("expand", [self.boolean(b, 1)], BOOL, (a, b, c))
        yield Case("slice", [x], F32, (a, (b + 1) // 2, c), [1, 0, 2])
        yield Case("slice_grad", [self.f32(a, (b + 1) // 2, c)], F32, (a, b, c), [1, 0, 2])
        yield Case("cat", [x, self.f32(a, 3, c), self.f32(a, 0, c)], F32, (a, b + 3, c), [1])
        yield Case("gather", [x, self.i64(a, 5, c, low=-2, high=b + 1)], F32, (a, 5, c), [1])
        yield Case("scatter", [x, self.i64(a, 4, c, low=-2, high=b + 1)], F32, (a, b, c), [1], [bits_of(-1.5)])
        vocab, tokens = self.size(), self.size(400)
        yield Case("embedding", [self.f32(vocab, c), self.i64(tokens, low=-1, high=vocab)], F32, (tokens, c))
        grad = [self.f32(tokens, c), self.i64(tokens, low=-1, high=vocab)]
        yield Case("embedding_grad", grad, F32, (vocab, c), [0, tokens])
        yield Case("iota", [], I64, (a, b), [-7, 2**61 + 3])
        yield Case("fill", [], F32, (a, b), [], [0x7FC12345])
        yield Case("fill", [], BOOL, (a,), [], [1])


class Cuda:
    """libro_cuda.so, csrc/cuda/cuda.h."""

    def __init__(self, path: Path) -> None:
        self.lib = ctypes.CDLL(str(path))
        self.lib.ro_cuda_error.restype = ctypes.c_char_p
        self.lib.ro_cuda_operators.restype = ctypes.c_char_p
        self.lib.ro_cuda_alloc.restype = ctypes.c_void_p
        self.lib.ro_cuda_alloc.argtypes = [ctypes.c_int64]
        self.lib.ro_cuda_upload.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        self.lib.ro_cuda_run.argtypes = [ctypes.c_char_p, ctypes.POINTER(Call), ctypes.c_int]

    def operators(self) -> list[str]:
        return self.lib.ro_cuda_operators().decode().split("\n")

    def call(self, case: Case, pointers: list[int], out: int, host: bool) -> None:
        tensors = (Tensor * max(1, len(case.inputs)))()
        for tensor, array, pointer in zip(tensors, case.inputs, pointers, strict=False):
            tensor.data, tensor.dtype, tensor.rank = pointer, dtype_of(array), array.ndim
            tensor.shape[: array.ndim] = array.shape
        result = Tensor(out, case.out_dtype, len(case.out_shape))
        result.shape[: len(case.out_shape)] = case.out_shape
        params = (ctypes.c_int64 * max(1, len(case.params)))(*case.params)
        literals = (ctypes.c_uint64 * max(1, len(case.literals)))(*case.literals)
        packed = Call(
            tensors, len(case.inputs), params, len(case.params), literals, len(case.literals), result, 1, None, 0
        )
        if self.lib.ro_cuda_run(case.op.encode(), ctypes.byref(packed), int(host)):
            raise SystemExit(f"{case.op}: {self.lib.ro_cuda_error().decode()}")

    def run(self, case: Case) -> bytes:
        out = np.full(case.out_shape, 1, NUMPY[case.out_dtype])
        self.call(case, [a.ctypes.data for a in case.inputs], out.ctypes.data, host=True)
        return out.tobytes()

    def seconds(self, case: Case, repeats: int) -> float:
        pointers = []
        for array in case.inputs:
            pointers.append(self.lib.ro_cuda_alloc(array.nbytes))
            self.lib.ro_cuda_upload(pointers[-1], array.ctypes.data, array.nbytes)
        out = self.lib.ro_cuda_alloc(int(np.prod(case.out_shape)) * 4)
        times = []
        for _ in range(repeats + 1):
            self.lib.ro_cuda_synchronize()
            start = time.perf_counter()
            self.call(case, pointers, out, host=False)
            self.lib.ro_cuda_synchronize()
            times.append(time.perf_counter() - start)
        return float(np.median(times[1:]))


def cpu(kernels: Any, case: Case) -> bytes:
    out = np.full(case.out_shape, 2, NUMPY[case.out_dtype])
    inputs = [(a, dtype_of(a), list(a.shape)) for a in case.inputs]
    kernels.run(case.op, None, 8, case.params, case.literals, inputs, (out, case.out_dtype, list(case.out_shape)))
    return out.tobytes()


def compare(kernels: Any, cuda: Cuda, rounds: int) -> dict[str, dict[str, int]]:
    """Per operator: cases run, cases whose bytes differ."""
    table: dict[str, dict[str, int]] = {}
    for seed in range(rounds):
        for case in Maker(seed).cases():
            row = table.setdefault(case.op, {"cases": 0, "different": 0})
            row["cases"] += 1
            if cuda.run(case) != cpu(kernels, case):
                row["different"] += 1
                print(f"DIFFERENT {case.op} seed {seed} shapes {[a.shape for a in case.inputs]}", file=sys.stderr)
    return table


def matmul_times(cuda: Cuda) -> list[dict[str, Any]]:
    """matmul against torch's fp32 (TF32 off), interleaved, tensors on the device."""
    import torch  # noqa: PLC0415  only the timing needs it

    torch.backends.cuda.matmul.allow_tf32 = False
    rows = []
    for m, k, n in ((1024, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 4096), (512, 4096, 4096), (64, 768, 3072)):
        maker = Maker(1)
        case = Case(
            "matmul", [maker.f32(m, k, special=False), maker.f32(k, n, special=False)], F32, (m, n), [0, 0, 0, k]
        )
        a, b = (torch.from_numpy(x).cuda() for x in case.inputs)
        ours, theirs = [], []
        for _ in range(15):
            ours.append(cuda.seconds(case, 1))
            torch.cuda.synchronize()
            start = time.perf_counter()
            a @ b
            torch.cuda.synchronize()
            theirs.append(time.perf_counter() - start)
        mine, peer = float(np.median(ours)), float(np.median(theirs[1:]))
        work = 2 * m * n * k
        rows.append(
            {
                "shape": f"{m}x{k}x{n}",
                "ours_s": mine,
                "torch_s": peer,
                "ours_tflops": work / mine / 1e12,
                "torch_tflops": work / peer / 1e12,
                "ratio": peer / mine,
            }
        )
    return rows


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.build))
    import _kernels  # noqa: PLC0415  found through BUILD_DIR

    cuda = Cuda(arguments.build / "libro_cuda.so")
    missing = sorted(set(_kernels.operators()) - set(cuda.operators()))
    table = compare(_kernels, cuda, arguments.rounds)
    untested = sorted(set(_kernels.operators()) - set(table))
    times = matmul_times(cuda)
    different = sum(row["different"] for row in table.values())
    if arguments.json:
        print(json.dumps({"missing": missing, "untested": untested, "operators": table, "matmul": times}, indent=2))
    else:
        for op, row in sorted(table.items()):
            print(f"{op:22} {row['cases']:5} cases {row['different']:5} different")
        print(f"missing on the GPU: {missing or 'none'}; without a case here: {untested or 'none'}")
        for row in times:
            print(
                f"matmul {row['shape']:16} ours {row['ours_tflops']:6.2f} TFLOP/s"
                f"  torch fp32 {row['torch_tflops']:6.2f}  ratio {row['ratio']:.2f}"
            )
    return 1 if different or missing or untested else 0


if __name__ == "__main__":
    sys.exit(main())
