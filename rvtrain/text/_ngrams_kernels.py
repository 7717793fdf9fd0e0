"""From code points to bags: normalised texts, hashes of their n-grams, sorted and counted, and weights.

A text is normalised to its words with one space before, between and after them. An n-gram of characters is any n
code points that follow each other in it, an n-gram of words any n words. Each hash is a function of the code points
alone, and each text is the work of one thread.
"""

import numpy as np

from rvtrain._engine._random import mix
from rvtrain._kernels import kernel, njit

SEPARATOR, OTHER, UPPER, LOWER = 0, 1, 2, 3
"""Classes of code points: between words; in words, without case; upper and lower case."""

_SPACE = np.uint32(32)
_PRIME = np.uint64(1099511628211)  # of the FNV-1a hash
_OF_CHARACTERS = np.uint64(14695981039346656037)
_OF_WORDS = np.uint64(9600629759793949339)  # another start, so that the word "ab" is not the n-gram of characters
_BITS = 8
_DIGITS = 1 << _BITS


@njit
def _normalised(codes, folded, classes, split_case, text):
    """Write the words of a text with spaces around them; returns the length, 0 if there is no word."""
    length = 0
    inside = False
    for i in range(len(codes)):
        kind = classes[codes[i]]
        if kind == SEPARATOR:
            inside = False
            continue
        begins = not inside
        if split_case and inside and kind == UPPER:
            before = classes[codes[i - 1]]
            follows = classes[codes[i + 1]] if i + 1 < len(codes) else OTHER
            begins = before != UPPER or follows == LOWER
        if begins:
            text[length] = _SPACE
            length += 1
        text[length] = folded[codes[i]]
        length += 1
        inside = True
    if length:
        text[length] = _SPACE
        length += 1
    return length


@njit
def _hash_characters(text, low, high, rows, out, count):
    """Append the rows of all n-grams of low to high characters; returns the new count."""
    for i in range(len(text)):
        value = _OF_CHARACTERS
        for n in range(1, min(high, len(text) - i) + 1):
            value = (value ^ np.uint64(text[i + n - 1])) * _PRIME
            if n >= low:
                out[count] = np.int32(mix(value) % rows)
                count += 1
    return count


@njit
def _hash_words(text, low, high, rows, out, count):
    """Append the rows of all n-grams of low to high words; returns the new count."""
    for i in range(len(text) - 1):
        if text[i] != _SPACE:
            continue
        value, n = _OF_WORDS, 0
        for j in range(i + 1, len(text)):
            if text[j] == _SPACE:
                n += 1
                if n >= low:
                    out[count] = np.int32(mix(value) % rows)
                    count += 1
                if n == high:
                    break
            value = (value ^ np.uint64(text[j])) * _PRIME
    return count


@njit
def _is_sorted_to_scratch(values, scratch, largest, starts):
    """Sort values ≤ largest by 8 bits at a time; the result is in scratch if True is returned, else in values."""
    flip = False
    shift = 0
    while largest >> shift:
        source, target = (scratch, values) if flip else (values, scratch)
        starts[:] = 0
        for i in range(len(source)):
            starts[((source[i] >> shift) & (_DIGITS - 1)) + 1] += 1
        for digit in range(_DIGITS):
            starts[digit + 1] += starts[digit]
        for i in range(len(source)):
            digit = (source[i] >> shift) & (_DIGITS - 1)
            target[starts[digit]] = source[i]
            starts[digit] += 1
        flip = not flip
        shift += _BITS
    return flip


@kernel
def count_ngrams(start, stop, codes, bounds, tables, options, places, text, rows, counts, sizes):
    """The distinct rows of each text's n-grams, ascending, and how often each comes.

    Shapes: codes (C,), bounds (T + 1,): text t is codes[bounds[t] : bounds[t + 1]]. tables (folded, classes), each
    with an element for every code point up to the largest. options: n-grams of options[0] to options[1] characters
    and options[2] to options[3] words (none where the second is 0), options[4] rows, options[5] whether capitals
    begin words. places (2, T + 1): text t is normalised in text[places[0, t] …], and has its n-grams in rows and
    counts from places[1, t] on, of which sizes[t] are distinct. The range is over texts.
    """
    folded, classes = tables
    total, starts = np.uint64(options[4]), np.empty(_DIGITS + 1, np.int64)
    for t in range(start, stop):
        words = text[places[0, t] : places[0, t + 1]]
        length = _normalised(codes[bounds[t] : bounds[t + 1]], folded, classes, options[5] != 0, words)
        mine, scratch = rows[places[1, t] : places[1, t + 1]], counts[places[1, t] : places[1, t + 1]]
        found = 0
        if length and options[1]:
            found = _hash_characters(words[:length], options[0], options[1], total, mine, found)
        if length and options[3]:
            found = _hash_words(words[:length], options[2], options[3], total, mine, found)
        if _is_sorted_to_scratch(mine[:found], scratch[:found], options[4] - 1, starts):
            for i in range(found):
                mine[i] = scratch[i]
        size = 0
        for i in range(found):
            if i and mine[i] == mine[size - 1]:
                scratch[size - 1] += 1
            else:
                mine[size], scratch[size] = mine[i], 1
                size += 1
        sizes[t] = size


@kernel
def weigh(start, stop, offsets, indices, counts, idf, sublinear, unit, out):
    """out = tf · idf by row, tf = 1 + log count if sublinear else count; of Euclidean length one if unit.

    Shapes: offsets (T + 1,), indices, counts and out (nnz,), idf (R,) or (0,) for none. The range is over texts.
    """
    for t in range(start, stop):
        square = 0.0
        for e in range(offsets[t], offsets[t + 1]):
            weight = np.float64(counts[e])
            if sublinear:
                weight = 1.0 + np.log(weight)
            if len(idf):
                weight *= idf[indices[e]]
            square += weight * weight
            out[e] = weight
        if unit and square > 0.0:
            inverse = 1.0 / np.sqrt(square)
            for e in range(offsets[t], offsets[t + 1]):
                out[e] = out[e] * inverse
