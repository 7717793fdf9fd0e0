"""SigmoidLoss: its parameters and its positives; the rest is in test_contrastive.py."""

import numpy as np
import pytest
import reference_losses
from conftest import TOLERANCE, relative_error
from loss_cases import PLACES, make_case

import rvtrain as rt


def test_value__of_the_paper(dtype, rng):
    """−1/B Σ_ij log σ(z_ij (t cos_ij + b)), as in the pseudocode of the paper."""
    a, p = rng.normal(size=(2, 12, 5)).astype(dtype)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a.astype(np.float64), p.astype(np.float64))]
    logits = 10.0 * unit[0] @ unit[1].T - 10.0
    labels = 2 * np.eye(12) - np.ones((12, 12))
    expected = np.logaddexp(0.0, -labels * logits).sum() / 12
    assert rt.SigmoidLoss().compute(a, p) == pytest.approx(expected, rel=TOLERANCE[dtype])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("scale", "bias"),
    [(1e-6, 0.0), (1e3, 0.0), (10.0, -1e3), (10.0, 1e3), (1e6, -5e5), (1e-15, 1e15), (117.3, -12.9)],
)
def test_parameters__at_the_edges_of_their_ranges(place, scale, bias, dtype, rng):
    case = make_case(place, 13, 7, dtype, rng, ids=1)
    loss = rt.SigmoidLoss(scale, bias, "none")
    values, gradients = loss.compute_with_gradients(*case.args, wrt=(*case.names, "scale", "bias"), **case.extra)
    expected = reference_losses.sigmoid(*case.args[:2], case.negatives, scale, bias, case.equal, case.absent)
    assert relative_error(values, expected) < TOLERANCE[dtype]
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("place", PLACES)
def test_ids__make_positives(place, dtype, rng):
    """All pairs of one id: every score is a positive's, as is the slope to the bias."""
    case = make_case(place, 13, 7, dtype, rng)
    extra = case.extra | {"anchor_ids": np.full(13, 4)}
    if len(case.args) == 3:
        extra["negative_ids"] = np.full(case.args[2].shape[:-1], 4)
    values, slope = rt.SigmoidLoss(5.0, 0.5, "none").compute_with_gradients(*case.args, wrt="bias", **extra)
    shape = (13, 13) if case.negatives is None else (13, *case.negatives.shape[-2:-1])
    same = np.ones(shape, bool) if case.absent is None else ~case.absent
    expected = reference_losses.sigmoid(*case.args[:2], case.negatives, 5.0, 0.5, same, case.absent)
    assert relative_error(values, expected) < TOLERANCE[dtype]
    assert slope < 0


def test_scale_and_bias__of_one_pair_by_hand():
    a = np.array([[3.0, 4.0]])
    value, (scale, bias) = rt.SigmoidLoss(2.0, -1.0).compute_with_gradients(a, a, wrt=("scale", "bias"))
    assert value == pytest.approx(np.log1p(np.exp(-1.0)), rel=1e-14)
    assert scale == pytest.approx(-1 / (1 + np.exp(1.0)), rel=1e-14)
    assert bias == pytest.approx(-1 / (1 + np.exp(1.0)), rel=1e-14)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scale": 0.0}, ValueError, "scale"),
        ({"scale": -1.0}, ValueError, "scale"),
        ({"scale": np.inf}, ValueError, "scale"),
        ({"scale": "1"}, TypeError, "scale"),
        ({"bias": np.nan}, ValueError, "bias"),
        ({"bias": None}, TypeError, "bias"),
    ],
)
def test_constructor__refuses_bad_parameters_by_name(options, error, message):
    with pytest.raises(error, match=message):
        rt.SigmoidLoss(**options)


def test_wrt__knows_no_temperature():
    with pytest.raises(ValueError, match="wrt must be"):
        rt.SigmoidLoss().compute_with_gradients(np.ones((2, 2)), np.ones((2, 2)), wrt="temperature")
