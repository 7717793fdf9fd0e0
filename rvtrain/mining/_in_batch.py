"""The batch itself as the pool."""

from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.mining._miner import HardNegativeMiner


class InBatchMiner(HardNegativeMiner):
    """Mine negatives within a batch, by the strategies of `HardNegativeMiner`.

    With positives, the pool of row i is the other rows' positives; without, it is the other anchors.

    Parameters
    ----------
    strategy, margin, temperature, seed, density, fill
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

    def mine(  # type: ignore[override]
        self, anchors: Any, k: int, *, positives: Any = None, ids: Any = None, return_scores: bool = False
    ) -> Any:
        """Choose k of the batch for each anchor.

        Parameters
        ----------
        anchors : array of shape (B, d), as in `HardNegativeMiner.mine`
        k : int
            At least 1; more than there are leaves −1.
        positives : array of shape (B, d), optional
            The pool; row i is never its own negative, and gives s⁺ for semi_hard.
        ids : integer array of shape (B,), optional
            Labels: rows with equal ids are never negatives of each other.
        return_scores : bool
            Return the cosines too.

        Returns
        -------
        indices : int64 array of shape (B, k)
            Rows of the batch; −1 where there are too few.
        scores : array of the same shape, if asked for

        Raises
        ------
        TypeError, ValueError
            As `HardNegativeMiner.mine`.
        """
        a = _converted("anchors", anchors)
        if positives is not None:
            positives = _converted("positives", positives)
            check.same_shape("positives", positives, "anchors", a.shape)
        if ids is not None:
            ids = check.integer_array("ids", ids, (len(a),))
        return super().mine(
            a,
            a if positives is None else positives,
            k,
            positives=positives,
            exclude=np.arange(len(a))[:, np.newaxis],
            anchor_ids=ids,
            candidate_ids=ids,
            return_scores=return_scores,
        )


def _converted(name: str, rows: Any) -> np.ndarray:
    x = check.stored_array(name, rows, 2)
    return check.readable(x, check.computed_dtype(name, x))
