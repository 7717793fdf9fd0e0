"""Announce compilations: one line on stderr when they take long, and calls to listeners such as progress bars."""

import contextlib
import functools
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

PATIENCE = 1.0
"""Seconds of compilation after which the line is written to stderr."""

Listener = Callable[[bool], Any]


class _State:
    """The compilations and listeners of this process."""

    def __init__(self) -> None:
        self.spoken = False
        """The line has been written."""
        self.unheard = 0.0
        """Seconds of compilation without a listener."""
        self.forked()

    def forked(self) -> None:
        """In a forked child: forget the compilations, timers and progress bars of the parent."""
        self.lock = threading.RLock()
        self.running = 0
        self.listeners: list[Listener] = []


_state = _State()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_state.forked)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener(True)` when a compilation begins, in any thread, and `listener(False)` when it ends.

    While there is a listener, the line on stderr is not written. Exceptions of a listener are ignored.
    """
    with _state.lock:
        _state.listeners.append(listener)
        running = _state.running > 0
    try:
        if running:
            _call(listener, True)
        yield
    finally:
        with _state.lock, contextlib.suppress(ValueError):  # absent in a forked child
            _state.listeners.remove(listener)


def announced(compile_function: Callable) -> Callable:
    """Wrap a function such that each call is announced as a compilation."""

    @functools.wraps(compile_function)
    def compile_and_announce(*args: Any, **options: Any) -> Any:
        start = time.monotonic()
        timer = _begin()
        try:
            with _without_collection():
                return compile_function(*args, **options)
        finally:
            _end(timer, start)

    return compile_and_announce


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Meanwhile Python's garbage collector rests: it would take a tenth of the time, for the graphs of the compiler.

    Only if this thread stops it: a compilation within a compilation, or beside one, leaves it as it is.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _begin() -> threading.Timer | None:
    with _state.lock:
        _state.running += 1
        listeners, quiet = tuple(_state.listeners), _state.spoken
    for listener in listeners:
        _call(listener, True)
    if quiet:
        return None
    timer = threading.Timer(max(PATIENCE - _state.unheard, 0.0), _speak)
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # no thread can be started, or the interpreter is shutting down
        return None
    return timer


def _end(timer: threading.Timer | None, start: float) -> None:
    if timer is not None:
        timer.cancel()
        timer.join(PATIENCE)  # wait for its thread, because Python 3.12 warns when a threaded process forks
    with _state.lock:
        _state.running = max(_state.running - 1, 0)
        listeners = tuple(_state.listeners)
        if not listeners and not _state.running:  # outermost: a kernel's bodies are compiled while it is
            _state.unheard += time.monotonic() - start
    for listener in listeners:
        _call(listener, False)


def _call(listener: Listener, running: bool) -> None:
    with contextlib.suppress(Exception):
        listener(running)


def _speak() -> None:
    """Write the line once per process: to the logger `rvtrain` if it has a handler, else to stderr."""
    from rvtrain._kernels import _cache

    with _state.lock:
        if _state.spoken or _state.listeners:
            return
        _state.spoken = True
    if os.environ.get("RVTRAIN_QUIET", "0") not in ("", "0"):
        return
    folder = _cache.folder()
    kept = f"kept in {folder}" if folder else "not kept, because no folder is writable: set RVTRAIN_CACHE_DIR"
    message = f"compiling kernels for this processor, which takes some seconds to a minute; they are {kept}"
    logger = logging.getLogger("rvtrain")
    with contextlib.suppress(Exception):  # a closed stderr must not break the compilation
        if logger.handlers or logger.level or (logger.hasHandlers() and logger.isEnabledFor(logging.INFO)):
            logger.info(message)
        elif sys.stderr is not None:
            print(f"rvtrain: {message}", file=sys.stderr, flush=True)
