"""Negatives from the batch itself."""

from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain.mining._miner import HardNegativeMiner
from rvtrain.mining._search import Found


class InBatchMiner(HardNegativeMiner):
    """Mine negatives within a batch, by the strategies of `HardNegativeMiner`.

    With positives, the candidates of row i are the other rows' positives; without, the other anchors.

    Parameters
    ----------
    strategy, margin, temperature, seed, density, fill, and filters
        As in `HardNegativeMiner`.

    References
    ----------
    Hermans, Beyer & Leibe (2017), In Defense of the Triplet Loss, arXiv:1703.07737.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> embeddings = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.6, 0.8]])
    >>> rt.InBatchMiner.hardest().mine(embeddings, k=1, ids=[0, 0, 1, 1]).ravel()
    array([3, 3, 1, 1])
    """

    @overload  # type: ignore[override]
    def mine(
        self,
        anchors: ArrayLike,
        k: int,
        *,
        positives: ArrayLike | None = ...,
        ids: ArrayLike | None = ...,
        return_scores: Literal[False] = ...,
    ) -> NDArray[np.int64]: ...

    @overload
    def mine(
        self,
        anchors: ArrayLike,
        k: int,
        *,
        positives: ArrayLike | None = ...,
        ids: ArrayLike | None = ...,
        return_scores: Literal[True],
    ) -> Found: ...

    def mine(
        self,
        anchors: ArrayLike,
        k: int,
        *,
        positives: ArrayLike | None = None,
        ids: ArrayLike | None = None,
        return_scores: bool = False,
    ) -> NDArray[np.int64] | Found:
        """Choose k rows of the batch for each anchor.

        Parameters
        ----------
        anchors : array of shape (B, d), as in `HardNegativeMiner.mine`
        k : int
            At least 1; where there are fewer candidates, −1 follows the last.
        positives : array of shape (B, d), optional
            The candidates. Row i is never a negative of anchor i, and gives s⁺ for semi_hard.
        ids : integer array of shape (B,), optional
            Labels: rows with equal ids are never negatives of each other.
        return_scores : bool
            Return the cosines too.

        Returns
        -------
        indices : int64 array of shape (B, k)
            Rows of the batch; −1 where there are too few.
        scores : array of the same shape, with return_scores

        Raises
        ------
        TypeError, ValueError
            As `HardNegativeMiner.mine`.
        """
        a = _converted("anchors", anchors)
        given = None if positives is None else _converted("positives", positives)
        if given is not None:
            check.same_shape("positives", given, "anchors", a.shape)
        if ids is not None:
            ids = check.integer_array("ids", ids, (len(a),))
        return super().mine(
            a,
            a if given is None else given,
            k,
            positives=given,
            exclude=np.arange(len(a))[:, np.newaxis],
            anchor_ids=ids,
            candidate_ids=ids,
            return_scores=return_scores,  # type: ignore[call-overload]
        )


def _converted(name: str, rows: ArrayLike) -> NDArray[np.floating]:
    x = check.stored_array(name, rows, 2)
    return check.readable(x, check.computed_dtype(name, x))
