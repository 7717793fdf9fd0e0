"""The threading layer: cheap to call, safe whichever it is, and nothing global changed."""

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Any

from llvmlite import binding
from numba.np.ufunc import parallel

from rvtrain._kernels import _tbb
from rvtrain._kernels._decorators import disabled

SERIAL_BELOW = 100_000
"""Arithmetic operations below which waking the threads (about 4 µs under TBB) costs more than it saves."""

SLOT = "rvtrain.parallel_for"
"""Symbol of a pointer, null before the layer is started: to the function that runs numba's own parallel loops."""


def thread_count() -> int:
    """Number of threads that the next kernel called from this thread will use."""
    return _layer.threads()


def layer() -> str:
    """Name of the threading layer that serves the calls of this process."""
    try:
        return str(parallel.threading_layer())
    except ValueError:
        return "none: nothing parallel has run"


def guarded(entry: Callable, args: tuple[Any, ...]) -> None:
    """Call `entry(threads, *args)` such that the threading layer cannot bring the process down.

    workqueue aborts the process when two threads call at once: one at a time, then. GNU's OpenMP kills a forked
    child whose parent has run anything parallel: one thread serves there. TBB needs neither.
    """
    if not _layer.name:
        _layer.start()
    if _layer.concurrent:
        entry(_layer.threads(), *args)
    elif _layer.serial:
        entry(1, *args)
    else:
        with _layer.lock:
            entry(_layer.threads(), *args)


class _Layer:
    """The state of numba's threading layer in this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.name = ""
        """Empty before the first parallel call."""
        self.concurrent = False
        """Several threads may call at once."""
        self.serial = False
        """It must not be called."""
        self.threads: Callable[[], int] = parallel.get_num_threads
        self.slot = ctypes.c_void_p()
        binding.add_symbol(SLOT, ctypes.addressof(self.slot))

    def start(self) -> None:
        """Start the layer, unless nothing is compiled."""
        with self.lock:
            if disabled():
                self.name, self.serial = "none", True
            elif not self.name:
                _tbb.load()
                parallel.get_num_threads()  # starts it
                self.slot.value = binding.address_of_symbol("numba_parallel_for")
                self.threads = ctypes.PYFUNCTYPE(ctypes.c_int)(binding.address_of_symbol("get_num_threads"))
                name = parallel.threading_layer()
                self.concurrent, self.name = name in ("tbb", "omp"), name

    def forked(self) -> None:
        """In a child: locks that other threads held are of no use, nor is OpenMP that has run."""
        self.lock = threading.Lock()
        if self.name == "omp":
            self.concurrent, self.serial = False, True


_layer = _Layer()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_layer.forked)
