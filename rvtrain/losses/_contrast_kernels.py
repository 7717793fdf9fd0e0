"""Loops of losses on pairs outside the sweep: cosines of the pairs, and scores of rows with their own negatives.

Own negatives are rows of a pool, given by index or, without indices, in order. Treatments are those of the sweep:
they replace each score, which is −inf if there is no negative, by dL/dscore.
"""

import numpy as np

from rvtrain._engine._largest import largest
from rvtrain._engine._norms import EPS, cosine, inverse_norm, norm
from rvtrain._engine._treatment import close, visit, weigh
from rvtrain._kernels import body, in_order, kernel, njit, overload
from rvtrain.losses._score_kernels import through_norm


@njit
def place(indices, i, j, width):
    """Row of the pool that is negative j of row i, −1 if there is none; i · width + j if there are no indices."""
    return indices[i, j] if len(indices) > 0 else i * width + j


@kernel
def gathered_scores(start, stop, rows, pool, indices, normalised, scores, lengths):
    """scores[i, j] of row i with its negative j, −inf where there is none.

    Shapes: rows Rows of (B, d), pool (M, d), indices (B, k) or (0, k), scores (B, k). lengths (B, k) float64: the
    divisor of the pool row, its norm or ε, 1 if not normalised, 0 where there is no negative, NaN if the row is not
    finite.
    """
    width = scores.shape[1]
    for i in range(start, stop):
        a, inverse = rows.x[i], rows.inverse[i]
        for j in range(width):
            scores[i, j] = -np.inf
            lengths[i, j] = 0.0
            at = place(indices, i, j, width)
            if at >= 0:
                x, total, squares = pool[at], 0.0, 0.0
                for k in range(len(a)):
                    squares += np.float64(x[k]) * np.float64(x[k])
                for k in range(len(a)):
                    total += np.float64(a[k]) * np.float64(x[k])
                if 1e-280 < squares < 1e300 and abs(total) < 1e300:
                    length = max(np.sqrt(squares), EPS) if normalised else 1.0
                    lengths[i, j] = length
                    scores[i, j] = quotient(total, inverse, length)
                else:
                    _score_far(rows, pool, at, normalised, i, j, scores, lengths)


@body
def _score_far(rows, pool, at, normalised, i, j, scores, lengths):
    """scores[i, j] and lengths[i, j] of row i with x = pool[at], if squares or products are outside of float64."""
    x = pool[at]
    length = norm(x)
    if not np.isnan(length):
        length = max(length, EPS) if normalised else 1.0
    lengths[i, j] = length
    scores[i, j] = cosine(rows.x[i], rows.inverse[i], x, inverse_norm(x, EPS) if normalised else 1.0)


@in_order
def quotient(a, b, c):
    """(a b) / c, in this order."""
    return a * b / c


@kernel
def contrast_rows(start, stop, treatment, scores, equal, own, to):
    """Compute the results of each row, and replace each score by dL/dscore.

    Shapes: scores (B, k), equal (B, k) bool: whether a pair shares an id, or (B, 0) if the treatment is not EQUAL.
    """
    for i in range(start, stop):
        row = scores[i]
        top = largest(row)
        shift = top if top > -np.inf else row.dtype.type(0)  # because −inf − (−inf) is NaN
        total, second = visit_row(treatment, row, equal[i], shift)
        close(treatment, i, shift, total, second, own, to)
        weigh_row(treatment, row, shift, row.dtype.type(to.first[i]), row.dtype.type(to.second[i]))


def visit_row(treatment, row, equal, shift):
    """Replace the scores of a row by their kept values; return the sums of both addends, float64."""
    return _visiting(type(treatment))(treatment, row, equal, shift)


def _visiting(cls):
    if cls.EQUAL:
        return _visit_two_knowing_ids if cls.SUMS == 2 else _visit_one_knowing_ids
    return _visit_two if cls.SUMS == 2 else _visit_one


def _visit_one(treatment, row, equal, shift):
    total = 0.0
    for j in range(len(row)):
        kept, addend = visit(treatment, row[j], shift, False)
        row[j] = kept
        total += addend
    return total, 0.0


def _visit_two(treatment, row, equal, shift):
    total, other = 0.0, 0.0
    for j in range(len(row)):
        kept, addend, second = visit(treatment, row[j], shift, False)
        row[j] = kept
        total += addend
        other += second
    return total, other


def _visit_one_knowing_ids(treatment, row, equal, shift):
    total = 0.0
    for j in range(len(row)):
        kept, addend = visit(treatment, row[j], shift, equal[j])
        row[j] = kept
        total += addend
    return total, 0.0


def _visit_two_knowing_ids(treatment, row, equal, shift):
    total, other = 0.0, 0.0
    for j in range(len(row)):
        kept, addend, second = visit(treatment, row[j], shift, equal[j])
        row[j] = kept
        total += addend
        other += second
    return total, other


@overload(visit_row)
def _visit_row(treatment, row, equal, shift):
    return _visiting(treatment.instance_class)


def weigh_row(treatment, row, shift, first, second):
    """Replace the kept values of a row by dL/dscore."""
    _weighing(type(treatment))(treatment, row, shift, first, second)


def _weighing(cls):
    return _weigh_separable if cls.SEPARABLE else _weigh


def _weigh_separable(treatment, row, shift, first, second):
    for j in range(len(row)):
        row[j] *= first


def _weigh(treatment, row, shift, first, second):
    for j in range(len(row)):
        row[j] = weigh(treatment, row[j], shift, first, second)


@overload(weigh_row)
def _weigh_row(treatment, row, shift, first, second):
    return _weighing(treatment.instance_class)


@body
def _add_far(slope, pool, at, out, i):
    """out[i] += slope · x / ‖x‖ for a row x = pool[at] so long that slope / ‖x‖ would lose digits in float32."""
    _add_scaled(slope * inverse_norm(pool[at], EPS), pool[at], out[i])


@kernel
def gathered_row_sums(start, stop, slopes, pool, indices, lengths, out):
    """out[i] = Σ_j slopes[i, j] · unit negative j of row i; out (B, d).

    A negative whose norm is so large that its inverse would lose digits in float32 is scaled in float64.
    """
    width = slopes.shape[1]
    for i in range(start, stop):
        out[i] = 0
        for j in range(width):
            at = place(indices, i, j, width)
            if at >= 0:
                length = lengths[i, j]
                if length < 1e20:
                    _add_scaled(out.dtype.type(slopes[i, j] / length), pool[at], out[i])
                else:
                    _add_far(slopes[i, j], pool, at, out, i)


@kernel
def gathered_gradient(start, stop, slopes, rows, pool, order, bounds, named, normalised, out):
    """out[named[r]] = gradient to pool row named[r], which occurs at the positions order[bounds[r]: bounds[r + 1]].

    Shapes: slopes (B, k), rows Rows of (B, d), pool (M, d); order holds flat positions in (B, k). The positions of a
    pool row ascend, so that its sum does not depend on the threads. out (M, d) is 0 elsewhere.
    """
    width = slopes.shape[1]
    for r in range(start, stop):
        total = out[named[r]]
        total[:] = 0
        for s in range(bounds[r], bounds[r + 1]):
            i, j = order[s] // width, order[s] % width
            _add_scaled(slopes[i, j] * rows.inverse[i], rows.x[i], total)
        through_norm(pool[named[r]], inverse_norm(pool[named[r]], EPS), normalised, total)


@kernel
def own_gradient(start, stop, slopes, rows, pool, normalised, out):
    """As `gathered_gradient`, if negative j of row i is pool row i · k + j, so that no two rows share a negative."""
    width = slopes.shape[1]
    for i in range(start, stop):
        for j in range(width):
            total = out[i * width + j]
            total[:] = 0
            _add_scaled(slopes[i, j] * rows.inverse[i], rows.x[i], total)
            through_norm(pool[i * width + j], inverse_norm(pool[i * width + j], EPS), normalised, total)


@njit
def _add_scaled(scale, x, out):
    for k in range(len(x)):
        out[k] += scale * x[k]
