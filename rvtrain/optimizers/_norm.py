"""What a step has to know of its gradients: their global norm, or only that they are finite."""

import math
from collections.abc import Sequence

from rvtrain._errors import NotFiniteError
from rvtrain.optimizers._clip import is_finite, refuse, squares
from rvtrain.optimizers._rows import Gradient


def norm_of(
    gradients: Sequence[tuple[str, Gradient]], clips: bool, nonfinite: str, known: float | None = None
) -> float:
    """The global norm of named gradients if the step clips, else 0, or NaN if one of them is not finite.

    Raises for the latter under "raise", and does not look under "ignore". A norm that is known is not computed.
    """
    if known is not None:
        return _checked(known, nonfinite)
    total = 0.0
    for name, gradient in gradients if clips or nonfinite != "ignore" else ():
        part = _square_sum(gradient, clips)
        if nonfinite == "raise" and not math.isfinite(part):
            refuse(name, gradient.given)
        total += part
    return math.sqrt(total)


def _checked(norm: float, nonfinite: str) -> float:
    if isinstance(norm, (bool, str)):
        raise TypeError(f"grad_norm must be a number, got {norm!r}")
    norm = float(norm)
    if norm < 0.0:
        raise ValueError(f"grad_norm must be at least 0, got {norm}")
    if nonfinite == "raise" and not math.isfinite(norm):
        raise NotFiniteError(f"grad_norm must be finite, got {norm}")
    return norm


def goes_on(norm: float, nonfinite: str) -> bool:
    """Whether the step of gradients with this norm is made."""
    return nonfinite == "ignore" or math.isfinite(norm)


def factor(norm: float, max_norm: float | None) -> float:
    """The factor of clipping."""
    return 1.0 if max_norm is None or max_norm >= norm + 1e-6 else max_norm / (norm + 1e-6)


def _square_sum(gradient: Gradient, squared: bool) -> float:
    """Σ g² if `squared`, else 0; not finite if an element of the gradient is not."""
    if squared:
        return squares(gradient.used())
    return 0.0 if is_finite(gradient.given) and (not len(gradient.sums) or is_finite(gradient.sums)) else math.nan
