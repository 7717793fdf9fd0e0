"""Counter-based random numbers: a pure function of (seed, draw, row, column).

There is no state, so a result does not depend on threads, block sizes or the order of calls.
"""

import numpy as np

from rvtrain._kernels import njit

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX1 = np.uint64(0xBF58476D1CE4E5B9)
MIX2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_TO_UNIT = 2.0**-53


@njit
def mix(x):
    """SplitMix64's finaliser (Steele, Lea & Flood, 2014): uint64 to uint64, a bijection."""
    x = (x ^ (x >> _S30)) * MIX1
    x = (x ^ (x >> _S27)) * MIX2
    return x ^ (x >> _S31)


@njit
def row_key(seed, draw, row):
    """The key of one row of one draw: uint64 from integers."""
    key = mix(np.uint64(seed) + GOLDEN)
    key = mix((key ^ np.uint64(draw)) + GOLDEN)
    return mix((key ^ np.uint64(row)) + GOLDEN)


@njit
def uniform(key, column):
    """A float64 in the open interval (0, 1) from a row's key and a column."""
    bits = mix(key + np.uint64(column) * GOLDEN) >> _S11
    return (np.float64(np.int64(bits)) + 0.5) * _TO_UNIT
