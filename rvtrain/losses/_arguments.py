"""Checks of the arguments of contrastive losses, and their common form."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rvtrain import _validation as check
from rvtrain.distributed._batch import GlobalBatch

REDUCTIONS = ("mean", "sum", "none")


class Excluded(NamedTuple):
    """The rows of a pool that are no negatives of each anchor, given in place of `negative_ids`.

    Losses take them for which pairs that share an id are no terms, and not positives, as in `SigmoidLoss`.

    Ids of several kinds for each row of a pool, (N, c), have to be as many for all as for the one that has most.
    """

    bounds: np.ndarray
    """(B + 1,) int64"""
    columns: np.ndarray
    """(E,) int32: columns[bounds[i] : bounds[i + 1]], distinct, are no negatives of anchor i."""


@dataclass(frozen=True)
class Pairs:
    """The checked arguments of a contrastive loss: arrays C-contiguous and of one dtype.

    ========== ===================== ==================== ====================== ==================
    negatives  in-batch              shared pool          own                    gathered
    ========== ===================== ==================== ====================== ==================
    negatives  None                  (N, d)               (B, N, d)              (M, d)
    indices    None                  None                 None                   (B, k), −1 = none
    column_ids (B, c)                (N, c)               (B, N, c)              (M, c)
    ========== ===================== ==================== ====================== ==================

    Column j is not a negative of row i if any of ``row_ids[i]`` (B, r) equals any of the column's ids; r and c are 0
    if no ids were given.
    """

    anchors: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray | None
    indices: np.ndarray | None
    row_ids: np.ndarray
    column_ids: np.ndarray
    single: bool
    """Whether the caller gave one anchor of shape (d,), which is stored as a batch of one."""
    batch: GlobalBatch | None = None
    """The batch of all ranks, if the loss has a communicator."""
    excluded: Excluded | None = None

    def restore(self, name: str, gradient: np.ndarray) -> np.ndarray:
        """The gradient in the shape of the input that the caller gave."""
        batched = name != "negatives" or gradient.ndim == 3
        return gradient[0] if self.single and batched else gradient


def parse(
    anchors: Any,
    positives: Any,
    negatives: Any = None,
    negative_indices: Any = None,
    anchor_ids: Any = None,
    positive_ids: Any = None,
    negative_ids: Any = None,
) -> Pairs:
    """Check the arguments that `InfoNCELoss` and `LocalContrastiveLoss` share; `compute` documents their shapes."""
    a = check.float_array("anchors", anchors, (1, 2))
    p = check.float_array("positives", positives, a.ndim)
    check.same_shape("positives", p, "anchors", a.shape)
    single = a.ndim == 1
    if single:
        a, p = a[np.newaxis], p[np.newaxis]
    n, indices = _negatives(negatives, negative_indices, a, single)
    if n is None:
        a, p = check.promoted(a, p)
    else:
        a, p, n = check.promoted(a, p, n)
    batch = len(a)
    row_ids = np.empty((batch, 0), np.int64)
    if anchor_ids is not None or positive_ids is not None:
        both = ("anchor_ids", anchor_ids), ("positive_ids", positive_ids)
        row_ids = np.stack([_ids(name, ids, (batch,), single) for name, ids in both if ids is not None], axis=-1)
    column_ids = _column_ids(negative_ids, n, indices, row_ids, single)
    excluded = negative_ids if isinstance(negative_ids, Excluded) else None
    return Pairs(a, p, n, indices, row_ids, column_ids, single, excluded=excluded)


def _negatives(
    negatives: Any, negative_indices: Any, anchors: np.ndarray, single: bool
) -> tuple[np.ndarray | None, np.ndarray | None]:
    batch, dim = anchors.shape
    if negatives is None:
        if negative_indices is not None:
            raise ValueError("negative_indices needs negatives, the pool that it indexes, got negatives=None")
        return None, None
    dims = (2,) if single or negative_indices is not None else (2, 3)
    n = check.float_array("negatives", negatives, dims)
    if n.shape[-1] != dim:
        raise ValueError(f"negatives must have {dim} columns like anchors, got shape {n.shape}")
    if negative_indices is not None:
        shape = (None,) if single else (batch, None)
        indices = check.indices("negative_indices", negative_indices, shape, len(n), missing=True)
        return n, np.atleast_2d(indices)
    if single:
        n = n[np.newaxis]
    elif n.ndim == 3 and len(n) != batch:
        raise ValueError(f"negatives must have shape ({batch}, N, {dim}) or (N, {dim}), got {n.shape}")
    return n, None


def _column_ids(
    negative_ids: Any,
    negatives: np.ndarray | None,
    indices: np.ndarray | None,
    row_ids: np.ndarray,
    single: bool,
) -> np.ndarray:
    if negatives is None:
        if negative_ids is not None:
            raise ValueError("negative_ids needs negatives, got negatives=None")
        return row_ids
    if negative_ids is None or isinstance(negative_ids, Excluded):
        return np.empty((*negatives.shape[:-1], 0), np.int64)
    if row_ids.shape[1] == 0:
        raise ValueError("negative_ids needs anchor_ids or positive_ids to compare with, got neither")
    own = negatives.ndim == 3
    if not own and np.ndim(negative_ids) == 2:
        return check.integer_array("negative_ids", negative_ids, (len(negatives), None))
    ids = _ids("negative_ids", negative_ids, negatives.shape[:-1], single and own)
    return ids[..., np.newaxis]


def _ids(name: str, ids: Any, shape: tuple[int, ...], single: bool) -> np.ndarray:
    if single and np.ndim(ids) == len(shape) - 1:
        ids = np.asarray(ids)[np.newaxis]
    return check.integer_array(name, ids, shape)


def parse_wrt(wrt: Any, allowed: Collection[str]) -> tuple[str, ...]:
    """The names in `wrt`, a name or a tuple of names, like ``argnums`` of ``jax.grad``."""
    names = (wrt,) if isinstance(wrt, str) else wrt
    if not isinstance(names, (tuple, list)) or not names or len(set(map(str, names))) != len(names):
        raise ValueError(f"wrt must be a name or a tuple of distinct names, got {wrt!r}")
    for name in names:
        check.choice("wrt", name, allowed)
    return tuple(names)


def like_wrt(wrt: Any, gradients: dict[str, Any]) -> Any:
    """The gradients in the form of `wrt`: a single one for a name, a tuple for a tuple."""
    return gradients[wrt] if isinstance(wrt, str) else tuple(gradients[name] for name in wrt)


def row_weights(sample_weight: Any, batch: int, reduction: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(weight of each row's loss in the total, factors of the rows' losses in `reduced`); None if all are equal."""
    if sample_weight is None:
        equal = np.empty(batch)
        equal.fill(1.0 / batch if reduction == "mean" else 1.0)
        return equal, None
    given = np.atleast_1d(check.any_float_array("sample_weight", sample_weight)).astype(np.float64)
    check.same_shape("sample_weight", given, "the batch", (batch,))
    check.finite("sample_weight", given)
    if given.min() < 0.0 or not given.any():
        raise ValueError(f"sample_weight must be at least 0, and not all 0, got a minimum of {given.min():g}")
    weights = given / given.sum() if reduction == "mean" else given
    return weights, weights


def reduced(losses: np.ndarray, reduction: str, pairs: Pairs, weights: np.ndarray | None = None) -> Any:
    """Reduce float64 losses of the anchors by mean or sum; "none" returns them in the dtype of the inputs."""
    if weights is not None:
        losses = losses * weights
    if reduction == "none":
        values = losses.astype(pairs.anchors.dtype)
        return values[0] if pairs.single else values
    total = float(losses.sum())
    return total / len(losses) if reduction == "mean" and weights is None else total


def inverse_index(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(order, bounds, named): row named[r] of a pool is at the flat positions order[bounds[r]: bounds[r + 1]].

    The positions of a row ascend, so that sums over them have a fixed order. Indices −1 are left out.
    """
    flat = indices.ravel()
    order = np.argsort(flat, kind="stable")[np.count_nonzero(flat < 0) :]
    named, first = np.unique(flat[order], return_index=True)
    return order, np.append(first, len(order)), named
