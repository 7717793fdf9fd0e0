"""Runs that go on with a saved one: which arguments of parts, and which data, must be as they were."""

import numpy as np
import pytest
from small_trainings import assert_equal, queries_and_documents, values

import rvtrain as rt


@pytest.fixture
def data(rng):
    """Queries, documents, pairs to train on and pairs held back."""
    return queries_and_documents(rng)


def towers(dtype=np.float32):
    return rt.TwoTower(*(rt.LinearAdapter(8, seed=seed, dtype=dtype) for seed in (0, 1)))


def trainer_of(model, **options):
    return rt.Trainer(model, **{"optimizer": rt.AdamW(model.params, 0.05), "epochs": 3, "batch_size": 16} | options)


def mined(**options):
    return rt.Mining(rt.HardNegativeMiner("semi_hard", **options))


@pytest.mark.parametrize(
    ("name", "first", "other"),
    [
        ("optimizer", lambda m: rt.AdamW(m.params, 0.05), lambda m: rt.AdamW(m.params, 0.05, betas=(0.5, 0.9))),
        ("optimizer", lambda m: rt.SGD(m.params, 0.05), lambda m: rt.SGD(m.params, 0.05, momentum=0.9)),
        ("learning_rate", lambda m: rt.AdamW(m.params, 0.05), lambda m: rt.AdamW(m.params, 0.01)),
        ("mining", lambda m: mined(margin=0.1), lambda m: mined(margin=0.2)),
        ("mining", lambda m: mined(), lambda m: mined(fill=False)),
        ("mining", lambda m: mined(), lambda m: mined(seed=1)),
        ("mining", lambda m: mined(), lambda m: mined(relative_margin=0.05)),
        ("annealing", lambda m: rt.TemperatureAnnealing(steps=5), lambda m: rt.TemperatureAnnealing(steps=9)),
        (
            "curriculum",
            lambda m: rt.CurriculumScheduler.linear(2, 50, 1, 4, 1.0, 0.1),
            lambda m: rt.CurriculumScheduler.linear(3, 50, 1, 4, 1.0, 0.1),
        ),
    ],
)
def test_resume__refuses_parts_with_other_arguments_by_name(data, tmp_path, name, first, other):
    queries, documents, pairs, _ = data
    model, part = towers(), "optimizer" if name == "learning_rate" else name
    options = {"checkpoint": tmp_path / "run.npz"}
    trainer_of(model, epochs=1, **options, **{part: first(model)}).fit(queries, documents, pairs)
    model = towers()
    start = values(model)
    with pytest.raises(ValueError, match=rf"^{name} must be that of the run in .*, got "):
        trainer_of(model, **options, **{part: other(model)}).fit(queries, documents, pairs, resume=True)
    assert_equal(model.params, start)
    trainer_of(model, **options, **{part: first(model)}).fit(queries, documents, pairs, resume=True)


def test_resume__by_the_trainer_whose_learning_rate_a_callback_has_set(data, tmp_path):
    def slower(trainer, record):
        trainer.optimizer.learning_rate /= 2
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    trainer = trainer_of(towers(), checkpoint=tmp_path / "run.npz", callbacks=[slower], epochs=4)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*data)
    assert trainer.fit(*data, resume=True).epoch == 4


def test_resume__refuses_validation_that_the_run_had_not(data, tmp_path):
    """Also if the pairs are those that train, and a model of another dtype."""
    queries, documents, pairs, _ = data
    options = {"checkpoint": tmp_path / "run.npz"}
    trainer_of(towers(), epochs=1, **options).fit(queries, documents, pairs)
    with pytest.raises(ValueError, match=r"^validation must be as in the run in"):
        trainer_of(towers(), **options).fit(queries, documents, pairs, pairs, resume=True)
    with pytest.raises(ValueError, match=r"model must have the parameters of the run"):
        trainer_of(towers(np.float64), **options).fit(queries, documents, pairs, resume=True)
