"""Searches whose candidates are on several ranks: what one process finds, ties included."""

import numpy as np
import pytest
from launcher import results
from shared_searches import CALLS, searched


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_top_k__is_that_of_one_process(ranks, tmp_path):
    found = results(ranks, "searches.py", tmp_path / "out")
    for name in CALLS:
        scores, indices = searched(name)
        for each in found:
            np.testing.assert_array_equal(each[f"{name}/indices"], indices, err_msg=name)
            np.testing.assert_array_equal(each[f"{name}/scores"], scores, err_msg=name)
            assert str(each["k"]) == "k must be in [1, 500], got 501"
            if ranks > 1:
                assert str(each["ranks"]) == "all ranks must have the same k, got 2 on rank 0 and 3 on rank 1"
