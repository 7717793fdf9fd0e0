"""Adapters as one matrix and one vector."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvtrain import _validation as check
from rvtrain.training import BagEncoder, LinearAdapter, MLPAdapter, Sequential, TwoTower
from rvtrain.training._models import Floats
from rvtrain.training._towers import Frozen

SIDES = ("query", "document")


def to_arrays(model: Any, side: str | None = None) -> dict[str, Floats]:
    r"""A linear model as arrays, with which NumPy alone computes its outputs.

    .. math:: f(x) = x W + b

    Residuals, low ranks and chains of linear maps are multiplied out, in float64.

    Parameters
    ----------
    model : LinearAdapter, Sequential of linear adapters, or TwoTower of these
    side : {"query", "document"}, optional
        The tower of a `TwoTower`. None: both.

    Returns
    -------
    dict of arrays
        ``weight`` (in_features, out_features) and ``bias`` (out_features,), in the model's dtype. Of a `TwoTower`
        with two models and no side: ``query_weight``, ``query_bias``, ``document_weight`` and ``document_bias``.

    Raises
    ------
    TypeError
        If the model is none of these.
    ValueError
        If it is not linear, or frozen documents have no known size.

    Examples
    --------
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> from rvtrain.export import to_arrays
    >>> adapter = rt.LinearAdapter(4, rank=2, bias=True)
    >>> arrays = to_arrays(adapter)
    >>> x = np.ones((3, 4), np.float32)
    >>> np.array_equal(x @ arrays["weight"] + arrays["bias"], adapter.transform(x))
    True
    """
    found = towers(model, side)
    prefix = {name: f"{name}_" if len(found) > 1 else "" for name in found}
    return {
        f"{prefix[name]}{part}": value
        for name, tower in found.items()
        for part, value in zip(("weight", "bias"), linear_map(tower), strict=True)
    }


def towers(model: Any, side: str | None = None) -> dict[str, Any]:
    """The models to export, by side: one, under the name "query", unless there are two and no side is chosen."""
    if side is not None:
        check.choice("side", side, SIDES)
    if not isinstance(model, TwoTower):
        return {"query": model}
    if side is not None:
        return {side: getattr(model, side)}
    return {"query": model.query} if model.is_shared else {name: getattr(model, name) for name in SIDES}


def links(model: Any) -> list[Any]:
    """The adapters of a model in the order of their use; TypeError if it has another part than adapters."""
    if type(model) is Sequential:
        return [link for part in model for link in links(part)]
    if type(model) in (LinearAdapter, MLPAdapter):
        return [model]
    if isinstance(model, Frozen):
        return []
    what = "a BagEncoder, which reads texts" if type(model) is BagEncoder else type(model).__name__
    raise TypeError(f"model must be made of LinearAdapter and MLPAdapter to be exported, got {what}")


def linear_map(model: Any) -> tuple[Floats, Floats]:
    """W and b of a linear model, multiplied out; ValueError if it is not linear."""
    parts = links(model)
    if not parts and model.in_features is None:
        raise ValueError("documents of a frozen side must have a known size, got a query model that tells none")
    if any(type(part) is MLPAdapter for part in parts):
        raise ValueError("model must be linear to be one matrix, got an MLPAdapter")
    dtype = parts[-1].dtype if parts else model.dtype
    weight = np.eye(parts[0].in_features if parts else model.in_features)
    bias = np.zeros(weight.shape[1])
    for part in parts:
        own, offset = _of_link(part)
        weight, bias = weight @ own, bias @ own + offset
    return weight.astype(dtype), bias.astype(dtype)


def _of_link(adapter: LinearAdapter) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """W, with the identity of a residual added, and b."""
    params = {name: value.astype(np.float64) for name, value in adapter.params.items()}
    weight = params["weight"] if adapter.rank is None else params["down"] @ params["up"]
    if adapter.residual:
        weight = weight + np.eye(len(weight))
    return weight, params.get("bias", np.zeros(adapter.out_features))
