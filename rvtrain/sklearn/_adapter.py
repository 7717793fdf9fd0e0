"""A transformer of vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from rvtrain import _validation as check
from rvtrain.losses import InfoNCELoss
from rvtrain.optimizers import AdamW
from rvtrain.optimizers._arrays import Floats
from rvtrain.sklearn._held_back import Best, by_label, labels_found, pairs_found, some_of
from rvtrain.sklearn._labels import checked_weights, fit_labels, nearest_agree, without_zeros
from rvtrain.training import LinearAdapter, MLPAdapter, Trainer
from rvtrain.training._pair_data import PairData

_DTYPES = (np.float64, np.float32)


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
        The epoch that was kept; 0 is the untrained map. `partial_fit` adds 1.
    validation_scores_ : array of shape (epochs + 1,), or None
        Scores of the untrained map and of each epoch; None if nothing was held back. For labels: the accuracy of
        ``KNeighborsClassifier(3)`` fitted to the other rows. For pairs: the fraction of pairs whose second row is the
        nearest to the first by cosine, not counting the rows with which the first was trained.
    n_features_in_ : int
        Number of columns of the input.
    feature_names_in_ : array of str
        Names of these, where the input had such.

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
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        pairs: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> "ContrastiveAdapter":
        """Learn from labels, or from pairs of rows.

        Parameters
        ----------
        X : array of shape (n, d)
        y : array of shape (n,), optional
            Labels of the rows.
        pairs : integer array of shape (P, 2), optional
            Pairs of rows that belong together, instead of labels.
        sample_weight : array of shape (n,), optional
            ≥ 0. With labels the rows of each batch are drawn with replacement, in proportion to their weights; with
            pairs the loss of a pair has the weight of its first row. A row of weight 0 is left out of both. The rows
            held back have no weights.

        Returns
        -------
        ContrastiveAdapter
        """
        if (y is None) == (pairs is None):
            raise ValueError("requires y to be passed, but the target y is None; or pairs, and then no y")
        if pairs is None:
            x, target = validate_data(self, X, y, dtype=_DTYPES, ensure_min_samples=2)
            check_classification_targets(target)
        else:
            x = validate_data(self, X, dtype=_DTYPES, ensure_min_samples=2)
            known = PairData(x, x, pairs).pairs
        weights = checked_weights(sample_weight, x)
        if pairs is None:
            x, target, weights = without_zeros(x, target, weights)
        fraction = check.number("validation_fraction", self.validation_fraction, low=0.0, high=0.5)
        seed = self._begin(x)
        rng = np.random.default_rng(seed)
        if pairs is None:
            labels = np.unique(target, return_inverse=True)[1]
            held = some_of(by_label(labels, rng), fraction)
            found = labels_found(labels, held)
            labels[held] = len(x) + held  # labels of their own, so that nothing is learned from these rows
        else:
            if weights is not None:
                known = known[(weights[known] > 0).all(axis=1)]
            held = some_of(rng.permutation(len(known)), fraction)
            known, apart = np.delete(known, held, axis=0), known[held]
            found = pairs_found(PairData(x, x, known), apart)
        best = Best(self.adapter_, x, found) if len(held) else None
        trainer = self._trainer(self.epochs, seed, () if best is None else (best,))
        if pairs is not None:
            trainer.fit(x, x, known, sample_weight=None if weights is None else weights[known[:, 0]])
        else:
            fit_labels(trainer, x, labels, weights)
        self.best_epoch_, self.validation_scores_ = trainer.epoch, None
        if best is not None:
            self.best_epoch_, self.validation_scores_ = best.restore()
        return self

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
    ) -> "ContrastiveAdapter":
        """Go on learning from some rows and their labels: one epoch, of which nothing is held back.

        The parameters and the moments of the optimizer stay from call to call, and from a `fit` before. Each call
        contrasts the labels that are in it, which need not be those of other calls.

        Parameters
        ----------
        X : array of shape (n, d)
        y : array of shape (n,)
        sample_weight : array of shape (n,), optional
            As in `fit`.

        Returns
        -------
        ContrastiveAdapter
        """
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        first = not hasattr(self, "adapter_")
        x, target = validate_data(self, X, y, dtype=_DTYPES, reset=first)
        check_classification_targets(target)
        x, target, weights = without_zeros(x, target, checked_weights(sample_weight, x))
        if first:
            self._begin(x)
            self.best_epoch_, self.validation_scores_ = 0, None
        self._calls += 1
        seed = int(np.random.SeedSequence([self._seed, self._calls]).generate_state(1)[0])
        labels = np.unique(target, return_inverse=True)[1]
        fit_labels(self._trainer(1, seed, ()), x, labels, weights)
        self.best_epoch_ += 1
        return self

    def _begin(self, x: Any) -> int:
        """Make an untrained adapter for these rows, and its optimizer; returns the seed."""
        kinds = {"linear": LinearAdapter, "mlp": MLPAdapter}
        if self.kind not in kinds:
            raise ValueError(f"kind must be 'linear' or 'mlp', got {self.kind!r}")
        self._seed, self._calls = int(check_random_state(self.random_state).randint(2**31)), 0
        out = x.shape[1] if self.n_components is None else self.n_components
        self.adapter_ = kinds[self.kind](x.shape[1], out, seed=self._seed, dtype=x.dtype)
        self._optimizer = AdamW(self.adapter_.params, self.learning_rate, self.weight_decay)
        return self._seed

    def _trainer(self, epochs: int, seed: int, callbacks: Sequence[Any]) -> Trainer:
        return Trainer(
            self.adapter_, InfoNCELoss(self.temperature), self._optimizer, epochs=epochs, batch_size=self.batch_size,
            seed=seed, callbacks=callbacks, progress=False,
        )  # fmt: skip

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
        x = validate_data(self, X, dtype=_DTYPES, reset=False)
        return np.asarray(self.adapter_.transform(x))

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """The fraction of rows whose nearest other row, by the cosine of their embeddings, has their label.

        Parameters
        ----------
        X : array of shape (n, d)
            At least two rows.
        y : array of shape (n,)
        sample_weight : array of shape (n,), optional
            Weights of the rows in the mean.

        Returns
        -------
        float
        """
        return nearest_agree(self.transform(X), y, sample_weight)

    @property
    def _n_features_out(self) -> int:
        return int(self.adapter_.out_features)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
