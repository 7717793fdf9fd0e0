"""What a trainer can be asked to learn from: pairs, labels, or a graph. One epoch and one batch of each.

A task knows the data and the model; `Trainer` knows the order of things, and keeps what lasts from batch to batch.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from rvtrain import _validation as check
from rvtrain.losses import SpectralRegularization
from rvtrain.mining import HardNegativeMiner
from rvtrain.training import _metrics as metrics
from rvtrain.training._adapter_kernels import add_rows
from rvtrain.training._pairs import PairData, embedded, fits, towards
from rvtrain.training._towers import EmbeddingTable, TwoTower

Weighted = list[tuple[Any, float]]
"""Losses, and what each counts for."""


class Gradients(NamedTuple):
    """Of one batch: the loss, and what the optimizer is given."""

    value: float
    grads: dict[str, np.ndarray]
    rows: dict[str, np.ndarray] | None = None


class Task:
    """Base: `samples` of an epoch in random order, and nothing mined."""

    samples: int
    mined: np.ndarray | None = None

    def batches(self, rng: np.random.Generator, size: int) -> Iterator[np.ndarray]:
        """One epoch, in batches of numbers of samples."""
        order = rng.permutation(self.samples)
        for start in range(0, self.samples, size):
            yield order[start : start + size]

    def mine(self, miner: HardNegativeMiner, k: int) -> None:
        """Find k hard negatives for each sample, by the model as it is."""
        raise ValueError(f"a miner is for fit, with pairs, got {miner!r}")

    def gradients(self, batch: np.ndarray, losses: Weighted) -> Gradients:
        """The losses of a batch, and their gradients to the parameters."""
        raise NotImplementedError

    def evaluate(self, metric: str) -> float | None:
        """The metric on what was held back, if anything was."""
        raise NotImplementedError


class PairTask(Task):
    """Queries near their documents, far from the batch's other documents and from mined ones."""

    def __init__(
        self, towers: TwoTower, data: PairData, held_back: PairData | None, limit: int, micro: int | None
    ) -> None:
        self.towers, self.data, self.held_back, self.limit, self.micro = towers, data, held_back, limit, micro
        self.samples = len(data.pairs)
        for each in (data,) if held_back is None else (data, held_back):
            fits("queries", each.queries, towers.query)
            fits("documents", each.documents, towers.document)

    def mine(self, miner: HardNegativeMiner, k: int) -> None:
        """Of all documents; a query's own are left out, and what shares an id with the first of them."""
        data, towers = self.data, self.towers
        asking = np.unique(data.pairs[:, 0])
        first = data.answers[data.bounds[asking]]
        near = miner.mine(
            towers.query.forward(data.queries, asking)[0],
            embedded(towers.document, data.documents, self.limit),
            k,
            positives=towers.document.forward(data.documents, first)[0],
            exclude=data.positives_of(asking),
            anchor_ids=data.ids[first],
            candidate_ids=data.ids,
        )
        self.mined = near[np.searchsorted(asking, data.pairs[:, 0])]

    def gradients(self, batch: np.ndarray, losses: Weighted) -> Gradients:
        """Each distinct document of the batch is projected once, and a negative of all rows it does not belong to."""
        data, towers = self.data, self.towers
        asking, wanted = np.ascontiguousarray(data.pairs[batch].T)
        pool = np.sort(wanted if self.mined is None else np.append(wanted, self.mined[batch]))
        pool = pool[np.diff(pool, prepend=-1) > 0]  # distinct, without the −1 of "none"
        own, ids = np.searchsorted(pool, wanted), data.ids_of(asking, pool)
        anchors, back_to_queries = towards(towers.query, data.queries, asking, self.micro)
        documents, back_to_documents = towards(towers.document, data.documents, pool, self.micro)
        positives = documents[own]
        total = 0.0
        to_anchors: Any = None
        to_documents: Any = None
        for loss, weight in losses:
            if getattr(loss, "symmetric", False):
                value, (ga, gp) = loss.compute_with_gradients(
                    anchors, positives, wrt=("anchors", "positives"),
                    anchor_ids=data.query_ids(asking), positive_ids=data.ids[wanted],
                )  # fmt: skip
            else:
                value, (ga, gp, gn) = loss.compute_with_gradients(
                    anchors, positives, documents, wrt=("anchors", "positives", "negatives"),
                    positive_ids=data.ids[wanted], **ids,
                )  # fmt: skip
                to_documents = _plus(to_documents, weight, gn)
            total += weight * value
            to_anchors = _plus(to_anchors, weight, ga)
            to_documents = np.zeros_like(documents) if to_documents is None else to_documents
            add_rows.serial(gp if weight == 1.0 else weight * gp, own, to_documents)
        grads = towers.collect(back_to_queries(to_anchors), back_to_documents(to_documents))
        return Gradients(total, grads)

    def evaluate(self, metric: str) -> float | None:
        """How well the pairs held back are found, among all their documents."""
        data = self.held_back
        if data is None:
            return None
        asking = np.unique(data.pairs[:, 0])
        queries = self.towers.query.forward(data.queries, asking)[0]
        documents = embedded(self.towers.document, data.documents, self.limit)
        return metrics.evaluate_retrieval(queries, documents, data.positives_of(asking), [metric])[metric]


class LabelTask(Task):
    """Rows of one label near each other: each row's positive is another of its label, drawn anew in each epoch."""

    def __init__(
        self, towers: TwoTower, x: Any, y: Any, held_back: tuple[Any, Any] | None, micro: int | None
    ) -> None:
        self.towers, self.micro = towers, micro
        self.x, self.y = _labelled("X", x, "y", y)
        fits("X", self.x, towers.query)
        fits("X", self.x, towers.document)
        self.held_back = (
            None if held_back is None else _labelled("validation[0]", held_back[0], "validation[1]", held_back[1])
        )
        self.order = np.argsort(self.y, kind="stable")
        self.place = np.argsort(self.order)
        ordered = self.y[self.order]
        self.first = np.searchsorted(ordered, self.y)
        self.count = np.searchsorted(ordered, self.y, side="right") - self.first
        self.rows = np.flatnonzero(self.count > 1)
        if not len(self.rows):
            raise ValueError("y must have a label that at least two rows share")
        self.samples = len(self.rows)
        self.drawn = np.empty(0, np.int64)

    def batches(self, rng: np.random.Generator, size: int) -> Iterator[np.ndarray]:
        """Draw the positives, then as always."""
        rows = self.rows
        others = (self.place[rows] - self.first[rows] + 1 + rng.integers(0, self.count[rows] - 1)) % self.count[rows]
        self.drawn = self.order[self.first[rows] + others]
        yield from super().batches(rng, size)

    def gradients(self, batch: np.ndarray, losses: Weighted) -> Gradients:
        """Negatives are the batch's other rows, except those of the same label."""
        rows, others = self.rows[batch], self.drawn[batch]
        anchors, back_to_queries = towards(self.towers.query, self.x, rows, self.micro)
        positives, back_to_documents = towards(self.towers.document, self.x, others, self.micro)
        total = 0.0
        to_anchors: Any = None
        to_positives: Any = None
        for loss, weight in losses:
            value, (ga, gp) = loss.compute_with_gradients(
                anchors, positives, wrt=("anchors", "positives"), anchor_ids=self.y[rows]
            )
            total += weight * value
            to_anchors, to_positives = _plus(to_anchors, weight, ga), _plus(to_positives, weight, gp)
        return Gradients(total, self.towers.collect(back_to_queries(to_anchors), back_to_documents(to_positives)))

    def evaluate(self, metric: str) -> float | None:
        """Each row held back among the others held back; relevant are those of its label."""
        if self.held_back is None:
            return None
        x, y = self.held_back
        return metrics.evaluate_labels(self.towers.query.transform(x), self.towers.document.transform(x), y, metric)


class GraphTask(Task):
    """Linked nodes near each other, drawn nodes a margin away, and a table as smooth as the graph."""

    def __init__(
        self, table: EmbeddingTable, edges: Any, negatives: int, held_back: Any, batch_seed: int = 0
    ) -> None:
        self.table, self.negatives = table, negatives
        count = len(table.weight)
        self.edges = check.indices("edges", edges, (None, 2), count)
        if not len(self.edges):
            raise ValueError("edges must not be empty")
        self.held_back = None if held_back is None else check.indices("validation", held_back, (None, 2), count)
        both = np.concatenate([self.edges, self.edges[:, ::-1]])
        self.links = np.unique(both[:, 0] * count + both[:, 1])
        """Each link as one number, source · n + target."""
        self.samples = len(self.edges)
        self.rng = np.random.default_rng(0)

    def batches(self, rng: np.random.Generator, size: int) -> Iterator[np.ndarray]:
        """Negatives are drawn as batches come."""
        self.rng = rng
        yield from super().batches(rng, size)

    def gradients(self, batch: np.ndarray, losses: Weighted) -> Gradients:
        """Only the rows of the batch's nodes are read and changed."""
        edges = self.edges[batch]
        nodes, local = np.unique(np.concatenate([edges, self._drawn(edges)]), return_inverse=True)
        local = local.reshape(-1, 2)
        edges, others = local[: len(edges)], local[len(edges) :]
        embeddings = self.table.forward(nodes)
        total = 0.0
        grads: Any = None
        for loss, weight in losses:
            if isinstance(loss, SpectralRegularization):
                value, g = loss.compute_with_gradients(embeddings, edges)
            else:
                value, g = loss.compute_graph_with_gradients(embeddings, edges, others if len(others) else None)
            total += weight * value
            grads = _plus(grads, weight, g)
        return Gradients(total, {"weight": grads}, {"weight": nodes})

    def _drawn(self, edges: np.ndarray) -> np.ndarray:
        """For each edge's source some nodes that it has no link to; one that is hit by chance is left out."""
        count = len(self.table.weight)
        sources = np.repeat(edges[:, 0], self.negatives)
        others = self.rng.integers(0, count, len(sources))
        number = sources * count + others
        place = np.minimum(np.searchsorted(self.links, number), len(self.links) - 1)
        good = (self.links[place] != number) & (sources != others)
        return np.stack([sources[good], others[good]], axis=1)

    def evaluate(self, metric: str) -> float | None:
        """How well the other ends of the edges held back are found, among all nodes without a known link."""
        if self.held_back is None:
            return None
        return metrics.evaluate_links(self.table.weight, self.held_back, self.edges, metric)


def _labelled(x_name: str, x: Any, y_name: str, y: Any) -> tuple[np.ndarray, np.ndarray]:
    table = check.float_array(x_name, x, 2)
    check.finite(x_name, table)
    labels = np.asarray(y)
    if labels.shape != (len(table),):
        raise ValueError(f"{y_name} must have shape ({len(table)},), got {labels.shape}")
    return table, np.unique(labels, return_inverse=True)[1]


def _plus(total: np.ndarray | None, weight: float, gradient: np.ndarray) -> np.ndarray:
    """total + weight · gradient, without a copy where there is but one loss."""
    part = gradient if weight == 1.0 else weight * gradient
    return part if total is None else np.add(total, part, out=total)
