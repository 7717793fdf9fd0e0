"""Rankings for reports: the ranks and metrics of `evaluate_retrieval`, and the documents found instead."""

import numpy as np
import pytest
from small_trainings import queries_and_documents

import rvtrain as rt
from rvtrain.report import rank_queries


def several(rng):
    queries, documents = (rng.normal(size=(n, 6)).astype(np.float32) for n in (20, 150))
    return queries, documents, np.stack([rng.integers(0, 20, 40), rng.integers(0, 150, 40)], axis=1)


def test_rank_queries__agrees_with_all_cosines(rng):
    queries, documents, pairs = several(rng)
    known = np.stack([np.arange(20), rng.integers(0, 150, 20)], axis=1)
    found = rank_queries(None, queries, documents, pairs, "mrr@10", known=known)
    np.testing.assert_array_equal(found.query_rows, np.unique(pairs[:, 0]))
    cosines = rt.cosine_similarity(queries, documents).astype(np.float64)
    for i, query in enumerate(found.query_rows):
        own, scores = pairs[pairs[:, 0] == query, 1], cosines[query].copy()
        best = own[np.argmax(scores[own])]
        rank = 1 + (scores > scores[best]).sum()
        assert found.ranks[i] == min(rank, 101) and found.expected[i] == best
        assert found.expected_scores[i] == pytest.approx(scores[best], abs=1e-6)
        scores[own] = scores[known[query, 1]] = -2
        assert found.found[i] == np.argmax(scores)
        assert found.found_scores[i] == pytest.approx(scores.max(), abs=1e-6)


def test_rank_queries__has_the_metrics_of_evaluate_retrieval(rng):
    queries, documents, pairs = several(rng)
    names = ["recall@1", "ndcg@120", "map@r"]
    found = rank_queries(None, queries, documents, pairs, names)
    wanted = rt.evaluate_retrieval(queries, documents, pairs=pairs, metrics=names, per_query=True)
    for name in names:
        np.testing.assert_array_equal(found.metrics[name], wanted[name][found.query_rows])
    assert found.depth == 120 and found.sizes == (20, 150)


@pytest.mark.parametrize("memory_limit", [0, 1 << 30])
def test_rank_queries__embeds_with_both_sides_of_a_model(rng, memory_limit):
    queries, documents, _, held_back = queries_and_documents(rng)
    model = rt.TwoTower(rt.LinearAdapter(8, 4), rt.MLPAdapter(8, 4))
    found = rank_queries(model, queries, documents, held_back, memory_limit=memory_limit)
    embedded = model.encode_query(queries), model.encode_document(documents)
    wanted = rank_queries(None, *embedded, held_back)
    for one, other in zip(found[:4], wanted[:4], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_rank_queries__takes_texts(rng):
    texts = [f"{word} number {i}" for i, word in enumerate(("open", "close", "read", "write"))]
    model = rt.BagEncoder(64, 8, features=rt.HashedNgrams(64).fit(texts))
    found = rank_queries(model, texts, texts, metrics="recall@1")
    np.testing.assert_array_equal(found.ranks, 1)


def test_rank_queries__of_a_corpus_without_another_document():
    found = rank_queries(None, np.eye(2, 3), np.eye(1, 3), [[0, 0]])
    assert found.found[0] == -1 and np.isnan(found.found_scores[0]) and found.ranks[0] == found.depth == 1


def test_rank_queries__refuses_what_does_not_fit():
    eye = np.eye(3)
    for message, arguments, options in (
        ("as many columns", (None, eye, np.eye(3, 4)), {}),
        ("pairs must name rows of documents", (None, eye, eye, [[0, 3]]), {}),
        ("known", (None, eye, eye), {"known": [[0, 3]]}),
        ("metrics must not be empty", (None, eye, eye), {"metrics": []}),
        ("metrics must be recall@k", (None, eye, eye), {"metrics": "recall"}),
        ("memory_limit must be", (None, eye, eye), {"memory_limit": -1}),
    ):
        with pytest.raises(ValueError, match=message):
            rank_queries(*arguments, **options)


def test_rank_queries__refuses_what_it_cannot_embed():
    for message, arguments in (
        ("must be dense arrays of numbers", (None, ["a", "b"], ["a", "b"])),
        ("got a table of embeddings", (rt.EmbeddingTable(3, 3), np.eye(3), np.eye(3))),
        ("model must", (5, np.eye(3), np.eye(3))),
    ):
        with pytest.raises(TypeError, match=message):
            rank_queries(*arguments)
