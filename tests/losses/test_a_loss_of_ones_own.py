"""Two losses defined here, outside of the package, on `rvtrain.losses.base` alone: what a stranger would write."""

from typing import NamedTuple

import numba
import numpy as np
import pytest
import reference
from conftest import TOLERANCE, relative_error
from loss_cases import PLACES, make_case
from reference_losses import score, scores

from rvtrain.losses.base import ContrastiveLoss, close, implements, visit, weigh

# --- A squared hinge on all pairs: ℓ = (1 − cos⁺)² + Σ_j h_j², h_j = max(0, cos_j + m) -----------------


class Hinge(NamedTuple):
    """Addend h²; dL/dcos_j = 2 w h_j is a coefficient of the row times h_j, which is what is kept."""

    margin: np.floating
    SUMS, SEPARABLE, EQUAL = 1, True, False


@implements(visit, Hinge)
def _visit(t, s, shift, equal):
    h = max(s + t.margin, np.float32(0.0))
    return h, h * h


@implements(close, Hinge)
def _close(t, i, shift, total, second, own, to):
    short = 1.0 - own.scores[i]
    to.losses[i] = short * short + total
    to.slopes[i] = -2.0 * own.weights[i] * short
    to.first[i] = 2.0 * own.weights[i]
    to.second[i] = 0.0


class SquaredHingeLoss(ContrastiveLoss):
    """Positives to cosine 1, negatives below −margin."""

    def __init__(self, margin=0.0, reduction="mean"):
        super().__init__(reduction)
        self.margin = margin

    def treatment(self, dtype):
        return Hinge(dtype.type(self.margin))


# --- The same with hinges weighed by themselves: ℓ = (1 − cos⁺)² + Σ_j h_j³ / Σ_j h_j² -----------------


class WeighedHinge(NamedTuple):
    """Addends h³ and h²; dL/dcos_j = first · h_j² + second · h_j needs both sums, so h is kept and weighed later."""

    margin: np.floating
    SUMS, SEPARABLE, EQUAL = 2, False, False


@implements(visit, WeighedHinge)
def _visit_weighed(t, s, shift, equal):
    h = max(s + t.margin, np.float32(0.0))
    return h, h * h * h, h * h


@implements(close, WeighedHinge)
def _close_weighed(t, i, shift, total, second, own, to):
    short, w = 1.0 - own.scores[i], own.weights[i]
    some = second > 0.0
    mean = total / second if some else 0.0
    to.losses[i] = short * short + mean
    to.slopes[i] = -2.0 * w * short
    to.first[i] = 3.0 * w / second if some else 0.0
    to.second[i] = -2.0 * w * mean / second if some else 0.0


@implements(weigh, WeighedHinge)
def _weigh(t, h, shift, first, second):
    return (first * h + second) * h


class WeighedHingeLoss(SquaredHingeLoss):
    """Positives to cosine 1, the worst negatives below −margin."""

    def treatment(self, dtype):
        return WeighedHinge(dtype.type(self.margin))


# --- Tests ---------------------------------------------------------------------------------------------

# Each in one dtype, because every dtype of a treatment takes seconds to compile: the package's own have both.
LOSSES = {SquaredHingeLoss: np.float32, WeighedHingeLoss: np.float64}
pytestmark = pytest.mark.parametrize(("cls", "dtype"), LOSSES.items())
MARGIN = 0.1


def oracle(cls, case, args=None):
    """Losses of the rows, one at a time."""
    a, p, *n = case.args if args is None else args
    indices, masked, losses = case.extra.get("negative_indices"), case.masked, []
    for i in range(len(a)):
        if not n:
            pool = p
        else:
            pool = n[0] if n[0].ndim == 2 else n[0][i]
            pool = pool if indices is None else pool[indices[i]]
        h = [
            max(0.0, c + MARGIN)
            for j, c in enumerate(scores(a[i], pool))
            if (n or j != i) and not (masked is not None and masked[i][j])
        ]
        cubes, squares = sum(x**3 for x in h), sum(x**2 for x in h)
        own = (1 - score(a[i], p[i])) ** 2
        losses.append(own + (squares if cls is SquaredHingeLoss else cubes / squares if squares else 0.0))
    return np.array(losses)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("shape", "ids"), [((1, 3), 0), ((5, 4), 1), ((70, 9), 3), ((101, 31), 0)], ids=str)
def test_values__match_the_oracle(cls, place, shape, ids, dtype, rng):
    case = make_case(place, *shape, dtype, rng, ids)
    values = cls(MARGIN, "none").compute(*case.args, **case.extra)
    assert values.dtype == dtype
    assert relative_error(values, oracle(cls, case)) < TOLERANCE[dtype]
    weights = rng.uniform(size=shape[0])
    value = cls(MARGIN).compute(*case.args, sample_weight=weights, **case.extra)
    assert value == pytest.approx(np.average(values, weights=weights), rel=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_gradients__match_central_differences(cls, place, dtype, rng):
    case = make_case(place, 7, 3, np.float64, rng, ids=1)
    narrow = (x.astype(dtype) for x in case.args)
    _, gradients = cls(MARGIN, "sum").compute_with_gradients(*narrow, wrt=case.names, **case.extra)
    for at, gradient in enumerate(gradients):

        def of_input(x, at=at):
            return oracle(cls, case, (*case.args[:at], x, *case.args[at + 1 :])).sum()

        expected = reference.central_differences(of_input, case.args[at])
        assert relative_error(gradient, expected) < max(TOLERANCE[dtype], 1e-6)


@pytest.mark.parametrize("place", PLACES)
def test_result__same_bits_for_any_number_of_threads(cls, place, dtype, rng):
    case, before, results = make_case(place, 531, 33, dtype, rng), numba.get_num_threads(), []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            value, gradients = cls(MARGIN).compute_with_gradients(*case.args, wrt=case.names, **case.extra)
            results.append(b"".join(np.asarray(x).tobytes() for x in (value, *gradients)))
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


def test_errors__are_those_of_all_losses(cls, dtype):
    with pytest.raises(ValueError, match="reduction must be"):
        cls(MARGIN, "average")
    with pytest.raises(ValueError, match="anchors must be finite"):
        cls(MARGIN).compute(np.full((2, 2), np.nan, dtype), np.ones((2, 2), dtype))
    with pytest.raises(ValueError, match="wrt must be 'anchors', 'positives' or 'negatives'"):
        cls(MARGIN).compute_with_gradients(np.ones((2, 2), dtype), np.ones((2, 2), dtype), wrt="temperature")
