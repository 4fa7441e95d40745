"""Golden hashes of operator outputs: the same on every processor, build and version.

The data comes from a generator written here, so that no library can change it. Run as a program, this module writes
tests/vectors/kernels.json from the scalar reference. A hash that changes is a new profile.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from kernel_calls import F32, SPECIAL_F32, Array, Case, f32_bits

PATH = Path(__file__).parents[1] / "vectors" / "kernels.json"
SCALE = f32_bits(0.125)


class Words:
    """SplitMix64, and tensors made of it: small numbers, every eighth one of the special patterns."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def word(self) -> int:
        self._state = (self._state + 0x9E3779B97F4A7C15) % 2**64
        z = self._state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    def tensor(self, *shape: int, special: bool = False) -> Array:
        words = [self.word() for _ in range(int(np.prod(shape)))]
        bits = np.array([(w >> 40 & 0x807FFFFF) | (w % 8 + 121) << 23 for w in words], np.uint32)
        if special:
            bits = np.array(
                [SPECIAL_F32[w >> 8 & 15] if w & 7 == 0 else b for w, b in zip(words, bits, strict=True)], np.uint32
            )
        return bits.view(np.float32).reshape(shape)


def cases() -> Iterator[tuple[str, Case]]:
    """Named calls; each tensor's data follows from the case's number alone."""
    number = 0

    def words() -> Words:
        nonlocal number
        number += 1
        return Words(number)

    for special in (False, True):
        tag = "special" if special else "plain"
        for m, k, n in [(5, 300, 37), (33, 20, 16), (1, 600, 21), (20, 257, 3)]:
            for ta, tb in [(0, 0), (0, 1), (1, 0)]:
                w = words()
                a = w.tensor(*((k, m) if ta else (m, k)), special=special)
                b = w.tensor(*((n, k) if tb else (k, n)), special=special)
                yield f"matmul {m}x{k}x{n} {ta}{tb} {tag}", Case("matmul", [a, b], F32, (m, n), (ta, tb, 0, k))
        for op in ("sum", "sum_sq", "amax"):
            for axis, shape in [(0, (1100, 19)), (1, (7, 1100))]:
                out = (1, shape[1]) if axis == 0 else (shape[0], 1)
                x = words().tensor(*shape, special=special)
                yield f"{op} axis {axis} {tag}", Case(op, [x], F32, out, (1, axis, 0, shape[axis]))
        for op in ("sum_mul", "sum_sq_centered", "sum_exp"):
            w = words()
            inputs = [w.tensor(7, 70, special=special), w.tensor(7, 1, special=special)]
            yield f"{op} {tag}", Case(op, inputs, F32, (7, 1), (1, 1, 0, 70))
        for op in ("exp", "log", "tanh", "sigmoid", "erf", "gelu_erf", "gelu_tanh", "silu", "sqrt", "rsqrt"):
            yield f"{op} {tag}", Case(op, [words().tensor(300, special=special)], F32, (300,))
        for op in ("add", "sub", "mul", "div", "maximum", "minimum"):
            w = words()
            inputs = [w.tensor(5, 77, special=special), w.tensor(77, special=special)]
            yield f"{op} {tag}", Case(op, inputs, F32, (5, 77))
        for causal in (0, 1):
            w = words()
            q, k, v = (w.tensor(2, n, 20, special=special) for n in (45, 41, 41))
            s, m, total = w.tensor(2, 45, 41, special=special), w.tensor(2, 45, 1), w.tensor(2, 45, 1)
            name = f"causal {causal} {tag}"
            yield f"attention_scores {name}", Case("attention_scores", [q, k], F32, (2, 45, 41), (causal,), (SCALE,))
            yield f"attention_sum {name}", Case("attention_sum", [s, m], F32, (2, 45, 1), (causal,))
            yield f"attention_out {name}", Case("attention_out", [s, m, total, v], F32, (2, 45, 20), (causal,))
            yield f"attention_dv {name}", Case("attention_dv", [s, m, total, q], F32, (2, 41, 20), (causal,))
            yield f"attention_dq {name}", Case("attention_dq", [s, k], F32, (2, 45, 20), (causal,), (SCALE,))
            yield f"attention_dk {name}", Case("attention_dk", [s, q], F32, (2, 41, 20), (causal,), (SCALE,))


def digest(output: bytes) -> str:
    return hashlib.sha256(output).hexdigest()[:32]


if __name__ == "__main__":
    PATH.write_text(json.dumps({name: digest(case.run("scalar")) for name, case in cases()}, indent=1) + "\n")
