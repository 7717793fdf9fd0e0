"""Windows of score and rank outside of which a candidate is no negative: against false negatives."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rvtrain import _validation as check

SAMPLING = ("top", "random")

Floats = NDArray[np.floating]


class Filters(NamedTuple):
    """The filters of a call; None: no such filter."""

    range_min: int = 0
    range_max: int | None = None
    min_score: float | None = None
    max_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    sampling: str = "top"

    def window(self, own: NDArray[np.float64] | None, rows: int, dtype: np.dtype) -> tuple[Floats, Floats]:
        """(floors, ceilings) of `dtype`: a score passes if and only if it lies strictly between them.

        `own` are the scores of the positives (B,).
        """
        low = np.full(rows, -np.inf, dtype)
        if self.min_score is not None:
            low = at_least(np.full(rows, self.min_score), dtype)
        high = np.full(rows, np.inf, dtype)
        caps = [] if self.max_score is None else [np.full(rows, self.max_score)]
        if own is not None:
            if self.absolute_margin is not None:
                caps.append(own - self.absolute_margin)
            if self.relative_margin is not None:
                caps.append(own - abs(own) * self.relative_margin)
        for cap in caps:
            high = np.minimum(high, at_most(cap, dtype))
        return low, high


def parsed(
    range_min: Any, range_max: Any, min_score: Any, max_score: Any, absolute_margin: Any, relative_margin: Any,
    sampling: Any, positives: Any,
) -> Filters:  # fmt: skip
    """Check the filters of one call."""
    range_min = check.integer("range_min", range_min, low=0)
    if range_max is not None:
        range_max = check.integer("range_max", range_max, low=range_min + 1)
    return Filters(
        range_min,
        range_max,
        min_score=_bound("min_score", min_score),
        max_score=_bound("max_score", max_score),
        absolute_margin=_bound("absolute_margin", absolute_margin, positives),
        relative_margin=_bound("relative_margin", relative_margin, positives),
        sampling=check.choice("sampling", sampling, SAMPLING),
    )


def _bound(name: str, value: Any, positives: Any = ()) -> float | None:
    """A filter by score as a float; one that is relative to the positives needs them."""
    if value is None:
        return None
    if positives is None:
        raise ValueError(f"{name} is relative to the positive's score and needs positives, got None")
    return check.number(name, value)


@np.errstate(over="ignore")
def above(x: NDArray[np.float64], dtype: np.dtype) -> Floats:
    """The t of `dtype` such that s > t if and only if s > x, for all s of `dtype`: x rounded down."""
    t = x.astype(dtype)
    return np.where(t > x, np.nextafter(t, dtype.type(-np.inf)), t)


def below(x: NDArray[np.float64], dtype: np.dtype) -> Floats:
    """The t such that s < t if and only if s < x: x rounded up."""
    return -above(-x, dtype)


@np.errstate(over="ignore")
def at_least(x: NDArray[np.float64], dtype: np.dtype) -> Floats:
    """The t such that s > t if and only if s ≥ x."""
    return np.nextafter(below(x, dtype), dtype.type(-np.inf))


def at_most(x: NDArray[np.float64], dtype: np.dtype) -> Floats:
    """The t such that s < t if and only if s ≤ x."""
    return -at_least(-x, dtype)
