"""Products of pairs against those of the tile engine: the same bits."""

import numpy as np
import pytest

from rvtrain._engine import _blocks as engine
from rvtrain._engine._pairs import paired_cosines
from rvtrain._engine._products import packed_columns, row_products


@pytest.mark.parametrize("dim", [1, 7, 127, 128, 129, 300, 768])
def test_paired_cosines__are_the_diagonal_of_all_products(dim, dtype, rng):
    a, b = (engine.Rows(rng.normal(size=(70, dim)).astype(dtype), rng.uniform(0.1, 9.0, 70)) for _ in range(2))
    for chosen in (paired_cosines.serial, paired_cosines):
        found = np.empty(70, dtype)
        chosen(70, a, b, engine.CHUNK, found)
        whole = np.empty((70, 70), dtype)
        row_products(a, packed_columns(b), whole)
        np.testing.assert_array_equal(found, whole.diagonal())
