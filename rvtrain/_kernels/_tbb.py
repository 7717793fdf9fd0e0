"""Load TBB's library from the folders where Python packages put it, which the dynamic loader does not search.

numba prefers TBB to OpenMP as its threading layer if a library of that name is in the process or the dynamic loader
finds one. A TBB of the operating system is found without this module.
"""

import ctypes
import functools
import importlib.metadata
import mmap
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

_NAME = {"linux": "libtbb.so.12", "win32": "tbb12.dll"}.get(sys.platform)
_FOLDERS = (Path("Library", "bin"),) if sys.platform == "win32" else (Path("lib"), Path("lib64"))
_OLDEST = 12060
"""The oldest interface that numba accepts. Older libraries are skipped: once loaded, one blocks a newer one."""


@functools.cache
def load() -> Path | None:
    """Load the first library that is new enough, unless the process has one; return its file. Takes about 1 ms."""
    if _NAME is None or _resident():
        return None
    for file in _candidates(_NAME):
        if file.is_file() and not _is_older(file):
            try:
                ctypes.CDLL(str(file))
            except OSError:  # damaged, or built for another platform
                continue
            return file
    return None


def where() -> str:
    """The file of the library in this process, or the reason why there is none, for `rvtrain info`."""
    loaded = load()
    if sys.platform == "linux":
        with open("/proc/self/maps") as maps:
            found = re.search(r"/.*/libtbb\.so\.12.*", maps.read())
        if found:
            return found.group()
    elif loaded is not None:
        return str(loaded)
    packages = [str(package.locate_file("")) for package in importlib.metadata.distributions(name="tbb")]
    if packages:
        return f"not found: the package in {packages[0]} came without it, as from pip install --target"
    return "not found"


def _resident() -> bool:
    """Whether the process has a library of that name."""
    if sys.platform != "linux":
        return False
    try:
        ctypes.CDLL(_NAME, os.RTLD_NOLOAD)
    except OSError:
        return False
    return True


def _candidates(name: str) -> Iterator[Path]:
    """Possible files of the library: those recorded by packages, then in folders beside packages and the interpreter.

    The recorded files alone are not enough: after `pip install --target` the record refers to a deleted folder.
    """
    sites = []
    for package in importlib.metadata.distributions(name="tbb"):
        yield from (Path(str(file.locate())) for file in package.files or () if file.name == name)
        sites.append(Path(str(package.locate_file(""))))
    for root in dict.fromkeys([*sites, Path(sys.prefix), Path(sys.base_prefix)]):
        yield from (root / folder / name for folder in _FOLDERS)


def _is_older(file: Path) -> bool:
    """Whether a library's interface version, which TBB embeds as text, is too old; also true of unreadable files."""
    mark = b"TBB: INTERFACE VERSION"
    try:
        with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = content.find(mark)
            told = content[at : at + 100] if at >= 0 else b""
    except (OSError, ValueError):  # unreadable, or empty
        return True
    found = re.match(mark + rb"\s+(\d+)", told)
    return found is not None and int(found.group(1)) < _OLDEST
