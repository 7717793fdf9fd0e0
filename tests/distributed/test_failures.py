"""A rank that fails ends all, and is named; a checkpoint that it leaves is whole."""

import json
import time

import numpy as np
import pytest
from launcher import launch, results

import rvtrain as rt


@pytest.mark.parametrize("how", ["raises", "killed"])
def test_a_rank_that_fails__ends_all_and_the_next_job_resumes(how, tmp_path):
    start = time.monotonic()
    done = launch(2, "failures.py", how, tmp_path / "symmetric.npz", timeout=60)
    assert time.monotonic() - start < 30  # with the time to start; without an end it would be for ever
    assert done.returncode != 0
    if how == "raises":
        assert "ArithmeticError: planted" in done.stderr and "rank 1 of 2 ends all" in done.stderr
    assert rt.load_checkpoint(tmp_path / "symmetric.npz")["trainer"]["run"]["epoch"] >= 1
    (whole,) = results(1, "trainings.py", tmp_path / "whole", 3, "-", "symmetric")
    for resumed in results(2, "trainings.py", tmp_path / "then", 3, tmp_path, "symmetric"):
        for name, value in whole.items():
            np.testing.assert_array_equal(resumed[name], value, err_msg=name)


def test_a_rank_that_is_interrupted__ends_all(tmp_path):
    done = launch(2, "failures.py", "interrupted", tmp_path / "symmetric.npz", timeout=60)
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr and "rank 1 of 2 ends all" in done.stderr


DIFFERENT = {
    "rows": "all ranks must have the same shape and dtype of documents, got (150, 12) float32 on rank 0 and "
    "(149, 12) float32 on rank 1",
    "dtype": "all ranks must have the same shape and dtype of queries, got (150, 12) float32 on rank 0 and "
    "(150, 12) float64 on rank 1",
    "elements": "all ranks must have the same elements of queries",
    "settings": "all ranks must have the same batch_size, got 50 on rank 0 and 49 on rank 1",
}


@pytest.mark.parametrize("how", DIFFERENT)
def test_ranks_that_differ__are_told_before_the_first_step(how, tmp_path):
    done = launch(2, "failures.py", how, tmp_path / "unused.npz", timeout=60)
    assert done.returncode != 0
    assert f"ValueError: {DIFFERENT[how]}" in done.stderr


FURTHER = {
    "version": f"all ranks must have the same version of rvtrain, got {rt.__version__} on rank 0 and 0.0.1 on rank 1",
    "epochs": "all ranks must have the same epochs, got 10 on rank 0 and 11 on rank 1",
    "memory": "all ranks must have the same memory_limit, got 0 on rank 0 and 1 on rank 1",
    "mined": "all ranks must have the same mined negatives, got ",
    "sampler": "all ranks must have the same batch of the sampler, got ",
    "labels": "all ranks must have the same elements of y, got ",
    "edges": "all ranks must have the same elements of edges, got ",
}


def test_ranks_that_differ_otherwise__are_all_told(tmp_path):
    for found in results(2, "differences.py", tmp_path / "out"):
        for name, message in FURTHER.items():
            assert str(found[name]).startswith(message), name


def test_the_command__trains_on_several_ranks_and_ends_all_on_an_error(tmp_path):
    rng = np.random.default_rng(0)
    documents = rng.normal(size=(120, 8)).astype(np.float32)
    np.savez(tmp_path / "in.npz", queries=documents[:, ::-1].copy(), documents=documents)
    command = ["rvtrain", "train", str(tmp_path / "in.npz"), "--epochs", "2", "--batch-size", "32", "--json"]
    told = []
    for ranks in (1, 2):
        done = launch(ranks, "", "-o", tmp_path / f"{ranks}.npz", module=command)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("epoch 2/2") == 1
        told.append(json.loads(done.stdout))  # one rank alone prints
        assert rt.load_model(told[-1]["model"]).query.out_features == 8
    for when in ("before", "after"):
        assert told[0]["metrics"][when] == pytest.approx(told[1]["metrics"][when])
    missing = launch(2, "", "-o", tmp_path / "x.npz", module=["rvtrain", "train", str(tmp_path / "none.npz")])
    assert missing.returncode != 0 and "No such file" in missing.stderr
