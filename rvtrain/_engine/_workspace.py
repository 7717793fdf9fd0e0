"""Scratch memory that each thread keeps between calls, so that no call pays for fresh pages."""

import math
import threading

import numpy as np

_ALIGNMENT = 64
_mine = threading.local()


def workspace(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array that is this thread's until it asks for the same name again.

    The memory behind a name only grows; `release` gives all of it back.
    """
    buffers = _mine.__dict__
    buffer, last = buffers.get(name, (None, None))
    if last is not None and last.shape == shape and last.dtype == dtype:  # small batches come again and again
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
