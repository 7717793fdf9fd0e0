"""Searches whose candidates are on several ranks: what one process finds, ties and reports included."""

import functools

import numpy as np
import pytest
from launcher import results
from shared_searches import CALLS, MINERS, mined, searched

# Errors of two ranks: on both, or on rank 0 and rank 1.
MISTAKES = {
    "k": "ValueError: k must be in [1, 500], got 501",
    "ranks": "ValueError: all ranks must have the same k, got 2 on rank 0 and 3 on rank 1",
    "queries": "ValueError: all ranks must have the same queries, got ",
    "anchors": "ValueError: all ranks must have the same anchors, got ",
    "draws": "ValueError: all ranks must have the same settings of the miner, got ",
    "iterator": "TypeError: candidates must be an array or a list of blocks with comm, got list_iterator",
    "not finite": (
        "NotFiniteError: candidates must be finite, got a NaN or an infinity in row 0",
        "RuntimeError: rank 0 failed: NotFiniteError: candidates must be finite, got a NaN or an infinity in row 0",
    ),
    "rescore": (
        "ValueError: rescore must return finite scores, got nan for pair 0",
        "RuntimeError: rank 0 failed: ValueError: rescore must return finite scores, got nan for pair 0",
    ),
    "exclude": "ValueError: exclude must lie in [-1, 23], got 24",
    "no candidates": (
        "RuntimeError: rank 1 failed: ValueError: candidates must not be empty, got shape (0, 12)",
        "ValueError: candidates must not be empty, got shape (0, 12)",
    ),
}


@pytest.fixture(scope="module")
def expected():
    """What one process without MPI finds."""
    found = {name: dict(zip(("scores", "indices"), searched(name), strict=True)) for name in CALLS}
    return found | {f"{name}/mined": mined(name) for name in MINERS}


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory):
    """What each of so many ranks finds, once."""
    return functools.cache(lambda ranks: results(ranks, "searches.py", tmp_path_factory.mktemp("searches") / "out"))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_searches__find_what_one_process_does(ranks, expected, of_ranks):
    for found in of_ranks(ranks):
        for name, arrays in expected.items():
            for what, array in arrays.items():
                np.testing.assert_array_equal(found[f"{name}/{what}"], array, err_msg=f"{name}/{what}")


def test_mistakes__are_told_on_every_rank(of_ranks):
    for rank, found in enumerate(of_ranks(2)):
        for name, message in MISTAKES.items():
            assert str(found[name]).startswith(message if isinstance(message, str) else message[rank]), name
