"""Embed vectors with a model, block by block, and measure retrieval."""

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

import rvtrain as rt
from rvtrain import _validation as check
from rvtrain._commands import _files
from rvtrain._progress import Bar
from rvtrain.distributed._ranks import Ranks
from rvtrain.training._shared import of_all_ranks

_NEGATIVES = 4
_CALIBRATION_ROWS = 10_000


def towers(path: str | None, data: _files.Inputs) -> tuple[Any, Any]:
    """The adapters of a model file for queries and for documents; (None, None) if there is no model."""
    if path is None:
        if data.are_texts:
            raise ValueError("--model is needed for texts: one that was trained on texts")
        if data.queries.shape[1] != data.documents.shape[1]:
            raise ValueError(
                f"without --model, queries and documents must have as many columns, got shapes {data.queries.shape} "
                f"and {data.documents.shape}"
            )
        return None, None
    model = rt.load_model(path)
    found = side(path, model, "query"), side(path, model, "document")
    for name, table, tower in zip(("queries", "documents"), (data.queries, data.documents), found, strict=True):
        check_kind(path, tower, data.are_texts)
        if data.are_texts:
            continue
        if table.shape[1] != tower.in_features:
            raise ValueError(f"{name} must have {tower.in_features} columns for {path}, got shape {table.shape}")
    return found


def side(path: str, model: Any, name: str) -> Any:
    """The adapter for queries or for documents of a model, which was read from the file `path`."""
    if isinstance(model, rt.EmbeddingTable):
        raise ValueError(f"{path} must hold adapters, got an EmbeddingTable, which transforms no vectors")
    return getattr(model, name) if isinstance(model, rt.TwoTower) else model


def check_kind(path: str, tower: Any, of_texts: bool) -> None:
    """ValueError if a model of vectors is to embed texts, or one of texts vectors."""
    if (getattr(tower, "features", None) is not None) != of_texts:
        kinds = ("texts", "vectors") if of_texts else ("vectors", "texts")
        raise ValueError(f"{path} must be a model of {kinds[0]}, got one of {kinds[1]}")


def embedded(
    tower: Any, table: np.ndarray, options: argparse.Namespace, bar: Bar, name: str, ranks: Ranks | None = None
) -> Any:
    """All rows, embedded by the tower: an array, or an iterator of blocks if an array would exceed --memory.

    Ranks embed parts of an array.
    """
    dtype = check.computed_dtype(name, table) if tower is None else tower.dtype
    width = table.shape[1] if tower is None else tower.out_features
    fits = len(table) * width * dtype.itemsize <= options.memory << 20
    if tower is None and table.dtype == dtype:
        return np.asarray(table) if fits else table
    bar.phase(f"embedding {name}")
    if not fits:
        return _blocks(tower, table, bar, name)

    def array(part: slice) -> np.ndarray:
        some, start = table[part], 0
        out = np.empty((len(some), width), dtype)
        for block in _blocks(tower, some, bar, name):
            out[start : start + len(block)] = block
            start += len(block)
        return out

    return array(slice(None)) if ranks is None else of_all_ranks(ranks, len(table), array)


def rows(tower: Any, table: np.ndarray, which: np.ndarray) -> np.ndarray:
    """The rows `which` of a table, embedded by the tower."""
    if table.ndim == 1:
        return tower.transform(table[which])
    some = check.readable(table[which], check.computed_dtype("vectors", table))
    return some if tower is None else tower.transform(some)


def measured(
    both: tuple[Any, Any], data: _files.Inputs, pairs: np.ndarray, metrics: list[str], options: argparse.Namespace,
    bar: Bar, truncate_dim: int | None = None, ranks: Ranks | None = None, **precision: Any,
) -> dict[str, float]:  # fmt: skip
    """Retrieval metrics of the queries in these pairs; all documents are ranked for each.

    `precision` are options of `evaluate_retrieval`; ranges of int8 are those of up to 10,000 documents. Ranks measure
    parts of the queries, in float32.
    """
    asking = np.unique(pairs[:, 0])
    if ranks is not None:
        return _measured_by(ranks, both, data, pairs, asking, metrics, options, bar)
    bar.phase("embedding queries")
    queries = rows(both[0], data.queries, asking)
    documents = embedded(both[1], data.documents, options, bar, "documents")
    bar.phase("evaluating")
    relevant = _files.answers(pairs, asking)
    if precision.get("precision") == "int8":
        precision["ranges"] = ranges(both[1], data.documents)[:, :truncate_dim]
    return rt.evaluate_retrieval(
        queries, documents, relevant=relevant, metrics=metrics, truncate_dim=truncate_dim, **precision
    )


def _measured_by(
    ranks: Ranks, both: tuple[Any, Any], data: _files.Inputs, pairs: np.ndarray, asking: np.ndarray,
    metrics: list[str], options: argparse.Namespace, bar: Bar,
) -> dict[str, float]:  # fmt: skip
    """The metrics of the queries `asking`, of which each rank ranks documents for a part."""
    documents = embedded(both[1], data.documents, options, bar, "documents", ranks)

    def values(part: slice) -> np.ndarray:
        some = asking[part]
        if not len(some):
            return np.empty((0, len(metrics)))
        relevant = _files.answers(pairs, some)
        queries = rows(both[0], data.queries, some)
        found = rt.evaluate_retrieval(queries, documents, relevant=relevant, metrics=metrics, per_query=True)
        return np.stack([found[name] for name in metrics], axis=1)

    bar.phase("evaluating")
    each = of_all_ranks(ranks, len(asking), values)
    return {name: float(column.mean()) for name, column in zip(metrics, each.T, strict=True)}


def ranges(tower: Any, table: np.ndarray) -> np.ndarray:
    """Least and greatest value (2, d) of each column of up to 10,000 rows, evenly spaced, embedded by the tower."""
    some = rows(tower, table, np.unique(np.linspace(0, len(table) - 1, _CALIBRATION_ROWS).astype(np.int64)))
    return np.stack([some.min(axis=0), some.max(axis=0)])


def _blocks(tower: Any, table: np.ndarray, bar: Bar, name: str) -> Iterator[np.ndarray]:
    dtype = None if table.ndim == 1 else check.computed_dtype(name, table)
    for start in range(0, len(table), _files.BLOCK_ROWS):
        block = table[start : start + _files.BLOCK_ROWS]
        if dtype is not None:
            block = check.readable(block, dtype)
        yield block if tower is None else tower.transform(block)
        bar.reach(start + len(block), len(table))


def negatives(flag: str, wanted: int | None, documents: int) -> int:
    """Number of negatives per query: the value of the flag, by default 4 or the number of other documents."""
    if wanted is None:
        return min(_NEGATIVES, documents - 1)
    if wanted > documents - 1:
        raise ValueError(f"{flag} must be at most {documents - 1}, all documents but one, got {wanted}")
    return wanted
