"""Losses of a batch of edges in kernels: `EdgeLosses`, for the losses that have one."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvtrain.losses import InfoNCELoss, LocalContrastiveLoss
from rvtrain.losses._infonce_directions import DIRECTIONS
from rvtrain.optimizers._own_rows import OwnRows
from rvtrain.training import _graph_kernels as kernels
from rvtrain.training import _graph_loss_kernels as losses
from rvtrain.training._losses import Weighted
from rvtrain.training._models import Floats

Rows = NDArray[np.int64]

_LARGE = 1e30
"""A bound of all gradients from which on their sums might not be finite."""


class Nodes:
    """The distinct nodes of a batch of edges and drawn nodes, and the places where each stands.

    The arrays are kept from batch to batch: to ask the system for new memory takes longer than a kernel.
    """

    def __init__(self, count: int) -> None:
        self._place, self._bits = np.empty(count, np.int32), np.zeros(-(-count // 64), np.uint64)
        self._room: tuple[int, int] = (0, 0)

    def find(self, edges: Rows, negatives: NDArray[np.int32]) -> Rows:
        """The distinct nodes of edges (B, 2) and negatives (B, k), −1 for none, ascending."""
        size, width = len(edges), negatives.shape[1] + 2
        if width != self._room[1] or size > self._room[0]:
            self._room, most = (size, width), size * width
            self._nodes, self._bounds = np.empty(most, np.int64), np.empty(most + 2, np.int32)
            self._local = np.empty((size, width), np.int32)
            self.owners, self.columns = np.empty((2, most), np.int32)
        self.local = self._local[:size]
        sizes = np.empty(1, np.int64)
        kernels.group_nodes.serial(
            edges,
            negatives,
            self._bits,
            self._place,
            self._nodes,
            self._bounds,
            self.local,
            self.owners,
            self.columns,
            sizes,
        )
        count = int(sizes[0])
        self.bounds, self.nodes = self._bounds[: count + 1], self._nodes[:count]
        return self.nodes


def has_kernel(weighted: list[Weighted], shared: bool) -> bool:
    """Whether there is one loss alone, and it has a kernel of edges."""
    if len(weighted) != 1:
        return False
    loss: Any = weighted[0].call.loss
    if type(loss) is LocalContrastiveLoss:
        return loss.reduction != "none"
    return (
        type(loss) is InfoNCELoss and not shared and loss.reduction != "none" and loss.similarity in ("cosine", "dot")
        and not loss.symmetric and loss.directions == DIRECTIONS[:1] and loss.margin == 0 and loss.hardness == 0
        and loss.false_negative_margin is None and not loss.learn_temperature
    )  # fmt: skip


class EdgeLosses:
    """The value of a loss over edges and drawn nodes, its gradients to the nodes of a batch, and their steps.

    Arrays that methods return are overwritten by the next call.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._kept: dict[str, NDArray[Any]] = {}
        self._work = 0
        self.idle = True
        """Whether rows without a gradient are stepped too."""

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An uninitialised array, in memory that is kept from batch to batch."""
        size = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.size < size or kept.dtype != dtype:
            kept = self._kept[name] = np.empty(size, dtype)
        return kept[:size].reshape(shape)

    def evaluate(
        self, loss: Any, weight: float, table: Floats, edges: Rows, negatives: NDArray[np.int32]
    ) -> tuple[float, bool]:
        """weight · loss, and whether it and its gradients are finite for sure. The nodes are those found last."""
        count, dim = len(edges), table.shape[1]
        pairs, kind, nodes = (count, 1 + negatives.shape[1]), table.dtype, self._nodes
        values = self._array("values", (count, 2), np.float64)
        sources, to_source = self._array("sources", (count, dim), kind), self._array("to_source", (count, dim), kind)
        own, other = self._array("own", pairs, kind), self._array("other", pairs, kind)
        self._outputs = outputs = sources, to_source, own, other
        each = weight / count if loss.reduction == "mean" else weight
        self._work = work = 8 * own.size * dim
        batch, scores = (table, edges, negatives), self._array("scores", pairs, np.float64)
        # A margin leaves most drawn nodes without a gradient. Pairs find more held-back edges if these stay as they
        # are, triplets if the optimizer steps them too (eight seeds: AUC + .022 and + .005).
        self.idle = True
        if isinstance(loss, InfoNCELoss):
            scratch, cosine = (scores, self._array("lengths", pairs, np.float64)), loss.similarity == "cosine"
            losses.softmax_edges.sized(work)(
                count, *batch, cosine, loss.temperature, each, *scratch, values, *outputs
            )
        elif loss.form == "pairwise":
            self.idle = False
            far = weight / max(int(np.count_nonzero(negatives >= 0)), 1) if loss.reduction == "mean" else weight
            losses.pairwise_edges.sized(work)(count, *batch, loss.margin, each, far, values, *outputs)
        else:
            losses.edge_distances.sized(work)(count, *batch, scores)
            groups = nodes.bounds, nodes.local, nodes.owners, nodes.columns
            losses.triplet_edges.sized(work)(count, *batch, loss.margin, each, scores, *groups, values, *outputs)
        value, bound = map(float, values.sum(axis=0))
        return value, math.isfinite(value) and bound < _LARGE

    def gradients(self, table: Floats) -> Floats:
        """The gradients of the last evaluation to its nodes."""
        grads = self._array("grads", (len(self._nodes.nodes), table.shape[1]), table.dtype)
        self._run(table, grads, (), None)
        return grads

    def step(self, table: Floats, rows: OwnRows) -> None:
        """A step of the rows of its nodes."""
        numbers = rows.begin()
        self._run(table, table[:0], rows.buffers, numbers)

    def _run(self, table: Floats, out: Floats, buffers: tuple[Floats, ...], numbers: Any) -> None:
        nodes = self._nodes
        groups = nodes.nodes, nodes.bounds, nodes.owners, nodes.columns
        losses.step_nodes.sized(2 * self._work)(
            len(nodes.nodes), table, *groups, *self._outputs, out, self.idle, buffers, numbers
        )
