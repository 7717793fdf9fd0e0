"""The trainer: that it learns, that its gradients are the losses' own, and that it goes on where it stopped."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import relative_error

import rvtrain as rt
from rvtrain.training._embedding import Sides
from rvtrain.training._losses import LossCall, Weighted
from rvtrain.training._mining import MiningCall
from rvtrain.training._pair_data import PairData
from rvtrain.training._pair_task import PairTask


@pytest.fixture
def retrieval(rng):
    """Queries and documents that share a hidden part, turned differently; pairs to train on, and to hold back."""
    hidden = rng.normal(size=(400, 12))
    queries, documents = (
        (hidden @ rng.normal(size=(12, 24)) + rng.normal(size=(400, 24))).astype(np.float32) for _ in range(2)
    )
    pairs = np.stack([np.arange(400)] * 2, axis=1)
    return queries, documents, pairs[:320], pairs[320:]


def two_towers(seed=0):
    return rt.TwoTower(rt.LinearAdapter(24, 16, seed=seed), rt.LinearAdapter(24, 16, seed=seed + 1))


def task_of(model, data, limit=1 << 30, micro=None, extra=None):
    return PairTask(Sides(model), data, None, limit, micro, extra)


def weighted(*losses):
    return [Weighted(LossCall(loss), weight) for loss, weight in losses]


def trainer_of(model, **options):
    options = {"epochs": 6, "batch_size": 64, "optimizer": rt.AdamW(model.params, 0.01)} | options
    return rt.Trainer(model, **options)


def test_fit__learns_to_retrieve(retrieval):
    queries, documents, pairs, held_back = retrieval
    model = two_towers()
    before = rt.evaluate_retrieval(
        model.query.transform(queries[320:]), model.document.transform(documents), held_back[:, 1], ["recall@10"]
    )["recall@10"]
    trainer = trainer_of(model, mining=rt.Mining(rt.HardNegativeMiner.semi_hard(0.2), start=4), epochs=8)
    history = trainer.fit(queries, documents, pairs, held_back).history
    assert history["recall@10"][0] == before < 0.2 < 0.6 < history["recall@10"][-1]
    assert history["epoch"].tolist() == list(range(9))
    assert history["step"].tolist() == [5 * epoch for epoch in range(9)]
    assert history["negatives"].tolist() == [0] * 4 + [4] * 5
    assert np.isnan(history["loss"][0]) and history["loss"][1] > 2 * history["loss"][3]
    assert history["val_loss"][0] > 2 * history["val_loss"][-1]
    assert trainer.step == 8 * 5


def test_fit__keeps_the_best_epoch_and_stops_when_none_is_better(retrieval):
    queries, documents, pairs, held_back = retrieval
    model = two_towers()
    trainer = trainer_of(model, epochs=60, patience=3, optimizer=rt.AdamW(model.params, 0.05))
    metric = trainer.fit(queries, documents, pairs, (queries, documents, held_back)).history["recall@10"]
    assert len(metric) < 60
    assert len(metric) - 1 - int(np.argmax(metric)) == 3
    assert trainer.best_epoch == int(np.argmax(metric))
    now = rt.evaluate_retrieval(
        model.query.transform(queries[320:]), model.document.transform(documents), held_back[:, 1], ["recall@10"]
    )
    assert now["recall@10"] == metric.max()
    assert trainer.evaluate(queries, documents, held_back) == {"recall@10": metric.max()}


def test_gradients__are_those_of_the_losses_on_embeddings(retrieval, rng):
    queries, documents, pairs, _ = retrieval
    model = two_towers()
    task = task_of(model, PairData(queries, documents, pairs))
    task.mined = rng.integers(0, 320, (320, 3))
    batch = np.arange(40)
    losses = [(rt.InfoNCELoss(0.1), 1.0), (rt.LocalContrastiveLoss(1.0), 0.5)]
    value, grads, *_ = task.gradients(batch, weighted(*losses))

    def total():
        a, d = model.query.transform(queries), model.document.transform(documents)
        pool = np.unique(np.append(pairs[batch, 1], task.mined[batch]))
        ids = {"positive_ids": pairs[batch, 1], "negative_ids": pool}
        return sum(w * loss.compute(a[batch], d[pairs[batch, 1]], d[pool], **ids) for loss, w in losses)

    assert value == pytest.approx(total(), rel=1e-5)
    for name, array in model.params.items():
        direction = rng.normal(size=array.shape).astype(np.float32)
        start, step = array.copy(), 1e-3
        array += step * direction
        above = total()
        array[...] = start - step * direction
        below = total()
        array[...] = start
        slope = (above - below) / (2 * step)
        assert (grads[name] * direction).sum() == pytest.approx(slope, rel=0.02, abs=0.02)


@pytest.mark.parametrize("make", [rt.LinearAdapter, rt.MLPAdapter])
def test_micro_batches__give_the_gradient_of_the_whole_batch(make, retrieval):
    queries, documents, pairs, _ = retrieval
    data = PairData(queries, documents, pairs)
    model = rt.TwoTower(make(24, 16))
    results = [
        task_of(model, data, micro=micro).gradients(np.arange(50), weighted((rt.InfoNCELoss(), 1.0)))
        for micro in (None, 7)
    ]
    assert results[0].value == pytest.approx(results[1].value, rel=1e-6)
    for name in model.params:
        assert relative_error(results[1].grads[name], results[0].grads[name]) < 1e-4


def test_other_documents_of_a_query__are_never_its_negatives(rng):
    queries, documents = rng.normal(size=(3, 6)).astype(np.float32), rng.normal(size=(6, 6)).astype(np.float32)
    pairs = np.array([[0, 0], [0, 1], [1, 1], [1, 2], [2, 3], [0, 0]])
    model = rt.TwoTower(rt.LinearAdapter(6))
    for document_ids in (None, [0, 1, 2, 3, 4, 0]):
        task = task_of(model, PairData(queries, documents, pairs, document_ids))
        task.mined = np.full((6, 2), 5)
        batch, loss = np.arange(6), rt.InfoNCELoss(0.5, "sum")
        value = task.gradients(batch, weighted((loss, 1.0))).value
        expected = 0.0
        for q, d in pairs:
            good = {int(x) for a, x in pairs if a == q}
            others = [x for x in (0, 1, 2, 3, 5) if x not in good]
            if document_ids is not None and q == 0:  # 5 copies 0, of this pair or of another one of the query
                others = [x for x in others if x != 5]
            expected += loss.compute(queries[q], documents[d], documents[others])
        assert value == pytest.approx(expected, rel=1e-5)


def test_mining__never_returns_a_document_of_the_query(retrieval):
    queries, documents, pairs, _ = retrieval
    pairs = np.concatenate([pairs, np.stack([np.arange(320), (np.arange(320) + 1) % 320], axis=1)])
    model, miner = two_towers(), MiningCall(rt.HardNegativeMiner.hardest())
    task = task_of(model, PairData(queries, documents, pairs))
    task.mine(miner, 5)
    good = {(int(q), int(d)) for q, d in pairs}
    assert task.mined.shape == (640, 5)
    assert not any((int(q), int(d)) in good for (q, _), row in zip(pairs, task.mined, strict=True) for d in row)
    in_blocks = task_of(model, task.data, limit=0)
    in_blocks.mine(miner, 5)
    np.testing.assert_array_equal(in_blocks.mined, task.mined)


def test_fit__reads_files_as_it_reads_arrays(retrieval, tmp_path):
    queries, documents, pairs, held_back = retrieval
    np.save(tmp_path / "documents.npy", documents)
    on_disk = np.load(tmp_path / "documents.npy", mmap_mode="r")
    results = []
    for source, limit in ((documents, 1 << 30), (on_disk, 1 << 30), (on_disk, 0)):
        model = two_towers()
        mining = rt.Mining(rt.HardNegativeMiner.hardest())
        trainer_of(model, mining=mining, memory_limit=limit).fit(queries, source, pairs, held_back)
        results.append(model.params)
    for params in results[1:]:
        for name, value in params.items():
            np.testing.assert_array_equal(value, results[0][name])


def everything(model, path, epochs=6, **options):
    """A trainer with every part that has a state."""
    return rt.Trainer(
        model,
        [(rt.InfoNCELoss(), 1.0), (rt.LocalContrastiveLoss(), lambda step: 0.1 / (1 + step))],
        rt.AdamW(model.params, 0.01),
        schedule=rt.warmup_cosine(0.01, 5, 100),
        curriculum=rt.CurriculumScheduler.linear(3, 640, 2, 4, 0.2, 0.05),
        mining=rt.Mining(rt.HardNegativeMiner.distance_weighted(0.1), start=2, every=2),
        epochs=epochs,
        batch_size=64,
        checkpoint=path,
        **options,
    )


def test_resume__goes_on_to_the_same_bits(retrieval, tmp_path):
    queries, documents, pairs, held_back = retrieval
    whole = two_towers()
    expected = everything(whole, None).fit(queries, documents, pairs, held_back)
    for stop in (1, 2, 4):
        model, path = two_towers(), tmp_path / f"{stop}.npz"
        everything(model, path, epochs=stop).fit(queries, documents, pairs, held_back)
        resumed = two_towers(seed=7)
        trainer = everything(resumed, path).fit(queries, documents, pairs, held_back, resume=True)
        for name, value in whole.params.items():
            np.testing.assert_array_equal(resumed.params[name], value)
        for name, column in expected.history.items():
            if name != "seconds":
                np.testing.assert_array_equal(trainer.history[name], column)


KILLED = """
import sys, time
import numpy as np, rvtrain as rt
rng = np.random.default_rng(0)
queries, documents = rng.normal(size=(2, 300, 8)).astype(np.float32)
pairs = np.stack([np.arange(300)] * 2, axis=1)
model = rt.TwoTower(rt.LinearAdapter(8), rt.LinearAdapter(8))
slow = [lambda trainer, record: time.sleep(float(sys.argv[2]))]
mining = rt.Mining(rt.HardNegativeMiner.random())
trainer = rt.Trainer(model, epochs=30, batch_size=32, mining=mining, checkpoint=sys.argv[1], callbacks=slow)
trainer.fit(queries, documents, pairs, resume=True)
print(trainer.step, [float(v.astype(float).sum()) for v in model.params.values()])
"""


def test_run_that_is_killed__ends_as_one_that_is_not(tmp_path):
    def command(name, pause):
        return [sys.executable, "-c", KILLED, str(tmp_path / name), str(pause)]

    whole = subprocess.run(command("whole.npz", 0), capture_output=True, text=True, check=True).stdout
    for _ in range(3):
        process = subprocess.Popen(command("killed.npz", 0.1), stdout=subprocess.PIPE)
        deadline, before = time.monotonic() + 60, (tmp_path / "killed.npz").exists()
        while not before and not (tmp_path / "killed.npz").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    resumed = subprocess.run(command("killed.npz", 0), capture_output=True, text=True, check=True).stdout
    assert resumed == whole


def test_fit_labels__gathers_what_is_alike(rng):
    y = rng.permutation(np.repeat(list("abcd"), 50))
    x = rng.normal(size=(200, 30)).astype(np.float32)
    x[:, :4] += 3 * (y[:, np.newaxis] == np.array(list("abcd")))
    model = rt.LinearAdapter(30, 8)
    trainer = trainer_of(model, loss=rt.InfoNCELoss(0.05), metrics=["map@r"], epochs=30)
    metric = trainer.fit_labels(x[:150], y[:150], (x[150:], y[150:])).history["map@r"]
    assert metric.max() > 0.55 > 0.35 > metric[0]
    with pytest.raises(ValueError, match="y must have a label that at least two rows share"):
        trainer.fit_labels(x[:2], ["a", "b"])


def test_fit_labels__draws_positives_of_the_same_label(rng):
    from rvtrain.training._label_task import Labelled, LabelTask

    y = np.append(rng.integers(0, 5, 60), 99)
    data = Labelled(("X", "y"), rng.normal(size=(61, 3)), y)
    task = LabelTask(Sides(rt.LinearAdapter(3)), data, None, None, None, False, 16)
    for epoch in range(20):
        samples = np.concatenate(list(task.batches(np.random.default_rng(epoch), 16)))
        assert sorted(samples) == list(range(task.samples))
        assert (y[data.rows] == y[task.drawn]).all()
        assert (data.rows != task.drawn).all()
        assert 60 not in data.rows


def test_fit_graph__finds_the_communities(rng):
    group = np.repeat(np.arange(6), 30)
    likely = np.where(group[:, np.newaxis] == group, 0.25, 0.005)
    edges = np.argwhere(np.triu(rng.random((180, 180)) < likely, 1))
    edges = edges[rng.permutation(len(edges))]
    table = rt.EmbeddingTable(180, 16)
    start = table.weight.copy()
    loss = [(rt.LocalContrastiveLoss(1.0, form="triplet"), 1.0), (rt.SpectralRegularization(0.01), 1.0)]
    trainer = rt.Trainer(table, loss, rt.Adam(table.params, 0.02), epochs=20, batch_size=128, metrics="recall@20")
    metric = trainer.fit_graph(edges[:-100], 180, validation=edges[-100:]).history["recall@20"]
    assert (table.weight != start).any()
    assert metric.max() > 0.3
    _, near = rt.top_k(table.weight, table.weight, 10)
    assert (group[near] == group[:, np.newaxis]).mean() > 0.8
    with pytest.raises(ValueError, match="n_nodes must be the rows of the table, 180, got 5"):
        trainer.fit_graph(edges, 5)


def test_fit_graph__changes_only_rows_of_the_batch():
    table = rt.EmbeddingTable(50, 4)
    start = table.weight.copy()
    trainer = rt.Trainer(table, rt.LocalContrastiveLoss(), epochs=1, batch_size=8, seed=3)
    trainer.fit_graph([[0, 1], [2, 3]], negatives=1)
    changed = (table.weight != start).any(axis=1)
    assert changed[:4].any() and changed.sum() <= 6


def test_callbacks_and_annealing__hear_of_every_epoch(retrieval):
    queries, documents, pairs, _ = retrieval
    records = []
    trainer = trainer_of(
        two_towers(),
        epochs=3,
        annealing=rt.TemperatureAnnealing(0.5, 0.1, steps=10, schedule="linear"),
        callbacks=[lambda t, record: records.append((t.epoch, record["loss"]))],
    )
    history = trainer.fit(queries, documents, pairs).history
    assert [epoch for epoch, _ in records] == [1, 2, 3]
    assert history["loss"][1:].tolist() == [loss for _, loss in records]
    assert history["temperature"].tolist() == pytest.approx([0.5, 0.3, 0.1, 0.1])
    assert "val_loss" not in history and "recall@10" not in history  # nothing is held back


def test_symmetric_loss__takes_what_was_mined(retrieval):
    queries, documents, pairs, held_back = retrieval
    losses = []
    for mining in (None, rt.Mining(rt.HardNegativeMiner.hardest(), k=2, start=2)):
        trainer = trainer_of(two_towers(), loss=rt.InfoNCELoss(0.05, symmetric=True), mining=mining)
        history = trainer.fit(queries, documents, pairs, held_back).history
        assert history["recall@10"][-1] > 0.6
        losses.append(history["loss"])
    assert losses[0][1] == losses[1][1] and losses[0][2] < losses[1][2]


def test_errors__name_the_argument_and_change_nothing(retrieval, tmp_path):
    queries, documents, pairs, _ = retrieval
    model = two_towers()
    start = {name: value.copy() for name, value in model.params.items()}
    trainer = trainer_of(model)
    broken = queries.copy()
    broken[3, 0] = np.nan
    for arguments, kind, message in (
        ((queries[:10], documents, pairs), ValueError, r"pairs must name rows of queries, in \[0, 9\], got 319"),
        ((queries, documents, pairs[:0]), ValueError, "pairs must not be empty"),
        ((queries, documents, pairs.astype(float)), TypeError, "pairs must"),
        ((broken, documents, pairs), ValueError, "queries must be finite"),
        ((queries[:, :5], documents, pairs), ValueError, "queries must have 24 columns like the model"),
    ):
        with pytest.raises(kind, match=message):
            trainer.fit(*arguments)
    for name, value in start.items():
        np.testing.assert_array_equal(model.params[name], value)
    with pytest.raises(TypeError, match="fit_graph needs an EmbeddingTable"):
        trainer.fit_graph([[0, 1]])
    with pytest.raises(TypeError, match="model must be"):
        rt.Trainer(np.eye(3))
    with pytest.raises(ValueError, match="metrics must be"):
        rt.Trainer(model, metrics=["accuracy"])
    with pytest.raises(TypeError, match="loss must be"):
        rt.Trainer(model, loss="infonce")
    rt.save_checkpoint(tmp_path / "other.npz", table=np.ones(3))
    with pytest.raises(ValueError, match="holds no run of a Trainer"):
        trainer_of(model, checkpoint=tmp_path / "other.npz").fit(queries, documents, pairs, resume=True)
