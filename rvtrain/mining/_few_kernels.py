"""The search for a few queries: candidates are read where they stand, once, and nothing is packed.

The scores are those of `scan` to the bit, and so is the result.
"""

import numpy as np

from rvtrain._jit import kernel, njit, prange
from rvtrain._primitives._pairs import TOGETHER, dots, unit_row
from rvtrain.mining._selection_kernels import BY_SCORE, offer

FEW = 4
"""Queries from which on packing pays."""


@kernel
def scan_few(queries, rows, origin, limits, rule, best, units, others, scores):
    """Offer rows (m, d), the candidates from `origin` on, to all queries.

    units (parts, FEW, d), others (parts, TOGETHER, d) and scores (parts, TOGETHER) are scratch of the parts of best.
    """
    for part in prange(len(others)):
        _scan_part(np.int64(part), queries, rows, origin, limits, rule, best, units, others, scores)


@njit
def _scan_part(part, queries, rows, origin, limits, rule, best, units, others, scores):
    mine, found = others[part], scores[part]
    for i in range(len(queries.x)):
        unit_row(queries, i, units[part, i])
    end = len(rows.x) * (part + 1) // len(others)
    for start in range(len(rows.x) * part // len(others), end, TOGETHER):
        here = min(TOGETHER, end - start)
        for c in range(here):
            unit_row(rows, start + c, mine[c])
        for i in range(len(queries.x)):
            dots(units[part, i], mine, found)
            hit = rule.kind != BY_SCORE or best.sizes[part, i] < best.keys.shape[2]
            for c in range(here):
                hit |= found[c] > best.keys[part, i, 0]
            if hit:
                offer(found, here, start, origin, part, i, limits, rule, best)
