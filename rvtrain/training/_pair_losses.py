"""The losses of one batch of pairs: what each kind is given, and where its gradients go."""

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvtrain.losses import DecoupledContrastiveLoss, HardNegativeContrastiveLoss, InfoNCELoss
from rvtrain.losses._arguments import Excluded
from rvtrain.training._adapter_kernels import add_rows
from rvtrain.training._losses import LossCall, Weighted
from rvtrain.training._models import Floats
from rvtrain.training._pair_data import PairData, Pool, Rows
from rvtrain.training._task import plus

_BY_ROW = InfoNCELoss, HardNegativeContrastiveLoss, DecoupledContrastiveLoss
"""Losses that take `Excluded` in place of ids, which have to be as many for all documents as the most popular has."""


@dataclass
class PairBatch:
    """A batch of pairs, embedded.

    Shapes: query_rows, document_rows (B,); anchors (B, d); documents (M, d), those of `pool`. Where `fit` was given
    these: sample_weight, scores, log_q (B,); listed (B, k) document rows, −1 for none; teacher_scores (B, 1 + k).
    """

    data: PairData
    query_rows: Rows
    document_rows: Rows
    pool: Pool
    anchors: Floats
    documents: Floats
    sample_weight: NDArray[Any] | None = None
    scores: NDArray[Any] | None = None
    listed: Rows | None = None
    teacher_scores: NDArray[Any] | None = None
    guide: tuple[NDArray[Any], NDArray[Any]] | None = None
    """The guide's vectors of the anchors and of the pool."""
    log_q: NDArray[Any] | None = None
    positives: Floats = field(init=False)

    def __post_init__(self) -> None:
        pool = self.pool
        self.positives = self.documents[: pool.first] if pool.in_order else self.documents[pool.own]

    def guide_of(self, *parts: str) -> tuple[NDArray[Any], ...] | None:
        """The guide's vectors of "anchors", "positives", the whole "pool" or its "rest"."""
        if self.guide is None:
            return None
        anchors, documents = self.guide
        of = {
            "anchors": anchors, "positives": documents[self.pool.own], "pool": documents,
            "rest": documents[self.pool.first :],
        }  # fmt: skip
        return tuple(of[part] for part in parts)


class Sums:
    """Gradients to the anchors and to the pool, added up over losses; those of a frozen side are left out."""

    def __init__(self, batch: PairBatch, anchors: bool, documents: bool) -> None:
        self.batch, self.wants_anchors, self.wants_documents = batch, anchors, documents
        self.anchors: Any = None
        self.documents: Any = None

    def wrt(self, call: LossCall, *others: str) -> tuple[str, ...]:
        """The names of the gradients that are needed, of the pairs and of other documents."""
        names = (call.names[0],) if self.wants_anchors else ()
        return (*names, *((call.names[1], *others) if self.wants_documents else ()))

    def add_anchors(self, weight: float, gradient: Floats) -> None:
        """Add weight · gradient, (B, d)."""
        self.anchors = plus(self.anchors, weight, gradient)

    def add_documents(self, weight: float, gradient: Floats, start: int = 0) -> None:
        """Add weight · gradient of the documents from this place on."""
        if self.documents is None and gradient.shape == self.batch.documents.shape:
            self.documents = plus(None, weight, gradient)
        elif self.documents is None:
            self.documents = np.zeros_like(self.batch.documents)
            self.add_documents(weight, gradient, start)
        else:
            self.documents[start : start + len(gradient)] += gradient if weight == 1.0 else weight * gradient

    def add_positives(self, weight: float, gradient: Floats) -> None:
        """Add weight · gradient of the pairs' documents, (B, d)."""
        pool = self.batch.pool
        if pool.in_order:
            self.add_documents(weight, gradient)
        else:
            part = np.zeros((pool.first, gradient.shape[1]), gradient.dtype)
            add_rows.serial(gradient.shape[1], np.ascontiguousarray(gradient), pool.own, part)
            self.add_documents(weight, part)


def evaluate(batch: PairBatch, losses: list[Weighted], sums: Sums | None) -> tuple[float, list[dict[str, float]]]:
    """The weighted sum of the losses, and gradients to parameters of each; gradients to embeddings go to `sums`."""
    total, learned = 0.0, []
    for call, weight in losses:
        value, own = _evaluate_one(batch, call, weight, sums)
        total += weight * value
        learned.append({name: weight * float(g) for name, g in own.items()})
    return total, learned


def _evaluate_one(batch: PairBatch, call: LossCall, weight: float, sums: Sums | None) -> tuple[float, dict[str, Any]]:
    if call.kind == "embeddings":
        return _regularized(batch, call, weight, sums)
    if call.is_symmetric and batch.data.has_shared and batch.log_q is None:
        return _both_ways_apart(batch, call, weight, sums)
    arguments: tuple[Any, ...] = (batch.anchors, batch.positives)
    options: dict[str, Any] = {"sample_weight": batch.sample_weight}
    others: tuple[str, ...] = ()
    start = 0
    if call.kind == "graded":
        arguments = (*arguments, batch.scores)
    elif call.kind == "teacher":
        others, listed = ("negatives",), batch.listed
        assert listed is not None
        arguments = (*arguments, batch.documents, batch.teacher_scores)
        options["negative_indices"] = batch.pool.places(listed)
    else:
        columns = columns_of(batch, call)
        if columns == "pool":
            others, options["negatives"] = ("negatives",), batch.documents
        elif columns == "rest":
            start = batch.pool.first
            others, options["negatives"] = ("negatives",), batch.documents[start:]
        parts = ("anchors", "positives") if columns == "batch" else ("anchors", "positives", columns)
        options |= {"guide": batch.guide_of(*parts), "log_q": batch.log_q, **_ids(batch, columns, call)}
    if sums is None:
        return call(arguments, options, None)
    value, gradients = call(arguments, options, sums.wrt(call, *others))
    if sums.wants_anchors:
        sums.add_anchors(weight, gradients[call.names[0]])
    if sums.wants_documents and others:
        sums.add_documents(weight, gradients["negatives"], start)
    if sums.wants_documents:
        sums.add_positives(weight, gradients[call.names[1]])
    return value, {name: gradients[name] for name in call.learnable}


def columns_of(batch: Any, call: LossCall) -> str:
    """The negatives of a loss of pairs, in a batch with `pool`, `log_q` and `data`.

    "batch": the other pairs' documents, in the batch itself. "pool": all documents of the pool, in their place.
    "rest": the documents of the pool that are not those of the pairs, beside them.
    """
    pool = batch.pool
    if not call.takes_pool:
        return "batch"
    if batch.log_q is not None:
        return "batch"
    if call.keeps_batch:
        return "rest" if pool.has_rest else "batch"
    return "pool" if pool.has_rest or not pool.in_order or batch.data.needs_ids else "batch"


def _ids(batch: PairBatch, columns: str, call: LossCall) -> dict[str, Any]:
    """Ids by which a query's documents, and copies of these, are not its negatives; none where none are needed."""
    data, pool = batch.data, batch.pool
    if not data.needs_ids:
        if columns != "pool" and pool.in_order:
            return {}
        if columns == "pool" and _by_row(call):  # the pair's own document is the only one
            return {"negative_ids": Excluded(np.arange(len(pool.own) + 1), pool.own.astype(np.int32))}
    ids: dict[str, Any] = {"positive_ids": data.ids[batch.document_rows]}
    if data.most > 1 or columns != "pool":
        ids["anchor_ids"] = data.query_ids(batch.query_rows)
    if columns != "batch":
        rows = pool.rows if columns == "pool" else pool.rows[pool.first :]
        ids["negative_ids"] = data.ids[rows] if data.most == 1 else _own(batch, rows, call)
    return ids


def _own(batch: PairBatch, rows: Rows, call: LossCall) -> Any:
    """Which of these documents are not negatives of each pair, in the form of `negative_ids` that the loss takes."""
    return (batch.data.own_columns if _by_row(call) else batch.data.ids_of_columns)(batch.query_rows, rows)


def _by_row(call: LossCall) -> bool:
    """Whether a loss takes `Excluded`, which knows the documents of this process alone."""
    return isinstance(call.loss, _BY_ROW) and call.loss.comm is None


def _both_ways_apart(
    batch: PairBatch, call: LossCall, weight: float, sums: Sums | None
) -> tuple[float, dict[str, Any]]:
    """A symmetric loss as its two directions, each with ids of its own for the columns.

    One id for each row of a batch cannot tell that the document of another pair is also one of the query's. As a pool
    the columns can have all ids that they need.
    """
    data, pool = batch.data, batch.pool
    one_way = LossCall(copy.deepcopy(call.loss))
    one_way.owner.symmetric = False
    there = {
        "negatives": batch.documents,
        "anchor_ids": data.query_ids(batch.query_rows),
        "positive_ids": data.ids[batch.document_rows],
        "negative_ids": _own(batch, pool.rows, call),
        "sample_weight": batch.sample_weight,
        "guide": batch.guide_of("anchors", "positives", "pool"),
    }
    back = {
        "negatives": batch.anchors,
        "anchor_ids": data.ids[batch.document_rows],
        "negative_ids": data.own_rows(batch.query_rows, batch.document_rows)
        if _by_row(call)
        else data.ids_of_documents_of(batch.query_rows),
        "sample_weight": batch.sample_weight,
        "guide": batch.guide_of("positives", "anchors", "anchors"),
    }
    wrt = None if sums is None else (*one_way.names, "negatives")
    value, g = one_way((batch.anchors, batch.positives), there, wrt)
    value_back, h = one_way((batch.positives, batch.anchors), back, wrt)
    if sums is None:
        return 0.5 * (value + value_back), {}
    first, second = one_way.names
    if sums.wants_anchors:
        sums.add_anchors(0.5 * weight, g[first] + h[second] + h["negatives"])
    if sums.wants_documents:
        sums.add_documents(0.5 * weight, g["negatives"])
        sums.add_positives(0.5 * weight, g[second] + h[first])
    return 0.5 * (value + value_back), {name: 0.5 * (g[name] + h[name]) for name in one_way.learnable}


def _regularized(batch: PairBatch, call: LossCall, weight: float, sums: Sums | None) -> tuple[float, dict[str, Any]]:
    """A loss of embeddings alone: its sum over the batch's queries and over its documents."""
    if sums is None:
        return sum(call((x,), {}, None)[0] for x in (batch.anchors, batch.documents)), {}
    value, own = 0.0, dict.fromkeys(call.learnable, 0.0)
    for x, wanted, add in (
        (batch.anchors, sums.wants_anchors, sums.add_anchors),
        (batch.documents, sums.wants_documents, sums.add_documents),
    ):
        part, gradients = call((x,), {}, call.names)
        value += part
        if wanted:
            add(weight, gradients[call.names[0]])
        own = {name: own[name] + gradients[name] for name in own}
    return value, own
