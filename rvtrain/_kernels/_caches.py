"""Sizes of the processor's caches, from which blocks are derived."""

import functools
import os
from pathlib import Path
from typing import NamedTuple

_SYSFS = Path("/sys/devices/system/cpu/cpu0/cache")
_SYSCONF = (188, 191, 194)
"""Numbers of _SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE and _SC_LEVEL3_CACHE_SIZE in glibc, which asks cpuid."""


class Caches(NamedTuple):
    """Sizes in bytes of the caches of one processor core: the second is its own, the third is shared."""

    first: int
    second: int
    third: int


TYPICAL = Caches(32 << 10, 512 << 10, 16 << 20)
"""Taken where the system does not tell."""


@functools.cache
def cache_sizes() -> Caches:
    """The caches of this machine: from Linux's sysfs, else from the C library, else typical sizes.

    A level that is not told, or has less than the one before, gets a size in proportion to the one before.
    """
    return completed(_from_sysfs(_SYSFS) or _from_library())


def completed(found: dict[int, int]) -> Caches:
    """The sizes by level, with missing ones filled in."""
    sizes: list[int] = []
    for level, typical in enumerate(TYPICAL):
        least = sizes[-1] if sizes else 1
        size = found.get(level + 1, 0)
        sizes.append(size if size >= least else typical * least // (TYPICAL[level - 1] if level else 1))
    return Caches(*sizes)


def _from_sysfs(folder: Path) -> dict[int, int]:
    """Bytes by level of the data caches that the folder describes; {} if it does not."""
    found = {}
    try:
        for cache in folder.glob("index*"):
            level, kind, size = ((cache / part).read_text().strip() for part in ("level", "type", "size"))
            if kind != "Instruction":
                found[int(level)] = int(size[:-1]) << {"K": 10, "M": 20}[size[-1]]
    except (OSError, ValueError, KeyError, IndexError):
        return {}
    return found


def _from_library() -> dict[int, int]:
    """Bytes by level as glibc tells them; {} elsewhere."""
    try:
        if not os.confstr("CS_GNU_LIBC_VERSION"):
            return {}
        return {level: max(os.sysconf(number), 0) for level, number in enumerate(_SYSCONF, 1)}
    except (AttributeError, OSError, ValueError):
        return {}
