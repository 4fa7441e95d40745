"""Programs of the pointwise operators (docs/spec/operators.md, "Pointwise")."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from repops.dtypes import DType
from repops.vm.assembler import Assembler, Register
from repops.vm.functions import function
from repops.vm.image import Trips
from repops.vm.isa import OUTPUT, Op

Build = Callable[[Assembler], None]

_ONE = 0x3F800000
_AFTER_FLOATS = int(DType.F16) + 1  # f32, bf16, f16 have the codes 1, 2, 3


def term(a: Assembler, tensor: int) -> Register:
    """The element of an input that broadcasting puts at the output element, as a number."""
    x = a.place(a.element, tensor)
    return a.load(x, tensor, to=x)


def reciprocal(a: Assembler, x: Register) -> Register:
    """DIV(1, x)."""
    return a.fdiv(a.literal(_ONE), x)


def unary(compute: Callable[[Assembler, Register], Register]) -> Build:
    """A float of one float."""

    def build(a: Assembler) -> None:
        a.halt(a.narrow(compute(a, term(a, 0))))

    return build


def floats(compute: Callable[..., Register], count: int) -> Build:
    """A float of `count` floats; compute(a, x_0, ...)."""

    def build(a: Assembler) -> None:
        a.halt(a.narrow(compute(a, *(term(a, k) for k in range(count)))))

    return build


def named(name: str) -> Build:
    """A function of functions.txt."""

    def build(a: Assembler) -> None:
        x = [term(a, k) for k in range(2 if name == "pow" else 1)]
        a.halt(a.narrow(function(a, name, *x)))

    return build


def sloped(name: str) -> Build:
    """dy times a function of x."""

    def build(a: Assembler) -> None:
        dy, x = term(a, 0), term(a, 1)
        a.halt(a.narrow(a.fmul(dy, function(a, name, x))))

    return build


def numeric(on_floats: Callable[..., Register], on_integers: Callable[..., Register], count: int = 2) -> Build:
    """A number of numbers of one kind."""

    def build(a: Assembler) -> None:
        x = [term(a, k) for k in range(count)]
        with if_float(a):
            a.halt(a.narrow(on_floats(a, *x)))
        a.halt(on_integers(a, *x))

    return build


def compare(on_floats: Callable[..., Register], on_integers: Callable[..., Register]) -> Build:
    """A bool of two numbers of one kind."""

    def build(a: Assembler) -> None:
        x, y = term(a, 0), term(a, 1)
        with if_float(a):
            a.halt(on_floats(a, x, y))
        a.halt(on_integers(a, x, y))

    return build


def logical(compute: Callable[..., Register], count: int = 2) -> Build:
    """A bool of bools, which are 0 or 1."""

    def build(a: Assembler) -> None:
        a.halt(compute(a, *(term(a, k) for k in range(count))))

    return build


def if_float(a: Assembler) -> AbstractContextManager[None]:
    """The block runs if input 0 is a float."""
    return a.when(Op.BLT, a.dtype(0), a.set(_AFTER_FLOATS))


def _negate(a: Assembler, m: Register) -> Register:
    return a.integer(Op.XOR, m, 1)


def _binary(op: Op) -> Callable[..., Register]:
    return lambda a, x, y: a.float2(op, x, y)


def _whole(op: Op) -> Callable[..., Register]:
    return lambda a, x, y: a.integer(op, x, y)


def _swapped(op: Op) -> Callable[..., Register]:
    return lambda a, x, y: a.float2(op, y, x)


def _whole_swapped(op: Op) -> Callable[..., Register]:
    return lambda a, x, y: a.integer(op, y, x)


def _not(compute: Callable[..., Register]) -> Callable[..., Register]:
    return lambda a, x, y: _negate(a, compute(a, x, y))


def _where(a: Assembler) -> None:
    chosen = a.sub(a.set(2), term(a, 0))
    a.halt(a.raw(a.place(a.element, chosen), chosen))


def _relu_grad(a: Assembler) -> None:
    y = term(a, 1)
    with a.when(Op.BNE, a.float2(Op.FLE, y, a.zero), a.zero):
        a.halt(a.zero)
    at = a.place(a.element, 0)
    with a.when(Op.BEQ, a.dtype(0), a.dtype(OUTPUT)):
        a.halt(a.raw(at, 0))
    a.halt(a.narrow(a.load(at, 0)))


def _silu_grad(a: Assembler, dy: Register, x: Register) -> Register:
    s, one = function(a, "sigmoid", x), a.literal(_ONE)
    return a.fmul(dy, a.fmul(s, a.ffma(x, a.fsub(one, s), one)))


def _rstd(a: Assembler, ssq: Register) -> Register:
    variance = a.fadd(a.fdiv(ssq, a.node_literal(0)), a.node_literal(1))
    return reciprocal(a, a.fsqrt(variance))


def _normalized(a: Assembler, x: Register, mean: Register, rstd: Register) -> Register:
    return a.fmul(a.fsub(x, mean), rstd)


def _layer_norm(a: Assembler, x: Register, mean: Register, rstd: Register, w: Register, b: Register) -> Register:
    return a.ffma(_normalized(a, x, mean, rstd), w, b)


def _layer_norm_grad(
    a: Assembler, dy: Register, x: Register, mean: Register, rstd: Register, w: Register, c1: Register, c2: Register
) -> Register:
    h = _normalized(a, x, mean, rstd)
    return a.fmul(rstd, a.fsub(a.fsub(a.fmul(dy, w), c1), a.fmul(h, c2)))


def _softmax(a: Assembler, x: Register, m: Register, s: Register) -> Register:
    return a.fmul(function(a, "exp", a.fsub(x, m)), reciprocal(a, s))


def _log_softmax(a: Assembler, x: Register, m: Register, s: Register) -> Register:
    return a.fsub(a.fsub(x, m), function(a, "log", s))


def _cast(a: Assembler) -> None:
    to = a.dtype(OUTPUT)
    with a.when(Op.BEQ, a.dtype(0), to):
        a.halt(a.raw(a.place(a.element, 0), 0))
    x = term(a, 0)
    code = {d: a.set(int(d)) for d in (DType.BF16, DType.I64, DType.I32, DType.BOOL)}
    first_integer = code[DType.I64]
    with if_float(a):
        with a.when(Op.BLT, to, first_integer):
            a.halt(a.narrow(x))
        with a.when(Op.BEQ, to, code[DType.BOOL]):
            a.halt(_negate(a, a.float2(Op.FEQ, x, a.zero)))
        whole = a.float1(Op.FTOI, x)
        with a.when(Op.BEQ, to, code[DType.I64]):
            a.halt(whole)
        a.halt(a.integer(Op.MAX, a.integer(Op.MIN, whole, 2**31 - 1), -(2**31)))
    with a.when(Op.BEQ, to, code[DType.BOOL]):
        a.halt(_negate(a, a.integer(Op.SEQ, x, 0)))
    with a.when(Op.BGE, to, first_integer):
        a.halt(x)
    with a.when(Op.BEQ, to, code[DType.BF16]):
        _integer_to_bf16(a, x)
    a.halt(a.narrow(a.float1(Op.ITOF, x)))  # to f16 by way of f32: an integer that f32 rounds is above f16's range


def _integer_to_bf16(a: Assembler, x: Register) -> None:
    """Rounds to odd first, to 17 bits at least, so that the second rounding is the only one."""
    sign = a.integer(Op.SHR, x, 63)
    u = a.select(sign, a.sub(a.zero, x), x)
    scale, step = a.literal(_ONE), a.literal(0x43800000)  # 2^8
    high, count = a.integer(Op.SHR, u, 24), a.set(0)
    with a.loop(count, high, Trips.fixed(5)):
        cut = _negate(a, a.integer(Op.SEQ, a.integer(Op.AND, u, 255), 0))
        a.integer(Op.OR, a.integer(Op.SHR, u, 8), cut, to=u)
        a.fmul(scale, step, to=scale)
        a.integer(Op.SHR, u, 24, to=high)
        a.set(-1, to=count)  # the loop adds 1: it goes on while high > 0
    rounded = a.fmul(a.float1(Op.ITOF, u), scale)
    a.halt(a.narrow(a.select(sign, a.fneg(rounded), rounded)))


_FUNCTIONS = (
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "softplus", "pow", "tanh", "sigmoid", "erf",
    "gelu_erf", "gelu_tanh", "silu",
)  # fmt: skip

PROGRAMS: dict[str, Build] = {
    **{name: named(name) for name in _FUNCTIONS},
    "add": numeric(_binary(Op.FADD), _whole(Op.ADD)),
    "sub": numeric(_binary(Op.FSUB), _whole(Op.SUB)),
    "mul": numeric(_binary(Op.FMUL), _whole(Op.MUL)),
    "maximum": numeric(_binary(Op.FMAX), _whole(Op.MAX)),
    "minimum": numeric(_binary(Op.FMIN), _whole(Op.MIN)),
    "neg": numeric(lambda a, x: a.fneg(x), lambda a, x: a.sub(a.zero, x), 1),
    "abs": numeric(
        lambda a, x: a.integer(Op.AND, x, 0x7FFFFFFF), lambda a, x: a.integer(Op.MAX, x, a.sub(a.zero, x)), 1
    ),
    "div": floats(_binary(Op.FDIV), 2),
    "sqrt": unary(lambda a, x: a.fsqrt(x)),
    "rsqrt": unary(lambda a, x: reciprocal(a, a.fsqrt(x))),
    "relu": unary(lambda a, x: a.float2(Op.FMAX, x, a.zero)),
    "relu_grad": _relu_grad,
    "tanh_grad": floats(lambda a, dy, y: a.fmul(dy, a.ffma(a.fneg(y), y, a.literal(_ONE))), 2),
    "sigmoid_grad": floats(lambda a, dy, y: a.fmul(dy, a.fmul(y, a.fsub(a.literal(_ONE), y))), 2),
    "silu_grad": floats(_silu_grad, 2),
    "gelu_erf_grad": sloped("gelu_erf_slope"),
    "gelu_tanh_grad": sloped("gelu_tanh_slope"),
    "eq": compare(_binary(Op.FEQ), _whole(Op.SEQ)),
    "ne": compare(_not(_binary(Op.FEQ)), _not(_whole(Op.SEQ))),
    "lt": compare(_binary(Op.FLT), _whole(Op.SLT)),
    "le": compare(_binary(Op.FLE), _not(_whole_swapped(Op.SLT))),
    "gt": compare(_swapped(Op.FLT), _whole_swapped(Op.SLT)),
    "ge": compare(_swapped(Op.FLE), _not(_whole(Op.SLT))),
    "logical_and": logical(lambda a, x, y: a.integer(Op.AND, x, y)),
    "logical_or": logical(lambda a, x, y: a.integer(Op.OR, x, y)),
    "logical_xor": logical(lambda a, x, y: a.integer(Op.XOR, x, y)),
    "logical_not": logical(_negate, 1),
    "where": _where,
    "cast": _cast,
    "rstd": unary(_rstd),
    "softmax": floats(_softmax, 3),
    "log_softmax": floats(_log_softmax, 3),
    "normalize": floats(_normalized, 3),
    "layer_norm": floats(_layer_norm, 5),
    "layer_norm_grad": floats(_layer_norm_grad, 7),
}
