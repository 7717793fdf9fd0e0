"""The local contrastive loss over edge lists."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain._errors import NotFiniteError
from rvtrain.graph import Graph, SparseMatrix
from rvtrain.losses import _local_contrastive_kernels as kernels
from rvtrain.losses._graph import add_differences, parse_embeddings, row_starts, squared_lengths

Edges = ArrayLike | SparseMatrix | Graph
_NO_EDGES = np.empty((0, 2), np.int64)


class Lengths(NamedTuple):
    """Checked edges and their lengths: first the E edges, then the F negative edges; arrays (E + F,)."""

    z: np.ndarray
    near: Graph
    far: Graph
    first: np.ndarray
    second: np.ndarray
    length: np.ndarray

    @property
    def positive(self) -> int:
        """E"""
        return len(self.near._first)


def measure(embeddings: ArrayLike, edges: Edges, negative_edges: Edges | None) -> Lengths:
    """Check the arguments, and compute the length of every edge."""
    z = check.readable(parse_embeddings(embeddings))
    near = Graph._of("edges", edges, len(z))
    if len(near._first) == 0:
        raise ValueError("edges must not be empty, got shape (0, 2)")
    far = Graph._of("negative_edges", _NO_EDGES if negative_edges is None else negative_edges, len(z))
    first, second = np.concatenate([near._first, far._first]), np.concatenate([near._second, far._second])
    length = np.sqrt(squared_lengths(z, np.ones(len(z)), first, second))
    if not np.isfinite(length).all():
        edge = int(np.argmin(np.isfinite(length)))
        raise NotFiniteError(
            f"embeddings must be within 1e150 of each other along edges, got a longer distance between nodes "
            f"{first[edge]} and {second[edge]}"
        )
    return Lengths(z, near, far, first, second, length)


def pairwise(lengths: Lengths, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """d² of each edge and max(0, m − d)² of each negative edge, and their derivatives by d."""
    near, far = lengths.length[: lengths.positive], lengths.length[lengths.positive :]
    gaps = np.maximum(margin - far, 0.0)
    return np.concatenate([near**2, gaps**2]), np.concatenate([2.0 * near, -2.0 * gaps])


def triplet(lengths: Lengths, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """For each edge (i, j) the mean of max(0, d(i, j) − d(i, n) + m) over i's negative edges; derivatives by d."""
    nodes, count = len(lengths.z), lengths.positive
    source = lengths.first
    near = np.argsort(source[:count], kind="stable")
    far = count + np.argsort(source[count:], kind="stable")
    values, pulls, pushes = np.empty(count), np.empty(count), np.empty(len(far))
    kernels.triplet_edges.sized(4 * count * max(1, len(far) // nodes))(
        nodes,
        lengths.length[near],
        lengths.length[far],
        row_starts(source[:count], nodes),
        row_starts(source[count:], nodes),
        margin,
        values,
        pulls,
        pushes,
    )
    ordered, slopes = np.empty(count), np.empty(len(source))
    ordered[near], slopes[near], slopes[far] = values, pulls, pushes
    return ordered, slopes


def gradient(lengths: Lengths, slopes: np.ndarray) -> np.ndarray:
    """Gradient to the embeddings (n, d) from the derivatives by the lengths; edges of length 0 add nothing."""
    weights = np.divide(slopes, lengths.length, out=np.zeros(len(slopes)), where=lengths.length > 0)
    out = np.zeros_like(lengths.z)
    add_differences(lengths.z, lengths.near, weights[: lengths.positive], out)
    if len(lengths.far._first):
        add_differences(lengths.z, lengths.far, weights[lengths.positive :], out)
    return out
