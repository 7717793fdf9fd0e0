"""EMA against its formula and torch's."""

import copy
import pickle

import numba
import numpy as np
import pytest
from conftest import TOLERANCE, import_torch, relative_error

import rvtrain as rt


def test_update__follows_the_formula(dtype, threads, rng):
    params = {"a": rng.normal(size=(400, 301)).astype(dtype), "b": rng.normal(size=7).astype(dtype)}
    ema, expected = rt.EMA(params, 0.9), {name: value.astype(np.float64) for name, value in params.items()}
    for _ in range(20):
        for name, value in params.items():
            value += rng.normal(size=value.shape).astype(dtype)
            expected[name] = 0.9 * expected[name] + (1 - 0.9) * value
        ema.update(params)
    for name, value in expected.items():
        assert ema.average[name].dtype == dtype
        assert relative_error(ema.average[name], value) <= TOLERANCE[dtype]


def test_update__same_bits_for_any_number_of_threads(dtype, rng):
    start, p = (rng.normal(size=100_001).astype(dtype) for _ in range(2))
    before, results = numba.get_num_threads(), []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            ema = rt.EMA(start, 0.9)
            ema.update(p)
            results.append(ema.average.tobytes())
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.999, 0.99999, 0.999999])
def test_update__the_average_of_a_constant_is_the_constant(decay, dtype, rng):
    p = rng.normal(size=50).astype(dtype)
    ema = rt.EMA(p, decay)
    for _ in range(2000):
        ema.update(p)
    np.testing.assert_array_equal(ema.average, p)


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.999, 0.99999])
def test_update__rounds_no_worse_than_torch_over_many_steps(decay, rng):
    """float32, from 0 towards a constant: the smaller 1 − β, the more of a step is lost to rounding, in both."""
    torch = import_torch()
    p, ema, peer = rng.normal(size=50).astype(np.float32), rt.EMA(np.zeros(50, np.float32), decay), torch.zeros(50)
    for _ in range(2000):
        ema.update(p)
        peer.lerp_(torch.from_numpy(p), 1.0 - decay)
    expected = (1.0 - decay**2000) * p.astype(np.float64)
    assert relative_error(ema.average, expected) <= max(1.5 * relative_error(peer.numpy(), expected), 1e-6)


def test_update__matches_torch(rng):
    torch = import_torch()
    from torch.optim.swa_utils import get_ema_multi_avg_fn

    p, average = rng.normal(size=(2, 50))
    peer = torch.tensor(average.copy())
    ema = rt.EMA(average, 0.99)
    get_ema_multi_avg_fn(0.99)([peer], [torch.tensor(p)], 1)
    ema.update(p)
    np.testing.assert_allclose(ema.average, peer.numpy(), rtol=1e-12)


def test_update__takes_strided_arrays_and_keeps_its_own_copy(dtype, rng):
    p = rng.normal(size=(6, 8)).astype(dtype)
    ema = rt.EMA(p[::2, ::2], 0.5)
    before = p.copy()
    ema.update(p[1::2, 1::2])
    np.testing.assert_array_equal(p, before)
    np.testing.assert_allclose(ema.average, (p[::2, ::2] + p[1::2, 1::2]) / 2, rtol=1e-6)


def test_state_dict__goes_on_to_the_bit(tmp_path, rng):
    params = {"w": rng.normal(size=(3, 4))}
    ema, twin = rt.EMA(params, 0.8), rt.EMA({"w": np.zeros((3, 4))})
    ema.update({"w": params["w"] * 2})
    rt.save_checkpoint(tmp_path / "ema.npz", ema=ema)
    twin.load_state_dict(rt.load_checkpoint(tmp_path / "ema.npz")["ema"])
    others = [twin, pickle.loads(pickle.dumps(ema)), copy.deepcopy(ema)]
    for one in (ema, *others):
        one.update(params)
    for one in others:
        np.testing.assert_array_equal(one.average["w"], ema.average["w"])
    with pytest.raises(ValueError, match=r"average/w must have shape \(2,\)"):
        rt.EMA({"w": np.zeros(2)}).load_state_dict(ema.state_dict())


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (np.ones((2, 2)), ValueError, "params must be"),
        ({"v": np.ones(3)}, ValueError, "params must be"),
        ({"w": np.ones(4)}, ValueError, r"params\['w'\] must have shape \(3,\)"),
        ({"w": np.ones(3, np.float32)}, ValueError, "dtype float64, got .* float32"),
        ({"w": np.ones(3, int)}, TypeError, r"params\['w'\] must be float32 or float64"),
    ],
)
def test_update__refuses_what_does_not_fit_and_changes_nothing(params, error, message):
    ema = rt.EMA({"w": np.zeros(3)})
    with pytest.raises(error, match=message):
        ema.update(params)
    assert not ema.average["w"].any()


def test_constructor__refuses_keys_that_are_no_strings():
    with pytest.raises(TypeError, match="params must have strings for keys, got 0"):
        rt.EMA({0: np.zeros(3), "0": np.ones(3)})
