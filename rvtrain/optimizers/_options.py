"""Options of optimizers: their checks, and other options for the arrays whose names match a pattern."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from rvtrain import _validation as check
from rvtrain.optimizers._state import STATE_DTYPES

LAZY = ("idle", "exact")
NONFINITE = ("raise", "skip", "ignore")
Groups = Mapping[str, Mapping[str, Any]]
"""Options of arrays, by a pattern of their names and by the name of the option."""


def at_least_zero(name: str, value: object) -> float:
    """A number ≥ 0."""
    return check.number(name, value, low=0.0)


def checked_betas(name: str, betas: object) -> tuple[float, float]:
    """The two factors of averages, in [0, 1)."""
    if not isinstance(betas, tuple) or len(betas) != 2:
        raise TypeError(f"{name} must be a tuple of two numbers, got {betas!r}")
    first, second = (check.number(f"{name}[{i}]", b, low=0.0, high=1.0, open_high=True) for i, b in enumerate(betas))
    return first, second


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "amsgrad": check.flag,
    "betas": checked_betas,
    "dampening": check.number,
    "eps": at_least_zero,
    "lazy": lambda name, value: check.choice(name, value, LAZY),
    "maximize": check.flag,
    "momentum": at_least_zero,
    "nesterov": check.flag,
    "nonfinite": lambda name, value: check.choice(name, value, NONFINITE),
    "rowwise": check.flag,
    "state_dtype": lambda name, value: check.choice(name, value, STATE_DTYPES),
    "warmup_steps": lambda name, value: check.integer(name, value, low=0),
    "weight_decay": at_least_zero,
}
"""The check of each option but `groups`: from its name in messages and its value to the value that is kept."""

_NOT_BY_GROUP = ("maximize", "nonfinite")


class Group:
    """The options of arrays in a group: their own, or else those of the optimizer."""

    def __init__(self, optimizer: Any, own: Mapping[str, Any]) -> None:
        self._optimizer = optimizer
        self.__dict__.update(own)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._optimizer, name)

    def _rate(self, step: int) -> float:
        """The learning rate of this step, counted from 1."""
        own = self.__dict__
        if callable(own.get("lr")):
            return check.number("the lr of a group", own["lr"](step - 1), low=0.0)
        return float(self._optimizer.lr * own["_ratio"])


def checked_groups(groups: Groups | None, options: tuple[str, ...], lr: float) -> dict[str, dict[str, Any]]:
    """Groups with checked values, for an optimizer with these options and this learning rate."""
    if groups is not None and not isinstance(groups, Mapping):
        raise TypeError(f"groups must be a dict of dicts, got {groups!r}")
    allowed = {"lr", *options}.difference(_NOT_BY_GROUP)
    checked: dict[str, dict[str, Any]] = {}
    for pattern, own in (groups or {}).items():
        if not isinstance(own, Mapping) or not set(own) <= allowed:
            got = sorted(map(str, own)) if isinstance(own, Mapping) else repr(own)
            raise ValueError(f"groups[{pattern!r}] may set {sorted(allowed)}, got {got}")
        if "lr" in own and not callable(own["lr"]) and lr == 0.0:
            raise ValueError(f"groups[{pattern!r}] can set lr only beside an lr > 0, to which it keeps its ratio")
        checked[str(pattern)] = {
            name: _checked(f"groups[{pattern!r}][{name!r}]", name, value) for name, value in own.items()
        }
    return checked


def _checked(called: str, name: str, value: Any) -> Any:
    if name == "lr":
        return value if callable(value) else at_least_zero(called, value)
    return CHECKS[name](called, value)


def by_array(groups: Mapping[str, Mapping[str, Any]], names: list[str], lr: float) -> dict[str, dict[str, Any]]:
    """The own options of each array that a pattern matches; of several patterns, the later ones win.

    "_ratio" is that of their learning rate to the optimizer's.
    """
    found: dict[str, dict[str, Any]] = {}
    for pattern, own in groups.items():
        matched = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
        if not matched:
            raise ValueError(f"groups must have patterns of the keys of params, got {pattern!r}, which matches none")
        for name in matched:
            found[name] = found.get(name, {}) | dict(own)
    for own in found.values():
        own["_ratio"] = own["lr"] / lr if "lr" in own and not callable(own["lr"]) else 1.0
    return found


def saved_groups(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Groups as a state dict holds them: a schedule as the text that prints it, because it cannot be saved."""
    return {pattern: {name: _saved(value) for name, value in own.items()} for pattern, own in groups.items()}


def loaded_groups(
    saved: Mapping[str, Mapping[str, Any]], mine: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The groups of a state dict, with the schedules of the optimizer that loads it."""
    groups = {pattern: dict(own) for pattern, own in saved.items()}
    for pattern, own in groups.items():
        schedule = mine.get(pattern, {}).get("lr")
        if isinstance(own.get("lr"), str):
            if not callable(schedule) or _saved(schedule) != own["lr"]:
                raise ValueError(f"state needs an optimizer with groups[{pattern!r}]['lr'] = {own['lr']}")
            own["lr"] = schedule
    return groups


def _saved(value: Any) -> Any:
    if not callable(value):
        return value
    return "a function of the step" if " at 0x" in repr(value) else repr(value)
