"""Windows of score and rank outside of which a candidate is no negative: against false negatives."""

import enum
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rvtrain import _validation as check
from rvtrain.mining._strategy import MiningStrategy

SAMPLING = ("top", "random")
RELATIVE = ("absolute_margin", "relative_margin")
"""The filters that are relative to the positive's score."""

Floats = NDArray[np.floating]


class _Kept(enum.Enum):
    KEPT = "the miner's"

    def __repr__(self) -> str:
        return self.value


Kept = Literal[_Kept.KEPT]
KEPT: Kept = _Kept.KEPT
"""The default of the filters of a call: the filter of the miner counts."""


class Filters(NamedTuple):
    """The filters of a miner or of a call; None: no such filter."""

    range_min: int = 0
    range_max: int | None = None
    min_score: float | None = None
    max_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    sampling: str = "top"

    def replaced(self, **given: Any) -> "Filters":
        """These filters, but the given ones that are not KEPT in their place, checked."""
        others = {name: value for name, value in given.items() if value is not KEPT}
        if not others:
            return self
        new = self._replace(**others)
        range_min = check.integer("range_min", new.range_min, low=0)
        range_max = new.range_max
        if range_max is not None:
            range_max = check.integer("range_max", range_max, low=range_min + 1)
        scores = {name: _score(name, getattr(new, name)) for name in ("min_score", "max_score", *RELATIVE)}
        sampling = check.choice("sampling", new.sampling, SAMPLING)
        return Filters(range_min, range_max, **scores, sampling=sampling)

    def check_use(self, strategy: MiningStrategy, rescore: Any) -> None:
        """Refuse filters that do not go with this strategy, and what cannot rescore."""
        if rescore is not None and not callable(rescore):
            raise TypeError(f"rescore must be callable, got {rescore!r}")
        if rescore is None and self.range_max is not None and strategy.draws:
            raise ValueError(f"range_max is for hardest and semi_hard, got {strategy.value}")

    @property
    def relative(self) -> list[str]:
        """The names of the filters in use that are relative to the positive's score."""
        return [name for name in RELATIVE if getattr(self, name) is not None]

    def caps(self, own: NDArray[np.float64] | None, rows: int) -> dict[str, NDArray[np.float64]]:
        """The highest score (B,) that each filter lets pass; `own` are the scores of the positives (B,)."""
        caps = {} if self.max_score is None else {"max_score": np.full(rows, self.max_score)}
        if own is not None and self.absolute_margin is not None:
            caps["absolute_margin"] = own - self.absolute_margin
        if own is not None and self.relative_margin is not None:
            caps["relative_margin"] = own - abs(own) * self.relative_margin
        return caps

    def window(self, own: NDArray[np.float64] | None, rows: int, dtype: np.dtype) -> tuple[Floats, Floats]:
        """(floors, ceilings) of `dtype`: a score passes if and only if it lies strictly between them."""
        low = np.full(rows, -np.inf, dtype)
        if self.min_score is not None:
            low = at_least(np.full(rows, self.min_score), dtype)
        high = np.full(rows, np.inf, dtype)
        for cap in self.caps(own, rows).values():
            high = np.minimum(high, at_most(cap, dtype))
        return low, high


def _score(name: str, value: Any) -> float | None:
    return None if value is None else check.number(name, value)


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
