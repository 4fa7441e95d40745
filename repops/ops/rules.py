"""Shape rules of the operators (docs/spec/operators.md): what a node must look like to be executed.

A rule takes a node whose refs were checked already and raises RuleViolation if its arity, dtypes, params, literals or
output do not fit the operator. Kernels rely on these rules and check nothing.

Where an operator takes f32, it takes bf16 and f16 as well, each input by itself, and its output may be any of the three
("float" below); a carry, and a link of a fold that is not the last, are f32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from repops.dtypes import DType
from repops.graph.ir import MAX_ELEMENTS, MAX_RANK, Input, Node, Shape, extent

FOLD_TERMS = 16_384
ATTENTION_LIMIT = 16_384
WINDOW_LIMIT = 2**31

Rule = Callable[[Node], None]

F32, I64, I32, BOOL = DType.F32, DType.I64, DType.I32, DType.BOOL


class RuleViolation(Exception):
    """A node breaks its operator's rule; `Program.check` turns it into a ProgramError that names the node."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.what = what
        self.cure = cure


def require(condition: bool, what: str, cure: str) -> None:
    """Raises RuleViolation unless the condition holds."""
    if not condition:
        raise RuleViolation(what, cure)


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The NumPy broadcast of shapes. Raises RuleViolation if there is none."""
    rank = max((len(s) for s in shapes), default=0)
    out = [1] * rank
    for shape in shapes:
        for i, d in enumerate(shape, rank - len(shape)):
            if d != 1:
                require(out[i] in (1, d), f"shapes {_shapes(shapes)} do not broadcast", "Align them at the right")
                out[i] = d
    require(extent(out) <= MAX_ELEMENTS, f"shapes {_shapes(shapes)} broadcast to too much", "At most 2^40 elements")
    return tuple(out)


def fold_ranges(terms: int) -> list[tuple[int, int]]:
    """The links (start, stop) into which a fold over `terms` terms is cut; one link if there are no terms."""
    return [(start, min(start + FOLD_TERMS, terms)) for start in range(0, max(terms, 1), FOLD_TERMS)]


def pointwise(*dtypes: DType | str, out: DType | str, literals: int = 0) -> Rule:
    """Elementwise with broadcasting. F32 stands for any float.

    A dtype may be "T" (floats, or i64 for all, or i32 for all) or "any" (equal for all).
    """

    def rule(node: Node) -> None:
        _arity(node, len(dtypes))
        _params(node, 0)
        _f32_literals(node, literals)
        bound = _bind(node, dtypes)
        wanted = bound if isinstance(out, str) else out
        shape = broadcast([i.shape for i in node.inputs])
        if wanted.is_float and out != "any":
            _float_output(node, shape)
        else:
            _output(node, wanted, shape)

    return rule


def cast(node: Node) -> None:
    """Any dtype to any dtype."""
    _arity(node, 1)
    _params(node, 0)
    _f32_literals(node, 0)
    _output(node, node.dtype, node.inputs[0].shape)


def reduction(arity: int, dtypes: tuple[DType, ...] = (F32,)) -> Rule:
    """Params [n, axis_1 .. axis_n, start, stop]; optional carry. F32 stands for any float; other sums give i64."""

    def rule(node: Node) -> None:
        _literal_count(node, 0)
        require(len(node.params) >= 4, "too few params", "Reductions have params [n, axis_1 .. axis_n, start, stop]")
        n, axes, (start, stop) = node.params[0], node.params[1:-2], node.params[-2:]
        require(n >= 1 and len(axes) == n, f"n is {n}, but there are {len(axes)} axes", "n counts the axes, at least 1")
        _arity(node, arity + (start > 0))
        operands = node.inputs[:arity]
        shape = broadcast([i.shape for i in operands])
        require(
            axes[0] >= 0 and axes[-1] < len(shape) and all(b == a + 1 for a, b in pairwise(axes)),
            f"axes {list(axes)} of shape {list(shape)}",
            "Axes are non-negative, ascending and adjacent: permute the input first",
        )
        for item in operands:
            known = item.dtype in dtypes or (item.dtype.is_float and F32 in dtypes)
            require(known, f"an input is {item.dtype.text}", f"Use {_names(dtypes)}")
        terms = 1
        for axis in axes:
            terms *= shape[axis]
        result = F32 if operands[0].dtype.is_float else I64
        output = tuple(1 if i in axes else d for i, d in enumerate(shape))
        _fold(node, terms, start, stop, result, output)

    return rule


def matmul(node: Node) -> None:
    """Params [ta, tb, start, stop]; rank 2, or rank 3 with equal first dimension; a fold over k."""
    _literal_count(node, 0)
    _params(node, 4)
    ta, tb, start, stop = node.params
    require(ta in (0, 1) and tb in (0, 1), f"ta, tb are {ta}, {tb}", "They are 0 or 1")
    _arity(node, 2 + (start > 0))
    a, b = node.inputs[:2]
    rank = len(a.shape)
    require(
        rank in (2, 3) and len(b.shape) == rank and a.shape[:-2] == b.shape[:-2],
        f"shapes {_shapes([a.shape, b.shape])}",
        "Both have rank 2, or both rank 3 with equal first dimension",
    )
    m, k = a.shape[-2:] if not ta else a.shape[:-3:-1]
    k2, n = b.shape[-2:] if not tb else b.shape[:-3:-1]
    require(k == k2, f"inner dimensions {k} and {k2} differ", "They must be equal")
    _floats(node.inputs[:2])
    _fold(node, k, start, stop, F32, (*a.shape[:-2], m, n))


def convolution(name: str) -> Rule:
    """x [N, G C, H, W], w [G O, C, KH, KW], y [N, G O, OH, OW], two of them to the third; a fold over what they share.

    Params [groups, stride, stride, pad, pad, dilation, dilation, start, stop], height before width.
    """
    roles = _CONVOLUTION[name]

    def rule(node: Node) -> None:
        _literal_count(node, 0)
        _params(node, 9)
        groups, start, stop = node.params[0], *node.params[-2:]
        _arity(node, 2 + (start > 0))
        _floats(node.inputs[:2])
        shapes = dict(zip(roles, (*(i.shape for i in node.inputs[:2]), node.shape), strict=True))
        require(
            all(len(s) == 4 for s in shapes.values()),
            f"shapes {_shapes(list(shapes.values()))}",
            "Images, weights and gradients have rank 4",
        )
        x, w, y = (shapes[r] for r in "xwy")
        require(1 <= groups < WINDOW_LIMIT, f"groups are {groups}", f"At least 1, below {WINDOW_LIMIT}")
        require(
            x[0] == y[0] and x[1] == groups * w[1] and y[1] == w[0] and w[0] % groups == 0,
            f"x {list(x)}, w {list(w)}, y {list(y)} with {groups} groups",
            "They are [N, G C, H, W], [G O, C, KH, KW] and [N, G O, OH, OW]",
        )
        for axis, (stride, pad, dilation) in enumerate(zip(*(node.params[i : i + 2] for i in (1, 3, 5)), strict=True)):
            window(x[2 + axis], w[2 + axis], y[2 + axis], stride, pad, dilation)
        terms = {"conv2d": w[1:], "conv2d_dx": (w[0] // groups, *w[2:]), "conv2d_dw": (y[0], *y[2:])}[name]
        _fold(node, prod(terms), start, stop, F32, node.shape)

    return rule


_CONVOLUTION = {"conv2d": "xwy", "conv2d_dx": "ywx", "conv2d_dw": "yxw"}


def window(size: int, taps: int, out: int, stride: int, pad: int, dilation: int) -> None:
    """One axis of a convolution: `out` windows of `taps` taps over `size` positions with `pad` more on either side.

    Raises RuleViolation.
    """
    for name, value, low in (("size", size, 0), ("taps", taps, 1), ("stride", stride, 1), ("pad", pad, 0)):
        require(low <= value < WINDOW_LIMIT, f"{name} is {value}", f"At least {low}, below {WINDOW_LIMIT}")
    require(1 <= dilation < WINDOW_LIMIT, f"dilation is {dilation}", f"At least 1, below {WINDOW_LIMIT}")
    room = size + 2 * pad - dilation * (taps - 1) - 1
    require(
        room >= 0, f"a window of {dilation * (taps - 1) + 1} over {size + 2 * pad}", "A window fits the padded axis"
    )
    require(
        out == room // stride + 1,
        f"{out} windows of {taps} taps over {size}, stride {stride}, pad {pad}, dilation {dilation}",
        f"There are {room // stride + 1}",
    )


def pool(name: str) -> Rule:
    """x [P, H, W] to y [P, OH, OW], or dy (and the index of y) to dx.

    Params: taps, strides and pads of each axis, then its dilations, or, of averages, whether padding counts and the
    divisor (0: the count). An axis with 0 taps is adaptive.
    """

    def rule(node: Node) -> None:
        _params(node, 8)
        _literal_count(node, 0)
        _arity(node, 2 if name == "max_pool_grad" else 1)
        _floats(node.inputs[:1])
        first = node.inputs[0].shape
        require(len(first) == 3, f"its input has shape {list(first)}", "It is [planes, rows, columns]")
        if name == "max_pool_grad":
            _indices(node.inputs[1])
            shapes = [i.shape for i in node.inputs]
            require(shapes[0] == shapes[1], f"shapes {_shapes(shapes)}", "dy and the index have one shape")
        require(
            len(node.shape) == 3 and node.shape[0] == first[0],
            f"{list(first)} to {list(node.shape)}",
            "Both are [planes, rows, columns]",
        )
        x, y = (node.shape, first) if name.endswith("_grad") else (first, node.shape)
        dilations = node.params[6:]
        if name.startswith("avg"):
            dilations = (1, 1)
            require(node.params[6] in (0, 1), f"include_pad is {node.params[6]}", "It is 0 or 1")
        geometry = zip(x[1:], y[1:], *(node.params[i : i + 2] for i in (0, 2, 4)), dilations, strict=True)
        reaches = [_pool_axis(*axis) for axis in geometry]
        for reach in zip(*reaches, strict=True):
            require(
                reach[0] * reach[1] <= FOLD_TERMS, f"a fold over {reach[0] * reach[1]} terms", f"At most {FOLD_TERMS}"
            )
        if name == "max_pool_index":
            _output(node, I64, node.shape)
        else:
            _float_output(node, node.shape)

    return rule


def _pool_axis(size: int, out: int, taps: int, stride: int, pad: int, dilation: int) -> tuple[int, int]:
    """Checks one axis of a pooling; at most how many positions a window has, and how many windows a position."""
    for what, value, low in (
        ("size", size, 0),
        ("output", out, 0),
        ("taps", taps, 0),
        ("stride", stride, 1),
        ("dilation", dilation, 1),
    ):
        require(low <= value < WINDOW_LIMIT, f"{what} is {value}", f"At least {low}, below {WINDOW_LIMIT}")
    require(0 <= pad <= taps // 2, f"pad is {pad} of {taps} taps", "At least 0, at most half the taps")
    if taps == 0:
        require(stride == dilation == 1, f"stride {stride}, dilation {dilation}", "Both are 1 on an adaptive axis")
        require(size > 0 or out == 0, f"{out} adaptive windows over nothing", "They have something to cover")
        return pool_reach(size, out, taps, stride, dilation)
    require(
        out == 0 or (out - 1) * stride - pad < size,
        f"{out} windows over {size}, stride {stride}, pad {pad}",
        "Every window begins before the end",
    )
    return pool_reach(size, out, taps, stride, dilation)


def pool_reach(size: int, out: int, taps: int, stride: int, dilation: int) -> tuple[int, int]:
    """Along an axis of a pooling: at most how many positions a window has, and how many windows may have a position."""
    if taps == 0:
        return (-(-size // max(out, 1)) + 1, -(-out // max(size, 1)) + 1)
    return (taps, min(out, (taps - 1) * dilation // stride + 1))


def attention(name: str) -> Rule:
    """One operator of the attention group; param [causal], literal scale where the table of the spec has one."""

    def rule(node: Node) -> None:
        _params(node, 1)
        require(node.params[0] in (0, 1), f"causal is {node.params[0]}", "It is 0 or 1")
        names, out = _ATTENTION[name]
        _arity(node, len(names))
        _floats(node.inputs)
        _f32_literals(node, 1 if name in _SCALED else 0)
        sizes: dict[str, int] = {"1": 1}
        for i, dims in enumerate(names):
            shape = node.inputs[i].shape
            require(len(shape) == 3, f"input {i} has shape {list(shape)}", f"It is [{', '.join(dims)}]")
            for letter, d in zip(dims, shape, strict=True):
                require(
                    sizes.setdefault(letter, d) == d,
                    f"input {i} has shape {list(shape)}, {letter} is {sizes[letter]}",
                    f"It is [{', '.join(dims)}]",
                )
        for letter in "TSDE":
            size = sizes.get(letter, 0)
            require(size <= ATTENTION_LIMIT, f"{letter} is {size}", f"Attention is limited to {ATTENTION_LIMIT}")
        _float_output(node, tuple(sizes[letter] for letter in out))

    return rule


_SCALED = ("attention_scores", "attention_dq", "attention_dk")
# Dimensions of the inputs and of the output, by letter (docs/spec/operators.md, "Attention group").
_ATTENTION: dict[str, tuple[tuple[str, ...], str]] = {
    "attention_scores": (("BTD", "BSD"), "BTS"),
    "attention_max": (("BTS",), "BT1"),
    "attention_sum": (("BTS", "BT1"), "BT1"),
    "attention_out": (("BTS", "BT1", "BT1", "BSE"), "BTE"),
    "attention_dv": (("BTS", "BT1", "BT1", "BTE"), "BSE"),
    "attention_dp": (("BTE", "BSE"), "BTS"),
    "attention_ds": (("BTS", "BT1", "BT1", "BTS", "BT1"), "BTS"),
    "attention_dq": (("BTS", "BSD"), "BTD"),
    "attention_dk": (("BTS", "BTD"), "BSD"),
}


def permute(node: Node) -> None:
    """Params: the permutation."""
    _arity(node, 1)
    _literal_count(node, 0)
    shape = node.inputs[0].shape
    require(
        sorted(node.params) == list(range(len(shape))),
        f"dims {list(node.params)} for rank {len(shape)}",
        "They are a permutation of the axes",
    )
    _output(node, node.inputs[0].dtype, tuple(shape[d] for d in node.params))


def expand(node: Node) -> None:
    """Broadcast to the output shape."""
    _arity(node, 1)
    _params(node, 0)
    _literal_count(node, 0)
    shape = node.inputs[0].shape
    require(
        len(shape) <= len(node.shape) and broadcast([shape, node.shape]) == node.shape,
        f"{list(shape)} does not broadcast to {list(node.shape)}",
        "Align the shapes at the right",
    )
    _output(node, node.inputs[0].dtype, node.shape)


def slice_(node: Node) -> None:
    """Params [axis, start, step]; the length is the output's."""
    _arity(node, 1)
    _literal_count(node, 0)
    _output(node, node.inputs[0].dtype, _sliced(node, node.inputs[0].shape, node.shape))


def slice_grad(node: Node) -> None:
    """Params [axis, start, step]: the input is a slice of the output."""
    _arity(node, 1)
    _literal_count(node, 0)
    shape = _sliced(node, node.shape, node.inputs[0].shape)
    require(
        shape == node.inputs[0].shape,
        f"input {list(node.inputs[0].shape)} of output {list(node.shape)}",
        "The input has the output's shape, but for the axis",
    )
    _output(node, node.inputs[0].dtype, node.shape)


def _sliced(node: Node, whole: Shape, part: Shape) -> Shape:
    """The shape of a slice of `whole` with the length that `part` has along the axis."""
    _params(node, 3)
    axis, start, step = node.params
    require(
        0 <= axis < len(whole) and len(part) == len(whole), f"axis {axis}, rank {len(whole)}", "Axis is in the rank"
    )
    length = part[axis]
    require(
        start >= 0 and step >= 1 and (start if length == 0 else start + (length - 1) * step + 1) <= whole[axis],
        f"start {start}, step {step}, length {length} along {whole[axis]}",
        "A slice lies inside the axis",
    )
    return (*whole[:axis], length, *whole[axis + 1 :])


def cat(node: Node) -> None:
    """Param [axis]; at least one input; equal dtypes and shapes but for the axis."""
    _params(node, 1)
    _literal_count(node, 0)
    require(len(node.inputs) >= 1, "no inputs", "cat takes one or more")
    first, axis = node.inputs[0], node.params[0]
    require(0 <= axis < len(first.shape), f"axis {axis} for rank {len(first.shape)}", "Axis is in the rank")
    _dtypes(node.inputs, first.dtype)
    total = 0
    for i, item in enumerate(node.inputs):
        require(
            len(item.shape) == len(first.shape)
            and all(d == e for j, (d, e) in enumerate(zip(item.shape, first.shape, strict=True)) if j != axis),
            f"input {i} has shape {list(item.shape)}, input 0 {list(first.shape)}",
            f"Shapes agree but for axis {axis}",
        )
        total += item.shape[axis]
    _output(node, first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :]))


def gather(node: Node) -> None:
    """x, index; param [axis]; output has index's shape."""
    _literal_count(node, 0)
    _indexed(node)
    _output(node, node.inputs[0].dtype, node.inputs[1].shape)


def scatter(node: Node) -> None:
    """x, index; param [axis]; one literal, a pattern of x's dtype."""
    _indexed(node)
    _pattern(node)
    _output(node, node.inputs[0].dtype, node.inputs[0].shape)


def _indexed(node: Node) -> None:
    _arity(node, 2)
    _params(node, 1)
    (x, index), axis = node.inputs, node.params[0]
    _indices(node.inputs[1])
    require(0 <= axis < len(x.shape), f"axis {axis} for rank {len(x.shape)}", "Axis is in the rank")
    require(
        len(index.shape) == len(x.shape)
        and all(i <= d for j, (i, d) in enumerate(zip(index.shape, x.shape, strict=True)) if j != axis),
        f"index has shape {list(index.shape)}, x {list(x.shape)}",
        "Equal ranks, and index is nowhere longer than x but along the axis",
    )


def embedding(node: Node) -> None:
    """weight [V, D], index -> index.shape + [D]."""
    _arity(node, 2)
    _params(node, 0)
    _literal_count(node, 0)
    weight, index = node.inputs
    _indices(index)
    require(len(weight.shape) == 2, f"weight has shape {list(weight.shape)}", "It is [V, D]")
    require(
        len(index.shape) < MAX_RANK, f"index has rank {len(index.shape)}", f"The output has at most rank {MAX_RANK}"
    )
    _output(node, weight.dtype, (*index.shape, weight.shape[1]))


def embedding_grad(node: Node) -> None:
    """dy [n, D], index [n] [, carry] -> [V, D]; params [start, stop]; a fold over n."""
    _params(node, 2)
    _literal_count(node, 0)
    start, stop = node.params
    _arity(node, 2 + (start > 0))
    dy, index = node.inputs[:2]
    _floats(node.inputs[:1])
    _indices(index)
    require(
        len(dy.shape) == 2 and index.shape == dy.shape[:1] and len(node.shape) == 2 and node.shape[1] == dy.shape[1],
        f"shapes {_shapes([dy.shape, index.shape])} to {list(node.shape)}",
        "They are [n, D] and [n] to [V, D]",
    )
    _fold(node, dy.shape[0], start, stop, F32, node.shape)


def cumsum(node: Node) -> None:
    """Param [axis]; i64 or bool to i64; the axis is at most FOLD_TERMS long."""
    _arity(node, 1)
    _params(node, 1)
    _literal_count(node, 0)
    (x,), (axis,) = node.inputs, node.params
    require(x.dtype in (I64, BOOL), f"its input is {x.dtype.text}", "Running sums are of i64 or bool")
    require(0 <= axis < len(x.shape), f"axis {axis} for rank {len(x.shape)}", "Axis is in the rank")
    require(x.shape[axis] <= FOLD_TERMS, f"axis {axis} is {x.shape[axis]} long", f"At most {FOLD_TERMS}")
    _output(node, I64, x.shape)


def philox(node: Node) -> None:
    """seed, step: i64 scalars; param [node]; f32 of any shape."""
    _arity(node, 2)
    _params(node, 1)
    _literal_count(node, 0)
    _dtypes(node.inputs, I64)
    require(
        all(i.shape == () for i in node.inputs),
        f"shapes {_shapes([i.shape for i in node.inputs])}",
        "Seed and step are scalars",
    )
    require(0 <= node.params[0] < 2**24, f"node is {node.params[0]}", "It is at least 0 and below 2^24")
    _output(node, F32, node.shape)


def iota(node: Node) -> None:
    """Params [start, step]; i64."""
    _arity(node, 0)
    _params(node, 2)
    _literal_count(node, 0)
    _output(node, I64, node.shape)


def fill(node: Node) -> None:
    """One literal, a pattern of the output's dtype."""
    _arity(node, 0)
    _params(node, 0)
    _pattern(node)


def _fold(node: Node, terms: int, start: int, stop: int, dtype: DType, shape: Shape) -> None:
    """A link of a fold: its range, the carry (already counted) of this dtype and shape, and the output.

    If the dtype is f32, the last link may have any float as its output: what a link rounds, no other continues.
    """
    require(
        start >= 0
        and start % FOLD_TERMS == 0
        and (start < terms or start == 0)
        and stop == min(start + FOLD_TERMS, terms),
        f"range [{start}, {stop}) of {terms} terms",
        f"start is a multiple of {FOLD_TERMS}, stop is start + {FOLD_TERMS} or the end",
    )
    if start > 0:
        carry = node.inputs[-1]
        require(
            carry.dtype is dtype and carry.shape == shape,
            f"the carry is {carry.dtype.text}{list(carry.shape)}",
            f"It is {dtype.text}{list(shape)}",
        )
    if dtype is F32 and stop == terms:
        _float_output(node, shape)
    else:
        _output(node, dtype, shape)


def _bind(node: Node, dtypes: Sequence[DType | str]) -> DType:
    """Checks the input dtypes; returns what the variable ("T" or "any") stands for, f32 if there is none."""
    bound: DType | None = None
    for i, (item, wanted) in enumerate(zip(node.inputs, dtypes, strict=True)):
        found = item.dtype
        if isinstance(wanted, DType):
            fits = found.is_float if wanted is F32 else found is wanted
            require(fits, f"input {i} is {found.text}", f"It is {_FLOATS if wanted is F32 else wanted.text}")
            continue
        if wanted == "T":
            require(found is not BOOL, f"input {i} is {found.text}", f"Use {_FLOATS}, i64 or i32")
            found = F32 if found.is_float else found
        require(bound is None or found is bound, f"input {i} is {item.dtype.text}", "These inputs have one dtype")
        bound = found
    return bound or F32


_FLOATS = "f32, bf16 or f16"


def _floats(inputs: Sequence[Input]) -> None:
    for item in inputs:
        require(item.dtype.is_float, f"an input is {item.dtype.text}", f"It is {_FLOATS}")


def _indices(index: Input) -> None:
    require(index.dtype in (I64, I32), f"the index is {index.dtype.text}", "It is i64 or i32")


def _float_output(node: Node, shape: Shape) -> None:
    require(
        node.dtype.is_float and node.shape == shape,
        f"its output is {node.dtype.text}{list(node.shape)}",
        f"By its operator it is {list(shape)} of {_FLOATS}",
    )


def _output(node: Node, dtype: DType, shape: Shape) -> None:
    require(
        node.dtype is dtype and node.shape == shape,
        f"its output is {node.dtype.text}{list(node.shape)}",
        f"By its operator it is {dtype.text}{list(shape)}",
    )


def _arity(node: Node, count: int) -> None:
    require(len(node.inputs) == count, f"{len(node.inputs)} inputs", f"It takes {count}")


def _params(node: Node, count: int) -> None:
    require(len(node.params) == count, f"{len(node.params)} params", f"It takes {count}")


def _literal_count(node: Node, count: int) -> None:
    require(len(node.literals) == count, f"{len(node.literals)} literals", f"It takes {count}")


def _f32_literals(node: Node, count: int) -> None:
    _literal_count(node, count)
    require(all(v < 2**32 for v in node.literals), "a literal is wider than f32", "It is the pattern of an f32")


def _pattern(node: Node) -> None:
    _literal_count(node, 1)
    limit = 2 if node.dtype is BOOL else 2**node.dtype.bits
    require(node.literals[0] < limit, f"literal {node.literals[0]:#x}", f"It is a pattern of {node.dtype.text}")


def _dtypes(inputs: Sequence[Input], wanted: DType) -> None:
    for item in inputs:
        found = item.dtype
        require(found is wanted, f"an input is {found.text}", f"It is {wanted.text}")


def _names(dtypes: Sequence[DType]) -> str:
    return " or ".join(d.text for d in dtypes)


def _shapes(shapes: Sequence[Shape]) -> str:
    return " and ".join(str(list(s)) for s in shapes)
