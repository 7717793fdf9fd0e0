"""Packing of the operands of `_matmul.py` as words of two bfloat16 numbers, neighbours along the summed index k."""

import numpy as np

from rvtrain._engine._bfloat16 import word
from rvtrain._engine._packing import pair_part, transpose_words
from rvtrain._engine._tile import mr, nr
from rvtrain._kernels import njit

_NOTHING = np.float32(0)


@njit
def pack_word_block(first, last, w, transposed, begin, rest, panels):
    """panels[j, begin + k, q] = word of elements 2 k and 2 k + 1, or of their rests, for k in [first, last).

    They are of column j · NR + q of w or its transpose.
    """
    width, depth, stop = nr(panels), panels.shape[1], last
    across, dim = (len(w), w.shape[1]) if transposed else (w.shape[1], len(w))
    last = min(stop, (dim + 1) // 2)  # on tile registers, words of zeros follow
    whole = 0 if transposed else across // width
    paired = min(last, dim // 2)
    for j in range(whole):
        for k in range(first, paired):
            for q in range(0, width, mr(panels)):
                pair_part(w, 2 * k, 2 * k + 1, j * width + q, panels, (j * depth + begin + k) * width + q, rest)
    for c in range(across):
        for k in range(first if c >= whole * width else paired, last):
            second, lower = 2 * k + 1, w[c, 2 * k] if transposed else w[2 * k, c]
            upper = _NOTHING
            if second < dim:
                upper = w[c, second] if transposed else w[second, c]
            panels[c // width, begin + k, c % width] = word(lower, upper, rest)
    if across % width > 0:
        panels[across // width, begin + first : begin + last, across % width :] = 0
    panels[:, begin + last : begin + stop] = 0


@njit
def pack_word_rows_of(x, rows, first, start, stop, left):
    """left[p, k − start, r] = word of elements 2 k and 2 k + 1 of row rows[first + p · MR + r], 0 beyond the last."""
    height, stretch, dim = mr(left), left.shape[1], x.shape[1]
    for p in range(len(left)):
        here = first + p * height
        whole = start + (min(stop, dim // 2) - start) // height * height if here + height <= len(rows) else start
        for k in range(start, whole, height):
            transpose_words(x, rows, here, 2 * k, left, (p * stretch + k - start) * height, height, False)
        for r in range(height):
            if here + r < len(rows):
                row = x[rows[here + r]]
                for k in range(whole, stop):
                    left[p, k - start, r] = word(row[2 * k], row[2 * k + 1] if 2 * k + 1 < dim else _NOTHING, False)
            else:
                left[p, : stop - start, r] = 0


@njit
def pack_word_columns_of(x, rows, first, start, stop, left):
    """left[p, k − start, r] = word of element first + p · MR + r of rows rows[2 k] and rows[2 k + 1], 0 beyond."""
    height, stretch, columns = mr(left), left.shape[1], x.shape[1]
    whole, paired = min(len(left), (columns - first) // height), min(stop, len(rows) // 2)
    for k in range(start, paired):
        for p in range(whole):
            at = (p * stretch + k - start) * height
            pair_part(x, rows[2 * k], rows[2 * k + 1], first + p * height, left, at, False)
    for p in range(len(left)):
        for k in range(start if p >= whole else paired, stop):
            for r in range(height):
                c, second = first + p * height + r, 2 * k + 1
                if c < columns:
                    upper = x[rows[second], c] if second < len(rows) else _NOTHING
                    left[p, k - start, r] = word(x[rows[2 * k], c], upper, False)
                else:
                    left[p, k - start, r] = 0
