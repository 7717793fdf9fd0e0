"""Learning from a graph: one epoch, one batch, and the validation."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._errors import NotFiniteError
from rvtrain.graph import Graph, SparseMatrix
from rvtrain.optimizers._own_rows import OwnRows
from rvtrain.training import _graph_kernels as kernels
from rvtrain.training import _metrics as metrics
from rvtrain.training._adapter_kernels import add_rows
from rvtrain.training._embedding import as_array
from rvtrain.training._graph_batch import EdgeLosses, Ends, Nodes, has_kernel
from rvtrain.training._graph_walks import RandomWalks
from rvtrain.training._losses import LossCall, Weighted
from rvtrain.training._models import Floats
from rvtrain.training._protocols import EmbeddingModel
from rvtrain.training._run import fingerprint
from rvtrain.training._task import BeforeReading, Gradients, Rows, Task, plus

_ALL = np.empty(0, np.int64)
"""In place of the numbers of some edges: all of them."""


class GraphTask(Task):
    """Linked nodes near each other, and drawn nodes far from them.

    A *sample* is the number of a listed edge, or with walks of a pair of nodes in a walk. `calls` are checked for
    what they need; `before_reading` is called with rows of the table
    that are about to be read.
    """

    def __init__(
        self, table: EmbeddingModel, edges: ArrayLike | SparseMatrix | Graph, negatives: int,
        validation: ArrayLike | None, calls: list[LossCall], before_reading: BeforeReading | None, *,
        ns_exponent: float = 0.0, shared: bool = True, walks: RandomWalks | None = None,
        pool: int | None = None,
    ) -> None:  # fmt: skip
        self.table, self.drawn, self.before_reading = table, negatives, before_reading
        self.ns_exponent, self.shared, self.walks, self.pool = ns_exponent, shared, walks, pool
        self.count = len(table.weight)
        self.graph = _graph(edges, self.count)
        self.edges = self.graph.edges
        self.validation: Rows | None = None
        self.has_validation = validation is not None
        if validation is not None:
            self.validation = _edges("validation", validation, self.count)
            wanted = self.validation[self.validation[:, 0] != self.validation[:, 1]]
            if not len(np.setdiff1d(wanted[:, 0] * self.count + wanted[:, 1], self._links())):
                raise ValueError("validation must have an edge that is not among edges, got none")
        self._keep, self._alias, self._pool = np.empty(0), np.empty(0, np.int64), np.empty(pool or 0, np.int64)
        if ns_exponent:
            self._keep, self._alias = _alias(self.graph.degrees, ns_exponent)
        self.samples = len(self.edges)
        if walks is not None:
            self._offsets = walks.offsets
            self._walking = int(np.count_nonzero(self.graph._degrees)) * walks.walks_per_node
            self.samples = self._walking * len(self._offsets)
            if not self.samples:
                raise ValueError("edges must have one between two nodes, on which a walk can go, got none")
        if any(_is_triplet(call) for call in calls) and not self._has_strangers():
            raise ValueError("edges must leave a source without a link to some node, of which a triplet is made")
        self._nodes = Nodes(self.count)
        self._losses = EdgeLosses(self._nodes, pool is not None)

    @property
    def negatives(self) -> int:
        """Nodes that are drawn for each edge."""
        return self.drawn

    def batches(self, rng: np.random.Generator, size: int) -> Iterator[Rows]:
        """Negatives are drawn as batches come; walks are made at the begin of the epoch.

        The pairs of a batch have one place in different walks, so that they do not depend on each other.
        """
        self.rng = rng
        if self.walks is None:
            yield from super().batches(rng, size)
            return
        self._walked = self.walks.walk(self.graph, _key(rng))
        order, starts = rng.permutation(self._walking), range(0, self._walking, size)
        for number in rng.permutation(len(starts) * len(self._offsets)):
            start, place = starts[number // len(self._offsets)], number % len(self._offsets)
            yield place * self._walking + order[start : start + size]

    def _pairs(self, batch: Rows) -> Rows:
        """The pairs (B, 2) of these samples, on walks."""
        place, walk = np.divmod(batch, self._walking)
        return np.stack([self._walked[walk, self._offsets[place, side]] for side in (0, 1)], axis=1).astype(np.int64)

    def _drawn(self, batch: Rows) -> Ends:
        """The edges or pairs of these samples, and nodes drawn for each."""
        if self.walks is None:
            return self._draw(self.edges, self.rng, batch)
        return self._draw(self._pairs(batch), self.rng)

    def gradients(self, batch: Rows, losses: list[Weighted]) -> Gradients:
        """Only the rows of the batch's nodes are read and changed."""
        return self._of_ends(self._drawn(batch), losses)

    def _of_ends(self, ends: Ends, losses: list[Weighted]) -> Gradients:
        """The losses of edges and of nodes drawn for them, and their gradients."""
        nodes = self._nodes.find(ends)
        if self.before_reading is not None:
            self.before_reading({"weight": nodes})
        if not self._is_fast(losses):
            return self._by_protocol(losses, ends)
        ((call, weight),) = losses
        value, _ = self._losses.evaluate(call.loss, weight, self.table.weight, ends, grouped=True)
        return self._summed(value)

    def step(self, batch: Rows, losses: list[Weighted], optimizer: Any) -> float | None:
        """The step of a batch, row by row as the gradient of each is summed."""
        table = self.table.weight
        rows = OwnRows(optimizer, "weight", table)
        if self.before_reading is not None or not self._is_fast(losses) or not rows.can_step:
            return None
        ends = self._drawn(batch)
        ((call, weight),) = losses
        value, is_finite = self._losses.evaluate(call.loss, weight, table, ends)
        if is_finite:
            self._losses.step(table, rows)
        elif not math.isfinite(value) and optimizer.nonfinite == "raise":
            raise NotFiniteError(f"the loss must be finite, got {value}")
        else:
            found = self._summed(value)
            optimizer.step({"weight": table}, found.grads, rows=found.rows)
        return value

    def _is_fast(self, losses: list[Weighted]) -> bool:
        """Whether the losses have a kernel, and the table can be passed to it."""
        table = self.table.weight
        return has_kernel(losses, self.shared) and table.flags.carray and table.dtype in (np.float32, np.float64)

    def _summed(self, value: float) -> Gradients:
        """The gradients of the last evaluation, to the rows that it lets step."""
        grads, nodes = self._losses.gradients(self.table.weight), self._nodes.nodes
        if not self._losses.idle:
            moved = grads.any(axis=1)
            grads, nodes = grads[moved], nodes[moved]
        return Gradients(value, {"weight": grads}, [{}], {"weight": nodes})

    def _by_protocol(self, losses: list[Weighted], ends: Ends) -> Gradients:
        """The gradients of the batch in `_nodes`, of any losses."""
        nodes, local = self._nodes.nodes, self._nodes.local(ends)
        embeddings = self.table.weight[nodes]
        total, learned = 0.0, []
        grads: Any = np.zeros_like(embeddings)
        for call, weight in losses:
            value, g, own = _evaluate(call, embeddings, local, self.shared, True)
            total += weight * value
            if g is not None:
                grads = plus(grads, weight, g)
            learned.append({name: weight * float(x) for name, x in own.items()})
        return Gradients(total, {"weight": grads}, learned, {"weight": nodes})

    def _draw(self, edges: Rows, rng: np.random.Generator, batch: Rows = _ALL) -> Ends:
        """Edges, and for each `drawn` nodes that its source has no link to; −1 where only links are hit.

        batch: the numbers of the edges to take; empty for all.
        """
        out, graph = np.empty((len(batch) or len(edges), 2 + self.drawn), np.int32), self.graph
        kernels.draw_negatives.sized(50 * out.size)(
            edges, batch, _key(rng), graph._starts, graph._others, self._keep, self._alias, self._pool, out
        )
        return out

    def _links(self) -> Rows:
        """Each link as one number, source · n + target, both ways; ascending."""
        sources = np.repeat(np.arange(self.count), np.diff(self.graph._starts))
        return np.asarray(sources * self.count + self.graph._others[: len(sources)])

    def _has_strangers(self) -> bool:
        """Whether an edge's source has no link to some node."""
        degrees = np.diff(self.graph._starts)
        return bool((degrees[self.edges[:, 0]] < self.count - 1).any())

    def metrics(self, names: tuple[str, ...]) -> dict[str, float]:
        """Rank, for both ends of the validation edges, all nodes without a known link."""
        assert self.validation is not None
        return {name: metrics.evaluate_links(self.table.weight, self.validation, self.edges, name) for name in names}

    def validation_loss(self, losses: list[Weighted], size: int) -> float:
        """Of the validation edges, with the same drawn nodes after all epochs."""
        assert self.validation is not None
        rng, total = np.random.default_rng(0), 0.0
        for start in range(0, len(self.validation), size):
            edges = self.validation[start : start + size]
            ends = self._draw(edges, rng)
            nodes = self._nodes.find(ends)
            embeddings, local = self.table.weight[nodes], self._nodes.local(ends)
            for call, weight in losses:
                total += weight * _evaluate(call, embeddings, local, self.shared, False)[0] * len(edges)
        return total / len(self.validation)

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of edges and validation, and the options of drawing."""
        held = "" if self.validation is None else fingerprint(self.validation)
        found = {"edges": fingerprint(self.edges), "validation": held, "negatives": str(self.drawn)}
        options = {
            "ns_exponent": self.ns_exponent,
            "shared_negatives": self.shared,
            "walks": self.walks,
            "negative_pool": self.pool,
        }
        return found | {name: repr(value) for name, value in options.items()}


def check_losses(calls: list[LossCall], shared: bool = True) -> None:
    """Raise unless the losses can be given edges, and each edge's own negatives unless `shared`."""
    for call in calls:
        of_pairs = call.kind == "pairs" and not hasattr(call.loss, "compute_graph_with_gradients")
        if of_pairs and not shared and not call.accepts("negative_indices"):
            raise ValueError(
                f"shared_negatives=False needs a loss that takes negatives and negative_indices, got {call.loss!r}"
            )
        if call.kind not in ("pairs", "graph", "embeddings"):
            raise TypeError(f"loss must take a graph or pairs in fit_graph, got {call.loss!r}")
        if call.keeps_batch:
            raise ValueError(
                f"loss must take drawn nodes as negatives in fit_graph, got {call.loss!r}: give edges both ways"
            )


def _evaluate(
    call: LossCall, embeddings: Floats, local: Rows, shared: bool, gradient: bool
) -> tuple[float, Any, dict[str, Any]]:
    """The loss of a batch, the gradient to its nodes, and those to the loss's own parameters.

    local (B, 2 + k): the rows in `embeddings` of each edge's nodes and of its drawn nodes, −1 for none.
    """
    near = local[:, :2]
    sources, columns = np.nonzero(local[:, 2:] >= 0)
    far = np.stack([local[sources, 0], local[sources, 2 + columns]], axis=1)
    if call.kind in ("graph", "embeddings"):
        arguments = (embeddings, near) if call.kind == "graph" else (embeddings,)
        value, g = call(arguments, {}, call.names[:1] if gradient else None)
        return value, g.pop(call.names[0], None), g
    if not hasattr(call.loss, "compute_graph_with_gradients"):
        return _as_pairs(call, embeddings, local, shared, gradient)
    if _is_triplet(call) and not len(far):  # no triplet in this batch
        return 0.0, None, {}
    negative = far if len(far) else None
    if not gradient:
        return float(call.loss.compute_graph(embeddings, near, negative)), None, {}
    value, to_nodes = call.loss.compute_graph_with_gradients(embeddings, near, negative)
    return float(value), to_nodes, {}


def _as_pairs(
    call: LossCall, embeddings: Floats, local: Rows, shared: bool, gradient: bool
) -> tuple[float, Any, dict[str, Any]]:
    """A loss of anchors and positives: an edge is a pair, other edges' targets and drawn nodes are the negatives.

    Targets come in proportion to their degree, so that hubs are pushed away as often as they are pulled. A target
    that another edge links to the anchor stays among them: without it, held-back edges were found less well. Unless
    `shared`, the nodes that are drawn for an edge are its only negatives.
    """
    sources, targets = np.ascontiguousarray(local[:, :2].T)
    options: dict[str, Any] = {"anchor_ids": sources, "positive_ids": targets}
    names = call.names
    pool = np.arange(len(embeddings))
    if not shared:
        options = {"negatives": embeddings, "negative_indices": np.ascontiguousarray(local[:, 2:])}
        names = (*names, "negatives")
    elif call.takes_pool:
        pool = np.unique(local[:, 1:])
        pool = pool[pool >= 0]
        options |= {"negatives": embeddings[pool], "negative_ids": pool}
        names = (*names, "negatives")
    value, g = call((embeddings[sources], embeddings[targets]), options, names if gradient else None)
    if not gradient:
        return value, None, {}
    to_nodes = np.zeros_like(embeddings)
    for name, rows in zip(names, (sources, targets, pool), strict=False):
        add_rows.serial(g[name].shape[1], np.ascontiguousarray(g.pop(name)), rows, to_nodes)
    return value, to_nodes, g


def _is_triplet(call: LossCall) -> bool:
    """Whether a loss over edges is one of triplets, which needs a drawn node."""
    return getattr(call.loss, "form", None) == "triplet"


def _graph(edges: ArrayLike | SparseMatrix | Graph, count: int) -> Graph:
    """The graph of edges between nodes in [0, count), of which there is at least one."""
    if isinstance(edges, Graph) and edges.n_nodes != count and len(edges._weights) <= 1:
        edges = edges.edges  # a table may have nodes beyond the last one that has an edge
    if not isinstance(edges, (Graph, SparseMatrix)):
        return Graph(_edges("edges", edges, count), count)
    graph = Graph._of("edges", edges, count)
    if not len(graph._first):
        raise ValueError(f"edges must not be empty, got {graph}")
    return graph


def _alias(degrees: NDArray[np.float64], exponent: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """An alias table that draws nodes in proportion to degree^exponent; none without an edge."""
    keep, alias, linked = np.empty(len(degrees)), np.empty(len(degrees), np.int64), degrees > 0
    if not linked.any():
        raise ValueError("edges must have one of positive weight, where ns_exponent is not 0, got none")
    weights = np.zeros(len(degrees))
    weights[linked] = (degrees[linked] / degrees.max()) ** exponent
    kernels.alias_table.serial(weights, keep, alias, *np.empty((2, len(degrees)), np.int64))
    return keep, alias


def _key(rng: np.random.Generator) -> int:
    """A key of walks or of drawn nodes."""
    return int(rng.integers(2**62))


def _edges(name: str, value: ArrayLike, count: int) -> Rows:
    """Edges between nodes in [0, count), of which there is at least one."""
    array = as_array(name, value)
    if not array.size:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    return check.indices(name, array, (None, 2), count)
