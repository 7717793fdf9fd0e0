"""The kernels of all rules for state in the dtype of the parameters: a step is one pass over memory.

In all of them c holds the rule's numbers, float64, and buffers is a tuple of state arrays, shaped as p.
"""

import inspect
from typing import Any

from rvtrain._engine._prefetch import prefetch_rows
from rvtrain._kernels import Kernel, disabled, driver, inlined, kernel
from rvtrain.optimizers._rule import (
    before,
    element,
    fetch,
    fetch_at,
    holds,
    idle,
    keep,
    keep_at,
    numbers_at,
    numbers_of,
    parts,
    put_numbers,
)


def dense_step_of(rule: Any) -> Kernel:
    """The kernel of a step of all elements, for a rule's class of numbers.

    There is one for each rule, which takes the numbers as a plain tuple, because a call with a named tuple takes two
    microseconds more.
    """
    kind = rule(*(0.0 for _ in rule._fields))

    def dense_step(start, stop, p, g, buffers, c, wipe):
        """One step of all elements.

        Shapes: p, g and the buffers (n,); the range is that of the elements. wipe: leave zeros in g.
        """
        c = numbers_of(kind, c, p.dtype)
        p, g, buffers = p[start:stop], g[start:stop], parts(buffers, start, stop)
        for i in range(len(p)):
            p[i], new = element(c, p[i], g[i], fetch(buffers, i))
            keep(buffers, i, new)
            if wipe:
                g[i] = 0

    if not disabled():  # compiled code depends on the sources of the file that its function names: here, the rule's
        dense_step.__code__ = dense_step.__code__.replace(co_filename=inspect.getfile(rule))
    return Kernel(dense_step, name=f"{rule.__name__} dense_step")


# An argument that is None is known to the compiler, and so is the length of a tuple: it drops the other branches. A
# kernel selects the branch itself, because in functions that are inlined the compiler looks too late.
#
# Rows are named by table and number, because each view of a row counts a reference, up and down, by additions that
# threads contend for. They took a fifth of all time.


@kernel
def row_steps(start, stop, p, rows, g, buffers, c, owed):
    """The idle steps that p[rows] have missed, then one step of these rows.

    Shapes: p and the buffers (n, d), rows (R,); the range is that of rows. g is a `Gradient` of these rows, or None:
    no step. owed is an `Owed`, or None: no idle steps. One kernel makes both, so that each row is read once.
    """
    now = numbers_of(c, c, p.dtype)
    for r in range(start, stop):
        if len(buffers) == 0:
            prefetch_rows(rows, r, p, p, p)
        elif len(buffers) == 1:
            prefetch_rows(rows, r, p, buffers[0], buffers[0])
        else:
            prefetch_rows(rows, r, p, buffers[0], buffers[1])
        row = rows[r]
        if owed is not None:
            first, history, total, table = owed
            if first[r] < len(table):
                idle_steps(p, row, 0, buffers, row, p.shape[1], c, first[r], history, total, table)
        if g is not None:
            given, sums, source, _ = g
            s = source[r]
            if s >= 0:
                for k in range(p.shape[1]):
                    p[row, k], new = element(now, p[row, k], given[s, k], fetch_at(buffers, row, k))
                    keep_at(buffers, row, k, new)
            else:
                for k in range(p.shape[1]):
                    p[row, k], new = element(now, p[row, k], sums[-1 - s, k], fetch_at(buffers, row, k))
                    keep_at(buffers, row, k, new)


@inlined
def idle_steps(p, row, low, buffers, at, width, c, first, history, total, table):
    """The steps from `first` on with g = 0 of p[row, low : low + width], in closed form if it holds, else singly.

    The state is buffers[…][at, :width].
    """
    all_steps, accurate = numbers_at(total, table, first, p.dtype), True
    for k in range(width):
        accurate &= holds(all_steps, fetch_at(buffers, at, k))
    if accurate:
        for k in range(width):
            p[row, low + k], new = idle(all_steps, p[row, low + k], fetch_at(buffers, at, k))
            keep_at(buffers, at, k, new)
    else:
        for step in range(first, len(history)):
            now = numbers_at(c, history, step, p.dtype)
            for k in range(width):
                p[row, low + k], new = element(now, p[row, low + k], p.dtype.type(0), fetch_at(buffers, at, k))
                keep_at(buffers, at, k, new)


@driver
def idle_table(threads, c, total, history, table):
    """table[s] = the numbers of the steps s, s + 1, …, T − 1 together.

    Shapes: history (T, …), the numbers of each step, of the class of c; table (T, …), of the class of total, that
    of no step.
    """
    for s in range(len(history) - 1, -1, -1):
        total = before(total, numbers_at(c, history, s, history.dtype))
        put_numbers(total, table, s)
