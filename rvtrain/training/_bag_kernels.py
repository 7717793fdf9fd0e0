"""Weighted sums of table rows, one for each bag, and their gradients by distinct rows of the table.

The entries of a batch are sorted by table row, so that each row of the gradient is the sum of one thread, over its
entries in the order of the batch: no atomic addition, and the same bits for any number of threads.
"""

import numpy as np

from rvtrain._engine._prefetch import prefetch_row
from rvtrain._kernels import driver, kernel, njit

_AHEAD = 4
"""Entries from the row that is added to the row that is fetched."""
_DIGIT = 11
"""Bits sorted at a time: the histogram of 2¹¹ counts fits in the first cache."""


@kernel
def sum_bags(start, stop, table, offsets, indices, weights, bags, mean, scales, out):
    """out[i] = scales[i] Σ_e weights[e] table[indices[e]] over the entries e of bag bags[i]; 0 without entries.

    scales[i] = 1 / Σ_e |weights[e]| if mean, else 1; 0 where the sum is 0. Shapes: table (R, d), offsets (N + 1,),
    indices and weights (nnz,), bags and scales (n,), out (n, d). The range is over i.
    """
    one = table.dtype.type(1)
    for i in range(start, stop):
        first, end = offsets[bags[i]], offsets[bags[i] + 1]
        total, length = out[i], 0.0
        total[:] = 0
        for e in range(first, min(first + _AHEAD, end)):
            prefetch_row(table, indices[e])
        for e in range(first, end):
            if e + _AHEAD < end:
                prefetch_row(table, indices[e + _AHEAD])
            row, weight = table[indices[e]], weights[e]
            length += abs(np.float64(weight))
            for k in range(len(total)):
                total[k] += weight * row[k]
        scale = one
        if mean:
            scale = table.dtype.type(1.0 / length if length > 0.0 else 0.0)
            for k in range(len(total)):
                total[k] *= scale
        scales[i] = scale


@kernel
def entries_of_bags(start, stop, offsets, indices, weights, bags, scales, places, entries, owners, scaled):
    """The entries of bag bags[i] from places[i] on: table rows, owner i, and weights times scales[i].

    Shapes: as in `sum_bags`; places (n + 1,), entries, owners and scaled (places[n],). The range is over i.
    """
    for i in range(start, stop):
        shift = places[i] - offsets[bags[i]]
        for e in range(offsets[bags[i]], offsets[bags[i] + 1]):
            entries[shift + e], owners[shift + e], scaled[shift + e] = indices[e], i, weights[e] * scales[i]


@njit
def _sort_digit(keys, sources, shift, out_keys, out_sources, counts):
    """Sort keys, and sources with them, by the _DIGIT bits of the keys from `shift` on; the sort is stable."""
    mask = (1 << _DIGIT) - 1
    counts[:] = 0
    for i in range(len(keys)):
        counts[((keys[i] >> shift) & mask) + 1] += 1
    for digit in range(mask):
        counts[digit + 1] += counts[digit]
    for i in range(len(keys)):
        digit = (keys[i] >> shift) & mask
        out_keys[counts[digit]], out_sources[counts[digit]] = keys[i], sources[i]
        counts[digit] += 1


@driver
def by_table_row(threads, length, keys, sources, scratch, rows, bounds, found):
    """Sort entries by table row, and find the distinct rows.

    Shapes: keys (E,) table rows below `length`, sources (E,), scratch (2, E), rows (E,), bounds (E + 1,). Afterwards
    the entries of rows[g] are those from bounds[g] to bounds[g + 1] of keys and sources, and found[0] is the number
    of groups.
    """
    counts = np.empty((1 << _DIGIT) + 1, np.int64)
    flip = False
    for shift in range(0, 31, _DIGIT):
        if (length - 1) >> shift == 0:
            break
        if flip:
            _sort_digit(scratch[0], scratch[1], shift, keys, sources, counts)
        else:
            _sort_digit(keys, sources, shift, scratch[0], scratch[1], counts)
        flip = not flip
    if flip:
        for i in range(len(keys)):
            keys[i], sources[i] = scratch[0, i], scratch[1, i]
    count = 0
    for i in range(len(keys)):
        if i == 0 or keys[i] != keys[i - 1]:
            rows[count], bounds[count] = keys[i], i
            count += 1
    bounds[count] = len(keys)
    found[0] = count


@kernel
def sum_by_row(start, stop, bounds, sources, owners, weights, grad, out):
    """out[g] = Σ weights[e] grad[owners[e]] over the entries e = sources[s], s from bounds[g] to bounds[g + 1].

    Shapes: bounds (G + 1,), sources, owners and weights (E,), grad (n, d), out (G, d). The range is over groups.
    """
    for g in range(start, stop):
        total = out[g]
        e = sources[bounds[g]]
        row, weight = grad[owners[e]], weights[e]
        for k in range(len(total)):
            total[k] = weight * row[k]
        for s in range(bounds[g] + 1, bounds[g + 1]):
            e = sources[s]
            row, weight = grad[owners[e]], weights[e]
            for k in range(len(total)):
                total[k] += weight * row[k]
