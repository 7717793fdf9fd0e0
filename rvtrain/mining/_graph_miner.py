"""Negatives from the neighbourhood of a node in a graph."""

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._engine._blocks import Rows
from rvtrain._engine._norms import checked_inverse_norms
from rvtrain.graph import PADDING, Graph, SparseMatrix
from rvtrain.mining._graph_kernels import mine_graph
from rvtrain.mining._search import Found, empty_best, padded
from rvtrain.mining._selection_kernels import finish

_LANES = 16
"""Most searches that run at once: each has a mark for every node."""


class GraphNegativeMiner:
    """Hard negatives for the nodes of a graph: near in it, but not adjacent, most similar first.

    The candidates of a node i are the nodes at a distance of min_hops … max_hops edges from i. Such nodes look alike
    without being linked, so they are hard negatives, and fewer of them are false ones than among all nodes.

    Parameters
    ----------
    graph : integer array of shape (E, 2), scipy.sparse matrix of shape (n, n), or Graph
        Undirected edges; directions, repetitions, weights and self-loops are ignored.
    min_hops, max_hops : int
        1 ≤ min_hops ≤ max_hops. min_hops = 2 leaves out the neighbours, which are the positives.

    References
    ----------
    Ying et al. (2018), Graph Convolutional Neural Networks for Web-Scale Recommender Systems, arXiv:1806.01973,
    for hard negatives from the neighbourhood.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> path = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
    >>> embeddings = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.2], [0.9, 0.1]])
    >>> rt.GraphNegativeMiner(path, max_hops=3).mine(embeddings, k=2)
    array([[3, 2],
           [4, 3],
           [4, 0],
           [1, 0],
           [1, 2]])
    """

    def __init__(self, graph: ArrayLike | SparseMatrix | Graph, min_hops: int = 2, max_hops: int = 3) -> None:
        self.min_hops = check.integer("min_hops", min_hops, low=1)
        self.max_hops = check.integer("max_hops", max_hops, low=self.min_hops, high=2**31 - 1)
        prepared = graph if isinstance(graph, Graph) else Graph._of("graph", *_edges_of(graph))
        self._nodes = prepared.n_nodes
        self._others = prepared._others[:-PADDING].astype(np.int64)
        self._degrees = np.diff(prepared._starts)

    def __repr__(self) -> str:
        return f"GraphNegativeMiner({self._nodes} nodes, hops {self.min_hops} to {self.max_hops})"

    @overload
    def mine(
        self, embeddings: ArrayLike, k: int, *, nodes: ArrayLike | None = ..., return_scores: Literal[False] = ...
    ) -> NDArray[np.int64]: ...

    @overload
    def mine(
        self, embeddings: ArrayLike, k: int, *, nodes: ArrayLike | None = ..., return_scores: Literal[True]
    ) -> Found: ...

    def mine(
        self, embeddings: ArrayLike, k: int, *, nodes: ArrayLike | None = None, return_scores: bool = False
    ) -> NDArray[np.int64] | Found:
        """Choose k nodes for each node.

        Parameters
        ----------
        embeddings : array of shape (n, d)
            A row for each node of the graph; other types than float32 and float64 are converted, as in
            `HardNegativeMiner.mine`.
        k : int
            At least 1; where there are fewer candidates, −1 follows the last.
        nodes : integer array of shape (B,), optional
            The nodes to mine for; all nodes if not given.
        return_scores : bool
            Return the cosines too.

        Returns
        -------
        indices : int64 array of shape (B, k)
            Most similar first; ties go to the lower index; −1 where there are too few.
        scores : array of the same shape, with return_scores
            Cosines; −inf where the index is −1.

        Raises
        ------
        TypeError
            If embeddings are not real numbers, or nodes are not integers.
        ValueError
            If the graph has nodes without a row, something is not finite, or a node is out of range.
        """
        given = check.stored_array("embeddings", embeddings, 2)
        z = check.readable(given, check.computed_dtype("embeddings", given))
        if len(z) < self._nodes:
            raise ValueError(f"embeddings must have a row for each of {self._nodes} nodes, got shape {z.shape}")
        k = check.neighbours(k)
        check.flag("return_scores", return_scores)
        sources = np.arange(len(z)) if nodes is None else check.indices("nodes", nodes, (None,), len(z))
        rows = Rows(z, checked_inverse_norms("embeddings", z))
        starts = np.zeros(len(z) + 1, np.int64)
        np.cumsum(np.pad(self._degrees, (0, len(z) - self._nodes)), out=starts[1:])
        lanes = max(1, min(_LANES, len(sources)))
        marks, queues = np.full((lanes, len(z)), -1), np.empty((lanes, len(z)), np.int64)
        best = empty_best(len(sources), min(k, len(z)), z.dtype)
        hops = (self.min_hops, self.max_hops)
        mine_graph.sized(len(sources) * len(self._others))(
            lanes, rows, sources, starts, self._others, hops, marks, queues, best
        )
        finish.sized(20 * best.keys.size)(len(sources), best)
        indices = padded(best.columns[0], k, -1)
        return (indices, padded(best.scores[0], k, -np.inf)) if return_scores else indices


def _edges_of(graph: Any) -> tuple[Any, int | None]:
    """Edges (E, 2), and the number of nodes if the graph says so."""
    if not hasattr(graph, "tocoo"):
        return graph, None
    if graph.shape[0] != graph.shape[1]:
        raise ValueError(f"graph must be square, got shape {graph.shape}")
    coo = graph.tocoo()
    return np.stack([coo.row, coo.col], axis=1).astype(np.int64), graph.shape[0]
