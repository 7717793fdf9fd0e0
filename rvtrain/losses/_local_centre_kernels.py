"""Rows of the local contrastive loss relative to a common centre.

Distances do not change if the same vector is subtracted from all rows, but norms do. If norms are large beside the
distances, ‖a‖² + ‖x‖² − 2 a · x cancels for nearly all pairs.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._kernels import driver, kernel, njit
from rvtrain.losses._local_contrastive_kernels import distance

_SAMPLE = 32
"""Number of rows of each side from which the centre is estimated."""


class Centred(NamedTuple):
    """Rows relative to the centre, their squared norms, and the distances of the pairs."""

    centre: np.ndarray
    """(d,) float64"""
    rows: np.ndarray
    """(B, d)"""
    columns: np.ndarray
    """(N, d)"""
    norms: np.ndarray
    """(B,) float64, ‖row‖²"""
    column_norms: np.ndarray
    """(N,) float64, ‖column‖²"""
    near: np.ndarray
    """(B,) float64: distance of each anchor to its positive"""


@driver
def centre_all(threads, anchors, positives, pool, out):
    """Fill `out`, Centred, for anchors and positives (B, d) and a pool (N, d)."""
    _estimate_centre(anchors, pool, out.centre)
    _launch_centre_rows(threads, max(len(anchors), len(pool)), anchors, positives, pool, out)


@njit
def _estimate_centre(anchors, pool, centre):
    """centre ≈ the mean of both sides, estimated from at most _SAMPLE rows of each.

    It is rounded to a multiple of about an eighth of the spread, so that subtracting it from rows with few digits is
    exact.
    """
    spread = 0.0
    for k in range(len(centre)):
        centre[k] = anchors[0, k]  # to which the mean difference is added: exact if all rows are equal
    for x in (anchors, pool):
        step = (len(x) + _SAMPLE - 1) // _SAMPLE
        weight = 0.5 / ((len(x) + step - 1) // step)
        for i in range(0, len(x), step):
            for k in range(len(centre)):
                centre[k] += weight * (np.float64(x[i, k]) - np.float64(anchors[0, k]))
    for x in (anchors, pool):
        step = (len(x) + _SAMPLE - 1) // _SAMPLE
        weight = 0.5 / ((len(x) + step - 1) // step * len(centre))
        for i in range(0, len(x), step):
            length = distance(x[i], centre)
            spread += weight * length * length
    if 1e-290 < spread < 1e300:
        grid = 2.0 ** np.floor(0.5 * np.log2(spread) - 2.0)
        for k in range(len(centre)):
            centre[k] = np.rint(centre[k] / grid) * grid
    else:  # all rows are equal, or some are not finite
        for k in range(len(centre)):
            centre[k] = anchors[0, k]


@kernel
def _centre_rows(start, stop, anchors, positives, pool, out):
    for i in range(start, stop):
        if i < len(anchors):
            _centre_row(anchors[i], out.centre, out.rows[i])
            out.norms[i] = _squared_norm(out.rows[i])
            out.near[i] = distance(anchors[i], positives[i])
        if i < len(pool):
            _centre_row(pool[i], out.centre, out.columns[i])
            out.column_norms[i] = _squared_norm(out.columns[i])


_launch_centre_rows = _centre_rows.launch


@njit
def _centre_row(x, centre, out):
    for k in range(len(centre)):
        out[k] = np.float64(x[k]) - centre[k]


@njit
def _squared_norm(x):
    total = 0.0
    for k in range(len(x)):
        total += np.float64(x[k]) * np.float64(x[k])
    return total
