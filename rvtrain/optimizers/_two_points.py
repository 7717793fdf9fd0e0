"""The base of optimizers that take gradients at one point and are used at another."""

from typing import Any, ClassVar

import numpy as np

from rvtrain import _validation as check
from rvtrain.optimizers._array_rule import Rule, State
from rvtrain.optimizers._arrays import Arrays
from rvtrain.optimizers._base import Optimizer
from rvtrain.optimizers._ema import move
from rvtrain.optimizers._state import Layout


class RuleOfTwoPoints(Rule):
    """Steps of y = (1 − β₁) z + β₁ x, with a buffer "z"; the parameters are y, or x while "evaluating"."""

    def check(self, o: Any) -> None:
        check.number("betas[0]", o.betas[0], low=0.0, open_low=True)

    def layout(self, o: Any, shape: tuple[int, ...]) -> Layout:
        return super().layout(o, shape) | {"evaluating": ((), np.int64)}

    def new_state(self, o: Any, values: np.ndarray) -> State:
        return super().new_state(o, values) | {"z": values.copy()}

    def turn(self, o: Any, name: str, values: np.ndarray, state: State, rows: None) -> None:
        """Make y of x, or x of y = x + (1 − β₁) (z − x)."""
        decay = o.betas[0] if state["evaluating"] else 1.0 / o.betas[0]
        move.sized(2 * values.size)(values.size, values.reshape(-1), state["z"].reshape(-1), decay)
        state["evaluating"][...] = not state["evaluating"]


class TwoPoints(Optimizer):
    """An optimizer whose parameters are y in training, and x in use."""

    _rule: ClassVar[RuleOfTwoPoints]

    def eval(self, params: Arrays) -> None:
        """Make the parameters x, the average, for use; does nothing if they are."""
        self._become(params, True)

    def train(self, params: Arrays) -> None:
        """Make the parameters y again, for the next step; does nothing if they are."""
        self._become(params, False)

    def _become(self, params: Arrays, evaluating: bool) -> None:
        self.catch_up(params)
        self._change(params, None, lambda state: bool(state["evaluating"]) != evaluating, self._rule.turn)

    def _check_mode(self) -> None:
        if any(state["evaluating"] for state in self._state.values()):
            raise RuntimeError("call optimizer.train(params) before the next step: the parameters are those of eval")
