"""Runs: that each fit is one of its own, that a saved one goes on to the same bits, and what is refused before it."""

import copy
import os
import pickle

import numpy as np
import pytest

import rvtrain as rt

PAIRS = np.stack([np.arange(60)] * 2, axis=1)


@pytest.fixture
def data(rng):
    """Queries, documents, pairs to train on and pairs held back."""
    documents = rng.normal(size=(60, 8)).astype(np.float32)
    queries = documents[:, ::-1] + rng.normal(size=(60, 8)).astype(np.float32) / 2
    return np.ascontiguousarray(queries), documents, PAIRS[:40], PAIRS[40:]


def towers():
    return rt.TwoTower(rt.LinearAdapter(8, seed=0), rt.LinearAdapter(8, seed=1))


def trainer_of(model, **options):
    return rt.Trainer(model, **{"optimizer": rt.AdamW(model.params, 0.05), "epochs": 3, "batch_size": 16} | options)


def values(model):
    return {name: array.copy() for name, array in model.params.items()}


def assert_equal(params, others):
    for name, array in params.items():
        np.testing.assert_array_equal(array, others[name])


def test_second_fit__trains_again(data):
    queries, documents, pairs, _ = data
    model = towers()
    stages = [rt.CurriculumStage("a", 60, 0.5, 1), rt.CurriculumStage("b", 60, 0.1, 2)]
    trainer = trainer_of(model, curriculum=rt.CurriculumScheduler(stages), miner=rt.HardNegativeMiner.hardest())
    first = trainer.fit(queries, documents, pairs).history
    before = values(model)
    second = trainer.fit(queries[:30], documents[:30], pairs[:30]).history  # other data, none of the old negatives
    assert trainer.epoch == 3 and trainer.step == 3 * 2
    assert first["epoch"].tolist() == second["epoch"].tolist() == [1, 2, 3]
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


@pytest.mark.parametrize("save", ["file", "memory"])
def test_saved_after_fit__goes_on_as_a_run_that_never_stopped(data, tmp_path, save):
    queries, documents, pairs, held_back = data
    whole, model = towers(), towers()
    expected = trainer_of(whole, epochs=6).fit(queries, documents, pairs, held_back)
    trainer = trainer_of(model, epochs=3).fit(queries, documents, pairs, held_back)
    best = values(model)
    other = trainer_of(towers(), epochs=6)
    if save == "file":
        trainer.save(tmp_path / "run.npz")
        other.load(tmp_path / "run.npz")
    else:
        other.load_state_dict(trainer.state_dict())
    assert_equal(other.model.params, best)  # until it goes on
    other.fit(queries, documents, pairs, held_back)
    assert_equal(other.model.params, whole.params)
    np.testing.assert_array_equal(other.history["loss"], expected.history["loss"])


def test_state_dict__is_a_copy_that_a_model_can_be_rolled_back_to(data):
    queries, documents, pairs, _ = data
    model = towers()
    trainer = trainer_of(model).fit(queries, documents, pairs)
    state, before = trainer.state_dict(), values(model)
    trainer.fit(queries, documents, pairs)
    trainer.load_state_dict(state)
    assert_equal(model.params, before)


def test_refused_state__changes_nothing(data):
    queries, documents, pairs, _ = data
    model = towers()
    trainer = trainer_of(model, annealing=rt.TemperatureAnnealing()).fit(queries, documents, pairs)
    state = trainer.state_dict()
    state["parts"]["annealing"] = {"nonsense": 1}
    other = trainer_of(towers(), annealing=rt.TemperatureAnnealing())
    before, start = other.optimizer.state_dict(), values(other.model)
    with pytest.raises(ValueError, match="state"):
        other.load_state_dict(state)
    assert other.epoch == 0
    assert set(other.optimizer.state_dict()) == set(before)
    assert_equal(other.model.params, start)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed must be that of the run that was saved, 0, got 1"),
        ({"batch_size": 8}, "batch_size must be that of the run that was saved, 16, got 8"),
    ],
)
def test_load__refuses_other_settings_by_name(data, tmp_path, change, message):
    queries, documents, pairs, _ = data
    trainer_of(towers(), checkpoint=tmp_path / "run.npz", epochs=1).fit(queries, documents, pairs)
    with pytest.raises(ValueError, match=message):
        trainer_of(towers(), **change).load(tmp_path / "run.npz")


def test_fit_after_load__refuses_other_data_by_name(data, tmp_path):
    queries, documents, pairs, held_back = data
    trainer_of(towers(), checkpoint=tmp_path / "run.npz", epochs=1).fit(queries, documents, pairs, held_back)
    trainer = trainer_of(towers()).load(tmp_path / "run.npz")
    start = values(trainer.model)
    for arguments, name in (
        ((queries + 1, documents, pairs, held_back), "queries"),
        ((queries, documents[::-1], pairs, held_back), "documents"),
        ((queries, documents, pairs[::-1], held_back), "pairs"),
        ((queries, documents, pairs, held_back[:5]), "validation"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be as in the run that was loaded"):
            trainer.fit(*arguments)
        assert_equal(trainer.model.params, start)
    assert trainer.fit(queries, documents, pairs, held_back).epoch == 3


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


def test_interrupt__leaves_the_best_parameters_and_the_history(data):
    queries, documents, pairs, held_back = data
    snapshots, model = [], towers()
    listen = [lambda trainer, record: snapshots.append(values(model))]
    trainer = trainer_of(model, loss=Interrupting(3 * 10 + 2), epochs=30, callbacks=listen)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(queries, documents, pairs, held_back)
    metric = trainer.history["metric"]
    assert len(metric) == 10
    assert_equal(model.params, snapshots[int(metric.argmax())])
    with pytest.raises(RuntimeError, match="interrupted within epoch 11"):
        trainer.state_dict()
    between = trainer_of(towers(), callbacks=[interrupted(2)])
    with pytest.raises(KeyboardInterrupt):
        between.fit(queries, documents, pairs)
    assert between.state_dict()["epoch"] == 2  # after a whole epoch, it can be gone on with


def test_validation__keeps_the_untrained_parameters_if_nothing_is_better(data):
    documents, held_back = data[1], data[3]
    model = rt.TwoTower(rt.LinearAdapter(8))
    rng = np.random.default_rng(1)
    shuffled = np.stack([np.arange(40), rng.permutation(40)], axis=1)
    trainer = trainer_of(model, metric="recall@1", patience=2, epochs=20)
    trainer.fit(documents, documents, shuffled, held_back)
    assert len(trainer.history["metric"]) == 2
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
        (lambda: trainer_of(model, schedule=lambda step: None).fit(*fit), TypeError, r"schedule\(step\) must be a"),
        (lambda: trainer_of(model, miner="hardest"), TypeError, "miner must have a method 'mine'"),
        (lambda: trainer_of(model, callbacks=[3]), TypeError, "callbacks must be callable, got 3"),
        (lambda: trainer_of(model, loss=[]), ValueError, "loss must not be empty"),
        (lambda: trainer_of(model, loss=rt.SpectralRegularization()), TypeError, "loss must take anchors"),
        (
            lambda: trainer_of(model, loss=rt.InfoNCELoss(symmetric=True), miner=rt.HardNegativeMiner.hardest()),
            ValueError,
            "miner needs a loss that takes mined negatives",
        ),
        (
            lambda: trainer_of(model, miner=rt.HardNegativeMiner.hardest()).fit_labels(queries, np.arange(60) % 3),
            ValueError,
            "fit_labels takes no miner",
        ),
        (
            lambda: trainer_of(model).fit_labels(queries, np.arange(60) % 3, (queries, np.arange(60))),
            ValueError,
            "validation must have a label",
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
    assert (history["learning_rate"] == 1e-3).all()


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
    assert_equal(model.params, start) if not len(trainer.history["epoch"]) else None


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
    trainer_of(expected, miner=rt.HardNegativeMiner.hardest()).fit(queries, documents, pairs, held_back)
    small = documents.astype(stored)
    np.save(tmp_path / "documents.npy", small)
    on_disk = np.load(tmp_path / "documents.npy", mmap_mode="r")
    for each, source in ((model, small), (from_file, on_disk)):
        trainer_of(each, miner=rt.HardNegativeMiner.hardest()).fit(queries.astype(stored), source, pairs, held_back)
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
            model, rt.InfoNCELoss(), rt.SGD(model.params, 0.0), miner=Recording(mined), negatives=5, epochs=1,
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
    value = trainer.fit(queries, documents, pairs, document_ids=ids).history["loss"][0]
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
    from rvtrain.training._pairs import PairData
    from rvtrain.training._tasks import PairTask

    queries, documents = rng.normal(size=(3, 6)), rng.normal(size=(5, 6))
    pairs = np.array([[0, 0], [0, 1], [1, 3], [2, 2], [2, 4]])
    model = rt.TwoTower(rt.LinearAdapter(6, dtype=np.float64), rt.LinearAdapter(6, dtype=np.float64))
    task = PairTask(model, PairData(queries, documents, pairs, [0, 1, 1, 3, 4]), None, 1 << 30, None)
    losses = [(rt.InfoNCELoss(0.5, symmetric=True), 1.0)]
    _, grads, _ = task.gradients(np.arange(5), losses)
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
    trainer = trainer_of(towers(), schedule=schedule, miner=rt.HardNegativeMiner.distance_weighted())
    trainer.fit(queries, documents, pairs, held_back)
    twin = copier(trainer)
    for each in (trainer, twin):
        each.fit(queries, documents, pairs, held_back)
    assert_equal(twin.model.params, trainer.model.params)
