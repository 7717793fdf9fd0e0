"""Batches of pairs that several ranks share: each embeds its part, and the gradients of all are added up."""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from rvtrain.distributed._batch import SEGMENTS, shares_of
from rvtrain.distributed._ranks import Ranks
from rvtrain.distributed._sweep import total_of_ranks
from rvtrain.distributed._threads import warn_if_crowded
from rvtrain.mining import HardNegativeMiner, MiningStrategy
from rvtrain.training._embedding import Sides, embed
from rvtrain.training._losses import LossCall, Weighted
from rvtrain.training._mining import MiningCall
from rvtrain.training._models import Floats, Params, output_kind, outputs
from rvtrain.training._pair_data import PairData, Pool, Rows
from rvtrain.training._pair_losses import columns_of
from rvtrain.training._pair_task import PairTask, PerPair
from rvtrain.training._row_gradient import RowGradient, by_rows
from rvtrain.training._run import fingerprint
from rvtrain.training._task import Gradients, plus


def check_shared(calls: list[LossCall]) -> None:
    """Raise unless the losses can be shared by ranks."""
    for call in calls:
        if not call.takes_pool or not hasattr(call.owner, "comm"):
            raise TypeError(f"loss must have a parameter comm where the trainer has one, got {call.loss!r}")


def shared_task(ranks: Ranks, calls: list[LossCall], sides: Sides, *others: Any) -> "SharedPairTask":
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
        kinds = {f"shape and dtype of {name}": f"{x.shape} {x.dtype}" for name, x in data.items()}
        self.ranks.agree(kinds | {f"elements of {name}": value for name, value in found.items()}, room=1 << 14)
        return found

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
        segments = [self.sides.collect(*each) for each in part.gradients()]
        found = {name: self._rows_of_all(segments, name) for name, g in segments[0].items() if is_of_rows(g)}
        grads, rows = by_rows(self._total(segments, set(found)) | found)
        return Gradients(value, grads, learned, rows)

    def _total(self, segments: list[Params], without: set[str]) -> dict[str, Any]:
        """The gradients of the parameters, over the segments of all ranks, but for these names."""
        shapes = {name: (g.shape, g.size) for name, g in segments[0].items() if name not in without}
        if not shapes:
            return {}
        flat = [np.concatenate([grads[name].ravel() for name in shapes]) for grads in segments]
        total, start, found = total_of_ranks(self.ranks, flat), 0, {}
        for name, (shape, size) in shapes.items():
            found[name] = total[start : start + size].reshape(shape)
            start += size
        return found

    def _rows_of_all(self, segments: list[Any], name: str) -> RowGradient:
        """The gradient of a table, of which each rank has that of some rows for each segment."""
        rows = np.concatenate([grads[name].rows for grads in segments])
        values = np.concatenate([grads[name].values for grads in segments])
        counts = self.ranks.agree({}, (len(rows),))[:, 0].copy()
        return RowGradient(
            segments[0][name].shape, self.ranks.gathered(rows, counts), self.ranks.gathered(values, counts)
        )

    def _loss_on_validation(self, data: PairData, batch: Rows, losses: list[Weighted]) -> float:
        part = SharedBatch(self, data, batch, None, None)
        if not part.can_be_shared(losses):
            return super()._loss_on_validation(data, batch, losses)
        with shared_by(self.ranks, losses):
            return part.evaluate(losses, False)[0]

    def _near(self, miner: MiningCall, documents: Any, queries: Rows, k: int) -> Rows:
        """The search for this rank's part of the queries, and those of the others, unless its draws are random."""
        if len(queries) < SEGMENTS or draws(miner.miner):
            return super()._near(miner, documents, queries, k)
        near = super()._near
        return self._of_all_ranks(len(queries), lambda part: near(miner, documents, queries[part], k))

    def _of_all_ranks(self, count: int, function: Callable[[slice], np.ndarray]) -> np.ndarray:
        """What a function returns for this rank's part of so many rows, and what the other ranks have for theirs."""
        bounds = shares_of(count, self.ranks)
        with self.ranks.together():
            mine = function(slice(int(bounds[0]), int(bounds[-1])))
        facts = {"shape of a result": mine.shape[1:], "dtype of a result": mine.dtype}
        counts = self.ranks.agree(facts, (len(mine),))[:, 0].copy()
        return self.ranks.gathered(mine, counts)

    def _embedded_whole(self, table: Any) -> Any:
        """All documents, embedded by the ranks in parts; blocks if they do not fit the limit."""
        width, dtype = output_kind(self.sides.document, table)
        if table.shape[0] < SEGMENTS or table.shape[0] * width * dtype.itemsize > self.limit:
            return super()._embedded_whole(table)
        return self._of_all_ranks(table.shape[0], lambda part: outputs(self.sides.document, table[part]))

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

        each = self._of_all_ranks(len(queries), values)
        return {name: float(column.mean()) for name, column in zip(names, each.T, strict=True)}


def is_of_rows(gradient: Any) -> bool:
    """Whether a gradient is that of some rows of a table."""
    return isinstance(gradient, RowGradient)


def draws(miner: Any) -> bool:
    """Whether what a miner finds for a query may depend on the other queries of the call, as random draws do."""
    drawn = MiningStrategy.RANDOM, MiningStrategy.DISTANCE_WEIGHTED
    return type(miner) is not HardNegativeMiner or miner.strategy in drawn or miner.filters.sampling == "random"


def agree_on_parameters(ranks: Ranks, params: Params) -> None:
    """Raise on every rank, unless all have the same bits in their parameters, as far as fingerprints tell."""
    ranks.agree(
        {f"parameter {name}": f"{x.dtype} {x.shape} {fingerprint(x)}" for name, x in params.items()}, room=1 << 16
    )


def agree(ranks: Ranks, settings: dict[str, Any], params: Params, resumes: bool) -> None:
    """Raise on every rank, unless all have the same settings and parameters; before the first step."""
    warn_if_crowded(ranks)
    facts = {name: _short(value) for name, value in settings.items()}
    ranks.agree({**facts, "file to resume from": resumes}, room=1 << 16)
    agree_on_parameters(ranks, params)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:100]}… {hashlib.sha256(text.encode()).hexdigest()[:16]}"


@contextmanager
def shared_by(ranks: Ranks, losses: list[Weighted]) -> Iterator[None]:
    """Losses whose batch is that of all ranks."""
    owners = [call.owner for call, _ in losses]
    before = [owner.comm for owner in owners]
    try:
        for owner in owners:
            owner.comm = ranks.comm
        yield
    finally:
        for owner, comm in zip(owners, before, strict=True):
            owner.comm = comm


class Part:
    """This rank's rows of a table, embedded in segments, and the gradient to them."""

    def __init__(self, task: SharedPairTask, model: Any, table: Any, rows: Rows, trains: bool) -> None:
        bounds = shares_of(len(rows), task.ranks)
        self.rows = slice(int(bounds[0]), int(bounds[-1]))
        self._bounds = bounds - bounds[0]
        self._back: list[Callable[[Floats], Params]] = []
        self._gradient: Floats | None = None
        if not trains:
            self.x = task._embedded(table, rows[self.rows])
            return
        found = []
        for start, stop in itertools.pairwise(bounds):
            out, back = embed(model, table, rows[start:stop], task.micro)
            found.append(out)
            self._back.append(back)
        self.x = np.concatenate(found)

    def add(self, weight: float, gradient: Floats) -> None:
        """Add weight · gradient of the embeddings."""
        self._gradient = plus(self._gradient, weight, gradient)

    def gradients(self) -> list[Params] | None:
        """The gradients of the parameters, of each segment; None without a gradient."""
        if self._gradient is None or not self._back:
            return None
        parts = zip(self._back, self._bounds[:-1], self._bounds[1:], strict=True)
        return [back(np.ascontiguousarray(self._gradient[start:stop])) for back, start, stop in parts]


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
        return min(least) >= max(SEGMENTS, self.task.ranks.size)

    def _rows(self, name: str) -> Rows:
        pool = self.pool
        named = {"anchors": self.query_rows, "positives": self.document_rows, "pool": pool.rows}
        return named[name] if name in named else pool.rows[pool.first :]

    def part(self, name: str) -> Part:
        """This rank's "anchors", "positives", or documents of the "pool" or of its "rest"."""
        if name not in self.parts:
            sides, data, rows = self.task.sides, self.data, self._rows(name)
            if name == "anchors":
                found = Part(self.task, sides.query, data.queries, rows, sides.trains_queries)
            else:
                found = Part(self.task, sides.document, data.documents, rows, sides.trains_documents)
            self.parts[name] = found
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
        trained = [name for name, part in zip(names, parts, strict=True) if part._back]
        value, found = call((parts[0].x, parts[1].x), options, tuple(trained) if gradients else None)
        for name, part in zip(names, parts, strict=True):
            if gradients and part._back:
                part.add(weight, found[name])
        return value, {name: found[name] for name in call.learnable} if gradients else {}

    def gradients(self) -> list[tuple[Params, Params]]:
        """The gradients of the query and the document side, of each segment of this rank."""
        sides: list[list[list[Params]]] = [[], []]
        for name, part in self.parts.items():
            of_segments = part.gradients()
            if of_segments is not None:
                sides[name != "anchors"].append(of_segments)
        segments = len(self.part("anchors")._bounds) - 1
        return [(_added(sides[0], s), _added(sides[1], s)) for s in range(segments)]

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


def _added(parts: list[list[Params]], segment: int) -> Params:
    """The sum of the gradients of several inputs, of one segment."""
    total: Params = {}
    for each in parts:
        for name, g in each[segment].items():
            total[name] = total[name] + g if name in total else g
    return total
