"""Serial functions that are compiled into kernels, and the flags of all compiled code."""

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
"""The flags that let reductions vectorise. `nnan` and `ninf` are not among them: they delete every check for NaN."""

OUTER: dict[str, Any] = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True}
"""Options of functions that are called from Python."""

INNER: dict[str, Any] = {**OUTER, "no_cpython_wrapper": True}
"""Options of functions that are not: the wrappers for calls from Python would be a tenth of all compile time."""

_OF_OVERLOADS: Any = {"no_cfunc_wrapper": True}  # all other options are those of the caller

_config: Any = numba.config


def disabled() -> bool:
    """Whether NUMBA_DISABLE_JIT is set: all functions run as Python."""
    return bool(_config.DISABLE_JIT)


def intrinsic_of(typing: Callable, func: Callable, parameters: list[str]) -> Any:
    """A numba intrinsic of that typing function, with the name of `func` and these parameters."""
    named: Any = typing
    named.__name__, named.__qualname__, named.__module__ = func.__name__, func.__qualname__, func.__module__
    named.__doc__ = func.__doc__
    named.__signature__ = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("typingctx", *parameters)]
    )
    return extending.intrinsic(named)


def njit(func: Callable) -> Any:
    """Compile a serial function, to be called from kernels: compiled into them, never kept on disk alone."""
    return numba.njit(func, fastmath=FASTMATH, **INNER)


def inlined(func: Callable) -> Any:
    """The same, its code put in place of each call: for inner loops that would copy many arrays into a call."""
    return numba.njit(func, fastmath=FASTMATH, inline="always", **INNER)


def in_order(func: Callable) -> Any:
    """The same, its sums in the order written: without fastmath, which lets even fused products be regrouped."""
    return numba.njit(func, fastmath=False, **INNER)  # unset, it would be the caller's


def overload(function: Any) -> Callable[[Callable], Callable]:
    """Make a function of argument types, which returns an implementation or None, compile another function."""
    return extending.overload(function, jit_options=_OF_OVERLOADS)


def register_jitable(func: Callable) -> Callable:
    """Let kernels call a function that Python calls too."""
    return extending.register_jitable(**_OF_OVERLOADS)(func)


def _trailing_zeros(x: Any) -> int:
    return (int(x) & -int(x)).bit_length() - 1


trailing_zeros: Any = _trailing_zeros if disabled() else numbers.trailing_zeros
"""Number of zero bits below the lowest one bit of an integer that is not 0."""


@functools.cache
def cpu_features() -> frozenset[str]:
    """Features of the processor that numba compiles for: by its own settings, else this machine's."""
    chosen = os.environ.get("NUMBA_CPU_FEATURES") or binding.get_host_cpu_features().flatten()
    return frozenset(feature[1:] for feature in chosen.split(",") if feature.startswith("+"))
