"""The interface between the sweep and a loss: how a loss treats one score, and the sums of a row.

# Design: a loss that scores all rows against all columns is a *treatment* of a score: a named tuple of scalars and
# three functions, which the sweep calls:
#
#     score s ──▶ visit(t, s, shift, equal) ──▶ kept value, addends          each score, once
#     Σ addends of a row ──▶ close(t, i, shift, sums…, own, to)              each row: loss, slope, coefficients
#     kept value ──▶ weigh(t, kept, shift, first, second) ──▶ dL/ds          each score, unless SEPARABLE
#
# With SEPARABLE, dL/ds is the row's first coefficient times the kept value. The sweep then needs one pass and
# multiplies by the coefficient afterwards. Otherwise a second pass over the kept values computes the weights.
#
#     class SquaredHinge(NamedTuple):
#         margin: float
#         SUMS, SEPARABLE, EQUAL = 1, True, False
#
#     @implements(visit, SquaredHinge)
#     def _(t, s, shift, equal): …
#
# A treatment that needs the rows and columns of the scores sets BLOCKS: then `visit_scores` is called with each block
# instead of `visit` with each score, and `finish_slab` with each slab of rows after its last block.
#
# These functions are compiled into the innermost loops. Their constants must have the type of s, as the fields of the
# tuple do, because a float64 constant makes the whole loop float64. A masked score is −inf, for which the addends and
# the weight must be 0.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np

from rvtrain._kernels import implements, seam

__all__ = [
    "Own",
    "Results",
    "Treatment",
    "close",
    "finish_slab",
    "implements",
    "visit",
    "visit_scores",
    "weigh",
]


class Treatment(Protocol):
    """A named tuple of scalars with these constants in its class."""

    SUMS: int
    """Number of addends per score, 1 or 2."""
    SEPARABLE: bool
    """Whether dL/ds is the row's first coefficient times the kept value."""
    EQUAL: bool
    """Whether `visit` is told which pairs share an id; otherwise these pairs are masked."""
    COUNTS: bool
    """Whether `close` needs the number of scores that are not masked; optional, default False."""
    BLOCKS: bool
    """Whether `visit_scores` is called with whole blocks instead of `visit` with scores; optional, default False."""


class Own(NamedTuple):
    """Values of each row that are known before the sweep; arrays (n,) float64."""

    scores: np.ndarray
    """Score of the row with its own positive."""
    weights: np.ndarray
    """Weight of the row's loss in the total."""
    outside: np.ndarray
    """Log-sum-exp of further scores of the row, which the sweep does not see, or empty."""
    counts: np.ndarray
    """Number of scores of the row that are not masked, if the treatment has COUNTS, else empty."""


class Results(NamedTuple):
    """The results of each row, which `close` writes; arrays (n,) float64."""

    losses: np.ndarray
    slopes: np.ndarray
    """dL/ds⁺, where L is the weighted loss."""
    first: np.ndarray
    """First coefficient for `weigh`; with SEPARABLE, the factor that turns a kept value into dL/ds."""
    second: np.ndarray
    """Second coefficient for `weigh`."""


@seam
def visit(t: Any, s: Any, shift: Any, equal: Any) -> Any:
    """(kept, addend) or, with SUMS = 2, (kept, addend, second addend) of a score s, all of the type of s.

    shift is the row maximum if the sweep is not `bounded`, else 1; equal is whether the pair shares an id.
    """


@seam
def close(t: Any, i: Any, shift: Any, total: Any, second: Any, own: Any, to: Any) -> Any:
    """Row epilogue: from the sums of the addends of row i, float64, to its entries in `to` (Results)."""


@seam
def weigh(t: Any, kept: Any, shift: Any, first: Any, second: Any) -> Any:
    """dL/ds of a score from its kept value and the row's coefficients, all of the type of s."""


@seam
def visit_scores(
    t: Any, slab: Any, top: Any, panels: Any, begin: Any, end: Any, origin: Any, first: Any, own: Any
) -> None:
    """With BLOCKS: replace the scores of a block, masked already, by kept values; `own` may have any fields.

    slab[top + p, j − origin, r, q] is the score of row first + p · MR + r with column j · NR + q, for p < panels and
    j in [begin, end). The treatment keeps its own sums; `close` gets sums of 0.
    """


@seam
def finish_slab(t: Any, threads: Any, slab: Any, first: Any, own: Any, to: Any) -> None:
    """With BLOCKS: called after each slab of rows, from row `first` on.

    If a gradient to the columns is wanted, the slab then holds the kept values of all columns.
    """
