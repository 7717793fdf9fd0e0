"""State arrays: in the dtype of the parameters, in 16 bits, or in 8 bits with a scale for each block."""

import math
import zlib
from typing import Any

import numpy as np

from rvtrain.optimizers._codes import BLOCK, HALF_BLOCK

STATE_DTYPES = ("float32", "bfloat16", "int8")


Layout = dict[str, tuple[tuple[int, ...], Any]]
"""Shape and dtype of arrays by their names; dtype None: that of the parameters."""


def layout(name: str, positive: bool, state_dtype: str, shape: tuple[int, ...]) -> Layout:
    """The arrays of the state `name`."""
    if state_dtype == "float32":
        return {name: (shape, None)}
    if state_dtype == "bfloat16":
        return {name: (shape, np.uint16)}
    rows, width = _as_rows(shape)
    scales = (rows, -(-width // BLOCK))
    return {name: (shape, np.uint8 if positive else np.int8), f"{name}_scale": (scales, np.float32)}


def compact(state: dict[str, Any], names: tuple[str, ...], shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The codes of the named arrays as tables (n, d), and their scales (n, blocks); bfloat16 has none: ()."""
    codes = tuple(state[name].reshape(_as_rows(shape)) for name in names)
    return codes, tuple(state[key] for key in (f"{name}_scale" for name in names) if key in state)


def blocks_of(table: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> int:
    """The number of blocks of all rows of a table (n, d), or of `rows` of it unless they are empty."""
    length = HALF_BLOCK if codes.itemsize == 2 else BLOCK
    return (len(rows) or len(table)) * int(-(-table.shape[1] // length))


def flat(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """C-contiguous arrays of one shape as vectors."""
    return arrays if arrays[0].ndim == 1 else tuple(x.reshape(-1) for x in arrays)


def as_table(x: np.ndarray) -> np.ndarray:
    """A table as it is, another array as one row. Blocks are parts of a row of these."""
    return x.reshape(_as_rows(x.shape)) if x.ndim != 2 else x


def _as_rows(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], shape[1]) if len(shape) == 2 else (1, math.prod(shape))


def noise(name: str, step: int, idle: bool = False) -> tuple[int, int]:
    """The key of the random bits of a step, or (idle) of the idle steps that are made up for before it."""
    return zlib.crc32(name.encode()), 2 * step + idle
