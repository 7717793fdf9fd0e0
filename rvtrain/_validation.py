"""Checks of arguments. Each error message names the argument, its value, and the expected values."""

import math
import operator
from collections.abc import Collection
from typing import Any

import numpy as np

from rvtrain._errors import NotFiniteError

_FLOATS = (np.float32, np.float64)


def any_float_array(name: str, value: Any) -> np.ndarray:
    """`value` as a float32 or float64 array of any shape, without a copy."""
    array = np.asarray(value)
    if array.dtype.type not in _FLOATS or not array.dtype.isnative:
        remedy = f": convert it, as {name}.astype(np.float32)" if array.dtype.kind in "fiu" else ""
        raise TypeError(f"{name} must be float32 or float64, got dtype {array.dtype}{remedy}")
    return array


def stored_array(name: str, value: Any, ndim: int | Collection[int]) -> np.ndarray:
    """`value` as a non-empty array of numbers in any stored type, with `ndim` dimensions, without a copy.

    Unlike `float_array` it also accepts float16, integers and other byte orders. It is for arguments that are read
    block by block, where each block is converted by ``readable(block, computed_dtype(name, array))``.
    """
    array = np.asarray(value)
    computed_dtype(name, array)
    return _shaped(name, array, ndim)


def computed_dtype(name: str, array: np.ndarray) -> np.dtype:
    """float32 or float64: the type to which the blocks of a `stored_array` are converted for kernels."""
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} must be an array of real numbers of at most 64 bits, got dtype {array.dtype}")
    return np.result_type(array.dtype, np.float32).newbyteorder("=")


def writeable_array(name: str, value: Any) -> np.ndarray:
    """`value` as a writeable float array that shares its memory."""
    if not isinstance(value, np.ndarray) and isinstance(value, (list, tuple, int, float)):
        raise TypeError(f"{name} must be an array that can be updated in place, got {type(value).__name__}")
    array = any_float_array(name, value)
    if not array.flags.writeable:
        raise ValueError(f"{name} must be writeable, got a read-only array")
    return array


def float_array(name: str, value: Any, ndim: int | Collection[int]) -> np.ndarray:
    """`value` as a non-empty float32 or float64 array with `ndim` dimensions, without a copy."""
    return _shaped(name, any_float_array(name, value), ndim)


def _shaped(name: str, array: np.ndarray, ndim: int | Collection[int]) -> np.ndarray:
    wanted = (ndim,) if isinstance(ndim, int) else tuple(ndim)
    if array.ndim not in wanted:
        raise ValueError(f"{name} must have {_either(wanted)} dimension(s), got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    return array


def readable(array: np.ndarray, dtype: Any = None) -> np.ndarray:
    """The array in the form that kernels read: C-contiguous and of `dtype`; copied only if necessary.

    A read-only array becomes a writeable view, because numba has a separate type for read-only arrays and would
    compile every kernel again. Kernels do not write to arrays that pass through here.
    """
    array = np.ascontiguousarray(array, dtype)
    return array if array.flags.writeable else np.asarray(_Unlocked(array))


class _Unlocked:
    """The memory of a read-only array, presented to NumPy as writeable."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array  # kept alive by the view
        address = array.__array_interface__["data"][0]
        self.__array_interface__ = array.__array_interface__ | {"data": (address, False)}


def promoted(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arrays in the form that kernels read, promoted to one dtype."""
    dtype = arrays[0].dtype
    if any(array.dtype != dtype for array in arrays):
        dtype = np.result_type(*arrays)
    return tuple(readable(array, dtype) for array in arrays)


def finite(name: str, array: np.ndarray) -> None:
    """Raise if `array` holds a NaN or an infinity, and name the index of the first."""
    good = np.isfinite(array)
    if not good.all():
        where = np.unravel_index(int(np.argmin(good)), array.shape)
        place = ", ".join(str(int(i)) for i in where)
        raise NotFiniteError(f"{name} must be finite, got {array[where]} at [{place}]")


def same_shape(name: str, array: np.ndarray, other: str, shape: tuple[int, ...]) -> None:
    """Raise unless `array` has `shape`, the shape of the argument `other`."""
    if array.shape != shape:
        raise ValueError(f"{name} must have the shape of {other}, {shape}, got {array.shape}")


def integer_array(name: str, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """`value` as a C-contiguous int64 array of this shape; None in `shape` means any length."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
    if array.ndim != len(shape) or any(want not in (None, n) for want, n in zip(shape, array.shape, strict=True)):
        text = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} must have shape ({text}), got {array.shape}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit in int64, got {array.max()}")
    return readable(array, np.int64)


def indices(name: str, value: Any, shape: tuple[int | None, ...], stop: int, missing: bool = False) -> np.ndarray:
    """`value` as an array of integers in [0, stop), or in [−1, stop) if `missing`, where −1 means "none"."""
    array = integer_array(name, value, shape)
    low = -1 if missing else 0
    if array.size and (array.min() < low or array.max() >= stop):
        bad = array[(array < low) | (array >= stop)][0]
        raise ValueError(f"{name} must lie in [{low}, {stop - 1}], got {bad}")
    return array


def number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """`value` as a finite float between the bounds, which are included unless open."""
    if isinstance(value, (bool, np.bool_, str, bytes)) or np.ndim(value) != 0:
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    below = result <= low if open_low else result < low
    above = result >= high if open_high else result > high
    if not math.isfinite(result) or below or above:
        left, right = (
            "(" if open_low or low == -math.inf else "[",
            ")" if open_high or high == math.inf else "]",
        )
        raise ValueError(f"{name} must be a finite number in {left}{low:g}, {high:g}{right}, got {value!r}")
    return result


def integer(name: str, value: Any, *, low: int | None = None, high: int | None = None) -> int:
    """`value` as an int between the bounds, both included."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        result = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if (low is not None and result < low) or (high is not None and result > high):
        bounds = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be {bounds}, got {result}")
    return result


def neighbours(k: Any) -> int:
    """k, the number of neighbours per row. It may exceed the number of candidates, but not what memory could hold."""
    return integer("k", k, low=1, high=1_000_000)


def temperature(value: Any) -> float:
    """A temperature τ > 0 such that 1 / τ² fits in float32."""
    return number("temperature", value, low=1e-15, high=1e15)


def margin(value: Any) -> float:
    """A distance above 0 whose square fits in float32."""
    return number("margin", value, low=0.0, high=1e18, open_low=True)


def choice(name: str, value: Any, options: Collection[str]) -> str:
    """`value` if it is one of the options."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} must be {_either([repr(o) for o in options])}, got {value!r}")
    return value


def choices(name: str, value: Any, options: Collection[str]) -> tuple[str, ...]:
    """`value`, a collection of some of the options, as a tuple in the order of the options."""
    given = (value,) if isinstance(value, str) else tuple(value)
    if not given or any(not isinstance(v, str) or v not in options for v in given):
        raise ValueError(f"{name} must be some of {_either([repr(o) for o in options])}, got {value!r}")
    return tuple(option for option in options if option in given)


def flag(name: str, value: Any) -> bool:
    """`value` as a bool; raises for anything but True and False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _either(options: Collection[Any]) -> str:
    words = [str(option) for option in options]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
