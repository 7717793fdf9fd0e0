"""Dense steps of arrays that need no copy: most steps, whose call takes half as long as that of `Optimizer.step`."""

from typing import Any

import numpy as np

from rvtrain.optimizers._arrays import ONE, is_plain, owned_apart
from rvtrain.optimizers._clip import is_finite
from rvtrain.optimizers._rows import whole


def step_plain(optimizer: Any, params: Any, grads: Any) -> bool:
    """Make a dense step, if it is not the first one and its arrays need no copy; else change nothing.

    It raises no errors of arguments: False where there is one, or where a gradient is not finite.
    """
    rule, checked = optimizer._rule, optimizer.nonfinite != "ignore"
    steps = []
    for name, p, g in _named(optimizer._shapes, optimizer._single, params, grads):
        state = optimizer._state.get(name)
        if state is None or "touched" in state:
            return False
        options = optimizer._options_of(name)
        was = rule.dtype(options, state)
        if (was is not None and was != p.dtype) or (checked and not is_finite(g)):
            return False
        steps.append((options, state, name, p, g))
    if not steps:
        return False
    optimizer._check_mode()
    for options, state, _, _, _ in steps:
        if options is not optimizer:
            options._look_up(state["step"] + 1)
    for options, state, name, p, g in steps:
        numbers = rule.next_numbers(options, state, 1.0)
        rule.prepared(options, p, whole(g), state, name)(numbers, False)
    return True


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
