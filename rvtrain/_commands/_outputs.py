"""Output files of the commands: checked before the work, written under temporary names, renamed when complete."""

import contextlib
import errno
import math
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def check(outputs: dict[str, str | None], inputs: Iterable[str]) -> None:
    """Raise unless all outputs can be written without overwriting an input; `outputs` maps flags to paths."""
    seen: dict[str, str] = {}
    inputs = list(inputs)
    for flag, path in outputs.items():
        if path is None:
            continue
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            raise ValueError(
                f"{flag} must be a file, got {path}, which is a {'folder' if target.is_dir() else 'device'}"
            )
        if not target.parent.is_dir():
            raise ValueError(f"{flag} must be in a folder that exists, got {path}")
        if not os.access(target.parent, os.W_OK | os.X_OK) or (target.exists() and not os.access(target, os.W_OK)):
            raise ValueError(f"{flag} must be in a place that can be written to, got {path}")
        for source in inputs:
            if target.exists() and os.path.exists(source) and os.path.samefile(target, source):
                raise ValueError(f"{flag} must be another file than the input {source}, got {path}")
        if str(target) in seen:
            raise ValueError(f"{flag} must be another file than {seen[str(target)]}, got {path}")
        seen[str(target)] = flag


def ending(flag: str, path: str, *endings: str) -> str:
    """The ending of an output's name, which determines its format; ValueError if it is not one of `endings`."""
    for known in endings:
        if path.lower().endswith(known):
            return known
    raise ValueError(f"{flag} must end in {' or '.join(endings)}, got {path}")


@contextlib.contextmanager
def replacing(path: str, mode: str = "b", size: int | None = None) -> Iterator[Any]:
    """A new file that replaces `path` when it is complete.

    `size` bytes are reserved first, so that a full disk is noticed before the work.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with naming(path), open(temporary, f"x{mode}", encoding=None if mode == "b" else "utf-8") as file:
            if size is not None:
                _reserve(file.fileno(), size)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def array(path: str, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[Any]:
    """A .npy file that replaces `path`; the caller writes its elements to it, in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with replacing(path, size=math.prod(shape) * dtype.itemsize) as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield file


def elements(block: np.ndarray) -> memoryview:
    """The bytes of an array for ``file.write``, whose errors, unlike those of ``tofile``, name their cause."""
    return np.ascontiguousarray(block).data.cast("B")


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Add the name of a file to OSErrors that have none, such as those of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, path) from None
        raise


def _reserve(descriptor: int, size: int) -> None:
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):  # file systems without reservation
            raise
