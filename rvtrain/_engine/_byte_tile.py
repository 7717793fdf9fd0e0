"""The microkernel of 8-bit products: one register tile, whose lanes each sum four products of bytes at a time.

# Design: as `_tile.py`, but a lane of the accumulators adds four products of unsigned and signed bytes at a time.
# Both operands are packed as int32 words of four consecutive codes:
#
#     left  [k / 4][ROWS]   signed codes, one word broadcast        right [k / 4][COLUMNS]   codes + 128, unsigned
#
# The accumulators start at −128 Σ left codes, which cancels the added 128. With AVX-512 VNNI the products of a word
# are one instruction (vpdpbusd). AVX2 has vpmaddubsw, which adds a pair of products in int16 and saturates. Left
# codes have fewer levels there, so that it never does: 2 · 255 · 64 < 2¹⁵. Pairs are then summed in int16 for PARTIAL
# words. Intermediate sums may wrap, but the last one is right, because Σ left · right of a lane fits in int16 if
# neither side is longer than 181 there (Cauchy–Schwarz: 181² < 2¹⁵). Then vpmaddwd with ones and vpaddd add in int32:
#
#     word k:  b0 b1 │ b2 b3          lane 0 sums b0, b1 of PARTIAL words, lane 1 their b2, b3
#
# On tile registers (AMX) the microkernel is that of `_amx_bytes.py`: right codes are signed, nothing has to be
# cancelled, and the words of a left row come in runs of DEEP.
"""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._amx import SIDE, has_amx
from rvtrain._engine._amx_bytes import SQUARE, multiply_bytes
from rvtrain._kernels import cpu_features, emitted, njit


class ByteTile(NamedTuple):
    """Parameters of the microkernel on one kind of processor."""

    instructions: str
    rows: int
    columns: int
    lanes: int
    """Number of int32 elements in a vector."""
    left_levels: int
    """Greatest magnitude of a left code; that of a right code is 127 on every processor."""
    partial: int
    """Number of words that are summed in 16 bits; 0: all sums are in 32 bits."""
    offset: int
    """Added to right codes, which makes them unsigned."""
    deep: int
    """Number of words of a left row that are neighbours; rows have whole runs of them."""


AMX = ByteTile("AMX", SQUARE, SQUARE, SIDE, 127, 0, 0, SIDE)
"""Four tile registers of sums, two of each operand."""
VNNI = ByteTile("AVX-512 VNNI", 12, 32, 16, 127, 0, 128, 1)
"""24 accumulators, two vectors of the right operand, and room for the broadcasts."""
AVX2 = ByteTile("AVX2", 4, 16, 8, 64, 16, 128, 1)
"""8 accumulators, two vectors of the right operand, a broadcast and the pairs."""


def byte_tile() -> ByteTile | None:
    """The tile for the processor that kernels are compiled for; None if products of floats are as fast there.

    That is the case for vectors of 512 bits without VNNI, and without AVX2.
    """
    features = cpu_features()
    if has_amx():
        return AMX
    if {"avx512vnni", "avx512f", "avx512bw"} <= features:
        return VNNI
    return AVX2 if "avx2" in features and "avx512f" not in features else None


UNROLLED = 2
"""Number of words of a row that a step of the loop adds: its counters take a tenth of the time of one word."""

TILE = byte_tile() or AVX2
ROWS, COLUMNS, LANES, PARTIAL = TILE.rows, TILE.columns, TILE.lanes, TILE.partial
OFFSET, DEEP = TILE.offset, TILE.deep


def _tile_bytes(left, at, right, right_at, steps, start, start_at, out):
    runs = left.reshape(-1)[at : at + steps * ROWS].reshape(-1, ROWS, DEEP)
    words_a = np.ascontiguousarray(runs.transpose(0, 2, 1)).reshape(steps, ROWS, 1)
    words_b = right.reshape(-1)[right_at : right_at + steps * COLUMNS].reshape(steps, COLUMNS, 1)
    of_lanes = (steps, -1, 2, 2) if PARTIAL else (steps, -1, 1, 4)
    a = words_a.view(np.int8).astype(np.int64).reshape(of_lanes)
    b = words_b.view(np.uint8 if OFFSET else np.int8).astype(np.int64).reshape(of_lanes)
    kind = np.int16 if PARTIAL else np.int32
    out[:] = 0
    for part, first in enumerate(range(0, steps, PARTIAL or steps)):
        k, begin = slice(first, first + (PARTIAL or steps)), start_at + part * ROWS
        of_rows = start.reshape(-1)[begin : begin + ROWS, np.newaxis].view(kind)[:, np.newaxis]
        sums = np.einsum("krlb,kclb->rcl", a[k], b[k]) + of_rows
        out += sums.astype(kind).sum(axis=2, dtype=np.int32)


@emitted(_tile_bytes)
def tile_bytes(emit, left, at, right, right_at, steps, start, start_at, out):
    """out[r, c] = start[r] + Σ over k < steps and over the bytes of left word [k, r] · right word [k, c].

    left, right, start and out are C-contiguous int32 arrays, read from element offsets `…at`; out (ROWS, COLUMNS).
    start has ROWS words; if OFFSET is 0, they are 0. If PARTIAL is not 0, it has ROWS words for each PARTIAL words of
    k, each holding two int16.
    """
    if TILE is AMX:
        multiply_bytes(emit, left + at, right + right_at, steps, out)
        return
    places = [out + (r * COLUMNS + c) for r in range(ROWS) for c in range(0, COLUMNS, LANES)]
    vectors = COLUMNS // LANES
    kind = np.int16 if PARTIAL else np.int32
    nothing = emit.constant(0, np.int32, LANES)

    def adding(together):
        """The body of a loop that adds so many words of each row and column to the tile, vectors row by row."""

        def body(k, a, b, *tile):
            sums = list(tile)
            for _ in range(together):
                row = [(b + LANES * c).load(LANES) for c in range(vectors)]
                for r in range(ROWS):
                    word = (a + r).load().broadcast(LANES)
                    for c in range(vectors):
                        sums[r * vectors + c] = _add_products(emit, sums[r * vectors + c], row[c], word)
                a, b = a + ROWS, b + COLUMNS
            return [a, b, *sums]

        return body

    def add_part(first, a, b, begin):
        """Add the products of PARTIAL words to `out`; if PARTIAL is 0, write the products of all words."""
        initial = [(begin + r).load().broadcast(LANES).view(kind) for r in range(ROWS) for _ in range(vectors)]
        last = steps
        if PARTIAL:
            limit = first + PARTIAL
            last = (limit < steps).choose(limit, steps)
        whole = last - (last - first) % UNROLLED
        carried = emit.loop(first, whole, UNROLLED, [a, b, *initial], adding(UNROLLED))
        a, b, *sums = emit.loop(whole, last, 1, carried, adding(1))
        for place, total in zip(places, sums, strict=True):
            if PARTIAL:
                ones = emit.constant(1, np.int16, 2 * LANES)
                total = place.load(LANES) + emit.call("llvm.x86.avx2.pmadd.wd", nothing, total, ones)
            place.store(total)
        return [a, b, begin + ROWS]

    start = emit.constant(0), left + at, right + right_at, start + start_at
    if PARTIAL:
        for place in places:
            place.store(nothing)
        emit.loop(start[0], steps, PARTIAL, start[1:], add_part, empty=False)
    else:
        add_part(*start)


def _add_products(emit, sums, unsigned, signed):
    """sums + the four products of each lane: in one int32 by VNNI, else in two int16 of two products each."""
    if not PARTIAL:
        return emit.call("llvm.x86.avx512.vpdpbusd.512", sums, sums, unsigned, signed)
    return sums + emit.call("llvm.x86.avx2.pmadd.ub.sw", sums, unsigned.view(np.int8), signed.view(np.int8))


def words(dim: int) -> int:
    """Number of int32 words of four codes each in a row of length `dim`."""
    return -(-dim // (4 * DEEP)) * DEEP


@njit
def left_place(k, r):
    """Where word k of row r is in a panel of the left operand."""
    return k // DEEP * (DEEP * ROWS) + r * DEEP + k % DEEP


def parts(dim: int) -> int:
    """Number of partial sums, each with its own start, in a row of length `dim`."""
    return -(-words(dim) // PARTIAL) if PARTIAL else 1


def packed_shape(count: int, dim: int, width: int) -> tuple[int, int, int]:
    """Shape of `count` rows packed in panels of `width`, as int32 words."""
    return -(-count // width), words(dim), width


WORD = np.dtype(np.int32)
