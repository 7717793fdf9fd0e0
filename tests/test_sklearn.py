"""The scikit-learn transformer: scikit-learn's own checks, and what it is for."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import scale
from sklearn.utils.estimator_checks import check_estimator

from rvtrain.sklearn import ContrastiveAdapter


@pytest.fixture(scope="module")
def noisy():
    """Digits under noise, which training can tell from what matters."""
    X, y = load_digits(return_X_y=True)
    return X + np.random.default_rng(0).normal(size=X.shape) * 12, y


@pytest.mark.parametrize("options", [{}, {"kind": "mlp", "n_components": 2}])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_check_estimator(options):
    check_estimator(ContrastiveAdapter(epochs=2, **options))


def test_grid_search_over_a_pipeline__finds_a_better_space(noisy):
    X, y = noisy
    plain = KNeighborsClassifier().fit(X[:800], y[:800]).score(X[800:], y[800:])
    search = GridSearchCV(
        make_pipeline(ContrastiveAdapter(16, batch_size=256, learning_rate=0.003), KNeighborsClassifier()),
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
    adapter = ContrastiveAdapter(learning_rate=0.01, epochs=30).fit(X, pairs=pairs[:150])
    assert adapter.validation_scores_.argmax() == adapter.best_epoch_ > 0
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
    with pytest.raises(ValueError, match="pairs must name rows"):
        adapter.fit(X, pairs=pairs + 300)


# --- What is held back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [load_digits, load_breast_cancer, load_wine, "scaled wine"])
def test_fit__is_not_worse_than_the_columns_given(data):
    X, y = (load_wine if isinstance(data, str) else data)(return_X_y=True)
    X = scale(X) if isinstance(data, str) else X
    order = np.random.default_rng(0).permutation(len(X)) if data is not load_digits else np.arange(len(X))
    train, test = np.split(order, [2 * len(X) // 3])
    adapter = ContrastiveAdapter().fit(X[train], y[train])
    scores = [
        KNeighborsClassifier(3).fit(Z[train], y[train]).score(Z[test], y[test]) for Z in (X, adapter.transform(X))
    ]
    assert scores[1] > scores[0] - 0.01


def test_fit__keeps_the_untrained_map_where_training_only_harms():
    X, y = load_digits(return_X_y=True)
    adapter = ContrastiveAdapter(epochs=3, learning_rate=0.3).fit(X[:500], y[:500])
    assert adapter.best_epoch_ == 0
    assert adapter.validation_scores_.shape == (4,)
    np.testing.assert_array_equal(adapter.transform(X), X)


def test_fit__keeps_the_best_epoch(noisy):
    X, y = noisy[0][:400], noisy[1][:400]
    long = ContrastiveAdapter(8, epochs=12).fit(X, y)
    assert 0 < long.best_epoch_ < 12
    assert long.validation_scores_.argmax() == long.best_epoch_
    short = ContrastiveAdapter(8, epochs=long.best_epoch_).fit(X, y)
    np.testing.assert_array_equal(short.transform(X), long.transform(X))


def test_fit__learns_nothing_from_rows_held_back(noisy):
    X, y = noisy[0][:200].copy(), noisy[1][:200]
    options = {"epochs": 2, "validation_fraction": 0.5}
    first = ContrastiveAdapter(8, **options).fit(X, y)
    changed = 0
    for row in range(0, 200, 20):
        other = X.copy()
        other[row] = -other[row]
        again = ContrastiveAdapter(8, **options).fit(other, y)
        changed += again.adapter_.params["weight"].tobytes() != first.adapter_.params["weight"].tobytes()
    assert changed < 10


@pytest.mark.parametrize(
    ("labels", "fraction"),
    [([0, 0, 0, 1, 1, 1, 2, 2, 3, 4], 0.5), (np.repeat([0, 1], 5), 0.0), ([0] * 5 + [1] * 5, 0.1)],
)
def test_fit__with_too_little_to_hold_back_keeps_the_last_epoch(labels, fraction, rng):
    X = rng.normal(size=(10, 3))
    adapter = ContrastiveAdapter(epochs=2, validation_fraction=fraction).fit(X, labels)
    if fraction == 0.1:
        assert adapter.validation_scores_.shape == (3,)
    else:
        assert adapter.validation_scores_ is None
        assert adapter.best_epoch_ == 2


@pytest.mark.parametrize("fraction", [-0.1, 0.6, np.nan, "a tenth"])
def test_fit__refuses_a_fraction_that_is_none(fraction):
    with pytest.raises((TypeError, ValueError), match="validation_fraction must be"):
        ContrastiveAdapter(validation_fraction=fraction).fit(np.eye(8), np.arange(8) // 4)
