"""clip_grad_norm and the learning-rate schedules, against torch and their formulas."""

import math

import numpy as np
import pytest

import rvtrain as rt


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 1e6])
def test_clip_grad_norm__matches_torch(max_norm, dtype, rng):
    torch = pytest.importorskip("torch")
    grads = {"a": rng.normal(size=(70, 301)).astype(dtype), "b": rng.normal(size=5).astype(dtype)}
    parameters = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.tensor(g).dtype)) for g in grads.values()]
    for parameter, g in zip(parameters, grads.values(), strict=True):
        parameter.grad = torch.tensor(g)
    expected = torch.nn.utils.clip_grad_norm_(parameters, max_norm).item()
    assert rt.clip_grad_norm(grads, max_norm) == pytest.approx(expected, rel=1e-5 if dtype == np.float32 else 1e-12)
    for parameter, g in zip(parameters, grads.values(), strict=True):
        np.testing.assert_allclose(g, parameter.grad.numpy(), rtol=1e-5 if dtype == np.float32 else 1e-12)


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


def test_schedules__match_torch():
    torch = pytest.importorskip("torch")
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


@pytest.mark.parametrize("schedule", [rt.warmup_cosine(2.0, 10, 30, 0.5), rt.warmup_linear(2.0, 10, 30, 0.5)])
def test_warmup__rises_then_falls_to_the_end(schedule):
    assert [schedule(step) for step in (0, 5, 10, 30, 1000)] == [0.0, 1.0, 2.0, 0.5, 0.5]
    assert schedule(20) == pytest.approx(1.25)
    assert math.isclose(schedule(9), 1.8)


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
