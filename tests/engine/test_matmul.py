"""Matrix products of the tile engine against NumPy in float64."""

import numpy as np
import pytest
from conftest import TOLERANCE, relative_error

from rvtrain._engine._matmul import product, product_with_transpose, transposed_product

SHAPES = [(1, 1, 1), (3, 5, 7), (8, 32, 32), (9, 33, 65), (64, 128, 100), (130, 1100, 40), (1100, 17, 33)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gathered", [False, True])
def test_product__is_that_of_numpy(shape, gathered, dtype, threads, rng):
    n, d, m = shape
    x, w, g = (rng.normal(size=s).astype(dtype) for s in ((n + 3, d), (d, m), (n, m)))
    rows = rng.integers(0, n + 3, n) if gathered else np.arange(n)
    table = x if gathered else x[:n]
    here = rows if gathered else None
    chosen, wide, slopes = x[rows].astype(np.float64), w.astype(np.float64), g.astype(np.float64)
    assert relative_error(product(table, here, w), chosen @ wide) < TOLERANCE[dtype]
    assert relative_error(transposed_product(table, here, g), chosen.T @ slopes) < TOLERANCE[dtype]
    assert relative_error(product_with_transpose(g, w), slopes @ wide.T) < TOLERANCE[dtype]


def test_product__with_a_residual_adds_the_rows(dtype, rng):
    x, w = rng.normal(size=(20, 37)).astype(dtype), rng.normal(size=(37, 37)).astype(dtype)
    rows = np.array([3, 3, 0])
    expected = x[rows].astype(np.float64) @ w + x[rows]
    assert relative_error(product(x, rows, w, residual=True), expected) < TOLERANCE[dtype]
    expected = x.astype(np.float64) @ w.T + x
    assert relative_error(product_with_transpose(x, w, residual=True), expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("kind", ["strided", "read-only", "on disk"])
def test_product__reads_views_and_files(kind, tmp_path, rng):
    x, w = rng.normal(size=(50, 12)).astype(np.float32), rng.normal(size=(6, 4)).astype(np.float32)
    if kind == "strided":
        table = x[:, ::2]
    elif kind == "read-only":
        table = x[:, :6].copy()
        table.flags.writeable = False
    else:
        np.save(tmp_path / "x.npy", x[:, :6])
        table = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_allclose(product(table, np.array([7, 1]), w), table[[7, 1]] @ w, rtol=1e-5)
    np.testing.assert_allclose(product(table, None, w), table @ w, rtol=1e-4, atol=1e-5)
