"""Graded relevance, graded pairs, values of each query, and the test between two models."""

import itertools

import numpy as np
import pytest

import rvtrain as rt
from rvtrain.mining import Neighbours


def naive_ndcg(ranking, grades, k):
    """grades: {document: grade}; gain = grade."""
    gains = [grades.get(d, 0) for d in ranking[:k]]
    best = sorted(grades.values(), reverse=True)[:k]
    dcg, ideal = (sum(g / np.log2(1 + i) for i, g in enumerate(x, 1)) for x in (gains, best))
    return dcg / ideal


@pytest.fixture
def case(rng):
    """Queries, documents, and one to six judged documents each, of which the first has a grade above 0."""
    queries, documents = rng.normal(size=(30, 8)), rng.normal(size=(80, 8))
    relevant = [rng.permutation(80)[: rng.integers(1, 7)].tolist() for _ in range(30)]
    grades = [[int(rng.integers(1, 4)), *rng.integers(0, 4, len(row) - 1).tolist()] for row in relevant]
    return queries, documents, relevant, grades


@pytest.mark.parametrize("k", [1, 3, 10, 200])
def test_ndcg__of_grades_is_its_definition(k, case):
    queries, documents, relevant, grades = case
    ranks, _ = Neighbours(queries, documents).search(80)
    each = [
        naive_ndcg(list(r), dict(zip(d, g, strict=True)), k) for r, d, g in zip(ranks, relevant, grades, strict=True)
    ]
    found = rt.evaluate_retrieval(queries, documents, relevant, [f"ndcg@{k}"], grades=grades, per_query=True)
    np.testing.assert_allclose(found[f"ndcg@{k}"], each, rtol=1e-12)
    if k <= 80:
        assert rt.ndcg_at_k(ranks, relevant, k, grades=grades) == pytest.approx(np.mean(each))
    pairs = np.array([(q, d) for q, row in enumerate(relevant) for d in row])
    flat = np.concatenate(grades)
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(len(pairs)), 2))
    by_pairs = rt.evaluate_retrieval(
        queries, documents, pairs=pairs[order], grades=flat[order], metrics=[f"ndcg@{k}"], per_query=True
    )
    np.testing.assert_allclose(by_pairs[f"ndcg@{k}"], each, rtol=1e-12)


def test_ndcg__of_grades_is_that_of_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    queries, documents = rng.normal(size=(20, 8)), rng.normal(size=(60, 8))
    grades = rng.integers(0, 4, (20, 60))
    every = np.tile(np.arange(60), (20, 1))
    ours = rt.evaluate_retrieval(queries, documents, relevant=every, grades=grades, metrics=["ndcg@10"])
    scores = rt.cosine_similarity(queries, documents)
    assert ours["ndcg@10"] == pytest.approx(metrics.ndcg_score(grades, scores, k=10), abs=1e-12)


def test_grades__above_0_are_what_other_metrics_call_relevant(case):
    queries, documents, relevant, grades = case
    kept = [[d for d, g in zip(row, of, strict=True) if g] for row, of in zip(relevant, grades, strict=True)]
    names = ["recall@5", "map@7", "map@r", "accuracy@3", "mrr@10"]
    graded = rt.evaluate_retrieval(queries, documents, relevant, names, grades=grades)
    assert graded == rt.evaluate_retrieval(queries, documents, kept, names)


@pytest.mark.parametrize(
    ("grades", "error", "message"),
    [
        ([[1.0], [2.0]], ValueError, "grades must have a grade for each document in relevant"),
        (3, ValueError, "grades must have a grade for each document in relevant"),
        ([[1.0, -1.0], [2.0]], ValueError, "grades must not be negative, got -1"),
        ([[1.0, np.nan], [2.0]], ValueError, "grades must be finite"),
        ([["a", "b"], ["c"]], TypeError, "grades must be real numbers"),
        ([[1.0, 2.0], [0.0]], ValueError, "at least one document for each query, got none in row 1"),
    ],
)
def test_grades__are_checked(grades, error, message):
    with pytest.raises(error, match=message):
        rt.ndcg_at_k([[0, 1], [1, 0]], [[0, 1], [1]], 2, grades=grades)
    with pytest.raises(error, match=message):
        rt.evaluate_retrieval(np.eye(2), np.eye(2), [[0, 1], [1]], "ndcg@2", grades=grades)


def test_grades__of_pairs_and_arrays_are_checked():
    with pytest.raises(ValueError, match=r"grades must have the shape of relevant, \(2, 2\), got \(2,\)"):
        rt.ndcg_at_k([[0, 1], [1, 0]], np.array([[0, 1], [1, -1]]), 2, grades=[1, 2])
    with pytest.raises(ValueError, match=r"grades must have the shape of the pairs, \(1,\), got \(2,\)"):
        rt.evaluate_retrieval(np.eye(2), np.eye(2), pairs=[[0, 1]], grades=[1, 2])
    with pytest.raises(ValueError, match="grades must be above 0 for a pair at least"):
        rt.evaluate_retrieval(np.eye(2), np.eye(2), pairs=[[0, 1]], grades=[0])


@pytest.mark.parametrize("k", [1, 4, 20])
def test_accuracy_and_map__are_their_definitions(k, rng):
    ranked = np.array([rng.permutation(50)[:20] for _ in range(30)])
    relevant = [rng.permutation(50)[: rng.integers(1, 6)].tolist() for _ in range(30)]
    hit, precision = [], []
    for row, good in zip(ranked.tolist(), relevant, strict=True):
        places = [i for i, d in enumerate(row[:k], 1) if d in good]
        hit.append(bool(places))
        precision.append(sum(sum(d in good for d in row[:i]) / i for i in places) / min(k, len(good)))
    assert rt.accuracy_at_k(ranked, relevant, k) == pytest.approx(np.mean(hit))
    assert rt.map_at_k(ranked, relevant, k) == pytest.approx(np.mean(precision))


def test_per_query__is_what_the_means_are_of(case, rng):
    queries, documents, relevant, _ = case
    names = ["accuracy@3", "recall@5", "precision@5", "mrr@5", "ndcg@5", "map@5", "map@r"]
    each = rt.evaluate_retrieval(queries, documents, relevant, names, per_query=True)
    assert {n: v.mean() for n, v in each.items()} == rt.evaluate_retrieval(queries, documents, relevant, names)
    assert all(v.shape == (30,) and v.dtype == np.float64 for v in each.values())
    pairs = np.array([[3, 1], [3, 4], [9, 2]])
    some = rt.evaluate_retrieval(queries, documents, pairs=pairs, metrics=names, per_query=True)
    means = rt.evaluate_retrieval(queries, documents, pairs=pairs, metrics=names)
    for name, values in some.items():
        assert np.flatnonzero(~np.isnan(values)).tolist() == [3, 9]
        assert np.nanmean(values) == means[name]
    with pytest.raises(TypeError, match="per_query must be True or False"):
        rt.evaluate_retrieval(queries, documents, relevant, per_query=1)


def test_truncate_dim__uses_the_first_dimensions(case, tmp_path):
    queries, documents, relevant, _ = case
    expected = rt.evaluate_retrieval(queries[:, :3], documents[:, :3], relevant)
    np.save(tmp_path / "documents.npy", documents)
    blocks = [documents[:30], documents[30:]]
    for given in (
        documents,
        np.load(tmp_path / "documents.npy", mmap_mode="r"),
        blocks,
        iter(blocks),
        documents.tolist(),
    ):
        assert rt.evaluate_retrieval(queries, given, relevant, truncate_dim=3) == expected
    with pytest.raises(ValueError, match=r"truncate_dim must be in \[1, 8\], got 9"):
        rt.evaluate_retrieval(queries, documents, relevant, truncate_dim=9)
    with pytest.raises(ValueError, match=r"documents must have 8 columns like queries, got shape \(80, 7\)"):
        rt.evaluate_retrieval(queries, documents[:, :7], relevant, truncate_dim=3)
    with pytest.raises(TypeError, match="documents must be an array or an iterable"):
        rt.evaluate_retrieval(queries, 3, relevant)


def test_spearman__is_that_of_scipy(rng):
    stats = pytest.importorskip("scipy.stats")
    for x, y in (
        (rng.normal(size=50), rng.normal(size=50)),
        (rng.integers(0, 5, 80), rng.integers(0, 4, 80)),
        (np.arange(2), np.array([3, 1])),
    ):
        assert rt.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert rt.spearman([1, 2, 3], [1e300, 2e300, 3e300]) == pytest.approx(1.0)
    assert np.isnan(rt.spearman([1, 1, 1], [1, 2, 3]))


def test_evaluate_pairs__are_correlations_of_cosines(dtype, rng):
    stats = pytest.importorskip("scipy.stats")
    a, b = rng.normal(size=(2, 5000, 6)).astype(dtype)
    scores = rng.integers(0, 6, 5000)
    for dim in (None, 2):
        x, y = a[:, :dim].astype(float), b[:, :dim].astype(float)
        cosines = (x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        found = rt.evaluate_pairs(a, b, scores, truncate_dim=dim)
        assert found["spearman"] == pytest.approx(stats.spearmanr(cosines, scores).statistic, abs=1e-9)
        assert found["pearson"] == pytest.approx(stats.pearsonr(cosines, scores).statistic, abs=1e-9)
    half = a.astype(np.float16)
    assert rt.evaluate_pairs(half, b, scores) == rt.evaluate_pairs(half.astype(dtype), b, scores)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.eye(2), np.eye(3), [1, 2]), "b must have the shape of a"),
        ((np.eye(2), np.eye(2), [1, 2, 3]), r"scores must have the shape of the pairs, \(2,\)"),
        ((np.eye(2), np.eye(2), [1, np.inf]), "scores must be finite"),
        ((np.eye(2)[:1], np.eye(2)[:1], [1]), "scores must have at least two values"),
        ((np.eye(2), np.full((2, 2), np.nan), [1, 2]), "b must be finite"),
    ],
)
def test_evaluate_pairs__names_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        rt.evaluate_pairs(*arguments)


def test_paired_test__counts_all_assignments_of_signs_to_few_queries(rng):
    x, y = rng.integers(0, 5, (2, 9)) / 4
    differences = x - y
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=9)]
    found = rt.paired_test(x, y)
    assert found.p_value == np.mean(np.array(sums) >= abs(differences.sum()) - 1e-9)
    assert found.difference == differences.mean() and found.queries == 9
    assert rt.paired_test(y, x).p_value == found.p_value
    assert rt.paired_test(x, x) == (0.0, 1.0, 9)


def test_paired_test__agrees_with_the_t_test_on_many_queries(rng):
    stats = pytest.importorskip("scipy.stats")
    x = rng.random(400)
    for shift in (0.0, 0.01, 0.02, 0.2):
        y = x + shift + 0.2 * rng.normal(size=400)
        found = rt.paired_test(x, y, seed=3)
        expected = stats.ttest_rel(x, y).pvalue
        assert found.p_value == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 10_000) + 2e-3)
        assert found == rt.paired_test(x, y, seed=3)
    assert found.p_value == 1 / 10_001


def test_paired_test__leaves_out_queries_without_a_value():
    x, y = np.array([1.0, np.nan, 0.5, 0.3]), np.array([0.5, 0.1, np.nan, 0.2])
    assert rt.paired_test(x, y) == rt.paired_test(x[[0, 3]], y[[0, 3]])
    with pytest.raises(ValueError, match="x and y must have a query with values of both, got none of 2"):
        rt.paired_test(x[1:3], y[1:3])
    with pytest.raises(ValueError, match="y must have the shape of x"):
        rt.paired_test(x, y[:3])
    with pytest.raises(ValueError, match="x must be finite"):
        rt.paired_test([1.0, np.inf], [1.0, 2.0])
