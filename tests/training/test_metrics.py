"""Metrics against their definitions, query by query, and against scikit-learn."""

import numpy as np
import pytest
import reference

import rvtrain as rt

FUNCTIONS = {"recall": rt.recall_at_k, "precision": rt.precision_at_k, "mrr": rt.mrr_at_k, "ndcg": rt.ndcg_at_k}


@pytest.fixture
def case(rng):
    """Rankings of 50 documents for 30 queries, and one to five relevant ones each."""
    ranked = np.array([rng.permutation(50)[:20] for _ in range(30)])
    relevant = [rng.permutation(50)[: rng.integers(1, 6)].tolist() for _ in range(30)]
    return ranked, relevant


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize("k", [1, 3, 20])
def test_metric__is_its_definition(kind, k, case):
    ranked, relevant = case
    each = [reference.retrieval_metric(kind, k, list(r), w) for r, w in zip(ranked, relevant, strict=True)]
    assert FUNCTIONS[kind](ranked, relevant, k) == pytest.approx(np.mean(each), abs=1e-12)


def test_map_at_r__is_its_definition(case):
    ranked, relevant = case
    each = [reference.retrieval_metric("map", 0, list(r), w) for r, w in zip(ranked, relevant, strict=True)]
    assert rt.map_at_r(ranked, relevant) == pytest.approx(np.mean(each), abs=1e-12)


def test_relevant__may_be_one_each_or_padded_or_repeated():
    ranked = np.array([[0, 1, 2], [2, 1, -1]])
    assert rt.recall_at_k(ranked, [1, 0], 2) == 0.5
    assert rt.recall_at_k(ranked, [[1, -1], [0, 1]], 2) == 0.75
    assert rt.recall_at_k(ranked, [[1, 1, 1], [0, 0, 1]], 2) == 0.75
    assert rt.precision_at_k(ranked, [[1], [0, 1]], 3) == pytest.approx(1 / 3)


def test_evaluate_retrieval__is_the_naive_ranking(dtype, rng):
    queries, documents = rng.normal(size=(40, 8)).astype(dtype), rng.normal(size=(300, 8)).astype(dtype)
    documents[100:200] = documents[:100]  # ties: the lower index first
    relevant = [rng.permutation(300)[: rng.integers(1, 30)].tolist() for _ in range(40)]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries.astype(float), documents.astype(float))]
    order = np.argsort(-(unit[0] @ unit[1].T).round(12), axis=1, kind="stable")
    names = ["recall@5", "precision@7", "mrr@10", "ndcg@10", "map@r"]
    found = rt.evaluate_retrieval(queries, documents, relevant, names)
    blocks = rt.evaluate_retrieval(queries, (documents[i : i + 64] for i in range(0, 300, 64)), relevant, names)
    assert found == blocks
    for name in names:
        kind, k = name.split("@")
        k = 0 if k == "r" else int(k)
        each = [reference.retrieval_metric(kind, k, list(o), w) for o, w in zip(order, relevant, strict=True)]
        assert found[name] == pytest.approx(np.mean(each), abs=1e-12), name


def test_ndcg__is_that_of_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    queries, documents = rng.normal(size=(20, 8)), rng.normal(size=(60, 8))
    relevant = rng.random((20, 60)) < 0.1
    relevant[:, 0] = True
    ours = rt.evaluate_retrieval(queries, documents, [np.flatnonzero(r).tolist() for r in relevant], ["ndcg@10"])
    scores = rt.cosine_similarity(queries, documents)
    assert ours["ndcg@10"] == pytest.approx(metrics.ndcg_score(relevant, scores, k=10), abs=1e-12)


def test_evaluate_retrieval__of_fewer_documents_than_ranks():
    found = rt.evaluate_retrieval(np.eye(2), np.eye(2), [0, 0], ["recall@10", "precision@10", "map@r"])
    assert found == {"recall@10": 1.0, "precision@10": 0.1, "map@r": 0.5}


def test_metrics__name_what_is_wrong():
    with pytest.raises(
        ValueError, match="relevant must name at least one document for each query, got none in row 1"
    ):
        rt.recall_at_k([[0], [1]], [[0], [-1]], 1)
    with pytest.raises(ValueError, match="ranked must have at least k = 3"):
        rt.recall_at_k([[0, 1]], [0], 3)
    with pytest.raises(ValueError, match="ranked must have at least R = 2"):
        rt.map_at_r([[0]], [[0, 1]])
    with pytest.raises(ValueError, match=r"metrics must be recall@k.*got 'recall'"):
        rt.evaluate_retrieval(np.eye(2), np.eye(2), [0, 1], ["recall"])


def test_alignment_and_uniformity__are_their_definitions(dtype, rng):
    x, y = rng.normal(size=(2, 600, 5)).astype(dtype)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x.astype(float), y.astype(float))]
    expected = (np.linalg.norm(unit[0] - unit[1], axis=1) ** 3).mean()
    assert rt.alignment(x, y, alpha=3) == pytest.approx(expected, rel=1e-12)
    for t in (0.5, 2.0):
        assert rt.uniformity(x, t) == pytest.approx(reference.uniformity(x.astype(float), t), rel=1e-9)
    assert rt.uniformity(np.ones((4, 3))) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="x must have at least two rows"):
        rt.uniformity(x[:1])
    with pytest.raises(ValueError, match="y must have the shape of x"):
        rt.alignment(x, y[:3])
