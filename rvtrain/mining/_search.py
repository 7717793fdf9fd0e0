"""Exact search: cosines of all queries with all candidates, block by block, straight into a selection."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rvtrain import _progress
from rvtrain._engine import _blocks as engine
from rvtrain._engine._norms import EPS, check_rows_finite, checked_inverse_norms
from rvtrain._engine._pairs import TOGETHER
from rvtrain._engine._products import packed_columns
from rvtrain._engine._scratch import Scratch, scratch
from rvtrain._engine._tile import tile_shape
from rvtrain._kernels._threads import thread_count
from rvtrain.mining._candidates import Candidates, Prepared, Progress
from rvtrain.mining._certified import (
    BOUND,
    certified,
    codes_of,
    is_possible,
    is_worthwhile,
    is_worthwhile_once_encoded,
)
from rvtrain.mining._few_kernels import FEW, scan_few
from rvtrain.mining._selection_kernels import BY_SCORE, Best, Limits, Rule, finish, scan

METHODS = ("auto", "float", "bounds")

Found = tuple[NDArray[np.int64], NDArray[np.floating]]
"""Indices and scores, best first; −1 and −inf beyond the last of a row."""


class Result(NamedTuple):
    """What a search has found."""

    columns: NDArray[np.int64]
    """(B, min(k, N)) indices of candidates, best first; −1 beyond the last of a row"""
    scores: NDArray[np.floating]
    """(B, min(k, N)); −inf beyond the last of a row"""
    dropped: NDArray[np.int64]
    """(B,) the number of allowed candidates at or above the ceiling, for rows whose floor is below their ceiling"""
    keys: NDArray[np.float64]
    """(B, min(k, N)), by which the candidates are in order"""


_SAMPLED_QUERIES, _SAMPLED_CANDIDATES, _MOST_NEAR = 8, 256, 1 / 512
"""Size of the sample of scores, and the share of them near the ceilings beyond which 16-bit codes take less time."""

_SLAB_ROWS = 64 * engine.GROUP
"""Queries that share the scan of a block: their packed copies and scores are in memory at the same time."""


def search(
    queries: engine.Rows,
    candidates: Candidates,
    k: int,
    rule: Rule,
    limits: Limits,
    progress: Progress | None = None,
    *,
    method: str = "auto",
    likely: NDArray[np.int64] | None = None,
    first: int = 0,
) -> Result:
    """The k candidates with the largest keys for each query, or all N if there are fewer.

    limits.column_ids are those of all candidates. `method` is one of METHODS, as in `top_k`; `likely` (B, m) as in
    `certified`. The candidates have numbers from `first` on, in limits.exclude and `likely` too.
    """
    informed = likely is not None and likely.shape[1] >= k
    bounds = takes_bounds(method, len(queries.x), candidates, k, rule, informed)
    if bounds:
        crowded, k = ceilings_are_crowded(queries, candidates, limits), min(k, len(candidates.source))
        return _certified(queries, candidates, k, limits, progress, likely, first, crowded)
    return _scanned(queries, candidates, k, rule, limits, progress, first)


def takes_bounds(
    method: str, queries: int, candidates: Candidates, k: int, rule: Rule, informed: bool = False
) -> bool:
    """Whether this search is one by bounds."""
    if method == "float" or rule.kind != BY_SCORE or not candidates.at_hand:
        return False
    count, dim = candidates.source.shape
    if isinstance(candidates, Prepared):
        wanted = is_worthwhile_once_encoded(queries, count, k)
    else:
        wanted = is_worthwhile(queries, count, k, informed)
    return (wanted or method == "bounds") and is_possible(count, dim, candidates.dtype)


@np.errstate(all="ignore")  # of rows that are not finite, which are refused later
def ceilings_are_crowded(queries: engine.Rows, candidates: Candidates, limits: Limits) -> bool:
    """Whether so many scores are near the ceilings that bounds from bytes would leave too many candidates.

    Scores a sample of the candidates for a sample of the queries.
    """
    if not (limits.ceilings < np.inf).any():
        return False
    rows = np.linspace(0, len(queries.x) - 1, _SAMPLED_QUERIES).astype(np.int64)
    x = candidates.source[:: -(-len(candidates.source) // _SAMPLED_CANDIDATES)].astype(np.float64)
    units = queries.x[rows] * queries.inverse[rows, np.newaxis]
    scores = np.einsum("ik,jk->ij", units, x) / np.maximum(np.linalg.norm(x, axis=1), EPS)
    near = abs(scores - limits.ceilings[rows, np.newaxis]) < BOUND
    return bool(near.mean() > _MOST_NEAR)


def _scanned(
    queries: engine.Rows, candidates: Candidates, k: int, rule: Rule, limits: Limits, progress: Progress | None,
    first: int,
) -> Result:  # fmt: skip
    """Score all candidates in floating point, block by block.

    Heaps have room for the candidates seen so far, at most k: of an iterable, N is not known.
    """
    groups = engine.tiles(min(len(queries.x), _SLAB_ROWS), engine.GROUP)
    room = min(k, candidates.size or 0)
    best = empty_best(len(queries.x), room, candidates.dtype, parts=max(1, thread_count() // groups))
    seen, known = 0, candidates.size is not None
    few = len(queries.x) <= FEW
    for start, x in candidates.blocks(few):
        seen = start + len(x)
        best = _with_room(best, min(k, max(seen, candidates.size or 0)), k)
        if limits.row_ids.shape[1] and seen > len(limits.column_ids):
            raise ValueError(f"candidate_ids must have an id for each candidate, got {len(limits.column_ids)}")
        here = limits._replace(column_ids=limits.column_ids[start:seen])
        if few:
            _scan_few(queries, candidates.name, x, first + start, here, rule, best)
        else:
            rows = engine.Rows(x, checked_inverse_norms(candidates.name, x, first=first + start))
            _scan_many(queries, rows, first + start, here, rule, best)
        if progress is not None:
            progress(seen, candidates.size)
    if not known and limits.exclude.size and limits.exclude.max() >= seen:
        raise ValueError(f"exclude must lie in [-1, {seen - 1}], got {limits.exclude.max()}")
    finish.sized(20 * best.keys.size)(len(queries.x), best)
    return Result(best.columns[0, :, :seen], best.scores[0, :, :seen], best.dropped[0], best.keys[0, :, :seen])


def _with_room(best: Best, entries: int, most: int) -> Best:
    """The same heaps with room for this many entries: at least doubled where they grow, up to `most`."""
    parts, rows, room = best.keys.shape
    if room >= entries:
        return best
    larger = empty_best(rows, min(most, max(entries, 2 * room)), best.scores.dtype, parts)
    for old, new in zip(best[:3], larger[:3], strict=True):
        new[:, :, :room] = old
    return larger._replace(sizes=best.sizes, dropped=best.dropped)


def _certified(
    queries: engine.Rows, candidates: Candidates, k: int, limits: Limits, progress: Progress | None,
    likely: NDArray[np.int64] | None, first: int, crowded: bool,
) -> Result:  # fmt: skip
    """Search by bounds; queries whose bounds are too wide for these candidates are searched for by float scores."""
    best = empty_best(len(queries.x), k, candidates.dtype)
    rows, codes = candidates.all_rows(), None
    if isinstance(candidates, Prepared):
        codes = candidates.codes.get(crowded) or codes_of(rows, Scratch(), crowded)
        candidates.codes[crowded] = codes
    count = len(candidates.source)
    near = None if likely is None else _within(likely, first, count)
    here = limits._replace(exclude=_within(limits.exclude, first, count))
    rest = certified(queries, rows, here, best, codes, near, crowded)
    finish.sized(20 * best.keys.size)(len(queries.x), best)
    found = Result(best.columns[0], best.scores[0], best.dropped[0], best.keys[0])
    if first:
        found.columns[found.columns >= 0] += first
    if len(rest):
        floors, ceilings, exclude, row_ids = (x[rest] for x in limits[:4])
        of_rest = Limits(floors, ceilings, exclude, row_ids, limits.column_ids)
        few = engine.Rows(queries.x[rest], queries.inverse[rest])
        for of_all, of_few in zip(
            found, _scanned(few, candidates, k, Rule(BY_SCORE), of_rest, None, first), strict=True
        ):
            of_all[rest] = of_few
    if progress is not None:
        progress(len(candidates.source), len(candidates.source))
    return found


def _within(numbers: NDArray[np.int64], first: int, count: int) -> NDArray[np.int64]:
    """The places of candidates among those with numbers first … first + count − 1; −1 for all others."""
    inside = (numbers >= first) & (numbers < first + count)
    return numbers if inside.all() and not first else np.where(inside, numbers - first, -1)


def _scan_few(
    queries: engine.Rows, name: str, x: NDArray[np.floating], start: int, limits: Limits, rule: Rule, best: Best
) -> None:
    """Push the scores of a block of candidates, the first of which is candidate `start`, for at most FEW queries.

    ValueError about the argument `name` if a candidate is not finite.
    """
    parts, dim, dtype = len(best.keys), x.shape[1], x.dtype
    with scratch() as memory:
        units = memory.array((parts, FEW, dim), dtype)
        others, scores = memory.array((parts, TOGETHER, dim), dtype), memory.array((parts, TOGETHER), dtype)
        bad = np.empty(parts, np.int64)
        work = 2 * len(queries.x) * x.size
        scan_few.sized(work)(parts, queries, x, start, limits, rule, best, units, others, scores, bad)
    if bad.max() >= 0:
        check_rows_finite(name, np.full(1, np.nan), start + int(bad[bad >= 0].min()))


def _scan_many(queries: engine.Rows, rows: engine.Rows, start: int, limits: Limits, rule: Rule, best: Best) -> None:
    """The same for any number of queries, a slab of them at a time."""
    (count, dim), dtype = rows.x.shape, rows.x.dtype
    height, width, _ = tile_shape(dtype)
    high = engine.GROUP // height
    with scratch() as memory:
        panels = packed_columns(rows, memory)
        block = min(engine.block_panels(dim, dtype), len(panels))
        most = len(best.keys) * engine.tiles(min(_SLAB_ROWS, len(queries.x)), engine.GROUP)
        left = memory.array((most, high, dim, height), dtype)
        slabs = memory.array((most, high, block, height, width), dtype)
        for first in range(0, len(queries.x), _SLAB_ROWS):
            here = min(_SLAB_ROWS, len(queries.x) - first)
            tasks = len(best.keys) * engine.tiles(here, engine.GROUP)
            scan.sized(here * count * dim)(
                tasks, queries, first, panels, count, start, left, slabs, limits, rule, best
            )


def empty_best(rows: int, k: int, dtype: np.dtype, parts: int = 1) -> Best:
    """Heaps without entries, of k places each."""
    shape = (parts, rows, k)
    sizes, dropped = np.zeros((2, parts, rows), np.int64)
    return Best(np.empty(shape), np.empty(shape, np.int64), np.empty(shape, dtype), sizes, dropped)


def padded(found: np.ndarray, k: int, missing: float) -> np.ndarray:
    """An array that `search` found as (B, k), filled up where there are fewer than k candidates."""
    if found.shape[1] == k:
        return np.ascontiguousarray(found)
    out = np.full((len(found), k), missing, found.dtype)
    out[:, : found.shape[1]] = found
    return out


def no_limits(rows: int, dtype: np.dtype) -> Limits:
    """Limits under which every candidate counts."""
    none = np.empty((rows, 0), np.int64)
    everything = np.full(rows, np.inf, dtype)
    return Limits(-everything, everything, none, none, none.ravel())


@contextmanager
def reporting(progress: Progress | bool | None) -> Iterator[Progress | None]:
    """The callback that `progress` asks for: none, the one given, or that of a progress bar."""
    if progress is not True:
        if progress not in (None, False) and not callable(progress):
            raise TypeError(f"progress must be a callable or True, got {progress!r}")
        yield progress or None
        return
    with _progress.shown(None, "rows", visible=True) as bar:
        bar.phase("candidates")
        yield bar.reach
