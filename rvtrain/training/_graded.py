"""Graded pairs: how well the similarity of embeddings agrees with scores that people, or a teacher, gave."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._blocks import CHUNK, Rows
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain._engine._pairs import paired_cosines

_BLOCK = 4096
"""Rows that are converted together."""


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    r"""Spearman's rank correlation: Pearson's correlation of the ranks, where equal values share their mean rank.

    Parameters
    ----------
    x, y : arrays of real numbers, of shape (n,), n ≥ 2

    Returns
    -------
    float
        In [−1, 1]; NaN if all values of x, or all of y, are equal.

    Raises
    ------
    TypeError, ValueError
        If shapes differ, there are fewer than two values, or something is not a finite number.

    References
    ----------
    Spearman (1904), The Proof and Measurement of Association between Two Things, Am. J. Psychol. 15(1).

    Examples
    --------
    >>> import rvtrain as rt
    >>> round(rt.spearman([0.1, 0.5, 0.9, 0.7], [1, 2, 4, 4]), 6)
    0.948683
    """
    a, b = _values("x", x), _values("y", y)
    check.same_shape("y", b, "x", a.shape)
    return _correlation(_ranks(a), _ranks(b))


def evaluate_pairs(
    a: ArrayLike, b: ArrayLike, scores: ArrayLike, *, truncate_dim: int | None = None
) -> dict[str, float]:
    """Correlation of the cosines of pairs of embeddings with the scores of these pairs.

    Parameters
    ----------
    a, b : arrays of shape (n, d), n ≥ 2
        Of any real type.
    scores : array of shape (n,)
        How similar row i of a and row i of b are, on any scale.
    truncate_dim : int, optional
        Use the first so many dimensions of all vectors.

    Returns
    -------
    dict with "spearman" and "pearson"
        The correlations, as in `spearman`.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, something is not finite, or there are fewer than two pairs.

    References
    ----------
    Cer et al. (2017), SemEval-2017 Task 1: Semantic Textual Similarity, arXiv:1708.00055.
    Reimers, Beyer & Gurevych (2016), Task-Oriented Intrinsic Evaluation of Semantic Textual Similarity, for
    Spearman's in place of Pearson's.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> a, b = np.array([[1.0, 0.0]] * 3), np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> {name: round(value, 4) for name, value in rt.evaluate_pairs(a, b, [5, 4, 1]).items()}
    {'spearman': 1.0, 'pearson': 0.9989}
    """
    left, right = check.stored_array("a", a, 2), check.stored_array("b", b, 2)
    check.same_shape("b", right, "a", left.shape)
    if truncate_dim is not None:
        truncate_dim = check.integer("truncate_dim", truncate_dim, low=1, high=left.shape[1])
        left, right = left[:, :truncate_dim], right[:, :truncate_dim]
    given = _values("scores", scores)
    check.same_shape("scores", given, "the pairs", (len(left),))
    cosines = np.concatenate([_cosines(left, right, start) for start in range(0, len(left), _BLOCK)])
    return {"spearman": _correlation(_ranks(cosines), _ranks(given)), "pearson": _correlation(cosines, given)}


def _cosines(a: np.ndarray, b: np.ndarray, start: int) -> NDArray[np.float64]:
    """The cosines of a block of pairs, in float64."""
    rows = []
    for name, x in (("a", a), ("b", b)):
        block = check.readable(x[start : start + _BLOCK], np.float64)
        rows.append(Rows(block, checked_inverse_norms(name, block, first=start)))
    out = np.empty(len(rows[0].x))
    paired_cosines.sized(2 * rows[0].x.size)(len(out), *rows, CHUNK, out)
    return out


def _values(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """At least two finite numbers."""
    array = check.stored_array(name, values, 1)
    if len(array) < 2:
        raise ValueError(f"{name} must have at least two values, got shape {array.shape}")
    wide = array.astype(np.float64)
    check.finite(name, wide)
    return wide


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values have the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[places]


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Pearson's correlation; NaN where one side is constant."""
    if (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    units = []
    for values in (x, y):
        centred = values / np.abs(values).max()
        centred = centred - centred.mean()
        units.append(centred / np.linalg.norm(centred))
    return float(np.clip(units[0] @ units[1], -1.0, 1.0))
