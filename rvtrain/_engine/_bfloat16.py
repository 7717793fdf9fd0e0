"""Pairs of bfloat16 numbers in int32 words, the operands of products in half of float32's precision.

# Design: a word holds two numbers that are neighbours along the summed index k, the first in its lower half. So a row
# of operand words is read as a row of float32 numbers is, and the tile has the same shape (`_tile.py`):
#
#     float32   left [k][MR]       right [k][NR]       acc[r] += left[k, r] · right[k]
#     words     left [k / 2][MR]   right [k / 2][NR]   acc[r] += left[k, r] · right[k] + left[k + 1, r] · right[k + 1]
#
# With AVX-512 BF16 the two products of all lanes are one instruction (vdpbf16ps). `_by_two_products` computes the
# same bits on every processor, for tests: products of two bfloat16 numbers are exact in float32, and the instruction
# adds the upper one first. They differ below 1.2e-38 in magnitude, which the instruction takes for 0.
#
# In "high" a number is the sum of two *parts*, its rounding and that of the rest, and a product of two numbers is the
# sum of three: main · main + main · rest + rest · main. Rows packed for scores and for matrix products have three
# *sections* along k for that, so that a sum over k is also the one over the three products:
#
#     left    main | main | rest
#     right   main | rest | main
#
# Of weights and of strips there are both parts, and the sums to rows and to columns call the tile for each product.
"""

from typing import Any, NamedTuple

import numpy as np

from rvtrain._kernels import cpu_features, element_type, emitted, overload
from rvtrain._kernels._vectors import Emitter, Value

WORD = np.dtype(np.int32)
"""Type of arrays of words: an operand of this type is multiplied in bfloat16."""

TILED = np.dtype(np.uint32)
"""Type of arrays of the same words where tile registers multiply them (`_amx_tile.py`), in another order."""

_UPPER = 0xFFFF0000


class Operand(NamedTuple):
    """What packed copies of matrices consist of."""

    dtype: np.dtype
    """That of the numbers, or WORD or TILED."""
    split: bool = False
    """Whether each number is the sum of two of bfloat16."""

    @property
    def parts(self) -> int:
        """Numbers of bfloat16 in a number."""
        return 2 if self.split else 1


def has_bfloat16() -> bool:
    """Whether the processor that kernels are compiled for has instructions for products of bfloat16."""
    return {"avx512bf16", "avx512f"} <= cpu_features()


def words(count: int) -> int:
    """Number of words that hold `count` numbers."""
    return -(-count // 2)


def holds_words(dtype: Any) -> bool:
    """Whether operands of this type are words."""
    return dtype in (WORD, TILED)


def per_element(array: Any) -> int:
    """Numbers in an element of an operand: 2 in a word, else 1; a constant of the compiled code."""
    return 2 if holds_words(array.dtype) else 1


@overload(per_element)
def _per_element(array):
    count = 2 if holds_words(element_type(array)) else 1
    return lambda array: count


def upper_bits(x: Any) -> Any:
    """x rounded to bfloat16, to the nearest and ties to even, as uint32: its bits are the upper half."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(_UPPER)


def joined(first: Any, second: Any) -> Any:
    """The int32 words of two arrays of numbers."""
    return (upper_bits(second) | (upper_bits(first) >> np.uint32(16))).view(WORD)


def halves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two numbers of each word, as float32."""
    bits = x.view(np.uint32)
    return (bits << np.uint32(16)).view(np.float32), (bits & np.uint32(_UPPER)).view(np.float32)


def rounded(x: Value) -> Value:
    """As `upper_bits`, of a number or vector in a register."""
    bits = x.view(WORD)
    return (bits + 0x7FFF + ((bits >> 16) & 1)) & _UPPER


def pairs(first: Value, second: Value) -> Value:
    """The words of two numbers or vectors that `rounded` gave."""
    return second | (first >> 16)


def neighbours(vectors: list[Value]) -> list[Value]:
    """The words of neighbouring elements of a row, given as vectors that `rounded` gave."""
    out = []
    for start in range(0, len(vectors), 2):
        a = vectors[start]
        b = vectors[start + 1] if start + 1 < len(vectors) else None
        size = (a.lanes or 0) * (1 if b is None else 2)
        even, odd = (a.shuffle(a if b is None else b, list(range(first, size, 2))) for first in (0, 1))
        out.append(pairs(even, odd))
    return out


def add_products(emit: Emitter, a: Value, b: Value, c: Value) -> Value:
    """c + the two products of each lane; a and b are vectors of words, c one of float32."""
    if has_bfloat16() and c.lanes == 16:
        return emit.call("llvm.x86.avx512bf16.dpbf16ps.512", c, c, a, b)
    return _by_two_products(emit, a, b, c)


def _by_two_products(emit: Emitter, a: Value, b: Value, c: Value) -> Value:
    real = np.float32
    upper = emit.fma((a & _UPPER).view(real), (b & _UPPER).view(real), c)
    return emit.fma((a << 16).view(real), (b << 16).view(real), upper)


def part(x: Any, rest: bool) -> Any:
    """The float32 number whose rounding is a part of x: x, or what the rounding of x leaves."""
    x = np.asarray(x, np.float32)
    return (x - upper_bits(x).view(np.float32) if rest else x)[()]


def part_of(x: Value, rest: Value) -> Value:
    """As `part`, of a number or vector in a register."""
    return rest.choose(x - rounded(x).view(np.float32), x)


@emitted(lambda a, b, rest: joined(part(a, rest), part(b, rest))[()], WORD)
def word(emit, a, b, rest):
    """The word of two float32 numbers, or if `rest` of their rests."""
    first, second = (rounded(part_of(x.astype(np.float32), rest)) for x in (a, b))
    return pairs(first, second)
