"""What the tests of convolution share: geometries at random, and calls of the three operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from kernel_calls import F32, Array, Case, finite, hostile

from repops.dtypes import DType

OPERATORS = ("conv2d", "conv2d_dx", "conv2d_dw")


@dataclass(frozen=True)
class Shape:
    """x [images, groups channels, *size], w [groups filters, channels, *taps]; the rest by axis."""

    images: int
    groups: int
    channels: int
    filters: int
    size: tuple[int, int]
    taps: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def out(self) -> tuple[int, int]:
        first, second = (
            (n + 2 * p - d * (t - 1) - 1) // s + 1
            for n, t, s, p, d in zip(self.size, self.taps, self.stride, self.pad, self.dilation, strict=True)
        )
        return first, second

    @property
    def params(self) -> tuple[int, ...]:
        return (self.groups, *self.stride, *self.pad, *self.dilation)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        g = self.groups
        return {
            "x": (self.images, g * self.channels, *self.size),
            "w": (g * self.filters, self.channels, *self.taps),
            "y": (self.images, g * self.filters, *self.out),
        }

    def terms(self, op: str) -> int:
        count = {"conv2d": self.channels, "conv2d_dx": self.filters, "conv2d_dw": self.images}[op]
        return count * int(np.prod(self.out if op == "conv2d_dw" else self.taps))

    def case(
        self,
        op: str,
        rng: np.random.Generator,
        special: bool = False,
        dtypes: tuple[DType, DType, DType] = (F32, F32, F32),
    ) -> Case:
        """The operator on random data, all of its terms. dtypes: of the two inputs and of the output."""
        shapes = self.tensors()
        first, second, out = {"conv2d": "xwy", "conv2d_dx": "ywx", "conv2d_dw": "yxw"}[op]
        inputs: list[Array] = [
            hostile(rng, dtype, shapes[name]) if special or dtype is not F32 else finite(rng, shapes[name])
            for name, dtype in zip((first, second), dtypes, strict=False)
        ]
        return Case(op, inputs, dtypes[2], shapes[out], (*self.params, 0, self.terms(op)))


def random_shape(rng: np.random.Generator, largest: int = 9) -> Shape:
    """Any geometry whose windows fit; borders of every kind, windows that see padding only, no images or channels."""
    while True:
        pairs = {
            name: (int(rng.choice(values)), int(rng.choice(values)))
            for name, values in {
                "size": [0, 1, 2, 3, 4, 5, 7, largest],
                "taps": [1, 1, 2, 3, 3, 4, 5],
                "stride": [1, 1, 2, 3],
                "pad": [0, 0, 1, 2, 3, 5],
                "dilation": [1, 1, 1, 2, 3],
            }.items()
        }
        counts = [int(rng.choice(v)) for v in ([0, 1, 2, 3], [1, 1, 2, 3], [0, 1, 2, 3, 17], [0, 1, 2, 7, 20])]
        shape = Shape(*counts, **pairs)
        if all(
            n + 2 * p >= d * (t - 1) + 1
            for n, p, d, t in zip(shape.size, shape.pad, shape.dilation, shape.taps, strict=True)
        ):
            return shape
