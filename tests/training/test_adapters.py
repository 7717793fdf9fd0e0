"""Adapters, towers and tables: against the oracle, and their gradients against differences of it."""

import numpy as np
import pytest
import reference
from conftest import TOLERANCE, relative_error

import rvtrain as rt

ADAPTERS = {
    "linear": lambda d: rt.LinearAdapter(7, dtype=d),
    "linear, other size": lambda d: rt.LinearAdapter(7, 4, bias=True, dtype=d),
    "linear, no residual": lambda d: rt.LinearAdapter(7, residual=False, dtype=d),
    "low rank": lambda d: rt.LinearAdapter(7, rank=2, bias=True, dtype=d),
    "low rank, other size": lambda d: rt.LinearAdapter(7, 40, rank=3, dtype=d),
    "mlp": lambda d: rt.MLPAdapter(7, hidden=33, dtype=d),
    "mlp, other size": lambda d: rt.MLPAdapter(7, 4, dtype=d),
}


@pytest.fixture(params=ADAPTERS)
def adapter(request, dtype, rng):
    """An adapter away from where it starts."""
    made = ADAPTERS[request.param](dtype)
    for value in made.params.values():
        value += rng.normal(size=value.shape).astype(dtype) / 3
    return made


def oracle(adapter, x, params=None):
    function = reference.mlp_adapter if isinstance(adapter, rt.MLPAdapter) else reference.linear_adapter
    wide = {name: v.astype(np.float64) for name, v in (params or adapter.params).items()}
    return function(wide, x.astype(np.float64), adapter.residual)


@pytest.mark.parametrize("count", [1, 5, 130])
def test_forward__is_the_oracles(adapter, count, dtype, threads, rng):
    x = rng.normal(size=(count + 3, 7)).astype(dtype)
    rows = rng.integers(0, count + 3, count)
    assert relative_error(adapter.forward(x)[0], oracle(adapter, x)) < 10 * TOLERANCE[dtype]
    assert relative_error(adapter.forward_rows(x, rows)[0], oracle(adapter, x[rows])) < 10 * TOLERANCE[dtype]
    np.testing.assert_array_equal(adapter.transform(x), adapter.forward(x)[0])


def test_backward__is_the_slope_of_the_oracle(adapter, dtype, rng):
    x, rows = rng.normal(size=(9, 7)).astype(dtype), np.array([1, 1, 8, 0])
    y, saved = adapter.forward_rows(x, rows)
    grad = rng.normal(size=y.shape).astype(dtype)
    grads = adapter.backward(saved, grad)
    assert set(grads) == set(adapter.params)
    for name, value in adapter.params.items():
        slopes, step = np.empty(value.shape), 1e-5
        for place in np.ndindex(value.shape):
            sides = []
            for sign in (1, -1):
                moved = {n: v.astype(np.float64) for n, v in adapter.params.items()}
                moved[name][place] += sign * step
                sides.append((oracle(adapter, x[rows], moved) * grad).sum())
            slopes[place] = (sides[0] - sides[1]) / (2 * step)
        assert grads[name].dtype == dtype
        assert relative_error(grads[name], slopes) < max(1e-7, 20 * TOLERANCE[dtype]), name


def test_adapters__start_at_the_identity_and_repeat_by_seed(dtype, rng):
    x = rng.normal(size=(5, 7)).astype(dtype)
    for make in (rt.LinearAdapter, rt.MLPAdapter):
        np.testing.assert_allclose(make(7, dtype=dtype).transform(x), x, rtol=1e-6)
        first, second, third = (make(7, 4, seed=s, dtype=dtype).transform(x) for s in (1, 1, 2))
        np.testing.assert_array_equal(first, second)
        assert (first != third).any()
    np.testing.assert_allclose(rt.LinearAdapter(7, rank=2, dtype=dtype).transform(x), x, rtol=1e-6)


def test_mlp__is_that_of_torch(rng):
    torch = pytest.importorskip("torch")
    adapter = rt.MLPAdapter(6, 5, hidden=8)
    x = rng.normal(size=(4, 6)).astype(np.float32)
    p = {name: torch.tensor(value) for name, value in adapter.params.items()}
    h = torch.nn.functional.layer_norm(torch.tensor(x), (6,), p["gain"], p["shift"], 1e-5) @ p["weight1"] + p["bias1"]
    expected = torch.nn.functional.gelu(h, approximate="tanh") @ p["weight2"] + p["bias2"]
    assert relative_error(adapter.transform(x), expected.numpy()) < TOLERANCE[np.float32]


def test_forward__names_what_is_wrong(rng):
    adapter = rt.LinearAdapter(7)
    x = rng.normal(size=(5, 7)).astype(np.float32)
    for bad, message in ((x[:, :6], "x must have shape"), (x[0], "x must have 2"), (x[:0], "x must not be empty")):
        with pytest.raises(ValueError, match=message):
            adapter.forward(bad)
    with pytest.raises(TypeError, match="x must be an array of real numbers"):
        adapter.forward(x > 0)
    with pytest.raises(ValueError, match="rows must"):
        adapter.forward_rows(x, [5])
    with pytest.raises(ValueError, match="grad must have the shape"):
        adapter.backward(adapter.forward(x)[1], x[:2])
    with pytest.raises(ValueError, match="residual needs"):
        rt.LinearAdapter(7, 4, residual=True)
    with pytest.raises(TypeError, match="dtype"):
        rt.MLPAdapter(7, dtype=np.int32)
    with pytest.raises(ValueError, match="rank must be"):
        rt.LinearAdapter(7, rank=0)


def test_two_tower__shares_or_does_not(rng):
    adapter = rt.LinearAdapter(4)
    shared, apart = rt.TwoTower(adapter), rt.TwoTower(adapter, rt.LinearAdapter(6, 4))
    assert shared.is_shared and not apart.is_shared
    assert shared.params["weight"] is adapter.params["weight"]
    with pytest.raises(ValueError, match="outputs of one size"):
        rt.TwoTower(adapter, rt.LinearAdapter(4, 5))
    with pytest.raises(TypeError, match="query must be"):
        rt.TwoTower(np.eye(3))


def test_embedding_table__gives_rows(dtype):
    table = rt.EmbeddingTable(10, 4, dtype=dtype)
    assert table.weight.dtype == dtype
    np.testing.assert_array_equal(table.transform([3, 3]), table.weight[[3, 3]])
    with pytest.raises(ValueError, match=r"ids must lie in \[0, 9\], got 10"):
        table.transform([10])
