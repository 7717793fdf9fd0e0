"""Differences of embeddings along the edges of a graph, and their sums at each node."""

import numpy as np
from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain.graph import Graph
from rvtrain.losses import _graph_kernels as kernels

_LANES = 64
"""Number of lanes of a sum at the nodes: more than most machines have threads, but so few that their scratch stays in
cache."""

_LEAST, _MOST = 1e-30, 1e30
"""A value above the first for each edge and column, and below the second in total, shows that no square, weight or
sum is outside of the range of float32. Otherwise the loss is computed again in float64."""


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


def add_differences(z: np.ndarray, graph: Graph, weights: np.ndarray, out: np.ndarray) -> None:
    """out_i += Σ weights[e] (z_i − z_j) over the listed edges e that join i and j.

    This is half the gradient of Σ weights[e] ‖z_i − z_j‖². weights (E,) float64.
    """
    _run(z, np.ones(len(z)), graph, graph._summed(weights, False)[0], kernels.ADDED, 1.0, out)


def laplacian(
    z: np.ndarray, scale: np.ndarray | None, graph: Graph, weights: np.ndarray, factor: float, out: np.ndarray | None
) -> float:
    """Σ w_ij ‖s_i z_i − s_j z_j‖² over the edges, and out_i = factor s_i Σ_j w_ij (s_i z_i − s_j z_j) unless None.

    scale None stands for s_i = 1. weights are those of `Graph._of_listed`. NaN if z is not finite.
    """
    work, target = (kernels.VALUE, z[:0]) if out is None else (kernels.GRADIENT, out)
    if scale is None and z.dtype == np.float32:
        total = _run(z, None, graph, weights, work, factor, target)
        if _LEAST * (graph.n_edges * z.shape[1]) < total < _MOST:
            return total
    return _run(z, np.ones(len(z)) if scale is None else scale, graph, weights, work, factor, target)


def _run(
    z: np.ndarray, scale: np.ndarray | None, graph: Graph, weights: np.ndarray, work: int, factor: float,
    out: np.ndarray,
) -> float:  # fmt: skip
    kernel = kernels.laplacian_plain if scale is None else kernels.laplacian_scaled
    lists = kernels.Lists(graph._bounds, graph._starts, graph._middles, graph._others, weights)
    values = np.empty(len(z))
    kernel.sized(8 * len(graph._others) * z.shape[1])(
        len(graph._bounds) - 1, z, np.ones(len(z)) if scale is None else scale, lists, work, factor, values, out
    )
    return float(values.sum())
