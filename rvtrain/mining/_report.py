"""Reports of what a call of a miner has found and dropped."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Quartiles = tuple[float, float, float]


class MiningReport(NamedTuple):
    """What the last call of a miner has found, and how many candidates its filters have dropped.

    Many rows left short mean that filters are too strict. Negatives about as similar as the positives mean that they
    are too weak: such negatives are often unlabelled positives.

    Attributes
    ----------
    rows : int
        Number of anchors.
    negatives : int
        Number of negatives found.
    short : int
        Number of anchors with fewer negatives than asked for.
    positive_scores : (float, float, float) or None
        Quartiles (25, 50, 75 %) of s⁺, the least score of each anchor with its positives; None if no positives were
        given.
    negative_scores : (float, float, float) or None
        Quartiles of the scores of the negatives; None if there are none.
    differences : (float, float, float) or None
        Quartiles of s⁺ − s over all negatives.
    dropped : dict of str to int
        The number of candidates that each filter in use has dropped, over all anchors.

        - "max_score", "absolute_margin", "relative_margin", and "semi_hard" for its condition s < s⁺: candidates with
          a score above the lowest of these bounds, counted for the filter that sets this bound. An anchor whose
          `min_score` is above it has no count.
        - "range_min": candidates of a lower rank.

        Excluded candidates, and candidates with an id of the anchor's, are not counted. `min_score` and `range_max`
        have no count, because the search does not visit all candidates with low scores. With `rescore`, only
        rescored candidates are counted.

    References
    ----------
    Moreira et al. (2024), NV-Retriever: Improving text embedding models with effective hard-negative mining,
    arXiv:2407.15831, for filters relative to the positive.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> miner = rt.HardNegativeMiner.hardest(relative_margin=0.05)
    >>> candidates = np.array([[1.0, 0.0], [0.99, 0.14], [0.8, 0.6], [0.0, 1.0]])
    >>> miner.mine(candidates[:1], candidates, k=1, positives=[0])
    array([[2]])
    >>> miner.last_report.dropped
    {'relative_margin': 1}
    """

    rows: int
    negatives: int
    short: int
    positive_scores: Quartiles | None
    negative_scores: Quartiles | None
    differences: Quartiles | None
    dropped: dict[str, int]


class Drops:
    """Counts of the candidates that a search has dropped."""

    def __init__(self, rows: int) -> None:
        self.above = np.zeros(rows, np.int64)
        """Candidates at or above the ceiling of each anchor (B,)."""
        self.by_rank = 0
        """Candidates of a lower rank than `range_min`."""


class Outcome(NamedTuple):
    """The results of a call, from which `last_report` makes the report: `mine` takes no time for it."""

    k: int
    scores: NDArray[np.floating]
    """(B, at most k), −inf where there is no negative"""
    own: NDArray[np.float64] | None
    """(B,) scores of the positives"""
    caps: dict[str, NDArray[np.float64]]
    """The highest score that each filter lets pass, (B,)"""
    drops: Drops
    ranked: bool
    """Whether a lowest rank was asked for"""

    def report(self) -> MiningReport:
        """The report of the call."""
        found = self.scores > -np.inf
        dropped = {"range_min": self.drops.by_rank} if self.ranked else {}
        if self.caps:
            lowest = np.argmin(np.stack(list(self.caps.values())), axis=0)
            counts = np.bincount(lowest, self.drops.above, len(self.caps))
            dropped |= {name: int(count) for name, count in zip(self.caps, counts, strict=True)}
        differences = None if self.own is None else (self.own[:, np.newaxis] - self.scores)[found]
        return MiningReport(
            len(found),
            int(found.sum()),
            int((found.sum(axis=1) < self.k).sum()),
            _quartiles(self.own),
            _quartiles(self.scores[found]),
            _quartiles(differences),
            dropped,
        )


def _quartiles(values: NDArray[np.floating] | None) -> Quartiles | None:
    if values is None or not values.size:
        return None
    first, median, third = np.quantile(values.astype(np.float64), [0.25, 0.5, 0.75]).tolist()
    return first, median, third
