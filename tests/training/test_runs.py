"""Runs: that each fit is one of its own, that a saved one goes on to the same bits, and what is refused before it."""

import copy
import os
import pickle

import numpy as np
import pytest
from small_trainings import assert_equal, queries_and_documents, values

import rvtrain as rt


@pytest.fixture
def data(rng):
    """Queries, documents, pairs to train on and pairs held back."""
    return queries_and_documents(rng)


def towers():
    return rt.TwoTower(rt.LinearAdapter(8, seed=0), rt.LinearAdapter(8, seed=1))


def trainer_of(model, **options):
    return rt.Trainer(model, **{"optimizer": rt.AdamW(model.params, 0.05), "epochs": 3, "batch_size": 16} | options)


def test_second_fit__trains_again(data):
    queries, documents, pairs, _ = data
    model = towers()
    stages = [rt.CurriculumStage("a", 60, 0.5, 1), rt.CurriculumStage("b", 60, 0.1, 2)]
    mining = rt.Mining(rt.HardNegativeMiner.hardest())
    trainer = trainer_of(model, curriculum=rt.CurriculumScheduler(stages), mining=mining)
    first = trainer.fit(queries, documents, pairs).history
    before = values(model)
    second = trainer.fit(queries[:30], documents[:30], pairs[:30]).history  # other data, none of the old negatives
    assert trainer.epoch == 3 and trainer.step == 3 * 2
    assert first["epoch"].tolist() == second["epoch"].tolist() == [0, 1, 2, 3]
    assert second["temperature"][0] == 0.5
    assert any((before[name] != array).any() for name, array in model.params.items())


def test_two_losses__keep_their_own_temperatures(data):
    queries, documents, pairs, _ = data
    losses = [rt.InfoNCELoss(0.05), rt.InfoNCELoss(0.5)]
    both, swapped = towers(), towers()
    trainer_of(both, loss=[(loss, 1) for loss in losses]).fit(queries, documents, pairs)
    trainer_of(swapped, loss=[(loss, 1) for loss in losses[::-1]]).fit(queries, documents, pairs)
    assert [loss.temperature for loss in losses] == [0.05, 0.5]
    for name, array in both.params.items():
        np.testing.assert_allclose(array, swapped.params[name], atol=1e-5)
    annealed = rt.InfoNCELoss(0.3)
    annealing = rt.TemperatureAnnealing(1.0, 0.1, steps=5)
    trainer_of(towers(), loss=annealed, annealing=annealing).fit(queries, documents, pairs)
    assert annealed.temperature == 0.3


def test_resumed_after_fit__goes_on_as_a_run_that_never_stopped(data, tmp_path):
    """The best parameters are in the model after the first run; the second goes on from the last."""
    queries, documents, pairs, held_back = data
    whole, path = towers(), tmp_path / "run.npz"
    expected = trainer_of(whole, epochs=6).fit(queries, documents, pairs, held_back)
    model = towers()
    trainer = trainer_of(model, epochs=3, checkpoint=path).fit(queries, documents, pairs, held_back)
    for other in (trainer, trainer_of(towers(), checkpoint=path)):
        other.epochs = 6
        kept = path.read_bytes()
        other.fit(queries, documents, pairs, held_back, resume=True)
        path.write_bytes(kept)
        assert_equal(other.model.params, whole.params)
        np.testing.assert_array_equal(other.history["loss"], expected.history["loss"])
        assert other.best_epoch == expected.best_epoch


def test_resume__of_a_run_that_is_done_changes_nothing(data, tmp_path):
    queries, documents, pairs, held_back = data
    whole = trainer_of(towers(), checkpoint=tmp_path / "run.npz").fit(queries, documents, pairs, held_back)
    again = trainer_of(towers(), checkpoint=tmp_path / "run.npz").fit(*data, resume=True)
    assert_equal(again.model.params, whole.model.params)
    assert again.step == whole.step


def test_resume__begins_where_there_is_no_file_yet(data, tmp_path):
    queries, documents, pairs, _ = data
    plain = trainer_of(towers()).fit(queries, documents, pairs)
    trainer = trainer_of(towers(), checkpoint=tmp_path / "run.npz").fit(queries, documents, pairs, resume=True)
    assert_equal(trainer.model.params, plain.model.params)
    with pytest.raises(ValueError, match="resume needs checkpoint"):
        trainer_of(towers()).fit(queries, documents, pairs, resume=True)


def test_fit__without_resume_begins_anew(data, tmp_path):
    queries, documents, pairs, _ = data
    trainer = trainer_of(towers(), checkpoint=tmp_path / "run.npz", epochs=2)
    trainer.fit(queries, documents, pairs)
    trainer.fit(queries, documents, pairs)
    assert trainer.history["epoch"].tolist() == [0, 1, 2]


def test_refused_state__changes_nothing(data, tmp_path):
    queries, documents, pairs, _ = data
    path = tmp_path / "run.npz"
    trainer_of(towers(), annealing=rt.TemperatureAnnealing(), checkpoint=path).fit(queries, documents, pairs)
    state = rt.load_checkpoint(path)
    state["trainer"]["parts"]["annealing"] = {"nonsense": 1}
    rt.save_checkpoint(path, **state)
    other = trainer_of(towers(), annealing=rt.TemperatureAnnealing(), checkpoint=path)
    before, start = other.optimizer.state_dict(), values(other.model)
    with pytest.raises(ValueError, match="state"):
        other.fit(queries, documents, pairs, resume=True)
    assert other.epoch == 0
    assert set(other.optimizer.state_dict()) == set(before)
    assert_equal(other.model.params, start)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed must be that of the run in .*, 0, got 1"),
        ({"batch_size": 8}, "batch_size must be that of the run in .*, 16, got 8"),
        ({"loss": rt.InfoNCELoss(0.2)}, "loss must be that of the run in .*0.05.* got .*0.2"),
        ({"mining": rt.Mining(rt.HardNegativeMiner.hardest())}, "mining must be that of the run in .*, None, got"),
        ({"metrics": ["mrr@3"]}, "metrics must be that of the run in"),
        ({"schedule": 0.1}, "schedule must be that of the run in .*, None, got a function of the step"),
        ({"loss_learning_rate": 0.5}, "loss_learning_rate must be that of the run in .*, 0.01, got 0.5"),
        ({"micro_batch_size": 4}, "micro_batch_size must be that of the run in .*, None, got 4"),
        ({"max_grad_norm": 1.0}, "max_grad_norm must be that of the run in .*, None, got 1.0"),
        ({"eval_every": 1}, "eval_every must be that of the run in .*, None, got 1"),
        ({"optimizer": rt.SGD({"query/weight": (8, 8), "document/weight": (8, 8)}, 0.1)}, "optimizer must be .*SGD"),
        ({"model": rt.TwoTower(rt.LinearAdapter(8))}, "model must have the parameters of the run"),
    ],
)
def test_resume__refuses_other_settings_by_name(data, tmp_path, change, message):
    queries, documents, pairs, _ = data
    options = {"checkpoint": tmp_path / "run.npz"}
    trainer_of(towers(), epochs=1, **options).fit(queries, documents, pairs)
    model = change.pop("model", None) or towers()
    start = values(model)
    with pytest.raises(ValueError, match=message):
        trainer_of(model, **change, **options).fit(queries, documents, pairs, resume=True)
    assert_equal(model.params, start)


def test_resume__refuses_other_data_by_name(data, tmp_path):
    queries, documents, pairs, held_back = data
    weight = np.ones(40)
    fit = {"sample_weight": weight, "resume": True}
    trainer_of(towers(), loss=rt.InfoNCELoss(), checkpoint=tmp_path / "run.npz", epochs=1).fit(*data, **fit)
    trainer = trainer_of(towers(), loss=rt.InfoNCELoss(), checkpoint=tmp_path / "run.npz")
    start = values(trainer.model)
    for arguments, more, name in (
        ((queries + 1, documents, pairs, held_back), {}, "queries"),
        ((queries, documents[::-1], pairs, held_back), {}, "documents"),
        ((queries, documents, pairs[::-1], held_back), {}, "pairs"),
        ((queries, documents, pairs, held_back[:5]), {}, "validation"),
        (data, {"sample_weight": 2 * weight}, "sample_weight"),
        (data, {"sample_weight": None}, "sample_weight"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be as in the run in"):
            trainer.fit(*arguments, **(fit | more))
        assert_equal(trainer.model.params, start)
    assert trainer.fit(*data, **fit).epoch == 3


def test_checkpoint_extra__stands_beside_the_run(data, tmp_path):
    queries, documents, pairs, _ = data
    trainer = trainer_of(towers(), checkpoint=tmp_path / "run.npz", epochs=1)
    trainer.checkpoint_extra = {"settings": {"rate": 0.05}}
    trainer.fit(queries, documents, pairs)
    assert rt.load_checkpoint(tmp_path / "run.npz")["extra"] == {"settings": {"rate": 0.05}}


def interrupted(after):
    """A callback that is interrupted from the keyboard after so many epochs."""

    def stop(trainer, record):
        if record["epoch"] == after:
            raise KeyboardInterrupt

    return stop


class Interrupting(rt.InfoNCELoss):
    """A loss during whose n-th call somebody presses Ctrl-C."""

    def __init__(self, calls):
        super().__init__(0.05)
        self.calls = calls

    def compute_with_gradients(self, *args, **options):
        self.calls -= 1
        if not self.calls:
            raise KeyboardInterrupt
        return super().compute_with_gradients(*args, **options)


def test_interrupt__leaves_the_best_parameters_and_the_history(data, tmp_path):
    queries, documents, pairs, held_back = data
    model = towers()
    snapshots, ended = [values(model)], []

    class Listening:
        def on_epoch_end(self, trainer, record):
            snapshots.append(values(model))

        def on_fit_end(self, trainer, record):
            ended.append((record, values(model)))

    loss = Interrupting(3 * 10 + 2)
    path = tmp_path / "run.npz"
    trainer = trainer_of(model, loss=loss, epochs=30, callbacks=[Listening()], checkpoint=path)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(queries, documents, pairs, held_back)
    metric = trainer.history["recall@10"]
    assert len(metric) == 11 and trainer.epoch == 10
    best = int(metric.argmax())
    assert_equal(model.params, snapshots[best])
    assert trainer.best_epoch == best
    assert ended[0][0]["epoch"] == 10  # the last record, and the best parameters
    assert_equal(ended[0][1], snapshots[best])
    loss.calls = -1  # nobody interrupts any more
    resumed = trainer_of(towers(), loss=loss, epochs=12, checkpoint=path).fit(*data, resume=True)
    whole = trainer_of(towers(), loss=Interrupting(-1), epochs=12).fit(*data)
    assert_equal(resumed.model.params, whole.model.params)


def test_validation__keeps_the_untrained_parameters_if_nothing_is_better(data):
    documents, held_back = data[1], data[3]
    model = rt.TwoTower(rt.LinearAdapter(8))
    rng = np.random.default_rng(1)
    shuffled = np.stack([np.arange(40), rng.permutation(40)], axis=1)
    trainer = trainer_of(model, metrics=["recall@1"], patience=2, epochs=20)
    trainer.fit(documents, documents, shuffled, held_back)
    assert trainer.history["epoch"].tolist() == [0, 1, 2] and trainer.best_epoch == 0
    np.testing.assert_array_equal(model.query.transform(documents), documents)


def test_everything_known__is_said_before_the_first_step(data, tmp_path, rng):
    queries, documents, pairs, _ = data
    model = towers()
    start = values(model)
    fit = (queries, documents, pairs)
    cases = [
        (lambda: trainer_of(model, patience=2).fit(*fit), ValueError, "patience needs validation"),
        (lambda: trainer_of(model, checkpoint=tmp_path / "no" / "run.npz").fit(*fit), OSError, "no"),
        (lambda: trainer_of(model, checkpoint=tmp_path).fit(*fit), OSError, "checkpoint must be a file"),
        (lambda: trainer_of(model, batch_size=1).fit(*fit), ValueError, "batch_size must be at least 2"),
        (lambda: trainer_of(model, optimizer="adam"), TypeError, "optimizer must be .* got 'adam'"),
        (lambda: trainer_of(model, schedule="cosine"), TypeError, "schedule must be .* got 'cosine'"),
        (lambda: trainer_of(model, schedule=lambda step: None).fit(*fit), TypeError, r"schedule\(0\) must be a"),
        (lambda: trainer_of(model, mining="hardest"), TypeError, "mining must be a Mining"),
        (lambda: rt.Mining("hardest"), TypeError, "miner must be an object with a method 'mine'"),
        (lambda: rt.Mining(rt.HardNegativeMiner), TypeError, "miner must be an object with a method 'mine'"),
        (lambda: rt.Mining(rt.InBatchMiner("hardest")), TypeError, r"miner must have mine\(anchors, candidates, k\)"),
        (lambda: trainer_of(model, loss=rt.InfoNCELoss), TypeError, "loss must be a loss, .* got <class"),
        (lambda: trainer_of(model).fit(*fit, pairs[:0]), ValueError, "validation must not be empty"),
        (lambda: trainer_of(model).fit(*fit, pairs + 50), ValueError, "validation must name rows of queries"),
        (
            lambda: trainer_of(model).fit(*fit, (*fit, pairs)),
            ValueError,
            r"validation must be pairs \(V, 2\), or a tuple",
        ),
        (lambda: trainer_of(model).fit(*fit, (queries, documents[:9])), ValueError, r"validation\[2\] must be given"),
        (lambda: rt.Mining(rt.HardNegativeMiner.hardest(), start=0), ValueError, "start must be at least 1"),
        (lambda: trainer_of(model, log="run.txt"), ValueError, "log must end in .csv or .jsonl"),
        (lambda: trainer_of(model, log=tmp_path / "no" / "run.csv").fit(*fit), OSError, "no"),
        (lambda: trainer_of(model, progress="yes"), ValueError, "progress must be 'auto'"),
        (lambda: trainer_of(model, callbacks=[3]), TypeError, "callbacks must be callable, or have one of .* got 3"),
        (lambda: trainer_of(model, loss=[]), ValueError, "loss must not be empty"),
        (lambda: trainer_of(model, loss=rt.SpectralRegularization()).fit(*fit), TypeError, "is for fit_graph"),
        (lambda: trainer_of(model, loss=rt.SupConLoss()).fit(*fit), TypeError, "is for fit_labels"),
        (lambda: trainer_of(model, loss=rt.CoSENTLoss()).fit(*fit), ValueError, "scores must be given"),
        (lambda: trainer_of(model, loss=rt.MarginMSELoss()).fit(*fit), ValueError, "teacher_scores must be given"),
        (lambda: trainer_of(model).fit(*fit, scores=np.ones(40)), ValueError, "scores must not be given"),
        (
            lambda: trainer_of(model, loss=rt.LocalContrastiveLoss()).fit(*fit, sample_weight=np.ones(40)),
            ValueError,
            "sample_weight must not be given, since LocalContrastiveLoss does not take it",
        ),
        (
            lambda: trainer_of(model, mining=rt.Mining(rt.HardNegativeMiner.hardest())).fit_labels(
                queries, np.arange(60) % 3
            ),
            ValueError,
            "fit_labels takes no mining",
        ),
        (lambda: trainer_of(model).fit(queries[:50], documents), ValueError, "pairs must be given where"),
        (
            lambda: trainer_of(model).fit_labels(queries, np.arange(60) % 3, (queries, np.arange(60))),
            ValueError,
            r"validation\[1\] must have a label",
        ),
        (
            lambda: trainer_of(model).fit_labels(queries, np.arange(60) % 3, (queries[:, :5], np.arange(60) % 3)),
            ValueError,
            r"validation\[0\] must have 8 columns",
        ),
        (lambda: trainer_of(model).fit_labels(queries, np.arange(60) % 3, queries), TypeError, "validation must be"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
    assert_equal(model.params, start)
    assert not os.listdir(tmp_path)


def test_two_tower__shares_only_when_told():
    adapter = rt.LinearAdapter(4)
    assert rt.TwoTower(adapter).is_shared and rt.TwoTower(adapter, "shared").is_shared
    for document in (None, "mine", 3):
        with pytest.raises(TypeError, match=f"document must be .* got {document!r}"):
            rt.TwoTower(adapter, document)


def test_schedule__may_be_a_number(data):
    queries, documents, pairs, _ = data
    history = trainer_of(towers(), schedule=1e-3).fit(queries, documents, pairs).history
    assert (history["learning_rate"][1:] == 1e-3).all()


@pytest.mark.parametrize("overflow", ["loss", "parameters"])
def test_divergence__is_named_with_its_step_and_rate(data, overflow):
    queries, documents, pairs, held_back = data
    model = towers()
    start = values(model)
    if overflow == "loss":
        trainer = trainer_of(model, optimizer=rt.SGD(model.params, 1.0), schedule=lambda step: 10.0 ** (10 * step))
        trainer.losses = [(rt.LocalContrastiveLoss(), 1.0)]
    else:
        trainer = trainer_of(model, optimizer=rt.SGD(model.params, 1.0), schedule=lambda step: 1e39 if step else 1.0)
    with pytest.raises(ValueError, match=r"the loss diverged at step [1-9]\d* with learning rate 1e\+\d+"):
        trainer.fit(queries, documents, pairs, held_back)
    if trainer.best_epoch == 0:
        assert_equal(model.params, start)


def test_files_that_are_not_finite__are_no_divergence(data, tmp_path):
    queries, documents, pairs, _ = data
    documents = documents.copy()
    documents[7, 2] = np.nan
    np.save(tmp_path / "documents.npy", documents)
    on_disk = np.load(tmp_path / "documents.npy", mmap_mode="r")
    with pytest.raises(ValueError, match="documents must be finite, got a NaN or an infinity in row 7"):
        trainer_of(towers()).fit(queries, on_disk, pairs)


@pytest.mark.parametrize("stored", ["f2", ">f4", "i1"])
def test_stored_types__train_as_their_float32_copies(data, tmp_path, stored):
    queries, documents, pairs, held_back = (x if x.dtype.kind == "i" else np.round(8 * x) for x in data)
    expected, model, from_file = towers(), towers(), towers()
    trainer_of(expected, mining=rt.Mining(rt.HardNegativeMiner.hardest())).fit(queries, documents, pairs, held_back)
    small = documents.astype(stored)
    np.save(tmp_path / "documents.npy", small)
    on_disk = np.load(tmp_path / "documents.npy", mmap_mode="r")
    for each, source in ((model, small), (from_file, on_disk)):
        trainer_of(each, mining=rt.Mining(rt.HardNegativeMiner.hardest())).fit(
            queries.astype(stored), source, pairs, held_back
        )
        assert_equal(each.params, expected.params)
    labels = np.arange(60) % 4
    for each, x in ((model, small), (expected, documents)):
        trainer_of(each).fit_labels(x, labels, (x, labels))
    assert_equal(model.params, expected.params)
    np.testing.assert_array_equal(model.query.transform(small), model.query.transform(documents))


def test_copies__of_any_document_of_a_query_are_no_negatives_of_it(rng):
    documents = rng.normal(size=(6, 5)).astype(np.float32)
    documents[2] = documents[1]  # e0 e1 e1 e2 e3 e4
    queries = rng.normal(size=(2, 5)).astype(np.float32)
    pairs = np.array([[0, 0], [0, 1], [1, 3]])
    mined = []
    for limit in (1 << 30, 0):
        model = rt.TwoTower(rt.LinearAdapter(5))
        model_trainer = rt.Trainer(
            model, rt.InfoNCELoss(), rt.SGD(model.params, 0.0), mining=rt.Mining(Recording(mined), k=5), epochs=1,
            memory_limit=limit,
        )  # fmt: skip
        model_trainer.fit(queries, documents, pairs, document_ids=[0, 1, 1, 2, 3, 4])
    for found in mined:
        assert set(found[0]) == {3, 4, 5, -1}
        assert set(found[1]) == {0, 1, 2, 4, 5}


class Recording(rt.HardNegativeMiner):
    """A miner that keeps what it has found."""

    def __init__(self, found):
        super().__init__("hardest")
        self.found = found

    def mine(self, *args, **options):
        self.found.append(super().mine(*args, **options))
        return self.found[-1]


@pytest.mark.parametrize("symmetric", [False, True])
def test_copies_in_the_batch__are_no_negatives(rng, symmetric):
    documents = rng.normal(size=(5, 6)).astype(np.float32)
    queries = rng.normal(size=(3, 6)).astype(np.float32)
    pairs = np.array([[0, 0], [0, 1], [1, 3], [2, 2], [2, 4]])
    ids = np.array([0, 1, 1, 3, 4])  # document 2, of query 2, copies document 1, of query 0
    loss = rt.InfoNCELoss(0.5, symmetric=symmetric)
    model = rt.TwoTower(rt.LinearAdapter(6))
    trainer = rt.Trainer(model, loss, rt.SGD(model.params, 0.0), epochs=1, batch_size=5)
    value = trainer.fit(queries, documents, pairs, document_ids=ids).history["loss"][1]
    own = [{int(ids[d]) for q, d in pairs if q == query} for query in range(3)]
    cosines = rt.cosine_similarity(queries, documents) / 0.5
    rows, columns = [], []
    for q, d in pairs:
        others = [cosines[q, e] for e in range(5) if ids[e] not in own[q]]
        rows.append(np.log(np.exp([cosines[q, d], *others]).sum()) - cosines[q, d])
        askers = [cosines[p, d] for p, _ in pairs if ids[d] not in own[p]]
        columns.append(np.log(np.exp([cosines[q, d], *askers]).sum()) - cosines[q, d])
    expected = (np.mean(rows) + np.mean(columns)) / 2 if symmetric else np.mean(rows)
    assert value == pytest.approx(expected, rel=1e-5)


def test_symmetric_gradients_with_copies__are_those_of_the_loss(rng):
    from rvtrain.training._embedding import Sides
    from rvtrain.training._losses import LossCall, Weighted
    from rvtrain.training._pair_data import PairData
    from rvtrain.training._pair_task import PairTask

    queries, documents = rng.normal(size=(3, 6)), rng.normal(size=(5, 6))
    pairs = np.array([[0, 0], [0, 1], [1, 3], [2, 2], [2, 4]])
    model = rt.TwoTower(rt.LinearAdapter(6, dtype=np.float64), rt.LinearAdapter(6, dtype=np.float64))
    task = PairTask(Sides(model), PairData(queries, documents, pairs, [0, 1, 1, 3, 4]), None, 1 << 30, None)
    losses = [Weighted(LossCall(rt.InfoNCELoss(0.5, symmetric=True)), 1.0)]
    _, grads, *_ = task.gradients(np.arange(5), losses)
    for name, array in model.params.items():
        direction = rng.normal(size=array.shape)
        array += 1e-5 * direction
        above = task.gradients(np.arange(5), losses).value
        array -= 2e-5 * direction
        below = task.gradients(np.arange(5), losses).value
        array += 1e-5 * direction
        assert (grads[name] * direction).sum() == pytest.approx((above - below) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copied_trainer__trains_alike(data, copier):
    queries, documents, pairs, held_back = data
    schedule = rt.warmup_cosine(0.05, 2, 20)
    mining = rt.Mining(rt.HardNegativeMiner.distance_weighted())
    trainer = trainer_of(towers(), schedule=schedule, mining=mining, callbacks=[rt.EMACallback(0.5)])
    trainer.fit(queries, documents, pairs, held_back)
    twin = copier(trainer)
    for each in (trainer, twin):
        each.fit(queries, documents, pairs, held_back)
    assert_equal(twin.model.params, trainer.model.params)
