"""The undirected weighted graph behind a list of edges or a sparse matrix."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rvtrain import _validation as check


@dataclass(frozen=True)
class Edges:
    """Distinct edges (U,) with first < second and their float64 weights, made from E listings.

    Listing kept[r] is one of the counts[edge[r]] listings of edge[r]; those not kept are self-loops.
    """

    nodes: int
    dtype: np.dtype
    first: np.ndarray
    second: np.ndarray
    weights: np.ndarray
    listings: int
    kept: np.ndarray
    edge: np.ndarray
    counts: np.ndarray

    def to_listings(self, slopes: np.ndarray) -> np.ndarray:
        """Derivatives by the edges' weights as derivatives by the listed weights, whose means they are."""
        out = np.zeros(self.listings, self.dtype)
        out[self.kept] = (slopes / self.counts)[self.edge]
        return out


def parse_graph(graph: Any, edge_weights: Any, embeddings: np.ndarray) -> Edges:
    """Check a graph over the rows of `embeddings`, and unite the listings of each edge."""
    nodes = len(embeddings)
    dtype = embeddings.dtype
    if hasattr(graph, "tocoo"):
        listed, weights = _from_sparse(graph, nodes)
    else:
        listed = check.indices("graph", graph, (None, 2), nodes)
        weights = np.ones(len(listed))
    if edge_weights is not None:
        given = check.any_float_array("edge_weights", edge_weights)
        if given.shape != (len(listed),):
            raise ValueError(f"edge_weights must have shape ({len(listed)},), got {given.shape}")
        dtype = np.result_type(dtype, given.dtype)
        weights = given.astype(np.float64)
    _check_weights("graph data" if edge_weights is None else "edge_weights", weights)

    low, high = listed.min(axis=1), listed.max(axis=1)
    kept = np.flatnonzero(low < high)
    pairs, edge, counts = np.unique((low * nodes + high)[kept], return_inverse=True, return_counts=True)
    means = np.bincount(edge, weights[kept], len(pairs)) / counts
    return Edges(nodes, dtype, pairs // nodes, pairs % nodes, means, len(listed), kept, edge, counts)


def _from_sparse(graph: Any, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Listings (E, 2) and float64 weights of what looks like a scipy.sparse matrix."""
    if graph.shape != (nodes, nodes):
        raise ValueError(f"graph must have shape ({nodes}, {nodes}), one node per embedding, got {graph.shape}")
    coo = graph.tocoo()
    if coo.data.dtype.kind not in "buif":
        raise TypeError(f"graph data must be real numbers, got dtype {coo.data.dtype}")
    listed = check.indices("graph", np.stack([coo.row, coo.col], axis=1), (None, 2), nodes)
    return listed, coo.data.astype(np.float64)


def _check_weights(name: str, weights: np.ndarray) -> None:
    check.finite(name, weights)
    if (weights < 0).any():
        worst = int(np.argmin(weights))
        raise ValueError(f"{name} must not be negative, got {weights[worst]} at [{worst}]")
