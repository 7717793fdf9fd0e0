"""The method of a trainer that learns from a graph, and its arguments."""

from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain.graph import Graph, SparseMatrix
from rvtrain.training import _graph_task, _options
from rvtrain.training._graph_walks import RandomWalks
from rvtrain.training._losses import LossCall
from rvtrain.training._shared_graph import shared_graph

if TYPE_CHECKING:
    from rvtrain.training._trainer import Trainer


class FitGraph:
    """The part of `Trainer` that learns from a graph."""

    def fit_graph(
        self,
        edges: ArrayLike | SparseMatrix | Graph,
        n_nodes: int | None = None,
        validation: ArrayLike | None = None,
        *,
        negatives: int = 4,
        ns_exponent: float = 0.0,
        shared_negatives: bool = True,
        negative_pool: int | str | None = "auto",
        walks: RandomWalks | None = None,
        resume: bool = False,
    ) -> "Trainer":
        """Bring linked nodes near each other, and nodes drawn for each edge away from its first node.

        A loss of pairs takes an edge's first node for the anchor and its second for the positive; negatives are the
        second nodes of the batch's other edges too, and the nodes that were drawn for them. `LocalContrastiveLoss`,
        and `InfoNCELoss` with ``shared_negatives=False``, alone, run in kernels of their own.

        Parameters
        ----------
        edges : integer array of shape (E, 2), scipy.sparse matrix of shape (n, n), or Graph
        n_nodes : int, optional
            Checked against the table.
        validation : integer array of shape (V, 2), optional
            Edges held back, not all of them among `edges`: for each of their nodes, all nodes without a known link to
            it are ranked.
        negatives : int
            Number of nodes drawn for each edge, without a link to its first node.
        ns_exponent : float
            Nodes are drawn with a probability in proportion to degree^ns_exponent: 0 for all alike, 0.75 as in
            word2vec. Unless it is 0, nodes without an edge are not drawn.
        shared_negatives : bool
            Whether a loss of pairs compares an edge with the nodes of the whole batch, or with its own drawn nodes
            alone, which takes less time where batches are large.
        negative_pool : int, "auto" or None
            Number of nodes that are drawn for a batch, of which those of each edge are drawn: fewer rows are read and
            changed. None: each edge draws from all nodes. "auto": a quarter of a batch's edges, but at least 64, for
            `LocalContrastiveLoss`, which then finds more held-back edges in less time, and None for other losses.
        walks : RandomWalks, optional
            The pairs are then nodes near each other on random walks along the edges, and not the edges.
        resume : bool
            As in `fit`.

        Returns
        -------
        Trainer

        Raises
        ------
        TypeError, ValueError
            If the model is no table, or an edge names a node that it does not have.
        """
        trainer: Any = self
        if not trainer._is_table:
            raise TypeError(f"fit_graph needs an EmbeddingTable, got {type(trainer.model).__name__}")
        table = trainer.model
        count = len(table.weight)
        if n_nodes is not None and check.integer("n_nodes", n_nodes, low=1) != count:
            raise ValueError(f"n_nodes must be the rows of the table, {count}, got {n_nodes}")
        _options.no_mining("fit_graph", trainer.mining)
        calls = trainer._calls()
        shared = check.flag("shared_negatives", shared_negatives)
        _graph_task.check_losses(calls, shared)
        drawn, exponent = check.integer("negatives", negatives, low=1), check.number("ns_exponent", ns_exponent)
        if walks is not None and not isinstance(walks, RandomWalks):
            raise TypeError(f"walks must be RandomWalks, got {walks!r}")
        pool = _pool(negative_pool, calls, trainer.batch_size)
        options: dict[str, Any] = {"ns_exponent": exponent, "walks": walks, "pool": pool}
        given = table, edges, drawn, validation, calls, trainer._before_reading()
        if trainer._ranks is None:
            task = _graph_task.GraphTask(*given, shared=shared, **options)
        else:
            task = shared_graph(trainer._ranks, calls, shared, *given, **options)
        return trainer._train(trainer._started(task, calls, resume))


def _pool(given: int | str | None, calls: list[LossCall], batch_size: int) -> int | None:
    """The number of nodes that are drawn for a batch; None: for each edge from all."""
    if not isinstance(given, str):
        return _options.optional_integer("negative_pool", given)
    if given != "auto":
        raise ValueError(f"negative_pool must be a number of nodes, 'auto' or None, got {given!r}")
    is_local = any(hasattr(call.loss, "compute_graph_with_gradients") for call in calls)
    return min(batch_size, max(batch_size // 4, 64)) if is_local else None
