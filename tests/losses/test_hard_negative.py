"""HardNegativeContrastiveLoss: its parameters and its floor; the rest is in test_contrastive.py."""

import numpy as np
import pytest
import reference
import reference_losses
from conftest import TOLERANCE, relative_error
from loss_cases import PLACES, make_case

import rvtrain as rt


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("temperature", [0.5, 0.02])
def test_loss__is_infonce_without_hardness_and_debiasing(place, temperature, dtype, rng):
    case = make_case(place, 19, 7, dtype, rng, ids=1)
    loss = rt.HardNegativeContrastiveLoss(temperature, beta=0.0, tau_plus=0.0)
    value, gradients = loss.compute_with_gradients(*case.args, wrt=case.names, **case.extra)
    right, expected = rt.InfoNCELoss(temperature).compute_with_gradients(*case.args, wrt=case.names, **case.extra)
    assert value == pytest.approx(right, rel=TOLERANCE[dtype])
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert relative_error(gradient, wanted) < 5 * TOLERANCE[dtype]


@pytest.mark.parametrize("place", PLACES)
def test_floor__is_a_constant_for_the_gradient(place, rng):
    """Negatives far from the anchor and a large prior: g is N e^{−1/τ}, whatever the negatives are."""
    case = make_case(place, 6, 4, np.float64, rng)
    anchors = rng.normal(size=(6, 4)) if place == "in_batch" else np.ones((6, 4)) + 0.1 * rng.normal(size=(6, 4))
    positives = anchors + 0.1 * rng.normal(size=(6, 4))
    args = (anchors, positives) if len(case.args) == 2 else (anchors, positives, -np.abs(case.args[2]) - 1.0)
    tau_plus = 0.9
    negatives = (
        None if len(args) == 2 else args[2] if place != "gathered" else args[2][case.extra["negative_indices"]]
    )
    loss = rt.HardNegativeContrastiveLoss(0.5, 1.0, tau_plus, "none")
    values, gradients = loss.compute_with_gradients(*args, wrt=case.names, **case.extra)
    expected = reference_losses.hard_negative(*args[:2], negatives, 0.5, 1.0, tau_plus, case.masked)
    assert relative_error(values, expected) < TOLERANCE[np.float64]
    count = np.array([5] * 6) if negatives is None else np.full(6, 13) if place == "pool" else np.full(6, 3)
    count = (~case.absent).sum(axis=1) if place == "gathered" else count
    own = [reference_losses.score(a, p) / 0.5 for a, p in zip(*args[:2], strict=True)]
    floored = np.log1p(count * np.exp(-1 / 0.5) / np.exp(own))
    assert (np.abs(values - floored) < 1e-12).all()
    if len(args) == 3:
        assert not gradients[2].any()

    def of_anchors(x):
        return reference_losses.hard_negative(x, args[1], negatives, 0.5, 1.0, tau_plus, case.masked).sum()

    assert relative_error(gradients[0], reference.central_differences(of_anchors, args[0])) < 1e-6


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("temperature", "beta", "tau_plus"),
    [(1e-3, 1.0, 0.1), (0.5, 50.0, 0.1), (0.05, 10.0, 0.0), (0.5, 1.0, 0.999), (10.0, 0.5, 1e-6), (1e-3, 0.0, 0.01)],
)
def test_parameters__at_the_edges_of_their_ranges(place, temperature, beta, tau_plus, dtype, rng):
    case = make_case(place, 19, 7, dtype, rng)
    loss = rt.HardNegativeContrastiveLoss(temperature, beta, tau_plus, "none")
    values, gradients = loss.compute_with_gradients(*case.args, wrt=case.names, **case.extra)
    expected = reference_losses.hard_negative(
        *case.args[:2], case.negatives, temperature, beta, tau_plus, case.masked
    )
    # Where r is nearly N τ⁺ e^{s⁺}, g is a small difference, so that the loss is right to rounding of scores.
    assert np.abs(values - expected).max() < 5 * TOLERANCE[dtype] * max(np.abs(expected).max(), 1.0)
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("place", PLACES)
def test_count__is_that_of_the_negatives_that_count(place, dtype, rng):
    """Masked by ids or absent, they are neither in the sums nor in N."""
    case = make_case(place, 23, 7, dtype, rng, ids=3)
    for tau_plus in (0.0, 0.2):
        values = rt.HardNegativeContrastiveLoss(0.5, 1.0, tau_plus, "none").compute(*case.args, **case.extra)
        expected = reference_losses.hard_negative(*case.args[:2], case.negatives, 0.5, 1.0, tau_plus, case.masked)
        assert relative_error(values, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": 0.0}, ValueError, "temperature"),
        ({"beta": -0.1}, ValueError, "beta"),
        ({"beta": np.inf}, ValueError, "beta"),
        ({"beta": "1"}, TypeError, "beta"),
        ({"tau_plus": -0.1}, ValueError, "tau_plus"),
        ({"tau_plus": 1.0}, ValueError, "tau_plus"),
        ({"tau_plus": np.nan}, ValueError, "tau_plus"),
    ],
)
def test_constructor__refuses_bad_parameters_by_name(options, error, message):
    with pytest.raises(error, match=message):
        rt.HardNegativeContrastiveLoss(**options)
