"""The base of the optimizers: state of each array, dense steps and row steps, saving and loading."""

import math
from collections.abc import Mapping
from typing import Any, overload

import numpy as np

from rvtrain import _validation as check
from rvtrain.optimizers._arrays import Arrays, Params, Update, by_name, called, fitting, rows_of, shapes_of, updates
from rvtrain.optimizers._clip import is_finite, refuse, squares
from rvtrain.optimizers._rows import Gradient, Idle, by_row, whole
from rvtrain.optimizers._saving import flatten, nest, restored
from rvtrain.optimizers._state import STATE_DTYPES, new_state

LAZY = ("idle", "exact")
NONFINITE = ("raise", "skip", "ignore")
Groups = Mapping[str, Mapping[str, object]]
"""Options of single arrays, by the name of the array and of the option."""

_LONGEST = 4096
"""Steps of the history: when it is full, all rows are brought up to date, in one pass over the table."""


class Optimizer:
    """Base of the optimizers. A subclass is a rule for one element; this class does all the rest.

    A rule provides `_buffers`, the names of its state arrays, and `_positive`, those of them that are never negative;
    `_constants`, the numbers of one step, from which the step can be made up for later; and `_apply` and `_missed`,
    which call its kernels.
    """

    _options: tuple[str, ...] = ()
    _buffers: tuple[str, ...] = ()
    _positive: tuple[str, ...] = ()
    _sign: int
    """Index of the constant by which the gradient is multiplied."""

    def __init__(
        self,
        params: Params,
        lr: float,
        *,
        maximize: bool,
        lazy: str,
        state_dtype: str,
        nonfinite: str,
        groups: Groups | None,
    ) -> None:
        self._shapes, self._single = shapes_of(params)
        self.learning_rate = lr
        self.maximize = check.flag("maximize", maximize)
        self.lazy = check.choice("lazy", lazy, LAZY)
        self.state_dtype = check.choice("state_dtype", state_dtype, STATE_DTYPES)
        self.nonfinite = check.choice("nonfinite", nonfinite, NONFINITE)
        self.groups = {str(name): dict(options) for name, options in (groups or {}).items()}
        self.skipped = 0
        self._state: dict[str, dict[str, Any]] = {}
        self._rules: dict[str, Optimizer] = {}

    def _make_rules(self) -> None:
        """Build one rule for each entry of `groups`: an optimizer of which only the constants and kernels are used.

        Must be the last call of a subclass's ``__init__``, because it reads the options set there.
        """
        for name, options in self.groups.items():
            if self._single or name not in self._shapes:
                raise ValueError(f"groups must have keys of params, got {name!r}")
            allowed = {"lr", *self._options} - {"maximize", "nonfinite", "groups"}
            if not set(options) <= allowed:
                raise ValueError(f"groups[{name!r}] may set {sorted(allowed)}, got {sorted(options)}")
            if "lr" in options and self.learning_rate == 0.0:
                raise ValueError(f"groups[{name!r}] can set lr only beside an lr > 0, to which it keeps its ratio")
            mine = {option: getattr(self, option) for option in self._options if option != "groups"}
            make: Any = type(self)
            self._rules[name] = make(self._shapes[name], **{"lr": self.learning_rate, **mine, **options})
        self._ratios = {name: rule.learning_rate / (self.learning_rate or 1.0) for name, rule in self._rules.items()}

    def _rule(self, name: str) -> "Optimizer":
        """The optimizer with the options of this array, set to the present learning rate."""
        rule = self._rules.get(name, self)
        if rule is not self:
            rule.learning_rate = (
                self.learning_rate * self._ratios[name] if "lr" in self.groups[name] else self.learning_rate
            )
        return rule

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

    @overload
    def step(
        self,
        params: Arrays,
        grads: Arrays,
        rows: Arrays | None = None,
        *,
        max_norm: None = None,
        zero_grads: bool = False,
    ) -> None: ...

    @overload
    def step(
        self,
        params: Arrays,
        grads: Arrays,
        rows: Arrays | None = None,
        *,
        max_norm: float,
        zero_grads: bool = False,
    ) -> float: ...

    def step(
        self,
        params: Arrays,
        grads: Arrays,
        rows: Arrays | None = None,
        *,
        max_norm: float | None = None,
        zero_grads: bool = False,
    ) -> float | None:
        """Update the parameters in place by their gradients.

        Parameters
        ----------
        params : array or dict of arrays
            float32 or float64, of the shapes given to the constructor; changed in place.
        grads : array or dict of arrays
            Of the same shapes, or (len(rows), d) where rows are given. One array may be the gradient of several.
        rows : integer array of shape (m,), or dict of these, optional
            Rows of a table (n, d): only these get a step. `grads` holds their gradients, one row for each; the
            gradients of repeated rows are summed. In a dict, arrays without rows get a dense step.
        max_norm : float, optional
            Clip: the step is that of the gradients times min(1, max_norm / (norm + 1e-6)). The norm is global, over
            all arrays, with the gradients of repeated rows summed. It costs one pass that reads the gradients.
        zero_grads : bool
            Overwrite grads with zeros, in the pass that reads them.

        Returns
        -------
        float or None
            The norm before clipping, if `max_norm` is given.

        Raises
        ------
        TypeError
            If an array is not float32 or float64, or cannot be updated in place.
        ValueError
            If keys or shapes differ, params are read-only, or share memory with one another or with grads, a
            gradient is not finite (under ``nonfinite="raise"``), or a row is out of range. All arrays are unchanged
            then.
        """
        if max_norm is not None:
            max_norm = check.number("max_norm", max_norm, low=0.0, open_low=True)
        check.flag("zero_grads", zero_grads)
        parts = updates(self._shapes, self._single, params, grads, rows)
        if zero_grads:
            for update in parts:
                check.writeable_array(update.g_name, update.given)
        steps = [
            (u, self._state_of(u), whole(u.gradient) if u.rows is None else by_row(u.gradient, u.rows, len(u.values)))
            for u in parts
        ]
        clips, ignores = max_norm is not None, self.nonfinite == "ignore"
        total = 0.0
        for update, _, gradient in steps if clips or not ignores else ():
            part = _square_sum(gradient, clips)
            if not math.isfinite(part) and self.nonfinite == "raise":
                refuse(update.g_name, update.gradient)
            total += part
        norm = math.sqrt(total)
        steps_now = ignores or math.isfinite(norm)
        if steps_now:
            scale = 1.0 if max_norm is None or max_norm >= norm + 1e-6 else max_norm / (norm + 1e-6)
            for update, state, gradient in steps:
                self._state[update.name] = state
                wipe = zero_grads and not update.shared
                self._rule(update.name)._update(update, state, gradient, scale, wipe)
                update.write_back(wipe)
        else:
            self.skipped += 1
        for update in parts if zero_grads else ():
            if update.shared or not steps_now:
                update.given[...] = 0
        return None if max_norm is None else norm

    def _update(
        self, update: Update, state: dict[str, Any], gradient: Gradient, scale: float, zero_grads: bool
    ) -> None:
        """The step of one array, with its gradient times `scale`, after the idle steps that its rows have missed."""
        values, before, is_whole = update.values, state["step"], update.rows is None
        if not is_whole and self.lazy == "exact" and "touched" not in state:
            state["touched"] = np.full(len(values), before)
            state["history"] = np.zeros((8, len(self._constants(1))))
            state["history_start"] = before
        if "touched" in state and (is_whole or before - state["history_start"] >= _LONGEST):
            self._catch_up(update.name, values, state)
        constants = self._next_constants(state, scale)
        idle = None
        if "touched" in state and not is_whole:
            idle = self._idle(gradient.rows, state, before)
            state["touched"][gradient.rows] = state["step"]
        elif "touched" in state:
            state["touched"][:] = state["step"]
        if is_whole or len(gradient.rows):
            self._apply(values, gradient, state, constants, idle, update.name, zero_grads and is_whole)

    def catch_up(self, params: Arrays, rows: Arrays | None = None) -> None:
        """Bring rows up to the last step, under ``lazy="exact"``, by the idle steps that they have missed.

        Call this before reading a table: a row step brings up its own rows alone, a dense step all. Under
        ``lazy="idle"`` no row misses a step, and nothing is changed.

        Parameters
        ----------
        params : array or dict of arrays
            As in `step`; changed in place.
        rows : integer array of shape (m,), or dict of these, optional
            Rows of a table, possibly repeated: only these are brought up, at the cost of these alone. In a dict, all
            rows of the arrays without rows.

        Raises
        ------
        TypeError, ValueError
            If params or rows do not fit, as in `step`; all arrays are unchanged then.
        """
        named, chosen = by_name(self._shapes, self._single, params, rows)
        parts = []
        for name, shape in self._shapes.items():
            target = fitting(called("params", name, self._single), named[name], shape)
            mine = None
            if name in chosen:
                mine = np.unique(rows_of(called("rows", name, self._single), chosen[name], shape))
            if "touched" in self._state.get(name, ()):
                self._check_dtype(name, target)
                parts.append((name, target, mine))
        for name, target, mine in parts:
            values = np.ascontiguousarray(target)
            self._rule(name)._catch_up(name, values, self._state[name], mine)
            if values is not target:
                target[...] = values

    def _state_of(self, update: Update) -> dict[str, Any]:
        """The state of an array, or that of a first step, which is not stored yet."""
        rule, state = self._rules.get(update.name, self), self._state.get(update.name)
        if state is None:
            fresh = new_state(rule._buffers, rule._positive, rule.state_dtype, update.values)
            return {"step": 0} | fresh
        self._check_dtype(update.name, update.values)
        return state

    def _check_dtype(self, name: str, values: np.ndarray) -> None:
        """Raise if the dtype of an array is not that of its first step."""
        rule = self._rules.get(name, self)
        if rule.state_dtype == "float32" and rule._buffers:
            was = self._state[name][rule._buffers[0]].dtype
            if was != values.dtype:
                called_here = called("params", name, self._single)
                raise TypeError(f"{called_here} must keep the dtype of the first step, {was}, got {values.dtype}")

    def _next_constants(self, state: dict[str, Any], scale: float) -> np.ndarray:
        """The constants of the next step, with gradients times `scale`, stored in the history if there is one."""
        state["step"] += 1
        constants = self._constants(state["step"])
        if scale != 1.0:
            constants[self._sign] *= scale
        if "history" in state:
            place = state["step"] - 1 - state["history_start"]
            if place == len(state["history"]):  # doubling keeps the average cost of a step constant
                state["history"] = np.concatenate([state["history"], np.zeros((max(place, 8), len(constants)))])
            state["history"][place] = constants
        return constants

    def _catch_up(self, name: str, table: np.ndarray, state: dict[str, Any], rows: np.ndarray | None = None) -> None:
        """Bring rows, distinct and ascending, up to the last step, or all rows."""
        if "touched" not in state:
            return
        behind = state["touched"] < state["step"] if rows is None else state["touched"][rows] < state["step"]
        late = np.flatnonzero(behind) if rows is None else rows[behind]
        self._missed(table, late, state, self._idle(late, state, state["step"]), name)
        state["touched"][late] = state["step"]
        if rows is None:
            state["history_start"] = state["step"]  # no row has missed an earlier step

    def _idle(self, rows: np.ndarray, state: dict[str, Any], until: int) -> Idle:
        """The steps with gradient zero that the rows have missed up to step `until`."""
        first = state["touched"][rows]
        missed = until - int(first.min(initial=until))
        end = until - state["history_start"]
        return Idle(first - (until - missed), state["history"][end - missed : end])

    def _constants(self, step: int) -> np.ndarray:
        """The numbers of this step, float64; the kernels name them."""
        raise NotImplementedError

    def _apply(
        self,
        p: np.ndarray,
        g: Gradient,
        state: dict[str, Any],
        c: np.ndarray,
        idle: Idle | None,
        name: str,
        wipe: bool,
    ) -> None:
        """Run the kernels of a step: the idle steps of g.rows, then a step of these rows or of all of p.

        wipe: leave zeros in g.
        """
        raise NotImplementedError

    def _missed(self, p: np.ndarray, rows: np.ndarray, state: dict[str, Any], idle: Idle, name: str) -> None:
        """Run the kernels of the idle steps of these rows."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget all state, as before the first step; the learning rate stays."""
        self._state, self.skipped = {}, 0

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to resume: a flat dict of numbers, strings and copies of arrays.

        ``np.savez(path, **optimizer.state_dict())`` saves it without pickle, and `load_state_dict` takes
        ``np.load(path)``.
        """
        return flatten(
            {
                "kind": type(self).__name__,
                "learning_rate": self.learning_rate,
                "skipped": self.skipped,
                "options": {name: getattr(self, name) for name in self._options},
                "state": self._state,
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict` of an optimizer of the same class and shapes.

        Parameters
        ----------
        state : dict, or another mapping
            As `state_dict` returned it, or as ``np.load`` reads it, with numbers as arrays. Its options and its
            learning rate replace this optimizer's.

        Raises
        ------
        ValueError
            If it is of another class, or its arrays do not fit; the optimizer is unchanged then.
        """
        try:
            found = nest(state, self._shapes)
            if found["kind"] != type(self).__name__:
                raise ValueError(f"state must be of {type(self).__name__}, got {found['kind']!r}")
            options = found["options"]
            if set(options) | {"groups"} != set(self._options):
                raise ValueError("state must have this optimizer's options")
            make: Any = type(self)  # its constructor checks what the options may be
            shapes: Any = next(iter(self._shapes.values())) if self._single else self._shapes
            twin = make(shapes, **{"lr": found["learning_rate"], **options})
            loaded = {
                name: restored(name, stored, self._shapes[name], twin._rules.get(name, twin))
                for name, stored in found["state"].items()
            }
            twin.skipped = check.integer("state['skipped']", found["skipped"], low=0)
        except (KeyError, TypeError) as error:
            raise ValueError(f"state must be a state_dict of {type(self).__name__}: {error!r}") from None
        self.__dict__.update(twin.__dict__)
        self._state = loaded


def _square_sum(gradient: Gradient, squared: bool) -> float:
    """Σ g² if `squared`, else 0; not finite if an element of the gradient is not."""
    if squared:
        return squares(gradient.used())
    return 0.0 if is_finite(gradient.given) and (not len(gradient.sums) or is_finite(gradient.sums)) else math.nan
