"""Models in files: what they are, and their parameters."""

import os
from typing import Any

import numpy as np

from rvtrain.checkpoint import load_checkpoint, save_checkpoint
from rvtrain.training._adapters import Adapter, LinearAdapter, MLPAdapter
from rvtrain.training._towers import EmbeddingTable, TwoTower

_ADAPTERS = {"LinearAdapter": (LinearAdapter, ("rank", "bias")), "MLPAdapter": (MLPAdapter, ("hidden",))}


def save_model(path: str | os.PathLike, model: Any) -> None:
    """Write a model to a file that `load_model` reads, atomically and without pickle.

    Parameters
    ----------
    path : str or path
    model : LinearAdapter, MLPAdapter, TwoTower or EmbeddingTable

    Raises
    ------
    TypeError
        If the model is none of these.
    OSError
        If the file cannot be written.

    References
    ----------
    The ``.npz`` format of NumPy, as in `save_checkpoint`.

    Examples
    --------
    >>> import os, tempfile
    >>> import rvtrain as rt
    >>> path = os.path.join(tempfile.mkdtemp(), "adapter.npz")
    >>> rt.save_model(path, rt.LinearAdapter(8, bias=True))
    >>> rt.load_model(path)
    LinearAdapter(8, 8, rank=None, bias=True, residual=True)
    """
    save_checkpoint(path, model=described(model))


def load_model(path: str | os.PathLike) -> Any:
    """The model that `save_model` wrote.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    LinearAdapter, MLPAdapter, TwoTower or EmbeddingTable

    Raises
    ------
    ValueError
        If the file is damaged, or holds no model.
    OSError
        If it cannot be read.

    References
    ----------
    The ``.npz`` format of NumPy, as in `load_checkpoint`.

    Examples
    --------
    >>> import os, tempfile
    >>> import rvtrain as rt
    >>> path = os.path.join(tempfile.mkdtemp(), "towers.npz")
    >>> rt.save_model(path, rt.TwoTower(rt.MLPAdapter(8), rt.LinearAdapter(4, 8)))
    >>> sorted(rt.load_model(path).params)[:2]
    ['document/weight', 'query/bias1']
    """
    found = load_checkpoint(path)
    if "model" not in found:
        raise ValueError(f"{os.fspath(path)!r} holds no model, but {sorted(found)}")
    try:
        return _made(found["model"])
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise ValueError(f"{os.fspath(path)!r} holds no model that can be read: {error!r}") from None


def described(model: Any) -> dict[str, Any]:
    """A model as plain values and arrays, which `save_checkpoint` takes under the name ``model``."""
    if isinstance(model, TwoTower):
        sides = {"query": model.query} if model.is_shared else {"query": model.query, "document": model.document}
        return {"kind": "TwoTower"} | {side: described(tower) for side, tower in sides.items()}
    if isinstance(model, EmbeddingTable):
        return {"kind": "EmbeddingTable", "params": model.params}
    kind = type(model).__name__
    if not isinstance(model, Adapter) or kind not in _ADAPTERS:
        raise TypeError(f"model must be an adapter, a TwoTower or an EmbeddingTable, got {kind}")
    names = ("in_features", "out_features", "residual", *_ADAPTERS[kind][1])
    return {"kind": kind, "options": {name: getattr(model, name) for name in names}, "params": model.params}


def _made(description: dict[str, Any]) -> Any:
    kind = description["kind"]
    if kind == "TwoTower":
        return TwoTower(*(_made(description[side]) for side in ("query", "document") if side in description))
    params = description["params"]
    dtype = next(iter(params.values())).dtype
    if kind == "EmbeddingTable":
        model: Any = EmbeddingTable(*params["weight"].shape, scale=0.0, dtype=dtype)
    else:
        model = _ADAPTERS[kind][0](**description["options"], dtype=dtype)
    if {name: value.shape for name, value in params.items()} != {name: v.shape for name, v in model.params.items()}:
        raise TypeError("parameters that do not fit its options")
    for name, value in params.items():
        np.copyto(model.params[name], value)
    return model
