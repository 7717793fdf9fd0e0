"""The table of optimizers, dtypes and formats that drives their benchmarks here and beside peers."""

from typing import Any, NamedTuple

import numpy as np

import rvtrain as rt


class Optimizer(NamedTuple):
    """An optimizer with its options, its peers, and what a step moves."""

    kind: str
    options: dict[str, Any]
    buffers: float
    """Numbers of state for each parameter."""
    torch: str = ""
    """The class of torch.optim that makes the same steps, if there is one."""
    bitsandbytes: str = ""
    """That of bitsandbytes with state in 8 bits."""
    compact: bool = True
    """Whether state in 16 or 8 bits is offered."""


OPTIMIZERS = {
    "SGD": Optimizer("SGD", {"momentum": 0.9}, 1, "SGD", "SGD8bit"),
    "SGD plain": Optimizer("SGD", {}, 0, "SGD", compact=False),
    "Adam": Optimizer("Adam", {}, 2, "Adam", "Adam8bit"),
    "AMSGrad": Optimizer("Adam", {"amsgrad": True}, 3, "Adam"),
    "AdamW": Optimizer("AdamW", {}, 2, "AdamW", "AdamW8bit"),
    "Lion": Optimizer("Lion", {}, 1, "", "Lion8bit"),
    "Adagrad": Optimizer("Adagrad", {}, 1, "Adagrad", compact=False),
    "Adagrad rowwise": Optimizer("Adagrad", {"rowwise": True}, 1 / 128, compact=False),
    "ScheduleFreeAdamW": Optimizer("ScheduleFreeAdamW", {}, 2, compact=False),
}
DTYPES = ("float32", "float64")
FORMATS = ("full", "full unchecked", "bfloat16", "bfloat16 unchecked", "int8", "int8 unchecked")
"""Formats of the state, and whether gradients are checked."""
WIDTH = 128
"""Columns of the table that a step by rows needs."""


def exists(name: str, format_: str) -> bool:
    """Whether an optimizer has a format."""
    return OPTIMIZERS[name].compact or format_.startswith("full")


def cases() -> list[tuple[str, str, str]]:
    """Each optimizer with each dtype and format that it has; compact state only for float32, which users have."""
    return [
        (name, dtype, format_)
        for name in OPTIMIZERS
        for dtype in DTYPES
        for format_ in FORMATS
        if exists(name, format_) and (dtype == "float32" or format_.startswith("full"))
    ]


def make(name: str, like: Any, format_: str = "full", **more: Any) -> Any:
    """An optimizer of the table for parameters shaped as `like`."""
    entry = OPTIMIZERS[name]
    options = {"lr": 1e-3, **entry.options, **more}
    stored, _, unchecked = format_.partition(" ")
    if unchecked:
        options["nonfinite"] = "ignore"
    if stored != "full":
        options["state_dtype"] = stored
    return getattr(rt, entry.kind)(like, **options)


def shape(name: str, count: int) -> tuple[int, ...]:
    """The shape of an array of `count` parameters."""
    return (count // WIDTH, WIDTH) if "rowwise" in name else (count,)


def moved(name: str, dtype: str, format_: str, count: int) -> int:
    """Bytes that a step has to move: g is read, p and the state are read and written; g is read twice if checked."""
    size = np.dtype(dtype).itemsize
    state = {"bfloat16": 2, "int8": 1}.get(format_.split()[0], size)
    checked = 0 if "unchecked" in format_ else size
    return int(count * (3 * size + checked + 2 * state * OPTIMIZERS[name].buffers))
