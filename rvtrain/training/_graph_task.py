"""Learning from a graph: one epoch and one batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.losses import SpectralRegularization
from rvtrain.training import _metrics as metrics
from rvtrain.training._adapter_kernels import add_rows
from rvtrain.training._run import fingerprint
from rvtrain.training._tasks import Gradients, Task, Weighted, plus
from rvtrain.training._towers import EmbeddingTable

_TRIES = 20
"""Draws for an edge that has hit a neighbour each time before it goes without."""


class GraphTask(Task):
    """Linked nodes near each other, and drawn nodes far from them.

    `losses` are looked at for what they need; `before_reading` is called with rows of the table that are about to be
    read.
    """

    def __init__(
        self,
        table: EmbeddingTable,
        edges: Any,
        negatives: int,
        held_back: Any,
        losses: Sequence[Any],
        before_reading: Callable[[np.ndarray], None],
    ) -> None:
        self.table, self.negatives, self.before_reading = table, negatives, before_reading
        self.count = len(table.weight)
        self.edges = check.indices("edges", edges, (None, 2), self.count)
        if not len(self.edges):
            raise ValueError("edges must not be empty")
        both = np.concatenate([self.edges, self.edges[:, ::-1]])
        self.links = np.unique(both[:, 0] * self.count + both[:, 1])
        """Each link as one number, source · n + target, both ways; ascending."""
        self.held_back = None
        if held_back is not None:
            self.held_back = check.indices("validation", held_back, (None, 2), self.count)
            wanted = self.held_back[self.held_back[:, 0] != self.held_back[:, 1]]
            if not len(np.setdiff1d(wanted[:, 0] * self.count + wanted[:, 1], self.links)):
                raise ValueError("validation must have an edge that is not among edges, got none")
        self.samples = len(self.edges)
        if any(_is_triplet(loss) for loss in losses) and not self._has_strangers():
            raise ValueError("edges must leave a source without a link to some node, of which a triplet is made")

    def batches(self, rng: np.random.Generator, size: int) -> Iterator[np.ndarray]:
        """Negatives are drawn as batches come."""
        self.rng = rng
        yield from super().batches(rng, size)

    def gradients(self, batch: np.ndarray, losses: Weighted) -> Gradients:
        """Only the rows of the batch's nodes are read and changed."""
        edges = self.edges[batch]
        nodes, local = np.unique(np.concatenate([edges, self._drawn(edges)]), return_inverse=True)
        local = local.reshape(-1, 2)
        near, far = local[: len(edges)], local[len(edges) :]
        self.before_reading(nodes)
        embeddings = self.table.forward(nodes)
        total = 0.0
        grads: Any = np.zeros_like(embeddings)
        for loss, weight in losses:
            if isinstance(loss, SpectralRegularization):
                value, g = loss.compute_with_gradients(embeddings, near)
            elif not hasattr(loss, "compute_graph_with_gradients"):
                value, g = self._as_pairs(loss, embeddings, near, far)
            elif _is_triplet(loss) and not len(far):  # no triplet in this batch
                continue
            else:
                value, g = loss.compute_graph_with_gradients(embeddings, near, far if len(far) else None)
            total += weight * value
            grads = plus(grads, weight, g)
        return Gradients(total, {"weight": grads}, {"weight": nodes})

    def _as_pairs(
        self, loss: Any, embeddings: np.ndarray, near: np.ndarray, far: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """A loss of anchors and positives: an edge is a pair, other edges' targets and drawn nodes are the negatives.

        Targets come in proportion to their degree, so that hubs are pushed away as often as they are pulled. A target
        that another edge links to the anchor stays among them: without it, held-back edges were found less well.
        """
        pool = np.unique(np.concatenate([near[:, 1], far[:, 1]]))
        sources, targets = np.ascontiguousarray(near.T)
        value, (ga, gp, gn) = loss.compute_with_gradients(
            embeddings[sources], embeddings[targets], embeddings[pool], wrt=("anchors", "positives", "negatives"),
            anchor_ids=sources, positive_ids=targets, negative_ids=pool,
        )  # fmt: skip
        grads = np.zeros_like(embeddings)
        for g, rows in ((ga, sources), (gp, targets), (gn, pool)):
            add_rows.serial(g.shape[1], g, rows, grads)
        return value, grads

    def _are_linked(self, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Whether there is a link between each source and target, broadcast."""
        number = sources * self.count + targets
        return np.asarray(self.links[np.minimum(np.searchsorted(self.links, number), len(self.links) - 1)] == number)

    def _drawn(self, edges: np.ndarray) -> np.ndarray:
        """For each edge's source `negatives` nodes that it has no link to; fewer where only links are hit."""
        sources = np.repeat(edges[:, 0], self.negatives)
        others = self.rng.integers(0, self.count, len(sources))
        for _ in range(_TRIES):
            bad = np.flatnonzero(self._are_linked(sources, others) | (sources == others))
            if not len(bad):
                break
            others[bad] = self.rng.integers(0, self.count, len(bad))
        good = ~self._are_linked(sources, others) & (sources != others)
        return np.stack([sources[good], others[good]], axis=1)

    def _has_strangers(self) -> bool:
        """Whether an edge's source has no link to some node."""
        proper = self.links[self.links // self.count != self.links % self.count]
        degrees = np.bincount(proper // self.count, minlength=self.count)
        return bool((degrees[self.edges[:, 0]] < self.count - 1).any())

    def evaluate(self, metric: str) -> float | None:
        """How well the other ends of the edges held back are found, among all nodes without a known link."""
        if self.held_back is None:
            return None
        return metrics.evaluate_links(self.table.weight, self.held_back, self.edges, metric)

    def fingerprints(self) -> dict[str, str]:
        """Of edges and validation."""
        held_back = "" if self.held_back is None else fingerprint(self.held_back)
        return {"edges": fingerprint(self.edges), "validation": held_back}


def _is_triplet(loss: Any) -> bool:
    """Whether a loss over edges is one of triplets, which needs a drawn node."""
    return getattr(loss, "form", None) == "triplet"
