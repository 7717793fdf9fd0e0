"""The arguments of contrastive losses whose batch is that of several ranks: `comm` of the losses."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain._engine._precision import get_float32_precision
from rvtrain.distributed._batch import GlobalBatch
from rvtrain.distributed._ranks import Ranks
from rvtrain.losses._arguments import Pairs, parse


def parse_shared(
    ranks: Ranks, loss: Any, given: tuple[Any, ...], names: tuple[str, ...], options: Mapping[str, Any]
) -> Pairs:
    """The checked arguments of this rank, with the global batch, after a check that those of all ranks agree.

    given are the arguments of `parse`, names those of `wrt`; options are values that all ranks must give or none.
    """
    with ranks.together():
        pairs = parse(*given)
        if pairs.single:
            raise ValueError(f"anchors must have shape (B, d) with comm, got {np.shape(given[0])}")
        if pairs.indices is not None:
            raise ValueError(
                "negative_indices is not available with comm: give each anchor its own negatives (B, N, d)"
            )
    pool = pairs.negatives is not None and pairs.negatives.ndim == 2
    facts = {
        "loss": described(loss),
        "dtype of the arrays": pairs.anchors.dtype,
        "float32 precision": get_float32_precision(),
        "number of columns": pairs.anchors.shape[1],
        "form of negatives": "in-batch" if pairs.negatives is None else "(N, d)" if pool else "(B, N, d)",
        "number of ids of a row": pairs.row_ids.shape[1],
        "number of ids of a negative": pairs.column_ids.shape[-1],
        "wrt": names,
        **{name: presence(value) for name, value in options.items()},
    }
    counts = ranks.agree(facts, (len(pairs.anchors), len(pairs.negatives) if pool else 0))  # type: ignore[arg-type]
    return dataclasses.replace(pairs, batch=GlobalBatch(ranks, counts[:, 0].copy(), counts[:, 1].copy()))


def described(loss: Any) -> str:
    """The class of a loss with its parameters, if its text has them."""
    text = repr(loss)
    return type(loss).__name__ if " object at 0x" in text else text


def presence(value: Any) -> str:
    """What the ranks compare of an array that need not be given."""
    return "None" if value is None else "given"


def shared_weights(batch: GlobalBatch, sample_weight: Any, reduction: str) -> tuple[np.ndarray, np.ndarray | None]:
    """As `row_weights`, over the global batch: (weight of each row of this rank, factors of all ranks' losses)."""
    mine, count, total = batch.mine, int(batch.rows[batch.ranks.rank]), int(batch.rows.sum())
    if sample_weight is None:
        return np.full(count, 1.0 / total if reduction == "mean" else 1.0), None
    with batch.ranks.together():
        given = np.atleast_1d(check.any_float_array("sample_weight", sample_weight)).astype(np.float64)
        check.same_shape("sample_weight", given, "the batch", (count,))
        check.finite("sample_weight", given)
        if given.min() < 0.0:
            raise ValueError(f"sample_weight must be at least 0, got a minimum of {given.min():g}")
    everyones = batch.whole(given)
    if not everyones.any():
        raise ValueError("sample_weight must not be 0 on all rows of all ranks")
    weights = everyones / everyones.sum() if reduction == "mean" else everyones
    return weights[mine], weights


def shared_value(
    losses: np.ndarray, batch: GlobalBatch, reduction: str, weights: np.ndarray | None, dtype: np.dtype
) -> Any:
    """As `reduced`, over the global batch; "none" returns the losses of this rank's rows."""
    if reduction == "none":
        return (losses if weights is None else losses * weights[batch.mine]).astype(dtype)
    everyones = batch.whole(losses)
    if weights is not None:
        return float((everyones * weights).sum())
    total = float(everyones.sum())
    return total / len(everyones) if reduction == "mean" else total


def together(pairs: Pairs) -> Any:
    """A context for work that may raise on some ranks, after which all raise; without ranks it does nothing."""
    return contextlib.nullcontext() if pairs.batch is None else pairs.batch.ranks.together()
