"""What a trainer can be asked to learn from: pairs or labels (a graph: `_graph_task.py`). One epoch, one batch.

A task knows the data and the model; `Trainer` knows the order of things, and keeps what lasts from batch to batch.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from rvtrain import _validation as check
from rvtrain._errors import NotFiniteError
from rvtrain.mining import HardNegativeMiner
from rvtrain.training import _metrics as metrics
from rvtrain.training._adapter_kernels import add_rows
from rvtrain.training._models import forward_rows, outputs
from rvtrain.training._pairs import PairData, embedded, finite_rows, fits, towards
from rvtrain.training._run import Run, fingerprint
from rvtrain.training._towers import TwoTower

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
    held_back: Any = None

    def batches(self, rng: np.random.Generator, size: int) -> Iterator[np.ndarray]:
        """One epoch, in batches of numbers of samples."""
        order = rng.permutation(self.samples)
        for start in range(0, self.samples, size):
            yield order[start : start + size]

    def mine(self, miner: HardNegativeMiner, k: int) -> None:
        """Find k hard negatives for each sample, by the model as it is."""
        raise NotImplementedError

    def gradients(self, batch: np.ndarray, losses: Weighted) -> Gradients:
        """The losses of a batch, and their gradients to the parameters."""
        raise NotImplementedError

    def evaluate(self, metric: str) -> float | None:
        """The metric on what was held back, if anything was."""
        raise NotImplementedError

    def fingerprints(self) -> dict[str, str]:
        """Of the arrays learnt from, by the names of their arguments."""
        raise NotImplementedError

    def check_finite(self) -> None:
        """Raise if the data are not finite, as far as that is not known yet."""


@contextmanager
def divergence(task: Task, run: Run, optimizer: Any) -> Iterator[None]:
    """Say of an error about values that are not finite at which step and rate it was, where the data are finite."""
    try:
        yield
    except NotFiniteError as error:
        task.check_finite()
        raise NotFiniteError(
            f"the loss diverged at step {run.step} with learning rate {optimizer.learning_rate:g}: {error}"
        ) from error


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
        """Of all documents, but for a query's own and their copies."""
        data, towers = self.data, self.towers
        asking = np.unique(data.pairs[:, 0])
        answers, ids = data.positives_of(asking), data.ids_of_positives(asking)
        documents = embedded(towers.document, data.documents, self.limit)
        if data.most == 1:
            positives, ids = forward_rows(towers.document, data.documents, answers[:, 0])[0], ids[:, 0]
        elif isinstance(documents, np.ndarray):
            positives = answers
        else:
            filled = np.where(answers >= 0, answers, answers[:, :1])
            positives = forward_rows(towers.document, data.documents, filled.ravel())[0].reshape(*filled.shape, -1)
        near = miner.mine(
            forward_rows(towers.query, data.queries, asking)[0],
            documents,
            k,
            positives=positives,
            exclude=answers,
            anchor_ids=ids,
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
                value, (ga, gp) = self._symmetric(loss, anchors, positives, asking, wanted)
            else:
                value, (ga, gp, gn) = loss.compute_with_gradients(
                    anchors, positives, documents, wrt=("anchors", "positives", "negatives"),
                    positive_ids=data.ids[wanted], **ids,
                )  # fmt: skip
                to_documents = plus(to_documents, weight, gn)
            total += weight * value
            to_anchors = plus(to_anchors, weight, ga)
            to_documents = np.zeros_like(documents) if to_documents is None else to_documents
            add_rows.serial(gp.shape[1], gp if weight == 1.0 else weight * gp, own, to_documents)
        grads = towers.collect(back_to_queries(to_anchors), back_to_documents(to_documents))
        return Gradients(total, grads)

    def _symmetric(
        self, loss: Any, anchors: np.ndarray, positives: np.ndarray, asking: np.ndarray, wanted: np.ndarray
    ) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
        """A symmetric loss, which takes the batch alone.

        One id a row cannot say that a document copies another one of a query's: then a batch of two directions is
        two batches, in which each column has the ids of all rows that it is no negative of.
        """
        data = self.data
        if data.most == 1 or not data.has_copies:
            return loss.compute_with_gradients(
                anchors, positives, wrt=("anchors", "positives"),
                anchor_ids=data.query_ids(asking), positive_ids=data.ids[wanted],
            )  # fmt: skip
        one_way = copy.copy(loss)
        one_way.symmetric = False
        wrt = ("anchors", "positives", "negatives")
        value, (ga, gp, gn) = one_way.compute_with_gradients(
            anchors, positives, positives, wrt=wrt, positive_ids=data.ids[wanted], **data.ids_of(asking, wanted)
        )
        back, (gp_back, ga_back, gn_back) = one_way.compute_with_gradients(
            positives,
            anchors,
            anchors,
            wrt=wrt,
            anchor_ids=data.ids[wanted],
            negative_ids=data.ids_of_positives(asking),
        )
        return 0.5 * (value + back), (0.5 * (ga + ga_back + gn_back), 0.5 * (gp + gn + gp_back))

    def evaluate(self, metric: str) -> float | None:
        """How well the pairs held back are found, among all their documents."""
        data = self.held_back
        if data is None:
            return None
        asking = np.unique(data.pairs[:, 0])
        queries = forward_rows(self.towers.query, data.queries, asking)[0]
        documents = embedded(self.towers.document, data.documents, self.limit)
        relevant = data.positives_of(asking)
        return metrics.evaluate_retrieval(queries, documents, relevant=relevant, metrics=[metric])[metric]

    def fingerprints(self) -> dict[str, str]:
        """Of queries, documents, pairs, document_ids and validation."""
        own = self.data.fingerprints()
        other = {} if self.held_back is None else self.held_back.fingerprints()
        return own | {"validation": " ".join(found for name, found in other.items() if found != own[name])}

    def check_finite(self) -> None:
        """Read what was not read as a whole, files that is."""
        for data in (self.data,) if self.held_back is None else (self.data, self.held_back):
            data.check_finite()


class LabelTask(Task):
    """Rows of one label near each other: each row's positive is another of its label, drawn anew in each epoch."""

    def __init__(
        self, towers: TwoTower, x: Any, y: Any, held_back: tuple[Any, Any] | None, micro: int | None
    ) -> None:
        self.towers, self.micro = towers, micro
        if held_back is not None and (not isinstance(held_back, (tuple, list)) or len(held_back) != 2):
            raise TypeError(f"validation must be a tuple (X, y), got {type(held_back).__name__}")
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
        if self.held_back is not None:
            fits("validation[0]", self.held_back[0], towers.query)
            if np.bincount(self.held_back[1]).max() < 2:
                raise ValueError("validation must have a label that at least two rows share")

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
            to_anchors, to_positives = plus(to_anchors, weight, ga), plus(to_positives, weight, gp)
        return Gradients(total, self.towers.collect(back_to_queries(to_anchors), back_to_documents(to_positives)))

    def evaluate(self, metric: str) -> float | None:
        """Each row held back among the others held back; relevant are those of its label."""
        if self.held_back is None:
            return None
        x, y = self.held_back
        return metrics.evaluate_labels(outputs(self.towers.query, x), outputs(self.towers.document, x), y, metric)

    def fingerprints(self) -> dict[str, str]:
        """Of X, y and validation."""
        held_back = "" if self.held_back is None else " ".join(map(fingerprint, self.held_back))
        return {"X": fingerprint(self.x), "y": fingerprint(self.y), "validation": held_back}


def _labelled(x_name: str, x: Any, y_name: str, y: Any) -> tuple[np.ndarray, np.ndarray]:
    table = check.stored_array(x_name, x, 2)
    finite_rows(x_name, table)
    labels = np.asarray(y)
    if labels.shape != (len(table),):
        raise ValueError(f"{y_name} must have shape ({len(table)},), got {labels.shape}")
    return table, np.unique(labels, return_inverse=True)[1]


def plus(total: np.ndarray | None, weight: float, gradient: np.ndarray) -> np.ndarray:
    """total + weight · gradient, without a copy where there is but one loss."""
    part = gradient if weight == 1.0 else weight * gradient
    return part if total is None else np.add(total, part, out=total)
