"""Steps of rows by a kernel of the caller's, which computes the gradient of each row just before its step."""

from typing import Any

import numpy as np

from rvtrain.optimizers._array_rule import Rule
from rvtrain.optimizers._base import Optimizer


class OwnRows:
    """The steps of rows of one table by an optimizer, where all that a step does is to apply `element` to these rows.

    The kernel has the numbers of `begin` as the first argument of `element`, and reads and writes `buffers`.
    """

    def __init__(self, optimizer: Any, name: str, table: np.ndarray) -> None:
        self._optimizer, self._name, self._table = optimizer, name, table
        self.buffers: tuple[np.ndarray, ...] = ()

    @property
    def can_step(self) -> bool:
        """Whether `begin` may be called: if not, ``optimizer.step`` has to make the step.

        It has to where it does more than apply `element` (an optimizer or a rule with methods of its own, rows that
        owe steps, state in 16 or 8 bits), and where it raises an error.
        """
        optimizer, name, table = self._optimizer, self._name, self._table
        if not isinstance(optimizer, Optimizer) or getattr(optimizer.step, "__func__", None) is not Optimizer.step:
            return False
        rule = optimizer._rule
        if any(getattr(type(rule), method) is not getattr(Rule, method) for method in ("update", "step_rows")):
            return False
        if list(optimizer._shapes) != [name] or optimizer._single or optimizer._shapes[name] != table.shape:
            return False
        if type(table) is not np.ndarray or not table.flags.carray or table.dtype not in (np.float32, np.float64):
            return False
        options, state = optimizer._options_of(name), optimizer._state.get(name, {})
        if options.lazy != "idle" or "touched" in state or (options.state_dtype != "float32" and rule.names(options)):
            return False
        was = rule.dtype(options, state) if state else None
        return was is None or was == table.dtype

    def begin(self) -> Any:
        """The numbers of the next step, which counts as made; sets `buffers`."""
        optimizer, name = self._optimizer, self._name
        optimizer._check_mode()
        options, state = optimizer._options_of(name), optimizer._state.get(name)
        if state is None:
            state = optimizer._rule.new_state(options, self._table)
        if options is not optimizer:
            options._look_up(state["step"] + 1)
        optimizer._state[name] = state
        self.buffers = tuple(state[buffer] for buffer in optimizer._rule.names(options))
        return optimizer._rule.next_numbers(options, state, 1.0)
