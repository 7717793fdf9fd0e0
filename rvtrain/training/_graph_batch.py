"""Losses of a batch of edges in kernels: `EdgeLosses`, for the losses that have one."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvtrain._kernels import thread_count
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

_GROUPING = 32
"""To group the nodes of some edges takes as long as to evaluate _GROUPING / d times as many."""
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

    def groups(self, ends: Ends) -> tuple[NDArray[Any], ...]:
        """The arguments of `group` behind `ends`, edges and drawn nodes (B, 2 + k), −1 for none.

        After that, `taken` has to be called.
        """
        (size, width), room = ends.shape, self._room
        if width != room[1] or size > room[0]:
            self._room, most = (size, width), size * width
            self._nodes, self.ranks = np.empty(most, np.int64), np.empty(size, np.int32)
            self._bounds = np.empty(most + 1, np.int32)
            self._middles, self.owners, self.entries = np.empty((3, most), np.int32)
        scratch = self._bits, self._places, self._starts
        lists = self._nodes, self._bounds, self._middles, self.owners, self.entries, self.ranks
        return *scratch, *lists, self._sizes

    def taken(self) -> Rows:
        """The distinct nodes that were found; see `group` for their order."""
        count = int(self._sizes[0])
        self.bounds, self.middles, self.nodes = self._bounds[: count + 1], self._middles[:count], self._nodes[:count]
        return self.nodes

    def find(self, ends: Ends) -> Rows:
        """The distinct nodes of edges and drawn nodes."""
        kernels.group_nodes.serial(ends, self.groups(ends))
        return self.taken()

    def local(self, ends: Ends) -> Rows:
        """The places in `nodes` of the edges and drawn nodes that were grouped last."""
        local, slots = np.full(ends.shape, -1), np.arange(self._sizes[1])
        is_pair = slots >= np.repeat(self.middles, np.diff(self.bounds))
        local[:, 0] = self.ranks[: len(ends)]
        at = np.repeat(np.arange(len(self.nodes)), np.diff(self.bounds))
        edge, pair = np.divmod(self.entries[: len(slots)][is_pair], ends.shape[1] - 1)
        local[edge, 1 + pair] = at[is_pair]
        return local


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

    `of_pool`: whether nodes are drawn from a pool, and not from all nodes.
    Arrays that methods return are overwritten by the next call.
    """

    def __init__(self, nodes: Nodes, of_pool: bool) -> None:
        self._nodes, self._of_pool = nodes, of_pool
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
        self, loss: Any, weight: float, table: Floats, ends: Ends, grouped: bool = False
    ) -> tuple[float, bool]:
        """weight · loss, and whether it and its gradients are finite for sure.

        Unless they are grouped already, the nodes are grouped meanwhile.
        """
        count, (width, dim), kind, nodes = len(ends), (ends.shape[1] - 1, table.shape[1]), table.dtype, self._nodes
        blocks, is_softmax = -(-count // losses.BLOCK), isinstance(loss, InfoNCELoss)
        values, pairs = self._array("values", (2, blocks), np.float64), self._array("pairs", (count * width,), kind)
        sources, to_source = self._array("sources", (count, dim), kind), self._array("to_source", (count, dim), kind)
        own = self._array("own", (count * width * is_softmax,), kind)
        self._outputs = sources, to_source, pairs, own
        each = weight / count if loss.reduction == "mean" else weight
        self._work = work = 8 * pairs.size * dim
        first = 0 if grouped else _parts(blocks, dim)
        fetched = 2 if self._of_pool else ends.shape[1]
        batch: tuple[Any, ...] = first, ends, nodes.groups(ends), fetched, table
        options: tuple[Any, ...]
        # A margin leaves most drawn nodes without a gradient. Pairs find more held-back edges if these stay as they
        # are, triplets if the optimizer steps them too (eight seeds: AUC + .022 and + .005).
        self.idle = True
        if is_softmax:
            scratch = self._array("scores", (2, count, width), np.float64)
            options = loss.similarity == "cosine", loss.temperature, each, *scratch, values
            losses.softmax_edges.sized(work)(first + blocks, *batch, *options, *self._outputs)
        elif loss.form == "pairwise":
            self.idle = False
            drawn = pairs.size - count - int(np.count_nonzero(ends < 0))
            far = weight / max(drawn, 1) if loss.reduction == "mean" else weight
            options = loss.margin, each, far, values
            losses.pairwise_edges.sized(work)(first + blocks, *batch, *options, *self._outputs[:3])
        else:
            distances = self._array("distances", (count, width), kind)
            losses.edge_distances.sized(work)(first + blocks, *batch, distances)
            options = loss.margin, each, distances, values
            losses.triplet_edges.sized(work)(blocks, *batch[1:3], table, *options, *self._outputs[:3])
        if not grouped:
            nodes.taken()
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
        groups = nodes.nodes, nodes.bounds, nodes.middles, nodes.owners, nodes.entries
        losses.step_nodes.sized(2 * self._work)(
            len(nodes.nodes), table, *groups, *self._outputs, out, self.idle, buffers, numbers
        )


def _parts(blocks: int, dim: int) -> int:
    """How many blocks of edges the first thread leaves to the others, because it groups the nodes before."""
    others = max(thread_count() - 1, 1)
    return max(1, min(_GROUPING * blocks // dim, -(-blocks // others)))
