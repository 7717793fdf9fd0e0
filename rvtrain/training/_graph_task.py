"""Learning from a graph: one epoch, one batch, and the validation."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain.graph import Graph
from rvtrain.training import _metrics as metrics
from rvtrain.training._adapter_kernels import add_rows
from rvtrain.training._embedding import as_array
from rvtrain.training._losses import LossCall, Weighted
from rvtrain.training._models import Floats
from rvtrain.training._protocols import EmbeddingModel
from rvtrain.training._run import fingerprint
from rvtrain.training._task import Gradients, Rows, Task, plus

_TRIES = 20
"""Draws for an edge that has hit a neighbour each time before it goes without."""


class GraphTask(Task):
    """Linked nodes near each other, and drawn nodes far from them.

    `calls` are checked for what they need; `before_reading` is called with rows of the table that are about to be
    read.
    """

    def __init__(
        self, table: EmbeddingModel, edges: ArrayLike | Graph, negatives: int, validation: ArrayLike | None,
        calls: list[LossCall], before_reading: Callable[[Rows], None],
    ) -> None:  # fmt: skip
        self.table, self.drawn, self.before_reading = table, negatives, before_reading
        self.count = len(table.weight)
        self.edges = _edges("edges", edges.edges if isinstance(edges, Graph) else edges, self.count)
        both = np.concatenate([self.edges, self.edges[:, ::-1]])
        self.links = np.unique(both[:, 0] * self.count + both[:, 1])
        """Each link as one number, source · n + target, both ways; ascending."""
        self.validation: Rows | None = None
        self.has_validation = validation is not None
        if validation is not None:
            self.validation = _edges("validation", validation, self.count)
            wanted = self.validation[self.validation[:, 0] != self.validation[:, 1]]
            if not len(np.setdiff1d(wanted[:, 0] * self.count + wanted[:, 1], self.links)):
                raise ValueError("validation must have an edge that is not among edges, got none")
        self.samples = len(self.edges)
        if any(_is_triplet(call) for call in calls) and not self._has_strangers():
            raise ValueError("edges must leave a source without a link to some node, of which a triplet is made")

    @property
    def negatives(self) -> int:
        """Nodes that are drawn for each edge."""
        return self.drawn

    def batches(self, rng: np.random.Generator, size: int) -> Iterator[Rows]:
        """Negatives are drawn as batches come."""
        self.rng = rng
        yield from super().batches(rng, size)

    def gradients(self, batch: Rows, losses: list[Weighted]) -> Gradients:
        """Only the rows of the batch's nodes are read and changed."""
        nodes, near, far = self._nodes(self.edges[batch], self.rng)
        self.before_reading(nodes)
        embeddings = self.table.weight[nodes]
        total, learned = 0.0, []
        grads: Any = np.zeros_like(embeddings)
        for call, weight in losses:
            value, g, own = _evaluate(call, embeddings, near, far, True)
            total += weight * value
            if g is not None:
                grads = plus(grads, weight, g)
            learned.append({name: weight * float(x) for name, x in own.items()})
        return Gradients(total, {"weight": grads}, learned, {"weight": nodes})

    def _nodes(self, edges: Rows, rng: np.random.Generator) -> tuple[Rows, Rows, Rows]:
        """The distinct nodes of edges and of negatives drawn for them, and both as places among these nodes."""
        both = np.concatenate([edges, self._draw(edges, rng)])
        nodes, local = np.unique(both, return_inverse=True)
        local = local.reshape(-1, 2)
        return nodes, local[: len(edges)], local[len(edges) :]

    def _are_linked(self, sources: Rows, targets: Rows) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether there is a link between each source and target, broadcast."""
        number = sources * self.count + targets
        return np.asarray(self.links[np.minimum(np.searchsorted(self.links, number), len(self.links) - 1)] == number)

    def _draw(self, edges: Rows, rng: np.random.Generator) -> Rows:
        """For each edge's source `drawn` nodes that it has no link to; fewer where only links are hit."""
        sources = np.repeat(edges[:, 0], self.drawn)
        others = rng.integers(0, self.count, len(sources))
        for _ in range(_TRIES):
            bad = np.flatnonzero(self._are_linked(sources, others) | (sources == others))
            if not len(bad):
                break
            others[bad] = rng.integers(0, self.count, len(bad))
        good = ~self._are_linked(sources, others) & (sources != others)
        return np.stack([sources[good], others[good]], axis=1)

    def _has_strangers(self) -> bool:
        """Whether an edge's source has no link to some node."""
        proper = self.links[self.links // self.count != self.links % self.count]
        degrees = np.bincount(proper // self.count, minlength=self.count)
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
            nodes, near, far = self._nodes(edges, rng)
            for call, weight in losses:
                total += weight * _evaluate(call, self.table.weight[nodes], near, far, False)[0] * len(edges)
        return total / len(self.validation)

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of edges, validation and the number of negatives."""
        held = "" if self.validation is None else fingerprint(self.validation)
        return {"edges": fingerprint(self.edges), "validation": held, "negatives": str(self.drawn)}


def check_losses(calls: list[LossCall]) -> None:
    """Raise unless the losses can be given edges."""
    for call in calls:
        if call.kind not in ("pairs", "graph", "embeddings"):
            raise TypeError(f"loss must take a graph or pairs in fit_graph, got {call.loss!r}")
        if call.keeps_batch:
            raise ValueError(
                f"loss must take drawn nodes as negatives in fit_graph, got {call.loss!r}: give edges both ways"
            )


def _evaluate(
    call: LossCall, embeddings: Floats, near: Rows, far: Rows, gradient: bool
) -> tuple[float, Any, dict[str, Any]]:
    """The loss of a batch, the gradient to its nodes, and those to the loss's own parameters."""
    if call.kind in ("graph", "embeddings"):
        arguments = (embeddings, near) if call.kind == "graph" else (embeddings,)
        value, g = call(arguments, {}, call.names[:1] if gradient else None)
        return value, g.pop(call.names[0], None), g
    if not hasattr(call.loss, "compute_graph_with_gradients"):
        return _as_pairs(call, embeddings, near, far, gradient)
    if _is_triplet(call) and not len(far):  # no triplet in this batch
        return 0.0, None, {}
    negative = far if len(far) else None
    if not gradient:
        return float(call.loss.compute_graph(embeddings, near, negative)), None, {}
    value, to_nodes = call.loss.compute_graph_with_gradients(embeddings, near, negative)
    return float(value), to_nodes, {}


def _as_pairs(
    call: LossCall, embeddings: Floats, near: Rows, far: Rows, gradient: bool
) -> tuple[float, Any, dict[str, Any]]:
    """A loss of anchors and positives: an edge is a pair, other edges' targets and drawn nodes are the negatives.

    Targets come in proportion to their degree, so that hubs are pushed away as often as they are pulled. A target
    that another edge links to the anchor stays among them: without it, held-back edges were found less well.
    """
    pool = np.unique(np.concatenate([near[:, 1], far[:, 1]]))
    sources, targets = np.ascontiguousarray(near.T)
    options: dict[str, Any] = {"anchor_ids": sources, "positive_ids": targets}
    names = call.names
    if call.takes_pool:
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


def _edges(name: str, value: ArrayLike, count: int) -> Rows:
    """Edges between nodes in [0, count), of which there is at least one."""
    array = as_array(name, value)
    if not array.size:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    return check.indices(name, array, (None, 2), count)
