"""Searches of candidates of which each rank has some rows: each finds its best, and all merge them."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvtrain import _validation as check
from rvtrain._engine import _blocks as engine
from rvtrain.distributed._ranks import Ranks
from rvtrain.mining._candidates import Candidates, Progress
from rvtrain.mining._neighbours import Neighbours
from rvtrain.mining._search import METHODS, Result, search
from rvtrain.mining._selection_kernels import Limits, Rule


class CandidatesOfRanks(Candidates):
    """The candidates of all ranks, in the order of ranks, of which this process has some: `local`.

    `facts` have to be the same on all ranks. All methods have to be called by all ranks.
    """

    def __init__(self, ranks: Ranks, local: Candidates, facts: Mapping[str, Any]) -> None:
        super().__init__(local.name, local.source, local.dim, local.dtype)
        self.ranks, self.local = ranks, local
        facts = {f"dtype of the scores with {local.name}": local.dtype, **facts}
        assert local.size is not None
        self.sizes = ranks.agree(facts, (local.size,))[:, 0].copy()
        self.size = int(self.sizes.sum())
        self.first = int(self.sizes[: ranks.rank].sum())

    @property
    def here(self) -> int | None:
        """Number of those that this process has."""
        return self.local.size

    def rows_at(self, indices: NDArray[np.int64]) -> NDArray[np.floating]:
        """Copies of these rows, each from the rank that has it."""
        owners = np.searchsorted(np.cumsum(self.sizes), indices, side="right")
        order = np.argsort(owners, kind="stable")
        mine = self.local.rows_at(indices[owners == self.ranks.rank] - self.first)
        out = np.empty((len(indices), self.dim), self.dtype)
        out[order] = self.ranks.gathered(mine, np.bincount(owners, minlength=self.ranks.size))
        return out

    def by_parts(self, count: int, function: Callable[[slice], NDArray[np.float64]]) -> NDArray[np.float64]:
        """What a function returns for these many numbers, of which each rank takes a part."""
        bounds = np.arange(self.ranks.size + 1) * count // self.ranks.size
        start, stop = map(int, bounds[self.ranks.rank :][:2])
        with self.ranks.together():
            mine = function(slice(start, stop)) if stop > start else np.empty(0)
        return self.ranks.gathered(mine, np.diff(bounds))

    def search(
        self, queries: engine.Rows, k: int, rule: Rule, limits: Limits, progress: Progress | None, method: str,
        likely: NDArray[np.int64] | None,
    ) -> Result:  # fmt: skip
        """As the function `search`; limits.column_ids are those of this rank's candidates."""
        with self.ranks.together():
            options: dict[str, Any] = {"method": method, "likely": likely, "first": self.first}
            found = search(queries, self.local, k, rule, limits, progress, **options)
        columns, scores, keys = _merged(
            self.ranks, np.minimum(self.sizes, k), found.columns, found.scores, found.keys, k
        )
        counts = np.full(self.ranks.size, len(found.dropped))
        dropped = self.ranks.gathered(found.dropped, counts).reshape(self.ranks.size, -1).sum(axis=0)
        return Result(columns, scores, dropped, keys)


def digest(array: Any) -> str:
    """What tells arrays apart that all ranks have to give alike; "None" for none."""
    if array is None:
        return "None"
    x = np.ascontiguousarray(array)
    return f"{x.shape} {x.dtype} {zlib.crc32(x.view(np.uint8).data if x.size else b''):08x}"


def top_k_of_ranks(
    ranks: Ranks, queries: Any, candidates: Any, k: int, method: str
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """As `top_k`: each rank finds the k best of its own candidates, and all ranks merge all of these.

    Each rank gets k scores and indices of every query from each other rank, and scores its own candidates alone.
    """
    with ranks.together():
        q = check.stored_array("queries", queries, (1, 2))
        near = Neighbours(np.atleast_2d(q), candidates)
        k = check.integer("k", k, low=1)
        indices, scores = near.search(k, method=check.choice("method", method, METHODS))
        assert near.size is not None  # that of an iterable is known now
    facts = {"queries": digest(q), "dtype of the scores": scores.dtype, "k": k, "method": method}
    found = ranks.agree(facts, (near.size, indices.shape[1]))
    sizes, widths = found[:, 0], found[:, 1].copy()
    if k > sizes.sum():
        raise ValueError(f"k must be in [1, {sizes.sum()}], got {k}")
    indices, scores, _ = _merged(
        ranks, widths, indices + sizes[: ranks.rank].sum(), scores, scores.astype(np.float64), k
    )
    return (scores[0], indices[0]) if q.ndim == 1 else (scores, indices)


def _merged(
    ranks: Ranks,
    widths: NDArray[np.int64],
    columns: NDArray[np.int64],
    scores: NDArray[np.floating],
    keys: NDArray[np.float64],
    k: int,
) -> tuple[NDArray[Any], ...]:
    """The k best of all ranks by their keys, from the `widths[rank]` best of each, (B, …).

    Ties go to the lower index.
    """
    all_columns, all_scores, all_keys = (ranks.gathered(x.T, widths).T for x in (columns, scores, keys))
    order = np.lexsort((all_columns, -all_keys), axis=1)[:, :k]
    return tuple(np.take_along_axis(x, order, axis=1) for x in (all_columns, all_scores, all_keys))
