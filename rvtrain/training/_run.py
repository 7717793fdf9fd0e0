"""One training, from its first step to its last: counters, history, and the parameters worth keeping."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvtrain.training._callbacks import Record
from rvtrain.training._models import Params
from rvtrain.training._sparse import is_sparse

COLUMNS = ("epoch", "step", "loss", "temperature", "learning_rate", "negatives", "seconds")
_HASHED_ROWS = 1024


class Run:
    """What lasts from epoch to epoch of one call of `fit`, and ends with it.

    Attributes
    ----------
    columns : names of the numbers of a record
    monitored : str or None
        The column that says which record is best; None without validation.
    epoch, step : int
        Whole epochs and steps done.
    records : list of records
        The first is of the untrained model.
    best : parameters of the best record; with those of the losses
    mined : mined negatives of the samples
    """

    def __init__(self, columns: tuple[str, ...] = COLUMNS, monitored: str | None = None) -> None:
        self.columns, self.monitored = columns, monitored
        self.epoch = self.step = 0
        self.records: list[Record] = []
        self.best: Params | None = None
        self.best_record = 0
        self.best_learned: list[dict[str, float]] = []
        self.mined: NDArray[np.int64] | None = None
        self.reports: dict[int, Any] = {}
        self.data: dict[str, str] = {}
        """Fingerprints of the arrays trained on, by argument."""

    @property
    def history(self) -> dict[str, NDArray[np.float64]]:
        """The records as arrays by column."""
        return {name: np.array([record[name] for record in self.records], np.float64) for name in self.columns}

    @property
    def stale(self) -> int:
        """Number of records since the best one."""
        return len(self.records) - 1 - self.best_record

    def add(self, record: Record, params: Params, learned: list[dict[str, float]]) -> None:
        """Add a record, and keep the parameters if it is the best so far; a NaN never is."""
        self.records.append(record)
        if self.monitored is None:
            self.best_record = len(self.records) - 1
        elif self.best is None or self._score(-1) > self._score(self.best_record):
            self.best, self.best_learned = copied(params), learned
            self.best_record = len(self.records) - 1

    def _score(self, record: int) -> float:
        assert self.monitored is not None
        value = self.records[record][self.monitored]
        if np.isnan(value):
            return -np.inf
        return -value if self.monitored == "val_loss" else value

    def state_dict(self) -> dict[str, Any]:
        """All of it, arrays uncopied."""
        table = np.array([[record[name] for name in self.columns] for record in self.records], np.float64)
        return {
            "columns": list(self.columns), "epoch": self.epoch, "step": self.step, "records": table,
            "best": self.best, "best_record": self.best_record, "best_learned": self.best_learned,
            "mined": self.mined, "data": self.data,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any], params: Params) -> None:
        """Go on from a state dict; ValueError if its arrays are not of these parameters."""
        records = [dict(zip(state["columns"], map(float, row), strict=True)) for row in state["records"]]
        if state["best"] is not None:
            check_shapes(state["best"], params)
            self.best = copied(state["best"])
        self.best_record, self.best_learned = int(state["best_record"]), list(state["best_learned"])
        self.epoch, self.step, self.records = int(state["epoch"]), int(state["step"]), records
        self.mined = None if state["mined"] is None else np.array(state["mined"])
        self.data = dict(state["data"])


def check_shapes(found: Params, params: Params) -> None:
    """Raise unless the arrays found have the names, shapes and dtypes of these parameters."""
    kinds = [{name: (np.shape(v), np.asarray(v).dtype) for name, v in each.items()} for each in (found, params)]
    if kinds[0] != kinds[1]:
        raise ValueError("model must have the parameters of the run that was saved, got others")


def put(values: Params, params: Params) -> None:
    """Copy the values into the arrays of the parameters."""
    for name, value in values.items():
        params[name][...] = value


def copied(params: Params) -> Params:
    """A copy of all arrays."""
    return {name: value.copy() for name, value in params.items()}


def fingerprint(array: Any) -> str:
    """A hash of an array's shape, dtype and elements; of a table of floats, at most 1,024 rows evenly spread.

    So of a sparse table, whatever its format and dtypes.
    """
    if is_sparse(array):
        rows = array[np.linspace(0, array.shape[0] - 1, min(array.shape[0], _HASHED_ROWS)).astype(np.int64)]
        parts = rows.data.astype(np.float64), rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
        return " ".join([repr(array.shape), *map(fingerprint, parts)])
    digest = hashlib.blake2b(repr((array.shape, array.dtype.str)).encode(), digest_size=16)
    if array.dtype.kind == "f" and array.ndim > 1 and len(array) > _HASHED_ROWS:
        array = array[np.linspace(0, len(array) - 1, _HASHED_ROWS).astype(np.int64)]
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
