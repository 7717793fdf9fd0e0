"""Compiled kernels on disk, never stale and never another signature's.

numba's own ``cache=True`` keys a kernel by its source file alone (so a changed helper leaves old code
in place), keeps an index that racing processes overwrite, and fails to import where nothing can be
written. Here each entry is one file, named by everything its code depends on, written under a temporary
name and renamed; its key is verified on load, and whatever cannot be read is compiled anew.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numba
from llvmlite import binding
from numba.core.caching import CompileResultCacheImpl, _Cache
from numba.core.serialize import dumps
from numba.core.types.containers import BaseNamedTuple


@functools.cache
def folder() -> Path | None:
    """Where compiled kernels are kept: ``RVTRAIN_CACHE_DIR``, else the user's cache folder, else nowhere.

    Loading an entry unpickles it, so a folder that somebody else owns, or may write to, is not used.
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


_IMPORTS = re.compile(
    r"^[ \t]*(?:from[ ]+(rvtrain[\w.]*)[ ]+import[ ]+(\([^)]*\)|[^\n]*)|import[ ]+(rvtrain[\w.]*))", re.MULTILINE
)


@functools.cache
def _settings() -> str:
    """What shapes the machine code of every kernel, whatever its source: versions, processor, environment."""
    return repr(
        (
            numba.__version__,
            llvmlite.__version__,
            sys.version,
            platform.machine(),
            binding.get_host_cpu_name(),
            binding.get_host_cpu_features().flatten(),
            # Everything numba lets the environment change about the code it makes.
            sorted((k, v) for k, v in os.environ.items() if k.startswith("NUMBA_") and "THREAD" not in k),
        )
    )


@functools.cache
def _stamp(file: str) -> str:
    """The sources that a kernel of this file is made of, its own and those it imports, and the settings."""
    digest = hashlib.sha256(_settings().encode())
    waiting, seen = [Path(file)], {Path(file)}
    while waiting:
        source, imported = _source(waiting.pop())
        digest.update(source)
        new = [path for path in imported if path not in seen]
        seen.update(new)
        waiting.extend(new)
    return digest.hexdigest()


@functools.cache
def _source(path: Path) -> tuple[bytes, list[Path]]:
    """A file's bytes, and the files of this package that it imports, anywhere in it, by absolute names."""
    try:
        source = path.read_bytes()
    except OSError:  # a kernel typed at a prompt
        return b"", []
    imported: dict[Path | None, None] = {}
    for package, names, module in _IMPORTS.findall(source.decode()):
        if module:
            imported[_module(module)] = None
        for name in re.findall(r"(\w+)(?:\s+as\s+\w+)?", names):
            imported[_module(f"{package}.{name}") or _module(package)] = None
    return source, [path for path in imported if path is not None]


@functools.cache
def _module(name: str) -> Path | None:
    """The file of a module of this package."""
    path = Path(__file__).parent.parent.joinpath(*name.split(".")[1:])
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def _classes(kind: Any) -> Iterator[type]:
    """The named tuple classes in a numba type."""
    if isinstance(kind, BaseNamedTuple):
        yield kind.instance_class
    for part in getattr(kind, "types", ()):
        yield from _classes(part)


class Entries:
    """What is kept of one function, by the types of its arguments."""

    def __init__(self, name: str, func: Callable) -> None:
        self._name = name
        self._file = func.__code__.co_filename
        self._code = hashlib.sha256(func.__code__.co_code).hexdigest()  # of a kernel without a file, all there is

    def key(self, signature: Any) -> str:
        """All that the machine code for these argument types depends on.

        Functions overloaded for a named tuple are read from the file of its class, and what that imports.
        """
        classes = {c for kind in signature for c in _classes(kind)}
        files = sorted((c.__module__, c.__qualname__, _stamp(_file_of(c))) for c in classes)
        return f"{self._name}|{signature}|{self._code}|{_stamp(self._file)}|{files}"

    def _path(self, key: str) -> Path | None:
        where = folder()
        if where is None:
            return None
        return where / f"{self._name.rsplit('.', 1)[-1]}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.nbc"

    def load(self, key: str) -> Any:
        """What was kept under this key, or None."""
        path = self._path(key)
        if path is None:
            return None
        try:
            stored, checksum, payload = pickle.loads(path.read_bytes())
            if stored != key or hashlib.sha256(payload).hexdigest() != checksum:
                return None
            return pickle.loads(payload)
        except Exception:  # absent, truncated, garbage, of another numba: a miss, whatever it is
            return None

    def save(self, key: str, value: Any) -> None:
        """Keep a value under this key, where there is a folder for it."""
        path = self._path(key)
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
        except OSError:  # a full disk costs the entry, not the call
            Path(temporary).unlink(missing_ok=True)


def _file_of(cls: type) -> str:
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or "a class typed at a prompt"


class DispatcherCache(_Cache):
    """The entries of a dispatcher, in the interface that it calls. `needs` and `register` are those of bodies."""

    def __init__(self, name: str, func: Callable, needs: Callable, register: Callable) -> None:
        self._impl = object.__new__(CompileResultCacheImpl)  # its locators would look for a writable tree
        self._impl._lineno = func.__code__.co_firstlineno
        self._entries, self._needs, self._register = Entries(name, func), needs, register

    @property
    def cache_path(self) -> str:
        return str(folder())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        payload = self._entries.load(self._entries.key(_arguments(sig)))
        if payload is None:
            return None
        try:
            needed, reduced = payload
            target_context.refresh()
            self._register(needed)
            result = self._impl.rebuild(target_context, reduced)
            # A class of the script that is run was pickled by value: what comes back is equal, but not the same.
            return result._replace(signature=result.signature.replace(args=_arguments(sig)))
        except Exception:  # of another numba: a miss
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if folder() is not None and self._impl.check_cachable(data):
            value = self._needs(data.library), self._impl.reduce(data)
            self._entries.save(self._entries.key(_arguments(sig)), value)

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...


def _arguments(signature: Any) -> tuple[Any, ...]:
    """The argument types of what numba calls a signature: these, or a return type with them."""
    return tuple(getattr(signature, "args", signature))
