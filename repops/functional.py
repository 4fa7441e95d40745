"""RepOps as functions: `repops.matmul(a, b)` and others, on torch tensors and numpy arrays, named as in torch.

A call is traced once for each combination of dtypes, shapes, strides and other arguments, lowered to a program like a
captured step, and then run by its kernels. So there is one definition of every function, and its bits are those of a
program: they do not depend on threads, on the instruction set, or on what else is computed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch._functorch.aot_autograd import aot_function

from repops import names, settings
from repops.aot import compile_graph
from repops.call import Call
from repops.capture.attention import AttentionCapture
from repops.capture.trace import decompositions, trace_function
from repops.dtypes import DType
from repops.errors import ProgramError, RepopsError, TensorError
from repops.ops.rules import RuleViolation
from repops.tensors import (
    Array,
    Layout,
    array_of,
    check_memory,
    is_tensor,
    is_torch,
    laid_out,
    new_array,
    new_torch,
    torch_dtype,
)

_CACHED_CALLS = 512
# Functions that fold their arguments: these are read in their logical order, so that the bits do not depend on how they
# lie in memory. (A captured program folds in the order of memory, which it fixes.)
_ORDERED = frozenset(
    (
        *("sum", "mean", "amax", "amin", "var", "any", "all", "softmax", "log_softmax", "layer_norm", "rms_norm"),
        *("scaled_dot_product_attention", "cross_entropy", "nll_loss", "mse_loss"),
    )
)


class Function:
    """A function of torch's signature whose tensors are torch tensors or numpy arrays, in CPU memory.

    The result is of the kind of the arguments, contiguous, in memory of its own. Torch tensors that require gradients
    get them by RepOps operators too. out: a contiguous tensor for the result, which must not overlap an argument.

    Raises TensorError for arguments that do not fit, UnsupportedOperators for what RepOps has no operators for.
    """

    def __init__(self, name: str, definition: Callable[..., Any], check: Callable[..., None] | None) -> None:
        self.__name__ = self.__qualname__ = name
        self.__doc__ = f"As {_text(definition)}. {Function.__doc__}"
        self._definition = definition
        self._check = check

    def __repr__(self) -> str:
        return f"<repops.{self.__name__}>"

    def __call__(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        given: list[Any] = []
        form = (_form(args, given), _form(kwargs, given))
        in_torch = [is_torch(x) for x in given]
        if not given or any(in_torch) != all(in_torch):
            what = "torch tensors and numpy arrays are mixed" if given else "there is no tensor among the arguments"
            raise TensorError(what, self.__name__, "Give torch tensors or numpy arrays")
        arrays = [array_of(x, self.__name__) for x in given]
        if self._check is not None:
            self._check_values(form, arrays)
        if self.__name__ in _ORDERED:
            copied = sum(x.nbytes for x in arrays if not x.flags.c_contiguous)
            check_memory(copied, "copies in logical order need", self.__name__)
        if in_torch[0] and torch.is_grad_enabled() and any(x.requires_grad for x in given):
            if out is not None:
                raise TensorError("an argument requires gradients", f"{self.__name__}, out", "Detach it")
            return self._differentiable(form, given)
        return self._plain(form, arrays, in_torch[0], out)

    def _plain(self, form: _Form, arrays: list[Array], in_torch: bool, out: Any) -> Any:
        if self.__name__ in _ORDERED:
            arrays = [np.asarray(x, order="C") for x in arrays]
        memory, layouts = zip(*[laid_out(x) for x in arrays], strict=True)
        isa = settings.isa()
        key = (self, _key(form), layouts, isa)
        call, several = _cached(key, lambda: self._compile(form, layouts, isa))
        if out is not None:
            given = self._checked_out(out, call, arrays, in_torch)
            call.run(memory, [given], settings.threads())
            return out
        make = new_torch if in_torch else new_array
        results = [make(y.stored, y.dtype) for y in call.outputs]
        call.run(memory, [array for _, array in results], settings.threads())
        return tuple(result for result, _ in results) if several else results[0][0]

    def _compile(self, form: _Form, layouts: Sequence[Layout], isa: str | None) -> tuple[Call, bool]:
        """The compiled call, and whether it returns a tuple."""
        several = False

        def function(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            nonlocal several
            result = self._apply(form, tensors)
            several = not isinstance(result, torch.Tensor)
            results = tuple(result) if several else (result,)
            return tuple(x.contiguous() for x in results)

        examples = [torch.empty_strided(x.shape, x.strides, dtype=torch_dtype(x.dtype)) for x in layouts]
        return self._guarded(lambda: Call(trace_function(function, examples), layouts, isa)), several

    def _differentiable(self, form: _Form, tensors: list[torch.Tensor]) -> Any:
        if self.__name__ in _ORDERED:
            tensors = [x.contiguous() for x in tensors]
        isa = settings.isa()
        types = tuple((x.dtype, x.shape, x.stride(), x.requires_grad) for x in tensors)

        def make() -> Callable[..., Any]:
            def compiler(gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
                return compile_graph(gm, isa)

            def function(*given: torch.Tensor) -> Any:
                with AttentionCapture():
                    return self._apply(form, given)

            compiled = aot_function(function, compiler, compiler, decompositions=decompositions())
            # Traced with leaves, at the price of one more run: torch looks at the gradient of what it traces with.
            compiled(*[x.detach().requires_grad_(x.requires_grad) for x in tensors])
            return compiled

        return _cached((self, _key(form), types, isa), lambda: self._guarded(make))(*tensors)

    def _apply(self, form: _Form, tensors: Sequence[Any]) -> Any:
        args, kwargs = (_filled(part, tensors) for part in form)
        return self._definition(*args, **kwargs)

    def _guarded(self, make: Callable[[], Any]) -> Any:
        """What torch and the program's rules refuse, as a TensorError."""
        try:
            return make()
        except RepopsError as error:
            if isinstance(error, (ProgramError, TensorError)):
                raise TensorError(
                    error.what, f"{self.__name__}, {error.where}".removesuffix(", "), error.cure
                ) from None
            raise
        except RuleViolation as error:
            raise TensorError(error.what, self.__name__, error.cure) from None
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise TensorError(reason, self.__name__, f"See {_text(self._definition)} for what it takes") from None

    def _check_values(self, form: _Form, arrays: Sequence[Array]) -> None:
        assert self._check is not None
        args, kwargs = (_filled(part, arrays) for part in form)
        try:
            self._check(*args, **kwargs)
        except (TypeError, IndexError):  # arguments that the function itself refuses
            return
        except _OutOfRange as error:
            raise TensorError(str(error), self.__name__, "An index is at least 0 and below the size") from None

    def _checked_out(self, out: Any, call: Call, arrays: Sequence[Array], in_torch: bool) -> Array:
        where = f"{self.__name__}, out"
        if is_torch(out) != in_torch:
            raise TensorError("it is of another kind than the arguments", where, "Give torch or numpy throughout")
        if is_torch(out) and out.requires_grad:
            raise TensorError("it requires gradients", where, "Detach it")
        array = array_of(out, where)
        results = call.outputs
        if len(results) != 1:
            raise TensorError(f"there are {len(results)} results", where, "Call it without out")
        if (DType.of(array.dtype), array.shape) != (results[0].dtype, results[0].stored):
            raise TensorError(
                f"it is {DType.of(array.dtype).text}{list(array.shape)}",
                where,
                f"The result is {results[0].dtype.text}{list(results[0].stored)}",
            )
        if not array.flags.c_contiguous or not array.flags.writeable:
            raise TensorError("it is not contiguous or not writable", where, "Give a writable contiguous tensor")
        if any(np.may_share_memory(array, x) for x in arrays):
            raise TensorError("it overlaps an argument", where, "Give memory of its own")
        return array


class _Hole(int):
    """Stands for tensor number i of a call."""


_Form = tuple[Any, Any]
_cache: OrderedDict[Hashable, Any] = OrderedDict()
_lock = Lock()


def _form(value: Any, tensors: list[Any]) -> Any:
    """A call's argument with its tensors put aside and replaced by holes."""
    if is_tensor(value):
        tensors.append(value)
        return _Hole(len(tensors) - 1)
    if isinstance(value, (tuple, list)):
        return tuple(_form(x, tensors) for x in value)
    if isinstance(value, dict):
        return {name: _form(x, tensors) for name, x in value.items()}
    return value


def _filled(form: Any, tensors: Sequence[Any]) -> Any:
    if isinstance(form, _Hole):
        return tensors[form]
    if isinstance(form, tuple):
        return tuple(_filled(x, tensors) for x in form)
    if isinstance(form, dict):
        return {name: _filled(x, tensors) for name, x in form.items()}
    return form


def _key(form: Any) -> Hashable:
    """Equal for equal arguments only: 1, 1.0 and True differ, and so do 0.0 and -0.0."""
    if isinstance(form, tuple):
        return tuple(_key(x) for x in form)
    if isinstance(form, dict):
        return tuple((name, _key(form[name])) for name in sorted(form))
    return type(form), repr(form)


def _cached(key: Hashable, make: Callable[[], Any]) -> Any:
    """The compiled call of a key; the ones that were not used for longest are forgotten."""
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
        made = _cache[key] = make()
        if len(_cache) > _CACHED_CALLS:
            _cache.popitem(last=False)
        return made


class _OutOfRange(Exception):
    """An index outside its axis."""


def _inside(index: Array, size: int) -> None:
    if index.size and (int(index.min()) < 0 or int(index.max()) >= size):
        raise _OutOfRange(f"an index lies outside [0, {size})")


# The names of their parameters are torch's: they may come by keyword.


def _rows(input: Array, weight: Array, *_: Any, **__: Any) -> None:
    _inside(input, weight.shape[0])


def _along(input: Array, dim: int, index: Array, **_: Any) -> None:
    _inside(index, input.shape[dim])


def _classes(input: Array, target: Array, *args: Any, ignore_index: int = -100, **_: Any) -> None:
    if target.dtype.kind == "i":
        ignored = args[2] if len(args) > 2 else ignore_index
        _inside(target[target != ignored], input.shape[1 if input.ndim > 1 else 0])


def _text(definition: Callable[..., Any]) -> str:
    home = "torch.nn.functional" if getattr(F, definition.__name__, None) is definition else "torch"
    return f"{home}.{definition.__name__}"


_DEFINITIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(torch, name) for name in names.TORCH},
    **{name: getattr(F, name) for name in names.NN},
}
_CHECKS: dict[str, Callable[..., None]] = {
    "embedding": _rows,
    "gather": _along,
    "index_select": _along,
    "cross_entropy": _classes,
    "nll_loss": _classes,
}

FUNCTIONS: dict[str, Function] = {
    name: Function(name, definition, _CHECKS.get(name)) for name, definition in _DEFINITIONS.items()
}


def __getattr__(name: str) -> Function:  # not globals: some are named like Python's own functions
    if name not in FUNCTIONS:
        raise AttributeError(f"module 'repops.functional' has no attribute {name!r}")
    return FUNCTIONS[name]
