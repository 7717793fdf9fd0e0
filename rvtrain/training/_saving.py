"""Models in files: what they are, and their parameters."""

import os
from typing import Any

import numpy as np

from rvtrain.checkpoint import load_checkpoint, save_checkpoint
from rvtrain.text._ngrams import HashedNgrams
from rvtrain.training._bag_encoder import BagEncoder
from rvtrain.training._linear import LinearAdapter
from rvtrain.training._mlp import MLPAdapter
from rvtrain.training._models import Model
from rvtrain.training._sequential import Sequential
from rvtrain.training._towers import EmbeddingTable, Frozen, TwoTower

_ADAPTERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "LinearAdapter": (LinearAdapter, ("rank", "bias")),
    "MLPAdapter": (MLPAdapter, ("hidden",)),
}


def save_model(path: str | os.PathLike[str], model: Model | TwoTower[Any, Any] | EmbeddingTable) -> None:
    """Write a model to a file that `load_model` reads, atomically and without pickle.

    Parameters
    ----------
    path : str or path
    model : LinearAdapter, MLPAdapter, Sequential, TwoTower, BagEncoder or EmbeddingTable
        And made of these. Of a class of your own, save the parameters:
        ``save_checkpoint(path, params=model.params)``.

    Raises
    ------
    TypeError
        If the model, or a part of it, is none of these; the message names the part, and no file is written.
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


def load_model(path: str | os.PathLike[str]) -> Any:
    """The model that `save_model` wrote.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    LinearAdapter, MLPAdapter, Sequential, TwoTower, BagEncoder or EmbeddingTable

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
    return _described("model", model)


def _described(name: str, model: Any) -> dict[str, Any]:
    kind = type(model).__name__
    if type(model) is TwoTower:
        document: Any = "shared"
        if not model.is_shared:
            frozen = isinstance(model.document, Frozen)
            document = "frozen" if frozen else _described(f"{name}.document", model.document)
        return {"kind": kind, "query": _described(f"{name}.query", model.query), "document": document}
    if type(model) is Sequential:
        links = [_described(f"{name}[{place}]", link) for place, link in enumerate(model.models)]
        return {"kind": kind, "models": links}
    if type(model) is EmbeddingTable:
        return {"kind": kind, "params": model.params}
    if type(model) is BagEncoder:
        features = model.features
        if features is not None and type(features) is not HashedNgrams:
            raise TypeError(f"{name}.features must be a HashedNgrams, got {type(features).__name__}")
        state = None if features is None else features.state_dict()
        return {"kind": kind, "mode": model.mode, "features": state, "params": model.params}
    if type(model) not in [made for made, _ in _ADAPTERS.values()]:
        remedy = ""
        if isinstance(getattr(model, "params", None), dict):
            remedy = "; of a class of your own save the parameters: save_checkpoint(path, params=model.params)"
        wanted = "an adapter, a Sequential, a TwoTower, a BagEncoder or an EmbeddingTable"
        raise TypeError(f"{name} must be {wanted}, got {kind}{remedy}")
    names = ("in_features", "out_features", "residual", *_ADAPTERS[kind][1])
    return {"kind": kind, "options": {option: getattr(model, option) for option in names}, "params": model.params}


def _made(description: dict[str, Any]) -> Any:
    kind = description["kind"]
    if kind == "TwoTower":
        document: Any = description["document"]
        document = document if isinstance(document, str) else _made(document)
        return TwoTower(_made(description["query"]), document)
    if kind == "Sequential":
        return Sequential(*map(_made, description["models"]))
    params = description["params"]
    dtype = next(iter(params.values())).dtype
    if kind == "EmbeddingTable":
        model: Any = EmbeddingTable(*params["weight"].shape, scale=0.0, dtype=dtype)
    elif kind == "BagEncoder":
        state = description["features"]
        features = None if state is None else HashedNgrams.from_state_dict(state)
        n_rows, dim = params["table"].shape
        model = BagEncoder(n_rows, dim, description["mode"], features=features, scale=0.0, dtype=dtype)
    else:
        model = _ADAPTERS[kind][0](**description["options"], dtype=dtype)
    if {name: value.shape for name, value in params.items()} != {name: v.shape for name, v in model.params.items()}:
        raise TypeError("parameters that do not fit its options")
    for name, value in params.items():
        np.copyto(model.params[name], value)
    return model
