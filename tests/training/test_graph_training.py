"""Training a table on a graph: batches without negatives, losses of pairs, idle rows, what is said beforehand."""

import numpy as np
import pytest

import rvtrain as rt

RING = np.stack([np.arange(30), (np.arange(30) + 1) % 30], axis=1)


def complete(n):
    return np.argwhere(np.triu(np.ones((n, n), int), 1))


def fit(loss, edges=RING, n=30, validation=None, **options):
    table = rt.EmbeddingTable(n, 8)
    options = {"optimizer": rt.Adam(table.params, 0.05), "epochs": 2, "batch_size": 8} | options
    trainer = rt.Trainer(table, loss, **options)
    return trainer.fit_graph(edges, validation=validation)


@pytest.mark.parametrize("form", ["triplet", "pairwise"])
def test_batches_without_a_valid_negative__are_no_end(form):
    edges = np.concatenate([complete(6), [[6, 0]]])  # only node 6 has strangers, and batches of one have mostly none
    history = fit(rt.LocalContrastiveLoss(1.0, form=form), edges, 7, batch_size=1, epochs=3).history
    assert len(history["loss"]) == 4 and np.isfinite(history["loss"][1:]).all()


def test_triplets_of_a_complete_graph__are_refused_at_once():
    with pytest.raises(ValueError, match="edges must leave a source without a link to some node"):
        fit(rt.LocalContrastiveLoss(1.0, form="triplet"), complete(6), 6)
    assert np.isfinite(fit(rt.LocalContrastiveLoss(), complete(6), 6).history["loss"][1:]).all()


def test_losses_of_pairs__draw_linked_nodes_together():
    table = fit(rt.InfoNCELoss(0.2), epochs=40).model.weight
    cosines = rt.cosine_similarity(table, table)
    assert cosines[RING[:, 0], RING[:, 1]].mean() > 0.6 > 0.2 > cosines.mean()


def test_losses_of_pairs__compare_a_node_with_the_others_but_not_with_itself():
    """In a star of three all nodes are known to the batch: a source's negative is the other end, never the source."""
    edges = np.array([[0, 1], [0, 2], [1, 0]])
    table = rt.EmbeddingTable(3, 4)
    cosines = rt.cosine_similarity(table.weight, table.weight) / 0.2
    trainer = rt.Trainer(table, rt.InfoNCELoss(0.2), rt.SGD(table.params, 0.0), epochs=1, batch_size=3)
    value = trainer.fit_graph(edges, negatives=1).history["loss"][1]
    terms = [[cosines[0, 1], cosines[0, 2]], [cosines[0, 2], cosines[0, 1]], [cosines[1, 0], cosines[1, 2]]]
    expected = np.mean([np.log(np.exp(term).sum()) - term[0] for term in terms])
    assert value == pytest.approx(expected, rel=1e-5)


def test_gradients_of_pairs__are_those_of_the_loss(rng):
    from rvtrain.training._graph_task import GraphTask
    from rvtrain.training._losses import LossCall, Weighted

    table = rt.EmbeddingTable(30, 4, dtype=np.float64)
    edges = rng.integers(0, 30, (25, 2))
    weights = [(rt.InfoNCELoss(0.5), 0.7), (rt.LocalContrastiveLoss(), 0.2), (rt.SpectralRegularization(), 0.1)]
    losses = [Weighted(LossCall(loss), weight) for loss, weight in [*weights, (rt.SpreadRegularization(), 0.3)]]

    def gradients():
        task = GraphTask(table, edges, 2, None, [call for call, _ in losses], lambda rows: None)
        batch = next(task.batches(np.random.default_rng(1), 20))
        return task.gradients(batch, losses)

    value, grads, _, rows = gradients()
    direction = rng.normal(size=table.weight.shape)
    table.weight[...] += 1e-6 * direction
    above = gradients().value
    table.weight[...] -= 2e-6 * direction
    below = gradients().value
    assert value == pytest.approx((above + below) / 2, rel=1e-6)
    slope = (grads["weight"] * direction[rows["weight"]]).sum()
    assert slope == pytest.approx((above - below) / 2e-6, rel=1e-5)


def test_exact_rows__are_read_as_whole_steps_would_leave_them():
    """Under lazy="exact" a training is that of whole steps whose gradient is zero outside of the batch's rows."""
    ends = []
    for whole in (False, True):
        table = rt.EmbeddingTable(30, 8)
        optimizer = rt.Adam(table.params, 0.05, lazy="exact")
        if whole:
            optimizer = Densely(rt.Adam(table.params, 0.05), (30, 8))
        trainer = rt.Trainer(table, rt.LocalContrastiveLoss(), optimizer, epochs=4, batch_size=3, metrics="recall@5")
        metric = trainer.fit_graph(RING[:-4], validation=RING[-4:]).history["recall@5"]
        ends.append((table.weight.copy(), metric))
    np.testing.assert_allclose(ends[0][0], ends[1][0], atol=1e-5)
    np.testing.assert_array_equal(ends[0][1], ends[1][1])


class Densely:
    """An optimizer that turns steps of rows into whole steps."""

    def __init__(self, optimizer, shape):
        self.optimizer, self.shape, self.learning_rate = optimizer, shape, 0.05

    def step(self, params, grads, rows=None, max_norm=None):
        dense = np.zeros(self.shape, np.float32)
        np.add.at(dense, rows["weight"], grads["weight"])
        self.optimizer.step(params, {"weight": dense})

    def state_dict(self):
        return {}


def test_validation_of_known_edges__is_refused_before_the_first_step():
    table = rt.EmbeddingTable(30, 8)
    start = table.weight.copy()
    trainer = rt.Trainer(table, epochs=2)
    for held_back, message in (
        (RING[:3], "validation must have an edge that is not among edges"),
        (RING[:3, ::-1], "validation must have an edge that is not among edges"),
        ([[4, 4]], "validation must have an edge that is not among edges"),
        ([[0, 30]], "validation must lie in"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer.fit_graph(RING, validation=held_back)
    with pytest.raises(ValueError, match="loss must take drawn nodes as negatives"):
        rt.Trainer(table, rt.InfoNCELoss(symmetric=True)).fit_graph(RING)
    with pytest.raises(ValueError, match="fit_graph takes no mining"):
        rt.Trainer(table, mining=rt.Mining(rt.HardNegativeMiner.hardest())).fit_graph(RING)
    with pytest.raises(TypeError, match="loss must take a graph or pairs"):
        rt.Trainer(table, rt.SupConLoss()).fit_graph(RING)
    np.testing.assert_array_equal(table.weight, start)


def test_default__finds_held_back_edges_of_communities(rng):
    group = np.repeat(np.arange(6), 20)
    edges = np.argwhere(np.triu(rng.random((120, 120)) < np.where(group[:, np.newaxis] == group, 0.4, 0.01), 1))
    edges = edges[rng.permutation(len(edges))]
    table = rt.EmbeddingTable(120, 16)
    trainer = rt.Trainer(table, metrics="recall@20", epochs=5)
    metric = trainer.fit_graph(edges[:-60], validation=edges[-60:]).history["recall@20"]
    assert metric.max() > 0.6
