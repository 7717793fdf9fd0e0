"""Pairs of a query and a document: who belongs to whom, and how both are embedded."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.training._adapters import Adapter

_BLOCK_ROWS = 8192


class PairData:
    """Queries (n, d), documents (m, e), and pairs (P, 2) of their rows, checked and indexed by query."""

    def __init__(self, queries: Any, documents: Any, pairs: Any, document_ids: Any = None) -> None:
        self.queries, self.documents = _table("queries", queries), _table("documents", documents)
        self.pairs = check.integer_array("pairs", pairs, (None, 2))
        if not len(self.pairs):
            raise ValueError("pairs must not be empty")
        for side, (name, table) in enumerate((("queries", self.queries), ("documents", self.documents))):
            column = self.pairs[:, side]
            if column.min() < 0 or column.max() >= len(table):
                worst = column.min() if column.min() < 0 else column.max()
                raise ValueError(f"pairs must name rows of {name}, in [0, {len(table) - 1}], got {worst}")
        count = len(self.documents)
        given = (
            np.arange(count) if document_ids is None else check.integer_array("document_ids", document_ids, (count,))
        )
        self.ids = np.unique(given, return_inverse=True)[1]
        distinct = np.unique(self.pairs, axis=0)
        self.answers = np.ascontiguousarray(distinct[:, 1])
        self.bounds = np.searchsorted(distinct[:, 0], np.arange(len(self.queries) + 1))
        self.most = int(np.diff(self.bounds).max())
        """Documents of the query that has most."""

    def positives_of(self, asking: np.ndarray) -> np.ndarray:
        """(B, most) documents of each of these queries, padded with −1."""
        first, counts = self.bounds[asking], np.diff(self.bounds)[asking]
        places = np.arange(self.most)
        inside = places < counts[:, np.newaxis]
        return np.where(inside, self.answers[np.where(inside, first[:, np.newaxis] + places, 0)], -1)

    def ids_of(self, asking: np.ndarray, pool: np.ndarray) -> dict[str, np.ndarray]:
        """Ids that keep a query's documents from being its negatives: its own id, and all ids of each document.

        Where no query has several documents, those of the documents alone are enough.
        """
        own = self.ids[pool]
        if self.most == 1:
            return {"negative_ids": own}
        queries = np.unique(asking)
        answers = self.positives_of(queries)
        place = np.minimum(np.searchsorted(pool, answers), len(pool) - 1)
        query, nth = np.nonzero((pool[place] == answers) & (answers >= 0))
        place = place[query, nth]
        order = np.argsort(place, kind="stable")
        place, query = place[order], query[order]
        turn = np.arange(len(place)) - np.searchsorted(place, place)
        columns = np.repeat(own[:, np.newaxis], 2 + turn.max(initial=0), axis=1)
        columns[place, 1 + turn] = self.query_ids(queries[query])
        return {"anchor_ids": self.query_ids(asking), "negative_ids": columns}

    def query_ids(self, asking: np.ndarray) -> np.ndarray:
        """Ids of queries that no document has."""
        return asking + (self.ids.max() + 1)


def _table(name: str, x: Any) -> np.ndarray:
    if isinstance(x, np.memmap):  # looked at where it is read
        if x.ndim != 2 or not x.size:
            raise ValueError(f"{name} must have shape (n, d), got {x.shape}")
        check.any_float_array(name, x[:1])
        return x
    table = check.float_array(name, x, 2)
    check.finite(name, table)
    return table


def fits(name: str, table: np.ndarray, tower: Adapter) -> None:
    """Raise unless the tower takes the rows of this table."""
    if table.shape[1] != tower.in_features:
        raise ValueError(f"{name} must have {tower.in_features} columns like the model's input, got {table.shape}")


def towards(
    tower: Adapter, table: np.ndarray, rows: np.ndarray, micro: int | None
) -> tuple[np.ndarray, Callable[[np.ndarray], dict[str, np.ndarray]]]:
    """Embeddings of these rows, and what takes a gradient to them back to the tower's parameters.

    With `micro`, so many rows at a time, and again for the way back: the gradient is that of all rows at once, the
    memory for what lies between that of a few.
    """
    if micro is None or len(rows) <= micro:
        out, saved = tower.forward(table, rows)
        return out, lambda grad: tower.backward(saved, grad)
    parts = [slice(start, start + micro) for start in range(0, len(rows), micro)]
    out = np.concatenate([tower.forward(table, rows[part])[0] for part in parts])

    def back(grad: np.ndarray) -> dict[str, np.ndarray]:
        total: dict[str, np.ndarray] = {}
        for part in parts:
            for name, g in tower.backward(tower.forward(table, rows[part])[1], grad[part]).items():
                total[name] = total[name] + g if name in total else g
        return total

    return out, back


def embedded(tower: Adapter, table: np.ndarray, limit: int) -> Any:
    """All rows embedded: an array if that fits the limit in bytes, or else blocks, one after the other."""
    if len(table) * tower.out_features * tower.dtype.itemsize <= limit:
        return tower.transform(table)
    return _blocks(tower, table)


def _blocks(tower: Adapter, table: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(table), _BLOCK_ROWS):
        yield tower.transform(table[start : start + _BLOCK_ROWS])
