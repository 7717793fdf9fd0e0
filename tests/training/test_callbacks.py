"""Callbacks, stopping, evaluation within epochs, logs, and averaged parameters."""

import csv
import json

import numpy as np
import pytest
from small_trainings import assert_equal, queries_and_documents, values

import rvtrain as rt


@pytest.fixture
def data(rng):
    """Queries, documents, pairs to train on and pairs held back."""
    return queries_and_documents(rng)


def trainer_of(**options):
    model = rt.TwoTower(rt.LinearAdapter(8, seed=0), rt.LinearAdapter(8, seed=1))
    return rt.Trainer(model, **{"optimizer": rt.AdamW(model.params, 0.05), "epochs": 3, "batch_size": 16} | options)


class Listener:
    """Notes what it is called for."""

    def __init__(self):
        self.heard = []

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda trainer, record: self.heard.append((name, record))


def test_hooks__come_in_order_with_their_records(data):
    listener = Listener()
    trainer = trainer_of(callbacks=[listener]).fit(*data)
    steps = ["on_step_end"] * 3
    expected = ["on_fit_start", *[*steps, "on_epoch_end"] * 3, "on_fit_end"]
    assert [name for name, _ in listener.heard] == expected
    by_name = {}
    for name, record in listener.heard:
        by_name.setdefault(name, []).append(record)
    assert [record["step"] for record in by_name["on_step_end"]] == list(range(1, 10))
    assert set(by_name["on_step_end"][0]) == {"step", "loss", "temperature", "learning_rate"}
    for number, record in enumerate([*by_name["on_fit_start"], *by_name["on_epoch_end"]]):
        np.testing.assert_equal(record, {name: column[number] for name, column in trainer.history.items()})
    np.testing.assert_equal(by_name["on_fit_end"][0], by_name["on_epoch_end"][-1])


def test_record__may_be_changed_by_a_callback_without_harm(data):
    def spoil(trainer, record):
        record.clear()

    assert len(trainer_of(callbacks=[spoil]).fit(*data).history["loss"]) == 4


def test_callback_that_fails__ends_the_run_in_order(data):
    def fail(trainer, record):
        if record["epoch"] == 2:
            raise OSError("the disk is full")

    listener = Listener()
    trainer = trainer_of(callbacks=[fail, listener])
    with pytest.raises(OSError, match="the disk is full"):
        trainer.fit(*data)
    assert trainer.history["epoch"].tolist() == [0, 1, 2]
    assert listener.heard[-1][0] == "on_fit_end"
    assert trainer.evaluate(*data[:2], data[3])["recall@10"] == trainer.history["recall@10"].max()


@pytest.mark.parametrize("hook", ["on_fit_start", "on_step_end", "on_epoch_end"])
def test_stop__ends_after_the_step(data, hook):
    class Stopping:
        pass

    def stop(trainer, record):
        if hook == "on_fit_start" or record["step"] >= 4:
            trainer.stop()

    setattr(Stopping, hook, staticmethod(stop))
    listener = Listener()
    trainer = trainer_of(callbacks=[Stopping(), listener]).fit(*data)
    epochs = {"on_fit_start": [0], "on_step_end": [0, 1, 1.4], "on_epoch_end": [0, 1, 2]}[hook]
    assert trainer.history["epoch"].tolist() == pytest.approx(epochs)
    assert trainer.step == {"on_fit_start": 0, "on_step_end": 4, "on_epoch_end": 6}[hook]
    assert listener.heard[-1][0] == "on_fit_end"
    trainer.callbacks = ()
    assert trainer.fit(*data).epoch == 3  # the next run is not stopped


def test_stop_within_an_epoch__may_be_gone_on_from_the_one_before(data, tmp_path):
    path = tmp_path / "run.npz"

    class Stopping:
        def on_step_end(self, trainer, record):
            if record["step"] == 5:
                trainer.stop()

    stopped = trainer_of(callbacks=[Stopping()], checkpoint=path).fit(*data)
    assert stopped.epoch == 1
    whole = trainer_of().fit(*data)
    resumed = trainer_of(checkpoint=path).fit(*data, resume=True)
    assert_equal(resumed.model.params, whole.model.params)
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])


def test_eval_every__adds_entries_and_changes_nothing_else(data):
    plain = trainer_of().fit(*data).history
    trainer = trainer_of(eval_every=2).fit(*data)
    history = trainer.history
    assert history["step"].tolist() == [0, 2, 3, 4, 6, 8, 9]
    assert history["epoch"].tolist() == pytest.approx([0, 0.8, 1, 1.4, 2, 2.8, 3])
    whole = history["epoch"] % 1 == 0
    np.testing.assert_array_equal(history["recall@10"][whole], plain["recall@10"])
    weighted = history["loss"][1] * 32 + history["loss"][2] * 8
    assert weighted / 40 == pytest.approx(plain["loss"][1])
    best = int(history["recall@10"].argmax())
    assert trainer.best_epoch == pytest.approx(history["epoch"][best])
    assert trainer.evaluate(*data[:2], data[3])["recall@10"] == history["recall@10"][best]


def test_patience__counts_evaluations(data):
    _, documents, pairs, held_back = data
    shuffled = pairs.copy()
    shuffled[:, 1] = np.roll(shuffled[:, 1], 7)
    trainer = trainer_of(eval_every=1, patience=2, epochs=10, metrics=["recall@1"])
    trainer.fit(documents, documents, shuffled, held_back)
    assert trainer.step == 2 and trainer.best_epoch == 0


def test_metrics__are_columns_and_the_first_decides(data):
    trainer = trainer_of(metrics=["mrr@5", "recall@3", "mrr@5"], epochs=6).fit(*data)
    history = trainer.history
    assert list(history)[-3:] == ["val_loss", "mrr@5", "recall@3"]
    assert trainer.best_epoch == history["mrr@5"].argmax()
    queries, documents, _, held_back = data
    found = trainer.evaluate(queries, documents, held_back, ["recall@3"])
    assert found == {"recall@3": history["recall@3"][int(trainer.best_epoch)]}
    by_loss = trainer_of(metrics=(), epochs=12).fit(*data)
    assert by_loss.best_epoch == by_loss.history["val_loss"].argmin()


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_log__has_a_line_for_each_record_as_it_is_made(data, tmp_path, ending):
    path, lines = tmp_path / f"run{ending}", []

    def count(trainer, record):
        lines.append(path.read_text(encoding="utf-8").count("\n"))

    def read():
        with open(path, encoding="utf-8", newline="") as file:
            if ending == ".csv":
                return [{k: float(v) if v else np.nan for k, v in row.items()} for row in csv.DictReader(file)]
            return [{k: np.nan if v is None else v for k, v in json.loads(line).items()} for line in file]

    def check(trainer):
        for number, row in enumerate(read()):
            np.testing.assert_equal(row, {name: column[number] for name, column in trainer.history.items()})
        assert len(read()) == len(trainer.history["epoch"])

    options = {"log": path, "checkpoint": tmp_path / "run.npz"}
    check(trainer_of(callbacks=[count], epochs=2, **options).fit(*data))
    header = int(ending == ".csv")
    assert lines == [2 + header, 3 + header]
    with open(path, "a", encoding="utf-8") as file:
        file.write("a line of an epoch that was not finished\n")
    check(trainer_of(epochs=4, **options).fit(*data, resume=True))
    check(trainer_of(epochs=1, **options).fit(*data[:3]))  # a new run begins a new file


@pytest.mark.parametrize("with_validation", [True, False])
def test_ema__evaluates_and_keeps_the_average(data, with_validation):
    arguments = data if with_validation else data[:3]
    seen, ema = [], rt.EMACallback(0.8)

    class Recording:
        def on_step_end(self, trainer, record):
            seen.append(values(trainer.model))

    trainer = trainer_of(callbacks=[Recording(), ema]).fit(*arguments)
    expected = trainer_of(callbacks=[]).fit(*data[:3])  # the training itself is as without
    assert_equal(seen[-1], expected.model.params)
    average = rt.EMA(values(trainer_of().model), 0.8)
    by_epoch = [{name: value.copy() for name, value in average.average.items()}]
    for number, params in enumerate(seen, 1):
        average.update(params)
        if number % 3 == 0:
            by_epoch.append({name: value.copy() for name, value in average.average.items()})
    best = int(trainer.history["recall@10"].argmax()) if with_validation else 3
    assert_equal(trainer.model.params, by_epoch[best])


def test_ema__resumes_to_the_same_bits(data, tmp_path):
    path = tmp_path / "run.npz"
    whole = trainer_of(callbacks=[rt.EMACallback(0.9)], epochs=4).fit(*data)
    trainer_of(callbacks=[rt.EMACallback(0.9)], epochs=2, checkpoint=path).fit(*data)
    resumed = trainer_of(callbacks=[rt.EMACallback(0.9)], epochs=4, checkpoint=path).fit(*data, resume=True)
    assert_equal(resumed.model.params, whole.model.params)
    np.testing.assert_array_equal(resumed.history["recall@10"], whole.history["recall@10"])


def test_ema__refuses_a_wrong_decay():
    with pytest.raises(ValueError, match="decay must be"):
        rt.EMACallback(1.5)
