"""Kernels: loops whose range is shared among the threads, called from Python or from other compiled code.

# Design: a kernel is written as the loop over a part of its range, f(start, stop, …). It is a body, compiled once;
# the code around it is the same whether one thread runs it or all:
#
#     kernel(count, …) ──▶ entry(threads, count, …) ──▶ launch ──┬─ threads = 1:  f(0, count, …)
#     Python                wraps arrays                         └─ else the threading layer calls, for each part,
#                                                                   part(args, sizes, steps, data) ──▶ f(start, stop, …)
#
# `launch` puts the arguments into a struct on the stack, and calls the function of the threading layer by which numba
# runs its own parallel loops (`numba_parallel_for`), whose address Python puts into a slot before the first call.
# A *driver* is a compiled function that launches kernels itself, several or again and again: `threads` is its first
# argument, which it hands to `kernel.launch`. Parts are count / threads indices each, as in numba's loops.
"""

import ctypes
import inspect
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types

from rvtrain._kernels import _cache, _compiling, _tbb, _threads
from rvtrain._kernels._bodies import Body, intrinsic_of, needs, register, unique_name, unliteral
from rvtrain._kernels._decorators import FASTMATH, disabled

_OUT_OF_BOUNDS = "index is out of bounds in a kernel"  # with NUMBA_BOUNDSCHECK alone
_SLOT = "rvtrain.parallel_for"

_slot = ctypes.c_void_p()
binding.add_symbol(_SLOT, ctypes.addressof(_slot))


def _start() -> None:
    """Start the threading layer, and put the address of its loop into the slot."""
    from numba.np.ufunc import parallel

    _tbb.load()
    parallel._launch_threads()
    _slot.value = binding.address_of_symbol("numba_parallel_for")


class Driver:
    """A compiled function whose first argument is how many threads its kernels may use; `name` is for the disk."""

    def __init__(self, func: Callable, name: str | None = None) -> None:
        self.__name__, self.__doc__ = func.__name__, func.__doc__
        self._entry = _entry(func, unique_name(func, name))

    def __call__(self, *args: Any) -> None:
        """Run with as many threads as numba is set to."""
        _threads.guarded(self._entry, _start, args)

    def serial(self, *args: Any) -> None:
        """Run in the calling thread."""
        self._entry(1, *args)

    def sized(self, work: int) -> Callable[..., None]:
        """The one of these two that suits `work`, an estimate of the arithmetic operations in the call."""
        return self.serial if work < _threads.SERIAL_BELOW else self

    @property
    def signatures(self) -> list[Any]:
        """Types of arguments that it has been called with."""
        return list(self._entry.signatures)


class Kernel(Driver):
    """A loop over a range, `func(start, stop, …)`, called as `kernel(count, …)` with what follows `stop`."""

    def __init__(self, func: Callable, name: str | None = None) -> None:
        self.__name__, self.__doc__ = func.__name__, func.__doc__
        parameters = ["threads", "count", *list(inspect.signature(func).parameters)[2:]]
        if disabled():
            func = np.errstate(all="ignore")(
                func
            )  # integers that wrap and sums that overflow are silent when compiled
            self.launch: Any = lambda threads, count, *args: func(0, count, *args)
            self._entry = self.launch
            return
        made = Body(func, name, fastmath=FASTMATH)
        self.launch = intrinsic_of(_launching(made), func, ["typingctx", *parameters])
        text = ", ".join(parameters)
        entry: Any = eval(f"lambda {text}: launch({text})", {"launch": self.launch})
        entry.__name__, entry.__module__, entry.__code__ = func.__name__, func.__module__, _placed(entry, func)
        self._entry = _entry(entry, f"{made.name}:entry")


def kernel(func: Callable) -> Kernel:
    """Make `func(start, stop, …)`, a loop over a part of a range, a kernel; each index is run once, by any thread."""
    return Kernel(func)


def driver(func: Callable) -> Driver:
    """Make `func(threads, …)`, which launches kernels, a function to be called from Python without `threads`."""
    return Driver(func)


def _placed(entry: Any, func: Any) -> Any:
    """The code of an entry with the file of its kernel, by whose sources it is kept."""
    return entry.__code__.replace(co_filename=func.__code__.co_filename, co_firstlineno=func.__code__.co_firstlineno)


def _entry(func: Callable, name: str) -> Any:
    if disabled():
        return np.errstate(all="ignore")(func)
    dispatcher: Any = numba.njit(func, fastmath=FASTMATH, error_model="numpy", nogil=True, no_cfunc_wrapper=True)
    dispatcher._cache = _cache.DispatcherCache(name, func, needs, register)
    dispatcher._compiler.compile = _compiling.told(dispatcher._compiler.compile)  # called on a miss only
    return dispatcher


def _launching(made: Body) -> Callable:
    """The typing function of the intrinsic `launch(threads, count, …)`."""

    def typing(typingctx, threads, count, *args):
        args = unliteral(args)
        index = types.intp
        taken = (index, index, *args)
        made.symbol(taken)

        def generate(context, builder, signature, values):
            threads, count, *values = values
            together = builder.and_(
                builder.icmp_signed(">", threads, index_of(1)), builder.icmp_signed(">", count, index_of(1))
            )
            with builder.if_else(together) as (parallel, alone):
                with parallel:
                    _emit_parallel(context, builder, made, taken, threads, count, values)
                with alone:
                    status = made.call(context, builder, taken, [index_of(0), count, *values])
                    with cgutils.if_unlikely(builder, status.is_error):
                        context.call_conv.return_status_propagate(builder, status)
            return context.get_dummy_value()

        return types.none(index, index, *args), generate

    return typing


_intp, _byte = ir.IntType(64), ir.IntType(8).as_pointer()


def index_of(value: int) -> Any:
    """An LLVM constant of numba's index type."""
    return ir.Constant(_intp, value)


def _emit_parallel(context, builder, made, taken, threads, count, values):
    """The struct of arguments, and the call of the threading layer with a function that reads it."""
    parts = builder.select(builder.icmp_signed("<", count, threads), count, threads)
    fields = [ir.Constant(ir.IntType(32), 0), count, parts, *values]
    data = cgutils.alloca_once(builder, ir.LiteralStructType([field.type for field in fields]))
    for i, field in enumerate(fields):
        builder.store(field, cgutils.gep_inbounds(builder, data, 0, i))
    part = _emit_part(context, builder.module, made, taken, data.type)

    # One argument, an array of bytes at address 0: the address that a part is given is the number of its first index.
    def stored(value):
        place = cgutils.alloca_once(builder, value.type)
        builder.store(value, place)
        return builder.bitcast(place, _byte)

    void = ir.VoidType()
    loop = ir.FunctionType(void, [_byte] * 5 + [_intp] * 3).as_pointer()
    slot = builder.module.globals.get(_SLOT) or ir.GlobalVariable(builder.module, loop, _SLOT)
    slot.linkage = "external"
    arguments = [
        builder.bitcast(part, _byte),
        stored(ir.Constant(_byte, None)),
        stored(parts),
        stored(index_of(1)),
        builder.bitcast(data, _byte),
        index_of(0),
        index_of(1),
        threads,
    ]
    builder.call(builder.load(slot), arguments)
    failed = builder.load(cgutils.gep_inbounds(builder, data, 0, 0))
    with cgutils.if_unlikely(builder, cgutils.is_not_null(builder, failed)):
        context.call_conv.return_user_exc(builder, IndexError, (_OUT_OF_BOUNDS,))


def _emit_part(context, module, made, taken, struct):
    """The function that a thread calls: part(args, sizes, steps, data), for the parts [args[0], args[0] + sizes[0])."""
    kind = ir.FunctionType(ir.VoidType(), [_byte.as_pointer(), _intp.as_pointer(), _intp.as_pointer(), _byte])
    function = ir.Function(module, kind, module.get_unique_name(f"{made.func.__name__}.part"))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    args, sizes, _, data = function.args
    data = builder.bitcast(data, struct)
    flag, *places = (cgutils.gep_inbounds(builder, data, 0, i) for i in range(len(struct.pointee.elements)))
    count, parts, *values = (builder.load(place) for place in places)
    first = builder.ptrtoint(builder.load(args), _intp)
    last = builder.add(first, builder.load(sizes))
    start, stop = (builder.sdiv(builder.mul(count, part), parts) for part in (first, last))
    status = made.call(context, builder, taken, [start, stop, *values])
    with cgutils.if_unlikely(builder, status.is_error):
        builder.store(ir.Constant(ir.IntType(32), 1), flag)
    builder.ret_void()
    return function
