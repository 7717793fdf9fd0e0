"""Collections of strings as users have them: recognised, and checked."""

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

Texts = Iterable[str]
"""A list, a tuple, an array or a Series of strings."""


def are_texts(value: Any) -> bool:
    """Whether the value is a collection in which strings are found, or one string, which is an error later."""
    if isinstance(value, (str, bytes)):
        return True
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "UT" or (value.dtype.kind == "O" and any(isinstance(x, str) for x in value.flat))
    if isinstance(value, (list, tuple)):
        return any(isinstance(x, str) for x in value)
    dtype = getattr(value, "dtype", None)  # of a pandas or polars Series; a data frame has none
    if dtype is None or not hasattr(value, "__iter__") or len(getattr(value, "shape", (0,))) != 1:
        return False
    is_numeric = isinstance(dtype, np.dtype) and dtype.kind in "biufc"
    return not is_numeric and any(isinstance(x, str) for x in value)


def checked_texts(name: str, value: Any) -> list[str]:
    """The strings as a list; TypeError that names the first element that is none."""
    if isinstance(value, (str, bytes, Mapping, Set)) or not isinstance(value, Iterable):
        remedy = f": give [{name}]" if isinstance(value, str) else ""
        raise TypeError(f"{name} must be a sequence of strings, got {type(value).__name__}{remedy}")
    if getattr(value, "ndim", 1) != 1:
        raise ValueError(f"{name} must have 1 dimension, got shape {getattr(value, 'shape', None)}")
    texts = list(value)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name} must be a sequence of strings, got {text!r} at [{place}]")
    return texts


def blocks_of_codes(texts: list[str], most: int) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.int64]]]:
    """The code points of about `most` characters of texts at a time, and where each text of the block begins."""
    start = 0
    while start < len(texts):
        stop, characters = start, 0
        while stop < len(texts) and (stop == start or characters + len(texts[stop]) <= most):
            characters += len(texts[stop])
            stop += 1
        block = texts[start:stop]
        joined = "".join(block).encode("utf-32-le", "surrogatepass")
        bounds = np.zeros(len(block) + 1, np.int64)
        np.cumsum([len(text) for text in block], out=bounds[1:])
        yield np.frombuffer(joined, "<u4").astype(np.uint32), bounds
        start = stop
