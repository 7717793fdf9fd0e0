"""Stages that advance by samples, and annealed temperatures."""

import copy
import math
import pickle

import numpy as np
import pytest

import rvtrain as rt


def stage(duration, name="s", temperature=0.5, k=5):
    return rt.CurriculumStage(name, duration, temperature, k)


@pytest.fixture
def scheduler():
    """Three stages, over samples [0, 10), [10, 15) and [15, 35)."""
    return rt.CurriculumScheduler([stage(10, "a"), stage(5, "b"), stage(20, "c")])


@pytest.mark.parametrize(
    "twin_of", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"]
)
def test_curricula__pickled_or_copied_go_on_alone(twin_of, scheduler):
    annealing = rt.TemperatureAnnealing(steps=10)
    scheduler.step(9)
    annealing.step(4)
    curriculum, temperature = twin_of(scheduler), twin_of(annealing)
    assert curriculum.stages == scheduler.stages and repr(temperature) == repr(annealing)
    curriculum.step(1)
    assert (curriculum.current_params().name, scheduler.current_params().name) == ("b", "a")
    assert temperature.step(2) == rt.TemperatureAnnealing(steps=10).step(6)
    assert annealing.temperature == rt.TemperatureAnnealing(steps=10).step(4)


# --- CurriculumStage -----------------------------------------------------------------------------------


def test_stage__holds_plain_numbers_and_is_frozen():
    one = rt.CurriculumStage("a", np.int32(7), np.float32(0.5), np.int64(3), difficulty=1)
    assert one == rt.CurriculumStage("a", 7, 0.5, 3, 1.0)
    assert [type(x) for x in (one.duration, one.temperature, one.k_neighbors, one.difficulty)] == [
        int, float, int, float,
    ]  # fmt: skip
    with pytest.raises(AttributeError):
        one.duration = 8


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": 3}, TypeError),
        ({"duration": 0}, ValueError),
        ({"duration": 2.5}, TypeError),
        ({"duration": True}, TypeError),
        ({"temperature": 0.0}, ValueError),
        ({"temperature": math.nan}, ValueError),
        ({"temperature": "1"}, TypeError),
        ({"k_neighbors": 0}, ValueError),
        ({"k_neighbors": 5.0}, TypeError),
        ({"difficulty": 1.01}, ValueError),
        ({"difficulty": -0.01}, ValueError),
        ({"difficulty": None}, TypeError),
    ],
    ids=str,
)
def test_stage__refuses_bad_values_by_name(change, error):
    good = {"name": "a", "duration": 10, "temperature": 0.5, "k_neighbors": 5, "difficulty": 0.5}
    with pytest.raises(error, match=next(iter(change))):
        rt.CurriculumStage(**(good | change))


# --- CurriculumScheduler -------------------------------------------------------------------------------


def test_step__advances_exactly_at_the_end_of_a_stage(scheduler):
    assert scheduler.current_params().name == "a"
    scheduler.step(9)
    assert scheduler.current_params().name == "a"
    scheduler.step(1)
    assert scheduler.current_params().name == "b"
    assert scheduler.progress == 10 / 35


def test_step__carries_the_remainder_over_several_stages(scheduler):
    scheduler.step(16)
    assert scheduler.current_params().name == "c"
    scheduler.step(18)
    assert not scheduler.is_complete
    scheduler.step(1)
    assert scheduler.is_complete


def test_step__stays_in_the_last_stage(scheduler):
    scheduler.step(1000)
    assert scheduler.current_params().name == "c"
    assert scheduler.progress == 1.0
    assert scheduler.is_complete


def test_step__in_one_or_many_calls_is_the_same(scheduler):
    other = rt.CurriculumScheduler(scheduler.stages)
    for n in (3, 0, 4, 7, 2):
        scheduler.step(n)
    other.step(16)
    assert scheduler.current_params() == other.current_params()
    assert scheduler.progress == other.progress


@pytest.mark.parametrize(("n", "error"), [(-1, ValueError), (1.0, TypeError), (True, TypeError), ("3", TypeError)])
def test_step__refuses_what_is_no_count_and_counts_nothing(n, error, scheduler):
    scheduler.step(4)
    with pytest.raises(error, match="n_samples"):
        scheduler.step(n)
    assert scheduler.progress == 4 / 35


def test_reset__goes_back_to_the_first_stage(scheduler):
    scheduler.step(20)
    scheduler.reset()
    assert scheduler.current_params().name == "a"
    assert scheduler.progress == 0.0


def test_scheduler__continues_from_its_state(scheduler):
    scheduler.step(12)
    resumed = rt.CurriculumScheduler(scheduler.stages)
    resumed.load_state_dict(scheduler.state_dict())
    scheduler.step(3)
    resumed.step(3)
    assert resumed.current_params() == scheduler.current_params()
    assert resumed.progress == scheduler.progress


@pytest.mark.parametrize(
    ("stages", "error"),
    [([], ValueError), ([("a", 1, 1.0, 1)], TypeError), (3, TypeError), (stage(3), TypeError)],
)
def test_scheduler__refuses_bad_stages(stages, error):
    with pytest.raises(error, match="stages"):
        rt.CurriculumScheduler(stages)


@pytest.mark.parametrize("n", [2, 3, 4, 7, 10, 64])
def test_linear__ends_are_exact_and_steps_equal(n):
    stages = rt.CurriculumScheduler.linear(n, 1000, 5, 20, 1.0, 0.07).stages
    assert len(stages) == n
    assert (stages[0].k_neighbors, stages[0].temperature, stages[0].difficulty) == (5, 1.0, 0.0)
    assert (stages[-1].k_neighbors, stages[-1].temperature, stages[-1].difficulty) == (20, 0.07, 1.0)
    assert all(s.duration == 1000 for s in stages)
    np.testing.assert_allclose([s.temperature for s in stages], np.linspace(1.0, 0.07, n), rtol=1e-14)
    np.testing.assert_allclose([s.difficulty for s in stages], np.linspace(0, 1, n), rtol=1e-14)
    assert np.abs([s.k_neighbors for s in stages] - np.linspace(5, 20, n)).max() <= 0.5 + 1e-12


def test_linear__also_downwards_and_constant():
    down = rt.CurriculumScheduler.linear(4, 10, 10, 1, 0.1, 0.5).stages
    assert [s.k_neighbors for s in down] == [10, 7, 4, 1]
    flat = rt.CurriculumScheduler.linear(7, 10, 3, 3, 0.07, 0.07).stages
    assert all(s.k_neighbors == 3 for s in flat)
    np.testing.assert_allclose([s.temperature for s in flat], 0.07, rtol=1e-15)


def test_linear__of_one_stage_takes_the_start_values():
    (only,) = rt.CurriculumScheduler.linear(1, 10, 5, 20, 1.0, 0.1).stages
    assert (only.k_neighbors, only.temperature, only.difficulty) == (5, 1.0, 0.0)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("stages", 0, ValueError),
        ("samples_per_stage", 0, ValueError),
        ("samples_per_stage", 1.5, TypeError),
        ("k_start", 0, ValueError),
        ("k_end", True, TypeError),
        ("temperature_start", 0.0, ValueError),
        ("temperature_end", math.inf, ValueError),
    ],
)
def test_linear__refuses_bad_values_by_name(name, value, error):
    good = dict(stages=1, samples_per_stage=10, k_start=5, k_end=20, temperature_start=1.0, temperature_end=0.1)
    with pytest.raises(error, match=name):
        rt.CurriculumScheduler.linear(**(good | {name: value}))


# --- TemperatureAnnealing ------------------------------------------------------------------------------


def formula(schedule, start, end, p):
    return {
        "linear": start + (end - start) * p,
        "exponential": start * (end / start) ** p,
        "cosine": end + (start - end) * (1 + math.cos(math.pi * p)) / 2,
    }[schedule]


@pytest.mark.parametrize("ends", [(1.0, 0.05), (0.07, 0.9), (0.3, 0.3)], ids=str)
@pytest.mark.parametrize("schedule", ["linear", "exponential", "cosine"])
def test_temperature__follows_its_formula_and_is_exact_at_the_ends(schedule, ends):
    annealing = rt.TemperatureAnnealing(*ends, steps=37, schedule=schedule)
    assert annealing.temperature == ends[0]
    seen = [annealing.step() for _ in range(37)]
    expected = [formula(schedule, *ends, step / 37) for step in range(1, 38)]
    np.testing.assert_allclose(seen, expected, rtol=1e-13)
    assert seen[-1] == ends[1]
    assert annealing.step(1000) == ends[1]
    assert all(min(ends) <= t <= max(ends) for t in seen)


def test_temperature__step_schedule_drops_and_is_floored():
    annealing = rt.TemperatureAnnealing(1.0, 0.2, steps=100, schedule="step", step_size=10, gamma=0.5)
    assert annealing.step(9) == 1.0
    assert annealing.step() == 0.5
    assert annealing.step(10) == 0.25
    assert annealing.step(10) == 0.2
    assert annealing.step(10**6) == 0.2


def test_temperature__step_schedule_with_a_factor_of_one_stays():
    assert rt.TemperatureAnnealing(0.5, 0.1, schedule="step", gamma=1.0).step(10**6) == 0.5


def test_temperature__step_schedule_drops_ten_times_by_default():
    annealing = rt.TemperatureAnnealing(1.0, 1e-9, steps=100, schedule="step")
    assert annealing.step(10) == 0.5
    assert annealing.step(90) == 0.5**10
    assert rt.TemperatureAnnealing(steps=3, schedule="step").step_size == 1


def test_temperature__defaults_are_cosine_to_a_twentieth():
    annealing = rt.TemperatureAnnealing(steps=10)
    assert annealing.temperature == 1.0
    assert annealing.step(5) == pytest.approx(0.525)
    assert annealing.step(5) == 0.05


def test_annealing__resets_and_continues_from_its_state():
    annealing = rt.TemperatureAnnealing(steps=10)
    annealing.step(4)
    resumed = rt.TemperatureAnnealing(steps=10)
    resumed.load_state_dict(annealing.state_dict())
    assert resumed.step(2) == annealing.step(2)
    annealing.reset()
    assert annealing.temperature == 1.0


def test_annealing__step_refuses_what_is_no_count_and_counts_nothing():
    annealing = rt.TemperatureAnnealing(steps=10)
    for n, error in ((-1, ValueError), (0.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="n must be"):
            annealing.step(n)
    assert annealing.step(0) == 1.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"start": 0.0}, ValueError, "start"),
        ({"end": -0.1}, ValueError, "end"),
        ({"end": math.nan}, ValueError, "end"),
        ({"end": "0.1"}, TypeError, "end"),
        ({"steps": 0}, ValueError, "steps"),
        ({"steps": 10.0}, TypeError, "steps"),
        ({"schedule": "sine"}, ValueError, "schedule must be 'linear', 'exponential', 'cosine' or 'step'"),
        ({"step_size": 0}, ValueError, "step_size"),
        ({"gamma": 0.0}, ValueError, "gamma"),
        ({"gamma": 1.1}, ValueError, "gamma"),
        ({"schedule": "step", "end": 2.0}, ValueError, "end must be at most start"),
    ],
    ids=str,
)
def test_annealing__refuses_bad_values_by_name(change, error, message):
    with pytest.raises(error, match=message):
        rt.TemperatureAnnealing(**change)


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ({}, ValueError),
        ({"step": -1}, ValueError),
        ({"step": 1.5}, TypeError),
        (3, ValueError),
        ({"stop": 1}, ValueError),
    ],
    ids=str,
)
def test_load_state_dict__refuses_a_foreign_state_and_keeps_its_own(state, error):
    annealing = rt.TemperatureAnnealing(steps=10)
    before = annealing.step(3)
    with pytest.raises(error):
        annealing.load_state_dict(state)
    with pytest.raises((TypeError, ValueError)):
        rt.CurriculumScheduler([stage(3)]).load_state_dict(state)
    assert annealing.temperature == before
