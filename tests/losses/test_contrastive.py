"""What all losses on pairs and negatives have in common: right values and gradients, for every place of negatives."""

import copy
import pickle

import numba
import numpy as np
import pytest
import reference
import reference_losses
from conftest import TOLERANCE, import_torch, relative_error
from loss_cases import GRID, LOSSES, PLACES, check_gradient, make_case, torch_cosines

import rvtrain as rt

pytestmark = pytest.mark.parametrize("name", LOSSES)


def made(name, reduction="mean", **changed):
    entry = LOSSES[name]
    return entry.make(reduction, **entry.parameters | changed)


def expected(name, case, **changed):
    return LOSSES[name].oracle(case, **LOSSES[name].parameters | changed)


# --- Values and gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("shape", "ids"), [*GRID, ((5, 1), 0)], ids=str)
def test_values__match_the_oracle(name, place, shape, ids, dtype, rng):
    case = make_case(place, *shape, dtype, rng, ids)
    values = made(name, "none").compute(*case.args, **case.extra)
    assert values.dtype == dtype
    right = expected(name, case)  # to 1e-16 of its largest term
    assert np.abs(values - right).max() < TOLERANCE[dtype] * max(np.abs(right).max(), 1e-3)


@pytest.mark.parametrize("place", PLACES[:2])
def test_values__match_the_oracle_beyond_one_block_and_one_group(name, place, rng):
    case = make_case(place, 300 if place == "in_batch" else 130, 130, np.float64, rng, ids=1)
    values = made(name, "none").compute(*case.args, **case.extra)
    assert relative_error(values, expected(name, case)) < TOLERANCE[np.float64]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("shape", "ids"), [*GRID, ((300, 130), 1)], ids=str)
def test_gradients__match_torch_autograd(name, place, shape, ids, dtype, rng):
    torch = import_torch()
    case, entry = make_case(place, *shape, dtype, rng, ids), LOSSES[name]
    names = (*case.names, *entry.learned)
    value, gradients = made(name).compute_with_gradients(*case.args, wrt=names, **case.extra)

    tensors = [torch.tensor(x.astype(np.float64), requires_grad=True) for x in case.args]
    parameters = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in entry.parameters.items()}
    own, others, keep = torch_cosines(torch, place, tensors, case)
    masked = case.absent if entry.knows_ids else case.masked
    keep = keep if masked is None else keep & ~torch.tensor(masked)
    right = entry.torch(torch, own, others, case, keep, **parameters).mean()
    right.backward()
    assert relative_error(value, right.item()) < TOLERANCE[dtype]
    for wrt, gradient, tensor in zip(names, gradients, [*tensors, *parameters.values()], strict=True):
        check_gradient(wrt, gradient, tensor.grad.numpy(), dtype)


@pytest.mark.parametrize("place", PLACES)
def test_gradients__match_central_differences_of_the_oracle(name, place, rng):
    case, entry = make_case(place, 5, 4, np.float64, rng, ids=1), LOSSES[name]
    names = (*case.names, *entry.learned)
    _, gradients = made(name, "sum").compute_with_gradients(*case.args, wrt=names, **case.extra)
    for at, (wrt, gradient) in enumerate(zip(names, gradients, strict=True)):
        if wrt in entry.parameters:
            value = entry.parameters[wrt]
            up, down = (expected(name, case, **{wrt: value + h}).sum() for h in (1e-6, -1e-6))
            assert gradient == pytest.approx((up - down) / 2e-6, rel=1e-6)
            continue

        def of_input(x, at=at):
            args = (*case.args[:at], x, *case.args[at + 1 :])
            indices = case.extra.get("negative_indices")
            negatives = None if case.negatives is None else args[2] if indices is None else args[2][indices]
            moved = type(case)(args, case.extra, negatives, case.equal, case.absent)
            return expected(name, moved).sum()

        assert relative_error(gradient, reference.central_differences(of_input, case.args[at])) < 1e-6


@pytest.mark.parametrize("place", PLACES)
def test_gradients__each_alone_equals_all_together(name, place, dtype, rng):
    case = make_case(place, 9, 6, dtype, rng, ids=1)
    names, loss = (*case.names, *LOSSES[name].learned), made(name)
    value, together = loss.compute_with_gradients(*case.args, wrt=names, **case.extra)
    assert loss.compute(*case.args, **case.extra) == value
    for wrt, gradient in zip(names, together, strict=True):
        alone_value, alone = loss.compute_with_gradients(*case.args, wrt=wrt, **case.extra)
        assert alone_value == value
        np.testing.assert_array_equal(alone, gradient)
        (one,) = loss.compute_with_gradients(*case.args, wrt=(wrt,), **case.extra)[1]
        np.testing.assert_array_equal(one, gradient)


@pytest.mark.parametrize("place", PLACES)
def test_gradients__vanish_on_a_line(name, place, dtype, rng):
    case = make_case(place, 7, 1, dtype, rng)
    _, gradients = made(name).compute_with_gradients(*case.args, wrt=case.names, **case.extra)
    for x, gradient in zip(case.args, gradients, strict=True):
        assert np.abs(gradient * x).max() < 100 * np.finfo(dtype).eps


@pytest.mark.parametrize("place", PLACES)
def test_sample_weight__weighs_the_rows(name, place, dtype, rng):
    case = make_case(place, 11, 6, dtype, rng, ids=1)
    weights = rng.uniform(0, 2, 11).astype(np.float32)
    weights[3] = 0
    right = expected(name, case)
    names, totals = (*case.names, *LOSSES[name].learned), {}
    for reduction in ("mean", "sum", "none"):
        loss = made(name, reduction)
        value, totals[reduction] = loss.compute_with_gradients(
            *case.args, wrt=names, sample_weight=weights, **case.extra
        )
        assert relative_error(value, reference_losses.reduced(right, reduction, weights)) < TOLERANCE[dtype]
    assert np.all(np.asarray(totals["none"][0])[3] == 0)
    parts = [
        made(name, "sum").compute_with_gradients(*case.args, wrt="anchors", sample_weight=one, **case.extra)[1]
        for one in np.eye(11)
    ]
    assert (
        relative_error(totals["sum"][0], sum(w * g for w, g in zip(weights, parts, strict=True))) < TOLERANCE[dtype]
    )
    for wrt, mean, total, each in zip(names, totals["mean"], totals["sum"], totals["none"], strict=True):
        check_gradient(wrt, mean, np.asarray(total, np.float64) / weights.astype(np.float64).sum(), dtype)
        np.testing.assert_array_equal(total, each)
    same = made(name).compute(*case.args, sample_weight=np.full(11, 2.0), **case.extra)
    assert same == pytest.approx(made(name).compute(*case.args, **case.extra), rel=1e-12)


# --- Edge values ---------------------------------------------------------------------------------------


def test_values__without_any_negative(name, dtype, rng):
    (a, p), parameters = make_case("in_batch", 6, 5, dtype, rng).args, LOSSES[name].learned
    none = np.full((6, 2), -1)
    for rows, extra in ((slice(0, 1), {}), (slice(None), {"negatives": p, "negative_indices": none})):
        loss, args = made(name), (a[rows], p[rows])
        value, gradients = loss.compute_with_gradients(*args, wrt=("anchors", "positives", *parameters), **extra)
        if LOSSES[name].knows_ids:
            alone = expected(name, make_case("in_batch", 1, 5, dtype, np.random.default_rng(0)))
            assert value > 0 and alone.shape == (1,)
        else:
            assert value == 0.0
            assert not any(np.any(g) for g in gradients)
        assert all(np.isfinite(g).all() for g in gradients)


def test_values__all_masked_by_ids(name, dtype, rng):
    case = make_case("in_batch", 8, 5, dtype, rng)
    value, gradient = made(name).compute_with_gradients(*case.args, positive_ids=np.zeros(8, int))
    if LOSSES[name].knows_ids:
        same = type(case)(case.args, equal=~np.eye(8, dtype=bool))
        assert relative_error(value, expected(name, same).mean()) < TOLERANCE[dtype]
    else:
        assert value == 0.0
        assert not gradient.any()


def test_absent_negatives__do_not_share_the_ids_of_the_last_row(name, dtype, rng):
    """−1 as an index of an array is its last row; it is no negative, whatever ids that row has."""
    case = make_case("gathered", 5, 4, dtype, rng, ids=1)
    indices = case.extra["negative_indices"].copy()
    indices[:, 1] = indices[2] = -1
    ids = case.extra | {"negative_indices": indices}
    ids["negative_ids"] = ids["negative_ids"].copy()
    ids["negative_ids"][-1] = ids["anchor_ids"][2]
    absent = indices < 0
    columns = ids["negative_ids"][indices]
    equal = ((ids["anchor_ids"][:, None] == columns) | (ids["positive_ids"][:, None] == columns)) & ~absent
    again = type(case)(case.args, ids, case.args[2][indices], equal, absent)
    values, gradient = made(name, "none").compute_with_gradients(*again.args, **ids)
    assert relative_error(values, expected(name, again)) < TOLERANCE[dtype]
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", [1e-20, 1e-9, 1e18])
def test_values_and_gradients__at_extreme_norms(name, place, size, dtype, rng):
    case = make_case(place, 5, 6, np.float64, rng)
    scaled = [(x / np.linalg.norm(x, axis=-1, keepdims=True) * size).astype(dtype) for x in case.args]
    indices = case.extra.get("negative_indices")
    negatives = None if len(scaled) == 2 else scaled[2] if indices is None else scaled[2][indices]
    case = type(case)(tuple(scaled), case.extra, negatives, None, case.absent)
    values, gradients = made(name, "none").compute_with_gradients(*case.args, wrt=case.names, **case.extra)
    assert relative_error(values, expected(name, case)) < TOLERANCE[dtype]
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("place", PLACES)
def test_gradients__of_zero_vectors_are_finite_and_right(name, place, dtype, rng):
    """Below ε a norm is a constant: the cosine is a·b / (ε ‖b‖), linear in a."""
    case = make_case(place, 6, 5, np.float64, rng)
    args = [x.copy() for x in case.args]
    for x in args:
        x.reshape(-1, 5)[2] = 0
    indices = case.extra.get("negative_indices")

    def with_args(args):
        negatives = None if len(args) == 2 else args[2] if indices is None else args[2][indices]
        return type(case)(tuple(args), case.extra, negatives, None, case.absent)

    typed = with_args([x.astype(dtype) for x in args])
    values, gradients = made(name, "none").compute_with_gradients(*typed.args, wrt=typed.names, **case.extra)
    assert relative_error(values, expected(name, typed)) < TOLERANCE[dtype]
    for at, gradient in enumerate(gradients):

        def of_row(row, at=at):
            moved = [x.astype(dtype).astype(np.float64) for x in args]
            moved[at].reshape(-1, 5)[2] = row * 1e-9
            return expected(name, with_args(moved)).sum()

        slope = reference.central_differences(of_row, np.zeros(5), 1e-4) / 1e-9
        mine = gradient.reshape(-1, 5)[2]
        assert np.abs(mine - slope).max() < max(TOLERANCE[dtype], 1e-6) * max(np.abs(gradient).max(), 1e7)


def test_values__of_copies_of_one_row(name, dtype):
    a = np.ones((33, 7), dtype)
    loss = made(name, "none")
    values, gradient = loss.compute_with_gradients(a, a)
    case = make_case("in_batch", 33, 7, dtype, np.random.default_rng(0))
    assert relative_error(values, expected(name, type(case)((a, a)))) < TOLERANCE[dtype]
    assert np.abs(gradient).max() < 100 * np.finfo(dtype).eps


# --- Calls ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_calls__of_one_anchor(name, place, dtype, rng):
    case = make_case(place, 1, 6, dtype, rng, ids=1)
    names, loss = (*case.names, *LOSSES[name].learned), made(name)
    right, gradients = loss.compute_with_gradients(*case.args, wrt=names, **case.extra)
    a, p, *n = case.args
    n = [x[0] for x in n] if place == "own" else n
    extra = {k: v if k == "negative_ids" and place != "own" else v[0] for k, v in case.extra.items()}
    value, alone = loss.compute_with_gradients(a[0], p[0], *n, wrt=names, **extra)
    assert value == pytest.approx(right, rel=1e-6)
    for wrt, one, gradient in zip(names, alone, gradients, strict=True):
        batched = wrt in ("anchors", "positives") or (wrt == "negatives" and place == "own")
        assert np.shape(one) == np.shape(gradient[0] if batched else gradient)
        assert relative_error(np.ravel(one), np.ravel(gradient)) < 2 * TOLERANCE[dtype]
    loss.reduction = "none"
    assert loss.compute(a[0], p[0], *n, **extra).shape == ()


def test_calls__with_strided_read_only_and_mixed_inputs(name, rng):
    loss, (a, p) = made(name), make_case("in_batch", 12, 10, np.float64, rng).args
    assert loss.compute(a[::2, ::3], p[::2, ::3]) == loss.compute(a[::2, ::3].copy(), p[::2, ::3].copy())
    assert loss.compute(np.asfortranarray(a), p) == loss.compute(a, p)
    _, gradient = loss.compute_with_gradients(a.astype(np.float32), p)
    assert gradient.dtype == np.float64
    for place in PLACES:
        case = make_case(place, 5, 6, np.float64, rng, ids=1)
        before = [x.copy() for x in (*case.args, *case.extra.values())]
        weights = np.ones(5)
        for x in (*case.args, *case.extra.values(), weights):
            x.flags.writeable = False
        names = (*case.names, *LOSSES[name].learned)
        loss.compute_with_gradients(*case.args, wrt=names, sample_weight=weights, **case.extra)
        for x, y in zip((*case.args, *case.extra.values()), before, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("place", PLACES)
def test_result__same_bits_for_any_number_of_threads(name, place, dtype, rng):
    case = make_case(place, 531, 33, dtype, rng, ids=1)
    names, loss = (*case.names, *LOSSES[name].learned), made(name)
    before, results = numba.get_num_threads(), []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            value, gradients = loss.compute_with_gradients(*case.args, wrt=names, **case.extra)
            results.append(b"".join(np.asarray(x).tobytes() for x in (value, *gradients)))
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


# --- Objects and errors --------------------------------------------------------------------------------


def test_object__survives_pickle_deepcopy_and_its_own_text(name, rng):
    loss, case = made(name, "sum"), make_case("in_batch", 5, 4, np.float64, rng)
    value = loss.compute(*case.args)
    for same in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss), eval(repr(loss), vars(rt))):
        assert repr(same) == repr(loss)
        assert same.compute(*case.args) == value


A = np.ones((3, 4))


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((A.astype(np.float16), A), {}, TypeError, "anchors must be float32 or float64"),
        ((A, A.astype(int)), {}, TypeError, "positives must be float32 or float64"),
        ((A, A[:2]), {}, ValueError, r"positives must have the shape of anchors, \(3, 4\), got \(2, 4\)"),
        ((A[:0], A[:0]), {}, ValueError, "anchors must not be empty"),
        ((A, A, A[:, :3]), {}, ValueError, "negatives must have 4 columns"),
        ((A, A, A), {"negative_indices": [[3]] * 3}, ValueError, r"negative_indices must lie in \[-1, 2\]"),
        ((A, A), {"anchor_ids": [1, 2]}, ValueError, "anchor_ids must have shape"),
        ((A, A), {"anchor_ids": [1.0, 2, 3]}, TypeError, "anchor_ids must be integers"),
        ((A, A, A), {"negative_ids": [1, 2, 3]}, ValueError, "negative_ids needs anchor_ids or positive_ids"),
        ((A * np.nan, A), {}, ValueError, "anchors must be finite.*row 0"),
        ((A, A * np.inf), {}, ValueError, "positives must be finite"),
        ((A, A, A * np.nan), {}, ValueError, "negatives must be finite"),
        ((A, A, A * np.nan), {"negative_indices": [[2]] * 3}, ValueError, "negatives must be finite.*row 2"),
        ((A, A, np.full((3, 2, 4), np.inf)), {}, ValueError, "negatives must be finite"),
        ((A, A), {"sample_weight": [1.0, 2.0]}, ValueError, "sample_weight must have the shape of"),
        ((A, A), {"sample_weight": [1.0, -2.0, 1.0]}, ValueError, "sample_weight must be at least 0"),
        ((A, A), {"sample_weight": [0.0, 0.0, 0.0]}, ValueError, "sample_weight must .*not all 0"),
        ((A, A), {"sample_weight": [1.0, np.nan, 1.0]}, ValueError, "sample_weight must be finite"),
        ((A, A), {"sample_weight": ["a", "b", "c"]}, TypeError, "sample_weight"),
        ((A, A), {"wrt": "negatives"}, ValueError, "wrt names negatives"),
        ((A, A), {"wrt": "embeddings"}, ValueError, "wrt must be"),
        ((A, A), {"wrt": ()}, ValueError, "wrt must be"),
    ],
)
def test_calls__refuse_bad_arguments_by_name(name, arguments, keywords, error, message):
    loss = made(name)
    with pytest.raises(error, match=message):
        loss.compute_with_gradients(*arguments, **keywords)
    if "wrt" not in keywords:
        with pytest.raises(error, match=message):
            loss.compute(*arguments, **keywords)


@pytest.mark.parametrize("value", [np.nan, np.inf, "1", True])
def test_parameters__must_be_numbers(name, value):
    for parameter in LOSSES[name].learned or ("temperature",):
        loss = made(name)
        with pytest.raises((ValueError, TypeError), match=parameter):
            setattr(loss, parameter, value)
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none'"):
        made(name, "average")
