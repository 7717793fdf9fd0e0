"""Sums over the pairs of an edge, and over the entries of a node, in vector registers."""

import numpy as np

from rvtrain._engine._tile import vector_bytes
from rvtrain._kernels import emitted

_VECTORS = 4
"""Vectors of a row at a time: as many of its sums, and two factors, are in the 16 registers."""


def _over_columns(emit, dim, dtype, body):
    """Emit body(c, vectors, lanes) for all columns c: several vectors at a time, then one, then half of one, …"""
    lanes, vectors, c = vector_bytes() // dtype.itemsize, _VECTORS, emit.constant(0)
    while lanes:
        stop = dim - dim % (vectors * lanes)
        emit.loop(c, stop, vectors * lanes, [], _with(body, vectors, lanes))
        c = stop
        if vectors > 1:
            vectors = 1
        else:
            lanes //= 2


def _with(body, vectors, lanes):
    return lambda c: body(c, vectors, lanes)


def _sum_of_edge(z, ends, e, factors, own, sources, to_source):
    i = ends[e, 0]
    sources[e] = z[i]
    others = np.where(ends[e, 1:] < 0, i, ends[e, 1:])
    to_source[e] = factors[e] @ (z[i] - z[others]) + own * z[i]


@emitted(_sum_of_edge)
def sum_of_edge(emit, z, ends, e, factors, own, sources, to_source):
    """sources[e] = z_i, to_source[e] = Σ_c factors[e, c] (z_i − z_v) + own z_i; i = ends[e, 0], v = ends[e, c + 1].

    Shapes: z (n, d), ends (B, 2 + k), −1 for no node, factors (B, 1 + k), sources and to_source (B, d).
    """
    dim, width, index = z.shape[1], ends.shape[1], np.dtype(np.intp)
    i = (ends + e * width).load().astype(index)

    def columns(c, vectors, lanes):
        row = [(z + (i * dim + c + j * lanes)).load(lanes) for j in range(vectors)]

        def add(p, *sums):
            v = (ends + (e * width + p)).load().astype(index)
            v = (v < 0).choose(i, v)
            factor = (factors + (e * (width - 1) + p - 1)).load().broadcast(lanes)
            place = z + (v * dim + c)
            return [
                emit.fma(factor, x - (place + j * lanes).load(lanes), total)
                for j, (x, total) in enumerate(zip(row, sums, strict=True))
            ]

        started = [own.broadcast(lanes) * x for x in row]
        sums = emit.loop(emit.constant(1), width, 1, started, add)
        for j, (x, total) in enumerate(zip(row, sums, strict=True)):
            (sources + (e * dim + c + j * lanes)).store(x)
            (to_source + (e * dim + c + j * lanes)).store(total)
        return []

    _over_columns(emit, dim, z.dtype, columns)


def _sum_of_node(z, v, owners, begin, middle, end, factors, own, sources, to_source, out, at):
    pairs = factors[middle:end] @ (z[v] - sources[owners[middle:end]])
    out[at] = to_source[owners[begin:middle]].sum(axis=0) + pairs + own * z[v]


@emitted(_sum_of_node)
def sum_of_node(emit, z, v, owners, begin, middle, end, factors, own, sources, to_source, out, at):
    """out[at] = Σ to_source[e] + Σ factors[s] (z_v − sources[e]) + own z_v, with e = owners[s].

    The first sum is over s from begin to middle, the second from middle to end.
    Shapes: z (n, d), owners and factors (m,), sources and to_source (B, d), out (…, d).
    """
    dim, index = z.shape[1], np.dtype(np.intp)

    def columns(c, vectors, lanes):
        row = [(z + (v * dim + c + j * lanes)).load(lanes) for j in range(vectors)]

        def place(table, s):
            return table + ((owners + s).load().astype(index) * dim + c)

        def add_edge(s, *sums):
            return [total + (place(to_source, s) + j * lanes).load(lanes) for j, total in enumerate(sums)]

        def add_pair(s, *sums):
            factor, source = (factors + s).load().broadcast(lanes), place(sources, s)
            return [
                emit.fma(factor, x - (source + j * lanes).load(lanes), total)
                for j, (x, total) in enumerate(zip(row, sums, strict=True))
            ]

        sums = emit.loop(begin, middle, 1, [own.broadcast(lanes) * x for x in row], add_edge)
        sums = emit.loop(middle, end, 1, sums, add_pair)
        for j, total in enumerate(sums):
            (out + (at * dim + c + j * lanes)).store(total)
        return []

    _over_columns(emit, dim, z.dtype, columns)
