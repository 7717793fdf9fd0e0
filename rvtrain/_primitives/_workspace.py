"""Scratch memory that each thread keeps between calls, so that no call pays for fresh pages."""

import math
import threading

import numpy as np

_ALIGNMENT = 64
_mine = threading.local()


def workspace(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array that is this thread's until it asks for the same name again.

    The memory behind a name only grows; `release_workspaces` gives all of it back.
    """
    buffers = _mine.__dict__
    size = math.prod(shape) * dtype.itemsize
    buffer = buffers.get(name)
    if buffer is None or buffer.size < size:
        raw = np.empty(size + _ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
        buffer = buffers[name] = raw[start : start + size]
    return buffer[:size].view(dtype).reshape(shape)


def release_workspaces() -> None:
    """Free the scratch memory that the calling thread's losses and miners keep between calls.

    Examples
    --------
    >>> import rvtrain as rt
    >>> rt.release_workspaces()
    """
    _mine.__dict__.clear()
