"""What the optimizers accept: one array or a dict of arrays, checked as a whole before anything changes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rvtrain import _validation as check

ONE = "params"
"""The name of the only array where no dict was given."""


class Update(NamedTuple):
    """One array's part in a step: all arrays C-contiguous and of the parameter's dtype."""

    name: str
    g_name: str
    """What messages call the gradient."""
    target: np.ndarray
    """The caller's array."""
    values: np.ndarray
    """The same memory where it is contiguous, else a copy to be written back."""
    gradient: np.ndarray
    """Writeable too: the caller's array, or a copy."""
    given: np.ndarray
    """The caller's gradient."""
    rows: np.ndarray | None

    def write_back(self, zero_grads: bool) -> None:
        """Bring the new values, and zeros for the gradient, to the caller's arrays, if they are not there already."""
        if self.values is not self.target:
            self.target[...] = self.values
        if zero_grads and (self.rows is not None or self.gradient is not self.given):
            self.given[...] = 0


def shapes_of(params: Any) -> tuple[dict[str, tuple[int, ...]], bool]:
    """The shapes that `params` describes, by name, and whether it was a single one."""
    if isinstance(params, Mapping):
        if not params:
            raise ValueError("params must not be an empty dict")
        return {str(name): _shape(f"params[{name!r}]", value) for name, value in params.items()}, False
    return {ONE: _shape("params", params)}, True


def _shape(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return (check.integer(name, value, low=1),)
    if isinstance(value, (tuple, list)):
        return tuple(check.integer(name, size, low=1) for size in value)
    if not hasattr(value, "shape"):
        raise TypeError(f"{name} must be a length, a shape, an array or a dict of these, got {value!r}")
    return check.float_array(name, value, range(33)).shape


def updates(shapes: dict[str, tuple[int, ...]], single: bool, params: Any, grads: Any, rows: Any) -> list[Update]:
    """The checked parts of a step, in the order of `shapes`."""
    if single:
        return [_update("params", "grads", "rows", ONE, shapes[ONE], params, grads, rows)]
    for argument, value in (("params", params), ("grads", grads)):
        if not isinstance(value, Mapping) or set(value) != set(shapes):
            got = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
            raise ValueError(f"{argument} must be a dict with the keys {sorted(shapes)}, got {got}")
    if rows is not None and (not isinstance(rows, Mapping) or not set(rows) <= set(shapes)):
        raise ValueError(f"rows must be a dict with some of the keys {sorted(shapes)}")
    return [
        _update(
            f"params[{name!r}]", f"grads[{name!r}]", f"rows[{name!r}]",
            name, shape, params[name], grads[name], (rows or {}).get(name),
        )
        for name, shape in shapes.items()
    ]  # fmt: skip


def _update(
    p_name: str, g_name: str, r_name: str, name: str, shape: tuple[int, ...], param: Any, grad: Any, rows: Any
) -> Update:
    target = check.writeable_array(p_name, param)
    if target.shape != shape:
        raise ValueError(f"{p_name} must have shape {shape}, got {target.shape}")
    gradient = check.any_float_array(g_name, grad)
    if rows is None:
        wanted = shape
    else:
        if len(shape) != 2:
            raise ValueError(f"{r_name} needs a table of 2 dimensions, got {p_name} of shape {shape}")
        rows = check.indices(r_name, rows, (None,), shape[0])
        wanted = (len(rows), shape[1])
    if gradient.shape != wanted:
        raise ValueError(f"{g_name} must have shape {wanted}, got {gradient.shape}")
    if np.may_share_memory(target, gradient) and np.shares_memory(target, gradient):
        raise ValueError(f"{g_name} must not share memory with {p_name}")
    given, gradient = gradient, np.ascontiguousarray(gradient, dtype=target.dtype)
    if not gradient.flags.writeable:
        gradient = gradient.copy()
    values = target if target.flags.c_contiguous else np.ascontiguousarray(target)
    return Update(name, g_name, target, values, gradient, given, rows)
