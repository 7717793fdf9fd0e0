"""Adagrad, for elements and for rows."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rvtrain._kernels import in_order, kernel
from rvtrain.optimizers import _array_rule as base
from rvtrain.optimizers._base import Optimizer
from rvtrain.optimizers._rows import by_table, whole
from rvtrain.optimizers._rule import element, implements_in_order
from rvtrain.optimizers._state import Layout, as_table


class Scaled(NamedTuple):
    """The numbers of a step."""

    rate: float
    eps: float
    sign: float


@implements_in_order(element, Scaled)
def _(c, p, g, buffers):
    g = c.sign * g
    total = buffers[0] + g * g
    return p - c.rate * (g / (np.sqrt(total) + c.eps)), (total,)


@kernel
def step_by_row(start, stop, p, g, totals, c, wipe):
    """One step of p (n, d), or of p[g.rows], g a `Gradient`, with a number of each row, totals (n,).

    The range is that of all rows, or of g.rows. The mean of squares is computed in float64. wipe: leave zeros in g.
    """
    given, sums, source, rows = g
    real, width = p.dtype.type, p.shape[1]
    for r in range(start, stop):
        row = r if len(rows) == 0 else rows[r]
        s = r if len(rows) == 0 else source[r]
        gradient, values = given[s] if s >= 0 else sums[-1 - s], p[row]
        square = 0.0
        for k in range(width):
            square += np.float64(gradient[k]) * np.float64(gradient[k])
        totals[row] += real(c.sign * c.sign * square / width)
        factor = real(c.rate * c.sign / (np.sqrt(np.float64(totals[row])) + c.eps))
        for k in range(width):
            values[k] = _less(values[k], factor, gradient[k])
        if wipe:
            gradient[:] = 0


@in_order
def _less(p, factor, g):
    return p - factor * g


class Rule(base.Rule):
    constants, buffers, owes = Scaled, ("sum",), False

    def layout(self, o: Any, shape: tuple[int, ...]) -> Layout:
        rows = shape[0] if len(shape) == 2 else 1
        return {"sum": ((rows,), None)} if o.rowwise else super().layout(o, shape)

    def numbers(self, o: Any, step: int, state: base.State) -> Scaled:
        return Scaled(o._rate(step), o.eps, 1.0)

    def prepared(self, o: Any, p: np.ndarray, g: np.ndarray, state: base.State, name: str) -> Any:
        if not o.rowwise:
            return super().prepared(o, p, g, state, name)
        table, of_table, run = as_table(p), by_table(whole(g)), step_by_row.sized(4 * p.size)
        return lambda numbers, wipe: run(len(table), table, of_table, state["sum"], numbers, wipe)

    def step_rows(
        self, o: Any, p: np.ndarray, rows: np.ndarray, g: Any, state: base.State, numbers: Any, owed: Any, name: str
    ) -> None:
        if o.rowwise:
            step_by_row.sized(8 * len(rows) * p.shape[1])(len(rows), p, g, state["sum"], numbers, False)
        else:
            super().step_rows(o, p, rows, g, state, numbers, owed, name)


@dataclass(eq=False, repr=False)
class Adagrad(Optimizer):
    r"""Adagrad, whose steps become shorter where gradients have been large; the semantics of ``torch.optim.Adagrad``.

    .. math:: G \leftarrow G + g^2, \qquad p \leftarrow p - η \, \frac{g}{\sqrt{G} + ε}

    Parameters
    ----------
    params, lr, nonfinite, groups
        As in `Adam`.
    eps : float
        ε ≥ 0.
    rowwise : bool
        One G for each row of a table, to which the mean of the row's g² is added: a table (n, d) has a state of n
        numbers. An array of another number of dimensions than two counts as one row.
    lazy : {"idle", "exact"}
        The same for this rule: a row without a gradient is left as it is.

    References
    ----------
    Duchi, Hazan & Singer (2011), Adaptive Subgradient Methods, JMLR 12.
    Lerer et al. (2019), PyTorch-BigGraph, arXiv:1903.12287 (by row).

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> table = np.ones((3, 2))
    >>> optimizer = rt.Adagrad(table, lr=0.1, rowwise=True)
    >>> optimizer.step(table, np.array([[3.0, 4.0]]), rows=[1])
    >>> table[1].round(4)
    array([0.9151, 0.8869])
    """

    lr: float = 1e-2
    eps: float = 1e-10
    rowwise: bool = False
    state_dtype: str = field(default="float32", init=False)

    _rule = Rule()
