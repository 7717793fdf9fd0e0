"""Queries, documents, and the pairs of them that belong together: checked, and indexed by query."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain.losses._arguments import Excluded
from rvtrain.training import _pair_kernels as kernels
from rvtrain.training._embedding import as_array, finite_rows, stored_table
from rvtrain.training._run import fingerprint
from rvtrain.training._sparse import SparseRows

Rows = NDArray[np.int64]


class PairData:
    """The arrays of one call of `Trainer.fit`.

    Four kinds of numbers, each with one name throughout:

    ============= =================================================================
    pair          position in `pairs` and in arrays with an entry for each pair
    query row     row of `queries`
    document row  row of `documents`
    id            what equal documents share; ``ids[document row]``
    ============= =================================================================

    `names` are those of the arguments, for errors.

    Attributes
    ----------
    query_rows, document_rows : arrays of shape (P,)
        Of each pair.
    most : int
        Largest number of documents that a query has.
    has_copies : bool
        Whether several documents share an id.
    has_shared : bool
        Whether an id belongs to several queries, of which one has several documents.
    """

    def __init__(
        self, queries: ArrayLike | SparseRows, documents: ArrayLike | SparseRows, pairs: ArrayLike | None = None,
        document_ids: ArrayLike | None = None, names: tuple[str, str, str] = ("queries", "documents", "pairs"),
    ) -> None:  # fmt: skip
        self.queries, self.documents = stored_table(names[0], queries), stored_table(names[1], documents)
        asking, count = self.queries.shape[0], self.documents.shape[0]
        if pairs is None and asking != count:
            raise ValueError(
                f"{names[2]} must be given where {names[0]} and {names[1]} differ in number, got {asking} and {count}"
            )
        self.names = names
        each = np.arange(count)
        given = np.stack([each, each], axis=1) if pairs is None else as_array(names[2], pairs)
        if not given.size:
            raise ValueError(f"{names[2]} must not be empty, got shape {given.shape}")
        self.pairs = check.integer_array(names[2], given, (None, 2))
        for side, (name, table) in enumerate(zip(names[:2], (self.queries, self.documents), strict=True)):
            column = self.pairs[:, side]
            if column.min() < 0 or column.max() >= table.shape[0]:
                worst = column.min() if column.min() < 0 else column.max()
                raise ValueError(f"{names[2]} must name rows of {name}, in [0, {table.shape[0] - 1}], got {worst}")
        self.query_rows, self.document_rows = (np.ascontiguousarray(column) for column in self.pairs.T)
        ids = np.arange(count)
        if document_ids is not None:
            ids = check.integer_array("document_ids", as_array("document_ids", document_ids), (count,))
        self.ids = np.unique(ids, return_inverse=True)[1]
        self.has_copies = int(self.ids.max()) < count - 1
        distinct = np.unique(self.pairs, axis=0)
        self._answers = np.ascontiguousarray(distinct[:, 1])
        self._first = np.full(int(self.ids.max()) + 1, -1, np.int32)
        self._bounds = np.searchsorted(distinct[:, 0], np.arange(asking + 1))
        self.most = int(np.diff(self._bounds).max())
        owners = np.unique(np.stack([distinct[:, 0], self.ids[distinct[:, 1]]]), axis=1)[1]
        self.has_shared = self.most > 1 and len(np.unique(owners)) < len(owners)

    @property
    def needs_ids(self) -> bool:
        """Whether a document can be one of a query's without being that of the pair itself."""
        return self.most > 1 or self.has_copies

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the arrays, by the names of their arguments."""
        named = {"queries": self.queries, "documents": self.documents, "pairs": self.pairs, "document_ids": self.ids}
        return {name: fingerprint(array) for name, array in named.items()}

    def check_finite(self, *dtypes: np.dtype[Any] | None) -> None:
        """Raise if a row of queries or documents is not finite in these dtypes; a file is read as a whole."""
        for name, table, dtype in zip(self.names, (self.queries, self.documents), dtypes, strict=False):
            finite_rows(name, table, dtype)

    def has_negatives(self, pairs: Rows) -> bool:
        """Whether any query of these pairs is without one of their documents."""
        query_rows, ids = np.unique(self.query_rows[pairs]), np.unique(self.ids[self.document_rows[pairs]])
        if len(query_rows) * len(ids) > len(self.pairs):
            return True
        both = np.stack([self.query_rows, self.ids[self.document_rows]], axis=1)
        inside = np.isin(both[:, 0], query_rows) & np.isin(both[:, 1], ids)
        return len(np.unique(both[inside], axis=0)) < len(query_rows) * len(ids)

    def documents_of(self, query_rows: Rows) -> Rows:
        """(Q, most) document rows of each of these queries, padded with −1."""
        first, counts = self._bounds[query_rows], np.diff(self._bounds)[query_rows]
        places = np.arange(self.most)
        inside = places < counts[:, np.newaxis]
        return np.where(inside, self._answers[np.where(inside, first[:, np.newaxis] + places, 0)], -1)

    def ids_of_documents_of(self, query_rows: Rows) -> Rows:
        """(Q, most) ids of each of these queries' documents; where it has fewer, one of them again."""
        rows = self.documents_of(query_rows)
        return np.asarray(self.ids[np.where(rows >= 0, rows, rows[:, :1])])

    def query_ids(self, query_rows: Rows) -> Rows:
        """Ids of queries, which no document has."""
        return query_rows + (self.ids.max() + 1)

    def own_columns(self, query_rows: Rows, document_rows: Rows) -> Excluded:
        """For each of these queries, which columns of scores hold a document of it, or one with the id of one."""
        count = len(document_rows)
        bounds, following, seen = np.empty(len(query_rows) + 1, np.int64), *np.empty((2, count), np.int32)
        columns = np.empty(0, np.int32)
        for _ in range(2):
            kernels.own_columns.serial(
                self._answers, self._bounds, self.ids, query_rows, self.ids[document_rows], self._first, following,
                seen, bounds, columns,
            )  # fmt: skip
            columns = np.empty(bounds[-1], np.int32) if len(columns) == 0 else columns
        return Excluded(bounds, columns)

    def own_rows(self, query_rows: Rows, document_rows: Rows) -> Excluded:
        """For each of these documents, which of these queries, as columns, it belongs to."""
        there = self.own_columns(query_rows, document_rows)
        bounds, rows = np.zeros(len(document_rows) + 2, np.int64), np.empty_like(there.columns)
        kernels.transpose.serial(*there, bounds, rows)
        return Excluded(bounds[:-1], rows)

    def ids_of_columns(self, query_rows: Rows, document_rows: Rows) -> Rows:
        """(M, c) ids of columns of scores, which hold these documents, for the rows of these queries.

        A column has the id of its document, and the ids of all of these queries that it belongs to.
        """
        own = self.ids[document_rows]
        queries = np.unique(query_rows)
        query, column = _matches(self.ids_of_documents_of(queries), own)
        turn = np.arange(len(column)) - np.searchsorted(column, column)
        ids = np.repeat(own[:, np.newaxis], 2 + turn.max(initial=0), axis=1)
        ids[column, 1 + turn] = self.query_ids(queries[query])
        return ids


def _matches(wanted: Rows, own: Rows) -> tuple[Rows, Rows]:
    """All (row, place) such that own[place] is one of wanted[row]; once each, by place. wanted (Q, r), own (M,)."""
    order = np.argsort(own, kind="stable")
    ordered = own[order]
    first = np.searchsorted(ordered, wanted).ravel()
    counts = np.searchsorted(ordered, wanted, side="right").ravel() - first
    row = np.repeat(np.arange(wanted.size) // wanted.shape[1], counts)
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    pairs = np.unique(order[np.repeat(first, counts) + nth] * len(wanted) + row)
    return pairs % len(wanted), pairs // len(wanted)


class Pool:
    """The distinct documents of a batch: those of its pairs first, then its other negatives.

    A document's *place* is its position in `rows`. Where no two pairs have the same document, places of the first
    part are positions in the batch.

    Attributes
    ----------
    rows : document rows, of shape (M,)
    own : places of the pairs' documents, of shape (B,)
    first : int
        Number of documents of the first part.
    in_order : bool
        Whether `own` is 0 … B − 1.
    """

    def __init__(self, document_rows: Rows, negatives: Rows | None) -> None:
        order = np.argsort(document_rows, kind="stable")
        ordered = document_rows[order]
        self.in_order = bool((ordered[1:] != ordered[:-1]).all())
        if self.in_order:
            mine, self.own = document_rows, np.arange(len(order))
            self._ordered, self._order = ordered, order
        else:
            mine, self.own = np.unique(document_rows, return_inverse=True)
            self._ordered, self._order = mine, np.arange(len(mine))
        self.first = len(mine)
        self._rest = np.empty(0, np.int64)
        if negatives is not None:
            found = np.sort(negatives, axis=None)
            distinct = found >= 0
            distinct[1:] &= found[1:] != found[:-1]
            found = found[distinct]
            near = np.minimum(np.searchsorted(self._ordered, found), self.first - 1)
            self._rest = found[self._ordered[near] != found]
        self.rows = np.concatenate([mine, self._rest]) if len(self._rest) else mine

    @property
    def has_rest(self) -> bool:
        """Whether there are documents beside those of the pairs."""
        return len(self._rest) > 0

    def places(self, document_rows: Rows) -> Rows:
        """Places of documents that are all in the pool; −1 for −1."""
        near = np.minimum(np.searchsorted(self._ordered, document_rows), self.first - 1)
        mine = self._ordered[near] == document_rows
        other = self.first + np.searchsorted(self._rest, document_rows)
        return np.where(document_rows < 0, -1, np.where(mine, self._order[near], other))
