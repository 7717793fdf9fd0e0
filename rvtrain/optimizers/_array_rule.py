"""The steps of one array by a rule: dense or of rows, with the steps that idle rows have missed, in every format."""

from typing import Any

import numpy as np

from rvtrain._kernels import Kernel
from rvtrain.optimizers._arrays import Update
from rvtrain.optimizers._compact_steps import compact_idle_steps, compact_step
from rvtrain.optimizers._rows import Gradient, Owed, by_table, whole
from rvtrain.optimizers._state import Layout, as_table, blocks_of, compact, flat, layout, noise
from rvtrain.optimizers._steps import dense_step_of, idle_table, row_steps

_LONGEST = 4096
"""Steps of the history: when it is full, all rows are brought up to date, in one pass over the table."""

State = dict[str, Any]
"""The state of an array: "step", the number of steps; the buffers by name; and, once rows have been stepped under
``lazy="exact"``, "touched", the last step of each row, and "history", the numbers of the steps since
"history_start"."""


class Rule:
    """The steps of an array. A subclass gives the mathematics: the numbers of a step, and the buffers' names.

    A rule keeps nothing: `o` are the options of the array, its optimizer or a `Group`, and `state` is its state.
    """

    constants: Any
    """The class of the numbers of a step, for which `element` is implemented."""
    buffers: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    """The buffers that are never negative."""
    owes = True
    """Whether an idle row misses anything: False if a step with g = 0 changes nothing."""
    idle_steps: Any
    """The class of the numbers of several idle steps together, unless `no_step` is the subclass's own."""
    dense_step: Kernel
    kind: Any
    """An instance of `constants`, for the compiler."""

    def __init_subclass__(cls) -> None:
        if "constants" in cls.__dict__:
            cls.dense_step = dense_step_of(cls.constants)
            cls.kind = cls.constants(*(0.0 for _ in cls.constants._fields))

    # --- The mathematics ---

    def numbers(self, o: Any, step: int, state: State) -> Any:
        """The numbers of this step, counted from 1; called once for each step, in their order."""
        raise NotImplementedError

    def no_step(self, o: Any, left_out: float) -> Any:
        """The numbers of no step at all, to begin with; left_out: the part of the movement that may be left out."""
        return self.idle_steps()

    def check(self, o: Any) -> None:
        """Raise if options contradict each other."""

    def names(self, o: Any) -> tuple[str, ...]:
        """The buffers under these options."""
        return self.buffers

    def layout(self, o: Any, shape: tuple[int, ...]) -> Layout:
        """Shape and dtype of the arrays of the state of an array of that shape."""
        arrays: Layout = {}
        for name in self.names(o):
            arrays |= layout(name, name in self.positive, o.state_dtype, shape)
        return arrays

    def new_state(self, o: Any, values: np.ndarray) -> State:
        """The state before the first step, for these parameters."""
        arrays = self.layout(o, values.shape).items()
        return {"step": 0} | {key: np.zeros(shape, dtype or values.dtype) for key, (shape, dtype) in arrays}

    # --- Steps ---

    def dtype(self, o: Any, state: State) -> Any:
        """The dtype that the parameters must have, which is that of the state, or None for any."""
        names = self.names(o) if o.state_dtype == "float32" else ()
        return state[names[0]].dtype if names else None

    def update(self, o: Any, update: Update, state: State, gradient: Gradient, scale: float, wipe: bool) -> None:
        """The step of an array, with its gradient times `scale`, after the idle steps that its rows have missed."""
        values, before, is_whole = update.values, state["step"], update.rows is None
        if is_whole and "touched" not in state:
            numbers = self.next_numbers(o, state, scale)
            self.prepared(o, values, gradient.given, state, update.name)(numbers, wipe)
            return
        if not is_whole and o.lazy == "exact" and self.owes and "touched" not in state:
            state["touched"] = np.full(len(values), before)
            state["history"] = np.zeros((8, len(self.kind)))
            state["history_start"] = before
        if "touched" in state and (is_whole or before - state["history_start"] >= _LONGEST):
            self.catch_up(o, update.name, values, state)
        numbers = self.next_numbers(o, state, scale)
        owed = None
        if "touched" in state and not is_whole:
            owed = self._owed(o, gradient.rows, state, before, values.dtype)
            state["touched"][gradient.rows] = state["step"]
        elif "touched" in state:
            state["touched"][:] = state["step"]
        if is_whole:
            self.prepared(o, values, gradient.given, state, update.name)(numbers, wipe)
        elif len(gradient.rows):
            self.step_rows(o, values, gradient.rows, gradient, state, numbers, owed, update.name)

    def prepared(self, o: Any, p: np.ndarray, g: np.ndarray, state: State, name: str) -> Any:
        """A function (numbers, wipe) that runs the kernel of a step of all of p; wipe: leave zeros in g."""
        names = self.names(o)
        if o.state_dtype != "float32" and names:
            return self._compact(o, p, whole(g), state, name)
        buffers, count = tuple([state[buffer] for buffer in names]), p.size
        if p.ndim != 1:
            p, g, *several = flat(p, g, *buffers)
            buffers = tuple(several)
        run = self.dense_step.sized(2 * (len(buffers) or 1) * count)
        return lambda numbers, wipe: run(count, p, g, buffers, tuple(numbers), wipe)

    def step_rows(
        self,
        o: Any,
        p: np.ndarray,
        rows: np.ndarray,
        g: Gradient | None,
        state: State,
        numbers: Any,
        owed: Owed | None,
        name: str,
    ) -> None:
        """Run the kernels of the steps that rows of p owe, and (unless g is None) of a step of these rows."""
        names = self.names(o)
        work = max(8, 10 * len(names)) * len(rows) * p.shape[1]
        if o.state_dtype == "float32" or not names:
            buffers = tuple(state[buffer] for buffer in names)
            row_steps.sized(work)(len(rows), p, rows, g, buffers, numbers, owed)
            return
        if owed is not None and len(owed.history):
            codes, scales = compact(state, names, p.shape)
            key = noise(name, state["step"], idle=True)
            compact_idle_steps.sized(work)(len(rows), p, rows, codes, scales, numbers, owed, key)
        if g is not None:
            self._compact(o, p, g, state, name)(numbers, False)

    def _compact(self, o: Any, p: np.ndarray, g: Gradient, state: State, name: str) -> Any:
        """The same of a step of p, or of rows of p, with state in 16 or 8 bits."""
        codes, scales = compact(state, self.names(o), p.shape)
        table = as_table(p)
        count = blocks_of(table, g.rows, codes[0])
        work = 10 * len(codes) * (len(g.rows) * p.shape[1] if len(g.rows) else p.size)
        run, of_table = compact_step.sized(work), by_table(g)
        return lambda numbers, wipe: run(
            count, table, of_table, codes, scales, numbers, noise(name, state["step"]), wipe
        )

    def next_numbers(self, o: Any, state: State, scale: float) -> Any:
        """The numbers of the next step, with gradients times `scale`, stored in the history if there is one."""
        state["step"] += 1
        numbers = self.numbers(o, state["step"], state)
        if scale != 1.0:
            numbers = numbers._replace(sign=numbers.sign * scale)
        if "history" in state:
            place = state["step"] - 1 - state["history_start"]
            if place == len(state["history"]):  # doubling keeps the average cost of a step constant
                state["history"] = np.concatenate([state["history"], np.zeros((max(place, 8), len(numbers)))])
            state["history"][place] = numbers
        return numbers

    def catch_up(self, o: Any, name: str, table: np.ndarray, state: State, rows: np.ndarray | None = None) -> None:
        """Bring rows, distinct and ascending, up to the last step, or all rows."""
        behind = state["touched"] < state["step"] if rows is None else state["touched"][rows] < state["step"]
        late = np.flatnonzero(behind) if rows is None else rows[behind]
        owed = self._owed(o, late, state, state["step"], table.dtype)
        if len(owed.history):
            self.step_rows(o, table, late, None, state, self.kind, owed, name)
        state["touched"][late] = state["step"]
        if rows is None:
            state["history_start"] = state["step"]  # no row has missed an earlier step

    def _owed(self, o: Any, rows: np.ndarray, state: State, until: int, dtype: Any) -> Owed:
        """The steps with gradient zero that the rows have missed up to step `until`."""
        first = state["touched"][rows]
        missed = until - int(first.min(initial=until))
        end = until - state["history_start"]
        history = state["history"][end - missed : end]
        total = self.no_step(o, 0.1 * float(np.finfo(dtype).eps))  # a tenth of the rounding of the movement
        table = np.empty((missed, len(total)))
        if missed:
            idle_table.serial(self.kind, total, history, table)
        return Owed(first - (until - missed), history, total, table)
