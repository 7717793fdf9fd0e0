"""Checkpoints: one file that ``np.load`` reads, without pickle, always whole."""

import json
import os
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_STRUCTURE = "rvtrain-checkpoint"
"""The array that holds, as UTF-8 JSON, how the others make up the objects."""


def save_checkpoint(path: str | os.PathLike, **objects: Any) -> None:
    """Save objects under their names, so that the file is always either the old or the new one.

    The file is written beside `path` under another name, forced to disk, and renamed.

    Parameters
    ----------
    path : str or path
        An existing file is replaced.
    **objects
        Anything with a ``state_dict()``, arrays, or dicts and lists of arrays, numbers, strings and None.

    Raises
    ------
    TypeError
        If something cannot be saved without pickle; it is named, and nothing is written.
    OSError
        If the file cannot be written.

    References
    ----------
    Pillai et al. (2014), All File Systems Are Not Created Equal, OSDI: why the folder is synchronised too.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import rvtrain as rt
    >>> path = os.path.join(tempfile.mkdtemp(), "run.npz")
    >>> rt.save_checkpoint(path, weights=np.ones(3), optimizer=rt.AdamW(3), epoch=7)
    >>> np.load(path)["weights"]
    array([1., 1., 1.])
    """
    if not objects:
        raise ValueError("save_checkpoint needs at least one object to save")
    arrays: dict[str, np.ndarray] = {}
    structure = {
        name: _encode(name, value.state_dict() if hasattr(value, "state_dict") else value, arrays)
        for name, value in objects.items()
    }
    arrays[_STRUCTURE] = np.frombuffer(json.dumps(structure).encode(), np.uint8)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with open(temporary, "xb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """What `save_checkpoint` saved: arrays, and state dicts ready for ``load_state_dict``.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    dict
        By the names that were given.

    Raises
    ------
    ValueError
        If the file is damaged, or no checkpoint.
    OSError
        If it cannot be read.

    References
    ----------
    The ``.npz`` format of NumPy; every array carries a checksum.

    Examples
    --------
    >>> import os, tempfile
    >>> import rvtrain as rt
    >>> path = os.path.join(tempfile.mkdtemp(), "run.npz")
    >>> rt.save_checkpoint(path, annealing=rt.TemperatureAnnealing(steps=10), epoch=7)
    >>> rt.load_checkpoint(path)["epoch"]
    7
    """
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            structure = json.loads(arrays[_STRUCTURE].tobytes().decode())
            return {name: _decode(value, arrays) for name, value in structure.items()}
        except (ValueError, KeyError, EOFError, NotImplementedError, AttributeError, TypeError, IndexError,
                zipfile.BadZipFile, zlib.error, MemoryError, OSError) as error:  # fmt: skip
            raise ValueError(f"{os.fspath(path)!r} is damaged or no rvtrain checkpoint: {error}") from None


def _encode(name: str, value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """`value` as JSON, its arrays moved to `arrays` under their path."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{name} must have string keys to be saved, got {list(value)}")
        return {"dict": {key: _encode(f"{name}/{key}", item, arrays) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_encode(f"{name}/{i}", item, arrays) for i, item in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    if isinstance(value, (np.ndarray, np.generic)) and not np.asarray(value).dtype.hasobject:
        if name == _STRUCTURE:
            raise ValueError(f"{name} is a reserved name")
        arrays[name] = np.asarray(value)
        return {"scalar" if isinstance(value, np.generic) else "array": name}
    raise TypeError(
        f"{name} must be an array, a number, a string, a dict or list of these, or have a state_dict, "
        f"got {type(value).__name__}"
    )


def _decode(encoded: Any, arrays: dict[str, np.ndarray]) -> Any:
    ((kind, content),) = encoded.items()
    if kind == "dict":
        return {key: _decode(item, arrays) for key, item in content.items()}
    if kind in ("list", "tuple"):
        items = [_decode(item, arrays) for item in content]
        return items if kind == "list" else tuple(items)
    if kind == "array":
        return arrays[content]
    return arrays[content][()] if kind == "scalar" else content
