"""Dense steps of arrays that need no copy: most steps, whose call takes half as long as that of `Optimizer.step`."""

import math
from typing import Any

import numpy as np

from rvtrain.optimizers._arrays import ONE, is_plain, owned_apart
from rvtrain.optimizers._clip import is_finite, squares
from rvtrain.optimizers._norm import factor


def step_plain(optimizer: Any, params: Any, grads: Any, max_norm: float | None, zero_grads: bool) -> float | None:
    """Make a dense step, if it is not the first one and its arrays need no copy; else change nothing.

    It returns the global norm of the gradients if the step clips, else 0, or None if it made no step: also where
    an argument is wrong or a gradient is not finite, for which `Optimizer.step` raises the error.
    """
    rule, checked = optimizer._rule, optimizer.nonfinite != "ignore" and max_norm is None
    steps, total = [], 0.0
    for name, p, g in _named(optimizer._shapes, optimizer._single, params, grads):
        state = optimizer._state.get(name)
        if state is None or "touched" in state:
            return None
        options = optimizer._options_of(name)
        was = rule.dtype(options, state)
        if (was is not None and was != p.dtype) or (checked and not is_finite(g)):
            return None
        if max_norm is not None:
            total += squares(g)
        steps.append((options, state, name, p, g))
    if not steps or not math.isfinite(total):
        return None
    optimizer._check_mode()
    norm = math.sqrt(total)
    scale = factor(norm, max_norm)
    for options, state, _, _, _ in steps:
        if options is not optimizer:
            options._look_up(state["step"] + 1)
    for options, state, name, p, g in steps:
        numbers = rule.next_numbers(options, state, scale)
        rule.prepared(options, p, g, state, name)(numbers, zero_grads)
    return norm


def _named(
    shapes: dict[str, tuple[int, ...]], single: bool, params: Any, grads: Any
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Each name with its two arrays, or none if an array needs a copy, an error, or more time to be checked."""
    if single:
        return [(ONE, params, grads)] if is_plain(params, grads, shapes[ONE]) else []
    if type(params) is not dict or type(grads) is not dict or not params.keys() == shapes.keys() == grads.keys():
        return []
    named = [(name, params[name], grads[name]) for name in shapes]
    if not all([is_plain(p, g, shapes[name]) for name, p, g in named]):
        return []
    return named if owned_apart([*params.values(), *grads.values()]) else []
