"""The search for at most FEW queries: candidates are read once, where they are, and not packed.

# Design: most rows cannot enter a heap. A product in vectors, summed in any order, shows that:
#
#     Σ x u, Σ x²  →  Σ x u ≥ (root − slack) ‖x‖ ?   no: next rows   yes: unit row, summed in the order of the engine
#
# Each of these sums of d products has an error of at most d ε/2, relative to ‖x‖ ‖u‖ and ‖x‖², in any order. So
# has the score; the slack is four times the sum of these errors. Scores and result are those of `scan` to the bit.
"""

import numpy as np

from rvtrain._engine import _row_screen
from rvtrain._engine._norms import EPS, inverse_norm
from rvtrain._engine._pairs import TOGETHER, dots, unit_row
from rvtrain._engine._random import row_key
from rvtrain._engine._row_screen import may_reach
from rvtrain._kernels import kernel, njit
from rvtrain.mining._selection_kernels import BY_SCORE, is_allowed, push_scores

FEW = 4
"""The most queries for which this search is faster than packing the candidates."""

_AT_ONCE = _row_screen.TOGETHER


@kernel
def scan_few(start, stop, queries, x, origin, limits, rule, best, units, others, scores, bad):
    """Push the scores of all rows for each of at most FEW queries on the query's heap.

    Shapes: queries Rows of (B, d); x (m, d), the candidates from `origin` on. Count is the number of parts; bad
    (parts,) int64 is the first row of a part that is not finite, −1 if all are finite. units (parts, FEW, d), others
    (parts, TOGETHER, d) and scores (parts, TOGETHER) are scratch.
    """
    parts, count = len(others), len(x)
    for part in range(start, stop):
        mine, found = others[part], scores[part]
        bad[part] = -1
        for i in range(len(queries.x)):
            unit_row(queries, i, units[part, i])
        end = count * (part + 1) // parts
        for begin in range(count * part // parts, end, TOGETHER):
            here, measured = min(TOGETHER, end - begin), False
            for i in range(len(queries.x)):
                full = rule.kind == BY_SCORE and best.sizes[part, i] == best.keys.shape[2]
                if full and not _may_beat_root(x, begin, here, units, part, i, best.keys[part, i, 0]):
                    continue
                if not measured:
                    for c in range(here):
                        if not _measure(x, begin + c, mine[c]) and bad[part] < 0:
                            bad[part] = begin + c
                    measured = True
                dots(units[part, i], mine, found)
                if limits.ceilings[i] < np.inf:
                    best.dropped[part, i] += _count_above(found, here, begin, origin, i, limits)
                noise = row_key(rule.seed, rule.draw, i)
                push_scores(found, here, begin, origin, noise, part, i, limits, rule, best)


@njit
def _measure(x, i, out):
    """out = row i at length one, rounded as in the packed copies; returns whether the row is finite."""
    inverse = inverse_norm(x[i], EPS)
    for k in range(len(out)):
        out[k] = x[i, k] * inverse
    return not np.isnan(inverse)


@njit
def _count_above(scores, count, begin, origin, row, limits):
    """How many of the first `count` scores are at or above the ceiling of the row, of allowed candidates."""
    above = 0
    for c in range(count):
        if scores[c] >= limits.ceilings[row] and is_allowed(row, origin + begin + c, begin + c, limits):
            above += 1
    return above


@njit
def _may_beat_root(x, begin, count, units, part, i, root):
    """Whether the cosine of one of these rows with the query units[part, i] may be above root.

    May be true although none is, but not false where one is.
    """
    if count < TOGETHER:
        return True
    dim = x.shape[1]
    bound = x.dtype.type(root - 4.0 * (dim + 8.0) * np.finfo(x.dtype).eps)
    at = (part * units.shape[1] + i) * dim
    for row in range(begin, begin + count, _AT_ONCE):
        if may_reach(x, row, units, at, bound):
            return True
    return False
