"""What the estimators do with labels: training with weights, and a score."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import _check_sample_weight, check_consistent_length, column_or_1d

from rvtrain.mining import Neighbours
from rvtrain.training import Trainer


class Weighted:
    """Batches of rows drawn with replacement, in proportion to their weights: a sampler of `Trainer.fit_labels`."""

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.probabilities = weights / weights.sum()

    def batches(
        self, labels: NDArray[np.int64], batch_size: int, rng: np.random.Generator
    ) -> Iterator[NDArray[np.int64]]:
        """The batches of one epoch, as many rows as there are."""
        drawn = rng.choice(len(labels), len(labels), p=self.probabilities)
        for start in range(0, len(drawn), batch_size):
            yield drawn[start : start + batch_size]


def checked_weights(sample_weight: Any, X: Any) -> NDArray[np.float64] | None:
    """Weights of the rows as an array; None if all are equal."""
    if sample_weight is None:
        return None
    weights: NDArray[np.float64] = _check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True, allow_all_zero_weights=False
    )
    return None if (weights == weights[0]).all() else weights


def without_zeros(x: Any, labels: NDArray[Any], weights: NDArray[np.float64] | None) -> tuple[Any, Any, Any]:
    """The rows whose weight is above 0; their weights are None if they are equal."""
    if weights is None:
        return x, labels, None
    kept = np.flatnonzero(weights > 0)
    weights = weights[kept]
    return x[kept], labels[kept], None if (weights == weights[0]).all() else weights


def fit_labels(
    trainer: Trainer,
    x: Any,
    labels: NDArray[np.int64],
    weights: NDArray[np.float64] | None,
    validation: Any = None,
) -> None:
    """`Trainer.fit_labels` with weights; nothing where no two rows share a label, because nothing can be learned."""
    sampler: Any = None
    shared = np.unique(labels, return_inverse=True, return_counts=True)
    has_others = shared[2][shared[1]] > 1
    if not has_others.any():
        return
    if weights is not None:
        sampler = Weighted(weights[has_others])
    trainer.fit_labels(x, labels, validation, sampler=sampler)


def nearest_agree(embeddings: NDArray[Any], y: ArrayLike, sample_weight: Any) -> float:
    """The weighted fraction of rows whose nearest other row by cosine has their label."""
    labels = column_or_1d(y)
    check_consistent_length(embeddings, labels, sample_weight)
    if len(labels) < 2:
        raise ValueError(f"score needs at least 2 rows, got {len(labels)}")
    own = np.arange(len(labels))[:, np.newaxis]
    nearest, _ = Neighbours(embeddings, embeddings).search(1, exclude=own)
    return float(np.average(labels[nearest[:, 0]] == labels, weights=sample_weight))
