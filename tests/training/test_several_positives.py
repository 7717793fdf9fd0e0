"""Queries with several documents, and documents of several queries, in one batch: the loss, and what is embedded."""

import numpy as np
import pytest

import rvtrain as rt
from rvtrain.training._pair_data import PairData

TAU = 0.3
PAIRS = {
    # Several documents of a query, each of this query alone.
    "one to many": [[0, 0], [0, 1], [0, 2], [1, 3], [2, 4], [2, 5], [3, 6]],
    # Several queries of a document, each of this document alone.
    "many to one": [[0, 0], [1, 0], [2, 0], [3, 1], [4, 2], [5, 2]],
    "many to many": [[0, 0], [0, 1], [0, 2], [1, 1], [1, 3], [2, 0], [3, 4], [4, 4], [4, 5]],
    "a pair twice": [[0, 0], [0, 1], [0, 1], [1, 2], [2, 3]],
}


class Map:
    """A linear map in float64 that counts the rows that pass it."""

    def __init__(self, seed):
        self.params = {"weight": np.eye(4) + np.random.default_rng(seed).normal(size=(4, 4)) / 4}
        self.rows = 0

    def forward(self, x):
        self.rows += len(x)
        return x @ self.params["weight"], x

    def backward(self, saved, grad, to_input=False):
        return {"weight": saved.T @ grad}


def softmax_loss(own, others):
    """−log of the softmax of a score among itself and others, at temperature TAU."""
    return np.log(np.exp(np.array([own, *others]) / TAU).sum()) - own / TAU


def oracle(queries, documents, pairs, symmetric, listed=None, weights=None):
    """The mean over pairs (q, p) of −log(e^s(q,p) / (e^s(q,p) + Σ e^s(q,n))), n: documents of the batch, not of q.

    Symmetric: the mean of that and the same for documents, whose negatives are the queries of the batch's pairs.
    """
    q, p = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, documents))
    of = {(a, b) for a, b in pairs}
    shared = len({a for a, _ in of}) < len(of) and len({b for _, b in of}) < len(of)
    columns = [b for _, b in pairs] if symmetric and not shared else sorted({b for _, b in pairs})
    columns += sorted({n for row in ([] if listed is None else listed) for n in row if n >= 0} - set(columns))
    rows = []
    for a, b in pairs:
        there = softmax_loss(q[a] @ p[b], [q[a] @ p[n] for n in columns if (a, n) not in of])
        back = softmax_loss(q[a] @ p[b], [q[n] @ p[b] for n, _ in pairs if (n, b) not in of])
        rows.append((there + back) / 2 if symmetric else there)
    return np.average(rows, weights=weights)


def trained(x, y, pairs, loss, **options):
    """The trainer after one step of size 1 on all pairs, and the models as they were."""
    model = rt.TwoTower(Map(1), Map(2))
    before = [side.params["weight"].copy() for side in (model.query, model.document)]
    trainer = rt.Trainer(model, loss, rt.SGD(model.params, 1.0), epochs=1, batch_size=len(pairs))
    return trainer.fit(x, y, pairs, **options), before


@pytest.mark.parametrize("name", list(PAIRS))
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("more", ["", "weights", "negatives"])
def test_fit__is_the_mean_over_pairs_against_documents_of_no_pair_of_the_query(rng, name, symmetric, more):
    """Value and gradient, by central differences of the oracle."""
    x, y, pairs = rng.normal(size=(6, 4)), rng.normal(size=(9, 4)), PAIRS[name]
    weights = rng.random(len(pairs)) if more == "weights" else None
    listed = rng.integers(-1, 9, (len(pairs), 2)) if more == "negatives" else None
    loss = rt.InfoNCELoss(TAU, symmetric=symmetric)
    trainer, (w, v) = trained(x, y, pairs, loss, sample_weight=weights, negatives=listed)

    def value(w, v):
        return oracle(x @ w, y @ v, pairs, symmetric, listed, weights)

    assert trainer.history["loss"][1] == pytest.approx(value(w, v), rel=1e-9)
    for side, start, at in (
        (trainer.model.query, w, lambda a: value(a, v)),
        (trainer.model.document, v, lambda a: value(w, a)),
    ):
        slopes = np.empty((4, 4))
        for place in np.ndindex(4, 4):
            step = np.zeros((4, 4))
            step[place] = 1e-6
            slopes[place] = (at(start + step) - at(start - step)) / 2e-6
        np.testing.assert_allclose(start - side.params["weight"], slopes, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", list(PAIRS))
@pytest.mark.parametrize("micro", [None, 2])
def test_fit__embeds_each_distinct_row_of_a_batch_once(rng, name, micro):
    pairs = np.array(PAIRS[name])
    model = rt.TwoTower(Map(1), Map(2))
    trainer = rt.Trainer(model, epochs=3, batch_size=len(pairs), micro_batch_size=micro)
    trainer.fit(rng.normal(size=(6, 4)), rng.normal(size=(9, 4)), pairs)
    passes = 1 if micro is None else 2
    assert model.document.rows == 3 * passes * len(np.unique(pairs[:, 1]))
    assert model.query.rows == 3 * passes * len(np.unique(pairs[:, 0]))


@pytest.mark.parametrize("copies", [False, True])
def test_documents_of_a_query__are_those_of_a_naive_search(rng, copies):
    pairs = np.unique(rng.integers(0, (30, 20), (150, 2)), axis=0)
    ids = np.arange(20) // (3 if copies else 1) + 5
    data = PairData(np.zeros((30, 1)), np.zeros((20, 1)), pairs, ids)
    own = [{ids[b] for a, b in pairs if a == q} for q in range(30)]
    for _ in range(3):
        queries, documents = rng.integers(0, 30, 40), rng.integers(0, 20, 25)
        bounds, columns = data.own_columns(queries, documents)
        for i, q in enumerate(queries):
            assert sorted(columns[bounds[i] : bounds[i + 1]]) == [
                j for j, b in enumerate(documents) if ids[b] in own[q]
            ]
        bounds, rows = data.own_rows(queries, documents)
        for j, b in enumerate(documents):
            assert sorted(rows[bounds[j] : bounds[j + 1]]) == [i for i, q in enumerate(queries) if ids[b] in own[q]]


class Foreign:
    """A loss of which only the methods are known, so that it is given ids."""

    def __init__(self, own):
        self.own = own

    @property
    def symmetric(self):
        return getattr(self.own, "symmetric", False)

    @symmetric.setter
    def symmetric(self, value):
        self.own.symmetric = value

    def compute(self, anchors, positives, *, negatives=None, anchor_ids=None, positive_ids=None, negative_ids=None):
        given = {"anchor_ids": anchor_ids, "positive_ids": positive_ids, "negative_ids": negative_ids}
        return self.own.compute(anchors, positives, negatives, **given)

    def compute_with_gradients(
        self, anchors, positives, *, wrt, negatives=None, anchor_ids=None, positive_ids=None, negative_ids=None
    ):
        given = {"anchor_ids": anchor_ids, "positive_ids": positive_ids, "negative_ids": negative_ids}
        return self.own.compute_with_gradients(anchors, positives, negatives, wrt=wrt, **given)


@pytest.mark.parametrize(
    "loss",
    [
        rt.InfoNCELoss(0.2),
        rt.InfoNCELoss(0.2, symmetric=True),
        rt.HardNegativeContrastiveLoss(0.5, 1.0),
        rt.DecoupledContrastiveLoss(0.5),
        rt.SigmoidLoss(),
    ],
    ids=repr,
)
def test_losses__exclude_a_query_s_documents_as_by_ids(rng, loss):
    pairs, tables = np.unique(rng.integers(0, (60, 40), (400, 2)), axis=0), []
    for given in (loss, Foreign(loss)):
        model = rt.TwoTower(rt.EmbeddingTable(60, 9, seed=1), rt.EmbeddingTable(40, 9, seed=2))
        trainer = rt.Trainer(model, given, rt.SGD(model.params, 1.0), epochs=2, batch_size=64, progress=False)
        trainer.fit(*np.ascontiguousarray(pairs.T))
        tables.append(np.concatenate(list(model.params.values())))
    np.testing.assert_array_equal(*tables)
