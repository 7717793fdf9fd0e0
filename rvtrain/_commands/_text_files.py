"""Files of texts: pairs in .jsonl, .csv or .tsv, documents also in .txt; errors name the file and the line."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PAIRS = (".jsonl", ".csv", ".tsv")
"""Endings of files of pairs."""
LISTS = (".txt", *PAIRS)
"""Endings of files of which texts of one side are read."""
_OTHER_NAMES = {"query": ("query", "anchor", "text"), "document": ("document", "positive", "text")}
"""Columns that a side is read from: its own, that of sentence-transformers' files, and "text"."""


class TextPairs(NamedTuple):
    """Distinct texts as object arrays, pairs of their rows, and the weight of each pair."""

    queries: np.ndarray
    documents: np.ndarray
    pairs: np.ndarray
    weights: np.ndarray | None


def are_pairs(path: str) -> bool:
    """Whether the name is one of a file of pairs of texts."""
    return path.lower().endswith(PAIRS)


def pairs(path: str) -> TextPairs:
    """The pairs of a file with query, document and, optionally, score ≥ 0; of a pair that comes twice, the first.

    Texts with score 0 do not belong together: they are no pair, but the document is one of those to search.
    """
    queries: dict[str, int] = {}
    documents: dict[str, int] = {}
    found: dict[tuple[int, int], float | None] = {}
    for place, row in _rows(path):
        sides = (_side(path, place, row, "query"), _side(path, place, row, "document"))
        both = queries.setdefault(sides[0], len(queries)), documents.setdefault(sides[1], len(documents))
        found.setdefault(both, _score(path, place, row))
    if not found:
        raise ValueError(f"{path} must hold pairs of texts, got none")
    scores = list(found.values())
    weights = None
    if any(score is not None for score in scores):
        if any(score is None for score in scores):
            raise ValueError(f"{path} must have a score for each pair or for none, got both")
        weights = np.array(scores, np.float64)
        if not weights.any():
            raise ValueError(f"{path} must have a score above 0, got none")
    numbers = np.array(list(found), np.int64)
    if weights is not None:
        numbers, weights = numbers[weights > 0], weights[weights > 0]
    return TextPairs(_array(queries), _array(documents), numbers, weights)


def texts(path: str, side: str = "document", distinct: bool = True) -> np.ndarray:
    """The texts of one side of a file, in its order, as an object array: the lines of a .txt, or a column."""
    if not path.lower().endswith(LISTS):
        raise ValueError(f"{path} must end in {', '.join(LISTS[:-1])} or {LISTS[-1]}")
    if path.lower().endswith(".txt"):
        found = [line for _, line in _lines(path)]
    else:
        found = [_side(path, place, row, side) for place, row in _rows(path)]
    kept = list(dict.fromkeys(text for text in found if text.strip())) if distinct else found
    if not kept:
        raise ValueError(f"{path} must hold texts, got none")
    return _array(kept)


def _rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file with the number of the line that each ends in; empty lines are passed over."""
    if path.lower().endswith(".jsonl"):
        yield from _json_rows(path)
        return
    reader = csv.reader(
        (line + "\n" for line in _content(path).split("\n")),
        delimiter="\t" if path.lower().endswith(".tsv") else ",",
        strict=True,
    )
    names: list[str] = []
    try:
        for values in reader:
            if not values:
                continue
            if not names:
                names = [name.strip().lower() for name in values]
                continue
            if len(values) != len(names):
                raise ValueError(
                    f"{path}, line {reader.line_num}: expected {len(names)} columns, got {len(values)}; "
                    "a text that has the separator in it needs quotes"
                )
            yield reader.line_num, dict(zip(names, values, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def _json_rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for place, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {place}: not JSON: {error.msg} at column {error.colno}") from None
        except RecursionError:
            raise ValueError(f"{path}, line {place}: not a flat object") from None
        if not isinstance(row, dict):
            raise ValueError(f'{path}, line {place}: must be an object such as {{"query": …, "document": …}}')
        yield place, row


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """The lines with their numbers, from 1; not those that only `str.splitlines` sees, such as U+2028."""
    lines = _content(path).split("\n")
    if not lines[-1]:
        lines.pop()
    return enumerate(lines, 1)


def _content(path: str) -> str:
    """The text of a file without byte order mark and carriage returns."""
    stored = Path(path).read_bytes()
    if not stored:
        raise ValueError(f"{path} is empty")
    if stored.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path} must be text in UTF-8, got UTF-16")
    zero = stored.find(b"\0")
    if zero >= 0:
        raise ValueError(f"{path} must be text in UTF-8, got a binary file (a zero at byte {zero})")
    try:
        content = stored.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = stored.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: must be text in UTF-8: {error.reason}") from None
    return content.replace("\r\n", "\n").replace("\r", "\n")


def _side(path: str, place: int, row: dict[str, Any], side: str) -> str:
    name = next((name for name in _OTHER_NAMES[side] if name in row), None)
    if name is None:
        there = ", ".join(map(str, list(row)[:8])) or "nothing"
        raise ValueError(f"{path}, line {place}: {side} is missing, got {there}")
    text = row[name]
    if not isinstance(text, str):
        raise ValueError(f"{path}, line {place}: {name} must be a text, got {type(text).__name__}")
    if not text.strip():
        raise ValueError(f"{path}, line {place}: {name} must not be empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{path}, line {place}: {name} must be text, got half of a surrogate pair")
    return text


def _score(path: str, place: int, row: dict[str, Any]) -> float | None:
    given = row.get("score")
    if given is None or given == "":
        return None
    try:
        score = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        score = math.nan
    if not 0 <= score < math.inf:
        raise ValueError(f"{path}, line {place}: score must be a number of at least 0, got {given!r}")
    return score


def _array(found: Any) -> np.ndarray:
    made = np.empty(len(found), object)
    made[:] = list(found)
    return made
