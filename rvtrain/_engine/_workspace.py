"""Scratch memory that each thread keeps between calls, because the first use of a fresh memory page is slow."""

import math
import threading

import numpy as np

_ALIGNMENT = 64
_mine = threading.local()


def workspace(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array, valid until this thread asks for the same name again.

    The memory behind a name grows but never shrinks; `release` frees all of it.
    """
    buffers = _mine.__dict__
    buffer, last = buffers.get(name, (None, None))
    if last is not None and last.shape == shape and last.dtype == dtype:  # saves time when small batches repeat
        return last
    size = math.prod(shape) * dtype.itemsize
    if buffer is None or buffer.size < size:
        raw = np.empty(size + _ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
        buffer = raw[start : start + size]
    last = buffer[:size].view(dtype).reshape(shape)
    buffers[name] = buffer, last
    return last


def release() -> None:
    """Free the memory behind all names of the calling thread."""
    _mine.__dict__.clear()
