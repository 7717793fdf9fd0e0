"""Decorators of serial functions that are compiled into kernels, and the flags of all compiled code."""

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import binding
from numba import extending
from numba.cpython.unsafe import numbers

FASTMATH = {"reassoc", "contract", "arcp", "nsz", "afn"}
"""Fastmath flags that let reductions vectorise; without `nnan` and `ninf`, which delete every check for NaN."""

OUTER: dict[str, Any] = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True}
"""Options of functions that are called from Python."""

INNER: dict[str, Any] = {**OUTER, "no_cpython_wrapper": True}
"""Options of the other functions: without wrappers for calls from Python, which take a tenth of all compile time."""

_OF_OVERLOADS: Any = {"no_cfunc_wrapper": True}  # an overload takes its other options from its caller

_config: Any = numba.config


def disabled() -> bool:
    """Whether NUMBA_DISABLE_JIT is set, under which all functions run as Python."""
    return bool(_config.DISABLE_JIT)


def intrinsic_of(typing: Callable, func: Callable, parameters: list[str]) -> Any:
    """A numba intrinsic with this typing function, the name of `func` and these parameters."""
    named: Any = typing
    named.__name__, named.__qualname__, named.__module__ = func.__name__, func.__qualname__, func.__module__
    named.__doc__ = func.__doc__
    named.__signature__ = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("typingctx", *parameters)]
    )
    return extending.intrinsic(named)


def njit(func: Callable) -> Any:
    """Decorate a serial function that kernels call: it is compiled into each of them, and not kept on disk alone."""
    return numba.njit(func, fastmath=FASTMATH, **INNER)


def inlined(func: Callable) -> Any:
    """As `njit`, but inlined by numba: for inner loops, where a call would copy the structs of many arrays."""
    return numba.njit(func, fastmath=FASTMATH, inline="always", **INNER)


def in_order(func: Callable) -> Any:
    """As `njit`, but without fastmath: sums stay in the order written, which fastmath regroups even where fused."""
    return numba.njit(func, fastmath=False, **INNER)  # explicit, because the default is the caller's fastmath


def overload(function: Any) -> Callable[[Callable], Callable]:
    """Decorate a function from argument types to an implementation (or None) of `function` in compiled code."""
    return extending.overload(function, jit_options=_OF_OVERLOADS)


def register_jitable(func: Callable) -> Callable:
    """Decorate a function that both Python and kernels call."""
    return extending.register_jitable(**_OF_OVERLOADS)(func)


def _trailing_zeros(x: Any) -> int:
    return (int(x) & -int(x)).bit_length() - 1


trailing_zeros: Any = _trailing_zeros if disabled() else numbers.trailing_zeros
"""Number of zero bits below the lowest set bit of an integer other than 0."""


@functools.cache
def cpu_features() -> frozenset[str]:
    """Features of the processor that numba compiles for: from numba's settings, else of this machine."""
    chosen = os.environ.get("NUMBA_CPU_FEATURES") or binding.get_host_cpu_features().flatten()
    return frozenset(feature[1:] for feature in chosen.split(",") if feature.startswith("+"))
