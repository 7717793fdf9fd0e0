"""The seam where losses differ: what happens to one score, and to the sums of a row.

# Design: a loss that scores all rows against all columns is a *treatment* of a score. It is a named tuple of scalars
# and four functions, which the sweep calls:
#
#     score s ──▶ visit(t, s, shift, equal) ──▶ kept value, addends          each score, once
#     Σ addends of a row ──▶ close(t, i, shift, sums…, own, to)              each row: loss, slope, coefficients
#     kept value ──▶ weigh(t, kept, shift, first, second) ──▶ dL/ds          each score, unless SEPARABLE
#
# With SEPARABLE, dL/ds is the row's first coefficient times the kept value: the sweep needs one pass, and folds the
# coefficient in afterwards. Otherwise a second pass over the kept values makes the weights.
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
# All functions are compiled into the innermost loops: constants have to be of the type of s, as fields of the tuple
# are, or the loop becomes one over float64. A masked score is −inf: its addends and its weight have to be 0.
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
    """1 or 2 addends per score."""
    SEPARABLE: bool
    """Whether dL/ds is a coefficient of the row times the kept value."""
    EQUAL: bool
    """Whether `visit` is told which pairs share an id; otherwise these pairs are masked."""
    COUNTS: bool
    """Whether `close` needs to know how many scores count; may be left out if not."""
    BLOCKS: bool
    """Whether whole blocks are visited, by `visit_scores`, instead of single scores; may be left out if not."""


class Own(NamedTuple):
    """What is known of each row before the sweep; arrays (n,) float64."""

    scores: np.ndarray
    """Score of the row with its own positive."""
    weights: np.ndarray
    """Weight of the row's loss in the total."""
    outside: np.ndarray
    """Log-sum-exp of scores of the row that are in no column, or empty."""
    counts: np.ndarray
    """How many scores of the row count, with a treatment that has COUNTS, else empty."""


class Results(NamedTuple):
    """What `close` writes for each row; arrays (n,) float64."""

    losses: np.ndarray
    slopes: np.ndarray
    """dL/ds⁺, of the weighted loss."""
    first: np.ndarray
    """Coefficient for `weigh`; with SEPARABLE, what turns a kept value into dL/ds."""
    second: np.ndarray


@seam
def visit(t: Any, s: Any, shift: Any, equal: Any) -> Any:
    """(kept, addend) or, with SUMS = 2, (kept, addend, second addend) of a score s, all of the type of s.

    shift is the row maximum where the sweep was asked for it, else 1; equal is whether the pair shares an id.
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
    """With BLOCKS: replace the masked scores of a block by their kept values; `own` may have any fields.

    slab[top + p, j − origin, r, q] is the score of row first + p · MR + r with column j · NR + q, for p < panels and
    j in [begin, end). The addends are the treatment's own: `close` is given 0.
    """


@seam
def finish_slab(t: Any, threads: Any, slab: Any, first: Any, own: Any, to: Any) -> None:
    """With BLOCKS: called after each slab, which starts with row `first`.

    The slab holds all kept values if a gradient to the columns is wanted.
    """
