"""One training, from its first step to its last: counters, history, and the parameters worth keeping."""

import hashlib
from typing import Any

import numpy as np

COLUMNS = ("epoch", "loss", "temperature", "learning_rate", "k", "seconds", "metric")
_HASHED_ROWS = 1024

Params = dict[str, np.ndarray]


class Run:
    """What lasts from epoch to epoch of one call of `fit`, and ends with it.

    `best` is a copy of the parameters at the best value of the metric so far, the untrained ones included. `last` is
    a copy of the parameters to go on from, where the model itself holds the best ones.
    """

    def __init__(self) -> None:
        self.epoch = self.step = 0
        self.lines: list[list[float]] = []
        self.baseline = np.nan
        """The metric before the first step; NaN where nothing is held back."""
        self.best: Params | None = None
        self.last: Params | None = None
        self.mined: np.ndarray | None = None
        self.data: dict[str, str] = {}
        """Fingerprints of the arrays trained on, by argument."""
        self.is_whole = True
        """Whether no epoch has been begun without being finished."""

    @property
    def _measured(self) -> list[float]:
        return [self.baseline, *(line[-1] for line in self.lines)]

    @property
    def stale_epochs(self) -> int:
        """Epochs since the metric was best; epoch 0 is the untrained model."""
        measured = self._measured
        return len(measured) - 1 - int(np.nanargmax(measured)) if not np.isnan(measured).all() else 0

    def begin(self, metric: float | None, params: Params) -> None:
        """Note the metric of the untrained parameters, if there is one."""
        if metric is not None:
            self.baseline, self.best = metric, _copied(params)

    def end_epoch(self, line: list[float], params: Params) -> None:
        """Add a line of the history, its metric last, and keep the parameters if they are the best so far."""
        if line[-1] > np.nanmax([*self._measured, -np.inf]):
            self.best = _copied(params)
        self.lines.append(line)

    def keep_best(self, params: Params) -> None:
        """Put the best parameters into the model, and remember those of the last whole epoch."""
        if self.best is not None:
            self.last = _copied(params) if self.is_whole else None
            put(self.best, params)

    def go_on(self, params: Params) -> None:
        """The inverse: put the last parameters into the model."""
        if self.last is not None:
            put(self.last, params)
            self.last = None

    def state_dict(self) -> dict[str, Any]:
        """All of it, arrays uncopied."""
        return {
            "epoch": self.epoch, "step": self.step, "lines": np.array(self.lines).reshape(-1, len(COLUMNS)),
            "baseline": float(self.baseline), "best": self.best, "last": self.last, "mined": self.mined,
            "data": self.data,
        }  # fmt: skip

    @classmethod
    def of(cls, state: dict[str, Any], params: Params) -> "Run":
        """From a state dict; ValueError if its arrays are not of these parameters."""
        run = cls()
        run.epoch, run.step = int(state["epoch"]), int(state["step"])
        run.lines, run.baseline = np.asarray(state["lines"], np.float64).tolist(), float(state["baseline"])
        for name in ("best", "last"):
            if state[name] is not None:
                fits(state[name], params)
                setattr(run, name, _copied(state[name]))
        run.mined = None if state["mined"] is None else np.array(state["mined"])
        run.data = dict(state["data"])
        return run


def fits(found: Params, params: Params) -> None:
    """Raise unless the arrays found have the names and shapes of these parameters."""
    if {n: np.shape(v) for n, v in found.items()} != {n: v.shape for n, v in params.items()}:
        raise ValueError("state must be of a model with the same parameters")


def put(values: Params, params: Params) -> None:
    """Copy the values into the arrays of the parameters."""
    for name, value in values.items():
        params[name][...] = value


def _copied(params: Params) -> Params:
    return {name: value.copy() for name, value in params.items()}


def fingerprint(array: np.ndarray) -> str:
    """A hash of an array's shape, dtype and elements; of a table of floats, at most 1,024 rows evenly spread."""
    digest = hashlib.blake2b(repr((array.shape, array.dtype.str)).encode(), digest_size=16)
    if array.dtype.kind == "f" and array.ndim > 1 and len(array) > _HASHED_ROWS:
        array = array[np.linspace(0, len(array) - 1, _HASHED_ROWS).astype(np.int64)]
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
