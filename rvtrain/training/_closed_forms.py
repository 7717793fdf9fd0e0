"""Linear maps that need no training: each is the solution of a least-squares problem or an eigenvalue problem.

All sums are made in float64, of blocks of rows, so that a table may be float16 or larger than memory. Where columns
are centred, rows are taken relative to the mean of the first block and the sums corrected at the end: one pass over
the table, without the cancellation that raw sums of squares suffer.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check
from rvtrain._errors import NotFiniteError
from rvtrain.training._models import BLOCK_ROWS

Matrix = NDArray[np.float64]


def procrustes(source: ArrayLike, target: ArrayLike, bias: bool) -> tuple[Matrix, Matrix | None]:
    """W = U Vᵀ, from the singular value decomposition of Σ xᵀy; and the bias."""
    tables = _pair(source, target)
    means, cross = _moments(tables, (0, 1), bias)
    left, _, right = np.linalg.svd(cross, full_matrices=False)
    weight: Matrix = left @ right
    return weight, means[1] - means[0] @ weight if bias else None


def ridge(source: ArrayLike, target: ArrayLike, alpha: float, bias: bool) -> tuple[Matrix, Matrix | None]:
    """W = (Σ xᵀx + αI)⁻¹ Σ xᵀy; and the bias."""
    alpha = check.number("alpha", alpha, low=0.0)
    tables = _pair(source, target)
    means, both = _moments(tables, (0, None), bias)
    width = tables["source"].shape[1]
    gram, cross = both[:, :width] + alpha * np.eye(width), both[:, width:]
    try:
        pivots = np.diagonal(np.linalg.cholesky(gram)) ** 2
    except np.linalg.LinAlgError:
        pivots = np.zeros(1)
    if pivots.min() <= width * np.finfo(np.float64).eps * pivots.max():
        raise ValueError(f"alpha must be larger where columns of source depend linearly on each other, got {alpha:g}")
    weight: Matrix = np.linalg.solve(gram, cross).astype(np.float64, copy=False)
    return weight, means[1] - means[0] @ weight if bias else None


def principal(
    x: ArrayLike, out_features: int | None, bias: bool, whiten: bool, eps: float
) -> tuple[Matrix, Matrix | None]:
    """The first eigenvectors of the covariance as columns, divided by √(variance + eps) if `whiten`; and the bias."""
    table = check.stored_array("x", x, 2)
    high, width = table.shape
    count = check.integer("out_features", width if out_features is None else out_features, low=1, high=width)
    eps = check.number("eps", eps, low=0.0)
    if bias and high < 2:
        raise ValueError(f"x must have at least two rows, got shape {table.shape}")
    means, scatter = _moments({"x": table}, (0, 0), bias)
    variances, vectors = np.linalg.eigh(scatter / (high - 1 if bias else high))
    variances, weight = variances[::-1][:count], vectors[:, ::-1][:, :count]
    largest = np.argmax(np.abs(weight), axis=0)
    weight = weight * np.where(np.take_along_axis(weight, largest[np.newaxis], axis=0) < 0, -1.0, 1.0)
    if whiten:
        spread, rounding = variances + eps, width * np.finfo(np.float64).eps
        varied = int((spread > max(rounding * spread[0], (rounding * np.abs(means[0]).max()) ** 2)).sum())
        if varied < count:
            raise ValueError(
                f"out_features must be at most {varied} where x varies in so many directions, got {count}; or set eps"
            )
        weight = weight / np.sqrt(spread)
    return weight, -(means[0] @ weight) if bias else None


def common_dtype(*tables: ArrayLike) -> np.dtype[Any]:
    """float32, or float64 where one of the tables needs it."""
    return np.result_type(*(check.computed_dtype("x", np.asarray(table)) for table in tables))


def _pair(source: ArrayLike, target: ArrayLike) -> dict[str, NDArray[Any]]:
    tables = {"source": check.stored_array("source", source, 2), "target": check.stored_array("target", target, 2)}
    high, other = (len(table) for table in tables.values())
    if high != other:
        raise ValueError(f"source and target must have the same number of rows, got {high} and {other}")
    return tables


def _moments(
    tables: dict[str, NDArray[Any]], of: tuple[int, int | None], centred: bool
) -> tuple[list[Matrix], Matrix]:
    """Means of the columns of each table, and Σ aᵀb of their rows, less their means if `centred`.

    `of` names the tables a and b by their place; None stands for all tables side by side.
    """
    high = len(next(iter(tables.values())))
    widths = [table.shape[1] for table in tables.values()]
    ends = np.cumsum([0, *widths])
    spans = [slice(0, ends[-1]) if one is None else slice(ends[one], ends[one + 1]) for one in of]
    shift, total = np.zeros(ends[-1]), np.zeros(ends[-1])
    sums = np.zeros((spans[0].stop - spans[0].start, spans[1].stop - spans[1].start))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, high, BLOCK_ROWS):
            parts = [_block(name, table, start) for name, table in tables.items()]
            rows = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
            if centred and not start:
                shift = rows.mean(axis=0)
            rows -= shift
            total += rows.sum(axis=0)
            sums += rows[:, spans[0]].T @ rows[:, spans[1]]
        mean = total / high
        if centred:
            sums -= high * np.outer(mean[spans[0]], mean[spans[1]])
    if not np.isfinite(sums).all():
        raise NotFiniteError(f"{' and '.join(tables)} must have squares whose sum is finite in float64")
    mean += shift
    return [mean[ends[place] : ends[place + 1]] for place in range(len(widths))], sums


def _block(name: str, table: NDArray[Any], start: int) -> Matrix:
    """Some rows in float64, a copy; all finite."""
    rows = table[start : start + BLOCK_ROWS].astype(np.float64)
    good = np.isfinite(rows).all(axis=1)
    if not good.all():
        row = start + int(np.argmin(good))
        raise NotFiniteError(f"{name} must be finite, got a NaN or an infinity in row {row}")
    return np.asarray(rows)
