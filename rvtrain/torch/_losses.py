"""Every loss of rvtrain as a module of torch.

# Design: one autograd function serves all losses, because they share one call:
#
#     forward    tensors ──(no copy)──▶ arrays ──▶ loss.compute_with_gradients(…, wrt=names of inputs with gradients)
#     backward   the gradients that the forward has computed, times the gradient of the value
#
# With reduction="none" each value has a gradient of its own. Then the forward computes values only, and the backward
# calls compute_with_gradients with these gradients as sample_weight.
#
# The names of a loss's arguments are those of its method `compute`. A tensor that requires a gradient is one that the
# loss can differentiate by, or it is refused.
"""

import copy
import inspect
import math
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import rvtrain
from rvtrain.torch._tensors import array_of

_GRADIENTS = ("anchors", "positives", "negatives", "embeddings", "references", "a", "b", "edge_weights")
"""Arguments by which losses are differentiated."""
_MOST_LOGIT_SCALE = math.log(100.0)
"""As CLIP bounds the logarithm of 1 / τ."""


class LossModule(nn.Module):
    r"""A loss of rvtrain as a module; its subclasses have the names and arguments of the losses.

    Calls take the arguments of the loss's method ``compute``, as tensors on the CPU, arrays or lists, and return a
    tensor: the value, through which `backward` goes by the analytic gradients of the loss. The gradients are computed
    with the value, and only those of tensors that require one; with ``reduction="none"`` they are computed in the
    backward pass, weighted by the gradients of the values. No tensor is copied, unless it is of 16 bits, which is
    computed in float32.

    Parameters
    ----------
    \*args, \*\*kwargs
        As of the loss of this name in rvtrain.

    Attributes
    ----------
    loss
        The loss itself. Its numbers may be changed.
    logit_scale, logit_bias : nn.Parameter
        Of losses with ``learn_temperature=True`` or ``learn=True``: log(1/τ), at most log 100 as in CLIP, or the
        logarithm of the scale; and the bias of the sigmoid loss. They take the place of the loss's own numbers.

    Raises
    ------
    TypeError, ValueError
        As the loss; and if a tensor is not on the CPU, or requires a gradient that the loss does not have.
    RuntimeError
        If a second derivative is asked for; if an input was changed in place between forward and backward with
        ``reduction="none"``; or if the values of a loss without the argument ``sample_weight`` get unequal gradients.

    Examples
    --------
    >>> import torch
    >>> from rvtrain.torch import InfoNCELoss
    >>> x = torch.eye(3, requires_grad=True)
    >>> loss = InfoNCELoss(temperature=0.5)(x, torch.eye(3))
    >>> loss.backward()
    >>> round(loss.item(), 4), x.grad.shape
    (0.2395, torch.Size([3, 3]))
    """

    _kind: ClassVar[type]
    loss: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        unwrapped = [value.loss if isinstance(value, LossModule) else value for value in args]
        named = {name: value.loss if isinstance(value, LossModule) else value for name, value in kwargs.items()}
        self.loss = self._kind(*unwrapped, **named)
        self._owner = self.loss  # the loss that a MatryoshkaLoss wraps has the arguments and the parameters
        while hasattr(self._owner, "loss"):
            self._owner = self._owner.loss
        self._call = inspect.signature(self._owner.compute)
        for name in self._learnable:
            value = _inner(name, float(getattr(self._owner, name)))
            self.register_parameter(_PARAMETERS[name], nn.Parameter(torch.tensor(value, dtype=torch.float64)))

    @property
    def _learnable(self) -> tuple[str, ...]:
        return tuple(getattr(self._owner, "learnable", ()))

    def extra_repr(self) -> str:
        """The loss with its numbers."""
        return repr(self.loss)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The value of the loss: a scalar, or (B,) with ``reduction="none"``."""
        given = self._call.bind(*args, **kwargs).arguments
        tensors = {name: x for name, x in given.items() if isinstance(x, torch.Tensor)}
        by = {name: x for name, x in tensors.items() if x.requires_grad and torch.is_grad_enabled()}
        for name in by:
            if name not in _GRADIENTS:
                raise TypeError(f"{name} must not require a gradient, since {self._kind.__name__} has none by it")
        own = {name: getattr(self, _PARAMETERS[name]) for name in self._learnable}
        for name, parameter in own.items():
            if name == "temperature" and parameter.item() > _MOST_LOGIT_SCALE:
                with torch.no_grad():
                    parameter.fill_(_MOST_LOGIT_SCALE)
            setattr(self._owner, name, _outer(name, parameter.item()))
        arrays = {name: array_of(name, x) for name, x in given.items()}
        by |= {name: x for name, x in own.items() if x.requires_grad and torch.is_grad_enabled()}
        each = getattr(self.loss, "reduction", None) == "none" and "sample_weight" in self._call.parameters
        later = _Later(copy.deepcopy(self.loss), arrays, tuple(by), tensors) if each and by else None
        found: torch.Tensor = _Value.apply(self.loss, arrays, tuple(by), later, *by.values())
        return found


class _Later:
    """A call of a loss with ``reduction="none"``, whose gradients are computed in the backward pass."""

    def __init__(
        self, loss: Any, arrays: dict[str, Any], names: tuple[str, ...], tensors: dict[str, torch.Tensor]
    ) -> None:
        self.loss, self.arrays, self.names = loss, arrays, names
        self._versions = [(name, x, x._version) for name, x in tensors.items() if not x.is_inference()]

    def gradients(self, by: NDArray[np.float64]) -> list[Any]:
        """Gradients of Σ by[i] · value[i] to the named arguments; by has any sign, but weights are at least 0."""
        for name, x, version in self._versions:
            if x._version != version:
                raise RuntimeError(
                    f"{name} was changed by an inplace operation after the loss was computed: its version is "
                    f"{x._version}, and must be {version}"
                )
        given = self.arrays.get("sample_weight")
        weights = by if given is None else by * np.asarray(given, np.float64)
        shapes = [np.shape(self.arrays.get(name, 0.0)) for name in self.names]
        if not np.isfinite(weights).all():  # as from a GradScaler whose scale is too large
            return [np.full(shape, np.nan) for shape in shapes]
        total: list[Any] | None = None
        for sign in (1.0, -1.0):
            part = np.maximum(sign * weights, 0.0)
            if part.any():
                call = self.arrays | {"sample_weight": part}
                found = self.loss.compute_with_gradients(**call, wrt=self.names)[1]
                signed = found if sign > 0 else [-g for g in found]
                total = list(signed) if total is None else [t + g for t, g in zip(total, signed, strict=True)]
        return [np.zeros(shape) for shape in shapes] if total is None else total


class _Value(torch.autograd.Function):
    """The value of a loss, and its gradients by some of its arguments."""

    @staticmethod
    def forward(
        ctx: Any,
        loss: Any,
        arrays: dict[str, Any],
        names: tuple[str, ...],
        later: _Later | None,
        *tensors: torch.Tensor,
    ) -> Any:
        double = any(getattr(x, "dtype", None) == np.float64 for name, x in arrays.items() if name in _GRADIENTS)
        dtype = torch.float64 if double else torch.float32
        if not names:
            return torch.as_tensor(loss.compute(**arrays), dtype=dtype)
        ctx.later, ctx.gradients = later, None
        ctx.slopes = [
            _slope(name, tensor.item()) if name in _PARAMETERS else 1.0
            for name, tensor in zip(names, tensors, strict=True)
        ]
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        if later is not None:
            return torch.as_tensor(loss.compute(**arrays), dtype=dtype)
        value, gradients = loss.compute_with_gradients(**arrays, wrt=names)
        ctx.gradients = [torch.as_tensor(g) for g in gradients]
        return torch.as_tensor(value, dtype=dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "losses of rvtrain.torch have no second derivative: call backward or grad without create_graph=True"
            )
        by = upstream[0]
        if ctx.later is not None:
            gradients = [torch.as_tensor(g) for g in ctx.later.gradients(by.double().numpy())]
            by = torch.ones((), dtype=torch.float64)
        else:
            gradients = ctx.gradients
            if by.ndim and len(by) and not bool((by == by[0]).all()):
                raise RuntimeError(
                    "the values of this loss must have equal gradients, as of their sum or mean, because it has no "
                    "argument sample_weight"
                )
            by = by.flatten()[0]
        scaled = zip(gradients, ctx.slopes, ctx.dtypes, strict=True)
        return None, None, None, None, *((g * (slope * by).to(g.dtype)).to(dtype) for g, slope, dtype in scaled)


_PARAMETERS = {"temperature": "logit_scale", "scale": "logit_scale", "bias": "logit_bias"}
"""Names of learnable numbers of losses, and of the parameters that they are made of."""


def _inner(name: str, value: float) -> float:
    """The parameter that stands for this number."""
    return {"temperature": -1.0, "scale": 1.0}[name] * math.log(value) if name != "bias" else value


def _outer(name: str, inner: float) -> float:
    """The number that a parameter stands for."""
    return {"temperature": math.exp(-inner), "scale": math.exp(inner)}[name] if name != "bias" else inner


def _slope(name: str, inner: float) -> float:
    """The derivative of the number by its parameter."""
    return {"temperature": -math.exp(-inner), "scale": math.exp(inner)}[name] if name != "bias" else 1.0


def _module(kind: type) -> type:
    """The module of a loss."""
    doc = (
        f"`rvtrain.{kind.__name__}` as a module: see `LossModule` for calls, and the loss for arguments and formula."
    )
    names = {"_kind": kind, "__doc__": doc, "__module__": "rvtrain.torch", "__qualname__": kind.__name__}
    return type(kind.__name__, (LossModule,), names)


CoSENTLoss = _module(rvtrain.CoSENTLoss)
CosineSimilarityLoss = _module(rvtrain.CosineSimilarityLoss)
DecoupledContrastiveLoss = _module(rvtrain.DecoupledContrastiveLoss)
DistillKLLoss = _module(rvtrain.DistillKLLoss)
HardNegativeContrastiveLoss = _module(rvtrain.HardNegativeContrastiveLoss)
InfoNCELoss = _module(rvtrain.InfoNCELoss)
ListNetLoss = _module(rvtrain.ListNetLoss)
LocalContrastiveLoss = _module(rvtrain.LocalContrastiveLoss)
MarginMSELoss = _module(rvtrain.MarginMSELoss)
MatryoshkaLoss = _module(rvtrain.MatryoshkaLoss)
MultiSimilarityLoss = _module(rvtrain.MultiSimilarityLoss)
SigmoidLoss = _module(rvtrain.SigmoidLoss)
SpectralRegularization = _module(rvtrain.SpectralRegularization)
SpreadRegularization = _module(rvtrain.SpreadRegularization)
SupConLoss = _module(rvtrain.SupConLoss)
