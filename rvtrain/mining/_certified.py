"""Exact search by certified bounds on 8-bit products, where processor and data allow it."""

from collections.abc import Iterator

import numpy as np

from rvtrain._engine import _blocks as engine
from rvtrain._engine import _byte_tile
from rvtrain._engine._byte_tile import COLUMNS, ROWS, TILE, VNNI, byte_tile, packed_shape, parts, words
from rvtrain._engine._pairs import TOGETHER
from rvtrain._engine._workspace import workspace
from rvtrain._kernels._threads import thread_count
from rvtrain.mining._certified_kernels import LINES, SAMPLED, Codes, Scratch, Search, Waiting, certify, encode
from rvtrain.mining._selection_kernels import Best, Limits

# Below these, encoding the candidates costs more than it saves; with AVX2 the search of 5,000 gains a tenth, which
# the time to compile the kernels outweighs.
_FEWEST_QUERIES, _FEWEST_PER_RESULT = 32, 16
FEWEST_CANDIDATES = 4096 if TILE is VNNI else 8192
# All codes of the candidates are in memory: a quarter of what the float vectors take, and not more than this.
_CODE_BYTES = 1 << 27
# Candidates whose codes stay in the second-level cache while all queries of a task meet them.
_BLOCK_BYTES = 1 << 18
_SLAB_ROWS = 2048
# Candidates that a query lets wait; one of which more than half are left is given up. With coarser codes or more
# dimensions more are left: of 100,000 × 384 Gaussian ones 500 for k = 32 and 1,200 for k = 100, on AVX2.
_FEWEST_WAITING = 4096
# One candidate in so many: to score more by themselves takes longer than to score all in tiles.
_MOST_WAITING = 16
# Queries that go first, to see whether bounds leave few enough of these data: if not for most, none follow.
_PROBE_ROWS = 24


def worthwhile(queries: int, candidates: np.ndarray, dtype: np.dtype, k: int) -> bool:
    """Whether `certified` is expected to be the faster way to the k best of these candidates, taken as `dtype`."""
    count, dim = candidates.shape
    return bool(
        byte_tile()
        and dtype == np.float32
        and queries >= _FEWEST_QUERIES
        and count >= max(FEWEST_CANDIDATES, _FEWEST_PER_RESULT * k)
        and count * 4 * words(dim) <= _CODE_BYTES
    )


def certified(queries: engine.Rows, rows: engine.Rows, limits: Limits, best: Best) -> np.ndarray:
    """Fill `best` with the k most similar of all rows for each query; returns the queries that were given up."""
    dim, k = rows.x.shape[1], best.keys.shape[2]
    codes = _codes("candidate", rows, COLUMNS, levels=127, offset=128)
    block = max(1, _BLOCK_BYTES // (COLUMNS * 4 * words(dim)))
    capacity = max(_FEWEST_WAITING, 4 * k)
    given_up = []
    for first, stop in _slabs(len(queries.x)):
        part, count = slice(first, stop), stop - first
        query_codes = _codes("query", engine.Rows(queries.x[part], queries.inverse[part]), ROWS, TILE.left_levels, 0)
        shape = query_codes.scales.size
        waiting = Waiting(
            np.empty((count, k), np.float32),
            np.repeat(limits.floors[part, np.newaxis], _guessed_by(k), axis=1),
            workspace("waiting", (count, capacity), np.dtype(np.int64)),
            workspace("highs", (count, capacity), np.dtype(np.float32)),
            np.zeros(count, np.int64),
            np.full(shape, np.inf, np.float32),
            np.empty(shape, np.float32),
        )
        waiting.needs[:count] = -np.inf
        threads = thread_count()
        tasks = min(len(query_codes.words), threads * engine.tiles(count, threads * 256))
        real = rows.x.dtype
        scratch = Scratch(
            workspace("tiles", (tasks, ROWS, COLUMNS), _byte_tile.WORD),
            workspace("lines of tiles", (tasks, LINES, COLUMNS), _byte_tile.WORD),
            workspace("places", (tasks, LINES, 3), np.dtype(np.int64)),
            workspace("query", (tasks, dim), real),
            workspace("others", (tasks, TOGETHER, dim), real),
            workspace("scores", (tasks, TOGETHER), real),
        )
        search = Search(queries, first, rows, query_codes, codes, limits, waiting)
        certify(tasks, search, block, scratch, best)
        given_up.append(first + np.flatnonzero(waiting.sizes < 0))
        too_many = max(len(rows.x) // _MOST_WAITING, 4 * k)
        if first == 0 and 2 * np.count_nonzero((waiting.sizes < 0) | (waiting.sizes > too_many)) > count:
            given_up.append(np.arange(stop, len(queries.x)))
            break
    return np.concatenate(given_up)


def _guessed_by(k: int) -> int:
    """Which of the best of a sample is below the k-th of all, but for one query in thousands.

    Of the k best the sample has a number that is distributed as Poisson's, with this mean.
    """
    mean = k / SAMPLED
    return int(np.ceil(mean + 3 * np.sqrt(mean) + 3))


def _slabs(count: int) -> Iterator[tuple[int, int]]:
    """(first, stop) of the queries that are searched for at once."""
    start = _PROBE_ROWS if count >= 4 * _PROBE_ROWS else 0
    if start:
        yield 0, start
    for first in range(start, count, _SLAB_ROWS):
        yield first, min(first + _SLAB_ROWS, count)


def _codes(name: str, rows: engine.Rows, width: int, levels: int, offset: int) -> Codes:
    count, dim = rows.x.shape
    shape = packed_shape(count, dim, width)
    real = np.dtype(np.float32)
    codes = Codes(
        workspace(f"{name} codes", shape, _byte_tile.WORD),
        workspace(f"{name} scales", (shape[0], width), real),
        workspace(f"{name} errors", (shape[0], width), real),
        workspace(f"{name} starts", (shape[0], parts(dim), width), _byte_tile.WORD),
    )
    tasks = min(shape[0], 4 * thread_count())
    lines = workspace("lines", (tasks, 4 * words(dim)), np.dtype(np.uint8))
    encode.sized(8 * rows.x.size)(tasks, rows, levels, offset, lines, codes)
    return codes
