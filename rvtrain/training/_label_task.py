"""Learning from labels: one epoch, one batch, and the validation."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvtrain.training import _metrics as metrics
from rvtrain.training._embedding import Sides, as_array, check_table, embed, finite_rows, stored_table
from rvtrain.training._losses import LossCall, Weighted
from rvtrain.training._models import dtype_of, forward_rows, outputs
from rvtrain.training._options import all_contrast
from rvtrain.training._row_gradient import by_rows
from rvtrain.training._run import fingerprint
from rvtrain.training._sampling import MPerClass
from rvtrain.training._task import BeforeReading, Gradients, Rows, Task, plus


class Labelled:
    """Rows and their labels as numbers, ordered by label.

    A *sample* is the number of a row among those whose label is shared; `rows` (S,) are these rows.
    """

    def __init__(self, names: tuple[str, str], x: Any, y: Any) -> None:
        self.x, self._name = stored_table(names[0], x), names[0]
        labels = as_array(names[1], y)
        if labels.shape != self.x.shape[:1]:
            raise ValueError(f"{names[1]} must have shape ({self.x.shape[0]},), got {labels.shape}")
        try:
            self.y = np.unique(labels, return_inverse=True)[1]
        except TypeError as error:
            raise TypeError(f"{names[1]} must be labels of a kind that sorts: {error}") from None
        if (labels != labels).any():
            raise ValueError(f"{names[1]} must be labels, got a NaN in row {int(np.argmax(labels != labels))}")
        self._order = np.argsort(self.y, kind="stable")
        self._place = np.argsort(self._order)
        ordered = self.y[self._order]
        self._first = np.searchsorted(ordered, self.y)
        self._count = np.searchsorted(ordered, self.y, side="right") - self._first
        self.rows = np.flatnonzero(self._count > 1)
        if not len(self.rows):
            raise ValueError(f"{names[1]} must have a label that at least two rows share")

    def check_finite(self, dtype: np.dtype[Any] | None) -> None:
        """Raise if a row is not finite in this dtype; a file is read as a whole."""
        finite_rows(self._name, self.x, dtype)

    def others(self, rng: np.random.Generator) -> Rows:
        """(S,) for each sample another row of its label, drawn."""
        rows = self.rows
        turn = self._place[rows] - self._first[rows] + 1 + rng.integers(0, self._count[rows] - 1)
        return np.asarray(self._order[self._first[rows] + turn % self._count[rows]])


class LabelTask(Task):
    """Rows of one label near each other.

    A loss of labels is given the rows of a batch with their labels. A loss of pairs is given pairs of a row and
    another one of its label, drawn anew in each epoch; the pairs of other labels are the negatives.
    """

    def __init__(
        self, sides: Sides, data: Labelled, validation: Labelled | None, micro: int | None,
        sampler: MPerClass | None, needs_groups: bool, batch_size: int, before_reading: BeforeReading | None = None,
    ) -> None:  # fmt: skip
        self.before_reading = before_reading
        self.sides, self.data, self.validation, self.micro = sides, data, validation, micro
        self.sampler = MPerClass(min(4, batch_size)) if sampler is None and needs_groups else sampler
        if isinstance(self.sampler, MPerClass) and batch_size < max(self.sampler.m, 3):
            least = max(self.sampler.m, 3)
            raise ValueError(f"batch_size must be at least {least} for {self.sampler!r}, got {batch_size}")
        self.samples, self.has_validation = len(data.rows), validation is not None
        self.drawn: Rows = np.empty(0, np.int64)
        for name, each in (("X", data), ("validation[0]", validation)):
            if each is not None:
                check_table(name, each.x, sides.query)
                check_table(name, each.x, sides.document)

    def batches(self, rng: np.random.Generator, size: int) -> Iterator[Rows]:
        """Draw the positives of this epoch, then order the samples."""
        self.drawn = self.data.others(rng)
        if self.sampler is None:
            return super().batches(rng, size)
        return self.sampler.batches(self.data.y[self.data.rows], size, rng)

    def gradients(self, batch: Rows, losses: list[Weighted]) -> Gradients:
        """Each kind of loss embeds what it needs; rows of a label are embedded by the query side."""
        rows, others = self.data.rows[batch], self.drawn[batch]
        labels = self.data.y[rows]
        has_pairs = takes_pairs(losses)
        self._read(rows, others, has_pairs)
        anchors, back_to_queries = embed(self.sides.query, self.data.x, rows, self.micro)
        positives: Any = None
        back_to_documents: Any = None
        if has_pairs:
            positives, back_to_documents = embed(self.sides.document, self.data.x, others, self.micro)
        total, learned = 0.0, []
        to_anchors: Any = None
        to_positives: Any = None
        for call, weight in losses:
            arguments, options = arguments_of(call, anchors, positives, labels)
            value, g = call(arguments, options, call.names)
            total += weight * value
            to_anchors = plus(to_anchors, weight, g[call.names[0]])
            if call.kind == "pairs":
                to_positives = plus(to_positives, weight, g[call.names[1]])
            learned.append({name: weight * float(g[name]) for name in call.learnable})
        to_query = back_to_queries(to_anchors) if self.sides.trains_queries else {}
        to_document: dict[str, Any] = {}
        if to_positives is not None and self.sides.trains_documents:
            to_document = back_to_documents(to_positives)
        grads, rows_of = by_rows(self.sides.collect(to_query, to_document))
        return Gradients(total, grads, learned, rows_of)

    def _read(self, rows: Rows, others: Rows, has_pairs: bool) -> None:
        """Tell what a batch is about to read."""
        if self.before_reading is not None:
            x, read = self.data.x, others if has_pairs and self.sides.trains_documents else None
            self.before_reading(self.sides.rows_read(x, rows, x, read))

    def metrics(self, names: tuple[str, ...]) -> dict[str, float]:
        """Each validation row among the others; relevant are those of its label."""
        assert self.validation is not None
        x, y = self.validation.x, self.validation.y
        queries, documents = outputs(self.sides.query, x), outputs(self.sides.document, x)
        return {name: metrics.evaluate_labels(queries, documents, y, name) for name in names}

    def validation_loss(self, losses: list[Weighted], size: int) -> float:
        """In one order for all epochs, with the same positives."""
        data = self.validation
        assert data is not None
        others = data.others(np.random.default_rng(0))
        order = np.random.default_rng(0).permutation(len(data.rows))
        total = 0.0
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            total += self._loss_on_validation(data, data.rows[batch], others[batch], losses) * len(batch)
        return total / len(order)

    def _loss_on_validation(self, data: Labelled, rows: Rows, others: Rows, losses: list[Weighted]) -> float:
        anchors = forward_rows(self.sides.query, data.x, rows)[0]
        positives = forward_rows(self.sides.document, data.x, others)[0]
        total = 0.0
        for call, weight in losses:
            arguments, options = arguments_of(call, anchors, positives, data.y[rows])
            total += weight * call(arguments, options, None)[0]
        return total

    def check_finite(self) -> None:
        """Read files as a whole."""
        for data in (self.data,) if self.validation is None else (self.data, self.validation):
            data.check_finite(dtype_of(self.sides.query))

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of X, y and validation."""
        held = "" if self.validation is None else " ".join(map(fingerprint, (self.validation.x, self.validation.y)))
        return {"X": fingerprint(self.data.x), "y": fingerprint(self.data.y), "validation": held}


def takes_pairs(losses: list[Weighted]) -> bool:
    """Whether a loss is given pairs of rows."""
    return any(call.kind == "pairs" for call, _ in losses)


def arguments_of(
    call: LossCall, anchors: NDArray[Any], positives: NDArray[Any], labels: Rows
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a loss of any kind."""
    if call.kind == "embeddings":
        return (anchors,), {}
    if call.kind == "labels":
        return (anchors, labels), {}
    return (anchors, positives), {"anchor_ids": labels}


def check_losses(calls: list[LossCall], sides: Sides) -> None:
    """Raise unless the losses are of labels or of pairs."""
    for call in calls:
        if call.kind not in ("labels", "pairs", "embeddings"):
            raise TypeError(f"loss must take labels or pairs in fit_labels, got {call.loss!r}")
        if call.kind == "labels" and not sides.is_shared:
            raise ValueError(
                f"loss {type(call.loss).__name__} needs a model with one side for all rows, got two sides"
            )
    if not sides.is_shared and all(call.kind == "embeddings" for call in calls):
        raise ValueError("loss must take pairs where the model has two sides")


def check_negatives(calls: list[LossCall], data: Labelled) -> None:
    """Raise if all pairs of rows have one label, of which a softmax finds no negatives."""
    if all_contrast(calls) and len(np.unique(data.y[data.rows])) == 1:
        raise ValueError("y must have at least 2 labels that two rows share, got 1: the loss is 0 whatever the model")
