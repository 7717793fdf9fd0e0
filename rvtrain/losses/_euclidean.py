"""Squared distances as dot products: −‖a − b‖²/2 = (a, 1, −‖a‖²/2) · (b, −‖b‖²/2, 1).

Anchors have the left form, positives and negatives the right one; `facing` turns one into the other.
"""

import dataclasses
from typing import Any

import numpy as np

from rvtrain._errors import NotFiniteError
from rvtrain.losses._arguments import Pairs


def augmented(pairs: Pairs) -> Pairs:
    """The same pairs with two more coordinates."""
    return dataclasses.replace(
        pairs,
        anchors=_augmented("anchors", pairs.anchors, 1),
        positives=_augmented("positives", pairs.positives, 0),
        negatives=None if pairs.negatives is None else _augmented("negatives", pairs.negatives, 0),
    )


def _augmented(name: str, x: np.ndarray, at: int) -> np.ndarray:
    dim = x.shape[-1]
    out = np.empty((*x.shape[:-1], dim + 2), x.dtype)
    out[..., :dim] = x
    with np.errstate(over="ignore"):
        out[..., dim + at] = -0.5 * np.einsum("...k,...k->...", x, x, dtype=np.float64)
    out[..., dim + 1 - at] = 1.0
    if not np.isfinite(out[..., dim + at]).all():
        row = int(np.argmin(np.isfinite(out[..., dim + at]).ravel()))
        raise NotFiniteError(f"{name} must be finite with a squared norm that fits in {x.dtype}, not so in row {row}")
    return out


def facing(x: np.ndarray) -> np.ndarray:
    """Turn augmented rows, or a gradient to them, from one form into the other."""
    out = x.copy()
    out[:, -2], out[:, -1] = x[:, -1], x[:, -2]
    return out


def back_from_augmented(pairs: Pairs, gradients: dict[str, Any]) -> dict[str, Any]:
    """Gradients to the rows themselves, from the gradients to augmented rows."""
    out = dict(gradients)
    for name, g in gradients.items():
        if name in ("anchors", "positives", "negatives"):
            x = pairs.restore(name, getattr(pairs, name))
            dim = x.shape[-1]
            norm = g[..., dim + 1 : dim + 2] if name == "anchors" else g[..., dim : dim + 1]
            out[name] = g[..., :dim] - x * norm
    return out
