"""Files in the safetensors format: the length n of a header in eight bytes, n bytes of JSON, and arrays."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from rvtrain._atomic import replacing

_NAMES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "I16": np.int16,
    "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
_DTYPES = {name: np.dtype(kind).newbyteorder("<") for name, kind in _NAMES.items()}
_NAME_OF = {dtype: name for name, dtype in _DTYPES.items()}
_LONGEST_HEADER = 100_000_000
"""The greatest length that the format's own library reads."""


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays and strings, both by name, to a file that is replaced atomically.

    Larger elements come first, because then every array starts at a multiple of its element's size.
    """
    with replacing(path) as file:
        write_to(file, arrays, metadata)


def write_to(file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """The same to an open file."""
    stored = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in arrays.items()}
    order = sorted(stored, key=lambda name: (-stored[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    place = 0
    for name in order:
        array = stored[name]
        end = place + array.nbytes
        header[name] = {"dtype": _name_of(name, array), "shape": list(array.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for name in order:
        file.write(stored[name].reshape(-1).view(np.uint8).data)


def begins(file: BinaryIO) -> bool:
    """Whether a file begins as one of this format."""
    file.seek(0)
    head = file.read(9)
    file.seek(0)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def read(file: BinaryIO) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the strings of a file; ValueError if it is damaged or of a dtype that NumPy has not."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    header = json.loads(file.read(length), object_pairs_hook=_unique)
    metadata = header.pop("__metadata__", {})
    arrays, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (start, stop) = _DTYPES.get(entry["dtype"]), entry["shape"], entry["data_offsets"]
        if dtype is None:
            raise ValueError(f"the array {name!r} has the dtype {entry['dtype']}, which NumPy has not")
        count = math.prod(map(_length, shape))
        if start != end or stop - start != count * dtype.itemsize:
            raise ValueError(f"the array {name!r} has the bytes {start} to {stop} and the shape {shape}")
        data = np.fromfile(file, np.uint8, stop - start)
        if len(data) < stop - start:
            raise ValueError(f"the array {name!r} is cut off")
        arrays[name] = data.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
        end = stop
    if end != size - 8 - length:
        raise ValueError(f"{size - 8 - length - end} bytes that are of no array")
    return arrays, metadata


def _name_of(name: str, array: np.ndarray) -> str:
    found = _NAME_OF.get(array.dtype.newbyteorder("<"))
    if found is None:
        raise TypeError(f"{name} must be of a dtype that safetensors has, got {array.dtype}")
    return found


def _length(n: Any) -> int:
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        raise ValueError(f"a shape with {n!r}")
    return n


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("two entries have one name")
    return found
