"""Models in files: what they are, and their parameters."""

import json
import os
from typing import Any

import numpy as np

from rvtrain import _safetensors
from rvtrain import _validation as check
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


FORMATS = ("npz", "safetensors")
_STRUCTURE = "rvtrain-model"
"""The entry of a safetensors file's metadata that holds the model's description as JSON."""


def save_model(
    path: str | os.PathLike[str],
    model: Model | TwoTower[Any, Any] | EmbeddingTable,
    *,
    format: str = "npz",
) -> None:
    """Write a model to a file that `load_model` reads, atomically and without pickle.

    Parameters
    ----------
    path : str or path
    model : LinearAdapter, MLPAdapter, Sequential, TwoTower, BagEncoder or EmbeddingTable
        And made of these. Of a class of your own, save the parameters:
        ``save_checkpoint(path, params=model.params)``.
    format : {"npz", "safetensors"}
        "npz": NumPy's, as in `save_checkpoint`. "safetensors": that of Hugging Face, which other programs and
        languages read. The arrays have their names in ``model.params``, with points: ``query.weight``. What else the
        model is stands in the metadata.

    Raises
    ------
    TypeError
        If the model, or a part of it, is none of these; the message names the part, and no file is written.
    ValueError
        If the format is none of these.
    OSError
        If the file cannot be written.

    References
    ----------
    https://huggingface.co/docs/safetensors, for the format.

    Examples
    --------
    >>> import os, tempfile
    >>> import rvtrain as rt
    >>> path = os.path.join(tempfile.mkdtemp(), "adapter.npz")
    >>> rt.save_model(path, rt.LinearAdapter(8, bias=True))
    >>> rt.load_model(path)
    LinearAdapter(8, 8, rank=None, bias=True, residual=True)
    >>> path = os.path.join(tempfile.mkdtemp(), "adapter.safetensors")
    >>> rt.save_model(path, rt.LinearAdapter(8, bias=True), format="safetensors")
    >>> rt.load_model(path)
    LinearAdapter(8, 8, rank=None, bias=True, residual=True)
    """
    check.choice("format", format, FORMATS)
    description = described(model)
    if format == "npz":
        save_checkpoint(path, model=description)
        return
    arrays: dict[str, np.ndarray] = {}
    structure = json.dumps(_without_arrays(description, (), arrays))
    _safetensors.write(path, arrays, {"format": "np", _STRUCTURE: structure})


def load_model(path: str | os.PathLike[str]) -> Any:
    """The model that `save_model` wrote, in either format.

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
    The ``.npz`` format of NumPy and the safetensors format, as in `save_model`.

    Examples
    --------
    >>> import os, tempfile
    >>> import rvtrain as rt
    >>> path = os.path.join(tempfile.mkdtemp(), "towers.npz")
    >>> rt.save_model(path, rt.TwoTower(rt.MLPAdapter(8), rt.LinearAdapter(4, 8)))
    >>> sorted(rt.load_model(path).params)[:2]
    ['document/weight', 'query/bias1']
    """
    description = _read(path) if is_safetensors(path) else load_checkpoint(path)
    if "model" not in description:
        raise ValueError(f"{os.fspath(path)!r} holds no model, but {sorted(description)}")
    try:
        return _made(description["model"])
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise ValueError(f"{os.fspath(path)!r} holds no model that can be read: {error!r}") from None


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as one of the safetensors format."""
    with open(path, "rb") as file:
        return _safetensors.begins(file)


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The description of a model in a safetensors file, under the name ``model``; without one, its arrays."""
    with open(path, "rb") as file:
        try:
            arrays, metadata = _safetensors.read(file)
            if _STRUCTURE not in metadata:
                return dict(arrays)
            return {"model": _with_arrays(json.loads(metadata[_STRUCTURE]), arrays)}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{os.fspath(path)!r} is damaged or no safetensors file: {error}") from None


_ARRAY, _TUPLE = "array", "tuple"
"""The one key of a dict that stands for an array, whose name is its value, or for a tuple, whose items are."""


def _without_arrays(value: Any, path: tuple[str, ...], arrays: dict[str, np.ndarray]) -> Any:
    """A description as JSON holds it, with names in place of arrays, which are added to `arrays`."""
    if isinstance(value, dict):
        return {key: _without_arrays(item, (*path, key), arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_without_arrays(item, (*path, str(place)), arrays) for place, item in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    if not isinstance(value, np.ndarray):
        return value
    name = ".".join(part for part in path if part not in ("params", "models"))
    arrays[name] = value
    return {_ARRAY: name}


def _with_arrays(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What `_without_arrays` was given."""
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {_ARRAY}:
        return arrays[value[_ARRAY]]
    if set(value) == {_TUPLE}:
        return tuple(_with_arrays(item, arrays) for item in value[_TUPLE])
    return {key: _with_arrays(item, arrays) for key, item in value.items()}


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
