"""The most similar candidates, scored by a better judge than the cosine."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain.mining._pool import Pool
from rvtrain.mining._positives import Positives
from rvtrain.mining._ranked import Ranked

Rescore = Callable[[NDArray[np.int64], NDArray[np.int64]], ArrayLike]
"""Called with numbers of anchors and indices of candidates, both (n,); returns the scores of these pairs (n,)."""

PER_NEGATIVE = 10
"""Candidates that are rescored for each negative that is asked for, unless `range_max` says how many."""


def rescored(
    rescore: Rescore, pool: Pool, k: int, positives: Positives | None
) -> tuple[Ranked, NDArray[np.float64] | None]:
    """The most similar candidates of the pool with the scores of `rescore`, and s⁺ (B,) by these scores."""
    filters, own = pool.filters, None
    if positives is not None:
        if positives.indices is None:
            raise ValueError("positives must be indices of candidates where rescore scores them, got vectors")
        own = np.where(positives.indices < 0, np.inf, _scores(rescore, positives.indices, pool)).min(axis=1)
    stop = filters.range_max if filters.range_max is not None else filters.range_min + PER_NEGATIVE * k
    columns = pool.ranked(stop).columns
    scores = _scores(rescore, columns, pool)
    floors, ceilings = filters.window(own, len(scores), scores.dtype)
    return Ranked(columns, scores, floors, ceilings, filters._replace(range_max=stop)), own


def _scores(rescore: Rescore, columns: NDArray[np.int64], pool: Pool) -> NDArray[np.float64]:
    """The scores that `rescore` gives to the candidates (B, M) of each anchor; −inf where there is none, −1."""
    rows, places = np.nonzero(columns >= 0)
    chosen, scores = columns[rows, places], np.full(columns.shape, -np.inf)
    if len(rows):
        given = pool.candidates.by_parts(len(rows), lambda part: _of_pairs(rescore, rows[part], chosen[part]))
        scores[rows, places] = given
    return scores


def _of_pairs(rescore: Rescore, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
    given = np.asarray(rescore(rows, columns))
    if given.dtype.kind not in "fiu":
        raise TypeError(f"rescore must return real numbers, got dtype {given.dtype}")
    if given.shape != rows.shape:
        raise ValueError(f"rescore must return a score for each pair, of shape {rows.shape}, got {given.shape}")
    if not np.isfinite(given).all():
        worst = int(np.argmin(np.isfinite(given)))
        raise ValueError(f"rescore must return finite scores, got {given[worst]} for pair {worst}")
    return given.astype(np.float64)
