"""Which rows of labelled data make a batch."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check


class MPerClass:
    """Batches in which the rows of a label come in groups, so that each row finds positives in its batch.

    Each epoch cuts the rows of every label, in random order, into groups of about equal size, at most `m`, and fills
    batches with groups in random order. Every row comes once in an epoch.

    Parameters
    ----------
    m : int
        Most rows of a group, at least 2. With 2, a label with an odd number of rows has a group of 3.

    References
    ----------
    Musgrave, Belongie & Lim (2020), PyTorch Metric Learning, arXiv:2008.09164: ``MPerClassSampler``, which instead
    repeats rows of small labels.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> labels = np.array([0, 1, 0, 1, 0, 1])
    >>> sampler = rt.MPerClass(3)
    >>> [sorted(labels[rows].tolist()) for rows in sampler.batches(labels, 3, np.random.default_rng(0))]
    [[1, 1, 1], [0, 0, 0]]
    """

    def __init__(self, m: int = 4) -> None:
        self.m = check.integer("m", m, low=2)

    def __repr__(self) -> str:
        return f"MPerClass({self.m})"

    def batches(self, labels: ArrayLike, batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """The batches of one epoch.

        Parameters
        ----------
        labels : integer array of shape (n,)
        batch_size : int
            Most rows of a batch, at least `m`, and 3.
        rng : Generator

        Yields
        ------
        rows : integer array, at most `batch_size` rows of `labels`
        """
        y = check.integer_array("labels", labels, (None,))
        size = check.integer("batch_size", batch_size, low=max(self.m, 3))
        order = rng.permutation(len(y))
        order = order[np.argsort(y[order], kind="stable")]
        counts = np.unique(y, return_counts=True)[1]
        groups: list[NDArray[np.int64]] = []
        for rows in np.split(order, np.cumsum(counts)[:-1]):
            count = -(-len(rows) // self.m)
            alone = len(rows) > 1 and len(rows) // count == 1
            groups += np.array_split(rows, count - int(alone))
        batch: list[NDArray[np.int64]] = []
        held = 0
        for place in rng.permutation(len(groups)):
            group = groups[place]
            if held + len(group) > size:
                yield np.concatenate(batch)
                batch, held = [], 0
            batch.append(group)
            held += len(group)
        yield np.concatenate(batch)
