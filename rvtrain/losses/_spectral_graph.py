"""The undirected weighted graph behind a list of edges or a sparse matrix."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from rvtrain import _validation as check


@runtime_checkable
class SparseMatrix(Protocol):
    """The part of the interface of a scipy.sparse matrix that is used here."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def tocoo(self) -> Any: ...


@dataclass(frozen=True)
class Edges:
    """Distinct edges with first < second and their weights, merged from E listings.

    Shapes: first, second, weights (float64), counts (U,); kept, edge (R,). Listing kept[r] is one of the
    counts[edge[r]] listings of the edge edge[r]; the listings that are not kept are self-loops.
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
        """Derivatives by the listed weights (E,), from derivatives by the weights of edges (U,), which are means."""
        out = np.zeros(self.listings, self.dtype)
        out[self.kept] = (slopes / self.counts)[self.edge]
        return out


def parse_graph(graph: ArrayLike | SparseMatrix, edge_weights: ArrayLike | None, embeddings: np.ndarray) -> Edges:
    """Check a graph whose nodes are the rows of `embeddings`, and merge the listings of each edge."""
    nodes = len(embeddings)
    dtype = embeddings.dtype
    if isinstance(graph, SparseMatrix):
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


def _from_sparse(graph: SparseMatrix, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """The edges (E, 2) that a sparse matrix stores, and their weights in float64 (E,)."""
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
