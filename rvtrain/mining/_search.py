"""Exact search: cosine scores of all queries with all candidates, a slab of queries at a time."""

from collections.abc import Iterator

import numpy as np

from rvtrain._primitives._engine import GROUP, Rows
from rvtrain._primitives._norms import checked_inverse_norms
from rvtrain._primitives._products import packed_columns, row_products
from rvtrain._primitives._workspace import workspace
from rvtrain.mining._selection_kernels import select

# Scores held at a time: a slab of queries, never the whole matrix.
_SLAB_BYTES = 1 << 25

Allowed = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Excluded columns (B, m), ids of the rows (B, r) and of the columns (N, r), for `select`."""

Rule = tuple[int, float, float, int, int]
"""Kind of key, temperature, dimension, seed and draw, for `select`."""


class Search:
    """Candidates made ready, and the queries that are scored against them; one dtype, C-contiguous."""

    def __init__(self, name: str, queries: np.ndarray, candidates: np.ndarray) -> None:
        self.queries = Rows(queries, checked_inverse_norms(name, queries))
        columns = Rows(candidates, checked_inverse_norms("candidates", candidates))
        self.panels = packed_columns(columns)
        self.size = len(candidates)

    def slabs(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Queries and their cosines with all candidates, (rows, N), valid until the next slab."""
        count, dtype = len(self.queries.x), self.queries.x.dtype
        fit = _SLAB_BYTES // (self.size * dtype.itemsize)
        height = max(GROUP, fit // GROUP * GROUP)
        for first in range(0, count, height):
            part = slice(first, min(first + height, count))
            scores = workspace("scores", (part.stop - first, self.size), dtype)
            row_products(self.queries, first, self.panels, scores)
            yield part, scores


def paired_cosines(a: Rows, b: Rows) -> np.ndarray:
    """Cosine of row i with row i, by the very arithmetic of the search: equal vectors give equal bits."""
    out = np.empty(len(a.x), a.x.dtype)
    block = np.empty((GROUP, GROUP), a.x.dtype)
    for first in range(0, len(out), GROUP):
        part = slice(first, min(first + GROUP, len(out)))
        rows = part.stop - first
        panels = packed_columns(Rows(b.x[part], b.inverse[part]))
        scores = block[:rows, :rows].copy()
        row_products(a, first, panels, scores)
        out[part] = scores.diagonal()
    return out


def largest(
    scores: np.ndarray,
    first: int,
    k: int,
    rule: Rule,
    allowed: Allowed,
    floors: np.ndarray | None = None,
    ceilings: np.ndarray | None = None,
) -> np.ndarray:
    """Columns (n, k) of the largest keys in each row of scores, −1 where there are fewer."""
    count = len(scores)
    out, keys = np.empty((count, k), np.int64), np.empty((count, k))
    floors = np.full(count, -np.inf) if floors is None else floors
    ceilings = np.full(count, np.inf) if ceilings is None else ceilings
    select.sized(scores.size)(scores, first, floors, ceilings, allowed, rule, keys, out)
    return out


def at(scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The scores of the columns chosen, −inf where there is none."""
    return np.where(chosen < 0, -np.inf, np.take_along_axis(scores, chosen, axis=1)).astype(scores.dtype)


def anything(rows: int, columns: int) -> Allowed:
    """No column excluded, no ids."""
    none = np.empty((rows, 0), np.int64)
    return none, none, np.empty((columns, 0), np.int64)
