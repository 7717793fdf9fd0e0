"""Nearest neighbours among vectors that are stored as 8-bit integers or as bits."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._norms import EPS
from rvtrain.functional import PRECISIONS, checked_ranges, quantize
from rvtrain.mining._hamming_kernels import nearest_codes
from rvtrain.mining._neighbours import Neighbours

_BLOCK_ROWS = 8192
_SCRATCH_BYTES, _GATHERED_BYTES = 1 << 26, 1 << 24
_MOST_BITS = 2**16 - 1


def top_k_quantized(
    queries: ArrayLike,
    codes: ArrayLike,
    k: int,
    precision: str,
    *,
    ranges: ArrayLike | None = None,
    rescore_multiplier: int = 4,
    documents: ArrayLike | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    r"""The k documents with the largest cosine similarity to each query, by codes of the documents.

    Bits: the documents whose bits differ least from those of the query, and of :math:`k \cdot m` of these the k with
    the largest cosine, m the `rescore_multiplier`. The cosine is that of the query in floating point and of ±1 for
    each bit, or of `documents`. 8-bit integers: the cosine of the query and the middle of each code's interval, of
    all documents; with `documents`, the k best of :math:`k \cdot m`.

    Parameters
    ----------
    queries : array of shape (B, d), or (d,) for one query
        Not quantized.
    codes : int8 or uint8 array of shape (N, d), or (N, ⌈d/8⌉) of bits
        As `quantize` makes them.
    k : int
        1 ≤ k ≤ N.
    precision : {"int8", "uint8", "binary", "ubinary"}
        That of the codes.
    ranges : array of shape (2, d)
        Least and greatest value of each column, with which the codes were made; for "int8" and "uint8".
    rescore_multiplier : int
        m ≥ 1, or 0: no rescoring; then scores of bits are the cosines of their ±1.
    documents : array of shape (N, d), optional
        The vectors before they were quantized, such as an ``np.memmap``, of which only k · m rows are read per query.

    Returns
    -------
    scores : array of shape (B, k), or (k,)
        Cosines, largest first.
    indices : int64 array of shape (B, k), or (k,)
        Ties go to the lower index.

    Raises
    ------
    TypeError
        If an array is not of its type.
    ValueError
        If shapes do not fit, something is not finite, ranges are missing, or k is out of range.

    References
    ----------
    Yamada, Asai & Hajishirzi (2021), Efficient Passage Retrieval with Hashing for Open-domain Question Answering,
    ACL, for the rescoring of bits by float queries. Names as in ``semantic_search_faiss`` of sentence-transformers.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> documents = np.random.default_rng(0).normal(size=(1000, 64)).astype(np.float32)
    >>> codes = rt.quantize(documents, "binary")
    >>> codes.shape
    (1000, 8)
    >>> rt.top_k_quantized(documents[:3], codes, 1, "binary")[1].ravel()
    array([0, 1, 2])
    """
    q = check.stored_array("queries", queries, (1, 2))
    rows = np.atleast_2d(q)
    stored = Codes(codes, precision, rows.shape[1], ranges, documents)
    k = check.integer("k", k, low=1, high=len(stored))
    multiplier = check.integer("rescore_multiplier", rescore_multiplier, low=0)
    rows = check.readable(rows, check.computed_dtype("queries", rows))
    check.finite("queries", rows)
    scores, indices = stored.search(rows, k, multiplier)
    return (scores[0], indices[0]) if q.ndim == 1 else (scores, indices)


class Codes:
    """Documents as codes of one precision, and how they are searched."""

    def __init__(
        self, codes: ArrayLike, precision: str, dim: int, ranges: ArrayLike | None, documents: ArrayLike | None = None
    ) -> None:
        self.precision, self.dim = check.choice("precision", precision, PRECISIONS), dim
        self.codes = np.asarray(codes)
        wanted = np.uint8 if precision.startswith("u") else np.int8
        if self.codes.dtype != wanted:
            raise TypeError(f"codes must be {np.dtype(wanted)} for {precision}, got {self.codes.dtype}")
        width = -(-dim // 8) if self.of_bits else dim
        if self.codes.ndim != 2 or self.codes.shape[1] != width or not len(self.codes):
            raise ValueError(f"codes must have shape (n, {width}) for queries of {dim} columns and {precision}, got "
                             f"{self.codes.shape}")  # fmt: skip
        self.documents = None
        if documents is not None:
            self.documents = check.stored_array("documents", documents, 2)
            check.same_shape("documents", self.documents, "what the codes are of", (len(self.codes), dim))
        if self.of_bits:
            if dim > _MOST_BITS:
                raise ValueError(f"queries must have at most {_MOST_BITS} columns for {precision}, got {dim}")
        elif ranges is None:
            raise ValueError(f"ranges must be given for {precision}: those with which the codes were made")
        else:
            self.low, self.steps, self.half = _intervals(checked_ranges(ranges, dim))

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def of_bits(self) -> bool:
        """Whether there is a bit for each column."""
        return self.precision.endswith("binary")

    def search(
        self, queries: NDArray[np.floating], k: int, multiplier: int
    ) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
        """Scores and indices of the k nearest, as `top_k_quantized` describes them."""
        rescored = multiplier > 0 and (self.of_bits or self.documents is not None)
        most = min(k * multiplier, len(self)) if rescored else k
        if self.of_bits:
            scores, indices = self._by_bits(queries, most)
        else:
            indices, scores = Neighbours(queries, self._blocks(), ("queries", "codes")).search(most)
        return self._rescored(queries, indices, k) if rescored else (scores, indices)

    def vectors(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """The vectors that codes stand for, of shape (…, d): ±1 of bits, or the middles of intervals."""
        if self.of_bits:
            plain = codes if codes.dtype == np.uint8 else codes.view(np.uint8) ^ np.uint8(0x80)
            return np.unpackbits(plain, axis=-1)[..., : self.dim] * np.float32(2) - np.float32(1)
        steps = codes.astype(np.float32) + np.float32(128 * (codes.dtype == np.int8))
        return steps * self.steps + (self.low + self.half)

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(self), _BLOCK_ROWS):
            yield self.vectors(self.codes[start : start + _BLOCK_ROWS])

    def _by_bits(self, queries: NDArray[np.floating], k: int) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
        asking, asked = _words(quantize(queries, self.precision)), _words(self.codes)
        columns, found = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.int64)
        together = min(len(queries), max(1, _SCRATCH_BYTES // (2 * len(asked))))
        distances = np.empty((together, len(asked)), np.uint16)
        counts = np.empty((together, 64 * asked.shape[1] + 1), np.int64)
        for start in range(0, len(queries), together):
            part = slice(start, start + together)
            rows = len(asking[part])
            nearest_codes.sized(4 * rows * asked.size)(
                rows, asking[part], asked, distances, counts, columns[part], found[part]
            )
        return (1 - found * (2 / self.dim)).astype(queries.dtype), columns

    def _rescored(
        self, queries: NDArray[np.floating], indices: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
        """The k of these documents with the largest cosine to each query in floating point."""
        scores = np.empty(indices.shape, queries.dtype)
        read: Callable[[Any], NDArray[np.floating]]
        if self.documents is None:
            read = lambda rows: self.vectors(self.codes[rows])  # noqa: E731
        else:
            of = self.documents
            read = lambda rows: np.asarray(of[rows], check.computed_dtype("documents", of))  # noqa: E731
        together = max(1, _GATHERED_BYTES // (4 * indices.shape[1] * self.dim))
        for start in range(0, len(queries), together):
            part = slice(start, start + together)
            vectors = read(indices[part])
            products = np.einsum("id,ijd->ij", queries[part], vectors)
            lengths = np.linalg.norm(queries[part], axis=1)[:, np.newaxis], np.linalg.norm(vectors, axis=2)
            scores[part] = products / np.maximum(lengths[0], EPS) / np.maximum(lengths[1], EPS)
        check.finite("scores", scores)
        order = np.lexsort((indices, -scores))[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(indices, order, 1)


class QuantizedNeighbours:
    """Documents, given in floating point, that are searched as they are after `quantize`; as `Neighbours`.

    Parameters
    ----------
    queries : array of shape (B, d)
    documents : array of shape (N, d), or an iterable of such blocks
    precision : {"float16", "int8", "uint8", "binary", "ubinary"}
    ranges : array of shape (2, d), optional
    multiplier : int
    """

    def __init__(
        self,
        queries: NDArray[Any],
        documents: ArrayLike | Iterable[ArrayLike],
        precision: str,
        ranges: ArrayLike | None,
        multiplier: int,
    ) -> None:
        self._multiplier = check.integer("rescore_multiplier", multiplier, low=0)
        self._queries = check.readable(queries, check.computed_dtype("queries", queries))
        check.finite("queries", self._queries)
        dim = queries.shape[1]
        is_array = hasattr(documents, "shape") or not isinstance(documents, Iterable)
        if is_array or (isinstance(documents, (list, tuple)) and not (documents and np.ndim(documents[0]) == 2)):
            table = check.stored_array("documents", documents, 2)
            if precision.endswith("int8") and ranges is None:
                ranges = np.stack([table.min(axis=0), table.max(axis=0)])
            given: Iterable[Any] = (table[start : start + _BLOCK_ROWS] for start in range(0, len(table), _BLOCK_ROWS))
        elif precision.endswith("int8") and ranges is None:
            raise ValueError(f"ranges must be given for {precision} where documents are blocks")
        else:
            given = documents  # type: ignore[assignment]  # what has no shape and is iterable
        blocks = (check.stored_array("documents", block, 2) for block in given)
        if precision == "float16":
            codes = np.concatenate([_half(block) for block in blocks])
            self._of_floats: Neighbours | None = Neighbours(self._queries, codes, ("queries", "documents"))
            self.size = len(codes)
            return
        self._of_floats = None
        codes = np.concatenate([quantize(_of_width(block, dim), precision, ranges) for block in blocks])
        self._codes, self.size = Codes(codes, precision, dim, ranges), len(codes)

    def search(
        self, k: int, *, rows: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """Indices and scores of the k nearest of each query, or of all N documents if there are fewer."""
        if self._of_floats is not None:
            return self._of_floats.search(k, rows=rows)
        queries = self._queries if rows is None else self._queries[rows]
        scores, indices = self._codes.search(queries, min(k, self.size), self._multiplier)
        return indices, scores


def _half(block: NDArray[Any]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = block.astype(np.float16)
    check.finite("documents in float16", half)
    return half


def _of_width(block: NDArray[Any], dim: int) -> NDArray[Any]:
    if block.shape[1] != dim:
        raise ValueError(f"documents must have {dim} columns like queries, got shape {block.shape}")
    return block


def _words(codes: NDArray[Any]) -> NDArray[np.uint64]:
    """Rows of bytes as rows of 64-bit words, filled up with zeros."""
    missing = -codes.shape[1] % 8
    rows = np.ascontiguousarray(codes)
    if missing:
        rows = np.pad(rows, ((0, 0), (0, missing)))
    return check.readable(rows.view(np.uint64))


def _intervals(
    ranges: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Lower end of the first interval of each column, length of an interval, and half of it; 0 if they are points."""
    low, high = ranges
    steps = (high - low) / np.float32(255)
    return low, np.where(steps == 0, np.float32(1), steps), steps / 2
