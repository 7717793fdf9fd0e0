"""The one place where functions become compiled kernels: flags, parallelism and the cache on disk."""

import functools
import os
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import binding
from numba import extending, prange
from numba.cpython.unsafe import numbers
from numba.extending import overload, register_jitable

from rvtrain import _cache, _compiling, _tbb, _threads

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

_config: Any = numba.config

# Nobody calls these from Python: the wrappers for that would be a tenth of all compile time.
_INNER: dict[str, Any] = {"error_model": "numpy", "nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def intrinsic(interpreted: Callable) -> Callable[[Callable], Any]:
    """Make a typing function of numba an intrinsic; `interpreted` is the same in Python, for NUMBA_DISABLE_JIT."""
    return (lambda typing: interpreted) if _config.DISABLE_JIT else extending.intrinsic


def njit(func: Callable) -> Any:
    """Compile a serial function, to be called from kernels: compiled into them, never cached alone."""
    return numba.njit(func, fastmath=FASTMATH, **_INNER)


def inlined(func: Callable) -> Any:
    """The same, its body put in place of each call: for inner loops that would copy many arrays into a call."""
    return numba.njit(func, fastmath=FASTMATH, inline="always", **_INNER)


def in_order(func: Callable) -> Any:
    """The same, its sums in the order written: without fastmath, which lets even fused products be regrouped."""
    return numba.njit(func, fastmath=False, **_INNER)  # unset, it would be the caller's


def _trailing_zeros(x: Any) -> int:
    return (int(x) & -int(x)).bit_length() - 1


trailing_zeros: Any = _trailing_zeros if _config.DISABLE_JIT else numbers.trailing_zeros
"""Of an integer that is not 0, from kernels."""


class Kernel:
    """A parallel kernel and its serial twin, each compiled, or read from the cache, when first called.

    Both come from one source, so they agree to the last bit as long as that source fixes the order of
    its sums. The twin serves inputs too small to be worth waking the threads.
    """

    def __init__(self, func: Callable) -> None:
        _tbb.load()
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
    if _config.DISABLE_JIT:
        return np.errstate(all="ignore")(func)  # integers that wrap and sums that overflow say nothing when compiled
    dispatcher: Any = numba.njit(func, parallel=parallel, fastmath=FASTMATH, error_model="numpy", nogil=True)
    _cache.enable(dispatcher, f"{func.__module__}.{func.__qualname__}:{parallel}")
    dispatcher._compiler.compile = _compiling.told(dispatcher._compiler.compile)  # called on a miss only
    return dispatcher
