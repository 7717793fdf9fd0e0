"""Schedule-Free AdamW: the average that `eval` makes of the parameters, and back."""

import numpy as np
import pytest
import reference
from conftest import TOLERANCE, relative_error

import rvtrain as rt

OPTIONS = {"betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.05, "warmup_steps": 5}


@pytest.mark.parametrize("lazy", ["idle", "exact"])
def test_eval__is_the_average_and_train_goes_on(lazy, dtype, rng):
    params = {"table": rng.normal(size=(7, 4)).astype(dtype), "bias": np.zeros((6,), dtype)[::2]}
    expected = {name: p.astype(np.float64) for name, p in params.items()}
    states = {name: {} for name in params}
    optimizer = rt.ScheduleFreeAdamW(params, lr=0.05, lazy=lazy, **OPTIONS)
    optimizer.eval(params)  # nothing to do before the first step
    for step in range(60):
        grads = {name: rng.normal(size=p.shape).astype(dtype) for name, p in params.items()}
        rows = None if lazy == "idle" or step % 2 else {"table": rng.choice(7, 3, replace=False)}
        given = grads if rows is None else grads | {"table": grads["table"][rows["table"]]}
        if rows is not None:
            grads["table"][np.setdiff1d(np.arange(7), rows["table"])] = 0
        optimizer.train(params)
        optimizer.step(params, given, rows)
        for name, g in grads.items():
            expected[name] = reference.schedule_free_step(
                expected[name], g.astype(np.float64), states[name], 0.05, **OPTIONS
            )
        if step % 20 == 19:
            optimizer.eval(params)
            optimizer.eval(params)  # nothing more
            for name, p in params.items():
                assert relative_error(p, states[name]["x"]) < TOLERANCE[dtype]
    optimizer.train(params)
    for name, p in params.items():
        assert relative_error(p, expected[name]) < TOLERANCE[dtype]


def test_step__refuses_the_parameters_of_eval_also_after_loading():
    p, optimizer = np.ones(3), rt.ScheduleFreeAdamW(3)
    optimizer.step(p, np.ones(3))
    optimizer.eval(p)
    loaded = rt.ScheduleFreeAdamW(3)
    loaded.load_state_dict(optimizer.state_dict())
    for one in (optimizer, loaded):
        before = p.copy()
        with pytest.raises(RuntimeError, match=r"call optimizer.train\(params\)"):
            one.step(p, np.ones(3))
        np.testing.assert_array_equal(p, before)
    loaded.train(p)
    loaded.step(p, np.ones(3))


@pytest.mark.parametrize(
    ("params", "error"), [(np.ones(4), ValueError), (np.ones(3, np.float32), TypeError), ([1.0, 2.0, 3.0], TypeError)]
)
def test_eval__refuses_what_does_not_fit(params, error):
    p, optimizer = np.ones(3), rt.ScheduleFreeAdamW(3)
    optimizer.step(p, np.ones(3))
    with pytest.raises(error, match="params"):
        optimizer.eval(params)


def test_trainer__evaluates_the_average(rng):
    x = rng.normal(size=(64, 8)).astype(np.float32)
    model = rt.LinearAdapter(8, 8, seed=0)
    optimizer = rt.ScheduleFreeAdamW(model.params, lr=0.01)
    trainer = rt.Trainer(model, rt.InfoNCELoss(0.1), optimizer, epochs=3, batch_size=16, progress=False)
    trainer.fit(x, x + rng.normal(scale=0.1, size=x.shape).astype(np.float32))
    assert np.isfinite(trainer.history["loss"][1:]).all()
