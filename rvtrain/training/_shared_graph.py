"""Batches of edges that several ranks share."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from rvtrain.distributed._batch import shares_of
from rvtrain.distributed._ranks import Ranks
from rvtrain.training import _metrics as metrics
from rvtrain.training._graph_batch import Ends
from rvtrain.training._graph_task import GraphTask
from rvtrain.training._losses import LossCall, Weighted
from rvtrain.training._row_gradient import by_rows
from rvtrain.training._shared import agree_on_data, check_shared, is_enough, of_all_ranks, rows_of_all, shared_by
from rvtrain.training._task import Gradients, Rows, plus


def shared_graph(ranks: Ranks, calls: list[LossCall], shared: bool, *arguments: Any, **options: Any) -> "GraphTask":
    """The task of a training on a graph by these ranks; TypeError if the losses cannot be shared."""
    in_batch = [call for call in calls if compares_batch(call, shared)]
    check_shared(in_batch)
    if in_batch and len(in_batch) < len(calls):
        raise TypeError("losses must all compare an edge with the nodes of its batch, or none, where there is a comm")
    return SharedGraphTask(ranks, *arguments, shared=shared, **options)


def compares_batch(call: LossCall, shared: bool) -> bool:
    """Whether a loss compares an edge with the nodes of other edges, and not with those drawn for it alone."""
    return not hasattr(call.loss, "compute_graph_with_gradients") and (shared or call.kind != "pairs")


class SharedGraphTask(GraphTask):
    """`GraphTask` of several ranks, to the bits of one where the number of ranks divides 8.

    Every rank has the whole table and its optimizer, and draws the nodes of a batch. It computes the gradients of its
    segments of the edges, and the ranks exchange those of the rows that these have read. Losses that compare an edge
    with the batch's nodes are those of the whole batch; of others, each segment is a batch of its own.
    """

    def __init__(self, ranks: Ranks, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ranks = ranks

    def fingerprints(self) -> dict[str, str]:
        """Compared before the first step, so that all ranks know if their data differ, and how."""
        found = super().fingerprints()
        agree_on_data(self.ranks, {"edges": self.edges}, found)
        return found

    def step(self, batch: Rows, losses: list[Weighted], optimizer: Any) -> float | None:
        """None: the gradients have to be exchanged before the step."""
        return None

    def gradients(self, batch: Rows, losses: list[Weighted]) -> Gradients:
        """Gradients of the whole batch, on each rank."""
        ends, of_batch = self._drawn(batch), compares_batch(losses[0].call, self.shared)
        pool: Any = self._distinct(ends[:, 1:]) if of_batch else ends
        if not is_enough(min(len(ends), len(pool)), self.ranks):
            return self._of_ends(ends, losses)
        if self.before_reading is not None:
            self.before_reading({"weight": self._distinct(ends)})
        value, learned, *mine = self._of_batch(ends, pool, losses) if of_batch else self._of_edges(ends, losses)
        grads, rows = by_rows({"weight": rows_of_all(self.ranks, self.table.weight.shape, *mine)})
        return Gradients(value, grads, learned, rows)

    def _distinct(self, nodes: Ends) -> Rows:
        """The distinct nodes, ascending, without −1."""
        is_there = np.zeros(self.count + 1, np.bool_)
        is_there[nodes] = True
        return np.flatnonzero(is_there[:-1])

    def _of_batch(self, ends: Ends, pool: Rows, losses: list[Weighted]) -> Any:
        """The losses, the gradients to their parameters, and rows and gradients of this rank's segments."""
        table = self.table.weight
        edges, columns = shares_of(len(ends), self.ranks), shares_of(len(pool), self.ranks)
        mine, others = slice(int(edges[0]), int(edges[-1])), slice(int(columns[0]), int(columns[-1]))
        rows = [ends[mine, 0].astype(np.int64), ends[mine, 1].astype(np.int64), pool[others]]
        anchors, positives, negatives = (table[each] for each in rows)
        options = {
            "negatives": negatives, "anchor_ids": rows[0], "positive_ids": rows[1], "negative_ids": rows[2],
        }  # fmt: skip
        total, learned = 0.0, []
        sums: list[Any] = [None] * 3
        with shared_by(self.ranks, losses):
            for call, weight in losses:
                names = (*call.names, "negatives")
                value, g = call((anchors, positives), options, names)
                total += weight * value
                sums = [plus(each, weight, g[name]) for each, name in zip(sums, names, strict=True)]
                learned.append({name: weight * float(g[name]) for name in call.learnable})
        bounds = edges - edges[0], edges - edges[0], columns - columns[0]
        order = [
            (i, slice(int(each[s]), int(each[s + 1]))) for s in range(len(edges) - 1) for i, each in enumerate(bounds)
        ]
        return total, learned, *(np.concatenate([x[i][part] for i, part in order]) for x in (rows, sums))

    def _of_edges(self, ends: Ends, losses: list[Weighted]) -> Any:
        """The same of losses of single edges, whose means over segments are averaged."""
        values, nodes, grads = [], [], []
        for start, stop in itertools.pairwise(shares_of(len(ends), self.ranks).tolist()):
            share = (stop - start) / len(ends)
            scaled = [
                Weighted(call, weight * (share if call.loss.reduction == "mean" else 1.0)) for call, weight in losses
            ]
            found = self._of_ends(ends[start:stop], scaled)
            values.append([found.value, *(x for own in found.learned for x in own.values())])
            assert found.rows is not None
            nodes.append(found.rows["weight"].copy())
            grads.append(found.grads["weight"].copy())
        counts = np.full(self.ranks.size, len(values))
        totals = iter(self.ranks.gathered(np.array(values), counts).sum(axis=0).tolist())
        value = next(totals)
        learned = [{name: next(totals) for name in own} for own in found.learned]
        return value, learned, np.concatenate(nodes), np.concatenate(grads)

    def metrics(self, names: tuple[str, ...]) -> dict[str, float]:
        """As `GraphTask`: the ranks rank nodes in parts."""
        assert self.validation is not None
        known, held = self.edges, self.validation

        def by_parts(count: int, function: Callable[[slice], Any]) -> Any:
            return of_all_ranks(self.ranks, count, function)

        return {name: metrics.evaluate_links(self.table.weight, held, known, name, by_parts) for name in names}
