"""The nearest candidates of each query: the search behind `top_k` and the retrieval metrics."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._blocks import Rows
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain.mining._candidates import candidates_of
from rvtrain.mining._search import no_limits, search
from rvtrain.mining._selection_kernels import BY_SCORE, Rule


class Neighbours:
    """Exact search for the candidates with the largest cosine similarity to each query.

    Parameters
    ----------
    queries : array of shape (B, d)
    candidates : array of shape (N, d), or an iterable of such blocks
    names : (str, str)
        What errors call the two.
    """

    def __init__(
        self,
        queries: ArrayLike,
        candidates: ArrayLike | Iterable[ArrayLike],
        names: tuple[str, str] = ("queries", "candidates"),
    ) -> None:
        self._name, name = names
        self._queries = check.stored_array(self._name, queries, 2)
        dim, dtype = self._queries.shape[1], check.computed_dtype(self._name, self._queries)
        self._candidates = candidates_of(name, candidates, dim, self._name, dtype)

    @property
    def size(self) -> int | None:
        """The number of candidates; None for an iterable that has not been searched yet."""
        return self._candidates.size

    def search(
        self,
        k: int,
        *,
        rows: NDArray[np.int64] | None = None,
        exclude: NDArray[np.int64] | None = None,
        method: str = "auto",
    ) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """Indices and cosines of the k nearest, most similar first, or of all N candidates if there are fewer.

        Parameters
        ----------
        k : int
        rows : integer array of shape (Q,), optional
            The queries that are searched for; all if not given.
        exclude : integer array of shape (Q, m), optional
            Candidates that are not to be found for that query; −1 for none.
        method : {"auto", "float", "bounds"}
            As in `top_k`.

        Returns
        -------
        Two arrays of shape (Q, min(k, N)); −1 and −inf where all other candidates are excluded.
        """
        chosen = self._queries if rows is None else self._queries[rows]
        x = check.readable(chosen, self._candidates.dtype)
        limits = no_limits(len(x), x.dtype)
        if exclude is not None:
            limits = limits._replace(exclude=check.readable(exclude, np.int64))
        queries = Rows(x, checked_inverse_norms(self._name, x))
        found = search(queries, self._candidates, k, Rule(BY_SCORE), limits, method=method)
        return found.columns, found.scores
