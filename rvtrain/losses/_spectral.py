"""Spectral regularization: penalises differences of embeddings of neighbours in a graph."""

from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain._errors import NotFiniteError
from rvtrain.graph import Graph, SparseMatrix
from rvtrain.losses._arguments import like_wrt, parse_wrt
from rvtrain.losses._graph import laplacian, squared_lengths
from rvtrain.losses.base import Floats

WRT = ("embeddings", "edge_weights")


class SpectralRegularization:
    r"""Graph-Laplacian smoothness λ tr(ZᵀLZ), with analytic gradients.

    For node embeddings z_i, edge weights w_ij and degrees d_i = Σ_j w_ij,

    .. math:: λ \operatorname{tr}(Z^T L Z)
        = λ \sum_{i<j} w_{ij} \Big\| \frac{z_i}{s_i} - \frac{z_j}{s_j} \Big\|^2

    with s_i = 1 for the Laplacian L = D − W, and s_i = √d_i for the symmetric-normalised one,
    L = I − D^-½ W D^-½. It is computed as this sum over edges, because tr(ZᵀDZ) − tr(ZᵀWZ) would cancel.

    Parameters
    ----------
    weight : float
        λ ≥ 0. May be set between calls. Read the notes before you set more than 0.001 beside another loss.
    normalized : bool
        Whether L is the symmetric-normalised Laplacian.

    Notes
    -----
    The term is 0 where all rows are 0, or, in the plain form, equal. Alone it lets all embeddings collapse to one
    point, so something else must keep them apart. The losses of this package do so only in part:
    `LocalContrastiveLoss` stops pushing at its margin, and `InfoNCELoss` reads directions but not lengths, so that
    rows shrink and each step turns them further. The term is also a sum over edges where those losses are means: at
    λ = 0.01 and 256 edges it has the weight of 2.56 means. On real graphs, λ = 0.01 beside `LocalContrastiveLoss`
    drew the neighbours of hubs together until links were predicted little better than by chance. λ = 0.001 beside
    the triplet form, or beside InfoNCE, helped on graphs with 3 or 4 links for each node and harmed on graphs with
    more than 10. On graphs whose links depend on communities alone, λ = 0.01 helped. Choose λ by edges that are held
    back.

    Each pair of nodes is one undirected edge: listed more than once, in either direction, it counts once,
    with the mean of its listed weights. Self-loops are ignored, in the degrees too. A node without edges, or whose
    weights are all 0, contributes nothing. For a symmetric matrix this is what ``scipy.sparse.csgraph.laplacian``
    does. At a degree of 0 the normalised form has no derivative by an edge weight, and the degree counts as constant.

    References
    ----------
    Belkin & Niyogi (2003), Laplacian Eigenmaps for Dimensionality Reduction and Data Representation, Neural
    Computation 15(6).

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> path = np.array([[0, 1], [1, 2]])
    >>> embeddings = np.array([[0.0], [1.0], [3.0]])
    >>> loss = rt.SpectralRegularization(weight=0.1, normalized=False)
    >>> round(loss.compute(embeddings, path), 6)  # 0.1 · (1² + 2²)
    0.5
    >>> value, gradient = loss.compute_with_gradients(embeddings, path)
    >>> gradient
    array([[-0.2],
           [-0.2],
           [ 0.4]])
    """

    def __init__(self, weight: float = 0.01, normalized: bool = True) -> None:
        self.weight = weight
        self.normalized = check.flag("normalized", normalized)

    @property
    def weight(self) -> float:
        """λ, the factor of the trace."""
        return self._weight

    @weight.setter
    def weight(self, value: float) -> None:
        self._weight = check.number("weight", value, low=0.0, high=1e15)

    def __repr__(self) -> str:
        return f"SpectralRegularization(weight={self.weight:g}, normalized={self.normalized})"

    def compute(
        self, embeddings: ArrayLike, graph: ArrayLike | SparseMatrix | Graph, edge_weights: ArrayLike | None = None
    ) -> float:
        """The regularization term alone.

        Parameters
        ----------
        embeddings : array of shape (n, d)
            float32 or float64; one row for each node.
        graph : integer array of shape (E, 2), scipy.sparse matrix of shape (n, n), or Graph of n nodes
            Edges as pairs of nodes; E may be 0. The data of a sparse matrix are its weights. A `Graph` is prepared
            once: most of the time of a call with anything else is its preparation.
        edge_weights : array of shape (E,), optional
            float32 or float64, not negative; often attention patterns. The default is 1, or the weights of the
            sparse matrix or `Graph`. For a sparse matrix, E is its number of stored elements, in the order of its
            ``tocoo()``; for a `Graph`, its number of listed edges.

        Returns
        -------
        float

        Raises
        ------
        TypeError
            If embeddings or edge_weights are not float32 or float64, or edges are not integers.
        ValueError
            If shapes do not fit, embeddings are empty or not finite, a node is out of range, or a weight is
            negative or not finite.
        """
        return self._evaluate(embeddings, graph, edge_weights, ())[0]

    @overload
    def compute_with_gradients(
        self,
        embeddings: ArrayLike,
        graph: ArrayLike | SparseMatrix | Graph,
        edge_weights: ArrayLike | None = None,
        *,
        wrt: str = "embeddings",
    ) -> tuple[float, Floats]: ...

    @overload
    def compute_with_gradients(
        self,
        embeddings: ArrayLike,
        graph: ArrayLike | SparseMatrix | Graph,
        edge_weights: ArrayLike | None = None,
        *,
        wrt: tuple[str, ...],
    ) -> tuple[float, tuple[Floats, ...]]: ...

    def compute_with_gradients(
        self,
        embeddings: ArrayLike,
        graph: ArrayLike | SparseMatrix | Graph,
        edge_weights: ArrayLike | None = None,
        *,
        wrt: str | tuple[str, ...] = "embeddings",
    ) -> tuple[float, Any]:
        """The regularization term and its gradients.

        Parameters
        ----------
        embeddings, graph, edge_weights
            As in `compute`.
        wrt : {"embeddings", "edge_weights"} or tuple of these
            The gradients to return: a name gives one, a tuple gives a tuple.

        Returns
        -------
        value : float
        gradient : array of shape (n, d), or (E,) for the edge weights, or a tuple of these
            The gradient to the edge weights includes the degrees. Each of c listings of one edge gets 1/c of the
            edge's gradient, a self-loop 0.

        Raises
        ------
        TypeError, ValueError
            As `compute`, and if `wrt` names something unknown.
        """
        value, gradients = self._evaluate(embeddings, graph, edge_weights, parse_wrt(wrt, WRT))
        return value, like_wrt(wrt, gradients)

    def _evaluate(
        self,
        embeddings: ArrayLike,
        graph: ArrayLike | SparseMatrix | Graph,
        edge_weights: ArrayLike | None,
        names: tuple[str, ...],
    ) -> tuple[float, dict[str, np.ndarray]]:
        z = check.float_array("embeddings", embeddings, 2)
        dtype = z.dtype
        if edge_weights is not None:
            edge_weights = check.any_float_array("edge_weights", edge_weights)
            dtype = np.result_type(z, edge_weights)
        prepared = Graph._of("graph", graph, len(z), "edge_weights", edge_weights)
        weights, degrees = prepared._weights, prepared._degrees
        if edge_weights is not None and prepared is graph:
            weights, degrees = prepared._of_listed("edge_weights", edge_weights)
        z, scale = check.readable(z, dtype), self._scale(degrees)
        through_degrees = "edge_weights" in names and self.normalized
        gradient = np.empty_like(z) if "embeddings" in names or through_degrees else None
        value = self.weight * laplacian(z, scale, prepared, weights, 2.0 * self.weight, gradient)
        if not np.isfinite(value):
            check.finite("embeddings", z)
            raise NotFiniteError(
                "embeddings must be within 1e150 of each other along edges, got a sum beyond float64"
            )
        gradients = {} if gradient is None else {"embeddings": gradient}
        if "edge_weights" in names:
            first, second = prepared._first, prepared._second
            slopes = squared_lengths(z, np.ones(len(z)) if scale is None else scale, first, second)
            slopes *= self.weight
            if scale is not None and gradient is not None:
                # The rows are z_i / √d_i: of degree −½ in d_i, so that ∂/∂d_i = −½ (z_i · ∂/∂z_i) / d_i.
                by_degree = -0.5 * np.einsum("nd,nd->n", z, gradient, dtype=float) * scale**2
                slopes += by_degree[first] + by_degree[second]
                slopes[first == second] = 0.0
            gradients["edge_weights"] = (slopes / prepared._listings()).astype(dtype)
        return value, gradients

    def _scale(self, degrees: np.ndarray) -> np.ndarray | None:
        """1 / s_i of each node, 0 if the degree is 0; None if all are 1."""
        if not self.normalized:
            return None
        return np.divide(1.0, np.sqrt(degrees), out=np.zeros(len(degrees)), where=degrees > 0)
