"""Losses whose batch is that of several ranks: the values, gradients and bits of one."""

import numpy as np
import pytest
from conftest import relative_error
from launcher import results
from shared_losses import cases

import rvtrain as rt

TOLERANCES = {"float32": 2e-6, "float64": 1e-12}
BATCH, DIM = 136, 19


@pytest.fixture(scope="module")
def whole():
    """What one process without MPI gets for the global batch."""
    return {
        f"{np.dtype(dtype)}/{name}/{what}": array
        for dtype in (np.float32, np.float64)
        for name, case in cases(dtype, BATCH, DIM).items()
        for what, array in case.call().items()
    }


def joined(parts, whole):
    """The arrays of all ranks as those of the global batch: rows one after the other, and numbers that all share."""
    for name, expected in whole.items():
        if expected.ndim == 0:
            assert len({part[name].tobytes() for part in parts}) == 1, name
    return {k: parts[0][k] if v.ndim == 0 else np.concatenate([part[k] for part in parts]) for k, v in whole.items()}


def check(found, whole):
    """Each result has the dtype and, up to rounding, the value of the global batch."""
    for name, expected in whole.items():
        assert found[name].dtype == expected.dtype, name
        assert relative_error(found[name], expected) <= TOLERANCES[name.split("/")[0]], name


@pytest.fixture(scope="module")
def one_rank(whole, tmp_path_factory):
    """What one rank with two threads gets."""
    return joined(results(1, "losses.py", tmp_path_factory.mktemp("one") / "out", BATCH, DIM, 0, threads=2), whole)


def test_one_rank__gets_what_a_loss_without_ranks_does(one_rank, whole):
    check(one_rank, whole)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks__get_the_bits_of_one_rank(ranks, one_rank, whole, tmp_path):
    firsts = range(0, BATCH, BATCH // ranks)
    found = joined(results(ranks, "losses.py", tmp_path / "out", BATCH, DIM, *firsts), whole)
    check(found, whole)
    assert [name for name in whole if found[name].tobytes() != one_rank[name].tobytes()] == []


def test_ranks_with_unequal_numbers_of_rows__get_the_same_up_to_rounding(whole, tmp_path):
    check(joined(results(3, "losses.py", tmp_path / "out", BATCH, DIM, 0, 1, 70), whole), whole)


def test_ranks__multiply_bfloat16_as_one_rank_does(tmp_path):
    exact = {
        f"{precision}/{name}/{what}": array
        for precision in ("medium", "high")
        for name in ("plain", "symmetric", "pool")
        for what, array in cases(np.float64, BATCH, DIM)[name].call().items()
    }
    one, two = (
        joined(results(ranks, "precisions.py", tmp_path / str(ranks), BATCH, DIM, *firsts), exact)
        for ranks, firsts in ((1, [0]), (2, [0, BATCH // 2]))
    )
    assert [name for name in exact if two[name].tobytes() != one[name].tobytes()] == []
    for name, expected in exact.items():
        precision, _, what = name.split("/")
        least, most = {"medium": (1e-4, 1e-2), "high": (1e-6, 2e-5)}[precision]
        error = relative_error(one[name], expected)
        assert error < most and (what != "anchors" or error > least), (name, error)


# The error on rank 0, and on rank 1, where it is another.
MISTAKES = {
    "version": f"ValueError: all ranks must have the same version of rvtrain, got {rt.__version__} on rank 0 and "
    "0.0.1 on rank 1",
    "numpy": f"ValueError: all ranks must have the same version of numpy, got {np.__version__} on rank 0 and "
    "1.0.0 on rank 1",
    "no rows": (
        "RuntimeError: rank 1 failed: ValueError: anchors must not be empty, got shape (0, 4)",
        "ValueError: anchors must not be empty, got shape (0, 4)",
    ),
    "dtype": "ValueError: all ranks must have the same dtype of the arrays, got float32 on rank 0 and float64 on "
    "rank 1",
    "columns": "ValueError: all ranks must have the same number of columns, got 4 on rank 0 and 3 on rank 1",
    "parameters": "ValueError: all ranks must have the same loss, got InfoNCELoss(temperature=0.1, reduction='mean', "
    "symmetric=False) on rank 0 and InfoNCELoss(temperature=0.2, reduction='mean', symmetric=False) on rank 1",
    "class": "ValueError: all ranks must have the same loss, got InfoNCELoss(temperature=0.1, reduction='mean', "
    "symmetric=False) on rank 0 and DecoupledContrastiveLoss(temperature=0.1, reduction='mean') on rank 1",
    "gradients": "ValueError: all ranks must have the same wrt, got ('anchors',) on rank 0 and "
    "('anchors', 'positives') on rank 1",
    "weights": "ValueError: all ranks must have the same sample_weight, got None on rank 0 and given on rank 1",
    "negatives": "ValueError: all ranks must have the same form of negatives, got in-batch on rank 0 and (N, d) on "
    "rank 1",
    "not finite": (
        "RuntimeError: rank 1 failed: NotFiniteError: positives must be finite, got a NaN or an infinity in row 3",
        "NotFiniteError: positives must be finite, got a NaN or an infinity in row 3",
    ),
    "shape": (
        "ValueError: positives must have the shape of anchors, (8, 4), got (7, 4)",
        "RuntimeError: rank 0 failed: ValueError: positives must have the shape of anchors, (8, 4), got (7, 4)",
    ),
    "weight": (
        "RuntimeError: rank 1 failed: ValueError: sample_weight must be at least 0, got a minimum of -1",
        "ValueError: sample_weight must be at least 0, got a minimum of -1",
    ),
    "zero weights": "ValueError: sample_weight must not be 0 on all rows of all ranks",
    "indices": "ValueError: negative_indices is not available with comm: give each anchor its own negatives "
    "(B, N, d)",
    "one pair": "ValueError: anchors must have shape (B, d) with comm, got (4,)",
    "labels": (
        "RuntimeError: rank 1 failed: ValueError: labels must have shape (8), got (7,)",
        "ValueError: labels must have shape (8), got (7,)",
    ),
    "references": "ValueError: all ranks must have the same references, got None on rank 0 and given on rank 1",
    "thread": "RuntimeError: a call with comm must come from the main thread, the only one that may call MPI",
}


def test_mistakes__are_told_on_every_rank_and_few_rows_are_none(tmp_path):
    found = results(2, "mistakes.py", tmp_path / "out")
    assert found[0]["afterwards"] == found[1]["afterwards"]
    for rank in (0, 1):
        told = {name: str(found[rank][name]) for name in MISTAKES}
        assert told == {name: x if isinstance(x, str) else x[rank] for name, x in MISTAKES.items()}
        x = np.random.default_rng(rank).normal(size=(8, 4))
        alone = rt.InfoNCELoss().compute(x, x[:, ::-1])
        assert [float(found[rank][name]) for name in ("self", "split")] == pytest.approx([alone, alone], rel=1e-12)
    # Two rows and one: fewer than the segments of a batch.
    x = np.concatenate([np.random.default_rng(rank).normal(size=(8, 4))[: 2 - rank] for rank in (0, 1)])
    whole = {
        "plain": rt.InfoNCELoss().compute_with_gradients(x, x[:, ::-1])[1],
        "symmetric": rt.InfoNCELoss(symmetric=True).compute_with_gradients(x, x[:, ::-1])[1],
        "labels": rt.SupConLoss().compute_with_gradients(x, np.array([0, 1, 0]))[1],
    }
    for name, expected in whole.items():
        np.testing.assert_allclose(np.concatenate([each[f"few/{name}"] for each in found]), expected, atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [rt.InfoNCELoss, rt.DecoupledContrastiveLoss, rt.HardNegativeContrastiveLoss, rt.SigmoidLoss, rt.SupConLoss],
)
def test_comm__must_be_a_communicator(make):
    assert make().comm is None
    with pytest.raises(TypeError, match=r"comm must be a communicator of mpi4py, such as MPI\.COMM_WORLD, got 2"):
        make(comm=2)
