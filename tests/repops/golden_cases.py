"""One table of calls for every operator: the shapes, for each dtype that the operator's rule admits.

Pointwise operators and reductions need no entry: their arity is found by asking the rule. Any other operator needs one
in `SHAPES`; without it, `cases` raises MissingCases. The rule also says which dtypes a call may have, so a dtype that
an operator learns gets cases by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import prod

from golden_data import Data, Kind, Shape

from repops.dtypes import DType
from repops.graph.ir import Input, Node, Ref
from repops.ops.rules import RuleViolation, broadcast
from repops.ops.table import OPERATORS

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL
DTYPES = tuple(d for d in DType if d is not DType.ROOT)
PLAIN, SPECIAL, BITS, RANGE = Kind.PLAIN, Kind.SPECIAL, Kind.BITS, Kind.RANGE
LITERALS = (0x40A00000, 0x3727C5AC, 0x3E000000, 0x3F800000)  # 5, 1e-5, 1/8, 1
SCALE = (0x3E000000,)
PATTERN = -1  # a literal of the dtype T
BOTH = (PLAIN, SPECIAL)  # for folds: where one term is NaN, the rest decides nothing


class MissingCases(AssertionError):
    """An operator of the table has no golden cases."""


@dataclass(frozen=True)
class Arg:
    """An input. dtype: "T" (every dtype in turn, the same for all), "I" (an integer) or a DType."""

    shape: Shape
    dtype: DType | str = "T"
    kind: Kind | None = None  # None: the call's
    low: int = 0
    count: int = 0


@dataclass(frozen=True)
class Shaped:
    """One call of one operator, before dtypes are chosen."""

    inputs: Sequence[Arg]
    out: Shape
    params: Sequence[int] = ()
    literals: Sequence[int] = ()
    kinds: Sequence[Kind] = (Kind.SPECIAL,)


@dataclass(frozen=True)
class Golden:
    """One call with everything that decides its result."""

    name: str
    node: Node
    inputs: tuple[Data, ...]


def args(*shapes: Shape, dtype: DType | str = "T") -> list[Arg]:
    return [Arg(shape, dtype) for shape in shapes]


# ---- shapes ----------------------------------------------------------------------------------------------------------

BROADCASTS: list[list[Shape]] = [
    [()],
    [(0,)],
    [(3, 0, 5), (1, 5)],
    [(1,)],
    [(17,)],
    [(5, 77), (77,)],
    [(9, 1), (1, 35)],
    [(2, 3, 33), (3, 1), ()],
    [(3, 1, 2, 5), (7, 1, 1), (1, 7, 1, 5)],
    [(2, 1, 1, 3, 1, 1, 2, 40), (1, 2, 2, 1, 2, 1, 1, 1)],
    [(3, 11001)],
]


def pointwise(arity: int, first: DType | str, literals: int) -> Iterator[Shaped]:
    """Broadcasts, with the shapes dealt out to the inputs in turn."""
    for shapes in BROADCASTS:
        dealt = [shapes[i % len(shapes)] for i in range(max(arity, 1))]
        inputs = [Arg(s, first if i == 0 else "T") for i, s in enumerate(dealt)]
        yield Shaped(inputs, broadcast(dealt), (), LITERALS[:literals])


REDUCED: list[tuple[Shape, tuple[int, ...]]] = [
    ((0,), (0,)),
    ((3, 0), (1,)),
    ((0, 3), (1,)),
    ((0, 5), (0,)),
    ((1,), (0,)),
    ((7, 33), (1,)),
    ((5, 1100), (1,)),
    ((1100, 19), (0,)),
    ((70, 130), (0,)),
    ((3, 5, 7, 9), (1, 2)),
    ((2, 1025, 3), (1,)),
    ((2, 3, 4, 5), (0, 1, 2, 3)),
]
LONG = 16_684  # a fold of two links


def reduction(arity: int) -> Iterator[Shaped]:
    """Rows, columns, several axes; later inputs also with one value per row; the second link of a long fold."""
    for shape, axes in REDUCED:
        out = tuple(1 if i in axes else d for i, d in enumerate(shape))
        params = (len(axes), *axes, 0, prod(shape[a] for a in axes))
        yield Shaped(args(*[shape] * arity), out, params, (), BOTH)
        if arity > 1:
            yield Shaped(args(shape, *[out] * (arity - 1)), out, params, (), BOTH)
            others = args(shape, shape, *[out] * (arity - 2)) if arity > 2 else args(out, shape)
            yield Shaped(others, out, params)
    for shape, axis in [((2, LONG), 1), ((LONG, 3), 0)]:
        out = tuple(1 if i == axis else d for i, d in enumerate(shape))
        for start, stop in [(0, 16_384), (16_384, LONG)]:
            carry = [Arg(out, "C")] if start else []
            yield Shaped([*args(*[shape] * arity), *carry], out, (1, axis, start, stop), (), BOTH)


def matmul() -> Iterator[Shaped]:
    sizes = [(0, 3, 2), (3, 0, 2), (2, 3, 0), (1, 1, 1), (5, 300, 37), (33, 20, 16), (1, 600, 21), (20, 257, 3)]
    for (m, k, n), (ta, tb) in product([*sizes, (70, 64, 130)], [(0, 0), (0, 1), (1, 0), (1, 1)]):
        a, b = (k, m) if ta else (m, k), (n, k) if tb else (k, n)
        yield Shaped(args(a, b), (m, n), (ta, tb, 0, k), (), BOTH)
    for (m, k, n), (ta, tb) in product([(4, 33, 17), (1, 9, 40), (2, 0, 3)], [(0, 0), (0, 1), (1, 0)]):
        a, b = (3, k, m) if ta else (3, m, k), (3, n, k) if tb else (3, k, n)
        yield Shaped(args(a, b), (3, m, n), (ta, tb, 0, k), (), BOTH)
    for m, n in [(3, 18), (1, 5)]:
        for start, stop in [(0, 16_384), (16_384, LONG)]:
            carry = [Arg((m, n), "C")] if start else []
            yield Shaped([*args((m, LONG), (LONG, n)), *carry], (m, n), (0, 0, start, stop), (), BOTH)


CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [  # N, G, C, O, H, W, KH, KW; strides, pads, dilations
    ((2, 1, 5, 7, 6, 9, 3, 3), (1, 1, 1, 1, 1, 1)), ((2, 1, 3, 18, 9, 8, 3, 2), (2, 3, 2, 0, 1, 2)),
    ((1, 9, 1, 1, 7, 11, 3, 3), (1, 1, 1, 1, 1, 1)), ((2, 2, 20, 3, 5, 5, 1, 1), (1, 1, 0, 0, 1, 1)),
    ((1, 1, 3, 9, 16, 24, 8, 8), (8, 8, 0, 0, 1, 1)), ((1, 1, 3, 4, 15, 13, 7, 7), (2, 2, 3, 3, 1, 1)),
    ((3, 2, 33, 17, 4, 4, 3, 3), (1, 1, 2, 2, 2, 2)), ((1, 1, 2, 2, 1, 1, 1, 1), (2, 2, 3, 3, 1, 1)),
    ((0, 1, 2, 3, 4, 4, 3, 3), (1, 1, 1, 1, 1, 1)), ((2, 1, 0, 3, 4, 4, 3, 3), (1, 1, 1, 1, 1, 1)),
    ((1, 1, 2, 3, 0, 4, 1, 3), (1, 1, 1, 1, 1, 1)), ((1, 1, 1, 3, 4, 4, 17, 17), (1, 1, 16, 16, 1, 1)),
]  # fmt: skip
LONG_CONVOLUTION = {
    "conv2d": (1, 1, 1830, 2, 2, 3, 3, 3),
    "conv2d_dx": (1, 1, 2, 1830, 2, 3, 3, 3),
    "conv2d_dw": (3, 1, 2, 2, 75, 75, 3, 3),
}


def convolution(op: str) -> Iterator[Shaped]:
    calls = [*CONVOLUTIONS, (LONG_CONVOLUTION[op], (1, 1, 1, 1, 1, 1))]
    for (n, g, c, o, h, w, kh, kw), (sh, sw, ph, pw, dh, dw) in calls:
        oh, ow = (h + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (w + 2 * pw - dw * (kw - 1) - 1) // sw + 1
        roles: dict[str, Shape] = {"x": (n, g * c, h, w), "w": (g * o, c, kh, kw), "y": (n, g * o, oh, ow)}
        first, second, out = {"conv2d": "xwy", "conv2d_dx": "ywx", "conv2d_dw": "yxw"}[op]
        terms = {"conv2d": c * kh * kw, "conv2d_dx": o * kh * kw, "conv2d_dw": n * oh * ow}[op]
        for start in range(0, max(terms, 1), 16_384):
            carry = [Arg(roles[out], "C")] if start else []
            params = (g, sh, sw, ph, pw, dh, dw, start, min(start + 16_384, terms))
            yield Shaped([*args(roles[first], roles[second]), *carry], roles[out], params, (), BOTH)


ATTENTION = {
    "attention_scores": (("BTD", "BSD"), "BTS", SCALE),
    "attention_max": (("BTS",), "BT1", ()),
    "attention_sum": (("BTS", "BT1"), "BT1", ()),
    "attention_out": (("BTS", "BT1", "BT1", "BSE"), "BTE", ()),
    "attention_dv": (("BTS", "BT1", "BT1", "BTE"), "BSE", ()),
    "attention_dp": (("BTE", "BSE"), "BTS", ()),
    "attention_ds": (("BTS", "BT1", "BT1", "BTS", "BT1"), "BTS", ()),
    "attention_dq": (("BTS", "BSD"), "BTD", SCALE),
    "attention_dk": (("BTS", "BTD"), "BSD", SCALE),
}


def attention(op: str) -> Iterator[Shaped]:
    inputs, out, literals = ATTENTION[op]
    sizes = [(2, 45, 41, 20, 12), (1, 1, 1, 1, 1), (3, 5, 9, 0, 3), (2, 0, 4, 3, 3), (2, 3, 0, 3, 2), (0, 2, 2, 2, 2),
             (2, 70, 300, 8, 17), (1, 300, 33, 5, 8)]  # fmt: skip
    for size, causal in product(sizes, (0, 1)):
        letters = dict(zip("BTSDE", size, strict=True)) | {"1": 1}
        shape = [tuple(letters[x] for x in dims) for dims in (*inputs, out)]
        yield Shaped(args(*shape[:-1]), shape[-1], (causal,), literals, BOTH)


def permute() -> Iterator[Shaped]:
    for shape, dims in [
        ((), ()), ((0, 4), (1, 0)), ((7,), (0,)), ((37, 65), (1, 0)), ((3, 5, 17), (2, 0, 1)), ((3, 5, 17), (0, 2, 1)),
        ((2, 3, 4, 5), (0, 2, 1, 3)), ((2, 1, 3, 2, 1, 2, 3, 2), (7, 3, 0, 5, 1, 2, 6, 4)), ((130, 257), (1, 0)),
    ]:  # fmt: skip
        yield Shaped(args(shape), tuple(shape[d] for d in dims), dims)


def expand() -> Iterator[Shaped]:
    for shape, out in [
        ((), ()), ((), (3, 5)), ((1,), (0,)), ((0, 1), (0, 9)), ((1, 7), (5, 7)), ((5, 1), (5, 70)),
        ((3, 1, 2), (4, 3, 5, 2)), ((1, 6, 1, 1, 2), (2, 2, 6, 3, 1, 2)), ((9000,), (3, 9000)),
    ]:  # fmt: skip
        yield Shaped(args(shape), out)


SLICES = [  # shape, axis, start, step, length
    ((7,), 0, 0, 1, 7), ((7,), 0, 3, 1, 0), ((7,), 0, 7, 1, 0), ((0,), 0, 0, 5, 0), ((0, 4), 1, 1, 2, 2),
    ((33, 20), 0, 2, 3, 9), ((33, 20), 1, 1, 2, 10), ((5, 6, 17), 1, 0, 5, 2), ((4, 300), 1, 17, 1, 200),
    ((3, 5), 1, 4, 2**62, 1), ((3, 9, 1, 2), 1, 0, 4, 3), ((2, 20000), 1, 3, 2, 9000),
]  # fmt: skip


def slice_(op: str) -> Iterator[Shaped]:
    for shape, axis, start, step, length in SLICES:
        part = (*shape[:axis], length, *shape[axis + 1 :])
        source, out = (shape, part) if op == "slice" else (part, shape)
        yield Shaped(args(source), out, (axis, start, step))


def cat() -> Iterator[Shaped]:
    for axis, shapes in [
        (0, [(5,)]), (0, [(0,), (0,)]), (0, [(3, 4), (0, 4), (2, 4)]), (1, [(3, 4), (3, 0), (3, 1), (3, 9)]),
        (1, [(2, 1, 5), (2, 3, 5)]), (2, [(2, 3, 1), (2, 3, 31)]), (0, [(40, 300), (1, 300)]),
    ]:  # fmt: skip
        out = list(shapes[0])
        out[axis] = sum(s[axis] for s in shapes)
        yield Shaped(args(*shapes), tuple(out), (axis,))


INDEXED = [  # x, index, axis
    ((7,), (12,), 0), ((7,), (0,), 0), ((0,), (3,), 0), ((0, 4), (5, 4), 0), ((5, 6), (5, 40), 1), ((5, 6), (3, 6), 0),
    ((3, 5, 9), (2, 7, 9), 1), ((3, 5, 9), (3, 5, 1), 2), ((4, 1000), (3, 1), 1), ((200, 33), (9, 30), 0),
]  # fmt: skip


def index_of(size: int, shape: Shape) -> Arg:
    """Indices with duplicates, three of them out of range on either side."""
    return Arg(shape, "I", RANGE, -3, size + 6)


def indexed(op: str) -> Iterator[Shaped]:
    for x, index, axis in INDEXED:
        for where in (index_of(x[axis], index), Arg(index, "I", SPECIAL)):
            scattered = op == "scatter"
            yield Shaped([Arg(x), where], x if scattered else index, (axis,), (PATTERN,) if scattered else ())


def embedding() -> Iterator[Shaped]:
    for v, d, index in [(11, 5, ()), (11, 0, (4,)), (0, 3, (2, 2)), (9, 33, (0, 3)), (50, 64, (3, 40)), (7, 1, (9,))]:
        for where in (index_of(v, index), Arg(index, "I", SPECIAL)):
            yield Shaped([Arg((v, d)), where], (*index, d))


def embedding_grad() -> Iterator[Shaped]:
    for v, d, n in [(11, 5, 1), (11, 0, 4), (0, 3, 4), (9, 33, 0), (50, 64, 120), (7, 1, 9), (3, 40, 700)]:
        for where in (index_of(v, (n,)), Arg((n,), "I", SPECIAL)):
            yield Shaped([Arg((n, d)), where], (v, d), (0, n), (), BOTH)
    for start, stop in [(0, 16_384), (16_384, LONG)]:
        carry = [Arg((5, 3), "C")] if start else []
        yield Shaped([Arg((LONG, 3)), index_of(5, (LONG,)), *carry], (5, 3), (start, stop), (), BOTH)


def iota() -> Iterator[Shaped]:
    for shape, start, step in [((), 3, 1), ((0,), 0, 1), ((70,), -5, 3), ((3, 7), 2**63 - 5, 2), ((5,), 1, -(2**63))]:
        yield Shaped([], shape, (start, step))


def cumsum() -> Iterator[Shaped]:
    for dtype in (DType.I64, BOOL):
        for shape, axis in [((7,), 0), ((0,), 0), ((3, 0), 0), ((5, 33), 1), ((5, 33), 0), ((2, 700, 3), 1)]:
            yield Shaped([Arg(shape, dtype)], shape, (axis,))


def philox() -> Iterator[Shaped]:
    for shape, node in [((), 0), ((0,), 3), ((1,), 1), ((70,), 2**24 - 1), ((3, 7, 11), 5), ((40_001,), 9)]:
        yield Shaped([Arg((), DType.I64, SPECIAL), Arg((), DType.I64, SPECIAL)], shape, (node,))


def fill() -> Iterator[Shaped]:
    for shape in [(), (0, 3), (1,), (19,), (3, 7, 11), (40_000,)]:
        yield Shaped([], shape, (), (PATTERN,))


POOLS: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = [  # x, output's rows and columns, geometry
    ((2, 9, 21), (5, 11), (3, 3, 2, 2, 1, 1)),
    ((3, 8, 40), (4, 20), (2, 2, 2, 2, 0, 0)),
    ((1, 1, 37), (1, 37), (1, 3, 1, 1, 0, 1)),
    ((2, 7, 11), (3, 5), (0, 0, 1, 1, 0, 0)),
    ((2, 5, 6), (1, 1), (5, 6, 5, 6, 0, 0)),
    ((2, 4, 5), (7, 3), (0, 2, 1, 2, 0, 1)),
    ((2, 10, 30), (4, 6), (4, 5, 3, 5, 1, 2)),
    ((0, 4, 4), (2, 2), (2, 2, 2, 2, 0, 0)),
    ((1, 3, 3), (0, 2), (2, 2, 1, 1, 0, 0)),
    ((1, 130, 126), (1, 1), (130, 126, 1, 1, 0, 0)),
]


def pools(op: str) -> Iterator[Shaped]:
    """Every geometry with two more params each: dilations, or padding that counts and a divisor."""
    for number, (x, size, geometry) in enumerate(POOLS):
        y = (x[0], *size)
        read, out = (y, x) if op.endswith("_grad") else (x, y)
        more = [(0, 0), (1, 0), (0, 3)] if op.startswith("avg") else [(1, 1), (2, 3), (1, 1)]
        for last in dict.fromkeys(more if number == 0 else [more[2 * (number % 2)]]):
            if op == "max_pool_grad":
                for where in (index_of(x[1] * x[2], y), Arg(y, "I", SPECIAL)):
                    yield Shaped([Arg(y), where], x, (*geometry, *last), (), BOTH)
            else:
                yield Shaped(args(read), out, (*geometry, *last), (), BOTH)


SHAPES: dict[str, Callable[[], Iterator[Shaped]]] = {
    "matmul": matmul,
    **{op: (lambda op=op: convolution(op)) for op in LONG_CONVOLUTION},
    **{op: (lambda op=op: attention(op)) for op in ATTENTION},
    **{
        op: (lambda op=op: pools(op))
        for op in ("max_pool", "max_pool_index", "max_pool_grad", "avg_pool", "avg_pool_grad")
    },
    "permute": permute,
    "expand": expand,
    "slice": lambda: slice_("slice"),
    "slice_grad": lambda: slice_("slice_grad"),
    "cat": cat,
    "gather": lambda: indexed("gather"),
    "scatter": lambda: indexed("scatter"),
    "embedding": embedding,
    "embedding_grad": embedding_grad,
    "iota": iota,
    "cumsum": cumsum,
    "philox": philox,
    "fill": fill,
}

# ---- dtypes ----------------------------------------------------------------------------------------------------------


def _admitted(op: str, shaped: Shaped) -> int:
    return sum(1 for _ in _typed(op, shaped, PLAIN))


def shapes_of(op: str) -> list[Shaped]:
    """The calls of an operator: its entry in SHAPES, or a pointwise operator or a reduction of the arity it has.

    Raises MissingCases.
    """
    if op in SHAPES:
        return list(SHAPES[op]())
    for arity, literals in product(range(1, 9), range(len(LITERALS) + 1)):
        rest = args(*[(3,)] * (arity - 1))
        admitted = {
            first: _admitted(op, Shaped([Arg((3,), first), *rest], (3,), (), LITERALS[:literals]))
            for first in ("T", BOOL)
        }
        if any(admitted.values()):
            return list(pointwise(arity, max(admitted, key=lambda first: admitted[first]), literals))
    for arity in range(1, 6):
        if _admitted(op, Shaped(args(*[(2, 3)] * arity), (2, 1), (1, 1, 0, 3))):
            return list(reduction(arity))
    raise MissingCases(
        f"operator {op!r} has no golden cases: give it an entry in SHAPES of tests/repops/golden_cases.py, "
        "then run `make vectors`"
    )


def _pattern(dtype: DType) -> int:
    return 1 if dtype is BOOL else 0x8142434485464748 & (1 << dtype.bits) - 1


MIXED = (DType.BF16, F32, DType.F16)  # inputs of different dtypes


def _typed(op: str, shaped: Shaped, kind: Kind) -> Iterator[tuple[bool, Node, tuple[Data, ...]]]:
    """The nodes that the rule admits, over all dtypes of the variables and of the output.

    The first of the three: whether the inputs have one dtype, and the output the same if there may be such an output.
    """
    used = [a.dtype for a in shaped.inputs]
    if "T" in used:
        ts: list[tuple[DType, ...]] = [(d,) for d in DTYPES] + ([MIXED] if used.count("T") > 1 else [])
    else:
        ts = [(d,) for d in DTYPES] if PATTERN in shaped.literals else [(F32,)]
    for t, i in product(ts, (I64, DType.I32) if "I" in used else (I64,)):
        found: list[tuple[Node, tuple[Data, ...]]] = []
        for out in DTYPES if "T" in used or PATTERN not in shaped.literals else t:
            for carry in {out, F32} if "C" in used else {out}:
                data = [
                    Data(d, a.shape, kind if a.kind is None else a.kind, 0, a.low, a.count)
                    for n, a in enumerate(shaped.inputs)
                    for d in [
                        a.dtype if isinstance(a.dtype, DType) else {"T": t[n % len(t)], "I": i, "C": carry}[a.dtype]
                    ]
                ]
                inputs = tuple(Input(Ref.batch(n), d.dtype, d.shape) for n, d in enumerate(data))
                literals = tuple(_pattern(t[0]) if x == PATTERN else x for x in shaped.literals)
                node = Node(op, tuple(shaped.params), literals, inputs, out, shaped.out)
                if _admits(node):
                    found.append((node, tuple(data)))
        alike = t[0] in {node.dtype for node, _ in found}
        for node, given in found:
            yield len(t) == 1 and (node.dtype is t[0] or not alike), node, given


def _chosen(dtype: DType | str, t: DType, i: DType, carry: DType) -> DType:
    return dtype if isinstance(dtype, DType) else {"T": t, "I": i, "C": carry}[dtype]


def _admits(node: Node) -> bool:
    try:
        OPERATORS[node.op].rule(node)
    except RuleViolation:
        return False
    return True


def _name(node: Node, data: Sequence[Data]) -> str:
    def tensor(dtype: DType, shape: Shape) -> str:
        return f"{dtype.text}[{'x'.join(map(str, shape))}]"

    read = ", ".join(
        tensor(d.dtype, d.shape)
        + (f" {d.low}..{d.low + d.count - 1}" if d.kind is RANGE else f" {d.kind.name.lower()}")
        for d in data
    )
    params = f" {list(node.params)}" if node.params else ""
    return f"{node.op}{params}({read}) -> {tensor(node.dtype, node.shape)}"


@cache
def cases(op: str) -> tuple[Golden, ...]:
    """All golden calls of one operator. Raises MissingCases.

    Every shape in every dtype, in f32 with every kind of data, in others with one; mixtures, and indices in i32, for
    every fifth shape.
    """
    found: list[Golden] = []
    seen: set[str] = set()
    for number, shaped in enumerate(shapes_of(op)):
        for choice, kind in enumerate(shaped.kinds):
            for uniform, node, data in _typed(op, shaped, kind):
                name = _name(node, data)
                alternative = not uniform or any(d.kind is RANGE and d.dtype is not I64 for d in data)
                wanted = number % 5 == 4 if alternative else True
                once = data == () or data[0].dtype is F32 or choice == number % len(shaped.kinds)
                if name in seen or not wanted or not once:
                    continue
                seen.add(name)
                seeded = (replace(d, seed=100 * len(seen) + k) for k, d in enumerate(data))
                found.append(Golden(name, node, tuple(seeded)))
    return tuple(found)
