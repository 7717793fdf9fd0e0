"""The arithmetic of one element of a step, in the order written.

Under fastmath the compiler may fuse and reorder products differently in vectors, in scalar tails and in cached code,
so that results depended on the number of threads. These functions are compiled without it: the bits of an element
depend on its numbers alone. Nothing is lost, because steps wait for memory.
"""

import numpy as np

from rvtrain._kernels import in_order


@in_order
def mixed(a, x, b, y):
    """a x + b y."""
    return a * x + b * y


@in_order
def between(x, y, part):
    """x + part · (y − x), which is x where y = x."""
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
