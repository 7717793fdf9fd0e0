"""Differences of embeddings along the edges of a graph, and their sums at each node."""

import numpy as np
from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain.losses import _graph_kernels as kernels

_LANES = 64
"""Number of lanes of a sum at the nodes: more than most machines have threads, but so few that their scratch stays in
cache."""


def parse_embeddings(embeddings: ArrayLike) -> np.ndarray:
    """Check embeddings of the nodes of a graph: (n, d), finite."""
    z = check.float_array("embeddings", embeddings, 2)
    check.finite("embeddings", z)
    return z


def scratch_rows(rows: int, dim: int) -> np.ndarray:
    """Scratch to sum `rows` rows in float64, one row for each lane: (lanes, d)."""
    return np.empty((min(rows, _LANES), dim))


def row_starts(nodes: np.ndarray, count: int) -> np.ndarray:
    """starts (count + 1,): in a list sorted by node, items starts[i] … starts[i + 1] − 1 belong to node i."""
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(nodes, minlength=count), out=starts[1:])
    return starts


def squared_lengths(z: np.ndarray, scale: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """‖s_i z_i − s_j z_j‖² of each edge (i, j), float64 (E,)."""
    out = np.empty(len(first))
    kernels.squared_lengths.sized(4 * out.size * z.shape[1])(len(out), z, scale, first, second, out)
    return out


def sum_differences(
    z: np.ndarray, scale: np.ndarray, first: np.ndarray, second: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """s_i Σ weights[e] (s_i z_i − s_j z_j) over the edges e that join i and j, of z's shape and dtype.

    This is half the gradient of Σ weights[e] ‖s_i z_i − s_j z_j‖². weights (E,) float64.
    """
    at, others = np.concatenate([first, second]), np.concatenate([second, first])
    order = np.argsort(at, kind="stable")
    out, scratch = np.empty_like(z), scratch_rows(*z.shape)
    kernels.sum_differences.sized(4 * len(at) * z.shape[1] + out.size)(
        len(scratch),
        z,
        scale,
        row_starts(at, len(z)),
        others[order],
        np.tile(weights, 2)[order],
        scratch,
        out,
    )
    return out
