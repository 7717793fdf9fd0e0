"""State dicts: flat, of plain arrays and numbers, so that ``np.savez`` saves them without pickle."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.optimizers._state import Layout


def flatten(nested: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested dicts as one flat dict, whose keys are paths; arrays are copied."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}{key}/")
        else:
            flat[f"{path}{key}"] = np.array(value) if isinstance(value, (np.ndarray, tuple)) else value
    return flat


def nest(flat: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dicts of an optimizer's flat state dict: numbers, options, and the state of each array.

    `names` are those of the arrays, in which a path's separator may occur. Options and numbers become Python's own
    types.
    """
    found: dict[str, Any] = {"options": {}, "state": {}}
    for key, value in flat.items():
        kind, _, rest = key.partition("/")
        name, _, leaf = rest.rpartition("/")
        if not rest:
            found[kind] = _plain(value)
        elif kind == "options" and not name:
            found["options"][leaf] = _plain(value)
        elif kind == "options" and name.startswith("groups/"):
            found["options"].setdefault("groups", {}).setdefault(name[7:], {})[leaf] = _plain(value)
        elif kind == "state" and name in names:
            found["state"].setdefault(name, {})[leaf] = value
        else:
            raise ValueError(f"state must be that of the arrays {sorted(names)}, got the key {key!r}")
    return found


def _plain(value: Any) -> Any:
    plain = np.asarray(value).tolist()
    return tuple(plain) if isinstance(plain, list) else plain


def restored(
    name: str, stored: Mapping[str, Any], shape: tuple[int, ...], layout: Layout, columns: int
) -> dict[str, Any]:
    """The state of one array, checked: it must have the arrays of the layout, and a history of `columns` numbers."""
    wanted: dict[str, Any] = dict(layout)
    if "touched" in stored:
        wanted |= {"touched": (shape[:1], np.int64), "history": (None, np.float64)}
    numbers = {"step"} | ({"history_start"} if "touched" in stored else set())
    if set(stored) != numbers | set(wanted):
        raise ValueError(f"state/{name} must have {sorted(numbers | set(wanted))}, got {sorted(stored)}")
    state: dict[str, Any] = {key: check.integer(f"state/{name}/{key}", _plain(stored[key]), low=0) for key in numbers}
    for key, (size, dtype) in wanted.items():
        array = np.array(stored[key])
        if size is not None and array.shape != size:
            raise ValueError(f"state/{name}/{key} must have shape {size}, got {array.shape}")
        if array.dtype != dtype if dtype is not None else array.dtype not in (np.float32, np.float64):
            raise ValueError(f"state/{name}/{key} must be {np.dtype(dtype or np.float32)}, got {array.dtype}")
        state[key] = array
    if "touched" in stored:
        steps = state["step"] - state["history_start"]
        if (
            state["history"].ndim != 2
            or state["history"].shape[1] != columns
            or not 0 <= steps <= len(state["history"])
        ):
            raise ValueError(f"state/{name}/history must hold {columns} numbers for each of {steps} steps")
        first, last = (
            state["touched"].min(initial=state["step"]),
            state["touched"].max(initial=state["history_start"]),
        )
        if first < state["history_start"] or last > state["step"]:
            raise ValueError(f"state/{name}/touched must lie in [{state['history_start']}, {state['step']}]")
    return state
