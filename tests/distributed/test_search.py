"""Searches whose candidates are on several ranks: what one process finds, ties included."""

import numpy as np
import pytest
from launcher import results
from shared_searches import CALLS, MINERS, mined, searched


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_searches__find_what_one_process_does(ranks, tmp_path):
    found = results(ranks, "searches.py", tmp_path / "out")
    expected = {name: searched(name) for name in CALLS} | {name: mined(name)[::-1] for name in MINERS}
    for name, (scores, indices) in expected.items():
        for each in found:
            np.testing.assert_array_equal(each[f"{name}/indices"], indices, err_msg=name)
            np.testing.assert_array_equal(each[f"{name}/scores"], scores, err_msg=name)
            assert str(each["draws"]).startswith("comm is for strategies without draws, hardest and semi_hard, got")
            assert str(each["k"]) == "k must be in [1, 500], got 501"
            if ranks > 1:
                assert str(each["ranks"]) == "all ranks must have the same k, got 2 on rank 0 and 3 on rank 1"
