"""Rows as signed bytes with a scale and a bound of the rounding error each, packed for `tile_bytes`."""

from typing import NamedTuple

import numpy as np

from rvtrain._engine._byte_tile import DEEP, OFFSET, PARTIAL, ROWS, left_place
from rvtrain._engine._short_tile import LARGEST
from rvtrain._kernels import kernel, njit

_LANE = (np.arange(4 * PARTIAL) % 4 < 2).astype(np.float32)
"""1 where a code is summed in the first lane of its part, 0 where in the second."""


class Codes(NamedTuple):
    """Rows as bytes, packed for `tile_bytes`, or as 16-bit codes, packed for `tile_shorts`."""

    words: np.ndarray
    """(panels, d / 4 or d / 2, width) int32: four or two codes each; bytes of candidates are OFFSET higher"""
    scales: np.ndarray
    """(panels, width) float32: s; 0 for rows beyond the last as bytes"""
    errors: np.ndarray
    """(panels, width) float32: e, rounded up"""
    starts: np.ndarray
    """(panels, parts, width) int32: initial values of the sums of a query's products of bytes"""


@kernel
def encode(start, stop, rows, levels, left, lines, codes):
    """Codes of rows (n, d) float32, packed by the width of codes.words, as left operand or as right one.

    Count is the number of tasks; lines (tasks, 4 ⌈d / 4⌉) uint8 is scratch for the codes of a row.
    """
    panels = len(codes.words)
    for task in range(start, stop):
        for panel in range(panels * task // len(lines), panels * (task + 1) // len(lines)):
            _encode_panel(panel, rows, levels, left, lines[task], codes)


@njit
def _encode_panel(panel, rows, levels, left, line, codes):
    """The code of an element x is rint(g x), its error r = g x − code; e = s ‖r‖ with s = 1 / g of the unit row.

    g is as large as `levels`, and sums of 16 bits, allow. The computed r is wrong by at most 2.3e-5: three roundings
    of a number up to 127, the highest level.
    """
    width, (count, dim) = codes.words.shape[2], rows.x.shape
    words, offset = line.view(np.int32), 0 if left else OFFSET
    for r in range(width):
        i = panel * width + r
        line[:] = offset
        codes.starts[panel, :, r] = 0
        scale, squares = np.float32(0), np.float32(0)
        if i < count:
            x = rows.x[i]
            largest = _largest_magnitude(x)
            stretch = np.float32(0)
            if largest > 1e-30:
                stretch = _most_levels(x, np.float32(1) / largest, np.float32(levels)) / largest
                scale = np.float32(rows.inverse[i] / stretch)
            for k in range(dim):
                stretched = x[k] * stretch
                code = np.rint(stretched)
                squares += (stretched - code) * (stretched - code)
                line[k] = np.uint8(np.int32(code) + offset)
            if left and OFFSET > 0:
                _sum_codes(line.view(np.int8), codes.starts[panel, :, r])
        if left and DEEP > 1:
            for k in range(len(words)):
                place = left_place(k, r)
                codes.words[panel, place // ROWS, place % ROWS] = words[k]
        else:
            for k in range(len(words)):
                codes.words[panel, k, r] = words[k]
        codes.scales[panel, r] = scale
        growth = np.float32(1) + np.float32(dim) * np.float32(2.4e-7)
        slack = np.sqrt(np.float32(dim)) * np.float32(2.3e-5)
        codes.errors[panel, r] = scale * (np.sqrt(squares) * growth + slack) + np.float32(4e-7)


@kernel
def encode_shorts(start, stop, rows, unit, lines, codes):
    """16-bit codes of rows (n, d) float32, packed by the width of codes.words; `unit` is the code of 1.

    Count is the number of tasks; lines (tasks, 2 ⌈d / 2⌉) int16 is scratch for the codes of a row.
    """
    panels = len(codes.words)
    for task in range(start, stop):
        for panel in range(panels * task // len(lines), panels * (task + 1) // len(lines)):
            _encode_panel_as_shorts(panel, rows, np.float32(unit), lines[task], codes)


@njit
def _encode_panel_as_shorts(panel, rows, unit, line, codes):
    """The code of an element x of a unit row is rint(unit x), cut to LARGEST; e = ‖unit x − code‖ / unit.

    Products unit x are wrong by at most .002, by a rounding.
    """
    width, (count, dim), most = codes.words.shape[2], rows.x.shape, np.float32(LARGEST)
    words, slack = line.view(np.int32), np.sqrt(np.float32(dim)) * np.float32(0.002)
    line[:] = 0
    for r in range(width):
        i, squares = panel * width + r, np.float32(0)
        if i < count:
            x, inverse = rows.x[i], rows.inverse[i]
            for k in range(dim):
                stretched = np.float32(x[k] * inverse) * unit
                code = min(max(np.rint(stretched), -most), most)
                squares += (stretched - code) * (stretched - code)
                line[k] = np.int16(np.int32(code))
        else:
            line[:] = 0
        for k in range(len(words)):
            codes.words[panel, k, r] = words[k]
        codes.scales[panel, r] = np.float32(1) / unit
        codes.errors[panel, r] = (np.sqrt(squares) * np.float32(1.0001) + slack) / unit


@njit
def _most_levels(x, inverse, levels):
    """The largest code: at most `levels`, and such that the norm of the codes of a 16-bit sum is at most 181.

    Shapes: x (d,); `inverse` is 1 / max |x|.

    Rounding adds at most √n / 2 to the norm of n codes.
    """
    if PARTIAL == 0:
        return levels
    longest, whole = np.float32(1), len(x) // (4 * PARTIAL) * (4 * PARTIAL)
    for start in range(0, whole, 4 * PARTIAL):
        both, first = np.float32(0), np.float32(0)
        for k in range(4 * PARTIAL):  # a constant length, and unsigned indices, which need no test for negative ones
            a = x[np.uint64(start + k)] * inverse
            both += a * a
            first += a * a * _LANE[k]
        longest = max(longest, first, both - first)
    both, first = np.float32(0), np.float32(0)
    for k in range(whole, len(x)):
        a = x[k] * inverse
        both += a * a
        first += a * a * _LANE[k - whole]
    longest = max(longest, first, both - first)
    codes = 2 * min(PARTIAL, (len(x) + 3) // 4)
    return min(levels, (np.float32(180.9) - np.sqrt(np.float32(codes)) / np.float32(2)) / np.sqrt(longest))


@njit
def _sum_codes(line, starts):
    """starts = −128 Σ codes; with 16-bit sums, one for each lane of each part, modulo 2¹⁶."""
    if PARTIAL == 0:
        total = np.int32(0)
        for k in range(len(line)):
            total += np.int32(line[k])
        starts[0] = np.int32(-128) * total
        return
    for part in range(len(starts)):
        first, second = np.int32(0), np.int32(0)
        for k in range(4 * PARTIAL * part, min(4 * PARTIAL * (part + 1), len(line)), 4):
            first += np.int32(line[k]) + np.int32(line[k + 1])
            second += np.int32(line[k + 2]) + np.int32(line[k + 3])
        low, high = np.int32(-128) * first, np.int32(-128) * second
        starts[part] = (low & np.int32(0xFFFF)) | np.int32(high << np.int32(16))


@njit
def _largest_magnitude(x):
    """max |x| of float32 x (n,): by the bits without the sign, because comparisons of integers vectorise."""
    bits = x.view(np.int32)
    largest = np.int32(0)
    for k in range(len(bits)):
        magnitude = bits[k] & np.int32(0x7FFFFFFF)
        largest = magnitude if magnitude > largest else largest
    return np.int32(largest).view(np.float32)
