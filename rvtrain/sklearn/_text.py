"""A transformer of strings."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from rvtrain import _validation as check
from rvtrain.losses import InfoNCELoss
from rvtrain.optimizers import Adagrad
from rvtrain.optimizers._arrays import Floats
from rvtrain.sklearn._held_back import by_label, some_of
from rvtrain.sklearn._labels import checked_weights, fit_labels, nearest_agree, without_zeros
from rvtrain.text import HashedNgrams
from rvtrain.text._texts import Texts, checked_texts
from rvtrain.training import BagEncoder, Trainer
from rvtrain.training._pair_data import PairData


class ContrastiveTextEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Map strings to embeddings in which texts of the same label, or of the same pair, have a high cosine.

    A `BagEncoder` of `HashedNgrams`, trained by `InfoNCELoss` and `Adagrad`. Embeddings have length 1, so that
    Euclidean neighbours are those by cosine; a text without words is the zero vector.

    Parameters
    ----------
    n_components : int
        Number of columns of the output.
    n_rows : int
        Rows of the table that n-grams are hashed to.
    words, characters : (int, int) or None
        Least and greatest length of n-grams of words and of characters, as in `HashedNgrams`.
    split_case : bool
        Let capitals begin words, as in ``camelCase``: for names of code.
    temperature : float
        Temperature of `InfoNCELoss`.
    epochs, batch_size : int
        Number of epochs, and of texts or pairs in a batch.
    learning_rate : float
        Of `Adagrad`.
    validation_fraction : float
        In [0, 0.5]: the fraction held back, at most 2,000 texts or pairs, which selects the epoch by precision@1.
        Each label gives this fraction of its texts, and a label of fewer than 4 texts none. If nothing is held back,
        the last epoch is kept.
    random_state : int, RandomState or None
        Seed of the start, the batches and the part held back.

    Attributes
    ----------
    encoder_ : BagEncoder
    best_epoch_ : int
        The epoch that was kept; 0 is the untrained encoder.

    References
    ----------
    Khosla et al. (2020), Supervised Contrastive Learning, arXiv:2004.11362.
    Joulin et al. (2017), Bag of Tricks for Efficient Text Classification, arXiv:1607.01759.

    Examples
    --------
    >>> from rvtrain.sklearn import ContrastiveTextEncoder
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> texts = ["open files", "read files", "write files", "sort lists", "reverse lists", "join lists"]
    >>> labels = ["files"] * 3 + ["lists"] * 3
    >>> encoder = ContrastiveTextEncoder(16, n_rows=2**12, validation_fraction=0)
    >>> model = make_pipeline(encoder, KNeighborsClassifier(1)).fit(texts, labels)
    >>> model.predict(["close files", "copy lists"])
    array(['files', 'lists'], dtype='<U5')
    """

    def __init__(
        self,
        n_components: int = 256,
        *,
        n_rows: int = 2**16,
        words: tuple[int, int] | None = (1, 2),
        characters: tuple[int, int] | None = (3, 4),
        split_case: bool = False,
        temperature: float = 0.1,
        epochs: int = 6,
        batch_size: int = 256,
        learning_rate: float = 0.05,
        validation_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.n_components = n_components
        self.n_rows = n_rows
        self.words = words
        self.characters = characters
        self.split_case = split_case
        self.temperature = temperature
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(
        self,
        X: Texts,
        y: ArrayLike | None = None,
        *,
        pairs: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> "ContrastiveTextEncoder":
        """Learn from labels, or from pairs of texts.

        Parameters
        ----------
        X : list, tuple, array or Series of n strings
        y : array of shape (n,), optional
            Labels of the texts.
        pairs : integer array of shape (P, 2), optional
            Pairs of texts that belong together, instead of labels.
        sample_weight : array of shape (n,), optional
            As in `ContrastiveAdapter.fit`.

        Returns
        -------
        ContrastiveTextEncoder
        """
        if (y is None) == (pairs is None):
            raise ValueError("requires y to be passed, but the target y is None; or pairs, and then no y")
        texts = checked_texts("X", X)
        if len(texts) < 2:
            raise ValueError(f"X must have at least 2 texts, got {len(texts)}")
        weights = checked_weights(sample_weight, np.zeros((len(texts), 1)))
        fraction = check.number("validation_fraction", self.validation_fraction, low=0.0, high=0.5)
        seed = int(check_random_state(self.random_state).randint(2**31))
        rng = np.random.default_rng(seed)
        features = HashedNgrams(
            self.n_rows, words=self.words, characters=self.characters, split_case=self.split_case
        ).fit(texts)
        encoder = BagEncoder(self.n_rows, self.n_components, features=features, seed=seed)
        trainer = Trainer(
            encoder, InfoNCELoss(self.temperature), Adagrad(encoder.params, self.learning_rate), epochs=self.epochs,
            batch_size=self.batch_size, seed=seed, metrics=["precision@1"], progress=False,
        )  # fmt: skip
        bags = features.transform(texts)
        if pairs is not None:
            known = PairData(bags, bags, pairs).pairs
            if weights is not None:
                known = known[(weights[known] > 0).all(axis=1)]
            held = some_of(rng.permutation(len(known)), fraction)
            kept = np.delete(known, held, axis=0)
            apart = known[held] if len(held) else None
            weight = None if weights is None else weights[kept[:, 0]]
            trainer.fit(bags, bags, kept, apart, sample_weight=weight)
        else:
            target = column_or_1d(y, warn=True)
            check_consistent_length(texts, target)
            check_classification_targets(target)
            bags, target, weights = without_zeros(bags, target, weights)
            labels = np.unique(target, return_inverse=True)[1]
            held = some_of(by_label(labels, rng), fraction)
            if np.bincount(labels[held], minlength=1).max() < 2:
                held = held[:0]  # no two texts held back share a label: nothing to measure
            kept = np.delete(np.arange(len(labels)), held)
            validation = (bags[held], labels[held]) if len(held) else None
            some_weights = None if weights is None else weights[kept]
            fit_labels(trainer, bags[kept], labels[kept], some_weights, validation)
        self.encoder_ = encoder
        self.best_epoch_ = int(trainer.epoch if trainer.best_epoch is None else trainer.best_epoch)
        return self

    def transform(self, X: Texts) -> Floats:
        """The embeddings of texts.

        Parameters
        ----------
        X : list, tuple, array or Series of n strings

        Returns
        -------
        float32 array of shape (n, n_components)
            Of length 1, or 0.
        """
        check_is_fitted(self)
        rows = self.encoder_.transform(checked_texts("X", X))
        unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-8)
        return unit

    def score(self, X: Texts, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """The fraction of texts whose nearest other text has their label.

        Parameters
        ----------
        X : list, tuple, array or Series of n strings
            At least two.
        y : array of shape (n,)
        sample_weight : array of shape (n,), optional
            Weights of the texts in the mean.

        Returns
        -------
        float
        """
        return nearest_agree(self.transform(X), y, sample_weight)

    @property
    def _n_features_out(self) -> int:
        return int(self.encoder_.out_features)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags
