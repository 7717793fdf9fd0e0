"""Parameters of losses that are trained with the model: temperatures, scales and biases."""

import math
from collections.abc import Mapping
from typing import Any

from rvtrain.training._losses import LossCall

_BETAS = (0.9, 0.999)
_EPS = 1e-8
_LOWEST_TEMPERATURE = 0.01
"""As CLIP bounds the logit scale by 100."""


class LearnedParameters:
    r"""The parameters that losses name in ``learnable``, each with Adam's moments.

    A temperature is stepped as log(1/τ) and bounded by τ ≥ 0.01, and a scale as its logarithm, as CLIP and SigLIP do.
    All others are stepped as they are.

    Parameters
    ----------
    calls : list of LossCall
    learning_rate : float
    """

    def __init__(self, calls: list[LossCall], learning_rate: float) -> None:
        self._calls, self.learning_rate = calls, learning_rate
        self._moments = [{name: [0.0, 0.0] for name in call.learnable} for call in calls]
        self._steps = 0

    def __bool__(self) -> bool:
        return any(self._moments)

    def step(self, gradients: list[dict[str, float]]) -> None:
        """One step of Adam, with the gradient of each parameter; of a gradient that is not finite, none."""
        self._steps += 1
        for call, moments, found in zip(self._calls, self._moments, gradients, strict=True):
            for name, moment in moments.items():
                value = float(getattr(call.owner, name))
                inner, slope = _inner(name, value)
                g = found.get(name, 0.0) * slope
                if not math.isfinite(g):
                    continue
                moment[0] += (1 - _BETAS[0]) * (g - moment[0])
                moment[1] += (1 - _BETAS[1]) * (g * g - moment[1])
                mean = moment[0] / (1 - _BETAS[0] ** self._steps)
                square = moment[1] / (1 - _BETAS[1] ** self._steps)
                setattr(
                    call.owner, name, _outer(name, inner - self.learning_rate * mean / (math.sqrt(square) + _EPS))
                )

    def values(self) -> list[dict[str, float]]:
        """The parameters of each loss, by name."""
        return [{name: float(getattr(call.owner, name)) for name in call.learnable} for call in self._calls]

    def put(self, values: list[dict[str, float]]) -> None:
        """Set the parameters of each loss."""
        for call, named in zip(self._calls, values, strict=True):
            for name, value in named.items():
                setattr(call.owner, name, value)

    def state_dict(self) -> dict[str, Any]:
        """Values, moments and the number of steps."""
        return {"steps": self._steps, "values": self.values(), "moments": [dict(m) for m in self._moments]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; ValueError if it is of other losses."""
        values, moments = list(state["values"]), list(state["moments"])
        if [set(v) for v in values] != [set(call.learnable) for call in self._calls]:
            raise ValueError(f"state must be of losses that learn {self.values()}, got {values}")
        self._steps = int(state["steps"])
        self._moments = [{name: [float(x) for x in pair] for name, pair in each.items()} for each in moments]
        self.put(values)


def _inner(name: str, value: float) -> tuple[float, float]:
    """The number that is stepped, and the derivative of the parameter by it."""
    if name == "temperature":
        return -math.log(value), -value
    return (math.log(value), value) if name == "scale" else (value, 1.0)


def _outer(name: str, inner: float) -> float:
    """The parameter of a number that was stepped."""
    if name == "temperature":
        return max(math.exp(-inner), _LOWEST_TEMPERATURE)
    return math.exp(inner) if name == "scale" else inner
