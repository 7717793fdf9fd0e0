"""MarginMSELoss, DistillKLLoss and ListNetLoss against naive oracles, central differences and torch autograd."""

import copy
import pickle

import numba
import numpy as np
import pytest
import reference
import reference_losses
from conftest import TOLERANCE, import_torch, relative_error

from rvtrain._errors import NotFiniteError
from rvtrain.losses._distillation import WRT, DistillKLLoss, ListNetLoss, MarginMSELoss

SHAPES = [(1, 1), (2, 3), (7, 5), (17, 100), (101, 31), (13, 768)]
KINDS = ["own", "pool", "gathered"]
MAKE = {
    "margin": lambda temperature, *args, **options: MarginMSELoss(*args, **options),
    "divergence": DistillKLLoss,
    "entropy": ListNetLoss,
}


@pytest.fixture(params=list(MAKE))
def name(request):
    return request.param


def make_case(kind, batch, dim, dtype, rng):
    """Anchors, positives, negatives and teacher's scores; keywords; negatives and presence as oracles take them."""
    anchors = rng.normal(size=(batch, dim)).astype(dtype)
    positives = (anchors + rng.normal(size=(batch, dim))).astype(dtype)
    extra, present, listed = {}, None, 2 * batch + 1
    negatives = expanded = rng.normal(size=(batch + 2 if kind == "gathered" else listed, dim)).astype(dtype)
    if kind == "own":
        negatives = expanded = rng.normal(size=(batch, 3, dim)).astype(dtype)
        listed = 3
    elif kind == "gathered":
        listed, indices = 4, rng.integers(-1, len(negatives), size=(batch, 4))
        extra, expanded, present = {"negative_indices": indices}, negatives[indices], indices >= 0
    return (anchors, positives, negatives, rng.normal(size=(batch, 1 + listed))), extra, (expanded, present)


def oracle(name, args, expanded, temperature=0.7, similarity="cosine"):
    """The losses of the rows, of (anchors, positives, negatives, teacher's scores) and the expanded negatives."""
    negatives, present = expanded
    given = {"present": present, "similarity": similarity}
    arguments = (*args[:2], negatives, args[3])
    if name == "margin":
        return reference_losses.margin_mse(*arguments, **given)
    function = reference_losses.distill_kl if name == "divergence" else reference_losses.list_net
    return function(*arguments, temperature, **given)


def torch_loss(name, a, p, n, t, indices, temperature, similarity):
    """The mean over anchors, as sentence-transformers has it, of leaf tensors."""
    import torch

    present = torch.ones(t.shape, dtype=torch.bool)
    if indices is not None:
        present[:, 1:] = torch.tensor(indices >= 0)
        n = n[torch.tensor(indices)]
    if similarity == "cosine":
        a, p, n = (torch.nn.functional.normalize(x, dim=-1, eps=1e-8) for x in (a, p, n))
    others = a @ n.T if n.ndim == 2 else torch.einsum("bd,bkd->bk", a, n)
    c = torch.cat([(a * p).sum(1, keepdim=True), others], dim=1)
    if name == "margin":
        errors = (c[:, :1] - c[:, 1:] - t[:, :1] + t[:, 1:]).masked_fill(~present[:, 1:], 0.0)
        return (errors.square().sum(1) / present[:, 1:].sum(1).clamp(min=1)).mean()
    c, t = ((x / temperature).masked_fill(~present, -torch.inf) for x in (c, t))
    log_q, log_p = (x.log_softmax(1).masked_fill(~present, 0.0) for x in (c, t))
    difference = log_p - log_q if name == "divergence" else -log_q
    factor = temperature**2 if name == "divergence" else 1.0
    return factor * (t.softmax(1) * difference).sum(1).mean()


# --- Values and gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_compute__matches_the_oracle(name, kind, shape, similarity, dtype, rng):
    args, extra, expanded = make_case(kind, *shape, dtype, rng)
    expected = oracle(name, args, expanded, 0.7, similarity)
    values = MAKE[name](0.7, "none", similarity=similarity).compute(*args, **extra)
    assert values.dtype == dtype
    assert relative_error(values, expected) < TOLERANCE[dtype]
    for reduction, total in (("mean", expected.mean()), ("sum", expected.sum())):
        value = MAKE[name](0.7, reduction, similarity=similarity).compute(*args, **extra)
        assert isinstance(value, float)
        assert relative_error(value, total) < TOLERANCE[dtype]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 3), (7, 5), (101, 31), (13, 768)], ids=str)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_gradients__match_torch_autograd(name, kind, shape, similarity, dtype, rng):
    torch = import_torch()
    args, extra, _ = make_case(kind, *shape, dtype, rng)
    loss = MAKE[name](0.7, similarity=similarity)
    value, gradients = loss.compute_with_gradients(*args, wrt=WRT, **extra)
    leaves = [torch.tensor(x.astype(np.float64), requires_grad=True) for x in args[:3]]
    expected = torch_loss(name, *leaves, torch.tensor(args[3]), extra.get("negative_indices"), 0.7, similarity)
    expected.backward()
    assert relative_error(value, expected.item()) < TOLERANCE[dtype]
    for which, gradient, leaf in zip(WRT, gradients, leaves, strict=True):
        assert gradient.dtype == dtype
        assert relative_error(gradient, leaf.grad.numpy()) < TOLERANCE[dtype], which


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_gradients__match_central_differences(name, kind, similarity, rng):
    args, extra, _ = make_case(kind, 5, 4, np.float64, rng)
    loss = MAKE[name](0.5, "sum", similarity=similarity)
    for place, which in enumerate(WRT):
        _, gradient = loss.compute_with_gradients(*args, wrt=which, **extra)

        def of_input(x, place=place):
            return loss.compute(*args[:place], x, *args[place + 1 :], **extra)

        assert relative_error(gradient, reference.central_differences(of_input, args[place])) < 1e-7, which


@pytest.mark.parametrize("kind", KINDS)
def test_gradients__each_alone_equals_all_together(name, kind, dtype, rng):
    args, extra, _ = make_case(kind, 9, 6, dtype, rng)
    loss = MAKE[name](0.5)
    value, together = loss.compute_with_gradients(*args, wrt=WRT, **extra)
    assert value == loss.compute(*args, **extra)
    for which, gradient in zip(WRT, together, strict=True):
        alone_value, alone = loss.compute_with_gradients(*args, wrt=which, **extra)
        assert alone_value == value
        np.testing.assert_array_equal(alone, gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients__same_bits_for_any_threads(name, kind, dtype, rng):
    args, extra, _ = make_case(kind, 301, 50, dtype, rng)
    loss, found, before = MAKE[name](0.1), [], numba.get_num_threads()
    for threads in range(1, min(2, numba.config.NUMBA_NUM_THREADS) + 1):
        numba.set_num_threads(threads)
        value, gradients = loss.compute_with_gradients(*args, wrt=WRT, **extra)
        found.append(np.concatenate([[value], *(g.ravel() for g in gradients)]).tobytes())
    numba.set_num_threads(before)
    assert len(set(found)) == 1


def test_gradients__of_mean_sum_and_none(name, rng):
    args, extra, _ = make_case("own", 6, 5, np.float64, rng)
    values, each = MAKE[name](0.5, "none").compute_with_gradients(*args, **extra)
    total, of_sum = MAKE[name](0.5, "sum").compute_with_gradients(*args, **extra)
    mean, of_mean = MAKE[name](0.5).compute_with_gradients(*args, **extra)
    assert values.shape == (6,)
    np.testing.assert_array_equal(each, of_sum)
    np.testing.assert_allclose([values.sum(), 6 * mean], total, rtol=1e-12)
    np.testing.assert_allclose(6 * of_mean, of_sum, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_sample_weight__weighs_values_and_gradients(name, kind, rng):
    args, extra, expanded = make_case(kind, 6, 5, np.float64, rng)
    weights = np.array([1.0, 0.0, 2.0, 0.5, 0.0, 3.0])
    expected = oracle(name, args, expanded)
    for reduction in ("mean", "sum", "none"):
        loss = MAKE[name](0.7, reduction)
        value, gradients = loss.compute_with_gradients(*args, wrt=WRT, sample_weight=weights, **extra)
        right = reference_losses.reduced(expected, reduction, weights)
        np.testing.assert_allclose(value, right, rtol=1e-11)
        np.testing.assert_array_equal(value, loss.compute(*args, sample_weight=weights, **extra))
        assert not gradients[0][[1, 4]].any()

        def of_anchors(x, loss=loss):
            return np.sum(loss.compute(x, *args[1:], sample_weight=weights, **extra))

        assert relative_error(gradients[0], reference.central_differences(of_anchors, args[0])) < 1e-7


# --- What is given -------------------------------------------------------------------------------------


def test_compute__one_anchor_is_a_batch_of_one(name, dtype, rng):
    (a, p, n, t), _, _ = make_case("own", 1, 5, dtype, rng)
    loss = MAKE[name](0.5)
    value, (ga, gp, gn) = loss.compute_with_gradients(a[0], p[0], n[0], t[0], wrt=WRT)
    right, (ra, rp, rn) = loss.compute_with_gradients(a, p, n, t, wrt=WRT)
    assert value == right
    for one, batch in ((ga, ra), (gp, rp), (gn, rn)):
        np.testing.assert_array_equal(one, batch[0])
    values = MAKE[name](0.5, "none").compute(a[0], p[0], n[0], t[0])
    assert np.ndim(values) == 0
    chosen, gathered = loss.compute_with_gradients(
        a[0], p[0], n[0], t[0], negative_indices=[0, 1, 2], wrt="negatives"
    )
    assert chosen == right
    assert relative_error(gathered, gn) < TOLERANCE[dtype]


@pytest.mark.parametrize("kind", KINDS)
def test_compute__takes_strided_and_read_only_input_and_changes_nothing(name, kind, dtype, rng):
    args, extra, _ = make_case(kind, 7, 6, dtype, rng)
    loss = MAKE[name](0.5)
    expected, gradients = loss.compute_with_gradients(*args, wrt=WRT, **extra)
    strided = []
    for x in args:
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = x
        wide.setflags(write=False)
        strided.append(wide[..., ::2])
    before = [x.copy() for x in strided]
    value, again = loss.compute_with_gradients(*strided, wrt=WRT, **extra)
    assert value == expected
    for one, other in zip([*gradients, *before], [*again, *strided], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_compute__promotes_mixed_types(name, kind, rng):
    (a, p, n, t), extra, _ = make_case(kind, 7, 6, np.float32, rng)
    loss = MAKE[name](0.5)
    value, gradients = loss.compute_with_gradients(a.astype(np.float64), p, n, t, wrt=WRT, **extra)
    assert all(g.dtype == np.float64 for g in gradients)
    assert value == loss.compute(*(x.astype(np.float64) for x in (a, p, n)), t, **extra)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of_teacher", [np.float16, np.float32, np.int64, list])
def test_teacher_scores__may_be_any_numbers(name, kind, of_teacher, rng):
    (a, p, n, t), extra, _ = make_case(kind, 5, 6, np.float64, rng)
    grades = np.round(2 * t)
    given = grades.tolist() if of_teacher is list else grades.astype(of_teacher)
    assert MAKE[name](0.5).compute(a, p, n, given, **extra) == MAKE[name](0.5).compute(a, p, n, grades, **extra)


def test_teacher_scores__without_a_negative_are_not_read(name, rng):
    (a, p, n, t), extra, _ = make_case("gathered", 9, 4, np.float64, rng)
    missing = extra["negative_indices"] < 0
    assert missing.any()
    expected = MAKE[name](0.5).compute(a, p, n, t, **extra)
    t[:, 1:][missing] = np.nan
    assert MAKE[name](0.5).compute(a, p, n, t, **extra) == expected


# --- Edges ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [0, 3])
def test_rows_without_negatives__have_nothing_to_learn(name, columns, dtype, rng):
    (a, p, n, _), _, _ = make_case("gathered", 4, 5, dtype, rng)
    indices = np.full((4, columns), -1)
    loss = MAKE[name](0.5, "none")
    values, gradients = loss.compute_with_gradients(
        a, p, n, np.ones((4, 1 + columns)), negative_indices=indices, wrt=WRT
    )
    assert not values.any()
    assert not any(g.any() for g in gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_temperature__overflows_nowhere(name, kind, dtype, rng):
    args, extra, expanded = make_case(kind, 13, 100, dtype, rng)
    for temperature in (1e-3, 1e-15):
        loss = MAKE[name](temperature, "none")
        values, gradients = loss.compute_with_gradients(*args, wrt=WRT, **extra)
        assert np.isfinite(values).all()
        assert all(np.isfinite(g).all() for g in gradients)
        if temperature == 1e-3:  # scores of a pool are rounded to the inputs' type, and then divided by it
            limit = TOLERANCE[dtype] * (10 if kind == "pool" else 1)
            assert relative_error(values, oracle(name, args, expanded, temperature)) < limit


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_zero_vectors__have_cosine_0_and_finite_gradients(name, kind, similarity, dtype, rng):
    args, extra, expanded = make_case(kind, 5, 4, dtype, rng)
    args[0][0], args[1][1], args[2][2] = 0, 0, 0
    negatives = args[2][extra["negative_indices"]] if extra else args[2]
    loss = MAKE[name](0.7, "none", similarity=similarity)
    values, gradients = loss.compute_with_gradients(*args, wrt=WRT, **extra)
    expected = oracle(name, args, (negatives, expanded[1]), 0.7, similarity)
    assert relative_error(values, expected) < TOLERANCE[dtype]
    assert all(np.isfinite(g).all() for g in gradients)
    assert gradients[0][0].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_cosines__do_not_depend_on_lengths(name, kind, size, dtype, rng):
    (a, p, n, t), extra, _ = make_case(kind, 5, 4, dtype, rng)
    if size < 1:
        a, p, n = (x * dtype(1e-6) for x in (a, p, n))
        size = 1.0
    loss = MAKE[name](0.7)
    value, gradients = loss.compute_with_gradients(*(x * dtype(size) for x in (a, p, n)), t, wrt=WRT, **extra)
    right, expected = loss.compute_with_gradients(a, p, n, t, wrt=WRT, **extra)
    assert relative_error(value, right) < TOLERANCE[dtype]
    for gradient, other in zip(gradients, expected, strict=True):
        assert relative_error(gradient.astype(np.float64) * size, other) < TOLERANCE[dtype]


def test_divergence__of_a_student_who_has_learnt_all_is_0(dtype, rng):
    (a, p, n, _), _, _ = make_case("own", 7, 5, np.float64, rng)
    scores = [[reference_losses.score(x, y) for y in (z, *m)] for x, z, m in zip(a, p, n, strict=True)]
    values, gradient = DistillKLLoss(0.3, "none").compute_with_gradients(
        *(x.astype(dtype) for x in (a, p, n)), scores
    )
    assert (values >= 0).all()
    assert values.max() < TOLERANCE[dtype]
    assert np.abs(gradient).max() < TOLERANCE[dtype]


# --- Objects -------------------------------------------------------------------------------------------


def test_losses__can_be_copied_and_pickled(name, rng):
    args, extra, _ = make_case("own", 3, 4, np.float64, rng)
    loss = MAKE[name](0.5, "sum", similarity="dot")
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert repr(other) == repr(loss)
        assert other.compute(*args, **extra) == loss.compute(*args, **extra)


def test_repr__is_what_makes_it():
    assert repr(MarginMSELoss()) == "MarginMSELoss(reduction='mean', similarity='cosine')"
    assert repr(DistillKLLoss(2)) == "DistillKLLoss(temperature=2, reduction='mean', similarity='cosine')"


# --- Errors --------------------------------------------------------------------------------------------

A = np.ones((3, 4))
N = np.ones((3, 2, 4))
T = np.ones((3, 3))
NAN = np.full((3, 4), np.nan)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((A.astype(np.float16), A, N, T), {}, TypeError, "anchors must be float32 or float64"),
        ((A, A[:2], N, T), {}, ValueError, "positives must have the shape of anchors"),
        ((A, A, None, T), {}, ValueError, "negatives must be an array, got None"),
        ((A, A, N[..., :3], T), {}, ValueError, "negatives must have 4 columns"),
        ((A, A, N, T[:, :2]), {}, ValueError, r"teacher_scores must have shape \(3, 3\).*got \(3, 2\)"),
        ((A, A, A, T), {}, ValueError, r"teacher_scores must have shape \(3, 4\)"),
        ((A, A, N, T[0]), {}, ValueError, "teacher_scores must have 2 dimension"),
        ((A, A, N, T.astype(str)), {}, TypeError, "teacher_scores must be an array of real numbers"),
        ((A, A, N, T * np.nan), {}, NotFiniteError, "teacher_scores must be finite"),
        ((A, A, A, T), {"negative_indices": [[3, 0]] * 3}, ValueError, r"negative_indices must lie in \[-1, 2\]"),
        (
            (A, A, N, T),
            {"sample_weight": [1.0]},
            ValueError,
            "sample_weight must have the shape of the batch",
        ),
        ((A, A, N, T), {"sample_weight": [1.0, -1.0, 0.0]}, ValueError, "sample_weight must be at least 0"),
        ((A, A, N, T), {"sample_weight": [0.0, 0.0, 0.0]}, ValueError, "sample_weight must be.*not all 0"),
        ((A, A, N, T), {"sample_weight": [1.0, np.inf, 0.0]}, NotFiniteError, "sample_weight must be finite"),
        ((NAN, A, N, T), {}, NotFiniteError, "anchors must be finite"),
        ((A, A * np.inf, N, T), {}, NotFiniteError, "positives must be finite"),
        ((A, A, N * np.nan, T), {}, NotFiniteError, "negatives must be finite"),
        ((A, A, NAN, T), {"negative_indices": [[-1, -1], [2, -1], [1, 1]]}, NotFiniteError, "negatives.*row 2"),
        ((NAN, A, A, np.ones((3, 4))), {}, NotFiniteError, "anchors must be finite"),
        ((A, A, NAN, np.ones((3, 4))), {}, NotFiniteError, "negatives must be finite"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where kernels are not compiled
def test_compute__refuses_bad_arguments_by_name(name, arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        MAKE[name](0.5).compute(*arguments, **keywords)


@pytest.mark.parametrize("negatives", [N, A])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_compute__refuses_dot_products_beyond_float64(name, negatives):
    teacher = np.ones((3, 3 if negatives.ndim == 3 else 4))
    for sign in (1, -1):
        with pytest.raises(
            NotFiniteError, match="anchors must have scores and losses that fit in float64, got larger ones in row 0"
        ):
            MAKE[name](0.5, similarity="dot").compute(A * 1e200, A * 1e200, sign * negatives * 1e200, teacher)


@pytest.mark.parametrize("wrt", ["anchor", "temperature", (), ("anchors", "anchors"), None])
def test_compute_with_gradients__refuses_an_unknown_wrt(name, wrt):
    with pytest.raises(ValueError, match="wrt"):
        MAKE[name](0.5).compute_with_gradients(A, A, N, T, wrt=wrt)


def test_constructor__refuses_what_it_does_not_know(name):
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none'"):
        MAKE[name](0.5, "average")
    with pytest.raises(ValueError, match="similarity must be 'cosine' or 'dot'"):
        MAKE[name](0.5, similarity="angle")
    if name != "margin":
        for temperature in (0.0, -1.0, np.nan, np.inf):
            with pytest.raises(ValueError, match="temperature"):
                MAKE[name](temperature)
        loss = MAKE[name](0.5)
        with pytest.raises(ValueError, match="temperature"):
            loss.temperature = 0.0
        assert loss.temperature == 0.5
