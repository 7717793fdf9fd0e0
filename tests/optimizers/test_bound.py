"""Bound steps: the same as plain ones, whatever happens to the optimizer and the arrays in between."""

import copy
import pickle

import numpy as np
import pytest

import rvtrain as rt

KINDS = {
    "sgd": ("SGD", {"momentum": 0.9}),
    "adamw": ("AdamW", {}),
    "amsgrad int8": ("Adam", {"amsgrad": True, "state_dtype": "int8"}),
    "lion bfloat16": ("Lion", {"state_dtype": "bfloat16"}),
    "adagrad": ("Adagrad", {}),
    "adagrad rowwise": ("Adagrad", {"rowwise": True}),
    "schedule-free": ("ScheduleFreeAdamW", {}),
}
SHAPES = {"table": (6, 5), "bias": (5,), "large": (70, 80)}


def arrays(rng, dtype=np.float32):
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}


def pair(kind, params, **more):
    """Two equal optimizers with equal parameters."""
    name, options = KINDS[kind]
    return [(getattr(rt, name)(params, lr=0.02, **options, **more), copy.deepcopy(params)) for _ in range(2)]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("options", [{}, {"max_norm": 0.5}, {"max_norm": 1e6, "zero_grads": True}], ids=str)
def test_bound__is_the_plain_step_to_the_bit(kind, options, dtype, rng):
    groups = {"b*": {"lr": 0.3}, "large": {"lr": rt.exponential_decay(0.1, 0.5)}}
    (one, expected), (two, params) = pair(kind, arrays(rng, dtype), groups=groups)
    grads = {name: np.empty_like(p) for name, p in params.items()}
    bound = two.bind(params, grads, **options)
    for step in range(6):
        given = arrays(rng, dtype)
        for name, g in given.items():
            grads[name][...] = g
        one.learning_rate = two.learning_rate = 0.02 / (step + 1)
        assert bound.step() == one.step(expected, given, **options)
        for name in params:
            np.testing.assert_array_equal(params[name], expected[name])
            assert not options.get("zero_grads") or not grads[name].any()


def test_bound__of_one_small_array_that_overflows_its_dot_product(dtype):
    p, g = np.zeros(3, dtype), np.full(3, np.finfo(dtype).max / 4, dtype)
    optimizer = rt.SGD(3, lr=1.0)
    optimizer.bind(p, g).step()
    np.testing.assert_array_equal(p, -g)


def test_bound__follows_other_steps_reset_and_loaded_states(kind, rng):
    (one, expected), (two, params) = pair(kind, arrays(rng), lazy="exact")
    grads = arrays(rng)
    bound = two.bind(params, grads)
    for step in range(14):
        if step % 4 == 1:  # rows, after which the whole table has steps to make up for
            rows, few = {"table": [1, 3]}, grads | {"table": grads["table"][:2].copy()}
            one.step(expected, few, rows)
            two.step(params, few, rows)
            continue
        if step == 6:
            one.reset()
            two.reset()
        if step == 10:
            one.load_state_dict(two.state_dict())
            two.load_state_dict(one.state_dict())
        one.step(expected, grads)
        bound.step()
        for name in params:
            np.testing.assert_array_equal(params[name], expected[name])


def test_bound__copies_are_bound_to_the_copied_arrays(kind, rng):
    (optimizer, params), _ = pair(kind, arrays(rng))
    grads = arrays(rng)
    bound = optimizer.bind(params, grads)
    bound.step()
    for copied in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        twin, twin_params = copied((bound, params))
        before = copy.deepcopy(params)
        twin.step()
        for name, p in params.items():
            np.testing.assert_array_equal(p, before[name])
        bound.step()
        for name, p in params.items():
            np.testing.assert_array_equal(p, twin_params[name])


@pytest.mark.parametrize("nonfinite", ["raise", "skip", "ignore"])
@pytest.mark.parametrize("shape", [(5,), (70, 80)], ids=str)
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_bound__gradients_that_are_not_finite(nonfinite, shape, max_norm):
    p, g = np.ones(shape), np.ones(shape)
    optimizer = rt.AdamW(p, nonfinite=nonfinite)
    bound = optimizer.bind(p, g, max_norm=max_norm, zero_grads=True)
    bound.step()
    before, state = p.copy(), optimizer.state_dict()
    g[...] = 1.0
    g[-1] = np.nan
    if nonfinite == "raise":
        with pytest.raises(ValueError, match="grads must be finite"):
            bound.step()
        assert np.isnan(g).any()
    else:
        bound.step()
        assert optimizer.skipped == (nonfinite == "skip") and not g.any()
    if nonfinite == "ignore":
        assert np.isnan(p).any()
    else:
        np.testing.assert_array_equal(p, before)
        for key, value in optimizer.state_dict().items():
            assert key == "skipped" or np.array_equal(value, state[key])


def test_bound__refuses_another_array_in_its_dict_and_the_parameters_of_eval():
    params, grads = {"w": np.ones(3)}, {"w": np.ones(3)}
    bound = rt.SGD(params, 0.1).bind(params, grads)
    bound.step()
    for replaced in (params, grads):
        old, replaced["w"] = replaced["w"], np.ones(3)
        with pytest.raises(RuntimeError, match="'w' is another array than the one that was bound"):
            bound.step()
        replaced["w"] = old
    bound.step()
    averaging = rt.ScheduleFreeAdamW(3)
    bound = averaging.bind(params["w"], grads["w"])
    bound.step()
    averaging.eval(params["w"])
    with pytest.raises(RuntimeError, match=r"optimizer.train\(params\)"):
        bound.step()


X = np.ones((4, 4))
FROZEN = np.ones(4)
FROZEN.flags.writeable = False


@pytest.mark.parametrize(
    ("params", "grads", "message"),
    [
        (X[:, 0], np.ones(4), "params must be C-contiguous, writeable and of dtype float64 to be bound"),
        (np.ones(4), X[:, 0], "grads must be C-contiguous"),
        (np.ones(4), np.ones(4, np.float32), "grads must be .* of dtype float64 to be bound, got .* float32"),
        (np.ones(4), FROZEN, "grads must be .* writeable"),
        (FROZEN, np.ones(4), "params must be writeable"),
        (np.ones(3), np.ones(4), "params must have shape"),
        (X[0], X[0], "grads must not share memory"),
    ],
)
def test_bind__refuses_what_would_be_copied(params, grads, message):
    with pytest.raises(ValueError, match=message):
        rt.SGD(4, 0.1).bind(params, grads)


def test_bind__refuses_bad_options_and_shared_gradients_that_are_to_be_zeroed():
    p, g = {"a": np.ones(3), "b": np.ones(3)}, np.ones(3)
    optimizer = rt.SGD(p, 0.1)
    optimizer.bind(p, {"a": g, "b": g}).step()
    with pytest.raises(ValueError, match="must not share memory with another gradient to be bound with zero_grads"):
        optimizer.bind(p, {"a": g, "b": g}, zero_grads=True)
    with pytest.raises(ValueError, match="max_norm must be"):
        optimizer.bind(p, {"a": g, "b": g}, max_norm=-1.0)
    with pytest.raises(TypeError, match="zero_grads must be True or False"):
        optimizer.bind(p, {"a": g, "b": g}, zero_grads=1)


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("max_norm", [None, 0.5, 100.0])
def test_grad_norm__is_trusted(bound, max_norm, dtype, rng):
    expected, g = rng.normal(size=(2, 300)).astype(dtype)
    p = expected.copy()
    one, two = rt.AdamW(300), rt.AdamW(300)
    run = two.bind(p, g, max_norm=max_norm).step if bound else None
    for _ in range(3):
        norm = float(np.linalg.norm(g.astype(np.float64)))
        found = one.step(expected, g, max_norm=max_norm)
        mine = run(grad_norm=norm) if run else two.step(p, g, max_norm=max_norm, grad_norm=norm)
        assert (found is None) == (mine is None) and mine in (None, norm)
        np.testing.assert_allclose(p, expected, rtol=1e-6 if dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("bound", [False, True])
def test_grad_norm__that_is_not_finite_or_no_norm(bound):
    for nonfinite in ("raise", "skip", "ignore"):
        p, g = np.ones(3), np.ones(3)
        optimizer = rt.SGD(3, 0.1, nonfinite=nonfinite)
        run = optimizer.bind(p, g).step if bound else lambda *, o=optimizer, p=p, g=g, **more: o.step(p, g, **more)
        run(grad_norm=1.0)
        before = p.copy()
        if nonfinite == "raise":
            with pytest.raises(ValueError, match="grad_norm must be finite, got nan"):
                run(grad_norm=np.nan)
        else:
            run(grad_norm=np.inf)
        assert optimizer.skipped == (nonfinite == "skip")
        assert np.array_equal(p, before) == (nonfinite != "ignore")
        for wrong, error in ((-1.0, ValueError), ("1", TypeError), (True, TypeError)):
            with pytest.raises(error, match="grad_norm must be"):
                run(grad_norm=wrong)
