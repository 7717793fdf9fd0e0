"""Trainings that several ranks share: the parameters and histories of one process."""

import numpy as np
import pytest
from conftest import relative_error
from launcher import results
from shared_trainings import TRAININGS, trained

RESUMED = list(TRAININGS)[:5]
BY_THREE = ["texts", "labels", "graph"]


def bits(arrays, names=tuple(TRAININGS)):
    return {key: array.tobytes() for key, array in arrays.items() if key.split("/")[0] in names}


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory):
    """What one rank has after three epochs."""
    return results(1, "trainings.py", tmp_path_factory.mktemp("one") / "out", 3, "-", threads=2)[0]


TRIPLETS = "graph, triplets"


@pytest.mark.parametrize("name", [name for name in TRAININGS if name != TRIPLETS])
def test_one_rank__trains_as_a_trainer_without_ranks_does(name, one_rank):
    alone = trained(name, None)
    for key, value in alone.params.items():
        assert relative_error(one_rank[f"{name}/{key}"], value) < 1e-3, key
    for key, column in alone.history.items():
        if key != "seconds":
            np.testing.assert_allclose(one_rank[f"{name}/history/{key}"], column, rtol=1e-3, err_msg=key)


def test_triplets__are_those_of_segments_of_a_batch(one_rank):
    alone = trained(TRIPLETS, None).history["loss"]
    found = one_rank[f"{TRIPLETS}/history/loss"]
    np.testing.assert_allclose(found, alone, rtol=0.01)
    assert (found[1:] != alone[1:]).any()


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks__have_the_bits_of_one_rank(ranks, one_rank, tmp_path):
    found = results(ranks, "trainings.py", tmp_path / "out", 3, "-")
    for each in found:
        assert bits(each) == bits(one_rank)


def test_a_run__is_resumed_by_another_number_of_ranks(one_rank, tmp_path):
    results(4, "trainings.py", tmp_path / "first", 2, tmp_path, *RESUMED)
    for each in results(2, "trainings.py", tmp_path / "then", 3, tmp_path, *RESUMED):
        assert bits(each) == bits(one_rank, RESUMED)


def test_three_ranks__train_as_one_up_to_rounding(one_rank, tmp_path):
    first, *others = results(3, "trainings.py", tmp_path / "out", 3, "-", *BY_THREE)
    for each in others:
        assert bits(each) == bits(first)
    for key, value in first.items():
        np.testing.assert_allclose(value, one_rank[key], rtol=1e-3, atol=1e-4, err_msg=key)


def test_a_rank_that_stops__stops_all_after_the_same_step(tmp_path):
    first, second = results(2, "stops.py", tmp_path / "out")
    assert first["on_step_end/step"] == 3 and first["on_epoch_end/epoch"] == 1
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(second[key], value, err_msg=key)
