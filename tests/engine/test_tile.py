"""The microkernel alone, for every vector width, and the engine's edges."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TOLERANCE, from_python, relative_error

import rvtrain as rt
from rvtrain._engine import _blocks as engine
from rvtrain._engine import _products as products
from rvtrain._engine import _tile as tile
from rvtrain._kernels import njit


@from_python
@njit
def panels_of(left, right, out, add):
    tile.tile_panels(left, 0, left.shape[1], right, 0, len(left), out, 0, out.shape[1], add)


@from_python
@njit
def rows_of(blocks, right, out, add):
    size = blocks.shape[1] * blocks.shape[2]
    tile.tile_rows(blocks, 0, size, right, 0, len(blocks), out, 0, out.shape[1], add)


@from_python
@njit
def columns_of(blocks, start, right, out, add):
    size = blocks.shape[1] * blocks.shape[2]
    tile.tile_columns(blocks, start, size, right, 0, len(blocks), out, 0, out.shape[1], add)


@from_python
@njit
def narrow_rows_of(blocks, right, out, add):
    size = blocks.shape[1] * blocks.shape[2]
    tile.narrow_tile_rows(blocks, 0, size, right, 0, len(blocks), out, 0, out.shape[1], add)


@from_python
@njit
def narrow_columns_of(blocks, start, right, out, add):
    size = blocks.shape[1] * blocks.shape[2]
    tile.narrow_tile_columns(blocks, start, size, right, 0, len(blocks), out, 0, out.shape[1], add)


@pytest.mark.parametrize("steps", [1, 2, 7, 8])
@pytest.mark.parametrize("add", [False, True])
def test_tile__multiplies_each_layout_of_the_left_operand(steps, add, dtype, rng):
    rows, columns, lanes = tile.tile_shape(dtype)
    before = rng.normal(size=(rows, columns)).astype(dtype)
    start = before.astype(np.float64) * add

    left, right = (rng.normal(size=(steps, n)).astype(dtype) for n in (rows, columns))
    out = before.copy()
    panels_of(left, right, out, add)
    assert relative_error(out, start + left.T.astype(float) @ right) < TOLERANCE[dtype]

    for across, by_rows, by_columns in (
        (columns, rows_of, columns_of),
        (columns - lanes, narrow_rows_of, narrow_columns_of),
    ):
        first_columns, start = before[:, :across], start[:, :across]
        blocks = rng.normal(size=(steps, rows, columns)).astype(dtype)  # side by side: k runs along the rows
        right = rng.normal(size=(steps * columns, across)).astype(dtype)
        out = first_columns.copy()
        by_rows(blocks, right, out, add)
        wide = blocks.transpose(1, 0, 2).reshape(rows, -1).astype(float)
        assert relative_error(out, start + wide @ right) < TOLERANCE[dtype]

        right = rng.normal(size=(steps * rows, across)).astype(dtype)  # one above the other: k runs down a column
        for first in range(0, columns, rows):
            out = first_columns.copy()
            by_columns(blocks, first, right, out, add)
            tall = blocks.reshape(-1, columns)[:, first : first + rows].astype(float)
            assert relative_error(out, start + tall.T @ right) < TOLERANCE[dtype]


def test_narrow_shape__covers_any_dim_with_less_than_a_vector_to_spare(dtype):
    _, columns, lanes = tile.tile_shape(dtype)
    for dim in range(1, 500):
        wide, narrow = tile.narrow_shape(dim, dtype)
        spare = wide * columns + narrow * (columns - lanes) - dim
        assert wide >= 0 and 0 <= narrow < columns // lanes
        assert spare >= 0 and (spare < lanes or dim <= columns)


def test_tile_shape__has_blocks_that_can_be_read_both_ways(monkeypatch):
    for features in ({"avx512f", "avx2"}, {"avx2"}, {"sse2"}, {"neon"}):
        monkeypatch.setattr(tile, "cpu_features", lambda features=features: frozenset(features))
        for dtype in (np.float32, np.float64):
            rows, columns, lanes = tile.tile_shape(dtype)
            assert columns % rows == 0 and columns % lanes == 0 and engine.GROUP % rows == 0
            registers = 32 if {"avx512f", "neon"} & features else 16
            assert rows * columns // lanes + columns // lanes + 1 <= registers


NARROWER = {16: "+sse2,+sse4.2", 32: "+avx,+avx2,+fma"}
EVERY_WIDTH = bool(os.environ.get("RVTRAIN_EVERY_WIDTH"))
WIDTHS = [width for width in (16, 32, 64) if width <= tile.vector_bytes()][0 if EVERY_WIDTH else -2 :]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_vector_width__gives_right_results(width):
    """The engine compiled for vectors as wide as this machine's and narrower, in another process.

    Narrower ones take long to compile: only the next width in float32, unless RVTRAIN_EVERY_WIDTH is set.
    """
    native = width == tile.vector_bytes()
    dtypes = ("float32", "float64") if native or EVERY_WIDTH else ("float32",)
    code = """
import sys
import numpy as np, rvtrain as rt
from rvtrain._engine._tile import tile_shape
rng = np.random.default_rng(0)
a, p = rng.normal(size=(2, 70, 37))
for dtype in map(np.dtype, sys.argv[1:]):
    x, y = a.astype(dtype), p.astype(dtype)
    value, gradients = rt.InfoNCELoss(0.1).compute_with_gradients(x, y, wrt=("anchors", "positives"))
    print(tile_shape(dtype), value, *(np.abs(g).sum() for g in gradients), rt.cosine_similarity(x, y).sum(), sep=";")
"""
    env = {**os.environ, "PYTHONPATH": str(Path(rt.__file__).parents[1])}
    if not native:
        env |= {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": NARROWER[width]}
    result = subprocess.run(
        [sys.executable, "-c", code, *dtypes], capture_output=True, text=True, env=env, check=False
    )
    assert result.returncode == 0, result.stderr
    rng = np.random.default_rng(0)
    a, p = rng.normal(size=(2, 70, 37))
    value, gradients = rt.InfoNCELoss(0.1).compute_with_gradients(a, p, wrt=("anchors", "positives"))
    expected = [value, *(np.abs(g).sum() for g in gradients), rt.cosine_similarity(a, p).sum()]
    shapes = []
    for line, dtype in zip(result.stdout.splitlines(), dtypes, strict=True):
        shape, *numbers = line.split(";")
        shapes.append(shape)
        assert relative_error([float(n) for n in numbers], expected) < TOLERANCE[np.dtype(dtype).type]
    if width == 32:
        assert shapes == ["(4, 24, 8)", "(4, 12, 4)"][: len(dtypes)]


@pytest.mark.parametrize("shape", [(1, 1, 1), (63, 65, 100), (130, 257, 129)], ids=str)
def test_row_products__are_right_at_every_edge(shape, dtype, rng):
    rows, columns, dim = shape
    a, b = rng.normal(size=(rows, dim)).astype(dtype), rng.normal(size=(columns, dim)).astype(dtype)
    ones = np.ones(rows), np.ones(columns)
    out = np.full((rows, columns), np.nan, dtype)
    panels = products.packed_columns(engine.Rows(b, ones[1]))
    products.row_products(engine.Rows(a, ones[0]), panels, out)
    assert relative_error(out, a.astype(float) @ b.T) < TOLERANCE[dtype]


def test_row_products__equal_rows_give_equal_bits(dtype, rng):
    a = np.repeat(rng.normal(size=(1, 77)), 70, axis=0).astype(dtype)
    out = rt.cosine_similarity(a, a)
    assert len(np.unique(out)) == 1
