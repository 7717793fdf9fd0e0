"""Kernels of fit_graph: the results of the losses themselves, for any number of threads; draws and walks."""

import numpy as np
import pytest

import rvtrain as rt
from rvtrain.training import _graph_task
from rvtrain.training._graph_task import GraphTask
from rvtrain.training._losses import LossCall, Weighted

LOSSES = [
    rt.LocalContrastiveLoss(1.3),
    rt.LocalContrastiveLoss(1.3, "sum"),
    rt.LocalContrastiveLoss(1.3, form="triplet"),
    rt.InfoNCELoss(0.3),
    rt.InfoNCELoss(0.3, "sum", similarity="dot"),
]


def random_edges(rng, nodes=60, count=150):
    edges = rng.integers(0, nodes, (count, 2))
    edges[:30, 0] = 7  # a hub: one source with several edges in a batch
    return edges


def task_of(loss, table, edges, negatives=5, **options):
    calls = [LossCall(loss)]
    return GraphTask(table, edges, negatives, None, calls, None, shared=False, **options), calls[0]


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("dim", [1, 7, 64])
def test_kernels__have_the_results_of_the_loss(loss, dim, dtype, rng, monkeypatch):
    table = rt.EmbeddingTable(60, dim, dtype=dtype, seed=1)
    table.weight[3] = table.weight[4]
    table.weight[5] = 0
    edges = np.concatenate([random_edges(rng), [[3, 4], [4, 4], [5, 6]]])
    task, call = task_of(loss, table, edges)
    for weight in (1.0, 0.3):
        task.rng = np.random.default_rng(3)
        found = task.gradients(np.arange(len(edges)), [Weighted(call, weight)])
        values = np.zeros_like(table.weight)
        values[found.rows["weight"]] = found.grads["weight"]
        task.rng = np.random.default_rng(3)
        monkeypatch.setattr(_graph_task, "has_kernel", lambda losses, shared: False)
        expected = task.gradients(np.arange(len(edges)), [Weighted(call, weight)])
        monkeypatch.undo()
        tolerance = 1e-12 if dtype == np.float64 else 1e-5
        assert found.value == pytest.approx(expected.value, rel=tolerance)
        wanted = np.zeros_like(table.weight)
        wanted[expected.rows["weight"]] = expected.grads["weight"]
        assert np.abs(values - wanted).max() <= tolerance * max(np.abs(wanted).max(), 1e-30)


class Foreign:
    """An optimizer of which only `step` is known."""

    def __init__(self, own):
        self.own, self.learning_rate = own, own.learning_rate

    def step(self, params, grads, rows=None):
        self.own.step(params, grads, rows=rows)


@pytest.mark.parametrize("loss", [LOSSES[0], LOSSES[2], LOSSES[3]], ids=repr)
def test_steps__are_those_of_an_optimizer_that_is_given_the_gradients(loss, rng):
    edges, tables = random_edges(rng), []
    for wrap in (lambda own: own, Foreign):
        table = rt.EmbeddingTable(60, 37, seed=1)
        optimizer = rt.Adam(table.params, 0.05)
        trainer = rt.Trainer(table, loss, wrap(optimizer), epochs=3, batch_size=40, progress=False)
        trainer.fit_graph(edges, shared_negatives=False)
        tables.append((table.weight, optimizer.state_dict()))
    np.testing.assert_array_equal(tables[0][0], tables[1][0])
    for key, value in tables[0][1].items():
        np.testing.assert_array_equal(value, tables[1][1][key])


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_loss_that_overflows__changes_no_row(nonfinite):
    table = rt.EmbeddingTable(60, 37, seed=1)
    table.weight[:] = np.where(np.arange(60) % 2, 3e38, -3e38)[:, np.newaxis]
    before, optimizer = table.weight.copy(), rt.Adam(table.params, 0.05, nonfinite=nonfinite)
    trainer = rt.Trainer(table, LOSSES[0], optimizer, epochs=1, batch_size=40, progress=False)
    if nonfinite == "raise":
        with pytest.raises(ValueError, match="the loss diverged at step 0"):
            trainer.fit_graph(np.stack([np.arange(50), np.arange(50) + 1], axis=1))
    else:
        trainer.fit_graph(np.stack([np.arange(50), np.arange(50) + 1], axis=1))
        assert optimizer.skipped == 2
    np.testing.assert_array_equal(table.weight, before)


@pytest.mark.parametrize("loss", [LOSSES[0], LOSSES[2], LOSSES[3]], ids=repr)
def test_a_drawn_node_that_is_not_finite__is_an_error(loss):
    table = rt.EmbeddingTable(3, 8, seed=1)
    table.weight[2] = np.nan
    before = table.weight.copy()
    trainer = rt.Trainer(table, loss, epochs=1, progress=False)
    with pytest.raises(ValueError, match="the loss diverged at step 0"):
        trainer.fit_graph([[0, 1]], shared_negatives=False)
    np.testing.assert_array_equal(table.weight, before)


def test_pairs_and_triplets__draw_from_a_pool_by_default(rng):
    edges = rng.integers(0, 900, (300, 2))
    for loss, least, most in ((LOSSES[0], 1, 64 + 32), (LOSSES[3], 64 + 33, 64 + 32 * 4)):
        table = rt.EmbeddingTable(900, 37, seed=1)
        before = table.weight.copy()
        options = {"epochs": 1, "batch_size": 32, "callbacks": [Stop()], "progress": False}
        trainer = rt.Trainer(table, loss, rt.Adam(table.params, 1.0), **options)
        trainer.fit_graph(edges, shared_negatives=False)
        changed = int((table.weight != before).any(axis=1).sum())
        assert least <= changed <= most


def test_a_pool_by_default__is_a_quarter_of_a_batch(rng):
    edges = rng.integers(0, 1000, (300, 2))
    table = rt.EmbeddingTable(5000, 8, seed=1)
    before = table.weight.copy()
    trainer = rt.Trainer(table, rt.LocalContrastiveLoss(100.0), epochs=1, batch_size=300, progress=False)
    trainer.fit_graph(edges)
    drawn = int((table.weight[1000:] != before[1000:]).any(axis=1).sum())
    assert 40 <= drawn <= 75


class Stop:
    """Ends the training after the first step."""

    def on_step_end(self, trainer, record):
        trainer.stop()


@pytest.mark.parametrize("loss", [LOSSES[0], LOSSES[2], LOSSES[3]], ids=repr)
def test_training__has_the_same_bits_for_any_number_of_threads(loss, rng):
    numba = pytest.importorskip("numba")
    before, found = numba.get_num_threads(), []
    edges = rng.integers(0, 3000, (6000, 2))
    try:
        for count in {1, min(2, numba.config.NUMBA_NUM_THREADS)}:
            numba.set_num_threads(count)
            table = rt.EmbeddingTable(3000, 32)
            trainer = rt.Trainer(table, loss, epochs=2, batch_size=1000, progress=False)
            trainer.fit_graph(edges, shared_negatives=False, ns_exponent=0.75)
            found.append(table.weight.tobytes())
    finally:
        numba.set_num_threads(before)
    assert found[0] == found[-1]


def test_drawn_nodes__have_no_link_to_the_source(rng):
    edges = random_edges(rng)
    linked = {(i, j) for i, j in edges.tolist()} | {(j, i) for i, j in edges.tolist()}
    task, _ = task_of(LOSSES[0], rt.EmbeddingTable(60, 4), edges, 9)
    drawn = task._draw(edges, np.random.default_rng(0))[:, 2:]
    for (i, j), row in zip(edges.tolist(), drawn.tolist(), strict=True):
        assert all(0 <= v < 60 and v not in (i, j) and (i, v) not in linked for v in row)


@pytest.mark.parametrize("exponent", [0.0, 0.75])
def test_a_pool__is_drawn_once_a_batch(exponent, rng):
    edges = random_edges(rng)
    task, _ = task_of(LOSSES[0], rt.EmbeddingTable(90, 4), edges, 9, pool=8, ns_exponent=exponent)
    drawn = task._draw(edges, np.random.default_rng(0))[:, 2:]
    other = task._draw(edges, np.random.default_rng(1))[:, 2:]
    pools = [np.unique(x[x >= 0]) for x in (drawn, other)]
    assert max(map(len, pools)) <= 8 and set(pools[0]) != set(pools[1])
    assert not (drawn == edges[:, :1]).any() and not (drawn == edges[:, 1:]).any()
    assert exponent == 0 or pools[0].max() < 60
    table = rt.EmbeddingTable(90, 8)
    trainer = rt.Trainer(table, epochs=3, batch_size=32, progress=False)
    losses = trainer.fit_graph(edges, negative_pool=4, shared_negatives=False, ns_exponent=exponent).history["loss"]
    assert losses[3] < losses[1]


def test_ns_exponent__draws_by_degree(rng):
    star = np.array([[0, i] for i in range(1, 9)] + [[10, i] for i in (11, 12)] + [[20, 21]] * 2000)
    task, _ = task_of(LOSSES[0], rt.EmbeddingTable(30, 4), star, 10, ns_exponent=0.75)
    drawn = task._draw(star[10:], np.random.default_rng(0))[:, 2:]
    degrees = np.zeros(30)
    degrees[:13] = [8, 1, 1, 1, 1, 1, 1, 1, 1, 0, 2, 1, 1]
    expected = degrees**0.75
    counts = np.bincount(drawn.ravel(), minlength=30)
    np.testing.assert_allclose(counts / counts.sum(), expected / expected.sum(), atol=0.01)


def test_walks__follow_edges_with_the_probabilities_of_node2vec():
    """From 1 reached from 0: back to 0 with 1/p, to 2, a neighbour of 0, with 1, to 3 with 1/q."""
    graph = rt.Graph([[0, 1], [1, 2], [1, 3], [0, 2]])
    for p, q in ((4.0, 0.25), (0.25, 4.0), (1.0, 1.0), (1e-6, 1.0), (1e6, 1e6)):
        walks = rt.RandomWalks(2, 2, 20_000, p, q).walk(graph, seed=1)
        from_0 = walks[(walks[:, 0] == 0) & (walks[:, 1] == 1), 2]
        found = np.bincount(from_0, minlength=4)[[0, 2, 3]] / len(from_0)
        expected = np.array([1 / p, 1.0, 1 / q])
        np.testing.assert_allclose(found, expected / expected.sum(), atol=0.015)


def test_walks__prefer_heavy_edges():
    graph = rt.Graph([[0, 1], [0, 2], [0, 3], [0, 4]], 6, np.array([1.0, 3.0, 0.0, 4.0]))
    walks = rt.RandomWalks(1, 2, 20_000).walk(graph)
    assert set(walks[:, 0].tolist()) == {0, 1, 2, 4}
    found = np.bincount(walks[walks[:, 0] == 0, 1], minlength=5) / 20_000
    np.testing.assert_allclose(found, [0, 0.125, 0.375, 0, 0.5], atol=0.015)


def test_walks__as_positives_take_every_pair_once(rng):
    ring = np.stack([np.arange(30), (np.arange(30) + 1) % 30], axis=1)
    walks = rt.RandomWalks(5, 3, 2)
    task, _ = task_of(LOSSES[0], rt.EmbeddingTable(31, 4), ring, walks=walks)
    batches = list(task.batches(np.random.default_rng(0), 17))
    assert task.samples == 60 * len(walks.offsets) == 60 * 9
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(task.samples))
    assert max(map(len, batches)) == 17
    pairs = np.concatenate([task._pairs(batch) for batch in batches])
    apart = np.abs(pairs[:, 0] - pairs[:, 1])
    assert np.minimum(apart, 30 - apart).max() == 2 and pairs.max() == 29
    table = rt.EmbeddingTable(30, 8)
    history = rt.Trainer(table, epochs=2, progress=False).fit_graph(ring, walks=walks, shared_negatives=False).history
    assert history["loss"][2] < history["loss"][1]


def test_a_run_with_walks__is_resumed_to_the_same_bits(tmp_path, rng):
    edges, ends = random_edges(rng), []
    for stops in ((4,), (2, 4)):
        table, path = rt.EmbeddingTable(60, 8), tmp_path / f"{len(stops)}.npz"
        for epochs in stops:
            trainer = rt.Trainer(
                table,
                rt.InfoNCELoss(0.2),
                rt.Adam(table.params, 0.05),
                epochs=epochs,
                checkpoint=path,
                progress=False,
            )
            walks = rt.RandomWalks(4, 3, 1, q=0.5)
            trainer.fit_graph(edges, walks=walks, ns_exponent=0.75, shared_negatives=False, resume=True)
        ends.append(table.weight.tobytes())
    assert ends[0] == ends[1]
    with pytest.raises(ValueError, match="ns_exponent"):
        trainer.fit_graph(edges, walks=walks, shared_negatives=False, resume=True)


def test_edges__of_a_sparse_matrix_are_those_of_its_entries(rng):
    sparse = pytest.importorskip("scipy.sparse")
    edges = np.unique(random_edges(rng), axis=0)
    adjacency = sparse.coo_array((np.ones(len(edges)), edges.T), shape=(60, 60))
    tables = []
    for given in (edges, adjacency, adjacency.tocsr()):
        table = rt.EmbeddingTable(60, 8)
        rt.Trainer(table, epochs=2, progress=False).fit_graph(given)
        tables.append(table.weight)
    np.testing.assert_array_equal(tables[0], tables[1])
    np.testing.assert_array_equal(tables[0], tables[2])
    with pytest.raises(ValueError, match="edges must have shape"):
        rt.Trainer(rt.EmbeddingTable(61, 8)).fit_graph(adjacency)


def test_options__are_refused_by_name():
    class Distance:
        def compute(self, anchors, positives):
            return float(((anchors - positives) ** 2).sum())

        def compute_with_gradients(self, anchors, positives, *, wrt):
            g = 2 * (anchors - positives)
            return self.compute(anchors, positives), tuple({"anchors": g, "positives": -g}[name] for name in wrt)

    trainer = rt.Trainer(rt.EmbeddingTable(3, 2), Distance(), epochs=1, progress=False)
    trainer.fit_graph([[0, 1], [1, 2]])
    with pytest.raises(ValueError, match="shared_negatives=False needs a loss that takes"):
        trainer.fit_graph([[0, 1]], shared_negatives=False)
    for options, error, message in (
        ({"walks": 5}, TypeError, "walks must be RandomWalks, got 5"),
        ({"ns_exponent": np.nan}, ValueError, "ns_exponent must be"),
        ({"shared_negatives": 1}, TypeError, "shared_negatives"),
        ({"negative_pool": 0}, ValueError, "negative_pool"),
        ({"negative_pool": "all"}, ValueError, "negative_pool must be a number of nodes, 'auto' or None, got 'all'"),
    ):
        with pytest.raises(error, match=message):
            trainer.fit_graph([[0, 1]], **options)
    with pytest.raises(ValueError, match="edges must have one between two nodes"):
        trainer.fit_graph([[1, 1]], walks=rt.RandomWalks())
    with pytest.raises(ValueError, match="context_size must be"):
        rt.RandomWalks(3, 5)
    with pytest.raises(ValueError, match=r"at most walk_length . 1.* got context_size 10 and walk_length 1$"):
        rt.RandomWalks(walk_length=1)
    assert rt.RandomWalks(walk_length=1, context_size=2).offsets.tolist() == [[0, 1]]
