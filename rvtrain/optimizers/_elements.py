"""The arithmetic of one element of a step, in the order written.

Which products are fused, and how a sum is grouped, fastmath leaves to the compiler, which chose otherwise in vectors
than in the elements left over at a thread's end, and otherwise when just compiled than when read from disk. With
their order fixed, an element's bits depend on nothing but its numbers. Steps wait for memory anyway.
"""

import numpy as np

from rvtrain._kernels import in_order


@in_order
def mixed(a, x, b, y):
    """a x + b y."""
    return a * x + b * y


@in_order
def between(x, y, part):
    """x + part · (y − x): x itself where the two are equal."""
    return x + part * (y - x)


@in_order
def less(p, rate, move):
    """p − rate · move."""
    return p - rate * move


@in_order
def with_square(a, v, b, g):
    """a v + b g²."""
    return a * v + b * g * g


@in_order
def adam_moved(p, shrink, rate, m, v, root, eps):
    """shrink · p − rate · m / (√v · root + ε)."""
    return shrink * p - rate * m / (np.sqrt(v) * root + eps)
