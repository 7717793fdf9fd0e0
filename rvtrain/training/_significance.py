"""Whether the difference between two models is more than chance."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check

_SIGNS = 1 << 20
"""Signs that are drawn together."""
_EQUAL = 1e-12
"""Differences of means that are as near as this, relative to the mean of |x − y|, are equal up to rounding."""


class PairedTest(NamedTuple):
    """The result of `paired_test`."""

    difference: float
    """mean of x − y"""
    p_value: float
    """how often a difference as large, in either direction, comes about by chance"""
    queries: int
    """number of queries that both have a value for"""


def paired_test(x: ArrayLike, y: ArrayLike, *, permutations: int = 10_000, seed: int = 0) -> PairedTest:
    r"""Test whether two models differ in their mean over the same queries: Fisher's paired randomization test.

    If the models did not differ, each difference :math:`d_i = x_i - y_i` could as well have the other sign. The p
    value is the fraction of all assignments of signs with

    .. math:: \Big|\sum_i \pm d_i\Big| \ge \Big|\sum_i d_i\Big|

    All :math:`2^n` assignments are counted if they are no more than `permutations`. Otherwise that many are drawn,
    and :math:`p = (1 + \text{hits}) / (1 + \text{permutations})`.

    Parameters
    ----------
    x, y : arrays of shape (Q,)
        A metric of each query by either model, as from ``evaluate_retrieval(…, per_query=True)``. Queries for which
        one of them is NaN are left out.
    permutations : int
        In [1, 10⁷].
    seed : int
        Of the assignments drawn; the same seed gives the same p value.

    Returns
    -------
    PairedTest
        With difference (the mean of x − y), p_value (two-sided) and queries, the number of queries compared.

    Raises
    ------
    TypeError, ValueError
        If shapes differ, nothing is left to compare, a value is infinite, or an option is out of range.

    References
    ----------
    Fisher (1935), The Design of Experiments.
    Smucker, Allan & Carterette (2007), A Comparison of Statistical Significance Tests for Information Retrieval
    Evaluation, CIKM.

    Examples
    --------
    >>> import rvtrain as rt
    >>> rt.paired_test([0.5, 1.0, 0.7, 0.9, 0.8], [0.4, 0.8, 0.6, 0.9, 0.5])
    PairedTest(difference=0.13999999999999999, p_value=0.125, queries=5)
    """
    a, b = (check.stored_array(name, values, 1).astype(np.float64) for name, values in (("x", x), ("y", y)))
    check.same_shape("y", b, "x", a.shape)
    permutations = check.integer("permutations", permutations, low=1, high=10_000_000)
    seed = check.integer("seed", seed, low=0)
    there = ~(np.isnan(a) | np.isnan(b))
    if not there.any():
        raise ValueError(f"x and y must have a query with values of both, got none of {len(a)}")
    a, b = a[there], b[there]
    check.finite("x", a)
    check.finite("y", b)
    differences = a - b
    n = len(differences)
    if n < 31 and 2**n <= permutations:
        at_least, total = _as_large(differences, _all_signs(n)), 2**n
    else:
        rng, rows = np.random.default_rng(seed), max(1, _SIGNS // n)
        at_least, total = 1, 1 + permutations
        for start in range(0, permutations, rows):
            signs = rng.integers(0, 2, (min(rows, permutations - start), n), dtype=np.int8)
            at_least += _as_large(differences, signs)
    return PairedTest(float(differences.mean()), at_least / total, n)


def _all_signs(n: int) -> NDArray[np.int8]:
    """All assignments of n signs, (2ⁿ, n), as 0 and 1."""
    return (np.arange(2**n)[:, np.newaxis] >> np.arange(n) & 1).astype(np.int8)


def _as_large(differences: NDArray[np.float64], signs: NDArray[np.int8]) -> int:
    """How many assignments of signs (m, n) give a sum at least as far from 0 as that of the differences."""
    sums = differences.sum() - 2.0 * (signs @ differences)
    bound = abs(differences.sum()) - _EQUAL * np.abs(differences).sum()
    return int(np.count_nonzero(np.abs(sums) >= bound))
