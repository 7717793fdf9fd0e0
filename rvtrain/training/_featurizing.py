"""Strings as rows of a training: made into rows once, by what the model has for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from rvtrain.text._texts import are_texts, checked_texts
from rvtrain.training._embedding import Sides


def featurized(model: Any, name: str, x: Any) -> Any:
    """Rows in the form that a model reads, by its own ``featurize`` where it has one; else as they are."""
    own = getattr(model, "featurize", None)
    if own is not None:
        return own(x, name)
    if are_texts(x):
        raise TypeError(f"{name} must be rows of numbers, since {type(model).__name__} takes no strings")
    return x


@contextmanager
def features_fitted(
    sides: Sides, queries: Any, documents: Any, pairs: Any = None, names: tuple[str, str] = ("queries", "documents")
) -> Iterator[None]:
    """Fit the features of a side that has such and has not fitted them yet, on its strings; undone by an exception.

    Of queries, on those that have a pair, so that nothing is learned from those that are held back.
    """
    texts: dict[int, list[str]] = {}
    fresh: dict[int, Any] = {}
    for model, name, x in ((sides.query, names[0], queries), (sides.document, names[1], documents)):
        features = getattr(model, "features", None)
        if features is None or getattr(features, "is_fitted", True) or not are_texts(x):
            continue
        given = checked_texts(name, x)
        fresh[id(features)] = features
        texts.setdefault(id(features), []).extend(given if name == names[1] else _paired(given, pairs))
    before = {key: dict(vars(features)) for key, features in fresh.items()}
    try:
        for key, features in fresh.items():
            features.fit(texts[key])
        yield
    except BaseException:
        for key, features in fresh.items():
            vars(features).clear()
            vars(features).update(before[key])
        raise


def _paired(texts: list[str], pairs: Any) -> list[str]:
    """The texts of these that have a pair; all of them if the pairs are none, which is an error later."""
    rows = None if pairs is None else np.asarray(pairs)
    if rows is None or rows.ndim != 2 or rows.dtype.kind not in "iu" or not rows.size:
        return texts
    used = np.unique(rows[:, 0])
    return texts if used[0] < 0 or used[-1] >= len(texts) else [texts[row] for row in used]
