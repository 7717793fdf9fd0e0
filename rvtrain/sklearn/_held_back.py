"""The part of the data that is held back from a training, and which of it each epoch finds."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from rvtrain.mining import HardNegativeMiner
from rvtrain.training._pair_data import PairData

_MOST_HELD_BACK = 2000
_NEIGHBOURS = 3


class Best:
    """Keeps the parameters of the best epoch; a callback of `Trainer`.

    `found` maps embeddings of X to booleans: which of the rows or pairs held back they find.
    """

    def __init__(self, adapter: Any, X: np.ndarray, found: Callable[[np.ndarray], np.ndarray]) -> None:
        self.adapter, self.X, self.found = adapter, X, found
        self.hits: list[np.ndarray] = []
        self()

    def __call__(self, *_: Any) -> None:
        self.hits.append(self.found(self.adapter.transform(self.X)))
        if len(self.hits) == 1 or self._is_better():
            self.epoch = len(self.hits) - 1
            self.params = {name: value.copy() for name, value in self.adapter.params.items()}

    def _is_better(self) -> bool:
        """Whether this epoch finds more than all before it, and by two standard errors more than the identity.

        Of the c rows that exactly one of two maps finds, chance would give each map half: their difference has a
        standard deviation of √c, and among many epochs one soon exceeds that. A random start has no such advantage.
        """
        untrained, now = self.hits[0], self.hits[-1]
        least = 2 * np.sqrt((now != untrained).sum()) if self.adapter.residual else 0.0
        return bool(now.sum() > self.hits[self.epoch].sum() and now.sum() > untrained.sum() + least)

    def restore(self) -> tuple[int, np.ndarray]:
        """Put the best parameters back; returns their epoch, and the scores of all epochs."""
        for name, value in self.params.items():
            self.adapter.params[name][...] = value
        return self.epoch, np.array([hits.mean() for hits in self.hits])


def by_label(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rows of labels with at least 4 rows, label by label, in random order within each label."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    enough: np.ndarray = np.bincount(labels)[labels[order]] >= 4
    return np.asarray(order[enough])


def some_of(order: np.ndarray, fraction: float) -> np.ndarray:
    """This fraction of the items, evenly spaced."""
    count = min(int(fraction * len(order)), _MOST_HELD_BACK)
    return order[np.arange(count) * len(order) // max(count, 1)]


def labels_found(labels: np.ndarray, held: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function of embeddings: for each row held back, whether its nearest other rows vote for its label."""
    train = np.delete(np.arange(len(labels)), held)
    known, wanted = labels[train], labels[held]

    def found(embeddings: np.ndarray) -> np.ndarray:
        nearest = KNeighborsClassifier(min(_NEIGHBOURS, len(train))).fit(embeddings[train], known)
        return np.asarray(nearest.predict(embeddings[held]) == wanted)

    return found


def pairs_found(known: PairData, held: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function of embeddings: for each pair held back, whether its second row is the nearest to its first.

    Rows that are known to belong to the first are not counted.
    """
    first, second = held.T
    excluded = np.column_stack([first, known.documents_of(first)])

    def found(embeddings: np.ndarray) -> np.ndarray:
        near = HardNegativeMiner.hardest().mine(embeddings[first], embeddings, 1, exclude=excluded)
        return np.asarray(near[:, 0] == second)

    return found
