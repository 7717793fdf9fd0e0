"""How a loss is called: its kind and its arguments, read once from its signature."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

KINDS = ("pairs", "graded", "teacher", "labels", "graph", "embeddings")
"""Kinds of losses by their arguments.

========== ===========================================
pairs      (anchors, positives[, negatives, ids …])
graded     (a, b, scores)
teacher    (anchors, positives, negatives, teacher_scores)
labels     (embeddings, labels)
graph      (embeddings, graph)
embeddings (embeddings)
========== ===========================================
"""


class LossCall:
    """One loss of a training, with its weight.

    Attributes
    ----------
    kind : one of `KINDS`
    names : names of the first parameters, which `wrt` knows
    learnable : names of the loss's own parameters that are trained
    owner : the loss that has them, which is another one where `loss` wraps it
    """

    def __init__(self, loss: Any, weight: float | Callable[[int], float] = 1.0) -> None:
        self.loss, self.weight = loss, weight
        parameters = _parameters(loss)
        positional = [name for name, is_option in parameters.items() if not is_option] or ["anchors", "positives"]
        self._accepted: frozenset[str] | None = frozenset(parameters) if parameters else None
        """Names of all parameters; None where the signature does not tell."""
        self.kind = _kind(positional, parameters)
        self.names = tuple(positional[:2]) if self.kind in ("pairs", "graded", "teacher") else (positional[0],)
        inner = self.owner = _inner(loss)
        self.learnable: tuple[str, ...] = tuple(getattr(inner, "learnable", ()))
        self.is_symmetric = bool(getattr(inner, "symmetric", False))
        self.keeps_batch = self.is_symmetric or getattr(inner, "directions", None) not in (
            None, ("query_to_document",),
        )  # fmt: skip
        """Whether the batch's positives are columns beside `negatives`, and not only in their place."""

    def accepts(self, name: str) -> bool:
        """Whether the loss has such a parameter."""
        return self._accepted is None or name in self._accepted

    @property
    def takes_pool(self) -> bool:
        """Whether the loss takes a pool of negatives, of which some rows do not count for an anchor."""
        return self.kind == "pairs" and self.accepts("negatives") and self.accepts("negative_ids")

    def __call__(
        self, arguments: tuple[Any, ...], options: dict[str, Any], wrt: tuple[str, ...] | None
    ) -> tuple[float, dict[str, Any]]:
        """The loss and its gradients by name; the loss alone where `wrt` is None. Options of None are left out."""
        given = {k: v for k, v in options.items() if v is not None and self.accepts(k)}
        if wrt is None:
            return float(self.loss.compute(*arguments, **given)), {}
        names = (*wrt, *self.learnable)
        result = self.loss.compute_with_gradients(*arguments, wrt=names, **given)
        value, gradients = self._checked(result, names)
        found = dict(zip(names, gradients, strict=True))
        for name, like in (*zip(self.names, arguments, strict=False), ("negatives", given.get("negatives"))):
            if name in wrt and like is not None and np.shape(found[name]) != np.shape(like):
                raise ValueError(
                    f"the gradient of {type(self.loss).__name__} to {name} must have shape {np.shape(like)}, "
                    f"got {np.shape(found[name])}"
                )
        return float(value), _apart(found)

    def _checked(self, result: Any, names: tuple[str, ...]) -> tuple[Any, tuple[Any, ...]]:
        """The result of ``compute_with_gradients``, if it is a loss and a tuple of gradients."""
        called = f"compute_with_gradients of {type(self.loss).__name__}"
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise TypeError(f"{called} must return a tuple (loss, gradients), got {type(result).__name__}")
        value, gradients = result
        if not isinstance(gradients, (tuple, list)) or len(gradients) != len(names):
            count = len(gradients) if isinstance(gradients, (tuple, list)) else type(gradients).__name__
            raise TypeError(f"{called} must return a tuple of {len(names)} gradients for wrt={names}, got {count}")
        return value, tuple(gradients)


def _apart(gradients: dict[str, Any]) -> dict[str, Any]:
    """The gradients, of which none is the memory of another one, because others are added to them in place."""
    arrays = [(name, g) for name, g in gradients.items() if isinstance(g, np.ndarray)]
    for place, (name, g) in enumerate(arrays):
        if any(np.may_share_memory(g, other) for _, other in arrays[:place]):
            gradients[name] = g.copy()
    return gradients


class Weighted(NamedTuple):
    """A loss, and its weight in this step."""

    call: LossCall
    weight: float


def _inner(loss: Any) -> Any:
    """The loss itself, or the innermost one that it wraps, as `MatryoshkaLoss` does."""
    while hasattr(getattr(loss, "loss", None), "compute_with_gradients"):
        loss = loss.loss
    return loss


def _parameters(loss: Any) -> dict[str, bool]:
    """The parameters of a loss, and whether each is one that has to be named; empty where they are not known.

    A method that takes anything, as one that overrides another does, is asked for by `compute`, and by the loss that
    it wraps.
    """
    for each in (loss, _inner(loss)):
        for method in (each.compute_with_gradients, each.compute):
            try:
                found = inspect.signature(method).parameters.values()
            except (TypeError, ValueError):
                continue
            if not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in found):
                return {p.name: p.kind == p.KEYWORD_ONLY or p.name == "wrt" for p in found}
    return {}


def _kind(positional: list[str], parameters: dict[str, bool]) -> str:
    if "teacher_scores" in parameters:
        return "teacher"
    if len(positional) == 1:
        return "embeddings"
    if positional[1] in ("labels", "graph"):
        return positional[1]
    return "graded" if "scores" in parameters else "pairs"
