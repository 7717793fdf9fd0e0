"""Tile registers (Intel AMX): whether the process may use them, and their configuration.

# Design: eight registers of 16 rows of 64 bytes. Linux gives them to a process that asks once, for all its threads.
# A thread configures them before it uses them, which takes as long as a few products, and releases them afterwards,
# so that its state stays small: every body that multiplies tiles does both.
"""

import numpy as np

from rvtrain._kernels import cpu_features, emitted, tiles_permitted

SIDE = 16
"""Rows of a tile register, and elements of 4 bytes in each row."""

_NEEDED = {"amx-tile", "amx-bf16", "amx-int8", "avx512f", "avx512bf16"}


def has_amx() -> bool:
    """Whether the processor that kernels are compiled for has tiles of bfloat16 and bytes, and the system lets it."""
    return cpu_features() >= _NEEDED and tiles_permitted()


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


def multiply_tiles(emit, instruction, left, second, step, right, steps, product):
    """product (2 SIDE, 2 SIDE) = Σ over the steps of two left tiles · two right ones, by `instruction`.

    The upper left tiles start at `left`, the lower ones at left + second, the next pair `step` on, each contiguous.
    The right operand has rows of 2 SIDE elements, SIDE rows for each step. `_amx_tile.py` has a drawing.
    """
    columns = 2 * SIDE
    packed, spread = emit.constant(4 * SIDE), emit.constant(4 * columns)  # bytes from row to row
    for register in range(4):
        emit.run("llvm.x86.tilezero", register)

    def body(k):
        upper, first = left + k * step, right + k * (SIDE * columns)
        sources = (4, upper, packed), (6, first, spread), (7, first + SIDE, spread), (5, upper + second, packed)
        for source in sources:
            emit.run("llvm.x86.tileloadd64", *source)
        for each in ((0, 4, 6), (1, 4, 7), (2, 5, 6), (3, 5, 7)):
            emit.run(instruction, *each)
        return []

    emit.loop(emit.constant(0), steps, 1, [], body)
    for register in range(4):
        place = product + (register // 2 * SIDE * columns + register % 2 * SIDE)
        emit.run("llvm.x86.tilestored64", register, place, spread)
