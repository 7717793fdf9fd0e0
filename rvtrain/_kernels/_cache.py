"""Compiled code on disk: one file per function and argument types, keyed by everything that the code depends on.

This replaces numba's ``cache=True``, which has three faults: its key is the function's own source file alone, so
code stays in use after a helper in another file has changed; racing processes overwrite its index; and the import
fails where no folder is writable. Here the name of a file is a hash of its key. A file is written under a temporary
name and then renamed. Its key is verified when it is loaded, and an unreadable file is compiled again.
"""

import functools
import hashlib
import os
import pickle
import platform
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite import binding
from numba.core import registry, types
from numba.core.caching import CompileResultCacheImpl, _Cache
from numba.core.runtime.nrt import rtsys
from numba.core.serialize import dumps

from rvtrain._kernels import _codegen, _sources
from rvtrain._kernels._permission import tiles_permitted

OWN = "rvtrain"
"""Beginning of the symbols that this package defines."""


@functools.cache
def folder() -> Path | None:
    """The folder of compiled code: ``RVTRAIN_CACHE_DIR``, else the user's cache folder; None if there is neither.

    A folder that another user owns or may write to is refused, because loading an entry unpickles it.
    """
    chosen = os.environ.get("RVTRAIN_CACHE_DIR")
    path = Path(chosen) if chosen else _user_cache_folder()
    if path is None:
        return None
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
    except OSError:
        return None
    if hasattr(os, "getuid") and (info.st_uid != os.getuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        return None
    return path if os.access(path, os.W_OK | os.X_OK) else None


def _user_cache_folder() -> Path | None:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return Path(base, "rvtrain", "cache") if base else None
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "rvtrain"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache", "rvtrain")


@functools.cache
def _settings() -> str:
    """Everything that machine code depends on beside its source: versions, processor, permission, environment."""
    return repr(
        (
            numba.__version__,
            llvmlite.__version__,
            np.__version__,
            sys.version,
            platform.machine(),
            binding.get_host_cpu_name(),
            binding.get_host_cpu_features().flatten(),
            tiles_permitted(),
            # All environment variables by which numba's code generation can be changed.
            sorted((k, v) for k, v in os.environ.items() if k.startswith("NUMBA_") and "THREAD" not in k),
        )
    )


def _classes(kind: Any) -> Iterator[Any]:
    """The named tuple classes in a numba type."""
    if isinstance(kind, types.NamedTuple | types.NamedUniTuple):
        yield kind.instance_class
    for part in getattr(kind, "types", ()):  # the elements of a tuple
        yield from _classes(part)


def _file_of(cls: type) -> str:
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or ""


class Entries:
    """The entries of one function, by its argument types. No other function may have `name`, in any process."""

    def __init__(self, name: str, func: Callable) -> None:
        self._name = name
        self._file, self._line = func.__code__.co_filename, func.__code__.co_firstlineno

    def key(self, args: tuple[Any, ...]) -> str | None:
        """Everything that the machine code for these argument types depends on; None if it must not be kept.

        The key assumes that functions overloaded for a named tuple are in the file of its class, or in a file that
        this file imports. Code whose source cannot be read, as at a prompt, is not kept, because a later version of
        it could not be told apart.
        """
        classes = {cls for kind in args for cls in _classes(kind)}
        stamps = [_sources.stamp(file) for file in (self._file, *sorted(map(_file_of, classes)))]
        if None in stamps:
            return None
        named = sorted(f"{cls.__module__}.{cls.__qualname__}" for cls in classes)
        return f"{self._name}|{self._line}|{args}|{named}|{stamps}|{_settings()}"

    def _path(self, key: str) -> Path | None:
        where = folder()
        if where is None:
            return None
        short = re.sub(r"\W+", "-", self._name.rsplit(".", 1)[-1])
        return where / f"{short}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.nbc"

    def load(self, key: str | None) -> Any:
        """The value that was saved under this key, or None."""
        path = self._path(key) if key else None
        if path is None:
            return None
        try:
            stored, checksum, payload = pickle.loads(path.read_bytes())
            if stored != key or hashlib.sha256(payload).hexdigest() != checksum:
                return None
            return pickle.loads(payload)
        except Exception:  # absent, truncated, corrupt, or written by another numba: compile
            return None

    def save(self, key: str | None, value: Any) -> None:
        """Save a value under this key, if there is a folder."""
        path = self._path(key) if key else None
        if path is None:
            return
        payload = dumps(value)
        entry = pickle.dumps((key, hashlib.sha256(payload).hexdigest(), payload))
        try:
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        except OSError:
            return
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(entry)
            os.replace(temporary, path)
        except OSError:  # a full disk: give up the entry, so that the call succeeds
            Path(temporary).unlink(missing_ok=True)


def external(library: Any) -> list[str]:
    """The symbols that compiled code expects from the process."""
    module = library._final_module
    declared = [x.name for x in (*module.functions, *module.global_variables) if x.is_declaration]
    return [name for name in declared if not name.startswith(("llvm.", OWN))]


def provide(symbols: Iterable[str]) -> None:
    """Define the symbols that compiled code expects, before it is loaded: LLVM aborts the process if one is missing.

    numba defines them while it makes itself ready to compile, which imports a hundred modules, SciPy's linear algebra
    among them, and takes longer than to read all kernels of a loss. This is left out unless the functions of its
    runtime, which nearly all code calls, are not enough.
    """
    context = registry.cpu_target.target_context
    rtsys.initialize(context)
    if any(binding.address_of_symbol(name) is None for name in symbols):
        context.refresh()


class DispatcherCache(_Cache):
    """The entries of a numba dispatcher, behind numba's cache interface; `needs`, `register` are of `_bodies`."""

    def __init__(self, name: str, func: Callable, needs: Callable, register: Callable) -> None:
        self._impl = object.__new__(CompileResultCacheImpl)  # without __init__, which searches for a writable folder
        self._impl._lineno = func.__code__.co_firstlineno
        self._entries, self._needs, self._register = Entries(name, func), needs, register

    @property
    def cache_path(self) -> str:
        return str(folder())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        args = _arguments(sig)
        payload = self._entries.load(self._entries.key(args))
        if payload is None:
            return None
        try:
            needed, symbols, reduced = payload
            provide(symbols)
            self._register(needed)
            result = self._impl.rebuild(target_context, reduced)
            # A class of the running script was pickled by value: unpickling gives an equal class, not the same one.
            return result._replace(signature=result.signature.replace(args=args))
        except Exception:  # written by another numba, or a body has changed: compile
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        key = self._entries.key(_arguments(sig)) if folder() else None
        if key and not data.library.has_dynamic_globals and (needed := self._needs(data.library)) is not None:
            _, *rest = self._impl.reduce(data)
            code = _codegen.serialized(data.library)
            self._entries.save(key, (needed, external(data.library), (code, *rest)))

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...


def _arguments(signature: Any) -> tuple[Any, ...]:
    """The argument types in a numba signature, which is a tuple of them or a return type and them."""
    return tuple(getattr(signature, "args", signature))
