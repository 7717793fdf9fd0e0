"""Whether this process may use the tile registers of AMX, for which Linux has to be asked."""

import ctypes
import functools
import platform
import sys

_ARCH_PRCTL, _ASK, _TILES = 158, 0x1023, 18  # of x86-64: system call, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA


@functools.cache
def tiles_permitted() -> bool:
    """Ask the system for the registers: yes or no holds for the whole process, and for its children.

    Two processes on one machine may get different answers, as in a container, so compiled code of one that was
    permitted is not for one that was refused.
    """
    asked = sys.platform == "linux" and platform.machine() == "x86_64"  # elsewhere the number is another call's
    return asked and ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ASK, _TILES) == 0
