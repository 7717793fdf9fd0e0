"""One function per kind of check. Each message names the argument, what it was, and what was expected."""

import math
import operator
from collections.abc import Collection
from typing import Any

import numpy as np

from rvtrain._errors import NotFiniteError

_FLOATS = (np.float32, np.float64)


def any_float_array(name: str, value: Any) -> np.ndarray:
    """`value` as a float32 or float64 array of any shape, uncopied."""
    array = np.asarray(value)
    if array.dtype.type not in _FLOATS or not array.dtype.isnative:
        remedy = f": convert it, as {name}.astype(np.float32)" if array.dtype.kind in "fiu" else ""
        raise TypeError(f"{name} must be float32 or float64, got dtype {array.dtype}{remedy}")
    return array


def stored_array(name: str, value: Any, ndim: int | Collection[int]) -> np.ndarray:
    """`value` as a non-empty array of numbers as embeddings are stored, uncopied, of `ndim` dimensions.

    Other than `float_array` it takes float16, integers and other byte orders too: for arguments that are read block
    by block, each block converted by ``readable(block, computed_dtype(name, array))``.
    """
    array = np.asarray(value)
    computed_dtype(name, array)
    return _shaped(name, array, ndim)


def computed_dtype(name: str, array: np.ndarray) -> np.dtype:
    """float32 or float64: the type that holds the numbers of a `stored_array`, and that kernels are given."""
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} must be an array of real numbers of at most 64 bits, got dtype {array.dtype}")
    return np.result_type(array.dtype, np.float32).newbyteorder("=")


def writeable_array(name: str, value: Any) -> np.ndarray:
    """`value` as a float array that shares its memory and may be written to."""
    if not isinstance(value, np.ndarray) and isinstance(value, (list, tuple, int, float)):
        raise TypeError(f"{name} must be an array that can be updated in place, got {type(value).__name__}")
    array = any_float_array(name, value)
    if not array.flags.writeable:
        raise ValueError(f"{name} must be writeable, got a read-only array")
    return array


def float_array(name: str, value: Any, ndim: int | Collection[int]) -> np.ndarray:
    """`value` as a non-empty float32 or float64 array of the wanted number of dimensions, uncopied."""
    return _shaped(name, any_float_array(name, value), ndim)


def _shaped(name: str, array: np.ndarray, ndim: int | Collection[int]) -> np.ndarray:
    wanted = (ndim,) if isinstance(ndim, int) else tuple(ndim)
    if array.ndim not in wanted:
        raise ValueError(f"{name} must have {_either(wanted)} dimension(s), got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    return array


def readable(array: np.ndarray, dtype: Any = None) -> np.ndarray:
    """The array as kernels read it: C-contiguous and of that dtype, copied only where it is not so already.

    numba has a type of its own for read-only arrays, for which every kernel would be compiled again. Kernels do not
    write to what comes through here, so a view that does not say so will do.
    """
    array = np.ascontiguousarray(array, dtype)
    return array if array.flags.writeable else np.asarray(_Unlocked(array))


class _Unlocked:
    """The memory of a read-only array, without the note that it is."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array  # kept alive by the view
        address = array.__array_interface__["data"][0]
        self.__array_interface__ = array.__array_interface__ | {"data": (address, False)}


def promoted(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arrays as kernels read them, of one dtype."""
    dtype = np.result_type(*arrays)
    return tuple(readable(array, dtype) for array in arrays)


def finite(name: str, array: np.ndarray) -> None:
    """Raise if `array` holds a NaN or an infinity, naming the first place."""
    good = np.isfinite(array)
    if not good.all():
        where = np.unravel_index(int(np.argmin(good)), array.shape)
        place = ", ".join(str(int(i)) for i in where)
        raise NotFiniteError(f"{name} must be finite, got {array[where]} at [{place}]")


def same_shape(name: str, array: np.ndarray, other: str, shape: tuple[int, ...]) -> None:
    """Raise unless `array` has the shape of the argument called `other`."""
    if array.shape != shape:
        raise ValueError(f"{name} must have the shape of {other}, {shape}, got {array.shape}")


def integer_array(name: str, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """`value` as a C-contiguous int64 array of that shape; None in `shape` stands for any length."""
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
    """Integers in [0, stop), or from −1 where `missing` allows −1 for "none"."""
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
    """`value` as a finite float in the interval; the bounds count unless said to be open."""
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
    """How many a row asks for: more than there are is allowed, more than memory could hold is not."""
    return integer("k", k, low=1, high=1_000_000)


def temperature(value: Any) -> float:
    """τ such that float32 holds 1 / τ²."""
    return number("temperature", value, low=1e-15, high=1e15)


def margin(value: Any) -> float:
    """A distance above 0 whose square float32 holds."""
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
    """`value` as a bool; anything but True and False is refused."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _either(options: Collection[Any]) -> str:
    words = [str(option) for option in options]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
