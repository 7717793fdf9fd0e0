"""Exact search by certified bounds on 8-bit products, where processor and data allow it."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rvtrain._engine import _blocks as engine
from rvtrain._engine import _byte_tile
from rvtrain._engine._byte_tile import COLUMNS, ROWS, TILE, byte_tile, packed_shape, parts, words
from rvtrain._engine._pairs import SCORED
from rvtrain._engine._scratch import Scratch, scratch
from rvtrain._engine._short_tile import short_words, units_of
from rvtrain._kernels._threads import thread_count
from rvtrain.mining import _certified_kernels as kernels
from rvtrain.mining._certified_kernels import Search, Waiting
from rvtrain.mining._codes_kernels import Codes, encode, encode_shorts
from rvtrain.mining._selection_kernels import Best, Limits
from rvtrain.mining._window_kernels import Window, certify_below

_FEWEST_QUERIES, _FEWEST_PER_RESULT = 96 if TILE.partial else 32, 16
FEWEST_CANDIDATES = 8192 if TILE.partial else 4096
_FEWEST_INFORMED = 4096
"""With fewer queries, candidates per result or candidates, encoding costs more than it saves. With AVX2 the search of
5,000 candidates gains a tenth, less than the time to compile the kernels."""

_CODE_BYTES = 1 << 27
"""Largest size of the codes of all candidates, which are in memory together: a quarter of the float32 vectors."""
_BLOCK_BYTES = 1 << 18
"""Size of the codes that stay in the second-level cache while all queries of a task meet them."""
_SLAB_ROWS = 2048
"""Queries that are searched for together."""

_FEWEST_WAITING = 4096
"""Length of a query's list. A query with more than half of the list left after compaction is given up. Coarser codes
and more dimensions leave more: of 100,000 × 384 Gaussian candidates 500 for k = 32 and 1,200 for k = 100, on AVX2."""
_MOST_WAITING = 16
"""If one candidate in 16 is left, scoring these one by one takes longer than scoring all in tiles."""
BOUND = 0.02
"""About how far the bounds of a score are from it: .013 to .016 with 127 levels on both sides, .02 to
.025 on AVX2."""
_PROBE_ROWS = 24
"""Queries that are searched for first. If the bounds leave too many candidates for most of them, the others are given
up at once."""


def is_possible(candidates: int, dim: int, dtype: np.dtype) -> bool:
    """Whether `certified` can search this many candidates of this dimension, taken as `dtype`."""
    return byte_tile() is not None and dtype == np.float32 and candidates * 4 * words(dim) <= _CODE_BYTES


def is_worthwhile(queries: int, candidates: int, k: int, informed: bool = False) -> bool:
    """Whether `certified` is expected to be faster than scoring all candidates in floating point.

    It is faster if `informed` of likely candidates.
    """
    fewest = _FEWEST_INFORMED if informed else FEWEST_CANDIDATES
    return queries >= _FEWEST_QUERIES and candidates >= max(fewest, _FEWEST_PER_RESULT * k)


def is_worthwhile_once_encoded(queries: int, candidates: int, k: int) -> bool:
    """The same where the codes of the candidates are kept for later searches.

    Threads share the queries by panels, but float scores of few queries by candidates.
    """
    panels = engine.tiles(queries, ROWS)
    fewest = _FEWEST_INFORMED if queries > 1 else 2 * _FEWEST_INFORMED
    return candidates >= max(fewest, _FEWEST_PER_RESULT * k) and thread_count() <= 2 * panels


def certified(
    queries: engine.Rows, candidates: engine.Rows, limits: Limits, best: Best, codes: Codes | None = None,
    likely: NDArray[np.int64] | None = None, shorts: bool = False,
) -> NDArray[np.int64]:  # fmt: skip
    """Push the k candidates most similar to each query on its heap; returns the queries that were given up.

    `codes` are those of the candidates, if they have been kept. `likely` (B, m), −1 for none, are candidates that are
    likely among the best: they save time if they are, and never change the result. With `shorts`, codes have 16 bits,
    which takes less time where many scores are near a ceiling.
    """
    given_up = []
    with scratch() as memory:
        if codes is None:
            codes = codes_of(candidates, memory, shorts)
        for first, stop in _slabs(len(queries.x)):
            left = _search_slab(queries, first, stop, candidates, codes, limits, best, likely, shorts)
            given_up.append(first + np.flatnonzero(left < 0))
            too_many = max(len(candidates.x) // _MOST_WAITING, 4 * best.keys.shape[2])
            if first == 0 and 2 * np.count_nonzero((left < 0) | (left > too_many)) > stop:
                given_up.append(np.arange(stop, len(queries.x)))
                break
    return np.concatenate(given_up)


def _search_slab(
    queries: engine.Rows, first: int, stop: int, candidates: engine.Rows, codes: Codes, limits: Limits, best: Best,
    likely: NDArray[np.int64] | None, shorts: bool,
) -> NDArray[np.int64]:  # fmt: skip
    """Search for queries first … stop − 1. Returns how many candidates the bounds left of each, −1 if given up."""
    part, count, dim, k = slice(first, stop), stop - first, candidates.x.shape[1], best.keys.shape[2]
    capacity, block = max(_FEWEST_WAITING, 4 * k), max(1, _BLOCK_BYTES // (COLUMNS * 4 * codes.words.shape[1]))
    with scratch() as memory:
        rows = engine.Rows(queries.x[part], queries.inverse[part])
        if shorts:
            query_codes = _shorts(rows, ROWS, memory)
        else:
            query_codes = _codes(rows, ROWS, levels=TILE.left_levels, left=True, memory=memory)
        waiting = Waiting(
            np.empty((count, k), np.float32),
            np.repeat(limits.floors[part, np.newaxis], _guessed_by(k), axis=1),
            memory.array((count, capacity), np.int64),
            memory.array((count, capacity), np.float32),
            np.zeros(count, np.int64),
            np.full(query_codes.scales.size, np.inf, np.float32),
            np.empty(query_codes.scales.size, np.float32),
            np.zeros(count, np.int64),
        )
        waiting.needs[:count] = -np.inf
        threads = thread_count()
        tasks = min(len(query_codes.words), threads * engine.tiles(count, threads * 256))
        of_tasks = kernels.OfTasks(
            memory.array((tasks, ROWS, COLUMNS), _byte_tile.WORD),
            memory.array((tasks, kernels.LINES, COLUMNS), _byte_tile.WORD),
            memory.array((tasks, kernels.LINES, 3), np.int64),
            memory.array((tasks, dim), np.float32),
            memory.array((tasks, SCORED), np.float32),
        )
        search = Search(queries, first, candidates, query_codes, codes, limits, waiting)
        if likely is not None and likely.shape[1] >= k:
            kernels.guess_from.sized(4 * count * likely.shape[1] * dim)(count, search, likely[part])
        if shorts:
            window = _window(len(waiting.needs), tasks, memory)
            certify_below(tasks, search, window, float(codes.errors.max()), block, of_tasks, best)
        else:
            kernels.certify(tasks, search, block, of_tasks, best)
    best.dropped[0, part] = waiting.dropped
    return waiting.sizes


def _guessed_by(k: int) -> int:
    """Rank m in the sample whose score is almost surely below the k-th best overall.

    The number of the k best in a sample of 1 / SAMPLED is about Poisson(k / SAMPLED). m is its mean + 3σ + 3, which
    is too low for one query in thousands.
    """
    mean = k / kernels.SAMPLED
    return int(np.ceil(mean + 3 * np.sqrt(mean) + 3))


def _slabs(count: int) -> Iterator[tuple[int, int]]:
    """(first, stop) of the queries that are searched for together."""
    start = _PROBE_ROWS if count >= 4 * _PROBE_ROWS else 0
    if start:
        yield 0, start
    for first in range(start, count, _SLAB_ROWS):
        yield first, min(first + _SLAB_ROWS, count)


def _window(rows: int, tasks: int, memory: Scratch) -> Window:
    """Scratch arrays of a search with 16-bit codes."""
    return Window(
        memory.array((rows,), np.float32),
        memory.array((rows,), np.int32),
        memory.array((rows,), np.int32),
        memory.array((rows,), np.int64),
        memory.array((tasks, ROWS), np.uint32),
        memory.array((tasks, ROWS), np.uint32),
    )


def codes_of(candidates: engine.Rows, memory: Scratch, shorts: bool = False) -> Codes:
    """The codes of all candidates."""
    if shorts:
        return _shorts(candidates, COLUMNS, memory)
    return _codes(candidates, COLUMNS, levels=127, left=False, memory=memory)


def _shorts(rows: engine.Rows, width: int, memory: Scratch) -> Codes:
    """The rows as 16-bit codes, packed in panels of `width` rows."""
    count, dim = rows.x.shape
    panels, steps = -(-count // width), short_words(dim)
    codes = Codes(
        memory.array((panels, steps, width), _byte_tile.WORD),
        memory.array((panels, width), np.float32),
        memory.array((panels, width), np.float32),
        memory.array((panels, 0, width), _byte_tile.WORD),
    )
    tasks = min(panels, 4 * thread_count())
    lines = memory.array((tasks, 2 * steps), np.int16)
    for unit in units_of(dim):
        encode_shorts.sized(8 * rows.x.size)(tasks, rows, unit, lines, codes)
        if codes.errors.max() * unit < 0.6 * np.sqrt(dim):  # no code has been cut
            break
    return codes


def _codes(rows: engine.Rows, width: int, *, levels: int, left: bool, memory: Scratch) -> Codes:
    """The rows as bytes of at most `levels`, packed in panels of `width` rows as left operand or as right one."""
    count, dim = rows.x.shape
    shape = packed_shape(count, dim, width)
    codes = Codes(
        memory.array(shape, _byte_tile.WORD),
        memory.array((shape[0], width), np.float32),
        memory.array((shape[0], width), np.float32),
        memory.array((shape[0], parts(dim), width), _byte_tile.WORD),
    )
    tasks = min(shape[0], 4 * thread_count())
    lines = memory.array((tasks, 4 * words(dim)), np.uint8)
    encode.sized(8 * rows.x.size)(tasks, rows, levels, left, lines, codes)
    return codes
