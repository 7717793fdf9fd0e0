"""Texts of queries and documents, where they are given; numbers of rows otherwise."""

from collections.abc import Sequence
from typing import Any

from rvtrain.report._html import Html, element, joined, quoted


class Names:
    """What rows are called in the page: their text, or "query 17".

    Parameters
    ----------
    argument : str
        Of `write_report`, for errors.
    kind : {"query", "document"}
    texts : sequence of str, or None
    count : int or None
        Number of rows; None if it is not known.
    """

    def __init__(self, argument: str, kind: str, texts: Sequence[object] | None, count: int | None) -> None:
        self._kind, self._texts = kind, None
        if texts is None:
            return
        if isinstance(texts, (str, bytes)) or not hasattr(texts, "__len__"):
            raise TypeError(f"{argument} must be a sequence of strings, got {type(texts).__name__}")
        by_place: Any = getattr(texts, "iloc", texts)  # a series of pandas counts from its own labels otherwise
        if count is not None and len(texts) != count:
            raise ValueError(f"{argument} must have a text for each {kind}, {count}, got {len(texts)}")
        self._texts = by_place

    def shown(self, row: int, longest: int = 600) -> Html:
        """The name of a row; of a text at most so many characters."""
        number = f"{self._kind} {row}"
        if self._texts is None:
            return Html(number)
        return joined([quoted(self._texts[row], longest), " ", element("small", f"({number})", class_="row")])
