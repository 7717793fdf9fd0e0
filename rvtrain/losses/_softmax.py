"""The softmax treatments: InfoNCE, and the decoupled loss without the positive in the denominator.

With t = lse_j(cos_ij / τ) − cos⁺_i / τ over the negatives alone, InfoNCE is softplus(t), and the softmax weight of
all negatives together is σ(t). Neither formula cancels if the positive's score is far above the negatives', nor
overflows if it is far below. Without the positive in the denominator the loss is t itself, and that weight is 1.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._exp import LOG2_E, exp2
from rvtrain._engine._treatment import close, implements, visit
from rvtrain._kernels import njit

BOUND = 60.0
"""Greatest range of exponents relative to cosine 1: e⁻⁶⁰ is far from the subnormals of float32."""


class Softmax(NamedTuple):
    """InfoNCE: ℓ = softplus(lse_j(s_j) − s⁺); the positive is in the denominator."""

    octaves: np.floating
    """(1/τ + α) / ln 2, of the type of the scores: turns a score into the exponent of a power of two."""
    temperature: float
    hardness: float
    """α, by which a negative's logit exceeds its score / τ"""

    SUMS, SEPARABLE, EQUAL = 1, True, False  # type: ignore[misc]


class Decoupled(NamedTuple):
    """DCL and SupCon: ℓ = lse_j(s_j) − s⁺; only the columns are in the denominator. ℓ = 0 if all are masked."""

    octaves: np.floating
    temperature: float
    hardness: float

    SUMS, SEPARABLE, EQUAL = 1, True, False  # type: ignore[misc]


def octaves(dtype: np.dtype, temperature: float, hardness: float = 0.0) -> np.floating:
    """(1/τ + α) / ln 2 in the type of the scores."""
    return dtype.type(LOG2_E / temperature + LOG2_E * hardness)


def in_range(temperature: float, hardness: float = 0.0, spread: float = 0.0) -> bool:
    """Whether exponents of cosines, to which a bias in ±spread may be added, can be relative to cosine 1."""
    return (
        (2.0 + 2.0 * spread) * (1.0 / temperature + hardness) <= BOUND
        if hardness or spread
        else 2.0 / temperature <= BOUND
    )


@implements(visit, Softmax)
def _visit(t, s, shift, equal):
    e = exp2((s - shift) * t.octaves)
    return e, e


@implements(visit, Decoupled)
def _visit_decoupled(t, s, shift, equal):
    e = exp2((s - shift) * t.octaves)
    return e, e


@implements(close, Softmax)
def _close(t, i, shift, total, second, own, to):
    """losses = softplus(t), slopes = −w σ(t) / τ, first = w σ(t) / τ / Σ exp, where dL/dcos = first · exponential."""
    positive = own.scores[i] / t.temperature
    inside = (shift - own.scores[i]) / t.temperature + np.log(total) + t.hardness * shift
    both = log_add(inside, own.outside[i] - positive) if len(own.outside) > 0 else inside
    to.losses[i] = max(both, 0.0) + np.log1p(np.exp(-abs(both)))
    to.slopes[i] = -own.weights[i] / (t.temperature * (1.0 + np.exp(-both)))
    within = np.exp(inside - both) if len(own.outside) > 0 else 1.0
    to.first[i] = -to.slopes[i] * within / total if total > 0.0 else 0.0
    to.second[i] = inside + positive


@implements(close, Decoupled)
def _close_decoupled(t, i, shift, total, second, own, to):
    inside = (shift - own.scores[i]) / t.temperature + np.log(total) + t.hardness * shift
    slope = -own.weights[i] / t.temperature
    to.losses[i] = inside if total > 0.0 else 0.0
    to.slopes[i] = slope if total > 0.0 else 0.0
    to.first[i] = -slope / total if total > 0.0 else 0.0
    to.second[i] = inside + own.scores[i] / t.temperature


@njit
def log_add(a, b):
    """log(eᵃ + eᵇ); a or b may be −inf."""
    top = max(a, b)
    return top + np.log1p(np.exp(-abs(a - b))) if min(a, b) > -np.inf else top
