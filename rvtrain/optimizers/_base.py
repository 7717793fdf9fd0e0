"""The base of the optimizers: their options, steps of one or several arrays, saving and loading."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, InitVar, dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, overload

import numpy as np

from rvtrain import _validation as check
from rvtrain.optimizers._array_rule import Rule, State
from rvtrain.optimizers._arrays import Arrays, Params, Update, by_name, called, fitting, rows_of, shapes_of, updates
from rvtrain.optimizers._bound import BoundStep
from rvtrain.optimizers._norm import factor, goes_on, norm_of
from rvtrain.optimizers._options import CHECKS, Group, Groups, by_array, checked_groups, loaded_groups, saved_groups
from rvtrain.optimizers._plain import step_plain
from rvtrain.optimizers._rows import by_row, whole
from rvtrain.optimizers._saving import flatten, nest, restored


@dataclass(eq=False, repr=False)
class Optimizer:
    """Base of the optimizers. A subclass declares its options and the rule of its steps; this class does the rest."""

    params: InitVar[Params]
    lr: float
    _: KW_ONLY
    lazy: str = "idle"
    state_dtype: str = "float32"
    nonfinite: str = "raise"
    groups: Groups | None = None

    _rule: ClassVar[Rule]

    def __post_init__(self, params: Params) -> None:
        self._shapes, self._single = shapes_of(params)
        self.learning_rate = self.lr
        options = sorted(fields(self), key=lambda field: bool(field.kw_only))
        self._options = tuple(field.name for field in options if field.init and field.name != "lr")
        for name in self._options:
            if name in CHECKS:
                setattr(self, name, CHECKS[name](name, getattr(self, name)))
        self.groups = checked_groups(self.groups, self._options, self.lr)
        if self.groups and self._single:
            raise ValueError("groups need params by name: a dict of arrays")
        self._own = by_array(self.groups, list(self._shapes), self.lr)
        self.skipped = 0
        self._state: dict[str, State] = {}
        for name in self._shapes:
            self._rule.check(self._options_of(name))

    def _options_of(self, name: str) -> Any:
        """The options of an array."""
        return Group(self, self._own[name]) if name in self._own else self

    def _rate(self, step: int) -> float:
        """The learning rate of a step, counted from 1, of arrays without another."""
        return self.lr

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step; set it to follow a schedule."""
        return self.lr

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.lr = check.number("lr", value, low=0.0)

    @property
    def param_groups(self) -> tuple[Mapping[str, Any], ...]:
        """The options in use, to read and to log: a mapping for each set of arrays that share theirs.

        Its keys are "params", the names of the arrays ("params" where there is one array without a name), "lr", the
        learning rate of their next step, and the options. To change the learning rate, set `learning_rate`.
        """
        found: list[tuple[dict[str, Any], list[str]]] = []
        names = [name for name in self._options if name not in ("groups", "nonfinite")]
        for name in self._shapes:
            options = self._options_of(name)
            step = self._state.get(name, {"step": 0})["step"]
            mine = {"lr": options._rate(step + 1), **{option: getattr(options, option) for option in names}}
            same = [arrays for other, arrays in found if other == mine]
            if same:
                same[0].append(name)
            else:
                found.append((mine, [name]))
        return tuple(MappingProxyType({"params": tuple(arrays), **mine}) for mine, arrays in found)

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
        grad_norm: float | None = None,
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
        grad_norm: float | None = None,
    ) -> float: ...

    def step(
        self,
        params: Arrays,
        grads: Arrays,
        rows: Arrays | None = None,
        *,
        max_norm: float | None = None,
        zero_grads: bool = False,
        grad_norm: float | None = None,
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
        grad_norm : float, optional
            The global norm of the gradients, if you know it. It is trusted: gradients are not read to compute their
            norm, or to check that they are finite.

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
            gradient or `grad_norm` is not finite (under ``nonfinite="raise"``), or a row is out of range. All arrays
            are unchanged then.
        """
        if max_norm is not None:
            max_norm = check.number("max_norm", max_norm, low=0.0, open_low=True)
        if zero_grads is not False:
            zero_grads = check.flag("zero_grads", zero_grads)
        if rows is None and grad_norm is None:
            found = step_plain(self, params, grads, max_norm, zero_grads)
            if found is not None:
                return None if max_norm is None else found
        self._check_mode()
        parts = updates(self._shapes, self._single, params, grads, rows)
        if zero_grads:
            for update in parts:
                check.writeable_array(update.g_name, update.given)
        states = [self._state_of(update) for update in parts]
        gradients = [
            whole(u.gradient) if u.rows is None else by_row(u.gradient, u.rows, len(u.values)) for u in parts
        ]
        norm = norm_of(parts, gradients, max_norm is not None, self.nonfinite, grad_norm)
        steps_now = goes_on(norm, self.nonfinite)
        if steps_now:
            scale = factor(norm, max_norm)
            for options, state in states:
                if options is not self:
                    options._look_up(state["step"] + 1)
            for update, (options, state), gradient in zip(parts, states, gradients, strict=True):
                self._state[update.name] = state
                wipe = zero_grads and not update.shared
                self._rule.update(options, update, state, gradient, scale, wipe)
                if wipe or update.values is not update.target:
                    update.write_back(wipe)
        else:
            self.skipped += 1
        for update in parts if zero_grads else ():
            if update.shared or not steps_now:
                update.given[...] = 0
        return None if max_norm is None else norm

    def bind(
        self, params: Arrays, grads: Arrays, *, max_norm: float | None = None, zero_grads: bool = False
    ) -> BoundStep:
        """Prepare steps of these arrays: they are checked once, and ``bound.step()`` only computes.

        Parameters
        ----------
        params, grads : array or dict of arrays
            As in `step`, C-contiguous and of one dtype for each parameter, with memory of their own. Write each new
            gradient into the same array.
        max_norm, zero_grads
            As in `step`, for all steps.

        Returns
        -------
        BoundStep
            Has one method, ``step(grad_norm=None)``, which does what ``optimizer.step(params, grads, …)`` does and
            returns the same. It follows the optimizer: its learning rate, its state after other steps,
            `load_state_dict` and `reset`.

        Raises
        ------
        TypeError, ValueError
            As in `step`, and if an array is not contiguous, is read-only, or would have to be copied.

        Examples
        --------
        >>> import numpy as np
        >>> import rvtrain as rt
        >>> params, grads = np.ones(3), np.zeros(3)
        >>> bound = rt.SGD(params, lr=0.5).bind(params, grads)
        >>> for _ in range(2):
        ...     grads[...] = params
        ...     bound.step()
        >>> params
        array([0.25, 0.25, 0.25])
        """
        return BoundStep(self, params, grads, max_norm, zero_grads)

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
        self._change(params, rows, lambda state: "touched" in state, self._rule.catch_up)

    def _change(self, params: Arrays, rows: Arrays | None, due: Callable[[State], bool], change: Any) -> None:
        """Call change(options, name, values, state, rows) for the arrays whose state is due, after all checks."""
        named, chosen = by_name(self._shapes, self._single, params, rows)
        parts = []
        for name, shape in self._shapes.items():
            target = fitting(called("params", name, self._single), named[name], shape)
            mine = None
            if name in chosen:
                mine = np.unique(rows_of(called("rows", name, self._single), chosen[name], shape))
            if name in self._state and due(self._state[name]):
                self._check_dtype(name, self._options_of(name), self._state[name], target)
                parts.append((name, target, mine))
        for name, target, mine in parts:
            values = np.ascontiguousarray(target)
            change(self._options_of(name), name, values, self._state[name], mine)
            if values is not target:
                target[...] = values

    def _state_of(self, update: Update) -> tuple[Any, State]:
        """The options and the state of an array; the state of a first step is not stored yet."""
        options, state = self._options_of(update.name), self._state.get(update.name)
        if state is None:
            return options, self._rule.new_state(options, update.values)
        self._check_dtype(update.name, options, state, update.values)
        return options, state

    def _check_dtype(self, name: str, options: Any, state: State, values: np.ndarray) -> None:
        """Raise if the dtype of an array is not that of its first step."""
        was = self._rule.dtype(options, state)
        if was is not None and was != values.dtype:
            called_here = called("params", name, self._single)
            raise TypeError(f"{called_here} must keep the dtype of the first step, {was}, got {values.dtype}")

    def _check_mode(self) -> None:
        """Raise if the parameters are not those to be stepped."""

    def reset(self) -> None:
        """Forget all state, as before the first step; the learning rate stays."""
        self._state, self.skipped = {}, 0

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to resume: a flat dict of numbers, strings and copies of arrays.

        ``np.savez(path, **optimizer.state_dict())`` saves it without pickle, and `load_state_dict` takes
        ``np.load(path)``. A group's schedule is saved as the text that prints it.
        """
        options = {name: getattr(self, name) for name in self._options}
        return flatten(
            {
                "kind": type(self).__name__,
                "learning_rate": self.learning_rate,
                "skipped": self.skipped,
                "options": options | {"groups": saved_groups(self.groups or {})},
                "state": self._state,
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict` of an optimizer of the same class and shapes.

        Parameters
        ----------
        state : dict, or another mapping
            As `state_dict` returned it, or as ``np.load`` reads it, with numbers as arrays. Its options and its
            learning rate replace this optimizer's. Only a group's schedule has to be this optimizer's own already.

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
            options["groups"] = loaded_groups(options.get("groups", {}), self.groups or {})
            shapes: Any = next(iter(self._shapes.values())) if self._single else self._shapes
            checked = type(self)(shapes, lr=found["learning_rate"], **options)
            loaded = {}
            for name, stored in found["state"].items():
                layout = self._rule.layout(checked._options_of(name), self._shapes[name])
                loaded[name] = restored(name, stored, self._shapes[name], layout, len(self._rule.kind))
            skipped = check.integer("state['skipped']", found["skipped"], low=0)
        except (KeyError, TypeError) as error:
            raise ValueError(f"state must be a state_dict of {type(self).__name__}: {error!r}") from None
        for name in self._options:
            setattr(self, name, getattr(checked, name))
        self._own, self.lr = checked._own, checked.lr
        self._state, self.skipped = loaded, skipped
