"""Kernels: loops whose range is shared among the threads, called from Python or from other compiled code.

# Design: a kernel is written as the loop over a part of its range, f(start, stop, …). It is a body, compiled once;
# the code around it is the same whether one thread runs it or all:
#
#     kernel(count, …) ──▶ entry(threads, count, …) ──▶ launch ──┬─ threads = 1:  f(0, count, …)
#     Python                unpacks arrays                       └─ else the threading layer calls, for some parts,
#                                                                   part(args, sizes, …) ──▶ f(start, stop, …)
#
# `launch` puts the arguments into a struct on the stack and calls the threading layer's function for numba's own
# parallel loops (`parallel_for` in tbbpool.cpp, omppool.cpp, workqueue.c of numba) through a pointer that Python sets
# when the layer starts. It always asks for as many parts as there are threads, for two reasons: workqueue runs all
# parts in one thread if there are fewer, and the other layers set the caller's number of threads to the number given.
#
# A *driver* is a compiled function that launches kernels itself, several ones or one repeatedly. It passes its first
# argument `threads` on to `kernel.launch`.
"""

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.callconv import excinfo_ptr_t

from rvtrain._kernels import _cache, _codegen, _compiling, _tbb, _threads
from rvtrain._kernels._bodies import Body, needs, propagate, register, unique_name, unliteral
from rvtrain._kernels._decorators import FASTMATH, OUTER, disabled, intrinsic_of


class Driver:
    """A compiled function `func(threads, …)` that launches kernels, called from Python without `threads`."""

    def __init__(self, func: Callable, name: str | None = None) -> None:
        self._take(func, func if disabled() else _entry(func, unique_name(func, name)))

    def _take(self, func: Callable, entry: Any) -> None:
        _tbb.load()  # at import, because `numba.set_num_threads` may start the threading layer before any call
        self.__name__, self.__doc__ = func.__name__, func.__doc__
        # Interpreted code must not warn where compiled code does not: of wrapped integers and overflowing sums.
        self._entry = np.errstate(all="ignore")(entry) if disabled() else entry
        self.serial = functools.partial(self._entry, 1)
        """Run in the calling thread."""

    def __call__(self, *args: Any) -> None:
        """Run with the number of threads that numba is set to."""
        _threads.guarded(self._entry, args)

    def sized(self, work: int) -> Callable[..., None]:
        """The serial or the parallel call, chosen by `work`, an estimate of the number of arithmetic operations."""
        return self.serial if work < _threads.SERIAL_BELOW else self

    @property
    def signatures(self) -> list[Any]:
        """Argument types for which this process has compiled code."""
        return list(self._entry.signatures)


class Kernel(Driver):
    """A loop over a part of a range, `func(start, stop, …)`, called as `kernel(count, …)`: count, then the rest.

    Compiled code calls `launch(threads, count, …)`. A factory of kernels gives each of them a `name`.
    """

    def __init__(self, func: Callable, name: str | None = None) -> None:
        if disabled():
            self.launch: Any = lambda threads, count, *args: func(0, count, *args)
            return self._take(func, self.launch)
        self._body = Body(func, name)
        parameters = ["threads", "count", *self._body.parameters[2:]]
        self.launch = intrinsic_of(_launching(self._body), func, parameters)
        text = ", ".join(parameters)
        code = compile(f"lambda {text}: launch({text})", func.__code__.co_filename, "eval")  # of the same sources
        entry: Any = eval(code, {"launch": self.launch})
        entry.__name__, entry.__module__ = func.__name__, func.__module__
        entry.__qualname__ = f"{func.__qualname__} entry"  # numba derives its symbols from it
        self._take(func, _entry(entry, f"{self._body.name} entry"))

    @property
    def signatures(self) -> list[Any]:
        """Types of start, stop and the other arguments for which this process has compiled code."""
        return self._body.signatures


def kernel(func: Callable) -> Kernel:
    """Decorate `func(start, stop, …)`, a loop over a part of a range; each index is run once, by any thread."""
    return Kernel(func)


def driver(func: Callable) -> Driver:
    """Decorate `func(threads, …)`, which launches kernels; Python calls it without `threads`."""
    return Driver(func)


def _entry(func: Callable, name: str) -> Any:
    dispatcher: Any = numba.njit(func, fastmath=FASTMATH, **OUTER)
    dispatcher._cache = _cache.DispatcherCache(name, func, needs, register)
    alone = _codegen.compiled_alone(dispatcher._compiler.compile)
    dispatcher._compiler.compile = _compiling.announced(alone)  # not called if the code is on disk
    return dispatcher


def _launching(made: Body) -> Callable:
    """The typing function of the intrinsic `launch(threads, count, …)`."""

    def typing(typingctx, threads, count, *args):
        index, args = types.intp, unliteral(args)
        made.symbol((index, index, *args))

        def generate(context, builder, signature, values):
            threads, count, *values = values
            one = count.type(1)
            several = builder.and_(builder.icmp_signed(">", threads, one), builder.icmp_signed(">", count, one))
            with builder.if_else(several) as (parallel, alone):
                with parallel:
                    _emit_parallel(context, builder, made, args, threads, count, values)
                with alone:
                    status = made.call(context, builder, (index, index, *args), [count.type(0), count, *values])
                    propagate(context, builder, status)
            return context.get_dummy_value()

        return types.none(index, index, *args), generate

    return typing


def _emit_parallel(context, builder, made, args, threads, count, values):
    """Emit the struct of arguments, and the call of the threading layer with a function that reads it."""
    index, byte = cgutils.intp_t, cgutils.voidptr_t
    # The first two are written by a part that fails: numba's return code and exception.
    fields = [ir.Constant(ir.IntType(32), 0), ir.Constant(excinfo_ptr_t, None), count, threads, *values]
    data = cgutils.alloca_once(builder, ir.LiteralStructType([field.type for field in fields]))
    for i, field in enumerate(fields):
        builder.store(field, cgutils.gep_inbounds(builder, data, 0, i))
    part = _emit_part(context, builder.module, made, args, data.type)

    def stored(value):
        place = cgutils.alloca_once(builder, value.type)
        builder.store(value, place)
        return builder.bitcast(place, byte)

    loop = ir.FunctionType(ir.VoidType(), [byte] * 5 + [index] * 3).as_pointer()
    slot = builder.module.globals.get(_threads.SLOT) or ir.GlobalVariable(builder.module, loop, _threads.SLOT)
    # Pass an array of bytes at address 0: the address that a part receives then equals its first index.
    start, steps = ir.Constant(byte, None), index(1)
    arrays = [stored(start), stored(threads), stored(steps)]
    function = builder.bitcast(part, byte)
    builder.call(builder.load(slot), [function, *arrays, builder.bitcast(data, byte), index(0), index(1), threads])
    code, exception = (builder.load(cgutils.gep_inbounds(builder, data, 0, i)) for i in (0, 1))
    propagate(context, builder, context.call_conv._get_return_status(builder, code, exception))


def _emit_part(context, module, made, args, struct):
    """Emit part(args, sizes, steps, data), which a thread calls for indices from args[0] up to args[0] + sizes[0]."""
    index, byte = cgutils.intp_t, cgutils.voidptr_t
    kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), index.as_pointer(), index.as_pointer(), byte])
    function = ir.Function(module, kind, module.get_unique_name(f"{made.func.__name__}.part"))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    first, sizes, _, data = function.args
    data = builder.bitcast(data, struct)
    code, exception, *places = (
        cgutils.gep_inbounds(builder, data, 0, i) for i in range(len(struct.pointee.elements))
    )
    count, parts, *values = (builder.load(place) for place in places)
    first = builder.ptrtoint(builder.load(first), index)
    last = builder.add(first, builder.load(sizes))
    start, stop = (builder.sdiv(builder.mul(count, part), parts) for part in (first, last))
    with builder.if_then(builder.icmp_signed("<", start, stop)):
        status = made.call(context, builder, (types.intp, types.intp, *args), [start, stop, *values])
        with cgutils.if_unlikely(builder, status.is_error):
            builder.store(status.excinfoptr, exception)
            builder.store(status.code, code)
    builder.ret_void()
    return function
