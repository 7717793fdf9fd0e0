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
Ends = NDArray[np.int32]
"""The nodes of edges, and those drawn for them, −1 for none; (B, 2 + k)."""

_LARGE = 1e30
"""A bound of all gradients from which on their sums might not be finite."""


class Nodes:
    """The distinct nodes of a batch of edges and drawn nodes, and the places where each stands.

    The arrays are kept from batch to batch: to ask the system for new memory takes longer than a kernel.
    """

    def __init__(self, count: int) -> None:
        self._places, self._bits = np.zeros((count, 2), np.int32), np.zeros(-(-count // 64), np.uint64)
        self._starts, self._sizes = np.empty(kernels.KINDS + 1, np.int32), np.empty(2, np.int64)
        self._room: tuple[int, int] = (0, 0)

    def find(self, ends: Ends) -> Rows:
        """The distinct nodes of edges and drawn nodes (B, 2 + k), −1 for none; see `group_nodes` for their order."""
        (size, width), room = ends.shape, self._room
        if width != room[1] or size > room[0]:
            self._room, most = (size, width), size * width
            self._nodes = np.empty(most, np.int64)
            self._bounds, self._middles, self.owners = (np.empty(most + extra, np.int32) for extra in (1, 0, 0))
            self._local, self._slots = np.empty((2, size, width), np.int32)
        self.local, self.slots = self._local[:size], self._slots[:size]
        kernels.group_nodes.serial(
            ends, self._bits, self._places, self._starts, self._nodes, self._bounds, self._middles, self.local,
            self.slots, self.owners, self._sizes,
        )  # fmt: skip
        count, self.entries = map(int, self._sizes)
        self.bounds, self.middles, self.nodes = self._bounds[: count + 1], self._middles[:count], self._nodes[:count]
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

    def evaluate(self, loss: Any, weight: float, table: Floats, ends: Ends) -> tuple[float, bool]:
        """weight · loss, and whether it and its gradients are finite for sure. The nodes are those found last."""
        count, dim = len(ends), table.shape[1]
        shape, kind, nodes = (count, ends.shape[1] - 1), table.dtype, self._nodes
        is_softmax = isinstance(loss, InfoNCELoss)
        values, pairs = self._array("values", (2, count), np.float64), self._array("pairs", shape, kind)
        sources, to_source = self._array("sources", (count, dim), kind), self._array("to_source", (count, dim), kind)
        factors, own = (
            self._array(name, (size,), kind) for name, size in (("f", ends.size), ("h", ends.size * is_softmax))
        )
        self._outputs = sources, to_source, factors, own
        outputs = values, pairs, *self._outputs
        each = weight / count if loss.reduction == "mean" else weight
        self._work = work = 8 * pairs.size * dim
        batch, scores = (table, ends, nodes.slots), self._array("scores", shape, np.float64)
        # A margin leaves most drawn nodes without a gradient. Pairs find more held-back edges if these stay as they
        # are, triplets if the optimizer steps them too (eight seeds: AUC + .022 and + .005).
        self.idle = True
        if is_softmax:
            scratch, cosine = (scores, self._array("lengths", shape, np.float64)), loss.similarity == "cosine"
            losses.softmax_edges.sized(work)(count, *batch, cosine, loss.temperature, each, *scratch, *outputs)
        elif loss.form == "pairwise":
            self.idle = False
            far = weight / max(nodes.entries - 2 * count, 1) if loss.reduction == "mean" else weight
            losses.pairwise_edges.sized(work)(count, *batch, loss.margin, each, far, scores, *outputs)
        else:
            losses.edge_distances.sized(work)(count, table, ends, scores)
            groups = nodes.bounds, nodes.middles, nodes.local, nodes.owners
            losses.triplet_edges.sized(work)(count, *batch, loss.margin, each, scores, *groups, *outputs)
        value, bound = map(float, values.sum(axis=1))
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
        groups = nodes.nodes, nodes.bounds, nodes.middles, nodes.owners
        losses.step_nodes.sized(2 * self._work)(
            len(nodes.nodes), table, *groups, *self._outputs, out, self.idle, buffers, numbers
        )
