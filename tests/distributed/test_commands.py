"""The command line under mpiexec."""

import numpy as np
from launcher import launch


def test_blocks_of_mapped_files__are_checked_by_one_rank_each(tmp_path):
    table, row = np.ones((2 * 8192, 4), np.float32), 8192 + 5  # rank 1 reads it
    np.save(tmp_path / "queries.npy", table)
    table[row, 2] = np.nan
    np.save(tmp_path / "documents.npy", table)
    files = [str(tmp_path / f"{name}.npy") for name in ("queries", "documents")]
    done = launch(2, "", *files, "-o", tmp_path / "x.npz", module=["rvtrain", "train"])
    assert done.returncode != 0
    told = f"documents.npy must be finite, got nan in row {row}"
    assert done.stderr.count(told) == 2 and done.stderr.count("rank 1 failed: ValueError: ") == 1
