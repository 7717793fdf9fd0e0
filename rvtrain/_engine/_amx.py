"""Tile registers (Intel AMX): whether the process may use them, and their configuration.

# Design: eight registers of 16 rows of 64 bytes. Linux gives them to a process that asks once, for all its threads.
# A thread configures them before it uses them, which takes as long as a few products, and releases them afterwards,
# so that its state stays small: every body that multiplies tiles does both.
"""

import ctypes
import functools
import sys

import numpy as np

from rvtrain._kernels import cpu_features, emitted

SIDE = 16
"""Rows of a tile register, and elements of 4 bytes in each row."""

_NEEDED = {"amx-tile", "amx-bf16", "avx512f", "avx512bf16"}
_ARCH_PRCTL, _ASK, _TILES = 158, 0x1023, 18  # of x86-64: system call, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA


def has_amx() -> bool:
    """Whether the processor that kernels are compiled for multiplies tiles of bfloat16, and the system lets it."""
    return cpu_features() >= _NEEDED and _permitted()


@functools.cache
def _permitted() -> bool:
    """Ask the system for the registers: yes or no holds for the whole process, and for its children."""
    return sys.platform == "linux" and ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ASK, _TILES) == 0


@emitted(lambda: None)
def begin_tiles(emit):
    """Configure all registers with their full size; their contents are lost."""
    if not has_amx():
        return
    numbers = np.zeros(64, np.uint8)
    numbers[0] = 1  # the palette: eight registers
    numbers[16:32].view(np.uint16)[:] = 4 * SIDE  # bytes in a row
    numbers[48:56] = SIDE  # rows
    place = emit.room(np.int32, SIDE)
    for i, number in enumerate(numbers.view(np.int32).tolist()):
        (place + i).store(emit.constant(number, np.int32))
    emit.run("llvm.x86.ldtilecfg", place)


@emitted(lambda: None)
def end_tiles(emit):
    """Release the registers."""
    if has_amx():
        emit.run("llvm.x86.tilerelease")
