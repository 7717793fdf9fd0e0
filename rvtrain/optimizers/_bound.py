"""Steps of arrays that have been checked once."""

import math
from typing import Any

import numpy as np

from rvtrain import _validation as check
from rvtrain.optimizers._arrays import Update, called, updates
from rvtrain.optimizers._clip import SMALL
from rvtrain.optimizers._norm import factor, goes_on, norm_of
from rvtrain.optimizers._rows import whole


class BoundStep:
    """A step of an optimizer for given arrays; made by ``optimizer.bind(params, grads)``.

    It keeps the arrays, and views of them. A copy, or a pickle, is bound to the copied arrays.
    """

    def __init__(self, optimizer: Any, params: Any, grads: Any, max_norm: float | None, zero_grads: bool) -> None:
        if max_norm is not None:
            max_norm = check.number("max_norm", max_norm, low=0.0, open_low=True)
        zero_grads = check.flag("zero_grads", zero_grads)
        single = optimizer._single
        self._parts = updates(optimizer._shapes, single, params, grads, None)
        for part in self._parts:
            _check(part, called("params", part.name, single), zero_grads)
            optimizer._state_of(part)
        self._optimizer, self._params, self._grads = optimizer, params, grads
        self._max_norm, self._zero_grads = max_norm, zero_grads
        self._given = [] if single else [(x, name, x[name]) for x in (params, grads) for name in optimizer._shapes]
        self._gradients = [whole(part.gradient) for part in self._parts]
        flat = [part.gradient.reshape(-1) for part in self._parts]
        self._small = flat if sum(gradient.size for gradient in flat) <= SMALL else []
        self._prepared: list[tuple[str, Any, Any, Any]] = []
        self._prepare()

    def __reduce__(self) -> Any:
        return BoundStep, (self._optimizer, self._params, self._grads, self._max_norm, self._zero_grads)

    def __repr__(self) -> str:
        return f"BoundStep({self._optimizer!r}, max_norm={self._max_norm!r}, zero_grads={self._zero_grads!r})"

    def step(self, grad_norm: float | None = None) -> float | None:
        """Update the parameters in place by the gradients as they are now, as ``optimizer.step`` does.

        Parameters
        ----------
        grad_norm : float, optional
            The global norm of the gradients, if you know it; as in ``optimizer.step``.

        Returns
        -------
        float or None
            The norm before clipping, if `max_norm` was bound.

        Raises
        ------
        ValueError
            If a gradient is not finite (under ``nonfinite="raise"``); all arrays are unchanged then.
        RuntimeError
            If a dict that was bound has another array than it had then.
        """
        optimizer = self._optimizer
        for arrays, name, array in self._given:
            if arrays[name] is not array:
                raise RuntimeError(f"{name!r} is another array than the one that was bound: bind again")
        states = optimizer._state
        for name, _, state, _ in self._prepared:
            if states.get(name) is not state or "touched" in state:  # of another time, or with steps to make up for
                self._prepared = []
                break
        if not self._prepared:
            found: float | None = optimizer.step(
                self._params, self._grads, max_norm=self._max_norm, zero_grads=self._zero_grads, grad_norm=grad_norm
            )
            self._prepare()
            return found
        optimizer._check_mode()
        max_norm, wipe = self._max_norm, self._zero_grads
        scale, norm, nonfinite = 1.0, 0.0, optimizer.nonfinite
        if max_norm is not None or grad_norm is not None or not (nonfinite == "ignore" or self._finite()):
            norm = norm_of(self._parts, self._gradients, max_norm is not None, nonfinite, grad_norm)
            scale = factor(norm, max_norm)
            if not goes_on(norm, nonfinite):
                optimizer.skipped += 1
                for gradient in self._gradients if wipe else ():
                    gradient.given[...] = 0
                return None if max_norm is None else norm
        for _, options, state, _ in self._prepared:
            if options is not optimizer:
                options._look_up(state["step"] + 1)
        following = optimizer._rule.next_numbers
        for _, options, state, run in self._prepared:
            run(following(options, state, scale), wipe)
        return None if max_norm is None else norm

    def _prepare(self) -> None:
        """Prepare the kernels of the next steps, if the optimizer has a state for each array."""
        optimizer = self._optimizer
        if all("touched" not in optimizer._state.get(part.name, {"touched"}) for part in self._parts):
            self._prepared = [self._of(part) for part in self._parts]

    def _of(self, part: Update) -> tuple[str, Any, Any, Any]:
        options, state = self._optimizer._options_of(part.name), self._optimizer._state[part.name]
        run = self._optimizer._rule.prepared(options, part.values, part.gradient, state, part.name)
        return part.name, options, state, run

    def _finite(self) -> bool:
        """Whether all gradients are few and their squares finite, which needs no kernel."""
        total: Any = 0.0
        for x in self._small:
            total += np.vdot(x, x)  # unlike x.dot(x), it never warns
        return bool(self._small) and math.isfinite(total)


def _check(part: Update, p_name: str, zero_grads: bool) -> None:
    """Raise if the steps of an array would work on copies, or zero a gradient before another array has used it."""
    for name, given, used in ((p_name, part.target, part.values), (part.g_name, part.given, part.gradient)):
        if used is not given:
            raise ValueError(
                f"{name} must be C-contiguous, writeable and of dtype {part.target.dtype} to be bound, "
                f"got shape {given.shape}, strides {given.strides} and dtype {given.dtype}"
            )
    if zero_grads and part.shared:
        raise ValueError(f"{part.g_name} must not share memory with another gradient to be bound with zero_grads")
