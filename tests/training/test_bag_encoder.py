"""The encoder of bags: against a dense product, finite differences and torch; gradients by rows; what it refuses."""

import copy
import pickle

import numpy as np
import pytest
import reference
from conftest import TOLERANCE, import_torch, relative_error

import rvtrain as rt


def bags_of(rng, dtype, count, n_rows, share=0.4):
    """Bags with some negative weights and, where there are several, empty ones; and the dense matrix."""
    dense = np.where(rng.random((count, n_rows)) < share, rng.normal(size=(count, n_rows)) + 1, 0).astype(dtype)
    if count > 2:
        dense[[1, count - 1]] = 0
    row, column = np.nonzero(dense)
    return rt.Bags(column, np.searchsorted(row, np.arange(count + 1)), dense[row, column], n_rows=n_rows), dense


SHAPES = [(1, 1, 1), (3, 7, 5), (17, 31, 100), (64, 2500, 13), (5, 4, 768)]


@pytest.mark.parametrize("mode", ["mean", "sum"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_encoder__is_the_product_of_bags_and_table(rng, dtype, threads, mode, shape):
    count, n_rows, dim = shape
    bags, dense = bags_of(rng, dtype, count, n_rows)
    model = rt.BagEncoder(n_rows, dim, mode, dtype=dtype)
    out, saved = model.forward(bags)
    expected = reference.bag_encoder(model.params["table"].astype(np.float64), dense, mode)
    assert out.dtype == dtype and relative_error(out, expected) < TOLERANCE[dtype]
    assert not out[[not row.any() for row in dense]].any()
    grad = rng.normal(size=out.shape).astype(dtype)
    gradient = model.backward(saved, grad)["table"]
    scale = np.ones(count) if mode == "sum" else 1 / np.maximum(np.abs(dense.astype(np.float64)).sum(axis=1), 1e-300)
    expected = (dense * scale[:, np.newaxis]).T.astype(np.float64) @ grad.astype(np.float64)
    assert relative_error(gradient.toarray(), expected) < TOLERANCE[dtype]
    assert np.array_equal(gradient.rows, np.flatnonzero(dense.any(axis=0)))


@pytest.mark.parametrize("mode", ["mean", "sum"])
def test_backward__is_the_slope(rng, mode):
    bags, _ = bags_of(rng, np.float64, 6, 9)
    model = rt.BagEncoder(9, 4, mode, dtype=np.float64)
    rows, grad = np.array([3, 0, 3, 2]), rng.normal(size=(4, 4))
    gradient = model.backward(model.forward_rows(bags, rows)[1], grad)["table"].toarray()

    def loss(table):
        model.params["table"][...] = table
        return (grad * model.forward_rows(bags, rows)[0]).sum()

    expected = reference.central_differences(loss, model.params["table"].copy())
    assert relative_error(gradient, expected) < 1e-8


def test_forward_rows__reads_those_rows_in_their_order(rng, dtype):
    bags, _ = bags_of(rng, dtype, 30, 11)
    model = rt.BagEncoder(11, 6, dtype=dtype)
    rows = rng.integers(0, 30, 50)
    assert np.array_equal(model.forward_rows(bags, rows)[0], model.transform(bags)[rows])
    assert model.forward_rows(bags, rows[:0])[0].shape == (0, 6)
    assert model.transform(bags[:0]).shape == (0, 6)


def test_passes__have_the_same_bits_for_any_threads(rng, dtype):
    import numba

    bags, _ = bags_of(rng, dtype, 300, 4000, share=0.05)
    model, found = rt.BagEncoder(4000, 33, dtype=dtype), []
    before = numba.get_num_threads()
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(threads)
        out, saved = model.forward(bags)
        gradient = model.backward(saved, out)["table"]
        found.append((out, gradient.rows, gradient.values))
    numba.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


def test_backward__agrees_with_torch(rng):
    torch = import_torch()
    bags, _ = bags_of(rng, np.float32, 20, 50)
    model = rt.BagEncoder(50, 8, "sum")
    peer = torch.nn.EmbeddingBag(50, 8, mode="sum", sparse=True, include_last_offset=True)
    peer.weight.data[:] = torch.from_numpy(model.params["table"])
    there = peer(*(torch.from_numpy(x) for x in (bags.indices.astype(np.int64), bags.offsets)),
                 per_sample_weights=torch.from_numpy(bags.weights))  # fmt: skip
    out, saved = model.forward(bags)
    assert relative_error(out, there.detach().numpy()) < 2e-6
    (there**2).sum().backward()
    expected = peer.weight.grad.coalesce()
    gradient = model.backward(saved, 2 * out)["table"]
    assert np.array_equal(gradient.rows, expected.indices()[0].numpy())
    assert relative_error(gradient.values, expected.values().numpy()) < 1e-5


@pytest.mark.parametrize("lazy", ["idle", "exact"])
def test_steps__of_rows_are_those_of_the_dense_gradient(rng, lazy):
    bags, _ = bags_of(rng, np.float64, 40, 25, share=0.1)
    models = [rt.BagEncoder(25, 4, dtype=np.float64) for _ in "ab"]
    optimizers = [rt.SGD(models[0].params, 0.5), rt.SGD(models[1].params, 0.5, lazy=lazy)]
    for _ in range(3):
        rows = rng.integers(0, 40, 8)
        for model, optimizer, by_rows in zip(models, optimizers, (False, True), strict=True):
            out, saved = model.forward_rows(bags, rows)
            g = model.backward(saved, out)["table"]
            if by_rows:
                optimizer.step(model.params, {"table": g.values}, rows={"table": g.rows})
            else:
                optimizer.step(model.params, {"table": g.toarray()})
    optimizers[1].catch_up(models[1].params)
    assert relative_error(models[1].params["table"], models[0].params["table"]) < 1e-12


def test_row_gradient__sums_repeated_rows_and_parts(rng, dtype, threads):
    rows, grad = rng.integers(0, 9000, 500), rng.normal(size=(500, 7)).astype(dtype)
    expected = np.zeros((9000, 7))
    np.add.at(expected, rows, grad.astype(np.float64))
    whole = rt.RowGradient((9000, 7), rows, grad)
    parts = rt.RowGradient((9000, 7), rows[:123], grad[:123]) + rt.RowGradient((9000, 7), rows[123:], grad[123:])
    for found in (whole, parts):
        assert np.array_equal(found.rows, np.unique(rows)) and found.values.dtype == dtype
        assert relative_error(found.toarray(), expected) < TOLERANCE[dtype]
    assert np.array_equal(whole.values, parts.values)
    owners, weights = rng.integers(0, 3, 500), rng.normal(size=500).astype(dtype)
    shared = rt.RowGradient((9000, 7), rows, grad[:3], owners, weights)
    expected[:] = 0
    np.add.at(expected, rows, (weights[:, np.newaxis] * grad[owners]).astype(np.float64))
    assert relative_error(shared.toarray(), expected) < TOLERANCE[dtype]


def test_row_gradient__may_have_no_row():
    gradient = rt.RowGradient((4, 3), np.empty(0, int), np.empty((0, 3), np.float32))
    assert gradient.rows.shape == (0,) and gradient.values.shape == (0, 3) and not gradient.toarray().any()
    assert len((gradient + gradient).rows) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((4, 3), [4], np.ones((1, 3))), ValueError, r"rows must lie in \[0, 3\], got 4"),
        (((4, 3), [0], np.ones((1, 2))), ValueError, r"grad must have shape \(m, 3\), got \(1, 2\)"),
        (((4, 3), [0], np.ones((2, 3))), ValueError, "grad must have the shape of rows"),
        (((4, 3), [0], np.ones((2, 3)), [2]), ValueError, "owners must lie in"),
        (((4, 3), [0], np.ones((1, 3)), None, np.ones(2)), ValueError, "weights must have the shape of rows"),
        (((4, 3), [0], np.ones((1, 3), int)), TypeError, "grad must be float32 or float64"),
        ((4, [0], np.ones((1, 3))), TypeError, "shape must be that of a table"),
    ],
    ids=str,
)
def test_row_gradient__checks_its_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        rt.RowGradient(*arguments)


def test_row_gradient__adds_only_its_kind():
    one = rt.RowGradient((4, 3), [0], np.ones((1, 3)))
    with pytest.raises(ValueError, match="tables of one shape"):
        one + rt.RowGradient((5, 3), [0], np.ones((1, 3)))
    with pytest.raises(TypeError):
        one + np.ones((4, 3))


def test_encoder__takes_strings_bags_and_scipy(rng):
    texts = ["one text", "", "another text"]
    features = rt.HashedNgrams(64).fit(texts)
    model = rt.BagEncoder(64, 5, features=features)
    bags = features.transform(texts)
    wanted = model.encode(bags)
    for given in (texts, tuple(texts), np.array(texts), np.array(texts, object)):
        assert np.array_equal(model.encode(given), wanted)
    assert np.array_equal(model.forward_rows(texts, [2, 0])[0], wanted[[2, 0]])
    assert model.encode([]).shape == (0, 5)
    pytest.importorskip("scipy.sparse")
    for given in (bags.to_scipy(), bags.to_scipy().tocoo(), bags.astype(np.float64).to_scipy()):
        assert relative_error(model.encode(given), wanted) < 1e-6


def test_encoder__refuses_what_it_cannot_read(rng):
    features = rt.HashedNgrams(64).fit(["a"])
    model = rt.BagEncoder(64, 5, features=features)
    for x, error, message in (
        (np.ones((2, 64), np.float32), TypeError, "x must be a sequence of strings, Bags, or a matrix .* ndarray"),
        ("a text", TypeError, r"x must be a sequence of strings, got str: give \[x\]"),
        (["a", None], TypeError, r"x must be a sequence of strings, got None at \[1\]"),
        (rt.Bags([0], [0, 1], n_rows=63), ValueError, r"x must have 64 columns .* got \(1, 63\)"),
        (None, TypeError, "x must be a sequence of strings"),
    ):
        with pytest.raises(error, match=message):
            model.transform(x)
    with pytest.raises(TypeError, match="x must be bags where the encoder has no features, got strings"):
        rt.BagEncoder(64, 5).transform(["a"])
    with pytest.raises(ValueError, match="features must be fitted"):
        rt.BagEncoder(64, 5, features=rt.HashedNgrams(64)).transform(["a"])
    out, saved = model.forward(["a", "b"])
    with pytest.raises(ValueError, match="grad must have the shape of the embeddings"):
        model.backward(saved, out[:1])
    with pytest.raises(ValueError, match="to_input must be False"):
        model.backward(saved, out, to_input=True)
    with pytest.raises(ValueError, match=r"rows must lie in \[0, 1\], got 2"):
        model.forward_rows(["a", "b"], [2])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_rows": 0}, ValueError, "n_rows must be"),
        ({"dim": 0}, ValueError, "dim must be"),
        ({"mode": "max"}, ValueError, "mode must be 'mean' or 'sum'"),
        ({"features": "words"}, TypeError, "features must be a HashedNgrams or None"),
        ({"features": rt.HashedNgrams(9)}, ValueError, "features must have n_rows=8 rows like the table, got 9"),
        ({"dtype": np.float16}, TypeError, "dtype must be float32 or float64"),
        ({"scale": -1.0}, ValueError, "scale must be"),
    ],
    ids=str,
)
def test_encoder__checks_its_options(options, error, message):
    with pytest.raises(error, match=message):
        rt.BagEncoder(**{"n_rows": 8, "dim": 2, **options})


def test_encoder__is_copied_and_pickled():
    texts = ["one text", "another text"]
    model = rt.BagEncoder(64, 5, features=rt.HashedNgrams(64).fit(texts))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.encode(texts), model.encode(texts)) and repr(other) == repr(model)
