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


def test_evaluate_retrieval__takes_pairs_as_a_trainer_does(rng):
    queries, documents = rng.normal(size=(12, 6)), rng.normal(size=(40, 6))
    names = ["recall@5", "ndcg@10", "map@r"]
    pairs = np.column_stack([rng.integers(0, 9, 30), rng.integers(0, 40, 30)])  # of nine queries at most
    asking = np.unique(pairs[:, 0])
    lists = [pairs[pairs[:, 0] == query, 1].tolist() for query in asking]
    expected = rt.evaluate_retrieval(queries[asking], documents, lists, names)
    repeated = np.concatenate([pairs, pairs[:5]])
    for found in (
        rt.evaluate_retrieval(queries, documents, pairs, names),
        rt.evaluate_retrieval(queries, documents, pairs=repeated[::-1], metrics=names),
        rt.evaluate_retrieval(queries, documents, pairs.tolist(), names),
        rt.evaluate_retrieval(queries, iter(np.split(documents, 4)), pairs, names),
    ):
        assert found == pytest.approx(expected)
    one_each = np.column_stack([np.arange(12), rng.permutation(40)[:12]])
    expected = rt.evaluate_retrieval(queries, documents, one_each[:, 1], names)
    assert rt.evaluate_retrieval(queries, documents, one_each, names) == expected
    assert rt.evaluate_retrieval(queries, documents, pairs=one_each[::-1], metrics=names) == expected


def test_evaluate_retrieval__refuses_what_may_be_pairs_or_documents(rng):
    queries, documents = rng.normal(size=(8, 6)), rng.normal(size=(8, 6))
    either = np.column_stack([np.arange(8)[::-1], np.arange(8)])
    with pytest.raises(ValueError, match=r"qrels of shape \(8, 2\) may be pairs .* pairs= or as relevant="):
        rt.evaluate_retrieval(queries, documents, either)
    of_documents = rt.evaluate_retrieval(queries, documents, relevant=either)
    assert of_documents != rt.evaluate_retrieval(queries, documents, pairs=either)
    assert of_documents == rt.evaluate_retrieval(queries, documents, either.tolist())  # a list for each query
    # Where an index is out of range for one, it is the other.
    more, far = np.concatenate([documents, documents]), either + np.array([8, 0])
    documents_alone = rt.evaluate_retrieval(queries, more, relevant=far)
    assert rt.evaluate_retrieval(queries, more, far) == documents_alone
    padded = np.where(either == 3, -1, either)
    assert rt.evaluate_retrieval(queries, documents, padded) == rt.evaluate_retrieval(
        queries, documents, relevant=padded
    )
    few = either % [8, 3]
    assert rt.evaluate_retrieval(queries, documents[:3], few) == rt.evaluate_retrieval(
        queries, documents[:3], pairs=few
    )


@pytest.mark.parametrize(
    ("judged", "message"),
    [
        ({}, "relevant or pairs must be given, one of them, got neither"),
        ({"relevant": [0, 1], "pairs": [[0, 1]]}, "relevant or pairs must be given, .* got relevant and pairs"),
        ({"relevant": [0, 3]}, r"relevant must lie in \[-1, 2\], got 3"),
        ({"relevant": [0, -2]}, r"relevant must lie in \[-1, 2\], got -2"),
        ({"relevant": [[0], [1], [2]]}, "relevant must be a sequence of documents for each of 2 queries"),
        ({"relevant": [[0], 1]}, "relevant must be a sequence of documents for each of 2 queries"),
        ({"relevant": [[0], []]}, "relevant must name at least one document .* none in row 1"),
        ({"pairs": [[2, 0]]}, r"pairs must name rows of queries, in \[0, 1\], got 2"),
        ({"pairs": [[0, -1]]}, r"pairs must name rows of documents, in \[0, 2\], got -1"),
        ({"pairs": np.empty((0, 2), int)}, "pairs must not be empty"),
        ({"pairs": [0, 1]}, r"pairs must have shape \(any, 2\)"),
    ],
)
def test_evaluate_retrieval__names_what_is_wrong_with_what_is_relevant(judged, message):
    with pytest.raises(ValueError, match=message):
        rt.evaluate_retrieval(np.eye(3)[:2], np.eye(3), **judged)
    if "3" in message and "lie" in message:
        with pytest.raises(ValueError, match=r"relevant must name documents in \[0, 2\], got 3"):
            rt.evaluate_retrieval(np.eye(3)[:2], iter([np.eye(3)]), **judged)


def test_metrics__take_what_embeddings_are_stored_as(rng):
    queries, documents = rng.normal(size=(2, 30, 6)) * 20
    for stored in (np.float16, np.int8, ">f8"):
        q, d = queries.astype(stored), documents.astype(stored)
        wide = np.result_type(np.float32, stored)
        plain_q, plain_d = q.astype(wide), d.astype(wide)
        wanted = np.arange(30)
        assert rt.evaluate_retrieval(q, d, wanted) == rt.evaluate_retrieval(plain_q, plain_d, wanted)
        assert rt.alignment(q, d) == rt.alignment(plain_q, plain_d)
        assert rt.uniformity(q) == rt.uniformity(plain_q)


def test_metrics__of_documents_with_long_names():
    ranked, relevant = [[2**61, 5, 7], [2**61 + 1, -1, -1]], [[5, 2**61 + 1], [2**61 + 1]]
    assert rt.recall_at_k(ranked, relevant, 3) == 0.75
    assert rt.mrr_at_k(ranked, relevant, 3) == 0.75


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
    with pytest.raises(ValueError, match="ranked must not name a document twice, got 4 twice in row 1"):
        rt.recall_at_k([[0, 1, -1, -1], [4, 3, 4, 2]], [0, 4], 2)
    with pytest.raises(ValueError, match="ranked must not name a document twice"):
        rt.map_at_r([[1, 1]], [[1, 2]])
    with pytest.raises(ValueError, match="ranked must have at least R = 2"):
        rt.map_at_r([[0]], [[0, 1]])
    with pytest.raises(ValueError, match=r"metrics must be recall@k.*got 'recall'"):
        rt.evaluate_retrieval(np.eye(2), np.eye(2), [0, 1], ["recall"])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where kernels are not compiled
def test_alignment_and_uniformity__are_their_definitions(dtype, rng):
    x, y = rng.normal(size=(2, 200, 5)).astype(dtype)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x.astype(float), y.astype(float))]
    expected = (np.linalg.norm(unit[0] - unit[1], axis=1) ** 3).mean()
    assert rt.alignment(x, y, alpha=3) == pytest.approx(expected, rel=1e-12)
    for t in (0.5, 2.0):
        assert rt.uniformity(x, t) == pytest.approx(reference.uniformity(x.astype(float), t), rel=1e-9)
    assert rt.uniformity(np.ones((4, 3))) == pytest.approx(0.0, abs=1e-12)
    assert rt.uniformity(np.zeros((4, 3))) == 0.0
    x[:40] = 0
    x[40:50] *= dtype(1e-9)
    assert rt.uniformity(x) == pytest.approx(reference.uniformity(x.astype(float), 2.0), rel=1e-9)
    assert rt.alignment(np.zeros((2, 3)), np.eye(3)[:2]) == 1.0
    for size in (1e200, 1.7e308):
        a = np.array([[size, 0.0], [0.0, size]])
        assert rt.alignment(a, -a) == pytest.approx(4.0)
        assert rt.uniformity(np.concatenate([a, -a])) == pytest.approx(rt.uniformity(np.concatenate([a, -a]) / size))
    with pytest.raises(ValueError, match="y must be finite, got a NaN or an infinity in row 3"):
        rt.alignment(x, np.where(np.arange(200)[:, np.newaxis] == 3, np.nan, y))
    with pytest.raises(ValueError, match="x must have at least two rows"):
        rt.uniformity(x[:1])
    with pytest.raises(ValueError, match="y must have the shape of x"):
        rt.alignment(x, y[:3])
