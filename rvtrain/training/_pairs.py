"""Pairs of a query and a document: who belongs to whom, and how both are embedded."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain._errors import NotFiniteError
from rvtrain.training._models import Model, features_of, forward_rows, output_kind, outputs
from rvtrain.training._run import fingerprint

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
        self.has_copies = document_ids is not None and int(self.ids.max()) < count - 1
        """Whether several documents share an id."""
        distinct = np.unique(self.pairs, axis=0)
        self.answers = np.ascontiguousarray(distinct[:, 1])
        self.bounds = np.searchsorted(distinct[:, 0], np.arange(len(self.queries) + 1))
        self.most = int(np.diff(self.bounds).max())
        """Documents of the query that has most."""

    def fingerprints(self) -> dict[str, str]:
        """Of each array, by the name of its argument."""
        named = {"queries": self.queries, "documents": self.documents, "pairs": self.pairs, "document_ids": self.ids}
        return {name: fingerprint(array) for name, array in named.items()}

    def check_finite(self) -> None:
        """Raise if a row of queries or documents is not finite; a file is read for it as a whole."""
        for name, table in (("queries", self.queries), ("documents", self.documents)):
            finite_rows(name, table)

    def positives_of(self, asking: np.ndarray) -> np.ndarray:
        """(B, most) documents of each of these queries, padded with −1."""
        first, counts = self.bounds[asking], np.diff(self.bounds)[asking]
        places = np.arange(self.most)
        inside = places < counts[:, np.newaxis]
        return np.where(inside, self.answers[np.where(inside, first[:, np.newaxis] + places, 0)], -1)

    def ids_of_positives(self, asking: np.ndarray) -> np.ndarray:
        """(B, most) ids of each of these queries' documents; where it has fewer, one of them again."""
        answers = self.positives_of(asking)
        return np.asarray(self.ids[np.where(answers >= 0, answers, answers[:, :1])])

    def ids_of(self, asking: np.ndarray, pool: np.ndarray) -> dict[str, np.ndarray]:
        """Ids that keep a query's documents, and all copies of them, from being its negatives.

        A column of the pool has its own id, and the ids of all queries for which it is no negative. Where no query
        has several documents, the documents' own ids are enough.
        """
        own = self.ids[pool]
        if self.most == 1:
            return {"negative_ids": own}
        queries = np.unique(asking)
        query, place = _matches(self.ids_of_positives(queries), own)
        turn = np.arange(len(place)) - np.searchsorted(place, place)
        columns = np.repeat(own[:, np.newaxis], 2 + turn.max(initial=0), axis=1)
        columns[place, 1 + turn] = self.query_ids(queries[query])
        return {"anchor_ids": self.query_ids(asking), "negative_ids": columns}

    def query_ids(self, asking: np.ndarray) -> np.ndarray:
        """Ids of queries that no document has."""
        return asking + (self.ids.max() + 1)


def _matches(wanted: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All (row, place) such that own[place] is one of wanted[row]; once each, by place. wanted (Q, r), own (M,)."""
    order = np.argsort(own, kind="stable")
    ordered = own[order]
    first = np.searchsorted(ordered, wanted).ravel()
    counts = np.searchsorted(ordered, wanted, side="right").ravel() - first
    row = np.repeat(np.arange(wanted.size) // wanted.shape[1], counts)
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    pairs = np.unique(order[np.repeat(first, counts) + nth] * len(wanted) + row)
    return pairs % len(wanted), pairs // len(wanted)


def _table(name: str, x: Any) -> np.ndarray:
    table = check.stored_array(name, x, 2)
    if not isinstance(table, np.memmap):  # a file is looked at where it is read
        finite_rows(name, table)
    return table


def finite_rows(name: str, table: np.ndarray) -> None:
    """Raise NotFiniteError if a row of the table is not finite; a block at a time."""
    for start in range(0, len(table), _BLOCK_ROWS):
        good = np.isfinite(table[start : start + _BLOCK_ROWS]).all(axis=1)
        if not good.all():
            raise NotFiniteError(
                f"{name} must be finite, got a NaN or an infinity in row {start + int(np.argmin(good))}"
            )


def fits(name: str, table: np.ndarray, tower: Model) -> None:
    """Raise unless the tower takes the rows of this table."""
    wanted = features_of(tower, "in")
    if wanted not in (None, table.shape[1]):
        raise ValueError(f"{name} must have {wanted} columns like the model's input, got {table.shape}")


def towards(
    tower: Model, table: np.ndarray, rows: np.ndarray, micro: int | None
) -> tuple[np.ndarray, Callable[[np.ndarray], dict[str, np.ndarray]]]:
    """Embeddings of these rows, and what takes a gradient to them back to the tower's parameters.

    With `micro`, so many rows at a time, and again for the way back: the gradient is that of all rows at once, the
    memory for what lies between that of a few.
    """
    if micro is None or len(rows) <= micro:
        out, saved = forward_rows(tower, table, rows)
        return out, lambda grad: tower.backward(saved, grad)
    parts = [slice(start, start + micro) for start in range(0, len(rows), micro)]
    out = np.concatenate([forward_rows(tower, table, rows[part])[0] for part in parts])

    def back(grad: np.ndarray) -> dict[str, np.ndarray]:
        total: dict[str, np.ndarray] = {}
        for part in parts:
            for name, g in tower.backward(forward_rows(tower, table, rows[part])[1], grad[part]).items():
                total[name] = total[name] + g if name in total else g
        return total

    return out, back


def embedded(tower: Model, table: np.ndarray, limit: int) -> Any:
    """All rows embedded: an array if that fits the limit in bytes, or else blocks, one after the other."""
    width, dtype = output_kind(tower, table)
    if len(table) * width * dtype.itemsize <= limit:
        return outputs(tower, table)
    return _blocks(tower, table)


def _blocks(tower: Model, table: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(table), _BLOCK_ROWS):
        yield outputs(tower, table[start : start + _BLOCK_ROWS])
