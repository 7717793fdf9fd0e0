"""Products of pairs against those of the tile engine: the same bits."""

import numpy as np
import pytest
from conftest import from_python

from rvtrain._engine import _blocks as engine
from rvtrain._engine._pairs import SCORED, paired_cosines, scores_of_rows
from rvtrain._engine._products import packed_columns, row_products
from rvtrain._kernels import njit


@pytest.mark.parametrize("dim", [1, 7, 127, 128, 129, 300, 768])
def test_paired_cosines__are_the_diagonal_of_all_products(dim, dtype, rng):
    a, b = (engine.Rows(rng.normal(size=(70, dim)).astype(dtype), rng.uniform(0.1, 9.0, 70)) for _ in range(2))
    for chosen in (paired_cosines.serial, paired_cosines):
        found = np.empty(70, dtype)
        chosen(70, a, b, engine.CHUNK, found)
        whole = np.empty((70, 70), dtype)
        row_products(a, packed_columns(b), whole)
        np.testing.assert_array_equal(found, whole.diagonal())


@from_python
@njit
def scored(x, inverse, rows, first, unit, out):
    scores_of_rows(x, inverse, rows, first, unit, out)


@pytest.mark.parametrize("dim", [1, 7, 16, 100, 127, 128, 129, 150, 300, 768])
def test_scores_of_rows__are_those_of_all_products(dim, rng):
    x, inverse = rng.normal(size=(40, dim)).astype(np.float32), rng.uniform(0.1, 9.0, 40)
    rows, out = rng.integers(0, 40, 3 + SCORED), np.full(SCORED + 1, 7.0, np.float32)
    unit = (x[5] * inverse[5]).astype(np.float32)
    scored(x, inverse, rows, 3, unit, out)
    whole = np.empty((40, 40), np.float32)
    row_products(engine.Rows(x, inverse), packed_columns(engine.Rows(x, inverse)), whole)
    np.testing.assert_array_equal(out, [*whole[5, rows[3:]], 7.0])
