"""Random walks on a graph, whose nearby nodes are positives."""

import numpy as np
from numpy.typing import NDArray

from rvtrain import _validation as check
from rvtrain.graph import Graph
from rvtrain.training._graph_walk_kernels import walk


class RandomWalks:
    r"""Random walks, whose nearby nodes are the positives of `Trainer.fit_graph`: DeepWalk and node2vec.

    From node v, reached from node t, a walk goes to a neighbour x of v with a probability in proportion to
    :math:`w_{vx} α(t, x)`:

    .. math:: α(t, x) = 1/p \text{ if } x = t, \quad 1 \text{ if } x \text{ is a neighbour of } t,
        \quad 1/q \text{ otherwise}

    Parameters
    ----------
    walk_length : int
        Steps of a walk.
    context_size : int
        Number of nodes, one after the other, whose first is linked with each of the others; at most
        walk_length + 1.
    walks_per_node : int
        Walks from each node with an edge of positive weight, new ones in each epoch.
    p, q : float
        Above 0. Small p: walks turn back. Small q: they go away. With 1 and 1 they are those of DeepWalk.

    References
    ----------
    Perozzi, Al-Rfou & Skiena (2014), DeepWalk, arXiv:1403.6652.
    Grover & Leskovec (2016), node2vec, arXiv:1607.00653. The names are those of PyTorch Geometric's ``Node2Vec``.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> graph = rt.Graph([[0, 1], [1, 2]])
    >>> walks = rt.RandomWalks(walk_length=4, context_size=2, walks_per_node=1).walk(graph, seed=0)
    >>> walks.shape, np.abs(np.diff(walks)).max()
    ((3, 5), np.int32(1))
    """

    def __init__(
        self, walk_length: int = 20, context_size: int = 10, walks_per_node: int = 10, p: float = 1.0, q: float = 1.0
    ) -> None:
        self.walk_length = check.integer("walk_length", walk_length, low=1)
        self.context_size = check.integer("context_size", context_size, low=2)
        if self.context_size > self.walk_length + 1:
            raise ValueError(
                f"context_size must be at most walk_length + 1, the nodes of a walk, got context_size "
                f"{self.context_size} and walk_length {self.walk_length}"
            )
        self.walks_per_node = check.integer("walks_per_node", walks_per_node, low=1)
        self.p = check.number("p", p, low=0.0, open_low=True)
        self.q = check.number("q", q, low=0.0, open_low=True)

    def __repr__(self) -> str:
        return (
            f"RandomWalks({self.walk_length}, {self.context_size}, {self.walks_per_node}, p={self.p:g}, q={self.q:g})"
        )

    @property
    def offsets(self) -> NDArray[np.int64]:
        """The places (i, j) in a walk, i < j < i + context_size, whose nodes are pairs; (O, 2)."""
        steps = np.arange(self.walk_length + 1)
        return np.array([(i, j) for i in steps for j in steps[i + 1 : i + self.context_size]])

    def walk(self, graph: Graph, seed: int = 0) -> NDArray[np.int32]:
        """The walks from all nodes that have a neighbour.

        Parameters
        ----------
        graph : Graph
        seed : int

        Returns
        -------
        walks : int32 array of shape (nodes with neighbours · walks_per_node, walk_length + 1)
        """
        if not isinstance(graph, Graph):
            raise TypeError(f"graph must be a Graph, got {type(graph).__name__}")
        first = np.tile(np.flatnonzero(graph._degrees > 0), self.walks_per_node)
        out = np.empty((len(first), self.walk_length + 1), np.int32)
        key, weighted = check.integer("seed", seed, low=0), len(graph._weights) > 1
        sums = np.cumsum(graph._weights) if weighted else np.empty(0)
        walk.sized(100 * out.size)(len(first), first, key, graph._starts, graph._others, sums, self.p, self.q, out)
        return out
