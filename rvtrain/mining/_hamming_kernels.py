"""Nearest codes by the number of bits that differ."""

import numpy as np

from rvtrain._kernels import kernel, njit

_ODD, _PAIRS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
_NIBBLES, _BYTES = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)
_1, _2, _4, _56 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)


@njit
def set_bits(word):
    """The number of ones of a 64-bit word; LLVM makes one instruction of this."""
    word = word - ((word >> _1) & _ODD)
    word = (word & _PAIRS) + ((word >> _2) & _PAIRS)
    word = (word + (word >> _4)) & _NIBBLES
    return (word * _BYTES) >> _56


@kernel
def nearest_codes(start, stop, queries, codes, distances, counts, columns, found):
    """columns[i] = the k codes that differ from query i in the fewest bits, found[i] = the number of these bits.

    A counting sort: ties go to the lower index. queries (B, w) and codes (N, w) of 64-bit words, columns and found
    (B, k); scratch: distances (B, N) of 16-bit integers, counts (B, 64 w + 1).
    """
    k = columns.shape[1]
    for i in range(start, stop):
        query, own, places = queries[i], distances[i], counts[i]
        for bits in range(len(places)):
            places[bits] = 0
        for j in range(len(codes)):
            differing = np.uint64(0)
            for word in range(len(query)):
                differing += set_bits(query[word] ^ codes[j, word])
            own[j] = differing
            places[differing] += 1
        place = 0
        for bits in range(len(places)):
            count = places[bits]
            places[bits] = place
            place += count
        for j in range(len(codes)):
            place = places[own[j]]
            if place < k:
                columns[i, place] = j
                found[i, place] = own[j]
            places[own[j]] = place + 1
