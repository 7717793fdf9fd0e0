"""What all optimizers share: state per array, whole steps and row steps, saving and loading."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.optimizers._arrays import Update, shapes_of, updates
from rvtrain.optimizers._clip import is_finite, squares
from rvtrain.optimizers._rows import summed_rows

LAZY = ("idle", "exact")


class Optimizer:
    """Base of the optimizers: a rule says what one step does to an element, this class does the rest.

    A rule provides `_buffers`, the names of its state arrays; `_constants`, the numbers of one step, which are
    all that a later catch-up needs to know of it; and `_dense` and `_rows`, its kernels.
    """

    _options: tuple[str, ...] = ()
    _buffers: tuple[str, ...] = ()
    _sign: int
    """Which of the constants the gradient is multiplied by."""

    def __init__(self, params: Any, lr: float, maximize: bool, lazy: str) -> None:
        self._shapes, self._single = shapes_of(params)
        self.learning_rate = lr
        self.maximize = check.flag("maximize", maximize)
        self.lazy = check.choice("lazy", lazy, LAZY)
        self._state: dict[str, dict[str, Any]] = {}

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step; set it to follow a schedule."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = check.number("lr", value, low=0.0)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._options)
        return f"{type(self).__name__}(lr={self.learning_rate:g}, {options})"

    def step(
        self, params: Any, grads: Any, rows: Any = None, *, max_norm: float | None = None, zero_grads: bool = False
    ) -> float | None:
        """Update the parameters in place by their gradients.

        Parameters
        ----------
        params : array or dict of arrays
            float32 or float64, of the shapes given to the constructor; changed in place.
        grads : array or dict of arrays
            Of the same shapes, or (len(rows), d) where rows are given.
        rows : integer array of shape (m,), or dict of these, optional
            Only these rows of a table (n, d) get a step; their gradients are `grads`, and repeated rows are
            summed first. In a dict, arrays without rows get a whole step.
        max_norm : float, optional
            Clip: the step is that of the gradients times min(1, max_norm / (norm + 1e-6)), their global norm being
            taken over all arrays, repeated rows summed. The gradients are read for it once, and not changed.
        zero_grads : bool
            Leave zeros in grads, written in the same pass.

        Returns
        -------
        float or None
            The norm before clipping, if `max_norm` is given.

        Raises
        ------
        TypeError
            If an array is not float32 or float64, or cannot be updated in place.
        ValueError
            If keys or shapes differ, params are read-only or share memory with grads, a gradient is not
            finite, or a row is out of range. Nothing has been changed then.
        """
        if max_norm is not None:
            max_norm = check.number("max_norm", max_norm, low=0.0, open_low=True)
        check.flag("zero_grads", zero_grads)
        parts = updates(self._shapes, self._single, params, grads, rows)
        total = 0.0
        for update in parts:
            if zero_grads:
                check.writeable_array(update.g_name, update.given)
            if max_norm is None and not is_finite(update.gradient):
                check.finite(update.g_name, update.gradient)
        sums = [None if u.rows is None or not len(u.rows) else summed_rows(u.gradient, u.rows) for u in parts]
        if max_norm is not None:
            for update, summed in zip(parts, sums, strict=True):
                total += squares(update.g_name, update.gradient if summed is None else summed[1])
        norm = math.sqrt(total)
        scale = 1.0 if max_norm is None else min(1.0, max_norm / (norm + 1e-6))
        states = [self._state_of(update) for update in parts]
        for update, state, summed in zip(parts, states, sums, strict=True):
            if update.rows is None:
                self._catch_up(update.values, state)
                constants = self._next_constants(state, scale)
                buffers = [state[name].reshape(-1) for name in self._buffers]
                self._dense(update.values.reshape(-1), update.gradient.reshape(-1), buffers, constants, zero_grads)
                if "touched" in state:
                    state["touched"][:] = state["step"]
            else:
                distinct, gradient = (update.rows, update.gradient) if summed is None else summed
                self._row_step(update.values, gradient, distinct, state, scale)
            update.write_back(zero_grads)
        return None if max_norm is None else norm

    def catch_up(self, params: Any) -> None:
        """Bring every row up to the last step, under ``lazy="exact"``: what idle rows still owe.

        A row step does so for its rows, and a whole step for all; call this before reading a table.

        Parameters
        ----------
        params : array or dict of arrays
            As in `step`; changed in place.
        """
        named = {name: params for name in self._shapes} if self._single else params
        for name, state in self._state.items():
            target = check.writeable_array(name, named[name])
            if target.shape != self._shapes[name]:
                raise ValueError(f"params must have shape {self._shapes[name]}, got {target.shape}")
            values = np.ascontiguousarray(target)
            self._catch_up(values, state)
            if values is not target:
                target[...] = values

    def _state_of(self, update: Update) -> dict[str, Any]:
        state = self._state.get(update.name)
        if state is None:
            state = {"step": 0} | {name: np.zeros_like(update.values) for name in self._buffers}
            self._state[update.name] = state
        elif self._buffers and state[self._buffers[0]].dtype != update.values.dtype:
            was = state[self._buffers[0]].dtype
            raise TypeError(f"params must keep the dtype of the first step, {was}, got {update.values.dtype}")
        return state

    def _next_constants(self, state: dict[str, Any], scale: float) -> np.ndarray:
        """The constants of the next step, gradients times `scale`; kept, where rows may have to catch up."""
        state["step"] += 1
        constants = self._constants(state["step"])
        constants[self._sign] *= scale
        if "history" in state:
            place = state["step"] - 1 - state["history_start"]
            if place == len(state["history"]):  # doubled, so that a step costs the same on average
                state["history"] = np.concatenate([state["history"], np.zeros((max(place, 8), len(constants)))])
            state["history"][place] = constants
        return constants

    def _row_step(
        self, table: np.ndarray, sums: np.ndarray, rows: np.ndarray, state: dict[str, Any], scale: float
    ) -> None:
        """A step of these distinct rows; under "exact" their idle steps first, as if they had been whole."""
        if self.lazy == "exact" and "touched" not in state:
            state["touched"] = np.full(len(table), state["step"])
            state["history"] = np.zeros((8, len(self._constants(1))))
            state["history_start"] = state["step"]
        constants = self._next_constants(state, scale)
        buffers = [state[name] for name in self._buffers]
        if "touched" in state:
            self._idle(table, rows, buffers, state, state["step"] - 1)
            state["touched"][rows] = state["step"]
        self._rows(table, sums, rows, buffers, constants)

    def _catch_up(self, table: np.ndarray, state: dict[str, Any]) -> None:
        if "touched" not in state:
            return
        rows = np.flatnonzero(state["touched"] < state["step"])
        if len(rows):
            self._idle(table, rows, [state[name] for name in self._buffers], state, state["step"])
        state["touched"][:] = state["step"]
        state["history_start"] = state["step"]  # nobody owes the steps before any more

    def _idle(
        self,
        table: np.ndarray,
        rows: np.ndarray,
        buffers: list[np.ndarray],
        state: dict[str, Any],
        until: int,
    ) -> None:
        """Give the rows the steps with zero gradient that they missed up to step `until`."""
        first = state["touched"][rows] - state["history_start"]
        history = state["history"][: until - state["history_start"]]
        self._missed(table, rows, buffers, first, history)

    def _constants(self, step: int) -> np.ndarray:
        """The numbers of this step, float64."""
        raise NotImplementedError

    def _dense(self, p: np.ndarray, g: np.ndarray, buffers: list[np.ndarray], c: np.ndarray, wipe: bool) -> None:
        raise NotImplementedError

    def _rows(
        self, table: np.ndarray, sums: np.ndarray, rows: np.ndarray, buffers: list[np.ndarray], c: np.ndarray
    ) -> None:
        raise NotImplementedError

    def _missed(
        self,
        table: np.ndarray,
        rows: np.ndarray,
        buffers: list[np.ndarray],
        first: np.ndarray,
        history: np.ndarray,
    ) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        """Forget all state, as if no step had been made; the learning rate stays."""
        self._state = {}

    def state_dict(self) -> dict[str, Any]:
        """Everything a run needs to go on: plain numbers, strings and copies of arrays."""
        return {
            "kind": type(self).__name__,
            "learning_rate": self.learning_rate,
            "options": {name: _plain(getattr(self, name)) for name in self._options},
            "state": {
                name: {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.items()}
                for name, state in self._state.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of an optimizer of this kind and these shapes.

        Parameters
        ----------
        state : dict
            As `state_dict` returned it; its options and learning rate are taken over too.

        Raises
        ------
        ValueError
            If it is of another kind, or its arrays do not fit; nothing has been changed then.
        """
        try:
            kind, rate = state["kind"], state["learning_rate"]
            options, arrays = dict(state["options"]), dict(state["state"])
            if kind != type(self).__name__:
                raise ValueError(f"state must be of {type(self).__name__}, got {kind!r}")
            if set(options) != set(self._options) or not set(arrays) <= set(self._shapes):
                raise ValueError("state must have this optimizer's options and arrays")
            loaded = {name: self._checked_state(name, arrays[name]) for name in arrays}
            shapes: Any = next(iter(self._shapes.values())) if self._single else self._shapes
            if "betas" in options:
                options["betas"] = tuple(options["betas"])
            make: Any = type(self)  # its constructor checks what the options may be
            twin = make(shapes, rate, **options)
        except (KeyError, TypeError) as error:
            raise ValueError(f"state must be a state_dict of {type(self).__name__}: {error!r}") from None
        for name in self._options:
            setattr(self, name, getattr(twin, name))
        self._buffers = twin._buffers
        self.learning_rate = rate
        self._state = loaded

    def _checked_state(self, name: str, stored: Mapping[str, Any]) -> dict[str, Any]:
        shape = self._shapes[name]
        state: dict[str, Any] = {}
        for key, value in stored.items():
            if key in ("step", "history_start"):
                state[key] = check.integer(f"state[{name!r}][{key!r}]", int(value), low=0)
            else:
                wanted = (shape[0],) if key == "touched" else None if key == "history" else shape
                array = np.array(value)
                if wanted is not None and array.shape != wanted:
                    raise ValueError(f"state[{name!r}][{key!r}] must have shape {wanted}, got {array.shape}")
                state[key] = array
        if "step" not in state or not set(self._buffers) <= set(state):
            raise ValueError(f"state[{name!r}] must have step and {self._buffers}, got {sorted(state)}")
        return state


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
