"""Distances and sums over the pairs of an edge, and sums over the entries of a node, in vector registers."""

import numpy as np

from rvtrain._engine._tile import vector_bytes
from rvtrain._kernels import emitted

_VECTORS = 4
"""Vectors of a row at a time: as many of its sums, and two factors, are in the 16 registers."""


def _over_columns(emit, dim, dtype, body, *carried):
    """Emit carried = body(c, vectors, lanes, *carried) for all columns c; returns the last `carried`.

    These are several vectors at a time, then one, then half of one, …
    """
    lanes, vectors, c = vector_bytes() // dtype.itemsize, _VECTORS, emit.constant(0)
    while lanes:
        stop = dim - dim % (vectors * lanes)
        carried = emit.loop(c, stop, vectors * lanes, carried, _with(body, vectors, lanes))
        c = stop
        if vectors > 1:
            vectors = 1
        else:
            lanes //= 2
    return carried


def _with(body, vectors, lanes):
    return lambda c, *carried: body(c, vectors, lanes, *carried)


def _others(ends, e):
    """The second node of each pair of an edge; its first node where no node was drawn."""
    return np.where(ends[e, 1:] < 0, ends[e, 0], ends[e, 1:])


def _emit_other(emit, ends, e, p, i):
    """The same of pair p − 1."""
    v = (ends + (e * ends.shape[1] + p)).load().astype(np.intp)
    return (v < 0).choose(i, v)


def _squares_of_edge(z, ends, e, out):
    differences = z[ends[e, 0]] - z[_others(ends, e)]
    squares = (differences * differences).sum(axis=1)
    out.reshape(-1, ends.shape[1] - 1)[e] = np.where(ends[e, 1:] < 0, -1, squares)


@emitted(_squares_of_edge)
def squares_of_edge(emit, z, ends, e, out):
    """out[e, c] = ‖z_i − z_v‖² of the nodes i and v of pair c of edge e, −1 where no node was drawn.

    Shapes: z (n, d), ends (B, 2 + k), −1 for no node, out (B, 1 + k) or (B · (1 + k),).
    """
    dim, width = z.shape[1], ends.shape[1]
    i = (ends + e * width).load().astype(np.intp)
    out = out + (e * (width - 1) - 1)

    def begin(p):  # the distance of v from itself is added where no node was drawn
        v, zero = (ends + (e * width + p)).load(), emit.constant(0.0, z.dtype)
        (out + p).store((v < 0).choose(zero - 1.0, zero))
        return []

    def columns(c, vectors, lanes):
        row = [(z + (i * dim + c + j * lanes)).load(lanes) for j in range(vectors)]

        def add(p):
            other = z + (_emit_other(emit, ends, e, p, i) * dim + c)
            squares = [x * x for x in (x - (other + j * lanes).load(lanes) for j, x in enumerate(row))]
            while len(squares) > 1:
                squares = [a + b for a, b in zip(squares[::2], squares[1::2], strict=True)]
            (out + p).store((out + p).load(1) + _total(squares[0]))
            return []

        emit.loop(emit.constant(1), width, 1, [], add)
        return []

    emit.loop(emit.constant(1), width, 1, [], begin)
    _over_columns(emit, dim, z.dtype, columns)


def _total(vector):
    """The sum of the elements, in a vector of one: halves are added until one element is left."""
    while vector.lanes > 1:
        half = vector.lanes // 2
        vector = vector.shuffle(vector, range(half)) + vector.shuffle(vector, range(half, 2 * half))
    return vector


def _sum_of_edge(z, ends, e, factors, own, sources, to_source):
    row = z[ends[e, 0]]
    sources[e] = row
    factors = factors.reshape(-1, ends.shape[1] - 1)[e]
    to_source[e] = factors @ (row - z[_others(ends, e)]) + own * row


@emitted(_sum_of_edge)
def sum_of_edge(emit, z, ends, e, factors, own, sources, to_source):
    """sources[e] = z_i, to_source[e] = Σ_c factors[e, c] (z_i − z_v) + own z_i; i = ends[e, 0], v = ends[e, c + 1].

    Shapes: z (n, d), ends (B, 2 + k), −1 for no node, factors as in `squares_of_edge`, sources and to_source (B, d).
    """
    dim, width = z.shape[1], ends.shape[1]
    i = (ends + e * width).load().astype(np.intp)

    def columns(c, vectors, lanes):
        row = [(z + (i * dim + c + j * lanes)).load(lanes) for j in range(vectors)]

        def add(p, *sums):
            factor = (factors + (e * (width - 1) + p - 1)).load().broadcast(lanes)
            other = z + (_emit_other(emit, ends, e, p, i) * dim + c)
            return [
                emit.fma(factor, x - (other + j * lanes).load(lanes), total)
                for j, (x, total) in enumerate(zip(row, sums, strict=True))
            ]

        started = [own.broadcast(lanes) * x for x in row]
        sums = emit.loop(emit.constant(1), width, 1, started, add)
        for j, (x, total) in enumerate(zip(row, sums, strict=True)):
            (sources + (e * dim + c + j * lanes)).store(x)
            (to_source + (e * dim + c + j * lanes)).store(total)
        return []

    _over_columns(emit, dim, z.dtype, columns)


def _sum_of_node(z, v, owners, entries, begin, middle, end, factors, own, sources, to_source, out, at):
    pairs = factors.reshape(-1)[entries[middle:end]] @ (z[v] - sources[owners[middle:end]])
    out[at] = to_source[owners[begin:middle]].sum(axis=0) + pairs + own * z[v]
    return out[at].any()


@emitted(_sum_of_node, np.bool_)
def sum_of_node(emit, z, v, owners, entries, begin, middle, end, factors, own, sources, to_source, out, at):
    """out[at] = Σ to_source[e] + Σ factors[q] (z_v − sources[e]) + own z_v, with e = owners[s] and q = entries[s].

    The first sum is over s from begin to middle, the second from middle to end. Returns whether one is not 0.

    Shapes: z (n, d), owners and entries (m,), factors as in `squares_of_edge`, sources and to_source (B, d),
    out (…, d).
    """
    dim = z.shape[1]

    def columns(c, vectors, lanes, found):
        row = [(z + (v * dim + c + j * lanes)).load(lanes) for j in range(vectors)]

        def at_slot(numbers, s):
            return (numbers + s).load().astype(np.intp)

        def place(table, s):
            return table + (at_slot(owners, s) * dim + c)

        def add_edge(s, *sums):
            return [total + (place(to_source, s) + j * lanes).load(lanes) for j, total in enumerate(sums)]

        def add_pair(s, *sums):
            factor, source = (factors + at_slot(entries, s)).load().broadcast(lanes), place(sources, s)
            return [
                emit.fma(factor, x - (source + j * lanes).load(lanes), total)
                for j, (x, total) in enumerate(zip(row, sums, strict=True))
            ]

        sums = emit.loop(begin, middle, 1, [own.broadcast(lanes) * x for x in row], add_edge)
        sums = emit.loop(middle, end, 1, sums, add_pair)
        for j, total in enumerate(sums):
            (out + (at * dim + c + j * lanes)).store(total)
            found = found | total.differs(emit.constant(0.0, z.dtype, lanes)).bits()
        return [found]

    (found,) = _over_columns(emit, dim, z.dtype, columns, emit.constant(0, np.int32))
    return found.differs(0)
