"""Undirected weighted graphs, prepared once for all losses, miners and trainers that read them."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _graph_kernels as kernels
from rvtrain import _validation as check
from rvtrain._kernels import thread_count

PADDING = 64
"""Elements behind the last neighbour, so that a loop may read ahead of its position."""

_BLOCKS = 256
"""Number of blocks of nodes that threads share: so many that the last one to finish delays the others little."""

_MOST = 2**31 - 1
"""The greatest number of nodes and of listed edges: an entry holds both in 64 bits."""


@runtime_checkable
class SparseMatrix(Protocol):
    """The part of the interface of a scipy.sparse matrix that is used here."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def tocoo(self) -> Any: ...


class Graph:
    r"""An undirected weighted graph, checked and sorted once, for many calls.

    Whatever takes the edges of a graph also takes a `Graph`: `SpectralRegularization`,
    `LocalContrastiveLoss.compute_graph`, `GraphNegativeMiner` and `Trainer.fit_graph`. The results are the same as
    from the list of edges, but the preparation, which can take longer than the loss, is done once.

    Parameters
    ----------
    edges : integer array of shape (E, 2), or scipy.sparse matrix of shape (n, n)
        Pairs of nodes; E may be 0. It is copied, so that later changes of the array change nothing.
    n_nodes : int, optional
        Number of nodes n. The default is the greatest node plus 1, or the shape of the sparse matrix.
    weights : array of shape (E,), optional
        float32 or float64, not negative. The default is 1, or the data of the sparse matrix.

    Raises
    ------
    TypeError
        If edges are not integers, or weights are not float32 or float64.
    ValueError
        If a shape does not fit, a node is out of range, or a weight is negative or not finite.

    Notes
    -----
    Each pair of nodes is one undirected edge: listed more than once, in either direction, it has the mean of its
    listed weights. A loop from a node to itself is not an edge. `LocalContrastiveLoss`, which is a mean over listed
    edges, counts each listing. The graph takes about 36 bytes for each listed edge, and 16 more if there are weights.

    References
    ----------
    Gustavson (1978), Two Fast Algorithms for Sparse Matrices: Multiplication and Permuted Transposition, ACM
    Transactions on Mathematical Software 4(3), for lists sorted by transposition.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> graph = rt.Graph([[0, 1], [1, 2], [2, 1]], n_nodes=4)
    >>> graph
    Graph(4 nodes, 2 edges)
    >>> graph.degrees
    array([1., 2., 1., 0.])
    >>> embeddings = np.array([[0.0], [1.0], [3.0], [9.0]])
    >>> rt.SpectralRegularization(weight=0.1, normalized=False).compute(embeddings, graph)
    0.5
    """

    def __init__(
        self, edges: ArrayLike | SparseMatrix, n_nodes: int | None = None, weights: ArrayLike | None = None
    ) -> None:
        if n_nodes is not None:
            n_nodes = check.integer("n_nodes", n_nodes, low=1, high=_MOST)
        self._prepare("edges", "weights", edges, n_nodes, weights)

    @classmethod
    def _of(
        cls, name: str, graph: Any, n_nodes: int | None, weights_name: str = "weights", weights: Any = None
    ) -> "Graph":
        """The graph itself if it is one, else a graph of edges; errors are about the argument `name`."""
        if isinstance(graph, Graph):
            if n_nodes is not None and graph.n_nodes != n_nodes:
                raise ValueError(f"{name} must have {n_nodes} nodes, one per embedding, got {graph}")
            return graph
        made = cls.__new__(cls)
        made._prepare(name, weights_name, graph, n_nodes, weights)
        return made

    def _prepare(self, name: str, weights_name: str, edges: Any, n_nodes: int | None, weights: Any) -> None:
        listed_weights = None
        if isinstance(edges, SparseMatrix):
            n_nodes, listed, listed_weights = _from_sparse(name, edges, n_nodes)
            weights_name = weights_name if weights is not None else f"{name} data"
        else:
            listed = check.indices(name, edges, (None, 2), _MOST if n_nodes is None else n_nodes)
        if len(listed) > _MOST:
            raise ValueError(f"{name} must list at most {_MOST} edges, got {len(listed)}")
        if weights is not None:
            listed_weights = check.any_float_array(weights_name, weights)
        self._n_nodes = int(listed.max(initial=-1)) + 1 if n_nodes is None else n_nodes
        self._first, self._second = np.ascontiguousarray(listed.T, np.int32)
        self._sort(listed)
        self._weights, self._degrees = self._of_listed(weights_name, listed_weights)

    def _sort(self, listed: NDArray[np.int64]) -> None:
        """Sort the edges into lists of neighbours, and merge equal neighbours."""
        n = self._n_nodes
        lanes = min(thread_count(), max(1, 4 * len(listed) // n)) if n else 1
        counts = np.zeros((lanes, n), np.int64)
        kernels.count_ends.sized(4 * len(listed))(lanes, listed, counts)
        starts, places = _places(counts)
        ends, entries = np.empty((2, starts[-1]), np.int64)
        kernels.list_ends.sized(8 * len(listed))(lanes, listed, places, ends)
        if lanes > 1:
            bounds = _balanced(starts, lanes)
            counts[:] = 0
            kernels.count_neighbours(lanes, bounds, starts, ends, counts)
        else:
            bounds, counts = np.array([0, n]), np.diff(starts)[np.newaxis]
        kernels.list_neighbours.sized(8 * len(listed))(lanes, bounds, starts, ends, _places(counts)[1], entries)
        del ends

        self._bounds = bounds = _balanced(starts, max(1, min(_BLOCKS, n)))
        distinct, lower = np.empty((2, n), np.int64)
        count = kernels.count_distinct.sized(8 * len(listed))
        count(len(bounds) - 1, bounds, starts, entries, distinct, lower)
        self._starts = np.zeros(n + 1, np.int64)
        np.cumsum(distinct, out=self._starts[1:])
        self._middles = self._starts[:-1] + lower
        size = int(self._starts[-1])
        self._others = np.zeros(size + PADDING, np.int32)
        self._firsts = np.empty(size + 1, np.int64)
        self._firsts[-1] = len(entries)
        kernels.merge.sized(8 * len(listed))(
            len(bounds) - 1, bounds, starts, entries, self._starts, self._others, self._firsts
        )
        self._entries = entries

    def _of_listed(self, name: str, listed: NDArray[Any] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights of the entries, (1,) if all are 1, and degrees of the nodes, from weights of the listed edges."""
        if listed is None:
            return np.ones(1), np.diff(self._starts).astype(np.float64)
        if listed.shape != self._first.shape:
            raise ValueError(f"{name} must have shape {self._first.shape}, got {listed.shape}")
        _check_weights(name, listed)
        return self._summed(listed, True)

    def _summed(self, listed: NDArray[Any], mean: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """For each entry the mean or the sum of the numbers (E,) of its listings, and the sums of these by node."""
        weights, degrees = np.empty(len(self._firsts) - 1), np.empty(self._n_nodes)
        kernels.sum_listed.sized(4 * len(weights))(
            len(self._bounds) - 1, self._bounds, self._starts, self._firsts, self._entries,
            check.readable(listed, np.float64), mean, weights, degrees,
        )  # fmt: skip
        return weights, degrees

    def _listings(self) -> NDArray[np.int64]:
        """For each listed edge how often its pair of nodes is listed, (E,); 1 for loops."""
        counts = np.ones(len(self._first), np.int64)
        if len(self._entries) > len(self._firsts) - 1:
            counts[self._entries & 0xFFFFFFFF] = np.repeat(np.diff(self._firsts), np.diff(self._firsts))
        return counts

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return self._n_nodes

    @property
    def n_edges(self) -> int:
        """Number of different edges, without loops."""
        return (len(self._firsts) - 1) // 2

    @property
    def degrees(self) -> NDArray[np.float64]:
        """Sum of the weights of each node's edges; a copy."""
        return self._degrees.copy()

    @property
    def edges(self) -> NDArray[np.int64]:
        """The edges as they were listed, (E, 2); a copy."""
        return np.stack([self._first, self._second], axis=1).astype(np.int64)

    def __repr__(self) -> str:
        weighted = ", weighted" if self.n_edges and len(self._weights) > 1 else ""
        return f"Graph({self._n_nodes} nodes, {self.n_edges} edges{weighted})"


def _places(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """starts (n + 1,) of lists of counts.sum(0) entries, and where each lane writes into them (lanes, n)."""
    starts = np.zeros(counts.shape[1] + 1, np.int64)
    np.cumsum(counts.sum(axis=0), out=starts[1:])
    before = np.cumsum(counts, axis=0) - counts
    return starts, before + starts[:-1]


def _balanced(starts: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """Bounds (parts + 1,) of parts of the nodes with about equally many nodes and entries together."""
    work = starts + np.arange(len(starts))
    return np.searchsorted(work, work[-1] * np.arange(parts + 1) // parts)


def _from_sparse(
    name: str, graph: SparseMatrix, n_nodes: int | None
) -> tuple[int, NDArray[np.int64], NDArray[np.float64]]:
    """The number of nodes, the edges (E, 2) that a sparse matrix stores, and their weights in float64 (E,)."""
    rows = graph.shape[0] if n_nodes is None else n_nodes
    if graph.shape != (rows, rows):
        raise ValueError(f"{name} must have shape ({rows}, {rows}), a row for each node, got {graph.shape}")
    coo = graph.tocoo()
    if coo.data.dtype.kind not in "buif":
        raise TypeError(f"{name} data must be real numbers, got dtype {coo.data.dtype}")
    listed = check.indices(name, np.stack([coo.row, coo.col], axis=1), (None, 2), rows)
    return rows, listed, coo.data.astype(np.float64)


def _check_weights(name: str, weights: NDArray[Any]) -> None:
    check.finite(name, weights)
    if weights.size and weights.min() < 0:
        worst = int(np.argmin(weights))
        raise ValueError(f"{name} must not be negative, got {weights[worst]} at [{worst}]")
