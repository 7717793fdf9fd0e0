"""Scratch memory that is kept between calls, because the first use of a fresh memory page is slow."""

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

_ALIGNMENT = 64
_KEPT = 64


class Scratch:
    """Uninitialised arrays for one call of the engine, in one piece of memory that the next call reuses."""

    def __init__(self) -> None:
        self._buffer = _aligned(0)
        self._room = 0
        self._more: list[np.ndarray] = []
        self._used = 0
        self._made: dict[Any, tuple[Any, int]] = {}

    def array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of this shape, valid until the call ends."""
        if len(self._buffer) < self._room:
            self._buffer = _aligned(self._room)
        size = -(-math.prod(shape) * np.dtype(dtype).itemsize // _ALIGNMENT) * _ALIGNMENT
        start, self._used = self._used, self._used + size
        if self._used <= len(self._buffer):
            return np.ndarray(shape, dtype, self._buffer, start)
        self._more.append(_aligned(size))
        return np.ndarray(shape, dtype, self._more[-1])

    def once(self, key: Any, make: Callable[[Any, "Scratch"], Any]) -> Any:
        """make(key, self): arrays of this memory, which are kept, and handed out again for an equal key and place.

        Making them takes Python as long as a small call's arithmetic.
        """
        begin = make, key, self._used
        if begin in self._made:
            made, self._used = self._made[begin]
            return made
        made = make(key, self)
        if not self._more:
            if len(self._made) >= _KEPT:
                self._made.clear()
            self._made[begin] = made, self._used
        return made

    def reset(self) -> None:
        """End a call: all its arrays become invalid, and the memory grows to hold as many in one piece.

        The next call allocates that piece, because the caller's variables still hold the arrays of this one.
        """
        if self._more:
            self._more.clear()
            self._made.clear()
            self._buffer, self._room = _aligned(0), self._used
        self._used = 0


class _Mine(threading.local):
    """The scratch memory of this thread that no call is using."""

    def __init__(self) -> None:
        self.free: list[Scratch] = []


_mine = _Mine()


class _Lent:
    """Scratch memory for a call; a generator in its place would cost a small call a microsecond."""

    __slots__ = ("_taken",)

    def __enter__(self) -> Scratch:
        self._taken = _mine.free.pop() if _mine.free else Scratch()
        return self._taken

    def __exit__(self, *_: object) -> None:
        self._taken.reset()
        _mine.free.append(self._taken)


def scratch() -> _Lent:
    """Scratch memory for a call, as a context; nested calls get different memory."""
    return _Lent()


def release_workspaces() -> None:
    """Free the scratch memory that the calling thread's losses and miners keep between calls.

    Examples
    --------
    >>> import rvtrain as rt
    >>> rt.release_workspaces()
    """
    _mine.free.clear()


def _aligned(size: int) -> np.ndarray:
    """An array of bytes whose address is a multiple of the size of a cache line."""
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size]
