"""Losses of a batch of edges in kernels: `EdgeLosses`, for the losses that have one."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvtrain.losses import InfoNCELoss, LocalContrastiveLoss
from rvtrain.losses._infonce_directions import DIRECTIONS
from rvtrain.training import _graph_kernels as kernels
from rvtrain.training._losses import Weighted
from rvtrain.training._models import Floats

Rows = NDArray[np.int64]


class Nodes:
    """The distinct nodes of a batch of edges and drawn nodes, and the places where each stands.

    The arrays are kept from batch to batch: to ask the system for new memory takes longer than a kernel.
    """

    def __init__(self, count: int) -> None:
        self._place = np.full(count, -1, np.int32)
        self._room: tuple[int, int] = (0, 0)

    def find(self, edges: Rows, negatives: NDArray[np.int32], used: NDArray[Any] | None = None) -> Rows:
        """The distinct nodes of edges (B, 2) and negatives (B, k), −1 for none, without an order.

        Pairs whose used (B, 1 + k) is 0 are left out.
        """
        size, width = len(edges), negatives.shape[1] + 2
        if width != self._room[1] or size > self._room[0]:
            self._room, most = (size, width), size * width
            self._nodes, self._bounds = np.empty(most, np.int64), np.empty(most + 1, np.int32)
            self._local = np.empty((size, width), np.int32)
            self.owners, self.columns = np.empty((2, most), np.int32)
        if used is None:
            used = np.ones((size, width - 1), np.float32)
        self.local = self._local[:size]
        sizes = np.empty(1, np.int64)
        kernels.group_nodes.serial(
            edges,
            negatives,
            used,
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


def has_kernel(losses: list[Weighted], shared: bool) -> bool:
    """Whether there is one loss alone, and it has a kernel of edges."""
    if len(losses) != 1:
        return False
    loss: Any = losses[0].call.loss
    if type(loss) is LocalContrastiveLoss:
        return loss.reduction != "none"
    return (
        type(loss) is InfoNCELoss and not shared and loss.reduction != "none" and loss.similarity in ("cosine", "dot")
        and not loss.symmetric and loss.directions == DIRECTIONS[:1] and loss.margin == 0 and loss.hardness == 0
        and loss.false_negative_margin is None and not loss.learn_temperature
    )  # fmt: skip


class EdgeLosses:
    """The value of a loss over edges and drawn nodes, and its gradients to the distinct nodes of a batch."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[Any]] = {}

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An uninitialised array, in memory that is kept from batch to batch."""
        size = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.size < size or kept.dtype != dtype:
            kept = self._kept[name] = np.empty(size, dtype)
        return kept[:size].reshape(shape)

    def evaluate(
        self, loss: Any, weight: float, table: Floats, edges: Rows, negatives: NDArray[np.int32], nodes: Nodes
    ) -> tuple[float, Floats]:
        """weight · loss, and its gradient to those of the nodes that have one, `nodes.nodes` afterwards.

        Both arrays are overwritten by the next call.
        """
        count, dim = len(edges), table.shape[1]
        pairs, kind = (count, 1 + negatives.shape[1]), table.dtype
        values, to_source = self._array("values", (count,), np.float64), self._array("source", (count, dim), kind)
        own, other = self._array("own", pairs, kind), self._array("other", pairs, kind)
        outputs = values, to_source, own, other
        mean = loss.reduction == "mean"
        each = weight / count if mean else weight
        work = 8 * own.size * dim
        if isinstance(loss, InfoNCELoss):
            scratch = self._array("scores", pairs, np.float64), self._array("lengths", pairs, np.float64)
            kernels.softmax_edges.sized(work)(
                count,
                table,
                edges,
                negatives,
                loss.similarity == "cosine",
                loss.temperature,
                each,
                *scratch,
                *outputs,
            )
        elif loss.form == "pairwise":
            far = weight / max(int(np.count_nonzero(negatives >= 0)), 1) if mean else weight
            kernels.pairwise_edges.sized(work)(count, table, edges, negatives, loss.margin, each, far, *outputs)
        else:
            distances = self._array("scores", pairs, np.float64)
            kernels.edge_distances.sized(work)(count, table, edges, negatives, distances)
            nodes.find(edges[:, :1].repeat(2, axis=1), negatives[:, :0])
            groups = nodes.bounds, nodes.local, nodes.owners
            kernels.triplet_edges.sized(work)(
                count, table, edges, negatives, loss.margin, each, distances, *groups, *outputs
            )
        found = nodes.find(edges, negatives, other)
        grads = self._array("grads", (len(found), dim), kind)
        kernels.gather_nodes.sized(work)(
            len(found), table, edges, found, nodes.bounds, nodes.owners, nodes.columns, *outputs[1:], grads
        )
        return float(values.sum()), grads
