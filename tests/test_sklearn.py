"""The scikit-learn transformer: scikit-learn's own checks, and what it is for."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from rvtrain.sklearn import ContrastiveAdapter


@pytest.mark.parametrize("options", [{}, {"kind": "mlp", "n_components": 2}])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_check_estimator(options):
    check_estimator(ContrastiveAdapter(epochs=2, **options))


def test_grid_search_over_a_pipeline__finds_a_better_space():
    X, y = load_digits(return_X_y=True)
    X = X + np.random.default_rng(0).normal(size=X.shape) * 12
    plain = KNeighborsClassifier().fit(X[:800], y[:800]).score(X[800:], y[800:])
    search = GridSearchCV(
        make_pipeline(ContrastiveAdapter(16, learning_rate=0.003), KNeighborsClassifier()),
        {"contrastiveadapter__epochs": [1, 15], "contrastiveadapter__temperature": [0.1, 0.3]},
        cv=2,
    ).fit(X[:800], y[:800])
    assert search.best_params_["contrastiveadapter__epochs"] == 15
    assert search.score(X[800:], y[800:]) > plain
    assert search.best_estimator_[0].get_feature_names_out().tolist()[0] == "contrastiveadapter0"


def test_fit__takes_pairs_instead(rng):
    hidden = rng.normal(size=(200, 5))
    noise = rng.normal(size=(400, 20)) * np.repeat([0.3, 2.0], 10)  # all the meaning is in the first half
    X = np.concatenate([hidden, hidden]) @ rng.normal(size=(5, 20)) + noise
    pairs = np.stack([np.arange(200), np.arange(200, 400)], axis=1)
    adapter = ContrastiveAdapter(epochs=50).fit(X, pairs=pairs[:150])
    Z = adapter.transform(X)
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    near = (Z[150:200] @ Z[200:].T).argmax(axis=1)
    raw = X / np.linalg.norm(X, axis=1, keepdims=True)
    before = (raw[150:200] @ raw[200:].T).argmax(axis=1)
    assert (near == np.arange(150, 200)).mean() > 0.2 + (before == np.arange(150, 200)).mean()
    with pytest.raises(ValueError, match="requires y"):
        adapter.fit(X)
    with pytest.raises(ValueError, match="kind must be"):
        ContrastiveAdapter(kind="deep").fit(X, pairs=pairs)
