"""Optimizers of rvtrain as optimizers of torch.

# Design: each parameter has an optimizer of rvtrain, which works in the memory of the parameter and of its gradient.
# torch's part is everything around it:
#
#     param_groups   options, which may change between steps; a changed option makes the optimizer of a parameter anew
#     state          tensors by torch's names, made from the optimizers where torch asks: copies, pickles, state_dict
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch

import rvtrain
from rvtrain.torch._optimizer_state import arrays_of, check_rule, fitted, for_adagrad_of_torch, tensors_of
from rvtrain.torch._tensors import in_place


class RvtrainOptimizer(torch.optim.Optimizer):
    r"""An optimizer of rvtrain for parameters of torch; its subclasses have the names and options of the optimizers.

    Gradients may be sparse, as of ``nn.Embedding(sparse=True)``: then rows are stepped, idle or exact by ``lazy``.
    State dicts of the optimizer of ``torch.optim`` of the same name are loaded here, and those of this one there. But
    torch has no equal of a state in 8 bits or of ``rowwise``; and with ``lazy="exact"``, call `catch_up` first.

    Parameters
    ----------
    params : iterable of Parameters, or of groups
        Contiguous, float32 or float64, on the CPU.
    \*args, \*\*options
        As of the optimizer of this name in rvtrain. ``nonfinite`` is "ignore" if not given, as in torch; "raise" and
        "skip" read all gradients before the first parameter is stepped.

    Raises
    ------
    TypeError, ValueError
        As the optimizer; and if a parameter is of another type or place, before any is stepped.

    Examples
    --------
    >>> import torch
    >>> from rvtrain.torch import AdamW
    >>> layer = torch.nn.Linear(2, 1)
    >>> optimizer = AdamW(layer.parameters(), lr=0.01, state_dtype="bfloat16")
    >>> layer(torch.ones(3, 2)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.state_dict()["state"][0]["exp_avg"].dtype
    torch.bfloat16
    """

    _kind: ClassVar[type]
    _names: ClassVar[tuple[str, ...]]

    def __init__(self, params: Any, *args: Any, **options: Any) -> None:
        call = inspect.signature(self._kind).bind(1, *args, **{"nonfinite": "ignore"} | options)
        if "groups" in call.arguments:
            raise TypeError("groups must be given in torch's way, as params=[{'params': …, 'lr': …}, …]")
        call.apply_defaults()
        defaults = {name: call.arguments[name] for name in self._names}
        self._kind(1, **defaults)
        self._made: dict[torch.Tensor, tuple[dict[str, Any], Any]] = {}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with options of their own."""
        super().add_param_group(param_group)
        try:
            added = self.param_groups[-1]
            self._kind(1, **self._options(added))
            for p in added["params"]:
                in_place("params", p)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step all parameters that have a gradient; returns what `closure` returns, which computes the gradients."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        ready = [
            (group, p, *_gradient(p)) for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        if not self._may_step(ready):
            return value
        for group, p, gradient, rows in ready:
            optimizer = self._optimizer(group, p)
            optimizer.learning_rate = float(group["lr"])
            optimizer.step(in_place("params", p), gradient, rows=rows)
            torch.autograd.graph.increment_version(p)  # so that a backward through older values is refused
        return value

    def state_dict(self) -> dict[str, Any]:
        """The state in torch's form."""
        self._tell()
        state = super().state_dict()
        return for_adagrad_of_torch(state, self.param_groups) if self._kind is rvtrain.Adagrad else state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state, of this optimizer or of the one of ``torch.optim`` with the same rule.

        Moments become bfloat16 where ``state_dtype`` is that. ValueError, before anything is changed, if it is int8
        and they are not, or if a group has an option of ``torch.optim`` that this rule lacks.
        """
        check_rule(self._kind, state_dict["param_groups"])
        saved: dict[Any, dict[str, torch.Tensor]] = {}
        for group in state_dict["param_groups"]:
            kind = group.get("state_dtype", self.defaults.get("state_dtype", "float32"))
            there = state_dict["state"]
            saved |= {key: fitted(there[key], kind) for key in group["params"] if key in there}
        super().load_state_dict(dict(state_dict))
        given = [key for group in state_dict["param_groups"] for key in group["params"]]
        own = [p for group in self.param_groups for p in group["params"]]
        for key, p in zip(given, own, strict=True):
            if key in saved:  # as saved: torch has cast it to the type of the parameter
                self.state[p] = saved[key]
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        self._made = {}

    @torch.no_grad()
    def catch_up(self, param: torch.Tensor | None = None, rows: Any = None) -> None:
        """Apply the steps that idle rows have missed under ``lazy="exact"``, before the rows are read.

        Parameters
        ----------
        param : Parameter, optional
            A table; all parameters if not given.
        rows : integer tensor or array, optional
            The rows of `param` that are read next; all if not given.
        """
        if param is None and rows is not None:
            raise ValueError("rows must be given with the param whose rows they are, got no param")
        for p, (_, optimizer) in self._made.items():
            if param is None or p is param:
                optimizer.catch_up(in_place("params", p), rows=None if rows is None else np.unique(np.asarray(rows)))

    def __getstate__(self) -> dict[str, Any]:
        self._tell()
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._made = {}

    def _options(self, group: dict[str, Any]) -> dict[str, Any]:
        """The options of a group for the optimizers of its parameters."""
        options = {name: group[name] for name in self._names}
        return options | {"lr": float(group["lr"])}

    def _may_step(self, ready: list[tuple[dict[str, Any], torch.Tensor, Any, Any]]) -> bool:
        """Whether all gradients that are to be finite are so; ValueError if one must be."""
        for group, p, gradient, _ in ready:
            if group["nonfinite"] != "ignore" and not np.isfinite(gradient).all():
                if group["nonfinite"] == "skip":
                    return False
                raise ValueError(
                    f"gradient of a parameter of shape {tuple(p.shape)} must be finite; nothing is stepped"
                )
        return True

    def _optimizer(self, group: dict[str, Any], p: torch.Tensor) -> Any:
        """The optimizer of a parameter, made or made anew where there is none of these options."""
        options = self._options(group) | {"nonfinite": "ignore"}
        kept = {name: value for name, value in options.items() if name != "lr"}
        made = self._made.get(p)
        if made is not None and made[0] == kept:
            return made[1]
        if made is not None:
            self.state[p] = tensors_of(made[1])
        optimizer = self._kind(tuple(p.shape) or 1, **options)
        if self.state.get(p):
            optimizer.load_state_dict(arrays_of(optimizer, self.state[p]))
        self._made[p] = kept, optimizer
        return optimizer

    def _tell(self) -> None:
        """Put the state of all optimizers where torch looks for it."""
        for p, (_, optimizer) in getattr(self, "_made", {}).items():
            self.state[p] = tensors_of(optimizer)


def _gradient(p: torch.Tensor) -> tuple[Any, Any]:
    """(gradient, None), or (rows of the gradient, their numbers) of a sparse one."""
    assert p.grad is not None
    in_place("params", p)
    if not p.grad.is_sparse:
        return p.grad.detach().numpy().reshape(tuple(p.shape) or (1,)), None
    if p.ndim != 2 or p.grad.sparse_dim() != 1:
        raise TypeError(f"a sparse gradient must be one of rows of a matrix, got one of shape {tuple(p.grad.shape)}")
    summed = p.grad.coalesce()
    return summed.values().numpy(), summed.indices()[0].numpy()


class _Averaging(RvtrainOptimizer):
    """An optimizer that moves the parameters between the point of the gradients and the averages."""

    @torch.no_grad()
    def train(self) -> None:
        """Move the parameters to where gradients are taken."""
        for p, (_, optimizer) in self._made.items():
            optimizer.train(in_place("params", p))

    @torch.no_grad()
    def eval(self) -> None:
        """Move the parameters to the averages, which are evaluated and saved."""
        for p, (_, optimizer) in self._made.items():
            optimizer.eval(in_place("params", p))


def _optimizer_of(kind: type, base: type = RvtrainOptimizer) -> type:
    """The optimizer of torch for one of rvtrain."""
    doc = (
        f"`rvtrain.{kind.__name__}` for parameters of torch: see `RvtrainOptimizer`, and the optimizer for its rule."
    )
    options = tuple(name for name in inspect.signature(kind).parameters if name not in ("params", "groups"))
    names = {"_kind": kind, "_names": options, "__doc__": doc}
    return type(kind.__name__, (base,), names | {"__module__": "rvtrain.torch", "__qualname__": kind.__name__})


SGD = _optimizer_of(rvtrain.SGD)
Adam = _optimizer_of(rvtrain.Adam)
AdamW = _optimizer_of(rvtrain.AdamW)
Lion = _optimizer_of(rvtrain.Lion)
Adagrad = _optimizer_of(rvtrain.Adagrad)
ScheduleFreeAdamW = _optimizer_of(rvtrain.ScheduleFreeAdamW, _Averaging)
