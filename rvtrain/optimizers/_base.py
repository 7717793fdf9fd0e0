"""The base of the optimizers: state of each array, dense steps and row steps, saving and loading."""

import math
from collections.abc import Mapping
from typing import Any, overload

import numpy as np

from rvtrain import _validation as check
from rvtrain._kernels import Kernel
from rvtrain.optimizers._arrays import Arrays, Params, Update, by_name, called, fitting, rows_of, shapes_of, updates
from rvtrain.optimizers._clip import is_finite, refuse, squares
from rvtrain.optimizers._compact_steps import compact_idle_steps, compact_step
from rvtrain.optimizers._rows import Gradient, Owed, by_row, by_table, whole
from rvtrain.optimizers._saving import flatten, nest, restored
from rvtrain.optimizers._state import STATE_DTYPES, Layout, as_table, blocks_of, compact, flat, layout, noise
from rvtrain.optimizers._steps import idle_table, row_steps

LAZY = ("idle", "exact")
NONFINITE = ("raise", "skip", "ignore")
Groups = Mapping[str, Mapping[str, object]]
"""Options of single arrays, by the name of the array and of the option."""

_LONGEST = 4096
"""Steps of the history: when it is full, all rows are brought up to date, in one pass over the table."""


class Optimizer:
    """Base of the optimizers. A subclass is a rule for one element (`_rule`); this class does all the rest.

    A rule provides `_buffers`, the names of its state arrays, and `_positive`, those of them that are never negative;
    `_numbers`, the named tuple of a step; and `_no_step`, that of idle steps.
    """

    _options: tuple[str, ...] = ()
    _buffers: tuple[str, ...] = ()
    _positive: tuple[str, ...] = ()
    _dense_step: Kernel
    """The rule's `dense_step_of`."""
    _owes = True
    """Whether an idle row misses anything: False if a step with g = 0 changes nothing."""

    def __init__(
        self,
        params: Params,
        lr: float,
        *,
        maximize: bool = False,
        lazy: str,
        state_dtype: str = "float32",
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
        self._check_mode()
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
        if not is_whole and self.lazy == "exact" and self._owes and "touched" not in state:
            state["touched"] = np.full(len(values), before)
            state["history"] = np.zeros((8, len(self._numbers(1))))
            state["history_start"] = before
        if "touched" in state and (is_whole or before - state["history_start"] >= _LONGEST):
            self._catch_up(update.name, values, state)
        numbers = self._next_numbers(state, scale)
        owed = None
        if "touched" in state and not is_whole:
            owed = self._owed(gradient.rows, state, before, values.dtype)
            state["touched"][gradient.rows] = state["step"]
        elif "touched" in state:
            state["touched"][:] = state["step"]
        if is_whole:
            self._step_all(values, gradient, state, numbers, update.name, zero_grads)
        elif len(gradient.rows):
            self._step_rows(values, gradient.rows, gradient, state, numbers, owed, update.name)

    def _step_all(
        self, p: np.ndarray, g: Gradient, state: dict[str, Any], numbers: Any, name: str, wipe: bool
    ) -> None:
        """Run the kernel of a step of all of p; wipe: leave zeros in g."""
        if self.state_dtype == "float32" or not self._buffers:
            values, gradient, *buffers = flat(p, g.given, *(state[buffer] for buffer in self._buffers))
            work = 2 * max(1, len(buffers)) * p.size
            self._dense_step.sized(work)(p.size, values, gradient, tuple(buffers), tuple(numbers), wipe)
        else:
            self._step_compact(p, g, state, numbers, name, wipe)

    def _step_rows(
        self,
        p: np.ndarray,
        rows: np.ndarray,
        g: Gradient | None,
        state: dict[str, Any],
        numbers: Any,
        owed: Owed | None,
        name: str,
    ) -> None:
        """Run the kernels of the steps that rows of p owe, and (unless g is None) of a step of these rows."""
        work = max(8, 10 * len(self._buffers)) * len(rows) * p.shape[1]
        if self.state_dtype == "float32" or not self._buffers:
            buffers = tuple(state[buffer] for buffer in self._buffers)
            row_steps.sized(work)(len(rows), p, rows, g, buffers, numbers, owed)
            return
        if owed is not None and len(owed.history):
            codes, scales = compact(state, self._buffers, p.shape)
            key = noise(name, state["step"], idle=True)
            compact_idle_steps.sized(work)(len(rows), p, rows, codes, scales, numbers, owed, key)
        if g is not None:
            self._step_compact(p, g, state, numbers, name, False)

    def _step_compact(
        self, p: np.ndarray, g: Gradient, state: dict[str, Any], numbers: Any, name: str, wipe: bool
    ) -> None:
        """Run the kernel of a step of p, or of rows of p, with state in 16 or 8 bits."""
        codes, scales = compact(state, self._buffers, p.shape)
        table = as_table(p)
        count = blocks_of(table, g.rows, codes[0])
        work = 10 * len(codes) * (len(g.rows) * p.shape[1] if len(g.rows) else p.size)
        key = noise(name, state["step"])
        compact_step.sized(work)(count, table, by_table(g), codes, scales, numbers, key, wipe)

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
            return {"step": 0} | rule._new_state(update.values)
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

    def _next_numbers(self, state: dict[str, Any], scale: float) -> Any:
        """The numbers of the next step, with gradients times `scale`, stored in the history if there is one."""
        self._count(state)
        numbers = self._numbers(state["step"], state)
        if scale != 1.0:
            numbers = numbers._replace(sign=numbers.sign * scale)
        if "history" in state:
            place = state["step"] - 1 - state["history_start"]
            if place == len(state["history"]):  # doubling keeps the average cost of a step constant
                state["history"] = np.concatenate([state["history"], np.zeros((max(place, 8), len(numbers)))])
            state["history"][place] = numbers
        return numbers

    def _catch_up(self, name: str, table: np.ndarray, state: dict[str, Any], rows: np.ndarray | None = None) -> None:
        """Bring rows, distinct and ascending, up to the last step, or all rows."""
        if "touched" not in state:
            return
        behind = state["touched"] < state["step"] if rows is None else state["touched"][rows] < state["step"]
        late = np.flatnonzero(behind) if rows is None else rows[behind]
        owed = self._owed(late, state, state["step"], table.dtype)
        if len(owed.history):
            self._step_rows(table, late, None, state, self._numbers(state["step"]), owed, name)
        state["touched"][late] = state["step"]
        if rows is None:
            state["history_start"] = state["step"]  # no row has missed an earlier step

    def _owed(self, rows: np.ndarray, state: dict[str, Any], until: int, dtype: Any) -> Owed:
        """The steps with gradient zero that the rows have missed up to step `until`."""
        first = state["touched"][rows]
        missed = until - int(first.min(initial=until))
        end = until - state["history_start"]
        history = state["history"][end - missed : end]
        total = self._no_step(0.1 * float(np.finfo(dtype).eps))  # a tenth of the rounding of the movement
        table = np.empty((missed, len(total)))
        if missed:
            idle_table.serial(self._numbers(1), total, history, table)
        return Owed(first - (until - missed), history, total, table)

    def _check_mode(self) -> None:
        """Raise if the parameters are not those to be stepped."""

    def _layout(self, shape: tuple[int, ...]) -> Layout:
        """Shape and dtype of the arrays of the state of an array of that shape."""
        names = [(name, name in self._positive) for name in self._buffers]
        return {
            key: value
            for name, positive in names
            for key, value in layout(name, positive, self.state_dtype, shape).items()
        }

    def _new_state(self, values: np.ndarray) -> dict[str, Any]:
        """The state arrays of the first step, for these parameters."""
        return {
            key: np.zeros(shape, dtype or values.dtype) for key, (shape, dtype) in self._layout(values.shape).items()
        }

    def _count(self, state: dict[str, Any]) -> None:
        """Count the step that is made next."""
        state["step"] += 1

    def _numbers(self, step: int, state: dict[str, Any] | None = None) -> Any:
        """The numbers of this step; without the state, others of the same class."""
        raise NotImplementedError

    def _no_step(self, left_out: float) -> Any:
        """The numbers of no step at all, to begin with; left_out: the part of the movement that may be left out."""
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


def checked_betas(betas: object) -> tuple[float, float]:
    """The two factors of averages, in [0, 1)."""
    if not isinstance(betas, tuple) or len(betas) != 2:
        raise TypeError(f"betas must be a tuple of two numbers, got {betas!r}")
    first, second = (check.number(f"betas[{i}]", b, low=0.0, high=1.0, open_high=True) for i, b in enumerate(betas))
    return first, second


def _square_sum(gradient: Gradient, squared: bool) -> float:
    """Σ g² if `squared`, else 0; not finite if an element of the gradient is not."""
    if squared:
        return squares(gradient.used())
    return 0.0 if is_finite(gradient.given) and (not len(gradient.sums) or is_finite(gradient.sums)) else math.nan
