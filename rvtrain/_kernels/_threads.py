"""Calls through numba's threading layer, safe under each of its implementations, without changing global state."""

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Any

from llvmlite import binding
from numba.np.ufunc import parallel

from rvtrain._kernels import _tbb
from rvtrain._kernels._decorators import disabled

SERIAL_BELOW = 200_000
"""Number of arithmetic operations below which waking the threads costs more than it saves: about 4 µs under TBB, and
up to 50 µs on a virtual machine whose processors go to sleep."""

SLOT = "rvtrain.parallel_for"
"""Symbol of a pointer to the function that runs numba's own parallel loops; null until the layer is started."""


def thread_count() -> int:
    """Number of threads that the next kernel called from this thread will use."""
    return _layer.threads()


def limit_threads(count: int) -> None:
    """Let kernels that this thread calls use at most so many threads."""
    parallel.set_num_threads(min(count, parallel.get_num_threads()))


def layer() -> str:
    """Name of the threading layer of this process."""
    try:
        return str(parallel.threading_layer())
    except ValueError:
        return "none: nothing parallel has run"


def guarded(entry: Callable, args: tuple[Any, ...]) -> None:
    """Call `entry(threads, *args)` such that the threading layer cannot crash the process.

    workqueue aborts the process if two threads call it at once, so a lock serialises the calls. GNU's OpenMP kills a
    forked child whose parent has run a parallel loop, so such a child uses one thread. TBB needs neither.
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
        """Whether several threads may call the layer at once."""
        self.serial = False
        """Whether the layer must not be called, so that everything runs in the calling thread."""
        self.threads: Callable[[], int] = parallel.get_num_threads
        self.slot = ctypes.c_void_p()
        binding.add_symbol(SLOT, ctypes.addressof(self.slot))

    def start(self) -> None:
        """Start the layer, unless NUMBA_DISABLE_JIT is set."""
        with self.lock:
            if disabled():
                self.name, self.serial = "none", True
            elif not self.name:
                _tbb.load()
                parallel.get_num_threads()  # starts the layer
                self.slot.value = binding.address_of_symbol("numba_parallel_for")
                self.threads = ctypes.PYFUNCTYPE(ctypes.c_int)(binding.address_of_symbol("get_num_threads"))
                name = parallel.threading_layer()
                self.concurrent, self.name = name in ("tbb", "omp"), name

    def forked(self) -> None:
        """In a forked child: replace the lock, which another thread may hold; stop using OpenMP if it has run."""
        self.lock = threading.Lock()
        if self.name == "omp":
            self.concurrent, self.serial = False, True


_layer = _Layer()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_layer.forked)
