"""Bags: what they hold, canonical form, selection, and the way to scipy.sparse and back."""

import copy
import pickle

import numpy as np
import pytest

import rvtrain as rt


def drawn(rng, dtype=np.float32, bags=20, n_rows=13):
    """A dense matrix with empty rows, and the same as bags."""
    dense = np.where(rng.random((bags, n_rows)) < 0.3, rng.normal(size=(bags, n_rows)), 0).astype(dtype)
    dense[[0, 7, bags - 1]] = 0
    row, column = np.nonzero(dense)
    offsets = np.searchsorted(row, np.arange(bags + 1))
    return dense, rt.Bags(column, offsets, dense[row, column], n_rows=n_rows)


def test_bags__hold_what_they_are_given(rng, dtype):
    dense, bags = drawn(rng, dtype)
    assert np.array_equal(bags.toarray(), dense) and bags.dtype == dtype
    assert (bags.shape, len(bags), bags.nnz) == (dense.shape, len(dense), np.count_nonzero(dense))
    assert bags.indices.dtype == np.int32 and bags.offsets.dtype == np.int64


def test_bags__sum_rows_that_come_several_times_and_sort():
    weights = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    bags = rt.Bags([4, 1, 4, 4, 0], [0, 3, 3, 5], weights, n_rows=5)
    assert bags.indices.tolist() == [1, 4, 0, 4] and bags.offsets.tolist() == [0, 2, 2, 4]
    assert bags.weights.tolist() == [2.0, 5.0, 16.0, 8.0]
    assert weights.tolist() == [1.0, 2.0, 4.0, 8.0, 16.0]


def test_bags__may_all_be_empty():
    for offsets in ([0], [0, 0, 0]):
        bags = rt.Bags([], offsets, n_rows=3)
        assert bags.toarray().shape == (len(offsets) - 1, 3) and bags.nnz == 0


@pytest.mark.parametrize(
    "which",
    [
        slice(3, 9),
        slice(None),
        slice(9, 3),
        slice(-5, None),
        slice(1, 15, 4),
        slice(None, None, -1),
        [2, 2, 0, -1],
        [],
    ],
    ids=str,
)
def test_getitem__selects_as_numpy_does(rng, which):
    dense, bags = drawn(rng)
    chosen = which if isinstance(which, slice) else np.array(which, np.int64)
    assert np.array_equal(bags[which].toarray(), dense[chosen])


def test_getitem__takes_masks_and_refuses_others(rng):
    dense, bags = drawn(rng)
    mask = rng.random(20) < 0.5
    assert np.array_equal(bags[mask].toarray(), dense[mask])
    for which, error in ((20, ValueError), ([20], IndexError), ([-21], IndexError), ([0.5], TypeError)):
        with pytest.raises(error, match="which must"):
            bags[which]
    with pytest.raises(IndexError, match=r"which must have shape \(20,\)"):
        bags[mask[:4]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0, 3], [0, 2]), ValueError, r"indices must lie in \[0, 2\], got 3"),
        (([-1], [0, 1]), ValueError, "indices must lie in"),
        (([0.5], [0, 1]), TypeError, "indices must be integers"),
        (([[0]], [0, 1]), ValueError, "indices must have shape"),
        (([0], []), TypeError, "offsets must be integers"),
        (([0], [0, 2]), ValueError, "offsets must ascend from 0 to the number of indices, 1"),
        (([0], [1, 1]), ValueError, "offsets must ascend"),
        (([0], [0, 1, 0, 1]), ValueError, "offsets must ascend"),
        (([0], [0, 1], [1.0, 2.0]), ValueError, "weights must have the shape of indices"),
        (([0], [0, 1], [1]), TypeError, "weights must be float32 or float64"),
        (([0], [0, 1], [np.nan]), ValueError, "weights must be finite"),
    ],
    ids=str,
)
def test_bags__check_their_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        rt.Bags(*arguments, n_rows=3)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil"])
@pytest.mark.parametrize("stored", [np.float32, np.float64, np.int8, np.int64])
def test_from_scipy__takes_any_format_and_type(rng, kind, stored):
    sparse = pytest.importorskip("scipy.sparse")
    dense = np.round(4 * drawn(rng)[0]).astype(stored)
    bags = rt.Bags.from_scipy(sparse.coo_array(dense).asformat(kind))
    assert np.array_equal(bags.toarray(), dense)
    assert bags.dtype == np.result_type(stored, np.float32)
    assert rt.Bags.from_scipy(bags) is bags


def test_from_scipy__joins_duplicates_and_refuses_others():
    sparse = pytest.importorskip("scipy.sparse")
    twice = sparse.csr_array((np.array([100, 100], np.int8), [1, 1], [0, 2]), (1, 3))
    assert rt.Bags.from_scipy(twice).toarray().tolist() == [[0.0, 200.0, 0.0]]
    with pytest.raises(TypeError, match=r"matrix must be one of scipy\.sparse, got ndarray"):
        rt.Bags.from_scipy(np.eye(3))
    with pytest.raises(TypeError, match="matrix must be an array of real numbers"):
        rt.Bags.from_scipy(sparse.eye_array(3, dtype=complex))
    with pytest.raises(ValueError, match="matrix must have 2"):
        rt.Bags.from_scipy(sparse.coo_array(np.ones(3)))


def test_to_scipy__and_back_shares_memory(rng, dtype):
    sparse = pytest.importorskip("scipy.sparse")
    dense, bags = drawn(rng, dtype)
    matrix = bags.to_scipy()
    assert isinstance(matrix, sparse.csr_array) and np.array_equal(matrix.toarray(), dense)
    assert np.shares_memory(matrix.data, bags.weights)
    assert np.shares_memory(rt.Bags.from_scipy(matrix).weights, bags.weights)


def test_bags__are_copied_pickled_and_converted(rng):
    dense, bags = drawn(rng)
    for other in (copy.deepcopy(bags), pickle.loads(pickle.dumps(bags))):
        assert np.array_equal(other.toarray(), dense) and repr(other) == repr(bags)
    assert bags.astype(np.float32) is bags and bags.astype(np.float64).dtype == np.float64
    with pytest.raises(TypeError, match="dtype must be float32 or float64"):
        bags.astype(np.int32)
