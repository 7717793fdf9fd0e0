"""The model of cost, and threads of ranks: no MPI is needed."""

import json

import numpy as np
import pytest

from rvtrain import cli
from rvtrain.distributed._plan import cost
from rvtrain.distributed._threads import quota, ranks_here, threads_of_a_rank


def test_cost__of_one_rank_is_scoring_and_adding():
    found = cost(1000, 100, 1, pairs_per_second=1e6, copied=1e9, bandwidth=1e9, latency=1.0)
    assert found.scoring == found.alone == 1.0 and found.exchange == 0.0
    assert found.adding == pytest.approx(9 * 1000 * 100 * 4 / 1e9)  # eight segments and the total


def test_cost__of_four_ranks_has_the_bytes_and_messages_of_the_exchange():
    found = cost(1000, 100, 4, pairs_per_second=1e6, copied=1e9, bandwidth=1e6, latency=0.5)
    assert found.scoring == 0.25
    assert found.exchange == pytest.approx(0.75 * (2 * 400_000 + 8000) / 1e6 + (6 + 4) * 0.5)
    assert found.efficiency(4) == pytest.approx(1.0 / (4 * found.seconds))


def test_memory__grows_with_batch_and_dim_alone():
    small, large = (cost(n, 256, 64, 1e8, 1e10, 1e10, 1e-6).memory for n in (100_000, 1_000_000))
    assert 9 < large / small < 10.1
    assert large < 10 * 1_000_000 * 256 * 4


def test_plan__prints_what_the_model_says(capsys):
    assert cli.main(["plan", "--batch", "20000", "--dim", "8", "--ranks", "4", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    parts = [facts[f"seconds {part}"] for part in ("scoring", "exchanging", "adding")]
    np.testing.assert_allclose(facts["seconds per step"], sum(parts))
    assert 0 < facts["efficiency"] <= 1
    assert cli.main(["plan", "--batch", "2", "--dim", "8", "--ranks", "4"]) == 1
    assert "--batch must be at least --ranks, 4, got 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "limit", "ranks", "environment", "threads"),
    [
        (16, None, 1, {}, 16),
        (16, None, 4, {}, 4),
        (16, 6.5, 2, {}, 3),
        (2, None, 8, {}, 1),
        (16, None, 4, {"OMP_NUM_THREADS": "3"}, 3),
        (16, None, 4, {"OMP_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "2"}, 2),
    ],
)
def test_threads_of_a_rank__come_from_the_processors_or_the_environment(found, limit, ranks, environment, threads):
    assert threads_of_a_rank(found, limit, ranks, environment) == threads


def test_quota__is_that_of_the_control_group(tmp_path):
    assert quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert quota(tmp_path) == 2.5
    old = tmp_path / "old" / "cpu"
    old.mkdir(parents=True)
    for name, value in (("quota", 400000), ("period", 100000)):
        (old / f"cpu.cfs_{name}_us").write_text(f"{value}\n")
    assert quota(tmp_path / "old") == 4.0


def test_ranks_here__is_what_the_launcher_says():
    assert ranks_here({}) == 1
    assert ranks_here({"MPI_LOCALNRANKS": "4"}) == 4
    assert ranks_here({"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}) == 2
