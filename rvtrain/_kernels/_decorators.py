"""Serial functions that are compiled into kernels, and the flags of all compiled code."""

import functools
import os
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import binding
from numba import extending
from numba.cpython.unsafe import numbers

# The flags that let reductions vectorise. `nnan` and `ninf` are not among them: they delete every check for NaN.
FASTMATH = {"reassoc", "contract", "arcp", "nsz", "afn"}

_config: Any = numba.config

# Nobody calls these from Python: the wrappers for that would be a tenth of all compile time.
INNER: dict[str, Any] = {"error_model": "numpy", "nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def disabled() -> bool:
    """Whether NUMBA_DISABLE_JIT is set: all runs as Python."""
    return bool(_config.DISABLE_JIT)


def intrinsic(interpreted: Callable) -> Callable[[Callable], Any]:
    """Make a typing function of numba an intrinsic; `interpreted` is the same in Python, for NUMBA_DISABLE_JIT."""
    return (lambda typing: interpreted) if _config.DISABLE_JIT else extending.intrinsic


def njit(func: Callable) -> Any:
    """Compile a serial function, to be called from kernels: compiled into them, never cached alone."""
    return numba.njit(func, fastmath=FASTMATH, **INNER)


def inlined(func: Callable) -> Any:
    """The same, its body put in place of each call: for inner loops that would copy many arrays into a call."""
    return numba.njit(func, fastmath=FASTMATH, inline="always", **INNER)


def in_order(func: Callable) -> Any:
    """The same, its sums in the order written: without fastmath, which lets even fused products be regrouped."""
    return numba.njit(func, fastmath=False, **INNER)  # unset, it would be the caller's


def _trailing_zeros(x: Any) -> int:
    return (int(x) & -int(x)).bit_length() - 1


trailing_zeros: Any = _trailing_zeros if _config.DISABLE_JIT else numbers.trailing_zeros
"""Of an integer that is not 0, from kernels."""


@functools.cache
def cpu_features() -> frozenset[str]:
    """What the processor that numba compiles for can do: its own settings, else this machine."""
    chosen = os.environ.get("NUMBA_CPU_FEATURES") or binding.get_host_cpu_features().flatten()
    return frozenset(feature[1:] for feature in chosen.split(",") if feature.startswith("+"))
