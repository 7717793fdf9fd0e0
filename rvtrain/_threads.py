"""The threading layer: TBB where it is installed, and nothing global changed."""

import ctypes
import functools
import importlib.metadata
import sys

# Operations below which waking the threads (about 4 µs under TBB) costs more than it saves.
SERIAL_BELOW = 100_000


def thread_count() -> int:
    """Threads that the next kernel of this thread will use."""
    import numba

    return numba.get_num_threads()


@functools.cache
def load_tbb() -> bool:
    """Load the pip-installed libtbb, which lies where the dynamic loader does not look.

    numba prefers TBB to OpenMP when it can be loaded; a library of that name already in the process
    is enough. Costs about 1 ms, once. Returns whether a library was loaded.
    """
    name = {"linux": "libtbb.so.12", "win32": "tbb12.dll"}.get(sys.platform)
    if name is None:
        return False
    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return False
    for file in files:
        if file.name == name:
            try:
                ctypes.CDLL(str(file.locate()))
            except OSError:  # damaged or of another platform: numba falls back by itself
                return False
            return True
    return False
