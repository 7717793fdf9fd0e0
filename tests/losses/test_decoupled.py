"""DecoupledContrastiveLoss: what is its own; the rest is in test_contrastive.py."""

import numpy as np
import pytest
import reference_losses
from conftest import TOLERANCE, relative_error
from loss_cases import PLACES, make_case

import rvtrain as rt


@pytest.mark.parametrize("place", PLACES)
def test_value__is_what_infonce_is_the_softplus_of(place, dtype, rng):
    case = make_case(place, 19, 7, dtype, rng)
    loss, other = rt.DecoupledContrastiveLoss(0.2, "none"), rt.InfoNCELoss(0.2, "none")
    values = loss.compute(*case.args, **case.extra).astype(np.float64)
    if place == "gathered":
        values[case.absent.all(axis=1)] = -np.inf
    expected = np.logaddexp(0.0, values)
    assert relative_error(other.compute(*case.args, **case.extra), expected) < TOLERANCE[dtype]


def test_value__goes_on_below_zero(dtype):
    """The positive is not in the denominator: a pair that is told apart goes on gaining."""
    a = np.eye(4, dtype=dtype)
    value, gradient = rt.DecoupledContrastiveLoss(0.01).compute_with_gradients(a, a)
    assert value == pytest.approx(np.log(3) - 100.0, rel=1e-6)
    assert np.isfinite(gradient).all()


def test_rows__without_negatives_are_zero_among_others(dtype, rng):
    (a, p), pool = make_case("in_batch", 5, 4, dtype, rng).args, rng.normal(size=(6, 4)).astype(dtype)
    indices = np.array([[0, 1], [-1, -1], [2, -1], [-1, 5], [4, 4]])
    loss = rt.DecoupledContrastiveLoss(0.2, "none")
    values, (ga, gp) = loss.compute_with_gradients(a, p, pool, wrt=("anchors", "positives"), negative_indices=indices)
    expected = reference_losses.decoupled(a, p, pool[indices], 0.2, indices < 0)
    assert relative_error(values, expected) < TOLERANCE[dtype]
    assert values[1] == 0.0
    assert not ga[1].any() and not gp[1].any()
    assert ga[0].any() and gp[0].any()


@pytest.mark.parametrize("place", PLACES)
def test_temperature__may_be_tiny(place, dtype, rng):
    case = make_case(place, 19, 7, dtype, rng)
    values, gradients = rt.DecoupledContrastiveLoss(1e-3, "none").compute_with_gradients(
        *case.args, wrt=(*case.names, "temperature"), **case.extra
    )
    expected = reference_losses.decoupled(*case.args[:2], case.negatives, 1e-3, case.masked)
    assert relative_error(values, expected) < TOLERANCE[dtype]
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_temperature__must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature"):
        rt.DecoupledContrastiveLoss(temperature)
