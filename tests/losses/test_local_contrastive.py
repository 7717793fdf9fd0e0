"""LocalContrastiveLoss against a naive oracle, central differences and torch autograd."""

import numpy as np
import pytest
import reference
from conftest import TOLERANCE, import_torch, relative_error

from rvtrain.losses._local_contrastive import WRT, LocalContrastiveLoss

SHAPES = [(1, 1), (2, 3), (7, 5), (17, 100), (101, 31), (13, 768)]
KINDS = ["in_batch", "pool", "own", "gathered"]


@pytest.fixture(params=["pairwise", "triplet"])
def form(request):
    return request.param


def make_case(kind, batch, dim, dtype, rng):
    """Arguments of a call, keyword arguments, and the negatives as the oracle takes them.

    Scaled so that distances are near 1, on both sides of a margin of 1.
    """
    scale = 1 / np.sqrt(2 * dim)
    anchors = (scale * rng.normal(size=(batch, dim))).astype(dtype)
    positives = (scale * rng.normal(size=(batch, dim))).astype(dtype)
    args, extra, expanded = (anchors, positives), {}, None
    if kind == "pool":
        expanded = (scale * rng.normal(size=(2 * batch + 1, dim))).astype(dtype)
        args = (*args, expanded)
    elif kind == "own":
        expanded = (scale * rng.normal(size=(batch, 3, dim))).astype(dtype)
        args = (*args, expanded)
    elif kind == "gathered":
        pool = (scale * rng.normal(size=(batch + 2, dim))).astype(dtype)
        indices = rng.integers(0, len(pool), size=(batch, 4))
        args, extra, expanded = (*args, pool), {"negative_indices": indices}, pool[indices]
    return args, extra, expanded


def names_of(kind):
    return WRT[:2] if kind == "in_batch" else WRT


# --- Values and gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_compute__matches_the_oracle(kind, shape, form, dtype, rng):
    args, extra, expanded = make_case(kind, *shape, dtype, rng)
    loss = LocalContrastiveLoss(1.0, "none", form)
    values = loss.compute(*args, **extra)
    expected = reference.local_contrastive(*args[:2], expanded, 1.0, form)
    assert values.dtype == dtype
    assert relative_error(values, expected) < TOLERANCE[dtype]
    for reduction, total in (("mean", expected.mean()), ("sum", expected.sum())):
        value = LocalContrastiveLoss(1.0, reduction, form).compute(*args, **extra)
        assert isinstance(value, float)
        assert relative_error(value, total) < TOLERANCE[dtype]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 3), (7, 5), (101, 31), (13, 768)], ids=str)
def test_gradients__match_torch_autograd(kind, shape, form, dtype, rng):
    torch = import_torch()
    args, extra, _ = make_case(kind, *shape, dtype, rng)
    names = names_of(kind)
    value, gradients = LocalContrastiveLoss(1.0, "mean", form).compute_with_gradients(*args, wrt=names, **extra)

    tensors = [torch.tensor(x.astype(np.float64), requires_grad=True) for x in args]
    a, p, *n = tensors
    near = (a - p).norm(dim=1)
    if kind in ("in_batch", "pool"):
        far = (a[:, None] - (p if kind == "in_batch" else n[0])[None]).norm(dim=2)
        if kind == "in_batch":
            far = far[~torch.eye(len(a), dtype=torch.bool)].reshape(len(a), -1)
    else:
        own = n[0][torch.tensor(extra["negative_indices"])] if kind == "gathered" else n[0]
        far = (a[:, None] - own).norm(dim=2)
    if form == "pairwise":
        expected = (near**2 + (1 - far).clamp(min=0).pow(2).mean(1)).mean()
    else:
        expected = (near[:, None] - far + 1).clamp(min=0).mean()
    expected.backward()
    assert relative_error(value, expected.item()) < TOLERANCE[dtype]
    for name, gradient, tensor in zip(names, gradients, tensors, strict=True):
        assert gradient.dtype == dtype
        assert relative_error(gradient, tensor.grad.numpy()) < TOLERANCE[dtype], name


@pytest.mark.parametrize("kind", KINDS)
def test_gradients__match_central_differences(kind, form, rng):
    args, extra, _ = make_case(kind, 5, 4, np.float64, rng)
    loss = LocalContrastiveLoss(1.2, "sum", form)
    _, gradients = loss.compute_with_gradients(*args, wrt=names_of(kind), **extra)
    for place, gradient in enumerate(gradients):

        def of_input(x, place=place):
            return loss.compute(*args[:place], x, *args[place + 1 :], **extra)

        assert relative_error(gradient, reference.central_differences(of_input, args[place])) < 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_gradients__each_alone_equals_all_together(kind, form, dtype, rng):
    args, extra, _ = make_case(kind, 9, 6, dtype, rng)
    loss = LocalContrastiveLoss(1.0, "mean", form)
    names = names_of(kind)[::-1]
    value, together = loss.compute_with_gradients(*args, wrt=names, **extra)
    assert value == loss.compute(*args, **extra)
    for name, gradient in zip(names, together, strict=True):
        alone_value, alone = loss.compute_with_gradients(*args, wrt=name, **extra)
        assert alone_value == value
        np.testing.assert_array_equal(alone, gradient)


def test_gradients__of_mean_and_none(form, rng):
    (a, p), _, _ = make_case("in_batch", 6, 5, np.float64, rng)
    _, total = LocalContrastiveLoss(1.0, "sum", form).compute_with_gradients(a, p)
    _, mean = LocalContrastiveLoss(1.0, "mean", form).compute_with_gradients(a, p)
    values, each = LocalContrastiveLoss(1.0, "none", form).compute_with_gradients(a, p)
    assert values.shape == (6,)
    np.testing.assert_allclose(mean * 6, total, rtol=1e-12)
    np.testing.assert_array_equal(each, total)


# --- Ids and missing negatives -------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["anchor", "positive", "both"])
def test_ids__in_batch_pairs_that_share_one_are_not_negatives(given, form, dtype, rng):
    (a, p), _, _ = make_case("in_batch", 19, 7, dtype, rng)
    ids = {
        "anchor_ids": rng.integers(0, 9, 19),
        "positive_ids": rng.integers(0, 9, 19) + (given == "both") * 4,
    }
    if given != "both":
        ids = {f"{given}_ids": ids[f"{given}_ids"]}
    known = np.stack(list(ids.values()), axis=1)
    masked = (known[:, None, :, None] == known[None, :, None, :]).any((2, 3))
    values = LocalContrastiveLoss(1.0, "none", form).compute(a, p, **ids)
    expected = reference.local_contrastive(a, p, None, 1.0, form, masked)
    assert relative_error(values, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("kind", ["pool", "own", "gathered"])
def test_ids__negatives_that_share_one_are_not_counted(kind, form, dtype, rng):
    args, extra, expanded = make_case(kind, 11, 6, dtype, rng)
    ids = rng.integers(0, 5, args[2].shape[:-1])
    anchor_ids, positive_ids = rng.integers(0, 5, 11), rng.integers(0, 5, 11)
    column = ids[extra["negative_indices"]] if kind == "gathered" else ids
    masked = (anchor_ids[:, None] == column) | (positive_ids[:, None] == column)
    loss = LocalContrastiveLoss(5.0, "none", form)
    call = dict(anchor_ids=anchor_ids, positive_ids=positive_ids, negative_ids=ids, **extra)
    values, gradient = loss.compute_with_gradients(*args, wrt="negatives", **call)
    expected = reference.local_contrastive(*args[:2], expanded, 5.0, form, masked)
    assert relative_error(values, expected) < TOLERANCE[dtype]
    if kind == "own":
        assert not gradient[masked].any()
        assert (np.abs(gradient[~masked]).max(axis=-1) > 0).all()


def test_ids__all_equal_leaves_the_positives_alone(form, dtype, rng):
    (a, p), _, _ = make_case("in_batch", 8, 5, dtype, rng)
    value, gradient = LocalContrastiveLoss(1.0, "sum", form).compute_with_gradients(a, p, anchor_ids=np.zeros(8, int))
    if form == "pairwise":
        assert relative_error(value, ((a - p).astype(np.float64) ** 2).sum()) < TOLERANCE[dtype]
        assert relative_error(gradient, 2 * (a.astype(np.float64) - p)) < TOLERANCE[dtype]
    else:
        assert value == 0.0
        assert not gradient.any()


def test_negative_indices__minus_one_is_no_negative(form, dtype, rng):
    (a, p, pool), extra, _ = make_case("gathered", 5, 6, dtype, rng)
    indices = extra["negative_indices"]
    indices[1, 2:] = -1
    indices[3] = -1
    loss = LocalContrastiveLoss(1.0, "none", form)
    values, (to_anchors, to_pool) = loss.compute_with_gradients(
        a, p, pool, wrt=("anchors", "negatives"), negative_indices=indices
    )
    expected = reference.local_contrastive(a, p, pool[indices], 1.0, form, indices < 0)
    assert relative_error(values, expected) < TOLERANCE[dtype]
    assert not to_pool[np.setdiff1d(np.arange(len(pool)), indices)].any()
    if form == "triplet":
        assert values[3] == 0.0
        assert not to_anchors[3].any()


def test_negative_indices__none_at_all(form, rng):
    (a, p, pool), _, _ = make_case("gathered", 5, 6, np.float64, rng)
    loss = LocalContrastiveLoss(1.0, "none", form)
    for indices in (np.full((5, 2), -1), np.empty((5, 0), int)):
        values, gradient = loss.compute_with_gradients(a, p, pool, wrt="negatives", negative_indices=indices)
        np.testing.assert_allclose(values, ((a - p) ** 2).sum(1) if form == "pairwise" else np.zeros(5))
        assert not gradient.any()


def test_negative_indices__equal_own_negatives(form, dtype, rng):
    (a, p, pool), extra, expanded = make_case("gathered", 9, 6, dtype, rng)
    extra["negative_indices"][2] = 4  # the same row of the pool several times
    expanded = pool[extra["negative_indices"]]
    loss = LocalContrastiveLoss(1.0, "mean", form)
    by_index, gathered = loss.compute_with_gradients(a, p, pool, wrt="negatives", **extra)
    given, own = loss.compute_with_gradients(a, p, expanded, wrt="negatives")
    assert by_index == given
    scattered = np.zeros(pool.shape)
    np.add.at(scattered, extra["negative_indices"], own.astype(np.float64))
    assert relative_error(gathered, scattered) < TOLERANCE[dtype]


# --- Edge values ---------------------------------------------------------------------------------------


def test_gradients__are_zero_at_distance_zero(form, dtype):
    same = np.ones((3, 4), dtype)
    value, gradients = LocalContrastiveLoss(1.5, "mean", form).compute_with_gradients(
        same, same, same, wrt=("anchors", "positives", "negatives")
    )
    assert value == (2.25 if form == "pairwise" else 1.5)
    assert not any(g.any() for g in gradients)


def test_gradients__are_zero_at_the_kink(form, dtype):
    anchor, positive = np.zeros(2, dtype), np.array([3, 4], dtype)
    at_kink = np.array([[0, 7 if form == "triplet" else 2]], dtype)  # margin 2, d(a, p) = 5
    value, gradients = LocalContrastiveLoss(2.0, form=form).compute_with_gradients(
        anchor, positive, at_kink, wrt=("anchors", "negatives")
    )
    assert value == (0.0 if form == "triplet" else 25.0)
    np.testing.assert_array_equal(gradients[0], [0, 0] if form == "triplet" else [-6, -8])
    assert not gradients[1].any()


def test_compute__tells_near_rows_far_from_the_origin_apart(dtype):
    anchor = np.full((1, 3), 1000, dtype)
    positive, negative = anchor.copy(), anchor.copy()
    positive[0, 0] += dtype(0.25)
    negative[0, 1] += dtype(0.5)
    assert LocalContrastiveLoss(1.0).compute(anchor, positive, negative) == 0.25**2 + 0.5**2


@pytest.mark.parametrize("size", [1e-20, 1e18])
def test_gradients__finite_and_right_at_extreme_norms(size, form, dtype, rng):
    args, _, _ = make_case("pool", 5, 6, np.float64, rng)
    args = [(x * size).astype(dtype) for x in args]
    value, (to_anchors, to_pool) = LocalContrastiveLoss(size, "sum", form).compute_with_gradients(
        *args, wrt=("anchors", "negatives")
    )
    expected = reference.local_contrastive(*args, size, form).sum()
    assert relative_error(value, expected) < TOLERANCE[dtype]
    order = size if form == "pairwise" else 1.0
    for gradient in (to_anchors, to_pool):
        assert 0.01 * order < np.abs(gradient).max() < 100 * order


@pytest.mark.parametrize("form", ["pairwise", "triplet"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where kernels are not compiled
def test_compute__refuses_distances_whose_squares_overflow(form, rng):
    a, p, n = rng.normal(size=(3, 4, 6)) * 1e200
    loss = LocalContrastiveLoss(1.0, form=form)
    with pytest.raises(ValueError, match=r"anchors must be within 1e150 of positives and negatives.* row 0"):
        loss.compute(a, p, n)
    with pytest.raises(ValueError, match=r"embeddings must be within 1e150 .* between nodes 1 and 2"):
        loss.compute_graph(a, [[1, 2]], [[1, 3]])


def test_compute__of_one_anchor(form, dtype, rng):
    (a, p, n), _, _ = make_case("pool", 1, 6, dtype, rng)
    loss = LocalContrastiveLoss(1.0, "mean", form)
    value, (ga, gn) = loss.compute_with_gradients(a[0], p[0], n, wrt=("anchors", "negatives"))
    expected, (ga2, gn2) = loss.compute_with_gradients(a, p, n, wrt=("anchors", "negatives"))
    assert value == expected
    np.testing.assert_array_equal(ga, ga2[0])
    np.testing.assert_array_equal(gn, gn2)
    assert LocalContrastiveLoss(1.0, "none", form).compute(a[0], p[0], n, negative_indices=[0, 2, -1]).shape == ()


def test_compute__takes_strided_mixed_and_foreign_arrays(form, rng):
    torch = import_torch()
    (a, p), _, _ = make_case("in_batch", 12, 10, np.float64, rng)
    loss = LocalContrastiveLoss(1.0, "mean", form)
    expected = loss.compute(a[::2, ::3].copy(), p[::2, ::3].copy())
    assert loss.compute(a[::2, ::3], np.asfortranarray(p[::2, ::3])) == expected
    assert loss.compute(torch.tensor(a)[::2, ::3], torch.tensor(p)[::2, ::3]) == expected
    _, gradient = loss.compute_with_gradients(a.astype(np.float32), p)
    assert gradient.dtype == np.float64


@pytest.mark.parametrize("kind", KINDS)
def test_result__same_bits_for_any_number_of_threads(kind, form, dtype, rng):
    numba = pytest.importorskip("numba")
    args, extra, _ = make_case(kind, 301, 133, dtype, rng)  # large enough for parallel kernels
    for x in args:
        x.reshape(-1, 133)[::3] = x.reshape(-1, 133)[0]  # pairs whose distances come from differences
    loss = LocalContrastiveLoss(1.0, form=form)

    def bits():
        value, gradients = loss.compute_with_gradients(*args, wrt=names_of(kind), **extra)
        return b"".join(np.asarray(x).tobytes() for x in (value, *gradients))

    before, results = numba.get_num_threads(), set()
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            results.add(bits())
    finally:
        numba.set_num_threads(before)
    assert len(results) == 1


def naive_gradients(a, p, n, margin, form):
    """Float64 gradients of the sum of the losses to anchors, positives and a pool, from the differences."""
    a, p, n = (x.astype(np.float64) for x in (a, p, n))
    near = np.linalg.norm(a - p, axis=1)
    to_a, to_p, to_n = np.zeros_like(a), np.zeros_like(p), np.zeros_like(n)
    for i in range(len(a)):
        difference = a[i] - n
        far = np.linalg.norm(difference, axis=1)
        gap = (margin if form == "pairwise" else near[i] + margin) - far
        slope = np.where(gap > 0, 2 * gap if form == "pairwise" else 1.0, 0.0) / len(n)
        steps = np.divide(slope, far, out=np.zeros(len(n)), where=far > 0)[:, None] * difference
        pull = 2.0 if form == "pairwise" else (gap > 0).mean() / near[i]
        to_a[i] = pull * (a[i] - p[i]) - steps.sum(axis=0)
        to_p[i] = -pull * (a[i] - p[i])
        to_n += steps
    return to_a, to_p, to_n


def make_hard_case(kind, dtype, rng):
    """Anchors, positives and a pool whose distances a sum ‖a‖² + ‖n‖² − 2 a · n would lose, and a margin."""
    count, pool, dim, margin = 150, 190, 24, 1.0
    a, p, n = (rng.normal(size=(rows, dim)) / np.sqrt(2 * dim) for rows in (count, count, pool))
    if kind == "offset":
        a, p, n = a + 1e3, p + 1e3, n + 1e3
    elif kind == "clusters":
        centres = 10 * rng.normal(size=(7, dim))
        a, p, n = (0.3 * x + centres[np.arange(len(x)) % 7] for x in (a, p, n))
    elif kind == "near_duplicates":
        n[:count] = a + 1e-4 * rng.normal(size=a.shape)
    elif kind == "duplicates":
        n[:count] = a
        n[count:] = a[0]
    elif kind == "outlier":
        a[3], n[5] = 1e3, -1e6
    elif kind == "large_margin":
        margin = 1e15
    return a.astype(dtype), p.astype(dtype), n.astype(dtype), margin


HARD = ["offset", "clusters", "near_duplicates", "duplicates", "outlier", "large_margin"]


@pytest.mark.parametrize("kind", HARD)
def test_pool__is_accurate_where_dot_products_cancel(kind, form, dtype, rng):
    a, p, n, margin = make_hard_case(kind, dtype, rng)
    values = LocalContrastiveLoss(margin, "none", form).compute(a, p, n)
    assert relative_error(values, reference.local_contrastive(a, p, n, margin, form)) < TOLERANCE[dtype]
    _, gradients = LocalContrastiveLoss(margin, "sum", form).compute_with_gradients(a, p, n, wrt=WRT)
    for gradient, expected in zip(gradients, naive_gradients(a, p, n, margin, form), strict=True):
        assert relative_error(gradient, expected) < TOLERANCE[dtype]


def test_pool__triplets_at_the_kink_have_no_gradient(dtype):
    axes = np.eye(40, dtype=dtype) * dtype(3)
    a, n = axes[:20], axes[20:]  # all √18 apart
    p = (a + n[::-1]) / 2
    value, gradients = LocalContrastiveLoss(0.5 * np.sqrt(18.0), "sum", "triplet").compute_with_gradients(
        a, p, n, wrt=WRT
    )
    assert value == 0.0
    assert not any(g.any() for g in gradients)


def test_compute__leaves_its_inputs_alone(rng):
    args, extra, _ = make_case("gathered", 5, 6, np.float64, rng)
    for x in (*args, *extra.values()):
        x.flags.writeable = False
    LocalContrastiveLoss().compute_with_gradients(*args, wrt=WRT, **extra)


# --- Errors --------------------------------------------------------------------------------------------

A = np.ones((3, 4))
NAN = np.full((3, 4), np.nan)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((A.astype(np.float16), A), {}, TypeError, "anchors must be float32 or float64"),
        ((A, A[:2]), {}, ValueError, "positives must have the shape of anchors"),
        ((A, A, A[:, :3]), {}, ValueError, "negatives must have 4 columns"),
        ((A, A, A), {"negative_indices": [[3]] * 3}, ValueError, r"negative_indices must lie in \[-1, 2\]"),
        ((A, A), {"negative_ids": [1, 2, 3]}, ValueError, "negative_ids needs negatives"),
        ((A, A, A), {"negative_ids": [1, 2, 3]}, ValueError, "negative_ids needs anchor_ids or positive_ids"),
        ((NAN, A), {}, ValueError, "anchors must be finite"),
        ((A, A * np.inf), {}, ValueError, "positives must be finite"),
        ((A, A, NAN), {}, ValueError, "negatives must be finite.*row 0"),
        ((A, A, NAN), {"negative_indices": [[-1], [2], [1]]}, ValueError, "negatives must be finite.*row 2"),
        ((A, A, np.stack([A, A, NAN])), {}, ValueError, "negatives must be finite.*row 6"),
        ((A, A * 1e200), {}, ValueError, "anchors must be within 1e150"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where kernels are not compiled
def test_compute__refuses_bad_arguments_by_name(arguments, keywords, error, message, form):
    with pytest.raises(error, match=message):
        LocalContrastiveLoss(1.0, form=form).compute(*arguments, **keywords)


@pytest.mark.parametrize("wrt", ["anchor", "temperature", (), ("anchors", "anchors"), None])
def test_compute_with_gradients__refuses_an_unknown_wrt(wrt):
    with pytest.raises(ValueError, match="wrt"):
        LocalContrastiveLoss().compute_with_gradients(A, A, wrt=wrt)


def test_compute_with_gradients__refuses_negatives_in_batch():
    with pytest.raises(ValueError, match="wrt names negatives"):
        LocalContrastiveLoss().compute_with_gradients(A, A, wrt="negatives")


def test_constructor__refuses_what_it_does_not_know():
    for margin in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="margin"):
            LocalContrastiveLoss(margin)
    with pytest.raises(TypeError, match="margin"):
        LocalContrastiveLoss("1")
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none'"):
        LocalContrastiveLoss(reduction="average")
    with pytest.raises(ValueError, match="form must be 'pairwise' or 'triplet'"):
        LocalContrastiveLoss(form="quadruplet")
    loss = LocalContrastiveLoss(1.0)
    with pytest.raises(ValueError, match="margin"):
        loss.margin = 0.0
    assert loss.margin == 1.0
