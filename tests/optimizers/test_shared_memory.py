"""Parameters and gradients that have memory in common: taken where that is harmless, refused by name else."""

import re

import numpy as np
import pytest

import rvtrain as rt


def test_zero_grads__one_gradient_under_two_names_steps_both(rng):
    whole = rng.normal(size=(8, 8))
    for make_grads in (lambda g: {"a": g[:4], "b": g[:4]}, lambda g: {"a": g[:4], "b": g[2:6]}):
        for rows in (None, {"a": [0, 1, 2, 3], "b": [3, 1, 0, 2]}):
            results = []
            for copied in (True, False):
                params = {"a": np.ones((4, 8)), "b": np.ones((4, 8))}
                grads = make_grads(whole.copy())
                grads = {name: g.copy() for name, g in grads.items()} if copied else grads
                rt.AdamW(params, 0.02).step(params, grads, rows, zero_grads=True)
                assert not any(g.any() for g in grads.values())
                results.append(params)
            for name in params:
                np.testing.assert_array_equal(results[1][name], results[0][name])


@pytest.mark.parametrize(
    ("a", "b", "grad_a", "grad_b", "first", "second"),
    [
        (slice(3), slice(3, 6), slice(6, 9), slice(3), "params['a']", "grads['b']"),
        (slice(3), slice(3, 6), slice(5, 8), slice(9, 12), "params['b']", "grads['a']"),
        (slice(3), slice(2, 5), slice(6, 9), slice(9, 12), "params['a']", "params['b']"),
        (slice(3), slice(2, None, -1), slice(6, 9), slice(9, 12), "params['a']", "params['b']"),
    ],
    ids=["another's", "a part of another's", "params", "params reversed"],
)
def test_step__refuses_memory_that_is_shared(a, b, grad_a, grad_b, first, second):
    x = np.ones(12)
    optimizer = rt.SGD({"a": 3, "b": 3}, 0.1)
    with pytest.raises(ValueError, match=re.escape(f"{second} must not share memory with {first}")):
        optimizer.step({"a": x[a], "b": x[b]}, {"a": x[grad_a], "b": x[grad_b]})
    assert (x == 1).all()


def test_step__takes_views_that_interleave():
    x = np.ones((3, 4))
    params, grads = {"a": x[:, ::4], "b": x[::-1, 1::4]}, {"a": x[:, 2::4], "b": x[:, 3::4]}
    rt.SGD(params, 0.5).step(params, grads, zero_grads=True)
    np.testing.assert_array_equal(x, [[0.5, 0.5, 0, 0]] * 3)
