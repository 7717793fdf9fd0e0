"""The interface between the kernels of a step and a rule: the mathematics of one element.

# Design: a rule is a named tuple of the numbers of one step and the function `element`; the kernels of all formats
# (dense, rows, state in 16 or 8 bits) are the loops around it:
#
#     numbers, p, g, buffers ──▶ element ──▶ p, buffers                      each element of a step
#
#     class Momentum(NamedTuple):
#         rate: float
#         decay: float
#         sign: float            # ±1, times the factor of clipping: every rule multiplies g by it
#
#     @implements_in_order(element, Momentum)
#     def _(c, p, g, buffers):
#         b = c.decay * buffers[0] + c.sign * g
#         return p - c.rate * b, (b,)
#
# It is compiled in order, because under fastmath the compiler may fuse and reorder products differently in vectors,
# in scalar tails and in cached code, so that results depended on the number of threads. Nothing is lost, because
# steps wait for memory.
#
# An idle row is one that several steps did not name: under lazy="exact" it owes as many steps with g = 0. A rule may
# have a closed form of these. It is a second named tuple, of the numbers of several steps together:
#
#     total ──▶ before(total, c) ──▶ total             these steps, and the step c before them
#     total, p, buffers ──▶ idle ──▶ p, buffers        all of these steps of one element
#     total, buffers ──▶ holds ──▶ bool                whether the closed form is accurate for this element
#
# A row with an element for which it does not hold is stepped one step after the other, by `element` with g = 0.
#
# The numbers are float64 in Python and in the history. Kernels convert them to the dtype of the parameters.
"""

import inspect
from collections.abc import Callable
from typing import Any

from rvtrain._kernels import disabled, implements, in_order, overload, seam

__all__ = ["always", "before", "element", "holds", "idle", "implements", "implements_in_order"]


def implements_in_order(function: Any, cls: Any) -> Callable[[Any], Any]:
    """As `implements`, but compiled without fastmath."""

    def decorate(func: Any) -> Any:
        ordered = in_order(func)
        parameters = ", ".join(inspect.signature(func).parameters)
        text = f"lambda {parameters}: ordered({parameters})"  # numba compares the names of parameters
        implements(function, cls)(eval(compile(text, func.__code__.co_filename, "eval"), {"ordered": ordered}))
        return func

    return decorate


def always(cls: Any) -> Any:
    """Decorate a class of the numbers of idle steps whose closed form holds for every element."""
    implements(holds, cls)(_yes)
    return cls


def _yes(total: Any, buffers: Any) -> bool:
    return True


@seam
def element(c: Any, p: Any, g: Any, buffers: Any) -> Any:
    """(p, buffers) after one step: p a number, g its gradient, buffers a tuple of numbers, c in their dtype."""


@seam
def before(total: Any, c: Any) -> Any:
    """The numbers of the steps of `total` and of the step c before them; all float64."""


@seam
def holds(total: Any, buffers: Any) -> Any:
    """Whether the closed form is accurate for an element with these buffers."""


@seam
def idle(total: Any, p: Any, buffers: Any) -> Any:
    """(p, buffers) after the steps of `total` with g = 0."""


# Functions of tuples, unrolled for their length, because compiled code cannot loop over tuples of arrays. They read
# elements of the arrays where they stand: a view of a row would count a reference, which takes longer.


def unrolled(result: str = "", statement: str = "") -> Callable[[Any], Any]:
    """Decorate a function of a tuple, which Python runs. Compiled code runs the same for each place j of the tuple.

    It makes all statements, and returns the tuple of all results; cls is the class of a named tuple.
    """

    def decorate(func: Any) -> Any:
        parameters = list(inspect.signature(func).parameters)

        def choose(*args: Any) -> Any:
            places = range(len(args[0]))
            cls = getattr(args[0], "instance_class", None)
            statements = [statement.format(j=j) for j in places if statement]
            items = "".join(f"{result.format(j=j)}, " for j in places if result)
            lines = [*statements, f"return {'cls' if cls else ''}({items})" if result else "return None"]
            scope = func.__globals__ | {"cls": cls}
            exec("\n    ".join([f"def made({', '.join(parameters)}):", *lines]), scope)
            return scope["made"]

        plain = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in parameters]
        choose.__signature__ = inspect.Signature(plain)  # type: ignore[attr-defined]
        if not disabled():
            overload(func)(choose)
        return func

    return decorate


@unrolled("dtype.type(row[{j}])")
def numbers_of(kind: Any, row: Any, dtype: Any) -> Any:
    """The numbers of a named tuple of the class of `kind`, from an array or a tuple, in this dtype."""
    return type(kind)(*(dtype.type(x) for x in row))


@unrolled("dtype.type(table[s, {j}])")
def numbers_at(kind: Any, table: Any, s: Any, dtype: Any) -> Any:
    """The same from row s of a table."""
    return type(kind)(*(dtype.type(x) for x in table[s]))


@unrolled(statement="table[s, {j}] = total[{j}]")
def put_numbers(total: Any, table: Any, s: Any) -> None:
    """Write the numbers of a named tuple to row s of a table."""
    table[s] = total


@unrolled("arrays[{j}][start:stop]")
def parts(arrays: Any, start: Any, stop: Any) -> Any:
    """A part of each vector."""
    return tuple(x[start:stop] for x in arrays)


@unrolled("arrays[{j}][i]")
def fetch(arrays: Any, i: Any) -> Any:
    """Element i of each vector."""
    return tuple(x[i] for x in arrays)


@unrolled(statement="arrays[{j}][i] = values[{j}]")
def keep(arrays: Any, i: Any, values: Any) -> None:
    """Write element i of each vector."""
    for x, value in zip(arrays, values, strict=True):
        x[i] = value


@unrolled("tables[{j}][row, k]")
def fetch_at(tables: Any, row: Any, k: Any) -> Any:
    """Element (row, k) of each table."""
    return tuple(x[row, k] for x in tables)


@unrolled(statement="tables[{j}][row, k] = values[{j}]")
def keep_at(tables: Any, row: Any, k: Any, values: Any) -> None:
    """Write element (row, k) of each table."""
    for x, value in zip(tables, values, strict=True):
        x[row, k] = value
