"""Input files of the commands: vectors, pairs and texts, checked before any work and named in error messages."""

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rvtrain import _validation as check
from rvtrain._commands import _text_files
from rvtrain.distributed._ranks import Ranks

BLOCK_ROWS = 8192
"""Number of rows that are read from a file at once."""

_NAMES = ("queries", "documents", "pairs", "validation")


class Inputs(NamedTuple):
    """The contents of a command's files."""

    queries: np.ndarray
    documents: np.ndarray
    pairs: np.ndarray
    """(P, 2), row numbers of queries and documents."""
    validation: np.ndarray | None
    """(V, 2), pairs for validation, if the file has them."""
    weights: np.ndarray | None = None
    """(P,), of the pairs, if a file of texts has scores."""

    @property
    def are_texts(self) -> bool:
        """Whether queries and documents are object arrays of strings."""
        return self.queries.ndim == 1

    @property
    def known(self) -> np.ndarray:
        """All pairs, including the pairs for validation."""
        return self.pairs if self.validation is None else np.concatenate([self.pairs, self.validation])


def inputs(options: argparse.Namespace, ranks: Ranks | None = None) -> Inputs:
    """Read a file of texts, or one .npz with queries, documents, pairs and validation, or map two .npy.

    Ranks share the check of the vectors, so that of mapped files each reads its part.
    """
    files = options.inputs
    if any(map(_text_files.are_pairs, files)):
        if len(files) > 1:
            raise ValueError(f"expected one file of texts, got {len(files)} files")
        if options.pairs:
            raise ValueError(f"--pairs is for vectors, got {files[0]}, of which each line is a pair")
        texts = _text_files.pairs(files[0])
        return Inputs(texts.queries, texts.documents, texts.pairs, None, texts.weights)
    if len(files) == 1:
        found = _archive(files[0])
        names = {name: f"{name} of {files[0]}" for name in _NAMES}
    elif len(files) == 2:
        found = dict(zip(_NAMES, map(array, files), strict=False))
        names = dict(zip(_NAMES, files, strict=False))
    else:
        raise ValueError(
            f"expected one .npz, one file of texts, or queries.npy and documents.npy, got {len(files)} files"
        )
    if options.pairs:
        found["pairs"], names["pairs"] = array(options.pairs), options.pairs
    queries, documents = (_table(names[name], found[name], ranks) for name in _NAMES[:2])
    validation = None
    if "validation" in found:
        validation = _pairs(names["validation"], found["validation"], queries, documents)
    if "pairs" in found:
        pairs = _pairs(names["pairs"], found["pairs"], queries, documents)
    else:
        pairs = _row_by_row(queries, documents, validation)
    return Inputs(queries, documents, pairs, validation)


def paths(options: argparse.Namespace) -> list[str]:
    """All input files among the arguments of a command."""
    single = (getattr(options, name, None) for name in ("pairs", "model"))
    return [
        *getattr(options, "inputs", ()),
        *(getattr(options, "texts", None) or ()),
        *(path for path in single if path),
    ]


def array(path: str) -> np.ndarray:
    """The array of a .npy file, as a memory map."""
    _expect(path, b"\x93NUMPY", ".npy")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # for a damaged header, numpy raises many types of errors
        raise ValueError(f"{path} is damaged, or holds more than numbers: {_line(error)}") from None


def vectors(path: str) -> np.ndarray:
    """The array (n, d) of a .npy file, as a memory map; its values are not checked."""
    return check.stored_array(path, array(path), 2)


def lines(path: str, rows: int, of: str) -> list[str]:
    """The lines of a text file, one for each of `rows` rows of the input `of`."""
    try:
        found = Path(path).read_text(encoding="utf-8").split("\n")  # splitlines() also splits at U+2028 and others
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8: {error}") from None
    if not found[-1]:
        found.pop()
    if len(found) != rows:
        raise ValueError(f"{path} must have a line for each row of {of}, {rows}, got {len(found)}")
    return found


def finite_block(name: str, table: np.ndarray, start: int) -> np.ndarray:
    """The block of rows from `start`, in float32 or float64; ValueError if a number is not finite."""
    block = check.readable(table[start : start + BLOCK_ROWS], check.computed_dtype(name, table))
    good = np.isfinite(block).all(axis=1)
    if not good.all():
        row = int(np.argmin(good))
        value = block[row][~np.isfinite(block[row])][0]
        raise ValueError(f"{name} must be finite, got {value} in row {start + row}")
    return block


def answers(pairs: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The documents of each of these queries in the pairs, padded with −1: (len(queries), greatest number)."""
    order = np.argsort(pairs[:, 0], kind="stable")
    asking, documents = pairs[order].T
    first, last = (np.searchsorted(asking, queries, side) for side in ("left", "right"))
    places = np.arange((last - first).max())
    inside = places < (last - first)[:, np.newaxis]
    return np.where(inside, documents[np.where(inside, first[:, np.newaxis] + places, 0)], -1)


def _archive(path: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file that commands use."""
    _expect(path, b"PK", ".npz", "; two .npy are given as queries.npy documents.npy, texts as .jsonl, .csv or .tsv")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            there = sorted(archive.files)
            found = {name: archive[name] for name in _NAMES if name in there}
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is damaged, or holds more than numbers: {_line(error)}") from None
    if not {"queries", "documents"} <= set(found):
        raise ValueError(f"{path} must hold the arrays queries and documents, got {there[:8]}")
    return found


def _expect(path: str, magic: bytes, kind: str, hint: str = "") -> None:
    """Raise unless the file begins with `magic`, as files of this kind do."""
    with open(path, "rb") as file:
        head = file.read(6)
    if head.startswith(magic):
        return
    known = {b"\x93NUMPY": "an .npy file", b"PK": "an .npz archive", b"": "an empty file"}
    got = next((name for start, name in known.items() if head[: len(start) or 6] == start), "another kind of file")
    raise ValueError(f"{path} must be an {kind}{hint}; got {got}")


def _table(name: str, value: np.ndarray, ranks: Ranks | None) -> np.ndarray:
    """Check that an array holds finite vectors, in one pass over the file, and return it unchanged."""
    table = check.stored_array(name, value, 2)
    rank, size, together = (0, 1, nullcontext()) if ranks is None else (ranks.rank, ranks.size, ranks.together())
    starts = range(0, len(table), BLOCK_ROWS)
    with together:
        for start in starts[len(starts) * rank // size : len(starts) * (rank + 1) // size]:
            finite_block(name, table, start)
    return table


def _pairs(name: str, value: Any, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    pairs = check.integer_array(name, value, (None, 2))
    if not len(pairs):
        raise ValueError(f"{name} must not be empty")
    for side, table in enumerate((queries, documents)):
        check.indices(f"{name}[:, {side}]", pairs[:, side], (None,), len(table))
    return pairs


def _row_by_row(queries: np.ndarray, documents: np.ndarray, validation: np.ndarray | None) -> np.ndarray:
    """Pairs of query i with document i, without the queries of the validation pairs."""
    if len(queries) != len(documents):
        raise ValueError(
            f"without pairs, queries and documents must be as many, got {len(queries)} and {len(documents)}"
        )
    rows = np.arange(len(queries))
    if validation is not None:
        rows = np.setdiff1d(rows, validation[:, 0])
        if not len(rows):
            raise ValueError("validation must leave queries for pairs, got all of them")
    return np.stack([rows, rows], axis=1)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
