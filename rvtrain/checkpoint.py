"""Checkpoints: one file without pickle, readable by ``np.load``, and replaced atomically."""

import json
import os
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from rvtrain._atomic import replacing

_STRUCTURE = "rvtrain-checkpoint"
"""Name of the array that holds the structure of the objects as UTF-8 JSON, with references to the other arrays."""
_DEEPEST = 100
"""Greatest nesting of dicts and lists; deeper objects are assumed to contain themselves."""
_LONGEST = 200
"""Greatest number of characters in an array's name in the file."""


def save_checkpoint(path: str | os.PathLike[str], /, **objects: Any) -> None:
    """Save objects by name in one file, which is replaced atomically: a crash leaves the old file or the new one.

    The file is written beside `path` under a temporary name, forced to disk, and renamed. ``np.load(path)[name]``
    reads an array by its name, and an array inside dicts and lists by its path, such as ``"model/layers/0"``. If two
    paths are equal, or a zip archive cannot hold a name, the name for NumPy is changed. `load_checkpoint` always
    returns objects under their original names.

    Parameters
    ----------
    path : str or path
        An existing file is replaced. If it is a link, the file it points to is replaced.
    **objects
        Objects that have a ``state_dict()``, arrays, numbers, strings, None, and dicts and lists of these.

    Raises
    ------
    TypeError
        If an object cannot be saved without pickle. The message names it, and no file is written.
    ValueError
        If no object is given, or a dict or list contains itself.
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
    writer = _Writer()
    arrays_first = sorted(objects, key=lambda name: not _is_array(objects[name]))  # so that they keep their names
    encoded = {name: writer.encode(name, objects[name], 0) for name in arrays_first}
    structure = json.dumps({name: encoded[name] for name in objects})
    writer.arrays[_STRUCTURE] = np.frombuffer(structure.encode(), np.uint8)
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in writer.arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the objects that `save_checkpoint` saved: arrays, and state dicts for ``load_state_dict``.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    dict
        The objects by name.

    Raises
    ------
    ValueError
        If the file is damaged, or is not a checkpoint.
    OSError
        If it cannot be opened.

    References
    ----------
    The ``.npz`` format of NumPy; the archive has a checksum of every array.

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
            with zipfile.ZipFile(file) as archive:
                return _Reader(archive).objects()
        except Exception as error:  # the readers of zip, npy and JSON raise many types of errors for arbitrary bytes
            reason = str(error) or type(error).__name__
            raise ValueError(f"{os.fspath(path)!r} is damaged or no rvtrain checkpoint: {reason}") from None


class _Writer:
    """Splits objects into `arrays`, by their names in the file, and a structure that JSON can represent."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def encode(self, name: str, value: Any, depth: int) -> dict[str, Any]:
        """The structure of an object; adds its arrays to `arrays`, under names made from its path `name`."""
        if depth > _DEEPEST:
            raise ValueError(f"{name[:40]}… is nested more than {_DEEPEST} levels deep, or contains itself")
        if hasattr(value, "state_dict") and not isinstance(value, type):
            value = value.state_dict()
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                raise TypeError(f"{name} must have string keys to be saved, got {list(value)}")
            return {"dict": {key: self.encode(f"{name}/{key}", item, depth + 1) for key, item in value.items()}}
        if isinstance(value, (list, tuple)):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {kind: [self.encode(f"{name}/{i}", item, depth + 1) for i, item in enumerate(value)]}
        if value is None or isinstance(value, (bool, int, float, str)):
            return {"value": value}
        if _is_array(value):
            return {"scalar" if isinstance(value, np.generic) else "array": self._keep(name, np.asarray(value))}
        raise TypeError(
            f"{name} must be an array, a number, a string, a dict or list of these, or have a state_dict, "
            f"got {_described(value)}"
        )

    def _keep(self, path: str, array: np.ndarray) -> str:
        """Add an array and return its name in the file: its path, changed if it is taken or invalid in a zip."""
        label = re.sub(r"[\x00-\x1f\x7f\\\ud800-\udfff]", "_", path)[:_LONGEST]
        name, n = label, 1
        while name in self.arrays or name == _STRUCTURE:
            n += 1
            name = f"{label} ({n})"
        self.arrays[name] = array
        return name


class _Reader:
    """Rebuilds the objects of an archive. Each array must be used once, so that a damaged structure is detected."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.unread = set(archive.namelist())
        if len(self.unread) != len(archive.namelist()):
            raise ValueError("two arrays have one name")

    def objects(self) -> dict[str, Any]:
        """All objects, by name."""
        text = self._array(_STRUCTURE).tobytes().decode()
        structure = json.loads(text, object_pairs_hook=_unique)
        return {name: self._decode(value, 0) for name, value in structure.items()}

    def _decode(self, encoded: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} levels")
        ((kind, content),) = encoded.items()
        if kind == "dict" and isinstance(content, dict):
            return {key: self._decode(item, depth + 1) for key, item in content.items()}
        if kind in ("list", "tuple") and isinstance(content, list):
            items = [self._decode(item, depth + 1) for item in content]
            return items if kind == "list" else tuple(items)
        if kind == "value" and (content is None or isinstance(content, (bool, int, float, str))):
            return content
        if kind == "array" and isinstance(content, str):
            return self._array(content)
        if kind == "scalar" and isinstance(content, str):
            return self._array(content).reshape(1)[0]
        raise ValueError(f"an entry of the unknown kind {kind!r}")

    def _array(self, name: str) -> np.ndarray:
        member = f"{name}.npy"
        if member not in self.unread:
            raise ValueError(f"the array {name!r} is not there")
        self.unread.remove(member)
        with self.archive.open(member) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):  # reading to the end also verifies the checksum
                raise ValueError(f"the array {name!r} is shorter than its place")
        return array


def _is_array(value: Any) -> bool:
    """Whether `value` is an array or a NumPy scalar that can be saved without pickle."""
    if isinstance(value, (bool, int, float, str, np.ma.MaskedArray)):  # np.float64 is a float, np.str_ a str
        return False
    return isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject


def _described(value: Any) -> str:
    return f"an array of dtype {value.dtype}" if type(value) is np.ndarray else type(value).__name__


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("two entries have one name")
    return found
