"""Functions with one implementation for each class of named tuple, chosen when a kernel is compiled."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from rvtrain._kernels._decorators import disabled, overload

_classes: dict[tuple[str, tuple[str, ...]], type] = {}


def seam(func: Callable) -> Any:
    """A function whose implementation depends on the class of its first argument; `func` is its documentation."""
    table: dict[type, Callable] = {}

    @functools.wraps(func)
    def chosen(first: Any, *rest: Any) -> Any:
        return table[type(first)](first, *rest)

    chosen.table = table  # type: ignore[attr-defined]
    return chosen


def implements(function: Any, cls: Any) -> Callable[[Callable], Callable]:
    """Make a function the implementation of a seam for a class of named tuple.

    The class and its implementations have to stand in one file: compiled code on disk is known by this file.
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
    """Give a class another name if it shares it and the names of its fields with another class.

    numba takes such classes for one: the code of the first would serve the second, or one defined again at a prompt.
    """
    while _classes.setdefault((cls.__name__, cls._fields), cls) is not cls:
        cls.__name__ += "_"
