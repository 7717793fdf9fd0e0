"""Losses of every kind in the Trainer: labels, graded pairs, teachers, guides, weights, negatives, parameters."""

import copy

import numpy as np
import pytest
from conftest import relative_error

import rvtrain as rt
from rvtrain.training._embedding import Sides
from rvtrain.training._losses import LossCall, Weighted
from rvtrain.training._pair_data import PairData
from rvtrain.training._pair_task import PairTask, PerPair


@pytest.fixture
def data(rng):
    """Queries, documents, pairs to train on and pairs held back."""
    documents = rng.normal(size=(60, 8)).astype(np.float32)
    queries = documents[:, ::-1] + rng.normal(size=(60, 8)).astype(np.float32) / 2
    pairs = np.stack([np.arange(60)] * 2, axis=1)
    return np.ascontiguousarray(queries), documents, pairs[:40], pairs[40:]


def still(loss, *arguments, **options):
    """The loss of one batch of all pairs, by a model that does not move."""
    model = rt.TwoTower(rt.LinearAdapter(8))
    trainer = rt.Trainer(model, loss, rt.SGD(model.params, 0.0), epochs=1, batch_size=1000)
    return trainer.fit(*arguments, **options).history["loss"][1]


def test_graded_pairs__reach_the_loss(data, rng):
    queries, documents, pairs, _ = data
    scores = rng.random(40)
    for loss in (rt.CoSENTLoss(), rt.CosineSimilarityLoss()):
        expected = loss.compute(queries[:40], documents[:40], scores)
        assert still(loss, queries, documents, pairs, scores=scores) == pytest.approx(expected, rel=1e-5)
    model = rt.LinearAdapter(8)
    trainer = rt.Trainer(model, rt.CoSENTLoss(), rt.AdamW(model.params, 0.02), epochs=10, batch_size=20)
    history = trainer.fit(*data, scores=scores).history
    assert history["loss"][-1] < history["loss"][1]
    assert np.isnan(history["val_loss"]).all()  # the validation pairs have no scores


def test_teacher_scores__reach_the_loss(data, rng):
    queries, documents, pairs, _ = data
    negatives = rng.integers(40, 60, (40, 3))
    negatives[5, 2] = negatives[7, 0] = -1
    teacher = rng.normal(size=(40, 4))
    for loss in (rt.MarginMSELoss(), rt.DistillKLLoss(), rt.ListNetLoss(0.5)):
        expected = loss.compute(queries[:40], documents[:40], documents, teacher, negative_indices=negatives)
        found = still(loss, queries, documents, pairs, negatives=negatives, teacher_scores=teacher)
        assert found == pytest.approx(expected, rel=1e-5)


def test_explicit_negatives__join_the_batch(data, rng):
    queries, documents, pairs, _ = data
    negatives = np.where(rng.random((40, 3)) < 0.3, -1, rng.integers(0, 60, (40, 3)))
    pool = np.unique(np.append(pairs[:, 1], negatives[negatives >= 0]))
    loss = rt.InfoNCELoss(0.3)
    ids = {"positive_ids": pairs[:, 1], "negative_ids": pool}
    expected = loss.compute(queries[:40], documents[:40], documents[pool], **ids)
    assert still(loss, queries, documents, pairs, negatives=negatives) == pytest.approx(expected, rel=1e-5)
    rest = np.setdiff1d(pool, pairs[:, 1])
    loss = rt.InfoNCELoss(0.3, symmetric=True)
    expected = loss.compute(queries[:40], documents[:40], documents[rest])
    assert still(loss, queries, documents, pairs, negatives=negatives) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_sample_weight__is_that_of_the_pairs(data, rng, symmetric):
    queries, documents, pairs, _ = data
    weight, loss = rng.random(40), rt.InfoNCELoss(0.3, symmetric=symmetric)
    order = rng.permutation(40)
    expected = loss.compute(queries[:40], documents[:40], sample_weight=weight)
    found = still(loss, queries, documents, pairs[order], sample_weight=weight[order])
    assert found == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="sample_weight must not be negative"):
        still(loss, queries, documents, pairs, sample_weight=-weight)
    with pytest.raises(ValueError, match="sample_weight must have the shape of pairs"):
        still(loss, queries, documents, pairs, sample_weight=weight[:5])


@pytest.mark.parametrize("symmetric", [False, True])
def test_guide__is_gathered_with_the_batch(data, rng, symmetric):
    queries, documents, pairs, _ = data
    guide = rng.normal(size=(60, 3)), rng.normal(size=(60, 3))
    negatives = np.arange(40, 60).reshape(-1, 1)[np.arange(40) % 20]
    loss = rt.InfoNCELoss(0.3, symmetric=symmetric, false_negative_margin=0.1)
    rows = slice(0, 40), slice(0, 40), slice(40, 60) if symmetric else slice(0, 60)
    ids = {} if symmetric else {"positive_ids": np.arange(40), "negative_ids": np.arange(60)}
    parts = [x[part].astype(np.float32) for x, part in zip((guide[0], guide[1], guide[1]), rows, strict=True)]
    expected = loss.compute(queries[:40], documents[:40], documents[rows[2]], guide=tuple(parts), **ids)
    found = still(loss, queries, documents, pairs, negatives=negatives, guide=guide)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found != pytest.approx(still(loss, queries, documents, pairs, negatives=negatives), rel=1e-5)
    with pytest.raises(ValueError, match="guide queries must have 60 rows"):
        still(loss, queries, documents, pairs, guide=(guide[0][:5], guide[1]))


def test_regularization_of_embeddings__counts_beside_another_loss(data):
    queries, documents, pairs, _ = data
    loss, spread = rt.InfoNCELoss(0.3), rt.SpreadRegularization()
    expected = loss.compute(queries[:40], documents[:40]) + 0.5 * (
        spread.compute(queries[:40]) + spread.compute(documents[:40])
    )
    assert still([loss, (spread, 0.5)], queries, documents, pairs) == pytest.approx(expected, rel=1e-5)


def test_nested_symmetric_loss__is_one_way_inside_too(rng):
    """Where documents are shared by queries with several, a symmetric loss is two calls, a loss around it as well."""
    queries, documents = rng.normal(size=(3, 8)), rng.normal(size=(4, 8))
    pairs = [[0, 0], [0, 1], [1, 1], [2, 2]]
    symmetric = rt.InfoNCELoss(0.5, symmetric=True)
    values = [still(loss, queries, documents, pairs) for loss in (symmetric, rt.MatryoshkaLoss(symmetric, [8]))]
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert symmetric.symmetric


def test_gradients_that_are_one_array__are_added_apart(data):
    class Mean:
        """A loss whose gradients to both sides are one array."""

        def compute(self, anchors, positives):
            return float((anchors + positives).mean())

        def compute_with_gradients(self, anchors, positives, *, wrt):
            one = np.full_like(anchors, 1 / anchors.size)
            return self.compute(anchors, positives), tuple(one for _ in wrt)

    ends = []
    for losses in ([Mean(), rt.InfoNCELoss(0.5)], [rt.InfoNCELoss(0.5), Mean()]):
        model = rt.TwoTower(rt.LinearAdapter(8), rt.LinearAdapter(8))
        rt.Trainer(model, losses, rt.SGD(model.params, 0.1), epochs=1, batch_size=16).fit(*data[:3])
        ends.append(model.params)
    for name, value in ends[0].items():
        assert relative_error(value, ends[1][name]) < 1e-5


def test_validation_without_metrics__needs_a_loss_that_it_has(data, rng):
    trainer = rt.Trainer(rt.LinearAdapter(8), rt.CoSENTLoss(), metrics=())
    with pytest.raises(ValueError, match="metrics must not be empty"):
        trainer.fit(*data, scores=rng.random(40))


def losses_with_gradients():
    symmetric = rt.InfoNCELoss(0.5, symmetric=True)
    return {
        "pool": [rt.InfoNCELoss(0.5)],
        "symmetric": [symmetric],
        "directions": [rt.InfoNCELoss(0.5, directions=("query_to_document", "query_to_query"))],
        "nested": [rt.MatryoshkaLoss(symmetric, [3, 6])],
        "sigmoid": [rt.SigmoidLoss()],
        "teacher": [rt.MarginMSELoss()],
        "graded": [rt.CoSENTLoss()],
        "sum": [rt.InfoNCELoss(0.5), rt.SpreadRegularization(), rt.CosineSimilarityLoss(), rt.DistillKLLoss()],
    }


@pytest.mark.parametrize("name", list(losses_with_gradients()))
@pytest.mark.parametrize("several", [False, True])
def test_gradients__are_slopes_of_the_value(rng, name, several):
    """Of every kind of loss, with documents that come twice in a batch, and queries with several documents."""
    queries, documents = rng.normal(size=(9, 6)), rng.normal(size=(12, 6))
    pairs = np.array([[0, 0], [0, 1], [1, 1], [2, 2], [3, 2], [4, 5]]) if several else np.stack([np.arange(6)] * 2, 1)
    data = PairData(queries, documents, pairs)
    extra = PerPair(
        data, scores=rng.random(6), teacher_scores=rng.normal(size=(6, 3)), negatives=rng.integers(-1, 12, (6, 2))
    )
    model = rt.TwoTower(rt.LinearAdapter(6, dtype=np.float64), rt.LinearAdapter(6, dtype=np.float64))
    for frozen in (False, True):
        used = rt.TwoTower(rt.LinearAdapter(6, dtype=np.float64), "frozen") if frozen else model
        task = PairTask(Sides(used), data, None, 1 << 30, None, extra)
        losses = [Weighted(LossCall(loss), 0.7) for loss in losses_with_gradients()[name]]
        value, grads, *_ = task.gradients(np.arange(6), losses)
        batch = task._batch(data, np.arange(6), extra, None)[0]
        from rvtrain.training._pair_losses import evaluate

        assert evaluate(batch, losses, None)[0] == pytest.approx(value, rel=1e-9)  # compute and gradients agree
        for key, array in used.params.items():
            direction = rng.normal(size=array.shape)
            array += 1e-5 * direction
            above = task.gradients(np.arange(6), losses).value
            array -= 2e-5 * direction
            below = task.gradients(np.arange(6), losses).value
            array += 1e-5 * direction
            slope = (above - below) / 2e-5
            assert (grads[key] * direction).sum() == pytest.approx(slope, rel=1e-5, abs=1e-8)


# --- Labels ----------------------------------------------------------------------------------------------------


@pytest.fixture
def labelled(rng):
    y = rng.permutation(np.repeat(list("abcd"), 50))
    x = rng.normal(size=(200, 30)).astype(np.float32)
    x[:, :4] += 3 * (y[:, np.newaxis] == np.array(list("abcd")))
    return x, y


@pytest.mark.parametrize(
    "loss", [rt.SupConLoss(), rt.MultiSimilarityLoss(), rt.MatryoshkaLoss(rt.SupConLoss(), [4, 8])]
)
def test_losses_of_labels__gather_what_is_alike(labelled, loss):
    x, y = labelled
    model = rt.LinearAdapter(30, 8)
    trainer = rt.Trainer(model, loss, rt.AdamW(model.params, 0.01), metrics="map@r", epochs=20, batch_size=64)
    history = trainer.fit_labels(x[:150], y[:150], (x[150:], y[150:])).history
    assert history["map@r"].max() > 0.55 > 0.35 > history["map@r"][0]
    assert history["val_loss"].min() < history["val_loss"][0]


def test_losses_of_labels__are_given_the_batch(labelled):
    x, y = labelled
    numbers = np.unique(y, return_inverse=True)[1]
    model = rt.LinearAdapter(30)
    for sampler in (None, rt.MPerClass(7)):
        trainer = rt.Trainer(model, rt.SupConLoss(), rt.SGD(model.params, 0.0), epochs=1, batch_size=200)
        value = trainer.fit_labels(x, y, sampler=sampler).history["loss"][1]
        assert value == pytest.approx(rt.SupConLoss().compute(x, numbers), rel=1e-5)
    with pytest.raises(ValueError, match="SupConLoss needs a model with one side"):
        rt.Trainer(rt.TwoTower(rt.LinearAdapter(30), rt.LinearAdapter(30)), rt.SupConLoss()).fit_labels(x, y)
    with pytest.raises(TypeError, match="sampler must have a method 'batches'"):
        rt.Trainer(model, rt.SupConLoss()).fit_labels(x, y, sampler=4)


def test_m_per_class__gives_each_row_once_and_company(rng):
    labels = rng.integers(0, 9, 100)
    labels[:3] = [50, 51, 51]
    for m, size in ((2, 10), (4, 16), (5, 5)):
        batches = list(rt.MPerClass(m).batches(labels, size, rng))
        assert sorted(np.concatenate(batches)) == list(range(100))
        for rows in batches:
            assert len(rows) <= size
            counts = np.unique(labels[rows], return_counts=True)[1]
            alone = labels[rows][np.isin(labels[rows], np.unique(labels[rows])[counts == 1])]
            assert set(alone) <= {50}
    with pytest.raises(ValueError, match="batch_size must be at least 4"):
        next(rt.MPerClass(4).batches(labels, 3, rng))
    with pytest.raises(ValueError, match="m must be at least 2"):
        rt.MPerClass(1)


# --- Parameters of losses ------------------------------------------------------------------------------------------


def learning_losses():
    return [rt.InfoNCELoss(0.5, learn_temperature=True), rt.SigmoidLoss(learn=True)]


@pytest.mark.parametrize("which", [0, 1])
def test_learned_parameters__are_trained_and_resumed(data, tmp_path, which):
    def trainer_of(epochs, path=None):
        model = rt.LinearAdapter(8)
        return rt.Trainer(
            model, learning_losses()[which], rt.AdamW(model.params, 0.05), epochs=epochs, batch_size=16,
            checkpoint=path, loss_learning_rate=0.05,
        )  # fmt: skip

    whole = trainer_of(6).fit(*data)
    learned = LossCall(whole.losses[0][0]).learnable
    before, after = learning_losses()[which], whole.losses[0][0]
    assert all(getattr(before, name) != getattr(after, name) for name in learned)
    trainer_of(2, tmp_path / "run.npz").fit(*data)
    resumed = trainer_of(6, tmp_path / "run.npz").fit(*data, resume=True)
    for name in learned:
        assert getattr(resumed.losses[0][0], name) == getattr(after, name)
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])
    np.testing.assert_array_equal(resumed.model.params["weight"], whole.model.params["weight"])


def test_learned_temperature__is_that_of_the_best_epoch_and_bounded(data):
    model = rt.LinearAdapter(8)
    loss = rt.InfoNCELoss(0.05, learn_temperature=True)
    trainer = rt.Trainer(model, loss, rt.AdamW(model.params, 0.05), epochs=20, batch_size=16, loss_learning_rate=0.3)
    history = trainer.fit(data[1], data[1], *data[2:]).history  # all pairs are equal vectors: the colder the better
    assert history["temperature"].min() == pytest.approx(0.01)
    assert trainer.best_epoch == 0 and loss.temperature == pytest.approx(0.05)


def test_learned_temperature__descends_the_loss(data):
    """A step of the temperature's logarithm alone is a step of Adam: of the learning rate, down the slope."""
    model = rt.LinearAdapter(8)
    loss = rt.InfoNCELoss(0.3, learn_temperature=True)
    before = copy.copy(loss)
    trainer = rt.Trainer(model, loss, rt.SGD(model.params, 0.0), epochs=1, batch_size=40, loss_learning_rate=0.02)
    trainer.fit(*data[:3])
    assert abs(np.log(loss.temperature / 0.3)) == pytest.approx(0.02, rel=1e-4)
    queries, documents = data[0][:40], data[1][:40]
    assert loss.compute(queries, documents) < before.compute(queries, documents)


@pytest.mark.parametrize("part", ["curriculum", "annealing"])
def test_learned_temperature__beside_a_schedule_is_refused(data, part):
    parts = {
        "curriculum": rt.CurriculumScheduler([rt.CurriculumStage("a", 10, 0.1, 1)]),
        "annealing": rt.TemperatureAnnealing(),
    }
    trainer = rt.Trainer(rt.LinearAdapter(8), rt.InfoNCELoss(learn_temperature=True), **{part: parts[part]})
    with pytest.raises(ValueError, match=f"{part} sets the temperature, which a loss is to learn"):
        trainer.fit(*data)


# --- Inputs --------------------------------------------------------------------------------------------------------


class Frame:
    """What a data frame is to NumPy."""

    def __init__(self, x):
        self.x = x

    def __array__(self, dtype=None, copy=None):
        return self.x if dtype is None else self.x.astype(dtype)


def forms(name):
    """A function from an array to what another package would hold it in."""
    if name == "torch":
        torch = pytest.importorskip("torch")
        return lambda x: torch.from_numpy(np.array(x)).requires_grad_(x.dtype.kind == "f")
    if name == "bfloat16":
        torch = pytest.importorskip("torch")
        return lambda x: torch.from_numpy(np.array(x)).to(torch.bfloat16 if x.dtype.kind == "f" else torch.int64)
    if name in ("pandas", "polars"):
        module = pytest.importorskip(name)
        return lambda x: module.DataFrame({f"column {i}": x[:, i] for i in range(x.shape[1])})
    return {
        "list": lambda x: x.tolist(),
        "frame": Frame,
        "fortran": np.asfortranarray,
        "strided": lambda x: np.repeat(x, 2, 1)[:, ::2],
    }[name]


@pytest.mark.parametrize("name", ["list", "frame", "fortran", "strided", "torch", "bfloat16", "pandas", "polars"])
def test_inputs__are_taken_as_others_hold_them(data, name):
    form = forms(name)
    arrays = [np.round(4 * x) / 4 if x.dtype.kind == "f" else x for x in data]  # bfloat16 holds these
    ends = []
    for given in (arrays, [form(x) for x in arrays]):
        model = rt.TwoTower(rt.LinearAdapter(8), rt.LinearAdapter(8))
        mining = rt.Mining(rt.HardNegativeMiner.hardest())
        trainer = rt.Trainer(model, optimizer=rt.AdamW(model.params, 0.05), mining=mining, epochs=2, batch_size=16)
        ends.append(trainer.fit(*given))
    for key, value in ends[0].model.params.items():
        assert relative_error(ends[1].model.params[key], value) < 1e-6
    assert ends[0].history["recall@10"].tolist() == ends[1].history["recall@10"].tolist()


def test_inputs__of_labels_may_be_of_any_kind(labelled):
    x, y = labelled
    ends = []
    for table, labels in ((x, y), (x.astype(np.float64).tolist(), y.astype(object)), (np.asfortranarray(x), list(y))):
        model = rt.LinearAdapter(30, 4)
        rt.Trainer(model, rt.SupConLoss(), epochs=2, batch_size=50).fit_labels(table, labels, (table, labels))
        ends.append(model.params["weight"])
    for end in ends[1:]:
        assert relative_error(end, ends[0]) < 1e-6


def test_pairs__may_be_left_out(data):
    queries, documents, _, _ = data
    ends = []
    for pairs in (None, np.stack([np.arange(60)] * 2, axis=1)):
        model = rt.LinearAdapter(8)
        rt.Trainer(model, epochs=2, batch_size=16).fit(queries, documents, pairs, (queries[:9], documents[:9]))
        ends.append(model.params["weight"])
    np.testing.assert_array_equal(*ends)
