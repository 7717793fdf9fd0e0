"""The loops of adapters and their gradients other than matrix products: normalisation, GELU, copies and sums of rows.

GELU by its tanh: z (1 + tanh(√(2/π) (z + 0.044715 z³))) / 2 = z σ(t), t = √(8/π) (z + 0.044715 z³).
"""

import math

import numpy as np

from rvtrain._engine._exp import exp
from rvtrain._engine._prefetch import prefetch_row
from rvtrain._kernels import kernel

_EPS = 1e-5
_SLOPE = math.sqrt(8.0 / math.pi)
_CUBE = 0.044715
_AHEAD = 3  # rows


@kernel
def layer_norm(start, stop, x, gain, shift, normal, inverses, out):
    """normal = (x − mean) · inverse by row, inverse = 1 / √(var + 1e-5); out = gain · normal + shift.

    Shapes: x, normal and out (n, d), inverses (n,).
    """
    for i in range(start, stop):
        mean, square = 0.0, 0.0
        for k in range(x.shape[1]):
            mean += np.float64(x[i, k])
        mean /= x.shape[1]
        for k in range(x.shape[1]):
            square += (x[i, k] - mean) * (x[i, k] - mean)
        center = x.dtype.type(mean)
        inverse = x.dtype.type(1.0 / np.sqrt(square / x.shape[1] + _EPS))
        inverses[i] = inverse
        for k in range(x.shape[1]):
            normal[i, k] = (x[i, k] - center) * inverse
            out[i, k] = gain[k] * normal[i, k] + shift[k]


@kernel
def layer_norm_backward(start, stop, grad, gain, normal, inverses, out):
    """out = inverse · (g − mean(g) − normal · mean(g · normal)) by row, g = gain · grad: the gradient to x.

    Shapes: grad, normal and out (n, d), inverses (n,).
    """
    for i in range(start, stop):
        mean, along = 0.0, 0.0
        for k in range(grad.shape[1]):
            g = np.float64(gain[k] * grad[i, k])
            mean += g
            along += g * normal[i, k]
        center, slope = grad.dtype.type(mean / grad.shape[1]), grad.dtype.type(along / grad.shape[1])
        for k in range(grad.shape[1]):
            out[i, k] = inverses[i] * (gain[k] * grad[i, k] - center - slope * normal[i, k])


@kernel
def gelu(start, stop, z, out):
    """out = z σ(t); both (n, d)."""
    real = z.dtype.type
    slope, cubic, one = real(_SLOPE), real(_SLOPE * _CUBE), real(1)
    for i in range(start, stop):
        for k in range(z.shape[1]):
            x = z[i, k]
            e = exp(-abs(x * (x * x * cubic + slope)))
            out[i, k] = x * (one if x >= 0 else e) / (one + e)


@kernel
def gelu_backward(start, stop, z, grad):
    """grad *= the derivative of GELU at z, g + z g (1 − g) t′ with g = σ(t); z, grad (n, d)."""
    real = z.dtype.type
    slope, cubic, one, three = real(_SLOPE), real(_SLOPE * _CUBE), real(1), real(3)
    for i in range(start, stop):
        for k in range(z.shape[1]):
            x = z[i, k]
            e = exp(-abs(x * (x * x * cubic + slope)))
            gate = (one if x >= 0 else e) / (one + e)
            grad[i, k] *= gate + x * gate * (one - gate) * (slope + three * cubic * x * x)


@kernel
def add_rows(start, stop, values, rows, total):
    """total[rows[i]] += values[i] for i in order; count is the number of columns, because rows may repeat.

    Shapes: values (n, d), rows (n,), total (m, d); start and stop are columns.
    """
    for i in range(len(rows)):
        row, added = total[rows[i], start:stop], values[i, start:stop]
        for k in range(len(added)):
            row[k] += added[k]


@kernel
def take_rows(start, stop, table, rows, out):
    """out[i] = table[rows[i]]; table (m, d), rows (n,), out (n, d). Rows in random order have to be fetched early."""
    for i in range(start, stop):
        if i + _AHEAD < stop:
            prefetch_row(table, rows[i + _AHEAD])
        source, target = table[rows[i]], out[i]
        for k in range(len(target)):
            target[k] = source[k]
