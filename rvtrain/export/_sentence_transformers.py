"""Adapters as modules of sentence-transformers: a folder that ``SentenceTransformer`` loads."""

import json
import os
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from rvtrain import _safetensors
from rvtrain._atomic import new_folder
from rvtrain.export._arrays import linear_map, links, towers
from rvtrain.training import MLPAdapter, Sequential
from rvtrain.training._models import Floats

_TYPES = "sentence_transformers.models."
_OWN_FILE = "modeling_rvtrain.py"
"""The file with the class of an MLPAdapter, in the root of the folder."""
_MLP_NAMES = {"norm.weight": "gain", "norm.bias": "shift", "hidden.bias": "bias1", "linear.bias": "bias2"}
_MLP_WEIGHTS = {"hidden.weight": "weight1", "linear.weight": "weight2"}


def to_sentence_transformers(
    model: Any,
    folder: str | os.PathLike[str],
    *,
    encoder: Any = None,
    side: str | None = None,
) -> None:
    """Write adapters as modules of sentence-transformers, behind their encoder if it is given.

    Linear adapters become one ``Dense`` without an activation, since a residual and a low rank are a matrix too,
    x + x A B = x (I + A B). Two towers become a ``Router``, of which ``encode_query`` and ``encode_document`` choose
    the route; ``encode`` takes that of documents. An `MLPAdapter` has no equal among their modules, and becomes a
    module whose code is in the folder: it is loaded with ``trust_remote_code=True``.

    Parameters
    ----------
    model : LinearAdapter, MLPAdapter, Sequential of these, or TwoTower of these
        Weights are written in float32.
    folder : str or path
        A new folder, or an empty one; its parent exists. It appears when it is complete.
    encoder : str, path or SentenceTransformer, optional
        The model whose embeddings the adapters take: a folder that it was saved to, or the model itself. The folder
        then is the whole model. None: the adapters alone, to be joined in Python.
    side : {"query", "document"}, optional
        Write this tower of a `TwoTower` alone.

    Raises
    ------
    TypeError
        If a part of the model is none of these.
    ValueError
        If two towers take inputs of different sizes, or `encoder` is no folder of a model.
    FileExistsError
        If the folder is not empty.
    OSError
        If it cannot be written.

    References
    ----------
    Reimers & Gurevych (2019), Sentence-BERT, arXiv:1908.10084.

    Examples
    --------
    >>> import os, tempfile
    >>> import rvtrain as rt
    >>> from rvtrain.export import to_sentence_transformers
    >>> folder = os.path.join(tempfile.mkdtemp(), "adapter")
    >>> to_sentence_transformers(rt.LinearAdapter(384), folder)
    >>> sorted(os.listdir(folder))
    ['0_Dense', 'config_sentence_transformers.json', 'modules.json']
    >>> from sentence_transformers import SentenceTransformer  # doctest: +SKIP
    >>> encoder = SentenceTransformer("all-MiniLM-L6-v2")  # doctest: +SKIP
    >>> adapted = SentenceTransformer(modules=[*encoder, *SentenceTransformer(folder)])  # doctest: +SKIP
    """
    found = towers(model, side)
    sizes = {name: _in_features(tower) for name, tower in found.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"towers must take inputs of one size, or be exported side by side, got {sizes}")
    modules = {name: list(_modules(tower)) for name, tower in found.items()}
    with new_folder(folder) as root:
        listed = _written_encoder(encoder, root)
        if len(modules) == 1:
            for module in next(iter(modules.values())):
                place = f"{len(listed)}_{_short(module.kind)}"
                _write_module(root / place, module)
                listed.append(_entry(len(listed), place, module.kind))
        else:
            place = f"{len(listed)}_Router"
            _write_router(root / place, modules)
            listed.append(_entry(len(listed), place, f"{_TYPES}Router"))
        if any(module.kind.endswith(".MLPAdapter") for part in modules.values() for module in part):
            shutil.copyfile(Path(__file__).with_name("_torch_mlp.py"), root / _OWN_FILE)
        _write_json(root / "modules.json", listed)
        if not (root / "config_sentence_transformers.json").exists():
            settings: dict[str, Any] = {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
            _write_json(root / "config_sentence_transformers.json", settings)


class _Module:
    """A module to write: its class, its configuration, and its weights in torch's layout."""

    def __init__(self, kind: str, config: dict[str, Any], weights: dict[str, Floats]) -> None:
        self.kind, self.config, self.weights = kind, config, weights


def _modules(tower: Any) -> Iterator[_Module]:
    """The modules of a tower; neighbouring linear adapters are one."""
    parts = links(tower)
    if not parts:  # frozen documents
        yield _Module(f"{_TYPES}Dropout", {"dropout": 0.0}, {})
    for is_mlp, group in groupby(parts, lambda part: type(part) is MLPAdapter):
        if is_mlp:
            yield from map(_mlp, group)
        else:
            yield _dense(*linear_map(Sequential(*group)))


def _dense(weight: Floats, bias: Floats) -> _Module:
    """``Dense`` of x W + b; torch's weights are transposed."""
    config = {
        "in_features": weight.shape[0], "out_features": weight.shape[1], "bias": bool(bias.any()),
        "activation_function": "torch.nn.modules.linear.Identity",
    }  # fmt: skip
    weights = {"linear.weight": weight.T} | ({"linear.bias": bias} if bias.any() else {})
    return _Module(f"{_TYPES}Dense", config, weights)


def _mlp(adapter: MLPAdapter) -> _Module:
    config = {
        "in_features": adapter.in_features, "out_features": adapter.out_features, "hidden_features": adapter.hidden,
        "use_residual": adapter.residual,
    }  # fmt: skip
    weights = {name: adapter.params[own] for name, own in _MLP_NAMES.items()}
    weights |= {name: adapter.params[own].T for name, own in _MLP_WEIGHTS.items()}
    return _Module(f"{Path(_OWN_FILE).stem}.MLPAdapter", config, weights)


def _written_encoder(encoder: Any, root: Path) -> list[dict[str, Any]]:
    """Write the encoder to the folder, if there is one; returns the entries of its modules."""
    if encoder is None:
        return []
    if isinstance(encoder, (str, os.PathLike)):
        source = Path(encoder)
        if not (source / "modules.json").is_file():
            raise ValueError(f"encoder must be the folder of a SentenceTransformer, got {os.fspath(encoder)!r}")
        shutil.copytree(source, root, dirs_exist_ok=True)
    elif callable(getattr(encoder, "save", None)):
        encoder.save(str(root))
    else:
        raise TypeError(f"encoder must be a folder or a SentenceTransformer, got {type(encoder).__name__}")
    listed: list[dict[str, Any]] = json.loads((root / "modules.json").read_text(encoding="utf-8"))
    return listed


def _write_router(folder: Path, modules: dict[str, list[_Module]]) -> None:
    types, structure = {}, {}
    for side, parts in modules.items():
        names = [f"{side}_{place}_{_short(part.kind)}" for place, part in enumerate(parts)]
        structure[side] = names
        for name, part in zip(names, parts, strict=True):
            types[name] = part.kind
            _write_module(folder / name, part)
    parameters = {"default_route": "document", "allow_empty_key": True}
    _write_json(folder / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})


def _write_module(folder: Path, module: _Module) -> None:
    folder.mkdir(parents=True)
    _write_json(folder / "config.json", module.config)
    if module.weights:
        weights = {name: value.astype(np.float32) for name, value in module.weights.items()}
        with open(folder / "model.safetensors", "xb") as file:
            _safetensors.write_to(file, weights, {"format": "pt"})


def _entry(index: int, place: str, kind: str) -> dict[str, Any]:
    return {"idx": index, "name": str(index), "path": place, "type": kind}


def _short(kind: str) -> str:
    return kind.rsplit(".", 1)[1]


def _in_features(tower: Any) -> int | None:
    parts = links(tower)
    return parts[0].in_features if parts else tower.in_features


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
