"""The selections as functions: exact nearest neighbours, and sampling without replacement."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain.distributed._ranks import Communicator, Ranks
from rvtrain.mining._neighbours import Neighbours
from rvtrain.mining._of_ranks import top_k_of_ranks
from rvtrain.mining._search import METHODS, empty_best, no_limits
from rvtrain.mining._selection_kernels import WEIGHT, Rule, draw, finish, survey


def top_k(
    queries: ArrayLike,
    candidates: ArrayLike | Iterable[ArrayLike],
    k: int,
    *,
    method: str = "auto",
    comm: Communicator | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    r"""The k candidates with the largest cosine similarity to each query, exactly.

    .. math:: \cos(q, c) = \frac{q \cdot c}{\max(\|q\|, ε)\,\max(\|c\|, ε)}, \qquad ε = 10^{-8}

    Parameters
    ----------
    queries : array of shape (B, d), or (d,) for one query
    candidates : array of shape (N, d), or an iterable of such blocks
        As in `HardNegativeMiner.mine`: an ``np.memmap`` is read block by block. Other types than float32 and float64
        are converted to the one of them that holds all numbers given.
    k : int
        1 ≤ k ≤ N.
    method : {"auto", "float", "bounds"}
        How candidates are scored; the result is the same to the bit. "float": all in floating point. "bounds":
        bounds from products of 8-bit integers first, and floating point for the few candidates that they leave,
        where that is possible: for float32 in memory (up to 128 MiB of 8-bit codes), on processors with fast
        products of bytes (AVX2, AVX-512 VNNI or AMX). "auto": bounds if they are possible and expected to be faster,
        which takes at least 32 queries (96 with AVX2), thousands of candidates, and 16 candidates for each of the k.
        If the candidates are prepared (`HardNegativeMiner.prepare`), their integers are kept, and a search by one or
        two threads takes bounds for a single query, one by more threads for a few more.
    comm : mpi4py.MPI.Comm, optional
        Each rank gives all queries and its rows of the candidates, at least one; the candidates are those of all
        ranks, in the order of ranks, and so are the indices. Each rank gets the result of one process for all of
        them. k is at most their number.

    Returns
    -------
    scores : array of shape (B, k), or (k,)
        Cosines, largest first.
    indices : int64 array of shape (B, k), or (k,)
        Ties go to the lower index.

    Raises
    ------
    TypeError
        If an array is not of real numbers, or k is not an integer.
    ValueError
        If shapes do not fit, something is empty or not finite, k is out of range, or there is no such method.

    References
    ----------
    Johnson, Douze & Jégou (2021), Billion-scale similarity search with GPUs, arXiv:1702.08734, for the task.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> scores, indices = rt.top_k(np.array([1.0, 0.0]), np.array([[0.0, 1.0], [3.0, 4.0], [2.0, 0.0]]), k=2)
    >>> indices
    array([2, 1])
    >>> scores
    array([1. , 0.6])
    """
    if comm is not None:
        return top_k_of_ranks(Ranks(comm), queries, candidates, k, method)
    q = check.stored_array("queries", queries, (1, 2))
    near = Neighbours(np.atleast_2d(q), candidates)
    k = check.integer("k", k, low=1, high=near.size)
    indices, scores = near.search(k, method=check.choice("method", method, METHODS))
    if indices.shape[1] < k:
        raise ValueError(f"k must be in [1, {near.size}], got {k}")
    return (scores[0], indices[0]) if q.ndim == 1 else (scores, indices)


def weighted_sample(weights: ArrayLike, k: int, seed: int) -> NDArray[np.int64]:
    r"""Draw k indices without replacement, each time with probability proportional to the remaining weights.

    One pass: the k largest of :math:`\log w_i - \log(-\log u_i)` (the Gumbel top-k trick), with noise from a
    counter-based generator, so that a draw depends on the seed, the row and the index alone.

    Parameters
    ----------
    weights : array of shape (N,), or (B, N) for a draw in each row, float32 or float64
        Finite, not negative; an index of weight 0 is never drawn.
    k : int
        At least 1, at most the number of positive weights in any row.
    seed : int
        In [0, 2⁶³).

    Returns
    -------
    int64 array of shape (k,) or (B, k)
        In the order drawn.

    Raises
    ------
    TypeError
        If weights are not float32 or float64, or k or seed is not an integer.
    ValueError
        If a weight is negative or not finite, or a row has fewer than k positive weights.

    References
    ----------
    Efraimidis & Spirakis (2006), Weighted random sampling with a reservoir.
    Kool, van Hoof & Welling (2019), Stochastic Beams and Where to Find Them, arXiv:1903.06059.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> rt.weighted_sample(np.array([0.0, 5.0, 0.0, 1.0]), k=2, seed=0)
    array([3, 1])
    """
    w = check.float_array("weights", weights, (1, 2))
    k = check.neighbours(k)
    seed = check.integer("seed", seed, low=0, high=2**63 - 1)
    rows = np.atleast_2d(check.readable(w))
    positive, good = np.empty(len(rows), np.int64), np.empty(len(rows), np.bool_)
    survey.sized(2 * rows.size)(len(rows), rows, positive, good)
    if not good.all():
        check.finite("weights", w)
        raise ValueError(f"weights must not be negative, got {w.min()}")
    if positive.min() < k:
        raise ValueError(f"weights must have at least k = {k} positive entries in each row, got {positive.min()}")
    best = empty_best(len(rows), k, rows.dtype)
    draw.sized(20 * rows.size)(len(rows), rows, no_limits(len(rows), rows.dtype), Rule(WEIGHT, seed=seed), best)
    finish.sized(20 * best.keys.size)(len(rows), best)
    drawn = best.columns[0]
    return drawn if w.ndim == 2 else drawn[0]
