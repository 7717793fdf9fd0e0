"""The threading layer: what is cheap to call, rivals of TBB made safe, and nothing global changed."""

import os
import threading
from collections.abc import Callable
from typing import Any

import numba

# Operations below which waking the threads (about 4 µs under TBB) costs more than it saves.
SERIAL_BELOW = 100_000


def thread_count() -> int:
    """Threads that the next kernel of this thread will use."""
    return numba.get_num_threads()


def layer() -> str:
    """The threading layer that the calls so far were served by."""
    try:
        return numba.threading_layer()
    except ValueError:
        return "none: nothing parallel has run"


def guarded(entry: Callable, start: Callable[[], None], args: tuple[Any, ...]) -> None:
    """Call `entry(threads, *args)` such that the threading layer cannot bring the process down.

    workqueue aborts the process when two threads call at once: one at a time, then. GNU's OpenMP kills a forked
    child whose parent has run anything parallel: one thread serves there. TBB needs neither. `start` is called before
    the first call.
    """
    if _layer.free:
        return entry(thread_count(), *args)
    if _layer.orphaned:
        return entry(1, *args)
    with _layer.lock:
        start()
        entry(thread_count(), *args)
        _layer.settle()


class _Layer:
    """What is known of numba's threading layer: nothing, before the first parallel call of the process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.free = False
        """Calls need no lock."""
        self.orphaned = False
        """This is a forked child of a process in which OpenMP has run."""
        self._name = ""

    def settle(self) -> None:
        """Ask which layer has just served a call."""
        try:
            self._name = numba.threading_layer()
        except ValueError:  # compiled without JIT, or with nothing parallel in it
            return
        self.free = self._name in ("tbb", "omp")

    def forked(self) -> None:
        """In a child: locks that other threads held are of no use, nor is OpenMP that has run."""
        self.lock = threading.Lock()
        if self._name == "omp":
            self.free, self.orphaned = False, True


_layer = _Layer()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_layer.forked)
