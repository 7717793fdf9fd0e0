"""Matryoshka: one loss on several prefixes of the embeddings, so that each prefix is usable on its own."""

import inspect
from collections.abc import Sequence
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from rvtrain import _validation as check
from rvtrain.losses._arguments import like_wrt

Floats = NDArray[np.floating]

EMBEDDINGS = ("anchors", "positives", "negatives", "embeddings", "references", "a", "b")
"""Names of the arguments that are cut to prefixes."""


class Loss(Protocol):
    """A loss that can be wrapped: any object with these two methods, whatever their parameters."""

    @property
    def compute(self) -> Any: ...
    @property
    def compute_with_gradients(self) -> Any: ...


class MatryoshkaLoss:
    r"""Matryoshka representation learning: the weighted sum of a loss over prefixes of the embeddings.

    For dims m₁, m₂, … with weights w,

    .. math:: \sum_m w_m \, L(z_{:m})

    where z are all embeddings that the wrapped loss takes: anchors, positives, negatives, embeddings, references, a
    and b. Every other argument (ids, labels, scores, a guide's vectors, `wrt`) is passed on unchanged. Cosines are
    cosines of the prefixes, each normalised by itself. As in sentence-transformers the weights are 1 by default, and
    the sum is not divided by their sum. Unlike there, prefixes are not normalised for dot products and distances.

    Parameters
    ----------
    loss : a loss
        Any object with `compute` and `compute_with_gradients`. It is not copied, so its temperature may be set
        between calls, on either object.
    dims : sequence of int
        Lengths of the prefixes. Include the embeddings' full length, or it is not trained.
    weights : sequence of float, optional
        One for each of `dims`, not negative.

    References
    ----------
    Kusupati et al. (2022), Matryoshka Representation Learning, arXiv:2205.13147.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> loss = rt.MatryoshkaLoss(rt.InfoNCELoss(temperature=1.0), dims=[4, 2], weights=[1.0, 0.5])
    >>> anchors = positives = np.eye(4)[:2]
    >>> round(loss.compute(anchors, positives), 6)  # 1.5 · log(1 + e⁻¹)
    0.469893
    >>> value, gradient = loss.compute_with_gradients(anchors, positives, wrt="positives")
    >>> gradient.shape
    (2, 4)
    """

    def __init__(self, loss: Loss, dims: Sequence[int], weights: Sequence[float] | None = None) -> None:
        for method in ("compute", "compute_with_gradients"):
            if not callable(getattr(loss, method, None)):
                raise TypeError(f"loss must have the method {method}, got {loss!r}")
        self.loss = loss
        self.dims = tuple(check.integer("dims", m, low=1) for m in _sequence("dims", dims))
        given = [1.0] * len(self.dims) if weights is None else _sequence("weights", weights)
        if len(given) != len(self.dims):
            raise ValueError(f"weights must be as many as dims, {len(self.dims)}, got {len(given)}")
        self.weights = tuple(check.number("weights", w, low=0.0) for w in given)

    @property
    def temperature(self) -> float:
        """The temperature of the wrapped loss, if it has one."""
        return float(self.loss.temperature)  # type: ignore[attr-defined]

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.loss.temperature = value  # type: ignore[attr-defined]

    @property
    def reduction(self) -> str:
        """The reduction of the wrapped loss, if it has one."""
        return str(self.loss.reduction)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"MatryoshkaLoss({self.loss!r}, dims={list(self.dims)}, weights={list(self.weights)})"

    def compute(self, *args: Any, **options: Any) -> float | Floats:
        """The loss alone, with the arguments, the value and the errors of the wrapped loss's `compute`.

        Raises
        ------
        ValueError
            If an embedding is shorter than one of `dims`, or the embeddings differ in length.
        """
        call = _Call(self.loss.compute, args, options, self.dims)
        value: float | Floats = _sum([w * call.of_prefixes(m) for m, w in zip(self.dims, self.weights, strict=True)])
        return value

    @overload
    def compute_with_gradients(self, *args: Any, wrt: str = ..., **options: Any) -> tuple[float | Floats, Floats]: ...

    @overload
    def compute_with_gradients(
        self, *args: Any, wrt: tuple[str, ...], **options: Any
    ) -> tuple[float | Floats, tuple[Floats, ...]]: ...

    def compute_with_gradients(self, *args: Any, **options: Any) -> tuple[Any, Any]:
        """The loss and its gradients, with the arguments, `wrt` and results of the wrapped loss's method.

        Gradients to embeddings have the shape of their input and are weighted sums over the prefixes; columns beyond
        the longest prefix are 0. Other gradients, such as to a temperature, are weighted sums too.

        Raises
        ------
        ValueError
            As `compute`.
        """
        call = _Call(self.loss.compute_with_gradients, args, options, self.dims)
        parts = [call.of_prefixes(m) for m in self.dims]
        value = _sum([w * part[0] for w, part in zip(self.weights, parts, strict=True)])
        wrt = call.wrt
        names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
        gradients: dict[str, Any] = {}
        for place, name in enumerate(names):
            found = [part[1] if isinstance(wrt, str) else part[1][place] for part in parts]
            if name in EMBEDDINGS:
                gradients[name] = call.whole(name, found, self.weights)
            else:
                gradients[name] = _sum([w * g for w, g in zip(self.weights, found, strict=True)])
        return value, like_wrt(wrt, gradients)


class _Call:
    """The arguments of one call of a wrapped loss's method, by their names."""

    def __init__(self, method: Any, args: tuple[Any, ...], options: dict[str, Any], dims: tuple[int, ...]) -> None:
        self._method = method
        self._bound = inspect.signature(method).bind(*args, **options)
        self._bound.apply_defaults()
        given = (
            (name, np.asarray(x)) for name, x in self._bound.arguments.items() if name in EMBEDDINGS and x is not None
        )
        self._whole = {name: x for name, x in given if x.ndim > 0}  # the loss raises for a number
        for name, x in self._whole.items():
            first, length = next((other, y.shape[-1]) for other, y in self._whole.items())
            if x.shape[-1] != length:
                raise ValueError(f"{name} must have {length} columns like {first}, got shape {x.shape}")
            if length < max(dims):
                raise ValueError(f"dims must be at most {length}, the columns of {first}, got {max(dims)}")

    @property
    def wrt(self) -> Any:
        """The argument `wrt` of the call."""
        return self._bound.arguments["wrt"]

    def of_prefixes(self, m: int) -> Any:
        """The method's result for the first m columns."""
        for name, x in self._whole.items():
            self._bound.arguments[name] = np.ascontiguousarray(x[..., :m])
        return self._method(*self._bound.args, **self._bound.kwargs)

    def whole(self, name: str, parts: list[Floats], weights: tuple[float, ...]) -> Floats:
        """Σ w · part, each part the first columns of an array of the input's shape."""
        total = np.zeros(self._whole[name].shape, parts[0].dtype)
        for part, w in zip(parts, weights, strict=True):
            total[..., : part.shape[-1]] += w * part
        return total


def _sum(terms: list[Any]) -> Any:
    return sum(terms[1:], start=terms[0])


def _sequence(name: str, value: Any) -> list[Any]:
    """The items of a non-empty sequence."""
    if isinstance(value, (str, bytes)) or np.ndim(value) != 1 or len(value) == 0:
        raise ValueError(f"{name} must be a sequence of at least one number, got {value!r}")
    return list(value)
