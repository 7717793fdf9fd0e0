"""Batches of pairs that several ranks share: each embeds its part, and the gradients of all are added up."""

from typing import Any

import numpy as np

from rvtrain.distributed._batch import SEGMENTS, shares_of
from rvtrain.distributed._ranks import Ranks
from rvtrain.mining import HardNegativeMiner, MiningStrategy
from rvtrain.training._embedding import Sides
from rvtrain.training._losses import LossCall, Weighted
from rvtrain.training._mining import MiningCall
from rvtrain.training._models import Floats, Params, output_kind, outputs
from rvtrain.training._pair_data import PairData, Pool, Rows
from rvtrain.training._pair_losses import columns_of
from rvtrain.training._pair_task import PairTask, PerPair
from rvtrain.training._run import fingerprint
from rvtrain.training._shared import (
    Part,
    added,
    agree_on_data,
    check_shared,
    is_enough,
    of_all_ranks,
    shared_by,
    summed,
)
from rvtrain.training._task import Gradients


def shared_pairs(ranks: Ranks, calls: list[LossCall], sides: Sides, *others: Any) -> "SharedPairTask":
    """The task of a training on pairs by these ranks; TypeError if the losses cannot be shared."""
    check_shared(calls)
    return SharedPairTask(ranks, sides, *others)


class SharedPairTask(PairTask):
    """`PairTask` of several ranks, to the bits of one where the number of ranks divides 8.

    Batches, mined negatives and validation are those of the whole data on every rank. A rank embeds its segments of
    a batch's queries and documents, computes their gradients segment by segment, and the sums of all ranks are added
    in the order of a tree. Steps with fewer rows than segments are computed by every rank alone.
    """

    def __init__(self, ranks: Ranks, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ranks = ranks

    def fingerprints(self) -> dict[str, str]:
        """Compared before the first step, so that all ranks know if their data differ, and how."""
        data = {"queries": self.data.queries, "documents": self.data.documents, "pairs": self.data.pairs}
        found = super().fingerprints()
        agree_on_data(self.ranks, data, found)
        return found

    def mine(self, miner: MiningCall, k: int) -> None:
        """Compared afterwards, because a miner of one's own may find others on each rank."""
        super().mine(miner, k)
        assert self.mined is not None
        self.ranks.agree({"mined negatives": fingerprint(self.mined)})

    def gradients(self, batch: Rows, losses: list[Weighted]) -> Gradients:
        """Gradients of the whole batch, on each rank."""
        part = SharedBatch(self, self.data, self.extra.counting[batch], self.extra, self.mined)
        if not part.can_be_shared(losses):
            return super().gradients(batch, losses)
        if self.before_reading is not None:
            documents_read = part.pool.rows if self.sides.trains_documents else None
            queries, documents = self.data.queries, self.data.documents
            self.before_reading(self.sides.rows_read(queries, part.query_rows, documents, documents_read))
        with shared_by(self.ranks, losses):
            value, learned = part.evaluate(losses, True)
        grads, rows = summed(self.ranks, [self.sides.collect(*each) for each in part.gradients()])
        return Gradients(value, grads, learned, rows)

    def _loss_on_validation(self, data: PairData, batch: Rows, losses: list[Weighted]) -> float:
        part = SharedBatch(self, data, batch, None, None)
        if not part.can_be_shared(losses):
            return super()._loss_on_validation(data, batch, losses)
        with shared_by(self.ranks, losses):
            return part.evaluate(losses, False)[0]

    def _near(self, miner: MiningCall, documents: Any, queries: Rows, k: int) -> Rows:
        """The search, shared by the ranks: each takes a part of the queries, or of the documents if draws are random.

        A miner of one's own, whose search may depend on all of both, searches on every rank.
        """
        ranks, near = self.ranks, super()._near
        if type(miner.miner) is not HardNegativeMiner or not is_enough(len(queries), ranks):
            return near(miner, documents, queries, k)
        if not draws(miner.miner):
            return of_all_ranks(ranks, len(queries), lambda part: near(miner, documents, queries[part], k))
        if isinstance(documents, np.ndarray) and is_enough(len(documents), ranks):
            return near(_DocumentsInParts(miner, ranks), documents, queries, k)
        return near(miner, documents, queries, k)

    def _embedded_whole(self, table: Any) -> Any:
        """All documents, embedded by the ranks in parts; blocks if they do not fit the limit."""
        width, dtype = output_kind(self.sides.document, table)
        if table.shape[0] < SEGMENTS or table.shape[0] * width * dtype.itemsize > self.limit:
            return super()._embedded_whole(table)
        return of_all_ranks(self.ranks, table.shape[0], lambda part: outputs(self.sides.document, table[part]))

    def measured(self, data: PairData, names: tuple[str, ...]) -> dict[str, float]:
        """The queries are ranked by the ranks in parts."""
        queries = np.unique(data.query_rows)
        if len(queries) < SEGMENTS:
            return super().measured(data, names)
        documents = self._all_documents(data)
        if not isinstance(documents, np.ndarray):
            return super().measured(data, names)

        def values(part: slice) -> np.ndarray:
            found = self._ranked(data, documents, queries[part], names, per_query=True)
            return np.stack([found[name] for name in names], axis=1)

        each = of_all_ranks(self.ranks, len(queries), values)
        return {name: float(column.mean()) for name, column in zip(names, each.T, strict=True)}


def draws(miner: HardNegativeMiner) -> bool:
    """Whether what a miner finds for a query depends on its number in the call, as random draws do."""
    drawn = MiningStrategy.RANDOM, MiningStrategy.DISTANCE_WEIGHTED
    return miner.strategy in drawn or miner.filters.sampling == "random"


class _DocumentsInParts(MiningCall):
    """A miner that searches this rank's part of the documents, with the result for all."""

    def __init__(self, call: MiningCall, ranks: Ranks) -> None:
        super().__init__(call.miner)
        self._ranks = ranks

    def prepared(self, candidates: np.ndarray) -> Any:
        return candidates

    def __call__(self, anchors: Any, candidates: Any, k: int, **options: Any) -> Rows:
        bounds = shares_of(len(candidates), self._ranks)
        part = slice(int(bounds[0]), int(bounds[-1]))
        options["candidate_ids"] = options["candidate_ids"][part]
        return super().__call__(anchors, candidates[part], k, comm=self._ranks.comm, **options)


class SharedBatch:
    """A batch of pairs of which this rank has a part; numbers are those of all pairs."""

    def __init__(
        self, task: SharedPairTask, data: PairData, batch: Rows, extra: PerPair | None, mined: Rows | None
    ) -> None:
        self.task, self.data, self.batch, self.extra = task, data, batch, extra
        self.query_rows, self.document_rows = data.query_rows[batch], data.document_rows[batch]
        listed = None if extra is None or extra.negatives is None else extra.negatives[batch]
        negatives = [x for x in (listed, None if mined is None else mined[batch]) if x is not None]
        self.pool = Pool(self.document_rows, np.concatenate(negatives, axis=1) if negatives else None)
        self.log_q = None if extra is None or extra.log_q is None else extra.log_q[self.document_rows]
        self.parts: dict[str, Part] = {}

    def can_be_shared(self, losses: list[Weighted]) -> bool:
        """Whether each segment of each input has a row."""
        columns = {columns_of(self, call) for call, _ in losses}
        least = [len(self.batch), *(len(self._rows(name)) for name in columns - {"batch"})]
        return is_enough(min(least), self.task.ranks)

    def _rows(self, name: str) -> Rows:
        pool = self.pool
        named = {"anchors": self.query_rows, "positives": self.document_rows, "pool": pool.rows}
        return named[name] if name in named else pool.rows[pool.first :]

    def part(self, name: str) -> Part:
        """This rank's "anchors", "positives", or documents of the "pool" or of its "rest"."""
        if name not in self.parts:
            task, sides, data, rows = self.task, self.task.sides, self.data, self._rows(name)
            of_side = (sides.document, data.documents, rows, sides.trains_documents)
            if name == "anchors":
                of_side = (sides.query, data.queries, rows, sides.trains_queries)
            self.parts[name] = Part(task.ranks, *of_side, task.micro, task._embedded)
        return self.parts[name]

    def evaluate(self, losses: list[Weighted], gradients: bool) -> tuple[float, list[dict[str, float]]]:
        """The weighted sum of the losses, and gradients to their parameters; those to embeddings go to the parts."""
        total, learned = 0.0, []
        for call, weight in losses:
            apart = call.is_symmetric and self.data.has_shared and self.log_q is None
            value, own = (self._both_ways_apart if apart else self._evaluate)(call, weight, gradients)
            total += weight * value
            learned.append({name: weight * float(g) for name, g in own.items()})
        return total, learned

    def _evaluate(self, call: LossCall, weight: float, gradients: bool) -> tuple[float, dict[str, Any]]:
        columns = columns_of(self, call)
        inputs = ("anchors", "positives") if columns == "batch" else ("anchors", "positives", columns)
        options = self._options(columns) | {"guide": self._guide(*inputs)}
        return self._call(call, weight, inputs, options, gradients)

    def _both_ways_apart(self, call: LossCall, weight: float, gradients: bool) -> tuple[float, dict[str, Any]]:
        """As `_pair_losses._both_ways_apart`: two directions, each with ids of its own for the columns."""
        data, mine = self.data, self.part("anchors").rows
        queries, documents = self.query_rows, self.document_rows
        weights = {"sample_weight": self._of("sample_weight", mine)}
        there = weights | {
            "anchor_ids": data.query_ids(queries)[mine],
            "positive_ids": data.ids[documents][mine],
            "negative_ids": data.ids_of_columns(queries, self.pool.rows)[self.part("pool").rows],
            "guide": self._guide("anchors", "positives", "pool"),
        }
        back = weights | {
            "anchor_ids": data.ids[documents][mine],
            "negative_ids": data.ids_of_documents_of(queries)[mine],
            "guide": self._guide("positives", "anchors", "anchors"),
        }
        owner, before = call.owner, call.owner.symmetric
        owner.symmetric = False
        try:
            ways = [
                self._call(call, weight / 2, inputs, options, gradients)
                for inputs, options in (
                    (("anchors", "positives", "pool"), there),
                    (("positives", "anchors", "anchors"), back),
                )
            ]
        finally:
            owner.symmetric = before
        (value, g), (value_back, h) = ways
        return 0.5 * (value + value_back), {name: 0.5 * (g[name] + h[name]) for name in g}

    def _call(
        self, call: LossCall, weight: float, inputs: tuple[str, ...], options: dict[str, Any], gradients: bool
    ) -> tuple[float, dict[str, Any]]:
        """The loss of these inputs, as anchors, positives and a pool; gradients go to their parts."""
        parts = [self.part(name) for name in inputs]
        if len(parts) > 2:
            options = options | {"negatives": parts[2].x}
        names = (*call.names, "negatives")[: len(parts)]
        trained = [name for name, part in zip(names, parts, strict=True) if part.trains]
        value, found = call((parts[0].x, parts[1].x), options, tuple(trained) if gradients else None)
        for name, part in zip(names, parts, strict=True):
            if gradients and part.trains:
                part.add(weight, found[name])
        return value, {name: found[name] for name in call.learnable} if gradients else {}

    def gradients(self) -> list[tuple[Params, Params]]:
        """The gradients of the query and the document side, of each segment of this rank."""
        found = {name: part.gradients() for name, part in self.parts.items()}
        segments = self.part("anchors").segments
        others = [each for name, each in found.items() if name != "anchors"]
        return [(found["anchors"][s], added([each[s] for each in others])) for s in range(segments)]

    def _of(self, name: str, part: slice) -> Any:
        """What `fit` was given for each pair."""
        values = None if self.extra is None else getattr(self.extra, name)
        return None if values is None else values[self.batch][part]

    def _options(self, columns: str) -> dict[str, Any]:
        """Weights, log q, and the ids by which a query's documents, and copies of these, are not its negatives."""
        data, pool, mine = self.data, self.pool, self.part("anchors").rows
        options = {
            "sample_weight": self._of("sample_weight", mine),
            "log_q": None if self.log_q is None else self.log_q[mine],
        }
        if columns != "pool" and pool.in_order and not data.needs_ids:
            return options
        options["positive_ids"] = data.ids[self.document_rows[mine]]
        if data.most > 1 or columns != "pool":
            options["anchor_ids"] = data.query_ids(self.query_rows)[mine]
        if columns != "batch":
            rows = self._rows(columns)
            ids = data.ids[rows] if data.most == 1 else data.ids_of_columns(self.query_rows, rows)
            options["negative_ids"] = ids[self.part(columns).rows]
        return options

    def _guide(self, *inputs: str) -> tuple[Floats, ...] | None:
        if self.extra is None or self.extra.guide is None:
            return None
        dtype = self.part("anchors").x.dtype
        tables = {"anchors": self.extra.guide[0]}
        parts = [(tables.get(name, self.extra.guide[1]), self._rows(name)[self.part(name).rows]) for name in inputs]
        return tuple(table[rows].astype(dtype) for table, rows in parts)
