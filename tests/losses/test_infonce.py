"""InfoNCELoss against a naive oracle, central differences and torch autograd."""

import numpy as np
import pytest
import reference
from conftest import TOLERANCE, import_torch, relative_error

import rvtrain as rt

WRT = rt.InfoNCELoss.WRT

SHAPES = [(1, 1), (2, 3), (7, 5), (17, 100), (64, 64), (101, 31), (13, 768)]
KINDS = ["in_batch", "symmetric", "pool", "own", "gathered"]
TAU = 0.1


def make_case(kind, batch, dim, dtype, rng):
    """Arguments of a call, keyword arguments, and the negatives as the oracle takes them."""
    anchors = rng.normal(size=(batch, dim)).astype(dtype)
    positives = (anchors + rng.normal(size=(batch, dim))).astype(dtype)
    args, extra, expanded = (anchors, positives), {}, None
    if kind == "pool":
        expanded = rng.normal(size=(2 * batch + 1, dim)).astype(dtype)
        args = (*args, expanded)
    elif kind == "own":
        expanded = rng.normal(size=(batch, 3, dim)).astype(dtype)
        args = (*args, expanded)
    elif kind == "gathered":
        pool = rng.normal(size=(batch + 2, dim)).astype(dtype)
        indices = rng.integers(0, len(pool), size=(batch, 4))
        args, extra, expanded = (*args, pool), {"negative_indices": indices}, pool[indices]
    return args, extra, expanded


def oracle(kind, args, expanded, temperature=TAU, masked=None):
    if kind == "symmetric":
        return reference.infonce_symmetric(args[0], args[1], temperature, masked)
    return reference.infonce(args[0], args[1], expanded, temperature, masked)


def wrt_of(kind):
    return WRT if kind in ("pool", "own", "gathered") else ("anchors", "positives", "temperature")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_compute__matches_the_oracle(kind, shape, dtype, rng):
    args, extra, expanded = make_case(kind, *shape, dtype, rng)
    loss = rt.InfoNCELoss(TAU, reduction="none", symmetric=kind == "symmetric")
    values = loss.compute(*args, **extra)
    assert values.dtype == dtype
    assert relative_error(values, oracle(kind, args, expanded)) < TOLERANCE[dtype]
    loss.reduction = "mean"
    assert loss.compute(*args, **extra) == pytest.approx(values.mean(dtype=np.float64), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 2), (7, 5), (17, 100), (101, 31), (13, 768)], ids=str)
@pytest.mark.parametrize("temperature", [0.5, 0.07, 0.005])
def test_gradients__match_torch_autograd(kind, shape, temperature, dtype, rng):
    torch = import_torch()
    args, extra, _ = make_case(kind, *shape, dtype, rng)
    names = wrt_of(kind)
    loss = rt.InfoNCELoss(temperature, symmetric=kind == "symmetric")
    value, gradients = loss.compute_with_gradients(*args, wrt=names, **extra)

    tensors = [torch.tensor(x.astype(np.float64), requires_grad=True) for x in args]
    tau = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    a, p, *n = [torch.nn.functional.normalize(x, dim=-1, eps=1e-8) for x in tensors]
    s_pos = (a * p).sum(-1) / tau
    if kind in ("in_batch", "symmetric"):
        s_neg = (a @ p.T / tau).masked_fill(torch.eye(len(a), dtype=torch.bool), -torch.inf)
    elif kind == "pool":
        s_neg = a @ n[0].T / tau
    else:
        own = n[0][torch.tensor(extra["negative_indices"])] if kind == "gathered" else n[0]
        s_neg = torch.einsum("bd,bkd->bk", a, own) / tau
    zero = torch.zeros_like(s_pos)  # cross_entropy would lose the losses below 1e-16
    expected = torch.logaddexp(zero, s_neg.logsumexp(1) - s_pos).mean()
    if kind == "symmetric":
        expected = (expected + torch.logaddexp(zero, s_neg.logsumexp(0) - s_pos).mean()) / 2
    expected.backward()
    by_name = dict(zip(WRT, [*(t.grad for t in tensors), *[None] * (3 - len(tensors)), tau.grad], strict=True))
    assert relative_error(value, expected.item()) < TOLERANCE[dtype]
    for name, gradient in zip(names, gradients, strict=True):
        right = by_name[name].numpy()
        smallest = np.finfo(dtype).tiny / TOLERANCE[dtype]  # what float32 can tell from zero
        assert np.abs(gradient - right).max() < TOLERANCE[dtype] * max(np.abs(right).max(), smallest), name


@pytest.mark.parametrize("kind", KINDS)
def test_gradients__match_central_differences(kind, rng):
    args, extra, _ = make_case(kind, 5, 4, np.float64, rng)
    loss = rt.InfoNCELoss(0.3, reduction="sum", symmetric=kind == "symmetric")
    names = wrt_of(kind)
    _, gradients = loss.compute_with_gradients(*args, wrt=names, **extra)
    for name, gradient in zip(names, gradients, strict=True):
        if name == "temperature":
            up, down = (rt.InfoNCELoss(0.3 + h, "sum", loss.symmetric) for h in (1e-6, -1e-6))
            expected = (up.compute(*args, **extra) - down.compute(*args, **extra)) / 2e-6
        else:
            place = WRT.index(name)

            def of_input(x, place=place):
                return loss.compute(*args[:place], x, *args[place + 1 :], **extra)

            expected = reference.central_differences(of_input, args[place])
        assert relative_error(gradient, expected) < 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_gradients__vanish_on_a_line(kind, dtype, rng):
    args, extra, _ = make_case(kind, 7, 1, dtype, rng)
    loss = rt.InfoNCELoss(TAU, symmetric=kind == "symmetric")
    _, gradients = loss.compute_with_gradients(*args, wrt=wrt_of(kind)[:-1], **extra)
    for x, gradient in zip(args, gradients, strict=True):
        assert np.abs(gradient * x).max() < np.finfo(dtype).eps / TAU


def test_gradients__of_mean_and_none(rng):
    (a, p), _, _ = make_case("in_batch", 6, 5, np.float64, rng)
    _, total = rt.InfoNCELoss(TAU, "sum").compute_with_gradients(a, p)
    _, mean = rt.InfoNCELoss(TAU, "mean").compute_with_gradients(a, p)
    values, each = rt.InfoNCELoss(TAU, "none").compute_with_gradients(a, p)
    assert values.shape == (6,)
    np.testing.assert_allclose(mean * 6, total, rtol=1e-12)
    np.testing.assert_array_equal(each, total)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients__each_alone_equals_all_together(kind, dtype, rng):
    args, extra, _ = make_case(kind, 9, 6, dtype, rng)
    loss = rt.InfoNCELoss(TAU, symmetric=kind == "symmetric")
    value, together = loss.compute_with_gradients(*args, wrt=wrt_of(kind), **extra)
    for name, gradient in zip(wrt_of(kind), together, strict=True):
        alone_value, alone = loss.compute_with_gradients(*args, wrt=name, **extra)
        assert alone_value == value
        np.testing.assert_array_equal(alone, gradient)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("temperature", [0.07, 0.005])
def test_gradients__of_a_large_batch_that_fills_no_tile(temperature, symmetric, dtype, rng):
    anchors = rng.normal(size=(1499, 100)).astype(dtype)
    # Positives about as near as the nearest of so many negatives: at any τ there is something to learn.
    positives = (0.35 * anchors + rng.normal(size=anchors.shape)).astype(dtype)
    loss = rt.InfoNCELoss(temperature, symmetric=symmetric)
    value, gradients = loss.compute_with_gradients(anchors, positives, wrt=("anchors", "positives"))
    right, *expected = reference.infonce_in_batch_gradients(anchors, positives, temperature)
    if symmetric:
        back, *crossed = reference.infonce_in_batch_gradients(positives, anchors, temperature)
        right = (right + back) / 2
        expected = [(one + other) / 2 for one, other in zip(expected, crossed[::-1], strict=True)]
    assert relative_error(value, right) < TOLERANCE[dtype]
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert relative_error(gradient, wanted) < TOLERANCE[dtype]


# --- Ids and missing negatives -------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("given", ["anchor", "positive", "both"])
def test_ids__in_batch_pairs_that_share_one_are_not_negatives(symmetric, given, dtype, rng):
    (a, p), _, _ = make_case("in_batch", 19, 7, dtype, rng)
    anchor_ids, positive_ids = rng.integers(0, 9, 19), rng.integers(0, 9, 19) + (given == "both") * 4
    ids = {"anchor_ids": anchor_ids, "positive_ids": positive_ids}
    if given != "both":
        ids = {f"{given}_ids": ids[f"{given}_ids"]}
    known = np.stack(list(ids.values()), axis=1)
    masked = (known[:, None, :, None] == known[None, :, None, :]).any((2, 3))
    loss = rt.InfoNCELoss(TAU, "none", symmetric)
    expected = oracle("symmetric" if symmetric else "in_batch", (a, p), None, masked=masked)
    assert relative_error(loss.compute(a, p, **ids), expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("kind", ["pool", "own", "gathered"])
def test_ids__negatives_that_share_one_get_no_weight_and_no_gradient(kind, dtype, rng):
    args, extra, expanded = make_case(kind, 11, 6, dtype, rng)
    anchor_ids = rng.integers(0, 5, 11)
    ids = rng.integers(0, 5, args[2].shape[:-1])
    column = ids[extra["negative_indices"]] if kind == "gathered" else ids
    masked = anchor_ids[:, None] == column
    loss = rt.InfoNCELoss(TAU, "none")
    call = dict(anchor_ids=anchor_ids, negative_ids=ids, **extra)
    values, gradient = loss.compute_with_gradients(*args, wrt="negatives", **call)
    assert relative_error(values, oracle(kind, args, expanded, masked=masked)) < TOLERANCE[dtype]
    if kind == "own":
        assert (gradient[masked] == 0).all()
        assert (np.abs(gradient[~masked]).max(axis=-1) > 0).all()


@pytest.mark.parametrize("kind", ["in_batch", "pool"])
def test_ids__may_be_any_integers(kind, rng):
    args, _, _ = make_case(kind, 40, 6, np.float32, rng)
    few, loss = [rng.integers(0, 5, len(x)) for x in (args[0], args[-1])], rt.InfoNCELoss(TAU, "none")
    names = ("anchor_ids", "positive_ids" if kind == "in_batch" else "negative_ids")
    expected = loss.compute(*args, **dict(zip(names, few, strict=True)))
    for number in (lambda x: x - 3, lambda x: x * 2**32, lambda x: -1 - x * 2**40):
        ids = dict(zip(names, map(number, few), strict=True))
        np.testing.assert_array_equal(loss.compute(*args, **ids), expected)


def test_ids__all_equal_leaves_no_negative(dtype, rng):
    (a, p), _, _ = make_case("in_batch", 8, 5, dtype, rng)
    value, gradient = rt.InfoNCELoss(TAU).compute_with_gradients(a, p, positive_ids=np.zeros(8, int))
    assert value == 0.0
    assert not gradient.any()


def test_in_batch__of_one_pair_has_no_negative(dtype):
    value, gradients = rt.InfoNCELoss(TAU).compute_with_gradients(
        np.ones((1, 3), dtype), np.ones((1, 3), dtype), wrt=("anchors", "positives", "temperature")
    )
    assert value == 0.0
    assert not any(np.any(g) for g in gradients)


def test_negative_indices__minus_one_is_no_negative(dtype, rng):
    (a, p, pool), extra, _ = make_case("gathered", 5, 6, dtype, rng)
    indices = extra["negative_indices"]
    indices[1, 2:] = -1
    indices[3] = -1
    masked = indices < 0
    loss = rt.InfoNCELoss(TAU, "none")
    values, gradient = loss.compute_with_gradients(a, p, pool, negative_indices=indices)
    assert relative_error(values, reference.infonce(a, p, pool[indices], TAU, masked)) < TOLERANCE[dtype]
    assert values[3] == 0.0
    assert not gradient[3].any()


def test_negative_indices__equal_own_negatives(dtype, rng):
    (a, p, pool), extra, expanded = make_case("gathered", 9, 6, dtype, rng)
    loss = rt.InfoNCELoss(TAU)
    by_index, gathered = loss.compute_with_gradients(a, p, pool, wrt="negatives", **extra)
    given, own = loss.compute_with_gradients(a, p, expanded, wrt="negatives")
    assert by_index == given
    scattered = np.zeros(pool.shape)
    np.add.at(scattered, extra["negative_indices"], own.astype(np.float64))
    assert relative_error(gathered, scattered) < TOLERANCE[dtype]


# --- Edge values ---------------------------------------------------------------------------------------


def test_compute__hopeless_positives_keep_their_true_loss(dtype):
    assert rt.InfoNCELoss(0.001).compute(np.eye(2, dtype=dtype), -np.eye(2, dtype=dtype)) == pytest.approx(1000)


def test_compute__easy_positives_keep_their_tiny_loss():
    value, gradient = rt.InfoNCELoss(0.02).compute_with_gradients(np.eye(2), np.eye(2), wrt="temperature")
    assert value == pytest.approx(np.exp(-50.0), rel=1e-12)
    assert gradient == pytest.approx(50.0 / 0.02 * np.exp(-50.0), rel=1e-12)


@pytest.mark.parametrize("size", [1e-20, 1e-9, 1.0, 1e18])
def test_gradients__finite_and_right_at_extreme_norms(size, dtype, rng):
    (a, p), _, _ = make_case("in_batch", 5, 6, np.float64, rng)
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    a, p = (a * size).astype(dtype), p.astype(dtype)
    value, (ga, gp) = rt.InfoNCELoss(TAU).compute_with_gradients(a, p, wrt=("anchors", "positives"))
    assert relative_error(value, reference.infonce(a, p, None, TAU).mean()) < TOLERANCE[dtype]
    divisor = max(size, 1e-8)
    unit = a.astype(np.float64) / divisor

    def of_unit(x):  # the clamped norm is a constant; above ε, cos depends on the direction alone
        return reference.infonce(x if size > 1e-8 else x * 1e8, p, None, TAU).mean() if size > 1e-8 else linear(x)

    def linear(x):
        cosines = x @ (p / np.linalg.norm(p.astype(np.float64), axis=1, keepdims=True)).T / TAU
        return np.mean([reference.logsumexp(row) - row[i] for i, row in enumerate(cosines)])

    expected = reference.central_differences(of_unit, unit) / divisor
    tolerance = max(TOLERANCE[dtype], 1e-7)  # of the differences
    assert relative_error(ga, expected) < tolerance
    assert np.isfinite(gp).all()


def stretched(x, size):
    """The same directions, the largest element of each row ± size."""
    return x / np.abs(x).max(axis=-1, keepdims=True) * x.dtype.type(size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1e37, 1e154, 1e200, 1.7e308])  # of the last, norms are beyond float64
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where kernels are not compiled
def test_gradients__are_right_where_squares_leave_the_type(kind, size, rng):
    dtype = np.float32 if size == 1e37 else np.float64
    args, extra, _ = make_case(kind, 9, 6, dtype, rng)
    anchors, *others = (stretched(x, 1.0) for x in args)
    others = [stretched(x, size) for x in others]
    loss = rt.InfoNCELoss(TAU, symmetric=kind == "symmetric")
    expected, gradients = loss.compute_with_gradients(*(stretched(x, 1.0) for x in args), wrt=wrt_of(kind), **extra)
    value, found = loss.compute_with_gradients(anchors, *others, wrt=wrt_of(kind), **extra)
    assert value == pytest.approx(expected, rel=TOLERANCE[dtype])
    for name in ("anchors", "temperature"):
        at = wrt_of(kind).index(name)
        assert relative_error(found[at], gradients[at]) < TOLERANCE[dtype]
    assert loss.compute(stretched(anchors, size), *others, **extra) == pytest.approx(expected, rel=TOLERANCE[dtype])
    if size < 1e300 and dtype == np.float64:
        _, found = loss.compute_with_gradients(stretched(anchors, size), *others, wrt=wrt_of(kind), **extra)
        for name, gradient, wanted in zip(wrt_of(kind), found, gradients, strict=True):
            scale = 1.0 if name == "temperature" else size
            assert relative_error(np.asarray(gradient) * scale, wanted) < TOLERANCE[dtype]


def test_gradients__zero_vectors_and_duplicate_rows(dtype):
    a = np.array([[0, 0], [1, 0], [1, 0]], dtype)
    value, gradients = rt.InfoNCELoss(TAU).compute_with_gradients(a, a[::-1], wrt=("anchors", "positives"))
    assert relative_error(value, reference.infonce(a, a[::-1], None, TAU).mean()) < TOLERANCE[dtype]
    assert all(np.isfinite(g).all() for g in gradients)


def test_compute__one_anchor(dtype, rng):
    (a, p, n), _, _ = make_case("pool", 1, 6, dtype, rng)
    loss = rt.InfoNCELoss(TAU)
    value, (ga, gn) = loss.compute_with_gradients(a[0], p[0], n, wrt=("anchors", "negatives"))
    expected, (ga2, gn2) = loss.compute_with_gradients(a, p, n, wrt=("anchors", "negatives"))
    assert value == pytest.approx(expected, rel=1e-6)
    assert ga.shape == (6,) and gn.shape == n.shape
    assert relative_error(ga, ga2[0]) < 1e-5
    assert relative_error(gn, gn2) < 1e-5
    assert loss.compute(a[0], p[0]) == 0.0
    assert rt.InfoNCELoss(TAU, "none").compute(a[0], p[0], n, negative_indices=[0, 2, -1]).shape == ()


def test_compute__strided_and_mixed_inputs_are_taken(rng):
    (a, p), _, _ = make_case("in_batch", 12, 10, np.float64, rng)
    loss = rt.InfoNCELoss(TAU)
    assert loss.compute(a[::2, ::3], p[::2, ::3]) == loss.compute(a[::2, ::3].copy(), p[::2, ::3].copy())
    assert loss.compute(np.asfortranarray(a), p) == loss.compute(a, p)
    _, gradient = loss.compute_with_gradients(a.astype(np.float32), p)
    assert gradient.dtype == np.float64


@pytest.mark.parametrize("kind", KINDS)
def test_result__same_bits_for_any_number_of_threads(kind, dtype, rng):
    numba = pytest.importorskip("numba")
    args, extra, _ = make_case(kind, 1031, 33, dtype, rng)
    loss = rt.InfoNCELoss(TAU, symmetric=kind == "symmetric")
    before = numba.get_num_threads()
    results = []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            value, gradients = loss.compute_with_gradients(*args, wrt=wrt_of(kind), **extra)
            results.append(b"".join(np.asarray(x).tobytes() for x in (value, *gradients)))
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


def test_compute__leaves_its_inputs_alone(rng):
    args, extra, _ = make_case("gathered", 5, 6, np.float64, rng)
    for x in (*args, *extra.values()):
        x.flags.writeable = False
    rt.InfoNCELoss(TAU).compute_with_gradients(*args, wrt=WRT, **extra)


# --- Errors --------------------------------------------------------------------------------------------

A = np.ones((3, 4))


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((A.astype(np.float16), A), {}, TypeError, "anchors must be float32 or float64"),
        ((A, A.astype(int)), {}, TypeError, "positives must be float32 or float64"),
        ((A, A[:2]), {}, ValueError, r"positives must have the shape of anchors, \(3, 4\), got \(2, 4\)"),
        ((A[:0], A[:0]), {}, ValueError, "anchors must not be empty"),
        ((A[None], A[None]), {}, ValueError, "anchors must have 1 or 2 dimension"),
        ((A, A, A[:, :3]), {}, ValueError, "negatives must have 4 columns"),
        ((A, A, np.ones((2, 5, 4))), {}, ValueError, r"negatives must have shape \(3, N, 4\)"),
        ((A, A, A), {"negative_indices": [[3]] * 3}, ValueError, r"negative_indices must lie in \[-1, 2\]"),
        ((A, A, A), {"negative_indices": [[0.5]] * 3}, TypeError, "negative_indices must be integers"),
        ((A, A, A), {"negative_indices": [[0]]}, ValueError, "negative_indices must have shape"),
        ((A, A), {"negative_indices": [[0]] * 3}, ValueError, "negative_indices needs negatives"),
        ((A, A), {"anchor_ids": [1, 2]}, ValueError, "anchor_ids must have shape"),
        ((A, A), {"negative_ids": [1, 2, 3]}, ValueError, "negative_ids needs negatives"),
        ((A, A, A), {"negative_ids": [1, 2, 3]}, ValueError, "negative_ids needs anchor_ids or positive_ids"),
        ((A * np.nan, A), {}, ValueError, "anchors must be finite.*row 0"),
        ((A, A * np.inf), {}, ValueError, "positives must be finite"),
        ((A, A, A * np.nan), {}, ValueError, "negatives must be finite"),
        ((A, A, A * np.nan), {"negative_indices": [[2]] * 3}, ValueError, "negatives must be finite.*row 2"),
    ],
)
def test_compute__refuses_bad_arguments_by_name(arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        rt.InfoNCELoss(TAU).compute(*arguments, **keywords)


@pytest.mark.parametrize("wrt", ["anchor", (), ("anchors", "anchors"), None, ("anchors", 3)])
def test_compute_with_gradients__refuses_an_unknown_wrt(wrt):
    with pytest.raises(ValueError, match="wrt"):
        rt.InfoNCELoss(TAU).compute_with_gradients(A, A, wrt=wrt)


def test_compute_with_gradients__refuses_negatives_in_batch():
    with pytest.raises(ValueError, match="wrt names negatives"):
        rt.InfoNCELoss(TAU).compute_with_gradients(A, A, wrt="negatives")


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_temperature__must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature"):
        rt.InfoNCELoss(temperature)
    loss = rt.InfoNCELoss(0.5)
    with pytest.raises(ValueError, match="temperature"):
        loss.temperature = temperature
    assert loss.temperature == 0.5


def test_constructor__refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none'"):
        rt.InfoNCELoss(0.1, "average")
    with pytest.raises(TypeError, match="symmetric"):
        rt.InfoNCELoss(0.1, symmetric=1)


def test_gradients__have_the_same_bits_wherever_their_arrays_lie(dtype):
    rng = np.random.default_rng(0)
    anchors, positives = rng.normal(size=(2, 5, 4)).astype(dtype)
    loss, kept = rt.InfoNCELoss(0.3), []
    _, expected = loss.compute_with_gradients(anchors, positives, wrt=("anchors", "positives"))
    for _ in range(3000):  # small arrays come to lie next to each other by chance
        kept = [np.empty(size) for size in rng.integers(1, 300, 5)]
        again = loss.compute_with_gradients(anchors.copy(), positives.copy(), wrt=("anchors", "positives"))[1]
        for a, b in zip(expected, again, strict=True):
            np.testing.assert_array_equal(a, b)
    assert kept
