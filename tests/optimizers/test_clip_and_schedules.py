"""clip_grad_norm and the learning-rate schedules, against torch and their formulas."""

import copy
import math
import pickle

import numpy as np
import pytest
import reference
from conftest import import_torch

import rvtrain as rt


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 1e6])
def test_clip_grad_norm__matches_torch(max_norm, dtype, rng):
    torch = import_torch()
    grads = {"a": rng.normal(size=(70, 301)).astype(dtype), "b": rng.normal(size=5).astype(dtype)}
    parameters = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.tensor(g).dtype)) for g in grads.values()]
    for parameter, g in zip(parameters, grads.values(), strict=True):
        parameter.grad = torch.tensor(g)
    expected = torch.nn.utils.clip_grad_norm_(parameters, max_norm).item()
    assert rt.clip_grad_norm(grads, max_norm) == pytest.approx(expected, rel=1e-5 if dtype == np.float32 else 1e-12)
    for parameter, g in zip(parameters, grads.values(), strict=True):
        np.testing.assert_allclose(g, parameter.grad.numpy(), rtol=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("count", [16_385, 32_768, 32_769, 49_152, 70_001])
def test_norm_and_check__read_every_element(count, dtype, rng):
    """Arrays are read by pieces of 16,384 elements, the last of which may be shorter."""
    g = rng.normal(size=count).astype(dtype)
    expected = math.sqrt(math.fsum(g.astype(np.float64) ** 2))
    assert rt.clip_grad_norm(g.copy(), 1e9) == pytest.approx(expected, rel=1e-13)
    p, optimizer = np.ones(count, dtype), rt.SGD(count, lr=1.0)
    for place in [*range(0, count, 7_001), 16_383, 16_384, count - 1]:
        usual, g[place] = g[place], np.inf if place % 2 else np.nan
        with pytest.raises(ValueError, match=rf"at \[{place}\]"):
            optimizer.step(p, g)
        with pytest.raises(ValueError, match=rf"at \[{place}\]"):
            optimizer.step(p, g, max_norm=1.0)
        g[place] = usual
    assert (p == 1).all()


def test_clip__of_no_elements():
    assert rt.clip_grad_norm(np.empty(0), 1.0) == 0.0
    table = np.ones((3, 2))
    assert rt.SGD(table, lr=1.0).step(table, np.empty((0, 2)), rows=np.empty(0, np.int64), max_norm=1.0) == 0.0


def test_clip_grad_norm__works_on_strided_arrays(dtype):
    whole = np.full((4, 4), 3, dtype)
    assert rt.clip_grad_norm(whole[::2, ::2], 1.5) == pytest.approx(6.0)
    np.testing.assert_allclose(whole[::2, ::2], 0.75, rtol=1e-5)
    assert (whole[1::2] == 3).all()


def test_clip_grad_norm__refuses_and_changes_nothing():
    grads = {"a": np.ones(3), "b": np.array([1.0, np.inf])}
    with pytest.raises(ValueError, match=r"grads\['b'\] must be finite"):
        rt.clip_grad_norm(grads, 0.1)
    assert (grads["a"] == 1).all()
    with pytest.raises(ValueError, match="max_norm"):
        rt.clip_grad_norm(np.ones(2), 0.0)
    with pytest.raises(TypeError, match="grads must be an array"):
        rt.clip_grad_norm([1.0], 1.0)


def test_clip_grad_norm__scales_memory_that_two_names_have_once():
    g = np.full(6, 3.0)
    norm = rt.clip_grad_norm({"a": g[:4], "b": g[2:], "c": g[:4]}, 1.0)
    assert norm == pytest.approx(np.sqrt(12 * 9))
    np.testing.assert_allclose(g, 3.0 / norm, rtol=1e-6)


def test_schedules__match_torch():
    torch = import_torch()
    schedulers = torch.optim.lr_scheduler
    pairs = [
        (rt.exponential_decay(0.3, 0.9), lambda o: schedulers.ExponentialLR(o, 0.9)),
        (rt.step_decay(0.3, 0.5, 7), lambda o: schedulers.StepLR(o, 7, 0.5)),
        (rt.warmup_cosine(0.3, 0, 50, 0.01), lambda o: schedulers.CosineAnnealingLR(o, 50, 0.01)),
        (rt.warmup_linear(0.3, 0, 50, 0.03), lambda o: schedulers.LinearLR(o, 1.0, 0.1, 50)),
    ]
    for schedule, scheduler in pairs:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
        peer = scheduler(optimizer)
        for step in range(50):
            assert schedule(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
            optimizer.step()
            peer.step()


@pytest.mark.parametrize("warmup", [0, 1, 10])
@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_warmup__follows_the_formula_and_ends_at_the_end(shape, warmup):
    schedule = getattr(rt, f"warmup_{shape}")(2.0, warmup, 30, 0.5)
    rates = [schedule(step) for step in range(40)]
    np.testing.assert_allclose(
        rates, [reference.warmup(step, 2.0, warmup, 30, 0.5, shape) for step in range(40)], rtol=1e-13
    )
    assert rates[warmup] == 2.0 == max(rates) and rates[30:] == [0.5] * 10
    assert (np.diff(rates[: warmup + 1]) > 0).all() and (np.diff(rates[warmup:31]) < 0).all()


def test_warmup__matches_torch():
    torch = import_torch()
    schedulers = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    rise = schedulers.LinearLR(optimizer, 1 / 11, 1.0, 10)
    peer = schedulers.SequentialLR(optimizer, [rise, schedulers.CosineAnnealingLR(optimizer, 40, 0.01)], [10])
    schedule = rt.warmup_cosine(0.3, 10, 50, 0.01)
    for step in range(50):
        assert schedule(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        peer.step()


@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (1, 2), (0, 5), (3, 5), (4, 5)])
@pytest.mark.parametrize("make", [rt.warmup_cosine, rt.warmup_linear])
def test_warmup__every_step_of_a_run_learns(make, warmup, total):
    assert all(make(0.1, warmup, total)(step) > 0 for step in range(total))
    assert make(0.1, 0, 1)(0) == 0.1


SCHEDULES = [
    "constant(lr=0.1)",
    "warmup_cosine(peak=0.1, warmup_steps=3, total_steps=9, end=0.0)",
    "warmup_linear(peak=0.1, warmup_steps=3, total_steps=9, end=0.01)",
    "exponential_decay(lr=0.1, decay_rate=0.9, decay_steps=2)",
    "step_decay(lr=0.1, factor=0.5, every=3)",
]


@pytest.mark.parametrize("text", SCHEDULES)
def test_schedules__print_compare_pickle_and_copy(text):
    schedule = eval(f"rt.{text}")
    assert repr(schedule) == text
    for twin in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule), eval(f"rt.{text}")):
        assert twin == schedule and hash(twin) == hash(schedule)
        assert [twin(step) for step in range(12)] == [schedule(step) for step in range(12)]
    assert [eval(f"rt.{other}") == schedule for other in SCHEDULES].count(True) == 1
    assert rt.warmup_cosine(1.0, 3, 9) != rt.warmup_linear(1.0, 3, 9)
    with pytest.raises(AttributeError):
        schedule.lr = 0.5


def test_schedules__drive_an_optimizer():
    optimizer, schedule = rt.SGD(1, 1.0), rt.step_decay(1.0, 0.5, 1)
    p = np.zeros(1)
    for step in range(3):
        optimizer.learning_rate = schedule(step)
        optimizer.step(p, np.ones(1))
    assert p[0] == -1.75


def test_schedules__refuse_bad_arguments():
    with pytest.raises(ValueError, match="total_steps must be at least 11"):
        rt.warmup_cosine(1.0, 10, 10)
    with pytest.raises(ValueError, match="factor"):
        rt.step_decay(1.0, 0.0, 5)
    with pytest.raises(ValueError, match="step must be at least 0"):
        rt.constant(0.1)(-1)
