"""Steps after the first one, of arrays that need no copy: the same as all others, with all their checks."""

import numpy as np
import pytest

import rvtrain as rt

MAKERS = {
    "SGD": lambda like: rt.SGD(like, lr=0.1),
    "AdamW": lambda like: rt.AdamW(like, lr=0.1),
    "AdamW int8": lambda like: rt.AdamW(like, lr=0.1, state_dtype="int8"),
    "Adagrad rowwise": lambda like: rt.Adagrad(like, lr=0.1, rowwise=True),
    "group": lambda like: rt.Adam(like, lr=0.1, groups={"b": {"lr": lambda step: 0.1 / (1 + step)}}),
}


def arrays(rng):
    return {"a": rng.standard_normal((5, 7)), "b": rng.standard_normal((3, 4))}


@pytest.mark.parametrize("options", [{}, {"max_norm": 0.5}, {"max_norm": 1e3}, {"zero_grads": True}])
@pytest.mark.parametrize("name", MAKERS)
def test_step__is_the_same_as_one_with_a_known_norm(name, options):
    rng = np.random.default_rng(0)
    params = arrays(rng)
    other = {key: x.copy() for key, x in params.items()}
    plain, general = MAKERS[name](params), MAKERS[name](params)
    for _ in range(4):
        grads = arrays(rng)
        norm = np.sqrt(sum(float((x.reshape(-1) ** 2).sum()) for x in grads.values()))
        copies = {key: x.copy() for key, x in grads.items()}
        found = plain.step(params, grads, **options)
        general.step(other, copies, **options, grad_norm=found or norm)
        assert found == (pytest.approx(norm) if "max_norm" in options else None)
        for key in grads:
            np.testing.assert_array_equal(grads[key], copies[key])
            assert grads[key].any() == ("zero_grads" not in options)
    for key in params:
        np.testing.assert_array_equal(params[key], other[key])
    saved, wanted = plain.state_dict(), general.state_dict()
    for key in wanted:
        np.testing.assert_array_equal(saved[key], wanted[key])


def test_step__of_views_of_one_array():
    memory, other = np.ones(20), np.ones(10)
    optimizer, general = rt.AdamW(10, lr=0.1), rt.AdamW(10, lr=0.1)
    for _ in range(3):
        optimizer.step(memory[:10], memory[10:])
        general.step(other, np.ones(10), grad_norm=1.0)
    np.testing.assert_array_equal(memory, np.concatenate([other, np.ones(10)]))


def locked(x):
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda p, g: (locked(p), g), ValueError),
        (lambda p, g: (p.reshape(4, 3), g), ValueError),
        (lambda p, g: (p, g[:2]), ValueError),
        (lambda p, g: (p.astype(np.float32), g.astype(np.float32)), TypeError),
        (lambda p, g: (p, p), ValueError),
        (lambda p, g: (p, p[:]), ValueError),
        (lambda p, g: (p, g * np.array([1.0, np.nan, 1.0, 1.0])), ValueError),
    ],
)
def test_step__after_a_change_of_an_array_raises_and_leaves_all_as_they_are(single, change, error):
    rng = np.random.default_rng(0)
    params, grads = arrays(rng), arrays(rng)
    optimizer = rt.AdamW(params["b"] if single else params, lr=0.1)

    def step():
        optimizer.step(*((params["b"], grads["b"]) if single else (params, grads)))

    step()
    step()
    params["b"], grads["b"] = change(params["b"], grads["b"])
    before = {key: x.copy() for key, x in params.items()}
    state = optimizer.state_dict()
    with pytest.raises(error):
        step()
    for key, x in before.items():
        np.testing.assert_array_equal(params[key], x)
    after = optimizer.state_dict()
    for key in state:
        np.testing.assert_array_equal(after[key], state[key])


def test_step__of_an_array_that_was_resized_in_place():
    params, grads = np.ones(4), np.ones(4)
    optimizer = rt.SGD(params, lr=0.5)
    optimizer.step(params, grads)
    optimizer.step(params, grads)
    params.resize(10_000, refcheck=False)  # moves its memory
    params.resize(4, refcheck=False)
    optimizer.step(params, grads)
    np.testing.assert_array_equal(params, np.full(4, -0.5))
    params.resize(5, refcheck=False)
    with pytest.raises(ValueError, match=r"params must have shape \(4,\), got \(5,\)"):
        optimizer.step(params, grads)


def test_step__counts_what_it_skips_of_several_arrays():
    params, grads = {"a": np.ones(3), "b": np.ones(3)}, {"a": np.ones(3), "b": np.ones(3)}
    optimizer = rt.SGD(params, lr=0.5, nonfinite="skip")
    optimizer.step(params, grads)
    grads["b"][1] = np.inf
    optimizer.step(params, grads)
    assert optimizer.skipped == 1
    np.testing.assert_array_equal(params["a"], np.full(3, 0.5))


def test_step__of_a_group_whose_schedule_fails_changes_nothing():
    def schedule(step):
        return 0.1 if step < 1 else -1.0

    params = {"a": np.ones(3), "b": np.ones(3)}
    grads = {"a": np.ones(3), "b": np.ones(3)}
    optimizer = rt.SGD(params, lr=0.5, groups={"b": {"lr": schedule}})
    optimizer.step(params, grads)
    with pytest.raises(ValueError, match="lr"):
        optimizer.step(params, grads)
    np.testing.assert_array_equal(params["a"], np.full(3, 0.5))
    assert optimizer.state_dict()["state/a/step"] == 1
