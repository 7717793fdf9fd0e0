"""A scikit-learn transformer; needs scikit-learn (the extra ``sklearn``)."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from rvtrain.losses import InfoNCELoss
from rvtrain.optimizers import AdamW
from rvtrain.training import LinearAdapter, MLPAdapter, Trainer, TwoTower

__all__ = ["ContrastiveAdapter"]


class ContrastiveAdapter(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Embed rows so that those of one label, or those that are paired, come near each other by cosine.

    Parameters
    ----------
    n_components : int, optional
        Columns of the output. None: as many as of the input.
    kind : {"linear", "mlp"}
        `LinearAdapter` or `MLPAdapter`.
    temperature : float
        Of `InfoNCELoss`.
    epochs, batch_size : int
    learning_rate, weight_decay : float
        Of `AdamW`.
    random_state : int, RandomState or None

    Attributes
    ----------
    adapter_ : LinearAdapter or MLPAdapter
    n_features_in_ : int

    References
    ----------
    Khosla et al. (2020), Supervised Contrastive Learning, arXiv:2004.11362.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from rvtrain.sklearn import ContrastiveAdapter
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(ContrastiveAdapter(n_components=2), KNeighborsClassifier())
    >>> bool(model.fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.9)
    True
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        kind: str = "linear",
        temperature: float = 0.1,
        epochs: int = 20,
        batch_size: int = 256,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.01,
        random_state: Any = 0,
    ) -> None:
        self.n_components = n_components
        self.kind = kind
        self.temperature = temperature
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, *, pairs: Any = None) -> "ContrastiveAdapter":
        """Learn from labels, or from pairs of rows.

        Parameters
        ----------
        X : array of shape (n, d)
        y : array of shape (n,), optional
            Labels.
        pairs : integer array of shape (P, 2), optional
            Rows that belong together, instead of labels.

        Returns
        -------
        ContrastiveAdapter
        """
        if (y is None) == (pairs is None):
            raise ValueError("requires y to be passed, but the target y is None; or pairs, and then no y")
        if pairs is None:
            X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), ensure_min_samples=2)
            check_classification_targets(y)
        else:
            X = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        kinds = {"linear": LinearAdapter, "mlp": MLPAdapter}
        if self.kind not in kinds:
            raise ValueError(f"kind must be 'linear' or 'mlp', got {self.kind!r}")
        seed = int(check_random_state(self.random_state).randint(2**31))
        out = X.shape[1] if self.n_components is None else self.n_components
        adapter = kinds[self.kind](X.shape[1], out, seed=seed, dtype=X.dtype)
        trainer = Trainer(
            TwoTower(adapter),
            InfoNCELoss(self.temperature),
            AdamW(adapter.params, self.learning_rate, self.weight_decay),
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=seed,
        )
        if pairs is not None:
            trainer.fit(X, X, pairs)
        elif np.unique(y, return_counts=True)[1].max() > 1:  # else nothing belongs together, and all stays as it is
            trainer.fit_labels(X, y)
        self.adapter_ = adapter
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The embeddings, (n, n_components); not normalised.

        Parameters
        ----------
        X : array of shape (n, d)
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return np.asarray(self.adapter_.transform(X))

    @property
    def _n_features_out(self) -> int:
        return int(self.adapter_.out_features)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
