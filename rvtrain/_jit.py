"""The one place where functions become compiled kernels: flags, parallelism and the cache on disk."""

import functools
import os
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import binding
from numba import prange
from numba.cpython.unsafe.numbers import trailing_zeros
from numba.extending import intrinsic, overload, register_jitable

from rvtrain import _cache, _compiling, _threads

__all__ = [
    "FASTMATH",
    "Kernel",
    "cpu_features",
    "in_order",
    "inlined",
    "intrinsic",
    "kernel",
    "njit",
    "overload",
    "prange",
    "register_jitable",
    "trailing_zeros",
]

# The flags that let reductions vectorise. `nnan` and `ninf` are not among them: they delete every check for NaN.
FASTMATH = {"reassoc", "contract", "arcp", "nsz", "afn"}

# Nobody calls these from Python: the wrappers for that would be a tenth of all compile time.
_INNER: dict[str, Any] = {"error_model": "numpy", "nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def njit(func: Callable) -> Any:
    """Compile a serial function, to be called from kernels: compiled into them, never cached alone."""
    return numba.njit(func, fastmath=FASTMATH, **_INNER)


def inlined(func: Callable) -> Any:
    """The same, its body put in place of each call: for inner loops that would copy many arrays into a call."""
    return numba.njit(func, fastmath=FASTMATH, inline="always", **_INNER)


def in_order(func: Callable) -> Any:
    """The same, its sums in the order written: without fastmath, which lets even fused products be regrouped."""
    return numba.njit(func, fastmath=False, **_INNER)  # unset, it would be the caller's


class Kernel:
    """A parallel kernel and its serial twin, each compiled, or read from the cache, when first called.

    Both come from one source, so they agree to the last bit as long as that source fixes the order of
    its sums. The twin serves inputs too small to be worth waking the threads.
    """

    def __init__(self, func: Callable) -> None:
        _threads.load_tbb()
        self.__name__ = func.__name__
        self.__doc__ = func.__doc__
        self.serial = _dispatcher(func, parallel=False)
        self.parallel = _threads.Guarded(_dispatcher(func, parallel=True), self.serial)

    def __call__(self, *args: Any) -> Any:
        return self.parallel(*args)

    def sized(self, work: int) -> Any:
        """The twin that suits `work`, an estimate of the arithmetic operations in the call."""
        return self.serial if work < _threads.SERIAL_BELOW else self.parallel


def kernel(func: Callable) -> Kernel:
    """Make a function with ``prange`` loops a kernel, called from Python."""
    return Kernel(func)


@functools.cache
def cpu_features() -> frozenset[str]:
    """What the processor that numba compiles for can do: its own settings, else this machine."""
    chosen = os.environ.get("NUMBA_CPU_FEATURES") or binding.get_host_cpu_features().flatten()
    return frozenset(feature[1:] for feature in chosen.split(",") if feature.startswith("+"))


def _dispatcher(func: Callable, parallel: bool) -> Any:
    dispatcher: Any = numba.njit(func, parallel=parallel, fastmath=FASTMATH, error_model="numpy", nogil=True)
    if hasattr(dispatcher, "overloads"):  # a plain function under NUMBA_DISABLE_JIT
        _cache.enable(dispatcher, f"{func.__module__}.{func.__qualname__}:{parallel}")
        dispatcher._compiler.compile = _compiling.told(dispatcher._compiler.compile)  # called on a miss only
    return dispatcher
