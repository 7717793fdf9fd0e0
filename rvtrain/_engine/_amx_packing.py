"""Left operands of products on tile registers, in the orders of `_amx_tile.py`."""

import numpy as np

from rvtrain._engine._bfloat16 import joined, neighbours, pairs, part, part_of, rounded, word
from rvtrain._engine._packing import turned
from rvtrain._engine._tile import mr, narrow_nr, nr, tile_shape
from rvtrain._engine._word_packing import section_words
from rvtrain._kernels import body, emitted, njit

_NOTHING = np.float32(0)


def _line(scaled):
    """A function ``(x, of_row, i, k, rest, target, at)`` that writes MR words from target[at] on.

    They are of the elements from k on, or of their rests: of row i times of_row[i] if `scaled`, multiplied in
    float64, else of row of_row[i].
    """

    def interpreted(x, of_row, i, k, rest, target, at):
        size = tile_shape(x.dtype)[0]
        row = part((x[i] * of_row[i] if scaled else x[of_row[i]])[k : k + 2 * size], rest)
        target.reshape(-1)[at : at + size] = joined(row[::2], row[1::2]).view(target.dtype)

    @emitted(interpreted)
    def line(emit, x, of_row, i, k, rest, target, at):
        size, number = tile_shape(x.dtype)[0], (of_row + i).load()
        values = (x + ((i if scaled else number) * x.shape[1] + k)).load(2 * size)
        if scaled:
            values = (values.astype(np.float64) * number.broadcast(2 * size)).astype(x.dtype)
        (target + at).store(neighbours([rounded(part_of(values, rest))])[0])

    return line


_scaled_line, _line_of = _line(scaled=True), _line(scaled=False)


@body
def pack_left_tiles(rows, first, left):
    """Word k of row first + r at left[…, k // 2 MR, r, k % 2 MR] of each 4 MR rows; 0 beyond the edges.

    In each section: of the main parts, of the main parts, of the rests. Shapes: left (rows / MR, words, MR), words of
    a section a multiple of 2 MR.
    """
    height, depth, (count, dim) = mr(left), left.shape[1], rows.x.shape
    tall, deep, flat, section = 4 * height, 2 * height, left.reshape(-1), section_words(left, dim)
    for r in range(len(left) * height):
        i = first + r
        whole = dim // 2 // height * height if i < count else 0
        for begin in range(0, depth, section):
            at, rest = r // tall * tall * depth + begin * tall + r % tall * deep, begin == 2 * section
            for k in range(0, whole, height):
                place = at + k // deep * deep * tall + k % deep
                _scaled_line(rows.x, rows.inverse, i, 2 * k, rest, left, place)
            for k in range(whole, section):
                place = at + k // deep * deep * tall + k % deep
                if i < count and 2 * k < dim:
                    upper = np.float32(rows.x[i, 2 * k + 1] * rows.inverse[i] if 2 * k + 1 < dim else 0.0)
                    flat[place] = word(np.float32(rows.x[i, 2 * k] * rows.inverse[i]), upper, rest)
                else:
                    flat[place] = 0


@njit
def pack_left_tiles_of(x, rows, first, start, stop, begin, rest, left):
    """As `pack_left_tiles`, for words [start, stop) of rows rows[first] … of x, written from word `begin` on.

    Shapes: left (rows / 4 MR, words, 4 MR), begin a multiple of 2 MR.
    """
    height, (_, stretch, tall), dim = mr(left), left.shape, x.shape[1]
    deep, flat = 2 * height, left.reshape(-1)
    for r in range(len(left) * tall):
        i, at = first + r, (r // tall * stretch + begin) * tall + r % tall * deep
        whole = (min(stop, dim // 2) - start) // height * height if i < len(rows) else 0
        for k in range(0, whole, height):
            _line_of(x, rows, i, 2 * (start + k), rest, left, at + k // deep * deep * tall + k % deep)
        for k in range(max(whole, 0), stop - start):
            place, c = at + k // deep * deep * tall + k % deep, 2 * (start + k)
            if i < len(rows) and c < dim:
                row = x[rows[i]]
                flat[place] = word(row[c], row[c + 1] if c + 1 < dim else _NOTHING, rest)
            else:
                flat[place] = 0


def _turned_pairs(x, rows, k, c, rest, target, at, stride):
    lanes = tile_shape(x.dtype)[2]
    one, two = (part(x[rows[k + half : k + 2 * lanes : 2], c : c + lanes], rest) for half in (0, 1))
    places = at + np.arange(lanes)[:, np.newaxis] * stride + np.arange(lanes)
    target.reshape(-1)[places] = joined(one, two).T.view(target.dtype)


@emitted(_turned_pairs)
def turned_pairs(emit, x, rows, k, c, rest, target, at, stride):
    """target[at + q · stride + w] = word of element c + q of rows rows[k + 2 w] and rows[k + 2 w + 1] of x.

    Or of their rests. For q and w below the number of lanes.
    """
    lanes = tile_shape(x.dtype)[2]

    def load(r):
        return rounded(part_of((x + ((rows + (k + r)).load() * x.shape[1] + c)).load(lanes), rest))

    for q, words in enumerate(turned([pairs(load(2 * w), load(2 * w + 1)) for w in range(lanes)])):
        (target + (at + stride * q)).store(words)


@njit
def pack_left_tiles_of_columns(x, rows, first, start, stop, begin, rest, left):
    """As `pack_left_tiles_of`, of the transpose of x[rows]: word k has one element of rows 2 k and 2 k + 1."""
    height, (_, stretch, tall), (columns, lanes) = mr(left), left.shape, (x.shape[1], nr(left) - narrow_nr(left))
    deep, flat = 2 * height, left.reshape(-1)
    for p in range(len(left)):
        for block in range(0, stop - start, lanes):
            for q in range(0, tall, lanes):
                c, at = first + p * tall + q, (p * stretch + begin + block // deep * deep) * tall
                at += q * deep + block % deep
                if c + lanes <= columns and 2 * (start + block + lanes) <= len(rows):
                    turned_pairs(x, rows, 2 * (start + block), c, rest, left, at, deep)
                    continue
                for w in range(lanes):
                    k = 2 * (start + block + w)
                    for s in range(lanes):
                        if k < len(rows) and c + s < columns:
                            upper = x[rows[k + 1], c + s] if k + 1 < len(rows) else _NOTHING
                            flat[at + s * deep + w] = word(x[rows[k], c + s], upper, rest)
                        else:
                            flat[at + s * deep + w] = 0


def _narrow_tiles(slab, at, apart, rest, words, to, to_apart):
    height, width, _ = tile_shape(slab.dtype)
    size = height * width
    blocks = [slab.reshape(-1)[at + b * apart : at + b * apart + size] for b in range(4)]
    numbers = part(np.concatenate(blocks).reshape(4 * height, width), rest)
    across, down = joined(numbers[:, ::2], numbers[:, 1::2]), joined(numbers[::2], numbers[1::2]).T
    for b, block in enumerate(np.concatenate([across.ravel(), down.ravel()]).reshape(4, -1)):
        words.reshape(-1)[to + b * to_apart : to + b * to_apart + size] = block.view(words.dtype)


@emitted(_narrow_tiles)
def narrow_tiles(emit, slab, at, apart, rest, words, to, to_apart):
    """Write the words of four blocks of weights, or of their rests; `words` may be the same memory.

    The blocks start at element `at`, at distances of `apart`, and their words are written to four blocks from `to`
    on: the first two get 4 MR rows of NR / 2 words of neighbouring columns, the others NR columns of 2 MR words of
    neighbouring rows.
    """
    height, width, lanes = tile_shape(slab.dtype)
    size, half, tile, target = height * width, width // 2, slab + at, words + to
    across, down = emit.room(np.int32, 2 * size), emit.room(np.int32, 2 * size)

    def narrow(r):
        place = tile + (r // height * apart + r % height * width)
        lines = [
            [rounded(part_of((place + (q + c)).load(lanes), rest)) for c in range(0, width, lanes)]
            for q in (0, width)
        ]
        for q, line in enumerate(lines):
            row = across + ((r + q) * half)
            for joint in neighbours(line):
                row.store(joint)
                row = row + joint.lanes
        for c, (a, b) in enumerate(zip(*lines, strict=True)):
            (down + (r * half + c * lanes)).store(pairs(a, b))
        return []

    emit.loop(emit.constant(0), emit.constant(4 * height), 2, [], narrow, empty=False)

    def copy(i):
        (target + (i // size * to_apart + i % size)).store((across + i).load(lanes))
        return []

    emit.loop(emit.constant(0), emit.constant(2 * size), lanes, [], copy, empty=False)
    for k in range(0, 2 * height, lanes):
        for c in range(0, width, lanes):
            square = [(down + ((k + q) * width + c)).load(lanes) for q in range(lanes)]
            for q, column in enumerate(turned(square), c):
                (target + (to_apart * (2 + q // half) + (q % half * 2 * height + k))).store(column)


@body
def narrow_tiles_of_block(slab, weights, top, panels, begin, end, origin):
    """Write the words of a block of weights: in its place, or in "high" those of both parts, one after the other.

    Shapes: slab (rows / MR, panels, MR, NR) float32; weights the same memory, or (rows / MR, panels, 2 MR, NR).
    """
    size, across, parts = mr(slab) * nr(slab), slab.shape[1], weights.shape[2] // mr(slab)
    for p in range(0, panels, 4):
        for j in range(begin, end):
            block = (top + p) * across + j - origin
            for rest in range(parts):
                narrow_tiles(
                    slab, block * size, across * size, rest > 0, weights, (block * parts + rest) * size,
                    across * parts * size,
                )  # fmt: skip
