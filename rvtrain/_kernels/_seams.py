"""Functions with one implementation for each class of named tuple, chosen when a kernel is compiled."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from numba.extending import overload

from rvtrain._kernels._decorators import disabled


def seam(func: Callable) -> Any:
    """A function whose implementation depends on the class of its first argument; `func` is its documentation."""
    table: dict[type, Callable] = {}

    @functools.wraps(func)
    def chosen(first: Any, *rest: Any) -> Any:
        return table[type(first)](first, *rest)

    chosen.table = table  # type: ignore[attr-defined]
    return chosen


def implements(function: Any, cls: type) -> Callable[[Callable], Callable]:
    """Make a function the implementation of a seam for a class of named tuple.

    The class and its implementations have to stand in one file: compiled code on disk is known by this file.
    """

    def register(func: Callable) -> Callable:
        function.table[cls] = func

        def choose(*args: Any) -> Any:
            return func if getattr(args[0], "instance_class", None) is cls else None

        choose.__signature__ = inspect.signature(func)  # type: ignore[attr-defined]
        if not disabled():
            overload(function)(choose)
        return func

    return register
