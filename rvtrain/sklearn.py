"""A scikit-learn transformer; needs scikit-learn (the extra ``sklearn``)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from rvtrain import _validation as check
from rvtrain.losses import InfoNCELoss
from rvtrain.mining import HardNegativeMiner
from rvtrain.optimizers import AdamW
from rvtrain.optimizers._arrays import Floats
from rvtrain.training import LinearAdapter, MLPAdapter, Trainer
from rvtrain.training._pair_data import PairData

__all__ = ["ContrastiveAdapter"]

_MOST_HELD_BACK = 2000
_NEIGHBOURS = 3


class ContrastiveAdapter(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Map rows to embeddings in which rows of the same label, or of the same pair, have a high cosine.

    A part of the data is held back from training and scored before the first epoch and after each. The epoch with
    the best score is kept. With ``n_components=None`` the untrained map is the identity, and it is kept unless an
    epoch is better by two standard errors, which on a few hundred rows is rare.

    Parameters
    ----------
    n_components : int, optional
        Number of columns of the output; the untrained map is random. None: as many as the input has.
    kind : {"linear", "mlp"}
        `LinearAdapter` or `MLPAdapter`.
    temperature : float
        Temperature of `InfoNCELoss`.
    epochs, batch_size : int
        Number of epochs, and of rows or pairs in a batch.
    learning_rate, weight_decay : float
        Options of `AdamW`.
    validation_fraction : float
        In [0, 0.5]: the fraction held back, at most 2,000 rows or pairs. Each label gives this fraction of its rows,
        and a label of fewer than 4 rows none. If nothing is held back, the last epoch is kept.
    random_state : int, RandomState or None
        Seed of the start, the batches and the part held back.

    Attributes
    ----------
    adapter_ : LinearAdapter or MLPAdapter
    best_epoch_ : int
        The epoch that was kept; 0 is the untrained map.
    validation_scores_ : array of shape (epochs + 1,), or None
        Scores of the untrained map and of each epoch; None if nothing was held back. For labels: the accuracy of
        ``KNeighborsClassifier(3)`` fitted to the other rows. For pairs: the fraction of pairs whose second row is the
        nearest to the first by cosine, not counting the rows with which the first was trained.
    n_features_in_ : int
        Number of columns of the input.

    Notes
    -----
    A cosine is dominated by the columns with large values: put `StandardScaler` before, if columns differ in units.

    References
    ----------
    Khosla et al. (2020), Supervised Contrastive Learning, arXiv:2004.11362.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from rvtrain.sklearn import ContrastiveAdapter
    >>> X, y = load_digits(return_X_y=True)
    >>> X += np.random.default_rng(0).normal(scale=12, size=X.shape)  # without noise there is nothing to gain
    >>> plain = KNeighborsClassifier().fit(X[::2], y[::2])
    >>> model = make_pipeline(ContrastiveAdapter(), KNeighborsClassifier()).fit(X[::2], y[::2])
    >>> bool(model.score(X[1::2], y[1::2]) > 1.3 * plain.score(X[1::2], y[1::2]))
    True
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        kind: str = "linear",
        temperature: float = 0.1,
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        validation_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.n_components = n_components
        self.kind = kind
        self.temperature = temperature
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(
        self, X: ArrayLike, y: ArrayLike | None = None, *, pairs: ArrayLike | None = None
    ) -> "ContrastiveAdapter":
        """Learn from labels, or from pairs of rows.

        Parameters
        ----------
        X : array of shape (n, d)
        y : array of shape (n,), optional
            Labels of the rows.
        pairs : integer array of shape (P, 2), optional
            Pairs of rows that belong together, instead of labels.

        Returns
        -------
        ContrastiveAdapter
        """
        if (y is None) == (pairs is None):
            raise ValueError("requires y to be passed, but the target y is None; or pairs, and then no y")
        if pairs is None:
            x, target = validate_data(self, X, y, dtype=(np.float64, np.float32), ensure_min_samples=2)
            check_classification_targets(target)
        else:
            x = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
            known = PairData(x, x, pairs).pairs
        kinds = {"linear": LinearAdapter, "mlp": MLPAdapter}
        if self.kind not in kinds:
            raise ValueError(f"kind must be 'linear' or 'mlp', got {self.kind!r}")
        fraction = check.number("validation_fraction", self.validation_fraction, low=0.0, high=0.5)
        seed = int(check_random_state(self.random_state).randint(2**31))
        out = x.shape[1] if self.n_components is None else self.n_components
        adapter = kinds[self.kind](x.shape[1], out, seed=seed, dtype=x.dtype)
        rng = np.random.default_rng(seed)
        if pairs is None:
            labels = np.unique(target, return_inverse=True)[1]
            held = _some(_by_label(labels, rng), fraction)
            found = _labels_found(labels, held)
            labels[held] = len(x) + held  # labels of their own, so that nothing is learned from these rows
        else:
            held = _some(rng.permutation(len(known)), fraction)
            known, apart = np.delete(known, held, axis=0), known[held]
            found = _pairs_found(PairData(x, x, known), apart)
        best = _Best(adapter, x, found) if len(held) else None
        trainer = Trainer(
            adapter,
            InfoNCELoss(self.temperature),
            AdamW(adapter.params, self.learning_rate, self.weight_decay),
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=seed,
            callbacks=() if best is None else [best],
            progress=False,
        )
        if pairs is not None:
            trainer.fit(x, x, known)
        elif len(np.unique(labels)) < len(x):  # else no two rows belong together, and there is nothing to learn
            trainer.fit_labels(x, labels)
        self.adapter_, self.best_epoch_, self.validation_scores_ = adapter, trainer.epoch, None
        if best is not None:
            self.best_epoch_, self.validation_scores_ = best.restore()
        return self

    def transform(self, X: ArrayLike) -> Floats:
        """The embeddings of rows, not normalised.

        Parameters
        ----------
        X : array of shape (n, d)

        Returns
        -------
        array of shape (n, n_components)
        """
        check_is_fitted(self)
        x = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return np.asarray(self.adapter_.transform(x))

    @property
    def _n_features_out(self) -> int:
        return int(self.adapter_.out_features)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class _Best:
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


def _by_label(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rows of labels with at least 4 rows, label by label, in random order within each label."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    enough: np.ndarray = np.bincount(labels)[labels[order]] >= 4
    return np.asarray(order[enough])


def _some(order: np.ndarray, fraction: float) -> np.ndarray:
    """This fraction of the items, evenly spaced."""
    count = min(int(fraction * len(order)), _MOST_HELD_BACK)
    return order[np.arange(count) * len(order) // max(count, 1)]


def _labels_found(labels: np.ndarray, held: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function of embeddings: for each row held back, whether its nearest other rows vote for its label."""
    train = np.delete(np.arange(len(labels)), held)
    known, wanted = labels[train], labels[held]

    def found(embeddings: np.ndarray) -> np.ndarray:
        nearest = KNeighborsClassifier(min(_NEIGHBOURS, len(train))).fit(embeddings[train], known)
        return np.asarray(nearest.predict(embeddings[held]) == wanted)

    return found


def _pairs_found(known: PairData, held: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function of embeddings: for each pair held back, whether its second row is the nearest to its first.

    Rows that are known to belong to the first are not counted.
    """
    first, second = held.T
    excluded = np.column_stack([first, known.documents_of(first)])

    def found(embeddings: np.ndarray) -> np.ndarray:
        near = HardNegativeMiner.hardest().mine(embeddings[first], embeddings, 1, exclude=excluded)
        return np.asarray(near[:, 0] == second)

    return found
