"""Arguments of the optimizers: one array or a dict of arrays, all checked before any is changed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rvtrain import _validation as check

Floats = NDArray[np.floating]
Arrays = ArrayLike | Mapping[str, ArrayLike]
"""One array, or several by name."""
Params = ArrayLike | Mapping[str, ArrayLike]
"""A length, a shape or an array, or several of these by name."""

ONE = "params"
"""The name of the array where no dict was given."""


class Update(NamedTuple):
    """One array's part in a step; `values` and `gradient` are C-contiguous, writeable and of one dtype."""

    name: str
    g_name: str
    """The gradient's name in messages."""
    target: np.ndarray
    """The caller's array of parameters."""
    values: np.ndarray
    """`target` if it is contiguous, else a copy, to be written back."""
    gradient: np.ndarray
    """`given` if it can serve, else a copy."""
    given: np.ndarray
    """The caller's array of gradients."""
    rows: np.ndarray | None
    shared: bool
    """Whether `given` shares memory with the gradient of another array, so that it may be zeroed only at the end."""

    def write_back(self, zero_grads: bool) -> None:
        """Copy the new values, and zeros for the gradient, to the caller's arrays where the step worked on copies."""
        if self.values is not self.target:
            self.target[...] = self.values
        if zero_grads and (self.rows is not None or self.gradient is not self.given):
            self.given[...] = 0


def shapes_of(params: Any) -> tuple[dict[str, tuple[int, ...]], bool]:
    """The shapes that `params` describes, by name, and whether no dict was given."""
    if isinstance(params, Mapping):
        if not params:
            raise ValueError("params must not be an empty dict")
        string_keys("params", params)
        return {name: _shape(f"params[{name!r}]", value) for name, value in params.items()}, False
    return {ONE: _shape("params", params)}, True


def string_keys(argument: str, value: Mapping[Any, Any]) -> None:
    """Raise unless all keys are strings: a state dict is made of their names."""
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"{argument} must have strings for keys, got {key!r}")


def _shape(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return (check.integer(name, value, low=1),)
    if isinstance(value, (tuple, list)):
        return tuple(check.integer(name, size, low=1) for size in value)
    if not hasattr(value, "shape"):
        raise TypeError(f"{name} must be a length, a shape, an array or a dict of these, got {value!r}")
    return check.float_array(name, value, range(33)).shape


def updates(shapes: dict[str, tuple[int, ...]], single: bool, params: Any, grads: Any, rows: Any) -> list[Update]:
    """The checked parts of a step, in the order of `shapes`."""
    if single and rows is None and is_plain(params, grads, shapes[ONE]):
        return [Update(ONE, "grads", params, params, grads, grads, None, shared=False)]
    params, rows = by_name(shapes, single, params, rows)
    grads = {ONE: grads} if single else _keyed("grads", grads, shapes)
    parts = [
        _update(name, single, shape, params[name], grads[name], rows.get(name)) for name, shape in shapes.items()
    ]
    shared = set()
    for i, j in overlaps([part.target for part in parts] + [part.given for part in parts]):
        if i < len(parts):
            second = parts[j] if j < len(parts) else parts[j - len(parts)]
            name = called("params", second.name, single) if j < len(parts) else second.g_name
            raise ValueError(f"{name} must not share memory with {called('params', parts[i].name, single)}")
        shared |= {i - len(parts), j - len(parts)}
    return [part._replace(shared=True) if i in shared else part for i, part in enumerate(parts)] if shared else parts


_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_OWN = np.empty((2, 2)).flags.num
"""The flags of an array in C order, aligned and writeable, that owns its memory."""
_FITS = np.empty((2, 2))[:].flags.num
"""The same of a view."""


def is_plain(param: Any, grad: Any, shape: tuple[int, ...]) -> bool:
    """Whether both are arrays that need no copy, of one dtype and apart in memory, as most are."""
    if (
        type(param) is not np.ndarray
        or type(grad) is not np.ndarray
        or not param.shape == shape == grad.shape
        or len(shape) == 0
        or (dtype := param.dtype) is not grad.dtype
        or (dtype is not _FLOAT32 and dtype is not _FLOAT64)
    ):
        return False
    both = param.flags.num & grad.flags.num
    if both & _OWN == _OWN:
        return param is not grad
    return both & _FITS == _FITS and not np.may_share_memory(param, grad)


def by_name(
    shapes: Mapping[str, Any], single: bool, params: Any, rows: Any
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """`params` as a dict with the keys of `shapes`, and `rows`, which may be None, as a dict with some of them."""
    if single:
        return {ONE: params}, {} if rows is None else {ONE: rows}
    params = _keyed("params", params, shapes)
    if rows is not None and (not isinstance(rows, Mapping) or not set(rows) <= set(shapes)):
        raise ValueError(f"rows must be a dict with some of the keys {sorted(shapes)}")
    return params, rows or {}


def called(argument: str, name: str, single: bool) -> str:
    """The name in messages of an array of an argument."""
    return argument if single else f"{argument}[{name!r}]"


def _keyed(argument: str, value: Any, shapes: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or set(value) != set(shapes):
        got = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
        raise ValueError(f"{argument} must be a dict with the keys {sorted(shapes)}, got {got}")
    return value


def _update(name: str, single: bool, shape: tuple[int, ...], param: Any, grad: Any, rows: Any) -> Update:
    p_name, g_name = called("params", name, single), called("grads", name, single)
    target = fitting(p_name, param, shape)
    gradient = check.any_float_array(g_name, grad)
    if rows is None:
        wanted = shape
    else:
        rows = rows_of(called("rows", name, single), rows, shape)
        wanted = (len(rows), shape[1])
    if gradient.shape != wanted:
        raise ValueError(f"{g_name} must have shape {wanted}, got {gradient.shape}")
    given, gradient = gradient, np.ascontiguousarray(gradient, dtype=target.dtype)
    if not gradient.flags.writeable:
        gradient = gradient.copy()
    values = target if target.flags.c_contiguous else np.ascontiguousarray(target)
    return Update(name, g_name, target, values, gradient, given, rows, shared=False)


def fitting(name: str, param: Any, shape: tuple[int, ...]) -> np.ndarray:
    """`param` as an array of that shape that can be updated in place, uncopied."""
    target = check.writeable_array(name, param)
    if target.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {target.shape}")
    return target


def rows_of(name: str, rows: Any, shape: tuple[int, ...]) -> np.ndarray:
    """`rows` (m,) as checked indices of rows, possibly repeated, of a table of that shape."""
    if len(shape) != 2:
        raise ValueError(f"{name} needs a table of 2 dimensions, got params of shape {shape}")
    return check.indices(name, rows, (None,), shape[0])


# To compare two strided arrays exactly takes exponential time at worst: beyond this much work they count as sharing
# memory.
_MOST_WORK: Any = 100_000


def owned_apart(arrays: Sequence[np.ndarray]) -> bool:
    """Whether each array is, or is a view of, another array that owns its memory."""
    owners = [array if array.base is None else array.base for array in arrays]
    if len(set(map(id, owners))) < len(arrays):
        return False
    return all([type(x) is np.ndarray and x.flags.owndata for x in owners])


def overlaps(arrays: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """The pairs i < j of arrays that have elements in common.

    Arrays that all own their memory have none in common, which is the usual case and costs nothing. Of others, sorted
    by address, those are compared whose extents overlap.
    """
    if owned_apart(arrays):
        return []
    extents = sorted((*_extent(array), i) for i, array in enumerate(arrays))
    pairs: list[tuple[int, int]] = []
    reaching: list[tuple[int, int]] = []  # (end, number) of the arrays that may overlap the next
    for low, high, i in extents:
        if reaching:
            reaching = [other for other in reaching if other[0] > low]
            pairs += [(min(i, j), max(i, j)) for _, j in reaching if _share(arrays[i], arrays[j])]
        reaching.append((high, i))
    return pairs


def _extent(x: np.ndarray) -> tuple[int, int]:
    """The addresses of the first byte of an array and of the first after its last."""
    low = x.__array_interface__["data"][0]
    if x.flags.c_contiguous or not x.size:
        return low, low + x.nbytes
    steps = [(n - 1) * stride for n, stride in zip(x.shape, x.strides, strict=True)]
    return low + sum(step for step in steps if step < 0), low + sum(step for step in steps if step > 0) + x.itemsize


def _share(x: np.ndarray, y: np.ndarray) -> bool:
    try:
        return np.shares_memory(x, y, max_work=_MOST_WORK)
    except np.exceptions.TooHardError:
        return True
