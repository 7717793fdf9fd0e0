"""Averaged weights."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike

from rvtrain import _validation as check
from rvtrain._kernels import in_order, kernel
from rvtrain.optimizers._arrays import Arrays, Floats, string_keys
from rvtrain.optimizers._saving import flatten

Average = TypeVar("Average")


class EMA(Generic[Average]):
    r"""Exponential moving average of parameters, with which retrieval is often better than with the parameters.

    .. math:: a \leftarrow a + (1 - β) (p - a)

    Parameters
    ----------
    params : array or dict of arrays
        float32 or float64; the average starts as a copy of them.
    decay : float
        β in [0, 1).

    Attributes
    ----------
    average : array or dict of arrays
        Of the parameters' shapes and dtypes; updated in place.

    References
    ----------
    Polyak & Juditsky (1992), Acceleration of stochastic approximation by averaging, SIAM J. Control Optim. 30(4).

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> ema = rt.EMA(np.array([1.0, 0.0]), decay=0.9)
    >>> ema.update(np.array([1.0, 1.0]))
    >>> ema.average.round(6)
    array([1. , 0.1])
    """

    average: Average

    @overload
    def __init__(self: "EMA[dict[str, Floats]]", params: Mapping[str, ArrayLike], decay: float = 0.999) -> None: ...

    @overload
    def __init__(self: "EMA[Floats]", params: ArrayLike, decay: float = 0.999) -> None: ...

    def __init__(self, params: Arrays, decay: float = 0.999) -> None:
        self.decay = check.number("decay", decay, low=0.0, high=1.0, open_high=True)
        self.average = _copies("params", params)

    def __repr__(self) -> str:
        return f"EMA(decay={self.decay:g})"

    def update(self, params: Arrays) -> None:
        """Move the average towards the parameters, in one pass over memory.

        Parameters
        ----------
        params : array or dict of arrays
            Of the keys, shapes and dtypes that were given to the constructor.

        Raises
        ------
        TypeError, ValueError
            If keys, shapes or dtypes are others; the average is unchanged then.
        """
        mine, given = _named("params", self.average), _named("params", params)
        if set(given) != set(mine):
            raise ValueError(f"params must be {sorted(mine)}, got {sorted(given)}")
        values = {name: _fitting(name, given, average) for name, average in mine.items()}
        for name, p in values.items():
            move.sized(2 * p.size)(p.size, mine[name].reshape(-1), np.ascontiguousarray(p).reshape(-1), self.decay)

    def state_dict(self) -> dict[str, Any]:
        """The average and the decay: a flat dict of arrays and numbers, which ``np.savez`` saves."""
        return flatten({"decay": self.decay, "average": self.average})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict`; ValueError if it is of parameters with other keys, shapes or dtypes."""
        mine = flatten({"average": self.average})
        if not isinstance(state, Mapping) or set(state) != {"decay", *mine}:
            raise ValueError(f"state must have the keys {['decay', *mine]}")
        decay = check.number("state['decay']", state["decay"], low=0.0, high=1.0, open_high=True)
        loaded = {name: np.array(_fitting(name, dict(state), average)) for name, average in mine.items()}
        self.decay = decay
        average: Any = loaded.get("average")
        if isinstance(self.average, Mapping):
            average = {name: loaded[f"average/{name}"] for name in self.average}
        self.average = average


def _named(argument: str, value: Any) -> dict[str, Any]:
    return {f"{argument}[{k!r}]": v for k, v in value.items()} if isinstance(value, Mapping) else {argument: value}


def _copies(argument: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        string_keys(argument, value)
        return {k: np.array(check.any_float_array(f"{argument}[{k!r}]", v), order="C") for k, v in value.items()}
    return np.array(check.any_float_array(argument, value), order="C")


def _fitting(name: str, values: dict[str, Any], average: np.ndarray) -> np.ndarray:
    array = check.any_float_array(name, values[name])
    if array.shape != average.shape or array.dtype != average.dtype:
        raise ValueError(
            f"{name} must have shape {average.shape} and dtype {average.dtype}, got {array.shape} and {array.dtype}"
        )
    return array


@kernel
def move(start, stop, average, p, decay):
    """average ← average + (1 − decay) (p − average); both (n,), the range is that of their elements.

    The sum starts from the one of the two that has the larger weight. In the form decay · average + (1 − decay) · p
    the two weights, each rounded, would not add to 1, and the average of a constant would drift.
    """
    old, new = average.dtype.type(decay), average.dtype.type(1.0 - decay)
    average, p = average[start:stop], p[start:stop]
    if decay > 0.5:
        for i in range(len(p)):
            average[i] = _between(average[i], p[i], new)
    else:
        for i in range(len(p)):
            average[i] = _between(p[i], average[i], old)


@in_order
def _between(x, y, part):
    """x + part · (y − x), which is x where y = x."""
    return x + part * (y - x)
