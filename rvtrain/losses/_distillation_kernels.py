"""Loops of the losses on a teacher's scores of a list of documents: a positive and k negatives.

Each anchor's list is read once: scores c, the loss and its slopes ∂ℓ/∂c, and the gradients are computed while its
documents are in cache. If all anchors share one pool, scores and sums are matrix products of the engine, and
`pool_terms` computes the rest.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._exp import exp
from rvtrain._engine._largest import largest
from rvtrain._engine._norms import cosine
from rvtrain._kernels import body, kernel, njit
from rvtrain.losses._score_kernels import add_scaled, inverse_of, score_gradient, through_norm

MARGIN, DIVERGENCE, ENTROPY = range(3)

_BLOCK = 256
"""Number of terms that are summed in the type of the scores, which is twice as fast, before a sum in float64."""


class Rule(NamedTuple):
    """The loss, and its kind of scores."""

    kind: int
    """MARGIN: MarginMSE, DIVERGENCE: DistillKL, ENTROPY: ListNet."""
    temperature: float
    cosine: bool
    """Whether scores are cosines; else they are dot products."""


class Terms(NamedTuple):
    """Input and output of the loss of each row: scores of the model and of the teacher; losses and slopes."""

    own_scores: np.ndarray
    """(B,) float64, of the positives."""
    own_teacher: np.ndarray
    """(B,) float64"""
    scores: np.ndarray
    """(B, k) of the negatives, −inf for none."""
    teacher: np.ndarray
    """(B, k), −inf for none. Overwritten by the slopes, weight · ∂ℓ/∂c, of the scores."""
    weights: np.ndarray
    """(B,) float64: the weight of each row in the total."""
    losses: np.ndarray
    """(B,) float64; NaN if a row or a score is not finite."""
    own_slopes: np.ndarray
    """(B,) float64, of the positives' scores."""


class Lists(NamedTuple):
    """Anchors, and the documents in each anchor's list."""

    anchors: np.ndarray
    """(B, d)"""
    positives: np.ndarray
    """(B, d)"""
    pool: np.ndarray
    """(M, d)"""
    indices: np.ndarray
    """(B, k) rows of the pool, −1 for none."""


class Gradients(NamedTuple):
    """Arrays for the gradients; an unwanted one has no rows."""

    anchors: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    """(M, d), written only if each row of the pool is in one list."""


@kernel
def list_terms(start, stop, lists, rule, inverses, terms, to):
    """Losses and gradients of anchors with their own lists: Lists, Rule, Terms, Gradients.

    inverses (B, 2 + k) float64: the factors of the anchor, the positive and the negatives in the scores.
    """
    for i in range(start, stop):
        _score_list(i, lists, rule.cosine, inverses[i], terms)
        row_terms(i, rule, terms)
        _list_gradients(i, lists, rule.cosine, inverses[i], terms, to)


@njit
def _score_list(i, lists, cosines, inverses, terms):
    a, chosen = lists.anchors[i], lists.indices[i]
    inverses[0] = inverse_of(a, cosines)
    for j in range(1 + len(chosen)):  # the positive, then the negatives
        c = -np.inf
        if j == 0 or chosen[j - 1] >= 0:
            x = lists.positives[i] if j == 0 else lists.pool[chosen[j - 1]]
            inverses[1 + j] = inverse_of(x, cosines)
            c = cosine(a, inverses[0], x, inverses[1 + j])
            c = c if abs(c) < np.inf else np.nan
        if j == 0:
            terms.own_scores[i] = c
        else:
            terms.scores[i, j - 1] = c


@njit
def _list_gradients(i, lists, cosines, inverses, terms, to):
    a, chosen, total = lists.anchors[i], lists.indices[i], to.anchors[i : i + 1]
    if len(total) > 0:
        total[0, :] = 0
    for j in range(1 + len(chosen)):
        if j == 0 or chosen[j - 1] >= 0:
            x = lists.positives[i] if j == 0 else lists.pool[chosen[j - 1]]
            c = terms.own_scores[i] if j == 0 else terms.scores[i, j - 1]
            slope = terms.own_slopes[i] if j == 0 else np.float64(terms.teacher[i, j - 1])
            if len(total) > 0:
                add_scaled(slope, inverses[1 + j], x, total[0])
            out = to.positives[i : i + 1]
            if j > 0:
                out = to.negatives[chosen[j - 1] : chosen[j - 1] + 1]
            if len(out) > 0:
                score_gradient(slope, c, a, inverses[0], x, inverses[1 + j], cosines, out[0])
    if len(total) > 0:
        through_norm(a, inverses[0], cosines, total[0])


@kernel
def pool_terms(start, stop, anchors, positives, rule, terms):
    """Losses and slopes of anchors that share one pool, from their scores (B, M); Rows, Rows, Rule, Terms."""
    for i in range(start, stop):
        c = cosine(anchors.x[i], anchors.inverse[i], positives.x[i], positives.inverse[i])
        terms.own_scores[i] = c if abs(c) < np.inf else np.nan
        row_terms(i, rule, terms)


@kernel
def named_rows(start, stop, slopes, anchors, pool, index, cosines, out):
    """out[named[r]] = the gradient to that row of the pool, summed over all lists that contain it.

    slopes (B, k), anchors Rows of (B, d), pool and out (M, d); index = (order, bounds, named) of `inverse_index`:
    flat positions order[bounds[r]: bounds[r + 1]] of slopes ascend, so that the sum does not depend on the threads.
    """
    order, bounds, named = index
    width = slopes.shape[1]
    for r in range(start, stop):
        total = out[named[r]]
        for s in range(bounds[r], bounds[r + 1]):
            i, j = order[s] // width, order[s] % width
            add_scaled(slopes[i, j], anchors.inverse[i], anchors.x[i], total)
        x = pool[named[r]]
        through_norm(x, inverse_of(x, cosines), cosines, total)


# --- Losses of one row ---------------------------------------------------------------------------------


@body
def row_terms(i, rule, terms):
    """The loss of row i and its slopes, from its scores: a Rule, and Terms."""
    weight, own, own_teacher = terms.weights[i], terms.own_scores[i], terms.own_teacher[i]
    scores, teacher = terms.scores[i], terms.teacher[i]
    if rule.kind == MARGIN:
        terms.losses[i], terms.own_slopes[i] = _margin_terms(weight, own - own_teacher, scores, teacher)
    else:
        divergence = rule.kind == DIVERGENCE
        terms.losses[i], terms.own_slopes[i] = _softmax_terms(
            divergence, rule.temperature, weight, own, own_teacher, scores, teacher
        )


@njit
def _margin_terms(weight, lead, scores, teacher):
    """ℓ = mean_k e_k², e_k = (c⁺ − t⁺) − (c_k − t_k); lead = c⁺ − t⁺, a NaN of which also shows without negatives."""
    count, squares, total = 0, 0.0 * lead, 0.0
    for j in range(len(scores)):
        error = 0.0
        if teacher[j] != -np.inf:
            error = lead - (np.float64(scores[j]) - np.float64(teacher[j]))
            count += 1
        squares += error * error
        total += error
        teacher[j] = error
    share = 1.0 / max(count, 1)
    step = 2.0 * weight * share
    for j in range(len(teacher)):
        teacher[j] *= -step
    return squares * share, step * total


@njit
def _softmax_terms(divergence, temperature, weight, own, own_teacher, scores, teacher):
    """ℓ = T² Σ p (log p − log q) or −Σ p log q, p = softmax(t/T), q = softmax(c/T), both over own and the others.

    With u = (t − max t)/T, v = (c − max c)/T and κ = 1 or 0, ℓ is Σ p (κu − v) − κ log Σ eᵘ + log Σ eᵛ. It contains
    log q but not q, so a q that underflows does no harm. All scores, also `own`, are rounded to the type of `scores`,
    so that no exponent exceeds 0.
    """
    real = scores.dtype.type
    mine, truth, per = real(own), real(own_teacher), real(1.0 / temperature)
    top, best = max(mine, largest(scores)), max(truth, largest(teacher))
    kept = real(1.0 if divergence else 0.0)
    u, v = np.float64((truth - best) * per), np.float64((mine - top) * per)
    own_p, own_q = np.exp(u), np.exp(v)
    all_p, all_q, mixed = own_p, own_q, (own_p * (kept * u - v) if own_p > 0.0 else 0.0)
    for j in range(0, len(scores), _BLOCK):
        p, q, m = _exponentials(scores[j : j + _BLOCK], teacher[j : j + _BLOCK], top, best, per, kept)
        all_p += p
        all_q += q
        mixed += m
    factor = temperature * temperature if divergence else 1.0
    loss = factor * (mixed / all_p - kept * np.log(all_p) + np.log(all_q))
    step = weight * factor / temperature
    of_p, of_q = real(step / all_p), real(step / all_q)
    for j in range(len(scores)):
        teacher[j] = of_q * exp((scores[j] - top) * per) - of_p * teacher[j]
    if divergence and loss < 0.0:  # from rounding
        loss = 0.0
    return loss, step * (own_q / all_q - own_p / all_p)


@njit
def _exponentials(scores, teacher, top, best, per, kept):
    """(Σ eᵘ, Σ eᵛ, Σ eᵘ (κu − v)); teacher becomes eᵘ, 0 where it was −inf."""
    real = scores.dtype.type
    lowest, all_p, all_q, mixed = real(-1e30), real(0.0), real(0.0), real(0.0)
    for j in range(len(scores)):
        u, v = (teacher[j] - best) * per, (scores[j] - top) * per
        p = exp(u)
        teacher[j] = p
        all_p += p
        all_q += exp(v)
        v = lowest if u < lowest else v  # finite where there is no negative, because 0 · −inf is NaN
        u = lowest if u < lowest else u
        mixed += p * (kept * u - v)
    return all_p, all_q, mixed
