"""Functions with one implementation for each class of named tuple, chosen when a kernel is compiled."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from rvtrain._kernels._decorators import disabled, overload

_classes: dict[tuple[str, tuple[str, ...]], type] = {}


def seam(func: Callable) -> Any:
    """A function whose implementation depends on the class of its first argument; `func` gives its documentation."""
    table: dict[type, Callable] = {}

    @functools.wraps(func)
    def chosen(first: Any, *rest: Any) -> Any:
        return table[type(first)](first, *rest)

    chosen.table = table  # type: ignore[attr-defined]
    return chosen


def implements(function: Any, cls: Any) -> Callable[[Callable], Callable]:
    """Decorate a function that implements a seam for a class of named tuple.

    The class and its implementations have to be in one file, because the key of compiled code on disk contains the
    source of this file only.
    """
    _name_apart(cls)

    def register(func: Callable) -> Callable:
        function.table[cls] = func

        def choose(*args: Any) -> Any:
            return func if getattr(args[0], "instance_class", None) is cls else None

        choose.__signature__ = inspect.signature(func)  # type: ignore[attr-defined]
        if not disabled():
            overload(function)(choose)
        return func

    return register


def _name_apart(cls: Any) -> None:
    """Rename a class that has the same name and field names as another class.

    numba takes such classes for equal, so it would run code compiled for the first class (or for its earlier
    definition at a prompt) with the second one.
    """
    while _classes.setdefault((cls.__name__, cls._fields), cls) is not cls:
        cls.__name__ += "_"
