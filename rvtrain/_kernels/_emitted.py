"""Functions emitted as vector instructions, for inner loops that the compiler does not vectorise by itself.

# Design: an *emitted* function is written twice: in Python, for NUMBA_DISABLE_JIT, and as a function that emits LLVM
# instructions and runs once for each combination of argument types. The second one gets an `Emitter`, and objects
# that stand for the numbers and arrays of the call:
#
#     @emitted(lambda x, i, out: …)            # the same in Python
#     def add_four(emit, x, i, out):           # out[i : i + 4] += x[i : i + 4]
#         (out + i).store((out + i).load(4) + (x + i).load(4))
#
# `array + offset` is the place in memory `offset` elements after the first, and `place.load(4)` a vector of four.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.np.numpy_support import as_dtype, from_dtype

from rvtrain._kernels._decorators import disabled, intrinsic_of
from rvtrain._kernels._vectors import Array, Emitter, Value


def element_type(kind: Any) -> np.dtype:
    """The NumPy dtype of a number or of the elements of an array, given its numba type; for overloads."""
    return as_dtype(kind.dtype if isinstance(kind, types.Array) else kind)


def emitted(interpreted: Callable, result: Any = None) -> Callable[[Callable], Any]:
    """Decorate a function of an `Emitter` and arguments that kernels call; `interpreted` does the same in Python.

    `result` is the dtype of the returned number, or a function from the arguments' dtypes to it. Arrays have to be
    C-contiguous. If there are arrays, integer arguments are converted to the index type and floats to the type of the
    first array of floats. Without arrays, arguments keep their types.
    """

    def made(emitting: Callable) -> Any:
        if disabled():
            return interpreted

        def typing(typingctx, *given):
            arrays = [kind for kind in given if isinstance(kind, types.Array)]
            if any(array.layout != "C" for array in arrays):
                return None
            floats = [array.dtype for array in arrays if isinstance(array.dtype, types.Float)]
            taken = tuple(_taken(kind, floats) if arrays else kind for kind in given)
            dtype = result(*map(element_type, taken)) if inspect.isfunction(result) else result
            returned = types.none if dtype is None else from_dtype(np.dtype(dtype))

            def generate(context, builder, signature, values):
                emit = Emitter(builder)
                operands = (_operand(context, builder, *each) for each in zip(taken, values, strict=True))
                value = emitting(emit, *operands)
                return context.get_dummy_value() if value is None else value.llvm

            return returned(*taken), generate

        return intrinsic_of(typing, emitting, list(inspect.signature(emitting).parameters)[1:])

    return made


def _taken(kind: Any, floats: Sequence[Any]) -> Any:
    if isinstance(kind, types.Integer):
        return types.intp
    return floats[0] if floats and isinstance(kind, types.Float) else kind


def _operand(context: Any, builder: Any, kind: Any, value: Any) -> Value | Array:
    if not isinstance(kind, types.Array):
        return Value(builder, value)
    array = context.make_array(kind)(context, builder, value)
    shape = cgutils.unpack_tuple(builder, array.shape, kind.ndim)
    return Array(builder, array.data, [Value(builder, length) for length in shape])
