"""Adapters that are solutions: against what they minimise, SciPy and scikit-learn."""

import copy

import numpy as np
import pytest
from conftest import relative_error

import rvtrain as rt

SIZES = [(40, 6, 6), (40, 4, 7), (40, 7, 4), (3, 6, 6), (9001, 5, 3), (1, 1, 1)]


def tables(rng, n, d, m, dtype=np.float64):
    """Rows with means and scales of their own, and others that depend on them."""
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 3 * rng.normal(size=d)
    return x.astype(dtype), (x @ rng.normal(size=(d, m)) + rng.normal(size=(n, m)) + 2).astype(dtype)


def rounded(dtype):
    return 3e-6 if dtype == np.float32 else 1e-11


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_procrustes__is_the_nearest_of_all_rotations(size, bias, rng):
    x, y = tables(rng, *size)
    adapter = rt.LinearAdapter.procrustes(x, y, bias=bias)
    weight = adapter.params["weight"]
    assert adapter.bias == bias and not adapter.residual and adapter.dtype == np.float64
    x0, y0 = (x - x.mean(axis=0), y - y.mean(axis=0)) if bias else (x, y)
    few = min(size[1:])
    np.testing.assert_allclose(
        weight @ weight.T if size[1] <= size[2] else weight.T @ weight, np.eye(few), atol=1e-12
    )
    if bias:
        np.testing.assert_allclose(adapter.transform(x).mean(axis=0), y.mean(axis=0))
    # Σ⟨xW, y⟩ is the sum of the singular values, which no such W exceeds.
    best = np.linalg.svd(x0.T @ y0, compute_uv=False).sum()
    assert np.vdot(x0 @ weight, y0) == pytest.approx(best, rel=1e-11, abs=1e-9)
    for _ in range(20):
        other = np.linalg.qr(rng.normal(size=(max(size[1:]), few)))[0]
        assert np.vdot(x0 @ (other if size[1] >= size[2] else other.T), y0) <= best + 1e-9


def test_procrustes__is_that_of_scipy(dtype, rng):
    linalg = pytest.importorskip("scipy.linalg")
    x, y = tables(rng, 50, 6, 6, dtype)
    expected, _ = linalg.orthogonal_procrustes(x.astype(np.float64), y.astype(np.float64))
    adapter = rt.LinearAdapter.procrustes(x, y)
    assert adapter.params["weight"].dtype == dtype
    assert relative_error(adapter.params["weight"], expected) < rounded(dtype)


@pytest.mark.parametrize("bias", [False, True])
def test_procrustes__undoes_a_rotation(bias, rng):
    x = rng.normal(size=(30, 8))
    rotation, shift = np.linalg.qr(rng.normal(size=(8, 8)))[0], rng.normal(size=8) * bias
    adapter = rt.LinearAdapter.procrustes(x @ rotation + shift, x, bias=bias)
    np.testing.assert_allclose(adapter.transform(x @ rotation + shift), x, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 1e-3, 7.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [s for s in SIZES if s[0] > 10])
def test_ridge__is_where_the_gradient_of_its_sum_is_zero(size, bias, alpha, rng):
    x, y = tables(rng, *size)
    adapter = rt.LinearAdapter.ridge(x, y, alpha, bias=bias)
    residuals = adapter.transform(x) - y
    slope = x.T @ residuals + alpha * adapter.params["weight"]
    assert np.abs(slope).max() < 1e-10 * np.abs(x.T @ y).max()
    if bias:
        assert np.abs(residuals.sum(axis=0)).max() < 1e-10 * np.abs(y).sum()


@pytest.mark.parametrize("bias", [False, True])
def test_ridge__is_that_of_sklearn(bias, dtype, rng):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = tables(rng, 60, 7, 4, dtype)
    expected = linear_model.Ridge(2.5, fit_intercept=bias).fit(x.astype(np.float64), y.astype(np.float64))
    adapter = rt.LinearAdapter.ridge(x, y, 2.5, bias=bias)
    assert relative_error(adapter.params["weight"], expected.coef_.T) < rounded(dtype)
    if bias:
        assert relative_error(adapter.params["bias"], expected.intercept_) < rounded(dtype)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("count", [None, 1, 4])
def test_pca_and_whiten__are_those_of_sklearn(whiten, count, dtype, rng):
    decomposition = pytest.importorskip("sklearn.decomposition")
    x, _ = tables(rng, 70, 6, 2, dtype)
    expected = decomposition.PCA(count, whiten=whiten, svd_solver="full").fit(x.astype(np.float64))
    adapter = (rt.LinearAdapter.whiten if whiten else rt.LinearAdapter.pca)(x, count)
    assert adapter.out_features == (count or 6) and adapter.dtype == dtype
    assert relative_error(adapter.transform(x), expected.transform(x.astype(np.float64))) < 10 * rounded(dtype)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_pca__loses_least_of_all_projections(count, rng):
    x, _ = tables(rng, 200, 5, 2)
    for bias in (False, True):
        adapter = rt.LinearAdapter.pca(x, count, bias=bias)
        weight, centred = adapter.params["weight"], x - x.mean(axis=0) * bias
        np.testing.assert_allclose(weight.T @ weight, np.eye(count), atol=1e-12)
        kept = np.linalg.svd(centred, compute_uv=False)[:count]
        np.testing.assert_allclose(np.linalg.norm(adapter.transform(x), axis=0), kept)
        assert (weight[np.abs(weight).argmax(axis=0), range(count)] > 0).all()
        np.testing.assert_allclose(weight, rt.LinearAdapter.pca(x, bias=bias).params["weight"][:, :count], atol=1e-12)


@pytest.mark.parametrize("eps", [0.0, 0.5])
def test_whiten__makes_the_covariance_the_identity(eps, rng):
    x, _ = tables(rng, 300, 5, 2)
    y = rt.LinearAdapter.whiten(x, 4, eps=eps).transform(x)
    variances = np.linalg.eigvalsh(np.cov(x.T))[::-1][:4]
    np.testing.assert_allclose(np.cov(y.T), np.diag(variances / (variances + eps)), atol=1e-10)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-10)
    raw = rt.LinearAdapter.whiten(x, bias=False).transform(x)
    np.testing.assert_allclose(raw.T @ raw / 300, np.eye(5), atol=1e-10)


FORMS = {
    "procrustes": lambda x, y: rt.LinearAdapter.procrustes(x, y, bias=True),
    "ridge": lambda x, y: rt.LinearAdapter.ridge(x, y, 0.5),
    "pca": lambda x, y: rt.LinearAdapter.pca(x, 3),
    "whiten": lambda x, y: rt.LinearAdapter.whiten(x, 3),
}


@pytest.mark.parametrize("form", FORMS)
def test_closed_forms__read_files_of_float16_in_blocks_and_sum_in_float64(form, tmp_path, rng):
    x, y = tables(rng, 9001, 5, 4, np.float16)
    np.save(tmp_path / "x.npy", x)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    adapter, exact = FORMS[form](stored, y), FORMS[form](x.astype(np.float64), y.astype(np.float64))
    assert (adapter.dtype, exact.dtype) == (np.float32, np.float64)
    for name, value in adapter.params.items():
        np.testing.assert_array_equal(value, exact.params[name].astype(np.float32))


@pytest.mark.parametrize("form", FORMS)
def test_closed_forms__keep_their_digits_far_from_the_origin(form, rng):
    x, y = tables(rng, 5000, 5, 4)
    near, far = FORMS[form](x, y), FORMS[form](x + 1e6, y)
    # Each far number is itself rounded at 1e-10, and a mean of them at less.
    assert relative_error(far.params["weight"], near.params["weight"]) < 1e-8
    np.testing.assert_array_equal(FORMS[form](list(map(list, x)), y).params["weight"], near.params["weight"])


def test_closed_forms__train_on_and_are_saved(tmp_path, rng):
    x, y = tables(rng, 80, 6, 4, np.float32)
    adapter = rt.LinearAdapter.procrustes(x, y)
    rt.save_model(tmp_path / "model.npz", adapter)
    for other in (rt.load_model(tmp_path / "model.npz"), copy.deepcopy(adapter)):
        assert repr(other) == repr(adapter)
        np.testing.assert_array_equal(other.transform(x), adapter.transform(x))
    start, pairs = adapter.params["weight"].copy(), np.stack([np.arange(80)] * 2, axis=1)
    model = rt.TwoTower(rt.Sequential(adapter, rt.LinearAdapter(4)), "frozen")
    history = rt.Trainer(model, epochs=3, batch_size=40).fit(x, y, pairs).history
    assert history["loss"][-1] < np.nanmax(history["loss"]) and (adapter.params["weight"] != start).any()


@pytest.mark.parametrize("name", ["procrustes", "ridge"])
def test_maps_of_pairs__name_what_is_wrong(name, rng):
    form = getattr(rt.LinearAdapter, name)
    x, y = tables(rng, 9, 3, 2)
    with pytest.raises(ValueError, match="same number of rows, got 9 and 8"):
        form(x, y[:8])
    with pytest.raises(ValueError, match="target must have 2 dimension"):
        form(x, y[:, 0])
    with pytest.raises(ValueError, match="source must not be empty"):
        form(x[:0], y[:0])
    with pytest.raises(TypeError, match="source must be an array of real numbers"):
        form(x > 0, y)
    with pytest.raises(TypeError, match="bias must be True or False"):
        form(x, y, bias=1)
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got float16"):
        form(x, y, dtype=np.float16)
    for place, (a, b) in {"source": (x.copy(), y), "target": (x, y.copy())}.items():
        (a if place == "source" else b)[7, 1] = np.nan
        with pytest.raises(ValueError, match=f"{place} must be finite, got a NaN or an infinity in row 7"):
            form(a, b)
    with pytest.raises(ValueError, match="source and target must have squares whose sum is finite"):
        form(x * 1e300, y * 1e300)
    assert form(x, y, dtype=np.float32).dtype == np.float32


def test_other_closed_forms__name_what_is_wrong(rng):
    x, y = tables(rng, 9, 3, 2)
    with pytest.raises(ValueError, match="alpha must be a finite number in"):
        rt.LinearAdapter.ridge(x, y, -1.0)
    for dependent in (np.repeat(x, 2, axis=1), x[:2], x * [1, 0, 1]):
        with pytest.raises(ValueError, match="alpha must be larger where columns of source depend"):
            rt.LinearAdapter.ridge(dependent, y[: len(dependent)], 0.0)
        rt.LinearAdapter.ridge(dependent, y[: len(dependent)], 1e-6)
    for form in (rt.LinearAdapter.pca, rt.LinearAdapter.whiten):
        with pytest.raises(ValueError, match=r"out_features must be in \[1, 3\], got 4"):
            form(x, 4)
        with pytest.raises(ValueError, match="at least two rows"):
            form(x[:1])
    with pytest.raises(ValueError, match="eps must be"):
        rt.LinearAdapter.whiten(x, eps=-1)
    for flat, count in ((np.repeat(x, 2, axis=1), 3), (x[:2], 1), (np.full((999, 3), 0.1), 0)):
        with pytest.raises(ValueError, match=f"out_features must be at most {count} where x varies .*; or set eps"):
            rt.LinearAdapter.whiten(flat)
        assert np.isfinite(rt.LinearAdapter.whiten(flat, eps=1e-6).params["weight"]).all()
    with pytest.raises(ValueError, match=r"dtype must hold a weight of .*, got float32"):
        rt.LinearAdapter.whiten(x * 1e-45, dtype=np.float32)
