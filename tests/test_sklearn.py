"""The scikit-learn transformer: scikit-learn's own checks, and what it is for."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import scale
from sklearn.utils.estimator_checks import check_estimator

from rvtrain.demo._data import load
from rvtrain.sklearn import ContrastiveAdapter, ContrastiveTextEncoder


@pytest.fixture(scope="module")
def noisy():
    """Digits under noise, which training can tell from what matters."""
    X, y = load_digits(return_X_y=True)
    return X + np.random.default_rng(0).normal(size=X.shape) * 12, y


@pytest.mark.parametrize("options", [{}, {"kind": "mlp", "n_components": 2}])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_check_estimator(options):
    check_estimator(
        ContrastiveAdapter(epochs=2, **options),
        expected_failed_checks={
            f"check_sample_weight_equivalence_on_{kind}_data": "rows are drawn, so equal in expectation only"
            for kind in ("dense", "sparse")
        },
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_check_estimator__of_texts():
    check_estimator(ContrastiveTextEncoder(epochs=2))


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


# --- The rest of scikit-learn's interface -----------------------------------------------------------------


def test_set_output__gives_frames_with_names(noisy):
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(noisy[0][:100, :5], columns=list("abcde"))
    adapter = ContrastiveAdapter(3, epochs=1).set_output(transform="pandas").fit(X, noisy[1][:100])
    frame = adapter.transform(X)
    assert frame.columns.tolist() == adapter.get_feature_names_out().tolist()
    assert frame.columns.tolist() == [f"contrastiveadapter{place}" for place in range(3)]
    assert adapter.feature_names_in_.tolist() == list("abcde")
    with pytest.raises(ValueError, match="feature names"):
        adapter.transform(X[list("abced")])


def test_partial_fit__goes_on_where_it_stopped(noisy):
    X, y = noisy
    adapter = ContrastiveAdapter(16)
    scores = [adapter.partial_fit(X[:900], y[:900]).score(X[900:], y[900:]) for _ in range(8)]
    assert scores[-1] > scores[0] + 0.05
    assert adapter.best_epoch_ == 8
    assert adapter.validation_scores_ is None
    weight = adapter.adapter_.params["weight"].copy()
    adapter.partial_fit(X[:1], y[:1])  # a row alone has nothing to be near to
    np.testing.assert_array_equal(adapter.adapter_.params["weight"], weight)
    adapter.partial_fit(X[:50], y[:50] + 100)  # other labels
    assert (adapter.adapter_.params["weight"] != weight).any()
    with pytest.raises(ValueError, match="has 3 features"):
        adapter.partial_fit(X[:9, :3], y[:9])
    again = ContrastiveAdapter(16).partial_fit(X[:900], y[:900])
    assert again.score(X[900:], y[900:]) == scores[0]


def test_sample_weight__leaves_out_and_prefers_rows(noisy):
    X, y = noisy[0][:400], noisy[1][:400]
    weight = np.where(np.arange(400) < 300, 2.0, 0.0)
    options = {"n_components": 8, "epochs": 2}
    some = ContrastiveAdapter(**options).fit(X, y, sample_weight=weight)
    alone = ContrastiveAdapter(**options).fit(X[:300], y[:300])
    np.testing.assert_array_equal(some.transform(X), alone.transform(X))
    equal = ContrastiveAdapter(**options).fit(X, y, sample_weight=np.full(400, 3))
    np.testing.assert_array_equal(equal.transform(X), ContrastiveAdapter(**options).fit(X, y).transform(X))
    wrong = np.random.default_rng(0).permutation(y)  # half of the rows have wrong labels, and little weight
    mixed, all_y = np.concatenate([X, X]), np.concatenate([y, wrong])
    scores = {
        small: ContrastiveAdapter(16, epochs=12, validation_fraction=0)
        .fit(mixed, all_y, sample_weight=np.repeat([1.0, small], 400))
        .score(noisy[0][400:], noisy[1][400:])
        for small in (0.02, 1.0)
    }
    assert scores[0.02] > scores[1.0] + 0.02
    pairs = np.stack([np.arange(0, 200), np.arange(200, 400)], axis=1)
    first = ContrastiveAdapter(**options).fit(X, pairs=pairs, sample_weight=np.arange(400) < 390)
    assert first.best_epoch_ <= 2
    for bad in (np.ones(3), -weight, weight * 0, weight * np.nan):
        with pytest.raises(ValueError):
            ContrastiveAdapter(epochs=1).fit(X, y, sample_weight=bad)


def test_metadata_routing__brings_weights_through_a_pipeline(noisy):
    X, y = noisy[0][:200], noisy[1][:200]
    weight = np.linspace(0.1, 1, 200)
    with config_context(enable_metadata_routing=True):
        adapter = ContrastiveAdapter(8, epochs=1).set_fit_request(sample_weight=True, pairs=False)
        routed = make_pipeline(adapter, KNeighborsClassifier()).fit(X, y, sample_weight=weight)[0]
    direct = ContrastiveAdapter(8, epochs=1).fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(routed.transform(X), direct.transform(X))


def test_score__is_the_share_of_rows_whose_nearest_agrees():
    X = np.array([[1.0, 0], [1, 0.1], [0, 1], [0.3, 1]])
    adapter = ContrastiveAdapter(epochs=1).fit(X, [0, 0, 1, 1])
    assert adapter.best_epoch_ in (0, 1)
    assert adapter.score(X, [0, 0, 1, 2]) == 0.5
    assert adapter.score(X, [0, 0, 1, 2], sample_weight=[3, 3, 1, 1]) == 0.75
    with pytest.raises(ValueError, match="score needs at least 2 rows"):
        adapter.score(X[:1], [0])


# --- Texts -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def docstrings():
    """First sentences of docstrings, and their modules."""
    pairs = load(0)
    modules = np.array([name.split(".")[0] for name in pairs.names])
    kinds, counts = np.unique(modules, return_counts=True)
    kept = np.flatnonzero(np.isin(modules, kinds[counts >= 120]))
    kept = kept[np.random.default_rng(0).permutation(len(kept))]
    return [pairs.sentences[i] for i in kept], modules[kept]


def test_text_encoder__in_a_pipeline(docstrings):
    texts, y = docstrings
    half = len(texts) // 2
    encoder = ContrastiveTextEncoder(64, n_rows=2**12, batch_size=64)
    model = make_pipeline(encoder, KNeighborsClassifier()).fit(texts[:half], y[:half])
    plain = make_pipeline(TfidfVectorizer(), KNeighborsClassifier(metric="cosine")).fit(texts[:half], y[:half])
    assert model.score(texts[half:], y[half:]) > plain.score(texts[half:], y[half:])
    assert 0 < encoder.best_epoch_ <= 6
    assert encoder.get_feature_names_out()[-1] == "contrastivetextencoder63"
    assert encoder.score(texts[half:], y[half:]) > 0.6
    lengths = np.linalg.norm(encoder.transform(["a file", "…"]), axis=1)
    np.testing.assert_allclose(lengths, [1, 0], atol=1e-6)
    again = clone(encoder).fit(np.array(texts[:half]), y[:half], sample_weight=np.ones(half))
    np.testing.assert_array_equal(again.transform(texts[:9]), encoder.transform(texts[:9]))
    weighted = clone(encoder).fit(texts[:half], y[:half], sample_weight=np.arange(half) % 3)
    assert weighted.score(texts[half:], y[half:]) > 0.5


def test_text_encoder__takes_pairs(docstrings):
    texts = docstrings[0][:300]
    halves = [" ".join(text.split()[::2]) for text in texts] + [" ".join(text.split()[1::2]) for text in texts]
    pairs = np.stack([np.arange(300), np.arange(300, 600)], axis=1)
    encoder = ContrastiveTextEncoder(32, n_rows=2**12, epochs=3, batch_size=64).fit(halves, pairs=pairs)
    assert encoder.best_epoch_ <= 3
    weights = np.arange(600) % 2
    encoder.fit(halves, pairs=pairs, sample_weight=weights + 1)


def test_text_encoder__refuses_what_is_no_text():
    encoder = ContrastiveTextEncoder(8, n_rows=64, epochs=1)
    with pytest.raises(TypeError, match="X must be a sequence of strings"):
        encoder.fit(np.arange(3), [0, 0, 1])
    with pytest.raises(TypeError, match="X must be a sequence of strings, got str"):
        encoder.fit("a text", [0])
    with pytest.raises(ValueError, match="requires y"):
        encoder.fit(["a", "b"])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        encoder.fit(["a", "b"], [0])
    with pytest.raises(ValueError, match="X must have at least 2 texts"):
        encoder.fit(["a"], [0])
    with pytest.raises(NotFittedError):
        encoder.transform(["a"])
    encoder.fit(["a b", "c d"], [0, 1])  # no two texts share a label
    assert encoder.transform([]).shape == (0, 8)


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
